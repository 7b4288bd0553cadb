# Pixels in the lanes: the image is read a vector of neighbouring columns at a time, and weights are broadcast. For few
# channels or few filters, and outputs at least a vector wide.
#
# Register tile: acc[k][i][v] += w[k,c,r,s] * x[c, p+i+r, q+s + v*lanes ..], k < km filters, i < mp rows of y,
# v < nv vectors. A vector of x, once loaded, serves every filter and every row of y whose window holds it, so
# km * mp <= PIXEL_MR rows of the tile share one load. Each output is one chain of multiply-adds over c, then r, then s,
# that begins at the bias: its bits don't depend on the tile it falls into. So the last tile of a row may
# overlap its neighbour and write the same bits again; no load leaves the rows of x.
#
# x is read in place, or, where it is padded or has a stride along its rows, from a stage: the rows that the task sees,
# [c][h][phase][column]. Phase f of a row holds columns f, f + q_step, ...: what neighbouring pixels see, side by side.
# A table says where in a row each column of a filter begins.
#
# Packed weights: the table, S offsets; for each group, K vectors that hold each filter's bias in every lane, then,
# for each panel of up to PIXEL_MR filters,
# [c][r][s][filter in panel].

cdef enum:
    PIXEL_TASKS = 32            # bands of rows in all images: enough for many cores, few enough to cost nothing
    WIDEST_STRIP = 2048         # columns
    NARROWEST_STRIP = 256
    CACHE_BYTES = 32 * 1024     # of the first level

cdef struct PixelTile:
    dim C, R, S
    const dim* column       # where the columns of a filter begin, in bytes
    dim x_c, x_h            # byte strides of x, from one row of a filter to the next
    dim y_k, y_p            # byte strides of y

cdef struct PixelBlock:
    # What one task computes: these rows and columns, of the filters of these panels, of a group of image n.
    dim n, group, p_first, p_last, q_first, q_last, panel_first, panel_last


cdef inline void pixel_row(vec* acc, const char* x, const char* w, dim w_r, const PixelTile* g, int km, int mp, int nv,
                           int first, int last) noexcept nogil:
    """One row of x into rows first .. last-1 of y in the tile; w points at the weights that row 0 of y would take."""
    cdef vec b[PIXEL_NV]
    cdef dim item = itemsize(acc)
    cdef dim s
    cdef int k, i, v
    for s in range(g.S):
        for v in range(nv):
            b[v] = (<const vec*> (x + g.column[s]))[v]
        for k in range(km):
            for i in range(first, last):
                for v in range(nv):
                    acc[(k * mp + i) * nv + v] = fma(acc[(k * mp + i) * nv + v], b[v], w + k * item - i * w_r)
        w += km * item


cdef inline void pixel_tile(const PixelTile* g, const char* x, const char* w, const char* bias, vec* y,
                            int km, int mp, int nv) noexcept nogil:
    """km filters x mp rows x nv vectors of y. Assumes mp <= R."""
    cdef vec acc[PIXEL_MR * PIXEL_NV]
    cdef dim w_r = g.S * km * itemsize(y)
    cdef dim c, h
    cdef int k, i, v
    for k in range(km):
        for i in range(mp):
            for v in range(nv):
                acc[(k * mp + i) * nv + v] = (<const vec*> (bias + k * VECTOR_BYTES))[0]
    for c in range(g.C):
        # A row of x enters the tile at its first row of y, later ones reach all rows, the last leave row by row.
        if mp > 1: pixel_row(acc, x, w, w_r, g, km, mp, nv, 0, 1)
        if mp > 2: pixel_row(acc, x + g.x_h, w + w_r, w_r, g, km, mp, nv, 0, 2)
        if mp > 3: pixel_row(acc, x + 2 * g.x_h, w + 2 * w_r, w_r, g, km, mp, nv, 0, 3)
        if mp > 4: pixel_row(acc, x + 3 * g.x_h, w + 3 * w_r, w_r, g, km, mp, nv, 0, 4)
        if mp > 5: pixel_row(acc, x + 4 * g.x_h, w + 4 * w_r, w_r, g, km, mp, nv, 0, 5)
        for h in range(mp - 1, g.R):
            pixel_row(acc, x + h * g.x_h, w + h * w_r, w_r, g, km, mp, nv, 0, mp)
        h = g.R
        if mp > 1: pixel_row(acc, x + h * g.x_h, w + h * w_r, w_r, g, km, mp, nv, 1, mp)
        if mp > 2: pixel_row(acc, x + (h + 1) * g.x_h, w + (h + 1) * w_r, w_r, g, km, mp, nv, 2, mp)
        if mp > 3: pixel_row(acc, x + (h + 2) * g.x_h, w + (h + 2) * w_r, w_r, g, km, mp, nv, 3, mp)
        if mp > 4: pixel_row(acc, x + (h + 3) * g.x_h, w + (h + 3) * w_r, w_r, g, km, mp, nv, 4, mp)
        if mp > 5: pixel_row(acc, x + (h + 4) * g.x_h, w + (h + 4) * w_r, w_r, g, km, mp, nv, 5, mp)
        x += g.x_c
        w += g.R * w_r
    for k in range(km):
        for i in range(mp):
            for v in range(nv):
                (<vec*> (<char*> y + k * g.y_k + i * g.y_p))[v] = acc[(k * mp + i) * nv + v]


# The variants are one loop nest: km, mp and nv become constants of a copy that the compiler unrolls.

cdef inline void pixel_tile_nv(const PixelTile* g, const char* x, const char* w, const char* bias, vec* y,
                               int km, int mp, int nv) noexcept nogil:
    if mp == 1:
        if km == 1: pixel_tile(g, x, w, bias, y, 1, 1, nv)
        elif km == 2: pixel_tile(g, x, w, bias, y, 2, 1, nv)
        elif km == 3: pixel_tile(g, x, w, bias, y, 3, 1, nv)
        elif km == 4: pixel_tile(g, x, w, bias, y, 4, 1, nv)
        elif km == 5: pixel_tile(g, x, w, bias, y, 5, 1, nv)
        else: pixel_tile(g, x, w, bias, y, 6, 1, nv)
    elif km == 1:
        if mp == 2: pixel_tile(g, x, w, bias, y, 1, 2, nv)
        elif mp == 3: pixel_tile(g, x, w, bias, y, 1, 3, nv)
        elif mp == 4: pixel_tile(g, x, w, bias, y, 1, 4, nv)
        elif mp == 5: pixel_tile(g, x, w, bias, y, 1, 5, nv)
        else: pixel_tile(g, x, w, bias, y, 1, 6, nv)
    elif km == 2:
        if mp == 2: pixel_tile(g, x, w, bias, y, 2, 2, nv)
        else: pixel_tile(g, x, w, bias, y, 2, 3, nv)
    else: pixel_tile(g, x, w, bias, y, 3, 2, nv)


cdef inline void pixel_tile_any(const PixelTile* g, const char* x, const char* w, const char* bias, vec* y,
                                int km, int mp, int nv) noexcept nogil:
    if nv == 1: pixel_tile_nv(g, x, w, bias, y, km, mp, 1)
    elif nv == 2: pixel_tile_nv(g, x, w, bias, y, km, mp, 2)
    elif PIXEL_NV == 4:
        if nv == 3: pixel_tile_nv(g, x, w, bias, y, km, mp, 3)
        else: pixel_tile_nv(g, x, w, bias, y, km, mp, 4)


cdef inline dim pixel_panels(const Shape* shape) noexcept nogil:
    return max(1, ceil_div(shape.K, PIXEL_MR))


cdef inline dim panel_filters(const Shape* shape) noexcept nogil:
    """Filters in the widest panel; the others have as many, or one less."""
    return max(1, ceil_div(shape.K, pixel_panels(shape)))


cdef inline int pixel_rows(const Shape* shape) noexcept nogil:
    """Rows of y in a full tile: what the filters leave of PIXEL_MR, but no more than a row of x can reach."""
    if shape.p_step > 1 or shape.r_step > 1:
        return 1
    return <int> min(PIXEL_MR // panel_filters(shape), shape.R, shape.P)


cdef inline bint pixel_staged(const Shape* shape) noexcept nogil:
    return shape.gathered or shape.q_step > 1


cdef inline dim pixel_columns(const Shape* shape) noexcept nogil:
    """Columns of y in the widest strip."""
    if shape.Q < 2 * NARROWEST_STRIP:
        return shape.Q
    return NARROWEST_STRIP * 2


cdef inline dim phase_columns(const Shape* shape) noexcept nogil:
    """Values in a phase of a staged row."""
    return ceil_div(reach_w(shape, pixel_columns(shape)), shape.q_step)


cdef inline dim stage_pitch(const Shape* shape) noexcept nogil:
    """Bytes of a staged row."""
    return phase_columns(shape) * shape.q_step * shape.item


cdef void stage_band(const Shape* shape, const Image* x, const char* image, const PixelBlock* block,
                     char* stage) noexcept nogil:
    """The rows of x that a block sees. Behind them there is room for one more."""
    cdef dim item = shape.item
    cdef dim pitch = stage_pitch(shape)
    cdef dim first = block.q_first * shape.q_step
    cdef dim count = reach_w(shape, block.q_last - block.q_first)
    cdef dim rows = reach_h(shape, block.p_last - block.p_first)
    cdef char* line = stage + shape.C * rows * pitch
    cdef const char* row
    cdef dim c, h, f
    for c in range(shape.C):
        for h in range(rows):
            if shape.q_step == 1:
                gather_row(shape, x, image + c * x.c, block.p_first * shape.p_step + h, first, count, stage)
            else:
                row = image_row(shape, x, image + c * x.c, block.p_first * shape.p_step + h, first, count, line)
                for f in range(min(shape.q_step, count)):
                    copy_strided(stage + f * phase_columns(shape) * item, row + f * item,
                                 ceil_div(count - f, shape.q_step), shape.q_step, item)
            stage += pitch


cdef inline void pixel_block(const Shape* shape, const char* packed, const Image* x, char* y, const PixelBlock* block,
                             char* workspace, vec* like) noexcept nogil:
    """Assumes that the block is at least a vector wide."""
    cdef dim item = itemsize(like)
    cdef dim lanes = sizeof(vec) // item
    cdef dim panels = pixel_panels(shape)
    cdef dim fewest = shape.K // panels     # filters in a panel; the first few have one more
    cdef dim wider = shape.K % panels
    cdef int rows = pixel_rows(shape)
    cdef dim k = split(shape.K, panels, block.panel_first)
    cdef const char* bias = packed + block.group * pixel_group_bytes(shape) + pixel_table_bytes(shape)
    cdef const char* weights = bias + shape.K * VECTOR_BYTES + k * shape.C * shape.R * shape.S * item
    cdef const char* image = x.data + block.n * x.n + block.group * shape.C * x.c
    cdef dim x_h = x.h
    cdef PixelTile g
    cdef dim p, q, panel
    cdef int mp, nv, km
    bias += k * VECTOR_BYTES
    g.C, g.R, g.S = shape.C, shape.R, shape.S
    g.column = <const dim*> packed
    g.x_c = x.c
    if pixel_staged(shape):
        stage_band(shape, x, image, block, workspace)
        x_h = stage_pitch(shape)
        g.x_c = reach_h(shape, block.p_last - block.p_first) * x_h
        image = workspace - block.p_first * shape.p_step * x_h - block.q_first * item
    g.x_h = shape.r_step * x_h
    g.y_p = shape.Q * item
    g.y_k = shape.P * g.y_p
    y += ((block.n * shape.G + block.group) * shape.K + k) * g.y_k
    # Loop 3: filters, a panel at a time, so that y is written in few streams, over a window of x that stays in a cache.
    for panel in range(block.panel_first, block.panel_last):
        km = <int> (fewest + (panel < wider))
        # Loop 2: rows of y, mp at a time.
        p = block.p_first
        while p < block.p_last:
            mp = <int> min(rows, block.p_last - p)
            # Loop 1: columns of y, nv vectors at a time; the last tile moves left to end with the block.
            q = block.q_first
            while q < block.q_last:
                nv = <int> min(PIXEL_NV, ceil_div(block.q_last - q, lanes))
                if q + nv * lanes > block.q_last:
                    if nv * lanes > block.q_last - block.q_first:
                        nv -= 1     # the block is at least one vector wide
                    else:
                        q = block.q_last - nv * lanes
                pixel_tile_any(&g, image + p * shape.p_step * x_h + q * item, weights, bias,
                               <vec*> (y + p * g.y_p + q * item), km, mp, nv)
                q += nv * lanes
            p += mp
        weights += km * shape.C * shape.R * shape.S * item
        bias += km * VECTOR_BYTES
        y += km * g.y_k


cdef struct PixelGrid:
    # How y is cut into tasks: by images and groups, then bands of rows, strips of columns, and sets of filter panels.
    dim bands, strips, sets
    dim tile                    # rows that aren't parted


cdef inline PixelGrid pixel_grid(const Shape* shape) noexcept nogil:
    """Bands; where a task would take long, more bands, then strips, then sets. A stage fits STAGE_BYTES."""
    cdef PixelGrid grid
    cdef double work = <double> shape.P * shape.Q * shape.K * shape.C * shape.R * shape.S
    cdef dim tasks = <dim> min(1e9, work / TASK_WORK) + 1
    cdef dim rows
    grid.tile = PIXEL_MR
    grid.bands = min(ceil_div(shape.P, PIXEL_MR), max(ceil_div(PIXEL_TASKS, max(1, shape.N * shape.G)), tasks))
    grid.strips = max(1, shape.Q // WIDEST_STRIP)
    grid.sets = 1
    if pixel_staged(shape):
        grid.strips = ceil_div(shape.Q, pixel_columns(shape))
        rows = (STAGE_BYTES // (shape.C * stage_pitch(shape)) - reach_h(shape, 1)) // shape.p_step + 1
        if rows < PIXEL_MR:
            grid.tile = 1
            grid.bands = ceil_div(shape.P, max(1, rows))
        else:
            grid.bands = max(grid.bands, ceil_div(shape.P, rows // PIXEL_MR * PIXEL_MR))
    elif tasks > grid.bands * grid.strips:
        grid.strips = max(grid.strips, min(shape.Q // NARROWEST_STRIP, ceil_div(tasks, grid.bands)))
    if tasks > grid.bands * grid.strips:
        grid.sets = min(pixel_panels(shape), ceil_div(tasks, grid.bands * grid.strips))
    return grid


cdef dim pixel_tasks(const Shape* shape, int workers) noexcept nogil:
    cdef PixelGrid grid = pixel_grid(shape)
    return shape.N * shape.G * grid.bands * grid.strips * grid.sets


cdef void pixel_run(const Shape* shape, int workers, const char* packed, const Image* x, char* y, dim task,
                    char* workspace) noexcept nogil:
    cdef PixelGrid grid = pixel_grid(shape)
    cdef dim tiles = ceil_div(shape.P, grid.tile)
    cdef dim panels = pixel_panels(shape)
    cdef dim part = task % grid.sets
    cdef dim strip = task // grid.sets % grid.strips
    cdef dim band = task // grid.sets // grid.strips % grid.bands
    cdef dim image = task // grid.sets // grid.strips // grid.bands
    cdef PixelBlock block
    block.n = image // shape.G
    block.group = image % shape.G
    block.p_first = grid.tile * split(tiles, grid.bands, band)
    block.p_last = min(shape.P, grid.tile * split(tiles, grid.bands, band + 1))
    block.q_first = split(shape.Q, grid.strips, strip)
    block.q_last = split(shape.Q, grid.strips, strip + 1)
    block.panel_first = split(panels, grid.sets, part)
    block.panel_last = split(panels, grid.sets, part + 1)
    if shape.dtype == FLOAT32:
        pixel_block(shape, packed, x, y, &block, workspace, <f32v*> NULL)
    elif shape.dtype == FLOAT64:
        pixel_block(shape, packed, x, y, &block, workspace, <f64v*> NULL)
    elif shape.dtype == INT32:
        pixel_block(shape, packed, x, y, &block, workspace, <i32v*> NULL)
    else:
        pixel_block(shape, packed, x, y, &block, workspace, <i64v*> NULL)


cdef dim pixel_workspace_bytes(const Shape* shape, int workers) noexcept nogil:
    cdef PixelGrid grid
    if not pixel_staged(shape):
        return 0
    grid = pixel_grid(shape)
    return ((shape.C * reach_h(shape, ceil_div(ceil_div(shape.P, grid.tile), grid.bands) * grid.tile) + 1)
            * stage_pitch(shape))


cdef inline dim pixel_table_bytes(const Shape* shape) noexcept nogil:
    """Of the table of columns, a multiple of a vector."""
    return whole_vectors(shape.S * sizeof(dim))


cdef inline dim pixel_group_bytes(const Shape* shape) noexcept nogil:
    """Of one group's packed weights."""
    return shape.K * (VECTOR_BYTES + shape.C * shape.R * shape.S * shape.item)


cdef dim pixel_packed_bytes(const Shape* shape) noexcept nogil:
    return pixel_table_bytes(shape) + shape.G * pixel_group_bytes(shape)


cdef void pixel_pack(const Shape* shape, const Weights* w, char* packed) noexcept nogil:
    cdef dim panels = pixel_panels(shape)
    cdef dim* column = <dim*> packed
    cdef const char* data = w.data
    cdef const char* bias = w.bias
    cdef dim group, panel, c, r, s, k
    for s in range(shape.S):
        column[s] = s * shape.s_step * shape.item
        if shape.q_step > 1:
            column[s] = (s * shape.s_step % shape.q_step * phase_columns(shape)
                         + s * shape.s_step // shape.q_step) * shape.item
    packed += pixel_table_bytes(shape)
    for group in range(shape.G):
        packed = spread_bias(packed, bias, shape.K, VECTOR_BYTES // shape.item, shape.item)
        for panel in range(panels):
            for c in range(shape.C):
                for r in range(shape.R):
                    for s in range(shape.S):
                        for k in range(split(shape.K, panels, panel), split(shape.K, panels, panel + 1)):
                            copy_scalar(packed, data + k * w.k + c * w.c + r * w.r + s * w.s, shape.item)
                            packed += shape.item
        data += shape.K * w.k
        if bias != NULL:
            bias += shape.K * shape.item


cdef double pixel_cost(const Shape* shape) noexcept nogil:
    cdef dim lanes = lanes_of(shape)
    cdef double terms, filters, rows, nv, term, staging = 0
    if shape.Q < lanes or (shape.channels_last and shape.G * shape.K > 1):
        return INFINITY
    terms = <double> shape.C * shape.R * shape.S
    filters = max(1, shape.K)
    if pixel_staged(shape):
        if <double> shape.C * reach_h(shape, 1) * stage_pitch(shape) > STAGE_BYTES:
            return INFINITY
        staging = <double> shape.C * reach_h(shape, shape.P) * reach_w(shape, shape.Q)
    rows = filters / pixel_panels(shape) * pixel_rows(shape)
    nv = min(PIXEL_NV, shape.Q // lanes)
    # A term of a tile issues rows * nv multiply-adds, but no faster than each can follow the one before it. Most
    # vector loads straddle two cache lines and count twice; two loads a cycle.
    term = max(rows * nv / ISSUE, (rows + 2 * nv) / 2, <double> LATENCY)
    # Each panel reads x again; where rows don't stay in the first-level cache, from the second.
    if filters > PIXEL_MR and <double> shape.C * reach_h(shape, PIXEL_MR) * shape.W * shape.item > CACHE_BYTES:
        term += nv * 8 / (<double> shape.R * shape.S)
    return shape.G * (staging + <double> shape.P * ceil_div(shape.Q, lanes) * filters / (rows * nv)
                      * (terms * term + 20))
