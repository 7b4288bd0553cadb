"""Every dtype against sums that are exact: Python's integers, wider floats, NumPy's own casts."""

import numpy as np
import oracle
import pytest
import scipy.signal
from cases import same_bits
from differential import INTEGERS, values

import fastconv

FLOATS = ("float16", "float32", "float64")
COMPLEX = ("complex64", "complex128")
KERNELS = ("direct-pixels", "direct-filters")
OPERATIONS = pytest.mark.parametrize("operation", ["correlate", "convolve"])
GEOMETRIES = [
    {},
    {"mode": "same", "pad_mode": "wrap"},
    {"padding": (2, 1), "pad_value": 3, "stride": 2},
    {"groups": 2, "dilation": 2, "mode": "full"},
]


def arrays(x_dtype, w_dtype=None, *, groups=1, seed=0):
    """x, w and bias; sizes for which both kernels take full and cut tiles of every width of vector."""
    rng = np.random.default_rng(seed)
    w_dtype = w_dtype or x_dtype
    bias = values(rng, groups * 5, np.result_type(np.dtype(x_dtype), np.dtype(w_dtype)))
    return values(rng, (2, groups * 3, 6, 39), x_dtype), values(rng, (groups * 5, 3, 3, 2), w_dtype), bias


def kernels(groups):
    return KERNELS if groups == 1 else (*KERNELS, "direct-groups")


def check(x, w, bias, operation="correlate", dtype=None, **options):
    exact, bound = getattr(oracle, operation)(x, w, bias, dtype=dtype, **options)
    for method in kernels(options.get("groups", 1)):
        y = getattr(fastconv, operation)(x, w, bias=bias, dtype=dtype, method=method, **options)
        assert y.dtype == (np.result_type(x, w) if dtype is None else dtype)
        assert oracle.within(y, exact, bound), (method, options)


# Integers.


def in_python_integers(x, w, bias):
    """The sum of objects, which never wrap, and then its low bits as the dtype's."""
    dtype = np.result_type(x, w)
    x, w, bias = (array.astype(dtype).astype(object) for array in (x, w, bias))
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], axis=(2, 3))
    sums = np.einsum("ncpqrs,kcrs->nkpq", windows, w, optimize=False) + bias[:, None, None]
    bits = 8 * dtype.itemsize
    low = sums % 2**bits
    if dtype.kind == "i":
        low = np.where(low >= 2 ** (bits - 1), low - 2**bits, low)
    return low.astype(dtype)


@pytest.mark.parametrize("method", KERNELS)
@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_are_exact_modulo_their_range(dtype, method):
    x, w, bias = arrays(dtype)
    y = fastconv.correlate(x, w, bias=bias, method=method)
    assert y.dtype == dtype
    assert np.array_equal(y, in_python_integers(x, w, bias))
    assert np.array_equal(oracle.correlate(x, w, bias)[0], y)  # and so is the oracle, which adds modulo 2^64


@pytest.mark.parametrize("dtype", INTEGERS)
def test_the_ends_of_the_range(dtype):
    """The largest products there are."""
    info = np.iinfo(dtype)
    for a, b in ((info.min, info.min), (info.min, info.max), (info.max, info.max)):
        x, w = np.full((1, 2, 5, 40), a, dtype), np.full((3, 2, 3, 3), b, dtype)
        w[1, 0, 0, 0] = info.min
        bias = np.array([info.min, 0, info.max], dtype)
        assert np.array_equal(fastconv.correlate(x, w, bias=bias), in_python_integers(x, w, bias))


@OPERATIONS
@pytest.mark.parametrize("dtype", [*INTEGERS, "bool"])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_geometries_of_integers(geometry, dtype, operation):
    check(*arrays(dtype, groups=geometry.get("groups", 1)), operation, **geometry)


# Short integers are multiplied two at a time, and summed in 32 bits.

SHORT = ("bool", "int8", "uint8", "int16")


@pytest.mark.parametrize("channels", [1, 2, 3, 8, 33])
@pytest.mark.parametrize("w_dtype", SHORT)
@pytest.mark.parametrize("x_dtype", SHORT)
def test_short_integers_in_wider_sums(x_dtype, w_dtype, channels):
    """Of even and odd channels, first and last in memory, as they are and byte-swapped, through calls and plans."""
    rng = np.random.default_rng(channels)
    x, w = values(rng, (2, channels, 6, 39), x_dtype), values(rng, (19, channels, 2, 3), w_dtype)
    bias = rng.integers(-(2**31), 2**31, 19).astype(np.int32)
    for dtype in ("int32", "uint32", "int64"):
        if not np.can_cast(np.result_type(x, w), dtype):
            continue
        for options in ({}, {"padding": (1, 2), "pad_value": 7}, {"stride": 2, "padding": 1, "pad_mode": "reflect"}):
            check(x, w, bias.astype(dtype), dtype=dtype, **options)
            check(x, w, bias.astype(dtype), "convolve", dtype=dtype, **options)
            options |= {"bias": bias.astype(dtype), "dtype": dtype}
            y = fastconv.correlate(x, w, **options)
            assert same_bits(fastconv.Plan(w, x.shape, **options)(x), y)
            assert same_bits(fastconv.correlate(x.astype(x.dtype.newbyteorder()), w, **options), y)
            last = np.ascontiguousarray(np.moveaxis(x, 1, -1))
            assert same_bits(np.moveaxis(fastconv.correlate(last, w, layout="NHWC", **options), -1, 1).copy(), y)


def test_booleans_are_one_whatever_their_bytes():
    x, w = np.full((2, 5, 6), 2, np.uint8).view(bool), np.ones((1, 2, 2, 2), bool)
    assert (fastconv.correlate(x, w, dtype="int32") == 8).all()


def test_short_integers_keep_their_sizes_in_what_is_said_of_them():
    x, w = np.ones((3, 8, 8), np.int8), np.ones((2, 3, 3, 3), np.int8)
    with pytest.raises(ValueError, match="filters of 3 x 3 x 3"):
        fastconv.correlate(x, w, method="winograd")
    plan = fastconv.Plan(w, x.shape, dtype="int32")
    assert "images of more than 16 bits" in plan.explain()


@pytest.mark.parametrize("method", ["direct-pixels", "auto"])
def test_rows_of_many_short_channels_are_staged_in_strips(method):
    rng = np.random.default_rng(0)
    x, w = values(rng, (1, 256, 12, 700), "int16"), values(rng, (2, 256, 3, 3), "int8")
    exact, _ = oracle.correlate(x, w, dtype="int32", padding=1)
    assert np.array_equal(fastconv.correlate(x, w, dtype="int32", padding=1, method=method), exact)


def test_channels_of_short_integers_are_flipped_before_they_are_paired():
    x, w, _ = arrays("int8")
    wide = fastconv.convolve(x.astype(int), w.astype(int), flip_channels=True)
    assert np.array_equal(fastconv.convolve(x, w, flip_channels=True, dtype="int32"), wide)
    plan = fastconv.Plan(w, x.shape, operation="convolve", flip_channels=True, dtype="int32")
    assert np.array_equal(plan(x), wide)


@pytest.mark.parametrize("pad_value", [-32769, -32768, 32767, 32768, 2**31 - 1])
def test_what_short_integers_are_padded_with_may_be_longer(pad_value):
    x, w, bias = arrays("int8")
    check(x, w, bias.astype(np.int32), dtype="int32", padding=1, pad_value=pad_value)


@pytest.mark.parametrize("method", ["auto", "measure"])
def test_a_plan_of_short_weights_takes_longer_images(method):
    """It can't know what comes: its sums may be wide for images as wide as they are."""
    _, w, bias = arrays("int8")
    options = {"bias": bias, "padding": 1, "pad_value": 5, "stride": 2, "dtype": "int32"}
    plan = fastconv.Plan(w, (3, 6, 39), method=method, **options)
    rng = np.random.default_rng(1)
    for dtype in ("int8", "uint8", "int16", "uint16", "int32"):
        x = values(rng, (2, 3, 6, 39), dtype)
        exact, _ = oracle.correlate(x, w, bias.astype(np.int32), padding=1, pad_value=5, stride=2, dtype="int32")
        assert np.array_equal(plan(x), exact)
    assert plan.x_shape == (3, 6, 39)
    assert plan.flops == 2 * 5 * 3 * 20 * 3 * 3 * 2
    assert "5 filters of 3 x 3 x 2" in repr(plan)
    narrow = fastconv.Plan(w, (3, 6, 39), method=method, bias=bias)
    assert narrow.packed_bytes < plan.packed_bytes


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_integers_wrap_as_scipy_has_it(dtype):
    x, w, _ = arrays(dtype)
    theirs = [scipy.signal.correlate(x[0], filter_, "valid", method="direct")[0] for filter_ in w]
    assert same_bits(fastconv.correlate(x[0], w), np.stack(theirs))


def test_c_types_of_one_size_are_one_dtype():
    """NumPy has two integers of 64 bits; either may come in, and be written to."""
    for given, out in (("longlong", "long"), ("long", "longlong"), ("ulonglong", "ulong")):
        x, w = np.ones((1, 4, 20), given), np.ones((1, 1, 2, 2), given)
        y = np.zeros((1, 3, 19), out)
        assert fastconv.correlate(x, w, out=y) is y
        assert (y == 4).all()


# Booleans: whether any pair is true.


def test_booleans_are_any_of_and():
    x, w, _ = arrays("bool")
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], axis=(2, 3))
    expected = np.einsum("ncpqrs,kcrs->nkpq", windows, w)
    y = fastconv.correlate(x, w)
    assert y.dtype == bool
    assert np.array_equal(y, expected)
    assert not y.all()
    assert y.any()


def test_many_booleans_are_no_overflow():
    """256 and 65536 of them: the count that they are summed in must not wrap to nothing."""
    x, w = np.ones((256, 16, 31), bool), np.ones((1, 256, 16, 16), bool)
    assert fastconv.correlate(x, w).all()
    assert fastconv.correlate(x[:1], w[:, :1]).all()


def test_a_plan_by_a_kernel_that_takes_short_integers_only():
    """Rows of wider ones would be too long for it to stage: another direct kernel computes these."""
    rng = np.random.default_rng(0)
    w = rng.integers(0, 256, (1, 33, 7, 7), np.uint8)
    options = {"padding": ((1, 0), (2, 3)), "dilation": 11, "dtype": np.uint32}
    plan = fastconv.Plan(w, (33, 70, 69), method="direct-pixels", **options)
    assert plan.method == "direct-pixels"
    for high in (256, 2**32):
        x = rng.integers(0, high, (33, 70, 69), np.uint64).astype(np.uint8 if high == 256 else np.uint32)
        assert np.array_equal(plan(x), fastconv.correlate(x, w, method="direct", **options))


def test_booleans_count_in_wider_dtypes():
    x, w, _ = arrays("bool")
    for dtype in ("int8", "uint16", "int64", "float16", "float64", "complex64"):
        y = fastconv.correlate(x, w, dtype=dtype)
        assert np.array_equal(y, oracle.correlate(x.astype(int), w.astype(int))[0].astype(dtype))


# Half precision.


def rounded_once(x, w, bias, dtype, **options):
    """The sum in float32, of which the library is asked for, and NumPy's rounding of it."""
    wide = fastconv.correlate(*(array.astype(np.float32) for array in (x, w)), bias=bias.astype(np.float32), **options)
    with np.errstate(over="ignore"):
        return wide.astype(dtype)


@pytest.fixture(params=["float16", "bfloat16"])
def half(request):
    return np.dtype(pytest.importorskip("ml_dtypes").bfloat16 if request.param == "bfloat16" else "float16")


@OPERATIONS
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_half_precision_within_bound(geometry, half, operation):
    """That of float32, and one rounding."""
    check(*arrays(half, groups=geometry.get("groups", 1)), operation, **geometry)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_half_precision_is_rounded_once(geometry, half):
    x, w, bias = arrays(half, groups=geometry.get("groups", 1))
    y = fastconv.correlate(x, w, bias=bias, **geometry)
    assert same_bits(y, rounded_once(x, w, bias, half, **geometry))


def test_half_precision_keeps_small_terms(half):
    """4096 ones, of which each would be lost when added to a half of 2048 or more, and overflow where it is due."""
    x, w = np.ones((4096, 1, 20), half), np.ones((1, 4096, 1, 1), half)
    assert (fastconv.correlate(x, w) == 4096).all()
    most = oracle.finfo(half).max
    x[:2], x[2:] = most, 0
    assert np.isinf(fastconv.correlate(x, w).astype(np.float32)).all()
    w[:, 1] = -1
    assert (fastconv.correlate(x, w) == 0).all()


def test_half_precision_rounds_the_bias(half):
    """It is cast to the result's dtype, as x and w are."""
    eps = float(oracle.finfo(half).eps)
    x, w = np.full((1, 2, 20), eps / 4, half), np.ones((1, 1, 1, 1), half)
    assert (fastconv.correlate(x, w, bias=[1 + 0.375 * eps]) == 1).all()  # which is 1 + eps with a bias in float32


def test_bfloat16_with_other_dtypes():
    bfloat16 = np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
    for other in (bfloat16, "float32", "float64", "bool", "complex64"):
        check(*arrays(bfloat16, other))
        check(*arrays(other, bfloat16))
    check(*arrays(bfloat16), dtype=np.dtype("float32"))


# Complex.


@OPERATIONS
@pytest.mark.parametrize("dtype", COMPLEX)
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_complex(geometry, dtype, operation):
    if "pad_value" in geometry:
        geometry = geometry | {"pad_value": 3 - 2j}
    check(*arrays(dtype, groups=geometry.get("groups", 1)), operation, **geometry)


def gaussian_integers(*sizes):
    rng = np.random.default_rng(0)
    return [rng.integers(-8, 9, size) + 1j * rng.integers(-8, 9, size) for size in sizes]


@pytest.mark.parametrize("mode", ["valid", "same", "full"])
def test_complex_filters_are_conjugated_by_correlate_alone(mode):
    """As scipy.signal has it."""
    x, w = gaussian_integers((3, 9, 30), (4, 3, 2, 3))
    for name in ("correlate", "convolve"):
        theirs = getattr(scipy.signal, name)
        planes = [sum(theirs(x[c], filter_[c], mode, "direct") for c in range(3)) for filter_ in w]
        assert np.array_equal(getattr(fastconv, name)(x, w, mode=mode), np.stack(planes))


def test_complex_in_two_dimensions():
    x, w = gaussian_integers((9, 30), (2, 3))
    for options in ({"mode": "same"}, {"padding": 2, "pad_value": 1j}, {"layout": "NHWC", "stride": 2}):
        kept = {name: value for name, value in options.items() if name != "layout"}
        exact = oracle.correlate(x[None, None], w[None, None], **kept)[0][0, 0]
        assert np.array_equal(fastconv.correlate(x, w, **options), exact)
        plan = fastconv.Plan(w, x.shape, **options)
        assert np.array_equal(plan(x), exact)


@pytest.mark.parametrize("other", [*INTEGERS, "bool", *FLOATS])
@pytest.mark.parametrize("dtype", COMPLEX)
def test_complex_with_real(dtype, other):
    check(*arrays(dtype, other))
    check(*arrays(other, dtype))


def test_complex_bias():
    x, w = gaussian_integers((2, 2, 5, 30), (4, 1, 2, 2))
    bias = np.array([1j, 2, -3 - 1j, 0])
    exact = oracle.correlate(x, w, bias, groups=2)[0]
    assert np.array_equal(fastconv.correlate(x, w, bias=bias, groups=2), exact)
    with pytest.raises(TypeError, match="bias has dtype complex128"):
        fastconv.correlate(x.real, w.real, bias=bias, groups=2)
    with pytest.raises(TypeError, match="pad_value is 1j; expected a real number with a result of dtype float64"):
        fastconv.correlate(x.real, w.real, padding=1, pad_value=1j, groups=2)


@pytest.mark.parametrize("dtype", COMPLEX)
def test_complex_non_finite(dtype):
    """Both parts of the outputs that cover it, and no others."""
    x, w, bias = arrays(dtype)
    clean = fastconv.correlate(x, w, bias=bias)
    x[1, 2, 3, 20] = complex(np.nan, 1)
    covered = np.zeros(clean.shape, bool)
    covered[1, :, 1:4, 19:21] = True
    y = fastconv.correlate(x, w, bias=bias)
    assert np.isnan(y.real[covered]).all()
    assert np.isnan(y.imag[covered]).all()
    assert same_bits(y[~covered], clean[~covered])


# Mixed dtypes, and dtype=.

REAL_AND_COMPLEX = (*INTEGERS, *FLOATS, *COMPLEX, "bool")


@pytest.mark.parametrize("w_dtype", REAL_AND_COMPLEX)
@pytest.mark.parametrize("x_dtype", REAL_AND_COMPLEX)
def test_mixed_dtypes_promote_as_in_numpy(x_dtype, w_dtype):
    """The result has NumPy's dtype for both, and the bits of the arguments cast to it."""
    x, w, _ = arrays(x_dtype, w_dtype)
    wanted = np.result_type(x, w)
    y = fastconv.correlate(x, w)
    assert y.dtype == wanted
    assert same_bits(y, fastconv.correlate(x.astype(wanted), w.astype(wanted)))


@pytest.mark.parametrize("dtype", REAL_AND_COMPLEX)
@pytest.mark.parametrize("given", REAL_AND_COMPLEX)
def test_a_wider_dtype(given, dtype):
    """What NumPy casts safely is computed in the dtype from the start; to others it isn't cast."""
    x, w, _ = arrays(given)
    if np.can_cast(given, dtype):
        y = fastconv.correlate(x, w, dtype=dtype)
        assert same_bits(y, fastconv.correlate(x.astype(dtype), w.astype(dtype)))
        plan = fastconv.Plan(w, x.shape, dtype=dtype)
        assert plan.dtype == dtype
        assert same_bits(plan(x), y)
    else:
        with pytest.raises(TypeError, match=f"dtype is {dtype}; expected one that holds {given}"):
            fastconv.correlate(x, w, dtype=dtype)


def test_wider_sums_dont_wrap_or_overflow():
    x, w = np.full((1, 3, 40), 127, "int8"), np.full((1, 1, 3, 3), 127, "int8")
    assert (fastconv.correlate(x, w, dtype="int32") == 9 * 127**2).all()
    x, w = np.full((1, 3, 40), 2**15, "float16"), np.full((1, 1, 3, 3), 2**15, "float16")
    assert (fastconv.correlate(x, w, dtype="float32") == 9 * 2.0**30).all()


def test_a_bias_is_cast_to_the_result():
    x, w = np.ones((1, 2, 20), "uint8"), np.ones((1, 1, 1, 1), "uint8")
    assert (fastconv.correlate(x, w, bias=[300]) == 45).all()
    assert (fastconv.correlate(x, w, bias=[2.9]) == 3).all()
    zeros = np.zeros((1, 2, 20), bool)
    for truth in (256, -1, 0.5):  # which integers of fewer bits, or a sum of one more, take for 0
        assert fastconv.correlate(zeros, w.astype(bool), bias=[truth]).all()
        assert fastconv.correlate(~zeros, w.astype(bool), bias=[truth]).all()


@pytest.mark.parametrize("dtype", [*INTEGERS, *FLOATS, *COMPLEX, "bool"])
def test_pad_values_are_cast_to_the_result(dtype):
    x, w, bias = arrays(dtype)
    for value in (0, 1, 2.5, np.int8(-3), np.float64(7)):
        options = {"padding": 2, "pad_value": value}
        check(x, w, bias, **options)


# Subnormals.


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("dtype", [*FLOATS, *COMPLEX])
def test_subnormals_stay(dtype, geometry):
    """Sums of whole multiples of the smallest number there is are exact."""
    rng = np.random.default_rng(0)
    groups = geometry.get("groups", 1)
    x, w = rng.integers(-8, 9, (2, 3 * groups, 6, 39)), rng.integers(-8, 9, (5 * groups, 3, 3, 2))
    smallest = np.finfo(dtype).smallest_subnormal
    geometry = geometry | {"pad_value": 0}
    exact = oracle.correlate(x, w, **geometry)[0].astype(dtype) * smallest
    assert np.any(exact)
    for method in kernels(groups):
        options = geometry | {"method": method}
        assert np.array_equal(fastconv.correlate(x.astype(dtype) * smallest, w.astype(dtype), **options), exact)
        assert np.array_equal(fastconv.correlate(x.astype(dtype), w.astype(dtype) * smallest, **options), exact)


# What NumPy has no common dtype for.


@pytest.mark.parametrize("other", ["float16", "int16", "int64"])
def test_bfloat16_with_what_it_does_not_promote_with(other):
    bfloat16 = np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
    x, w, _ = arrays("int8")
    for first, second in ((bfloat16, other), (other, bfloat16)):
        said = rf"x has dtype {np.dtype(first)} and w {np.dtype(second)}.*expected dtype="
        with pytest.raises(TypeError, match=said):
            fastconv.correlate(x.astype(first), w.astype(second))
        with pytest.raises(TypeError, match=r"dtype is float16; expected one that holds (bfloat16|int16|int64)"):
            fastconv.correlate(x.astype(first), w.astype(second), dtype="float16")
        y = fastconv.correlate(x.astype(first), w.astype(second), dtype="float64")
        assert same_bits(y, fastconv.correlate(x.astype("float64"), w.astype("float64")))


@pytest.mark.parametrize(("dtype", "value"), [("float32", 1e300), ("float16", 1e6), ("int32", np.nan), ("uint8", -1.5)])
def test_biases_that_do_not_fit_are_cast_silently(dtype, value):
    """As pad values and results are; warnings are errors here."""
    x, w, _ = arrays(dtype)
    y = fastconv.correlate(x, w, bias=[value] * len(w))
    with np.errstate(all="ignore"):
        assert np.array_equal(y, fastconv.correlate(x, w, bias=np.full(len(w), value).astype(dtype)))
