# Filters of rank 1, each channel of each a column times a row, as Gaussians and boxes are. Sums along columns, and then
# sums of these along rows, take R + S multiply-adds a pixel where the filter as a whole takes R S.
#
# A task is a band of rows of y of one filter: x is summed with the columns of the filter, each channel by itself, and
# these sums stay in a cache until they are summed with its rows. Both are problems of their own, of filters of R x 1
# and of 1 x S, for the kernel of pixel_lanes.pxi. A band where a sum along a column isn't finite is computed by the
# whole filter: a NaN or Inf may meet other zeros than it should, and a number too large would have met a small weight.
#
# A filter is taken apart at its largest weight, w[a][b]: column b of it is the column, so that products are as large as
# they should be from the first sum on, and w[a][s] / w[a][b] the row. Each term of a sum is rounded R times along its
# column and C S times along its row, and its weight is off by some roundings. All together may be no more than the
# C R S that the sum of all terms has: so every element keeps its bound.
#
# Packed weights: for each filter, factors, [c][r] and [c][s]; then the weights of direct-pixels for the columns, the
# rows and the whole.

cdef enum:
    BAND_BYTES = 96 * 1024      # of sums along columns, in a second-level cache
    MOST_ROUNDINGS = 16         # that a weight may be off by
    LEAST_WEIGHTS = 16          # of a filter's channel; smaller ones are faster as they are


cdef inline Shape column_shape(const Shape* shape, dim rows) noexcept nogil:
    """Sums along columns of the filter, for `rows` rows of y: of all columns of x, each channel by itself."""
    cdef Shape part = shape[0]
    part.G = shape.C
    part.N = part.C = part.K = part.S = 1
    part.P = rows
    part.Q = reach_w(shape, shape.Q)
    part.q_step = part.s_step = 1
    part.channels_last = False
    return part


cdef inline Shape row_shape(const Shape* shape, dim rows) noexcept nogil:
    """Sums of these along rows, into `rows` rows of y."""
    cdef Shape part = shape[0]
    part.N = part.G = part.K = part.R = 1
    part.H = part.P = rows
    part.W = reach_w(shape, shape.Q)
    part.p_step = part.r_step = 1
    part.gathered = part.channels_last = False
    return part


cdef inline Shape whole_shape(const Shape* shape, dim rows) noexcept nogil:
    """One filter as it is, into `rows` rows of y."""
    cdef Shape part = shape[0]
    part.N = part.G = part.K = 1
    part.P = rows
    part.channels_last = False
    return part


cdef inline dim separable_bands(const Shape* shape) noexcept nogil:
    """Bands of rows of y, of whole tiles."""
    cdef dim rows = BAND_BYTES // (shape.C * reach_w(shape, shape.Q) * shape.item) // PIXEL_MR
    return ceil_div(shape.P, max(<dim> 1, rows) * PIXEL_MR)


cdef inline dim factor_bytes(const Shape* shape) noexcept nogil:
    return whole_lines(shape.C * (shape.R + shape.S) * shape.item)


cdef inline dim separable_filter_bytes(const Shape* shape) noexcept nogil:
    """Of one filter's packed weights."""
    cdef Shape row = row_shape(shape, 1)
    cdef Shape column = column_shape(shape, 1)
    cdef Shape whole = whole_shape(shape, 1)
    return (factor_bytes(shape) + whole_lines(pixel_packed_bytes(&row)) + whole_lines(pixel_packed_bytes(&column))
            + whole_lines(pixel_packed_bytes(&whole)))


cdef dim separable_packed_bytes(const Shape* shape) noexcept nogil:
    return shape.G * shape.K * separable_filter_bytes(shape)


cdef dim largest_weight(const Shape* shape, const Weights* w, const char* data) noexcept nogil:
    """Where in a channel of a filter, r * S + s, its largest magnitude is; -1 if there is none that is finite."""
    cdef double value, largest = -1
    cdef dim r, s, place = -1
    for r in range(shape.R):
        for s in range(shape.S):
            value = fabs(value_at(data + r * w.r + s * w.s, shape.item))
            if value > largest:
                largest = value
                place = r * shape.S + s
    return place if isfinite(largest) else -1


cdef inline double rounded(double value, dim item) noexcept nogil:
    return <float> value if item == 4 else value


cdef inline double row_factor(const Weights* w, const char* data, dim s, dim a, dim b, dim item) noexcept nogil:
    """Of column s, as it is rounded; of a filter of zeros, 0."""
    cdef double most = value_at(data + a * w.r + b * w.s, item)
    return rounded(value_at(data + a * w.r + s * w.s, item) / most, item) if most != 0 else 0


cdef bint is_column_by_row(const Shape* shape, const Weights* w, const char* data, double error) noexcept nogil:
    """Whether a channel of a filter is, each of its weights to a relative error."""
    cdef dim place = largest_weight(shape, w, data)
    cdef dim item = shape.item
    cdef dim a, b, r, s
    cdef double factor, value, weight
    if place < 0:
        return False
    a = place // shape.S
    b = place % shape.S
    for s in range(shape.S):
        factor = row_factor(w, data, s, a, b, item)
        for r in range(shape.R):
            weight = value_at(data + r * w.r + s * w.s, item)
            value = value_at(data + r * w.r + b * w.s, item)
            # Not finite is not less. And near underflow, products are no longer what they are compared as.
            if not fabs(weight - factor * value) <= error * fabs(weight):
                return False
            if factor != 0 and value != 0 and fabs(factor * value) < 2.0 ** -960:
                return False
    return True


cdef bint is_separable(const Shape* shape, const Weights* w) noexcept nogil:
    """Whether all filters can be taken apart within the error bound. Mostly the first one shows that they can't."""
    cdef double terms = <double> shape.C * shape.R * shape.S
    cdef double roundings = min(terms - shape.R - <double> shape.C * shape.S, <double> MOST_ROUNDINGS)
    cdef dim k, c
    if roundings < 0:
        return False
    roundings = roundings * 2.0 ** -24 if shape.item == 4 else (roundings - 1) * 2.0 ** -53     # products are rounded
    for k in range(shape.G * shape.K):
        for c in range(shape.C):
            if not is_column_by_row(shape, w, w.data + k * w.k + c * w.c, roundings):
                return False
    return True


cdef void take_apart(const Shape* shape, const Weights* w, const char* data, char* columns, char* rows) noexcept nogil:
    """A filter's factors, [c][r] and [c][s]."""
    cdef dim item = shape.item
    cdef dim c, r, s, place, a, b
    for c in range(shape.C):
        place = max(<dim> 0, largest_weight(shape, w, data))   # found finite before, but w may be written to meanwhile
        a = place // shape.S
        b = place % shape.S
        for r in range(shape.R):
            copy_scalar(columns, data + r * w.r + b * w.s, item)
            columns += item
        for s in range(shape.S):
            put_value(rows, row_factor(w, data, s, a, b, item), item)
            rows += item
        data += w.c


cdef void pack_pixels(const Shape* shape, const Weights* w, char* packed) noexcept nogil:
    cdef dim task
    for task in range(pixel_pack_tasks(shape)):
        pixel_pack(shape, w, packed, task)


cdef dim separable_pack_tasks(const Shape* shape) noexcept nogil:
    return shape.G * shape.K


cdef void separable_pack(const Shape* shape, const Weights* w, char* packed, dim task) noexcept nogil:
    """A filter."""
    cdef Shape column = column_shape(shape, 1)
    cdef Shape row = row_shape(shape, 1)
    cdef Shape whole = whole_shape(shape, 1)
    cdef dim item = shape.item
    cdef Weights part
    cdef char* rows
    packed += task * separable_filter_bytes(shape)
    rows = packed + shape.C * shape.R * item
    take_apart(shape, w, w.data + task * w.k, packed, rows)
    part.data, part.k, part.c, part.r, part.s = packed, shape.R * item, 0, item, 0
    part.bias = NULL
    packed += factor_bytes(shape)
    pack_pixels(&column, &part, packed)
    packed += whole_lines(pixel_packed_bytes(&column))
    part.data, part.k, part.c, part.r, part.s = rows, 0, shape.S * item, 0, item
    if w.bias != NULL:
        part.bias = w.bias + task * item
    pack_pixels(&row, &part, packed)
    packed += whole_lines(pixel_packed_bytes(&row))
    part.data, part.k, part.c, part.r, part.s = w.data + task * w.k, 0, w.c, w.r, w.s
    pack_pixels(&whole, &part, packed)


cdef inline dim column_sums(const Shape* shape, dim rows) noexcept nogil:
    """How many there are for `rows` rows of y."""
    return shape.C * rows * reach_w(shape, shape.Q)


cdef dim scratch_bytes(const Shape* shape, dim rows) noexcept nogil:
    """What one of the three problems wants for `rows` rows of y: not always more for more."""
    cdef Shape column = column_shape(shape, rows)
    cdef Shape row = row_shape(shape, rows)
    cdef Shape whole = whole_shape(shape, rows)
    return max(max(pixel_workspace_bytes(&column, 1), pixel_workspace_bytes(&row, 1)),
               pixel_workspace_bytes(&whole, 1))


cdef dim separable_workspace_bytes(const Shape* shape, int workers) noexcept nogil:
    """Sums along columns, and scratch; bands have as many rows as one another, or one more."""
    cdef dim bands = separable_bands(shape)
    cdef dim rows = ceil_div(shape.P, bands)
    return (whole_lines(column_sums(shape, rows) * shape.item)
            + max(scratch_bytes(shape, rows), scratch_bytes(shape, shape.P // bands)))


cdef dim separable_tasks(const Shape* shape, int workers) noexcept nogil:
    return shape.N * shape.G * shape.K * separable_bands(shape)


cdef inline bint all_finite(const char* values, dim count, lane* like) noexcept nogil:
    """Assumes whole lines, of which what is behind the last value is finite."""
    cdef dim item = itemsize(like)
    cdef dim lanes = sizeof(lane) // item
    cdef lane zero, check
    cdef dim i
    memset(&zero, 0, sizeof(lane))
    check = zero
    for i in range(ceil_div(count, lanes)):
        check = check + (<const lane*> values)[i] * zero
    return is_zero(&check)


cdef void run_pixels(const Shape* shape, const char* packed, const Image* x, char* y, char* workspace) noexcept nogil:
    """All tasks of a problem of direct-pixels."""
    cdef dim task
    for task in range(pixel_tasks(shape, 1)):
        pixel_run(shape, 1, packed, x, y, task, workspace)


cdef void separable_run(const Shape* shape, int workers, const char* packed, const Image* x, char* y, dim task,
                        char* workspace) noexcept nogil:
    cdef dim bands = separable_bands(shape)
    cdef dim filters = shape.G * shape.K
    cdef dim image = task // bands
    cdef dim n = image // filters
    cdef dim k = image - n * filters
    cdef dim p = split(shape.P, bands, task - image * bands)
    cdef dim rows = split(shape.P, bands, task - image * bands + 1) - p
    cdef dim count = column_sums(shape, rows)
    cdef Shape column = column_shape(shape, rows)
    cdef Shape row = row_shape(shape, rows)
    cdef Shape whole = whole_shape(shape, rows)
    cdef Image part = image_from(x, p * shape.p_step, 0)
    cdef Image sums
    cdef char* scratch = workspace + whole_lines(column_sums(shape, ceil_div(shape.P, bands)) * shape.item)
    cdef bint finite
    part.data += n * x.n + k // shape.K * shape.C * x.c
    packed += k * separable_filter_bytes(shape) + factor_bytes(shape)
    y += (image * shape.P + p) * shape.Q * shape.item
    memset(workspace + whole_lines(count * shape.item) - LINE, 0, LINE)
    run_pixels(&column, packed, &part, workspace, scratch)
    if shape.item == 4:
        finite = all_finite(workspace, count, <f32v*> NULL)
    else:
        finite = all_finite(workspace, count, <f64v*> NULL)
    packed += whole_lines(pixel_packed_bytes(&column))
    if finite:
        memset(&sums, 0, sizeof(Image))
        sums.data = workspace
        sums.w = shape.item
        sums.h = row.W * sums.w
        sums.c = rows * sums.h
        run_pixels(&row, packed, &sums, y, scratch)
    else:
        run_pixels(&whole, packed + whole_lines(pixel_packed_bytes(&row)), &part, y, scratch)


cdef double separable_cost(const Shape* shape) noexcept nogil:
    """Assumes that the filters can be taken apart, if the shape says so."""
    cdef dim bands, rows
    cdef Shape row, column
    if (not shape.separable or not is_float(shape) or shape.K == 0 or shape.R * shape.S < LEAST_WEIGHTS
            or shape.R == 1 or shape.S == 1
            or pixel_step(shape) > shape.item):
        return INFINITY
    bands = separable_bands(shape)
    rows = ceil_div(shape.P, bands)
    column = column_shape(shape, rows)
    row = row_shape(shape, rows)
    return shape.G * shape.K * bands * (
        pixel_cost(&column) + pixel_cost(&row) + 1.0 * vectors_of(shape, column_sums(shape, rows)))


cdef double separable_pack_cost(const Shape* shape) noexcept nogil:
    """Each weight is looked at again, and packed for the whole too."""
    return 10.0 * shape.G * shape.K * shape.C * shape.R * shape.S
