"""Kernels for AVX2 and FMA (x86-64-v3): 16 registers of 256 bits, a second-level cache of 256 KiB or more."""

from fastconv._kernels.kernel cimport *

cdef extern from *:
    """
    #define VECTOR_BYTES 32
    """

cdef enum:
    MR = 6                  # 6 x 2 accumulators, 2 vectors and a broadcast: 15 of 16 registers
    NV = 2
    ISSUE = 2               # multiply-adds in a cycle, and the cycles until one can be added to
    LATENCY = 4
    UNROLL = 1              # terms of the filter tile at a time, and whether each group fetches cache lines ahead
    FETCH = 0               # (no free issue slots for it)
    FILTER_KC = 256         # terms of the reduction in a block: 16 KiB of packed weights, half the first-level cache

include "vector.pxi"


cdef inline vec interleave_low(vec a, vec b) noexcept nogil:
    if vec is f32v:
        return shuffle32(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
    else:
        return shuffle64(a, b, 0, 4, 1, 5)


cdef inline vec interleave_high(vec a, vec b) noexcept nogil:
    if vec is f32v:
        return shuffle32(a, b, 4, 12, 5, 13, 6, 14, 7, 15)
    else:
        return shuffle64(a, b, 2, 6, 3, 7)


include "pixel_lanes.pxi"
include "filter_lanes.pxi"
include "table.pxi"
