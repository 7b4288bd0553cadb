"""Kernels for any CPU; on x86 with SSE4.2 (x86-64-v2): 16 registers of 128 bits, no FMA."""

from fastconv._kernels.kernel cimport *

cdef extern from *:
    """
    #define VECTOR_BYTES 16
    """

cdef enum:
    MR = 6                  # 6 x 2 accumulators, 2 vectors, a broadcast and a product: 16 registers
    NV = 2
    ISSUE = 1               # multiply-adds in a cycle, and the cycles until one can be added to
    LATENCY = 8
    UNROLL = 1              # terms of the filter tile at a time, and whether each group fetches cache lines ahead
    FETCH = 0               # (no free issue slots for it)
    FILTER_KC = 512         # terms of the reduction in a block: 16 KiB of packed weights, half the first-level cache

include "vector.pxi"


cdef inline vec interleave_low(vec a, vec b) noexcept nogil:
    if vec is f32v:
        return shuffle32(a, b, 0, 4, 1, 5)
    else:
        return shuffle64(a, b, 0, 2)


cdef inline vec interleave_high(vec a, vec b) noexcept nogil:
    if vec is f32v:
        return shuffle32(a, b, 2, 6, 3, 7)
    else:
        return shuffle64(a, b, 1, 3)


include "pixel_lanes.pxi"
include "filter_lanes.pxi"
include "table.pxi"
