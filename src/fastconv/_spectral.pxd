from numpy cimport ndarray

from fastconv._kernels.kernel cimport dim, Image, KernelTable, Shape, Weights

cdef struct Cut:
    # How a problem is cut: into strips of columns, as wide as a transform has results, and bands of rows. A function
    # of one image's sizes and the instruction set.
    dim length              # of a transform
    dim frequencies, vectors    # of its spectrum
    dim columns, strips     # columns of y in a strip but the last, and strips
    dim bands
    dim filters             # whose sums are transformed back at a time
    bint doubtful           # whether ordinary data may fail to be known to keep the contract
    double cycles           # predicted, of one image
    double pack_cycles      # of the weights' transforms

cdef struct Block:
    # What one task computes, and where in its workspace.
    dim n, group
    dim p, rows, q, columns     # of y
    dim x_rows
    char* lines                 # (C, x_rows) lines of a transform's length; then sums' spectra
    char* planes                # of x's spectra
    double* squares             # of each row of x, the sum of squares
    double* cores               # and that of magnitudes in the columns that all values of a filter see
    const char* w               # planes of this group's filters
    const char* bias

cdef class Spectra:
    """The weights of a problem, transformed, and how to compute with them."""

    cdef const KernelTable* table
    cdef Cut cut
    cdef ndarray planes     # of each group, as products.pxi has them
    cdef ndarray w, bias    # as they came, for what transforms can't compute; bias of zeros where there is none
    # In double, of rows of filters: the largest norm of any of a group's, (G, C, R), and sums of magnitudes,
    # (G, K, C, R).
    cdef ndarray norms, sums
    cdef const double* norms_data
    cdef const double* sums_data

    cdef void compute(self, const Shape* shape, const Image* x, char* y, dim task, char* workspace) except *
    cdef double compute_sums(self, const Shape* shape, const Block* b, const Image* x, char* y) except -1
    cdef bint accurate(self, const Shape* shape, const Block* b, double largest) noexcept nogil
    cdef int compute_directly(self, const Shape* shape, const Block* b, const Image* x, char* y) except -1
    cdef dim packed_bytes(self)
    cdef dim own_bytes(self, const Shape* shape) noexcept
    cdef dim workspace_bytes(self, const Shape* shape) noexcept
    cdef dim tasks(self, const Shape* shape) noexcept

cdef bint available()
cdef Cut cut_problem(const KernelTable* table, const Shape* shape) noexcept nogil
cdef double least_cycles(const Shape* shape) noexcept nogil
cdef Spectra transformed(const KernelTable* table, const Shape* shape, const Weights* weights)
