# A matrix product, for filters of 1 x 1: y[k][pixel] = bias[k] + sum over c of w[k][c] * x[c][pixel].
#
# The tile of filter_lanes.pxi with its operands exchanged: its vectors are of pixels, of which the rows of y make one
# sequence, and its broadcasts are of weights. So results are stored as they are. Pixels are staged, a block of them for
# all filters, [panel of up to NV vectors][c][pixel]: a tile then reads both operands from front to back. With a stride
# or padding only the staging differs.
#
# Packed weights: for each group, NV vectors for each filter with its bias in all lanes; then for each panel of up to MR
# filters, [c][filter]. Panels are of nearly equal size.

cdef enum:
    MATRIX_BYTES = 256 * 1024       # of a staged block, about
    MATRIX_PIXELS = 512             # most and fewest of a block, if there are as many
    MATRIX_LEAST = 4 * NV * VECTOR_BYTES // 4

cdef struct MatrixGrid:
    dim blocks, sets            # of pixels, and of panels of filters
    dim pixels                  # in the largest block
    dim panels


cdef inline dim matrix_panels(const Shape* shape) noexcept nogil:
    return max(1, ceil_div(shape.K, MR))


cdef inline MatrixGrid matrix_grid(const Shape* shape, int workers) noexcept nogil:
    cdef MatrixGrid g
    cdef dim pixels = shape.P * shape.Q
    cdef dim most = max(MATRIX_LEAST, min(MATRIX_PIXELS, MATRIX_BYTES // (shape.C * shape.item)))
    cdef dim images = max(1, shape.N * shape.G)
    g.panels = matrix_panels(shape)
    g.blocks = ceil_div(pixels, most)
    if workers > 1 and images * g.blocks < 4 * workers:
        g.blocks = max(g.blocks, min(ceil_div(pixels, MATRIX_LEAST), 4 * workers))
    g.sets = max(ceil_div(workers, images * g.blocks),
                 <dim> min(1e9, <double> ceil_div(pixels, g.blocks) * shape.K * shape.C / TASK_WORK))
    g.sets = min(g.sets, g.panels)
    # A block is cut at whole panels of pixels.
    g.pixels = ceil_div(pixels, g.blocks)
    g.pixels = ceil_div(g.pixels, filter_width(shape)) * filter_width(shape)
    g.blocks = ceil_div(pixels, g.pixels)
    return g


cdef inline void stage_pixels(const Shape* shape, const Image* x, const char* image, dim first, dim count, dim width,
                              char* line, char* to) noexcept nogil:
    """Pixels first .. first+count-1 of y's sequence, of all channels: [panel of width][c][pixel].

    The last panel is as many vectors wide as it has to be, with zeros behind its pixels.
    """
    cdef dim item = shape.item
    cdef dim lanes = lanes_of(shape)
    cdef dim last = (count - 1) // width * width
    cdef dim narrow = ceil_div(count - last, lanes) * lanes
    cdef bint flat = (not shape.gathered and shape.p_step == 1 and shape.q_step == 1 and shape.Q == shape.W
                      and x.h == shape.W * item)
    cdef dim c, at, p, q, run, part, panel
    cdef const char* value
    for c in range(shape.C):
        memset(to + (last * shape.C + (c + 1) * narrow - lanes) * item, 0, lanes * item)
        at = 0
        p = first // shape.Q
        q = first - p * shape.Q
        while at < count:
            # A run of pixels in a row of x, or of all rows if they follow each other.
            run = count - at if flat else min(count - at, shape.Q - q)
            value = image_row(shape, x, image, c, p * shape.p_step, q * shape.q_step,
                              (run - 1) * shape.q_step + 1, line)
            while run > 0:
                panel = at // width * width
                part = min(run, width - (at - panel))
                copy_strided(to + (panel * shape.C + c * (narrow if panel == last else width) + at - panel) * item,
                             value, part, shape.q_step, item)
                value += part * shape.q_step * item
                at += part
                run -= part
            q = 0
            p += 1


cdef inline void matrix_block(const Shape* shape, const MatrixGrid* g, const char* packed, const Image* x, char* y,
                              const Place* place, char* workspace, vec* like) noexcept nogil:
    """One block of pixels of one group of image n, for some panels of filters."""
    cdef dim item = shape.item
    cdef dim lanes = sizeof(vec) // itemsize(like)
    cdef dim width = NV * lanes
    cdef dim pixels = shape.P * shape.Q
    cdef dim first = place.block * g.pixels
    cdef dim count = min(g.pixels, pixels - first)
    cdef vec* sums = <vec*> (workspace + matrix_stage_bytes(shape, g))
    cdef dim* off = <dim*> (sums + MR * NV)
    cdef char* line = <char*> off + whole_lines(shape.C * sizeof(dim))
    cdef const char* bias = packed + place.group * matrix_group_bytes(shape)
    cdef const char* w = bias + shape.K * NV * VECTOR_BYTES
    cdef FilterSweep sweep
    cdef dim panel, at, c, k, filters, inside
    cdef int i, v, nv
    cdef char* to
    stage_pixels(shape, x, x.data + place.n * x.n + place.group * shape.C * x.c, first, count, width, line, workspace)
    y += ((place.n * shape.G + place.group) * shape.K * pixels + first) * item
    sweep.off = off
    sweep.terms = shape.C
    sweep.row = sweep.row_step = 0
    sweep.init_step = NV
    for panel in range(place.first, place.last):
        k = split(shape.K, g.panels, panel)
        filters = split(shape.K, g.panels, panel + 1) - k
        for c in range(shape.C):
            off[c] = c * filters * item
        at = 0
        while at < count:
            inside = min(width, count - at)
            nv = <int> ceil_div(inside, lanes)
            to = y + (k * pixels + at) * item
            # The lines of y arrive while the tile is computed: its stores would wait for each.
            for i in range(<int> filters):
                prefetch_to_write(to, 1)
                prefetch_to_write(to + LINE, 1)
                to += pixels * item
            filter_tile_any(&sweep, w + k * shape.C * item, <const vec*> (workspace + at * shape.C * item),
                            <const vec*> bias + k * NV, sums, 1, <int> filters, nv)
            to = y + (k * pixels + at) * item
            for i in range(<int> filters):
                if inside == width:
                    for v in range(NV):
                        (<vec*> to)[v] = sums[i * NV + v]
                else:
                    memcpy(to, sums + i * nv, inside * item)
                to += pixels * item
            at += width


cdef inline dim matrix_stage_bytes(const Shape* shape, const MatrixGrid* g) noexcept nogil:
    return whole_lines(g.pixels * shape.C * shape.item)


cdef dim matrix_workspace_bytes(const Shape* shape, int workers) noexcept nogil:
    cdef MatrixGrid g = matrix_grid(shape, workers)
    return (matrix_stage_bytes(shape, &g) + MR * NV * VECTOR_BYTES + whole_lines(shape.C * sizeof(dim))
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
    return shape.K * NV * VECTOR_BYTES + whole_vectors(shape.K * shape.C * shape.item)


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
        to = spread_bias(packed + group * matrix_group_bytes(shape), bias, shape.K, NV * VECTOR_BYTES // item, item)
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
