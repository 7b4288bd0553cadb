# Winograd's minimal filtering: filters of 3 x 3 or 5 x 5, stride 1, many channels and filters.
#
# POINTS outputs and filter values less one make a tile of y from a tile of x that is POINTS x POINTS, by as many
# multiplications: Y = A' [sum over c of (G w G') * (B' x B)] A, with * element by element. A tile of y has
# m = POINTS + 1 - R rows and columns: 4 for 3 x 3 filters, with 36 multiplications instead of 144; 2 for 5 x 5, with 36
# instead of 100.
#
# S. Winograd, Arithmetic Complexity of Computations, SIAM, 1980; A. Lavin and S. Gray, Fast Algorithms for
# Convolutional Neural Networks, CVPR 2016. Polynomials are evaluated at 0, +-ALPHA, +-2 ALPHA and infinity. With points
# around 1 the transforms lose least (B. Barabasz et al., Error Analysis and Improving the Accuracy of Winograd
# Convolution for Deep Neural Networks, ACM TOMS 46(4), 2020), and as ALPHA is 45/64, all of their constants are exact
# in float32. B' depends on the points alone, so filters of 3 and of 5 share it.
#
# For each block of tiles:
#     V[xi][c][tile] = B' x B         lanes hold tiles that are neighbours in a row
#     M[xi][tile][k] = sum over c     the register tile of filter_lanes.pxi, tiles as its pixels
#     Y              = A' M A         lanes hold filters; then transposed into y as that file's sums are
#
# A tile whose result isn't finite has met a NaN or Inf, which it has spread, or has overflowed on the way: it is
# computed again as a direct sum, a problem of its own.
#
# Packed weights: what filter_lanes.pxi packs; what is known of whom to trust, see there; then for each group, for each
# panel of filters, [xi][c][nv vectors].

cdef extern from *:
    """
    #define ALPHA (45.0 / 64.0)
    """
    double ALPHA

cdef enum:
    STREAM = 4                      # bytes of weights that arrive in a cycle from beyond the second-level cache
    POINTS = 6
    MOST_SIDE = 5                   # rows and columns of a filter
    MOST_TILE = 4                   # rows and columns of the largest tile of y
    LEAST_TERMS = 144               # of the direct sum; with fewer, the transforms' rounding could pass the error bound
    UNSEEN = 4                      # times that the largest weight may be larger than those that a corner meets
    DISTURBANCE = 5                 # mean sums of magnitudes that a large edge may weigh
    BLOCK_TILES = 28                # most and fewest tiles of a block, if there are as many
    LEAST_TILES = 2 * MR
    WINOGRAD_BYTES = 384 * 1024     # of a block's V, about


# The transforms, of six vectors along one axis. Constants are of the vector's own dtype, or the product wouldn't be.

cdef inline lane plus(lane acc, double factor, lane b) noexcept nogil:
    """acc + factor * b."""
    if lane is f32v:
        return acc + b * <float> factor
    else:
        return acc + b * factor


cdef inline lane times(double factor, lane b) noexcept nogil:
    if lane is f32v:
        return b * <float> factor
    else:
        return b * factor


cdef inline void transform_x(const lane* x, lane* v) noexcept nogil:
    """v = B' x."""
    cdef lane near = plus(x[4], -4 * ALPHA * ALPHA, x[2])
    cdef lane near_odd = plus(x[3], -4 * ALPHA * ALPHA, x[1])
    cdef lane far = plus(x[4], -ALPHA * ALPHA, x[2])
    cdef lane far_odd = plus(x[3], -ALPHA * ALPHA, x[1])
    v[0] = plus(plus(x[4], -5 * ALPHA * ALPHA, x[2]), 4 * ALPHA * ALPHA * ALPHA * ALPHA, x[0])
    v[1] = plus(near, ALPHA, near_odd)
    v[2] = plus(near, -ALPHA, near_odd)
    v[3] = plus(far, 2 * ALPHA, far_odd)
    v[4] = plus(far, -2 * ALPHA, far_odd)
    v[5] = plus(plus(x[5], -5 * ALPHA * ALPHA, x[3]), 4 * ALPHA * ALPHA * ALPHA * ALPHA, x[1])


cdef inline void transform_y(const lane* m, lane* y, int count) noexcept nogil:
    """y = A' m, of 2 or 4 rows."""
    cdef lane near = m[1] + m[2]
    cdef lane near_odd = m[1] - m[2]
    cdef lane far = m[3] + m[4]
    cdef lane far_odd = m[3] - m[4]
    y[0] = m[0] + near + far
    y[1] = times(ALPHA, plus(near_odd, 2, far_odd))
    if count == 4:
        y[2] = times(ALPHA * ALPHA, plus(near, 4, far))
        y[3] = times(ALPHA * ALPHA * ALPHA, plus(near_odd, 8, far_odd))
    y[count - 1] = y[count - 1] + m[5]


cdef inline double transform_w(int xi, int r, int rows) noexcept nogil:
    """G[xi][r]: the powers of a point, over its distances from the others; of infinity, the last one alone."""
    cdef double alpha2 = ALPHA * ALPHA
    cdef double point = 0, power = 1 / (4 * alpha2 * alpha2)
    if xi == POINTS - 1:
        return r == rows - 1
    if xi > 0:
        point = ALPHA if xi <= 2 else 2 * ALPHA
        power = -1 / (6 * alpha2 * alpha2) if xi <= 2 else 1 / (24 * alpha2 * alpha2)
        if xi % 2 == 0:
            point = -point
    for _ in range(r):
        power *= point
    return power


cdef struct WinogradGrid:
    # How the work is cut. A block is rows x columns tiles of y, for a set of panels of filters.
    dim m                       # rows and columns of a tile of y
    dim down, across            # tiles of y
    dim rows, columns           # tiles in the largest block
    dim bands, pieces           # blocks down and across y
    dim sets                    # of panels


cdef inline WinogradGrid winograd_grid(const Shape* shape, int workers) noexcept nogil:
    cdef WinogradGrid g
    cdef dim most = max(LEAST_TILES, min(BLOCK_TILES, WINOGRAD_BYTES // (POINTS * POINTS * shape.C * shape.item)))
    cdef dim images = max(1, shape.N * shape.G)
    g.m = POINTS + 1 - shape.R
    g.down = ceil_div(shape.P, g.m)
    g.across = ceil_div(shape.Q, g.m)
    g.pieces = ceil_div(g.across, most)
    g.bands = ceil_div(g.down, max(1, most // g.across))
    if workers > 1 and images * g.bands * g.pieces < 4 * workers:
        g.bands = max(g.bands, min(g.down, ceil_div(g.down * g.across, MR), 4 * workers))
    g.rows = ceil_div(g.down, g.bands)
    g.columns = ceil_div(g.across, g.pieces)
    g.sets = min(filter_panels(shape), ceil_div(workers, images * g.bands * g.pieces))
    return g


cdef inline dim xi_vectors(const Shape* shape, dim nv) noexcept nogil:
    """Of one panel's transformed weights. An odd number: the 36 written at once fall into different sets of a cache."""
    return shape.C * nv | 1


# The parts of a worker's memory, one after the other, each on a cache line.

cdef inline dim slab_bytes(const Shape* shape, const WinogradGrid* g) noexcept nogil:
    """V of one xi. An odd number of lines: the 36 that are written at once fall into different sets of a cache."""
    return whole_lines(shape.C * g.rows * g.columns * shape.item + VECTOR_BYTES) | LINE


cdef inline dim plane_bytes(const WinogradGrid* g) noexcept nogil:
    """M of one xi."""
    return g.rows * g.columns * NV * VECTOR_BYTES


cdef inline dim row_bytes(const Shape* shape, const WinogradGrid* g) noexcept nogil:
    """A row of x under a row of tiles, to the end of the last vector of tiles, with room for a vector more."""
    return g.m * (whole_lines((g.columns + 2) * shape.item) + VECTOR_BYTES)


cdef inline dim result_bytes(const WinogradGrid* g) noexcept nogil:
    """Sums of a block, as filter_store takes them."""
    return g.m * g.m * plane_bytes(g)


cdef inline Shape tile_shape(const Shape* shape, const WinogradGrid* g) noexcept nogil:
    """One tile of y for one panel of filters, as a problem of its own."""
    cdef Shape one = shape[0]
    one.N = one.G = 1
    one.K = min(shape.K, filter_width(shape))
    one.P = one.Q = g.m
    one.channels_last = True
    return one


cdef dim winograd_workspace_bytes(const Shape* shape, int workers) noexcept nogil:
    cdef WinogradGrid g = winograd_grid(shape, workers)
    cdef Shape one = tile_shape(shape, &g)
    return (POINTS * POINTS * (slab_bytes(shape, &g) + plane_bytes(&g)) + result_bytes(&g)
            + (2 * POINTS + 1) * row_bytes(shape, &g) + whole_lines(shape.C * sizeof(dim))
            + whole_lines(MOST_TILE * MOST_TILE * NV * VECTOR_BYTES) + filter_workspace_bytes(&one, 1))


cdef struct WinogradBlock:
    # One block of y of one group of an image, and a worker's memory.
    const Image* x
    const char* image           # the first channel of the group
    dim row, rows, column, columns      # its first tile row and column, and how many
    dim tiles
    dim p, q                    # rows and columns of y in it
    char* v
    char* m
    char* sums
    char* rows_of_x             # POINTS of them, then POINTS lines: these transformed along columns
    char* zeros                 # a row of x, and sums begin with them
    dim* off
    char* one                   # the result of a tile that is computed again, then what that takes
    dim slab, row_bytes


cdef inline void tiles_to_lanes(const lane* line, lane* d, int m) noexcept nogil:
    """d[j] = columns j, m + j, 2 m + j, ... of a line; m is 2 or 4."""
    cdef lane even = even_lanes(line[0], line[1])
    cdef lane odd = odd_lanes(line[0], line[1])
    cdef lane even_next, odd_next
    if m == 2:
        d[0] = even
        d[1] = odd
    else:
        even_next = even_lanes(line[2], line[3])
        odd_next = odd_lanes(line[2], line[3])
        d[0] = even_lanes(even, even_next)
        d[1] = even_lanes(odd, odd_next)
        d[2] = odd_lanes(even, even_next)
        d[3] = odd_lanes(odd, odd_next)


cdef inline void winograd_row(const Shape* shape, const WinogradBlock* b, dim c, dim row, lane* like,
                              int m) noexcept nogil:
    """V of one channel and one row of tiles of m columns."""
    cdef dim item = shape.item
    cdef dim lanes = sizeof(lane) // itemsize(like)
    cdef dim first = b.column * m
    cdef dim count = min(shape.Q + shape.S - 1 - first, b.columns * m + POINTS - m)
    cdef dim top = (b.row + row) * m
    cdef char* lines = b.rows_of_x + POINTS * b.row_bytes
    cdef char* v = b.v + (c * b.tiles + row * b.columns) * item
    cdef const char* source[POINTS]
    cdef const char* ahead[POINTS]      # the same rows of the next channel, which lie in other pages
    cdef lane x[POINTS]
    cdef lane t[POINTS]
    cdef lane following[MOST_TILE]
    cdef char* line
    cdef dim i, j, at
    cdef int k
    for i in range(POINTS):
        source[i] = ahead[i] = b.zeros
        if top + i >= shape.P + shape.R - 1:
            continue
        if c + 1 < shape.C:
            ahead[i] = row_in_x(b.x, b.image, c + 1, top + i, first)
        line = b.rows_of_x + i * b.row_bytes
        source[i] = image_row(shape, b.x, b.image, c, top + i, first, count, line)
        if count < lanes and source[i] != line:
            memcpy(line, source[i], count * item)
            source[i] = line
    # Along columns. The last vector overlaps the one before it: nothing is read past the end of a row of x.
    at = 0
    while at < count:
        if at > 0 or count >= lanes:
            at = min(at, count - lanes)
        for k in range(POINTS):
            x[k] = (<const lane*> (source[k] + at * item))[0]
            prefetch(ahead[k] + at * item)
        transform_x(x, t)
        for k in range(POINTS):
            (<lane*> (lines + k * b.row_bytes + at * item))[0] = t[k]
        at += lanes
    # Along rows: a tile's columns from m on are the first ones of its neighbours.
    for i in range(POINTS):
        line = lines + i * b.row_bytes
        tiles_to_lanes(<const lane*> line, following, m)
        at = 0
        while at < b.columns:
            for k in range(m):
                x[k] = following[k]
            line += m * sizeof(lane)
            if at + lanes < b.columns + (POINTS - 1) // m:
                tiles_to_lanes(<const lane*> line, following, m)
            x[m] = next_lanes(x[0], following[0])
            x[m + 1] = next_lanes(x[1], following[1])
            if m == 2:
                x[4] = next_lanes(x[2], next_lanes(following[0], following[0]))
                x[5] = next_lanes(x[3], next_lanes(following[1], following[1]))
            transform_x(x, t)
            for k in range(POINTS):
                (<lane*> (v + (i * POINTS + k) * b.slab + at * item))[0] = t[k]
                prefetch_to_write(v + (i * POINTS + k) * b.slab + at * item + b.tiles * item, 1)
            at += lanes


cdef inline lane winograd_tile(const lane* m, dim m_step, const lane* bias, lane* y, dim y_row, dim y_step,
                               dim rows, dim columns, int count) noexcept nogil:
    """A vector of filters of one tile: rows x columns of its outputs; returns zeros, or NaN if any isn't finite."""
    cdef lane column[POINTS]
    cdef lane part[POINTS * MOST_TILE]
    cdef lane row[POINTS]
    cdef lane out[MOST_TILE]
    cdef lane bad = m[0] - m[0]
    cdef int i, j
    for j in range(POINTS):
        for i in range(POINTS):
            column[i] = m[(i * POINTS + j) * m_step]
        transform_y(column, out, count)
        for i in range(count):
            part[i * POINTS + j] = out[i]
    for i in range(count):
        for j in range(POINTS):
            row[j] = part[i * POINTS + j]
        transform_y(row, out, count)
        for j in range(count):
            out[j] = out[j] + bias[0]
            bad = plus(bad, 0, out[j])
            if i < rows and j < columns:
                y[i * y_row + j * y_step] = out[j]
    return bad


cdef inline bint is_zero(const lane* value) noexcept nogil:
    cdef dim item = itemsize(value)
    cdef dim i
    for i in range(<dim> sizeof(lane) // item):
        if value_at(<const char*> value + i * item, item) != 0:
            return False
    return True


cdef inline void keep_finite(char* y, const char* other, dim count, dim item) noexcept nogil:
    """Replace what isn't finite: other filters of a panel may well be."""
    cdef dim i
    for i in range(count):
        if not isfinite(value_at(y + i * item, item)):
            copy_scalar(y + i * item, other + i * item, item)


cdef void tile_again(const Shape* shape, const WinogradGrid* g, const WinogradBlock* b, const char* packed,
                     dim filters, dim row, dim column, dim rows, dim columns, char* sums, dim nv) noexcept nogil:
    """A direct sum for a tile that isn't finite: `rows` x `columns` of y at (row, column), for one panel."""
    cdef Shape one = tile_shape(shape, g)
    cdef Image x = image_from(b.x, row, column)
    cdef dim task, p, q
    one.K = filters
    one.P = rows
    one.Q = columns
    x.data += b.image - b.x.data
    for task in range(filter_tasks(&one, 1)):
        filter_run(&one, 1, packed, &x, b.one, task,
                   b.one + whole_lines(MOST_TILE * MOST_TILE * NV * VECTOR_BYTES))
    for p in range(rows):
        for q in range(columns):
            keep_finite(sums + (p * b.q + q) * nv * VECTOR_BYTES, b.one + (p * columns + q) * filters * shape.item,
                        filters, shape.item)


cdef inline bint winograd_outputs(const Shape* shape, const WinogradGrid* g, const WinogradBlock* b, const char* direct,
                                  dim filters, int nv, bint again, lane* like, int m) noexcept nogil:
    """A panel's M into sums; whether all of them are finite. With `again`, tiles that aren't are computed directly."""
    cdef const lane* from_m = <const lane*> b.m
    cdef const lane* bias = <const lane*> direct
    cdef lane* y
    cdef lane any_bad = (<const lane*> b.zeros)[0]
    cdef lane bad
    cdef dim row, column, rows, columns
    cdef int v
    for row in range(b.rows):
        rows = min(<dim> m, b.p - row * m)
        for column in range(b.columns):
            columns = min(<dim> m, b.q - column * m)
            y = <lane*> b.sums + (row * m * b.q + column * m) * nv
            bad = (<const lane*> b.zeros)[0]
            for v in range(nv):
                bad = bad + winograd_tile(from_m + v, b.tiles * nv, bias + v, y + v, b.q * nv, nv, rows, columns, m)
            from_m += nv
            any_bad = any_bad + bad
            if again and not is_zero(&bad):
                tile_again(shape, g, b, direct, filters, (b.row + row) * m, (b.column + column) * m, rows, columns,
                           <char*> y, nv)
    return is_zero(&any_bad)


cdef inline void winograd_panel(const Shape* shape, const WinogradGrid* g, const WinogradBlock* b, const char* direct,
                                const lane* w, dim filters, int nv, lane* like, int m) noexcept nogil:
    """Sums of a block for a panel of filters: transformed weights w, and `direct` ones, which begin with the biases."""
    cdef FilterSweep sweep
    cdef dim groups = ceil_div(b.tiles, MR)
    cdef dim xi, i, first, count
    cdef bint again = False
    sweep.off = b.off
    sweep.terms = shape.C
    sweep.row = sweep.row_step = sweep.init_step = 0
    sweep.t_step = nv * VECTOR_BYTES
    sweep.ahead_step = nv * VECTOR_BYTES // <unsigned int> groups       # each term's part of the next weights
    for xi in range(POINTS * POINTS):
        sweep.ahead = <const char*> (w + xi_vectors(shape, nv))
        for i in range(groups):
            first = split(b.tiles, groups, i)
            count = split(b.tiles, groups, i + 1) - first
            filter_tile_any(&sweep, b.v + xi * b.slab + first * shape.item, w, <const lane*> b.zeros,
                            <lane*> b.m + (xi * b.tiles + first) * nv, 1, <int> count, nv)
            sweep.ahead += sweep.ahead_step * shape.C
        w += xi_vectors(shape, nv)
    while not winograd_outputs(shape, g, b, direct, filters, nv, again, like, m) and not again:
        again = True


cdef inline void winograd_block(const Shape* shape, const WinogradGrid* g, const char* packed, const Image* x, char* y,
                                const Place* place, char* workspace, lane* like) noexcept nogil:
    """One block of one group of image n for some panels of filters."""
    cdef dim item = shape.item
    cdef dim terms = shape.C * shape.R * shape.S
    cdef dim width = filter_width(shape)
    cdef dim all_filters = shape.G * shape.K
    cdef dim y_k = item if shape.channels_last else shape.P * shape.Q * item
    cdef dim y_pixel = all_filters * item if shape.channels_last else item
    cdef dim band = place.block // g.pieces
    cdef dim piece = place.block - band * g.pieces
    cdef dim c, row, panel, filters
    cdef const char* w_group
    cdef const char* direct
    cdef const lane* w
    cdef int nv
    cdef WinogradBlock b
    b.x = x
    b.image = x.data + place.n * x.n + place.group * shape.C * x.c
    b.row = split(g.down, g.bands, band)
    b.rows = split(g.down, g.bands, band + 1) - b.row
    b.column = split(g.across, g.pieces, piece)
    b.columns = split(g.across, g.pieces, piece + 1) - b.column
    b.tiles = b.rows * b.columns
    b.p = min(shape.P - b.row * g.m, b.rows * g.m)
    b.q = min(shape.Q - b.column * g.m, b.columns * g.m)
    b.slab = slab_bytes(shape, g)
    b.row_bytes = row_bytes(shape, g)
    b.v = workspace
    b.m = b.v + POINTS * POINTS * b.slab
    b.sums = b.m + POINTS * POINTS * plane_bytes(g)
    b.rows_of_x = b.sums + result_bytes(g)
    b.zeros = b.rows_of_x + 2 * POINTS * b.row_bytes
    b.off = <dim*> (b.zeros + b.row_bytes)
    b.one = <char*> b.off + whole_lines(shape.C * sizeof(dim))
    memset(b.rows_of_x, 0, (2 * POINTS + 1) * b.row_bytes)
    for c in range(shape.C):
        b.off[c] = c * b.tiles * item
        for row in range(b.rows):
            if g.m == 4: winograd_row(shape, &b, c, row, like, 4)
            else: winograd_row(shape, &b, c, row, like, 2)
    w_group = packed + winograd_start(shape) + place.group * winograd_group_bytes(shape)
    packed += place.group * group_bytes(shape)
    y += place.n * all_filters * shape.P * shape.Q * item
    y += (b.row * shape.Q + b.column) * g.m * y_pixel + (place.group * shape.K + place.first * width) * y_k
    for panel in range(place.first, place.last):
        nv = <int> panel_vectors(shape, panel)
        filters = min(width, shape.K - panel * width)
        direct = packed + panel * NV * VECTOR_BYTES * (1 + terms)
        w = <const lane*> w_group + panel * POINTS * POINTS * xi_vectors(shape, NV)
        if g.m == 4: winograd_panel(shape, g, &b, direct, w, filters, nv, like, 4)
        else: winograd_panel(shape, g, &b, direct, w, filters, nv, like, 2)
        if g.pieces == 1:
            filter_store(shape, b.sums, nv, b.p * b.q, filters, y, y_pixel, y_k)
        else:
            for row in range(b.p):
                filter_store(shape, b.sums + row * b.q * nv * VECTOR_BYTES, nv, b.q, filters,
                             y + row * shape.Q * y_pixel, y_pixel, y_k)
        y += width * y_k


cdef dim winograd_tasks(const Shape* shape, int workers) noexcept nogil:
    cdef WinogradGrid g = winograd_grid(shape, workers)
    return shape.N * shape.G * g.bands * g.pieces * g.sets


cdef void winograd_run(const Shape* shape, int workers, const char* packed, const Image* x, char* y, dim task,
                       char* workspace) noexcept nogil:
    cdef WinogradGrid g = winograd_grid(shape, workers)
    cdef Place place = place_of(shape, task, g.bands * g.pieces, g.sets, filter_panels(shape))
    if shape.dtype == FLOAT32:
        winograd_block(shape, &g, packed, x, y, &place, workspace, <f32v*> NULL)
    else:
        winograd_block(shape, &g, packed, x, y, &place, workspace, <f64v*> NULL)


# The error bound. Pixels near the edges of the image meet some rows and columns of a filter only. Where these are small
# and others are large, a large pixel there would disturb sums by what their bound doesn't know of. So either what a
# channel's edges meet is comparable with its largest weights, or each image is looked at, and computed directly if what
# is at its edges could matter.

cdef struct Trust:
    # Followed by, for each channel of each group, in double precision, the largest weight, and the sum of the
    # magnitudes that a filter has of it, on average.
    dim sure                    # whether any image keeps the bound


cdef inline dim trust_start(const Shape* shape) noexcept nogil:
    return whole_lines(filter_packed_bytes(shape))


cdef inline dim winograd_start(const Shape* shape) noexcept nogil:
    """Of transformed weights."""
    return trust_start(shape) + whole_lines(sizeof(Trust) + 2 * shape.G * shape.C * sizeof(double))


cdef inline double largest_of(const double* table, dim top, dim bottom, dim left, dim right) noexcept nogil:
    cdef double largest = 0
    cdef dim r, s
    for r in range(top, bottom + 1):
        for s in range(left, right + 1):
            largest = max(largest, table[r * MOST_SIDE + s])
    return largest


cdef bint edges_meet_enough(const Shape* shape, const double* table) noexcept nogil:
    """Whether the weights, the largest of each place, that pixels near an edge meet compare with those of their tile.

    The first row of a tile is transformed by itself and meets the first row of the filters alone, as it should; the
    second one enters sums with all of them, but should meet two. At the other end likewise, if the image ends with a
    tile, or else its last row enters with all. Columns likewise.
    """
    cdef dim last = shape.R - 1         # filters are square
    cdef dim m = POINTS - last
    # Of the four kinds of rows: from and to which row of a filter they should meet, and do meet.
    cdef dim[4] first_met = [0, 0, last - 1, last]
    cdef dim[4] last_met = [0, 1, last, last]
    cdef dim[4] first_used = [0, 0, 0, last]
    cdef dim[4] last_used = [0, last, last, last]
    cdef dim i, j
    for i in range(4):
        for j in range(4):
            if UNSEEN * largest_of(
                table, first_met[i] + (i == 2 and shape.P % m > 0), last_met[i],
                first_met[j] + (j == 2 and shape.Q % m > 0), last_met[j],
            ) < largest_of(table, first_used[i], last_used[i], first_used[j], last_used[j]):
                return False
    return True


cdef void measure_weights(const Shape* shape, const Weights* w, char* packed) noexcept nogil:
    cdef Trust* trust = <Trust*> (packed + trust_start(shape))
    cdef double* channel = <double*> (trust + 1)
    cdef double table[MOST_SIDE * MOST_SIDE]
    cdef double total, value
    cdef dim group, k, c, r, s
    cdef const char* data
    trust.sure = True
    for group in range(shape.G):
        for c in range(shape.C):
            total = 0
            memset(table, 0, sizeof(table))
            for k in range(group * shape.K, (group + 1) * shape.K):
                data = w.data + k * w.k + c * w.c
                for r in range(shape.R):
                    for s in range(shape.S):
                        value = fabs(value_at(data + r * w.r + s * w.s, shape.item))
                        table[r * MOST_SIDE + s] = max(table[r * MOST_SIDE + s], value)
                        total += value
            trust.sure = trust.sure and edges_meet_enough(shape, table)
            channel[0] = largest_of(table, 0, shape.R - 1, 0, shape.S - 1)
            channel[1] = total / shape.K
            channel += 2


cdef bint winograd_trusted(const Shape* shape, const char* packed, const Image* x) noexcept nogil:
    """Compares what the edges could disturb with a lower bound of the largest sum of magnitudes, its mean."""
    cdef const Trust* trust = <const Trust*> (packed + trust_start(shape))
    cdef const double* channel = <const double*> (trust + 1)
    cdef double edge, inner, value, disturbed, mean
    cdef dim group, c, i, j
    cdef bint within
    if trust.sure or x == NULL:
        return trust.sure
    for group in range(shape.G):
        disturbed = mean = 0
        for c in range(group * shape.C, (group + 1) * shape.C):
            edge = fabs(value_at(&x.pad[0], shape.item)) if x.rows != NULL else 0
            inner = 0
            for i in range(shape.H):
                within = shape.R - 1 <= i <= shape.H - shape.R
                for j in range(shape.W):
                    value = fabs(value_at(x.data + c * x.c + i * x.h + j * x.w, shape.item))
                    if within and shape.S - 1 <= j <= shape.W - shape.S:
                        inner += value
                    else:
                        edge = max(edge, value)
            disturbed += edge * channel[2 * c]
            mean += inner * channel[2 * c + 1]
        if disturbed > DISTURBANCE * mean / (<double> shape.P * shape.Q):
            return False
    return True


cdef inline dim winograd_group_bytes(const Shape* shape) noexcept nogil:
    """Of one group's transformed weights."""
    cdef dim last = filter_panels(shape) - 1
    cdef dim vectors = last * xi_vectors(shape, NV) + xi_vectors(shape, panel_vectors(shape, last))
    return POINTS * POINTS * vectors * VECTOR_BYTES


cdef dim winograd_packed_bytes(const Shape* shape) noexcept nogil:
    return winograd_start(shape) + shape.G * winograd_group_bytes(shape)


cdef enum:
    WIDEST = NV * VECTOR_BYTES // 4     # filters in a panel
    TOGETHER = 4                        # channels that are read at a time


cdef inline void load_weights(const Shape* shape, const Weights* w, const char* data, dim filters, dim channels,
                              double* value) noexcept nogil:
    """[channel][r][s][filter] of some channels of a panel's filters, which are read one after the other."""
    cdef dim c, r, s, k
    for k in range(filters):
        for c in range(channels):
            for r in range(shape.R):
                for s in range(shape.S):
                    value[((c * MOST_SIDE + r) * MOST_SIDE + s) * WIDEST + k] = value_at(
                        data + k * w.k + c * w.c + r * w.r + s * w.s, shape.item)


cdef inline void transform_weights(const Shape* shape, const double* value, const double* g, dim width, char* to,
                                   dim to_step) noexcept nogil:
    """G w G' of one channel of a panel, `width` filters with those that are zero; xi to_step bytes apart.

    In double precision, so that transformed weights are rounded once. Inner loops are along filters, for the compiler
    to vectorise.
    """
    cdef double part[MOST_SIDE * WIDEST]
    cdef double total[WIDEST]
    cdef dim r, s, k
    cdef int i, j
    for i in range(POINTS):
        for s in range(shape.S):
            for k in range(WIDEST):
                part[s * WIDEST + k] = g[i * MOST_SIDE] * value[s * WIDEST + k]
        for r in range(1, shape.R):
            for s in range(shape.S):
                for k in range(WIDEST):
                    part[s * WIDEST + k] += g[i * MOST_SIDE + r] * value[(r * MOST_SIDE + s) * WIDEST + k]
        for j in range(POINTS):
            for k in range(WIDEST):
                total[k] = g[j * MOST_SIDE] * part[k]
            for s in range(1, shape.S):
                for k in range(WIDEST):
                    total[k] += g[j * MOST_SIDE + s] * part[s * WIDEST + k]
            if shape.item == 4:
                for k in range(width):
                    (<float*> to)[k] = <float> total[k]
            else:
                for k in range(width):
                    (<double*> to)[k] = total[k]
            to += to_step


cdef void winograd_pack(const Shape* shape, const Weights* w, char* packed) noexcept nogil:
    cdef double value[TOGETHER * MOST_SIDE * MOST_SIDE * WIDEST]
    cdef dim group, panel, c, i_c, nv, first
    cdef dim width = filter_width(shape)
    cdef const char* data = w.data
    cdef double g[POINTS * MOST_SIDE]
    cdef int i, r
    for i in range(POINTS):
        for r in range(<int> shape.R):
            g[i * MOST_SIDE + r] = transform_w(i, r, <int> shape.R)
    filter_pack(shape, w, packed)
    measure_weights(shape, w, packed)
    packed += winograd_start(shape)
    for group in range(shape.G):
        for panel in range(filter_panels(shape) if shape.K > 0 else 0):
            first = panel * width
            nv = panel_vectors(shape, panel)
            memset(value, 0, sizeof(value))
            for c in range(shape.C):
                i_c = c % TOGETHER
                if i_c == 0:
                    load_weights(shape, w, data + first * w.k + c * w.c, min(width, shape.K - first),
                                 min(<dim> TOGETHER, shape.C - c), value)
                transform_weights(shape, value + i_c * MOST_SIDE * MOST_SIDE * WIDEST, g,
                                  nv * VECTOR_BYTES // shape.item, packed + c * nv * VECTOR_BYTES,
                                  xi_vectors(shape, nv) * VECTOR_BYTES)
            packed += POINTS * POINTS * xi_vectors(shape, nv) * VECTOR_BYTES
        data += shape.K * w.k


cdef double winograd_cost(const Shape* shape) noexcept nogil:
    cdef WinogradGrid grid
    cdef double tiles, vectors, panels, calls, sums, stream, rows
    if (not is_float(shape) or shape.R != 3 and shape.R != 5
            or shape.S != shape.R or shape.P < shape.R or shape.Q < shape.S or shape.C * shape.R * shape.S < LEAST_TERMS
            or shape.p_step > 1 or shape.q_step > 1 or shape.r_step > 1 or shape.s_step > 1):
        return INFINITY
    grid = winograd_grid(shape, 1)
    tiles = <double> grid.down * grid.across
    vectors = ceil_div(shape.K * shape.item, VECTOR_BYTES)
    # The tile's multiply-adds, or the time in which transformed weights arrive, once for each block. A tile has up to
    # MR sums in a vector, or fewer, which then wait for each other.
    panels = filter_panels(shape)
    calls = <double> grid.bands * grid.pieces * ceil_div(grid.rows * grid.columns, MR)
    sums = POINTS * POINTS * panels * calls * (
        shape.C * max(tiles / calls * vectors / panels / ISSUE, <double> LATENCY) + 80)
    stream = <double> winograd_group_bytes(shape) * grid.bands * grid.pieces
    if winograd_group_bytes(shape) > WINOGRAD_BYTES:
        sums = max(sums, stream / STREAM)
    # The transforms of x, of rows of vectors of tiles, and of y, each tile and vector of filters.
    rows = <double> grid.down * ceil_div(grid.across * shape.item, VECTOR_BYTES)
    return shape.G * (sums * 1.2 + rows * shape.C * (400 if shape.gathered else 250)
                      + tiles * vectors * 200 * (grid.m * grid.m) / 16)


cdef double winograd_pack_cost(const Shape* shape) noexcept nogil:
    """A 6 x 6 transform of each filter's channel, and a direct sum's weights too."""
    return 150.0 * shape.G * shape.K * shape.C + direct_pack_cost(shape)
