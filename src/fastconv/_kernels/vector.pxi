# The vector types of one instruction set, and the one multiply-add that all register tiles are made of.
#
# An ISA module sets VECTOR_BYTES, and the constants that it explains, before it includes this file.
#
# Cython takes a vector for a scalar: + and * go to the C compiler as they stand, which makes FMAs of them where
# there are any. The types may be read from any address that suits a scalar. Integers are unsigned: they wrap.

from libc.math cimport fabs, INFINITY, isfinite
from libc.string cimport memcpy, memset

cdef extern from *:
    """
    typedef float f32v __attribute__((vector_size(VECTOR_BYTES), aligned(4), may_alias));
    typedef double f64v __attribute__((vector_size(VECTOR_BYTES), aligned(8), may_alias));
    typedef unsigned int i32v __attribute__((vector_size(VECTOR_BYTES), aligned(4), may_alias));
    typedef unsigned long long i64v __attribute__((vector_size(VECTOR_BYTES), aligned(8), may_alias));
    typedef unsigned int p32v __attribute__((vector_size(VECTOR_BYTES), aligned(4), may_alias));
    #define prefetch(address) __builtin_prefetch(address)
    #define prefetch_to_second_level(address) __builtin_prefetch(address, 0, 2)
    #define prefetch_to_write(address) __builtin_prefetch(address, 1)
    """
    enum:
        VECTOR_BYTES
    ctypedef float f32v
    ctypedef double f64v
    ctypedef unsigned int i32v
    ctypedef unsigned long long i64v
    ctypedef int p32v           # of pairs of 16 bits, or sums of products; to Cython another type than i32v
    void prefetch(const void* address) noexcept nogil
    void prefetch_to_second_level(const void* address) noexcept nogil
    void prefetch_to_write(const void* address) noexcept nogil

# What only moves values has words for them, of any type to the compiler as vectors are: they are read as what they are.
cdef extern from *:
    """
    typedef unsigned int word32 __attribute__((may_alias, aligned(1)));
    typedef unsigned long long word64 __attribute__((may_alias, aligned(1)));
    """
    ctypedef unsigned int word32
    ctypedef unsigned long long word64

# An address as one number. Of one that is a sum the compiler makes several, hoists them all, and spills them.
cdef extern from *:
    """
    static inline const char *in_register(const char *address) {
        __asm__("" : "+r"(address));
        return address;
    }
    """
    const char* in_register(const char* address) noexcept nogil

# A vector as one value, that was loaded. One that several instructions use the compiler may read again for each.
cdef extern from *:
    """
    #if defined(__x86_64__) || defined(__i386__)
    #define read_once(value) __asm__("" : "+" "v"(value))
    #else
    #define read_once(value) ((void) 0)
    #endif
    """
    void read_once(...) noexcept nogil

# In each lane the sum of the products of two pairs. Of a compiler's vectors alone it takes six instructions.
cdef extern from *:
    """
    #if defined(__x86_64__) || defined(__i386__)
    #include <immintrin.h>
    #if VECTOR_BYTES == 64
    #define pair_products(a, b) ((p32v) _mm512_madd_epi16((__m512i) (a), (__m512i) (b)))
    #elif VECTOR_BYTES == 32
    #define pair_products(a, b) ((p32v) _mm256_madd_epi16((__m256i) (a), (__m256i) (b)))
    #else
    #define pair_products(a, b) ((p32v) _mm_madd_epi16((__m128i) (a), (__m128i) (b)))
    #endif
    #else
    typedef int s32v __attribute__((vector_size(VECTOR_BYTES), aligned(4), may_alias));
    #define low_halves(a) ((p32v) ((s32v) ((a) << 16) >> 16))
    #define high_halves(a) ((p32v) ((s32v) (a) >> 16))
    #define pair_products(a, b) (low_halves(a) * low_halves(b) + high_halves(a) * high_halves(b))
    #endif
    #define all_lanes(value) ((p32v) {0} + (value))
    #define f32_lanes(value) ((value) - (f32v) {0})     /* less zero, which leaves -0 as it is, and is nothing to do */
    #define f64_lanes(value) ((value) - (f64v) {0})
    #define i32_lanes(value) ((value) - (i32v) {0})
    #define i64_lanes(value) ((value) - (i64v) {0})
    """
    p32v pair_products(p32v a, p32v b) noexcept nogil
    p32v all_lanes(unsigned int value) noexcept nogil
    f32v f32_lanes(float value) noexcept nogil
    f64v f64_lanes(double value) noexcept nogil
    i32v i32_lanes(unsigned int value) noexcept nogil
    i64v i64_lanes(unsigned long long value) noexcept nogil

# Some lanes of a vector in memory; the others are zeros, and aren't read, so that they may lie outside of an array; nor
# are they written.
cdef extern from *:
    """
    #if VECTOR_BYTES == 64
    #define MASK(first, last) ((1u << (last)) - (1u << (first)))
    #define load_lanes32(a, first, last) ((f32v) _mm512_maskz_loadu_ps(MASK(first, last), a))
    #define load_lanes64(a, first, last) ((f64v) _mm512_maskz_loadu_pd(MASK(first, last), a))
    #define store_lanes32(a, last, value) _mm512_mask_storeu_ps(a, MASK(0, last), (__m512) (value))
    #define store_lanes64(a, last, value) _mm512_mask_storeu_pd(a, MASK(0, last), (__m512d) (value))
    #elif VECTOR_BYTES == 32
    #define MASK32(first, last) _mm256_and_si256( \
        _mm256_cmpgt_epi32(_mm256_set1_epi32(last), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)), \
        _mm256_cmpgt_epi32(_mm256_setr_epi32(1, 2, 3, 4, 5, 6, 7, 8), _mm256_set1_epi32(first)))
    #define MASK64(first, last) _mm256_and_si256( \
        _mm256_cmpgt_epi64(_mm256_set1_epi64x(last), _mm256_setr_epi64x(0, 1, 2, 3)), \
        _mm256_cmpgt_epi64(_mm256_setr_epi64x(1, 2, 3, 4), _mm256_set1_epi64x(first)))
    #define load_lanes32(a, first, last) ((f32v) _mm256_maskload_ps((const float *) (a), MASK32(first, last)))
    #define load_lanes64(a, first, last) ((f64v) _mm256_maskload_pd((const double *) (a), MASK64(first, last)))
    #else
    #define SOME_LANES(type, a, first, last) ({ \
        type some = {0}; \
        memcpy((char *) &some + (first) * sizeof(some[0]), (const char *) (a) + (first) * sizeof(some[0]), \
               ((last) - (first)) * sizeof(some[0])); \
        some; })
    #define load_lanes32(a, first, last) SOME_LANES(f32v, a, first, last)
    #define load_lanes64(a, first, last) SOME_LANES(f64v, a, first, last)
    #endif
    #if VECTOR_BYTES < 64
    /* A masked store takes some processors longer than all that it spares (AMD's to Zen 3: 18 instructions). */
    static inline void store_bytes(char *to, int bytes, const void *value) {
        const char *from = (const char *) value;
        if (bytes == VECTOR_BYTES) { memcpy(to, from, VECTOR_BYTES); return; }
        if (bytes & 16) { memcpy(to, from, 16); to += 16; from += 16; }
        if (bytes & 8) { memcpy(to, from, 8); to += 8; from += 8; }
        if (bytes & 4) memcpy(to, from, 4);
    }
    #define store_lanes32(a, last, value) store_bytes(a, 4 * (last), &(value))
    #define store_lanes64(a, last, value) store_bytes(a, 8 * (last), &(value))
    #endif
    """
    f32v load_lanes32(const char* address, int first, int last) noexcept nogil
    f64v load_lanes64(const char* address, int first, int last) noexcept nogil
    void store_lanes32(char* address, int last, f32v value) noexcept nogil
    void store_lanes64(char* address, int last, f64v value) noexcept nogil

# Lanes of two vectors, named by the order that each number of lanes has them in.
cdef extern from *:
    """
    #define LOW_2 0, 2
    #define LOW_4 0, 4, 1, 5
    #define LOW_8 0, 8, 1, 9, 2, 10, 3, 11
    #define LOW_16 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
    #define HIGH_2 1, 3
    #define HIGH_4 2, 6, 3, 7
    #define HIGH_8 4, 12, 5, 13, 6, 14, 7, 15
    #define HIGH_16 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
    #define EVEN_2 0, 2
    #define EVEN_4 0, 2, 4, 6
    #define EVEN_8 0, 2, 4, 6, 8, 10, 12, 14
    #define EVEN_16 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
    #define ODD_2 1, 3
    #define ODD_4 1, 3, 5, 7
    #define ODD_8 1, 3, 5, 7, 9, 11, 13, 15
    #define ODD_16 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
    /* In each unit of 16 bytes as LOW and HIGH, and whole units, of 64 bits twice, as EVEN and ODD: what takes one
       instruction. A vector of 16 bytes is one unit. */
    #define UNPACK32_LOW_4 0, 4, 1, 5
    #define UNPACK32_LOW_8 0, 8, 1, 9, 4, 12, 5, 13
    #define UNPACK32_LOW_16 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29
    #define UNPACK32_HIGH_4 2, 6, 3, 7
    #define UNPACK32_HIGH_8 2, 10, 3, 11, 6, 14, 7, 15
    #define UNPACK32_HIGH_16 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31
    #define UNPACK64_LOW_2 0, 2
    #define UNPACK64_LOW_4 0, 4, 2, 6
    #define UNPACK64_LOW_8 0, 8, 2, 10, 4, 12, 6, 14
    #define UNPACK64_HIGH_2 1, 3
    #define UNPACK64_HIGH_4 1, 5, 3, 7
    #define UNPACK64_HIGH_8 1, 9, 3, 11, 5, 13, 7, 15
    #define UNITS_EVEN_2 0, 1
    #define UNITS_EVEN_4 0, 1, 4, 5
    #define UNITS_EVEN_8 0, 1, 4, 5, 8, 9, 12, 13
    #define UNITS_ODD_2 2, 3
    #define UNITS_ODD_4 2, 3, 6, 7
    #define UNITS_ODD_8 2, 3, 6, 7, 10, 11, 14, 15
    #if VECTOR_BYTES == 64
    #define OF_32(order) order##_16
    #define OF_64(order) order##_8
    #elif VECTOR_BYTES == 32
    #define OF_32(order) order##_8
    #define OF_64(order) order##_4
    #else
    #define OF_32(order) order##_4
    #define OF_64(order) order##_2
    #endif
    #define interleave_low32(a, b) __builtin_shufflevector(a, b, OF_32(LOW))
    #define interleave_low64(a, b) __builtin_shufflevector(a, b, OF_64(LOW))
    #define interleave_high32(a, b) __builtin_shufflevector(a, b, OF_32(HIGH))
    #define interleave_high64(a, b) __builtin_shufflevector(a, b, OF_64(HIGH))
    #define unpack_low32(a, b) __builtin_shufflevector(a, b, OF_32(UNPACK32_LOW))
    #define unpack_low64(a, b) __builtin_shufflevector(a, b, OF_64(UNPACK64_LOW))
    #define unpack_high32(a, b) __builtin_shufflevector(a, b, OF_32(UNPACK32_HIGH))
    #define unpack_high64(a, b) __builtin_shufflevector(a, b, OF_64(UNPACK64_HIGH))
    #define even_units64(a, b) __builtin_shufflevector(a, b, OF_64(UNITS_EVEN))
    #define even_units32(a, b) ((f32v) even_units64((f64v) (a), (f64v) (b)))
    #define odd_units64(a, b) __builtin_shufflevector(a, b, OF_64(UNITS_ODD))
    #define odd_units32(a, b) ((f32v) odd_units64((f64v) (a), (f64v) (b)))
    #if VECTOR_BYTES == 32
    /* Units of both first, which even and odd share, then lanes in units: no lane crosses a unit on its own. */
    #define even32(a, b) __builtin_shufflevector(even_units32(a, b), odd_units32(a, b), 0, 2, 8, 10, 4, 6, 12, 14)
    #define even64(a, b) unpack_low64(even_units64(a, b), odd_units64(a, b))
    #define odd32(a, b) __builtin_shufflevector(even_units32(a, b), odd_units32(a, b), 1, 3, 9, 11, 5, 7, 13, 15)
    #define odd64(a, b) unpack_high64(even_units64(a, b), odd_units64(a, b))
    #else
    #define even32(a, b) __builtin_shufflevector(a, b, OF_32(EVEN))
    #define even64(a, b) __builtin_shufflevector(a, b, OF_64(EVEN))
    #define odd32(a, b) __builtin_shufflevector(a, b, OF_32(ODD))
    #define odd64(a, b) __builtin_shufflevector(a, b, OF_64(ODD))
    #endif
    """
    f32v interleave_low32(f32v a, f32v b) noexcept nogil
    f64v interleave_low64(f64v a, f64v b) noexcept nogil
    f32v interleave_high32(f32v a, f32v b) noexcept nogil
    f64v interleave_high64(f64v a, f64v b) noexcept nogil
    f32v even32(f32v a, f32v b) noexcept nogil
    f64v even64(f64v a, f64v b) noexcept nogil
    f32v odd32(f32v a, f32v b) noexcept nogil
    f64v odd64(f64v a, f64v b) noexcept nogil
    f32v unpack_low32(f32v a, f32v b) noexcept nogil
    f64v unpack_low64(f64v a, f64v b) noexcept nogil
    f32v unpack_high32(f32v a, f32v b) noexcept nogil
    f64v unpack_high64(f64v a, f64v b) noexcept nogil
    f32v even_units32(f32v a, f32v b) noexcept nogil
    f64v even_units64(f64v a, f64v b) noexcept nogil
    f32v odd_units32(f32v a, f32v b) noexcept nogil
    f64v odd_units64(f64v a, f64v b) noexcept nogil

cdef enum:
    MOST_LANES = 16
    TASK_WORK = 200_000_000     # multiply-adds in a task, about, so that Ctrl-C is heard in time

ctypedef fused vec:
    f32v
    f64v
    i32v
    i64v
    p32v

# Whose lanes are values.
ctypedef fused plain:
    f32v
    f64v
    i32v
    i64v

# What only moves values needs to know how wide they are, and no more.
ctypedef fused lane:
    f32v
    f64v


cdef inline lane interleave_low(lane a, lane b) noexcept nogil:
    """The lower halves of both, lane by lane in turn."""
    if lane is f32v:
        return interleave_low32(a, b)
    else:
        return interleave_low64(a, b)


cdef inline lane interleave_high(lane a, lane b) noexcept nogil:
    """The upper halves."""
    if lane is f32v:
        return interleave_high32(a, b)
    else:
        return interleave_high64(a, b)


cdef inline lane even_lanes(lane a, lane b) noexcept nogil:
    """Lanes 0, 2, 4, ... of a, then of b."""
    if lane is f32v:
        return even32(a, b)
    else:
        return even64(a, b)


cdef inline lane odd_lanes(lane a, lane b) noexcept nogil:
    """Lanes 1, 3, 5, ... of a, then of b."""
    if lane is f32v:
        return odd32(a, b)
    else:
        return odd64(a, b)


cdef inline lane load_lanes(const char* address, dim first, dim last, const lane* like) noexcept nogil:
    """Lanes first .. last-1 of the vector there, of those that there are; zeros in the others, which are not read."""
    cdef dim lanes = sizeof(lane) // itemsize(like)
    cdef int low = <int> min(max(first, <dim> 0), lanes)
    cdef int high = <int> min(max(last, <dim> low), lanes)
    if lane is f32v:
        return load_lanes32(address, low, high)
    else:
        return load_lanes64(address, low, high)


cdef inline void store_lanes(char* address, dim last, lane value) noexcept nogil:
    """Lanes 0 .. last-1, of those that there are."""
    cdef int high = <int> min(last, <dim> (sizeof(lane) // itemsize(&value)))
    if lane is f32v:
        store_lanes32(address, high, value)
    else:
        store_lanes64(address, high, value)


cdef inline void exchange_lanes(lane* a, int lanes, int apart) noexcept nogil:
    """In each pair of rows that are so far apart: the lower one takes every second lane, or unit, of both.

    So a bit of the rows' numbers and one of the lanes' change places.
    """
    cdef lane low, high
    cdef bint units = apart * (sizeof(lane) // lanes) >= 16
    cdef int i
    for i in range(lanes):
        if i & apart == 0:
            if lane is f32v:
                low = even_units32(a[i], a[i + apart]) if units else unpack_low32(a[i], a[i + apart])
                high = odd_units32(a[i], a[i + apart]) if units else unpack_high32(a[i], a[i + apart])
            else:
                low = even_units64(a[i], a[i + apart]) if units else unpack_low64(a[i], a[i + apart])
                high = odd_units64(a[i], a[i + apart]) if units else unpack_high64(a[i], a[i + apart])
            a[i], a[i + apart] = low, high


cdef inline void transpose(const char* rows, dim pitch, dim height, lane* a) noexcept nogil:
    """A square of `height` rows, the last of them again and again if they are fewer than lanes, turned over."""
    cdef int lanes = sizeof(lane) // itemsize(a)
    cdef int i
    for i in range(lanes):
        a[i] = (<const lane*> rows)[0]
        if i + 1 < height: rows += pitch
    # Unpacking takes the upper bit of a lane's number in its unit, and puts the rows' bit below the lower one; every
    # second unit is told by the lower bit of a unit's number, and the rows' bit is put above the upper one.
    if lane is f32v: exchange_lanes(a, lanes, 2)
    exchange_lanes(a, lanes, 1)
    if lane is f32v:
        if lanes > 4: exchange_lanes(a, lanes, 4)
        if lanes > 8: exchange_lanes(a, lanes, 8)
    else:
        if lanes > 2: exchange_lanes(a, lanes, 2)
        if lanes > 4: exchange_lanes(a, lanes, 4)


cdef inline void transpose_block(const char* rows, dim pitch, dim height, char* to, dim to_pitch, dim width,
                                 const lane* like) noexcept nogil:
    """Of a square that is turned over, the first `width` rows, to_pitch bytes apart."""
    cdef lane a[MOST_LANES]
    cdef int lanes = sizeof(lane) // itemsize(like)
    cdef int i
    transpose(rows, pitch, height, a)
    for i in range(lanes):
        if i < width:
            (<lane*> (to + i * to_pitch))[0] = a[i]


cdef inline vec fma(vec acc, vec b, const char* a) noexcept nogil:
    """acc + b * (the scalar at a)."""
    if vec is f32v:
        return acc + b * (<const float*> a)[0]
    elif vec is f64v:
        return acc + b * (<const double*> a)[0]
    elif vec is i32v:
        return acc + b * (<const unsigned int*> a)[0]
    elif vec is p32v:
        return acc + pair_products(b, all_lanes((<const unsigned int*> a)[0]))
    else:
        return acc + b * (<const unsigned long long*> a)[0]


cdef inline vec multiply_add(vec acc, vec a, vec b) noexcept nogil:
    if vec is p32v:
        return acc + pair_products(a, b)
    else:
        return acc + a * b


cdef inline vec broadcast(const char* a, const vec* like) noexcept nogil:
    """The scalar at a in all lanes."""
    if vec is f32v:
        return f32_lanes((<const float*> a)[0])
    elif vec is f64v:
        return f64_lanes((<const double*> a)[0])
    elif vec is i32v:
        return i32_lanes((<const unsigned int*> a)[0])
    elif vec is p32v:
        return all_lanes((<const unsigned int*> a)[0])
    else:
        return i64_lanes((<const unsigned long long*> a)[0])


cdef inline vec zeros(const vec* like) noexcept nogil:
    if vec is f32v:
        return f32_lanes(0)
    elif vec is f64v:
        return f64_lanes(0)
    elif vec is i32v:
        return i32_lanes(0)
    elif vec is p32v:
        return all_lanes(0)
    else:
        return i64_lanes(0)


cdef inline dim itemsize(const vec* pointer) noexcept nogil:
    """Bytes of one lane."""
    if vec is f32v or vec is i32v or vec is p32v:
        return 4
    else:
        return 8


cdef inline double value_at(const char* address, dim item) noexcept nogil:
    return (<const float*> address)[0] if item == 4 else (<const double*> address)[0]


cdef inline bint is_zero(const lane* value) noexcept nogil:
    cdef dim item = itemsize(value)
    cdef dim i
    for i in range(<dim> sizeof(lane) // item):
        if value_at(<const char*> value + i * item, item) != 0:
            return False
    return True


ctypedef fused real:
    float
    double

ctypedef fused word:
    word32
    word64

ctypedef fused bits:
    unsigned int
    unsigned long long


cdef inline double sum_magnitudes(const real* values, dim count, dim step) noexcept nogil:
    """Of values a step apart. Eight sums, in an order that doesn't depend on where they lie, which are vectorised."""
    cdef double sum[8]
    cdef dim i
    cdef int j
    for j in range(8):
        sum[j] = 0
    if step == 1:
        for i in range(0, count - 7, 8):
            for j in range(8):
                sum[j] += fabs(values[i + j])
    else:
        for i in range(0, count - 7, 8):
            for j in range(8):
                sum[j] += fabs(values[(i + j) * step])
    for i in range(count - count % 8, count):
        sum[0] += fabs(values[i * step])
    return ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]))


cdef inline void put_value(char* to, double value, dim item) noexcept nogil:
    if item == 4:
        (<float*> to)[0] = <float> value
    else:
        (<double*> to)[0] = value


cdef inline void copy_scalar(char* to, const char* value, dim item) noexcept nogil:
    """One value of `item` bytes."""
    if item == 4:
        memcpy(to, value, 4)
    else:
        memcpy(to, value, 8)


cdef inline dim lanes_of(const Shape* shape) noexcept nogil:
    """Lanes of a full vector. Without a division: they cost more than all else in a small problem."""
    return VECTOR_BYTES // 4 if shape.item == 4 else VECTOR_BYTES // 8


cdef inline dim vectors_of(const Shape* shape, dim count) noexcept nogil:
    """How many vectors so many values fill, the last one perhaps in part."""
    return ceil_div(count * shape.item, VECTOR_BYTES)


cdef inline dim long_tasks(double work) noexcept nogil:
    """How many tasks of TASK_WORK so many multiply-adds are."""
    return <dim> min(1e9, work / TASK_WORK)


cdef inline dim even_blocks(dim blocks, dim most, dim images, int workers) noexcept nogil:
    """So many blocks of each image, but no more than `most`. Or where there are few, up to twice as many.

    If all workers have as many then; but where half of them or more have none, others than blocks are shared.
    """
    cdef dim more
    blocks = min(blocks, most)
    if workers < 2 * images * blocks < 8 * workers:
        for more in range(blocks, min(2 * blocks, most) + 1):
            if images * more % workers == 0:
                return more
    return blocks


cdef inline dim whole_vectors(dim size) noexcept nogil:
    return ceil_div(size, VECTOR_BYTES) * VECTOR_BYTES
