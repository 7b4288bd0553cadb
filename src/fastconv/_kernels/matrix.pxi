# A matrix product, for filters of 1 x 1: y[k][pixel] = bias[k] + sum over c of w[k][c] * x[c][pixel].
#
# The tile of filter_lanes.pxi with its operands exchanged: its vectors are of pixels, of which the rows of y make one
# sequence, and its broadcasts are of weights. So results are stored as they are. A panel of NV vectors of pixels is
# staged at a time, [c][pixel], for all filters: a tile then reads both operands from front to back. While the tiles of
# one panel are computed, the next one is staged, some channels after each tile, which has asked for their lines: x
# arrives while there is something to do. With a stride or padding only the staging differs.
#
# Packed weights: for each group, the filters' biases; then for each panel of up to MR filters, [c][filter]. Panels are
# of nearly equal size.

cdef enum:
    MATRIX_LEAST = 4 * NV * VECTOR_BYTES // 4       # fewest pixels of a block, if there are as many
    MOST_AHEAD = 8                                  # lines of a channel that are asked for

cdef struct MatrixGrid:
    dim blocks, sets            # of pixels, and of panels of filters
    dim pixels                  # in the largest block
    dim panels


cdef inline dim matrix_panels(const Shape* shape) noexcept nogil:
    return max(1, ceil_div(shape.K, MR))


cdef inline MatrixGrid matrix_grid(const Shape* shape, int workers) noexcept nogil:
    cdef MatrixGrid g
    cdef dim pixels = shape.P * shape.Q
    cdef dim images = max(1, shape.N * shape.G)
    cdef double work = <double> pixels * shape.K * shape.C
    g.panels = matrix_panels(shape)
    g.blocks = max(1, <dim> min(1e9, work / TASK_WORK))
    if workers > 1 and images * g.blocks < 4 * workers:
        g.blocks = 4 * workers
    # A block is cut at whole panels of pixels.
    g.blocks = min(g.blocks, ceil_div(pixels, MATRIX_LEAST))
    g.pixels = ceil_div(ceil_div(pixels, g.blocks), filter_width(shape)) * filter_width(shape)
    g.blocks = ceil_div(pixels, g.pixels)
    g.sets = max(ceil_div(workers, images * g.blocks), <dim> min(1e9, work / g.blocks / TASK_WORK))
    g.sets = min(g.sets, g.panels)
    return g


cdef struct MatrixStage:
    # How a panel of pixels is staged.
    const Image* x
    const char* image           # the first channel of the group
    char* line                  # room for a row of x
    bint flat                   # x's pixels are one sequence too
    dim share                   # channels after a tile


cdef inline void stage_pixels(const Shape* shape, const MatrixStage* s, dim first, dim count, dim c, dim last,
                              dim width, char* to) noexcept nogil:
    """Pixels first .. first+count-1 of y's sequence, of channels c .. last-1: [c][pixel], `width` each with zeros."""
    cdef dim item = shape.item
    cdef dim lanes = lanes_of(shape)
    cdef dim full = NV * VECTOR_BYTES
    cdef dim top = 0, left = first      # the first one's row and column
    cdef dim at, p, q, run
    cdef const char* value
    if s.flat and count * item == full:
        for c in range(c, last):
            memcpy(to + c * full, s.image + c * s.x.c + first * item, NV * VECTOR_BYTES)
        return
    if not s.flat:
        top = first // shape.Q
        left = first - top * shape.Q
    for c in range(c, last):
        memset(to + ((c + 1) * width - lanes) * item, 0, lanes * item)
        at, p, q = 0, top, left
        while at < count:
            # A run of pixels in a row of x, or of all rows if they follow each other.
            run = count - at if s.flat else min(count - at, shape.Q - q)
            value = image_row(shape, s.x, s.image, c, p * shape.p_step, q * shape.q_step,
                              (run - 1) * shape.q_step + 1, s.line)
            copy_strided(to + (c * width + at) * item, value, run, shape.q_step, item)
            at += run
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
cdef void matrix_tile(const FilterSweep* g, const char* w, const vec* x, const vec* init, vec* t, int m,
                      int nv) noexcept nogil:
    if nv == NV: filter_tile_nv(g, w, x, init, t, 1, m, NV, itemsize(t), True)
    else: filter_tile_nv(g, w, x, init, t, 1, m, 1, itemsize(t), True)


cdef inline void matrix_block(const Shape* shape, const MatrixGrid* g, const char* packed, const Image* x, char* y,
                              const Place* place, char* workspace, vec* like) noexcept nogil:
    """One block of pixels of one group of image n, for some panels of filters."""
    cdef dim item = shape.item
    cdef dim lanes = sizeof(vec) // itemsize(like)
    cdef dim width = NV * lanes
    cdef dim pixels = shape.P * shape.Q
    cdef dim first = place.block * g.pixels
    cdef dim end = min(first + g.pixels, pixels)
    cdef char* stage = workspace
    cdef char* next_stage = stage + matrix_stage_bytes(shape)
    cdef vec* sums = <vec*> (next_stage + matrix_stage_bytes(shape))
    cdef dim* lines = <dim*> (sums + MR * NV)
    cdef dim* t_lines = lines + shape.C
    cdef const char* bias = packed + place.group * matrix_group_bytes(shape)
    cdef const char* w = bias + whole_vectors(shape.K * item)
    cdef MatrixStage s
    cdef FilterSweep sweep
    cdef dim panel, c, k, filters, inside, following, i
    cdef int nv, next_nv
    cdef const char* ahead
    cdef char* to
    s.x = x
    s.image = x.data + place.n * x.n + place.group * shape.C * x.c
    s.line = <char*> lines + whole_lines(2 * shape.C * sizeof(dim))
    s.flat = (not shape.gathered and shape.p_step == 1 and shape.q_step == 1 and shape.Q == shape.W
              and x.h == shape.W * item)
    s.share = ceil_div(shape.C, place.last - place.first)
    lines_ahead(shape, &s, ceil_div(shape.K, g.panels), lines, t_lines)
    y += (place.n * shape.G + place.group) * shape.K * pixels * item
    sweep.lines = lines
    sweep.t_lines = t_lines
    sweep.terms = shape.C
    sweep.row = sweep.row_step = 0
    inside = min(width, end - first)
    nv = <int> ceil_div(inside, lanes)
    stage_pixels(shape, &s, first, inside, 0, shape.C, nv * lanes, stage)
    while first < end:
        following = min(width, end - first - inside)
        next_nv = <int> ceil_div(following, lanes)
        ahead = s.image
        if following > 0:
            i = (first + inside) // shape.Q
            ahead = row_in_x(x, s.image, 0, i * shape.p_step, (first + inside - i * shape.Q) * shape.q_step)
        c = 0
        for panel in range(place.first, place.last):
            k = split(shape.K, g.panels, panel)
            filters = split(shape.K, g.panels, panel + 1) - k
            sweep.term = filters * item
            to = y + (k * pixels + first) * item
            sweep.ahead = ahead + c * x.c
            sweep.t_step = pixels * item if inside == width else nv * VECTOR_BYTES
            matrix_tile(&sweep, w + k * shape.C * item, <const vec*> stage, <const vec*> (bias + k * item),
                        <vec*> to if inside == width else sums, <int> filters, nv)
            if inside < width:
                for i in range(filters):
                    memcpy(to + i * pixels * item, sums + i * nv, inside * item)
            if following > 0:
                stage_pixels(shape, &s, first + inside, following, c, min(c + s.share, shape.C), next_nv * lanes,
                             next_stage)
            c = min(c + s.share, shape.C)
        first += inside
        inside, nv = following, next_nv
        stage, next_stage = next_stage, stage


cdef inline dim matrix_stage_bytes(const Shape* shape) noexcept nogil:
    return shape.C * NV * VECTOR_BYTES


cdef dim matrix_workspace_bytes(const Shape* shape, int workers) noexcept nogil:
    return (2 * matrix_stage_bytes(shape) + MR * NV * VECTOR_BYTES + whole_lines(2 * shape.C * sizeof(dim))
            + whole_lines(reach_w(shape, shape.Q) * shape.item))


cdef dim matrix_tasks(const Shape* shape, int workers) noexcept nogil:
    cdef MatrixGrid g = matrix_grid(shape, workers)
    return shape.N * shape.G * g.blocks * g.sets


cdef void matrix_run(const Shape* shape, int workers, const char* packed, const Image* x, char* y, dim task,
                     char* workspace) noexcept nogil:
    cdef MatrixGrid g = matrix_grid(shape, workers)
    cdef Place place = place_of(shape, task, g.blocks, g.sets, g.panels)
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
    """Of one group's packed weights, a multiple of a vector."""
    return whole_vectors(shape.K * shape.item) + whole_vectors(shape.K * shape.C * shape.item)


cdef dim matrix_packed_bytes(const Shape* shape) noexcept nogil:
    return shape.G * matrix_group_bytes(shape)


cdef void matrix_pack(const Shape* shape, const Weights* w, char* packed) noexcept nogil:
    cdef dim panels = matrix_panels(shape)
    cdef dim item = shape.item
    cdef dim group, panel, c, k, first, filters
    cdef const char* data = w.data
    cdef const char* bias = w.bias
    cdef char* to
    for group in range(shape.G):
        to = packed + group * matrix_group_bytes(shape)
        spread_bias(to, bias, shape.K, 1, item)
        to += whole_vectors(shape.K * item)
        for panel in range(panels):
            first = split(shape.K, panels, panel)
            filters = split(shape.K, panels, panel + 1) - first
            for k in range(filters):
                for c in range(shape.C):
                    copy_scalar(to + (c * filters + k) * item, data + (first + k) * w.k + c * w.c, item)
            to += filters * shape.C * item
        data += shape.K * w.k
        if bias != NULL:
            bias += shape.K * item


cdef double matrix_cost(const Shape* shape) noexcept nogil:
    cdef double panels = matrix_panels(shape)
    cdef double rows = shape.K / panels
    cdef double vectors, nv, term
    if shape.R > 1 or shape.S > 1 or (shape.channels_last and shape.G * shape.K > 1):
        return INFINITY
    vectors = ceil_div(shape.P * shape.Q, lanes_of(shape))
    nv = min(<double> NV, vectors)
    # As of the filter tile. A vector is staged once, slowly where its pixels lie apart, and each result stored twice.
    term = max(rows * nv / ISSUE, <double> LATENCY)
    return shape.G * (vectors / nv * panels * (shape.C * term + 80)
                      + vectors * (shape.C * (8 if shape.q_step == 1 else 16) + shape.K * 4))
