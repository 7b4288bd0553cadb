# Subnormal numbers, the smallest there are. To multiply by one takes the processor a hundred cycles or more, and
# nothing may be flushed to zero. So an image that holds some is computed from a copy that is multiplied by a power of
# two, weights that hold some likewise, and the result divided by both again, exactly but where it is subnormal itself:
# then it is rounded once more.
#
# Neither step multiplies by a subnormal number, or to one. As an integer its bits count the smallest of them; written
# behind the leading bit of 2^23 (in double precision 2^52) they are that number and the count, and back again.

from libc.math cimport frexp, ldexp

cdef enum:
    LOOKED_AT = 16 * 1024       # values of an image, about, to find subnormal ones among,
    ROW_COST = 128              # where a row is as much work as so many values more,
    LOOKED_ROWS = 32            # and of so many rows one, at least
    PIECE = 512                 # values of weights that are looked at together,
    LOOKED_PIECES = 8           # and of so many pieces one, at least
    GUESSED_FROM = 256          # one value of so many in a row tells the largest, about:
    LEEWAY = 8                  # by so many powers of two a copy may be larger than it should

ctypedef fused real:
    float
    double

ctypedef fused bits:
    unsigned int
    unsigned long long

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


cdef inline dim divisor(dim a, dim b) noexcept nogil:
    """The greatest that both have."""
    while b > 0:
        a, b = b, a % b
    return a


cdef inline bint lengthen(Shape* one, Image* filter, dim count, dim step) noexcept nogil:
    """Rows by `count` times themselves, `step` apart, if those follow each other."""
    if one.W == 1:
        filter.w = step
    elif count > 1 and step != one.W * filter.w:
        return False
    one.W *= count
    return True


cdef inline void join_rows(Shape* one, Image* x) noexcept nogil:
    """The same values in rows as long as the image's strides let them be."""
    one.C *= one.G
    one.G = 1
    if lengthen(one, x, one.H, x.h):
        one.H = 1
        if lengthen(one, x, one.C, x.c):
            one.C = 1


cdef bint has_subnormals(const Shape* shape, const Image* x) noexcept nogil:
    """Whether some rows of an image, spread over all of it, hold any: so few that they are missed don't cost much."""
    cdef dim rows = shape.G * shape.C * shape.H
    cdef dim step = min(rows * (shape.W + ROW_COST) // LOOKED_AT + 1, <dim> LOOKED_ROWS)
    cdef dim c = 0, h = 0
    cdef Shape one = shape[0]
    cdef Image joined = x[0]
    join_rows(&one, &joined)
    if one.C == 1 == one.H and one.W <= LOOKED_AT:
        return subnormals_in(shape, x.data, joined.w, one.W)
    while step > 1 and divisor(step, shape.H) > 1:     # or else they would be the same rows of all channels
        step -= 1
    while c < shape.G * shape.C and shape.H > 0:
        if subnormals_in(shape, x.data + c * x.c + h * x.h, x.w, shape.W):
            return True
        h += step
        while h >= shape.H:
            h -= shape.H
            c += 1
    return False


cdef inline dim as_images(const Shape* shape, const Weights* w, Shape* one, Image* filter) noexcept nogil:
    """A filter as an image, with rows as long as the weights' strides let them be; returns how many there are."""
    cdef dim filters = shape.G * shape.K
    memset(filter, 0, sizeof(Image))
    filter.data, filter.c, filter.h, filter.w = w.data, w.c, w.r, w.s
    one[0] = shape[0]
    one.G, one.H, one.W = 1, shape.R, shape.S
    join_rows(one, filter)
    return 1 if one.C == 1 == one.H and lengthen(one, filter, filters, w.k) else filters


cdef bint weights_have_subnormals(const Shape* shape, const Weights* w) noexcept nogil:
    """Whether some pieces of rows hold any, as of an image."""
    cdef Shape one
    cdef Image filter
    cdef dim filters = as_images(shape, w, &one, &filter)
    cdef dim step = min(filters * one.C * one.H * one.W // LOOKED_AT + 1, <dim> LOOKED_PIECES)
    cdef dim due = 1, k, c, h, first
    for k in range(filters):
        for c in range(one.C):
            for h in range(one.H):
                first = 0
                while first < one.W:
                    due -= 1
                    if due == 0:
                        due = step
                        if subnormals_in(shape, filter.data + c * filter.c + h * filter.h + first * filter.w, filter.w,
                                         min(one.W - first, <dim> PIECE)):
                            return True
                    first += PIECE
        filter.data += w.k
    return False


cdef inline bits largest_magnitude(const Shape* shape, const Image* x, dim step, bits like) noexcept nogil:
    """Of each step-th value in the rows of an image, and of its pad value, as it is stored."""
    cdef bits most = magnitude(bits_at(&x.pad[0], like)) if x.rows != NULL else 0
    cdef dim c, h, i
    cdef const char* row
    for c in range(shape.G * shape.C):
        for h in range(shape.H):
            row = x.data + c * x.c + h * x.h
            if x.w == sizeof(bits) and step == 1:   # vectorised
                for i in range(shape.W):
                    most = max(most, magnitude(bits_at(row + i * sizeof(bits), like)))
            else:
                for i in range(ceil_div(shape.W, step)):
                    most = max(most, magnitude(bits_at(row + i * step * x.w, like)))
    return most


cdef inline unsigned long long largest_value(const Shape* shape, const Image* x, dim step) noexcept nogil:
    if shape.item == 4:
        return largest_magnitude(shape, x, step, <unsigned int> 0)
    return largest_magnitude(shape, x, step, <unsigned long long> 0)


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
        if step == 4:
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


cdef inline unsigned long long scale_rows(const Shape* shape, const Image* x, const Format* format, int exponent,
                                          char* to) noexcept nogil:
    """All values of (G C, H, W) times 2^exponent, side by side; returns the largest magnitude."""
    cdef unsigned long long most = 0
    cdef dim c, h
    for c in range(shape.G * shape.C):
        for h in range(shape.H):
            most = max(most, scale_any(shape, x.data + c * x.c + h * x.h, x.w, shape.W, format, exponent,
                                       to + (c * shape.H + h) * shape.W * shape.item))
    return most


cdef int scale_image(const Shape* shape, Image* x, char* to) noexcept nogil:
    """A copy of an image, (G C, H, W), that is multiplied by 2 to the power that is returned; x becomes the copy.

    0, with nothing done to x, where there is no good one: some value is too large, or not finite. The factor is guessed
    from some values; should another be far larger, the copy is made again.
    """
    cdef Format format = format_of(shape)
    cdef Shape one = shape[0]
    cdef Image joined = x[0]
    cdef unsigned long long most
    cdef int exponent, needed
    join_rows(&one, &joined)
    most = largest_value(&one, &joined, GUESSED_FROM)
    needed = factor(shape, &format, most, format.target)
    while True:
        exponent = needed
        if exponent == 0:
            return 0
        most = max(most, scale_rows(&one, &joined, &format, exponent, to))
        needed = factor(shape, &format, most, format.target)
        if needed > exponent - LEEWAY:
            break
    scale_any(shape, &x.pad[0], shape.item, 1, &format, exponent, &x.pad[0])
    x.data = to
    x.w = shape.item
    x.h = shape.W * x.w
    x.c = shape.H * x.h
    return exponent


cdef int scale_weights(const Shape* shape, Weights* w, char* to) noexcept nogil:
    """As scale_image: a copy of weights, (G K, C, R, S), which w becomes."""
    cdef Format format = format_of(shape)
    cdef Shape one
    cdef Image filter
    cdef dim k, filters = as_images(shape, w, &one, &filter)
    cdef unsigned long long most = 0
    cdef int exponent
    for k in range(filters):
        most = max(most, largest_value(&one, &filter, 1))
        filter.data += w.k
    exponent = factor(shape, &format, most, format.w_target)
    if exponent == 0:
        return 0
    filter.data = w.data
    for k in range(filters):
        scale_rows(&one, &filter, &format, exponent, to + k * one.C * one.H * one.W * shape.item)
        filter.data += w.k
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

    To y, of planes y_plane bytes apart where channels don't come last; it may be the same memory if there is something
    to divide by.
    """
    cdef Format format = format_of(shape)
    cdef dim filters = shape.G * shape.K
    cdef dim pixels = shape.P * shape.Q
    cdef dim rows = pixels if shape.channels_last else filters
    cdef dim count = filters if shape.channels_last else pixels
    cdef dim bias_row = 0 if shape.channels_last or bias == NULL else shape.item
    cdef dim bias_step = shape.item if shape.channels_last else 0
    cdef dim y_row = count * shape.item if shape.channels_last else y_plane
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
        y += y_row
        bias += bias_row
    # What isn't finite has all bits of its exponent set.
    return most32 < 0x7f800000 and most64 < <unsigned long long> 0x7ff << 52
