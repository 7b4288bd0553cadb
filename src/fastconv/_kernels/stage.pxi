# Rows of x as a kernel wants them: contiguous, with their padding. Padding, columns that lie apart, and strides meet
# here, a row at a time; register tiles know nothing of them.

cdef enum:
    STAGE_BYTES = 384 * 1024    # most that is staged at a time


cdef inline void copy_strided(char* to, const char* value, dim count, dim step, dim item) noexcept nogil:
    """count values, `step` values of `item` bytes apart. A step of 1 or 2, the usual ones, is vectorised."""
    cdef dim i
    if step == 1:
        memcpy(to, value, count * item)
    elif item == 4 and step == 2:
        for i in range(count):
            (<unsigned int*> to)[i] = (<const unsigned int*> value)[2 * i]
    elif item == 4:
        for i in range(count):
            (<unsigned int*> to)[i] = (<const unsigned int*> value)[step * i]
    else:
        for i in range(count):
            (<unsigned long long*> to)[i] = (<const unsigned long long*> value)[step * i]


cdef inline void fill(char* to, dim count, const char* value, dim item) noexcept nogil:
    cdef dim i
    for i in range(count):
        copy_scalar(to + i * item, value, item)


cdef inline char* spread_bias(char* to, const char* bias, dim filters, dim count, dim item) noexcept nogil:
    """Each filter's bias `count` times over, or zeros; returns where they end."""
    cdef dim k
    memset(to, 0, filters * count * item)
    for k in range(filters if bias != NULL else 0):
        fill(to + k * count * item, count, bias + k * item, item)
    return to + filters * count * item


cdef void gather_row(const Shape* shape, const Image* x, const char* channel, dim h, dim first, dim count,
                     char* to) noexcept nogil:
    """Columns first .. first+count-1 of row h of a channel of the padded image."""
    cdef dim item = shape.item
    cdef const char* pad = &x.pad[0]
    cdef const char* value
    cdef dim i = 0, at, inside
    if x.rows != NULL:
        h = x.rows[h]
        if h < 0:
            fill(to, count, pad, item)
            return
    channel += h * x.h
    if x.columns == NULL:
        copy_strided(to, channel + first * x.w, count, x.w // item, item)
        return
    while i < count:
        at = first + i - x.left
        if 0 <= at < shape.W:           # x itself, as far as it goes
            inside = min(shape.W - at, count - i)
            copy_strided(to + i * item, channel + at * x.w, inside, x.w // item, item)
            i += inside
        else:
            at = x.columns[first + i]
            value = pad
            if at >= 0:
                value = channel + at * x.w
            copy_scalar(to + i * item, value, item)
            i += 1


cdef inline const char* image_row(const Shape* shape, const Image* x, const char* channel, dim h, dim first, dim count,
                                  char* line) noexcept nogil:
    """Where columns first .. first+count-1 of a row stand one after the other: in x, or copied to `line`."""
    if not shape.gathered:
        return channel + h * x.h + first * shape.item
    gather_row(shape, x, channel, h, first, count, line)
    return line
