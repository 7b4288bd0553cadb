# Pixels in the lanes: the image is read a vector of neighbouring columns at a time, and weights are broadcast. For few
# channels or few filters, and outputs at least a vector wide.
#
# Register tile: acc[k][i][v] += w[k,c,r,s] * x[c, p+i+r, q+s + v*lanes ..], k < km filters, i < mp rows of y,
# v < nv vectors. A vector of x, once loaded, serves every filter and every row of y whose window holds it, so
# km * mp <= PIXEL_MR rows of the tile share one load. Each output is one chain of multiply-adds over c, then r, then s,
# that begins at the bias: its bits don't depend on the tile it falls into. So the last tile of a row may
# overlap its neighbour and write the same bits again; no load leaves the rows of x.
#
# One filter of 3 x 3 keeps its weights in registers, all of a channel's, and its tile is twice as high (window_tile). A
# few filters of 1 x 1 take less time than x takes to arrive, which it does soonest in few and long pieces: they go
# along it a few channels at a time, and y, in a cache, waits for the others (stream_tile).
#
# x is read in place, or, where it is padded or has a stride along its rows, from a stage: the rows that the task sees
# (of one filter of 3 x 3 and zeros around x, those of its first and last tiles), [c][h][phase][column]. Phase f of a
# row holds columns f, f + q_step, ...: what neighbouring pixels see, side by side. A table says where in a row each
# column of a filter begins; or, for tiles of one row of y, where in a channel each of its values does: to them it is a
# filter of 1 x R S.
#
# Where a row of tiles sees more of x than a cache holds, the reduction is cut into parts of a few channels: each is
# staged for a band of y, which goes on from the sums of those before. A tile that overlaps another would add to some of
# these twice, and gets them back as they were (keep_sums).
#
# Outputs narrower than a vector are computed flat. Their stage is [c][phase][row phase][row][column], so that each
# value of a filter sees its rows of x as one sequence, which to the tile is one row. What falls between two rows of y
# is dropped when the sequence is cut into rows.
#
# Packed weights: for each group, K vectors that hold each filter's bias in every lane, then, for each panel of up to
# PIXEL_MR filters, [c][s][r][filter in panel]: what a row of x meets in rows of y below each other stands together. Or
# [c][r][s][filter in panel], for tiles of one row.

cdef enum:
    PIXEL_TASKS = 32            # bands of rows in all images: enough for many cores, few enough to cost nothing
    LEAST_WORK = 300_000        # multiply-adds and staged values in a task: where groups are small, it has several
    WIDEST_STRIP = 2048         # columns
    NARROWEST_STRIP = 256
    LEAST_COLUMNS = 64          # of a strip that is narrower for its stage
    CACHE_BYTES = 32 * 1024     # of the first level
    CACHE_WAYS = 8
    CACHE_PAGE = CACHE_BYTES // CACHE_WAYS      # bytes; what is as far apart has the same places in it
    FRESH = 12                  # bytes that one from farther away delivers in a cycle
    NEAR_IMAGE = 10 << 20       # bytes of x that one of the third level holds and delivers fast enough
    AHEAD = 3                   # tiles from one to that whose row of x it asks for,
    FAR_AHEAD = 7               # and of 1 x 1 filters, which take each value once, in an image that isn't near
    WINDOW = 3                  # rows and columns of a filter whose weights fit the registers
    WINDOW_NV = PIXEL_NV // 2   # vectors beside them and PIXEL_MR rows of sums
    PART_TERMS = 96             # of the reduction in a part, about, where there are several
    WINDOW_BYTES = 64 * 1024    # of x, that a cache holds while tiles pass over it
    FAR_LINE_CYCLES = 4         # that a line of x takes to come from a third-level cache
    STREAM_KM = 3               # filters of 1 x 1, at most, and
    STREAM_CM = 4               # channels, whose weights fit the registers
    STREAM_COLUMNS = 65536      # of a strip then

cdef struct PixelTile:
    dim C, R, S
    const char* w           # of a panel of filters: weights,
    const char* bias        # and biases, a vector each
    const dim* column       # where the columns of a filter begin, in bytes
    const dim* columns_end
    dim x_c, x_h            # byte strides of x, from one row of a filter to the next
    dim y_k, y_p            # byte strides of y
    dim ahead               # bytes from a row of x to what is asked for with it: tiles farther right see it last
    dim left, width         # columns before x, where rows of a padded image are read in place, and of x
    # Of rows of tiles, whose last one moves left, over its neighbour:
    dim tiles, back         # in a row, and bytes that it moves
    dim x_row, y_row        # from there to the first tile of the next row
    dim rows, row_tiles     # that are left, and tiles of the row: counted down here, and not in registers

cdef struct PixelStage:
    # How a block's rows of x are staged: row h at h % row_phases * row_phase + h // row_phases * pitch. Of those that
    # are read in place, only their pitch, and c.
    dim parts                   # of the channels, each staged in turn
    bint flat
    dim columns                 # in a phase of a row
    dim rows                    # of a row phase, in the largest block
    dim row_phases, row_phase
    dim pitch                   # of a row
    dim phase                   # bytes from one phase of columns to the next
    dim c                       # and from one channel to the next

cdef struct PixelBlock:
    # What one task computes: these rows and columns, of the filters of these panels, of a group of image n.
    dim n, group, p_first, p_last, q_first, q_last, panel_first, panel_last


cdef inline void pixel_row(vec* acc, const char* x, const char* w, dim w_step, const PixelTile* g, int km, int mp,
                           int nv, int first, int last) noexcept nogil:
    """One row of x into rows first .. last-1 of y in the tile; w points at the weights that row 0 of y would take."""
    cdef vec b[PIXEL_NV]
    cdef dim item = itemsize(acc)
    # Pointers that step: each other addition in this loop takes the place of a multiply-add.
    cdef const dim* column = g.column
    cdef const vec* at
    cdef int k, i, v
    x = in_register(x)
    if mp == 1:
        for v in range(nv):
            prefetch(x + g.ahead + v * VECTOR_BYTES)
    while True:
        at = <const vec*> (x + column[0])
        for v in range(nv):
            b[v] = at[v]
        for k in range(km):
            for i in range(first, last):
                for v in range(nv):
                    acc[(k * mp + i) * nv + v] = fma(acc[(k * mp + i) * nv + v], b[v], w + (k - i * km) * item)
        w += w_step
        column += 1
        if column == g.columns_end: break


cdef inline void pixel_tile(PixelTile* g, const char* x, vec* y, int km, int mp, int nv, bint more) noexcept nogil:
    """km filters x mp rows x nv vectors of y, in rows of tiles beside each other. Assumes mp <= R.

    Sums begin at the biases; with `more`, at what y has of channels before. Counts g.rows and g.row_tiles down.
    """
    cdef vec acc[PIXEL_MR * PIXEL_NV]
    # More filters than half of PIXEL_MR leave no second row: what they see is a row of R S values (pixel_single).
    cdef dim R = 1 if 2 * km > PIXEL_MR else g.R
    cdef dim w_r = km * itemsize(y)
    cdef dim w_s = R * w_r
    cdef dim c, h
    cdef const char* w
    cdef const char* channel
    cdef const char* row
    cdef const char* taken
    cdef int k, i, v
    while True:
        channel = x
        w = g.w
        c = g.C
        for k in range(km):
            for i in range(mp):
                for v in range(nv):
                    if more:
                        acc[(k * mp + i) * nv + v] = (<vec*> (<char*> y + k * g.y_k + i * g.y_p))[v]
                    else:
                        acc[(k * mp + i) * nv + v] = (<const vec*> (g.bias + k * VECTOR_BYTES))[0]
        # Each loop runs once at least. Were that left open, the compiler would take the sums through memory.
        while True:
            # A row of x enters the tile at its first row of y, later ones reach all rows, the last leave row by row.
            row = channel
            taken = w
            if mp > 1: pixel_row(acc, row, taken, w_s, g, km, mp, nv, 0, 1)
            if mp > 2: pixel_row(acc, row + g.x_h, taken + w_r, w_s, g, km, mp, nv, 0, 2)
            if mp > 3: pixel_row(acc, row + 2 * g.x_h, taken + 2 * w_r, w_s, g, km, mp, nv, 0, 3)
            if mp > 4: pixel_row(acc, row + 3 * g.x_h, taken + 3 * w_r, w_s, g, km, mp, nv, 0, 4)
            if mp > 5: pixel_row(acc, row + 4 * g.x_h, taken + 4 * w_r, w_s, g, km, mp, nv, 0, 5)
            row += (mp - 1) * g.x_h
            taken += (mp - 1) * w_r
            h = R - mp
            while True:
                pixel_row(acc, row, taken, w_s, g, km, mp, nv, 0, mp)
                row += g.x_h
                taken += w_r
                h -= 1
                if h < 0: break
            if mp > 1: pixel_row(acc, row, taken, w_s, g, km, mp, nv, 1, mp)
            if mp > 2: pixel_row(acc, row + g.x_h, taken + w_r, w_s, g, km, mp, nv, 2, mp)
            if mp > 3: pixel_row(acc, row + 2 * g.x_h, taken + 2 * w_r, w_s, g, km, mp, nv, 3, mp)
            if mp > 4: pixel_row(acc, row + 3 * g.x_h, taken + 3 * w_r, w_s, g, km, mp, nv, 4, mp)
            if mp > 5: pixel_row(acc, row + 4 * g.x_h, taken + 4 * w_r, w_s, g, km, mp, nv, 5, mp)
            channel += g.x_c
            w += g.S * w_s
            c -= 1
            if c == 0: break
        for k in range(km):
            for i in range(mp):
                for v in range(nv):
                    (<vec*> (<char*> y + k * g.y_k + i * g.y_p))[v] = acc[(k * mp + i) * nv + v]
        g.row_tiles -= 1
        if g.row_tiles > 0:
            x += nv * VECTOR_BYTES
            y += nv
            if g.row_tiles == 1:
                x -= g.back
                y = <vec*> (<char*> y - g.back)
        else:
            g.rows -= 1
            if g.rows == 0: break
            g.row_tiles = g.tiles
            x += g.x_row
            y = <vec*> (<char*> y + g.y_row)


cdef inline vec some_lanes(const char* address, dim first, dim last, const vec* like) noexcept nogil:
    """As load_lanes, of any type."""
    if itemsize(like) == 4:
        return <vec> load_lanes(address, first, last, <f32v*> NULL)
    return <vec> load_lanes(address, first, last, <f64v*> NULL)


cdef inline void window_row(vec* acc, const PixelTile* g, const char* x, const char* w, dim q, int nv, bint masked,
                            int row, int first, int last) noexcept nogil:
    """A row of x, of those that the tile sees from x on, into rows first .. last-1 of y."""
    cdef vec b
    cdef dim before
    cdef int s, i, v
    x = in_register(x + row * g.x_h)
    prefetch(x + g.ahead)
    for s in range(WINDOW):
        for v in range(nv):
            if masked:
                before = g.left - q - g.column[s] // itemsize(acc)
                b = some_lanes(x + g.column[s], before, before + g.width, acc)
            else:
                b = (<const vec*> (x + g.column[s]))[v]
            read_once(b)
            for i in range(first, last):
                acc[i * nv + v] = fma(acc[i * nv + v], b, w + (s * WINDOW + row - i) * itemsize(acc))


cdef inline void window_tile(const PixelTile* g, const char* x, vec* y, dim q, int nv, bint masked,
                             bint more) noexcept nogil:
    """As pixel_tile, of one filter of WINDOW x WINDOW, whose weights stay in registers. PIXEL_MR rows of y.

    What it sees beside x is zeros, if `masked`, and q the first of its pixels in y.
    """
    cdef vec acc[PIXEL_MR * PIXEL_NV]
    cdef const char* w = g.w
    cdef dim c = g.C
    cdef int i, v
    for i in range(PIXEL_MR):
        for v in range(nv):
            acc[i * nv + v] = (<vec*> (<char*> y + i * g.y_p))[v] if more else (<const vec*> g.bias)[0]
    while True:
        window_row(acc, g, x, w, q, nv, masked, 0, 0, 1)
        window_row(acc, g, x, w, q, nv, masked, 1, 0, 2)
        window_row(acc, g, x, w, q, nv, masked, 2, 0, 3)
        window_row(acc, g, x, w, q, nv, masked, 3, 1, 4)
        window_row(acc, g, x, w, q, nv, masked, 4, 2, 5)
        window_row(acc, g, x, w, q, nv, masked, 5, 3, 6)
        window_row(acc, g, x, w, q, nv, masked, 6, 4, 6)
        window_row(acc, g, x, w, q, nv, masked, 7, 5, 6)
        x += g.x_c
        w += WINDOW * WINDOW * itemsize(y)
        c -= 1
        if c == 0: break
    for i in range(PIXEL_MR):
        for v in range(nv):
            (<vec*> (<char*> y + i * g.y_p))[v] = acc[i * nv + v]


cdef inline bint inside(const PixelTile* g, dim q, dim pixels, dim item) noexcept nogil:
    """Whether these pixels of y see nothing beside x."""
    return q >= g.left and q + pixels + g.column[WINDOW - 1] // item <= g.left + g.width


cdef inline void window_tiles(const PixelTile* g, const char* x, vec* y, dim q, dim vectors,
                              bint more) noexcept nogil:
    """PIXEL_MR rows of y, any number of vectors wide, from pixel q on."""
    cdef dim item = itemsize(y)
    cdef dim lanes = sizeof(vec) // item
    cdef dim last = q + vectors * lanes
    while q < last:
        if q + WINDOW_NV * lanes <= last and inside(g, q, WINDOW_NV * lanes, item):
            window_tile(g, x, y, q, WINDOW_NV, False, more)
            x += WINDOW_NV * VECTOR_BYTES
            y += WINDOW_NV
            q += WINDOW_NV * lanes
            continue
        if WINDOW_NV > 1 and inside(g, q, lanes, item):
            window_tile(g, x, y, q, 1, False, more)
        else:
            window_tile(g, x, y, q, 1, True, more)
        x += VECTOR_BYTES
        y += 1
        q += lanes


# As pixel_tile_any.
cdef void window_tiles_any(const PixelTile* g, const char* x, vec* y, dim q, dim vectors, bint more) noexcept nogil:
    if not more:
        window_tiles(g, x, y, q, vectors, False)
    elif vec is f32v or vec is f64v:
        window_tiles(g, x, y, q, vectors, True)


# The variants are one loop nest: km, mp and nv become constants of a copy that the compiler unrolls.

cdef inline void pixel_tile_nv(PixelTile* g, const char* x, vec* y, int km, int mp, int nv, bint more) noexcept nogil:
    if mp == 1:
        if km == 1: pixel_tile(g, x, y, 1, 1, nv, more)
        elif km == 2: pixel_tile(g, x, y, 2, 1, nv, more)
        elif km == 3: pixel_tile(g, x, y, 3, 1, nv, more)
        elif km == 4: pixel_tile(g, x, y, 4, 1, nv, more)
        elif km == 5: pixel_tile(g, x, y, 5, 1, nv, more)
        else: pixel_tile(g, x, y, 6, 1, nv, more)
    elif km == 1:
        if mp == 2: pixel_tile(g, x, y, 1, 2, nv, more)
        elif mp == 3: pixel_tile(g, x, y, 1, 3, nv, more)
        elif mp == 4: pixel_tile(g, x, y, 1, 4, nv, more)
        elif mp == 5: pixel_tile(g, x, y, 1, 5, nv, more)
        else: pixel_tile(g, x, y, 1, 6, nv, more)
    elif km == 2:
        if mp == 2: pixel_tile(g, x, y, 2, 2, nv, more)
        else: pixel_tile(g, x, y, 2, 3, nv, more)
    else: pixel_tile(g, x, y, 3, 2, nv, more)


cdef inline void pixel_tile_more(PixelTile* g, const char* x, vec* y, int km, int mp, int nv, bint more) noexcept nogil:
    if nv == 1: pixel_tile_nv(g, x, y, km, mp, 1, more)
    elif nv == 2: pixel_tile_nv(g, x, y, km, mp, 2, more)
    elif PIXEL_NV == 4:
        if nv == 3: pixel_tile_nv(g, x, y, km, mp, 3, more)
        else: pixel_tile_nv(g, x, y, km, mp, 4, more)


# As filter_tile_any is, not inlined. With `more`, there are no integers.
cdef void pixel_tile_any(PixelTile* g, const char* x, vec* y, int km, int mp, int nv, bint more) noexcept nogil:
    if not more:
        pixel_tile_more(g, x, y, km, mp, nv, False)
    elif vec is f32v or vec is f64v:
        pixel_tile_more(g, x, y, km, mp, nv, True)


cdef inline void stream_tile(const PixelTile* g, const char* x, const char* w, vec* y, dim vectors, int km, int cm,
                             bint more) noexcept nogil:
    """cm channels into a row of y of each of km filters of 1 x 1. `more` as in pixel_tile."""
    cdef vec scalars[STREAM_KM * STREAM_CM]
    cdef vec acc[STREAM_KM]
    cdef vec b
    cdef int c, k
    for c in range(cm):
        for k in range(km):
            scalars[c * km + k] = broadcast(w + (c * km + k) * itemsize(y), y)
    while True:
        for k in range(km):
            acc[k] = (<vec*> (<char*> y + k * g.y_k))[0] if more else (<const vec*> (g.bias + k * VECTOR_BYTES))[0]
        for c in range(cm):
            prefetch(x + c * g.x_c + g.ahead)
            b = (<const vec*> (x + c * g.x_c))[0]
            for k in range(km):
                acc[k] = multiply_add(acc[k], b, scalars[c * km + k])
        for k in range(km):
            (<vec*> (<char*> y + k * g.y_k))[0] = acc[k]
        x += VECTOR_BYTES
        y += 1
        vectors -= 1
        if vectors == 0: break


cdef inline void stream_tile_km(const PixelTile* g, const char* x, const char* w, vec* y, dim vectors, int km, int cm,
                                bint more) noexcept nogil:
    if km == 1: stream_tile(g, x, w, y, vectors, 1, cm, more)
    elif km == 2: stream_tile(g, x, w, y, vectors, 2, cm, more)
    else: stream_tile(g, x, w, y, vectors, 3, cm, more)


cdef void stream_tiles(const PixelTile* g, const char* x, vec* y, int km, dim vectors) noexcept nogil:
    """A row of y of each filter, any number of vectors wide."""
    cdef const char* w = g.w
    cdef dim c = 0
    cdef int cm
    while c < g.C:
        cm = STREAM_CM if g.C - c >= STREAM_CM else 1
        if cm == STREAM_CM:
            stream_tile_km(g, x, w, y, vectors, km, STREAM_CM, c > 0)
        else:
            stream_tile_km(g, x, w, y, vectors, km, 1, c > 0)
        x += cm * g.x_c
        w += cm * km * itemsize(y)
        c += cm


cdef inline int tile_vectors(dim left) noexcept nogil:
    """Vectors in the next tile of a row: all it can hold, but the last two share evenly what is left for them."""
    if PIXEL_NV < left < 2 * PIXEL_NV:
        return <int> ((left + 1) // 2)
    return <int> min(PIXEL_NV, left)


cdef inline dim pixel_panels(const Shape* shape) noexcept nogil:
    return max(1, ceil_div(shape.K, PIXEL_MR))


cdef inline dim panel_filters(const Shape* shape) noexcept nogil:
    """Filters in the widest panel; the others have as many, or one less."""
    return max(1, ceil_div(shape.K, pixel_panels(shape)))


cdef inline bint pixel_flat(const Shape* shape) noexcept nogil:
    return shape.Q < lanes_of(shape)


cdef inline int shared_rows(const Shape* shape) noexcept nogil:
    """Rows of y that what the filters leave of PIXEL_MR has room for, but no more than a row of x can reach."""
    if shape.p_step > 1 or shape.r_step > 1 or pixel_flat(shape):
        return 1
    return <int> min(PIXEL_MR // panel_filters(shape), shape.R)


cdef inline bint pixel_single(const Shape* shape) noexcept nogil:
    """Tiles are of one row of y. To them a filter is one of 1 x R S: the loop over its rows costs more than a table."""
    return shared_rows(shape) == 1


cdef inline bint pixel_window(const Shape* shape) noexcept nogil:
    """One filter of 3 x 3, every row of which each row of x meets. P decides on tiles only, not on packed weights."""
    return shape.K == 1 and shape.S == WINDOW and shared_rows(shape) == WINDOW and shape.P >= PIXEL_MR


cdef inline bint pixel_streams(const Shape* shape) noexcept nogil:
    """A few filters of 1 x 1, that read x where it stands."""
    return shape.R == 1 == shape.S and shape.K <= STREAM_KM and not pixel_staged(shape)


cdef inline int pixel_rows(const Shape* shape) noexcept nogil:
    """Rows of y in a full tile."""
    return PIXEL_MR if pixel_window(shape) else <int> min(shared_rows(shape), shape.P)


cdef inline bint is_near(const Shape* shape) noexcept nogil:
    """Whether a cache holds an image since it was made."""
    return shape.C * shape.H * shape.W * shape.item <= NEAR_IMAGE


cdef inline bint pixel_staged(const Shape* shape) noexcept nogil:
    return shape.gathered or shape.q_step > 1 or pixel_flat(shape) or channel_parts(shape) > 1


cdef inline dim channel_parts(const Shape* shape) noexcept nogil:
    """That the reduction is cut into, of whole channels: one if a cache holds the rows of x that a row of tiles sees.

    Or if x is near, and could be read in place: staged for that, it would take longer.
    """
    cdef dim taps = shape.R * shape.S
    cdef dim parts = shape.C * taps // PART_TERMS
    if (parts <= 1 or taps == 1 or not is_float(shape) or pixel_flat(shape)
            or shape.C * reach_h(shape, pixel_rows(shape)) * min(shape.W, WIDEST_STRIP) * shape.item <= WINDOW_BYTES):
        return 1
    if is_near(shape) and not shape.gathered and shape.q_step == 1 and not pixel_window(shape):
        return 1
    return min(parts, shape.C)


cdef inline dim part_channels(const Shape* shape) noexcept nogil:
    """Channels in the largest part."""
    cdef dim parts = channel_parts(shape)
    return shape.C if parts == 1 else ceil_div(shape.C, parts)


cdef inline dim pixel_columns(const Shape* shape) noexcept nogil:
    """Columns of y in the widest strip that is staged: fewer where what a row of y sees wouldn't fit."""
    cdef dim columns = min(shape.Q, <dim> 2 * NARROWEST_STRIP)
    cdef dim bytes_seen = part_channels(shape) * reach_h(shape, pixel_rows(shape)) * shape.item   # of a column
    while columns > LEAST_COLUMNS and reach_w(shape, columns) * bytes_seen > STAGE_BYTES:
        columns = max(<dim> LEAST_COLUMNS, columns // 2)
    return columns


cdef inline PixelStage pixel_stage(const Shape* shape, dim rows) noexcept nogil:
    """The stage of a block of `rows` rows of y; zeros where x is read in place."""
    cdef PixelStage g
    memset(&g, 0, sizeof(PixelStage))
    g.parts = channel_parts(shape)
    if not pixel_staged(shape):
        return g
    g.flat = pixel_flat(shape)
    g.row_phases = shape.p_step if g.flat else 1
    g.rows = divided(reach_h(shape, rows) + g.row_phases - 1, g.row_phases)
    g.columns = phase_columns(shape, pixel_columns(shape))
    g.pitch = g.columns * shape.item
    g.row_phase = g.rows * g.pitch
    g.phase = g.row_phases * g.row_phase
    if phases_across(shape) == 2 or g.row_phases > 1:
        g.phase += VECTOR_BYTES     # which gathering may overwrite
    g.c = phases_across(shape) * g.phase
    if not g.flat:
        g.phase = g.pitch
        g.pitch *= phases_across(shape)
    return g


cdef inline dim staged_row_bytes(const Shape* shape) noexcept nogil:
    """Of a row of x in a stage."""
    return phase_columns(shape, pixel_columns(shape)) * phases_across(shape) * shape.item


cdef inline dim flat_bytes(const Shape* shape, const PixelStage* g, dim rows) noexcept nogil:
    """Of `rows` rows of y as a sequence, in whole vectors."""
    return whole_vectors(((rows - 1) * g.columns + shape.Q) * shape.item)


cdef inline dim tap(const Shape* shape, const PixelStage* g, dim r, dim s) noexcept nogil:
    """Where in a channel what a value of the filter sees begins."""
    r *= shape.r_step
    s *= shape.s_step
    if g.row_phases > 1:
        r = r % g.row_phases * g.rows + r // g.row_phases
    if shape.q_step > 1:
        return r * g.pitch + s % shape.q_step * g.phase + s // shape.q_step * shape.item
    return r * g.pitch + s * shape.item


cdef inline dim table_bytes(const Shape* shape) noexcept nogil:
    """Of the table of columns, which begins a workspace; a multiple of a cache line."""
    return whole_lines((shape.R * shape.S if pixel_single(shape) else shape.S) * sizeof(dim))


cdef inline void fill_table(const Shape* shape, const PixelStage* g, dim* column) noexcept nogil:
    cdef dim r, s
    for r in range(shape.R if pixel_single(shape) else 1):
        for s in range(shape.S):
            column[r * shape.S + s] = tap(shape, g, r, s)


cdef void stage_band(const Shape* shape, const PixelStage* g, const Image* x, const char* image,
                     const PixelBlock* block, dim first_c, dim last_c, char* stage, char* line) noexcept nogil:
    """The rows of channels first_c .. last_c-1 that a block sees."""
    cdef dim rows = reach_h(shape, block.p_last - block.p_first)
    cdef dim phase
    cdef Rows seen
    seen.c, seen.channels, seen.c_pitch = first_c, last_c - first_c, g.c
    seen.h_step, seen.pitch, seen.phase = g.row_phases, g.pitch, g.phase
    seen.first = block.q_first * shape.q_step
    seen.count = reach_w(shape, block.q_last - block.q_first)
    seen.masked = can_mask(shape, x, seen.first, seen.count)
    for phase in range(g.row_phases):
        seen.h = block.p_first * shape.p_step + phase
        seen.rows = divided(rows - phase + g.row_phases - 1, g.row_phases)
        gather_phases(shape, x, image, &seen, stage + phase * g.row_phase, line)


cdef void cut_rows(const Shape* shape, const PixelStage* g, const char* sums, dim sums_k, char* y, dim filters,
                   dim rows) noexcept nogil:
    """The rows of y from their sequence, for each filter."""
    cdef dim k, p
    for k in range(filters):
        for p in range(rows):
            copy_bytes(y + (k * shape.P + p) * shape.Q * shape.item, sums + k * sums_k + p * g.pitch,
                       shape.Q * shape.item)


cdef inline void keep_sums(const PixelTile* g, char* y, int km, int mp, dim count, char* kept,
                           bint again) noexcept nogil:
    """The first `count` bytes of a tile's rows, which the tile before has completed; with `again`, after it, back."""
    cdef int k, i
    for k in range(km if count > 0 else 0):
        for i in range(mp):
            if again:
                memcpy(y + k * g.y_k + i * g.y_p, kept, count)
            else:
                memcpy(kept, y + k * g.y_k + i * g.y_p, count)
            kept += VECTOR_BYTES


cdef inline void pixel_panel(PixelTile* g, const PixelBlock* area, const char* image, dim p_step, char* y,
                             int rows, int km, bint streams, bint more, vec* like) noexcept nogil:
    """A part of the reduction into an area of y, for a panel of filters. From a row of y to the next, p_step in x."""
    cdef dim item = itemsize(like)
    cdef dim lanes = sizeof(vec) // item
    cdef dim p = area.p_first
    cdef dim q, done, left, vectors, many
    cdef const char* at
    cdef char* to
    cdef char kept[PIXEL_MR * VECTOR_BYTES]
    cdef int mp, nv
    # Loop 2: rows of y, mp at a time.
    while p < area.p_last:
        # A tile that is higher than the filter is so for all its rows; those that are left are computed as others.
        mp = rows if rows <= area.p_last - p else <int> min(area.p_last - p, g.R)
        many = mp
        # Loop 1: columns of y, nv vectors at a time; the last moves left to end with the block.
        q = area.q_first
        while q < area.q_last:
            left = ceil_div(area.q_last - q, lanes)
            nv = tile_vectors(left)
            done = q
            if q + nv * lanes > area.q_last:
                if nv * lanes > area.q_last - area.q_first:
                    nv -= 1     # the block is at least one vector wide
                else:
                    q = area.q_last - nv * lanes
            at = image + p * p_step + q * item
            to = y + p * g.y_p + q * item
            vectors = (area.q_last - q) // lanes
            if more:
                keep_sums(g, to, km, mp, (done - q) * item, kept, False)
            if mp > g.R:
                window_tiles_any(g, at, <vec*> to, q, vectors, more)
            elif streams:
                stream_tiles(g, at, <vec*> to, km, vectors)
            else:
                g.rows = 1
                g.back = 0
                if q == area.q_first and left % nv == 0 and not more:
                    # All rows at once: their tiles are alike, and none adds to sums of another.
                    g.tiles = left // nv
                    g.rows = (area.p_last - p) // mp
                    many = g.rows * mp
                    g.back = (left * lanes - area.q_last + q) * item
                    g.x_row = mp * p_step - (area.q_last - q - nv * lanes) * item
                    g.y_row = mp * g.y_p - (area.q_last - q - nv * lanes) * item
                else:
                    # Those that are whole; but the last two of wide ones share what is left for them (tile_vectors).
                    g.tiles = max(<dim> 1, vectors // PIXEL_NV - (left % PIXEL_NV > 0 and PIXEL_NV > 2))
                g.row_tiles = g.tiles
                vectors = g.tiles * nv
                pixel_tile_any(g, at, <vec*> to, km, mp, nv, more)
            if more:
                keep_sums(g, to, km, mp, (done - q) * item, kept, True)
            q += vectors * lanes
        p += many


cdef inline void pixel_block(const Shape* shape, const PixelStage* stage, const char* packed, const Image* x, char* y,
                             const PixelBlock* block, char* workspace, vec* like) noexcept nogil:
    """Assumes that the block is at least a vector wide, or flat."""
    cdef dim item = itemsize(like)
    cdef dim panels = pixel_panels(shape)
    cdef dim fewest = divided(shape.K, panels)      # filters in a panel; the first few have one more
    cdef dim wider = shape.K - fewest * panels
    cdef dim terms = shape.C * shape.R * shape.S
    cdef int rows = pixel_rows(shape)
    cdef dim k = split(shape.K, panels, block.panel_first)
    cdef const char* biases = packed + block.group * pixel_group_bytes(shape)
    cdef const char* image = x.data + block.n * x.n + block.group * shape.C * x.c
    cdef char* values = workspace + table_bytes(shape)
    cdef char* sums = values
    cdef char* y_panel
    cdef char* to
    cdef const char* w
    cdef const char* part_image
    cdef dim x_h = stage.pitch
    cdef PixelTile g
    cdef PixelBlock area = block[0]         # of the sequence, if y is computed flat
    cdef dim taps = shape.R * shape.S
    cdef dim p, panel, part, c
    cdef int km
    cdef bint streams = pixel_streams(shape)
    g.R, g.S = shape.R, shape.S
    g.column = <const dim*> workspace
    g.x_c = stage.c
    g.y_p = shape.Q * item
    g.y_k = shape.P * g.y_p
    y += ((block.n * shape.G + block.group) * shape.K + k) * g.y_k
    g.left, g.width = 0, ROOM
    if stage.rows > 0:
        sums += part_channels(shape) * stage.c + VECTOR_BYTES
    else:
        g.left, g.width = x.left, shape.W
        p = block.p_first * shape.p_step
        image += (source_row(x, p) - p) * x_h - x.left * item
    if pixel_single(shape):
        g.R, g.S = 1, taps
    if stage.flat:
        g.y_k = flat_bytes(shape, stage, block.p_last - block.p_first)
        area.p_first, area.p_last, area.q_first, area.q_last = 0, 1, 0, g.y_k // item
        y += block.p_first * g.y_p
    g.x_h = shape.r_step * x_h
    g.ahead = (shape.R - g.R) * g.x_h
    g.ahead += (FAR_AHEAD if taps == 1 and not streams and not is_near(shape) else AHEAD) * PIXEL_NV * VECTOR_BYTES
    g.columns_end = g.column + g.S
    # Loop 4: parts of the reduction, each over rows of x that stay in a cache.
    for part in range(stage.parts):
        c = split(shape.C, stage.parts, part)
        g.C = split(shape.C, stage.parts, part + 1) - c
        if stage.rows > 0:
            stage_band(shape, stage, x, image, block, c, c + g.C, values, sums)
            part_image = values
            if not stage.flat:
                part_image -= block.p_first * shape.p_step * x_h + block.q_first * item
        else:
            part_image = image + c * x.c
        w = biases + shape.K * VECTOR_BYTES + k * terms * item
        g.bias = biases + k * VECTOR_BYTES
        y_panel = y
        # Loop 3: filters, a panel at a time, so that y is written in few streams.
        for panel in range(block.panel_first, block.panel_last):
            km = <int> (fewest + (panel < wider))
            g.w = w + c * taps * km * item
            to = sums if stage.flat else y_panel
            if part == 0:
                pixel_panel(&g, &area, part_image, shape.p_step * x_h, to, rows, km, streams, False, like)
            else:
                pixel_panel(&g, &area, part_image, shape.p_step * x_h, to, rows, km, streams, True, like)
            if stage.flat:
                cut_rows(shape, stage, sums, g.y_k, y_panel, km, block.p_last - block.p_first)
            w += km * terms * item
            g.bias += km * VECTOR_BYTES
            y_panel += km * shape.P * shape.Q * item


cdef struct PixelGrid:
    # How y is cut into tasks: by images and groups, then bands of rows, strips of columns, and sets of filter panels.
    dim bands, strips, sets
    dim tile                    # rows that aren't parted
    dim rows                    # in the largest band, if there is a stage for them
    dim groups                  # of all images in a task, where they aren't parted


cdef inline PixelGrid pixel_grid(const Shape* shape, int workers) noexcept nogil:
    """Bands; where a task would take long, more bands, then strips, then sets. A stage fits STAGE_BYTES.

    Where there are few tasks, bands that are as many for each worker, or more sets.
    """
    cdef PixelGrid grid
    cdef double work = <double> shape.P * shape.Q * shape.K * shape.C * shape.R * shape.S
    cdef dim images = max(1, shape.N * shape.G)
    cdef dim tasks = long_tasks(work) + 1
    cdef dim rows
    grid.tile = pixel_rows(shape)
    grid.bands = min(ceil_div(shape.P, PIXEL_MR), max(ceil_div(PIXEL_TASKS, images), tasks))
    grid.strips = max(1, shape.Q // WIDEST_STRIP)
    if pixel_streams(shape):
        grid.strips = max(min(grid.strips, 4 * workers if workers > 1 else 1), shape.Q // STREAM_COLUMNS)
    grid.sets = 1
    grid.groups = 1
    if pixel_staged(shape):
        grid.strips = ceil_div(shape.Q, pixel_columns(shape))
        rows = (STAGE_BYTES // (part_channels(shape) * staged_row_bytes(shape)) - reach_h(shape, 1)) // shape.p_step + 1
        if rows < grid.tile:
            grid.tile = 1
        grid.bands = max(grid.bands, ceil_div(shape.P, max(1, rows // grid.tile * grid.tile)))
    elif tasks > grid.bands * grid.strips:
        grid.strips = max(grid.strips, min(shape.Q // NARROWEST_STRIP, ceil_div(tasks, grid.bands)))
    if tasks > grid.bands * grid.strips:
        grid.sets = min(pixel_panels(shape), ceil_div(tasks, grid.bands * grid.strips))
    grid.bands = even_blocks(grid.bands, ceil_div(shape.P, grid.tile), images * grid.strips * grid.sets, workers)
    tasks = images * grid.bands * grid.strips * grid.sets
    if tasks < 4 * workers and tasks % workers != 0:
        grid.sets = min(pixel_panels(shape), grid.sets * ceil_div(4 * workers, tasks))
    grid.rows = 0
    if pixel_staged(shape):
        grid.rows = min(shape.P, ceil_div(ceil_div(shape.P, grid.tile), grid.bands) * grid.tile)
    if grid.bands * grid.strips * grid.sets == 1 and shape.N * shape.G > 1:
        grid.groups = <dim> (LEAST_WORK / (work + 10.0 * shape.C * shape.H * shape.W + 1)) + 1
        grid.groups = min(grid.groups, ceil_div(shape.N * shape.G, PIXEL_TASKS))
    return grid


cdef dim pixel_tasks(const Shape* shape, int workers) noexcept nogil:
    cdef PixelGrid grid = pixel_grid(shape, workers)
    return ceil_div(shape.N * shape.G, grid.groups) * grid.bands * grid.strips * grid.sets


cdef inline bint rows_follow(const Image* x, dim h, dim count) noexcept nogil:
    """Whether these rows of the padded image follow each other in x."""
    cdef dim i
    if x.rows == NULL:
        return True
    for i in range(count):
        if x.rows[h] < 0 or x.rows[h + i] != x.rows[h] + i:
            return False
    return True


cdef inline void pixel_parts(const Shape* shape, const PixelStage* stage, const char* packed, const Image* x, char* y,
                             const PixelBlock* block, bint in_place, char* workspace, vec* like) noexcept nogil:
    """A block; of its tiles those that see rows of x alone in place, if their columns can be. Others are staged."""
    cdef PixelBlock part = block[0]
    cdef PixelStage place
    cdef const PixelStage* at
    cdef int i
    memset(&place, 0, sizeof(PixelStage))
    place.parts, place.pitch, place.c = stage.parts, x.h, x.c
    part.p_last = block.p_first
    for i in range(3):
        part.p_first = part.p_last
        at = stage
        if in_place and i == 1:
            at = &place
        if in_place and i < 2:
            while (part.p_last + PIXEL_MR <= block.p_last
                   and rows_follow(x, part.p_last, PIXEL_MR + WINDOW - 1) == (i == 1)):
                part.p_last += PIXEL_MR
        else:
            part.p_last = block.p_last
        if part.p_first < part.p_last:
            pixel_block(shape, at, packed, x, y, &part, workspace, like)


cdef inline void pixel_groups(const Shape* shape, const PixelStage* stage, const char* packed, const Image* x, char* y,
                              PixelBlock* block, dim groups, char* workspace, vec* like) noexcept nogil:
    """The same block of several groups, and images, in turn."""
    cdef dim columns = reach_w(shape, block.q_last - block.q_first)
    cdef bint in_place = (stage.rows > 0 and pixel_window(shape) and shape.q_step == 1
                          and can_mask(shape, x, block.q_first, columns))
    cdef dim _
    if stage.flat:
        # What is computed of memory that no pixel comes to is dropped, but takes long if that holds subnormal numbers.
        memset(workspace + table_bytes(shape), 0, part_channels(shape) * stage.c + VECTOR_BYTES)
    fill_table(shape, stage, <dim*> workspace)
    for _ in range(groups):
        pixel_parts(shape, stage, packed, x, y, block, in_place, workspace, like)
        block.group += 1
        if block.group == shape.G:
            block.group = 0
            block.n += 1


cdef void pixel_run(const Shape* shape, int workers, const char* packed, const Image* x, char* y, dim task,
                    char* workspace) noexcept nogil:
    cdef PixelGrid grid = pixel_grid(shape, workers)
    cdef PixelStage stage = pixel_stage(shape, grid.rows)
    cdef dim tiles = ceil_div(shape.P, grid.tile)
    cdef dim panels = pixel_panels(shape)
    cdef dim part = task % grid.sets
    cdef dim strip = task // grid.sets % grid.strips
    cdef dim band = task // grid.sets // grid.strips % grid.bands
    cdef dim image = task // grid.sets // grid.strips // grid.bands * grid.groups
    cdef dim groups = min(grid.groups, shape.N * shape.G - image)
    cdef PixelBlock block
    if not pixel_staged(shape):
        stage.pitch, stage.c = x.h, x.c
    block.n = image // shape.G
    block.group = image % shape.G
    block.p_first = grid.tile * split(tiles, grid.bands, band)
    block.p_last = min(shape.P, grid.tile * split(tiles, grid.bands, band + 1))
    block.q_first = split(shape.Q, grid.strips, strip)
    block.q_last = split(shape.Q, grid.strips, strip + 1)
    block.panel_first = split(panels, grid.sets, part)
    block.panel_last = split(panels, grid.sets, part + 1)
    if shape.dtype == FLOAT32:
        pixel_groups(shape, &stage, packed, x, y, &block, groups, workspace, <f32v*> NULL)
    elif shape.dtype == FLOAT64:
        pixel_groups(shape, &stage, packed, x, y, &block, groups, workspace, <f64v*> NULL)
    elif shape.dtype == INT32:
        pixel_groups(shape, &stage, packed, x, y, &block, groups, workspace, <i32v*> NULL)
    elif shape.dtype == INT64:
        pixel_groups(shape, &stage, packed, x, y, &block, groups, workspace, <i64v*> NULL)
    else:
        pixel_groups(shape, &stage, packed, x, y, &block, groups, workspace, <p32v*> NULL)


cdef dim pixel_workspace_bytes(const Shape* shape, int workers) noexcept nogil:
    """The table of columns; a stage, with room behind it for a vector; then a line of x or a panel's sums."""
    cdef dim table = table_bytes(shape)
    cdef dim line = reach_w(shape, pixel_columns(shape)) * shape.item
    cdef PixelGrid grid
    cdef PixelStage stage
    if not pixel_staged(shape):
        return table
    grid = pixel_grid(shape, workers)
    stage = pixel_stage(shape, grid.rows)
    if stage.flat:
        line = max(line, panel_filters(shape) * flat_bytes(shape, &stage, grid.rows))
    return whole_lines(table + part_channels(shape) * stage.c + VECTOR_BYTES + line)


cdef inline dim pixel_group_bytes(const Shape* shape) noexcept nogil:
    """Of one group's packed weights."""
    return shape.K * (VECTOR_BYTES + shape.C * shape.R * shape.S * shape.item)


cdef dim pixel_packed_bytes(const Shape* shape) noexcept nogil:
    return shape.G * pixel_group_bytes(shape)


cdef dim pixel_pack_tasks(const Shape* shape) noexcept nogil:
    return shape.G * pixel_panels(shape)


cdef void pixel_pack(const Shape* shape, const Weights* w, char* packed, dim task) noexcept nogil:
    """A panel of a group."""
    cdef dim panels = pixel_panels(shape)
    cdef dim group = divided(task, panels)
    cdef dim first = split(shape.K, panels, task - group * panels)
    cdef dim filters = split(shape.K, panels, task - group * panels + 1) - first
    cdef const char* data = w.data + (group * shape.K + first) * w.k
    cdef dim c, r, s, k, place
    packed += group * pixel_group_bytes(shape)
    spread_bias(packed + first * VECTOR_BYTES, w, group * shape.K + first, filters, VECTOR_BYTES // shape.item,
                shape.item)
    packed += shape.K * VECTOR_BYTES + first * shape.C * shape.R * shape.S * shape.item
    for c in range(shape.C):
        for r in range(shape.R):
            for s in range(shape.S):
                place = r * shape.S + s if pixel_single(shape) else s * shape.R + r
                for k in range(filters):
                    copy_scalar(packed + (place * filters + k) * shape.item,
                                data + k * w.k + c * w.c + r * w.r + s * w.s, shape.item)
        packed += shape.R * shape.S * filters * shape.item


cdef inline double pixel_term(const Shape* shape, double rows, double nv) noexcept nogil:
    """Cycles that a tile takes for a value of its filters."""
    cdef double seen = shape.R + pixel_rows(shape) - 1      # rows of x
    cdef double term
    # It issues rows * nv multiply-adds, with vector loads that mostly straddle two cache lines and count twice, and one
    # of the table; two loads a cycle. No row of x is faster than what it adds to in turn, also where few rows of y see
    # it.
    if pixel_single(shape):
        return max(max(rows * nv / ISSUE, (rows + 1 + 2 * nv) / 2), <double> LATENCY)
    # Between two rows of x the loop over columns ends and begins, which is foreseen less the longer it is.
    term = min(<double> 12, 2 + 2.0 * shape.S) * seen / (shape.R * shape.S)
    return term + max(max(rows * nv / ISSUE, (rows + 1 + 2 * nv) / 2), LATENCY * seen / shape.R)


cdef inline double window_cost(const Shape* shape) noexcept nogil:
    """Of window_tiles; of the rows that are left, by another tile, twice as much."""
    cdef double tiles = (shape.P + shape.P % PIXEL_MR) / <double> PIXEL_MR * ceil_div(shape.Q, lanes_of(shape))
    cdef double loads = (2 * (PIXEL_MR + WINDOW - 1) + WINDOW) / 2.0 * WINDOW   # of x, which straddle, and weights
    cdef double term = max(max(PIXEL_MR / <double> ISSUE, LATENCY / <double> WINDOW_NV), loads / (WINDOW * WINDOW))
    return tiles * (shape.C * WINDOW * WINDOW * term + 8)


cdef double pixel_cost(const Shape* shape) noexcept nogil:
    cdef dim across, lanes = lanes_of(shape)
    cdef bint flat = pixel_flat(shape)
    cdef double terms, filters, rows, nv, vectors, term, seen, again, staging = 0
    cdef dim staged = reach_h(shape, shape.P)
    if pixel_step(shape) > shape.item:
        return INFINITY
    terms = <double> shape.C * shape.R * shape.S
    filters = max(1, shape.K)
    if pixel_staged(shape):
        if <double> part_channels(shape) * reach_h(shape, 1) * staged_row_bytes(shape) > STAGE_BYTES:
            return INFINITY
        staging = gather_cost(shape, reach_w(shape, shape.Q), True)
        if pixel_window(shape) and shape.q_step == 1:
            # The first tile and the last, if it is zeros around x; and lanes masked at both ends of the others.
            staged = min(staged, 2 * (PIXEL_MR + WINDOW - 1))
            staging += 80.0 * shape.P / (PIXEL_MR * staged)
        staging = 250 + staging * shape.C * staged     # of tiny images what comes before the first row is most of it
    rows = filters / pixel_panels(shape) * pixel_rows(shape)
    across = ceil_div(shape.Q, lanes)
    nv = min(PIXEL_NV, shape.Q // lanes)
    vectors = shape.P * across
    if flat:
        across = ceil_div(shape.P * phase_columns(shape, pixel_columns(shape)) * shape.item, VECTOR_BYTES)
        nv = min(<double> PIXEL_NV, across)
        vectors = across
        staging += filters * shape.P * 10
    # Of several groups, each meets its part of x and y the first time.
    if shape.G > 1:
        staging += (<double> shape.C * shape.H * shape.W + filters * shape.P * shape.Q) * shape.item / FRESH
    if pixel_window(shape):
        return shape.G * (100 + staging + window_cost(shape))
    if pixel_streams(shape):
        return shape.G * (100 + staging + vectors * (terms * max(filters / ISSUE, VECTOR_BYTES / <double> FRESH) + 10))
    term = pixel_term(shape, rows, nv)
    if nv == 2 and across % 2 == 1:     # a tile of one vector ends a row
        term += (2 * pixel_term(shape, rows, 1) - term) / across
    # Each panel reads x again; where rows don't stay in the first-level cache, from the second: for each row of y all
    # rows that it sees, if not even they stay with the panel's weights, or else those that the one before didn't see.
    # Values of more channels than it has ways, at the same place in a page, push each other out, and with 1 x 1 filters
    # there is no work between them that would hide it. Nor does it hide much of what comes from farther away.
    again = 0
    if filters > PIXEL_MR and <double> shape.C * reach_h(shape, PIXEL_MR) * shape.W * shape.item > CACHE_BYTES:
        seen = (shape.C * reach_h(shape, pixel_rows(shape)) * shape.W + terms * panel_filters(shape)) * shape.item
        again = LINE_CYCLES * (1 if seen > CACHE_BYTES else min(1.0, shape.p_step / <double> shape.R))
        if terms == shape.C and shape.C * shape.H * shape.W * shape.item > CACHED_BYTES:
            again = FAR_LINE_CYCLES
    if filters > PIXEL_MR and terms == shape.C > CACHE_WAYS and shape.H * shape.W * shape.item % CACHE_PAGE == 0:
        again = max(again, 2.0 * LINE_CYCLES)
    term += nv * VECTOR_BYTES / <double> LINE * again * phases_across(shape) / shape.S
    # A tile begins and ends, and so does a row of them.
    return shape.G * (100 + staging + vectors * filters / rows * ((terms * term + 30) / nv + 30.0 / across))
