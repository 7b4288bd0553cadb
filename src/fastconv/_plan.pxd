from cpython.ref cimport PyObject

from fastconv._kernels.kernel cimport dim, Image, Kernel, Shape, Weights
from fastconv._problem cimport Problem

cdef enum:
    SMALL_BYTES = 8192

cdef struct Small:
    # Memory on the stack for a problem so small that allocating it would take a good part of its time.
    char bytes[SMALL_BYTES + 64]

cdef struct Recipe:
    # What is settled before an image is there: sizes, the kernel, and packed weights, which the recipe owns.
    Problem problem
    const Kernel* kernel
    const Kernel* direct        # for images that the kernel isn't trusted with
    int method
    double cycles               # predicted, of one image
    Weights weights             # that are packed: where there are biases, they stay as long as the recipe
    char* multiple              # if they hold subnormal numbers a copy, which the recipe owns, and weights are,
    int exponent                # times 2^exponent, without biases; or NULL, and 0
    const char* bias            # as it came
    PyObject* spectra           # of method "fft" the Spectra, which the recipe owns, and no kernel; or NULL
    char* packed
    bint owned                  # whether packed is to be freed
    dim* rows                   # of a padded image: see Image
    dim* columns

cdef int check_choice(object method, bint planned) except -1
cdef int prepare(Recipe* recipe, object method, const Weights* weights, Small* small, object workers) except -1
cdef int execute(const Recipe* recipe, Image* x, char* y, object workers) except -1
cdef dict predictions(const Shape* shape)
cdef dict measured_times(Recipe* recipe, const Weights* weights, Image* x, char* y, object workers)
cdef str explanation(const Shape* shape, dict measured)
cdef str method_name(const Recipe* recipe)
cdef dim packed_bytes(const Recipe* recipe)
cdef dim workspace_bytes(const Recipe* recipe)
cdef void release(Recipe* recipe) noexcept
