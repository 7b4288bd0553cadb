# Which images "winograd" keeps the error bound for.
#
# Pixels near the edges of the image meet some rows and columns of a filter only. Where these are small and others are
# large, a large pixel there would disturb sums by what their bound doesn't know of. So either what a channel's edges
# meet is comparable with its largest weights, or it is unsure, and each image's edges in it are looked at: the image is
# computed directly if they could matter. With a stride, every stride-th row meets every stride-th row of a filter, from
# the same one on, its phase; columns likewise. Pixels of different phases have nothing to do with each other.

cdef enum:
    UNSEEN = 2                  # times that the largest weight may be larger than those that a corner meets
    MEASURED = 1024             # values that are measured at a time,
    EDGE_PIXELS = 512           # and pixels near an image's edges
    DISTURBANCE = 3             # halves of a mean sum of magnitudes that a pixel's unseen weights may weigh

cdef struct Trust:
    # Of each channel, of each phase of each group: what is known of the weights.
    double* total       # the sum of the magnitudes that a filter has of it, on average
    double* unsure      # the largest, of a channel that is unsure; or 0


cdef inline dim phases_of(const Shape* shape) noexcept nogil:
    return phases_down(shape) * phases_across(shape)


cdef inline dim trust_start(const Shape* shape) noexcept nogil:
    """Behind direct weights, or where these are as they came."""
    return whole_lines(filter_packed_bytes(shape))


cdef inline dim measures(const Shape* shape) noexcept nogil:
    return shape.G * phases_of(shape) * shape.C


cdef inline dim trust_bytes(const Shape* shape) noexcept nogil:
    return whole_lines(2 * measures(shape) * sizeof(double))


cdef inline Trust trust_of(const Shape* shape, const char* packed) noexcept nogil:
    cdef Trust trust
    trust.total = <double*> (packed + trust_start(shape))
    trust.unsure = trust.total + measures(shape)
    return trust


cdef inline bint any_unsure(const double* unsure, dim count) noexcept nogil:
    cdef dim i
    for i in range(count):
        if unsure[i] != 0:
            return True
    return False


cdef struct Taps:
    # Of one axis of a filter, the first and the last of some of its rows, or columns.
    dim first, last


cdef inline Taps taps_met(dim i, dim taps, dim outputs) noexcept nogil:
    """What row i of an image meets of a filter with so many rows, as it should."""
    cdef Taps met
    met.first = max(<dim> 0, i - outputs + 1)
    met.last = min(i, taps - 1)
    return met


cdef inline Taps taps_used(dim i, dim taps, dim outputs, dim tile) noexcept nogil:
    """What enters the same sums as row i of an image, if only to cancel.

    The first row of the first tile of a patch is transformed by itself and meets the first row of the patch alone; of
    the last row of the last tile the same is true. All others meet the whole patch.
    """
    cdef Taps used
    cdef dim end = ceil_div(outputs, tile) * tile + SIDE - 2
    cdef dim begin = 0, low
    used.first, used.last = taps, 0
    while begin < taps:
        low = begin + SIDE - 1 if i == begin + end else begin
        if begin <= i <= begin + end and low < taps:
            used.first = min(used.first, low)
            used.last = max(used.last, begin if i == begin else min(begin + SIDE, taps) - 1)
        begin += SIDE
    return used


cdef inline double largest_of(const double* value, Taps taps, dim step) noexcept nogil:
    cdef double largest = 0
    cdef dim i
    for i in range(taps.first, taps.last + 1):
        largest = max(largest, value[i * step])
    return largest


cdef bint edges_meet_enough(const Shape* shape, const double* table, dim down, dim across) noexcept nogil:
    """Whether the weights, the largest of each place, that pixels near an edge meet compare with those of their tile.

    `table` is of one phase, of down x across weights: p_step rows of a filter and q_step columns of it apart.
    """
    cdef dim row = shape.p_step * shape.S
    cdef dim step = shape.q_step
    cdef dim tile = tile_across(shape)
    cdef double met[MOST_SIDE]
    cdef double used[MOST_SIDE]
    cdef dim i = 0, j, s
    while i < shape.P + down - 1:
        for s in range(across):
            met[s] = largest_of(table + s * step, taps_met(i, down, shape.P), row)
            used[s] = largest_of(table + s * step, taps_used(i, down, shape.P, tile), row)
        j = 0
        while j < shape.Q + across - 1:
            if UNSEEN * largest_of(met, taps_met(j, across, shape.Q), 1) < largest_of(
                    used, taps_used(j, across, shape.Q, tile), 1):
                return False
            # What meets all of a filter, or all of its columns, is alike.
            j = max(j + 1, shape.Q) if j == across - 1 else j + 1
        i = max(i + 1, shape.P) if i == down - 1 else i + 1
    return True


cdef inline void add_magnitudes(const Shape* shape, const Weights* w, const char* data, dim channels, double* largest,
                                double* total) noexcept nogil:
    """Of some of one filter's channels, for each place."""
    cdef dim c, r, s, i = 0
    cdef double value
    if shape.item == 4 and filters_are_dense(shape, w):
        for i in range(channels * shape.R * shape.S):   # the usual case, which the compiler vectorises
            value = fabs((<const float*> data)[i])
            largest[i] = value if value > largest[i] else largest[i]
            total[i] += value
        return
    for c in range(channels):
        for r in range(shape.R):
            for s in range(shape.S):
                value = fabs(value_at(data + c * w.c + r * w.r + s * w.s, shape.item))
                largest[i] = max(largest[i], value)
                total[i] += value
                i += 1


cdef inline dim phase_taps(dim taps, dim phase, dim step) noexcept nogil:
    """Rows, or columns, of a filter that see a phase of x's."""
    return ceil_div(taps - phase, step)


cdef inline void measure_channel(const Shape* shape, const double* largest, const double* total, const Trust* trust,
                                 dim group, dim c) noexcept nogil:
    """What Trust has of a channel."""
    cdef dim at = group * phases_of(shape) * shape.C + c
    cdef dim f, h, r, s, i, down, across
    cdef double sum, weight
    for f in range(phases_down(shape)):
        down = phase_taps(shape.R, f, shape.p_step)
        for h in range(phases_across(shape)):
            across = phase_taps(shape.S, h, shape.q_step)
            sum = weight = 0
            for r in range(down):
                for s in range(across):
                    i = (f + r * shape.p_step) * shape.S + h + s * shape.q_step
                    weight = max(weight, largest[i])
                    sum += total[i]
            trust.total[at] = sum / shape.K
            trust.unsure[at] = weight
            if edges_meet_enough(shape, largest + f * shape.S + h, down, across):
                trust.unsure[at] = 0
            at += shape.C


cdef inline dim channels_measured(const Shape* shape) noexcept nogil:
    """At a time, so that a filter is read in long pieces."""
    return max(1, MEASURED // (shape.R * shape.S))


cdef inline dim measure_tasks(const Shape* shape) noexcept nogil:
    return shape.G * ceil_div(shape.C, channels_measured(shape))


cdef void measure_weights(const Shape* shape, const Weights* w, const Trust* trust, dim task) noexcept nogil:
    """Of some of a group's channels."""
    cdef double largest[MOST_SIDE * MOST_SIDE]
    cdef double total[MOST_SIDE * MOST_SIDE]
    cdef dim places = shape.R * shape.S
    cdef dim pieces = ceil_div(shape.C, channels_measured(shape))
    cdef dim group = divided(task, pieces)
    cdef dim c = (task - group * pieces) * channels_measured(shape)
    cdef dim channels = min(channels_measured(shape), shape.C - c)
    cdef dim k, i
    memset(largest, 0, channels * places * sizeof(double))
    memset(total, 0, channels * places * sizeof(double))
    for k in range(group * shape.K, (group + 1) * shape.K):
        add_magnitudes(shape, w, w.data + k * w.k + c * w.c, channels, largest, total)
    for i in range(channels):
        measure_channel(shape, largest + i * places, total + i * places, trust, group, c + i)


cdef struct Edges:
    # Pixels near the edges of an image's channels: where they are, and what they could disturb a sum by, all channels'.
    dim count
    dim at[EDGE_PIXELS]
    double sum[EDGE_PIXELS]


cdef double measure_edges(const Shape* shape, const Image* x, const double* unsure, Edges* edges) noexcept nogil:
    """The most that one of the pixels could, which are forgotten then. Channel by channel, as they lie in memory."""
    cdef double value, most = 0
    cdef dim c, i
    memset(edges.sum, 0, sizeof(edges.sum))
    for c in range(shape.C):
        for i in range(edges.count if unsure[c] != 0 else 0):
            value = fabs(value_at(x.data + c * x.c + edges.at[i], shape.item))
            edges.sum[i] += unsure[c] * value if value < INFINITY else 0
    for i in range(edges.count):
        most = max(most, edges.sum[i])
    edges.count = 0
    return most


cdef double edges_of(const Shape* shape, const Image* x, const double* unsure, dim f, dim h) noexcept nogil:
    """The most that one pixel near an edge, of phase f, h, could disturb a sum by, of channels that are unsure."""
    cdef dim down = phase_taps(shape.R, f, shape.p_step)
    cdef dim across = phase_taps(shape.S, h, shape.q_step)
    cdef dim c, i, j, row, column
    cdef double most = 0, padding = 0, pad = fabs(value_at(&x.pad[0], shape.item))
    cdef Edges edges
    if not any_unsure(unsure, shape.C):
        return 0
    edges.count = 0
    for c in range(shape.C):
        padding += unsure[c] * pad if pad < INFINITY else 0
    for i in range(shape.P + down - 1):
        row = source_row(x, f + i * shape.p_step)
        j = 0
        while j < shape.Q + across - 1:
            if j == across - 1 and down - 1 <= i < shape.P:
                j = shape.Q         # past what meets all of a filter
                continue
            column = h + j * shape.q_step
            column = column if x.columns == NULL else x.columns[column]
            if row < 0 or column < 0:
                most = max(most, padding)
            else:
                edges.at[edges.count] = row * x.h + column * x.w
                edges.count += 1
            if edges.count == EDGE_PIXELS:
                most = max(most, measure_edges(shape, x, unsure, &edges))
            j += 1
    return max(most, measure_edges(shape, x, unsure, &edges))


cdef double inside_of(const Shape* shape, const Image* x, dim c, dim f, dim h) noexcept nogil:
    """The sum of a channel's magnitudes that meet all of a filter, of phase f, h."""
    cdef dim down = phase_taps(shape.R, f, shape.p_step)
    cdef dim across = phase_taps(shape.S, h, shape.q_step)
    cdef char row[MEASURED * 8]
    cdef dim i, j, count
    cdef double sum = 0
    for i in range(down - 1, shape.P):
        j = across - 1
        while j < shape.Q:
            count = min(shape.Q - j, MEASURED // shape.q_step)
            gather_row_inline(shape, x, x.data, c, f + i * shape.p_step, h + j * shape.q_step,
                              (count - 1) * shape.q_step + 1, row)
            if shape.item == 4:
                sum += sum_magnitudes(<const float*> row, count, shape.q_step)
            else:
                sum += sum_magnitudes(<const double*> row, count, shape.q_step)
            j += count
    return sum


cdef bint group_trusted(const Shape* shape, const Image* x, const Trust* trust, dim group) noexcept nogil:
    """Compares what edges could disturb with a lower bound of the largest sum of magnitudes: the mean of all sums.

    Of that, no more channels are looked at than it takes. What isn't finite doesn't count: tiles that see some are
    computed again, and others should not depend on it.
    """
    cdef Image own = x[0]
    cdef dim phases = phases_of(shape)
    cdef dim phase = group * phases
    cdef dim c, f, h
    cdef double enough = 0, sum = 0, inside
    own.data += group * shape.C * x.c
    for f in range(phases_down(shape)):
        for h in range(phases_across(shape)):
            enough += edges_of(shape, &own, trust.unsure + phase * shape.C, f, h)
            phase += 1
    enough *= 2.0 * shape.P * shape.Q / DISTURBANCE
    for c in range(shape.C):
        if sum >= enough:
            break
        phase = group * phases
        for f in range(phases_down(shape)):
            for h in range(phases_across(shape)):
                inside = trust.total[phase * shape.C + c] * inside_of(shape, &own, c, f, h)
                if isfinite(inside):
                    sum += inside
                phase += 1
    return sum >= enough and isfinite(sum)


cdef bint winograd_trusted(const Shape* shape, const char* packed, const Image* x) noexcept nogil:
    cdef Trust trust = trust_of(shape, packed)
    cdef dim group
    if not any_unsure(trust.unsure, measures(shape)):
        return True
    if x == NULL:
        return False
    for group in range(shape.G):
        if not group_trusted(shape, x, &trust, group):
            return False
    return True
