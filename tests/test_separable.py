"""Filters of rank 1: found where they are, within the bound of a direct sum, and as it with what isn't finite."""

import itertools

import numpy as np
import oracle
import pytest
from cases import VECTOR_BYTES, same_bits

import fastconv

RNG = np.random.default_rng


def gaussian(size, width):
    place = np.arange(size) - (size - 1) / 2
    return np.exp(-(place**2) / (2 * width**2))


def bank(K, C, R, S, seed=0):
    """Columns by rows, of either sign and some decades, rounded once."""
    rng = RNG(seed)
    columns, rows = (rng.standard_normal((K, C, n)) * 10.0 ** rng.uniform(-2, 2, (K, C, n)) for n in (R, S))
    return columns[..., :, None] * rows[..., None, :]


def found(w, x_shape, **options):
    return "separable" in fastconv.Plan(w, x_shape, **options).predicted


def separable(x, w, bias=None, **options):
    return fastconv.correlate(x, w, bias=bias, method="separable", **options)


def check(x, w, bias=None, **options):
    """At every element, not in the largest only."""
    for addend in (None, bias):
        exact, bound = oracle.correlate(x, w, addend, **options)
        assert oracle.within(separable(x, w, addend, **options), exact, bound), (x.shape, w.shape, options)


def arrays(dtype, *, K=3, C=2, R=5, S=7, H=14, W=40, N=1, groups=1):
    rng = RNG(1)
    x = rng.standard_normal((N, groups * C, H, W)) * 10.0 ** rng.uniform(-3, 3, (N, groups * C, H, W))
    bias = rng.standard_normal(groups * K)
    return x.astype(dtype), bank(groups * K, C, R, S).astype(dtype), bias.astype(dtype)


def test_filters_that_people_use(dtype):
    """Made in double precision or not, normalised or not, with zeros."""
    box = np.full((9, 9), 1 / 81)
    outer = np.outer(gaussian(11, 2.0), gaussian(11, 2.0))
    exponential = np.exp(-np.add.outer(np.arange(-7, 8) ** 2, np.arange(-7, 8) ** 2) / 18)
    derivative = np.outer(gaussian(7, 1.5), np.arange(-3, 4) * gaussian(7, 1.5))
    for w in (box, outer, exponential, exponential / exponential.sum(), derivative, np.zeros((5, 5))):
        for filter_ in (w, w.T, -3 * w, w[:, ::-1]):
            assert found(filter_.astype(dtype), (60, 60))
            assert found(filter_.astype(dtype), (60, 60), operation="convolve")


def test_filters_of_another_rank(dtype):
    w = bank(3, 2, 5, 7).astype(dtype)
    assert found(w, (2, 30, 30))
    for k, c, r, s in itertools.product(range(3), range(2), (0, 4), (0, 3, 6)):
        other = w.copy()
        other[k, c, r, s] *= 1 + 40 * np.finfo(dtype).eps
        assert not found(other, (2, 30, 30)), (k, c, r, s)
        other[k, c, r, s] = np.nan
        assert not found(other, (2, 30, 30)), (k, c, r, s)
        other[k, c, r, s] = np.inf
        assert not found(other, (2, 30, 30)), (k, c, r, s)
    assert not found(np.ones((5, 5), int), (30, 30))
    assert not found(np.ones((3, 3), dtype), (30, 30))
    assert not found(np.ones((0, 1, 5, 5), dtype), (1, 30, 30))
    assert not found(RNG(0).standard_normal((9, 9)).astype(dtype), (30, 30))
    with pytest.raises(ValueError, match=r"method is 'separable', which can't compute.*a column times a row"):
        separable(np.ones((30, 30), dtype), np.diag(np.arange(1.0, 6.0)).astype(dtype))


def test_weights_that_underflow(dtype):
    """Where rounding made them another number than the product, by which a large pixel may be multiplied."""
    least = float(np.finfo(dtype).smallest_subnormal)
    flat = np.full((11, 11), 100 * least)
    flat[5, 5] = 101 * least
    narrow = np.outer(gaussian(11, 0.5 if dtype == "float32" else 0.15), gaussian(11, 1.0))
    narrow *= 6 * least / narrow[0, 0] if narrow[0, 0] else 1
    x = np.zeros((1, 1, 60, 60), dtype)
    x[0, 0, 0, 0] = float(np.finfo(dtype).max) / 4
    for filter_ in (flat, narrow):
        w = filter_.astype(dtype)[None, None]
        exact, bound = oracle.correlate(x, w)
        y = fastconv.correlate(x, w, method="separable" if found(w, (1, 60, 60)) else "auto")
        assert oracle.within(y, exact, bound + 121 * least)


def test_it_is_chosen_for_large_filters(dtype):
    assert fastconv.Plan(np.ones((11, 11), dtype), (500, 500)).method == "separable"
    w = RNG(0).standard_normal((11, 11)).astype(dtype)
    assert fastconv.Plan(w, (500, 500)).method != "separable"
    x = RNG(0).standard_normal((500, 500)).astype(dtype)
    w = np.outer(gaussian(11, 3), gaussian(11, 2)).astype(dtype)
    assert same_bits(fastconv.correlate(x, w), separable(x, w))


GEOMETRIES = (
    {},
    {"stride": (2, 1)},
    {"stride": (1, 3), "padding": 2},
    {"stride": (7, 2)},
    {"dilation": (2, 3)},
    {"padding": ((2, 1), (0, 3)), "pad_value": -2.5},
    {"mode": "same", "pad_mode": "reflect"},
    {"mode": "full", "pad_mode": "wrap", "stride": 2},
    {"padding": 3, "pad_mode": "edge", "groups": 2, "dilation": 2},
)


@pytest.mark.parametrize("options", GEOMETRIES, ids=str)
def test_geometry(options, dtype):
    x, w, bias = arrays(dtype, N=2, groups=options.get("groups", 1))
    check(x, w, bias, **options)
    flipped = fastconv.convolve(x, w[..., ::-1, ::-1], bias=bias, method="separable", **options)
    assert same_bits(flipped, separable(x, w, bias, **options))
    if options.get("groups", 1) == 1:
        last = np.ascontiguousarray(np.moveaxis(x, 1, -1))
        y = separable(last, w[:1], bias[:1], layout="NHWC", **options)
        assert same_bits(np.moveaxis(y, -1, 1), separable(x, w[:1], bias[:1], **options))


@pytest.mark.parametrize(("R", "S"), [(4, 4), (2, 8), (8, 2), (3, 6), (6, 3), (13, 5), (5, 31)])
def test_every_width(R, S, isa, dtype):
    """Of y, beside those of vectors; the fewest values of filters among the sizes."""
    lanes = VECTOR_BYTES[isa] // np.dtype(dtype).itemsize
    for P, Q in itertools.product((1, 2, 5, 6, 7), (1, lanes - 1, lanes, lanes + 1, 4 * lanes, 4 * lanes + 1)):
        check(*arrays(dtype, K=2, C=2, R=R, S=S, H=P + R - 1, W=Q + S - 1))


def test_bands(dtype):
    """More rows than one has; the same bits for any number of workers, and at any place in a batch."""
    x, w, bias = arrays(dtype, N=3, C=1, R=9, H=300, W=300)
    y = separable(x, w, bias)
    exact, bound = oracle.correlate(x, w, bias)
    assert oracle.within(y, exact, bound)
    for workers in (2, 3, 16):
        assert same_bits(separable(x, w, bias, workers=workers), y)
    for n in range(3):
        assert same_bits(separable(x[n], w, bias), y[n])
    plan = fastconv.Plan(w, (1, 300, 300), bias=bias, method="separable")
    assert same_bits(plan(x), y)
    assert plan.workspace_bytes < 1 << 20


@pytest.mark.parametrize(
    ("x_shape", "w_shape", "options"),
    [
        ((4, 64, 1000), (1, 4, 7, 7), {"stride": 4, "padding": 3}),
        ((3, 500, 600), (1, 3, 5, 9), {"stride": (16, 1), "dilation": (4, 1), "padding": 1}),
        ((16, 130, 512), (1, 16, 7, 7), {"padding": 3}),
        ((8, 150, 512), (1, 8, 19, 19), {"padding": 9}),
        ((64, 128, 128), (1, 64, 7, 7), {"padding": 3}),
    ],
)
def test_bands_that_want_more_scratch_than_a_higher_one(x_shape, w_shape, options, dtype):
    """What is staged isn't always more for more rows; with several workers another's memory would be written to."""
    x, w = RNG(0).standard_normal(x_shape).astype(dtype), np.ones(w_shape, dtype)
    for place in ((0, 0, 0), (-1, -1, -1), None):
        image = x.copy()
        if place is not None:
            image[place] = np.nan
        y = separable(image, w, workers=3, **options)
        direct = fastconv.correlate(image, w, method="direct-filters", **options)
        seen = np.isfinite(direct)
        assert np.array_equal(np.isfinite(y), seen)
        assert np.allclose(y[seen], direct[seen], rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_reaches_what_sees_it(value, dtype):
    """As in a direct sum, zeros in a filter included."""
    x, w, bias = arrays(dtype, N=2, H=40)
    w[0, 0, :, 2] = w[1, 1, 3] = 0
    assert found(w, x.shape[1:])
    x[0, 0, 11, 13] = x[1, 1, 39, 39] = value
    with np.errstate(invalid="ignore"):
        direct = fastconv.correlate(x, w, bias=bias, method="direct-pixels")
        y = separable(x, w, bias)
    assert np.array_equal(np.isfinite(y), np.isfinite(direct))
    assert np.array_equal(y[~np.isfinite(y)], direct[~np.isfinite(y)], equal_nan=True)
    clean = x.copy()
    clean[~np.isfinite(x)] = 0
    exact, bound = oracle.correlate(clean, w, bias)
    seen = np.isfinite(y)
    assert (abs(y - exact)[seen] <= bound[seen]).all()


def test_a_sum_along_a_column_may_overflow(dtype):
    """Where no output does."""
    x, w = np.zeros((1, 1, 20, 40), dtype), np.outer([4.0, 4, 4, 4, 4], [0, 0.1, 1, 0.1, 0]).astype(dtype)[None, None]
    x[0, 0, :, 0] = np.finfo(dtype).max / 8
    exact, bound = oracle.correlate(x, w)
    y = separable(x, w)
    assert np.isfinite(y).all()
    assert oracle.within(y, exact, bound)


@pytest.mark.parametrize("scale", ["tiny", "smallest_subnormal"])
def test_numbers_that_underflow(scale, dtype):
    """Each product and sum is off by the last bit there is, at most."""
    least = float(np.finfo(dtype).smallest_subnormal)
    x = (RNG(0).integers(1, 9, (1, 1, 20, 40)) * float(getattr(np.finfo(dtype), scale))).astype(dtype)
    w = np.outer(gaussian(5, 1), gaussian(7, 1)).astype(dtype)[None, None]
    exact, bound = oracle.correlate(x, w)
    assert (abs(separable(x, w) - exact) <= bound + 35 * least).all()
