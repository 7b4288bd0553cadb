"""What a kernel is to the plan: the same few functions for every method, dtype and instruction set.

A kernel computes one task of one correlation in normal form: no flips, no dtype changes, no user errors.
Tasks are numbered 0 .. tasks(shape)-1 and write disjoint parts of y, so they may run in any order and at once.
Nothing here depends on how many workers there are: the bits of y are the same for any number.
"""

ctypedef Py_ssize_t dim

cdef enum DType:
    FLOAT32 = 0
    FLOAT64 = 1

# Which index of the register tile lies along the lanes of a vector.
cdef enum:
    PIXELS = 0
    FILTERS = 1
    LAYOUTS = 2

cdef struct Shape:
    DType dtype
    dim item            # bytes of one value
    dim N, C, H, W      # images, channels, rows, columns of x
    dim K, R, S         # filters, their rows and columns
    dim P, Q            # rows and columns of y

# Arrays as byte strides. Columns of an image are contiguous; anything goes for a weight array, flips included.
cdef struct Image:
    const char* data
    dim n, c, h

cdef struct Weights:
    const char* data
    dim k, c, r, s
    const char* bias    # K contiguous values, or NULL for zeros

cdef struct Kernel:
    # Predicted time of one image, in cycles of one core; infinite where the kernel can't compute the shape.
    double (*cost)(const Shape* shape) noexcept nogil
    # Weights are packed once: `packed` has packed_bytes(shape) bytes, on a 64-byte boundary.
    dim (*packed_bytes)(const Shape* shape) noexcept nogil
    void (*pack)(const Shape* shape, const Weights* w, char* packed) noexcept nogil
    # Scratch memory of one worker, on a 64-byte boundary, at most 1 MiB.
    dim (*workspace_bytes)(const Shape* shape) noexcept nogil
    dim (*tasks)(const Shape* shape) noexcept nogil
    # y is N x K x P x Q, C-contiguous.
    void (*run)(const Shape* shape, const char* packed, const Image* x, char* y, dim task,
                char* workspace) noexcept nogil

cdef struct KernelTable:
    const char* isa
    Kernel kernels[LAYOUTS]
