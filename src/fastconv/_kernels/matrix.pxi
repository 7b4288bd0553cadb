# A matrix product, for filters of 1 x 1: y[k][pixel] = bias[k] + sum over c of w[k][c] * x[c][pixel].
#
# The tile of filter_lanes.pxi with its operands exchanged: its vectors are of pixels, of which the rows of y make one
# sequence, and its broadcasts are of weights. So results are stored as they are. A panel of NV vectors of pixels is
# staged at a time, [c][pixel], for all filters: a tile then reads both operands from front to back. The first tile of a
# panel reads the pixels in x, and copies them on the way; with a stride or padding they are staged before it. Where a
# second-level cache doesn't hold the image, the tiles of one panel ask it for the lines of the next one: x arrives
# while there is something to do. From there to the first level it is a few channels' time.
#
# Packed weights: for each group, the filters' biases; then for each panel of up to MR filters, [c][filter]. Panels are
# of nearly equal size.

cdef enum:
    MATRIX_LEAST = 4 * NV * VECTOR_BYTES // 4       # fewest pixels of a block, or half of that, if there are as many
    MOST_AHEAD = 8                                  # lines of a channel that are asked for
    FEW_FILTERS = 16                                # whose panels begin where x's lines do, not y's
    CHANNELS_NEAR = 4                               # from one that is read in x to the one that is asked for then
    NEAR_BYTES = 1 << 20                            # of x and y that a second-level cache holds

cdef struct MatrixGrid:
    dim blocks, sets            # of panels of pixels, and of panels of filters
    dim pixels, filters         # panels of either


cdef inline dim matrix_panels(const Shape* shape) noexcept nogil:
    return max(1, ceil_div(shape.K, MR))


cdef inline MatrixGrid matrix_grid(const Shape* shape, int workers) noexcept nogil:
    cdef MatrixGrid g
    cdef dim pixels = shape.P * shape.Q
    cdef dim images = max(1, shape.N * shape.G)
    cdef double work = <double> pixels * shape.K * shape.C
    g.pixels = ceil_div(pixels, filter_width(shape))
    g.filters = matrix_panels(shape)
    g.blocks = max(1, long_tasks(work))
    if workers > 1 and images * g.blocks < 4 * workers:
        g.blocks = 4 * workers
    # Of two panels at least, as the last may be less than a vector, which would be written with what is before it.
    g.blocks = even_blocks(min(g.blocks, ceil_div(pixels, MATRIX_LEAST)), max(<dim> 1, g.pixels // 2), images, workers)
    g.sets = max(ceil_div(workers, images * g.blocks), long_tasks(work / g.blocks))
    g.sets = min(g.sets, g.filters)
    return g


cdef struct MatrixStage:
    # How a panel of pixels is staged.
    const Image* x
    const char* image           # the first channel of the group
    char* line                  # room for a row of x
    dim share                   # channels that a tile asks for


cdef inline bint reads_in_x(const Shape* shape) noexcept nogil:
    """Whether the pixels of a row of y lie side by side in x, and make up its row."""
    # Where y has one column, a stride that leaves out all others was never taken, and is 1.
    return not shape.gathered and shape.p_step == 1 and shape.q_step == 1 and shape.Q == shape.W


cdef inline dim pixels_before_line(const Image* x, dim item) noexcept nogil:
    """From the last place before x where vectors don't straddle lines, if there are such for all channels at once."""
    return 0 if x.c % VECTOR_BYTES else <dim> x.data % VECTOR_BYTES // item


cdef inline void stage_pixels(const Shape* shape, const MatrixStage* s, dim first, dim count, char* to) noexcept nogil:
    """Pixels first .. first+count-1 of y's sequence, [c][pixel]."""
    cdef dim item = shape.item
    cdef dim p = first // shape.Q       # the next one's row and column
    cdef dim q = first - p * shape.Q
    cdef dim pitch = count * item
    cdef dim end = first + count
    cdef dim c, seen, run
    cdef Rows g
    g.masked = pitch * shape.q_step <= masked_bytes(shape) and can_mask(shape, s.x, 0, reach_w(shape, shape.Q))
    g.c, g.channels, g.c_pitch, g.h_step, g.rows, g.pitch = 0, shape.C, pitch, 1, 1, pitch
    # Pieces of rows, all channels of one before the next: what each does is the same for all channels.
    while first < end:
        run = min(end - first, shape.Q - q)
        seen = seen_columns(shape, run)
        g.h, g.first, g.count = p * shape.p_step, q * shape.q_step, seen
        if g.masked:
            gather_masked(shape, s.x, s.image, &g, to, end - first)
        for c in range(0 if g.masked else shape.C):
            copy_strided(to + c * pitch, image_row(shape, s.x, s.image, c, g.h, g.first, seen, s.line), run,
                         shape.q_step, item)
        to += run * item
        first += run
        q = 0
        p += 1


cdef inline void lines_ahead(const Shape* shape, const MatrixStage* s, dim filters, dim* lines,
                             dim* t_lines) noexcept nogil:
    """Where the lines of a share of a panel's channels stand, spread over the terms of a tile; and those of results.

    The first pixel's own line has mostly come with the panel before. Results' lines, two a filter, are asked for by
    half of the terms, as they are wanted at the end of the tile.
    """
    cdef dim rows = shape.p_step if shape.Q < filter_width(shape) else 1        # of x, that a panel goes over
    cdef dim span = rows * filter_width(shape) * shape.q_step * s.x.w
    cdef dim each = min(<dim> MOST_AHEAD, max(<dim> 1, ceil_div(span, LINE)))
    cdef dim channel = LINE - shape.item, line = 0, due = 0     # without divisions: there are many channels
    cdef dim t_row = 0, t_line = 0, t_due = 0
    cdef dim c
    for c in range(shape.C):
        lines[c] = channel + line * LINE
        due += s.share * each
        while due >= shape.C:
            due -= shape.C
            line += 1
            if line == each:
                line = 0
                channel += s.x.c
        t_lines[c] = t_row * shape.P * shape.Q * shape.item + t_line
        t_due += 4 * filters
        while t_due >= shape.C:
            t_due -= shape.C
            if t_line == 0:
                t_line = LINE
            elif t_row + 1 < filters:
                t_line = 0
                t_row += 1


# As filter_tile_any is, not inlined.
cdef void matrix_tile(const FilterSweep* g, const char* w, const vec* x, const vec* init, vec* t, int m, int nv,
                      bint copies) noexcept nogil:
    if copies:
        if nv == NV: filter_tile_nv(g, w, x, init, t, 1, m, NV, itemsize(t), True, True, False)
        else: filter_tile_nv(g, w, x, init, t, 1, m, 1, itemsize(t), True, True, False)
    elif nv == NV: filter_tile_nv(g, w, x, init, t, 1, m, NV, itemsize(t), True, False, False)
    else: filter_tile_nv(g, w, x, init, t, 1, m, 1, itemsize(t), True, False, False)


cdef inline void matrix_block(const Shape* shape, const MatrixGrid* g, const char* packed, const Image* x, char* y,
                              const Place* place, char* stage, vec* like) noexcept nogil:
    """One block of pixels of one group of image n, for some panels of filters."""
    cdef dim item = shape.item
    cdef dim lanes = sizeof(vec) // itemsize(like)
    cdef dim pixels = shape.P * shape.Q
    cdef bint in_x = reads_in_x(shape) and (shape.P == 1 or x.h == shape.W * item)
    # Few filters lose more by vectors of x that straddle lines than by those of y.
    cdef dim before = pixels_before_line(x, item) if in_x and shape.K <= FEW_FILTERS else 0
    cdef dim at = split(g.pixels, g.blocks, place.block) * NV * lanes - before
    cdef dim end = split(g.pixels, g.blocks, place.block + 1) * NV * lanes - before
    cdef dim* lines = <dim*> (stage + matrix_stage_bytes(shape))
    cdef dim* t_lines = lines + shape.C
    cdef const char* bias = packed + place.group * matrix_group_bytes(shape)
    cdef const char* w = bias + whole_vectors(shape.K * item)
    cdef Tiles cut = cut_tiles(shape.K)
    cdef int most
    cdef const char* from_x
    cdef const char* ahead
    cdef MatrixStage s
    cdef FilterSweep sweep
    cdef dim panel, first, row, k, filters
    cdef int nv
    cdef bint copies
    s.x = x
    s.image = x.data + place.n * x.n + place.group * shape.C * x.c
    s.line = <char*> lines + whole_lines(2 * shape.C * sizeof(dim))
    s.share = ceil_div(shape.C, place.last - place.first)
    sweep.ahead_step = s.share * x.c
    sweep.lines = NULL
    if (shape.C * shape.H * shape.W + shape.K * pixels) * item > NEAR_BYTES:
        sweep.lines = lines
        lines_ahead(shape, &s, ceil_div(shape.K, g.filters), lines, t_lines)
    y += (place.n * shape.G + place.group) * shape.K * pixels * item
    sweep.t_lines = t_lines
    sweep.terms = shape.C
    sweep.row = sweep.row_step = 0
    sweep.t_step = pixels * item
    sweep.stage = stage
    sweep.channel = x.c
    sweep.near = CHANNELS_NEAR * x.c if shape.C > CHANNELS_NEAR else 0
    if place.block == g.blocks - 1:
        end = pixels
    most = NV if end - max(<dim> 0, at) >= NV * lanes else 1
    while at < end:
        # The last panel moves left, over its neighbour, so that its vectors are whole; the first one right.
        nv = most if end - at > lanes else 1
        at = min(at, end - nv * lanes)
        first = max(<dim> 0, at)
        at += nv * lanes
        ahead = s.image
        if at < end:
            row = at // shape.Q
            ahead = row_in_x(x, s.image, 0, row * shape.p_step, (at - row * shape.Q) * shape.q_step)
        copies = in_x
        from_x = s.image + first * item
        if not in_x:
            stage_pixels(shape, &s, first, nv * lanes, stage)
        panel = place.first
        while panel < place.last:
            filters = cut.m + (panel < cut.longer)
            k = tile_begin(&cut, panel)
            sweep.tiles = 1 if copies else min(place.last - panel, tiles_alike(&cut, panel))
            sweep.t_tile = filters
            sweep.term = filters * item
            sweep.ahead = ahead + (panel - place.first) * sweep.ahead_step
            matrix_tile(&sweep, w + k * shape.C * item, <const vec*> (from_x if copies else stage),
                        <const vec*> (bias + k * item), <vec*> (y + (k * pixels + first) * item), <int> filters, nv,
                        copies)
            copies = False
            panel += sweep.tiles


cdef inline dim matrix_stage_bytes(const Shape* shape) noexcept nogil:
    return shape.C * NV * VECTOR_BYTES


cdef dim matrix_workspace_bytes(const Shape* shape, int workers) noexcept nogil:
    return (matrix_stage_bytes(shape) + whole_lines(2 * shape.C * sizeof(dim))
            + whole_lines(reach_w(shape, shape.Q) * shape.item))


cdef dim matrix_tasks(const Shape* shape, int workers) noexcept nogil:
    cdef MatrixGrid g = matrix_grid(shape, workers)
    return shape.N * shape.G * g.blocks * g.sets


cdef void matrix_run(const Shape* shape, int workers, const char* packed, const Image* x, char* y, dim task,
                     char* workspace) noexcept nogil:
    cdef MatrixGrid g = matrix_grid(shape, workers)
    cdef Place place = place_of(shape, task, g.blocks, g.sets, g.filters)
    if shape.dtype == FLOAT32:
        matrix_block(shape, &g, packed, x, y, &place, workspace, <f32v*> NULL)
    elif shape.dtype == FLOAT64:
        matrix_block(shape, &g, packed, x, y, &place, workspace, <f64v*> NULL)
    elif shape.dtype == INT32:
        matrix_block(shape, &g, packed, x, y, &place, workspace, <i32v*> NULL)
    elif shape.dtype == INT64:
        matrix_block(shape, &g, packed, x, y, &place, workspace, <i64v*> NULL)
    else:
        matrix_block(shape, &g, packed, x, y, &place, workspace, <p32v*> NULL)


cdef inline dim matrix_group_bytes(const Shape* shape) noexcept nogil:
    """Of one group's packed weights, a multiple of a vector, of which the last may end behind its filters."""
    return whole_vectors(shape.K * shape.item) + whole_vectors(shape.K * shape.C * shape.item) + VECTOR_BYTES


cdef dim matrix_packed_bytes(const Shape* shape) noexcept nogil:
    return shape.G * matrix_group_bytes(shape)


cdef inline void pack_rows(const Shape* shape, const Weights* w, const char* data, dim filters, char* packed,
                           lane* like) noexcept nogil:
    """A panel's weights, [c][filter], turned over a square at a time."""
    cdef dim item = shape.item
    cdef dim lanes = sizeof(lane) // itemsize(like)
    cdef dim k = (filters - 1) // lanes * lanes
    cdef dim c, i, spilling
    if w.c != item or shape.C < lanes:
        for i in range(filters):
            for c in range(shape.C):
                copy_scalar(packed + (c * filters + i) * item, data + i * w.k + c * w.c, item)
        return
    # A vector that holds fewer filters ends in the next channels', which are written later; those of the last channels
    # would end in the next panel.
    spilling = ceil_div(k + lanes - filters, filters)
    while k >= 0:
        c = 0
        while c < shape.C:
            c = min(c, shape.C - lanes)
            transpose_block(data + k * w.k + c * item, w.k, min(lanes, filters - k), packed + (c * filters + k) * item,
                            filters * item, lanes - spilling if c == shape.C - lanes else lanes, like)
            c += lanes
        for c in range(shape.C - spilling, shape.C):
            for i in range(k, filters):
                copy_scalar(packed + (c * filters + i) * item, data + i * w.k + c * item, item)
        spilling = 0
        k -= lanes


cdef dim matrix_pack_tasks(const Shape* shape) noexcept nogil:
    return shape.G * matrix_panels(shape) if shape.K > 0 else 0


cdef void matrix_pack(const Shape* shape, const Weights* w, char* packed, dim task) noexcept nogil:
    """A panel of a group."""
    cdef dim panels = matrix_panels(shape)
    cdef dim item = shape.item
    cdef dim group = divided(task, panels)
    cdef dim panel = task - group * panels
    cdef Tiles cut = cut_tiles(shape.K)
    cdef dim first = tile_begin(&cut, panel)
    cdef dim filters = cut.m + (panel < cut.longer)
    cdef dim filter = group * shape.K + first
    packed += group * matrix_group_bytes(shape)
    spread_bias(packed + first * item, w, filter, filters, 1, item)
    packed += whole_vectors(shape.K * item) + first * shape.C * item
    if item == 4:
        pack_rows(shape, w, w.data + filter * w.k, filters, packed, <f32v*> NULL)
    else:
        pack_rows(shape, w, w.data + filter * w.k, filters, packed, <f64v*> NULL)


cdef double matrix_pack_cost(const Shape* shape) noexcept nogil:
    """As of filter_lanes.pxi, of panels that are half as wide."""
    return 1.5 * shape.G * shape.K * shape.C


cdef inline double term_cycles(double rows, dim nv) noexcept nogil:
    """As of the filter tile, but there are as many reads as multiply-adds where a row is one vector."""
    return max(max(rows * nv, rows + 5) / ISSUE, <double> LATENCY)


cdef double matrix_cost(const Shape* shape) noexcept nogil:
    cdef double panels = matrix_panels(shape)
    cdef double rows = shape.K / panels
    cdef dim vectors, whole
    cdef double terms
    if (shape.R > 1 or shape.S > 1 or shape.P * shape.Q < lanes_of(shape)
            or pixel_step(shape) > shape.item):
        return INFINITY
    vectors = vectors_of(shape, shape.P * shape.Q)
    whole = vectors // NV
    terms = whole * term_cycles(rows, NV)
    if vectors > whole * NV:
        terms += term_cycles(rows, vectors - whole * NV)
    # A vector is copied on the way, or staged before, slowly where its pixels lie far apart.
    return shape.G * (panels * (shape.C * terms + (25 + 1.5 * MR * NV) * ceil_div(vectors, NV)) + vectors * shape.C * (
        1.5 if reads_in_x(shape) else 6.0 + 2.0 * shape.q_step if masked_bytes(shape) > 0 else 16.0))
