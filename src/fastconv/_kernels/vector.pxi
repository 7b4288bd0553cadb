# The vector types of one instruction set, and the one multiply-add that all register tiles are made of.
#
# An ISA module sets, before it includes this file, VECTOR_BYTES and the constants
#     MR     most rows of a register tile (its broadcast operands), PIXEL_MR for the tile with pixels in its lanes
#     NV     most vectors in a row of it, PIXEL_NV likewise
# Cython takes a vector for a scalar: + and * go to the C compiler as they stand, which makes FMAs of them where
# there are any. The types may be read from any address that suits a scalar. Integers are unsigned: they wrap.

from libc.math cimport INFINITY
from libc.string cimport memcpy, memset

cdef extern from *:
    """
    typedef float f32v __attribute__((vector_size(VECTOR_BYTES), aligned(4), may_alias));
    typedef double f64v __attribute__((vector_size(VECTOR_BYTES), aligned(8), may_alias));
    typedef unsigned int i32v __attribute__((vector_size(VECTOR_BYTES), aligned(4), may_alias));
    typedef unsigned long long i64v __attribute__((vector_size(VECTOR_BYTES), aligned(8), may_alias));
    """
    enum:
        VECTOR_BYTES
    ctypedef float f32v
    ctypedef double f64v
    ctypedef unsigned int i32v
    ctypedef unsigned long long i64v
    f32v shuffle32 "__builtin_shufflevector"(f32v a, f32v b, ...) noexcept nogil
    f64v shuffle64 "__builtin_shufflevector"(f64v a, f64v b, ...) noexcept nogil
    void prefetch_to_write "__builtin_prefetch"(const void* address, int write) noexcept nogil

cdef enum:
    MOST_LANES = 16
    LINE = 64               # bytes of a cache line
    TASK_WORK = 200_000_000     # multiply-adds in a task, about, so that Ctrl-C is heard in time

ctypedef fused vec:
    f32v
    f64v
    i32v
    i64v

# What only moves values needs to know how wide they are, and no more.
ctypedef fused lane:
    f32v
    f64v


cdef inline vec fma(vec acc, vec b, const char* a) noexcept nogil:
    """acc + b * (the scalar at a)."""
    if vec is f32v:
        return acc + b * (<const float*> a)[0]
    elif vec is f64v:
        return acc + b * (<const double*> a)[0]
    elif vec is i32v:
        return acc + b * (<const unsigned int*> a)[0]
    else:
        return acc + b * (<const unsigned long long*> a)[0]


cdef inline dim itemsize(const vec* pointer) noexcept nogil:
    """Bytes of one lane."""
    if vec is f32v or vec is i32v:
        return 4
    else:
        return 8


cdef inline void copy_scalar(char* to, const char* value, dim item) noexcept nogil:
    """One value of `item` bytes."""
    if item == 4:
        memcpy(to, value, 4)
    else:
        memcpy(to, value, 8)


cdef inline dim lanes_of(const Shape* shape) noexcept nogil:
    """Lanes of a full vector. Without a division: they cost more than all else in a small problem."""
    return VECTOR_BYTES // 4 if shape.item == 4 else VECTOR_BYTES // 8


cdef inline dim ceil_div(dim a, dim b) noexcept nogil:
    if a <= b:
        return a > 0
    return (a + b - 1) // b


cdef inline dim whole_lines(dim size) noexcept nogil:
    return (size + LINE - 1) // LINE * LINE


cdef inline dim split(dim total, dim parts, dim i) noexcept nogil:
    """Where part i begins when total is cut into parts of nearly equal size, the larger ones first."""
    cdef dim longer
    if parts == 1:
        return i * total
    longer = total % parts
    return i * (total // parts) + (i if i < longer else longer)
