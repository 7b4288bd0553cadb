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
    LINE_CYCLES = 1         # that a line of x takes to come from a second-level cache, which work doesn't hide
    READS_SCALARS = 0
    ISSUE = 2               # multiply-adds in a cycle, and the cycles until one can be added to
    LATENCY = 4
    FILTER_KC = 256         # terms of the reduction in a part: 16 KiB of a panel's weights
    PLACE_KC = 96           # and of rows of x that few panels read where they lie, each in lines of its own
    MOST_GROUP_SUMS = 12    # of the tile with groups in its lanes, of at most GROUP_KM filters of each
    GROUP_KM = 2
    FAR_TILES = 56          # of Winograd's method, that weights from beyond a second-level cache meet at a time,
    FAR_V_BYTES = 4 << 20   # if they have no more bytes of V
    PRODUCT_MP = 6          # of products of spectra: 6 x 2 accumulators, 2 vectors and a row of x

include "vector.pxi"
include "stage.pxi"
include "subnormal.pxi"
include "pixel_lanes.pxi"
include "filter_lanes.pxi"
include "matrix.pxi"
include "group_lanes.pxi"
include "term_lanes.pxi"
include "winograd.pxi"
include "winograd_trust.pxi"
include "separable.pxi"
include "products.pxi"
include "table.pxi"
