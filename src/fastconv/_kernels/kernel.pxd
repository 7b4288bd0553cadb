"""What a kernel is to the plan: the same few functions for every method, dtype and instruction set.

A kernel computes one task of one correlation in normal form: no flips, no dtype changes, no user errors.
Tasks are numbered 0 .. tasks(shape, workers)-1 and write disjoint parts of y, so they may run in any order and at once.
How many there are may depend on the number of workers; what each output is summed from, and in which order, doesn't.
"""

ctypedef Py_ssize_t dim

cdef enum DType:
    FLOAT32 = 0
    FLOAT64 = 1
    INT32 = 2               # integers of either sign, modulo 2^32 and 2^64
    INT64 = 3
    PAIRS = 4               # two channels' integers of 16 bits, whose products are summed in 32

# The kernels. Direct sums differ in which index of the register tile lies along the lanes of a vector.
cdef enum:
    PIXELS = 0
    FILTERS = 1
    MATRIX = 2
    GROUPS = 3
    TERMS = 4
    DIRECT = 5              # so many of them
    WINOGRAD = 5
    SEPARABLE = 6
    KERNELS = 7

cdef enum:
    LINE = 64               # bytes of a cache line
    GROUPS_TOGETHER = 16    # a multiple of the lanes of a vector

cdef struct Shape:
    DType dtype
    dim item                # bytes of one value
    dim N, G                # images, and groups of channels and filters
    dim C, H, W             # channels of a group (of PAIRS, two each), rows, columns of x
    dim K, R, S             # filters of a group, their rows and columns
    dim P, Q                # rows and columns of y
    dim p_step, q_step      # rows and columns of x from one of y to the next (stride)
    dim r_step, s_step      # rows and columns of x from one of a filter to the next (dilation)
    bint gathered           # rows of x can't be read where they stand: they are padded, or their columns lie apart
    bint unpacked           # packed weights begin with Weights: the kernel packs them as it goes, or not at all
    bint separable          # every channel of every filter is a column times a row, as far as the error bound goes
    bint channels_last      # y is N x P x Q x K, and not N x K x P x Q; C-contiguous either way

# What values of x are, where an item of PAIRS is made of two.
cdef enum Narrow:
    SHORTS = 0              # of either sign: the sums are of 16 bits, or no value has more than 15 and a sign
    BYTES = 1
    UNSIGNED_BYTES = 2

# An array by its byte strides.
cdef struct Image:
    const char* data
    dim n, c, h, w
    # Of a padded image: the row of x that each of its rows is, or -1 where it holds the pad value; columns likewise.
    # NULL where there is no padding.
    const dim* rows
    const dim* columns
    dim left                # columns of padding before x, 0 without
    char pad[8]             # the pad value
    # Of PAIRS only: where the second channel of an item stands, from the first on, and how many channels there are, the
    # last one perhaps alone.
    dim second
    dim channels
    Narrow narrow
    char* shared            # what a kernel's tasks read instead, once its `share` has written it

cdef struct Weights:
    const char* data
    dim k, c, r, s          # byte strides: anything goes, flips included
    const char* bias        # G * K contiguous values, or NULL for zeros

cdef struct Kernel:
    # Predicted time of one image, in cycles of one core; infinite where the kernel can't compute the shape.
    double (*cost)(const Shape* shape) noexcept nogil
    # And of packing the weights.
    double (*pack_cost)(const Shape* shape) noexcept nogil
    # Weights are packed once: `packed` has packed_bytes(shape) bytes, on a 64-byte boundary. Those of the first
    # GROUPS_TOGETHER groups, or of a multiple, take as many bytes as they would alone, in a direct kernel.
    dim (*packed_bytes)(const Shape* shape) noexcept nogil
    # Tasks 0 .. pack_tasks(shape)-1 write disjoint parts of it, in any order and at once.
    dim (*pack_tasks)(const Shape* shape) noexcept nogil
    void (*pack)(const Shape* shape, const Weights* w, char* packed, dim task) noexcept nogil
    # Whether, for one call, weights are better packed as they are needed, or read as they stand; NULL where they can't.
    bint (*packs_late)(const Shape* shape, const Weights* w) noexcept nogil
    # Whether the error bound is kept for an image, or without one, for any; NULL where it always is. Images that aren't
    # trusted are computed by direct-filters, from the same packed weights.
    bint (*trusted)(const Shape* shape, const char* packed, const Image* x) noexcept nogil
    # Scratch memory of one worker, on a 64-byte boundary.
    dim (*workspace_bytes)(const Shape* shape, int workers) noexcept nogil
    dim (*tasks)(const Shape* shape, int workers) noexcept nogil
    void (*run)(const Shape* shape, int workers, const char* packed, const Image* x, char* y, dim task,
                char* workspace) noexcept nogil
    # What all tasks would make of x is made before them, once: NULL where it never is. It is x.shared and has as many
    # bytes; 0, then each task makes its own. Tasks 0 .. sharing_tasks(shape, workers)-1 write disjoint parts of it.
    dim (*shared_bytes)(const Shape* shape, int workers) noexcept nogil
    dim (*sharing_tasks)(const Shape* shape, int workers) noexcept nogil
    void (*share)(const Shape* shape, int workers, const Image* x, dim task, char* workspace) noexcept nogil

# Of method "fft", what has a loop over every value: see products.pxi.
cdef struct Product:
    dim item                # bytes of one value
    dim C, R, K, P          # channels, rows of a filter, filters and rows of y
    dim rows                # of x, of each channel
    dim p_step, r_step
    dim frequencies
    dim x_plane, w_plane    # bytes from one plane to the next
    dim y_k, y_p            # byte strides of y's spectra, whose real and imaginary parts lie side by side

cdef struct Products:
    dim vector              # bytes of a vector
    dim rows                # of a tile; fewer are taken one by one
    double cycles           # of a multiply-add of vectors
    void (*gather_row)(const Shape* shape, const Image* x, const char* image, dim c, dim h, dim first, dim count,
                       char* to) noexcept nogil
    void (*measure_row)(dim item, const char* row, dim count, dim first, dim last, double* squares,
                        double* core) noexcept nogil
    void (*split_spectrum)(dim item, const char* spectrum, dim count, char* to, dim pitch,
                           bint conjugate) noexcept nogil
    void (*multiply)(const Product* g, const char* x, const char* w, char* y) noexcept nogil
    double (*store_row)(dim item, const char* sums, dim step, dim count, const char* bias, char* y,
                        dim y_step) noexcept nogil

cdef struct KernelTable:
    Kernel kernels[KERNELS]
    bint (*is_separable)(const Shape* shape, const Weights* w) noexcept nogil
    # Images and weights with subnormal numbers are computed from multiples of them: see subnormal.pxi.
    bint (*has_subnormals)(const Shape* shape, const Image* x) noexcept nogil
    bint (*weights_have_subnormals)(const Shape* shape, const Weights* w) noexcept nogil
    int (*scale_image)(const Shape* shape, Image* x, char* to) noexcept nogil
    int (*scale_weights)(const Shape* shape, Weights* w, char* to) noexcept nogil
    bint (*unscale_result)(const Shape* shape, const char* sums, int exponent, const char* bias, char* y,
                           dim y_plane) noexcept nogil
    Products products


# What kernels and methods compute alike from sizes.

cdef inline dim ceil_div(dim a, dim b) noexcept nogil:
    if a <= b:
        return a > 0
    return (a + b - 1) // b


cdef inline dim whole_lines(dim size) noexcept nogil:
    """size, to the end of its last cache line."""
    return (size + LINE - 1) // LINE * LINE


cdef inline char* line_from(char* address) noexcept nogil:
    """The first address from here on where a cache line begins."""
    return address + (-<size_t> address) % LINE


cdef inline dim split(dim total, dim parts, dim i) noexcept nogil:
    """Where part i begins when total is cut into parts of nearly equal size, the larger ones first."""
    cdef dim longer
    if parts == 1:
        return i * total
    longer = total % parts
    return i * (total // parts) + (i if i < longer else longer)


cdef inline dim reach_h(const Shape* shape, dim rows) noexcept nogil:
    """Rows of x that `rows` rows of y see."""
    return (rows - 1) * shape.p_step + (shape.R - 1) * shape.r_step + 1


cdef inline dim reach_w(const Shape* shape, dim columns) noexcept nogil:
    """Columns of x that `columns` columns of y see."""
    return (columns - 1) * shape.q_step + (shape.S - 1) * shape.s_step + 1


# Where results stand in y.

cdef inline dim result_bytes(const Shape* shape) noexcept nogil:
    """Of one image."""
    return shape.G * shape.K * shape.P * shape.Q * shape.item


cdef inline dim filter_step(const Shape* shape) noexcept nogil:
    """Bytes from one filter's results to the next's."""
    return shape.item if shape.channels_last else shape.P * shape.Q * shape.item


cdef inline dim pixel_step(const Shape* shape) noexcept nogil:
    """Bytes from one pixel to the next in a row; rows follow each other."""
    return shape.G * shape.K * shape.item if shape.channels_last else shape.item


cdef inline bint is_sequence(const Shape* shape) noexcept nogil:
    """Whether rows are one row to filters of 1 x 1, if they follow each other in x and it isn't padded."""
    return (shape.R == 1 == shape.S and shape.p_step == 1 == shape.q_step
            and shape.P == shape.H > 1 and shape.Q == shape.W)


cdef inline Shape one_row(const Shape* shape) noexcept nogil:
    """The same as one row: there are longer pieces to copy then, and fewer."""
    cdef Shape row = shape[0]
    row.W *= row.H
    row.Q *= row.P
    row.H = row.P = 1
    return row


cdef inline bint is_float(const Shape* shape) noexcept nogil:
    return shape.dtype == FLOAT32 or shape.dtype == FLOAT64


cdef inline Image image_from(const Image* x, dim row, dim column) noexcept nogil:
    """The padded image without the rows and columns before these, to compute a part of y as a problem of its own."""
    cdef Image part = x[0]
    if x.rows == NULL:
        part.data += row * x.h + column * x.w
    else:
        part.rows += row
        part.columns += column
        part.left -= column
    return part


cdef struct Place:
    # What a task computes: a block of a group of image n, for panels first .. last-1 of filters.
    dim n, group, block, first, last


cdef inline Place place_of(const Shape* shape, dim task, dim blocks, dim sets, dim panels) noexcept nogil:
    """The task's place where blocks follow each other, then sets of panels, groups, and images."""
    cdef Place place
    cdef dim row = task // blocks if blocks > 1 else task
    cdef dim image = row // sets if sets > 1 else row
    place.block = task - row * blocks
    place.n = image // shape.G if shape.G > 1 else image
    place.group = image - place.n * shape.G
    place.first = split(panels, sets, row - image * sets)
    place.last = split(panels, sets, row - image * sets + 1)
    return place
