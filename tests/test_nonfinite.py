"""NaN and Inf reach the outputs whose window covers them, and no others; nothing is flushed to zero."""

import itertools

import numpy as np
import oracle
import pytest
from cases import METHODS, integers, methods, same_bits, shape

import fastconv

VALUES = pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
CASES = [
    shape(N=2, C=3, K=7, R=3, S=2, P=7, Q=19),
    shape(N=1, C=2, K=2, R=2, S=3, P=13, Q=67),
    shape(N=1, C=5, K=35, R=3, S=3, P=4, Q=4),
    shape(N=1, C=1, K=1, R=1, S=1, P=3, Q=33),
]


def arrays(case, dtype):
    """Integers, with some weights zero, and one filter all zeros: zero times Inf is NaN, and isn't left out."""
    x, w, bias = integers(case, dtype)
    w[np.random.default_rng(1).random(w.shape) < 0.3] = 0
    w[-1] = 0
    return x, w, bias


def check(y, clean, covered, method):
    """y is `covered` where that is not finite, and has the bits of clean elsewhere."""
    hit = ~np.isfinite(covered)
    assert np.array_equal(y[hit], covered[hit], equal_nan=True), method
    assert same_bits(y[~hit], clean[~hit]), method


@VALUES
@pytest.mark.parametrize("case", CASES, ids=str)
def test_in_a_pixel(case, value, dtype):
    """Corners, edges, and places within."""
    x, w, bias = arrays(case, dtype)
    rng = np.random.default_rng(2)
    places = [(0, 0, 0, 0), tuple(size - 1 for size in x.shape), *(tuple(rng.integers(x.shape)) for _ in range(8))]
    for method in methods(case, dtype):
        clean = fastconv.correlate(x, w, bias=bias, method=method)
        for n, c, i, j in places:
            spoiled = x.copy()
            spoiled[n, c, i, j] = value
            covered = np.zeros_like(clean)
            for r, s in np.ndindex(w.shape[2:]):
                if 0 <= i - r < case.y[2] and 0 <= j - s < case.y[3]:
                    with np.errstate(invalid="ignore"):
                        covered[n, :, i - r, j - s] = value * w[:, c, r, s]
            check(fastconv.correlate(spoiled, w, bias=bias, method=method), clean, covered, method)


@VALUES
@pytest.mark.parametrize("case", CASES, ids=str)
def test_in_a_weight_or_bias(case, value, dtype):
    """One filter's result, and not its neighbours' in the tile."""
    x, w, bias = arrays(case, dtype)
    for method in methods(case, dtype):
        clean = fastconv.correlate(x, w, bias=bias, method=method)
        for k in {0, case.K // 2, case.K - 1}:
            covered = np.zeros_like(clean)
            spoiled = w.copy()
            spoiled[k, 0, 0, 0] = value
            with np.errstate(invalid="ignore"):
                covered[:, k] = value * x[:, 0, : case.y[2], : case.y[3]]
            check(fastconv.correlate(x, spoiled, bias=bias, method=method), clean, covered, method)
            spoiled = bias.copy()
            spoiled[k] = covered[:, k] = value
            check(fastconv.correlate(x, w, bias=spoiled, method=method), clean, covered, method)


def test_around_the_image(dtype):
    """NaN in the memory around a view is never read into a result."""
    case = CASES[0]
    x, w, bias = arrays(case, dtype)
    memory = np.full([size + 2 for size in x.shape], np.nan, dtype)
    memory[1:-1, 1:-1, 1:-1, 1:-1] = x
    for method in methods(case, dtype):
        y = fastconv.correlate(memory[1:-1, 1:-1, 1:-1, 1:-1], w, bias=bias, method=method)
        assert same_bits(y, fastconv.correlate(x, w, bias=bias, method=method))


@VALUES
@pytest.mark.parametrize("options", [{}, {"stride": (2, 1)}, {"dilation": (2, 1), "padding": (4, 2)}], ids=str)
@pytest.mark.parametrize("K", [1, 2, 3, 5])
def test_padding_that_weights_of_depthwise_layers_meet(K, options, value, dtype):
    """Rows of it, of images lower than the filters: zero times Inf is NaN."""
    options = {"groups": 17, "padding": 2, **options}
    rng = np.random.default_rng(0)
    w = rng.integers(-4, 5, (17 * K, 1, 5, 3)).astype(dtype)
    for H in (1, 2, 3, 4):
        x = rng.integers(-4, 5, (2, 17, H, 20)).astype(dtype)
        for pads in ({}, {"pad_value": 3}, {"pad_value": np.nan}, {"pad_mode": "edge"}):
            exact, _ = oracle.correlate(x, w, **options, **pads)
            y = fastconv.correlate(x, w, method="direct-groups", **options, **pads)
            assert np.array_equal(y, exact, equal_nan=True), (H, pads)
        spoiled = w.copy()
        spoiled[3, 0, 0, 1] = spoiled[-1, 0, -1, 0] = value
        for weights, bias in ((spoiled, None), (w, np.where(np.arange(17 * K) == 5, value, 1).astype(dtype))):
            with np.errstate(invalid="ignore"):
                exact, _ = oracle.correlate(x, weights, bias, **options)
            for workers in (1, 3):
                y = fastconv.correlate(x, weights, bias=bias, method="direct-groups", workers=workers, **options)
                assert np.array_equal(y, exact, equal_nan=True), H
            plan = fastconv.Plan(weights, x.shape, bias=bias, method="direct-groups", **options)
            assert np.array_equal(plan(x), exact, equal_nan=True), H


@pytest.mark.parametrize("K", [1, 2, 5])
@pytest.mark.parametrize("options", [{}, {"stride": (2, 1)}, {"dilation": (2, 1)}], ids=str)
def test_padding_left_out_leaves_the_bits(K, options, dtype):
    """Signs of zero and of NaN among them, as if the image had been padded before."""
    rng = np.random.default_rng(0)
    tiny = np.finfo(dtype).tiny
    rows = 7 if "dilation" in options else 4        # so that some of y see nothing but padding
    for H, odd in itertools.product((1, 2, 3, 5), (0, 0.1, 1)):
        x = rng.choice([0, -0.0, tiny, -tiny, 1], (17, H, 23)).astype(dtype)
        w = rng.choice([0, -0.0, tiny, -tiny], (17 * K, 1, 7, 3)).astype(dtype)
        x[rng.random(x.shape) < odd] = np.nan
        w[rng.random(w.shape) < odd / 10] = np.inf
        bias = rng.choice([0, -0.0], 17 * K).astype(dtype)
        padded = np.pad(x, ((0, 0), (rows, rows), (2, 2)))
        with np.errstate(invalid="ignore"):
            exact = fastconv.correlate(padded, w, bias=bias, method="direct-groups", groups=17, **options)
        for workers in (1, 2):
            y = fastconv.correlate(
                x, w, bias=bias, method="direct-groups", groups=17, padding=(rows, 2), workers=workers, **options
            )
            assert y.tobytes() == exact.tobytes(), (H, odd)


@pytest.mark.parametrize("method", ["direct-pixels", "direct-filters", "direct-groups"])
def test_sign_of_zero(method, dtype):
    """A sum of -0, that a bias is or a product underflows to, is +0 where padding's zeros are added."""
    w = np.ones((16, 1, 3, 3), dtype)
    w[:, :, 1] = -1
    options = {"groups": 16, "padding": (1, 0), "method": method}
    y = fastconv.correlate(np.zeros((16, 1, 20), dtype), w, bias=np.full(16, -0.0, dtype), **options)
    assert not np.signbit(y).any()
    tiny = np.finfo(dtype).tiny
    assert not np.signbit(fastconv.correlate(np.full((16, 1, 20), tiny, dtype), w * tiny, **options)).any()
    w[:, :, [0, 2]] = -1
    y = fastconv.correlate(np.zeros((16, 1, 20), dtype), w, bias=np.full(16, -0.0, dtype), **options)
    assert np.signbit(y).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_infinities_of_both_signs_are_nan(case, method, dtype):
    if method not in methods(case, dtype):
        method = "direct"
    x = np.full((case.N, case.C, case.H, case.W), np.inf, dtype)
    w = np.ones(case.w, dtype)
    assert (fastconv.correlate(x, w, method=method) == np.inf).all()
    w[:, -1, -1, -1] = -1
    y = fastconv.correlate(x, w, method=method)
    assert np.isnan(y).all() if case.C * case.R * case.S > 1 else (y == -np.inf).all()


@pytest.mark.parametrize("method", [*METHODS, "fft"])
def test_overflow_is_infinite(method, dtype):
    x = np.full((4, 1, 1) if method == "direct-terms" else (4, 3, 40), np.finfo(dtype).max, dtype)
    groups = 2 if method == "direct-groups" else 1
    w = np.ones((4, 4 // groups, 1, 1), dtype)
    assert (fastconv.correlate(x, w, groups=groups, method=method) == np.inf).all()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_subnormals_stay(case, dtype):
    """Sums of whole multiples of the smallest number there is are exact."""
    x, w, bias = integers(case, dtype)
    smallest = np.finfo(dtype).smallest_subnormal
    for method in methods(case, dtype):
        y = fastconv.correlate(x, w, bias=bias, method=method) * smallest
        assert np.any(y)
        assert np.array_equal(fastconv.correlate(x * smallest, w, bias=bias * smallest, method=method), y)
        assert np.array_equal(fastconv.correlate(x, w * smallest, bias=bias * smallest, method=method), y)


def test_results_may_be_subnormal(dtype):
    """Products of normal numbers, below the normal range."""
    info = np.finfo(dtype)
    x = np.full((1, 4, 40), 2.0 ** (info.minexp // 2), dtype)
    w = np.full((3, 1, 1, 1), 2.0 ** (info.minexp - info.minexp // 2 - 5), dtype)
    assert (fastconv.correlate(x, w) == np.ldexp(np.dtype(dtype).type(1), info.minexp - 5)).all()


def test_floating_point_mode_is_not_touched(run_python):
    """After an import and calls, with threads, NumPy still has its subnormals."""
    script = """
import numpy as np
half = np.finfo(np.float32).smallest_normal
import fastconv
fastconv.correlate(np.ones((8, 100, 100), np.float32), np.ones((8, 8, 5, 5), np.float32), workers=2)
assert (np.full(100, half) / np.float32(2) > 0).all()
"""
    done = run_python(script)
    assert done.returncode == 0, done.stderr
