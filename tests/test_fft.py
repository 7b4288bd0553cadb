"""Method "fft": the contract of accuracy whatever the data, NaN and Inf, bits, geometry, memory, and its libraries."""

import itertools
import os
import sys

import numpy as np
import oracle
import pytest
from cases import same_bits
from hypothesis import given
from hypothesis import strategies as st
from memory import LAYOUTS

import fastconv
from fastconv import _problem, _spectral, _transforms

H, W, R, S = 45, 70, 9, 11


def reals(*, N=1, C=2, H=H, W=W, K=3, R=R, S=S, groups=1, dtype="float32", seed=0):
    rng = np.random.default_rng(seed)
    sizes = (N, groups * C, H, W), (groups * K, C, R, S), (groups * K,)
    return [rng.standard_normal(size).astype(dtype) for size in sizes]


def check(x, w, bias=None, **options):
    """Within the contract: the largest error is no larger than the largest bound of the direct sum."""
    y = fastconv.correlate(x, w, bias=bias, method="fft", **options)
    exact, bound = oracle.correlate(x, w, bias, **options)
    for image, wanted, most in zip(y, exact, bound, strict=True):
        assert (abs(image - wanted) <= most.max()).all(), float(abs(image - wanted).max() / most.max())
    return y


def unlike_direct(x, w, y, **options):
    """Whether transforms have computed y: that a block wasn't left to a direct kernel shows in its last bits."""
    return not same_bits(y, fastconv.correlate(x, w, method="direct", **options))


# Accuracy. Images and filters that are hard on a transform, in all pairs.

RNG = np.random.default_rng(1)
DECADES = RNG.standard_normal((2, H, W)) * 10.0 ** RNG.uniform(-6, 6, (2, H, W))
COLUMNS = np.arange(W)
IMAGES = {
    "normal": RNG.standard_normal((2, H, W)),
    "positive": RNG.random((2, H, W)),
    "constant": np.full((2, H, W), 1.1),
    "zero": np.zeros((2, H, W)),
    "spikes": np.where(RNG.random((2, H, W)) < 0.002, 1e5, 1e-3),
    "one spike": np.eye(1, 2 * H * W, 2 * H * W - W * 7 - 9).reshape(2, H, W),
    "decades": DECADES,
    "decades by block": RNG.standard_normal((2, H, W)) * 10.0 ** (COLUMNS // 8 - 4),
    "waves": np.broadcast_to(np.cos(0.3 * COLUMNS), (2, H, W)),
    "ramp": np.broadcast_to(COLUMNS / 3, (2, H, W)),
    "last columns": np.where(COLUMNS > W - 4, 1e7, RNG.random((2, H, W))),
    "last rows": np.where(np.arange(H)[:, None] > H - 4, 1e7, RNG.random((2, H, W))),
    "tiny": RNG.standard_normal((2, H, W)) * 1e-38,
    "huge": RNG.standard_normal((2, H, W)) * 1e28,
}
SPREAD = np.broadcast_to(np.cos(0.3 * np.arange(S)), (3, 2, R, S))
FILTERS = {
    "normal": RNG.standard_normal((3, 2, R, S)),
    "box": np.full((3, 2, R, S), 1 / 3),
    "first value": np.eye(1, R * S).reshape(1, 1, R, S).repeat(2, 1).repeat(3, 0) * 1.7,
    "last value": np.eye(1, R * S, R * S - 1).reshape(1, 1, R, S).repeat(2, 1).repeat(3, 0) * 1.7,
    "without sum": SPREAD - SPREAD.mean(),
    "one of them large": RNG.standard_normal((3, 2, R, S)) * np.array([1, 1e6, 1e-6])[:, None, None, None],
    "zero": np.zeros((3, 2, R, S)),
}


@pytest.mark.parametrize("image", IMAGES)
def test_accuracy_of_hard_data(image, dtype):
    for values in FILTERS.values():
        with np.errstate(over="ignore"):
            x, w = IMAGES[image][None].astype(dtype), values.astype(dtype)
        check(x, w)
        check(x, w, stride=2, padding=3)


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e160, 1e300])
def test_accuracy_at_the_ends_of_float64(scale):
    x, w, _ = reals(dtype="float64")
    check(x * scale, w)
    check(x * scale, w / scale)


def test_subnormals_are_summed_directly(dtype):
    """A transform would round each of its steps to their spacing."""
    x, w, _ = reals(dtype=dtype)
    x = np.rint(9 * x) * np.finfo(dtype).smallest_subnormal
    assert same_bits(fastconv.correlate(x, w, method="fft"), fastconv.correlate(x, w, method="direct"))


@pytest.mark.parametrize("sizes", [{"R": 31, "S": 31, "H": 60, "W": 150, "K": 1}, {"R": 1, "S": 60, "W": 600, "C": 1},
                                   {"R": 30, "S": 7}, {"K": 9, "C": 5}])
def test_transforms_compute_ordinary_data(sizes, dtype):
    """They keep the contract, and are known to: nothing is left to a direct kernel."""
    x, w, bias = reals(**sizes, dtype=dtype)
    y = check(x, w, bias)
    assert unlike_direct(x, w, y, bias=bias)
    check(abs(x), abs(w))


@pytest.mark.parametrize(("R", "S"), [(H, W), (1, 1), (H, 1), (1, W), (2, 69)])
def test_any_size_of_filters(R, S, dtype):
    x, w, bias = reals(R=R, S=S, dtype=dtype)
    check(x, w, bias)


def test_half_precision_and_complex():
    x, w, bias = reals()
    for dtype in (np.float16, pytest.importorskip("ml_dtypes").bfloat16):
        y = check(x.astype(dtype), w.astype(dtype))
        assert y.dtype == dtype
    z, v = x + 1j * x[..., ::-1], w - 1j * w[::-1]
    y = fastconv.correlate(z, v, bias=bias + 1j, method="fft")
    exact, bound = oracle.correlate(z, v, bias + 1j)
    assert abs(y.real - exact.real).max() <= bound.real.max()
    assert abs(y.imag - exact.imag).max() <= bound.imag.max()


# Geometry.


@pytest.mark.parametrize("pad_mode", _problem.PAD_MODES)
@pytest.mark.parametrize("mode", ["valid", "same", "full"])
def test_padding(mode, pad_mode, dtype):
    x, w, bias = reals(N=2, dtype=dtype)
    padding = ((3, 50), (80, 1)) if mode == "valid" else 0
    check(x, w, bias, mode=mode, padding=padding, pad_mode=pad_mode, pad_value=2 if pad_mode == "constant" else 0)


@given(st.data())
def test_drawn_geometry(data):
    def number(low, high):
        return data.draw(st.integers(low, high))

    stride, dilation = ((number(1, 4), number(1, 4)) for _ in range(2))
    sizes = {"N": number(1, 2), "C": number(1, 3), "K": number(1, 5), "R": number(1, 12), "S": number(1, 12)}
    groups = number(1, 3)
    height, width = ((taps - 1) * step + number(1, 60) for taps, step in zip((sizes["R"], sizes["S"]), dilation,
                                                                              strict=True))
    x, w, bias = reals(**sizes, H=height, W=width, groups=groups, dtype=data.draw(st.sampled_from(["f4", "f8"])))
    options = {"stride": stride, "dilation": dilation, "groups": groups, "padding": number(0, 3)}
    y = check(x, w, bias, **options)
    last = fastconv.correlate(np.moveaxis(x, 1, -1), w, bias=bias, layout="NHWC", method="fft", **options)
    assert same_bits(np.ascontiguousarray(np.moveaxis(last, -1, 1)), y)


def test_convolution():
    x, w, bias = reals()
    for options in ({}, {"flip_channels": True}, {"mode": "same"}):
        y = fastconv.convolve(x, w, bias=bias, method="fft", **options)
        exact, bound = oracle.convolve(x, w, bias, **options)
        assert abs(y - exact).max() <= bound.max()


# Values that aren't finite.


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_pixels_reach_their_windows_alone(value, dtype):
    """In a pixel of the image or what it is padded with: the outputs that see one are those of the direct sum."""
    x, w, bias = reals(N=2, W=300, dtype=dtype)
    w[0] = 0
    exact, bound = oracle.correlate(x, w, bias)
    for n, c, i, j in ((0, 0, 0, 0), (1, 1, H - 1, 299), (0, 1, 20, 150), (1, 0, 7, 31)):
        spoiled = x.copy()
        spoiled[n, c, i, j] = value
        y = fastconv.correlate(spoiled, w, bias=bias, method="fft")
        direct = fastconv.correlate(spoiled, w, bias=bias, method="direct")
        seen = np.zeros(y.shape, bool)
        seen[n, :, max(0, i - R + 1) : i + 1, max(0, j - S + 1) : j + 1] = True
        assert np.array_equal(y[seen], direct[seen], equal_nan=True)
        assert not np.isfinite(y[seen]).any()
        assert (abs(y - exact)[~seen] <= bound.max()).all()
    options = {"padding": 2, "pad_value": value}
    y = fastconv.correlate(x, w, method="fft", **options)
    direct = fastconv.correlate(x, w, method="direct", **options)
    assert np.array_equal(np.isfinite(y), np.isfinite(direct))
    assert np.array_equal(y[~np.isfinite(y)], direct[~np.isfinite(y)], equal_nan=True)


def test_non_finite_weights_and_biases(dtype):
    x, w, bias = reals(dtype=dtype)
    bias[1] = np.inf
    y = fastconv.correlate(x, w, bias=bias, method="fft")
    assert (y[:, 1] == np.inf).all()
    assert np.isfinite(y[:, [0, 2]]).all()
    w[2, 0, 3, 4] = np.nan
    y = fastconv.correlate(x, w, bias=bias, method="fft")
    assert same_bits(y, fastconv.correlate(x, w, bias=bias, method="direct"))
    assert fastconv.Plan(w, x.shape, method="fft").method.startswith("direct")


def test_overflow(dtype):
    """Of a transform's sums, where results are finite; and of results."""
    most = np.finfo(dtype).max
    x = np.full((1, 20, 200), most, dtype)
    w = np.zeros((1, 1, 5, 9), dtype)
    w[0, 0, 2, 3] = 1
    assert (fastconv.correlate(x, w, method="fft") == most).all()
    w[0, 0, 2, 4] = 1
    assert (fastconv.correlate(x, w, method="fft") == np.inf).all()


# The same bits.

PROBLEMS = [
    ({"N": 5, "C": 3, "K": 7, "H": 90, "W": 150, "R": 15, "S": 15}, {}),
    ({"N": 3, "C": 1, "K": 1, "H": 200, "W": 220, "R": 31, "S": 31}, {"mode": "same", "pad_mode": "reflect"}),
    ({"N": 4, "C": 2, "K": 3, "groups": 2, "H": 100, "W": 100}, {"groups": 2, "stride": (1, 2), "dilation": (2, 1)}),
]


@pytest.mark.parametrize(("sizes", "options"), PROBLEMS)
def test_bits_are_the_same(sizes, options, dtype):
    """For any workers, alone and in a batch, through a plan, and wherever and however x stands in memory."""
    x, w, bias = reals(**sizes, dtype=dtype)
    y = fastconv.correlate(x, w, bias=bias, method="fft", workers=1, **options)
    assert unlike_direct(x, w, y, bias=bias, **options)
    for workers in (2, 3, 8):
        assert same_bits(fastconv.correlate(x, w, bias=bias, method="fft", workers=workers, **options), y)
    plan = fastconv.Plan(w, x.shape, bias=bias, method="fft", **options)
    for n in range(len(x)):
        assert same_bits(plan(x[n]), y[n])
        assert same_bits(plan(x[n:]), y[n:])
    for name, layout in LAYOUTS.items():
        assert same_bits(fastconv.correlate(layout(x), layout(w), bias=bias, method="fft", **options), y), name
    w[...] = 0
    assert same_bits(plan(x), y)


# What a plan says, and what is refused.


def test_plan(isa):
    x, w, _ = reals(C=3, H=300, W=400, K=16, R=31, S=31)
    plan = fastconv.Plan(w, x.shape, method="fft")
    assert plan.method == "fft"
    assert "fft" in repr(plan)
    assert plan.isa == isa
    assert w.nbytes < plan.packed_bytes
    out = np.empty(plan.y_shape, np.float32)
    assert plan(x, out=out) is out


@pytest.mark.parametrize("sizes", [(1, 4000, 4000, 1, 63, 63), (3, 2000, 1000, 64, 31, 31), (64, 300, 300, 64, 15, 15),
                                   (1, 20, 10**6, 1, 1, 101), (512, 100, 100, 16, 9, 9), (1, 10**6, 64, 1, 9, 9)])
def test_workspace_is_bounded(sizes):
    """Whatever the image's size. It is known before anything is allocated; the weights' are a few times their own."""
    C, height, width, K, rows, columns = sizes
    w = np.broadcast_to(np.float32(1), (K, C, rows, columns))
    plan = fastconv.Plan(w, (C, height, width), method="fft")
    assert plan.method == "fft"
    assert plan.workspace_bytes <= 24 << 20


def test_auto_takes_transforms_for_large_filters(isa):
    def method(C, size, K, filter_size):
        w = np.random.default_rng(0).standard_normal((K, C, filter_size, filter_size), np.float32)
        return fastconv.Plan(w, (C, size, size)).method

    for C, size, K, filter_size in ((1, 512, 1, 63), (3, 512, 16, 31), (1, 300, 1, 101)):
        assert method(C, size, K, filter_size) == "fft"
    for C, size, K, filter_size in itertools.product((1, 3, 64), (20, 300), (1, 16, 64), (1, 2)):
        assert method(C, size, K, filter_size) != "fft"


@pytest.mark.parametrize("dtype", ["int8", "int64", "bool", "uint32"])
def test_integers_are_refused(dtype):
    x, w = np.ones((1, 9, 9), dtype), np.ones((1, 1, 3, 3), dtype)
    with pytest.raises(ValueError, match=r"method is 'fft', .* integers"):
        fastconv.correlate(x, w, method="fft")
    assert (fastconv.correlate(x, w, method="fft", dtype="float64") == 9).all()


@pytest.mark.parametrize("library", [_transforms.Ducc, _transforms.SciPy])
def test_each_library_of_transforms(monkeypatch, library, dtype):
    """Lengths of several prime factors, one and two filters at a time, short last bands."""
    if library is _transforms.Ducc:
        pytest.importorskip("ducc0")
    monkeypatch.setattr(_spectral, "_transforms", library())
    monkeypatch.setattr(_spectral, "_asked", True)
    for W, K in ((70, 3), (97, 2), (300, 1)):
        x, w, bias = reals(W=W, K=K, dtype=dtype)
        assert unlike_direct(x, w, check(x, w, bias=bias), bias=bias)
        check(x, w, bias=bias, stride=2)


def test_the_fastest_library_is_taken(run_python):
    """ducc0, or SciPy where it is missing."""
    pytest.importorskip("ducc0")
    script = """
import sys
from fastconv import _transforms
print(type(_transforms.installed()).__name__)
sys.modules["ducc0"] = None
print(type(_transforms.installed()).__name__)
"""
    assert run_python(script).stdout.split() == ["Ducc", "SciPy"]


def test_without_transforms(run_python):
    """Which is asked for by name, and never chosen."""
    script = """
import sys
sys.modules["ducc0"] = sys.modules["scipy"] = None
import numpy as np, fastconv
w = np.random.default_rng(0).standard_normal((63, 63), np.float32)
print(fastconv.Plan(w, (512, 512)).method)
try:
    fastconv.Plan(w, (512, 512), method="fft")
except ImportError as error:
    print(error)
"""
    done = run_python(script)
    assert done.stdout.startswith("direct"), done.stderr
    assert "ducc0 or SciPy" in done.stdout
    assert "pip install" in done.stdout


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or "libasan" in os.environ.get("LD_PRELOAD", ""),
    reason="limits of address space are Linux's to keep, and the address sanitizer needs terabytes of it",
)
def test_an_allocation_that_fails(run_python):
    """Of the weights' spectra, and of a call's workspace: a MemoryError with a size."""
    script = """
import numpy as np, fastconv, room
from fastconv import _transforms
_transforms.installed()
w = np.broadcast_to(np.ones((), np.float32), (64, 512, 9, 9))
x = np.ones((256, 100, 400), np.float32)
plan = fastconv.Plan(np.ones((4, 256, 9, 9), np.float32), x.shape, method="fft", workers=1)
out = np.ones(plan.y_shape, np.float32)
room.leave(1 << 20)
for call in (lambda: fastconv.Plan(w, (512, 200, 200), method="fft"), lambda: plan(x, out=out)):
    try:
        call()
        print("was computed")
    except MemoryError as error:
        print("size" if any(digit in str(error) for digit in "123456789") else error)
"""
    done = run_python(script, OPENBLAS_NUM_THREADS="1", MALLOC_MMAP_THRESHOLD_="65536", MALLOC_TRIM_THRESHOLD_="65536")
    assert done.stdout == "size\nsize\n", done.stdout + done.stderr
