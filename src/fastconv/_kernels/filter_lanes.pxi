# Filters in the lanes: packed weights are read a vector of filters at a time, and pixels of the image are
# broadcast from where they stand. For many channels and filters; outputs may be as narrow as one pixel.
#
# Register tile: acc[i][v] += x[pixel i, off[r]] * w[r][v * lanes ..], i < m pixels, v < nv vectors of filters,
# r over the reduction (c, r, s). Any m <= MR pixels of y make a tile, neighbours or not, so P * Q needs no
# rounding up. Each output is one chain of multiply-adds in the order of r that begins at the bias.
#
# The tile writes pixel by pixel into a scratch block; the block is transposed into y when it is complete.
#
# Packed weights: for each panel of up to NR = NV * lanes filters, nv vectors of biases, then [c][r][s][nv vectors];
# lanes past the last filter hold zeros, and what they compute is dropped.

cdef enum:
    PIXEL_BLOCK = 192       # pixels of y in a block; their scratch takes PIXEL_BLOCK * NV vectors


cdef struct FilterSweep:
    # One sweep of tiles over a block of pixels, with one block of the reduction.
    const char* image
    const dim* off          # where each term stands, in bytes from a pixel's first
    dim terms
    dim init_step           # vectors from one pixel's first values to the next's: 0 where all begin at the bias
    Touch* touch

cdef struct Touch:
    # Cache lines of y that the block will be stored to: fetched a few at a time, while it is computed.
    const char* next        # in the row of the filter at hand
    dim y_k                 # bytes from one filter's row to the next
    dim bytes               # of a row
    dim column              # of next in its row
    dim lines               # to fetch at a time


cdef inline void touch_lines(Touch* touch) noexcept nogil:
    cdef dim i
    for i in range(touch.lines):
        prefetch(touch.next + touch.column, 1, SECOND)
        touch.column += LINE
        if touch.column >= touch.bytes + LINE:
            touch.column = 0
            touch.next += touch.y_k


cdef inline void filter_term(vec* acc, const char** a, dim off, const vec* w, int m, int nv) noexcept nogil:
    """One term of the reduction: the outer product of m pixels and nv vectors of weights."""
    cdef vec b[NV]
    cdef int i, v
    for v in range(nv):
        b[v] = w[v]
    for i in range(m):
        for v in range(nv):
            acc[i * nv + v] = fma(acc[i * nv + v], b[v], a[i] + off)


cdef inline void filter_tile(const FilterSweep* g, const vec* w, const dim* pixel, const vec* init, vec* t, dim turn,
                             int m, int nv) noexcept nogil:
    """t[i][v] = init[i][v] + the sum over g.terms terms of the reduction.

    UNROLL terms at a time. With FETCH, each group fetches a line of the image further right, and one of the next
    block's weights; turn, the number of the tile in its sweep, says which, so that a sweep fetches them all.
    """
    cdef vec acc[MR * NV]
    cdef const char* a[MR]
    cdef const dim* off = g.off
    cdef dim ahead = g.terms * nv * sizeof(vec) + turn * LINE % (UNROLL * nv * sizeof(vec))
    cdef dim r, odd = turn % UNROLL
    cdef int i, v
    for i in range(m):
        a[i] = g.image + pixel[i]
        for v in range(nv):
            acc[i * nv + v] = init[i * g.init_step + v]
    for r in range(g.terms // UNROLL):
        if FETCH:
            prefetch(a[0] + off[odd] + AHEAD, 0, SECOND)
            prefetch(<const char*> w + ahead, 0, SECOND)
        for i in range(UNROLL):
            filter_term(acc, a, off[i], w, m, nv)
            w += nv
        off += UNROLL
    for r in range(g.terms % UNROLL):
        filter_term(acc, a, off[r], w, m, nv)
        w += nv
    for i in range(m):
        for v in range(nv):
            t[i * nv + v] = acc[i * nv + v]


cdef inline void filter_tiles(const FilterSweep* g, const vec* w, const dim* pixel, const vec* init, vec* t, dim count,
                              int m, int nv) noexcept nogil:
    """count tiles of m pixels, one after the other."""
    cdef dim turn
    for turn in range(count):
        touch_lines(g.touch)
        filter_tile(g, w, pixel, init, t, turn, m, nv)
        pixel += m
        init += m * g.init_step
        t += m * nv


# The variants are one loop nest: m and nv become constants of a copy that the compiler unrolls.

cdef inline void filter_tiles_nv(const FilterSweep* g, const vec* w, const dim* pixel, const vec* init, vec* t,
                                 dim count, int m, int nv) noexcept nogil:
    if m == 6: filter_tiles(g, w, pixel, init, t, count, 6, nv)
    elif m == 5: filter_tiles(g, w, pixel, init, t, count, 5, nv)
    elif m == 4: filter_tiles(g, w, pixel, init, t, count, 4, nv)
    elif m == 3: filter_tiles(g, w, pixel, init, t, count, 3, nv)
    elif m == 2: filter_tiles(g, w, pixel, init, t, count, 2, nv)
    else: filter_tiles(g, w, pixel, init, t, count, 1, nv)


cdef inline void filter_tiles_any(const FilterSweep* g, const vec* w, const dim* pixel, const vec* init, vec* t,
                                  dim count, int m, int nv) noexcept nogil:
    if nv == 1: filter_tiles_nv(g, w, pixel, init, t, count, m, 1)
    elif nv == 2: filter_tiles_nv(g, w, pixel, init, t, count, m, 2)
    elif NV == 4:
        if nv == 3: filter_tiles_nv(g, w, pixel, init, t, count, m, 3)
        else: filter_tiles_nv(g, w, pixel, init, t, count, m, 4)


cdef inline void perfect_shuffle(vec* a, int lanes) noexcept nogil:
    """Rows i and i + lanes/2 to rows 2i and 2i + 1, interleaved. Done log2(lanes) times it transposes a."""
    cdef vec b[MOST_LANES]
    cdef int i
    for i in range(lanes // 2):
        b[2 * i] = interleave_low(a[i], a[i + lanes // 2])
        b[2 * i + 1] = interleave_high(a[i], a[i + lanes // 2])
    for i in range(lanes):
        a[i] = b[i]


cdef inline void transpose_block(const vec* t, dim t_step, char* y, dim y_k, dim filters) noexcept nogil:
    """A vector of filters for each of `lanes` pixels, t_step vectors apart, into `lanes` pixels of each filter."""
    cdef vec a[MOST_LANES]
    cdef int lanes = sizeof(vec) // itemsize(t)
    cdef int i
    for i in range(lanes):
        a[i] = t[i * t_step]
    perfect_shuffle(a, lanes)
    if lanes > 2: perfect_shuffle(a, lanes)
    if lanes > 4: perfect_shuffle(a, lanes)
    if lanes > 8: perfect_shuffle(a, lanes)
    for i in range(lanes):
        if i < filters:
            (<vec*> (y + i * y_k))[0] = a[i]


cdef inline void filter_store(const vec* t, int nv, dim pixels, dim filters, char* y, dim y_k) noexcept nogil:
    """The scratch block, [pixels][nv vectors of filters], into `filters` planes of y, y_k bytes apart."""
    cdef dim item = itemsize(t)
    cdef dim lanes = sizeof(vec) // item
    cdef dim k = 0, j, i
    cdef int v
    for v in range(nv):
        j = 0
        while j < pixels and pixels >= lanes:
            j = min(j, pixels - lanes)          # the last block overlaps the one before
            transpose_block(t + j * nv + v, nv, y + k * y_k + j * item, y_k, filters - k)
            j += lanes
        for j in range(pixels if pixels < lanes else 0):
            for i in range(min(lanes, filters - k)):
                copy_scalar(y + (k + i) * y_k + j * item, <const char*> (t + j * nv + v) + i * item, item)
        k += lanes


cdef inline dim filter_width(const Shape* shape) noexcept nogil:
    """Filters in a full panel (NR)."""
    return NV * lanes_of(shape)


cdef inline dim filter_blocks(const Shape* shape) noexcept nogil:
    return ceil_div(shape.P * shape.Q, PIXEL_BLOCK)


cdef inline dim filter_panels(const Shape* shape) noexcept nogil:
    if shape.K <= filter_width(shape):
        return 1
    return ceil_div(shape.K, filter_width(shape))


cdef inline dim panel_vectors(const Shape* shape, dim panel) noexcept nogil:
    """Vectors that the panel's filters fill."""
    cdef dim filters = min(filter_width(shape), shape.K - panel * filter_width(shape))
    return ceil_div(filters, VECTOR_BYTES // 4) if shape.item == 4 else ceil_div(filters, VECTOR_BYTES // 8)


cdef inline void filter_pixels(const Shape* shape, const Image* x, dim first, dim count, dim* pixel) noexcept nogil:
    """Where the windows of pixels first .. first+count-1 of y begin, in bytes from the image."""
    cdef dim p = first // shape.Q if first > 0 else 0
    cdef dim q = first - p * shape.Q
    cdef dim i
    for i in range(count):
        pixel[i] = p * x.h + q * shape.item
        q += 1
        if q == shape.Q:
            q = 0
            p += 1


cdef inline void filter_offsets(const Shape* shape, const Image* x, dim term, dim count, dim* off) noexcept nogil:
    """Where terms term .. term+count-1 of the reduction stand, in bytes from a pixel's first."""
    cdef dim row = term // shape.S if term > 0 else 0
    cdef dim s = term - row * shape.S
    cdef dim c = row // shape.R if row > 0 else 0
    cdef dim r = row - c * shape.R
    cdef dim i
    for i in range(count):
        off[i] = c * x.c + r * x.h + s * shape.item
        s += 1
        if s == shape.S:
            s = 0
            r += 1
            if r == shape.R:
                r = 0
                c += 1


cdef inline void filter_block(const Shape* shape, const char* packed, const Image* x, char* y, dim n, dim panel,
                              dim j_first, dim j_count, char* workspace, vec* like) noexcept nogil:
    """Pixels j_first .. j_first+j_count-1 of y, counted along P x Q, for one panel of filters of image n."""
    cdef dim pixels = shape.P * shape.Q
    cdef dim terms = shape.C * shape.R * shape.S
    cdef dim k = panel * filter_width(shape)
    cdef int nv = <int> panel_vectors(shape, panel)
    cdef vec* t = <vec*> workspace
    cdef dim* pixel = <dim*> (workspace + PIXEL_BLOCK * NV * VECTOR_BYTES)
    cdef dim* off = pixel + PIXEL_BLOCK
    cdef const vec* init = <const vec*> packed + panel * NV * (1 + terms)
    cdef const vec* w = init + nv
    cdef dim tiles = ceil_div(j_count, MR)
    cdef int m = <int> (j_count // tiles)       # pixels in a tile; the first few have one more
    cdef dim longer = j_count % tiles
    cdef dim split_at = longer * (m + 1)
    cdef dim blocks = ceil_div(terms, FILTER_KC)
    cdef dim filters = min(filter_width(shape), shape.K - k)
    cdef dim block
    cdef FilterSweep g
    cdef Touch touch
    y += ((n * shape.K + k) * pixels + j_first) * shape.item
    touch.next = y
    touch.y_k = pixels * shape.item
    touch.bytes = j_count * shape.item
    touch.column = 0
    touch.lines = ceil_div(filters * (touch.bytes // LINE + 2), tiles * blocks)
    g.image = x.data + n * x.n
    g.off = off
    g.init_step = 0
    g.touch = &touch
    filter_pixels(shape, x, j_first, j_count, pixel)
    # Loop 2: the reduction, KC terms at a time, so that their weights stay in the first-level cache.
    for block in range(blocks):
        g.terms = min(FILTER_KC, terms - block * FILTER_KC)
        filter_offsets(shape, x, block * FILTER_KC, g.terms, off)
        # Loop 1: pixels, at most MR at a time, in tiles of two sizes that differ by one.
        filter_tiles_any(&g, w, pixel, init, t, longer, m + 1, nv)
        filter_tiles_any(&g, w, pixel + split_at, init + split_at * g.init_step, t + split_at * nv, tiles - longer, m,
                         nv)
        w += g.terms * nv
        init = t
        g.init_step = nv
    filter_store(t, nv, j_count, filters, y, touch.y_k)


cdef dim filter_tasks(const Shape* shape) noexcept nogil:
    return shape.N * filter_panels(shape) * filter_blocks(shape)


cdef void filter_run(const Shape* shape, const char* packed, const Image* x, char* y, dim task,
                     char* workspace) noexcept nogil:
    cdef dim blocks = filter_blocks(shape)
    cdef dim panels = filter_panels(shape)
    cdef dim row = task // blocks if blocks > 1 else task
    cdef dim block = task - row * blocks
    cdef dim n = row // panels if panels > 1 else row
    cdef dim panel = row - n * panels
    cdef dim first = split(shape.P * shape.Q, blocks, block)
    cdef dim count = split(shape.P * shape.Q, blocks, block + 1) - first
    if shape.dtype == FLOAT32:
        filter_block(shape, packed, x, y, n, panel, first, count, workspace, <f32v*> NULL)
    else:
        filter_block(shape, packed, x, y, n, panel, first, count, workspace, <f64v*> NULL)


cdef dim filter_workspace_bytes(const Shape* shape) noexcept nogil:
    return PIXEL_BLOCK * (NV * VECTOR_BYTES + sizeof(dim)) + FILTER_KC * sizeof(dim)


cdef dim filter_packed_bytes(const Shape* shape) noexcept nogil:
    return ceil_div(shape.K * shape.item, VECTOR_BYTES) * VECTOR_BYTES * (1 + shape.C * shape.R * shape.S)


cdef void filter_pack(const Shape* shape, const Weights* w, char* packed) noexcept nogil:
    cdef dim panel, first, last, c, r, s, k, width
    memset(packed, 0, filter_packed_bytes(shape))
    for panel in range(filter_panels(shape)):
        first = panel * filter_width(shape)
        last = min(shape.K, first + filter_width(shape))
        width = panel_vectors(shape, panel) * VECTOR_BYTES
        if w.bias != NULL:
            memcpy(packed, w.bias + first * shape.item, (last - first) * shape.item)
        packed += width
        for c in range(shape.C):
            for r in range(shape.R):
                for s in range(shape.S):
                    for k in range(first, last):
                        copy_scalar(packed + (k - first) * shape.item,
                                    w.data + k * w.k + c * w.c + r * w.r + s * w.s, shape.item)
                    packed += width


cdef double filter_cost(const Shape* shape) noexcept nogil:
    cdef double terms = <double> shape.C * shape.R * shape.S
    cdef double pixels = <double> shape.P * shape.Q
    cdef double vectors = ceil_div(shape.K * shape.item, VECTOR_BYTES)
    cdef double panels = filter_panels(shape)
    cdef double rows = min(<double> MR, pixels)
    # A term of a full tile issues rows * NV multiply-adds, but no faster than each can follow the one before it.
    cdef double term = max(rows * vectors / panels / ISSUE, <double> LATENCY)
    # Storing takes an accumulator through scratch and log2(lanes) shuffles.
    return pixels / rows * panels * (terms * term + 40) + pixels * vectors * 9 + terms * panels * 2
