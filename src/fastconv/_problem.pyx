"""The problem in normal form: sizes, dtype, and arrays as addresses and strides. All user errors are raised here.

An error names the argument, shows what came and says what is expected, and comes before anything is written.
"""

import operator

import numpy as np

cimport numpy as cnp
from numpy cimport ndarray

from fastconv._kernels.kernel cimport dim, FLOAT32, FLOAT64, Image, Shape, Weights

cnp.import_array()

cdef dim MOST_BYTES = 1 << 62  # larger than any memory, and far from where a product would wrap


cdef ndarray array_argument(object value, str name):
    """value as an array, not copied where it is one; the rest is NumPy's to convert."""
    cdef ndarray array
    if cnp.PyArray_Check(value):
        array = value
    else:
        try:
            array = np.asarray(value)
        except Exception as error:
            raise TypeError(f"{name} can't be read as an array: {error}") from error
    if not (cnp.PyArray_TYPE(array) == cnp.NPY_FLOAT or cnp.PyArray_TYPE(array) == cnp.NPY_DOUBLE):
        check_dtype(array.dtype, f"{name} has dtype")
    return array


cdef int check_dtype(object dtype, str what) except -1:
    """Raise unless dtype is one that can be computed in."""
    if dtype.char in "fd":
        return 0
    if dtype.kind not in "biufc" or dtype.char in "gG":
        raise TypeError(f"{what} {dtype}; expected float32 or float64: cast it with .astype()")
    raise NotImplementedError(f"{what} {dtype}, which isn't supported yet; float32 and float64 are")


cdef int check_options(object mode, object stride, object padding, object dilation, object groups) except -1:
    """Raise for what isn't known or isn't supported yet."""
    if not isinstance(mode, str) or mode != "valid":
        if isinstance(mode, str) and mode in ("same", "full"):
            raise NotImplementedError(f"mode={mode!r} isn't supported yet; 'valid' is")
        raise ValueError(f"mode is {mode!r}; expected 'valid', 'same' or 'full'")
    if stride != 1:
        raise NotImplementedError(f"stride={stride!r} isn't supported yet; 1 is")
    if padding != 0:
        raise NotImplementedError(f"padding={padding!r} isn't supported yet; 0 is")
    if dilation != 1:
        raise NotImplementedError(f"dilation={dilation!r} isn't supported yet; 1 is")
    if groups != 1:
        raise NotImplementedError(f"groups={groups!r} isn't supported yet; 1 is")
    return 0


cdef int set_dtype(Problem* problem, object x_dtype, ndarray w, object dtype) except -1:
    """The dtype to compute in: NumPy's for x and w together, or the wider one that is asked for."""
    result = w.dtype if x_dtype is w.dtype else np.result_type(x_dtype, w.dtype)
    if dtype is not None:
        try:
            wanted = np.dtype(dtype)
        except TypeError:
            raise TypeError(f"dtype is {dtype!r}; expected a NumPy dtype or None") from None
        check_dtype(wanted, "dtype is")
        if not np.can_cast(result, wanted):
            raise TypeError(f"dtype is {wanted}; expected one that holds {result}, the dtype of x and w together")
        result = wanted
    problem.typenum = result.num
    problem.shape.dtype = FLOAT32 if problem.typenum == cnp.NPY_FLOAT else FLOAT64
    problem.shape.item = 4 if problem.typenum == cnp.NPY_FLOAT else 8
    return 0


cdef object shape_tuple(int ndim, const dim* sizes):
    return tuple([sizes[i] for i in range(ndim)])


cdef int set_sizes(Problem* problem, int x_ndim, const dim* x_shape, ndarray w) except -1:
    """N, C, H, W of x, K, C, R, S of w, and P, Q of y."""
    cdef Shape* shape = &problem.shape
    cdef dim* w_shape = <dim*> cnp.PyArray_DIMS(w)
    cdef int w_ndim = cnp.PyArray_NDIM(w)
    cdef dim w_channels = 1
    if not (x_ndim == 2 and w_ndim == 2 or x_ndim in (3, 4) and w_ndim in (3, 4)):
        raise ValueError(
            f"x has shape {shape_tuple(x_ndim, x_shape)} and w has shape {shape_tuple(w_ndim, w_shape)}; expected x as "
            "(C, H, W) or (N, C, H, W) and w as (K, C, R, S) or (C, R, S), or both 2-D"
        )
    problem.ndim = x_ndim
    shape.N = x_shape[0] if x_ndim == 4 else 1
    shape.C = x_shape[x_ndim - 3] if x_ndim > 2 else 1
    shape.H = x_shape[x_ndim - 2]
    shape.W = x_shape[x_ndim - 1]
    shape.K = w_shape[0] if w_ndim == 4 else 1
    w_channels = w_shape[w_ndim - 3] if w_ndim > 2 else 1
    shape.R = w_shape[w_ndim - 2]
    shape.S = w_shape[w_ndim - 1]
    if shape.C != w_channels:
        raise ValueError(
            f"x has {shape.C} channels (shape {shape_tuple(x_ndim, x_shape)}) and w has {w_channels} "
            f"(shape {shape_tuple(w_ndim, w_shape)}); expected as many"
        )
    if shape.C == 0 or shape.R == 0 or shape.S == 0:
        raise ValueError(
            f"w has shape {shape_tuple(w_ndim, w_shape)}; expected at least one channel, row and column"
        )
    if shape.R > shape.H or shape.S > shape.W:
        raise ValueError(
            f"w is {shape.R} x {shape.S} (shape {shape_tuple(w_ndim, w_shape)}), larger than x, which is "
            f"{shape.H} x {shape.W} (shape {shape_tuple(x_ndim, x_shape)}); expected R <= H and S <= W"
        )
    shape.P = shape.H - shape.R + 1
    shape.Q = shape.W - shape.S + 1
    return check_bytes(problem)


cdef int check_bytes(const Problem* problem) except -1:
    """Raise where a product of sizes is larger than any memory: so none of those computed later wraps."""
    cdef const Shape* shape = &problem.shape
    cdef double images = max(shape.N, 1)
    cdef double filters = max(shape.K, 1)
    if (images * filters * shape.P * shape.Q * 8 > MOST_BYTES
            or images * shape.C * shape.H * shape.W * 8 > MOST_BYTES
            or (filters + 64) * shape.C * shape.R * shape.S * 64 > MOST_BYTES):
        x_shape = [shape.N, shape.C, shape.H, shape.W]
        raise ValueError(
            f"x has shape {tuple(x_shape[4 - problem.ndim:])} and w, as a bank, "
            f"{(shape.K, shape.C, shape.R, shape.S)}: their result or weights would be larger than any memory"
        )
    return 0


cdef int read_shape(object x_shape, dim* sizes) except -1:
    """A shape argument into sizes; returns how many, at most 4."""
    try:
        numbers = [operator.index(number) for number in x_shape]
    except TypeError:
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
    if (ndim == 2) != (problem.ndim == 2) or not 2 <= ndim <= 4 or (
        sizes[ndim - 1] != shape.W or sizes[ndim - 2] != shape.H or ndim > 2 and sizes[ndim - 3] != shape.C
    ):
        planned = f"({shape.H}, {shape.W})"
        if problem.ndim > 2:
            planned = f"({shape.C}, {shape.H}, {shape.W}), or N of them"
        raise ValueError(f"x has shape {np.shape(x)}; expected {planned}, as planned")
    if not (cnp.PyArray_TYPE(x) == problem.typenum
            or np.can_cast(x.dtype, cnp.PyArray_DescrFromType(problem.typenum))):
        raise TypeError(
            f"x has dtype {x.dtype}; expected {cnp.PyArray_DescrFromType(problem.typenum)} as planned, or one it holds"
        )
    problem.ndim = ndim
    shape.N = sizes[0] if ndim == 4 else 1
    return check_bytes(problem)


cdef inline bint usable(ndarray array, int typenum):
    """Whether a kernel can read the array's values where they are."""
    return cnp.PyArray_TYPE(array) == typenum and cnp.PyArray_ISBEHAVED_RO(array)


cdef ndarray converted(ndarray array, int typenum):
    """The values in the computing dtype, native, aligned and C-contiguous."""
    return cnp.PyArray_FROM_OTF(array, typenum, cnp.NPY_ARRAY_CARRAY_RO | cnp.NPY_ARRAY_NOTSWAPPED)


cdef ndarray read_weights(const Problem* problem, ndarray w, bint reverse, bint flip_channels, Weights* weights):
    """Address and strides of w, read backwards along rows and columns, or channels, where a flip is asked for.

    Returns the array that holds the values; it must live as long as they are read.
    """
    cdef int last = cnp.PyArray_NDIM(w) - 1
    cdef cnp.npy_intp* strides
    if not usable(w, problem.typenum):
        w = converted(w, problem.typenum)
    strides = cnp.PyArray_STRIDES(w)
    weights.data = cnp.PyArray_BYTES(w)
    weights.k = strides[0] if last == 3 else 0
    weights.c = strides[last - 2] if last >= 2 else 0
    weights.r = strides[last - 1]
    weights.s = strides[last]
    if reverse:
        weights.data += (problem.shape.R - 1) * weights.r + (problem.shape.S - 1) * weights.s
        weights.r = -weights.r
        weights.s = -weights.s
    if flip_channels:
        weights.data += (problem.shape.C - 1) * weights.c
        weights.c = -weights.c
    return w


cdef ndarray read_bias(const Problem* problem, object bias, Weights* weights):
    """Address of the K biases, in the computing dtype and contiguous; returns the array that holds them, or None."""
    cdef ndarray array
    weights.bias = NULL
    if bias is None:
        return None
    array = np.asarray(bias)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"bias has dtype {array.dtype}; expected numbers that cast to the result's dtype")
    if cnp.PyArray_NDIM(array) != 1 or cnp.PyArray_DIMS(array)[0] != problem.shape.K:
        raise ValueError(f"bias has shape {np.shape(array)}; expected ({problem.shape.K},), one value a filter")
    array = np.ascontiguousarray(array, cnp.PyArray_DescrFromType(problem.typenum))
    weights.bias = cnp.PyArray_BYTES(array)
    return array


cdef ndarray read_image(const Problem* problem, ndarray x, Image* image):
    """Address and strides of x, whose columns are contiguous: copied where they aren't.

    Returns the array that holds the values; it must live as long as they are read.
    """
    cdef int last = cnp.PyArray_NDIM(x) - 1
    cdef cnp.npy_intp* strides
    if not usable(x, problem.typenum) or (cnp.PyArray_STRIDES(x)[last] != problem.shape.item and problem.shape.W > 1):
        x = converted(x, problem.typenum)
    strides = cnp.PyArray_STRIDES(x)
    image.data = cnp.PyArray_BYTES(x)
    image.n = strides[0] if last == 3 else 0
    image.c = strides[last - 2] if last >= 2 else 0
    image.h = strides[last - 1]
    return x


cdef ndarray result_array(const Problem* problem, object out):
    """A new array for y, or `out` if it can take y."""
    cdef cnp.npy_intp sizes[4]
    cdef cnp.npy_intp* y_shape = sizes + 4 - problem.ndim
    cdef ndarray y
    sizes[0] = problem.shape.N
    sizes[1] = problem.shape.K
    sizes[2] = problem.shape.P
    sizes[3] = problem.shape.Q
    if out is None:
        return cnp.PyArray_EMPTY(problem.ndim, y_shape, problem.typenum, 0)
    if not cnp.PyArray_Check(out):
        raise TypeError(f"out is a {type(out).__name__}; expected a NumPy array or None")
    y = out
    if cnp.PyArray_TYPE(y) != problem.typenum or not cnp.PyArray_ISNOTSWAPPED(y):
        raise TypeError(f"out has dtype {y.dtype}; expected {cnp.PyArray_DescrFromType(problem.typenum)}")
    if cnp.PyArray_NDIM(y) != problem.ndim or not cnp.PyArray_CompareLists(cnp.PyArray_DIMS(y), y_shape, problem.ndim):
        raise ValueError(f"out has shape {np.shape(y)}; expected {shape_tuple(problem.ndim, <dim*> y_shape)}")
    if not cnp.PyArray_IS_C_CONTIGUOUS(y) or not cnp.PyArray_ISALIGNED(y):
        raise ValueError(f"out has strides {np.asarray(y).strides}; expected an aligned, C-contiguous array")
    if not cnp.PyArray_ISWRITEABLE(y):
        raise ValueError("out is read-only; expected a writeable array")
    return y


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
