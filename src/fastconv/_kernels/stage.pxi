# Rows of x as a kernel wants them: contiguous, with their padding. Padding, columns that lie apart, and strides meet
# here, a row at a time; register tiles know nothing of them.

cdef enum:
    STAGE_BYTES = 384 * 1024    # most that is staged at a time
    MASKED_BYTES = 2 * VECTOR_BYTES     # of a row that is gathered with lanes masked: longer ones lose by that
    ROOM = 1 << 30              # more values than a row that is gathered has
    LEAST_SQUARE = 8            # phases that are split by squares of vectors; fewer value by value


cdef inline dim values_in(dim size, dim item) noexcept nogil:
    """size // item, without a division, which would take longer than copying a row."""
    return size >> 2 if item == 4 else size >> 3


cdef inline void copy_row(char* to, const char* value, dim bytes, int piece) noexcept nogil:
    """Copy `piece` bytes at a time, the last ones overlapping those before. Assumes that there are as many."""
    cdef dim i = 0
    while i < bytes - piece:
        memcpy(to + i, value + i, piece)
        i += piece
    memcpy(to + bytes - piece, value + bytes - piece, piece)


cdef inline void copy_bytes(char* to, const char* value, dim size) noexcept nogil:
    """Any multiple of 4 bytes, without a call of memcpy."""
    if size >= VECTOR_BYTES: copy_row(to, value, size, VECTOR_BYTES)
    elif size >= 32: copy_row(to, value, size, 32)
    elif size >= 16: copy_row(to, value, size, 16)
    elif size >= 8: copy_row(to, value, size, 8)
    elif size > 0: copy_row(to, value, size, 4)


cdef inline void split_in_two(char* even, char* odd, const char* value, dim pairs, lane* like) noexcept nogil:
    """Every second value to `even`, the ones between them to `odd`. Assumes a vector of pairs at least."""
    cdef dim item = itemsize(like)
    cdef dim lanes = sizeof(lane) // item
    cdef dim i = 0
    cdef lane a, b
    while i < pairs:
        i = min(i, pairs - lanes)       # the last vectors overlap those before
        a = (<const lane*> (value + 2 * i * item))[0]
        b = (<const lane*> (value + 2 * i * item))[1]
        (<lane*> (even + i * item))[0] = even_lanes(a, b)
        (<lane*> (odd + i * item))[0] = odd_lanes(a, b)
        i += lanes


cdef inline dim split_in_turn(char* to, dim phase, const word* value, dim count, int step, int phases) noexcept nogil:
    """The first values of all phases, as many of each, which are returned. Vectorised, as constants unroll it."""
    cdef dim i, whole = count // step
    cdef int f
    for i in range(whole):
        for f in range(phases):
            (<word*> (to + f * phase))[i] = value[i * step + f]
    return whole


cdef inline dim split_in_squares(char* to, dim phase, const char* value, dim count, dim step, dim phases,
                                 lane* like) noexcept nogil:
    """The first values of all phases, by squares that are turned over; returns how many of each.

    So many that no vector is read that ends behind the row.
    """
    cdef lane turned[MOST_LANES]
    cdef dim item = itemsize(like)
    cdef dim lanes = sizeof(lane) // item
    cdef dim last = count - lanes - (phases - 1) // lanes * lanes   # a vector of the last phases may begin there
    cdef dim whole = last // step + 1 if last >= 0 else 0
    cdef dim i = 0, f, k
    while i < whole:
        f = 0
        while f < phases:
            transpose(value + (i * step + f) * item, step * item, min(lanes, whole - i), turned)
            for k in range(min(lanes, phases - f)):
                store_lanes(to + (f + k) * phase + i * item, whole - i, turned[k])
            f += lanes
        i += lanes
    return whole


cdef inline bint splits_many(dim step, dim phases) noexcept nogil:
    return phases >= LEAST_SQUARE or phases > 2 and step <= 4


# Not inlined: every kernel has some calls.
cdef dim split_many(char* to, dim phase, const char* value, dim count, dim step, dim phases, dim item) noexcept nogil:
    """The first values of all phases, as many of each, which are returned."""
    cdef const word32* narrow_value = <const word32*> value
    cdef const word64* wide_value = <const word64*> value
    if step == 3:
        return split_in_turn(to, phase, narrow_value, count, 3, 3) if item == 4 else split_in_turn(
            to, phase, wide_value, count, 3, 3)
    if step == 4 == phases:
        return split_in_turn(to, phase, narrow_value, count, 4, 4) if item == 4 else split_in_turn(
            to, phase, wide_value, count, 4, 4)
    if step == 4:
        return split_in_turn(to, phase, narrow_value, count, 4, 3) if item == 4 else split_in_turn(
            to, phase, wide_value, count, 4, 3)
    if item == 4:
        return split_in_squares(to, phase, value, count, step, phases, <f32v*> NULL)
    return split_in_squares(to, phase, value, count, step, phases, <f64v*> NULL)


cdef void split_row(char* to, dim phase, const char* value, dim count, dim step, dim phases, dim item) noexcept nogil:
    """Values f, f + step, ... of a row to to + f * phase, side by side, for all f < phases."""
    cdef dim f, whole = 0, most, longer, pairs = count // 2
    if phases == 2 == step and pairs * item >= VECTOR_BYTES:
        if item == 4:
            split_in_two(to, to + phase, value, pairs, <f32v*> NULL)
        else:
            split_in_two(to, to + phase, value, pairs, <f64v*> NULL)
        if count > 2 * pairs:
            copy_scalar(to + pairs * item, value + 2 * pairs * item, item)
        return
    if splits_many(step, phases):
        whole = split_many(to, phase, value, count, step, phases, item)
    most = ceil_div(count, step)
    longer = count - (most - 1) * step      # phases that have so many
    for f in range(min(phases, count)):
        copy_strided(to + f * phase + whole * item, value + (f + whole * step) * item,
                     (most if f < longer else most - 1) - whole, step, item)


cdef inline void copy_strided(char* to, const char* value, dim count, dim step, dim item) noexcept nogil:
    """count values, `step` values of `item` bytes apart. Vectorised for a step of 1, and of 2 with 4 bytes."""
    cdef dim i
    if step == 1:
        copy_bytes(to, value, count * item)
    elif item == 4 and step == 2:
        for i in range(count):
            (<word32*> to)[i] = (<const word32*> value)[2 * i]
    elif item == 4:
        for i in range(count):
            (<word32*> to)[i] = (<const word32*> value)[step * i]
    else:
        for i in range(count):
            (<word64*> to)[i] = (<const word64*> value)[step * i]


ctypedef fused narrow:
    short
    signed char
    unsigned char


cdef inline void join_pairs(char* to, const char* value, dim second, dim count, dim step, narrow* like) noexcept nogil:
    """The low halves of `count` items from values `step` of them apart, the high ones from `second` bytes behind."""
    cdef const narrow* a = <const narrow*> value
    cdef const narrow* b = <const narrow*> (value + second)
    cdef word32* items = <word32*> to
    cdef dim i
    if step == 1:       # vectorised
        for i in range(count):
            items[i] = <unsigned short> a[i] | <unsigned int> <unsigned short> b[i] << 16
    else:
        for i in range(count):
            items[i] = <unsigned short> a[i * step] | <unsigned int> <unsigned short> b[i * step] << 16


cdef void read_pairs(const Image* x, dim c, char* to, const char* value, dim count) noexcept nogil:
    """count items, which begin in a row of the first of two channels."""
    # A last channel that is alone is its own second: that has the weight 0.
    cdef dim second = x.second if 2 * c + 1 < x.channels else 0
    if x.narrow == UNSIGNED_BYTES:
        join_pairs(to, value, second, count, x.w, <unsigned char*> NULL)
    elif x.narrow == BYTES:
        join_pairs(to, value, second, count, x.w, <signed char*> NULL)
    else:
        join_pairs(to, value, second, count, x.w >> 1, <short*> NULL)


cdef inline void read_values(const Shape* shape, const Image* x, dim c, char* to, const char* value,
                             dim count) noexcept nogil:
    """count items of a row of x."""
    if shape.dtype == PAIRS:
        read_pairs(x, c, to, value, count)
    else:
        copy_strided(to, value, count, values_in(x.w, shape.item), shape.item)


cdef inline void fill(char* to, dim count, const char* value, dim item) noexcept nogil:
    """One value, count times over. Read once, or the compiler wouldn't vectorise it."""
    cdef word32 narrow_value
    cdef word64 wide_value
    cdef dim i
    if item == 4:
        narrow_value = (<const word32*> value)[0]
        for i in range(count):
            (<word32*> to)[i] = narrow_value
    else:
        wide_value = (<const word64*> value)[0]
        for i in range(count):
            (<word64*> to)[i] = wide_value


cdef inline void spread_bias(char* to, const Weights* w, dim filter, dim filters, dim count, dim item) noexcept nogil:
    """The biases of so many filters from `filter` on, each `count` times over, or zeros."""
    cdef dim k
    memset(to, 0, filters * count * item)
    for k in range(filters if w.bias != NULL else 0):
        fill(to + k * count * item, count, w.bias + (filter + k) * item, item)


cdef inline dim source_row(const Image* x, dim h) noexcept nogil:
    """The row of x that a row of the padded image is, or -1."""
    return h if x.rows == NULL else x.rows[h]


cdef inline void gather_padding(const Shape* shape, const Image* x, dim c, const char* row, dim first, dim count,
                                char* to) noexcept nogil:
    """Columns of a padded row that lie beside x."""
    cdef dim i
    for i in range(count):
        if x.columns[first + i] < 0:
            copy_scalar(to, &x.pad[0], shape.item)
        else:
            read_values(shape, x, c, to, row + x.columns[first + i] * x.w, 1)
        to += shape.item


cdef inline void gather_row_inline(const Shape* shape, const Image* x, const char* image, dim c, dim h, dim first,
                                   dim count, char* to) noexcept nogil:
    """Columns first .. first+count-1 of row h of channel c of the padded image."""
    cdef dim item = shape.item
    cdef const char* row
    cdef dim before, behind         # columns before x, and those before or in it
    h = source_row(x, h)
    if h < 0:
        fill(to, count, &x.pad[0], item)
        return
    row = image + c * x.c + h * x.h
    if x.columns == NULL:
        read_values(shape, x, c, to, row + first * x.w, count)
        return
    before = min(count, max(<dim> 0, x.left - first))
    behind = max(before, min(count, x.left - first + shape.W))
    gather_padding(shape, x, c, row, first, before, to)
    read_values(shape, x, c, to + before * item, row + (first + before - x.left) * x.w, behind - before)
    gather_padding(shape, x, c, row, first + behind, count - behind, to + behind * item)


# A function of its own, where a row at a time is gathered.
cdef void gather_row(const Shape* shape, const Image* x, const char* image, dim c, dim h, dim first, dim count,
                     char* to) noexcept nogil:
    gather_row_inline(shape, x, image, c, h, first, count, to)


cdef inline bint pads_with_zeros(const Shape* shape, const Image* x) noexcept nogil:
    """Whether padding that isn't of x is zeros, of any dtype."""
    cdef dim i
    for i in range(shape.item):
        if x.pad[i] != 0:
            return False
    return True


cdef bint only_zeros_around(const Shape* shape, const Image* x, dim first, dim count) noexcept nogil:
    """Whether those of columns first .. first+count-1 that are beside x are zeros, of any dtype."""
    cdef dim i
    if x.columns == NULL:
        return True
    if not pads_with_zeros(shape, x):
        return False
    for i in range(first, first + count):
        if (i < x.left or i >= x.left + shape.W) and x.columns[i] >= 0:
            return False
    return True


cdef inline bint can_mask(const Shape* shape, const Image* x, dim first, dim count) noexcept nogil:
    """Whether these columns follow each other in x, and are zeros or of x."""
    return x.w == shape.item and shape.dtype != PAIRS and only_zeros_around(shape, x, first, count)


# Phase f of a row holds columns f, f + q_step, ...: what neighbouring pixels see, side by side.

cdef inline dim phases_down(const Shape* shape) noexcept nogil:
    """Phases of x's rows that a filter sees."""
    return min(shape.p_step, reach_h(shape, 1))


cdef inline dim phases_across(const Shape* shape) noexcept nogil:
    return min(shape.q_step, reach_w(shape, 1))


cdef struct Rows:
    # What is gathered of the padded image, and where it goes.
    dim c, channels             # the first channel, and how many
    dim h, h_step, rows         # the first row of each, from one to the next, and how many
    dim first, count            # columns
    bint masked                 # whether they can be
    dim c_pitch, pitch, phase   # bytes there from one channel to the next, from one row, and from one phase


cdef inline void gather_lanes(const Shape* shape, const Image* x, const char* image, const Rows* g, char* to, dim room,
                              int step, bint odd, lane* like) noexcept nogil:
    """As gather_phases with a q_step of 1, or of 2 with one phase or an odd one too. Assumes can_mask.

    Whole vectors are stored, up to `room` values of a row: what they overwrite behind a phase, a vector at most, is
    written later or is nothing that is needed.
    """
    cdef dim item = itemsize(like)
    cdef dim lanes = sizeof(lane) // item
    cdef dim before = x.left - g.first       # columns before x, and those before or in it
    cdef dim behind = min(before + shape.W, g.count)
    cdef dim at = (g.count - 1) // (step * lanes)
    # What the inner loop needs: the compiler can't know that stores don't change it.
    cdef const dim* map = x.rows
    cdef dim x_h = x.h, x_c = x.c, pitch = g.pitch, phase = g.phase, h_step = g.h_step, rows = g.rows
    cdef dim c, i, h, row
    cdef const char* channel
    cdef const char* value
    cdef char* line
    cdef lane zero = broadcast(&x.pad[0], like)
    cdef lane some[2]
    cdef lane evens
    cdef int f
    image += g.c * x_c - before * item
    # The last columns first, as what is behind them is in the way of the next row's. Rows innermost: the masks are the
    # same for all of them.
    while at >= 0:
        channel = image + at * step * VECTOR_BYTES
        for c in range(g.channels):
            line = to + c * g.c_pitch + at * VECTOR_BYTES
            h = g.h
            for i in range(rows):
                row = h if map == NULL else map[h]
                h += h_step
                value = channel + row * x_h
                # What the next columns are in, and the next channel: of many rows no prefetcher sees that.
                prefetch(value + 2 * LINE)
                if rows > 1:
                    prefetch(value + x_c)
                for f in range(step):
                    if row < 0:
                        some[f] = zero
                    else:
                        some[f] = load_lanes(value + f * VECTOR_BYTES, before - (at * step + f) * lanes,
                                             behind - (at * step + f) * lanes, like)
                evens = some[0]
                if step > 1:
                    evens = even_lanes(some[0], some[1])
                if room - at * lanes >= lanes:
                    (<lane*> line)[0] = evens
                else:
                    store_lanes(line, room - at * lanes, evens)
                if odd:
                    (<lane*> (line + phase))[0] = odd_lanes(some[0], some[1])
                line += pitch
            channel += x_c
        at -= 1


# Functions of their own: in one, the compiler makes the loops of all slower.
cdef void gather_all(const Shape* shape, const Image* x, const char* image, const Rows* g, char* to,
                     dim room) noexcept nogil:
    if shape.item == 4: gather_lanes(shape, x, image, g, to, room, 1, False, <f32v*> NULL)
    else: gather_lanes(shape, x, image, g, to, room, 1, False, <f64v*> NULL)


cdef void gather_seconds(const Shape* shape, const Image* x, const char* image, const Rows* g, char* to,
                         dim room) noexcept nogil:
    if shape.item == 4: gather_lanes(shape, x, image, g, to, room, 2, False, <f32v*> NULL)
    else: gather_lanes(shape, x, image, g, to, room, 2, False, <f64v*> NULL)


cdef void gather_halves(const Shape* shape, const Image* x, const char* image, const Rows* g, char* to,
                        dim room) noexcept nogil:
    if shape.item == 4: gather_lanes(shape, x, image, g, to, room, 2, True, <f32v*> NULL)
    else: gather_lanes(shape, x, image, g, to, room, 2, True, <f64v*> NULL)


cdef inline void gather_masked(const Shape* shape, const Image* x, const char* image, const Rows* g, char* to,
                               dim room) noexcept nogil:
    if shape.q_step == 1: gather_all(shape, x, image, g, to, room)
    elif phases_across(shape) == 1: gather_seconds(shape, x, image, g, to, room)
    else: gather_halves(shape, x, image, g, to, room)


cdef void gather_wide(const Shape* shape, const Image* x, const char* image, const Rows* g, char* to) noexcept nogil:
    cdef dim c, i
    for c in range(g.channels):
        for i in range(g.rows):
            gather_row_inline(shape, x, image, g.c + c, g.h + i * g.h_step, g.first, g.count,
                              to + c * g.c_pitch + i * g.pitch)


cdef inline void gather_rows(const Shape* shape, const Image* x, const char* image, const Rows* g,
                             char* to) noexcept nogil:
    """Rows as they stand, whatever the stride."""
    if g.masked and g.count * shape.item <= MASKED_BYTES: gather_all(shape, x, image, g, to, ROOM)
    else: gather_wide(shape, x, image, g, to)


cdef inline dim divided(dim a, dim b) noexcept nogil:
    """a // b, of which b is mostly 1: divisions cost more than all else in a small problem."""
    return a if b == 1 else a // b


cdef inline dim phase_columns(const Shape* shape, dim columns) noexcept nogil:
    """Values in a phase of what so many columns of y see."""
    return divided(reach_w(shape, columns) + shape.q_step - 1, shape.q_step)


cdef inline double split_cost(const Shape* shape) noexcept nogil:
    """Cycles that a value of more than two phases takes, about."""
    return 0.5 if splits_many(shape.q_step, phases_across(shape)) else 1.5


cdef inline const char* image_row(const Shape* shape, const Image* x, const char* image, dim c, dim h, dim first,
                                  dim count, char* line) noexcept nogil:
    """Where columns first .. first+count-1 of a row stand one after the other: in x, or copied to `line`."""
    if not shape.gathered:
        return image + c * x.c + h * x.h + first * shape.item
    gather_row(shape, x, image, c, h, first, count, line)
    return line


cdef inline dim masked_bytes(const Shape* shape) noexcept nogil:
    """Most of a row that is gathered with lanes masked."""
    # Vectors of 16 bytes have no masks: to throw away every second value then takes longer than to copy the others.
    if shape.q_step > 2 or shape.q_step > phases_across(shape) and VECTOR_BYTES < 32:
        return 0
    return shape.q_step * MASKED_BYTES


cdef inline double gather_cost(const Shape* shape, dim count, bint split) noexcept nogil:
    """Cycles that so many columns of a row take: with masks; or copied, and split into phases, by vectors or values."""
    cdef double vectors = ceil_div(count * shape.item, VECTOR_BYTES)
    if count * shape.item <= masked_bytes(shape):
        return 2 + 2 * vectors
    if shape.q_step == 1 or not split:
        return 20 + 2 * vectors
    if shape.q_step == 2 and phases_across(shape) == 2 and vectors >= 2:
        return 30 + 5 * vectors
    return 30 + 1.5 * split_cost(shape) * count


cdef inline void gather_phases(const Shape* shape, const Image* x, const char* image, const Rows* g, char* to,
                               char* line) noexcept nogil:
    """Rows by their phases; `line` has room for what is gathered of one."""
    cdef dim c, i
    if shape.q_step == 1:
        gather_rows(shape, x, image, g, to)
        return
    if g.masked and g.count * shape.item <= masked_bytes(shape):
        gather_masked(shape, x, image, g, to, ROOM)
        return
    for c in range(g.channels):
        for i in range(g.rows):
            split_row(to + c * g.c_pitch + i * g.pitch, g.phase,
                      image_row(shape, x, image, g.c + c, g.h + i * g.h_step, g.first, g.count, line), g.count,
                      shape.q_step, phases_across(shape), shape.item)


cdef inline const char* row_in_x(const Image* x, const char* image, dim c, dim h, dim first) noexcept nogil:
    """Where columns of the padded image from `first` on stand in x, about: to ask for them, not to read."""
    if x.rows != NULL:
        h = max(<dim> 0, x.rows[h])
        first = max(<dim> 0, first - x.left)
    return image + c * x.c + h * x.h + first * x.w
