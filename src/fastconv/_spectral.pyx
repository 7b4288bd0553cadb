"""Method "fft": rows of blocks and of filters are transformed, multiplied, summed along columns, and transformed back.

The transforms are a library's (_transforms.py), which is imported when a plan first asks for them: fastconv itself
needs NumPy alone.
Only rows are transformed. Along columns the sum stays a sum, of as many products as a filter has rows, which vectors
of frequencies compute faster than a second transform would; and so strides and dilation of rows cost nothing, and the
weights' spectra are small.
"""

import numpy as np

cimport numpy as cnp
from cpython.exc cimport PyErr_CheckSignals
from libc.math cimport INFINITY, isfinite, log2, sqrt
from libc.string cimport memcpy, memset
from numpy cimport ndarray

from fastconv._kernels.kernel cimport (
    ceil_div, dim, filter_step, FILTERS, FLOAT32, Image, image_from, Kernel, KernelTable, line_from, pixel_step, PIXELS,
    Product, reach_h, reach_w, result_bytes, Shape, split, Weights, whole_lines,
)

cnp.import_array()

cdef enum:
    # Cycles, as measured on 3x512x512 by 16 of 31x31 and on 1x512x512 by 63x63.
    POINT = 9               # of a transform of float32, copies to it and from it included; of float64 twice
    CALL = 30_000           # of the library
    WAIT = 2                # of a product, where rows are too few for a tile: for the last one of its sum
    ROWS = 12               # of y in a tile of products, at most; of which bands are made
    # Bytes.
    MOST_WORKSPACE = 12 << 20   # of a worker, where a cut can do with it
    MOST_SUMS = 1 << 18     # spectra of sums, transformed back while they are in a cache
    CACHED_BYTES = 1 << 20  # of weights' spectra that a second-level cache holds; of others,
    STREAM = 5              # that arrive in a cycle

_transforms = None          # of rows, as _transforms.py has them
_asked = False              # for them


cdef bint available():
    """Whether there is a library to transform with. Imports it."""
    global _transforms, _asked
    if not _asked:
        from fastconv._transforms import installed
        _transforms = installed()
        _asked = True
    return _transforms is not None


cdef inline dim band_rows(const Shape* shape, const Cut* cut) noexcept nogil:
    """Rows of y in the largest band."""
    return min(shape.P, ROWS * ceil_div(ceil_div(shape.P, ROWS), cut.bands))


cdef dim good_length(dim least) noexcept nogil:
    """The next even length without prime factors above 5. Tries them by their factors: far out they are rare."""
    cdef dim best = 2, fives = 1, threes, length
    while best < least: best *= 2
    while fives < best:
        threes = fives
        while threes < best:
            length = 2 * threes
            while length < least: length *= 2
            best = min(best, length)
            threes *= 3
        fives *= 5
    return best


cdef double least_cycles(const Shape* shape) noexcept nogil:
    """What transforms take at least: where a direct sum is faster than that, there is no need to look for a cut."""
    return shape.G * (POINT * (shape.item // 4) * (<double> shape.C * shape.H * shape.W / 4
                                                   + <double> shape.K * shape.P * shape.Q) + 2 * CALL)


cdef void set_cost(const KernelTable* table, const Shape* shape, Cut* cut) noexcept nogil:
    """Predicted cycles of one image, and of transforming the weights."""
    cdef double wide = shape.item // 4
    cdef double point = POINT * wide
    cdef double rows = cut.bands * shape.C * reach_h(shape, band_rows(shape, cut))
    cdef double filters = <double> shape.K * shape.P
    cdef double weights = 3.0 * cut.vectors * shape.K * shape.C * shape.R       # vectors
    cdef double product = table.products.cycles * 1.4
    cdef double products
    if band_rows(shape, cut) < table.products.rows:
        product = max(product, <double> WAIT)
    products = weights * shape.P * product
    if weights * table.products.vector > CACHED_BYTES:
        products = max(products, weights * table.products.vector * cut.bands / STREAM)
    cut.cycles = shape.G * cut.strips * ((rows + filters) * cut.length * point + products
                                         + cut.bands * (CALL + ceil_div(shape.K, cut.filters) * CALL))
    cut.pack_cycles = 1.5 * shape.G * shape.K * shape.C * shape.R * cut.length * point


cdef inline double relative_error(const Shape* shape, const Cut* cut) noexcept nogil:
    """Of a sum, in unit roundoffs of the norms of the rows it is made of, at most.

    Some twice the most that benchmarks/fft_errors.py has found: of the transforms, and of sums over rows whose
    spectra are a few lines, where every addition may round the same way.
    """
    return 0.75 * log2(cut.length) + <double> shape.C * shape.R / 4


cdef void set_length(const KernelTable* table, const Shape* shape, Cut* cut, dim length) noexcept nogil:
    cdef dim lanes = table.products.vector // shape.item
    cut.length = length
    cut.frequencies = length // 2 + 1
    cut.vectors = ceil_div(cut.frequencies, lanes)
    cut.columns = (length - (shape.S - 1) * shape.s_step - 1) // shape.q_step + 1
    cut.strips = ceil_div(shape.Q, cut.columns)
    # Of random numbers: norms are roots of counts, and mean magnitudes about 0.8; with a margin of 2.
    cut.doubtful = (relative_error(shape, cut) * sqrt(<double> length)
                    > 0.3 * shape.C * shape.R * shape.S * sqrt(<double> shape.S))


cdef void set_bands(const KernelTable* table, const Shape* shape, Cut* cut, dim bands) noexcept nogil:
    cdef dim filters
    cut.bands = bands
    filters = MOST_SUMS // (band_rows(shape, cut) * cut.vectors * 2 * table.products.vector)
    cut.filters = max(<dim> 1, min(shape.K, max(<dim> 2, filters - filters % 2)))


cdef Cut cut_problem(const KernelTable* table, const Shape* shape) noexcept nogil:
    """The cut with the least predicted time, of those that leave work for several workers."""
    cdef Cut cut, best
    cdef dim whole = good_length(reach_w(shape, shape.Q))
    cdef dim length = min(whole, good_length((shape.S - 1) * shape.s_step + 2))
    cdef dim bands, tiles = ceil_div(shape.P, ROWS)
    cdef double value, least = INFINITY
    memset(&best, 0, sizeof(Cut))
    while True:
        set_length(table, shape, &cut, length)
        bands = 1
        while True:
            set_bands(table, shape, &cut, bands)
            set_cost(table, shape, &cut)
            # Half of the time is counted for a second worker; too large a workspace is for those without a choice.
            value = cut.cycles * (1 + 0.5 / (<double> bands * cut.strips * shape.G))
            if own_bytes(table, shape, &cut) > MOST_WORKSPACE:
                value = 1e30 * own_bytes(table, shape, &cut)
            if cut.doubtful:
                value *= 1e6
            if value < least:
                least = value
                best = cut
            if bands == tiles:
                break
            bands = min(tiles, bands + ceil_div(bands, 2))
        if length == whole:
            return best
        length = min(whole, good_length(length + max(<dim> 2, length // 8)))


cdef inline dim sum_pitch(const KernelTable* table, const Cut* cut) noexcept nogil:
    """Bytes from one row of sums' spectra to the next; not a power of two, which would share few cache sets."""
    return (2 * cut.vectors + 1) * table.products.vector


cdef inline dim x_rows(const Shape* shape, const Cut* cut) noexcept nogil:
    """Rows of x that the largest band sees."""
    return reach_h(shape, band_rows(shape, cut))


cdef inline dim lines_bytes(const KernelTable* table, const Shape* shape, const Cut* cut) noexcept nogil:
    """Of rows of x before they are transformed, and then, in the same place, of the sums' spectra."""
    return max(shape.C * x_rows(shape, cut) * cut.length * shape.item,
               cut.filters * band_rows(shape, cut) * sum_pitch(table, cut))


cdef inline dim plane_bytes(const KernelTable* table, const Shape* shape, const Cut* cut) noexcept nogil:
    return shape.C * x_rows(shape, cut) * table.products.vector


cdef dim own_bytes(const KernelTable* table, const Shape* shape, const Cut* cut) noexcept nogil:
    """Of a worker's workspace: lines, planes of spectra, and two measures of each row."""
    return (whole_lines(lines_bytes(table, shape, cut)) + 3 * cut.vectors * plane_bytes(table, shape, cut)
            + 2 * shape.C * x_rows(shape, cut) * sizeof(double))


cdef inline int numpy_type(const Shape* shape) noexcept nogil:
    return cnp.NPY_FLOAT if shape.dtype == FLOAT32 else cnp.NPY_DOUBLE


cdef char* aligned(ndarray memory):
    """The first address of an array of bytes that is a multiple of 64."""
    return line_from(cnp.PyArray_BYTES(memory))


cdef Spectra transformed(const KernelTable* table, const Shape* shape, const Weights* weights):
    """The weights' spectra; None where there is a NaN or an Inf among them, which a transform would spread."""
    cdef cnp.npy_intp sizes[4]
    cdef cnp.npy_intp strides[4]
    cdef ndarray values, spectra
    cdef Spectra self = Spectra.__new__(Spectra)
    cdef Cut* cut = &self.cut
    cdef dim vector = table.products.vector
    cdef dim group, k, first, width, i, rows = shape.C * shape.R
    cdef dim plane = shape.K * rows * vector
    cdef char* to
    self.table = table
    cut[0] = cut_problem(table, shape)
    sizes[0], sizes[1], sizes[2], sizes[3] = shape.G * shape.K, shape.C, shape.R, shape.S
    strides[0], strides[1], strides[2], strides[3] = weights.k, weights.c, weights.r, weights.s
    values = cnp.PyArray_New(ndarray, 4, sizes, numpy_type(shape), strides, <void*> weights.data, 0, 0, None)
    self.w = values.copy()
    if not np.isfinite(self.w).all():
        return None
    self.bias = np.zeros(shape.G * shape.K, self.w.dtype)
    if weights.bias != NULL:
        memcpy(cnp.PyArray_DATA(self.bias), weights.bias, cnp.PyArray_NBYTES(self.bias))
    with np.errstate(all="ignore"):
        norms = np.sqrt(np.square(self.w, dtype="f8").sum(axis=3)).reshape(shape.G, shape.K, shape.C, shape.R)
        self.norms = np.ascontiguousarray(norms.max(axis=1, initial=0))
    self.sums = np.abs(self.w).sum(axis=3, dtype="f8")
    self.norms_data = <const double*> cnp.PyArray_DATA(self.norms)
    self.sums_data = <const double*> cnp.PyArray_DATA(self.sums)
    self.planes = np.empty(shape.G * 3 * cut.vectors * plane + 64, np.uint8)
    # A pair of filters at a time, padded and dilated.
    for group in range(shape.G):
        for first in range(0, shape.K, 2):
            width = min(<dim> 2, shape.K - first)
            values = np.zeros((width * rows, cut.length), self.w.dtype)
            values[:, : (shape.S - 1) * shape.s_step + 1 : shape.s_step] = self.w[
                group * shape.K + first : group * shape.K + first + width
            ].reshape(width * rows, shape.S)
            spectra = _transforms.spectra(values)
            to = aligned(self.planes) + group * 3 * cut.vectors * plane + first * rows * vector
            for k in range(width):
                for i in range(rows):
                    table.products.split_spectrum(
                        shape.item, cnp.PyArray_BYTES(spectra) + (k * rows + i) * cnp.PyArray_STRIDES(spectra)[0],
                        cut.frequencies, to + (i * width + k) * vector, plane, True,
                    )
    return self


cdef void gather(const KernelTable* table, const Shape* shape, const Cut* cut, const Block* b,
                 const Image* x) noexcept nogil:
    """Rows of x into lines, with zeros behind them, and their measures."""
    cdef dim width = reach_w(shape, b.columns)
    cdef dim first = (shape.S - 1) * shape.s_step
    cdef dim last = b.columns if shape.q_step == 1 else 0
    cdef dim c, h, line = 0
    cdef const char* image = x.data + b.n * x.n + b.group * shape.C * x.c
    cdef char* to = b.lines
    for c in range(shape.C):
        for h in range(b.x_rows):
            table.products.gather_row(shape, x, image, c, b.p * shape.p_step + h, b.q * shape.q_step, width, to)
            memset(to + width * shape.item, 0, (cut.length - width) * shape.item)
            table.products.measure_row(shape.item, to, width, first, last, b.squares + line, b.cores + line)
            to += cut.length * shape.item
            line += 1


cdef void split_rows(const KernelTable* table, const Shape* shape, const Cut* cut, const Block* b,
                     const char* spectra) noexcept nogil:
    """Spectra of x, as the library has left them, into planes."""
    cdef dim line
    for line in range(shape.C * b.x_rows):
        table.products.split_spectrum(
            shape.item, spectra + line * cut.frequencies * 2 * shape.item, cut.frequencies,
            b.planes + line * table.products.vector, shape.C * b.x_rows * table.products.vector, False,
        )


cdef void multiply(const KernelTable* table, const Shape* shape, const Cut* cut, const Block* b, dim first,
                   dim count) noexcept nogil:
    """The spectra of the sums of some filters; `first` is even."""
    cdef Product g
    cdef dim vector = table.products.vector
    g.item = shape.item
    g.C, g.R, g.K, g.P = shape.C, shape.R, count, b.rows
    g.rows = b.x_rows
    g.p_step, g.r_step = shape.p_step, shape.r_step
    g.frequencies = cut.frequencies
    g.x_plane = shape.C * b.x_rows * vector
    g.w_plane = shape.K * shape.C * shape.R * vector
    g.y_p = sum_pitch(table, cut)
    g.y_k = b.rows * g.y_p
    table.products.multiply(&g, b.planes, b.w + first * shape.C * shape.R * vector, b.lines)


cdef double store(const KernelTable* table, const Shape* shape, const Block* b, dim first, dim count, const char* sums,
                  dim length, char* y) noexcept nogil:
    """Sums of some filters, and biases, into y; returns the largest magnitude of a sum, Inf for one not finite."""
    cdef dim y_q = pixel_step(shape)
    cdef dim y_k = filter_step(shape)
    cdef dim k, p
    cdef double most, largest = 0
    y += b.n * result_bytes(shape) + (b.group * shape.K + first) * y_k
    for k in range(count):
        for p in range(b.rows):
            most = table.products.store_row(
                shape.item, sums, shape.q_step, b.columns, b.bias + (first + k) * shape.item,
                y + k * y_k + ((b.p + p) * shape.Q + b.q) * y_q, y_q,
            )
            largest = max(largest, most if isfinite(most) else INFINITY)
            sums += length * shape.item
    return largest


cdef ndarray lines(const Shape* shape, const Block* b, dim length):
    cdef cnp.npy_intp sizes[2]
    sizes[0], sizes[1] = shape.C * b.x_rows, length
    return cnp.PyArray_SimpleNewFromData(2, sizes, numpy_type(shape), b.lines)


cdef ndarray sum_spectra(const KernelTable* table, const Shape* shape, const Cut* cut, const Block* b, dim count):
    cdef cnp.npy_intp sizes[2]
    cdef cnp.npy_intp strides[2]
    sizes[0], sizes[1] = count * b.rows, cut.frequencies
    strides[0], strides[1] = sum_pitch(table, cut), 2 * shape.item
    return cnp.PyArray_New(ndarray, 2, sizes, cnp.NPY_CFLOAT if shape.item == 4 else cnp.NPY_CDOUBLE, strides, b.lines,
                           0, cnp.NPY_ARRAY_ALIGNED, None)


cdef class Spectra:

    cdef dim tasks(self, const Shape* shape) noexcept:
        return shape.N * shape.G * self.cut.strips * self.cut.bands

    cdef dim own_bytes(self, const Shape* shape) noexcept:
        """Of the workspace that `compute` is to be given."""
        return own_bytes(self.table, shape, &self.cut)

    cdef dim workspace_bytes(self, const Shape* shape) noexcept:
        """The same, with what the library allocates: spectra of x, or sums of a batch of filters."""
        cdef const Cut* cut = &self.cut
        return own_bytes(self.table, shape, cut) + shape.item * max(
            shape.C * x_rows(shape, cut) * 2 * cut.frequencies, cut.filters * band_rows(shape, cut) * cut.length
        )

    cdef dim packed_bytes(self):
        return sum(array.nbytes for array in (self.planes, self.w, self.bias, self.norms, self.sums))

    cdef void compute(self, const Shape* shape, const Image* x, char* y, dim task, char* workspace) except *:
        """One band of one strip of one group of an image."""
        cdef const Cut* cut = &self.cut
        cdef Block b
        cdef dim part = task, tiles = ceil_div(shape.P, ROWS)
        cdef double largest
        b.p = ROWS * split(tiles, cut.bands, part % cut.bands)
        b.rows = min(shape.P, ROWS * split(tiles, cut.bands, part % cut.bands + 1)) - b.p
        part //= cut.bands
        b.q = part % cut.strips * cut.columns
        part //= cut.strips
        b.group = part % shape.G
        b.n = part // shape.G
        b.columns = min(cut.columns, shape.Q - b.q)
        b.x_rows = reach_h(shape, b.rows)
        b.lines = workspace
        b.planes = workspace + whole_lines(lines_bytes(self.table, shape, cut))
        b.squares = <double*> (b.planes + 3 * cut.vectors * plane_bytes(self.table, shape, cut))
        b.cores = b.squares + shape.C * b.x_rows
        b.w = aligned(self.planes) + (b.group * 3 * cut.vectors * shape.K * shape.C * shape.R
                                      * self.table.products.vector)
        b.bias = cnp.PyArray_BYTES(self.bias) + b.group * shape.K * shape.item
        try:
            largest = self.compute_sums(shape, &b, x, y)
        except MemoryError as error:
            raise MemoryError(f"can't allocate {self.workspace_bytes(shape)} bytes for transforms") from error
        if not self.accurate(shape, &b, largest):
            self.compute_directly(shape, &b, x, y)

    cdef double compute_sums(self, const Shape* shape, const Block* b, const Image* x, char* y) except -1:
        """The block by transforms; returns the largest magnitude of a sum, Inf where one isn't finite."""
        cdef const Cut* cut = &self.cut
        cdef double largest = 0
        cdef dim first, count
        with nogil:
            gather(self.table, shape, cut, b, x)
        spectra = _transforms.spectra(lines(shape, b, cut.length))
        with nogil:
            split_rows(self.table, shape, cut, b, cnp.PyArray_BYTES(<ndarray> spectra))
        del spectra
        for first in range(0, shape.K, cut.filters):
            count = min(cut.filters, shape.K - first)
            with nogil:
                multiply(self.table, shape, cut, b, first, count)
            sums = sum_spectra(self.table, shape, cut, b, count)
            sums = _transforms.rows(sums, cut.length)
            with nogil:
                largest = max(largest, store(self.table, shape, b, first, count, cnp.PyArray_BYTES(<ndarray> sums),
                                             cut.length, y))
            del sums
        return largest

    cdef bint accurate(self, const Shape* shape, const Block* b, double largest) noexcept nogil:
        """Whether the sums are known to keep the contract, n u / (1 - n u) times the largest sum of magnitudes.

        That sum is at least the largest result, and at least the mean over the block of what all values of a filter
        see of x. The error is bounded by the norms of rows, which also count what only zeros of a filter see; where
        numbers are subnormal, by their spacing.
        """
        cdef const double* norms = self.norms_data + b.group * shape.C * shape.R
        cdef const double* sums = self.sums_data + b.group * shape.K * shape.C * shape.R
        cdef double unit = 2.0**-24 if shape.item == 4 else 2.0**-53
        cdef double tiny = 2.0**-149 if shape.item == 4 else 2.0**-1074
        cdef double terms = <double> shape.C * shape.R * shape.S * unit
        cdef double* means = <double*> b.lines
        cdef double total, all_norms = 0, most = 0, least = 0
        cdef double error
        cdef dim c, r, p, k, line
        if not isfinite(largest):
            return False
        for line in range(shape.C * b.x_rows):
            b.squares[line] = sqrt(b.squares[line])
            all_norms += b.squares[line]
        if all_norms == 0:
            return True
        for p in range(b.rows):
            total = 0
            for c in range(shape.C):
                for r in range(shape.R):
                    total += norms[c * shape.R + r] * b.squares[c * b.x_rows + p * shape.p_step + r * shape.r_step]
            most = max(most, total)
        error = unit * most * relative_error(shape, &self.cut)
        for line in range(shape.C * shape.R):
            all_norms += norms[line]
        error += tiny * self.cut.length * (all_norms + shape.C * shape.R)
        for c in range(shape.C):
            for r in range(shape.R):
                total = 0
                for p in range(b.rows):
                    total += b.cores[c * b.x_rows + p * shape.p_step + r * shape.r_step]
                means[c * shape.R + r] = total / (<double> b.rows * b.columns)
        for k in range(shape.K):
            total = 0
            for line in range(shape.C * shape.R):
                total += sums[k * shape.C * shape.R + line] * means[line]
            least = max(least, total)
        return error <= terms / (1 - terms) * max(least, largest - error)

    cdef int compute_directly(self, const Shape* shape, const Block* b, const Image* x, char* y) except -1:
        """The block once more, by a direct kernel, as a problem of its own."""
        cdef const Kernel* kernel = &self.table.kernels[PIXELS]
        cdef Shape sub = shape[0]
        cdef Image image = image_from(x, b.p * shape.p_step, b.q * shape.q_step)
        cdef Weights weights
        cdef dim w_filter = shape.C * shape.R * shape.S * shape.item
        cdef dim task
        cdef char* weights_at
        cdef char* scratch
        cdef char* to
        cdef ndarray packed, workspace, result, target
        cdef cnp.npy_intp sizes[3]
        cdef cnp.npy_intp strides[3]
        sub.N = sub.G = 1
        sub.P, sub.Q = b.rows, b.columns
        sub.channels_last = False
        image.data += b.n * x.n + b.group * shape.C * x.c
        weights.data = cnp.PyArray_BYTES(self.w) + b.group * shape.K * w_filter
        weights.bias = b.bias
        weights.k, weights.c = w_filter, w_filter // shape.C
        weights.r, weights.s = shape.S * shape.item, shape.item
        if self.table.kernels[FILTERS].cost(&sub) < kernel.cost(&sub):
            kernel = &self.table.kernels[FILTERS]
        packed = np.empty(kernel.packed_bytes(&sub) + 64, np.uint8)
        workspace = np.empty(kernel.workspace_bytes(&sub, 1) + 64, np.uint8)
        result = np.empty((shape.K, b.rows, b.columns), self.w.dtype)
        weights_at, scratch, to = aligned(packed), aligned(workspace), cnp.PyArray_BYTES(result)
        for task in range(kernel.pack_tasks(&sub)):
            kernel.pack(&sub, &weights, weights_at, task)
        for task in range(kernel.tasks(&sub, 1)):
            with nogil:
                kernel.run(&sub, 1, weights_at, &image, to, task, scratch)
            PyErr_CheckSignals()
        sizes[0], sizes[1], sizes[2] = shape.K, b.rows, b.columns
        strides[2] = pixel_step(shape)
        strides[1] = shape.Q * strides[2]
        strides[0] = filter_step(shape)
        y += b.n * result_bytes(shape) + b.group * shape.K * strides[0]
        y += b.p * strides[1] + b.q * strides[2]
        target = cnp.PyArray_New(ndarray, 3, sizes, numpy_type(shape), strides, y, 0,
                                 cnp.NPY_ARRAY_ALIGNED | cnp.NPY_ARRAY_WRITEABLE, None)
        np.copyto(target, result)
        return 0
