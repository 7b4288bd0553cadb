# Winograd's minimal filtering: filters of many channels, cut into patches of 3 x 3 values.
#
# 4 x 4 outputs of a patch of 3 x 3 are made from 6 x 6 pixels by 36 multiplications instead of 144:
# Y = A' [sum of (G w G') * (B' x B)] A, with * element by element. Or 2 x 2 outputs from 4 x 4 pixels, by 16 instead of
# 36: with a small image and many filters it is their arrival from memory that takes long, and the larger tile has 36
# weights for 9.
#
# S. Winograd, Arithmetic Complexity of Computations, SIAM, 1980; A. Lavin and S. Gray, Fast Algorithms for
# Convolutional Neural Networks, CVPR 2016. Polynomials are evaluated at 0, +-ALPHA, +-2 ALPHA and infinity, for the
# smaller tile without +-2 ALPHA. With points around 1 the transforms lose least (B. Barabasz et al., Error Analysis and
# Improving the Accuracy of Winograd Convolution for Deep Neural Networks, ACM TOMS 46(4), 2020), and as ALPHA is 45/64,
# all of their constants are exact in float32.
#
# The sum is over terms: channels, and for each the patches that its filter is cut into. A filter that is larger is the
# sum of its patches, each over pixels that lie as far behind as the patch does. With a stride, a patch has every
# stride-th value, and meets every stride-th pixel only: so it has none. Where a filter ends within a patch, the rest of
# that is zeros.
#
# Filters of one row are cut into patches of 1 x 3, and nothing is transformed along columns: 4 outputs by 6
# multiplications instead of 12, or 2 by 4 instead of 6.
#
# For each block of tiles:
#     V[xi][tile][term] = B' x B      along columns lanes hold columns of x; turned over, along rows, they hold terms
#     M[xi][tile][k] = sum over term  the register tile of filter_lanes.pxi, tiles as its pixels
#     Y              = A' M A         lanes hold filters; then transposed into y as that file's sums are
#
# A tile whose result isn't finite has met a NaN or Inf, which it has spread, or has overflowed on the way: it is
# computed again as a direct sum, a problem of its own.
#
# Packed weights: what filter_lanes.pxi packs; what is known of whom to trust (winograd_trust.pxi); then for each group,
# for each panel of filters, [xi][term][nv vectors]. For a single call a block is all of the image, if it isn't large,
# and weights are packed and transformed a panel at a time where they are needed: fresh memory for all of them takes
# longer to come by than to fill.

cdef extern from *:
    """
    #define ALPHA (45.0 / 64.0)
    """
    double ALPHA

cdef enum:
    CACHED_BYTES = 1 << 20          # of weights, or an image, that a second-level cache holds; of others,
    STREAM = 7                      # bytes that arrive in a cycle
    FAR_BYTES = 8 << 20             # of weights that arrive from a third-level cache about as fast as they are used
    SIDE = 3                        # rows and columns of a patch,
    TILE = 4                        # of a large tile of y,
    POINTS = 6                      # and of its x
    SMALL = 2                       # of a small tile of y
    MOST_SIDE = 64                  # of a filter
    MOST_STEP = 2                   # of a stride
    LEAST_TERMS = 144               # of the direct sum; with fewer, the transforms' rounding could pass the error bound
    ROUNDED = 32                    # as many terms of a direct sum, about, as the transforms round like
    ROW_ROUNDED = 8                 # where they are along rows only
    LEAST_TILES = 2 * MR            # of a block, if there are as many; and at most, with bytes of V, about,
    NEAR_TILES = 28 // MR * MR      # where a second-level cache holds V and M beside all weights.
    NEAR_V_BYTES = 384 << 10        # Where it doesn't, weights arrive for FAR_TILES and FAR_V_BYTES.
    LATE_V_BYTES = 4 << 20          # most that an image's V has for weights to be packed late,
    LATE_PANEL_BYTES = 5 << 19      # and a panel's transformed weights
    LATE_WORK = 10 * TASK_WORK      # multiply-adds in a task then, about, so that Ctrl-C is heard in time


# The transforms, along one axis of a tile. Constants are of the vector's own dtype, or the product wouldn't be.

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


cdef inline void transform_x(const lane* x, lane* v, int tile) noexcept nogil:
    """v = B' x."""
    cdef lane near, near_odd, far, far_odd
    if tile == SMALL:
        v[0] = plus(x[2], -ALPHA * ALPHA, x[0])
        v[1] = plus(x[2], ALPHA, x[1])
        v[2] = plus(x[2], -ALPHA, x[1])
        v[3] = plus(x[3], -ALPHA * ALPHA, x[1])
        return
    near = plus(x[4], -4 * ALPHA * ALPHA, x[2])
    near_odd = plus(x[3], -4 * ALPHA * ALPHA, x[1])
    far = plus(x[4], -ALPHA * ALPHA, x[2])
    far_odd = plus(x[3], -ALPHA * ALPHA, x[1])
    v[0] = plus(plus(x[4], -5 * ALPHA * ALPHA, x[2]), 4 * ALPHA * ALPHA * ALPHA * ALPHA, x[0])
    v[1] = plus(near, ALPHA, near_odd)
    v[2] = plus(near, -ALPHA, near_odd)
    v[3] = plus(far, 2 * ALPHA, far_odd)
    v[4] = plus(far, -2 * ALPHA, far_odd)
    v[5] = plus(plus(x[5], -5 * ALPHA * ALPHA, x[3]), 4 * ALPHA * ALPHA * ALPHA * ALPHA, x[1])


cdef inline void transform_y(const lane* m, lane* y, int tile) noexcept nogil:
    """y = A' m."""
    cdef lane near = m[1] + m[2]
    cdef lane near_odd = m[1] - m[2]
    cdef lane far, far_odd
    if tile == SMALL:
        y[0] = m[0] + near
        y[1] = plus(m[3], ALPHA, near_odd)
        return
    far = m[3] + m[4]
    far_odd = m[3] - m[4]
    y[0] = m[0] + near + far
    y[1] = times(ALPHA, plus(near_odd, 2, far_odd))
    y[2] = times(ALPHA * ALPHA, plus(near, 4, far))
    y[3] = plus(m[5], ALPHA * ALPHA * ALPHA, plus(near_odd, 8, far_odd))


cdef inline double transform_w(int xi, int r, dim tile) noexcept nogil:
    """G[xi][r]: the powers of a point, over its distances from the others; of infinity, the last one alone."""
    cdef double alpha2 = ALPHA * ALPHA
    cdef double point = 0, power = 1 / (4 * alpha2 * alpha2)
    if xi == tile + SIDE - 2:
        return r == SIDE - 1
    if tile == SMALL:
        point = ALPHA if xi == 1 else -ALPHA if xi == 2 else 0
        power = 1 / (2 * alpha2) if xi > 0 else -1 / alpha2
    elif xi > 0:
        point = ALPHA if xi <= 2 else 2 * ALPHA
        power = -1 / (6 * alpha2 * alpha2) if xi <= 2 else 1 / (24 * alpha2 * alpha2)
        if xi % 2 == 0:
            point = -point
    for _ in range(r):
        power *= point
    return power


# The terms of the sum.

cdef struct Term:
    # A channel, and where a patch of its filter begins.
    dim c, r, s


cdef inline dim next_patch(dim tap, dim step) noexcept nogil:
    """Where the patch after the one that begins at a row, or column, of the filter begins."""
    tap += 1
    # A division by 1 or 2: MOST_STEP.
    return tap if (tap >> (step - 1)) % SIDE == 0 else tap + (SIDE - 1) * step


cdef inline Term next_term(const Shape* shape, Term term) noexcept nogil:
    term.s = next_patch(term.s, shape.q_step)
    if term.s >= shape.S:
        term.s = 0
        term.r = next_patch(term.r, shape.p_step)
        if term.r >= shape.R:
            term.r = 0
            term.c += 1
    return term


cdef inline dim count_patches(dim taps, dim step) noexcept nogil:
    """Of one axis."""
    cdef dim whole = taps // (SIDE * step)
    return whole * step + min(taps - whole * SIDE * step, step)


cdef inline dim count_terms(const Shape* shape) noexcept nogil:
    return shape.C * count_patches(shape.R, shape.p_step) * count_patches(shape.S, shape.q_step)


cdef inline double cycles_of(const Shape* shape, dim tile) noexcept nogil:
    """Those that a vector of weights takes for multiply-adds, or to arrive, with tiles of so many columns."""
    cdef bint rows_only = shape.R == 1
    cdef double tiles = <double> ceil_div(shape.P, 1 if rows_only else tile) * ceil_div(shape.Q, tile)
    cdef double points = (1 if rows_only else tile + SIDE - 1) * (tile + SIDE - 1)
    return points * max(tiles / ISSUE, VECTOR_BYTES / <double> STREAM)


cdef inline dim tile_across(const Shape* shape) noexcept nogil:
    """Columns of a tile of y: large ones have 2 or 4 weights for 1, of which a cache may hold all."""
    if <double> shape.G * shape.K * shape.C * shape.R * shape.S * shape.item * (2 if shape.R == 1 else 4) <= FAR_BYTES:
        return TILE
    return SMALL if cycles_of(shape, SMALL) < 0.8 * cycles_of(shape, TILE) else TILE


cdef inline dim tile_down(const Shape* shape) noexcept nogil:
    """Rows of a tile of y: columns aren't transformed for filters of one row."""
    return 1 if shape.R == 1 else tile_across(shape)


cdef inline dim points_across(const Shape* shape) noexcept nogil:
    """Columns of a tile of x."""
    return tile_across(shape) + SIDE - 1


cdef inline dim points_down(const Shape* shape) noexcept nogil:
    return 1 if shape.R == 1 else points_across(shape)


cdef inline dim points_of(const Shape* shape) noexcept nogil:
    """Of a tile of x: values of xi."""
    return points_down(shape) * points_across(shape)


cdef struct WinogradGrid:
    # How the work is cut. A block is rows x columns tiles of y, for a set of panels of filters.
    dim terms
    dim down, across            # tiles of y
    dim rows, columns           # tiles in the largest block
    dim bands, pieces           # blocks down and across y
    dim sets                    # of panels


cdef inline WinogradGrid winograd_grid(const Shape* shape, int workers) noexcept nogil:
    cdef WinogradGrid g
    cdef dim images = max(1, shape.N * shape.G)
    cdef dim panels = filter_panels(shape)
    cdef bint far = winograd_group_bytes(shape) > CACHED_BYTES // 2
    cdef dim most, fitting, blocks
    cdef double work
    g.terms = count_terms(shape)
    most = (FAR_TILES if far else NEAR_TILES) * POINTS * POINTS
    # If V of most of these fits the cache, only as many.
    fitting = NEAR_V_BYTES // (g.terms * shape.item)
    if far and fitting < most - most // 4:
        fitting = FAR_V_BYTES // (g.terms * shape.item)
    most = max(LEAST_TILES, min(most, fitting) // points_of(shape))
    g.down = ceil_div(shape.P, tile_down(shape))
    g.across = ceil_div(shape.Q, tile_across(shape))
    if shape.unpacked:
        g.pieces = g.bands = 1
        g.rows, g.columns = g.down, g.across
        work = <double> points_of(shape) * g.terms * g.down * g.across * shape.K
        g.sets = min(panels, max(<dim> (4 * workers if workers > 1 else 1), <dim> (work / LATE_WORK)))
        return g
    g.pieces = ceil_div(g.across, most)
    g.bands = ceil_div(g.down, max(1, most // g.across))
    # More workers share tiles, of which a register tile holds MR; or panels, where weights come from memory: once then.
    if images * g.bands * g.pieces < 4 * workers and workers > 1 and (
            winograd_group_bytes(shape) <= CACHED_BYTES or panels < workers):
        g.bands = max(g.bands, min(g.down, ceil_div(g.down * g.across, MR), 4 * workers))
        g.pieces = max(g.pieces, min(ceil_div(g.across, MR), ceil_div(4 * workers, images * g.bands)))
    g.rows = ceil_div(g.down, g.bands)
    g.columns = ceil_div(g.across, g.pieces)
    blocks = images * g.bands * g.pieces
    g.sets = 1
    if blocks % workers != 0 and blocks < 4 * workers:
        g.sets = min(panels, ceil_div(4 * workers, blocks))
    return g


cdef inline dim count_blocks(const Shape* shape, const WinogradGrid* g) noexcept nogil:
    """Of all groups of all images."""
    return shape.N * shape.G * g.bands * g.pieces


cdef inline bint shares_v(const WinogradGrid* g) noexcept nogil:
    """Whether x is transformed before all else, by all workers, and each set reads V of its block where that was."""
    return g.sets > 1


cdef inline dim xi_vectors(dim terms, dim nv) noexcept nogil:
    """Of one panel's transformed weights. An odd number: those of all xi are written at once.

    So they fall into different sets of a cache.
    """
    return terms * nv | 1


# The parts of a worker's memory, one after the other, each on a cache line.

cdef inline dim tile_groups(dim tiles) noexcept nogil:
    """A block's tiles, as the register tile takes them: its pixels."""
    return cut_tiles(tiles).count


cdef inline dim group_tiles(dim tiles) noexcept nogil:
    """In the largest group of a block. Others have one less, and as much room."""
    return ceil_div(tiles, tile_groups(tiles))


cdef inline dim slab_bytes(const Shape* shape, const WinogradGrid* g) noexcept nogil:
    """V of one xi, [group][vector of terms][tile]: what a register tile reads is one piece.

    An odd number of lines, for the same reason.
    """
    cdef dim tiles = g.rows * g.columns
    return whole_lines(tile_groups(tiles) * vectors_of(shape, g.terms) * group_tiles(tiles) * VECTOR_BYTES) | LINE


cdef inline dim plane_bytes(const WinogradGrid* g) noexcept nogil:
    """M of one xi."""
    return g.rows * g.columns * NV * VECTOR_BYTES


cdef inline dim row_bytes(const Shape* shape, const WinogradGrid* g) noexcept nogil:
    """A row of x under a row of tiles, with room for another vector of columns."""
    return whole_lines(((g.columns * tile_across(shape) + POINTS) * shape.item + VECTOR_BYTES) * shape.q_step)


cdef inline bint is_narrow(const Shape* shape, const WinogradGrid* g) noexcept nogil:
    """Whether results of a block are stored as one sequence: they are whole rows of y, and no wider than a vector."""
    return g.pieces == 1 and g.columns * tile_across(shape) <= lanes_of(shape)


cdef inline dim strip_bytes(const Shape* shape, const WinogradGrid* g) noexcept nogil:
    """Sums of a strip, as filter_store takes them."""
    cdef dim rows = g.rows if is_narrow(shape, g) else 1
    return rows * tile_down(shape) * (lanes_of(shape) + 2 * TILE) * NV * VECTOR_BYTES


cdef inline Shape tile_shape(const Shape* shape) noexcept nogil:
    """One tile of y, or all of a smaller one, for one panel of filters, as a problem of its own."""
    cdef Shape one = shape[0]
    one.N = one.G = 1
    one.K = min(shape.K, filter_width(shape))
    one.P = min(shape.P, tile_down(shape))
    one.Q = min(shape.Q, tile_across(shape))
    one.channels_last = True
    one.unpacked = False
    return one


cdef enum:
    LINES_BYTES = POINTS * MOST_STEP * VECTOR_BYTES                 # a vector of columns of POINTS rows of x
    PART_BYTES = POINTS * MOST_LANES * VECTOR_BYTES                 # these of a vector of terms, transformed
    TURNED_VECTORS = 2 * MOST_LANES + POINTS                        # of one row of these, turned over
    TURNED_BYTES = POINTS * TURNED_VECTORS * VECTOR_BYTES
    RESULT_BYTES = TILE * TILE * NV * VECTOR_BYTES                  # of a tile that is computed again


cdef inline dim transformed_bytes(const Shape* shape, dim nv) noexcept nogil:
    """Of a panel's transformed weights."""
    return points_of(shape) * xi_vectors(count_terms(shape), nv) * VECTOR_BYTES


cdef inline dim late_panel_bytes(const Shape* shape) noexcept nogil:
    """Of a panel's weights, direct and transformed, where they are packed when they are needed."""
    return whole_lines(panel_bytes(shape)) + transformed_bytes(shape, NV) if shape.unpacked else 0


cdef inline dim v_bytes(const Shape* shape, const WinogradGrid* g) noexcept nogil:
    """Of a block."""
    return points_of(shape) * slab_bytes(shape, g)


cdef dim winograd_workspace_bytes(const Shape* shape, int workers) noexcept nogil:
    cdef WinogradGrid g = winograd_grid(shape, workers)
    cdef Shape one = tile_shape(shape)
    return ((0 if shares_v(&g) else v_bytes(shape, &g)) + points_of(shape) * plane_bytes(&g) + strip_bytes(shape, &g)
            + 2 * row_bytes(shape, &g) + whole_lines(LINES_BYTES) + whole_lines(PART_BYTES) + whole_lines(TURNED_BYTES)
            + whole_lines(g.terms * sizeof(dim)) + whole_lines(g.rows * g.columns * sizeof(dim))
            + whole_lines(RESULT_BYTES) + filter_workspace_bytes(&one, 1)
            + late_panel_bytes(shape))


cdef struct WinogradBlock:
    # One block of y of one group of an image, and a worker's memory.
    const Image* x
    const char* image           # the first channel of the group
    dim row, rows, column, columns      # its first tile row and column, and how many
    dim tiles
    dim tile_down, tile_across  # rows and columns of y in a tile,
    dim points                  # and rows of x
    dim p, q                    # rows and columns of y in it
    dim left, right             # columns of the padded image between which outputs see x itself
    bint narrow                 # it is stored as one sequence
    bint in_place               # those are read where they stand
    bint zeros_around           # and what is around them is zeros
    char* v
    char* m
    char* sums
    char* zeros                 # a row of x, and sums begin with them
    char* padding               # a row of x
    char* lines
    char* part
    char* turned
    dim* off                    # where each term of a tile stands,
    dim* at                     # and the first of each tile
    char* late                  # a panel's weights, direct and transformed, where they are packed late
    char* one                   # the result of a tile that is computed again, then what that takes
    dim slab
    dim ahead                   # bytes from a term's rows to those of the term a vector later, if they are asked for


cdef struct Source:
    # What a term has of a row of tiles.
    dim c, row, column          # channel, and first row and column of the padded image
    const char* rows[POINTS]    # where these rows stand, from that column on


cdef inline void find_source(const Shape* shape, const WinogradBlock* b, dim row, const Term* term,
                             Source* source) noexcept nogil:
    """Where a term's rows under a row of tiles stand; asks for what is read first.

    Returned, the struct would be copied, and the copy waits until all of its parts are written.
    """
    cdef dim seen = reach_h(shape, shape.P)
    cdef dim at = term.c * b.x.c
    cdef dim h, k
    source.c = term.c
    source.row = (b.row + row) * b.tile_down * shape.p_step + term.r
    source.column = b.column * b.tile_across * shape.q_step + term.s
    at += (source.column - b.left) * shape.item
    for k in range(b.points):
        h = source.row + k * shape.p_step
        if h >= seen:
            source.rows[k] = b.zeros
            continue
        h = source_row(b.x, h)
        if h < 0:
            source.rows[k] = b.zeros if b.zeros_around else b.padding
        else:
            source.rows[k] = b.image + at + h * b.x.h
        prefetch(source.rows[k])
        prefetch(source.rows[k] + LINE)


cdef void gather_columns(const Shape* shape, const WinogradBlock* b, const Source* source, dim first,
                         char* lines) noexcept nogil:
    """A vector of columns, or two with a stride, of a term's rows: with padding, and zeros for what no output sees."""
    cdef dim bytes = shape.q_step * VECTOR_BYTES
    cdef dim column = source.column + first * shape.q_step
    cdef dim count = max(<dim> 0, min(shape.q_step * lanes_of(shape), reach_w(shape, shape.Q) - column))
    cdef dim h, k
    for k in range(b.points):
        h = source.row + k * shape.p_step
        memset(lines, 0, bytes)
        if h < reach_h(shape, shape.P) and count > 0:
            gather_row(shape, b.x, b.image, source.c, h, column, count, lines)
        lines += bytes


cdef inline void transform_columns(const Source* source, dim at, dim first, dim last, char* part, lane* like,
                                   int points, int step, bint whole, dim ahead) noexcept nogil:
    """A vector of columns of a term, `at` bytes from its first one, along columns: of a single row, as it is.

    Columns before `first` and from `last` on are zeros, and not read; but if `whole`, there are none of these. What is
    `ahead` bytes behind them is asked for.
    """
    cdef lane x[POINTS]
    cdef lane t[POINTS]
    cdef const char* row
    cdef dim lanes = sizeof(lane) // itemsize(like)
    cdef int k
    for k in range(points):
        row = source.rows[k] + at
        if ahead != 0: prefetch(row + ahead)
        x[k] = (<const lane*> row)[0] if whole else load_lanes(row, first, last, like)
        if step == 2:
            row += sizeof(lane)
            x[k] = even_lanes(x[k], (<const lane*> row)[0] if whole else load_lanes(
                row, first - lanes, last - lanes, like))
    if points == 1:
        t[0] = x[0]
    else:
        transform_x(x, t, points - SIDE + 1)
    for k in range(points):
        (<lane*> (part + k * MOST_LANES * VECTOR_BYTES))[0] = t[k]


cdef inline void transform_any(const Source* source, dim at, dim first, dim last, char* part, lane* like, dim points,
                               dim step, bint whole, dim ahead) noexcept nogil:
    if step == 1:
        if points == POINTS: transform_columns(source, at, first, last, part, like, POINTS, 1, whole, ahead)
        elif points == 1: transform_columns(source, at, first, last, part, like, 1, 1, whole, ahead)
        else: transform_columns(source, at, first, last, part, like, SMALL + SIDE - 1, 1, whole, ahead)
    elif points == POINTS: transform_columns(source, at, first, last, part, like, POINTS, 2, whole, ahead)
    elif points == 1: transform_columns(source, at, first, last, part, like, 1, 2, whole, ahead)
    else: transform_columns(source, at, first, last, part, like, SMALL + SIDE - 1, 2, whole, ahead)


cdef inline void transform_rows(const WinogradBlock* b, const lane* turned, char* v, int tile) noexcept nogil:
    """A tile of a vector of terms along rows, into V."""
    cdef lane t[POINTS]
    cdef dim i
    cdef int j
    for i in range(b.points):
        transform_x(turned, t, tile)
        for j in range(tile + SIDE - 1):
            (<lane*> v)[0] = t[j]
            prefetch_to_write(v + VECTOR_BYTES)
            v += b.slab
        turned += TURNED_VECTORS


cdef inline void transform_image(const Shape* shape, const WinogradGrid* g, const WinogradBlock* b, dim row, dim first,
                                 Term* term, lane* like) noexcept nogil:
    """V of one row of tiles, for a vector of terms: the first of them is `term`, which becomes the one after them."""
    cdef int lanes = sizeof(lane) // itemsize(like)
    cdef dim used = min(<dim> lanes, g.terms - first)
    cdef dim step = shape.q_step
    cdef dim needed = b.columns * b.tile_across + SIDE - 1       # columns
    cdef dim seen = ceil_div(reach_w(shape, shape.Q) - b.column * b.tile_across * step, step)    # of these, at most
    cdef dim at = 0, kept = 0, begin = 0, low, high, i
    cdef Source source[MOST_LANES]
    cdef Source gathered
    cdef const Source* here
    cdef lane* turned = <lane*> b.turned
    cdef char* v = b.v + b.off[first]
    cdef const dim* tile = b.at + row * b.columns
    cdef char* to
    cdef const char* part
    cdef int k
    for i in range(used):
        find_source(shape, b, row, term, &source[i])
        term[0] = next_term(shape, term[0])
    for k in range(b.points):
        gathered.rows[k] = b.lines + k * step * VECTOR_BYTES
    while at < needed:
        for i in range(used if at < seen else 0):
            here = &source[i]
            low = b.left - here.column - at * step
            high = b.right - here.column - at * step
            to = b.part + i * VECTOR_BYTES
            if b.in_place and low <= 0 and lanes * step <= high:
                transform_any(here, at * step * shape.item, low, high, to, like, b.points, step, True, b.ahead)
            elif b.zeros_around:
                transform_any(here, at * step * shape.item, low, high, to, like, b.points, step, False, b.ahead)
            else:
                gather_columns(shape, b, here, at, b.lines)
                transform_any(&gathered, 0, 0, 0, to, like, b.points, step, True, 0)
        if kept + lanes > TURNED_VECTORS:
            # What the next tile doesn't see makes room.
            kept -= begin
            for k in range(b.points):
                for i in range(kept):
                    turned[k * TURNED_VECTORS + i] = turned[k * TURNED_VECTORS + begin + i]
            begin = 0
        for k in range(b.points):
            part = b.part + k * MOST_LANES * VECTOR_BYTES
            if at >= seen:
                memset(turned + k * TURNED_VECTORS + kept, 0, lanes * VECTOR_BYTES)
            elif needed - at <= lanes // 4:
                transpose_block(part, VECTOR_BYTES, lanes, <char*> (turned + k * TURNED_VECTORS + kept), VECTOR_BYTES,
                                lanes // 4, like)
            else:
                transpose_block(part, VECTOR_BYTES, lanes, <char*> (turned + k * TURNED_VECTORS + kept), VECTOR_BYTES,
                                lanes, like)
        at += lanes
        kept += lanes
        while begin + b.tile_across + SIDE - 1 <= min(kept, needed - at + kept):
            if b.tile_across == TILE:
                transform_rows(b, turned + begin, v + tile[0], TILE)
            else:
                transform_rows(b, turned + begin, v + tile[0], SMALL)
            tile += 1
            begin += b.tile_across


cdef inline lane winograd_tile(const lane* m, dim m_step, const lane* bias, lane* y, dim y_row, dim y_step,
                               dim rows, dim columns, int down, int across) noexcept nogil:
    """A vector of filters of one tile: rows x columns of its outputs; returns zeros, or NaN if any isn't finite."""
    cdef lane column[POINTS]
    cdef lane part[POINTS * TILE]
    cdef lane row[POINTS]
    cdef lane out[TILE]
    cdef lane bad = m[0] - m[0]
    cdef int points = across + SIDE - 1
    cdef int i, j
    for j in range(points):
        m = <const lane*> in_register(<const char*> m)
        for i in range(1 if down == 1 else points):
            column[i] = m[i * points * m_step]
        m += m_step
        if down == 1:
            out[0] = column[0]
        else:
            transform_y(column, out, across)
        for i in range(down):
            part[i * points + j] = out[i]
    for i in range(down):
        for j in range(points):
            row[j] = part[i * points + j]
        transform_y(row, out, across)
        for j in range(across):
            out[j] = out[j] + bias[0]
            bad = plus(bad, 0, out[j])
            if i < rows and j < columns:
                y[i * y_row + j * y_step] = out[j]
    return bad


cdef inline lane winograd_tile_of(const lane* m, dim m_step, const lane* bias, lane* y, dim y_row, dim y_step,
                                  dim rows, dim columns, dim down, dim across) noexcept nogil:
    if down == 1 and across == TILE: return winograd_tile(m, m_step, bias, y, y_row, y_step, rows, columns, 1, TILE)
    if down == 1: return winograd_tile(m, m_step, bias, y, y_row, y_step, rows, columns, 1, SMALL)
    if across == TILE: return winograd_tile(m, m_step, bias, y, y_row, y_step, rows, columns, TILE, TILE)
    return winograd_tile(m, m_step, bias, y, y_row, y_step, rows, columns, SMALL, SMALL)


cdef inline void keep_finite(char* y, const char* other, dim count, dim item) noexcept nogil:
    """Replace what isn't finite: other filters of a panel may well be."""
    cdef dim i
    for i in range(count):
        if not isfinite(value_at(y + i * item, item)):
            copy_scalar(y + i * item, other + i * item, item)


cdef void tile_again(const Shape* shape, const WinogradBlock* b, const char* packed, dim filters, dim row, dim column,
                     dim rows, dim columns, char* sums, dim pitch, dim nv) noexcept nogil:
    """A direct sum for a tile that isn't finite: `rows` x `columns` of y at (row, column), for one panel.

    Of as many rows and columns as any other, at y's edge with some of its neighbours': memory is planned for these.
    """
    cdef Shape one = tile_shape(shape)
    cdef dim top = min(row, shape.P - one.P)
    cdef dim left = min(column, shape.Q - one.Q)
    cdef Image x = image_from(b.x, top * shape.p_step, left * shape.q_step)
    cdef const char* computed = b.one + ((row - top) * one.Q + column - left) * filters * shape.item
    cdef dim task, p, q
    one.K = filters
    x.data += b.image - b.x.data
    for task in range(filter_tasks(&one, 1)):
        filter_run(&one, 1, packed, &x, b.one, task, b.one + whole_lines(RESULT_BYTES))
    for p in range(rows):
        for q in range(columns):
            keep_finite(sums + (p * pitch + q) * nv * VECTOR_BYTES, computed + (p * one.Q + q) * filters * shape.item,
                        filters, shape.item)


cdef struct Strip:
    # Tiles of a block whose results are stored at once.
    dim row, rows, column, columns      # the first tile, and how many
    dim pitch                           # pixels in a row of sums


cdef inline bint strip_sums(const Shape* shape, const WinogradBlock* b, const Strip* strip, const char* direct,
                            dim filters, int nv, bint again, lane* like) noexcept nogil:
    """A panel's M into sums; whether all of them are finite. With `again`, tiles that aren't are computed directly."""
    cdef const lane* m
    cdef const lane* bias = <const lane*> direct
    cdef lane* sums
    cdef lane any_bad = (<const lane*> b.zeros)[0]
    cdef lane bad
    cdef dim row, column, rows, columns, pixel
    cdef int v
    for row in range(strip.row, strip.row + strip.rows):
        rows = min(b.tile_down, b.p - row * b.tile_down)
        for column in range(strip.column, strip.column + strip.columns):
            columns = min(b.tile_across, b.q - column * b.tile_across)
            m = <const lane*> b.m + (row * b.columns + column) * nv
            pixel = (row - strip.row) * b.tile_down * strip.pitch + (column - strip.column) * b.tile_across
            sums = <lane*> b.sums + pixel * nv
            bad = (<const lane*> b.zeros)[0]
            for v in range(nv):
                bad = bad + winograd_tile_of(m + v, b.tiles * nv, bias + v, sums + v, strip.pitch * nv, nv, rows,
                                             columns, b.tile_down, b.tile_across)
            any_bad = any_bad + bad
            if again and not is_zero(&bad):
                tile_again(shape, b, direct, filters, (b.row + row) * b.tile_down, (b.column + column) * b.tile_across,
                           rows, columns, <char*> sums, strip.pitch, nv)
    return is_zero(&any_bad)


cdef inline void winograd_store(const Shape* shape, const WinogradBlock* b, const char* direct, dim filters, int nv,
                                char* y, dim y_pixel, dim y_k, lane* like) noexcept nogil:
    """A panel's M into y: a vector of columns of a row of tiles at once, or all of a block that is narrower."""
    cdef dim lanes = sizeof(lane) // itemsize(like)
    cdef dim first, last, begin, i
    cdef char* y_row
    cdef bint again
    cdef Strip strip
    strip.row = 0
    strip.rows = b.rows if b.narrow else 1
    while strip.row < b.rows:
        first = last = 0
        while last < b.q:
            last = min(first + lanes, b.q)
            first = max(<dim> 0, last - lanes)      # the last ones overlap those before
            strip.column = <unsigned int> first // <unsigned int> b.tile_across
            strip.columns = ceil_div(last, b.tile_across) - strip.column
            strip.pitch = b.q if b.narrow else strip.columns * b.tile_across
            again = False       # one call in the text, as it is inlined
            while not strip_sums(shape, b, &strip, direct, filters, nv, again, like) and not again:
                again = True
            if b.narrow:
                filter_store(shape, b.sums, nv, b.p * b.q, filters, y, y_pixel, y_k)
                return
            for i in range(min(b.tile_down, b.p - strip.row * b.tile_down)):
                y_row = y + ((strip.row * b.tile_down + i) * shape.Q + first) * y_pixel
                begin = i * strip.pitch + first - strip.column * b.tile_across
                filter_store(shape, b.sums + begin * nv * VECTOR_BYTES, nv, last - first, filters, y_row, y_pixel, y_k)
            first = last
        strip.row += 1


# As filter_tile_any is, not inlined.
cdef void winograd_tile_any(const FilterSweep* g, const char* x, const lane* w, lane* t, int m, int nv) noexcept nogil:
    if nv == NV: filter_tile_nv(g, x, w, t, t, 1, m, NV, VECTOR_BYTES, False, False, True)
    else: filter_tile_nv(g, x, w, t, t, 1, m, 1, VECTOR_BYTES, False, False, True)


cdef struct Wanted:
    # Lines of y that a block's results for a panel will be written to: some of each row of each filter.
    const char* line            # the next one
    dim lines, rows, filters    # how many are left of its row, rows of its filter, and filters


cdef inline void ask_for_results(const Shape* shape, const WinogradBlock* b, dim count, dim y_k,
                                 Wanted* wanted) noexcept nogil:
    """Have so many more lines arrive. Many at once would be waited for."""
    cdef dim lines = ceil_div(b.q * shape.item, LINE)
    cdef dim row_step = shape.Q * shape.item
    for _ in range(count):
        if wanted.filters == 0:
            return
        prefetch_to_write(wanted.line)
        wanted.line += LINE
        wanted.lines -= 1
        if wanted.lines == 0:
            wanted.line += row_step - lines * LINE
            wanted.lines = lines
            wanted.rows -= 1
        if wanted.rows == 0:
            wanted.line += y_k - b.p * row_step
            wanted.rows = b.p
            wanted.filters -= 1


cdef inline void winograd_panel(const Shape* shape, const WinogradGrid* g, const WinogradBlock* b, const char* direct,
                                const lane* w, dim filters, int nv, char* y, dim y_pixel, dim y_k,
                                lane* like) noexcept nogil:
    """Sums of a block for a panel of filters: transformed weights w, and `direct` ones, which begin with the biases."""
    cdef FilterSweep sweep
    cdef Tiles groups = cut_tiles(b.tiles)         # of tiles of y
    cdef dim points = points_of(shape)
    cdef dim lines = ceil_div(b.q * shape.item, LINE)
    cdef dim share = ceil_div(filters * b.p * lines, points)
    cdef dim xi
    cdef const char* v = b.v
    cdef lane* m = <lane*> b.m
    cdef Wanted wanted
    wanted.line, wanted.lines, wanted.rows = y, lines, b.p
    wanted.filters = 0 if shape.channels_last else filters
    sweep.off = b.off
    sweep.terms = g.terms
    sweep.row = sweep.row_step = sweep.init_step = 0
    sweep.t_step = nv * VECTOR_BYTES
    sweep.x_tile = vectors_of(shape, g.terms) * group_tiles(b.tiles) * VECTOR_BYTES
    sweep.ahead_step = nv * VECTOR_BYTES // <unsigned int> groups.count       # each term's part of the next weights
    for xi in range(points):
        ask_for_results(shape, b, share, y_k, &wanted)
        sweep.ahead = <const char*> (w + xi_vectors(g.terms, nv))
        if groups.longer > 0:
            sweep.tiles, sweep.t_tile = groups.longer, groups.m + 1
            winograd_tile_any(&sweep, v, w, m, <int> groups.m + 1, nv)
            sweep.ahead += groups.longer * sweep.ahead_step * g.terms
        sweep.tiles, sweep.t_tile = groups.count - groups.longer, groups.m
        winograd_tile_any(&sweep, v + groups.longer * sweep.x_tile, w, m + groups.longer * (groups.m + 1) * nv,
                          <int> groups.m, nv)
        v += b.slab
        m += b.tiles * nv
        w += xi_vectors(g.terms, nv)
    winograd_store(shape, b, direct, filters, nv, y, y_pixel, y_k, like)


cdef void open_block(const Shape* shape, const WinogradGrid* g, const Image* x, const Place* place, char* workspace,
                     WinogradBlock* b) noexcept nogil:
    """A block of one group of image n, and where all of it is."""
    cdef dim item = shape.item
    cdef dim lanes = lanes_of(shape)
    cdef dim band = place.block // g.pieces
    cdef dim piece = place.block - band * g.pieces
    cdef Tiles groups
    cdef dim* at
    cdef dim i, group, pitch
    b.x = x
    b.image = x.data + place.n * x.n + place.group * shape.C * x.c
    b.row = split(g.down, g.bands, band)
    b.rows = split(g.down, g.bands, band + 1) - b.row
    b.column = split(g.across, g.pieces, piece)
    b.columns = split(g.across, g.pieces, piece + 1) - b.column
    b.tiles = b.rows * b.columns
    b.tile_down = tile_down(shape)
    b.tile_across = tile_across(shape)
    b.points = points_down(shape)
    b.narrow = is_narrow(shape, g)
    b.p = min(shape.P - b.row * b.tile_down, b.rows * b.tile_down)
    b.q = min(shape.Q - b.column * b.tile_across, b.columns * b.tile_across)
    b.left = x.left
    b.right = min(b.left + shape.W, reach_w(shape, shape.Q))
    b.in_place = x.w == item
    b.zeros_around = b.in_place and only_zeros_around(shape, x, 0, reach_w(shape, shape.Q))
    b.slab = slab_bytes(shape, g)
    # Whole channels: of filters of many patches the next vector's terms see the same ones.
    b.ahead = lanes * shape.C // g.terms * x.c
    if <double> shape.N * shape.G * shape.C * shape.H * shape.W * item <= CACHED_BYTES:
        b.ahead = 0     # they are in a second-level cache since the call before
    if shares_v(g):
        b.v = x.shared + ((place.n * shape.G + place.group) * g.bands * g.pieces + place.block) * v_bytes(shape, g)
        b.m = workspace
    else:
        b.v = workspace
        b.m = b.v + v_bytes(shape, g)
    b.sums = b.m + points_of(shape) * plane_bytes(g)
    b.zeros = b.sums + strip_bytes(shape, g)
    b.padding = b.zeros + row_bytes(shape, g)
    b.lines = b.padding + row_bytes(shape, g)
    b.part = b.lines + whole_lines(LINES_BYTES)
    b.turned = b.part + whole_lines(PART_BYTES)
    b.off = <dim*> (b.turned + whole_lines(TURNED_BYTES))
    b.at = <dim*> (<char*> b.off + whole_lines(g.terms * sizeof(dim)))
    b.late = <char*> b.at + whole_lines(g.rows * g.columns * sizeof(dim))
    b.one = b.late + late_panel_bytes(shape)
    memset(b.zeros, 0, row_bytes(shape, g))
    memset(b.part, 0, PART_BYTES)       # lanes past the last term
    if x.rows != NULL:
        fill(b.padding, row_bytes(shape, g) // item, &x.pad[0], item)
    pitch = group_tiles(b.tiles) * VECTOR_BYTES
    for i in range(g.terms):
        b.off[i] = i // lanes * pitch + i % lanes * item
    groups = cut_tiles(b.tiles)
    at = b.at
    for group in range(groups.count):
        for i in range(groups.m + (group < groups.longer)):
            at[0] = group * vectors_of(shape, g.terms) * pitch + i * VECTOR_BYTES
            at += 1


cdef inline dim units_of(const Shape* shape, const WinogradGrid* g, const WinogradBlock* b) noexcept nogil:
    """Of the transform of x: a row of tiles and a vector of terms each, row by row."""
    return b.rows * vectors_of(shape, g.terms)


cdef void transform_units(const Shape* shape, const WinogradGrid* g, const WinogradBlock* b, dim first, dim last,
                          lane* like) noexcept nogil:
    """V of units first .. last-1 of a block."""
    cdef dim vectors = vectors_of(shape, g.terms)
    cdef dim row = first // vectors
    cdef dim vector = first - row * vectors
    cdef dim i
    cdef Term term
    term.c = term.r = term.s = 0
    for i in range(vector * lanes_of(shape)):
        term = next_term(shape, term)
    for i in range(first, last):
        transform_image(shape, g, b, row, vector * lanes_of(shape), &term, like)
        vector += 1
        if vector == vectors:
            vector = 0
            row += 1
            term.c = term.r = term.s = 0


cdef inline void winograd_panels(const Shape* shape, const WinogradGrid* g, const WinogradBlock* b, const char* packed,
                                 char* y, const Place* place, lane* like) noexcept nogil:
    """A block for some panels of filters."""
    cdef dim terms = shape.C * shape.R * shape.S
    cdef dim width = filter_width(shape)
    cdef dim y_k = filter_step(shape)
    cdef dim y_pixel = pixel_step(shape)
    cdef dim panel, filters
    cdef const char* direct
    cdef const lane* w
    cdef int nv
    y += place.n * result_bytes(shape) + (place.group * shape.K + place.first * width) * y_k
    y += (b.row * b.tile_down * shape.Q + b.column * b.tile_across) * y_pixel
    for panel in range(place.first, place.last):
        nv = <int> panel_vectors(shape, panel)
        filters = min(width, shape.K - panel * width)
        if shape.unpacked:
            direct = b.late
            w = <const lane*> (b.late + whole_lines(panel_bytes(shape)))
            pack_panel(shape, <const Weights*> packed, place.group, panel, 0, terms, b.late)
            pack_transformed(shape, direct + nv * VECTOR_BYTES, nv, <char*> w, <const lane*> b.zeros)
        else:
            direct = packed + place.group * group_bytes(shape) + panel * panel_bytes(shape)
            w = <const lane*> (packed + winograd_start(shape) + place.group * winograd_group_bytes(shape)
                               + panel * transformed_bytes(shape, NV))
        winograd_panel(shape, g, b, direct, w, filters, nv, y, y_pixel, y_k, like)
        y += width * y_k


cdef dim winograd_shared_bytes(const Shape* shape, int workers) noexcept nogil:
    cdef WinogradGrid g = winograd_grid(shape, workers)
    return count_blocks(shape, &g) * v_bytes(shape, &g) if shares_v(&g) else 0


cdef inline dim sharing_parts(const Shape* shape, const WinogradGrid* g, int workers) noexcept nogil:
    """Tasks that a block's transform of x is cut into."""
    return min(g.rows * vectors_of(shape, g.terms), ceil_div(4 * workers, count_blocks(shape, g)))


cdef dim winograd_sharing_tasks(const Shape* shape, int workers) noexcept nogil:
    cdef WinogradGrid g = winograd_grid(shape, workers)
    return count_blocks(shape, &g) * sharing_parts(shape, &g, workers)


cdef void winograd_share(const Shape* shape, int workers, const Image* x, dim task, char* workspace) noexcept nogil:
    cdef WinogradGrid g = winograd_grid(shape, workers)
    cdef dim parts = sharing_parts(shape, &g, workers)
    cdef dim part = task % parts
    cdef Place place = place_of(shape, task // parts, g.bands * g.pieces, 1, 1)
    cdef WinogradBlock b
    cdef dim first, last
    open_block(shape, &g, x, &place, workspace, &b)
    first = split(units_of(shape, &g, &b), parts, part)
    last = split(units_of(shape, &g, &b), parts, part + 1)
    if shape.dtype == FLOAT32:
        transform_units(shape, &g, &b, first, last, <f32v*> NULL)
    else:
        transform_units(shape, &g, &b, first, last, <f64v*> NULL)


cdef dim winograd_tasks(const Shape* shape, int workers) noexcept nogil:
    cdef WinogradGrid g = winograd_grid(shape, workers)
    return count_blocks(shape, &g) * g.sets


cdef void winograd_run(const Shape* shape, int workers, const char* packed, const Image* x, char* y, dim task,
                       char* workspace) noexcept nogil:
    cdef WinogradGrid g = winograd_grid(shape, workers)
    cdef Place place = place_of(shape, task, g.bands * g.pieces, g.sets, filter_panels(shape))
    cdef WinogradBlock b
    cdef dim units
    open_block(shape, &g, x, &place, workspace, &b)
    units = 0 if shares_v(&g) else units_of(shape, &g, &b)
    if shape.dtype == FLOAT32:
        transform_units(shape, &g, &b, 0, units, <f32v*> NULL)
        winograd_panels(shape, &g, &b, packed, y, &place, <f32v*> NULL)
    else:
        transform_units(shape, &g, &b, 0, units, <f64v*> NULL)
        winograd_panels(shape, &g, &b, packed, y, &place, <f64v*> NULL)


# Packed weights.

cdef inline dim winograd_start(const Shape* shape) noexcept nogil:
    """Of transformed weights."""
    return trust_start(shape) + trust_bytes(shape)


cdef inline dim winograd_group_bytes(const Shape* shape) noexcept nogil:
    """Of one group's transformed weights."""
    cdef dim last = filter_panels(shape) - 1
    return last * transformed_bytes(shape, NV) + transformed_bytes(shape, panel_vectors(shape, last))


cdef dim winograd_packed_bytes(const Shape* shape) noexcept nogil:
    return winograd_start(shape) + (0 if shape.unpacked else shape.G * winograd_group_bytes(shape))


cdef enum:
    WIDEST = NV * VECTOR_BYTES // 4     # filters in a panel


cdef inline void transform_weights(const lane** value, const double* g, dim points, const double* down,
                                   dim points_down, int nv, char* to, dim to_step) noexcept nogil:
    """G w G' of one term of nv vectors of filters, of which value[r][s] are the weights; xi to_step bytes apart.

    G is of so many points; along columns, it is `down`.

    In double precision, so that transformed weights are rounded once. Inner loops are along filters, for the compiler
    to vectorise.
    """
    cdef double part[SIDE * WIDEST]
    cdef dim item = itemsize(value[0])
    cdef dim lanes = sizeof(lane) // item
    cdef dim s, k
    cdef const char* rows[SIDE]
    cdef int i, j
    for i in range(points_down):
        for s in range(SIDE):
            for j in range(SIDE):
                rows[j] = <const char*> value[j * SIDE + s]
            for k in range(nv * lanes):
                part[s * WIDEST + k] = (down[i * SIDE] * value_at(rows[0] + k * item, item)
                                        + down[i * SIDE + 1] * value_at(rows[1] + k * item, item)
                                        + down[i * SIDE + 2] * value_at(rows[2] + k * item, item))
        for j in range(points):
            for k in range(nv * lanes):
                put_value(to + k * item, g[j * SIDE] * part[k] + g[j * SIDE + 1] * part[WIDEST + k]
                          + g[j * SIDE + 2] * part[2 * WIDEST + k], item)
            to += to_step


cdef void pack_transformed(const Shape* shape, const char* direct, int nv, char* packed,
                           const lane* zeros) noexcept nogil:
    """One panel, from the weights as filter_lanes.pxi has packed them, [c][r][s][nv vectors]."""
    cdef const lane* value[SIDE * SIDE]
    cdef double g[POINTS * SIDE]
    cdef double one[SIDE]
    cdef const double* down = g
    cdef dim terms = count_terms(shape)
    cdef dim points = points_across(shape)
    cdef dim i, r, s, row, column
    cdef Term term
    cdef int xi
    for xi in range(points):
        for r in range(SIDE):
            g[xi * SIDE + r] = transform_w(xi, <int> r, tile_across(shape))
    one[0], one[1], one[2] = 1, 0, 0
    if points_down(shape) == 1:
        down = one
    term.c = term.r = term.s = 0
    for i in range(terms):
        for r in range(SIDE):
            row = term.r + r * shape.p_step
            for s in range(SIDE):
                column = term.s + s * shape.q_step
                value[r * SIDE + s] = zeros
                if row < shape.R and column < shape.S:
                    value[r * SIDE + s] = <const lane*> direct + ((term.c * shape.R + row) * shape.S + column) * nv
        if nv == NV:
            transform_weights(value, g, points, down, points_down(shape), NV, packed,
                              xi_vectors(terms, NV) * VECTOR_BYTES)
        else:
            transform_weights(value, g, points, down, points_down(shape), 1, packed,
                              xi_vectors(terms, 1) * VECTOR_BYTES)
        packed += nv * VECTOR_BYTES
        term = next_term(shape, term)


cdef dim winograd_pack_tasks(const Shape* shape) noexcept nogil:
    return measure_tasks(shape) + filter_pack_tasks(shape)


cdef void winograd_pack(const Shape* shape, const Weights* w, char* packed, dim task) noexcept nogil:
    """The first tasks measure the weights; each other packs a panel of a group."""
    cdef char zeros[NV * VECTOR_BYTES]
    cdef dim panels = filter_panels(shape)
    cdef dim group, panel
    cdef Trust trust = trust_of(shape, packed)
    cdef const char* direct
    cdef int nv
    if task < measure_tasks(shape):
        measure_weights(shape, w, &trust, task)
        return
    task -= measure_tasks(shape)
    filter_pack(shape, w, packed, task)
    if shape.unpacked:
        return
    group = divided(task, panels)
    panel = task - group * panels
    nv = <int> panel_vectors(shape, panel)
    direct = packed + group * group_bytes(shape) + panel * panel_bytes(shape) + nv * VECTOR_BYTES   # after biases
    packed += winograd_start(shape) + group * winograd_group_bytes(shape) + panel * transformed_bytes(shape, NV)
    memset(zeros, 0, sizeof(zeros))
    if shape.item == 4:
        pack_transformed(shape, direct, nv, packed, <const f32v*> zeros)
    else:
        pack_transformed(shape, direct, nv, packed, <const f64v*> zeros)


cdef inline bint packs_panels(const Shape* shape) noexcept nogil:
    """Whether an image's V and a panel's weights are small, and all weights together aren't."""
    cdef double tiles = <double> ceil_div(shape.P, tile_down(shape)) * ceil_div(shape.Q, tile_across(shape))
    return (points_of(shape) * tiles * count_terms(shape) * shape.item <= LATE_V_BYTES
            and transformed_bytes(shape, NV) <= LATE_PANEL_BYTES
            and shape.G * winograd_group_bytes(shape) > CACHED_BYTES)


cdef bint winograd_packs_late(const Shape* shape, const Weights* w) noexcept nogil:
    return shape.N == 1 and packs_panels(shape)


cdef inline dim least_terms(const Shape* shape) noexcept nogil:
    """Of the direct sum, for the error bound, and to gain."""
    return max(<dim> LEAST_TERMS, 2 * (count_terms(shape) + (ROW_ROUNDED if points_down(shape) == 1 else ROUNDED)))


cdef double winograd_cost(const Shape* shape) noexcept nogil:
    cdef bint rows_only = points_down(shape) == 1
    cdef WinogradGrid grid
    cdef double tiles, vectors, panels, blocks, calls, sums, stream, squares, square, tile
    if (not is_float(shape) or shape.P < shape.R or shape.Q < shape.S or max(shape.R, shape.S) > MOST_SIDE
            or max(shape.p_step, shape.q_step) > MOST_STEP or shape.r_step > 1 or shape.s_step > 1):
        return INFINITY
    if shape.C * shape.R * shape.S < least_terms(shape):
        return INFINITY
    grid = winograd_grid(shape, 1)
    blocks = <double> grid.bands * grid.pieces
    tiles = <double> grid.down * grid.across
    vectors = vectors_of(shape, shape.K)
    # The register tile's multiply-adds: it has up to MR sums in a vector, or fewer, which then wait for each other. And
    # its sums are stored twice.
    panels = filter_panels(shape)
    calls = blocks * ceil_div(grid.rows * grid.columns, MR)
    sums = 1.1 * points_of(shape) * panels * calls * (
        grid.terms * max(tiles / calls * vectors / panels / ISSUE, <double> LATENCY) + 40 + 4 * MR * NV)
    # Or the time in which weights arrive: where a cache doesn't hold a group's, for each block.
    stream = winograd_group_bytes(shape)
    if stream * shape.G > CACHED_BYTES:
        sums = max(sums, stream * (blocks if stream > CACHED_BYTES else 1) / STREAM)
    # The transforms of x, of squares of columns by terms, and of y, of each tile and vector of filters, which take
    # longer to turn over the more lanes there are.
    squares = <double> grid.down * grid.pieces * vectors_of(shape, grid.columns * tile_across(shape))
    squares *= vectors_of(shape, grid.terms) * lanes_of(shape)
    tile = points_of(shape)
    if rows_only:
        return shape.G * (sums + squares * (36 if shape.gathered else 24) + tiles * vectors * 8 * tile + blocks * 3000)
    square = (35 + 0.3 * VECTOR_BYTES + (30 if shape.gathered else 0)) * points_down(shape) / POINTS
    return shape.G * (sums + squares * square + tiles * vectors * (2.2 + 0.07 * VECTOR_BYTES) * tile + blocks * 5500)


cdef double winograd_pack_cost(const Shape* shape) noexcept nogil:
    """A transform of each filter's term, and a direct sum's weights too. The same for any number of images."""
    cdef bint cached = packs_panels(shape) or shape.G * winograd_group_bytes(shape) <= CACHED_BYTES
    cdef double transform = (40 if cached else 150) * points_of(shape) / 36.0
    if points_down(shape) == 1:
        transform = (12 if cached else 35) * points_of(shape) / 6.0
    return transform * shape.G * shape.K * count_terms(shape) + direct_pack_cost(shape)
