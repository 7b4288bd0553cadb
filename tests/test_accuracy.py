"""The accuracy contract at every element, and exact sums across every edge of the tiles and blocks."""

import functools
import itertools

import numpy as np
import oracle
import pytest
from cases import DTYPES, METHODS, integers, methods, reals, same_bits, shape
from shapes import SHAPES

import fastconv

WITH_BIAS = pytest.mark.parametrize("with_bias", [False, True], ids=["", "bias"])


@functools.cache
def layer(name, dtype, with_bias):
    """A named shape's arrays, three of its filters, and what is exact for those. Computed once for all kernels."""
    x, w, bias = reals(SHAPES[name], dtype)
    images, filters = sorted({0, len(x) - 1}), sorted({0, len(w) // 2, len(w) - 1})
    expected = oracle.correlate(x[images], w[filters], bias[filters] if with_bias else None)
    return x, w, bias if with_bias else None, np.ix_(images, filters), *expected


@WITH_BIAS
@pytest.mark.parametrize("name", SHAPES)
def test_named_shapes_within_bound(name, dtype, with_bias):
    """A sample of filters at every pixel: the rest is for test_named_shapes_exact."""
    x, w, bias, sample, exact, bound = layer(name, dtype, with_bias)
    for method in methods(SHAPES[name], dtype):
        y = fastconv.correlate(x, w, bias=bias, method=method)
        assert (abs(y[sample] - exact) <= bound).all(), method


@functools.cache
def integer_layer(name, dtype):
    x, w, _ = integers(SHAPES[name], dtype)
    return x, w, oracle.integers(x, w).astype(dtype)


@pytest.mark.parametrize("name", SHAPES)
def test_named_shapes_exact(name, dtype):
    x, w, exact = integer_layer(name, dtype)
    for method in methods(SHAPES[name], dtype):
        assert np.array_equal(fastconv.correlate(x, w, method=method), exact), method


@functools.cache
def integer_case(case, dtype):
    x, w, bias = integers(case, dtype)
    return x, w, bias, oracle.integers(x, w).astype(dtype)


def check_exact(case, dtype, method):
    """Exact, with a bias and without, and nothing written in front of the result or behind it."""
    x, w, bias, exact = integer_case(case, dtype)
    margin = 64
    memory = np.full(exact.size + 2 * margin, 777, dtype)
    out = memory[margin:-margin].reshape(exact.shape)
    for addend in (None, bias):
        wanted = exact if addend is None else exact + bias[:, None, None]
        fastconv.correlate(x, w, bias=addend, out=out, method=method)
        assert np.array_equal(out, wanted), (case, method)
    assert (memory[:margin] == 777).all(), (case, method)
    assert (memory[-margin:] == 777).all(), (case, method)


# Lengths about the register tiles: 6 rows, and up to 4 vectors of 16 lanes. Each is walked from 1 to twice the tile
# and one, with every other size small, and not a multiple of anything.
WALKS = {
    "P": [shape(C=2, K=3, R=3, S=2, P=size, Q=19) for size in range(1, 130)],
    "Q": [shape(C=2, K=5, R=2, S=3, P=4, Q=size) for size in range(1, 130)],
    "K": [shape(C=2, K=size, R=2, S=2, P=3, Q=17) for size in range(1, 130)],
    "C": [shape(C=size, K=3, R=2, S=1, P=2, Q=21) for size in range(1, 130)],
    "R": [shape(C=2, K=2, R=size, S=2, P=5, Q=16) for size in range(1, 14)],
    "S": [shape(C=2, K=2, R=2, S=size, P=5, Q=16) for size in range(1, 14)],
    "Q narrow filter": [shape(K=1, P=1, Q=size) for size in range(1, 130)],
    "N": [shape(N=size, C=2, K=3, R=2, S=2, P=3, Q=18) for size in range(1, 10)],
    # What filters and rows share of a tile of pixels, in every combination of whole and cut tiles.
    "K, R, P": [shape(C=1, K=K, R=R, S=2, P=P, Q=64 + (K + R + P) % 5) for K in (*range(1, 8), 13) for R in range(1, 8)
                for P in (*range(1, 9), 12, 13)],
    # One filter of 3 x 3, whose tile of 6 rows is higher than it.
    "3 x 3": [shape(C=C, K=1, R=3, S=3, P=P, Q=Q) for C in (1, 2) for P in (5, 6, 7, 8, 11, 12, 13, 14, 17)
              for Q in (1, 2, 4, 5, 8, 9, 15, 16, 17, 24, 31, 32, 33, 40, 48, 49, 64, 65)],
    # Columns and filters at once, about each whole number of vectors.
    "K, Q": [shape(C=2, K=K, R=2, S=2, P=2, Q=Q)
             for K, Q in itertools.product((1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 48, 63, 64, 65), repeat=2)],
    # Terms of the reduction about FILTER_KC, which is a power of two (or three quarters of one) on every ISA.
    "terms": [shape(C=terms, K=3, P=2, Q=9) for power in range(5, 14) for base in (3 << (power - 2), 1 << power)
              for terms in (base - 1, base, base + 1)],
    "terms of 3 x 3": [shape(C=C, K=33, R=3, S=3, P=3, Q=7)
                       for C in (7, 8, 14, 15, 28, 29, 56, 57, 113, 114, 227, 228, 455, 456)],
    # Pixels about PIXEL_BLOCK = 192 of the filter lanes, counted along P x Q; wide, narrow and one column.
    "pixels": [shape(C=2, K=18, P=1, Q=Q) for Q in (*range(186, 199), *range(380, 390), 575, 576, 577)],
    "pixels in rows of 7": [shape(C=2, K=18, R=2, P=P, Q=7) for P in (26, 27, 28, 29, 54, 55, 56, 82, 83)],
    "pixels in a column": [shape(C=2, K=18, S=2, P=P) for P in (*range(186, 199), *range(380, 390), 575, 576, 577)],
    # Columns about STRIP = 2048 of the pixel lanes: two strips from 4096 on, three from 6144.
    "strips": [shape(C=1, K=2, R=2, S=2, P=2, Q=Q)
               for Q in (2047, 2048, 2049, 4095, 4096, 4097, 4100, 4129, 6143, 6144, 6145, 6150)],
    # Rows about PIXEL_TASKS = 32 bands of 6 rows.
    "bands": [shape(C=1, K=1, R=2, S=2, P=P, Q=65) for P in (185, 186, 187, 191, 192, 193, 198, 199, 383, 384, 385)],
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("walk", WALKS)
def test_edges(walk, dtype, method):
    for case in WALKS[walk]:
        if method in methods(case, dtype):
            check_exact(case, dtype, method)


@WITH_BIAS
@pytest.mark.parametrize("terms", [1, 2, 3, 5, 20, 70, 300, 5000])
def test_few_terms_within_bound(terms, dtype, with_bias):
    """The fewer the terms, the nearer the bound: one product must be rounded correctly."""
    case = shape(C=terms, K=21, P=2, Q=37)
    for seed in range(3):
        x, w, bias = reals(case, dtype, seed)
        exact, bound = oracle.correlate(x, w, bias if with_bias else None)
        for method in methods(case, dtype):
            y = fastconv.correlate(x, w, bias=bias if with_bias else None, method=method)
            assert (abs(y - exact) <= bound).all(), method


@pytest.mark.parametrize("x_dtype", DTYPES)
@pytest.mark.parametrize("w_dtype", DTYPES)
@pytest.mark.parametrize("dtype", [None, *DTYPES])
def test_dtypes(x_dtype, w_dtype, dtype):
    """The result has NumPy's dtype for the arguments, and the sum is computed in it."""
    case = shape(C=3, K=5, R=3, S=3, P=4, Q=40)
    x, w = reals(case, x_dtype)[0], reals(case, w_dtype)[1]
    wanted = np.result_type(x, w) if dtype is None else np.dtype(dtype)
    if wanted < np.result_type(x, w):
        with pytest.raises(TypeError, match="dtype is float32"):
            fastconv.correlate(x, w, dtype=dtype)
    else:
        y = fastconv.correlate(x, w, dtype=dtype)
        assert same_bits(y, fastconv.correlate(x.astype(wanted), w.astype(wanted)))
        exact, bound = oracle.correlate(x.astype(wanted), w.astype(wanted))
        assert (abs(y - exact) <= bound).all()


def test_ranks():
    """The result has as many axes as the image, and a filter without an axis for K is one filter."""
    x, w, _ = integers(shape(N=2, C=3, K=4, R=2, S=3, P=4, Q=5), "float32")
    exact = oracle.integers(x, w)
    assert np.array_equal(fastconv.correlate(x, w), exact)
    assert np.array_equal(fastconv.correlate(x[1], w), exact[1])
    assert np.array_equal(fastconv.correlate(x, w[2]), exact[:, 2:3])
    assert np.array_equal(fastconv.correlate(x[1], w[2]), exact[1, 2:3])
    assert np.array_equal(fastconv.correlate(x[1, 0], w[2, 0]), oracle.integers(x[1:, :1], w[2:3, :1])[0, 0])


def test_result_is_new_or_out():
    x, w, _ = integers(shape(C=2, K=3, R=2, S=2, P=3, Q=4), "float64")
    y = fastconv.correlate(x[0], w)
    assert y.flags.c_contiguous
    assert y.flags.owndata
    assert y.flags.writeable
    out = np.full_like(y, np.nan)
    assert fastconv.correlate(x[0], w, out=out) is out
    assert np.array_equal(out, y)
    assert fastconv.convolve(x[0], w, out=out) is out


def test_the_bound_can_fail():
    """The oracle's bound is no wider than it says: two units in the last place break it for a single product."""
    x, w, _ = reals(shape(K=1, P=4, Q=40), "float32")
    y = fastconv.correlate(x, w)
    exact, bound = oracle.correlate(x, w)
    assert (abs(y - exact) <= bound).all()
    assert not (abs(y + 2 * np.spacing(y) - exact) <= bound).any()


def test_bias_of_integers(dtype):
    """Cast to the result's dtype, as the docstring says."""
    x, w = np.ones((1, 4, 20), dtype), np.ones((2, 1, 2, 2), dtype)
    np.testing.assert_array_equal(fastconv.correlate(x, w, bias=[1, 2])[:, 0, 0], [5, 6])
