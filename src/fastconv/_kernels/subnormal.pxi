# Subnormal numbers, the smallest there are. To multiply by one takes the processor a hundred cycles or more, and
# nothing may be flushed to zero. So an image that holds some is computed from a copy that is multiplied by a power of
# two, weights that hold some likewise, and the result divided by both again, exactly but where it is subnormal itself:
# then it is rounded once more.
#
# Neither step multiplies by a subnormal number, or to one. As an integer its bits count the smallest of them; written
# behind the leading bit of 2^23 (in double precision 2^52) they are that number and the count, and back again.

from libc.math cimport frexp, ldexp

cdef enum:
    LOOKED_AT = 8 * 1024        # values, about, to find subnormal ones among: all, if there are no more,
    PIECE = 128                 # or pieces of so many, which come from far away: these are most of what it costs;
    IMAGE_PIECES = 64           # one of so many of an image at least, so that those missed take less than the sum
    WEIGHTS_PIECES = 8          # and of weights
    GUESSED_FROM = 256          # one value of so many tells the largest, about:
    LEEWAY = 8                  # by so many powers of two a copy may be larger than it should
    LONG_ROW = 16 * 1024        # bytes, from which on a row is likely to come from memory,
    ASKED_AHEAD = 2048          # and is asked for before it is read, so many bytes at a time

cdef struct Format:
    # What is known of a floating-point format.
    int digits                  # behind the leading bit
    int least                   # exponent of the smallest normal number
    int target, w_target        # the exponent that the largest value of a copy has: of images, and of weights
    int most                    # and the largest exponent of a factor


cdef inline Format format_of(const Shape* shape) noexcept nogil:
    # With the largest values at the square root of the range, neither products with ordinary weights nor sums leave it;
    # nor do those of two copies, as weights are kept below that.
    if shape.item == 4:
        return Format(23, -126, 60, 40, 120)
    return Format(52, -1022, 500, 400, 1000)


cdef inline bits bits_at(const char* address, bits like) noexcept nogil:
    cdef bits value
    memcpy(&value, address, sizeof(bits))
    return value


cdef inline bits magnitude(bits value) noexcept nogil:
    return value << 1 >> 1


cdef inline bint row_has_subnormals(const char* row, dim step, dim count, int digits, bits like) noexcept nogil:
    cdef bits least = (<bits> 2 << digits) - 1
    cdef bint found = False
    cdef dim i
    # Without its sign and less one, a zero is the largest of all.
    if step == sizeof(bits):    # vectorised
        for i in range(count):
            found |= (bits_at(row + i * sizeof(bits), like) << 1) - 1 < least
    else:
        for i in range(count):
            found |= (bits_at(row + i * step, like) << 1) - 1 < least
    return found


cdef inline bint subnormals_in(const Shape* shape, const char* row, dim step, dim count) noexcept nogil:
    cdef Format format = format_of(shape)
    if step < 0:        # in which order doesn't matter
        row += (count - 1) * step
        step = -step
    if shape.item == 4:
        return row_has_subnormals(row, step, count, format.digits, <unsigned int> 0)
    return row_has_subnormals(row, step, count, format.digits, <unsigned long long> 0)


cdef struct Sequence:
    # The values of an image or of weights in the order of their indices, as rows as long as strides let them be: what
    # is found of them depends on the indices alone.
    const char* data
    dim count[4]                # of rows, along up to three axes, and of values in a row
    dim step[4]                 # bytes from one to the next


cdef inline Sequence in_order(const char* data, const dim* count, const dim* step) noexcept nogil:
    """Of four axes, the last one innermost."""
    cdef Sequence s
    cdef int axis, row = 3
    s.data = data
    for axis in range(4):
        s.count[axis] = 1
        s.step[axis] = 0
    for axis in range(3, -1, -1):
        if count[axis] == 1:
            continue
        if s.count[row] != 1 and step[axis] != s.count[row] * s.step[row]:
            row -= 1
        if s.count[row] == 1:
            s.step[row] = step[axis]
        s.count[row] *= count[axis]
    return s


cdef inline Sequence values_of_image(const Shape* shape, const Image* x) noexcept nogil:
    cdef dim[4] count = [1, shape.G * shape.C, shape.H, shape.W]
    cdef dim[4] step = [0, x.c, x.h, x.w]
    if shape.channels_last:
        count = [1, shape.H, shape.W, shape.G * shape.C]
        step = [0, x.h, x.w, x.c]
    return in_order(x.data, count, step)


cdef inline Sequence values_of_weights(const Shape* shape, const Weights* w) noexcept nogil:
    cdef dim[4] count = [shape.G * shape.K, shape.C, shape.R, shape.S]
    cdef dim[4] step = [w.k, w.c, w.r, w.s]
    return in_order(w.data, count, step)


cdef bint some_subnormals(const Shape* shape, const Sequence* s, dim most) noexcept nogil:
    """Whether there are any among few values, or in pieces of more; so few that they are missed don't cost much."""
    cdef dim total = s.count[0] * s.count[1] * s.count[2] * s.count[3]
    cdef dim left = total, wait = 0, between = 0    # of a piece, before the next one, and between two
    cdef dim i, j, k, at, count
    cdef const char* row
    if total > LOOKED_AT:
        left = PIECE
        between = (min(total // LOOKED_AT, most) & -2) * PIECE      # an odd number from one to the next: other columns
    for i in range(s.count[0]):
        for j in range(s.count[1]):
            for k in range(s.count[2]):
                row = s.data + i * s.step[0] + j * s.step[1] + k * s.step[2]
                at = 0
                while at < s.count[3]:
                    if wait > 0:
                        count = min(wait, s.count[3] - at)
                        wait -= count
                    else:
                        count = min(left, s.count[3] - at)
                        if subnormals_in(shape, row + at * s.step[3], s.step[3], count):
                            return True
                        left -= count
                        if left == 0:
                            left, wait = PIECE, between
                    at += count
    return False


cdef bint has_subnormals(const Shape* shape, const Image* x) noexcept nogil:
    cdef Sequence s = values_of_image(shape, x)
    return some_subnormals(shape, &s, IMAGE_PIECES)


cdef bint weights_have_subnormals(const Shape* shape, const Weights* w) noexcept nogil:
    cdef Sequence s = values_of_weights(shape, w)
    return some_subnormals(shape, &s, WEIGHTS_PIECES)


cdef inline bits largest_magnitude(const Sequence* s, dim step, bits most) noexcept nogil:
    """Of each step-th value, as it is stored, or `most` where that is larger."""
    cdef dim at = 0, i, j, k, v
    cdef const char* row
    for i in range(s.count[0]):
        for j in range(s.count[1]):
            for k in range(s.count[2]):
                row = s.data + i * s.step[0] + j * s.step[1] + k * s.step[2]
                if s.step[3] == sizeof(bits) and step == 1:     # vectorised
                    for v in range(s.count[3]):
                        most = max(most, magnitude(bits_at(row + v * sizeof(bits), most)))
                else:
                    while at < s.count[3]:
                        most = max(most, magnitude(bits_at(row + at * s.step[3], most)))
                        at += step
                    at -= s.count[3]
    return most


cdef inline unsigned long long largest_value(const Shape* shape, const Sequence* s, dim step,
                                             const char* pad) noexcept nogil:
    """And of a pad value, or NULL."""
    if shape.item == 4:
        return largest_magnitude(s, step, magnitude(bits_at(pad, <unsigned int> 0)) if pad != NULL else 0)
    return largest_magnitude(s, step, magnitude(bits_at(pad, <unsigned long long> 0)) if pad != NULL else 0)


cdef inline bits scale_values(const char* row, dim step, dim count, const Format* format, int exponent, char* to,
                              real like, bits zero) noexcept nogil:
    """Values times 2^exponent, side by side; returns the largest magnitude. `like` and `zero` are zeros."""
    cdef bits most = zero
    cdef bits least = <bits> 1 << format.digits
    cdef real unit = <real> ldexp(1, format.digits)
    cdef real small = <real> ldexp(1, exponent + format.least - format.digits)
    cdef real large = <real> ldexp(1, exponent)
    cdef real result
    cdef bits whole, value, sign
    cdef bint subnormal
    cdef dim i
    memcpy(&whole, &unit, sizeof(real))
    for i in range(count):
        value = bits_at(row + i * step, zero)
        sign = value ^ magnitude(value)
        value ^= sign
        most = max(most, value)
        # Operands are chosen, not results: so nothing is multiplied that shouldn't be, and the loop is vectorised.
        subnormal = value < least
        value |= whole if subnormal else zero
        memcpy(&result, &value, sizeof(real))
        result = (result - (unit if subnormal else like)) * (small if subnormal else large)
        memcpy(&value, &result, sizeof(real))
        value |= sign
        memcpy(to + i * sizeof(real), &value, sizeof(real))
    return most


cdef inline unsigned long long scale_any(const Shape* shape, const char* row, dim step, dim count, const Format* format,
                                         int exponent, char* to) noexcept nogil:
    if shape.item == 4:
        if step == 4:       # vectorised
            return scale_values(row, 4, count, format, exponent, to, <float> 0, <unsigned int> 0)
        return scale_values(row, step, count, format, exponent, to, <float> 0, <unsigned int> 0)
    if step == 8:
        return scale_values(row, 8, count, format, exponent, to, <double> 0, <unsigned long long> 0)
    return scale_values(row, step, count, format, exponent, to, <double> 0, <unsigned long long> 0)


cdef inline int factor(const Shape* shape, const Format* format, unsigned long long most, int target) noexcept nogil:
    """The exponent that brings the largest magnitude to 2^target; 0 if it isn't finite, or others stay subnormal."""
    cdef unsigned int most32 = <unsigned int> most
    cdef float narrow
    cdef double value
    cdef int exponent
    if shape.item == 4:
        memcpy(&narrow, &most32, sizeof(float))
        value = narrow
    else:
        memcpy(&value, &most, sizeof(double))
    if not isfinite(value):
        return 0
    frexp(value, &exponent)
    exponent = min(target - exponent, format.most)
    return exponent if exponent > format.digits else 0


cdef inline void ask_ahead(const char* row, dim bytes) noexcept nogil:
    """For a row's second ASKED_AHEAD bytes, or what there is of them."""
    cdef dim i
    for i in range(min(bytes - ASKED_AHEAD, <dim> ASKED_AHEAD) // LINE):
        prefetch(row + ASKED_AHEAD + i * LINE)


cdef inline unsigned long long scale_sequence(const Shape* shape, const Sequence* s, const Format* format, int exponent,
                                              char* to) noexcept nogil:
    """All values times 2^exponent, side by side; returns the largest magnitude."""
    cdef unsigned long long most = 0
    cdef dim i, j, k, left, count
    cdef const char* row
    for i in range(s.count[0]):
        for j in range(s.count[1]):
            for k in range(s.count[2]):
                row = s.data + i * s.step[0] + j * s.step[1] + k * s.step[2]
                left = s.count[3]
                while left > 0:
                    count = left
                    if s.step[3] == shape.item and left * shape.item > LONG_ROW:
                        ask_ahead(row, left * shape.item)
                        count = values_in(ASKED_AHEAD, shape.item)
                    most = max(most, scale_any(shape, row, s.step[3], count, format, exponent, to))
                    row += count * s.step[3]
                    to += count * shape.item
                    left -= count
    return most


cdef int scale_image(const Shape* shape, Image* x, char* to) noexcept nogil:
    """A copy of an image that is multiplied by 2 to the power that is returned; x becomes the copy.

    0, with nothing done to x, where there is no good one: some value is too large, or not finite. The factor is guessed
    from some values; should another be far larger, the copy is made again.
    """
    cdef Format format = format_of(shape)
    cdef Sequence s = values_of_image(shape, x)
    cdef unsigned long long most = largest_value(shape, &s, GUESSED_FROM, &x.pad[0] if x.rows != NULL else NULL)
    cdef int exponent, needed = factor(shape, &format, most, format.target)
    while True:
        exponent = needed
        if exponent == 0:
            return 0
        most = max(most, scale_sequence(shape, &s, &format, exponent, to))
        needed = factor(shape, &format, most, format.target)
        if needed > exponent - LEEWAY:
            break
    scale_any(shape, &x.pad[0], shape.item, 1, &format, exponent, &x.pad[0])
    x.data = to
    if shape.channels_last:
        x.c = shape.item
        x.w = shape.G * shape.C * x.c
        x.h = shape.W * x.w
    else:
        x.w = shape.item
        x.h = shape.W * x.w
        x.c = shape.H * x.h
    return exponent


cdef int scale_weights(const Shape* shape, Weights* w, char* to) noexcept nogil:
    """As scale_image: a copy of weights, (G K, C, R, S), which w becomes."""
    cdef Format format = format_of(shape)
    cdef Sequence s = values_of_weights(shape, w)
    cdef int exponent = factor(shape, &format, largest_value(shape, &s, 1, NULL), format.w_target)
    if exponent == 0:
        return 0
    scale_sequence(shape, &s, &format, exponent, to)
    w.data = to
    w.s = shape.item
    w.r = shape.S * w.s
    w.c = shape.R * w.r
    w.k = shape.C * w.c
    return exponent


cdef inline bits unscale_values(const char* row, dim count, const Format* format, int exponent, const char* bias,
                                dim bias_step, char* to, real like, bits zero) noexcept nogil:
    """Values divided by 2^exponent, and biases added; returns the largest of the magnitudes that they had.

    `like` and `zero` are zeros.
    """
    cdef bits most = zero
    cdef bits shift = <bits> exponent << format.digits      # off the exponents of what stays normal
    cdef bint subnormal
    cdef real unit = <real> ldexp(1, format.digits)
    cdef real small = <real> ldexp(1, format.digits - format.least - exponent)
    cdef real limit = <real> ldexp(1, format.least + exponent)
    cdef real result, addend
    cdef bits whole, least, value, sign, kept
    cdef dim i
    memcpy(&whole, &unit, sizeof(real))
    memcpy(&least, &limit, sizeof(real))
    if exponent == 0:
        memcpy(to, row, count * sizeof(real))
    for i in range(count if exponent != 0 else 0):
        value = bits_at(row + i * sizeof(real), most)
        sign = value ^ magnitude(value)
        value ^= sign
        most = max(most, value)
        subnormal = value < least
        kept = zero if subnormal else value - shift
        value = value if subnormal else zero
        memcpy(&result, &value, sizeof(real))
        result = result * small + unit
        memcpy(&value, &result, sizeof(real))
        value = (value - whole) | kept | sign
        memcpy(to + i * sizeof(real), &value, sizeof(real))
    if bias != NULL:
        for i in range(count):
            memcpy(&result, to + i * sizeof(real), sizeof(real))
            memcpy(&addend, bias + i * bias_step, sizeof(real))
            result += addend
            memcpy(to + i * sizeof(real), &result, sizeof(real))
    return most


cdef bint unscale_result(const Shape* shape, const char* sums, int exponent, const char* bias, char* y,
                         dim y_plane) noexcept nogil:
    """An image's result divided by 2^exponent, and its biases added, if any; whether no sum was too large for that.

    To y, of planes y_plane bytes apart, of filters or with channels last of pixels; it may be the same memory if there
    is something to divide by.
    """
    cdef Format format = format_of(shape)
    cdef dim filters = shape.G * shape.K
    cdef dim pixels = shape.P * shape.Q
    cdef dim rows = pixels if shape.channels_last else filters
    cdef dim count = filters if shape.channels_last else pixels
    cdef dim bias_row = 0 if shape.channels_last or bias == NULL else shape.item
    cdef dim bias_step = shape.item if shape.channels_last else 0
    cdef unsigned int most32 = 0
    cdef unsigned long long most64 = 0
    cdef dim i
    for i in range(rows):
        if shape.item == 4:
            most32 = max(most32, unscale_values(sums, count, &format, exponent, bias, bias_step, y, <float> 0,
                                                <unsigned int> 0))
        else:
            most64 = max(most64, unscale_values(sums, count, &format, exponent, bias, bias_step, y, <double> 0,
                                                <unsigned long long> 0))
        sums += count * shape.item
        y += y_plane
        bias += bias_row
    # What isn't finite has all bits of its exponent set.
    return most32 < 0x7f800000 and most64 < <unsigned long long> 0x7ff << 52
