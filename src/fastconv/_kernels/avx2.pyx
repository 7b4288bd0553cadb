"""Kernels for AVX2 and FMA (x86-64-v3): 16 registers of 256 bits, a second-level cache of 256 KiB or more."""

from fastconv._kernels.kernel cimport *

cdef extern from *:
    """
    #define VECTOR_BYTES 32
    """

cdef enum:
    MR = 6                  # of the filter tile: 6 x 2 accumulators, 2 vectors and a broadcast, 15 of 16 registers
    NV = 2
    PIXEL_MR = 6            # of the pixel tile: the same
    PIXEL_NV = 2
    ISSUE = 2               # multiply-adds in a cycle, and the cycles until one can be added to
    LATENCY = 4
    FILTER_KC = 256         # terms of the reduction in a part: 16 KiB of a panel's weights
    PRODUCT_MP = 6          # of products of spectra: 6 x 2 accumulators, 2 vectors and a row of x

include "vector.pxi"


cdef inline lane interleave_low(lane a, lane b) noexcept nogil:
    if lane is f32v:
        return shuffle32(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
    else:
        return shuffle64(a, b, 0, 4, 1, 5)


cdef inline lane interleave_high(lane a, lane b) noexcept nogil:
    if lane is f32v:
        return shuffle32(a, b, 4, 12, 5, 13, 6, 14, 7, 15)
    else:
        return shuffle64(a, b, 2, 6, 3, 7)


cdef inline lane even_lanes(lane a, lane b) noexcept nogil:
    if lane is f32v:
        return shuffle32(a, b, 0, 2, 4, 6, 8, 10, 12, 14)
    else:
        return shuffle64(a, b, 0, 2, 4, 6)


cdef inline lane odd_lanes(lane a, lane b) noexcept nogil:
    if lane is f32v:
        return shuffle32(a, b, 1, 3, 5, 7, 9, 11, 13, 15)
    else:
        return shuffle64(a, b, 1, 3, 5, 7)


cdef inline lane next_lanes(lane a, lane b) noexcept nogil:
    if lane is f32v:
        return shuffle32(a, b, 1, 2, 3, 4, 5, 6, 7, 8)
    else:
        return shuffle64(a, b, 1, 2, 3, 4)


include "stage.pxi"
include "pixel_lanes.pxi"
include "filter_lanes.pxi"
include "matrix.pxi"
include "winograd.pxi"
include "products.pxi"
include "table.pxi"
