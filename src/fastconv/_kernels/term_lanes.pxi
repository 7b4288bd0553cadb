# Terms of the sum in the lanes, for images of a few outputs: fully connected layers, squeeze and excitation. There a
# weight is used a few times only, so the time is that of reading them.
#
# Register tile: that of group_lanes.pxi, acc[j][k] += x[i, j] * w[i, k], for vectors i of terms, m outputs j and km
# filters k. Lanes are added up at the end, in halves: so a product passes through fewer roundings than in one chain.
# Outputs of all images are one sequence, of which a tile takes some: weights that have arrived serve them all.
#
# x is staged, [output][c][r][s], with zeros to the end of the last vector.
#
# Packed weights: for each group, for each filter a vector that has its bias in the first lane; then for as many filters
# as a tile for one image takes [vector of terms][filter]. Where a call is the only one to use them, they are read where
# they stand, but those that don't fill a vector; or where a filter's values don't follow each other, a task packs a
# tile's weights where it needs them.

cdef enum:
    MOST_COLUMNS = MOST_GROUP_SUMS // GROUP_KM      # outputs of a tile, at most
    STANDING = 4 * MOST_COLUMNS                     # and of a call that packs no weights

cdef struct TermGrid:
    # How the work is cut: tiles of outputs, of nearly equal size, and sets of MOST_KM filters.
    dim columns, chunks
    dim tiles, sets


cdef inline dim term_vectors(const Shape* shape) noexcept nogil:
    """Of a filter's terms."""
    return vectors_of(shape, shape.C * shape.R * shape.S)


cdef inline dim term_pitch(const Shape* shape) noexcept nogil:
    """Bytes from one output's staged terms to the next's: an odd number of vectors, or they would share cache sets."""
    return (term_vectors(shape) | 1) * VECTOR_BYTES


cdef inline dim term_filters(dim m) noexcept nogil:
    """Of a tile of m outputs: sums enough that none is waited for, where that is left of the registers."""
    return MOST_KM if m <= 2 else GROUP_KM


cdef inline dim stage_columns_bytes(const Shape* shape) noexcept nogil:
    """Of what the outputs of a tile see."""
    return min(<dim> MOST_COLUMNS, shape.N * shape.P * shape.Q) * term_pitch(shape)


cdef inline TermGrid term_grid(const Shape* shape, int workers) noexcept nogil:
    cdef TermGrid g
    cdef dim blocks
    cdef double work
    g.columns = shape.N * shape.P * shape.Q
    g.chunks = max(1, ceil_div(g.columns, MOST_COLUMNS))
    g.tiles = ceil_div(shape.K, MOST_KM)
    blocks = g.chunks * shape.G
    work = <double> MOST_COLUMNS * shape.K * shape.C * shape.R * shape.S
    g.sets = max(long_tasks(work), ceil_div(4 * workers, blocks) if workers > 1 else 1)
    g.sets = max(<dim> 1, min(g.sets, g.tiles))
    return g


cdef inline bint window_is_dense(const Shape* shape, const Image* x) noexcept nogil:
    """Whether the values that an output sees follow each other in x."""
    return (not shape.gathered and (shape.S == 1 or shape.s_step == 1)
            and (shape.R == 1 or shape.r_step * x.h == shape.S * shape.item)
            and (shape.C == 1 or x.c == shape.R * shape.S * shape.item))


cdef inline void stage_terms(const Shape* shape, const Image* x, dim group, dim first, dim count, char* stage,
                             char* line) noexcept nogil:
    """What outputs first .. first+count-1 of all images see."""
    cdef dim item = shape.item
    cdef dim bytes = shape.C * shape.R * shape.S * item
    cdef bint dense = window_is_dense(shape, x)
    cdef dim j, n, p, q, c, r
    cdef const char* image
    cdef const char* row
    cdef char* to
    for j in range(first, first + count):
        n = j // (shape.P * shape.Q)
        p = j // shape.Q - n * shape.P
        q = j % shape.Q
        image = x.data + n * x.n + group * shape.C * x.c
        to = stage
        if dense:
            memcpy(to, image + p * shape.p_step * x.h + q * shape.q_step * item, bytes)
        else:
            for c in range(shape.C):
                for r in range(shape.R):
                    row = image_row(shape, x, image, c, p * shape.p_step + r * shape.r_step, q * shape.q_step,
                                    reach_w(shape, 1), line)
                    if shape.S == 1:
                        copy_scalar(to, row, item)
                    else:
                        copy_strided(to, row, shape.S, shape.s_step, item)
                    to += shape.S * item
        memset(stage + bytes, 0, term_vectors(shape) * VECTOR_BYTES - bytes)
        stage += term_pitch(shape)


cdef inline void pack_terms(const Shape* shape, const Weights* w, dim filter, dim km, dim start, char* biases,
                            char* packed, lane* like) noexcept nogil:
    """Filters that stand together, of which `filter` counts through all groups, from the term `start` on."""
    cdef dim off[MOST_LANES]
    cdef dim item = itemsize(like)
    cdef dim lanes = sizeof(lane) // item
    cdef dim terms = shape.C * shape.R * shape.S
    cdef bint dense = filters_are_dense(shape, w)
    cdef dim first = start, count, k, i
    cdef const char* data
    memset(biases, 0, km * VECTOR_BYTES)
    if w.bias != NULL:
        for k in range(km):
            copy_scalar(biases + k * VECTOR_BYTES, w.bias + (filter + k) * item, item)
    while first < terms:
        count = min(lanes, terms - first)
        if not dense:
            filter_offsets(shape, w.c, w.r, w.s, 0, 0, first, count, off)
        for k in range(km):
            data = w.data + (filter + k) * w.k
            if dense and count == lanes:
                (<lane*> packed)[0] = (<const lane*> (data + first * item))[0]
            elif dense:
                (<lane*> packed)[0] = load_lanes(data + first * item, 0, count, like)
            else:
                memset(packed, 0, VECTOR_BYTES)
                for i in range(count):
                    copy_scalar(packed + i * item, data + off[i], item)
            packed += VECTOR_BYTES
        first += lanes


cdef void pack_terms_any(const Shape* shape, const Weights* w, dim filter, dim km, dim start, char* biases,
                         char* packed) noexcept nogil:
    if shape.item == 4:
        pack_terms(shape, w, filter, km, start, biases, packed, <f32v*> NULL)
    else:
        pack_terms(shape, w, filter, km, start, biases, packed, <f64v*> NULL)


cdef inline void add_lanes(const vec* sums, dim count, char* totals) noexcept nogil:
    """The sum of each vector's lanes, side by side; room for whole vectors of them is assumed."""
    cdef vec turned[MOST_LANES]
    cdef dim item = itemsize(sums)
    cdef dim lanes = sizeof(vec) // item
    cdef dim first = 0, half, i
    while first < count:
        if item == 4:
            transpose(<const char*> (sums + first), VECTOR_BYTES, min(lanes, count - first), <f32v*> turned)
        else:
            transpose(<const char*> (sums + first), VECTOR_BYTES, min(lanes, count - first), <f64v*> turned)
        half = lanes // 2
        while half > 0:
            for i in range(half):
                turned[i] = turned[i] + turned[i + half]
            half //= 2
        (<vec*> (totals + first * item))[0] = turned[0]
        first += lanes


cdef inline dim term_group_bytes(const Shape* shape) noexcept nogil:
    """Of one group's packed weights."""
    return shape.K * (1 + term_vectors(shape)) * VECTOR_BYTES


cdef inline dim late_term_bytes(const Shape* shape) noexcept nogil:
    """Of a tile's biases and weights, where they are packed when they are needed."""
    return MOST_KM * (1 + term_vectors(shape)) * VECTOR_BYTES if shape.unpacked else 0


cdef inline void apart_tile_m(const GroupTile* g, const char* x, const char* w, const vec* init, vec* sums, int m,
                              int km) noexcept nogil:
    if m == 1: group_tile(g, x, w, init, sums, 1, km, True)
    elif m == 2: group_tile(g, x, w, init, sums, 2, km, True)
    elif 6 * km <= MOST_GROUP_SUMS:
        if m == 3: group_tile(g, x, w, init, sums, 3, km, True)
        elif m == 4: group_tile(g, x, w, init, sums, 4, km, True)
        elif m == 5: group_tile(g, x, w, init, sums, 5, km, True)
        elif m == 6: group_tile(g, x, w, init, sums, 6, km, True)
        elif MOST_COLUMNS > 6: group_tile(g, x, w, init, sums, 7, km, True)


# As filter_tile_any is, not inlined.
cdef void apart_tile_any(const GroupTile* g, const char* x, const char* w, const vec* init, vec* sums, int m,
                         int km) noexcept nogil:
    if km == 1: apart_tile_m(g, x, w, init, sums, m, 1)
    elif km == 2: apart_tile_m(g, x, w, init, sums, m, 2)
    else: apart_tile_m(g, x, w, init, sums, m, MOST_KM)


cdef inline void packed_tile(GroupTile* g, const char* x, const char* w, const vec* init, vec* sums, int m, int km,
                             dim together) noexcept nogil:
    """One tile, of some of so many filters that are packed together."""
    if km == together and km <= GROUP_KM:
        group_tile_any(g, x, w, init, sums, m, km)
        return
    g.w_k = VECTOR_BYTES
    g.w_s = together * VECTOR_BYTES
    apart_tile_any(g, x, w, init, sums, m, km)


cdef inline void late_tile(const Shape* shape, const GroupTile* tile, const Weights* w, dim filter, const char* x,
                           char* late, vec* sums, int m, int km) noexcept nogil:
    """One tile, of weights that aren't packed."""
    cdef GroupTile g = tile[0]
    cdef dim lanes = lanes_of(shape)
    cdef dim whole = shape.C * shape.R * shape.S // lanes
    cdef int j
    if whole == 0 or not filters_are_dense(shape, w):
        pack_terms_any(shape, w, filter, km, 0, late, late + km * VECTOR_BYTES)
        packed_tile(&g, x, late + km * VECTOR_BYTES, <const vec*> late, sums, m, km, km)
        return
    pack_terms_any(shape, w, filter, km, whole * lanes, late, late + km * VECTOR_BYTES)
    g.S = whole
    g.w_k = w.k
    g.w_s = VECTOR_BYTES
    apart_tile_any(&g, x, w.data + filter * w.k, <const vec*> late, sums, m, km)
    g.S = tile.S - whole
    for j in range(m if g.S > 0 else 0):
        packed_tile(&g, x + whole * VECTOR_BYTES + j * g.x_j, late + km * VECTOR_BYTES, sums + j * km, sums + j * km, 1,
                    km, km)


cdef inline void term_block(const Shape* shape, const TermGrid* grid, const char* packed, const Image* x, char* y,
                            dim task, char* workspace, vec* like) noexcept nogil:
    """Some outputs of one group for a set of filters."""
    cdef vec sums[MOST_GROUP_SUMS]
    cdef vec totals[MOST_GROUP_SUMS]
    cdef dim item = itemsize(like)
    cdef dim chunk = task % grid.chunks
    cdef dim group = task // grid.chunks // grid.sets
    cdef dim set_ = task // grid.chunks - group * grid.sets
    cdef dim first = split(grid.columns, grid.chunks, chunk)
    cdef dim m = split(grid.columns, grid.chunks, chunk + 1) - first
    cdef dim k = split(grid.tiles, grid.sets, set_) * MOST_KM
    cdef dim end = min(split(grid.tiles, grid.sets, set_ + 1) * MOST_KM, shape.K)
    cdef dim pixels = shape.P * shape.Q
    cdef char* stage = workspace
    cdef char* late = stage + stage_columns_bytes(shape)
    cdef const char* init = packed + group * term_group_bytes(shape) + k * VECTOR_BYTES
    cdef const char* w = packed + group * term_group_bytes(shape) + (shape.K + k * term_vectors(shape)) * VECTOR_BYTES
    cdef char* pixel
    cdef GroupTile g
    cdef dim km, i, j, n
    cdef dim together = 0, left = 0         # filters that stand together in w, and how many of these are to come
    stage_terms(shape, x, group, first, m, stage, late + late_term_bytes(shape))
    g.rows = g.Q = g.C = g.R = 1
    g.S = term_vectors(shape)
    g.x_c = g.x_r = 0
    g.x_s = VECTOR_BYTES
    g.x_j = term_pitch(shape)
    while k < end:
        if left == 0:
            w += together * g.S * VECTOR_BYTES
            left = together = tile_filters(end - k, term_filters(pixels))
        km = min(left, term_filters(m))
        if shape.unpacked:
            late_tile(shape, &g, <const Weights*> packed, group * shape.K + k, stage, late, sums, <int> m, <int> km)
        else:
            packed_tile(&g, stage, w + (together - left) * VECTOR_BYTES, <const vec*> init, sums, <int> m, <int> km,
                        together)
        init += km * VECTOR_BYTES
        add_lanes(sums, m * km, <char*> totals)
        for j in range(m):
            n = (first + j) // pixels
            pixel = y + n * result_bytes(shape) + (first + j - n * pixels) * pixel_step(shape)
            for i in range(km):
                copy_scalar(pixel + (group * shape.K + k + i) * filter_step(shape),
                            <const char*> totals + (j * km + i) * item, item)
        k += km
        left -= km


cdef dim term_workspace_bytes(const Shape* shape, int workers) noexcept nogil:
    """The stage, late weights, and a row of x."""
    return (stage_columns_bytes(shape) + late_term_bytes(shape)
            + whole_lines(reach_w(shape, 1) * shape.item))


cdef dim term_tasks(const Shape* shape, int workers) noexcept nogil:
    cdef TermGrid g = term_grid(shape, workers)
    return shape.G * g.sets * g.chunks


cdef void term_run(const Shape* shape, int workers, const char* packed, const Image* x, char* y, dim task,
                   char* workspace) noexcept nogil:
    cdef TermGrid g = term_grid(shape, workers)
    if shape.dtype == FLOAT32:
        term_block(shape, &g, packed, x, y, task, workspace, <f32v*> NULL)
    elif shape.dtype == FLOAT64:
        term_block(shape, &g, packed, x, y, task, workspace, <f64v*> NULL)
    elif shape.dtype == INT32:
        term_block(shape, &g, packed, x, y, task, workspace, <i32v*> NULL)
    elif shape.dtype == INT64:
        term_block(shape, &g, packed, x, y, task, workspace, <i64v*> NULL)
    else:
        term_block(shape, &g, packed, x, y, task, workspace, <p32v*> NULL)


cdef dim term_packed_bytes(const Shape* shape) noexcept nogil:
    return sizeof(Weights) if shape.unpacked else shape.G * term_group_bytes(shape)


cdef dim term_pack_tasks(const Shape* shape) noexcept nogil:
    return 1 if shape.unpacked else shape.G * ceil_div(shape.K, term_filters(shape.P * shape.Q))


cdef void term_pack(const Shape* shape, const Weights* w, char* packed, dim task) noexcept nogil:
    """As many filters of a group as a tile takes, or those that are left."""
    cdef dim most = term_filters(shape.P * shape.Q)
    cdef dim sets = max(1, ceil_div(shape.K, most))
    cdef dim group = divided(task, sets)
    cdef dim k = (task - group * sets) * most
    cdef dim end = min(k + most, shape.K)
    cdef dim km
    if shape.unpacked:
        memcpy(packed, w, sizeof(Weights))
        return
    packed += group * term_group_bytes(shape)
    while k < end:
        km = tile_filters(end - k, most)
        pack_terms_any(shape, w, group * shape.K + k, km, 0, packed + k * VECTOR_BYTES,
                       packed + (shape.K + k * term_vectors(shape)) * VECTOR_BYTES)
        k += km


cdef bint term_packs_late(const Shape* shape, const Weights* w) noexcept nogil:
    """Where they are read as they stand, a few times, or packed once in any case."""
    return shape.N * shape.P * shape.Q <= (STANDING if filters_are_dense(shape, w) else MOST_COLUMNS)


cdef double term_pack_cost(const Shape* shape) noexcept nogil:
    """Copied a vector at a time."""
    return 0.2 * shape.G * shape.K * shape.C * shape.R * shape.S


cdef double term_cost(const Shape* shape) noexcept nogil:
    cdef double columns = shape.P * shape.Q
    cdef double filters, staging, term
    if columns > MOST_COLUMNS:
        return INFINITY
    # Filters as large as the image see it as it stands. Sums that follow each other, and two loads a cycle.
    staging = 2.0 * term_vectors(shape)
    if shape.gathered or shape.R * shape.S < shape.H * shape.W:
        staging = 12.0 * shape.C * shape.R
    filters = term_filters(shape.P * shape.Q)
    term = max(max(columns * filters / ISSUE, (columns + filters) / 2), <double> LATENCY)
    return shape.G * (200 + columns * staging + shape.K / filters * (
        1.1 * term_vectors(shape) * term + 60 + 6 * columns * filters))
