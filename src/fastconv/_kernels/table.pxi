# What the module hands out: its kernels in a capsule, and the two rates that the tile guard compares.

from cpython.pycapsule cimport PyCapsule_New
from libc.stdlib cimport free

cdef extern from "<stdlib.h>" nogil:
    int posix_memalign(void** memory, size_t alignment, size_t size)

cdef KernelTable table
table.kernels[PIXELS] = Kernel(
    pixel_cost, direct_pack_cost, pixel_packed_bytes, pixel_pack_tasks, pixel_pack, NULL, NULL,
    pixel_workspace_bytes, pixel_tasks, pixel_run, NULL, NULL, NULL)
table.kernels[FILTERS] = Kernel(
    filter_cost, filter_pack_cost, filter_packed_bytes, filter_pack_tasks, filter_pack, filter_packs_late, NULL,
    filter_workspace_bytes, filter_tasks, filter_run, NULL, NULL, NULL)
table.kernels[MATRIX] = Kernel(
    matrix_cost, matrix_pack_cost, matrix_packed_bytes, matrix_pack_tasks, matrix_pack, NULL, NULL,
    matrix_workspace_bytes, matrix_tasks, matrix_run, NULL, NULL, NULL)
table.kernels[GROUPS] = Kernel(
    group_cost, filter_pack_cost, group_packed_bytes, group_pack_tasks, group_pack, filter_packs_late, NULL,
    group_workspace_bytes, group_tasks, group_run, NULL, NULL, NULL)
table.kernels[TERMS] = Kernel(
    term_cost, term_pack_cost, term_packed_bytes, term_pack_tasks, term_pack, term_packs_late, NULL,
    term_workspace_bytes, term_tasks, term_run, NULL, NULL, NULL)
table.kernels[WINOGRAD] = Kernel(
    winograd_cost, winograd_pack_cost, winograd_packed_bytes, winograd_pack_tasks, winograd_pack, winograd_packs_late,
    winograd_trusted, winograd_workspace_bytes, winograd_tasks, winograd_run,
    winograd_shared_bytes, winograd_sharing_tasks, winograd_share)
table.kernels[SEPARABLE] = Kernel(
    separable_cost, separable_pack_cost, separable_packed_bytes, separable_pack_tasks, separable_pack, NULL, NULL,
    separable_workspace_bytes, separable_tasks, separable_run, NULL, NULL, NULL)
table.is_separable = is_separable
table.has_subnormals = has_subnormals
table.weights_have_subnormals = weights_have_subnormals
table.scale_image = scale_image
table.scale_weights = scale_weights
table.unscale_result = unscale_result
table.products.vector = VECTOR_BYTES
table.products.rows = PRODUCT_MP
table.products.cycles = 1.0 / ISSUE
table.products.gather_row = gather_row
table.products.measure_row = measure_row
table.products.split_spectrum = split_spectrum
table.products.multiply = products
table.products.store_row = store_row
capsule = PyCapsule_New(&table, "fastconv.kernels", NULL)

cdef enum:
    TILE_TERMS = 24 * 1024 // (NV * VECTOR_BYTES)   # their weights fill three quarters of a 32 KiB cache


cdef double peak_rounds(dim rounds, lane* out) noexcept nogil:
    """Multiply-adds on registers alone, as many at once as the tile has; returns how many flops."""
    cdef lane acc[MR * NV]
    cdef lane a = out[0]
    cdef lane b = out[1]
    cdef dim r
    cdef int i, v
    for i in range(MR * NV):
        acc[i] = out[i]
    for r in range(rounds):
        for i in range(MR):
            for v in range(NV):
                acc[i * NV + v] = acc[i * NV + v] * a + b
    for i in range(MR * NV):
        out[i] = acc[i]
    return 2.0 * rounds * MR * NV * (sizeof(lane) // itemsize(out))


cdef double tile_rounds(dim rounds, lane* w, lane* out, dim* off) noexcept nogil:
    """The largest filter tile on operands in the first-level cache; returns how many flops."""
    cdef FilterSweep g
    cdef dim r
    g.off = off
    g.ahead = <const char*> w
    g.ahead_step = NV * VECTOR_BYTES
    g.t_step = NV * VECTOR_BYTES
    g.row = g.row_step = g.x_tile = g.t_tile = 0
    g.tiles = 1
    g.terms = TILE_TERMS
    g.init_step = 0
    for r in range(rounds):
        filter_tile(&g, <const char*> w, w, out, out, 1, MR, NV, itemsize(out), False, False, False)
    return 2.0 * rounds * TILE_TERMS * MR * NV * (sizeof(lane) // itemsize(out))


cdef double group_rounds(dim rounds, lane* w, lane* out) noexcept nogil:
    """The tile of depthwise layers with the most pixels, of 5 x 5 values; returns how many flops."""
    cdef GroupTile g
    cdef dim r
    g.C, g.R, g.S = 1, 5, 5
    g.rows = g.Q = 1
    g.x_c = 0
    g.x_r = g.x_s = g.x_j = VECTOR_BYTES
    for r in range(rounds):
        group_tile_any(&g, <const char*> w, <const char*> w, out, out, GROUP_M, 1)
    return 2.0 * rounds * 25 * GROUP_M * (sizeof(lane) // itemsize(out))


cdef double rounds_of(str what, dim rounds, lane* w, lane* out, dim* off):
    if what == "peak":
        return peak_rounds(rounds, out)
    if what == "groups":
        return group_rounds(rounds, w, out)
    return tile_rounds(rounds, w, out, off)


def flops(str what, str dtype, dim rounds):
    """Do `rounds` of multiply-adds on registers ("peak"), or in a tile ("tile", "groups"); return their flops."""
    cdef dim size = (TILE_TERMS + MR) * NV * VECTOR_BYTES
    cdef dim off[TILE_TERMS]
    cdef void* memory = NULL
    cdef char* out
    cdef dim i
    if posix_memalign(&memory, 64, size) != 0:
        raise MemoryError(f"can't allocate {size} bytes for the tile's operands")
    out = <char*> memory + TILE_TERMS * NV * VECTOR_BYTES
    # Small normal numbers of either dtype, so that nothing overflows, and nothing can be left out as zero.
    memset(memory, 0x3c, size)
    for i in range(TILE_TERMS):
        off[i] = 8 * i
    try:
        if dtype == "float32":
            return rounds_of(what, rounds, <f32v*> memory, <f32v*> out, off)
        return rounds_of(what, rounds, <f64v*> memory, <f64v*> out, off)
    finally:
        free(memory)


def flops_a_cycle(str dtype):
    """Of multiply-adds, as many as the costs take a cycle to have."""
    return 2 * ISSUE * VECTOR_BYTES // (4 if dtype == "float32" else 8)
