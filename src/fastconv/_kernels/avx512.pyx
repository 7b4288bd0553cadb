"""Kernels for AVX-512 (x86-64-v4): 32 registers of 512 bits, a second-level cache of 1 MiB or more."""

from fastconv._kernels.kernel cimport *

cdef extern from *:
    """
    #define VECTOR_BYTES 64
    """

cdef enum:
    MR = 14                 # of the filter tile: 14 x 2 accumulators, 2 vectors and a broadcast, 31 of 32 registers
    NV = 2
    PIXEL_MR = 6            # of the pixel tile: 6 x 4, 4 vectors and a broadcast, 29 registers
    PIXEL_NV = 4
    ISSUE = 2               # multiply-adds in a cycle, and the cycles until one can be added to
    LATENCY = 4
    FILTER_KC = 1152        # terms of the reduction in a part: 144 KiB of a panel's weights
    PRODUCT_MP = 12         # of products of spectra: 12 x 2 accumulators, 2 vectors and a row of x

include "vector.pxi"


cdef inline lane interleave_low(lane a, lane b) noexcept nogil:
    if lane is f32v:
        return shuffle32(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
    else:
        return shuffle64(a, b, 0, 8, 1, 9, 2, 10, 3, 11)


cdef inline lane interleave_high(lane a, lane b) noexcept nogil:
    if lane is f32v:
        return shuffle32(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
    else:
        return shuffle64(a, b, 4, 12, 5, 13, 6, 14, 7, 15)


cdef inline lane even_lanes(lane a, lane b) noexcept nogil:
    if lane is f32v:
        return shuffle32(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30)
    else:
        return shuffle64(a, b, 0, 2, 4, 6, 8, 10, 12, 14)


cdef inline lane odd_lanes(lane a, lane b) noexcept nogil:
    if lane is f32v:
        return shuffle32(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31)
    else:
        return shuffle64(a, b, 1, 3, 5, 7, 9, 11, 13, 15)


cdef inline lane next_lanes(lane a, lane b) noexcept nogil:
    if lane is f32v:
        return shuffle32(a, b, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16)
    else:
        return shuffle64(a, b, 1, 2, 3, 4, 5, 6, 7, 8)


include "stage.pxi"
include "pixel_lanes.pxi"
include "filter_lanes.pxi"
include "matrix.pxi"
include "winograd.pxi"
include "products.pxi"
include "table.pxi"
