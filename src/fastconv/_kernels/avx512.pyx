"""Kernels for AVX-512 (x86-64-v4): 32 registers of 512 bits, a second-level cache of 1 MiB or more."""

from fastconv._kernels.kernel cimport *

cdef extern from *:
    """
    #define VECTOR_BYTES 64
    """

cdef enum:
    MR = 6                  # 6 x 4 accumulators, 4 vectors and a broadcast: 29 of 32 registers
    NV = 4
    ISSUE = 2               # multiply-adds in a cycle, and the cycles until one can be added to
    LATENCY = 4
    UNROLL = 2              # terms of the filter tile at a time, and whether each group fetches cache lines ahead
    FETCH = 1
    FILTER_KC = 64          # terms of the reduction in a block: 16 KiB of packed weights, half the first-level cache

include "vector.pxi"


cdef inline vec interleave_low(vec a, vec b) noexcept nogil:
    if vec is f32v:
        return shuffle32(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
    else:
        return shuffle64(a, b, 0, 8, 1, 9, 2, 10, 3, 11)


cdef inline vec interleave_high(vec a, vec b) noexcept nogil:
    if vec is f32v:
        return shuffle32(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
    else:
        return shuffle64(a, b, 4, 12, 5, 13, 6, 14, 7, 15)


include "pixel_lanes.pxi"
include "filter_lanes.pxi"
include "table.pxi"
