"""What holds for any arrays: of the sums as mathematics, and bit for bit of how they are computed."""

import numpy as np
import oracle
import pytest
from cases import DTYPES, METHODS, integers, methods, reals, same_bits, shape
from hypothesis import assume, given
from hypothesis import strategies as st
from memory import LAYOUTS

import fastconv

SHAPES = st.builds(
    shape,
    N=st.integers(1, 3),
    C=st.integers(1, 5),
    K=st.integers(1, 40),
    R=st.integers(1, 5),
    S=st.integers(1, 5),
    P=st.integers(1, 14),
    Q=st.integers(1, 70),
)
SEEDS = st.integers(0, 2**32 - 1)


@st.composite
def problems(draw, values, among=("auto", *METHODS)):
    """x, w, bias and one of some methods, of those that can compute them."""
    case, dtype = draw(SHAPES), draw(st.sampled_from(DTYPES))
    able = ("auto", *methods(case, dtype))
    method = draw(st.sampled_from([method for method in among if method in able]))
    return *values(case, dtype, draw(SEEDS)), method


@given(problems(integers), SEEDS, st.integers(-4, 4), st.integers(-4, 4))
def test_linear_in_the_image(problem, seed, a, b):
    x, w, _, method = problem
    x2 = np.random.default_rng(seed).integers(-8, 9, x.shape).astype(x.dtype)
    y, y2, together = (fastconv.correlate(image, w, method=method) for image in (x, x2, a * x + b * x2))
    assert np.array_equal(together, a * y + b * y2)


@given(problems(integers), SEEDS, st.integers(-4, 4), st.integers(-4, 4))
def test_linear_in_the_filters(problem, seed, a, b):
    x, w, _, method = problem
    w2 = np.random.default_rng(seed).integers(-8, 9, w.shape).astype(w.dtype)
    y, y2, together = (fastconv.correlate(x, filters, method=method) for filters in (w, w2, a * w + b * w2))
    assert np.array_equal(together, a * y + b * y2)


@given(problems(reals, METHODS), st.data())
def test_shifting_the_image_shifts_the_result(problem, data):
    """Bit for bit with the method given: an output's sum doesn't know where in the image its window stands."""
    x, w, bias, method = problem
    method = fastconv.Plan(w, x.shape, method=method).method  # of "direct", the one it takes
    y = fastconv.correlate(x, w, bias=bias, method=method)
    down, right = data.draw(st.integers(0, y.shape[2] - 1)), data.draw(st.integers(0, y.shape[3] - 1))
    shifted = x[:, :, down:, right:]
    assume(method in methods(shape(P=y.shape[2] - down, Q=y.shape[3] - right), x.dtype))
    assert same_bits(fastconv.correlate(shifted, w, bias=bias, method=method), y[:, :, down:, right:])


@given(problems(reals))
def test_convolution_is_correlation_with_reversed_filters(problem):
    x, w, bias, method = problem
    options = {"bias": bias, "method": method}
    assert same_bits(fastconv.convolve(x, w, **options), fastconv.correlate(x, w[..., ::-1, ::-1], **options))
    assert same_bits(
        fastconv.convolve(x, w, flip_channels=True, **options), fastconv.correlate(x, w[:, ::-1, ::-1, ::-1], **options)
    )


@given(problems(reals))
def test_batch_equals_loop(problem):
    x, w, bias, method = problem
    y = fastconv.correlate(x, w, bias=bias, method=method)
    for image, result in zip(x, y, strict=True):
        assert same_bits(fastconv.correlate(image, w, bias=bias, method=method), result)


@given(problems(reals))
def test_plan_equals_call(problem):
    x, w, bias, method = problem
    for operation in ("correlate", "convolve"):
        plan = fastconv.Plan(w, x.shape[1:], operation=operation, bias=bias, method=method)
        assert same_bits(plan(x), getattr(fastconv, operation)(x, w, bias=bias, method=method))


@given(problems(integers))
def test_a_channel_adds_its_own_correlation(problem):
    x, w, _, method = problem
    alone = [fastconv.correlate(x[:, [c]], w[:, [c]], method=method) for c in range(x.shape[1])]
    assert np.array_equal(fastconv.correlate(x, w, method=method), sum(alone))


@given(problems(reals))
def test_a_channel_adds_its_own_correlation_within_bound(problem):
    """Of real values each side keeps to its bound: that of the sums of one channel, which are then added exactly."""
    x, w, _, method = problem
    wider = oracle.WIDER[x.dtype.name]
    bound = oracle.correlate(x, w)[1]
    total = np.zeros(bound.shape, wider)
    for c in range(x.shape[1]):
        bound = bound + oracle.correlate(x[:, [c]], w[:, [c]])[1]
        total += fastconv.correlate(x[:, [c]], w[:, [c]], method=method)
    assert (abs(fastconv.correlate(x, w, method=method) - total) <= bound).all()


@given(problems(reals, ("direct-pixels", "direct-filters")))
def test_a_filter_computes_alone_what_it_does_in_a_bank(problem):
    """Bit for bit with the method given: neighbours in a tile don't touch each other."""
    x, w, bias, method = problem
    y = fastconv.correlate(x, w, bias=bias, method=method)
    for k in {0, len(w) // 2, len(w) - 1}:
        assert same_bits(fastconv.correlate(x, w[k], bias=bias[[k]], method=method), np.ascontiguousarray(y[:, [k]]))


@given(problems(reals))
def test_the_bias_is_where_the_sum_begins(problem):
    """Within the bound of a sum that has one term more; and a bias of zeros is no bias."""
    x, w, bias, method = problem
    exact, bound = oracle.correlate(x, w, bias)
    assert (abs(fastconv.correlate(x, w, bias=bias, method=method) - exact) <= bound).all()
    zeros = fastconv.correlate(x, w, bias=np.zeros_like(bias), method=method)
    assert same_bits(zeros, fastconv.correlate(x, w, method=method))


# Layouts: the same values in other memory. The result must be the same bits as from a contiguous copy.


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_the_arguments(layout, dtype):
    for case in (
        shape(N=2, C=3, K=5, R=3, S=2, P=7, Q=37),
        shape(N=2, C=4, K=33, R=3, S=3, P=5, Q=6),
        shape(C=2, K=3, P=3),
    ):
        x, w, bias = reals(case, dtype)
        other_x, other_w = LAYOUTS[layout](x), LAYOUTS[layout](w)
        assert np.array_equal(other_x, x)
        assert np.array_equal(other_w, w)
        for method in methods(case, dtype):
            options = {"bias": bias, "method": method}
            for operation in (fastconv.correlate, fastconv.convolve):
                y = operation(x, w, **options)
                assert same_bits(operation(other_x, w, **options), y)
                assert same_bits(operation(x, other_w, **options), y)
                assert same_bits(operation(other_x, other_w, **options), y)
            plan = fastconv.Plan(other_w, other_x.shape, **options)
            assert same_bits(plan(other_x), fastconv.correlate(x, w, **options))


def test_one_image_as_a_batch_without_copies(dtype):
    """Strides of 0, along images and channels, are read in place."""
    x, w, _ = reals(shape(C=1, K=4, R=3, S=3, P=6, Q=20), dtype)
    repeated = np.broadcast_to(x, (3, 1, *x.shape[2:]))
    assert same_bits(fastconv.correlate(repeated, w), np.repeat(fastconv.correlate(x, w), 3, axis=0))
    channels, filters = np.broadcast_to(x, (1, 3, *x.shape[2:])), np.broadcast_to(w, (4, 3, 3, 3))
    assert same_bits(fastconv.correlate(channels, filters), fastconv.correlate(channels.copy(), filters.copy()))


@given(problems(reals), st.integers(1, 16))
def test_bits_are_the_same_for_any_workers(problem, workers):
    x, w, bias, method = problem
    options = {"bias": bias, "method": method}
    assert same_bits(
        fastconv.correlate(x, w, workers=workers, **options), fastconv.correlate(x, w, workers=1, **options)
    )
