"""The problem in normal form: sizes, dtypes, and arrays as addresses and strides. All user errors are raised here.

An error names the argument, shows what came and says what is expected, and comes before anything is written.
"""

import itertools
import operator

import numpy as np

cimport numpy as cnp
from libc.string cimport memcpy, memset
from numpy cimport ndarray

from fastconv._kernels.kernel cimport (
    BYTES, ceil_div, dim, FLOAT32, FLOAT64, Image, INT32, INT64, LINE, line_from, PAIRS, Shape, SHORTS,
    UNSIGNED_BYTES, Weights,
)

cnp.import_array()

cdef enum:
    ALIGNED = 1 << 16       # bytes of a result from which on it is worth a view to let it begin with one
    MAPPED = 32 << 20       # from which on malloc has each come from the system, a page at a time, to be cleared;
    KEPT = 256 << 20        # most that is kept of such

cdef dim MOST_BYTES = 1 << 62  # larger than any memory, and far from where a product would wrap
MODES = ("valid", "same", "full")
PAD_MODES = ("constant", "reflect", "symmetric", "edge", "wrap")
LAYOUTS = ("NCHW", "NHWC")


cdef ndarray as_array(object value, str name):
    """value as an array, of no subclass; not copied where it is one or can be viewed as one."""
    if cnp.PyArray_CheckExact(value):
        return value
    try:
        if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
            return np.from_dlpack(value)
        return np.asarray(value)
    except Exception as error:
        raise TypeError(f"{name} can't be read as an array: {error}") from error


cdef ndarray array_argument(object value, str name):
    """x or w as an array that can be computed with."""
    cdef ndarray array = as_array(value, name)
    if not (cnp.PyArray_TYPE(array) == cnp.NPY_FLOAT or cnp.PyArray_TYPE(array) == cnp.NPY_DOUBLE):
        check_dtype(array.dtype, f"{name} has dtype")
    return array


cdef int check_dtype(object dtype, str what) except -1:
    """Raise unless dtype is one that can be computed with."""
    if dtype.char in "gG":
        raise TypeError(f"{what} {dtype}; cast it with .astype('{'float64' if dtype.char == 'g' else 'complex128'}')")
    if dtype.kind not in "biufc" and dtype.name != "bfloat16":
        raise TypeError(f"{what} {dtype}; expected numbers: cast it with .astype('float64') or another numeric dtype")
    return 0


cdef list items_of(object value, dim most):
    """A sequence's items, of which more than `most` are too many to matter; TypeError where it is none."""
    if isinstance(value, (str, bytes, dict)):
        raise TypeError
    try:
        return [value[i] for i in range(min(len(value), most + 1))]
    except Exception:       # a set's, a memoryview's of more axes, or anybody's
        raise TypeError from None


cdef int pair(object value, str what, dim least, dim* first, dim* second) except -1:
    """An option that is an integer or a pair of them, for rows and for columns; `what` it is, for errors."""
    try:
        numbers = [operator.index(value)] * 2
    except TypeError:
        try:
            numbers = [operator.index(number) for number in items_of(value, 2)]
        except TypeError:
            raise TypeError(f"{what} of integers") from None
    if len(numbers) != 2 or min(numbers) < least:
        raise ValueError(f"{what}, of at least {least}")
    if max(numbers) > MOST_BYTES:
        raise ValueError(f"{what}, of at most {MOST_BYTES}")
    first[0], second[0] = numbers
    return 0


cdef int set_padding(Problem* problem, object padding) except -1:
    """padding as one integer, one for rows and one for columns, or ((top, bottom), (left, right))."""
    what = f"padding is {padding!r}; expected an integer, a pair, or ((top, bottom), (left, right))"
    if isinstance(padding, str):
        raise ValueError(f"{what}, or see mode")
    try:
        halves = [items_of(half, 2) for half in items_of(padding, 2)]
    except TypeError:       # no pair of pairs
        pair(padding, what, 0, &problem.top, &problem.left)
        problem.bottom, problem.right = problem.top, problem.left
        return 0
    if [len(half) for half in halves] != [2, 2]:
        raise ValueError(what)
    pair(halves[0], what, 0, &problem.top, &problem.bottom)
    pair(halves[1], what, 0, &problem.left, &problem.right)
    return 0


cdef object number_argument(object value, str name):
    """value as a Python or NumPy number: read once, whatever it is."""
    cdef ndarray array
    if value is ZERO:
        return value
    array = as_array(value, name)
    if cnp.PyArray_NDIM(array) != 0 or array.dtype.kind not in "biufc":
        raise TypeError(f"{name} is {value!r}; expected a number")
    return array[()]


cdef object flag_argument(object value, str name):
    if type(value) not in (bool, np.bool_):
        raise TypeError(f"{name} is {value!r}; expected True or False")
    return bool(value)


cdef int set_options(Problem* problem, object mode, object stride, object padding, object dilation, object groups,
                     object pad_mode, object pad_value, object layout) except -1:
    """What the sizes depend on beside the arrays. Paddings of modes "same" and "full" come when the filter is known."""
    cdef Shape* shape = &problem.shape
    shape.p_step = shape.q_step = shape.r_step = shape.s_step = shape.G = 1
    problem.top = problem.bottom = problem.left = problem.right = 0
    problem.mode = problem.pad_mode = 0
    problem.turned = False
    shape.channels_last = shape.gathered = shape.unpacked = shape.separable = False
    if not (mode is VALID or isinstance(mode, str) and mode in MODES):
        raise ValueError(f"mode is {mode!r}; expected 'valid', 'same' or 'full'")
    if mode is not VALID:
        problem.mode = MODES.index(mode)
    if stride is not ONE:
        pair(stride, f"stride is {stride!r}; expected an integer or a pair", 1, &shape.p_step, &shape.q_step)
    if dilation is not ONE:
        pair(dilation, f"dilation is {dilation!r}; expected an integer or a pair", 1, &shape.r_step, &shape.s_step)
    if padding is not ZERO:
        set_padding(problem, padding)
        if problem.mode != 0 and (problem.top or problem.bottom or problem.left or problem.right):
            raise ValueError(f"padding is {padding!r} with mode={mode!r}, which pads by itself; expected mode='valid'")
    if groups is not ONE:
        try:
            shape.G = operator.index(groups)
        except TypeError:
            raise TypeError(f"groups is {groups!r}; expected an integer") from None
        except OverflowError:
            shape.G = 0
        if shape.G < 1:
            raise ValueError(f"groups is {groups!r}; expected a number that divides the channels and the filters")
    if pad_mode is not CONSTANT:
        if not isinstance(pad_mode, str) or pad_mode not in PAD_MODES:
            raise ValueError(f"pad_mode is {pad_mode!r}; expected one of {', '.join(map(repr, PAD_MODES))}")
        problem.pad_mode = PAD_MODES.index(pad_mode)
    if pad_value is not ZERO:
        if problem.pad_mode != 0 and pad_value != 0:
            raise ValueError(f"pad_value is {pad_value} with pad_mode={pad_mode!r}; expected pad_mode='constant'")
    if layout is not NCHW:
        if not isinstance(layout, str) or layout not in LAYOUTS:
            raise ValueError(f"layout is {layout!r}; expected 'NCHW' or 'NHWC'")
        shape.channels_last = layout == "NHWC"
    return 0


# What the options' defaults are, to be told by identity.
cdef object VALID = "valid"
cdef object CONSTANT = "constant"
cdef object NCHW = "NCHW"
cdef object ZERO = 0
cdef object ONE = 1


cdef inline void set_computed(Problem* problem, int typenum):
    """A dtype that is computed in itself, float32 or float64."""
    problem.result = problem.typenum = typenum
    problem.is_complex = False
    problem.shape.dtype = FLOAT32 if typenum == cnp.NPY_FLOAT else FLOAT64
    problem.shape.item = 4 if typenum == cnp.NPY_FLOAT else 8


cdef int set_dtype(Problem* problem, ndarray x, ndarray w, object dtype) except -1:
    """The result's dtype, NumPy's for x and w together or a wider one that is asked for, and what it is computed in."""
    cdef int typenum = cnp.PyArray_TYPE(w)
    if (typenum == cnp.NPY_FLOAT or typenum == cnp.NPY_DOUBLE) and cnp.PyArray_TYPE(x) == typenum and dtype is None:
        set_computed(problem, typenum)
        return 0
    if dtype is None:
        try:
            result = np.result_type(x.dtype, w.dtype)
        except TypeError:       # of bfloat16 and float16, for one
            raise TypeError(f"x has dtype {x.dtype} and w {w.dtype}, for which NumPy has no common one; expected dtype="
                            " to name one that holds both") from None
    else:
        try:
            result = np.dtype(dtype)
        except Exception as error:
            raise TypeError(f"dtype is {dtype!r}; expected a NumPy dtype or None") from error
        check_dtype(result, "dtype is")
        for array, name in ((x, "x"), (w, "w")):
            if not np.can_cast(array.dtype, result):
                raise TypeError(f"dtype is {result}; expected one that holds {array.dtype}, the dtype of {name}")
    if result.char in "qQ":
        result = np.dtype(f"{result.kind}8")    # int64's name in NumPy, of two C types that are the same
    if result.num == cnp.NPY_FLOAT or result.num == cnp.NPY_DOUBLE:
        set_computed(problem, result.num)
        return 0
    problem.result = problem.typenum = result.num
    problem.is_complex = result.kind == "c"
    if result.kind in "biu":
        # Integers of less than 32 bits are the low bits of what 32 bits compute; the sign makes no difference.
        problem.shape.item = max(4, result.itemsize)
        problem.shape.dtype = INT32 if problem.shape.item == 4 else INT64
        if result.itemsize < 4:
            problem.typenum = cnp.NPY_INT32
    elif result.kind == "c":        # a real problem of twice the channels and filters: see _complex
        problem.typenum = cnp.NPY_FLOAT if result.itemsize == 8 else cnp.NPY_DOUBLE
        problem.shape.item = result.itemsize // 2
        problem.shape.dtype = FLOAT32 if problem.shape.item == 4 else FLOAT64
    else:                           # float16 and bfloat16, rounded once
        problem.typenum = cnp.NPY_FLOAT
        problem.shape.dtype = FLOAT32
        problem.shape.item = 4
    return 0


cdef int set_pad_value(Problem* problem, object pad_value) except -1:
    """The pad value as the bytes of one value of the dtype that is computed in."""
    cdef ndarray value
    memset(problem.pad, 0, 8)
    if pad_value is not ZERO and not problem.is_complex:
        value = np.asarray(pad_value)
        result = cnp.PyArray_DescrFromType(problem.result)
        if value.dtype.kind == "c":
            raise TypeError(f"pad_value is {pad_value}; expected a real number with a result of dtype {result}")
        with np.errstate(all="ignore"):
            value = value.astype(result)
            value = value.astype(cnp.PyArray_DescrFromType(problem.typenum))
        memcpy(problem.pad, cnp.PyArray_DATA(value), problem.shape.item)
    return 0


cdef int pair_channels(Problem* problem, ndarray x, ndarray w) except -1:
    """Compute with PAIRS where the bits that count of x, w and the pad value are 16: two products an instruction.

    A group would have channels of its own to pair; then nothing changes.
    """
    cdef Shape* shape = &problem.shape
    cdef int pad
    cdef unsigned int both
    memcpy(&pad, problem.pad, sizeof(int))
    if shape.dtype != INT32 or shape.G > 1:
        return 0
    # Results of 16 bits or fewer are the low bits of any.
    if (cnp.PyArray_DescrFromType(problem.result).itemsize == 4
            and not (short_values(x) and short_values(w) and -(1 << 15) <= pad < 1 << 15)):
        return 0
    shape.dtype = PAIRS
    shape.C = ceil_div(shape.C, 2)
    shape.gathered = True
    both = (<unsigned int> pad & 0xffff) * 0x10001
    memcpy(problem.pad, &both, sizeof(int))
    return 0


cdef inline void exchange(dim* a, dim* b) noexcept:
    a[0], b[0] = b[0], a[0]


cdef void turn_column(Problem* problem) noexcept:
    """Where all is one column, let it be a row: kernels have long rows in mind. The last step of making a problem.

    A complex one is turned as the real one that is made of it.
    """
    cdef Shape* shape = &problem.shape
    if shape.W != 1 or shape.S != 1 or shape.H <= 1 or problem.left or problem.right or problem.is_complex:
        return
    problem.turned = True
    exchange(&shape.H, &shape.W)
    exchange(&shape.R, &shape.S)
    exchange(&shape.P, &shape.Q)
    exchange(&shape.p_step, &shape.q_step)
    exchange(&shape.r_step, &shape.s_step)
    exchange(&problem.top, &problem.left)
    exchange(&problem.bottom, &problem.right)


cdef (dim, dim) as_given(const Problem* problem, dim rows, dim columns) noexcept:
    """What the shape has of rows and of columns, of the arrays' rows and columns; or the other way round."""
    return (columns, rows) if problem.turned else (rows, columns)


cdef tuple padding_sides(const Problem* problem):
    """((top, bottom), (left, right)), as it was given."""
    sides = (problem.top, problem.bottom), (problem.left, problem.right)
    return sides[::-1] if problem.turned else sides


cdef tuple image_shape(const Problem* problem, dim channels, dim rows, dim columns):
    """Of one image, in the arrays' layout."""
    image = as_given(problem, rows, columns)
    if problem.ndim == 2:
        return image
    return (*image, channels) if problem.shape.channels_last else (channels, *image)


cdef bint short_values(ndarray array):
    """Whether an array's dtype is one of those that int16 holds."""
    return cnp.PyArray_TYPE(array) <= cnp.NPY_SHORT


cdef ndarray paired_weights(ndarray w):
    """Filters of PAIRS, with a weight of 0 beside a channel that is alone."""
    channels = w if w.ndim > 2 else w[np.newaxis]
    pairs = channels[..., ::2, :, :].astype(np.uint32) & 0xffff
    pairs[..., : channels.shape[channels.ndim - 3] // 2, :, :] |= channels[..., 1::2, :, :].astype(np.uint32) << 16
    return pairs


cdef object shape_tuple(int ndim, const dim* sizes):
    return tuple([sizes[i] for i in range(ndim)])


cdef int set_sizes(Problem* problem, int x_ndim, const dim* x_shape, ndarray w) except -1:
    """N, C, H, W of x, K, C, R, S of w, and P, Q of y, from the options and the arrays' shapes."""
    cdef Shape* shape = &problem.shape
    cdef dim* w_shape = <dim*> cnp.PyArray_DIMS(w)
    cdef int w_ndim = cnp.PyArray_NDIM(w)
    cdef dim channels, filters
    cdef int c, h               # axes of x
    if not (x_ndim == 2 and w_ndim == 2 or x_ndim in (3, 4) and w_ndim in (3, 4)):
        raise ValueError(
            f"x has shape {shape_tuple(x_ndim, x_shape)} and w has shape {shape_tuple(w_ndim, w_shape)}; expected x as "
            "(C, H, W) or (N, C, H, W) and w as (K, C, R, S) or (C, R, S), or both 2-D"
        )
    if x_ndim == 2:
        shape.channels_last = False
    problem.ndim = x_ndim
    c = x_ndim - 1 if shape.channels_last else x_ndim - 3
    h = x_ndim - 3 if shape.channels_last else x_ndim - 2
    shape.N = x_shape[0] if x_ndim == 4 else 1
    channels = x_shape[c] if x_ndim > 2 else 1
    shape.H = x_shape[h]
    shape.W = x_shape[h + 1]
    filters = w_shape[0] if w_ndim == 4 else 1
    shape.C = problem.channels = w_shape[w_ndim - 3] if w_ndim > 2 else 1
    shape.R = w_shape[w_ndim - 2]
    shape.S = w_shape[w_ndim - 1]
    # A step that is never taken may be of any size.
    shape.r_step = 1 if shape.R == 1 else shape.r_step
    shape.s_step = 1 if shape.S == 1 else shape.s_step
    if shape.G > 1 and (channels % shape.G or filters % shape.G):
        raise ValueError(f"groups is {shape.G}; expected a number that divides the {channels} channels of x and the "
                         f"{filters} filters of w")
    if channels != shape.C * shape.G:
        of = f" in each of {shape.G} groups" if shape.G > 1 else ""
        other = x_shape[x_ndim - 3 if shape.channels_last else x_ndim - 1] if x_ndim > 2 else channels
        hint = f"; with layout={LAYOUTS[not shape.channels_last]!r} {other}" if other == shape.C * shape.G else ""
        raise ValueError(
            f"x has {channels} channels (shape {shape_tuple(x_ndim, x_shape)}{hint}) and w has {shape.C}{of} "
            f"(shape {shape_tuple(w_ndim, w_shape)}); expected as many"
        )
    if shape.C == 0 or shape.R == 0 or shape.S == 0:
        raise ValueError(
            f"w has shape {shape_tuple(w_ndim, w_shape)}; expected at least one channel, row and column"
        )
    shape.K = filters // shape.G
    shape.P = shape.Q = 1       # until they are known; they might wrap
    check_bytes(problem)
    if problem.mode == 1:
        same_padding(shape.R, shape.r_step, &problem.top, &problem.bottom)
        same_padding(shape.S, shape.s_step, &problem.left, &problem.right)
    elif problem.mode == 2:
        problem.top = problem.bottom = (shape.R - 1) * shape.r_step
        problem.left = problem.right = (shape.S - 1) * shape.s_step
    if problem.pad_mode != 0 and (shape.H == 0 or shape.W == 0):
        raise ValueError(f"x has shape {shape_tuple(x_ndim, x_shape)}; expected pixels to pad with")
    shape.P = outputs(shape.H + problem.top + problem.bottom, shape.R, shape.r_step, shape.p_step)
    shape.Q = outputs(shape.W + problem.left + problem.right, shape.S, shape.s_step, shape.q_step)
    if shape.P <= 0 or shape.Q <= 0:
        padded = "" if not (problem.top or problem.bottom or problem.left or problem.right) else (
            f" and {shape.H + problem.top + problem.bottom} x {shape.W + problem.left + problem.right} with its padding"
        )
        dilated = "" if shape.r_step == 1 == shape.s_step else (
            f", {(shape.R - 1) * shape.r_step + 1} x {(shape.S - 1) * shape.s_step + 1} with its dilation"
        )
        raise ValueError(
            f"w is {shape.R} x {shape.S} (shape {shape_tuple(w_ndim, w_shape)}){dilated}, larger than x, which is "
            f"{shape.H} x {shape.W} (shape {shape_tuple(x_ndim, x_shape)}){padded}; expected R <= H and S <= W"
        )
    if problem.top or problem.bottom or problem.left or problem.right:
        shape.gathered = True
    if shape.channels_last and channels > 1:
        shape.gathered = True
    return check_bytes(problem)


cdef inline dim outputs(dim padded, dim taps, dim dilation, dim stride):
    """Windows along one axis; none, or less, where the filter is larger."""
    if padded < (taps - 1) * dilation + 1:
        return 0
    if stride == 1:
        return padded - (taps - 1) * dilation
    return (padded - (taps - 1) * dilation - 1) // stride + 1


cdef inline void same_padding(dim taps, dim dilation, dim* before, dim* after):
    """The slice of "full" that starts at (R-1)//2: what it reads before x and after it."""
    cdef dim reach = (taps - 1) * dilation
    before[0] = reach - reach // 2
    after[0] = reach // 2


cdef int check_bytes(const Problem* problem) except -1:
    """Raise where a product of sizes is larger than any memory: so none of those computed later wraps."""
    cdef const Shape* shape = &problem.shape
    cdef double images = max(shape.N, 1)
    cdef double filters = <double> max(shape.K, 1) * shape.G
    cdef double height = max(<double> shape.H + problem.top + problem.bottom, <double> shape.R * shape.r_step)
    cdef double width = max(<double> shape.W + problem.left + problem.right, <double> shape.S * shape.s_step)
    if (images * filters * height * width * 8 > MOST_BYTES
            or images * shape.C * shape.G * height * width * 8 > MOST_BYTES
            or (filters + 64) * shape.C * shape.R * shape.S * 64 > MOST_BYTES
            or shape.P > 1 and <double> shape.p_step * height > MOST_BYTES
            or shape.Q > 1 and <double> shape.q_step * width > MOST_BYTES):
        image = image_shape(problem, problem.channels * shape.G, shape.H, shape.W)
        if problem.ndim > 3:
            image = (shape.N, *image)
        padding = padding_sides(problem)
        padded = f", with padding {padding}" if any(map(any, padding)) else ""
        dilation = as_given(problem, shape.r_step, shape.s_step)
        dilated = f", with dilation {dilation}" if dilation != (1, 1) else ""
        taps = as_given(problem, shape.R, shape.S)
        raise ValueError(
            f"x has shape {image} and w, as a bank, {(shape.K * shape.G, problem.channels, *taps)}{padded}{dilated}: "
            "their result, weights or reach would be larger than any memory"
        )
    return 0


cdef int read_shape(object x_shape, dim* sizes) except -1:
    """A shape argument into sizes; returns how many, at most 4."""
    try:
        numbers = [operator.index(number) for number in itertools.islice(x_shape, 5)]
    except (TypeError, NotImplementedError):
        raise TypeError(f"x_shape is {x_shape!r}; expected a tuple of integers") from None
    if not 2 <= len(numbers) <= 4 or min(numbers) < 0:
        raise ValueError(f"x_shape is {x_shape!r}; expected (C, H, W), (N, C, H, W) or (H, W), none negative")
    for i, number in enumerate(numbers):
        if number > MOST_BYTES:
            raise ValueError(f"x_shape is {x_shape!r}, larger than any memory")
        sizes[i] = number
    return len(numbers)


cdef int set_images(Problem* problem, ndarray x) except -1:
    """Take the number of images from x, after a look at whether it is what was planned for."""
    cdef Shape* shape = &problem.shape
    cdef int ndim = cnp.PyArray_NDIM(x)
    cdef dim* sizes = <dim*> cnp.PyArray_DIMS(x)
    cdef int c = ndim - 1 if shape.channels_last else ndim - 3
    cdef int h = ndim - 3 if shape.channels_last else ndim - 2
    cdef (dim, dim) planned = as_given(problem, shape.H, shape.W)
    if (ndim == 2) != (problem.ndim == 2) or not 2 <= ndim <= 4 or (
        sizes[h] != planned[0] or sizes[h + 1] != planned[1] or ndim > 2 and sizes[c] != problem.channels * shape.G
    ):
        image = image_shape(problem, problem.channels * shape.G, shape.H, shape.W)
        several = ", or N of them" if problem.ndim > 2 else ""
        raise ValueError(f"x has shape {np.shape(x)}; expected {image}{several}, as planned")
    if not (cnp.PyArray_TYPE(x) == problem.result
            or np.can_cast(x.dtype, cnp.PyArray_DescrFromType(problem.result))):
        raise TypeError(
            f"x has dtype {x.dtype}; expected {cnp.PyArray_DescrFromType(problem.result)} as planned, or one it holds"
        )
    problem.ndim = ndim
    shape.N = sizes[0] if ndim == 4 else 1
    return check_bytes(problem)


cdef inline bint usable(ndarray array, int typenum):
    """Whether a kernel can read the array's values where they are."""
    return cnp.PyArray_TYPE(array) == typenum and cnp.PyArray_ISBEHAVED_RO(array)


cdef ndarray converted(ndarray array, int typenum):
    """The values in the computing dtype, native, aligned and C-contiguous."""
    cdef int flags = cnp.NPY_ARRAY_CARRAY_RO | cnp.NPY_ARRAY_NOTSWAPPED | cnp.NPY_ARRAY_FORCECAST
    return cnp.PyArray_FROM_OTF(array, typenum, flags)


cdef int check_unchanged(ndarray array, str name, dim first, dim second, dim third, dim fourth) except -1:
    """Raise unless the last axes are as they were: reading the other arguments may have run anybody's code."""
    cdef int ndim = cnp.PyArray_NDIM(array)
    cdef cnp.npy_intp sizes[4]
    sizes[0], sizes[1], sizes[2], sizes[3] = first, second, third, fourth
    if not 2 <= ndim <= 4 or not cnp.PyArray_CompareLists(cnp.PyArray_DIMS(array), sizes + 4 - ndim, ndim):
        raise ValueError(f"{name} has shape {np.shape(array)}; expected the one that it had when the call began")
    return 0


cdef int check_image(const Problem* problem, ndarray x) except -1:
    cdef const Shape* shape = &problem.shape
    cdef (dim, dim) image = as_given(problem, shape.H, shape.W)
    if shape.channels_last:
        return check_unchanged(x, "x", shape.N, image[0], image[1], shape.G * problem.channels)
    return check_unchanged(x, "x", shape.N, shape.G * problem.channels, image[0], image[1])


cdef int check_weights(const Problem* problem, ndarray w) except -1:
    cdef const Shape* shape = &problem.shape
    cdef (dim, dim) taps = as_given(problem, shape.R, shape.S)
    return check_unchanged(w, "w", shape.G * shape.K, problem.channels, taps[0], taps[1])


cdef ndarray read_weights(const Problem* problem, ndarray w, bint reverse, bint flip_channels, Weights* weights):
    """Address and strides of w, read backwards along rows and columns, or channels, where a flip is asked for.

    Returns the array that holds the values; it must live as long as they are read.
    """
    cdef const Shape* shape = &problem.shape
    cdef int last
    cdef cnp.npy_intp* strides
    check_weights(problem, w)
    if shape.dtype == PAIRS:
        w = paired_weights(w[..., ::-1, :, :] if flip_channels and w.ndim > 2 else w)
        flip_channels = False
    elif not usable(w, problem.typenum):
        w = converted(w, problem.typenum)
    last = cnp.PyArray_NDIM(w) - 1
    strides = cnp.PyArray_STRIDES(w)
    weights.data = cnp.PyArray_BYTES(w)
    weights.k = strides[0] if last == 3 else 0
    weights.c = strides[last - 2] if last >= 2 else 0
    weights.r, weights.s = as_given(problem, strides[last - 1], strides[last])
    if reverse:
        weights.data += (shape.R - 1) * weights.r + (shape.S - 1) * weights.s
        weights.r = -weights.r
        weights.s = -weights.s
    if flip_channels:
        weights.data += (shape.C - 1) * weights.c
        weights.c = -weights.c
    # The stride of an axis of one value says nothing: as in an array without gaps, kernels see that there are none.
    if shape.S == 1:
        weights.s = shape.item
    if shape.R == 1:
        weights.r = shape.S * shape.item
    if shape.C == 1:
        weights.c = shape.R * shape.S * shape.item
    return w


cdef ndarray read_bias(const Problem* problem, object bias, Weights* weights):
    """Address of the K biases, in the computing dtype and contiguous; returns the array that holds them, or None."""
    cdef ndarray array
    cdef dim filters = problem.shape.G * problem.shape.K
    weights.bias = NULL
    if bias is None:
        return None
    array = as_array(bias, "bias")
    kinds = "biufc" if problem.is_complex else "biuf"
    if array.dtype.kind not in kinds and array.dtype.name != "bfloat16" or array.dtype.char in "gG":
        raise TypeError(f"bias has dtype {array.dtype}; expected numbers that cast to the result's dtype")
    if cnp.PyArray_NDIM(array) != 1 or cnp.PyArray_DIMS(array)[0] != filters:
        raise ValueError(f"bias has shape {np.shape(array)}; expected ({filters},), one value a filter")
    # By way of the result's dtype: half precision rounds it, and a boolean is its truth.
    with np.errstate(all="ignore"):
        array = np.ascontiguousarray(array, cnp.PyArray_DescrFromType(problem.result))
        if not problem.is_complex:
            array = np.ascontiguousarray(array, cnp.PyArray_DescrFromType(problem.typenum))
    weights.bias = cnp.PyArray_BYTES(array)
    return array


cdef ndarray read_image(const Problem* problem, ndarray x, Image* image):
    """Address and strides of x, copied where its dtype isn't computed in, or its columns lie apart unexpectedly.

    Returns the array that holds the values; it must live as long as they are read.
    """
    cdef const Shape* shape = &problem.shape
    cdef int last = cnp.PyArray_NDIM(x) - 1
    cdef int c = last if shape.channels_last else last - 2
    cdef int h = last - 2 if shape.channels_last else last - 1
    cdef int w = h if problem.turned else h + 1
    cdef cnp.npy_intp* strides
    check_image(problem, x)
    if shape.dtype == PAIRS:
        x = read_narrow(x, image)
    elif not usable(x, problem.typenum) or (
        not shape.gathered and cnp.PyArray_STRIDES(x)[w] != shape.item and shape.W > 1
    ):
        x = converted(x, problem.typenum)
    strides = cnp.PyArray_STRIDES(x)
    image.data = cnp.PyArray_BYTES(x)
    image.n = strides[0] if last == 3 else 0
    image.c = strides[c] if last >= 2 else 0
    image.h, image.w = as_given(problem, strides[h], strides[h + 1])
    image.left = problem.left
    memcpy(image.pad, problem.pad, 8)
    if shape.dtype == PAIRS:
        image.channels = problem.channels
        image.second = image.c
        image.c *= 2
    return x


cdef ndarray read_narrow(ndarray x, Image* image):
    """x as integers of 8 or 16 bits, copied where it has others, or booleans, or can't be read as it stands."""
    cdef int typenum = cnp.PyArray_TYPE(x)
    image.narrow = SHORTS
    if typenum == cnp.NPY_BYTE:
        image.narrow = BYTES
    elif typenum == cnp.NPY_UBYTE:
        image.narrow = UNSIGNED_BYTES
    elif typenum != cnp.NPY_SHORT and typenum != cnp.NPY_USHORT or not cnp.PyArray_ISBEHAVED_RO(x):
        return converted(x, cnp.NPY_SHORT)
    return x


cdef int fill_padding_map(const Problem* problem, dim size, dim before, dim after, dim* places) except -1:
    """The row (or column) of x that each one of the padded image is, -1 for the pad value."""
    cdef dim i
    if problem.pad_mode == 0:       # which takes NumPy as long as a small layer
        for i in range(before + size + after):
            places[i] = i - before if before <= i < before + size else -1
        return 0
    padded = np.pad(np.arange(size, dtype=np.intp), (before, after), PAD_MODES[problem.pad_mode])
    memcpy(places, cnp.PyArray_DATA(padded), cnp.PyArray_NBYTES(padded))
    return 0


cdef inline void result_sizes(const Problem* problem, cnp.npy_intp* sizes):
    """Of y's four axes."""
    cdef const Shape* shape = &problem.shape
    cdef (dim, dim) image = as_given(problem, shape.P, shape.Q)
    sizes[0] = shape.N
    if shape.channels_last:
        sizes[1], sizes[2], sizes[3] = image[0], image[1], shape.G * shape.K
    else:
        sizes[1], sizes[2], sizes[3] = shape.G * shape.K, image[0], image[1]


cdef extern from *:
    """
    /* With the GIL alone nobody else looks at what is kept, or makes a reference to it, meanwhile. */
    #ifdef Py_GIL_DISABLED
    #define KEEPS_MEMORY 0
    #else
    #define KEEPS_MEMORY 1
    #endif
    """
    bint KEEPS_MEMORY
    Py_ssize_t Py_REFCNT(ndarray array)

cdef ndarray kept = None    # the memory of the last large result


cdef ndarray result_memory(cnp.npy_intp size):
    """Bytes with unset values: those of the last large result, if they are as many and nobody holds it anymore.

    To have other ones cleared takes as long as it does to compute a result, where that is bound by memory.
    """
    global kept
    cdef ndarray memory
    if size < MAPPED or not KEEPS_MEMORY:
        return cnp.PyArray_EMPTY(1, &size, cnp.NPY_UINT8, 0)
    memory = kept       # two references, which are all there may be
    if memory is None or cnp.PyArray_SIZE(memory) != size or Py_REFCNT(memory) > 2:
        memory = kept = None        # first, as there may be no room for both
        memory = cnp.PyArray_EMPTY(1, &size, cnp.NPY_UINT8, 0)
        if size <= KEPT:
            kept = memory
    return memory


cdef ndarray new_array(int ndim, cnp.npy_intp* sizes, int typenum, bint is_result):
    """An array with unset values; a large one begins with a cache line, as NumPy's mostly don't."""
    global kept
    cdef cnp.npy_intp size = cnp.PyArray_DescrFromType(typenum).itemsize
    cdef ndarray memory, array
    cdef int i
    for i in range(ndim):
        size *= sizes[i]
    if size < ALIGNED:
        return cnp.PyArray_EMPTY(ndim, sizes, typenum, 0)
    size += LINE
    try:
        memory = result_memory(size) if is_result else cnp.PyArray_EMPTY(1, &size, cnp.NPY_UINT8, 0)
    except MemoryError:
        kept = None
        shape = shape_tuple(ndim, <dim*> sizes)
        raise MemoryError(f"can't allocate {size} bytes for a result of shape {shape}") from None
    array = cnp.PyArray_SimpleNewFromData(ndim, sizes, typenum, line_from(cnp.PyArray_BYTES(memory)))
    cnp.set_array_base(array, memory)
    return array


cdef ndarray result_array(const Problem* problem, object out):
    """A new array for y, or `out` if it can take y."""
    cdef cnp.npy_intp sizes[4]
    cdef cnp.npy_intp* y_shape = sizes + 4 - problem.ndim
    cdef ndarray y
    result_sizes(problem, sizes)
    if out is None:
        return new_array(problem.ndim, y_shape, problem.result, True)
    if not cnp.PyArray_Check(out):
        raise TypeError(f"out is a {type(out).__name__}; expected a NumPy array or None")
    y = as_array(out, "out")
    if not cnp.PyArray_EquivTypenums(cnp.PyArray_TYPE(y), problem.result) or not cnp.PyArray_ISNOTSWAPPED(y):
        raise TypeError(f"out has dtype {y.dtype}; expected {cnp.PyArray_DescrFromType(problem.result)}")
    if cnp.PyArray_NDIM(y) != problem.ndim or not cnp.PyArray_CompareLists(cnp.PyArray_DIMS(y), y_shape, problem.ndim):
        raise ValueError(f"out has shape {np.shape(y)}; expected {shape_tuple(problem.ndim, <dim*> y_shape)}")
    if not cnp.PyArray_IS_C_CONTIGUOUS(y) or not cnp.PyArray_ISALIGNED(y):
        raise ValueError(f"out has strides {np.asarray(y).strides}; expected an aligned, C-contiguous array")
    if not cnp.PyArray_ISWRITEABLE(y):
        raise ValueError("out is read-only; expected a writeable array")
    return y


cdef ndarray computed_array(const Problem* problem, ndarray y):
    """y itself, or an array like it of the dtype that is computed in."""
    cdef cnp.npy_intp sizes[4]
    if problem.typenum == problem.result:
        return y
    result_sizes(problem, sizes)
    return new_array(problem.ndim, sizes + 4 - problem.ndim, problem.typenum, False)


cdef int round_result(const Problem* problem, ndarray computed, ndarray y) except -1:
    """What was computed into y: rounded once, the low bits of integers, the truth of booleans."""
    if problem.typenum != problem.result:
        with np.errstate(all="ignore"):
            np.copyto(y, computed, casting="unsafe")
    return 0


cdef void extent(ndarray array, char** low, char** high):
    """The addresses between which all of an array's bytes lie."""
    cdef int i
    cdef dim reach
    low[0] = cnp.PyArray_BYTES(array)
    high[0] = low[0] + cnp.PyArray_ITEMSIZE(array)
    for i in range(cnp.PyArray_NDIM(array)):
        reach = (cnp.PyArray_DIMS(array)[i] - 1) * cnp.PyArray_STRIDES(array)[i]
        if reach < 0:
            low[0] += reach
        else:
            high[0] += reach


cdef int check_overlap(ndarray out, ndarray other, str name) except -1:
    """Raise if out and another array share memory: it would be read after it was written."""
    cdef char* out_low
    cdef char* out_high
    cdef char* low
    cdef char* high
    if cnp.PyArray_SIZE(out) == 0 or cnp.PyArray_SIZE(other) == 0:
        return 0
    extent(out, &out_low, &out_high)
    extent(other, &low, &high)
    if low < out_high and out_low < high:
        try:
            shared = np.shares_memory(out, other, max_work=10_000)
        except np.exceptions.TooHardError:
            shared = True
        if shared:
            raise ValueError(f"out overlaps {name} in memory; expected an array of its own")
    return 0
