"""Modes, padding, stride, dilation and groups: every one against the oracle and SciPy, and against one another."""

import itertools

import numpy as np
import oracle
import pytest
import scipy.signal
from cases import METHODS, same_bits

import fastconv

KERNELS = ("direct-pixels", "direct-filters")  # which compute filters of any size
PAD_MODES = ("constant", "reflect", "symmetric", "edge", "wrap")
OPERATIONS = pytest.mark.parametrize("operation", ["correlate", "convolve"])


def integers(rng, *size, dtype="float64"):
    """Small integers, whose sums are exact in any order: what is equal must have equal bits."""
    return rng.integers(-8, 9, size).astype(dtype)


def arrays(*, N=1, C=3, H=11, W=40, K=5, R=3, S=2, groups=1, dtype="float64", seed=0):
    """x, w and bias; C and K are of a group."""
    rng = np.random.default_rng(seed)
    sizes = (N, groups * C, H, W), (groups * K, C, R, S), (groups * K,)
    return [integers(rng, *size, dtype=dtype) for size in sizes]


def results(x, w, operation="correlate", **options):
    """Of each method that can compute it; there is always one."""
    for method in METHODS:
        try:
            yield getattr(fastconv, operation)(x, w, method=method, **options)
        except ValueError as error:
            if method == "direct-filters" or "which can't compute outputs" not in str(error):
                raise


def check(x, w, bias, *, operation="correlate", **options):
    """Exact by each method, and nothing written beside the result."""
    exact, _ = getattr(oracle, operation)(*(array.astype(np.int64) for array in (x, w, bias)), **options)
    memory = np.full(exact.size + 128, 77, x.dtype)
    out = memory[64:-64].reshape(exact.shape)
    for y in results(x, w, operation, bias=bias, out=out, **options):
        assert np.array_equal(y, exact), options
        assert (memory[:64] == 77).all()
        assert (memory[-64:] == 77).all()


# Each option alone and with others.

STEPS = [1, 2, 3, (1, 2), (2, 1), (4, 3), (1, 17), (13, 1), 50]
PADDINGS = [0, 1, 2, (0, 3), (4, 0), ((1, 0), (0, 2)), ((0, 3), (5, 0)), ((30, 0), (0, 90)), 50]
MODES = [("valid", padding) for padding in PADDINGS] + [("same", 0), ("full", 0)]


@pytest.mark.parametrize(("mode", "padding"), MODES)
@pytest.mark.parametrize("pad_mode", PAD_MODES)
def test_padding(mode, padding, pad_mode, dtype):
    """Filters of odd and even sizes, and one larger than the image, of which padding is a multiple."""
    for H, W, R, S in ((11, 40, 3, 2), (8, 35, 4, 5), (1, 1, 1, 1), (2, 33, 2, 31), (5, 7, 6, 9)):
        x, w, bias = arrays(C=2, H=H, W=W, K=3, R=R, S=S, dtype=dtype)
        options = {"mode": mode, "padding": padding, "pad_mode": pad_mode}
        (top, bottom), (left, right) = oracle.pads(mode, padding, R - 1, S - 1)
        if H + top + bottom >= R and W + left + right >= S:
            check(x, w, bias, **options)
            if pad_mode == "constant":
                check(x, w, bias, pad_value=-5, **options)


@pytest.mark.parametrize("stride", STEPS)
@pytest.mark.parametrize("dilation", STEPS)
def test_steps(stride, dilation, dtype):
    for R, S, mode in ((3, 4, "same"), (2, 3, "full"), (1, 1, "valid"), (2, 2, "valid")):
        reach_r, reach_s = ((taps - 1) * step for taps, step in zip((R, S), oracle.pair(dilation), strict=True))
        x, w, bias = arrays(C=2, H=9 + reach_r, W=75 + reach_s, K=4, R=R, S=S, dtype=dtype)
        check(x, w, bias, mode=mode, stride=stride, dilation=dilation)


@pytest.mark.parametrize("step", [3, 4, 5, 7, 8, 9, 16, 17, 33])
def test_long_steps_along_rows(step, dtype):
    """Rows are split into as many phases as a filter sees of them, in turn, by squares of vectors or value by value."""
    for S, Q in itertools.product(sorted({2, 3, step - 1, step, step + 2}), (1, 2, 7, 9, 16, 17, 35)):
        x, w, bias = arrays(C=2, H=4, W=(Q - 1) * step + S + Q % step, K=3, R=2, S=S, dtype=dtype)
        check(x, w, bias, stride=(1, step))
        check(x, w, bias, stride=(2, step), padding=((0, 1), (1, Q % 3)))


@pytest.mark.parametrize(
    ("groups", "C", "K"),
    [(2, 3, 5), (3, 1, 1), (7, 1, 1), (5, 1, 4), (2, 17, 33), (4, 2, 1), (1, 1, 1), (3, 4, 65)],
)
@pytest.mark.parametrize("N", [1, 3])
def test_groups(groups, C, K, N, dtype):
    """Depthwise and with a multiplier too, narrow and wide, where rows are read in place and where they are staged."""
    for W in (4, 20, 70):
        x, w, bias = arrays(N=N, C=C, W=W, K=K, groups=groups, dtype=dtype)
        check(x, w, bias, groups=groups)
        check(x, w, bias, groups=groups, padding=1)
        check(x, w, bias, groups=groups, stride=2, dilation=(2, 1), mode="full", operation="convolve")


def test_one_filter_of_3_x_3(dtype):
    """Tiles of six rows, and what is left of rows and columns, in place and staged, with columns that lie apart."""
    for H in (5, 6, 8, 9, 13, 15):
        for W in (3, 7, 9, 17, 33, 40, 70):
            x, w, bias = arrays(C=H % 2 + 1, H=H, W=W, K=1, R=3, S=3, dtype=dtype)
            check(x, w, bias)
            check(x, w, bias, padding=1)
            check(x, w, bias, padding=(0, 3), dilation=(1, 3))
            check(x, w, bias, padding=(5, 20), dilation=(1, 3))
            check(x, w, bias, padding=((7, 0), (0, 2)))
            check(x, w, bias, padding=((2, 0), (1, 1)), stride=(1, 2))
            check(x, w, bias, padding=1, pad_mode="edge")
            check(x, w, bias, padding=(1, 0), pad_mode="reflect")
            check(x, w, bias, padding=1, pad_value=3)
            check(x[..., ::-1, ::-1], w, bias, padding=1)
    for C, W in ((1, 530), (1, 1100), (1, 4110), (60, 530)):
        x, w, bias = arrays(C=C, H=14, W=W, K=1, R=3, S=3, dtype=dtype)
        check(x, w, bias)
        check(x, w, bias, padding=1)
    x, w, bias = arrays(N=2, C=1, H=27, W=28, K=1, R=3, S=3, groups=7, dtype=dtype)
    check(x, w, bias, padding=1, groups=7)


@pytest.mark.parametrize("C", [1, 3, 4, 5, 12])
@pytest.mark.parametrize("K", [1, 2, 3, 4])
def test_few_filters_of_1_x_1(K, C, dtype):
    """A few channels at a time: all pixels as one row, rows of their own, rows that must be staged, strips."""
    for W in (3, 4, 7, 8, 15, 16, 17, 31, 33, 70):
        x, w, bias = arrays(C=C, H=3, W=W, K=K, R=1, S=1, dtype=dtype)
        check(x, w, bias)
        check(x[..., 1:], w, bias)
        check(x, w, bias, stride=(2, 1))
        check(x, w, bias, stride=2, padding=1)
    x, w, bias = arrays(N=2, C=C, H=2, W=8205, K=K, R=1, S=1, dtype=dtype)
    exact = np.einsum("kc,nchw->nkhw", w[..., 0, 0], x) + bias[:, None, None]
    for workers in (1, 3):
        assert all(np.array_equal(y, exact) for y in results(x, w, bias=bias, workers=workers))


@pytest.mark.parametrize("K", [1, 2, 3, 7])
def test_few_filters_of_many_channels(K, dtype):
    """In parts of the channels, which go on from each other's sums: tiles that overlap must not add to any twice."""
    for W in (141, 144, 150, 159):
        x, w, bias = arrays(C=30, H=17, W=W, K=K, R=3, S=3, dtype=dtype)
        check(x, w, bias)
        check(x, w, bias, padding=1)
        check(x, w, bias, padding=((0, 2), (3, 1)), pad_mode="edge")
        check(x, w, bias, padding=(1, 2), stride=(1, 2))
        check(x, w, bias, padding=1, stride=2, dilation=(2, 1))
    x, w, bias = arrays(C=10, H=21, W=300, K=K, R=7, S=5, groups=2, dtype=dtype)
    check(x, w, bias, padding=(3, 2), groups=2)
    x, w, bias = arrays(C=64, H=4, W=10300, K=K, R=1, S=3, dtype=dtype)  # which caches don't hold
    check(x, w, bias)


def few_outputs(rng):
    """x, w, bias and options of an image of up to six outputs, drawn."""
    P, Q = rng.permuted([(1, 1), (1, 2), (2, 1), (2, 3), (1, 5), (6, 1)])[0]
    (p_step, q_step), (r_step, s_step) = rng.integers(1, 4, 2).tolist(), rng.integers(1, 3, 2).tolist()
    N, groups, padding = rng.choice([1, 1, 2, 9]), int(rng.choice([1, 1, 1, 3])), int(rng.integers(2))
    C, K, (R, S) = rng.integers(1, 60), rng.integers(1, 12), rng.integers(1, 5, 2)
    H = max(1, (P - 1) * p_step + (R - 1) * r_step + 1 - 2 * padding) + rng.integers(p_step)
    W = max(1, (Q - 1) * q_step + (S - 1) * s_step + 1 - 2 * padding) + rng.integers(q_step)
    dtype = rng.choice(["f2", "f4", "f8", "c8", "i1", "u2", "i4", "u8"])
    sizes = (N, groups * C, H, W), (groups * K, C, R, S), (groups * K,)
    x, w, bias = ((9 * rng.standard_normal(size)).astype(dtype) for size in sizes)
    if rng.random() < 0.3:
        w = w[..., ::-1, ::-1]
    options = {"stride": (p_step, q_step), "dilation": (r_step, s_step), "padding": padding, "groups": groups}
    return x, w, bias, options


def test_images_of_a_few_outputs():
    """With terms in the lanes: within the bound, and the bits of a plan, of images alone, and of channels last."""
    rng = np.random.default_rng(0)
    computed = 0
    for _ in range(300):
        x, w, bias, options = few_outputs(rng)
        exact, bound = oracle.correlate(x, w, bias, **options)
        options["bias"] = bias
        if "direct-terms" not in fastconv.Plan(w, x.shape, **options).predicted:  # too many outputs
            continue
        options["method"] = "direct-terms"
        y = fastconv.Plan(w, x.shape, **options)(x)
        assert oracle.within(y, exact, bound), options
        assert same_bits(fastconv.correlate(x, w, workers=int(rng.integers(1, 4)), **options), y)
        assert same_bits(fastconv.correlate(x[-1], w, **options), y[-1])
        last = np.ascontiguousarray(np.moveaxis(x, 1, -1))
        assert same_bits(np.moveaxis(fastconv.correlate(last, w, layout="NHWC", **options), -1, 1).copy(), y)
        computed += 1
    assert computed > 100


@pytest.mark.parametrize("images", [1, 2, 6, 7, 30])
@pytest.mark.parametrize("terms", [1, 3, 15, 16, 17, 31, 33, 64, 1000])
@pytest.mark.parametrize("K", [1, 2, 3, 4, 5, 70])
def test_a_matrix_by_vectors(terms, K, images, dtype):
    """Weights of a single call are read where they stand, to the last term and no further; NaNs stay where they are."""
    rng = np.random.default_rng(terms)
    x, memory = rng.standard_normal((images, terms, 1, 1)).astype(dtype), np.full(terms * K + 40, np.nan, dtype)
    w = memory[: terms * K].reshape(K, terms, 1, 1)
    w[:] = rng.standard_normal(w.shape)
    y = fastconv.correlate(x, w, method="direct-terms")
    assert oracle.within(y, *oracle.correlate(x, w))
    assert same_bits(y, fastconv.Plan(w, x.shape, method="direct-terms")(x))
    assert same_bits(y, fastconv.convolve(x, w, method="direct-terms"))
    w[K // 2, -1] = np.nan
    assert (np.isnan(fastconv.correlate(x, w, method="direct-terms")) == (np.arange(K) == K // 2)[:, None, None]).all()


@pytest.mark.parametrize("images", [1, 2, 6, 7])
@pytest.mark.parametrize("side", [1, 3])
def test_weights_of_a_single_call_in_any_order(side, images, dtype):
    """Flipped, and of any strides: the bits of a plan."""
    rng = np.random.default_rng(side)
    x = rng.standard_normal((images, 19, side, side)).astype(dtype)
    for order in itertools.permutations(range(4)):
        w = rng.standard_normal(np.array((9, 19, side, side))[list(order)]).astype(dtype).transpose(np.argsort(order))
        for flip in (False, True):
            y = fastconv.convolve(x, w, method="direct-terms", flip_channels=flip)
            flipped = w[:, :: -1 if flip else 1, ::-1, ::-1]
            assert oracle.within(y, *oracle.correlate(x, flipped))
            plan = fastconv.Plan(np.ascontiguousarray(flipped), x.shape, method="direct-terms")
            assert same_bits(y, plan(x))


@pytest.mark.parametrize("width", [*range(1, 42), 64, 65, 100])
def test_filters_of_one_column(width, dtype):
    """With strides: a row that is gathered has one phase, from within x or with padding beside it."""
    for R, stride, padding in itertools.product((1, 3), (1, 2, (1, 2), 3), (0, 1, ((0, 0), (5, 2)))):
        x, w, bias = arrays(C=3, H=6, W=width, K=5, R=R, S=1, dtype=dtype, seed=width)
        check(x, w, bias, stride=stride, padding=padding)


@pytest.mark.parametrize("pixels", [16, 32, 48, 64, 80, 640])
@pytest.mark.parametrize("K", [1, 7, 16])
def test_images_that_begin_within_a_line(pixels, K, dtype):
    """Panels of few 1x1 filters begin where x's lines do: wherever x does, they leave no pixel out, and add none."""
    rng = np.random.default_rng(pixels + K)
    values, w = rng.integers(-9, 10, (6, 4, pixels // 4)), rng.integers(-9, 10, (K, 6, 1, 1)).astype(dtype)
    exact = np.tensordot(w[..., 0, 0], values, 1)
    for first in range(17):
        memory, results = np.full(values.size + 40, np.nan, dtype), np.full(K * pixels + 40, np.nan, dtype)
        x, out = memory[first:][: values.size].reshape(values.shape), results[20:-20].reshape(exact.shape)
        x[:] = values
        for workers in (1, 3):
            out[:] = np.nan
            fastconv.correlate(x, w, out=out, method="direct-matrix", workers=workers)
            assert np.array_equal(out, exact), (first, workers)
        assert np.isnan(results[:20]).all()
        assert np.isnan(results[-20:]).all()


@pytest.mark.parametrize(("groups", "C", "K"), [(40, 9, 7), (19, 30, 5), (16, 65, 4), (70, 60, 1)])
def test_weights_of_groups_packed_late(groups, C, K, dtype):
    """By the tasks of a single call: the bits of a plan, by any number of workers, of any strides of the weights."""
    x, w, bias = (values / 7 for values in arrays(C=C, H=9, W=11, K=K, S=3, groups=groups, dtype=dtype))
    backwards = w[..., ::-1, ::-1].copy()
    spoiled = w.copy()
    spoiled[K, 1, 2, 0], spoiled[-1, -1, -1, -1] = np.nan, np.inf
    for options in ({}, {"bias": bias}, {"stride": 2, "padding": (1, 2), "pad_value": 3, "bias": bias}):
        options |= {"groups": groups, "method": "direct-groups"}
        y = fastconv.Plan(w, x.shape, **options)(x)
        wanted, bound = oracle.correlate(x, w, **{name: options[name] for name in options if name != "method"})
        assert (abs(y - wanted) <= bound).all()
        for workers in (1, 2, 5, 16):
            assert same_bits(fastconv.correlate(x, w, workers=workers, **options), y), (workers, options)
        assert same_bits(fastconv.correlate(x, backwards[..., ::-1, ::-1], **options), y)
        assert same_bits(fastconv.correlate(x, np.asfortranarray(w), **options), y)
        last = np.ascontiguousarray(np.moveaxis(x, 1, -1))
        assert same_bits(np.moveaxis(fastconv.correlate(last, w, layout="NHWC", **options), -1, 1).copy(), y)
        assert same_bits(fastconv.correlate(x, spoiled, **options), fastconv.Plan(spoiled, x.shape, **options)(x))
    whole = np.arange(w.size).reshape(w.shape).astype("int32")
    image = np.round(x * 100).astype("int32")
    options = {"groups": groups, "method": "direct-groups"}
    y = fastconv.Plan(whole, x.shape, dtype="int32", **options)(image)
    assert same_bits(fastconv.correlate(image, whole, **options), y)


# Sizes about the tiles: up to 14 pixels, of one to three rows, or 6 rows, vectors of 2 to 16 lanes, blocks of 400
# pixels, strips of 512 staged columns.

SIZES = (*range(1, 20), *range(31, 35), 47, 48, 49, 64, 65)
EDGES = {
    "Q": [{"W": size, "H": 4} for size in SIZES],
    "P": [{"H": size, "W": 19} for size in range(1, 30)],
    "short rows": [{"H": height, "W": width, "K": 20} for height in range(3, 12) for width in range(2, 7)],
    "K": [{"K": size, "W": 9} for size in SIZES],
    "C": [{"C": size, "W": 9} for size in (1, 2, 3, 5, 8, 17, 40)],
    "S": [{"S": size, "W": 33, "H": 3} for size in (1, 2, 4, 7, 12, 19)],
    "R": [{"R": size, "H": 14} for size in (1, 2, 4, 5, 6, 7, 8, 14)],
    "blocks": [{"W": size, "H": 3, "C": 1, "K": 3} for size in (399, 400, 401, 511, 512, 513, 801, 1023, 1024, 1025)],
    "terms": [{"C": size, "W": 8, "H": 4, "K": 3, "R": 3, "S": 3} for size in (56, 57, 128, 129, 257, 500)],
}
WAYS = {
    "padded": {"padding": ((1, 2), (2, 1))},
    "stride 2": {"mode": "full", "stride": 2},
    "stride 3": {"mode": "full", "stride": (2, 3)},
    "dilated": {"mode": "full", "dilation": (2, 3)},
    "stride and dilation": {"mode": "same", "stride": 2, "dilation": 3},
    "grouped": {"mode": "same", "groups": 2},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("edge", EDGES)
def test_edges(edge, way, dtype):
    for sizes in EDGES[edge]:
        options = WAYS[way]
        x, w, bias = arrays(**({"C": 2, "K": 5, "H": 6} | sizes), groups=options.get("groups", 1), dtype=dtype)
        if way == "padded" and (x.shape[2] + 3 < w.shape[2] or x.shape[3] + 3 < w.shape[3]):
            continue
        check(x, w, bias, **options)


@pytest.mark.parametrize("pad_mode", ["wrap", "reflect", "constant"])
def test_padding_that_repeats_columns_no_output_sees(pad_mode, dtype):
    """The stride ends before the last columns of x, which padding before the first ones is copied from."""
    for left, W, Q in itertools.product((1, 2, 5), (6, 10, 21), (1, 2)):
        S = 1 + left + W - 2 - (Q - 1) * 4  # of left + W columns, the last one isn't seen
        if S > 0:
            x, w, bias = arrays(C=1, H=5, W=W, K=2, R=3, S=S, groups=19, dtype=dtype)
            check(x, w, bias, groups=19, stride=(1, 4), padding=((0, 0), (left, 0)), pad_mode=pad_mode)


def test_images_without_pixels(dtype):
    """There is nothing to pad with but a pad value."""
    x, w, bias = arrays(H=0, dtype=dtype)
    check(x, w, bias, mode="full", pad_value=3)
    with pytest.raises(ValueError, match="expected pixels to pad with"):
        fastconv.correlate(x, w, mode="full", pad_mode="edge")


# Against SciPy, which has some of it.


def total_of_planes(sum2d, x, w, **options):
    return np.stack([sum(sum2d(x[0, c], filter_[c], **options) for c in range(len(filter_))) for filter_ in w])


FILTERS = pytest.mark.parametrize(("R", "S"), [(1, 1), (2, 2), (3, 3), (2, 3), (4, 1), (5, 6)])


@FILTERS
@OPERATIONS
@pytest.mark.parametrize("mode", ["valid", "same", "full"])
def test_modes_are_those_of_scipy(mode, operation, R, S):
    """Of scipy.signal.correlate and convolve in two dimensions, for even filters too."""
    x, w, _ = arrays(R=R, S=S)
    theirs = total_of_planes(getattr(scipy.signal, operation), x, w, mode=mode, method="direct")
    assert np.array_equal(getattr(fastconv, operation)(x[0], w, mode=mode), theirs)


BOUNDARIES = pytest.mark.parametrize(
    ("pad_mode", "boundary"), [("constant", "fill"), ("wrap", "wrap"), ("symmetric", "symm")]
)


@FILTERS
@OPERATIONS
@BOUNDARIES
def test_boundaries_are_those_of_scipy(pad_mode, boundary, operation, R, S):
    x, w, _ = arrays(R=R, S=S)
    value = 4 if pad_mode == "constant" else 0
    sum2d = getattr(scipy.signal, operation + "2d")
    theirs = total_of_planes(sum2d, x, w, mode="full", boundary=boundary, fillvalue=value)
    y = getattr(fastconv, operation)(x[0], w, mode="full", pad_mode=pad_mode, pad_value=value)
    assert np.array_equal(y, theirs)


@FILTERS
@BOUNDARIES
def test_same_of_correlate2d_is_a_padding(pad_mode, boundary, R, S):
    """Its "same" begins a pixel later for even filters; convolve2d's is ours."""
    x, w, _ = arrays(R=R, S=S)
    theirs = total_of_planes(scipy.signal.correlate2d, x, w, mode="same", boundary=boundary)
    padding = ((R - 1) // 2, R // 2), ((S - 1) // 2, S // 2)
    assert np.array_equal(fastconv.correlate(x[0], w, padding=padding, pad_mode=pad_mode), theirs)
    theirs = total_of_planes(scipy.signal.convolve2d, x, w, mode="same", boundary=boundary)
    assert np.array_equal(fastconv.convolve(x[0], w, mode="same", pad_mode=pad_mode), theirs)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_padding_same_of_torch():
    torch = pytest.importorskip("torch")
    for R, S, dilation in ((3, 3, 1), (2, 4, 1), (2, 3, 3), (1, 6, 2)):
        x, w, _ = arrays(R=R, S=S)
        theirs = torch.nn.functional.conv2d(
            torch.from_numpy(x), torch.from_numpy(w), padding="same", dilation=dilation
        ).numpy()
        reach_r, reach_s = (R - 1) * dilation, (S - 1) * dilation
        padding = (reach_r // 2, reach_r - reach_r // 2), (reach_s // 2, reach_s - reach_s // 2)
        assert np.array_equal(fastconv.correlate(x, w, padding=padding, dilation=dilation), theirs)


# What each option means in terms of the others. Bits are compared, of real values.


def reals(seed=0, *, N=2, C=3, H=12, W=45, K=6, R=3, S=4, groups=1):
    rng = np.random.default_rng(seed)
    sizes = (N, groups * C, H, W), (groups * K, C, R, S), (groups * K,)
    return [rng.standard_normal(size).astype("float32") for size in sizes]


@pytest.mark.parametrize("method", KERNELS)
@pytest.mark.parametrize("stride", STEPS)
def test_stride_leaves_out_results(stride, method):
    x, w, bias = reals(W=290, H=40)
    p_step, q_step = oracle.pair(stride)
    options = {"bias": bias, "mode": "same", "dilation": (2, 1), "method": method}
    every = fastconv.correlate(x, w, **options)
    if method == "direct-pixels" and q_step > 17:
        options["method"] = "direct-filters"
    y = fastconv.correlate(x, w, stride=stride, **options)
    assert same_bits(y, np.ascontiguousarray(every[:, :, ::p_step, ::q_step]))


@pytest.mark.parametrize("method", KERNELS)
@pytest.mark.parametrize("dilation", STEPS[:-1])
def test_dilation_is_a_filter_with_zeros_between(dilation, method):
    """Zeros change no bits of a sum of finite values, which begins at the bias."""
    r_step, s_step = oracle.pair(dilation)
    x, w, bias = reals(H=2 * r_step + 9, W=3 * s_step + 40)
    spread = np.zeros((*w.shape[:2], 2 * r_step + 1, 3 * s_step + 1), w.dtype)
    spread[:, :, ::r_step, ::s_step] = w
    for options in ({}, {"stride": 2}, {"mode": "same"}, {"padding": (1, 2), "pad_mode": "wrap"}):
        y = fastconv.correlate(x, w, bias=bias, dilation=dilation, method=method, **options)
        assert same_bits(y, fastconv.correlate(x, spread, bias=bias, method=method, **options)), options


@pytest.mark.parametrize("method", KERNELS)
def test_groups_are_correlations_side_by_side(method):
    for options in ({}, {"stride": 2}, {"mode": "full", "dilation": 2}, {"padding": 3, "pad_mode": "reflect"}):
        for groups in (1, 2, 5):
            x, w, bias = reals(groups=groups)
            alone = [
                fastconv.correlate(*parts[:2], bias=parts[2], method=method, **options)
                for parts in zip(np.split(x, groups, 1), np.split(w, groups), np.split(bias, groups), strict=True)
            ]
            y = fastconv.correlate(x, w, bias=bias, groups=groups, method=method, **options)
            assert same_bits(y, np.concatenate(alone, axis=1))


@pytest.mark.parametrize("method", KERNELS)
@pytest.mark.parametrize("pad_mode", PAD_MODES)
def test_padding_is_a_larger_image(pad_mode, method):
    x, w, bias = reals()
    for (top, bottom), (left, right) in (((1, 2), (3, 0)), ((25, 0), (0, 100)), ((0, 0), (1, 1))):
        for value in (0, 2.5) if pad_mode == "constant" else (0,):
            constants = {"constant_values": value} if pad_mode == "constant" else {}
            padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), pad_mode, **constants)
            for options in ({}, {"stride": 2}, {"dilation": 3}):
                options |= {"bias": bias, "method": method}
                padding = {"padding": ((top, bottom), (left, right)), "pad_mode": pad_mode, "pad_value": value}
                y = fastconv.correlate(x, w, **padding, **options)
                assert same_bits(y, fastconv.correlate(padded, w, **options))


@pytest.mark.parametrize("method", KERNELS)
def test_same_is_a_slice_of_full(method):
    for R, S, dilation in itertools.product((1, 2, 3, 4), (2, 3), (1, 2, 3)):
        x, w, bias = reals(R=R, S=S)
        options = {"bias": bias, "dilation": dilation, "method": method}
        top, left = (R - 1) * dilation // 2, (S - 1) * dilation // 2
        for operation in (fastconv.correlate, fastconv.convolve):
            full = operation(x, w, mode="full", **options)
            middle = np.ascontiguousarray(full[:, :, top : top + x.shape[2], left : left + x.shape[3]])
            assert same_bits(operation(x, w, mode="same", **options), middle)


@pytest.mark.parametrize("mode", ["valid", "same", "full"])
@pytest.mark.parametrize("method", KERNELS)
def test_convolution_is_correlation_with_reversed_filters(mode, method):
    for geometry in ({}, {"stride": 2}, {"dilation": (2, 3)}, {"groups": 3}, {"pad_mode": "wrap"}):
        x, w, bias = reals(groups=geometry.get("groups", 1))
        options = {"bias": bias, "mode": mode, "method": method} | geometry
        y = fastconv.convolve(x, w, **options)
        assert same_bits(y, fastconv.correlate(x, w[..., ::-1, ::-1], **options))
        y = fastconv.convolve(x, w, flip_channels=True, **options)
        assert same_bits(y, fastconv.correlate(x, w[:, ::-1, ::-1, ::-1], **options))


@pytest.mark.parametrize("R", [3, 5])
def test_flipping_both_flips_the_result(R):
    """In every mode, and with any padding of the same kind on all sides; "same" has a middle for odd filters only."""
    x, w, _ = arrays(R=R, S=R)
    turned = x[..., ::-1, ::-1], w[..., ::-1, ::-1]
    for mode, padding in (("valid", 0), ("same", 0), ("full", 0), ("valid", (2, 3))):
        for pad_mode in PAD_MODES:
            options = {"mode": mode, "padding": padding, "pad_mode": pad_mode}
            y = fastconv.correlate(x, w, **options)
            assert np.array_equal(fastconv.correlate(*turned, **options), y[..., ::-1, ::-1])


# NaN and Inf.


@pytest.mark.parametrize("method", KERNELS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("pad_mode", PAD_MODES)
def test_non_finite_pixels_reach_the_outputs_that_cover_them(pad_mode, value, method):
    """Those that a pixel of ones with weights of ones reaches; elsewhere the bits stay."""
    geometries = [
        {"padding": 2},
        {"mode": "full", "stride": 2},
        {"mode": "same", "dilation": 3},
        {"padding": ((0, 5), (9, 1)), "stride": (1, 2), "dilation": (2, 1)},
    ]
    for number, geometry in enumerate(geometries):
        x, w, bias = reals(groups=2, C=2, K=3)
        w[2] = 0  # zero times Inf is NaN, and isn't left out
        options = geometry | {"pad_mode": pad_mode, "groups": 2, "method": method}
        clean = fastconv.correlate(x, w, bias=bias, **options)
        rng = np.random.default_rng(number)
        for place in [(0, 0, 0, 0), (1, 3, 11, 44), *(tuple(rng.integers(x.shape)) for _ in range(3))]:
            spot = np.zeros(x.shape, int)
            spot[place] = 1
            covered = oracle.correlate(spot, np.ones(w.shape, int), **geometry, pad_mode=pad_mode, groups=2)[0] != 0
            spoiled = x.copy()
            spoiled[place] = value
            y = fastconv.correlate(spoiled, w, bias=bias, **options)
            assert np.array_equal(~np.isfinite(y), covered)
            assert same_bits(y[~covered], clean[~covered])


@pytest.mark.parametrize("method", KERNELS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_weights_and_pad_values(value, method):
    """A weight reaches its filter's outputs; a pad value, those whose window goes beyond the image."""
    x, w, bias = reals(groups=2)
    options = {"bias": bias, "padding": 2, "stride": 2, "groups": 2, "method": method}
    clean = fastconv.correlate(x, w, pad_value=3, **options)
    spoiled = w.copy()
    spoiled[7, 1, 2, 3] = value
    y = fastconv.correlate(x, spoiled, pad_value=3, **options)
    assert not np.isfinite(y[:, 7]).any()
    assert same_bits(np.delete(y, 7, axis=1), np.delete(clean, 7, axis=1))
    y = fastconv.correlate(x, w, pad_value=value, **options)
    nowhere, everywhere = np.zeros(x.shape, int), np.ones(w.shape, int)
    beyond = oracle.correlate(nowhere, everywhere, padding=2, stride=2, groups=2, pad_value=1)[0] > 0
    assert np.array_equal(~np.isfinite(y), beyond)
    assert same_bits(y[~beyond], clean[~beyond])


@pytest.mark.parametrize("method", METHODS)
def test_steps_that_are_never_taken(method):
    """However large they are, nothing is done for them. Not timed: each took years."""
    x = np.arange(2 * 3 * 40.0, dtype=np.float32).reshape(2, 3, 40)
    w = np.ones((4, 2, 1, 1) if method == "direct-matrix" else (4, 2, 3, 40), np.float32)
    huge = (2**32, 2**55)
    for options in ({"stride": huge}, {"mode": "full", "stride": huge}, {"mode": "full", "stride": huge[::-1]}):
        try:
            y = fastconv.correlate(x, w, method=method, **options)
        except ValueError as error:
            assert "can't compute" in str(error)  # noqa: PT017
            continue
        plain = {name: value for name, value in options.items() if name == "mode"}
        assert np.array_equal(y, fastconv.correlate(x, w, method="direct", **plain)[:, :1, :1])
    w = w[..., :1, :1]
    assert np.array_equal(fastconv.correlate(x, w, dilation=huge), fastconv.correlate(x, w))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("method", METHODS)
def test_dilation_wider_than_the_image(method, layout):
    """Rows and columns that no value of a filter meets aren't gathered: with 2^15 in a row it took minutes."""
    x = np.arange(2 * 3 * 40).reshape(2, 3, 40) % 17 - 8
    w = np.arange(6 * 2 * 3 * 2).reshape(6, 2, 3, 2) % 11 - 5
    bias = np.arange(6)
    for dilation in ((40, 1), (1, 500), (30, 450), (2**15, 1), (1, 2**15)):
        for stride in ((1, 1), (3, 2)):
            geometry = {"bias": bias, "dilation": dilation, "stride": stride, "mode": "full"}
            try:
                plan = fastconv.Plan(
                    w.astype(np.float32),
                    (2, 3, 40) if layout == "NCHW" else (3, 40, 2),
                    layout=layout,
                    method=method,
                    **geometry | {"bias": bias.astype(np.float32)},
                )
            except ValueError as error:
                assert "can't compute" in str(error)  # noqa: PT017
                continue
            ours = plan((x if layout == "NCHW" else np.moveaxis(x, 0, 2)).astype(np.float32))
            # Each value of a filter meets an image's worth of outputs, all others' sums are zero.
            full = np.zeros((6, 3 + 2 * dilation[0], 40 + dilation[1]))
            for r, s in itertools.product(range(3), range(2)):
                top, left = (2 - r) * dilation[0], (1 - s) * dilation[1]
                full[:, top : top + 3, left : left + 40] += np.einsum("kc,chw->khw", w[:, :, r, s], x)
            exact = full[:, :: stride[0], :: stride[1]] + bias[:, None, None]
            assert np.array_equal(ours if layout == "NCHW" else np.moveaxis(ours, 2, 0), exact)


def test_a_step_that_leaves_one_output():
    """Also where a problem is computed as another: complex numbers, and images too wide for a plan's short integers."""
    x = np.arange(2 * 4 * 5).reshape(2, 4, 5)
    w = np.arange(6 * 2 * 3 * 3).reshape(6, 2, 3, 3)
    exact = oracle.correlate(x[None], w, stride=3)[0][0]
    assert exact.shape == (6, 1, 1)
    for dtype in ("float32", "float64", "int64", "complex64", "complex128"):
        for method in ("auto", "direct"):
            assert np.array_equal(fastconv.correlate(x.astype(dtype), w.astype(dtype), stride=3, method=method), exact)
    plan = fastconv.Plan(w.astype(np.int8), x.shape, stride=3, dtype=np.int32)
    assert np.array_equal(plan(x.astype(np.uint8)), exact)
    assert np.array_equal(plan(x.astype(np.int32)), exact)


@pytest.mark.parametrize(
    "sizes", [{"R": 1, "S": 1}, {"R": 1, "S": 2}, {"R": 3, "S": 3}, {"R": 1, "S": 1, "groups": 2}], ids=str
)
def test_a_step_that_leaves_one_column(sizes, dtype):
    """Of wider images, whose rows then follow each other in the result but not in x; and that leaves one row.

    And of an image of one column, of whose padding it leaves one: a column all the same.
    """
    for H, (W, padding) in itertools.product((5, 20, 40, 70), ((7, 0), (1, 3), (1, 9))):
        x, w, bias = arrays(C=3, K=5, H=H, W=W, **sizes, dtype=dtype)
        check(x, w, bias, stride=(1, 20 if padding else 7), padding=(0, padding), groups=sizes.get("groups", 1))
        x, w = np.ascontiguousarray(np.swapaxes(x, 2, 3)), np.swapaxes(w, 2, 3)
        check(x, w, bias, stride=(20 if padding else 7, 1), padding=(padding, 0), groups=sizes.get("groups", 1))
