from numpy cimport ndarray

from fastconv._kernels.kernel cimport dim, Image, Shape, Weights

cdef struct Problem:
    Shape shape             # N = 1 until an image is there
    int typenum             # NumPy's number of the dtype that is computed in
    int ndim                # of x

cdef ndarray array_argument(object value, str name)
cdef int check_options(object mode, object stride, object padding, object dilation, object groups) except -1
cdef int set_dtype(Problem* problem, object x_dtype, ndarray w, object dtype) except -1
cdef int set_sizes(Problem* problem, int x_ndim, const dim* x_shape, ndarray w) except -1
cdef int read_shape(object x_shape, dim* sizes) except -1
cdef int set_images(Problem* problem, ndarray x) except -1
cdef ndarray read_weights(const Problem* problem, ndarray w, bint reverse, bint flip_channels, Weights* weights)
cdef ndarray read_bias(const Problem* problem, object bias, Weights* weights)
cdef ndarray read_image(const Problem* problem, ndarray x, Image* image)
cdef ndarray result_array(const Problem* problem, object out)
cdef int check_overlap(ndarray out, ndarray other, str name) except -1
