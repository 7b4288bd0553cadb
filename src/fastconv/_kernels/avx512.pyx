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
    LINE_CYCLES = 3         # that a line of x takes to come from a second-level cache, which work doesn't hide
    READS_SCALARS = 1
    ISSUE = 2               # multiply-adds in a cycle, and the cycles until one can be added to
    LATENCY = 4
    FILTER_KC = 1152        # terms of the reduction in a part: 144 KiB of a panel's weights
    PLACE_KC = 1152         # and of rows of x that few panels read where they lie
    MOST_GROUP_SUMS = 28    # of the tile with groups in its lanes, of at most GROUP_KM filters of each
    GROUP_KM = 4
    FAR_TILES = 28          # of Winograd's method, that weights from beyond a second-level cache meet at a time,
    FAR_V_BYTES = 384 << 10     # if they have no more bytes of V
    PRODUCT_MP = 12         # of products of spectra: 12 x 2 accumulators, 2 vectors and a row of x

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
