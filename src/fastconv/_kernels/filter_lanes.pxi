# Filters in the lanes: packed weights are read a vector of filters at a time, and values of the image are broadcast.
# For many channels and filters; outputs may be as narrow as one pixel.
#
# Register tile: acc[u][i][v] += x[off[r] + u * row + i] * w[r][v * lanes ..], for um rows of y, m pixels of each,
# um * m <= MR, and nv vectors of filters, r over the reduction (c, r, s). um is 1, or 2 or 3 where tiles are narrow.
# Each output is one chain of multiply-adds in the order of r that begins at the bias.
#
# A tile wants its values of the image close together and in the order in which it takes them: from the first-level
# cache, without a new page for every channel. So a block of y has the rows of x under each of its tiles copied
# (staged), once for all panels of filters: [tile across][row of x][c][m + (S - 1) * dilation], which tiles below each
# other share, or for each tile [c][r][m + ...], where a part of the reduction isn't of whole channels, or rows would be
# copied that none sees. Short rows, and those that few panels read, aren't cut: m is all columns then, and tiles across
# share them too. With a stride, where neighbouring pixels see values that lie apart, m + ... is that for each phase of
# a row; with wide dilation it is [s][m]. A small image is read where it stands, and so is one that few filters of 1 x 1
# read. Tiles can't tell: they are handed a table of offsets.
#
# Tiles write pixel by pixel into sums, which are transposed into y when they are complete.
#
# Packed weights: for each panel of up to NR = NV * lanes filters, nv vectors of biases, then [c][r][s][nv vectors];
# what lanes past the last filter hold, and compute, is dropped. For a single call that has no use for them again,
# a task packs the weights of a panel where it needs them.

cdef enum:
    BLOCK_PIXELS = 400          # pixels of y in a block, about, and fewest of those that workers share, or half of that
    LEAST_PIXELS = 100
    SMALL_IMAGE = 16 * 1024     # bytes that stay in the first-level cache wherever they lie
    FEW_PANELS = 6              # so many panels of filters of 1 x 1 lose less by reading one row where it stands, in
    NEAR_ROWS = 192 * 1024      # parts of the reduction that are no further apart, than copying it takes
    WHOLE_BYTES = 512           # of a staged row that isn't cut for tiles, times the panels that read it
    SCALARS_AHEAD = 1024        # bytes that the scalars of a product are asked for ahead
    LATE_BYTES = 128 * 1024     # packed weights that stay in a cache from when they are packed
    SUM_BYTES = 384 * 1024      # most that waits for the rest of its sum; with the stage it fits a second-level cache

cdef struct FilterGrid:
    # How the work is cut. A block is rows x columns of y; a set of panels is computed at once; parts of the reduction
    # follow each other.
    bint staged
    bint shared                 # tiles below each other share what is staged
    bint by_term                # [s][m], and not [phase][m + ...]
    bint gathered               # rows of a channel are put together before they are cut into tiles
    bint apart                  # those that each row of a filter sees, one after the other,
    bint wide                   # and the columns that each of its values sees: with dilation there is much between
    bint straight               # where x allows it they go to their tiles as they are gathered, and aren't cut then
    dim unit                    # terms that are staged together: those of a channel if shared, or of a filter's row
    dim rows, columns           # of y in the largest block
    dim bands, pieces           # blocks down and across y
    dim across                  # pieces that staged rows are cut into: one for each tile, or one for all
    dim m                       # pixels of y that the largest is for
    dim panels, sets            # panels in the largest set, and sets
    dim terms, parts            # terms of the largest part, and parts
    dim pitch                   # bytes of a piece of a channel's row

cdef struct FilterSweep:
    # One sweep of tiles over a block, with one part of the reduction.
    const dim* off              # where each term stands, in bytes from a tile's first
    dim terms
    dim tiles                   # of one row and the same size, one after the other; of a product, of other filters
    dim x_tile, t_tile          # and from one to the next so many bytes of x, and pixels of the sums
    dim row                     # bytes from one row of a tile to the next
    dim init_step               # vectors from one pixel's first values to the next's: 0 where all begin at the bias
    dim t_step                  # bytes from one pixel's sums to the next's
    dim row_step                # pixels from one row of a tile to the next, in sums
    const char* ahead           # what the next tiles will want is asked for, a line a term: from here on, in steps
    dim ahead_step              # of a product, a tile
    # Of matrix.pxi:
    dim term                    # bytes from one term to the next, instead of off
    const dim* lines            # what is asked for, at distances from `ahead`, and from the results; NULL: nothing
    const dim* t_lines
    char* stage                 # where vectors are copied to on the way, if they are read in x,
    dim channel                 # in which so many bytes lie from one term to the next,
    dim near                    # and so many to the one that is asked for then; 0: none


cdef inline int reading_rows(int rows, int nv) noexcept nogil:
    """Rows of a register tile whose multiply-adds read and broadcast the scalar from memory themselves.

    That saves an instruction, which a scalar that nv of them find in a register takes, and costs nv - 1 reads more: as
    many as a cycle's reads, which are as many as its multiply-adds, leave room for. It gains where instructions are
    what lacks: a core whose other hardware thread is busy issues half as many.
    """
    if not READS_SCALARS or nv == 1:
        return 0
    return max(0, (rows * (nv - 1) - nv - 4) // (nv - 1))


cdef inline void filter_tile(const FilterSweep* g, const char* x, const vec* w, const vec* init, vec* t, int um, int m,
                             int nv, dim step, bint product, bint copies, bint halves) noexcept nogil:
    """t[u][i][v] = init[u][i][v] + the sum over g.terms terms of the reduction; and if um is 1, so for g.tiles tiles.

    Pixels of a row are `step` bytes apart in x. `product` is a tile of matrix.pxi, where each i begins with a value for
    all lanes, and `copies` one, alone, whose vectors aren't staged yet. With `halves` the sum is of two chains, and so
    rounds half as much at worst: each begins at 0, pixels' sums follow each other, and there are two terms at least.
    """
    cdef vec acc[MR * NV]
    cdef vec b[NV]
    cdef const char* a
    cdef const char* ahead = g.ahead
    cdef dim item = itemsize(t)
    cdef const dim* lines = g.lines
    cdef const dim* t_lines = g.t_lines
    cdef dim near = g.near
    cdef char* stage = g.stage
    cdef dim r
    # Vectors in x straddle lines, and take the reads of two.
    cdef int reading = 0 if copies else reading_rows(um * m, nv)
    cdef int u, i, v
    cdef vec* sums
    cdef dim terms = g.terms
    cdef dim end = terms // 2 if halves else terms
    cdef const vec* first = w
    cdef dim tiles = g.tiles
    r = 0
    while True:
        for u in range(um):
            for i in range(m):
                for v in range(nv):
                    if halves:
                        acc[i * nv + v] = zeros(t)
                    elif product:
                        acc[i * nv + v] = broadcast(<const char*> init + i * item, init)
                    else:
                        acc[(u * m + i) * nv + v] = init[(u * g.row_step + i) * g.init_step + v]
        # There is a term at least. Were that left open, the compiler would take the sums through memory.
        while True:
            if product:
                a = x
                x += g.term
                for i in range(item // 4):      # weights come a line a term, of 64 bits almost two
                    prefetch(x + SCALARS_AHEAD + i * LINE)
                if lines != NULL:
                    prefetch_to_second_level(ahead + lines[r])
                    prefetch_to_write(<const char*> t + t_lines[r])
            else:
                a = in_register(x + g.off[r])
                prefetch(ahead)
                ahead += g.ahead_step
            for v in range(nv):
                b[v] = w[v]
                if copies:
                    (<vec*> stage)[v] = b[v]
                    if near != 0:
                        prefetch(<const char*> (w + v + 1) - 1 + near)
            for i in range(reading, um * m):
                for v in range(nv):
                    acc[i * nv + v] = fma(acc[i * nv + v], b[v], a + i // m * g.row + i % m * step)
            for v in range(nv):
                a = in_register(a)
                for i in range(reading):
                    acc[i * nv + v] = fma(acc[i * nv + v], b[v], a + i // m * g.row + i % m * step)
            if copies:
                w = <const vec*> (<const char*> w + g.channel)
                stage += nv * sizeof(vec)
            else:
                w += nv
            r += 1
            if r >= end: break
        for u in range(um):
            for i in range(m):
                if halves:
                    sums = t + i * nv
                else:
                    sums = <vec*> (<char*> t + (u * g.row_step + i) * g.t_step)
                for v in range(nv):
                    if halves and end == terms:
                        sums[v] = sums[v] + acc[(u * m + i) * nv + v]
                    else:
                        sums[v] = acc[(u * m + i) * nv + v]
        if halves and end < terms:
            end = terms
            continue
        tiles -= 1
        if um > 1 or product and copies or tiles == 0: break
        r = 0
        end = terms // 2 if halves else terms
        w = first
        if product:                             # x has arrived at the weights that follow
            init = <const vec*> (<const char*> init + m * item)
            ahead += g.ahead_step
        else:
            x += g.x_tile
            init += g.t_tile * g.init_step
        t = <vec*> (<char*> t + g.t_tile * g.t_step)


# The variants are one loop nest: um, m and nv become constants of a copy that the compiler unrolls.

cdef inline void filter_tile_nv(const FilterSweep* g, const char* x, const vec* w, const vec* init, vec* t, int um,
                                int m, int nv, dim step, bint product, bint copies, bint halves) noexcept nogil:
    if um == 1:
        if m == MR: filter_tile(g, x, w, init, t, 1, MR, nv, step, product, copies, halves)
        elif m == 1: filter_tile(g, x, w, init, t, 1, 1, nv, step, product, copies, halves)
        elif m == 2: filter_tile(g, x, w, init, t, 1, 2, nv, step, product, copies, halves)
        elif m == 3: filter_tile(g, x, w, init, t, 1, 3, nv, step, product, copies, halves)
        elif m == 4: filter_tile(g, x, w, init, t, 1, 4, nv, step, product, copies, halves)
        elif m == 5: filter_tile(g, x, w, init, t, 1, 5, nv, step, product, copies, halves)
        elif MR > 6:
            if m == 6: filter_tile(g, x, w, init, t, 1, 6, nv, step, product, copies, halves)
            elif m == 7: filter_tile(g, x, w, init, t, 1, 7, nv, step, product, copies, halves)
            elif m == 8: filter_tile(g, x, w, init, t, 1, 8, nv, step, product, copies, halves)
            elif m == 9: filter_tile(g, x, w, init, t, 1, 9, nv, step, product, copies, halves)
            elif m == 10: filter_tile(g, x, w, init, t, 1, 10, nv, step, product, copies, halves)
            elif m == 11: filter_tile(g, x, w, init, t, 1, 11, nv, step, product, copies, halves)
            elif m == 12: filter_tile(g, x, w, init, t, 1, 12, nv, step, product, copies, halves)
            else: filter_tile(g, x, w, init, t, 1, 13, nv, step, product, copies, halves)
    elif um == 2:
        if m == MR // 2: filter_tile(g, x, w, init, t, 2, MR // 2, nv, step, product, copies, halves)
        elif m == 1: filter_tile(g, x, w, init, t, 2, 1, nv, step, product, copies, halves)
        elif m == 2: filter_tile(g, x, w, init, t, 2, 2, nv, step, product, copies, halves)
        elif MR > 6:
            if m == 3: filter_tile(g, x, w, init, t, 2, 3, nv, step, product, copies, halves)
            elif m == 4: filter_tile(g, x, w, init, t, 2, 4, nv, step, product, copies, halves)
            elif m == 5: filter_tile(g, x, w, init, t, 2, 5, nv, step, product, copies, halves)
            else: filter_tile(g, x, w, init, t, 2, 6, nv, step, product, copies, halves)
    elif m == 1: filter_tile(g, x, w, init, t, 3, 1, nv, step, product, copies, halves)
    elif m == 2: filter_tile(g, x, w, init, t, 3, 2, nv, step, product, copies, halves)
    elif MR > 6:
        if m == 3: filter_tile(g, x, w, init, t, 3, 3, nv, step, product, copies, halves)
        else: filter_tile(g, x, w, init, t, 3, 4, nv, step, product, copies, halves)


# Not inlined: among the loops around them, the compiler would keep the sums in memory, and take minutes for it.
cdef void filter_tile_any(const FilterSweep* g, const char* x, const vec* w, const vec* init, vec* t, int um, int m,
                          int nv) noexcept nogil:
    if nv == NV: filter_tile_nv(g, x, w, init, t, um, m, NV, itemsize(t), False, False, False)
    else: filter_tile_nv(g, x, w, init, t, um, m, 1, itemsize(t), False, False, False)


cdef inline void store_vectors(const char* sums, dim pitch, dim pixels, dim lanes_used, char* y, dim y_pixel,
                               dim y_lane, lane* like) noexcept nogil:
    """A vector of sums for each pixel, `pitch` bytes apart, into y."""
    cdef dim item = itemsize(like)
    cdef dim lanes = sizeof(lane) // item
    cdef dim j = 0, i
    if y_pixel == item:
        while j < pixels and pixels >= lanes:
            j = min(j, pixels - lanes)          # the last block overlaps the one before
            transpose_block(sums + j * pitch, pitch, lanes, y + j * item, y_lane, lanes_used, like)
            j += lanes
    while j < pixels:
        if y_lane == item:
            memcpy(y + j * y_pixel, sums + j * pitch, lanes_used * item)
        else:
            for i in range(lanes_used):
                copy_scalar(y + j * y_pixel + i * y_lane, sums + j * pitch + i * item, item)
        j += 1


cdef inline void store_sums(const Shape* shape, const char* sums, dim pitch, dim pixels, dim lanes_used, char* y,
                            dim y_pixel, dim y_lane) noexcept nogil:
    if shape.item == 4:
        store_vectors(sums, pitch, pixels, lanes_used, y, y_pixel, y_lane, <f32v*> NULL)
    else:
        store_vectors(sums, pitch, pixels, lanes_used, y, y_pixel, y_lane, <f64v*> NULL)


cdef void filter_store(const Shape* shape, const char* t, int nv, dim pixels, dim filters, char* y,
                       dim y_pixel, dim y_k) noexcept nogil:
    """Sums, [pixels][nv vectors of filters], into y: filters y_k bytes apart, pixels y_pixel."""
    cdef dim lanes = lanes_of(shape)
    cdef int v
    for v in range(nv):
        store_sums(shape, t + v * VECTOR_BYTES, nv * VECTOR_BYTES, pixels, min(lanes, filters - v * lanes),
                   y + v * lanes * y_k, y_pixel, y_k)


cdef inline int most_rows(dim m) noexcept nogil:
    """Rows of y in a tile: up to three, if short ones."""
    return 3 if 3 * m <= MR else 2 if 2 * m <= MR else 1


cdef inline int rows_at_once(dim left, dim m) noexcept nogil:
    """Of so many rows that are left; four are two pairs."""
    cdef int most = most_rows(m)
    return 2 if most == 3 and left == 4 else <int> min(<dim> most, left)


cdef struct Tiles:
    # Pixels that follow each other, or filters of a product, cut into pieces of nearly equal size.
    dim count
    dim m                       # pixels of each; the first `longer` have one more
    dim longer


cdef inline Tiles cut_tiles(dim pixels) noexcept nogil:
    """Into as few tiles as there can be."""
    cdef Tiles cut
    cut.count = ceil_div(pixels, MR)
    cut.m = <unsigned int> pixels // <unsigned int> cut.count
    cut.longer = pixels - cut.m * cut.count
    return cut


cdef inline dim tile_begin(const Tiles* cut, dim tile) noexcept nogil:
    """Its first pixel."""
    return tile * cut.m + min(tile, cut.longer)


cdef inline dim tiles_alike(const Tiles* cut, dim tile) noexcept nogil:
    """From this one on, those that are as long."""
    return (cut.longer if tile < cut.longer else cut.count) - tile


cdef inline dim count_tiles(dim rows, dim columns) noexcept nogil:
    """Of a block."""
    cdef Tiles cut = cut_tiles(columns)
    return cut.longer * ceil_div(rows, most_rows(cut.m + 1)) + (cut.count - cut.longer) * ceil_div(
        rows, most_rows(cut.m))


cdef inline dim filter_width(const Shape* shape) noexcept nogil:
    """Filters in a full panel (NR)."""
    return NV * lanes_of(shape)


cdef inline dim filter_panels(const Shape* shape) noexcept nogil:
    return max(1, ceil_div(shape.K, filter_width(shape)))


cdef inline dim panel_vectors(const Shape* shape, dim panel) noexcept nogil:
    """Vectors that the panel's filters fill."""
    cdef dim filters = min(filter_width(shape), shape.K - panel * filter_width(shape))
    return vectors_of(shape, filters)


cdef inline dim panel_bytes(const Shape* shape) noexcept nogil:
    """Of a full panel's packed weights, and its biases."""
    return (1 + shape.C * shape.R * shape.S) * NV * VECTOR_BYTES


cdef inline dim seen_columns(const Shape* shape, dim columns) noexcept nogil:
    """Columns of x from the first to the last that a value of a filter meets."""
    return (columns - 1) * shape.q_step + 1


cdef inline dim staged_rows(const Shape* shape, const FilterGrid* g, dim rows) noexcept nogil:
    """For so many rows of y, of a unit of the reduction and a piece across."""
    return reach_h(shape, rows) if g.shared else rows


cdef inline dim unit_bytes(const Shape* shape, const FilterGrid* g) noexcept nogil:
    """Of what is staged for a unit of the reduction, for all tiles of a block."""
    return staged_rows(shape, g, g.rows) * g.across * g.pitch


cdef FilterGrid filter_grid(const Shape* shape, int workers) noexcept nogil:
    cdef FilterGrid g
    cdef dim terms = shape.C * shape.R * shape.S
    cdef dim images = max(1, shape.N * shape.G)
    cdef dim most, least, seen, sets, block = BLOCK_PIXELS
    cdef bint must, narrow, few
    # Blocks: whole rows, or pieces of one; some for each worker. Where all filters' sums wait for more of the
    # reduction, less of y: to stage rows anew for another set of panels takes longer than to read weights anew for
    # other rows, but not than to pack them anew.
    g.rows, g.bands, g.columns, g.pieces = shape.P, 1, shape.Q, 1
    if terms > FILTER_KC and not shape.unpacked:
        block = min(block, max(<dim> LEAST_PIXELS, SUM_BYTES // (filter_panels(shape) * NV * VECTOR_BYTES)))
    if shape.P * shape.Q > block:
        g.pieces = ceil_div(shape.Q, block)
        g.bands = ceil_div(shape.P, max(1, block // shape.Q))
    if workers > 1 and images * g.bands < 4 * workers:
        least = min(ceil_div(shape.P * shape.Q, LEAST_PIXELS), <dim> 4 * workers)
        g.bands = even_blocks(max(g.bands, least), shape.P, images, workers)
        if shape.P == 1:
            g.pieces = even_blocks(max(g.pieces, least), shape.Q, images, workers)
    if g.bands > 1 or g.pieces > 1:
        g.columns = ceil_div(shape.Q, g.pieces)
        g.rows = ceil_div(shape.P, g.bands)
    g.across = cut_tiles(g.columns).count
    g.m = MR if g.pieces > 1 else ceil_div(g.columns, g.across)     # a piece with a column less may have wider tiles
    # To cut rows takes time once; that values aren't close together takes a little of it for each panel.
    seen = phases_across(shape) * phase_columns(shape, g.columns) * shape.item
    if seen <= LINE or seen * filter_panels(shape) <= WHOLE_BYTES:
        g.across, g.m = 1, g.columns
    seen = phases_across(shape) * phase_columns(shape, g.m)
    g.by_term = seen > g.m * shape.S
    g.pitch = (g.m * shape.S if g.by_term else seen) * shape.item
    # Parts of the reduction: whole channels or rows of filters where they can be staged, or else any terms.
    must = shape.gathered or shape.q_step > 1
    g.gathered = shape.gathered or shape.q_step > 1 and not g.by_term
    g.shared = reach_h(shape, g.rows) <= g.rows * shape.R and shape.R * shape.S <= FILTER_KC
    g.shared = g.shared and unit_bytes(shape, &g) <= STAGE_BYTES
    g.wide = shape.gathered and reach_w(shape, g.columns) > shape.S * seen_columns(shape, g.columns)
    g.apart = g.gathered and not g.shared and (g.wide or reach_h(shape, g.rows) > g.rows * shape.R)
    g.unit = shape.R * shape.S if g.shared else shape.S
    few = terms == shape.C and shape.P == 1 and filter_panels(shape) <= FEW_PANELS
    g.staged = must or (shape.C * shape.H * shape.W * shape.item > SMALL_IMAGE and g.unit <= FILTER_KC
                        and unit_bytes(shape, &g) <= STAGE_BYTES and not few)
    # A row that goes to its tiles straight from x is read for each of them, a vector or two at a time. That takes less
    # than to put it together and cut it, but where there is one row a channel, and the next one is far away.
    narrow = VECTOR_BYTES >= 32 and reach_w(shape, g.m) * shape.item <= masked_bytes(shape)
    g.straight = g.staged and not g.by_term and (g.shared or g.apart) and (
        narrow and (g.across == 1 or g.rows > 1 or shape.q_step > 1) or g.gathered and g.across == 1)
    g.gathered = g.gathered or g.straight
    most = FILTER_KC
    if g.staged:
        most = max(1, min(FILTER_KC // g.unit, STAGE_BYTES // unit_bytes(shape, &g))) * g.unit
    elif few:
        # What a tile reads of x and of weights stays in the first-level cache for the next one, and the pages known.
        most = max(PLACE_KC // 2, min(PLACE_KC, NEAR_ROWS // (shape.H * shape.W * shape.item)))
    g.terms, g.parts = terms, 1
    if terms > most:
        g.parts = ceil_div(terms, most)
        g.terms = ceil_div(terms, g.parts)
        if g.staged:
            g.terms = ceil_div(g.terms, g.unit) * g.unit
    # Sets of panels: one for each worker, as each stages the image anew, and none too long or with too many sums.
    g.panels, g.sets = filter_panels(shape), 1
    if g.panels > 1:
        sets = ceil_div(workers, images * g.bands * g.pieces)
        sets = max(sets, long_tasks(<double> g.rows * g.columns * shape.K * terms))
        if g.parts > 1:
            sets = max(sets, ceil_div(g.panels * g.rows * g.columns * NV * VECTOR_BYTES, SUM_BYTES))
        g.sets = min(sets, g.panels)
        g.panels = ceil_div(g.panels, g.sets)
    return g


cdef inline dim sum_bytes(const FilterGrid* g) noexcept nogil:
    """Of a block's sums: for one panel after the other, or for all where they wait for another part."""
    return (g.panels if g.parts > 1 else 1) * g.rows * g.columns * NV * VECTOR_BYTES


cdef inline dim stage_bytes(const Shape* shape, const FilterGrid* g) noexcept nogil:
    """Of a block's staged image, a multiple of a cache line."""
    if not g.staged:
        return 0
    return whole_lines(g.terms // g.unit * unit_bytes(shape, g)
                       + staged_rows(shape, g, g.rows) * g.across * VECTOR_BYTES)


cdef inline dim gathered_row_bytes(const Shape* shape, const FilterGrid* g, dim columns) noexcept nogil:
    """Of what so many columns of y see."""
    if g.wide:
        return seen_columns(shape, columns) * shape.item
    if g.by_term:
        return reach_w(shape, columns) * shape.item
    return phases_across(shape) * phase_columns(shape, columns) * shape.item


cdef inline dim channel_bytes(const Shape* shape, const FilterGrid* g) noexcept nogil:
    """Of the rows of a channel that are gathered at a time, a multiple of a cache line."""
    if not g.gathered or g.straight and g.across == 1:
        return 0
    return whole_lines((g.rows if g.apart else reach_h(shape, g.rows)) * gathered_row_bytes(shape, g, g.columns)
                       + VECTOR_BYTES)


cdef inline dim line_bytes(const Shape* shape, const FilterGrid* g) noexcept nogil:
    """Of a row of x that is gathered before it is cut into phases, a multiple of a cache line."""
    if shape.q_step == 1 or g.by_term or not shape.gathered:
        return 0
    return whole_lines(reach_w(shape, g.columns) * shape.item)


cdef inline dim late_bytes(const Shape* shape, const FilterGrid* g) noexcept nogil:
    """Of a part of a panel's weights, and their biases, where they are packed when they are needed."""
    return (1 + g.terms) * NV * VECTOR_BYTES if shape.unpacked else 0


cdef dim filter_workspace_bytes(const Shape* shape, int workers) noexcept nogil:
    cdef FilterGrid g = filter_grid(shape, workers)
    return (sum_bytes(&g) + stage_bytes(shape, &g) + channel_bytes(shape, &g) + line_bytes(shape, &g)
            + late_bytes(shape, &g) + g.terms * sizeof(dim))


cdef inline bint filters_are_dense(const Shape* shape, const Weights* w) noexcept nogil:
    """Whether a filter's values follow each other."""
    return w.s == shape.item and w.r == shape.S * shape.item and w.c == shape.R * shape.S * shape.item


cdef void filter_offsets(const Shape* shape, dim c_step, dim r_step, dim s_step, dim turn, dim back, dim first,
                         dim count, dim* off) noexcept nogil:
    """Where terms first .. first+count-1 of the reduction stand.

    A value of a filter's row is seen `turn` phases behind the one before it; from the last phase it is `back` bytes to
    the first one. With phases, begins at a whole row.
    """
    cdef dim row = first // shape.S if first > 0 else 0
    cdef dim s = first - row * shape.S
    cdef dim c = row // shape.R if row > 0 else 0
    cdef dim r = row - c * shape.R
    cdef dim channel_at = c * c_step
    cdef dim row_at = channel_at + r * r_step
    cdef dim at = row_at + s * s_step
    cdef dim i, phase = 0
    for i in range(min(count, shape.R * shape.S)):
        off[i] = at
        s += 1
        at += s_step
        phase += turn
        if phase >= shape.q_step:
            phase -= shape.q_step
            at += back
        if s == shape.S:
            s = phase = 0
            r += 1
            row_at += r_step
            if r == shape.R:
                r = 0
                channel_at += c_step
                row_at = channel_at
            at = row_at
    # Each channel is as the one before it.
    for i in range(shape.R * shape.S, count):
        off[i] = off[i - shape.R * shape.S] + c_step


cdef struct FilterBlock:
    # One block of y, and how its staged rows are cut.
    const char* image           # the first channel of its group
    char* stage
    char* channel               # room for a channel of x,
    char* line                  # and for a row
    dim p, rows, q, columns     # its first row and column, and how many
    Tiles cut                   # what staged rows are cut into: pixels of y that each piece is for
    bint shared, gathered, apart, wide, straight
    dim staged_rows             # of each piece across
    dim row                     # bytes of a row of what is gathered
    dim unit_step, row_step, tile_step      # bytes from one unit to the next, and for a unit from one row or tile
    dim spread                  # values from one term's pixels to the next's, or 0 where terms share values,
    dim phase                   # of which one phase is so many bytes from the next


cdef enum:
    BY_TERM = 0                 # ways to cut rows
    IN_A_VECTOR = -1


cdef inline Rows seen_rows(const Shape* shape, const FilterBlock* b, const Image* x, dim c, dim r, dim pitch,
                           dim phase) noexcept nogil:
    """What the block sees of a channel of x; or if `apart`, its row r of the filters."""
    cdef Rows g
    g.c, g.channels, g.c_pitch, g.pitch, g.phase = c, 1, 0, pitch, phase
    g.h, g.h_step, g.rows = b.p * shape.p_step, 1, reach_h(shape, b.rows)
    if b.apart:
        g.h, g.h_step, g.rows = g.h + r * shape.r_step, shape.p_step, b.rows
    g.first, g.count = b.q * shape.q_step, reach_w(shape, b.columns)
    g.masked = can_mask(shape, x, g.first, g.count)
    return g


# Not inlined, as other functions that are called once for a block: it would be there for each dtype.
cdef void stage_straight(const Shape* shape, const FilterBlock* b, const Image* x, dim first,
                         dim count) noexcept nogil:
    """As stage_part, without rows that are put together before they are cut."""
    cdef dim c = first if b.shared else first // shape.R
    cdef dim r = 0 if b.shared else first - c * shape.R
    cdef Rows g = seen_rows(shape, b, x, c, r, b.row_step, b.phase)
    cdef dim i, tile, columns, left = g.first
    cdef char* to
    if b.shared:
        g.channels, g.c_pitch, count = count, b.unit_step, 1
    for i in range(count):
        to = b.stage + i * b.unit_step
        g.first = left
        for tile in range(b.cut.count):
            columns = b.cut.m + (tile < b.cut.longer)
            g.count = reach_w(shape, columns)
            gather_phases(shape, x, b.image, &g, to, b.line)
            g.first += columns * shape.q_step
            to += b.tile_step
        r += 1
        g.h += shape.r_step
        if r == shape.R:
            r = 0
            g.c += 1
            g.h = b.p * shape.p_step


cdef inline void stage_part(const Shape* shape, const FilterBlock* b, const Image* x, dim first, dim count,
                            int piece) noexcept nogil:
    """Units first .. first+count-1 of the reduction for all tiles; `piece` bytes at a time, or BY_TERM, or IN_A_VECTOR.

    A vector overwrites what is written after it, or is nothing that is needed.
    """
    cdef dim item = shape.item
    cdef dim c = first if b.shared else first // shape.R
    cdef dim r = 0 if b.shared else first - c * shape.R
    # Bytes from one row of the channel to the next, and from one phase.
    cdef dim row = b.row if b.gathered else x.h
    cdef dim phase = phase_columns(shape, b.columns) * item
    cdef dim phases = phases_across(shape)
    cdef dim p_pitch = (1 if b.shared or b.apart else shape.p_step) * row
    cdef dim r_pitch = 0 if b.apart else shape.r_step * row
    cdef dim at_once = 1 if b.wide else shape.S                 # of a filter's columns
    # Of b and the shape, what the inner loop needs: the compiler can't know that copies don't change them.
    cdef dim across = b.cut.count, m = b.cut.m, longer = b.cut.longer, tile_step = b.tile_step, b_phase = b.phase
    cdef dim m_bytes = m * item, q_step = shape.q_step
    cdef dim more = (phase_columns(shape, m) - m) * item
    cdef dim i, f, p, tile, bytes, s, column
    cdef const char* value
    cdef const char* channel = b.image + c * x.c + b.p * shape.p_step * x.h + b.q * shape.q_step * item
    cdef char* to
    cdef Rows g
    for i in range(count):
        if b.gathered and (i == 0 or r == 0 or b.apart):
            g = seen_rows(shape, b, x, c, r, row, phase)
            channel = b.channel
            if b.wide:
                g.count = seen_columns(shape, b.columns)
        for column in range(shape.S if b.wide else 1):
            if b.gathered and piece == BY_TERM and (i == 0 or r == 0 or b.apart):
                gather_rows(shape, x, b.image, &g, b.channel)
                g.first += shape.s_step
            elif b.gathered and (i == 0 or r == 0 or b.apart):
                gather_phases(shape, x, b.image, &g, b.channel, b.line)
            for p in range(b.staged_rows):
                to = b.stage + i * b.unit_step + p * b.row_step + column * b.spread * item
                value = channel + p * p_pitch + r * r_pitch
                for tile in range(across):
                    bytes = m_bytes + item if tile < longer else m_bytes
                    if piece == BY_TERM:
                        for s in range(at_once):
                            copy_strided(to + s * b.spread * item, value + s * shape.s_step * item,
                                         values_in(bytes, item), q_step, item)
                        value += bytes * q_step
                    elif piece == IN_A_VECTOR:
                        (<f32v*> to)[0] = load_lanes(value, 0, values_in(bytes + more, 4), <f32v*> NULL)
                        value += bytes
                    else:
                        copy_row(to, value, bytes + more, piece)
                        for f in range(1, phases):
                            copy_row(to + f * b_phase, value + f * phase, bytes + more, piece)
                        value += bytes
                    to += tile_step
        r += 1
        if b.shared or r == shape.R:
            r = 0
            c += 1
            channel += x.c


cdef void stage_any(const Shape* shape, const FilterBlock* b, const Image* x, dim first, dim count) noexcept nogil:
    cdef dim least = phase_columns(shape, b.cut.m) * shape.item
    if b.straight and (b.cut.count == 1 or can_mask(shape, x, b.q * shape.q_step, reach_w(shape, b.columns))):
        stage_straight(shape, b, x, first, count)
    elif b.spread: stage_part(shape, b, x, first, count, BY_TERM)
    elif VECTOR_BYTES >= 32 and phases_across(shape) == 1 and least + shape.item <= VECTOR_BYTES:
        stage_part(shape, b, x, first, count, IN_A_VECTOR)
    elif least >= 64: stage_part(shape, b, x, first, count, 64)
    elif least >= 32: stage_part(shape, b, x, first, count, 32)
    elif least >= 16: stage_part(shape, b, x, first, count, 16)
    elif least >= 8: stage_part(shape, b, x, first, count, 8)
    else: stage_part(shape, b, x, first, count, 4)


cdef inline void filter_block(const Shape* shape, const FilterGrid* grid, const char* packed, const Image* x, char* y,
                              const Place* place, char* workspace, vec* like) noexcept nogil:
    """One block of one group of image n for some panels of filters."""
    cdef dim item = shape.item
    cdef dim terms = shape.C * shape.R * shape.S
    cdef dim width = filter_width(shape)
    cdef dim y_k = filter_step(shape)
    cdef dim y_pixel = pixel_step(shape)
    cdef dim band = place.block // grid.pieces if grid.pieces > 1 else place.block
    cdef dim piece = place.block - band * grid.pieces
    cdef vec* sums = <vec*> workspace
    cdef char* late
    cdef dim* off
    cdef const vec* init
    cdef const vec* w
    cdef vec* t
    cdef const char* a
    cdef const char* tile_a
    cdef FilterBlock b
    cdef FilterSweep g
    cdef Tiles cut
    cdef dim part, panel, tile, run, step, term, row, column, pixel, units, ahead, turn, s_step
    cdef dim panel_step = panel_bytes(shape)
    cdef int m, um, nv
    b.stage = workspace + sum_bytes(grid)
    b.channel = b.stage + stage_bytes(shape, grid)
    b.line = b.channel + channel_bytes(shape, grid)
    late = b.line + line_bytes(shape, grid)
    off = <dim*> (late + late_bytes(shape, grid))
    b.p = split(shape.P, grid.bands, band)
    b.rows = split(shape.P, grid.bands, band + 1) - b.p
    b.q = split(shape.Q, grid.pieces, piece)
    b.columns = split(shape.Q, grid.pieces, piece + 1) - b.q
    b.image = x.data + place.n * x.n + place.group * shape.C * x.c
    b.cut = cut = cut_tiles(b.columns)
    if grid.across == 1:
        b.cut.count, b.cut.m, b.cut.longer = 1, b.columns, 0
    b.shared, b.gathered, b.apart, b.wide = grid.shared, grid.gathered, grid.apart, grid.wide
    b.straight = grid.straight
    b.staged_rows = staged_rows(shape, grid, b.rows)
    b.spread = grid.m if grid.by_term else 0
    g.off = off
    g.row_step = b.columns
    y += place.n * result_bytes(shape) + (b.p * shape.Q + b.q) * y_pixel
    y += (place.group * shape.K + place.first * width) * y_k
    # Bytes of the weights that follow that each term asks for, so that all tiles together ask for all of them.
    ahead = 0
    if not shape.unpacked and (grid.parts > 1 or place.last - place.first > 1):
        ahead = ceil_div(NV * VECTOR_BYTES, count_tiles(b.rows, b.columns))
    # Loop 3: parts of the reduction.
    term = 0
    for part in range(grid.parts):
        g.terms = min(grid.terms, terms - term)
        if grid.staged:
            units = g.terms // grid.unit
            b.unit_step = grid.pitch
            b.row = gathered_row_bytes(shape, grid, b.columns)
            b.phase = phase_columns(shape, grid.m) * item
            if grid.shared:
                # As for the largest part, so that offsets are those of all; and what gathering may overwrite.
                b.row_step = grid.terms // grid.unit * grid.pitch + VECTOR_BYTES
                b.tile_step = b.staged_rows * b.row_step
                g.row = shape.p_step * b.row_step
            else:
                b.tile_step = units * grid.pitch + VECTOR_BYTES
                g.row = b.row_step = b.cut.count * b.tile_step
            stage_any(shape, &b, x, term // grid.unit, units)
            a = b.stage
            if part == 0:
                # From a value of a filter's row to the next, so many phases and columns of them.
                turn, s_step = 0, b.spread if grid.by_term else shape.s_step
                if shape.q_step > 1 and not grid.by_term:
                    turn, s_step = shape.s_step % shape.q_step, shape.s_step // shape.q_step
                filter_offsets(shape, grid.pitch if grid.shared else shape.R * grid.pitch,
                               shape.r_step * b.row_step if grid.shared else grid.pitch, turn * b.phase + s_step * item,
                               turn, item - shape.q_step * b.phase, 0, g.terms, off)
        else:
            filter_offsets(shape, x.c, shape.r_step * x.h, shape.s_step * item, 0, 0, term, g.terms, off)
            g.row = shape.p_step * x.h
            a = b.image + b.p * g.row + b.q * item
        # Loop 2: panels of filters.
        for panel in range(place.first, place.last):
            nv = <int> panel_vectors(shape, panel)
            if shape.unpacked:
                pack_panel(shape, <const Weights*> packed, place.group, panel, term, term + g.terms, late)
                init = <const vec*> late
                w = init + nv if part == 0 else init
            else:
                init = <const vec*> (packed + place.group * group_bytes(shape) + panel * panel_step)
                w = init + nv + term * nv
            # The weights that follow arrive while the tiles are computed.
            g.ahead = <const char*> w
            g.ahead_step = ahead
            if panel + 1 < place.last:
                g.ahead += panel_step
            elif part + 1 < grid.parts:
                g.ahead += g.terms * nv * VECTOR_BYTES - (panel - place.first) * panel_step
            else:
                g.ahead_step = 0
            t = sums
            if grid.parts > 1:
                t += (panel - place.first) * grid.rows * grid.columns * NV
            g.t_step = nv * VECTOR_BYTES
            g.init_step = 0
            if part > 0:
                init = t
                g.init_step = nv
            # Loop 1: tiles, those below each other first, which share rows of x. As many as can be in a call.
            tile_a = a
            column = tile = 0
            while tile < cut.count:
                m = <int> (cut.m + (tile < cut.longer))
                step = b.tile_step if grid.staged and b.cut.count > 1 else m * item
                if b.rows == 1:
                    run = tiles_alike(&cut, tile)
                    g.tiles, g.x_tile, g.t_tile = run, step, m
                else:
                    run = 1
                    g.tiles, g.x_tile, g.t_tile = b.rows if most_rows(m) == 1 else 1, g.row, b.columns
                row = 0
                while row < b.rows:
                    um = rows_at_once(b.rows - row, m)
                    pixel = row * b.columns + column
                    filter_tile_any(&g, tile_a + row * g.row, w, init + pixel * g.init_step, t + pixel * nv, um, m, nv)
                    g.ahead += g.tiles * g.ahead_step * g.terms
                    row += g.tiles * um
                tile += run
                tile_a += run * step
                column += run * m
            if part == grid.parts - 1:
                filter_store(shape, <const char*> t, nv, b.rows * b.columns,
                             min(width, shape.K - panel * width), y + (panel - place.first) * width * y_k, y_pixel, y_k)
        term += g.terms


cdef dim filter_tasks(const Shape* shape, int workers) noexcept nogil:
    cdef FilterGrid g = filter_grid(shape, workers)
    return shape.N * shape.G * g.bands * g.pieces * g.sets


cdef void filter_run(const Shape* shape, int workers, const char* packed, const Image* x, char* y, dim task,
                     char* workspace) noexcept nogil:
    cdef FilterGrid grid = filter_grid(shape, workers)
    cdef Place place = place_of(shape, task, grid.bands * grid.pieces, grid.sets, filter_panels(shape))
    if shape.dtype == FLOAT32:
        filter_block(shape, &grid, packed, x, y, &place, workspace, <f32v*> NULL)
    elif shape.dtype == FLOAT64:
        filter_block(shape, &grid, packed, x, y, &place, workspace, <f64v*> NULL)
    elif shape.dtype == INT32:
        filter_block(shape, &grid, packed, x, y, &place, workspace, <i32v*> NULL)
    elif shape.dtype == INT64:
        filter_block(shape, &grid, packed, x, y, &place, workspace, <i64v*> NULL)
    else:
        filter_block(shape, &grid, packed, x, y, &place, workspace, <p32v*> NULL)


cdef inline dim group_bytes(const Shape* shape) noexcept nogil:
    """Of one group's packed weights."""
    return whole_vectors(shape.K * shape.item) * (1 + shape.C * shape.R * shape.S)


cdef dim filter_packed_bytes(const Shape* shape) noexcept nogil:
    return sizeof(Weights) if shape.unpacked else shape.G * group_bytes(shape)


cdef inline void pack_vector(const Shape* shape, const Weights* w, const char* data, dim pitch, dim filters, dim first,
                             dim last, char* packed, dim width, lane* like) noexcept nogil:
    """Terms first .. last-1 of a vector of filters, `pitch` bytes apart in w, to `width` bytes apart.

    Filters by terms are turned over, a square at a time.
    """
    cdef lane rows[MOST_LANES]
    cdef dim off[MOST_LANES]
    cdef dim item = shape.item
    cdef dim lanes = sizeof(lane) // itemsize(like)
    cdef bint dense = filters_are_dense(shape, w)
    cdef dim count, i, k
    memset(rows, 0, sizeof(rows))
    while first < last:
        count = min(lanes, last - first)
        if dense and count == lanes:
            transpose_block(data + first * item, pitch, filters, packed, width, lanes, like)
        else:
            filter_offsets(shape, w.c, w.r, w.s, 0, 0, first, count, off)
            for k in range(filters):
                for i in range(count):
                    copy_scalar(<char*> &rows[k] + i * item, data + k * pitch + off[i], item)
            transpose_block(<const char*> rows, VECTOR_BYTES, lanes, packed, width, count, like)
        packed += count * width
        first += count


cdef void pack_panel(const Shape* shape, const Weights* w, dim group, dim panel, dim first, dim last,
                     char* packed) noexcept nogil:
    """Terms first .. last-1 of a panel; before the first one, the biases."""
    cdef dim lanes = lanes_of(shape)
    cdef dim width = panel_vectors(shape, panel) * VECTOR_BYTES
    cdef dim k = panel * filter_width(shape)
    cdef const char* data = w.data + (group * shape.K + k) * w.k
    cdef dim v, filters = shape.K - k
    if first == 0:
        memset(packed, 0, width)
        if w.bias != NULL:
            memcpy(packed, w.bias + (group * shape.K + k) * shape.item, min(filter_width(shape), filters) * shape.item)
        packed += width
    for v in range(panel_vectors(shape, panel)):
        if shape.item == 4:
            pack_vector(shape, w, data, w.k, min(lanes, filters), first, last, packed, width, <f32v*> NULL)
        else:
            pack_vector(shape, w, data, w.k, min(lanes, filters), first, last, packed, width, <f64v*> NULL)
        packed += VECTOR_BYTES
        data += lanes * w.k
        filters -= lanes


cdef dim filter_pack_tasks(const Shape* shape) noexcept nogil:
    if shape.unpacked:
        return 1
    return shape.G * filter_panels(shape) if shape.K > 0 else 0


cdef void filter_pack(const Shape* shape, const Weights* w, char* packed, dim task) noexcept nogil:
    """A panel of a group."""
    cdef dim panels = filter_panels(shape)
    cdef dim group = divided(task, panels)
    cdef dim panel = task - group * panels
    if shape.unpacked:
        memcpy(packed, w, sizeof(Weights))
        return
    packed += group * group_bytes(shape) + panel * panel_bytes(shape)
    pack_panel(shape, w, group, panel, 0, shape.C * shape.R * shape.S, packed)


cdef inline bint one_block(const Shape* shape) noexcept nogil:
    """Whether a block is all of an image, so that each weight would be packed once in any case, and there are many."""
    cdef dim weights = shape.G * shape.K * shape.C * shape.R * shape.S
    return shape.P * shape.Q <= BLOCK_PIXELS and weights * shape.item > LATE_BYTES


cdef bint filter_packs_late(const Shape* shape, const Weights* w) noexcept nogil:
    return shape.N == 1 and one_block(shape)


cdef double direct_pack_cost(const Shape* shape) noexcept nogil:
    """A weight at a time is read and written."""
    return 3.0 * shape.G * shape.K * shape.C * shape.R * shape.S


cdef double filter_pack_cost(const Shape* shape) noexcept nogil:
    """Turned over a square at a time; what is packed late stays in a cache. The same for any number of images."""
    return (0.4 if one_block(shape) else 1.5) * shape.G * shape.K * shape.C * shape.R * shape.S


cdef double filter_cost(const Shape* whole) noexcept nogil:
    cdef Shape row = one_row(whole) if is_sequence(whole) else whole[0]
    cdef const Shape* shape = &row
    cdef FilterGrid g = filter_grid(shape, 1)
    cdef double terms = <double> shape.C * shape.R * shape.S
    cdef double pixels = <double> shape.P * shape.Q
    cdef double vectors = ceil_div(shape.K * shape.item, VECTOR_BYTES)
    cdef double panels = filter_panels(shape)
    cdef double tiles = <double> count_tiles(shape.P, g.columns) * g.pieces
    cdef double rows = pixels / tiles           # pixels of a tile, and vectors of filters
    cdef double nv = vectors / panels
    # A term issues as many multiply-adds as the tile has sums, and reads all of both and an offset; but no sum is
    # faster than each multiply-add follows the one before it.
    cdef double term = max(max(rows * nv / ISSUE, (rows + nv + 2) / 2), <double> LATENCY)
    cdef double staging = 0
    cdef dim cut
    # A tile's row of a unit is copied, but what is gathered straight to there; by term, value by value.
    if g.staged and not g.straight:
        staging = <double> shape.C * g.bands * g.across * g.pieces * (
            reach_h(shape, g.rows) if g.shared else g.rows * shape.R) * (
            1.5 * g.m * shape.S if g.by_term else 4.0 + 3.0 * ceil_div(g.pitch, VECTOR_BYTES))
    elif not g.staged and terms == shape.C:
        staging = tiles * terms     # the first panel has lines of x fetched
    if g.gathered:
        cut = g.across * g.pieces if g.straight else 1
        staging += <double> shape.C * (shape.P * shape.R if g.apart else reach_h(shape, shape.P)) * cut * (
            gather_cost(shape, reach_w(shape, ceil_div(shape.Q, cut)), not g.by_term))
    # A part after the first one reads its sums. Offsets of terms; storing takes a sum through memory and log2(lanes)
    # shuffles.
    return shape.G * (staging + tiles * panels * (terms * term + 50 * g.parts - 20) + pixels * vectors * 5
                      + terms * (2 + panels * 2))
