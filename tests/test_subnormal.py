"""Subnormal numbers, in images, weights and results: exact where they were, and computed from multiples of them."""

import memory
import numpy as np
import oracle
import pytest
from cases import METHODS, same_bits

import fastconv

METHODS = (*METHODS, "winograd", "separable", "fft")
RNG = np.random.default_rng


def least(dtype):
    return float(np.finfo(dtype).smallest_subnormal)


def integers(rng, sizes, dtype, most=9):
    """Small multiples of the smallest number."""
    return (rng.integers(-most, most + 1, sizes) * least(dtype)).astype(dtype)


def weights(rng, sizes, dtype, method):
    """Small integers; for "separable" of rank 1."""
    if method == "separable":
        columns, rows = rng.integers(1, 3, (*sizes[:2], sizes[2], 1)), rng.integers(0, 3, (*sizes[:2], 1, sizes[3]))
        return (columns * 2**rows).astype(dtype)
    return rng.integers(-3, 4, sizes).astype(dtype)


def channels_last(x):
    return np.ascontiguousarray(np.moveaxis(x, 1, -1))


def can(w, x_shape, method, **options):
    try:
        fastconv.Plan(w, x_shape, method=method, **options)
    except (ValueError, ImportError):
        return False
    return True


OPTIONS = ({}, {"padding": 1}, {"groups": 2}, {"stride": 2, "padding": 2, "pad_mode": "reflect"}, {"layout": "NHWC"})


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_sums_that_are_exact_stay_so(method, options, dtype):
    """Integers, times the smallest number there is, on images that are large enough to be looked at."""
    rng = RNG(0)
    groups = options.get("groups", 1)
    x = integers(rng, (3, groups * 8, 40, 44), dtype)
    x[1] = rng.integers(-9, 10, x[1].shape)
    for R, S in ((1, 1), (3, 3), (5, 5)):
        w = weights(rng, (groups * 6, 8, R, S), dtype, method)
        image = np.ascontiguousarray(np.moveaxis(x, 1, -1)) if "layout" in options else x
        if not can(w, image.shape, method, **options):
            continue
        plain = {name: value for name, value in options.items() if name != "layout"}
        exact, bound = oracle.correlate(x, w, **plain)
        y = fastconv.correlate(image, w, method=method, **options)
        y = np.moveaxis(y, -1, 1) if "layout" in options else y
        if method.startswith("direct"):
            assert np.array_equal(y[[0, 2]], exact[[0, 2]])
        for n in range(3):
            # What is subnormal is rounded to a multiple of the smallest number.
            assert (abs(y[n] - exact[n]) <= bound[n].max() + least(dtype)).all()
        for n in range(3):
            assert same_bits(fastconv.correlate(image[n], w, method=method, **options).copy(),
                             np.ascontiguousarray(np.moveaxis(y, 1, -1) if "layout" in options else y)[n])


@pytest.mark.parametrize("method", ["auto", *METHODS])
def test_biases_of_another_order(method, dtype):
    """Added to sums that are too small for them, or of their own size."""
    rng = RNG(1)
    x = integers(rng, (2, 8, 6, 5) if method == "direct-terms" else (2, 8, 40, 44), dtype)
    groups = 2 if method == "direct-groups" else 1
    size = 1 if method == "direct-matrix" else 5
    w = weights(rng, (20, 8 // groups, size, size), dtype, method)
    bias = rng.standard_normal(20).astype(dtype)
    bias[::2] = integers(rng, 10, dtype, 1000)
    exact, bound = oracle.correlate(x, w, bias, groups=groups)
    for layout in ("NCHW", "NHWC"):
        image = np.ascontiguousarray(np.moveaxis(x, 1, -1)) if layout == "NHWC" else x
        if layout == "NHWC" and not can(w, image.shape, method, groups=groups, layout=layout):
            continue
        options = {"method": method, "bias": bias, "groups": groups, "layout": layout}
        y = fastconv.Plan(w, image.shape, **options)(image)
        assert same_bits(y, fastconv.correlate(image, w, **options)) or method == "auto"
        y = np.moveaxis(y, -1, 1) if layout == "NHWC" else y
        assert (abs(y - exact) <= bound + least(dtype)).all()


def test_a_plan_keeps_its_own_weights_and_biases(dtype):
    """Those that it may come back to."""
    rng = RNG(2)
    x, w, bias = integers(rng, (8, 40, 44), dtype), weights(rng, (5, 8, 3, 3), dtype, ""), np.ones(5, dtype)
    plan = fastconv.Plan(w, x.shape, bias=bias)
    y = plan(x)
    w[...] = bias[...] = 0
    assert same_bits(plan(x), y)
    assert (abs(y - 1) <= least(dtype) * 10_000).all()


@pytest.mark.parametrize("largest", [1.0, 1e-20, 1e20])
def test_subnormal_among_others(largest, dtype):
    """The bound is of each element: where a window sees nothing else, they count."""
    rng = RNG(3)
    x = integers(rng, (1, 2, 60, 70), dtype, 1 << 20)
    x[:, :, 20:30, :35] = largest * rng.standard_normal((1, 2, 10, 35))
    w = rng.standard_normal((3, 2, 3, 3)).astype(dtype)
    exact, bound = oracle.correlate(x, w)
    for method in ("direct-pixels", "direct-filters"):
        y = fastconv.correlate(x, w, method=method)
        assert (abs(y - exact) <= bound + 18 * least(dtype)).all()


@pytest.mark.parametrize("other", [np.inf, np.nan, "max"])
def test_images_that_no_factor_suits(other, dtype):
    """They are computed as they are."""
    x = integers(RNG(4), (1, 2, 60, 70), dtype)
    x[0, 0, 30, 30] = np.finfo(dtype).max / 4 if other == "max" else other
    w = np.ones((3, 2, 3, 3), dtype)
    y = fastconv.correlate(x, w, method="direct")
    with np.errstate(invalid="ignore"):
        exact, bound = oracle.correlate(x, w)
        seen = np.isfinite(exact)
        assert np.array_equal(np.isfinite(y), seen)
        assert (abs(y - exact)[seen] <= bound[seen]).all()


def test_sums_that_leave_the_range_of_the_multiple(dtype):
    """Though the result itself doesn't: then it is computed again."""
    info = np.finfo(dtype)
    x = integers(RNG(5), (1, 2, 60, 70), dtype)
    x[0, 0, 30, 30] = 1
    w = np.full((3, 2, 3, 3), float(info.max) / 32, dtype)
    exact, bound = oracle.correlate(x, w)
    y = fastconv.correlate(x, w, method="direct")
    assert np.isfinite(y).all()
    assert oracle.within(y, exact, bound + 18 * least(dtype))


@pytest.mark.parametrize("pad_value", [1.0, 1e-40, -3.0])
def test_padding_is_multiplied_too(pad_value, dtype):
    x, w = integers(RNG(6), (1, 2, 60, 70), dtype), weights(RNG(7), (3, 2, 3, 3), dtype, "")
    exact, bound = oracle.correlate(x, w, padding=2, pad_value=pad_value)
    y = fastconv.correlate(x, w, padding=2, pad_value=pad_value, method="direct")
    assert (abs(y - exact) <= bound + 18 * least(dtype)).all()


def test_rows_that_are_alike_in_all_channels(dtype):
    """What is looked at isn't the same row of each channel: else this would take a hundred times as long. Not timed."""
    x = integers(RNG(10), (1, 512, 14, 14), dtype)
    x[:, :, ::7] = 0
    w = RNG(11).standard_normal((4, 512, 1, 1)).astype(dtype)
    exact, bound = oracle.correlate(x, w)
    assert (abs(fastconv.correlate(x, w, method="direct") - exact) <= bound + 512 * least(dtype)).all()


def test_strides_of_images(dtype):
    x, w = integers(RNG(8), (2, 120, 140), dtype), weights(RNG(9), (3, 2, 3, 3), dtype, "")
    y = fastconv.correlate(np.ascontiguousarray(x[:, ::-2, ::2]), w)
    assert same_bits(fastconv.correlate(x[:, ::-2, ::2], w), y)
    assert same_bits(fastconv.correlate(np.asfortranarray(x[:, ::-2, ::2]), w), y)
    assert same_bits(fastconv.correlate(x[:, ::-2, ::2].astype(x.dtype.newbyteorder()), w), y)
    for workers in (2, 5):
        assert same_bits(fastconv.correlate(x[:, ::-2, ::2], w, workers=workers), y)


@pytest.mark.parametrize("scale", [1.0, 8.0])
@pytest.mark.parametrize("sizes", [(16, 16, 16), (64, 8, 8), (3, 90, 70), (40, 41, 43)], ids=str)
def test_bits_do_not_depend_on_strides(sizes, scale, dtype):
    """Whether a few subnormal numbers are found, and what factor an image gets, is the same wherever it lies."""
    rng = RNG(22)
    for place in range(8):
        x, w = rng.standard_normal(sizes), rng.standard_normal((40, sizes[0], 3, 3)).astype(dtype)
        x *= 1.0 if scale == 1.0 else scale * np.finfo(dtype).smallest_normal
        x[place % sizes[0], place * sizes[1] // 8] = np.finfo(dtype).smallest_normal / 9
        bias = rng.standard_normal(40).astype(dtype) * (scale == 1.0)
        x = x.astype(dtype)[np.newaxis]
        small = w.copy()
        small[place * 5, place * sizes[0] // 8] *= np.finfo(dtype).smallest_normal
        for filters in (w, small):
            y = fastconv.correlate(x, filters, bias=bias)
            for name in ("in a larger image", "all backwards", "Fortran", "channels last"):
                assert same_bits(fastconv.correlate(memory.LAYOUTS[name](x), filters, bias=bias), y), name
                assert same_bits(fastconv.correlate(x, memory.LAYOUTS[name](filters), bias=bias), y), name


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_weights_that_are_subnormal(method, options, dtype):
    """Integers again, as multiples in the filters, and in one of three images as well: there nothing is left."""
    rng = RNG(12)
    groups = options.get("groups", 1)
    x = rng.integers(-9, 10, (3, groups * 8, 40, 44)).astype(dtype)
    x[1] = integers(rng, x[1].shape, dtype)
    for R, S in ((1, 1), (3, 3), (5, 5)):
        w = (weights(rng, (groups * 6, 8, R, S), np.float64, method) * least(dtype)).astype(dtype)
        bias = rng.integers(-9, 10, groups * 6).astype(dtype)
        image = np.ascontiguousarray(np.moveaxis(x, 1, -1)) if "layout" in options else x
        if not can(w, image.shape, method, **options):
            continue
        plain = {name: value for name, value in options.items() if name != "layout"}
        for b in (None, (bias * least(dtype)).astype(dtype), bias):
            exact, bound = oracle.correlate(x, w, b, **plain)
            y = fastconv.correlate(image, w, method=method, bias=b, **options)
            for n in range(3):
                each = fastconv.correlate(image[n], w, method=method, bias=b, workers=3, **options)
                assert same_bits(each.copy(), y[n].copy())
            y = np.moveaxis(y, -1, 1) if "layout" in options else y
            assert (abs(y - exact) <= bound.max() + least(dtype)).all()
            if method.startswith("direct"):
                assert np.array_equal(y, exact.astype(dtype))


@pytest.mark.parametrize("method", ["direct", "direct-pixels", "direct-filters", "winograd", "fft"])
def test_weights_whose_tails_are_subnormal(method, dtype):
    """As a narrow Gaussian's in a large window; from 1 down to the smallest number there is."""
    size = 3 if method == "winograd" else 17
    tails = np.linspace(0, 1, size * size).reshape(size, size) * np.log2(least(dtype))
    w = np.repeat([2.0**tails, -(2.0**tails.T)], 16, 0).reshape(2, 16, size, size).astype(dtype)
    x = RNG(13).standard_normal((1, 16, 60, 70)).astype(dtype)
    exact, bound = oracle.correlate(x, w)
    if not method.startswith("direct"):
        bound = bound.max()
    plan = fastconv.Plan(w, x.shape, method=method)
    assert (abs(plan(x) - exact) <= bound + 16 * size * size * least(dtype)).all()
    up = 120 if dtype == "float32" else 1000  # and sums that the multiple's range doesn't hold
    large = np.ldexp(plan(np.ldexp(x, up)).astype(np.longdouble), -up)
    assert (abs(large - exact) <= bound + 16 * size * size * least(dtype)).all()


@pytest.mark.parametrize(("C", "K"), [(16, 3), (64, 32)])
@pytest.mark.parametrize("other", [np.inf, -np.inf, np.nan])
def test_weights_that_are_subnormal_of_images_that_are_not_finite(other, C, K, dtype):
    """What sees none of it is as exact as ever, also where the method for such sizes is winograd."""
    x = RNG(14).integers(-9, 10, (1, C, 60, 70)).astype(dtype)
    w = integers(RNG(15), (K, C, 3, 3), dtype)
    exact = oracle.correlate(x, w)[0]
    x[0, 0, 30, 30] = other
    for method in ("direct-pixels", "direct-filters", "winograd"):
        y = fastconv.Plan(w, x.shape, method=method, bias=np.zeros(K, dtype))(x)
        with np.errstate(invalid="ignore"):
            seen = np.isfinite(oracle.correlate(x, w)[0])
        assert np.array_equal(np.isfinite(y), seen)
        assert (abs(y - exact)[seen] <= 100 * least(dtype)).all()


@pytest.mark.parametrize("other", [np.inf, np.nan, "max"])
def test_weights_that_no_factor_suits(other, dtype):
    x = RNG(16).integers(-9, 10, (1, 2, 60, 70)).astype(dtype)
    w = integers(RNG(17), (3, 2, 3, 3), dtype)
    w[1, 1, 1, 1] = np.finfo(dtype).max / 128 if other == "max" else other
    y = fastconv.correlate(x, w, method="direct")
    with np.errstate(invalid="ignore"):
        exact, bound = oracle.correlate(x, w)
        assert np.array_equal(np.isfinite(y), np.isfinite(exact))
        seen = np.isfinite(exact)
        assert (abs(y - exact)[seen] <= bound[seen] + 18 * least(dtype)).all()


def test_strides_of_weights(dtype):
    """Of filters that can be read as one row, or as rows of channels, or not at all."""
    x = RNG(18).standard_normal((4, 60, 70)).astype(dtype)
    wide = integers(RNG(19), (10, 4, 6, 6), dtype)
    wide[::2] += RNG(20).standard_normal(wide[::2].shape).astype(dtype)
    for part in (np.s_[:], np.s_[::2], np.s_[:, ::-1], np.s_[:, :, ::2], np.s_[..., ::-1, ::-1], np.s_[..., 1:3]):
        w = wide[part]
        y = fastconv.correlate(x, w.copy())
        assert same_bits(fastconv.correlate(x, w), y)
        assert same_bits(fastconv.correlate(x, np.asfortranarray(w)), y)
        assert same_bits(fastconv.correlate(x, w.astype(w.dtype.newbyteorder())), y)
        assert same_bits(fastconv.convolve(x, w[..., ::-1, ::-1]), y)
        assert same_bits(fastconv.convolve(x, w[:, ::-1, ::-1, ::-1], flip_channels=True), y)
        assert same_bits(fastconv.Plan(w, x.shape)(x), y) or fastconv.Plan(w, x.shape).method != "direct-filters"


def test_a_plan_keeps_its_own_subnormal_weights(dtype):
    rng = RNG(21)
    x, w, bias = rng.standard_normal((8, 40, 44)).astype(dtype), integers(rng, (5, 8, 3, 3), dtype), np.ones(5, dtype)
    for b in (None, bias):
        given = w.copy()
        plan = fastconv.Plan(given, x.shape, bias=b)
        y = plan(x)
        infinite = np.where(x == x.max(), np.inf, x).astype(dtype)
        z = plan(infinite)
        given[...] = 0
        if b is not None:
            b[...] = 0
        assert same_bits(plan(x), y)
        assert same_bits(plan(infinite), z)


IN_BANDS = (
    {},
    {"mode": "same"},
    {"stride": 2},
    {"dilation": (3, 1)},
    {"groups": 3},
    {"layout": "NHWC", "mode": "full"},
    {"padding": ((40, 0), (0, 1)), "pad_value": 7},
    {"padding": ((2, 5), (1, 0)), "pad_mode": "wrap"},
    {"padding": 4, "pad_mode": "symmetric", "stride": 3},
)


@pytest.mark.parametrize("other", [1.0, 1e-30, "max", np.nan])
@pytest.mark.parametrize("options", IN_BANDS, ids=str)
def test_images_that_are_computed_in_bands(options, other, dtype):
    """Large ones with few terms: each band has a factor of its own, or none."""
    rng = RNG(14)
    x = integers(rng, (3, 700, 130), dtype)
    x[:, 200:420] = np.finfo(dtype).max / 64 if other == "max" else other * rng.integers(1, 9, (3, 220, 130))
    w = rng.integers(-1, 2, (3, 3 // options.get("groups", 1), 3, 3)).astype(dtype)
    bias = integers(rng, 3, dtype, 1000)
    image = np.ascontiguousarray(np.moveaxis(x, 0, -1)) if "layout" in options else x
    plain = {name: value for name, value in options.items() if name != "layout"}
    with np.errstate(all="ignore"):
        exact, bound = oracle.correlate(x[np.newaxis], w, bias, **plain)
    y = fastconv.correlate(image, w, bias=bias, method="direct", workers=1, **options)
    for workers in (2, 3):
        assert same_bits(fastconv.correlate(image, w, bias=bias, method="direct", workers=workers, **options), y)
    y = np.moveaxis(y, -1, 0) if "layout" in options else y
    finite = np.isfinite(exact[0])
    assert (finite == np.isfinite(y)).all()
    assert (abs(y - exact[0])[finite] <= (bound[0] + least(dtype))[finite]).all()


IN_GROUPS = ({}, {"padding": 1}, {"stride": 2, "padding": 1, "pad_value": 3}, {"layout": "NHWC", "mode": "same"})


@pytest.mark.parametrize("multiplier", [1, 2])
@pytest.mark.parametrize("options", IN_GROUPS, ids=str)
@pytest.mark.parametrize("method", ["direct-pixels", "direct-groups"])
def test_images_that_are_computed_in_bands_of_groups(method, options, multiplier, dtype):
    """Many of them, no multiple of what is packed together; some hold no subnormal numbers, and some others besides."""
    rng = RNG(23)
    x = integers(rng, (1, 103, 40, 36), dtype)
    x[:, 40:70] = rng.standard_normal((1, 30, 40, 36))
    x[:, 5, 20], x[:, 80, 20] = 1, np.nan
    w = rng.integers(-2, 3, (103 * multiplier, 1, 3, 3)).astype(dtype)
    image = channels_last(x) if "layout" in options else x
    if not can(w, image.shape, method, groups=103, **options):
        return
    plain = {name: value for name, value in options.items() if name != "layout"}
    for bias in (None, integers(rng, 103 * multiplier, dtype, 1000)):
        with np.errstate(all="ignore"):
            exact, bound = oracle.correlate(x, w, bias, groups=103, **plain)
        y = fastconv.correlate(image, w, bias=bias, groups=103, method=method, workers=1, **options)
        for workers in (2, 5):
            plan = fastconv.Plan(w, image.shape, bias=bias, groups=103, method=method, workers=workers, **options)
            assert same_bits(plan(image), y)
        y = np.moveaxis(y, -1, 1) if "layout" in options else y
        finite = np.isfinite(exact)
        assert (finite == np.isfinite(y)).all()
        assert (abs(y[finite] - exact[finite]) <= (bound + least(dtype))[finite]).all()
