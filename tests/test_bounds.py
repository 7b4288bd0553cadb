"""No load or store leaves the arrays: they end, or begin, where memory that can't be touched does."""

import sys

import numpy as np
import oracle
import pytest

import fastconv

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mprotect through ctypes is written for Linux")

GUARDED = """
import ctypes, itertools, mmap
import numpy as np
from cases import DTYPES, integers, methods, shape
import fastconv

libc = ctypes.CDLL(None, use_errno=True)
page = mmap.PAGESIZE

def guarded(array, at_end):
    "A copy of the array between two pages without access, up against one of them."
    pages = max(1, -(-array.nbytes // page))
    memory = mmap.mmap(-1, (pages + 2) * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for guard in (start, start + (pages + 1) * page):
        assert libc.mprotect(ctypes.c_void_p(guard), ctypes.c_size_t(page), 0) == 0
    copy = np.frombuffer(memory, array.dtype, array.size, page + at_end * (pages * page - array.nbytes))
    copy = copy.reshape(array.shape)
    copy[...] = array
    return copy

def check(x, w, bias, **options):
    "The same call with all arrays between guards, whatever is left before and after them in their pages unchanged."
    y = fastconv.correlate(x, w, bias=bias, **options)
    for at_end in (False, True):
        out = guarded(np.zeros_like(y), at_end)
        arrays = [guarded(array, at_end) for array in (x, w, bias)]
        fastconv.correlate(*arrays[:2], bias=arrays[2], out=out, **options)
        assert np.array_equal(out, y, equal_nan=y.dtype.kind in "fc"), (x.shape, w.shape, x.dtype, options)
        for array in (*arrays, out):
            rest = -array.nbytes % page
            first = array.ctypes.data - rest * at_end + array.nbytes * (not at_end)
            assert not any(ctypes.string_at(first, rest)), (x.shape, w.shape, x.dtype, options)
"""

PLAIN = GUARDED + """
for dtype in ("float32", "float64"):
    for case in (
        *(shape(C=2, K=K, R=R, S=3, P=7, Q=Q) for K in (1, 2, 3, 7) for R in (1, 3) for Q in (1, 5, 16, 17, 65)),
        shape(C=5, K=33, R=3, S=3, P=4, Q=4), shape(C=3, K=70, P=1, Q=1), shape(N=2, C=70, K=17, P=14, Q=14),
        shape(K=1, P=3, Q=4100),
    ):
        for method in methods(case, dtype):
            check(*integers(case, dtype), method=method)
    for step, S, Q in itertools.product((3, 4, 5, 8, 9, 16, 17), (1, 3, 4, 9, 17), (1, 2, 7, 8, 9, 15, 16, 17, 33)):
        x, w, bias = integers(shape(C=2, K=3, R=1, S=S, P=2, Q=(Q - 1) * step + 1 + Q % step), dtype)
        for method, padding in itertools.product(("direct-pixels", "direct-filters"), (0, 1)):
            check(x, w, bias, method=method, stride=(1, step), padding=(0, padding))
for (C, R, S, Q), dtype in itertools.product(((16, 3, 3, 3), (16, 3, 3, 4), (48, 1, 3, 5)), ("float32", "float64")):
    x, w, bias = integers(shape(C=C, K=6000, R=R, S=S, P=R, Q=Q), dtype)
    w = np.concatenate([w, w, w])       # many filters and few outputs: small tiles
    for padding in (0, (R // 2, S // 2)):
        check(x, w, np.concatenate([bias, bias, bias]), method="winograd", padding=padding)
for P, Q, dtype in itertools.product((7, 9), (7, 10, 17), ("float32", "float64")):
    x, w, bias = integers(shape(C=3, K=5, R=7, S=7, P=2 * P - 1, Q=2 * Q - 1), dtype)
    for row, column in itertools.product((0, -1), repeat=2):
        spoiled = x.copy()
        spoiled[..., row, column] = np.nan      # tiles that are computed again, directly
        check(spoiled, w, bias, method="winograd", stride=2)
print("within bounds")
"""

# Every option on the sizes where tiles end: a vector of outputs, one more, and one less, of each dtype's lanes; filters
# and rows likewise. Methods that a shape has none of are skipped.
GENERAL = GUARDED + """
OPTIONS = (
    {}, {"padding": ((2, 1), (1, 3))}, {"stride": (2, 1)}, {"stride": 2}, {"stride": (1, 3)}, {"dilation": (2, 1)},
    {"dilation": (1, 3)}, {"groups": 2}, {"mode": "same"}, {"mode": "full", "pad_value": 2},
    {"mode": "same", "pad_mode": "reflect"}, {"padding": 4, "pad_mode": "wrap"},
    {"stride": (3, 2), "padding": 2, "dilation": 2, "groups": 2, "pad_mode": "symmetric"},
)
SIZES = (  # channels of a group, filters of a group, rows and columns of the filters, and of the image
    (1, 1, 1, 1, 1, 1), (1, 1, 3, 3, 15, 35), (2, 3, 2, 3, 9, 18), (1, 7, 3, 2, 8, 33), (3, 17, 1, 1, 5, 4),
    (2, 33, 3, 3, 6, 7), (1, 16, 2, 2, 5, 66), (40, 5, 3, 3, 13, 21),
    (16, 17, 3, 3, 10, 22), (6, 33, 5, 5, 9, 24), (3, 17, 7, 7, 15, 41), (9, 5, 4, 5, 11, 38),
    (49, 5, 1, 3, 3, 37), (21, 33, 1, 7, 2, 22), (18, 3, 1, 9, 1, 66),
    (37, 7, 1, 1, 1, 1), (48, 3, 1, 1, 1, 1), (5, 9, 3, 3, 3, 3), (3, 6, 2, 5, 3, 6), (5, 9, 1, 1, 6, 37),
)
rng = np.random.default_rng(0)
for number, (c, k, r, s, h, width) in enumerate(SIZES):
    for place, options in enumerate(OPTIONS):
        g = options.get("groups", 1)
        dtypes = ("f4", "f8", "i4", "i8", "i1", "u1", "i2", "u2", "?", "f2", "c8", "c16")
        for dtype in {"f4", dtypes[(number + place) % 12], dtypes[(number + 3 * place + 5) % 12]}:
            w = rng.integers(-4, 5, (g * k, c, r, s)).astype(dtype)
            bias = rng.integers(-4, 5, g * k).astype(dtype)
            for layout in ("NCHW", "NHWC"):
                sizes = (2, h, width, g * c) if layout == "NHWC" else (2, g * c, h, width)
                x = rng.integers(-4, 5, sizes).astype(dtype)
                for method in ("direct-pixels", "direct-filters", "direct-matrix", "direct-groups", "direct-terms",
                               "winograd"):
                    try:
                        fastconv.Plan(w, x.shape, method=method, layout=layout, **options)
                    except ValueError as error:
                        assert "can't compute" in str(error) or "larger than x" in str(error), error
                        continue
                    check(x, w, bias, method=method, layout=layout, **options)
    for options, dtype in itertools.product(OPTIONS, ("f4", "f8")):     # filters that are columns times rows
        w = np.einsum("kcr,kcs->kcrs", *(rng.integers(1, 5, (2 * k, c, n)) for n in (4, r + 4))).astype(dtype)
        x = rng.integers(-4, 5, (2, options.get("groups", 1) * c, h + 20, width + 20)).astype(dtype)
        bias = rng.integers(-4, 5, 2 * k).astype(dtype)
        check(x, w, bias, method="separable", **options)
        x[0, 0, 0, 0] = np.nan
        check(x, w, bias, method="separable", **options)
print("within bounds")
"""


# An image of a few columns and many channels, of which only the first rows hold subnormal numbers. It is cut into bands
# of rows, and the other ones are read in x, to the last value.
BANDS = GUARDED + """
for method, sizes in itertools.product(("direct-matrix", "direct-pixels", "direct-filters"),
                                       ((2048, 12, 4), (2048, 16, 3), (3000, 8, 2))):
    x = np.ones(sizes, "f4")
    x[:, :2] = 1e-40
    w = np.ones((8, sizes[0], 1, 1), "f4")
    if sizes[1] * sizes[2] >= 16 or method != "direct-matrix":
        check(x, w, np.ones(8, "f4"), method=method)
print("within bounds")
"""


def search_path():
    return ":".join(path for path in sys.path if path)


@linux
@pytest.mark.parametrize("script", [PLAIN, GENERAL, BANDS], ids=["plain", "general", "bands"])
def test_no_access_outside_the_arrays(run_python, script):
    """In a process of its own, which a load or store outside would end."""
    done = run_python(script, PYTHONPATH=search_path())
    assert done.stdout == "within bounds\n", (done.returncode, done.stderr)


@linux
def test_an_access_outside_would_be_noticed(run_python):
    script = GUARDED + """
three = guarded(np.ones(3), True)
print(ctypes.c_double.from_address(three.ctypes.data + 16).value, flush=True)
print(ctypes.c_double.from_address(three.ctypes.data + 24).value, flush=True)
"""
    done = run_python(script, PYTHONPATH=search_path())
    assert done.stdout == "1.0\n"
    assert done.returncode != 0


@pytest.mark.parametrize(
    ("C", "R", "S", "stride"),
    [(18, 3, 3, 1), (7, 12, 12, 1), (20, 17, 17, 1), (20, 25, 25, 1), (48, 1, 3, 1), (17, 1, 25, 1), (3, 7, 7, 2)],
)
def test_tiles_that_are_computed_again_stay_in_their_memory(C, R, S, stride, dtype):
    """Those of y's last rows and columns, which are fewer than a tile's. With sanitizers this shows what it says."""
    rng = np.random.default_rng(0)
    w = rng.standard_normal((3, C, R, S)).astype(dtype)
    for rest in range(4):
        P, Q = R + rest, S + 3 - rest
        x = rng.standard_normal((1, C, (P - 1) * stride + R, (Q - 1) * stride + S)).astype(dtype)
        x[0, 0, -1, -1], x[0, 1, -1, 0], x[0, 1, 0, -1] = np.nan, np.inf, -np.inf
        with np.errstate(all="ignore"):
            exact, bound = oracle.correlate(x, w, stride=stride)
        y = fastconv.correlate(x, w, method="winograd", stride=stride, workers=2)
        finite = np.isfinite(exact)
        assert np.array_equal(y[~finite], exact[~finite], equal_nan=True)
        assert (abs(y[finite] - exact[finite]) <= bound[finite].max()).all()
