from numpy cimport ndarray

from fastconv._kernels.kernel cimport dim, Image, Shape, Weights

cdef struct Problem:
    Shape shape             # N = 1 until an image is there
    int result              # NumPy's number of the result's dtype,
    int typenum             # and of the one that is computed in
    bint is_complex
    dim channels            # of x and w in a group: shape.C, but of PAIRS
    int ndim                # of x
    int mode, pad_mode      # of MODES and PAD_MODES
    dim top, bottom, left, right    # padding
    bint turned             # all of these are of rows where the arrays have columns, and the other way round
    char pad[8]             # the pad value

cdef ndarray array_argument(object value, str name)
cdef object number_argument(object value, str name)
cdef object flag_argument(object value, str name)
cdef int set_options(Problem* problem, object mode, object stride, object padding, object dilation, object groups,
                     object pad_mode, object pad_value, object layout) except -1
cdef int set_dtype(Problem* problem, ndarray x, ndarray w, object dtype) except -1
cdef int set_pad_value(Problem* problem, object pad_value) except -1
cdef void turn_column(Problem* problem) noexcept
cdef (dim, dim) as_given(const Problem* problem, dim rows, dim columns) noexcept
cdef tuple padding_sides(const Problem* problem)
cdef tuple image_shape(const Problem* problem, dim channels, dim rows, dim columns)
cdef int pair_channels(Problem* problem, ndarray x, ndarray w) except -1
cdef bint short_values(ndarray array)
cdef int set_sizes(Problem* problem, int x_ndim, const dim* x_shape, ndarray w) except -1
cdef int read_shape(object x_shape, dim* sizes) except -1
cdef int set_images(Problem* problem, ndarray x) except -1
cdef int check_image(const Problem* problem, ndarray x) except -1
cdef int check_weights(const Problem* problem, ndarray w) except -1
cdef ndarray read_weights(const Problem* problem, ndarray w, bint reverse, bint flip_channels, Weights* weights)
cdef ndarray read_bias(const Problem* problem, object bias, Weights* weights)
cdef ndarray read_image(const Problem* problem, ndarray x, Image* image)
cdef int fill_padding_map(const Problem* problem, dim size, dim before, dim after, dim* places) except -1
cdef ndarray result_array(const Problem* problem, object out)
cdef ndarray computed_array(const Problem* problem, ndarray y)
cdef int round_result(const Problem* problem, ndarray computed, ndarray y) except -1
cdef int check_overlap(ndarray out, ndarray other, str name) except -1
