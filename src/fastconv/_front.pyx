"""The front door: correlate, convolve and Plan. Arguments are read here; what they mean is settled in _problem."""

import numpy as np

cimport numpy as cnp
from numpy cimport ndarray

from fastconv import _complex, _kernels

from fastconv._kernels.kernel cimport dim, Image, is_float, PAIRS, Shape, Weights
from fastconv._plan cimport (
    check_choice, execute, explanation, measured_times, method_name, packed_bytes, predictions, prepare, Recipe,
    release, Small, workspace_bytes,
)
from fastconv._threads cimport count_workers
from fastconv._problem cimport (
    array_argument, as_given, check_image, check_overlap, check_weights, computed_array, flag_argument, image_shape,
    number_argument, padding_sides, pair_channels, Problem, read_bias, read_image, read_shape, read_weights,
    result_array, round_result, set_dtype, set_images, set_options, set_pad_value, set_sizes, short_values, turn_column,
)

cnp.import_array()


# A complex problem's arguments as those of the real one that computes it.

cdef object real_dtype(const Problem* problem):
    return cnp.PyArray_DescrFromType(problem.typenum)


cdef bint pads_first(const Problem* problem, object pad_value):
    """Whether x is padded before it is taken apart: a pad value is that of real parts alone."""
    return problem.pad_mode == 0 and pad_value != 0 and bool(
        problem.top or problem.bottom or problem.left or problem.right
    )


cdef ndarray complex_image(const Problem* problem, ndarray x, object pad_value):
    check_image(problem, x)
    if pads_first(problem, pad_value):
        widths = [(0, 0)] * (x.ndim - 2) + [(problem.top, problem.bottom), (problem.left, problem.right)]
        if problem.shape.channels_last:
            widths.append(widths.pop(-3))
        x = np.pad(x.astype(cnp.PyArray_DescrFromType(problem.result)), widths, constant_values=pad_value)
    return _complex.real_image(x, problem.shape.G, problem.shape.channels_last, real_dtype(problem))


cdef tuple complex_shape(const Problem* problem, object pad_value):
    """The shape of one image."""
    cdef const Shape* shape = &problem.shape
    cdef dim height = shape.H, width = shape.W
    if pads_first(problem, pad_value):
        height += problem.top + problem.bottom
        width += problem.left + problem.right
    if shape.channels_last:
        return height, width, 2 * shape.G * shape.C
    return 2 * shape.G * shape.C, height, width


cdef ndarray complex_weights(const Problem* problem, ndarray w, bint reverse, bint flip_channels):
    check_weights(problem, w)
    if flip_channels and w.ndim > 2:
        w = w[..., ::-1, :, :]
    return _complex.real_weights(w, problem.shape.G, not reverse, real_dtype(problem))


cdef object complex_bias(const Problem* problem, ndarray bias):
    return None if bias is None else _complex.real_bias(bias, problem.shape.G, real_dtype(problem))


cdef object complex_padding(const Problem* problem, object pad_value):
    return 0 if pads_first(problem, pad_value) else padding_sides(problem)


cdef object steps_of(const Problem* problem):
    return as_given(problem, problem.shape.p_step, problem.shape.q_step)


cdef object dilation_of(const Problem* problem):
    return as_given(problem, problem.shape.r_step, problem.shape.s_step)


cdef object layout_of(const Problem* problem):
    return "NHWC" if problem.shape.channels_last else "NCHW"


cdef ndarray compute(object x, object w, bint reverse, bint flip_channels, object mode, object stride, object padding,
                     object dilation, object groups, object pad_mode, object pad_value, object layout, object bias,
                     object out, object dtype, object method, object workers):
    """One call from arguments to result: what correlate and convolve share."""
    cdef ndarray x_array = array_argument(x, "x")
    cdef ndarray w_array = array_argument(w, "w")
    cdef ndarray y, computed, bias_array
    cdef Recipe recipe
    cdef Small small
    cdef Problem* problem = &recipe.problem
    cdef Image image
    cdef Weights weights
    pad_value = number_argument(pad_value, "pad_value")
    set_options(problem, mode, stride, padding, dilation, groups, pad_mode, pad_value, layout)
    check_choice(method, False)
    if workers is not None:
        count_workers(workers)
    set_sizes(problem, cnp.PyArray_NDIM(x_array), <dim*> cnp.PyArray_DIMS(x_array), w_array)
    set_dtype(problem, x_array, w_array, dtype)
    set_pad_value(problem, pad_value)
    pair_channels(problem, x_array, w_array)
    turn_column(problem)
    bias_array = read_bias(problem, bias, &weights)
    y = result_array(problem, out)
    if out is not None:
        check_overlap(y, x_array, "x")
        check_overlap(y, w_array, "w")
        if bias_array is not None:
            check_overlap(y, bias_array, "bias")
    if problem.is_complex:
        part = compute(
            complex_image(problem, x_array, pad_value), complex_weights(problem, w_array, reverse, flip_channels),
            reverse, False, "valid", steps_of(problem), complex_padding(problem, pad_value),
            dilation_of(problem), problem.shape.G, pad_mode, 0, layout_of(problem),
            complex_bias(problem, bias_array), None, None, method, workers,
        )
        _complex.store(part, y, problem.shape.G, problem.shape.channels_last)
        return y if out is None else out
    computed = computed_array(problem, y)
    w_array = read_weights(problem, w_array, reverse, flip_channels, &weights)
    x_array = read_image(problem, x_array, &image)
    try:
        prepare(&recipe, method, &weights, &small, workers)
        execute(&recipe, &image, cnp.PyArray_BYTES(computed), workers)
    finally:
        release(&recipe)
    round_result(problem, computed, y)
    return y if out is None else out


def correlate(x, w, *, mode="valid", stride=1, padding=0, dilation=1, groups=1, pad_mode="constant", pad_value=0,
              layout="NCHW", bias=None, out=None, dtype=None, method="auto", workers=None):
    """Multi-channel 2-D correlation, what neural networks call convolution.

    ``y[k,p,q] = bias[k] + sum over c, r, s of x[c,p+r,q+s] * conj(w[k,c,r,s])``, which for each filter is
    ``scipy.signal.correlate(x, w[k], "valid")``.

    Parameters
    ----------
    x : array_like, (C, H, W) or (N, C, H, W), or (H, W) with a 2-D w
        An image of C channels, or N of them; the channels last with ``layout="NHWC"``. Whatever NumPy or DLPack can
        view is read where it is, of any strides; a copy is made only of a dtype that isn't computed in, of an array
        that is unaligned or byte-swapped, and with "NCHW" of one whose columns aren't contiguous. Never written.
    w : array_like, (K, C / groups, R, S) or (C, R, S), or (R, S) with a 2-D x
        K filters, or one (K = 1).
    mode : {"valid", "same", "full"}
        Which outputs: those whose window lies within the image and its padding; as many as the image has pixels; or
        all whose window touches the image. "same" is the slice of "full" that starts at ((R - 1) // 2, (S - 1) // 2),
        as in `scipy.signal.correlate`. For filters of an even size `scipy.signal.correlate2d` and the "same" of
        torch begin one row or column later or earlier: ``padding=(((R - 1) // 2, R // 2), ((S - 1) // 2, S // 2))``
        gives theirs. With a stride, every stride-th of these outputs.
    stride : int or (int, int)
        Rows and columns of the image from one output to the next.
    padding : int, (int, int) or ((int, int), (int, int))
        Rows and columns around the image: on all sides, above and below and at left and right, or as
        ((top, bottom), (left, right)). With mode "valid" only.
    dilation : int or (int, int)
        Rows and columns of the image from one value of a filter to the next.
    groups : int
        Channels and filters are cut into so many groups, and filters of a group see its channels only. As many groups
        as channels is a depthwise correlation.
    pad_mode : {"constant", "reflect", "symmetric", "edge", "wrap"}
        What is around the image, of padding and of modes "same" and "full", as in `numpy.pad`.
    pad_value : number
        What pad_mode "constant" pads with. Cast to the result's dtype.
    layout : {"NCHW", "NHWC"}
        Whether the channels of x and of the result are their third axis from last, or their last. Of w they are the
        second of four in both.
    bias : array_like, (K,), optional
        What each filter's sum begins with, or ends with where an image or w holds subnormal numbers. Cast to the
        result's dtype.
    out : ndarray, optional
        Where the result goes: of its shape and dtype, C-contiguous, and apart from the inputs in memory.
    dtype : dtype, optional
        The result's, and what it is accumulated in: ``np.result_type(x, w)`` or one that holds it. An image of uint8
        and filters of int8 have int16 sums, which wrap; ``dtype="int32"`` is what one wants of them.
    method : {"auto", "direct", "direct-pixels", "direct-filters", "direct-matrix", "direct-groups", \
"direct-terms", "winograd", "separable", "fft"}
        How to compute. "auto" takes the method predicted to be fastest for one image's sizes and the weights. "direct"
        sums the terms, along vectors of pixels, of filters or of groups, for 1 x 1 filters as a product of matrices, or
        for images of a few outputs along vectors of the terms; it takes the fastest of these. "winograd" saves three
        quarters of the multiplications of patches of 3 x 3 [2]_ that it cuts filters into, with strides of 1 and 2,
        from 144 terms on; half of them for filters of one row, or where a small image has very many filters.
        "separable" sums along columns and then along rows, where each filter is the product of a column and a row, as
        Gaussians and boxes are. "fft" multiplies Fourier transforms of rows, for large filters; it needs ducc0 or SciPy
        (``pip install fastconv[fft]``). None of the three is for integers. What they can't be sure to compute within
        the error bound, they sum directly.
    workers : int, optional
        Threads to use at most; negative counts from the number of CPUs. None is `get_workers`; work of less than
        about 50 microseconds stays on the calling thread. The result has the same bits for any number.

    Returns
    -------
    ndarray, (K, P, Q) or (N, K, P, Q), or (P, Q) for 2-D inputs; (P, Q, K) or (N, P, Q, K) with "NHWC"
        P = (H + top + bottom - (R - 1) * dilation - 1) // stride + 1, Q likewise. C-contiguous; it is `out` if that
        was given.

    Raises
    ------
    ValueError, TypeError
        For shapes that don't fit, and arguments that aren't among those above. Nothing has been written then.
    ImportError
        For ``method="fft"`` without ducc0 and SciPy. "auto" does without, then.
    MemoryError
        For a result or a workspace that can't be allocated.

    Notes
    -----
    With the direct methods every element keeps to the running error bound of a sum of products: with u the unit
    roundoff of the dtype that is computed in, n = C / groups * R * S and g = n * u / (1 - n * u),
    ``abs(computed - exact) <= g * correlate(abs(x), abs(w))`` [1]_; a bias counts as one more term, and a complex sum
    as a real one of twice as many. The others, "auto" included, keep to the largest of these bounds in the image.
    float16 and bfloat16 are accumulated in float32 and rounded once, to the nearest. Integers are exact modulo 2 to the
    power of their bits; bool is whether any product is true.

    A NaN or Inf reaches just the outputs whose window covers it. Other Python threads run meanwhile.

    References
    ----------
    .. [1] N. J. Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., SIAM, 2002, section 3.1.
    .. [2] A. Lavin and S. Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016.

    Examples
    --------
    >>> import fastconv, numpy as np
    >>> x = np.arange(25.0).reshape(1, 5, 5)
    >>> w = np.ones((2, 1, 2, 2))
    >>> fastconv.correlate(x, w).shape
    (2, 4, 4)
    >>> fastconv.correlate(x, w, bias=[0.0, 100.0])[:, 0, 0]
    array([ 12., 112.])
    >>> fastconv.correlate(x, w, mode="same").shape
    (2, 5, 5)
    >>> fastconv.correlate(x, w, stride=2, padding=1, pad_mode="edge").shape
    (2, 3, 3)

    Pixels of bytes, summed in 32 bits:

    >>> x = np.full((2, 4, 4), 200, np.uint8)
    >>> w = np.full((1, 2, 3, 3), -100, np.int8)
    >>> fastconv.correlate(x, w, dtype="int32")[0, 0]
    array([-360000, -360000], dtype=int32)
    """
    return compute(x, w, False, False, mode, stride, padding, dilation, groups, pad_mode, pad_value, layout, bias, out,
                   dtype, method, workers)


def convolve(x, w, *, flip_channels=False, mode="valid", stride=1, padding=0, dilation=1, groups=1,
             pad_mode="constant", pad_value=0, layout="NCHW", bias=None, out=None, dtype=None, method="auto",
             workers=None):
    """Multi-channel 2-D convolution: correlation with filters that are reversed along rows and columns.

    ``y[k,p,q] = bias[k] + sum over c, r, s of x[c,p+r,q+s] * w[k,c,R-1-r,S-1-s]``, which for each filter is the sum
    over channels of ``scipy.signal.convolve(x[c], w[k,c], "valid")``. Complex filters aren't conjugated.

    Parameters
    ----------
    x, w, mode, stride, padding, dilation, groups, pad_mode, pad_value, layout, bias, out, dtype, method, workers
        As in `correlate`.
    flip_channels : bool
        Reverse the filters along channels too, as an N-D convolution does: for each filter the result is then
        ``scipy.signal.convolve(x, w[k], "valid")``. With groups, the channels of each group.

    Returns
    -------
    ndarray, (K, P, Q) or (N, K, P, Q), or (P, Q) for 2-D inputs
        As in `correlate`.

    Raises
    ------
    ValueError, TypeError, MemoryError
        As `correlate` does.

    Examples
    --------
    >>> import fastconv, numpy as np
    >>> x = np.zeros((1, 3, 3))
    >>> x[0, 1, 1] = 1.0
    >>> w = np.arange(4.0).reshape(1, 1, 2, 2)
    >>> fastconv.convolve(x, w)[0]
    array([[0., 1.],
           [2., 3.]])
    """
    flip_channels = flag_argument(flip_channels, "flip_channels")
    return compute(x, w, True, flip_channels, mode, stride, padding, dilation, groups, pad_mode, pad_value, layout,
                   bias, out, dtype, method, workers)


cdef class Plan:
    # Its docstring begins with the signature, as inspect looks for it in a class that isn't written in Python.
    """Plan(w, x_shape, *, operation='correlate', flip_channels=False, mode='valid', stride=1, padding=0, dilation=1, \
groups=1, pad_mode='constant', pad_value=0, layout='NCHW', bias=None, dtype=None, method='auto', workers=None)\n--\n
    A correlation or convolution with one bank of filters, settled once: method chosen, weights packed.

    Calling a plan saves what `correlate` and `convolve` do anew for each call, which is most of the time of a small
    problem. As weights are packed once, it may take a method whose packing wouldn't pay for a single call. A plan
    doesn't change after it is made; any number of threads may call it at once. It keeps its own copy of the weights. It
    can't be pickled: another process makes its own.

    Parameters
    ----------
    w : array_like, (K, C / groups, R, S) or (C, R, S), or (R, S) with a 2-D x_shape
        The filters.
    x_shape : tuple of int, (C, H, W) or (N, C, H, W), or (H, W) with a 2-D w
        Shape of the images, in the layout. With three axes or four, calls take one image or any number of them.
    operation : {"correlate", "convolve"}
        What the plan computes.
    flip_channels, mode, stride, padding, dilation, groups, pad_mode, pad_value, layout, bias, workers
        As in `convolve` and `correlate`.
    dtype : dtype, optional
        What to compute in, and the result's: w's dtype, or one that holds it.
    method : str
        As in `correlate`; or "measure": every method that can computes an image of random numbers, with these workers,
        and the fastest is taken. That takes tens of milliseconds, or some calls of the slowest, and another plan may
        come to another method, and so to other last bits.

    Attributes
    ----------
    operation : str
        What the plan computes.
    method : str
        The method that was chosen. A plan of integers of up to 16 bits with sums of 32 has another one for images that
        are wider, of which `explain` tells.
    predicted : dict of str to float
        For each method that can compute the problem, the fastest first, cycles of one core for one image, by which
        "auto" chooses.
    measured : dict of str to float
        With ``method="measure"``, seconds of one image by method, the fastest first.
    isa : str
        The instruction set of its kernel.
    dtype : numpy.dtype
        Of the result.
    x_shape, y_shape : tuple of int
        Shapes of the images as planned, and of their result.
    flops : int
        Multiplications and additions of the sum for images of x_shape, whatever the method does with them.
    workspace_bytes : int
        Scratch memory that a call with one worker takes; several take no more each, or where they share a transformed
        image (method "winograd") up to four times as much. An image with subnormal numbers is copied besides, whole or
        each worker a band of it, and where there are biases, weights are packed again.
    packed_bytes : int
        Memory that the plan keeps for the weights.

    Raises
    ------
    ValueError, TypeError, MemoryError
        As `correlate` does.

    Examples
    --------
    >>> import fastconv, numpy as np
    >>> plan = fastconv.Plan(np.ones((8, 3, 3, 3), np.float32), (3, 32, 32))
    >>> plan(np.ones((3, 32, 32), np.float32)).shape
    (8, 30, 30)
    >>> plan(np.ones((5, 3, 32, 32), np.float32)).shape
    (5, 8, 30, 30)
    >>> fastconv.Plan(np.ones((8, 1, 3, 3)), (1, 99, 99), method="measure").method in plan.predicted
    True
    """

    cdef Recipe recipe
    cdef dim planned_images
    cdef object workers, pad_value
    cdef tuple kept             # arrays that the recipe reads from later
    cdef Plan real              # of a complex problem, the one that computes it
    cdef Plan wide              # of one with pairs of 16 bits, the one for images with more
    cdef readonly str operation, method, isa
    cdef dict times             # measured, by method

    def __cinit__(self, w, x_shape, *, operation="correlate", flip_channels=False, mode="valid", stride=1, padding=0,
                  dilation=1, groups=1, pad_mode="constant", pad_value=0, layout="NCHW", bias=None, dtype=None,
                  method="auto", workers=None):
        cdef ndarray w_array = array_argument(w, "w")
        cdef ndarray bias_array
        cdef Weights weights
        cdef Problem* problem = &self.recipe.problem
        cdef dim sizes[4]
        cdef int ndim = read_shape(x_shape, sizes)
        if not isinstance(operation, str) or operation not in ("correlate", "convolve"):
            raise ValueError(f"operation is {operation!r}; expected 'correlate' or 'convolve'")
        flip_channels = flag_argument(flip_channels, "flip_channels")
        pad_value = number_argument(pad_value, "pad_value")
        if flip_channels and operation == "correlate":
            raise ValueError("flip_channels is True; expected False with operation='correlate'")
        set_options(problem, mode, stride, padding, dilation, groups, pad_mode, pad_value, layout)
        check_choice(method, True)
        count_workers(workers)
        set_sizes(problem, ndim, sizes, w_array)
        set_dtype(problem, w_array, w_array, dtype)
        set_pad_value(problem, pad_value)
        pair_channels(problem, w_array, w_array)
        turn_column(problem)
        bias_array = read_bias(problem, bias, &weights)
        self.planned_images = problem.shape.N
        self.workers = workers
        self.operation = operation
        self.pad_value = pad_value
        self.isa = _kernels.isa
        reverse = operation == "convolve"
        if problem.is_complex:
            self.real = Plan(
                complex_weights(problem, w_array, reverse, flip_channels), complex_shape(problem, pad_value),
                operation=operation, stride=steps_of(problem), padding=complex_padding(problem, pad_value),
                dilation=dilation_of(problem), groups=problem.shape.G, pad_mode=pad_mode,
                layout=layout_of(problem), bias=complex_bias(problem, bias_array), method=method, workers=workers,
            )
            self.method, self.times = self.real.method, self.real.times
            return
        if problem.shape.dtype == PAIRS and self.dtype.itemsize == 4:
            # By any kernel: integers are exact, and the one that is asked for may have no room for wider ones.
            self.wide = Plan(
                w_array.astype(self.dtype), self.x_shape, operation=operation, flip_channels=flip_channels,
                stride=steps_of(problem), padding=padding_sides(problem), dilation=dilation_of(problem),
                pad_mode=pad_mode, pad_value=pad_value, layout=layout_of(problem), bias=bias_array, method="direct",
                workers=workers,
            )
        keep = bias_array is not None and is_float(&problem.shape)      # weights may be asked for again
        if keep:
            w_array, bias_array = w_array.copy(), bias_array.copy()
            weights.bias = cnp.PyArray_BYTES(bias_array)
        w_array = read_weights(problem, w_array, reverse, flip_channels, &weights)
        self.kept = (w_array, bias_array) if keep else ()
        self.times = {}
        if method == "measure":
            self.times = self.measure(&weights)
            method = next(iter(self.times))
        # By this thread: a process may make its plans and then fork, and children would miss threads that had started.
        prepare(&self.recipe, method, &weights, NULL, 1)
        self.method = method_name(&self.recipe)

    cdef dict measure(self, const Weights* weights):
        """Seconds by method of one image of random numbers."""
        cdef Recipe recipe = self.recipe
        cdef Problem* problem = &recipe.problem
        cdef ndarray computed
        cdef Image image
        sizes = self.x_shape if problem.ndim < 4 else self.x_shape[1:]
        x = np.random.default_rng(0).integers(0, 100, sizes).astype(np.int8 if self.wide is not None else self.dtype)
        set_images(problem, x)
        x = read_image(problem, x, &image)
        computed = computed_array(problem, result_array(problem, None))
        return measured_times(&recipe, weights, &image, cnp.PyArray_BYTES(computed), self.workers)

    def explain(self):
        """Say what was predicted of each method, what was measured, and why the others aren't taken.

        Returns
        -------
        str
            The plan, then a line for each method, the fastest first.

        Examples
        --------
        >>> import fastconv, numpy as np
        >>> plan = fastconv.Plan(np.ones((1, 1, 9, 9), int), (1, 100, 100))
        >>> print(plan.explain())  # doctest: +ELLIPSIS
        <fastconv.Plan correlate int64: ...>
        direct-pixels ...
        winograd        not taken: it takes floats, ...
        fft             not taken: it rounds, and integers are exact
        """
        if self.real is not None:
            return f"{self!r}\ncomputes as\n{self.real.explain()}"
        text = f"{self!r}\n{explanation(&self.recipe.problem.shape, self.times)}"
        return text if self.wide is None else f"{text}\nand images of more than 16 bits by\n{self.wide.explain()}"

    def __dealloc__(self):
        release(&self.recipe)

    def __call__(self, x, out=None):
        """Compute the result for x.

        Parameters
        ----------
        x : array_like
            One image, or N, of the planned shape, of a dtype that the plan's holds.
        out : ndarray, optional
            Where the result goes, as in `correlate`.

        Returns
        -------
        ndarray
            As of `correlate`.
        """
        cdef ndarray x_array = array_argument(x, "x")
        cdef ndarray y, computed
        cdef Image image
        cdef Recipe recipe = self.recipe    # a copy with this call's number of images; the weights stay the plan's
        cdef Problem* problem = &recipe.problem
        set_images(problem, x_array)
        if self.wide is not None and not short_values(x_array):
            return self.wide(x_array, out)
        y = result_array(problem, out)
        if out is not None:
            check_overlap(y, x_array, "x")
        if problem.is_complex:
            _complex.store(self.real(complex_image(problem, x_array, self.pad_value)), y, problem.shape.G,
                           problem.shape.channels_last)
            return y if out is None else out
        computed = computed_array(problem, y)
        x_array = read_image(problem, x_array, &image)
        execute(&recipe, &image, cnp.PyArray_BYTES(computed), self.workers)
        round_result(problem, computed, y)
        return y if out is None else out

    cdef tuple sizes(self, channels, rows, columns):
        """A shape in the plan's layout, of as many axes as were planned."""
        image = image_shape(&self.recipe.problem, channels, rows, columns)
        return image if self.recipe.problem.ndim < 4 else (self.planned_images, *image)

    @property
    def dtype(self):
        return cnp.PyArray_DescrFromType(self.recipe.problem.result)

    @property
    def x_shape(self):
        shape = self.recipe.problem.shape
        return self.sizes(self.recipe.problem.channels * shape.G, shape.H, shape.W)

    @property
    def y_shape(self):
        shape = self.recipe.problem.shape
        return self.sizes(shape.K * shape.G, shape.P, shape.Q)

    @property
    def flops(self):
        shape = self.recipe.problem.shape
        terms = int(self.recipe.problem.channels) * shape.R * shape.S
        real = 2 * self.planned_images * shape.K * shape.G * shape.P * shape.Q * terms
        return 4 * real if self.recipe.problem.is_complex else real

    @property
    def predicted(self):
        return predictions(&self.recipe.problem.shape) if self.real is None else self.real.predicted

    @property
    def measured(self):
        return dict(self.times)

    @property
    def workspace_bytes(self):
        if self.real is not None:
            return self.real.workspace_bytes
        own = workspace_bytes(&self.recipe)
        return own if self.wide is None else max(own, self.wide.workspace_bytes)

    @property
    def packed_bytes(self):
        if self.real is not None:
            return self.real.packed_bytes
        own = packed_bytes(&self.recipe) + sum([array.nbytes for array in self.kept])
        return own if self.wide is None else own + self.wide.packed_bytes

    def __reduce__(self):
        raise TypeError("a Plan can't be pickled or copied: make another one from the same arguments")

    def __repr__(self):
        shape = self.recipe.problem.shape
        taps = as_given(&self.recipe.problem, shape.R, shape.S)
        return (
            f"<fastconv.Plan {self.operation} {self.dtype}: {self.x_shape} by {shape.K * shape.G} filters of "
            f"{self.recipe.problem.channels} x {taps[0]} x {taps[1]} -> {self.y_shape}, {self.method}, {self.isa}>"
        )
