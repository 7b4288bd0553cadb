# Groups in the lanes: a vector is of neighbouring groups, each with its own channels and filters. For depthwise and
# grouped layers, however narrow their outputs are.
#
# Register tile: acc[j][k] += x[c, r, s, j] * w[c, r, s, k], all of them vectors, for m pixels of a row of y and km
# filters of each group. Each pixel is a vector by itself, so strides, dilation and the width of y are mere distances.
# An output is one chain of multiply-adds over c, r, s that begins at the bias. The last tile of a row overlaps its
# neighbour and writes the same bits again.
#
# Where y has fewer rows than filters of one channel, those of the filters' rows that meet zeros above x or below it are
# left out. They add the same to all pixels of a row: zeros, whose signs may matter, or NaN.
#
# x is staged: the rows that a task sees, [c][h][column][group], turned over from rows of pixels, all rows of a channel
# as one. A table says where in the stage each pixel belongs. Padded columns are copies of vectors. Sums,
# [pixel][filter][group], are turned back into y.
#
# Packed weights: for each set of `lanes` groups, K vectors of biases, then for each tile's filters [c][r][s][filter].
# What lanes past the last group hold, and compute, is dropped. For a single call with few pixels, a task packs a tile's
# weights where it needs them.

cdef enum:
    GROUP_M = 8             # most pixels of a tile
    MOST_KM = 4             # and filters, of term_lanes.pxi; of others, GROUP_KM

cdef struct GroupTile:
    dim C, R, S
    dim rows, Q             # of y; 1 and 1 for one tile
    dim x_c, x_r, x_s       # byte strides of x, from one value of a filter to the next
    dim x_j, x_p            # and from one pixel of the tile to the next, and one row of y
    dim w_k, w_s            # and of w, from one filter to the next, and one value: where its vectors lie apart

cdef struct GroupGrid:
    dim sets                # of `lanes` groups
    dim bands               # of rows of y
    dim rows                # in the largest band
    dim width               # columns that are staged
    dim pitch               # bytes of a staged row, and of a channel
    dim c


cdef inline void group_tile(const GroupTile* g, const char* x, const char* w, const vec* init, vec* sums, int m,
                            int km, bint apart=False) noexcept nogil:
    """sums[j][k] = init[k] + the sum over c, r, s, of rows of pixels, m at a time. The last tile of a row moves left.

    Weights are read in order. Or `apart`: then it is one tile.
    """
    cdef vec acc[MOST_GROUP_SUMS]
    cdef vec b[MOST_KM]
    cdef vec a
    cdef const char* channel
    cdef const char* taken
    cdef const char* line
    cdef const char* row
    cdef vec* to
    cdef dim c, r, s, q, rows = g.rows
    cdef int j, k
    while True:
        q = 0
        while True:
            for j in range(m):
                for k in range(km):
                    acc[j * km + k] = init[k]
            # Each loop runs once at least. Were that left open, the compiler would take the sums through memory.
            c = g.C
            channel = x + q * g.x_j
            taken = w
            to = sums + q * km
            while True:
                line = channel
                r = g.R
                while True:
                    row = line
                    s = g.S
                    while True:
                        for k in range(km):
                            b[k] = (<const vec*> (taken + k * g.w_k if apart else taken + k * VECTOR_BYTES))[0]
                        taken += g.w_s if apart else km * VECTOR_BYTES
                        for j in range(m):
                            a = (<const vec*> (row + j * g.x_j))[0]
                            if km > 1: read_once(a)
                            for k in range(km):
                                acc[j * km + k] = multiply_add(acc[j * km + k], a, b[k])
                        row += g.x_s
                        s -= 1
                        if s == 0: break
                    line += g.x_r
                    r -= 1
                    if r == 0: break
                channel += g.x_c
                c -= 1
                if c == 0: break
            # One by one: taken for a copy of the array, acc would live in memory.
            for j in range(m):
                for k in range(km):
                    to[0] = acc[j * km + k]
                    to = <vec*> in_register(<const char*> (to + 1))
            q += m
            if apart or q >= g.Q: break
            q = min(q, g.Q - m)
        rows -= 1
        if apart or rows == 0: break
        x += g.x_p
        sums += g.Q * km


# The variants are one loop nest: m and km become constants of a copy that the compiler unrolls.

cdef inline void group_tile_km(const GroupTile* g, const char* x, const char* w, const vec* init, vec* sums, int m,
                               int km) noexcept nogil:
    if m == 1: group_tile(g, x, w, init, sums, 1, km)
    elif m == 2: group_tile(g, x, w, init, sums, 2, km)
    elif m == 3: group_tile(g, x, w, init, sums, 3, km)
    elif m == 4: group_tile(g, x, w, init, sums, 4, km)
    elif m == 5: group_tile(g, x, w, init, sums, 5, km)
    elif m == 6: group_tile(g, x, w, init, sums, 6, km)
    elif 7 * km <= MOST_GROUP_SUMS:
        if m == 7: group_tile(g, x, w, init, sums, 7, km)
        elif 8 * km <= MOST_GROUP_SUMS: group_tile(g, x, w, init, sums, 8, km)


cdef void group_tile_any(const GroupTile* g, const char* x, const char* w, const vec* init, vec* sums, int m,
                         int km) noexcept nogil:
    if km == 1: group_tile_km(g, x, w, init, sums, m, 1)
    elif km == 2: group_tile_km(g, x, w, init, sums, m, 2)
    elif GROUP_KM == 4: group_tile_km(g, x, w, init, sums, m, 4)


cdef inline dim tile_filters(dim filters, dim most) noexcept nogil:
    """Of each group in the next tile, if so many are left."""
    if filters >= most: return most
    return 2 if filters >= 2 else 1


cdef inline dim tile_pixels(const Shape* shape, dim km) noexcept nogil:
    """In a tile with km filters: rows of y are cut into tiles of one width."""
    return ceil_div(shape.Q, ceil_div(shape.Q, min(<dim> GROUP_M, MOST_GROUP_SUMS // km)))


cdef inline void turn_pixels(const char* value, dim step, dim group_step, dim groups, dim count,
                             char* to, const dim* places, lane* like) noexcept nogil:
    """`count` pixels, `step` bytes apart, of so many groups into a vector each. Its other lanes hold numbers."""
    cdef dim item = itemsize(like)
    cdef dim lanes = sizeof(lane) // item
    cdef lane block[MOST_LANES]
    cdef dim i, j = 0
    if step == item and count >= lanes:
        while j < count:
            j = min(j, count - lanes)       # the last block overlaps the one before
            transpose(value + j * item, group_step, groups, block)
            for i in range(lanes):
                (<lane*> (to + places[j + i]))[0] = block[i]
            j += lanes
        return
    for j in range(count):
        if group_step == item and groups == lanes:
            memcpy(to + places[j], value, VECTOR_BYTES)
        else:
            if groups < lanes:
                memset(to + places[j], 0, VECTOR_BYTES)
            for i in range(groups):
                copy_scalar(to + places[j] + i * item, value + i * group_step, item)
        value += step


cdef inline void find_places(const Shape* shape, const Image* x, const GroupGrid* grid, dim rows, dim nowhere,
                             dim* places) noexcept nogil:
    """Where in a stage each pixel of its rows belongs, those of columns that aren't staged `nowhere`."""
    cdef dim staged = max(<dim> 0, min(shape.W, grid.width - x.left))
    cdef dim first = x.left * VECTOR_BYTES
    cdef dim h, j
    for h in range(rows):
        for j in range(staged):
            places[j] = first + j * VECTOR_BYTES
        for j in range(staged, shape.W):
            places[j] = nowhere
        places += shape.W
        first += grid.pitch


cdef inline void stage_padding(const GroupGrid* grid, const Image* x, const char* value, dim group_step, dim groups,
                               char* row, dim first, dim last, lane* pad) noexcept nogil:
    """Padded columns of a staged row, of the row of x at `value`."""
    cdef dim here = 0
    cdef dim i, column
    for i in range(first, last):
        column = x.columns[i]
        if column < 0:
            (<lane*> row)[i] = pad[0]
        elif x.left + column < grid.width:
            (<lane*> row)[i] = (<const lane*> row)[x.left + column]
        else:
            turn_pixels(value + column * x.w, x.w, group_step, groups, 1, row + i * VECTOR_BYTES, &here, pad)


cdef inline void stage_groups(const Shape* shape, const Image* x, const char* channel, dim groups, dim top, dim rows,
                              const GroupGrid* grid, const dim* places, char* to, lane* like) noexcept nogil:
    """Rows top .. top+rows-1 of one channel of each group, as vectors."""
    cdef dim group_step = shape.C * x.c
    cdef bint dense = x.h == shape.W * x.w
    cdef dim h = 0, first, run, i, column
    cdef const char* value
    cdef char* row
    cdef lane pad
    memset(&pad, 0, sizeof(lane))
    fill(<char*> &pad, groups, &x.pad[0], shape.item)
    while h < rows:
        # Rows of x that follow each other are turned over at once.
        first = source_row(x, top + h)
        run = 1
        while first >= 0 and dense and h + run < rows and source_row(x, top + h + run) == first + run:
            run += 1
        value = channel + first * x.h
        if first >= 0:
            turn_pixels(value, x.w, group_step, groups, run * shape.W, to, places + h * shape.W, like)
        for i in range(run):
            row = to + (h + i) * grid.pitch
            if first < 0:
                for column in range(grid.width):
                    (<lane*> row)[column] = pad
            elif x.columns != NULL:
                stage_padding(grid, x, value, group_step, groups, row, 0, min(x.left, grid.width), &pad)
                stage_padding(grid, x, value, group_step, groups, row, x.left + shape.W, grid.width, &pad)
                value += x.h
        h += run


cdef inline dim rows_outside(const Shape* shape, const Image* x, dim h, dim step) noexcept nogil:
    """Of a filter's rows, `step` rows of x apart from h on, the first ones that meet padding; 0 if all do."""
    cdef dim r = 0
    while r < shape.R and x.rows[h + r * step] < 0:
        r += 1
    return r if r < shape.R else 0


cdef inline vec with_zeros(vec value, const char* w, dim terms, dim step) noexcept nogil:
    """`value`, and what so many zeros times the weights at w, `step` bytes apart, add to it."""
    cdef vec zero
    cdef dim i
    memset(&zero, 0, sizeof(vec))
    for i in range(terms):
        value = multiply_add(value, zero, (<const vec*> (w + i * step))[0])
    return value


cdef inline dim staged_pitch(const Shape* shape) noexcept nogil:
    """Vectors from one staged row to the next; odd, as is a channel's: else they would share few sets of a cache."""
    return reach_w(shape, shape.Q) | 1


cdef inline dim group_row_bytes(const Shape* shape) noexcept nogil:
    """Of a row of all channels in a stage, of a tile's filters' sums, and of the table of places."""
    cdef dim sums = tile_filters(shape.K, GROUP_KM) * shape.Q
    return (shape.C * staged_pitch(shape) + sums) * VECTOR_BYTES + shape.W * sizeof(dim)


cdef inline GroupGrid group_grid(const Shape* shape, int workers) noexcept nogil:
    """Bands that fit STAGE_BYTES with all that is made of them.

    More where tasks would take long, or be few and not as many for each worker: bands see some rows in common.
    """
    cdef GroupGrid g
    cdef dim rows = STAGE_BYTES // group_row_bytes(shape) - reach_h(shape, 1)
    cdef double work = <double> shape.P * shape.Q * shape.K * shape.C * shape.R * shape.S * lanes_of(shape)
    cdef dim blocks = shape.N * vectors_of(shape, shape.G)
    cdef dim least = workers if shape.unpacked else 4 * workers     # tasks: each packs weights anew
    g.width = reach_w(shape, shape.Q)
    g.sets = vectors_of(shape, shape.G)
    g.bands = ceil_div(shape.P, max(<dim> 0, rows) // shape.p_step + 1)
    g.bands = max(g.bands, long_tasks(work) + 1)
    if workers > 1 and blocks * g.bands < least and blocks * g.bands % workers != 0:
        g.bands = max(g.bands, least // max(1, blocks))
    g.bands = even_blocks(g.bands, shape.P, blocks, workers)
    g.rows = ceil_div(shape.P, g.bands)
    g.pitch = staged_pitch(shape) * VECTOR_BYTES
    g.c = (reach_h(shape, g.rows) * staged_pitch(shape) | 1) * VECTOR_BYTES
    return g


cdef inline dim group_set_bytes(const Shape* shape) noexcept nogil:
    """Of the packed weights of `lanes` groups."""
    return shape.K * (1 + shape.C * shape.R * shape.S) * VECTOR_BYTES


cdef inline dim late_group_bytes(const Shape* shape) noexcept nogil:
    """Of a tile's biases and weights, where they are packed when they are needed."""
    return tile_filters(shape.K, GROUP_KM) * (1 + shape.C * shape.R * shape.S) * VECTOR_BYTES if shape.unpacked else 0


cdef inline void pack_group_tile(const Shape* shape, const Weights* w, dim first, dim groups, dim k, dim km,
                                 char* biases, char* packed, lane* like) noexcept nogil:
    """Filters k .. k+km-1 of each of so many groups."""
    cdef dim item = itemsize(like)
    cdef const char* data = w.data + (first * shape.K + k) * w.k
    cdef dim i, group
    memset(biases, 0, km * VECTOR_BYTES)
    for i in range(km):
        if w.bias != NULL:
            for group in range(groups):
                copy_scalar(biases + i * VECTOR_BYTES + group * item,
                            w.bias + ((first + group) * shape.K + k + i) * item, item)
        pack_vector(shape, w, data + i * w.k, shape.K * w.k, groups, 0, shape.C * shape.R * shape.S,
                    packed + i * VECTOR_BYTES, km * VECTOR_BYTES, like)


cdef void pack_group_tile_any(const Shape* shape, const Weights* w, dim first, dim groups, dim k, dim km, char* biases,
                              char* packed) noexcept nogil:
    if shape.item == 4:
        pack_group_tile(shape, w, first, groups, k, km, biases, packed, <f32v*> NULL)
    else:
        pack_group_tile(shape, w, first, groups, k, km, biases, packed, <f64v*> NULL)


cdef void group_low_rows(const Shape* shape, const GroupTile* whole, const Image* x, dim top, dim rows,
                         const char* seen, const char* w, const plain* init, plain* sums, int m, int km) noexcept nogil:
    """As group_tile_any, of rows of y from `top` on, but only with the filters' rows that meet x."""
    cdef GroupTile g = whole[0]
    cdef plain begin[GROUP_KM]
    cdef plain end[GROUP_KM]
    cdef const char* met
    cdef const char* rest
    cdef dim w_step = km * VECTOR_BYTES
    cdef dim p, q, h, above, below, outside
    cdef bint zeros
    cdef int i
    g.rows = 1
    for p in range(rows):
        h = (top + p) * shape.p_step
        above = rows_outside(shape, x, h, shape.r_step)
        outside = below = rows_outside(shape, x, h + (shape.R - 1) * shape.r_step, -shape.r_step)
        rest = w + (shape.R - outside) * shape.S * w_step
        for i in range(km):
            memset(&end[i], 0, sizeof(plain))
            end[i] = with_zeros(-end[i], rest + i * VECTOR_BYTES, outside * shape.S, w_step)
            zeros = is_zero(<const f32v*> &end[i]) if itemsize(init) == 4 else is_zero(<const f64v*> &end[i])
            if not zeros:
                below = 0       # which NaN a sum of two is, is up to the tile
        g.R = shape.R - above - below
        met = w + above * shape.S * w_step
        for i in range(km):
            begin[i] = with_zeros(init[i], w + i * VECTOR_BYTES, above * shape.S, w_step)
        group_tile_any(&g, seen + above * g.x_r, met, begin, sums, m, km)
        for q in range(shape.Q if below > 0 else 0):
            for i in range(km):
                sums[q * km + i] = sums[q * km + i] + end[i]
        seen += g.x_p
        sums += shape.Q * km


cdef inline void group_block(const Shape* shape, const GroupGrid* grid, const char* packed, const Image* x, char* y,
                             dim task, char* workspace, plain* like) noexcept nogil:
    """One band of rows of one set of groups of an image."""
    cdef dim item = itemsize(like)
    cdef dim lanes = sizeof(plain) // item
    cdef dim band = task % grid.bands
    cdef dim image = task // grid.bands // grid.sets
    cdef dim first = (task // grid.bands - image * grid.sets) * lanes
    cdef dim groups = min(lanes, shape.G - first)
    cdef dim top = split(shape.P, grid.bands, band)
    cdef dim rows = split(shape.P, grid.bands, band + 1) - top
    cdef dim seen = reach_h(shape, rows)
    cdef dim y_k = filter_step(shape)
    cdef dim y_pixel = pixel_step(shape)
    cdef const char* channel = x.data + image * x.n + first * shape.C * x.c
    cdef const char* init = packed + first // lanes * group_set_bytes(shape)
    cdef const char* w = init + shape.K * VECTOR_BYTES
    cdef char* stage = workspace
    cdef plain* sums = <plain*> (stage + shape.C * grid.c)
    cdef char* nowhere = <char*> (sums + GROUP_KM * grid.rows * shape.Q)
    cdef char* late = nowhere + VECTOR_BYTES
    cdef dim* places = <dim*> (late + late_group_bytes(shape))
    cdef GroupTile g
    # Much of a filter may meet padding then; in rows of one tile it wouldn't pay.
    cdef bint low = shape.C == 1 and shape.P < shape.R and shape.Q > GROUP_M and x.rows != NULL and pads_with_zeros(
        shape, x)
    cdef dim c, k, km, m
    g.C, g.R, g.S = shape.C, shape.R, shape.S
    g.x_c = grid.c
    g.x_r = shape.r_step * grid.pitch
    g.x_s = shape.s_step * VECTOR_BYTES
    g.x_j = shape.q_step * VECTOR_BYTES
    g.x_p = shape.p_step * grid.pitch
    g.rows, g.Q = rows, shape.Q
    for c in range(shape.C):
        find_places(shape, x, grid, seen, nowhere - (stage + c * g.x_c), places)
        if item == 4:
            stage_groups(shape, x, channel + c * x.c, groups, top * shape.p_step, seen, grid, places,
                         stage + c * g.x_c, <f32v*> NULL)
        else:
            stage_groups(shape, x, channel + c * x.c, groups, top * shape.p_step, seen, grid, places,
                         stage + c * g.x_c, <f64v*> NULL)
    y += image * result_bytes(shape) + first * shape.K * y_k + top * shape.Q * y_pixel
    # Loop 3: filters, km at a time. Loops 2 and 1, in group_tile: rows of y, and tiles of a row.
    k = 0
    while k < shape.K:
        km = tile_filters(shape.K - k, GROUP_KM)
        m = tile_pixels(shape, km)
        if shape.unpacked:
            init = late
            w = late + km * VECTOR_BYTES
            pack_group_tile_any(shape, <const Weights*> packed, first, groups, k, km, late, late + km * VECTOR_BYTES)
        if low:
            group_low_rows(shape, &g, x, top, rows, stage, w, <const plain*> init, sums, <int> m, <int> km)
        else:
            group_tile_any(&g, stage, w, <const plain*> init, sums, <int> m, <int> km)
        init += km * VECTOR_BYTES
        w += km * shape.C * shape.R * shape.S * VECTOR_BYTES
        for c in range(km):
            store_sums(shape, <const char*> (sums + c), km * VECTOR_BYTES, rows * shape.Q, groups, y, y_pixel,
                       shape.K * y_k)
            y += y_k
        k += km


cdef dim group_workspace_bytes(const Shape* shape, int workers) noexcept nogil:
    """The stage; a band's sums of some filters; a vector for what isn't staged, late weights, the table of places."""
    cdef GroupGrid g = group_grid(shape, workers)
    return (shape.C * g.c + (GROUP_KM * g.rows * shape.Q + 1) * VECTOR_BYTES
            + late_group_bytes(shape) + reach_h(shape, g.rows) * shape.W * sizeof(dim))


cdef dim group_tasks(const Shape* shape, int workers) noexcept nogil:
    cdef GroupGrid g = group_grid(shape, workers)
    return shape.N * g.sets * g.bands


cdef void group_run(const Shape* shape, int workers, const char* packed, const Image* x, char* y, dim task,
                    char* workspace) noexcept nogil:
    cdef GroupGrid g = group_grid(shape, workers)
    if shape.dtype == FLOAT32:
        group_block(shape, &g, packed, x, y, task, workspace, <f32v*> NULL)
    elif shape.dtype == FLOAT64:
        group_block(shape, &g, packed, x, y, task, workspace, <f64v*> NULL)
    elif shape.dtype == INT32:
        group_block(shape, &g, packed, x, y, task, workspace, <i32v*> NULL)
    else:
        group_block(shape, &g, packed, x, y, task, workspace, <i64v*> NULL)


cdef dim group_packed_bytes(const Shape* shape) noexcept nogil:
    if shape.unpacked:
        return sizeof(Weights)
    return vectors_of(shape, shape.G) * group_set_bytes(shape)


cdef dim group_pack_tasks(const Shape* shape) noexcept nogil:
    return 1 if shape.unpacked else vectors_of(shape, shape.G)


cdef void group_pack(const Shape* shape, const Weights* w, char* packed, dim task) noexcept nogil:
    """As many groups as there are lanes."""
    cdef dim lanes = lanes_of(shape)
    cdef dim first = task * lanes
    cdef dim k = 0, km
    cdef char* biases = packed + task * group_set_bytes(shape)
    if shape.unpacked:
        memcpy(packed, w, sizeof(Weights))
        return
    packed = biases + shape.K * VECTOR_BYTES
    while k < shape.K:
        km = tile_filters(shape.K - k, GROUP_KM)
        pack_group_tile_any(shape, w, first, min(lanes, shape.G - first), k, km, biases + k * VECTOR_BYTES, packed)
        packed += km * shape.C * shape.R * shape.S * VECTOR_BYTES
        k += km


cdef double group_cost(const Shape* shape) noexcept nogil:
    cdef double terms, tiles, m, km, term, seen, read
    if shape.G == 1 or <double> reach_h(shape, 1) * group_row_bytes(shape) > STAGE_BYTES:
        return INFINITY
    terms = <double> shape.C * shape.R * shape.S
    km = tile_filters(shape.K, GROUP_KM)
    m = tile_pixels(shape, <dim> km)
    tiles = shape.P * ceil_div(shape.Q, <dim> m) * shape.K / km
    # Two loads a cycle; sums that follow each other. What turns pixels over takes as long as their bytes are many.
    term = max(max(m * km / ISSUE, (m + km) / 2), <double> LATENCY)
    # Vectors that a tile reads: two in three cycles arrive where the first-level cache doesn't hold them for the next.
    read = <double> shape.C * shape.R * reach_w(shape, <dim> m) + terms * km
    if read * VECTOR_BYTES > CACHE_BYTES:
        term = max(term, read / terms / 0.7)
    seen = <double> shape.C * reach_h(shape, shape.P)
    return vectors_of(shape, shape.G) * (
        250 + seen * (shape.W * VECTOR_BYTES * 0.1 + 20) + tiles * (1.1 * terms * term + 50)
        + <double> shape.P * shape.Q * shape.K * VECTOR_BYTES / 8)
