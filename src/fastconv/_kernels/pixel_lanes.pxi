# Pixels in the lanes: the image is read in place, a vector of neighbouring columns at a time, and weights are
# broadcast. For few channels or few filters, and outputs at least a vector wide.
#
# Register tile: acc[k][i][v] += w[k,c,r,s] * x[c, p+i+r, q+s + v*lanes ..], k < km filters, i < mp rows of y,
# v < nv vectors. A vector of x, once loaded, serves every filter and every row of y whose window holds it, so
# km * mp <= MR rows of the tile share one load. Each output is one chain of multiply-adds over c, then r, then s,
# that begins at the bias: its bits don't depend on the tile it falls into. So the last tile of a row may
# overlap its neighbour and write the same bits again; no load leaves the rows of x.
#
# Packed weights: K vectors that hold each filter's bias in every lane; then, for each panel of up to MR filters,
# [c][r][s][filter in panel].

cdef enum:
    PIXEL_TASKS = 32            # bands of rows: enough for many cores, few enough to cost nothing
    TASK_WORK = 200_000_000     # multiply-adds in a task, about, so that Ctrl-C is heard in time
    WIDEST_STRIP = 2048         # columns
    NARROWEST_STRIP = 256

cdef struct PixelTile:
    dim C, R, S
    dim x_c, x_h            # byte strides of x
    dim y_k, y_p            # byte strides of y
    dim bias_k              # bytes from one filter's bias vector to the next

cdef struct PixelBlock:
    # What one task computes: these rows and columns, of the filters of these panels, of image n.
    dim n, p_first, p_last, q_first, q_last, panel_first, panel_last


cdef inline void pixel_row(vec* acc, const char* x, const char* w, dim w_r, dim S, int km, int mp, int nv,
                           int first, int last) noexcept nogil:
    """One row of x into rows first .. last-1 of y in the tile; w points at the weights that row 0 of y would take."""
    cdef vec b[NV]
    cdef dim item = itemsize(acc)
    cdef dim s
    cdef int k, i, v
    for s in range(S):
        for v in range(nv):
            b[v] = (<const vec*> x)[v]
        for k in range(km):
            for i in range(first, last):
                for v in range(nv):
                    acc[(k * mp + i) * nv + v] = fma(acc[(k * mp + i) * nv + v], b[v], w + k * item - i * w_r)
        x += item
        w += km * item


cdef inline void pixel_tile(const PixelTile* g, const char* x, const char* w, const char* bias, vec* y,
                            int km, int mp, int nv) noexcept nogil:
    """km filters x mp rows x nv vectors of y. Assumes mp <= R."""
    cdef vec acc[MR * NV]
    cdef dim w_r = g.S * km * itemsize(y)
    cdef dim c, h
    cdef int k, i, v
    for k in range(km):
        for i in range(mp):
            for v in range(nv):
                acc[(k * mp + i) * nv + v] = (<const vec*> (bias + k * g.bias_k))[0]
    for c in range(g.C):
        # A row of x enters the tile at its first row of y, later ones reach all rows, the last leave row by row.
        if mp > 1: pixel_row(acc, x, w, w_r, g.S, km, mp, nv, 0, 1)
        if mp > 2: pixel_row(acc, x + g.x_h, w + w_r, w_r, g.S, km, mp, nv, 0, 2)
        if mp > 3: pixel_row(acc, x + 2 * g.x_h, w + 2 * w_r, w_r, g.S, km, mp, nv, 0, 3)
        if mp > 4: pixel_row(acc, x + 3 * g.x_h, w + 3 * w_r, w_r, g.S, km, mp, nv, 0, 4)
        if mp > 5: pixel_row(acc, x + 4 * g.x_h, w + 4 * w_r, w_r, g.S, km, mp, nv, 0, 5)
        for h in range(mp - 1, g.R):
            pixel_row(acc, x + h * g.x_h, w + h * w_r, w_r, g.S, km, mp, nv, 0, mp)
        h = g.R
        if mp > 1: pixel_row(acc, x + h * g.x_h, w + h * w_r, w_r, g.S, km, mp, nv, 1, mp)
        if mp > 2: pixel_row(acc, x + (h + 1) * g.x_h, w + (h + 1) * w_r, w_r, g.S, km, mp, nv, 2, mp)
        if mp > 3: pixel_row(acc, x + (h + 2) * g.x_h, w + (h + 2) * w_r, w_r, g.S, km, mp, nv, 3, mp)
        if mp > 4: pixel_row(acc, x + (h + 3) * g.x_h, w + (h + 3) * w_r, w_r, g.S, km, mp, nv, 4, mp)
        if mp > 5: pixel_row(acc, x + (h + 4) * g.x_h, w + (h + 4) * w_r, w_r, g.S, km, mp, nv, 5, mp)
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
    elif NV == 4:
        if nv == 3: pixel_tile_nv(g, x, w, bias, y, km, mp, 3)
        else: pixel_tile_nv(g, x, w, bias, y, km, mp, 4)


cdef inline dim pixel_panels(const Shape* shape) noexcept nogil:
    return max(1, ceil_div(shape.K, MR))


cdef inline dim panel_filters(const Shape* shape) noexcept nogil:
    """Filters in the widest panel; the others have as many, or one less."""
    return max(1, ceil_div(shape.K, pixel_panels(shape)))


cdef inline int pixel_rows(const Shape* shape) noexcept nogil:
    """Rows of y in a full tile: what the filters leave of MR, but no more than a row of x can reach."""
    return <int> min(MR // panel_filters(shape), shape.R, shape.P)


cdef inline void pixel_block(const Shape* shape, const char* packed, const Image* x, char* y, const PixelBlock* block,
                             vec* like) noexcept nogil:
    """Assumes that the block is at least a vector wide."""
    cdef dim item = itemsize(like)
    cdef dim lanes = sizeof(vec) // item
    cdef dim panels = pixel_panels(shape)
    cdef dim fewest = shape.K // panels     # filters in a panel; the first few have one more
    cdef dim wider = shape.K % panels
    cdef int rows = pixel_rows(shape)
    cdef dim k = block.panel_first * fewest + min(block.panel_first, wider)
    cdef const char* bias = packed + k * VECTOR_BYTES
    cdef const char* weights = packed + shape.K * VECTOR_BYTES + k * shape.C * shape.R * shape.S * item
    cdef const char* image = x.data + block.n * x.n
    cdef PixelTile g
    cdef dim p, q, panel
    cdef int mp, nv, km
    g.C, g.R, g.S = shape.C, shape.R, shape.S
    g.x_c, g.x_h = x.c, x.h
    g.y_p = shape.Q * item
    g.y_k = shape.P * g.y_p
    g.bias_k = VECTOR_BYTES
    y += (block.n * shape.K + k) * g.y_k
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
                nv = <int> min(NV, ceil_div(block.q_last - q, lanes))
                if q + nv * lanes > block.q_last:
                    if nv * lanes > block.q_last - block.q_first:
                        nv -= 1     # the block is at least one vector wide
                    else:
                        q = block.q_last - nv * lanes
                pixel_tile_any(&g, image + p * x.h + q * item, weights, bias, <vec*> (y + p * g.y_p + q * item), km, mp,
                               nv)
                q += nv * lanes
            p += mp
        weights += km * shape.C * shape.R * shape.S * item
        bias += km * VECTOR_BYTES
        y += km * g.y_k


cdef struct PixelGrid:
    # How y is cut into tasks: by images, then bands of rows, strips of columns, and groups of filter panels.
    dim bands, strips, groups


cdef inline PixelGrid pixel_grid(const Shape* shape) noexcept nogil:
    """PIXEL_TASKS bands; where a task would take long, more bands, then strips, then groups."""
    cdef PixelGrid grid
    cdef double work = <double> shape.P * shape.Q * shape.K * shape.C * shape.R * shape.S
    cdef dim tasks = <dim> min(1e9, work / TASK_WORK) + 1
    grid.bands = min(ceil_div(shape.P, MR), max(PIXEL_TASKS, tasks))
    grid.strips = max(1, shape.Q // WIDEST_STRIP)
    grid.groups = 1
    if tasks > grid.bands * grid.strips:
        grid.strips = max(grid.strips, min(shape.Q // NARROWEST_STRIP, ceil_div(tasks, grid.bands)))
        grid.groups = min(pixel_panels(shape), ceil_div(tasks, grid.bands * grid.strips))
    return grid


cdef dim pixel_tasks(const Shape* shape) noexcept nogil:
    cdef PixelGrid grid = pixel_grid(shape)
    return shape.N * grid.bands * grid.strips * grid.groups


cdef void pixel_run(const Shape* shape, const char* packed, const Image* x, char* y, dim task,
                    char* workspace) noexcept nogil:
    cdef PixelGrid grid = pixel_grid(shape)
    cdef dim tiles = ceil_div(shape.P, MR)      # bands begin at multiples of MR rows
    cdef dim panels = pixel_panels(shape)
    cdef dim group = task % grid.groups
    cdef dim strip = task // grid.groups % grid.strips
    cdef dim band = task // grid.groups // grid.strips % grid.bands
    cdef PixelBlock block
    block.n = task // grid.groups // grid.strips // grid.bands
    block.p_first = MR * split(tiles, grid.bands, band)
    block.p_last = min(shape.P, MR * split(tiles, grid.bands, band + 1))
    block.q_first = split(shape.Q, grid.strips, strip)
    block.q_last = split(shape.Q, grid.strips, strip + 1)
    block.panel_first = split(panels, grid.groups, group)
    block.panel_last = split(panels, grid.groups, group + 1)
    if shape.dtype == FLOAT32:
        pixel_block(shape, packed, x, y, &block, <f32v*> NULL)
    else:
        pixel_block(shape, packed, x, y, &block, <f64v*> NULL)


cdef dim pixel_workspace_bytes(const Shape* shape) noexcept nogil:
    return 0


cdef dim pixel_packed_bytes(const Shape* shape) noexcept nogil:
    return shape.K * (VECTOR_BYTES + shape.C * shape.R * shape.S * shape.item)


cdef void pixel_pack(const Shape* shape, const Weights* w, char* packed) noexcept nogil:
    cdef dim panels = pixel_panels(shape)
    cdef dim panel, c, r, s, k, lane
    for k in range(shape.K):
        for lane in range(VECTOR_BYTES // shape.item):
            if w.bias == NULL:
                memset(packed, 0, shape.item)
            else:
                copy_scalar(packed, w.bias + k * shape.item, shape.item)
            packed += shape.item
    for panel in range(panels):
        for c in range(shape.C):
            for r in range(shape.R):
                for s in range(shape.S):
                    for k in range(split(shape.K, panels, panel), split(shape.K, panels, panel + 1)):
                        copy_scalar(packed, w.data + k * w.k + c * w.c + r * w.r + s * w.s, shape.item)
                        packed += shape.item


cdef double pixel_cost(const Shape* shape) noexcept nogil:
    cdef dim lanes = lanes_of(shape)
    cdef double terms, filters, rows, nv, term
    if shape.Q < lanes:
        return INFINITY
    terms = <double> shape.C * shape.R * shape.S
    filters = max(1, shape.K)
    rows = filters / pixel_panels(shape) * pixel_rows(shape)
    nv = min(NV, shape.Q // lanes)
    # A term of a tile issues rows * nv multiply-adds, but no faster than each can follow the one before it. Most
    # vector loads straddle two cache lines and count twice; two loads a cycle.
    term = max(rows * nv / ISSUE, (rows + 2 * nv) / 2, <double> LATENCY)
    return <double> shape.P * ceil_div(shape.Q, lanes) * filters / (rows * nv) * (terms * term + 20)
