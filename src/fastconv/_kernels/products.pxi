# Products of spectra, for method "fft": of rows along their columns, each row transformed on its own.
#
# Of one frequency, Y[k][p] = sum over c, r of X[c][p * p_step + r * r_step] * conj(W[k][c][r]), a short correlation
# along rows, with frequencies in the lanes. A complex product (a + ib) (c + id) takes three real ones: ac, bd and
# (a + b) (c + d), whose sums make up both parts at the end. So spectra are kept as three planes, a, b and a + b,
# and the register tile knows real numbers only: acc[i][k] += x[i] * w[k], all of them vectors, i < mp rows and
# k < mk filters.
# Two filters by many rows: weights come from the second-level cache, 10 bytes a cycle; by six rows of four, 21.
#
# Planes of x: [vector of frequencies][plane][c][row]. Planes of w: [vector of frequencies][plane], then for each pair
# of filters [c][r][filter]. All of it is read in order. Lanes past the last frequency are 0.

cdef enum:
    MOST_TILES = 6          # whose sums wait until all planes are done
    PLANE_SUMS = MOST_GROUP_SUMS * MOST_TILES
    SINGLE_MP = 12          # rows of a tile of one filter

cdef inline void split_values(const real* spectrum, dim count, real* to, dim pitch, real sign) noexcept nogil:
    """So many values of a spectrum into vectors of its three planes."""
    cdef dim i
    for i in range(count):
        to[i] = spectrum[2 * i]
        to[pitch + i] = sign * spectrum[2 * i + 1]
        to[2 * pitch + i] = spectrum[2 * i] + sign * spectrum[2 * i + 1]


cdef inline void split_planes(const real* spectrum, dim count, real* to, dim pitch, real sign) noexcept nogil:
    """One spectrum into its planes, which are `pitch` values apart; the imaginary part times `sign`."""
    cdef dim lanes = VECTOR_BYTES // sizeof(real)
    cdef dim i
    while count >= lanes:
        split_values(spectrum, lanes, to, pitch, sign)
        spectrum += 2 * lanes
        to += 3 * pitch
        count -= lanes
    if count > 0:
        for i in range(3):
            memset(to + i * pitch, 0, VECTOR_BYTES)
        split_values(spectrum, count, to, pitch, sign)


cdef void split_spectrum(dim item, const char* spectrum, dim count, char* to, dim pitch, bint conjugate) noexcept nogil:
    if item == 4:
        split_planes(<const float*> spectrum, count, <float*> to, pitch // 4, -1.0 if conjugate else 1.0)
    else:
        split_planes(<const double*> spectrum, count, <double*> to, pitch // 8, -1.0 if conjugate else 1.0)


cdef inline void store_tile(const Product* g, const lane* sums, char* y, dim lanes, int mk, int mp) noexcept nogil:
    """The spectra of mp rows x mk filters from the sums of three planes; so many lanes of each."""
    cdef lane pair[2]
    cdef lane re, im
    cdef char* to
    cdef const lane* both = sums + 2 * PLANE_SUMS
    cdef bint whole = lanes == VECTOR_BYTES // itemsize(sums)
    cdef int i, k
    for k in range(mk):
        to = y + k * g.y_k
        for i in range(mp):
            re = sums[i * mk + k] - sums[PLANE_SUMS + i * mk + k]
            im = both[i * mk + k] - sums[i * mk + k] - sums[PLANE_SUMS + i * mk + k]
            if whole:
                (<lane*> to)[0] = interleave_low(re, im)
                (<lane*> to)[1] = interleave_high(re, im)
            else:
                pair[0] = interleave_low(re, im)
                pair[1] = interleave_high(re, im)
                memcpy(to, pair, 2 * lanes * itemsize(sums))
            to += g.y_p


cdef inline void product_rows(const Product* g, const char* x, const char* w, char* y, dim lanes, lane* like, int mk,
                              int mp) noexcept nogil:
    """All rows of a pair of filters. The last tile moves up, over its neighbour.

    A plane at a time over several tiles, so that its weights stay in the first-level cache. Assumes mp <= P.
    """
    cdef lane sums[3 * PLANE_SUMS]
    cdef lane zeros[GROUP_KM]
    cdef GroupTile tile
    cdef dim p = 0, plane, row
    cdef int t
    memset(zeros, 0, sizeof(zeros))
    tile.C, tile.R, tile.S = g.C, g.R, 1
    tile.x_c, tile.x_r, tile.x_s = g.rows * VECTOR_BYTES, g.r_step * VECTOR_BYTES, 0
    tile.x_j = g.p_step * VECTOR_BYTES
    tile.rows = tile.Q = 1
    while p < g.P:
        for plane in range(3):
            for t in range(MOST_TILES):
                if p + t * mp >= g.P:
                    break
                row = min(p + t * mp, g.P - mp)
                group_tile(&tile, x + plane * g.x_plane + row * tile.x_j, w + plane * g.w_plane, zeros,
                           sums + plane * PLANE_SUMS + t * MOST_GROUP_SUMS, mp, mk)
        for t in range(MOST_TILES):
            if p + t * mp >= g.P:
                break
            row = min(p + t * mp, g.P - mp)
            store_tile(g, sums + t * MOST_GROUP_SUMS, y + row * g.y_p, lanes, mk, mp)
        p += MOST_TILES * mp


cdef inline void products_any(const Product* g, const char* x, const char* w, char* y, lane* like) noexcept nogil:
    cdef dim full = VECTOR_BYTES // itemsize(like)
    cdef dim vector, lanes, k
    cdef const char* panel
    for vector in range(ceil_div(g.frequencies, full)):
        lanes = min(full, g.frequencies - vector * full)
        for k in range(0, g.K, 2):
            panel = w + k * g.C * g.R * VECTOR_BYTES
            if g.K - k > 1 and g.P >= PRODUCT_MP:
                product_rows(g, x, panel, y + k * g.y_k, lanes, like, 2, PRODUCT_MP)
            elif g.K - k > 1:
                product_rows(g, x, panel, y + k * g.y_k, lanes, like, 2, 1)
            elif g.P >= SINGLE_MP:
                product_rows(g, x, panel, y + k * g.y_k, lanes, like, 1, SINGLE_MP)
            else:
                product_rows(g, x, panel, y + k * g.y_k, lanes, like, 1, 1)
        x += 3 * g.x_plane
        w += 3 * g.w_plane
        y += 2 * VECTOR_BYTES


cdef void products(const Product* g, const char* x, const char* w, char* y) noexcept nogil:
    if g.item == 4:
        products_any(g, x, w, y, <f32v*> NULL)
    else:
        products_any(g, x, w, y, <f64v*> NULL)


cdef inline void measure(const real* row, dim count, dim first, dim last, double* squares, double* core) noexcept nogil:
    """The sum of a row's squares, Inf where it underflows, and that of magnitudes in columns first .. last-1."""
    cdef double total[8]
    cdef dim i = 0
    cdef int j
    for j in range(8):
        total[j] = 0
    for i in range(0, count - 7, 8):
        for j in range(8):
            total[j] += <double> row[i + j] * row[i + j]
    for i in range(count - count % 8, count):
        total[0] += <double> row[i] * row[i]
    squares[0] = ((total[0] + total[1]) + (total[2] + total[3])) + ((total[4] + total[5]) + (total[6] + total[7]))
    if squares[0] < 1e-290:     # perhaps of numbers whose squares are too small
        for i in range(count):
            if row[i] != 0:
                squares[0] = INFINITY
    core[0] = sum_magnitudes(row + first, max(<dim> 0, last - first), 1)


cdef void measure_row(dim item, const char* row, dim count, dim first, dim last, double* squares,
                      double* core) noexcept nogil:
    if item == 4:
        measure(<const float*> row, count, first, last, squares, core)
    else:
        measure(<const double*> row, count, first, last, squares, core)


cdef inline double store_values(const real* sums, dim step, dim count, real bias, char* y, dim y_step,
                                bits zero) noexcept nogil:
    """Every step-th sum and the bias, y_step bytes apart; returns the largest magnitude of a sum. `zero` is one."""
    cdef bits most = zero
    cdef real largest
    cdef dim i
    for i in range(count):
        most = max(most, magnitude(bits_at(<const char*> (sums + i * step), zero)))
        (<real*> (y + i * y_step))[0] = sums[i * step] + bias
    memcpy(&largest, &most, sizeof(real))
    return largest


cdef double store_row(dim item, const char* sums, dim step, dim count, const char* bias, char* y,
                      dim y_step) noexcept nogil:
    """Every step-th sum and the bias into a row of y; returns the largest magnitude of a sum, or one that isn't finite.

    Magnitudes are compared as integers, in whose order Inf and NaN come last.
    """
    cdef const float* narrow = <const float*> sums
    cdef const double* wide = <const double*> sums
    if item == 4:
        if step == 1 and y_step == 4:       # vectorised
            return store_values(narrow, 1, count, (<const float*> bias)[0], y, 4, <unsigned int> 0)
        return store_values(narrow, step, count, (<const float*> bias)[0], y, y_step, <unsigned int> 0)
    if step == 1 and y_step == 8:
        return store_values(wide, 1, count, (<const double*> bias)[0], y, 8, <unsigned long long> 0)
    return store_values(wide, step, count, (<const double*> bias)[0], y, y_step, <unsigned long long> 0)
