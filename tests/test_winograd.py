"""Winograd's method: within the norm-wise bound on what is worst for it; what isn't finite stays where it belongs."""

import base64
import itertools

import numpy as np
import oracle
import pytest
from cases import DTYPES, VECTOR_BYTES, same_bits, shape

import fastconv

# Channels, rows and columns of filters, and strides, with 144 terms or more: filters of one patch, of several, and with
# a patch that is cut short. And of one row.
FILTERS = (
    *((16, 3, 3, 1), (6, 5, 5, 1), (40, 3, 3, 1), (3, 7, 7, 2)),
    *((17, 5, 5, 1), (9, 4, 5, 1), (36, 2, 2, 1), (2, 9, 8, 2)),
    *((48, 1, 3, 1), (16, 1, 9, 1), (17, 1, 9, 2), (29, 1, 5, 1)),
)
RNG = np.random.default_rng
SEEDS = (588, 2392, 2711, *range(15))


def alike(shape, dtype, seed=0):
    """x, w and bias of either sign and of much the same magnitude: others may well be computed directly."""
    rng = RNG(seed)
    sizes = (shape.N, shape.C, shape.H, shape.W), shape.w, (shape.K,)
    return [(rng.choice([-1, 1], size) * rng.uniform(0.5, 1.5, size)).astype(dtype) for size in sizes]


def winograd(x, w, bias=None, **options):
    return fastconv.correlate(x, w, bias=bias, method="winograd", **options)


def check(y, exact, bound, *what):
    assert y.shape == exact.shape
    assert oracle.within(y, exact, oracle.largest(bound)), what


def check_case(case, dtype, workers=1):
    x, w, bias = alike(case, dtype)
    for addend in (None, bias):
        y = winograd(x, w, addend, stride=case.stride, workers=workers)
        check(y, *oracle.correlate(x, w, addend, stride=case.stride), case)
    assert not same_bits(y, fastconv.correlate(x, w, bias=bias, stride=case.stride, method="direct-filters"))


@pytest.mark.parametrize(("C", "R", "S", "stride"), FILTERS)
def test_every_edge_of_a_tile(C, R, S, stride, dtype):
    """Tiles of y are 4 x 4; vectors hold up to 16 columns of x, and of y."""
    few = {"C": C, "R": R, "S": S, "stride": stride}
    for P, Q in itertools.product(range(R, R + 5), range(S, S + 5)):
        check_case(shape(**few, K=3, P=P, Q=Q), dtype)
    for Q in (15, 16, 17, 31, 32, 33, 59, 60, 61, 63, 64, 65, 67, 125, 129):
        check_case(shape(**few, K=2, P=R, Q=Q), dtype)


@pytest.mark.parametrize(("C", "R", "S"), [(16, 3, 3), (6, 5, 5), (48, 1, 3)])
def test_every_number_of_filters(C, R, S, isa, dtype):
    """Up to two panels and one."""
    panel = 2 * VECTOR_BYTES[isa] // np.dtype(dtype).itemsize
    for K in range(1, 2 * panel + 2):
        check_case(shape(C=C, K=K, R=R, S=S, P=5, Q=6), dtype)


def test_every_number_of_terms(isa, dtype):
    """Up to two vectors of them and one, of one patch and of six."""
    lanes = VECTOR_BYTES[isa] // np.dtype(dtype).itemsize
    for C in range(16, 16 + 2 * lanes + 2):
        check_case(shape(C=C, K=2, R=3, S=3, P=5, Q=6), dtype)
        check_case(shape(C=C, K=2, R=1, S=9, P=2, Q=9), dtype)
    for C in range(4, 4 + lanes // 2):
        check_case(shape(C=C, K=2, R=5, S=8, P=9, Q=10), dtype)


def test_blocks(dtype):
    """More tiles than a block has, down and across, and wider than one block."""
    for P, Q in ((70, 9), (9, 70), (41, 67), (5, 530)):
        check_case(shape(N=2, C=16, K=9, R=3, S=3, P=P, Q=Q), dtype)
        check_case(shape(C=16, K=9, R=3, S=3, P=P, Q=Q), dtype, workers=3)
    check_case(shape(C=300, K=70, R=3, S=3, P=14, Q=14), dtype, workers=2)
    for Q in range(2, 19):      # wider than a vector, and narrower
        check_case(shape(C=36, K=9, R=2, S=2, P=130, Q=Q), dtype)
        check_case(shape(C=48, K=9, R=1, S=3, P=130, Q=Q + 1), dtype)
    for P, Q in ((1, 1500), (90, 9), (3, 700)):
        check_case(shape(N=2, C=48, K=9, R=1, S=3, P=P, Q=Q), dtype)
        check_case(shape(C=48, K=70, R=1, S=3, P=P, Q=Q), dtype, workers=3)


def many_filters(C, R, S, dtype):
    """So many that a small image is cut into small tiles, as weights of large ones would be more than 8 MiB."""
    return (8 << 20) // (C * R * S * (2 if R == 1 else 4) * np.dtype(dtype).itemsize) + 1


@pytest.mark.parametrize(("C", "R", "S", "stride"), FILTERS)
def test_small_tiles(C, R, S, stride, dtype):
    """At every edge of one, and with what isn't finite."""
    K = many_filters(C, R, S, dtype)
    rng = RNG(0)
    for P, Q in ((R, S), (R + 1, S), (R, S + 1)):
        case = shape(C=C, K=K, R=R, S=S, P=P, Q=Q, stride=stride)
        x, w, bias = alike(case, dtype)
        exact, bound = oracle.correlate(x, w, bias, stride=stride)
        y = winograd(x, w, bias, stride=stride)
        check(y, exact, bound, case)
        assert not same_bits(y, fastconv.correlate(x, w, bias=bias, stride=stride, method="direct-filters"))
        x[tuple(rng.integers(x.shape))] = np.nan
        spoiled = winograd(x, w, bias, stride=stride, workers=3)
        direct = fastconv.correlate(x, w, bias=bias, stride=stride, method="direct-filters")
        finite = np.isfinite(direct)
        assert np.array_equal(np.isfinite(spoiled), finite)
        assert (abs(spoiled - exact)[finite] <= bound.max()).all(), case


@pytest.mark.parametrize(("C", "R", "S", "stride"), [FILTERS[0], FILTERS[6], FILTERS[8]])
def test_small_tiles_save_memory(C, R, S, stride, dtype):
    """The same bits then by any number of workers, in a batch or alone, and packed by a plan or a single call."""
    case = shape(N=2, C=C, K=many_filters(C, R, S, dtype), R=R, S=S, P=R, Q=S + 1, stride=stride)
    x, w, bias = alike(case, dtype)
    plan = fastconv.Plan(w, x.shape, bias=bias, method="winograd", stride=stride)
    large = fastconv.Plan(w, (C, 99, 99), bias=bias, method="winograd", stride=stride)
    assert plan.packed_bytes < 0.9 * large.packed_bytes
    y = plan(x)
    for workers in (2, 3, 16):
        assert same_bits(winograd(x, w, bias, stride=stride, workers=workers), y), workers
    for image, alone in zip(x, y, strict=True):
        assert same_bits(winograd(image, w, bias, stride=stride, workers=2), alone)
    last = winograd(np.moveaxis(x, 1, -1), w, bias, stride=stride, layout="NHWC")
    assert same_bits(np.moveaxis(last, -1, 1).copy(), y)


@pytest.mark.parametrize("K", [16, 128])
@pytest.mark.parametrize("P", [3, 4])
def test_small_tiles_shared_by_workers(P, K, dtype):
    """More of them than there are panels of filters: pieces of rows that are narrower than a vector."""
    C = (8 << 20) // (K * 9 * 4 * np.dtype(dtype).itemsize) + 1
    for Q in (13, 16, 30):
        x, w, bias = alike(shape(N=2, C=C, K=K, R=3, S=3, P=P, Q=Q), dtype)
        plan = fastconv.Plan(w, x.shape, bias=bias, method="winograd", workers=1)
        y = plan(x)
        if Q == 13:
            check(y, *oracle.correlate(x, w, bias), Q)
        for workers in (2, 9):
            out = np.full(y.shape, np.nan, dtype)
            fastconv.Plan(w, x.shape, bias=bias, method="winograd", workers=workers)(x, out=out)
            assert same_bits(out, y), (Q, workers)


def test_worst_inputs_of_small_tiles(dtype):
    """Which lose less than large ones do."""
    for C, R, S in ((16, 3, 3), (6, 5, 5), (48, 1, 3)):
        K = many_filters(C, R, S, dtype)
        for image, filters in itertools.product((normal, alternating, of_one_channel(positive)), (normal, rim)):
            rng = RNG(3)
            x, w = image(rng, (1, C, R + 4, S + 4)).astype(dtype), filters(rng, (K, C, R, S)).astype(dtype)
            check(winograd(x, w), *oracle.correlate(x, w), image.__name__, filters.__name__)
        x[..., 0, 0] = x[..., -1, -1] = 1e9     # what no valid output sees
        w[..., 0, 0] = w[..., -1, -1] = 0
        check(winograd(x, w), *oracle.correlate(x, w), R, S)


def test_rows_shared_by_workers(dtype):
    """In pieces as narrow as they get, and by panels where weights are many: all is written, and the same."""
    for Q, K in itertools.product((25, 29, 57, 61, 113), (3, 220)):
        x, w, bias = alike(shape(C=64, K=K, R=1, S=3, P=1, Q=Q), dtype)
        y = winograd(x, w, bias, workers=1)
        for workers in (2, 3, 7, 16):
            out = np.full(y.shape, np.nan, dtype)
            assert same_bits(winograd(x, w, bias, workers=workers, out=out), y), (Q, K, workers)


def test_images_without_pixels(dtype):
    """All that filters see is padding."""
    for size in ((16, 0, 9), (16, 9, 0), (16, 0, 0)):
        for options in ({"padding": 4}, {"padding": 4, "pad_value": 2.0}):
            x, w = np.ones(size, dtype), RNG(0).standard_normal((3, 16, 3, 3)).astype(dtype)
            check(winograd(x, w, **options)[None], *oracle.correlate(x[None], w, **options), size)


GEOMETRIES = (
    {"padding": 1},
    {"padding": ((2, 1), (0, 3)), "pad_value": -2.5},
    {"mode": "same"},
    {"mode": "full", "pad_mode": "wrap"},
    {"padding": (3, 4), "pad_mode": "reflect"},
    {"padding": 2, "pad_mode": "symmetric", "groups": 2},
    {"groups": 3},
    {"stride": 2},
    {"stride": (1, 2), "padding": ((3, 2), (1, 4)), "groups": 2},
    {"stride": (2, 1), "padding": 2, "pad_mode": "reflect"},
    {"stride": 2, "padding": 3, "pad_value": 1.5},
)


@pytest.mark.parametrize("options", GEOMETRIES, ids=str)
@pytest.mark.parametrize(("C", "R", "S"), [(64, 3, 3), (17, 5, 5), (9, 6, 8), (17, 1, 9)])
def test_geometry(options, C, R, S, dtype):
    groups = options.get("groups", 1)
    rng = RNG(0)
    x = rng.standard_normal((2, groups * C, 17, 34)).astype(dtype)
    w = rng.standard_normal((groups * 5, C, R, S)).astype(dtype)
    bias = rng.standard_normal(groups * 5).astype(dtype)
    exact, bound = oracle.correlate(x, w, bias, **options)
    check(winograd(x, w, bias, **options), exact, bound)
    channels_last = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    y = winograd(channels_last, w, bias, layout="NHWC", **options)
    check(np.moveaxis(y, -1, 1), exact, bound)
    flipped = fastconv.convolve(x, w[..., ::-1, ::-1], bias=bias, method="winograd", **options)
    assert same_bits(flipped, winograd(x, w, bias, **options))


def alternating(rng, size):
    """Signs like a chessboard's: of the highest frequency."""
    return (-1.0) ** np.add.outer(np.arange(size[-2]), np.arange(size[-1])) * (1 + 0.4 * rng.random(size))


def of_one_channel(values):
    """All channels alike, so that the errors of all of them add up."""
    return lambda rng, size: np.repeat(values(rng, (size[0], 1, *size[2:])), size[1], axis=1)


def normal(rng, size):
    return rng.standard_normal(size)


def positive(rng, size):
    return 1 + rng.random(size) / 2


def spikes(rng, size):
    return np.where(rng.random(size) < 0.02, rng.standard_normal(size), 0)


def decades(rng, size):
    return rng.standard_normal(size) * 10.0 ** rng.uniform(-6, 6, size)


def rim(rng, size):
    """Zeros within: the transforms weigh the outer rows and columns most."""
    w = rng.standard_normal(size)
    w[..., 1:-1 if size[-2] > 1 else None, 1:-1] = 0
    return w


IMAGES = (normal, positive, spikes, decades, alternating, *map(of_one_channel, (normal, positive, spikes, alternating)))


@pytest.mark.parametrize(("C", "R", "S", "stride"), FILTERS)
def test_worst_inputs_within_the_bound(C, R, S, stride, dtype):
    """Also where there are as few terms as the method takes."""
    for image, filters in itertools.product(IMAGES, (normal, positive, rim, decades, of_one_channel(normal))):
        rng = RNG(3)
        x, w = image(rng, (1, C, 25 * stride, 33 * stride)).astype(dtype), filters(rng, (6, C, R, S)).astype(dtype)
        exact, bound = oracle.correlate(x, w, stride=stride)
        check(winograd(x, w, stride=stride), exact, bound, image.__name__, filters.__name__)


@pytest.mark.parametrize("padding", [0, 1])
def test_large_pixels_that_small_weights_meet(padding, dtype):
    """At each corner and edge, where the sums' bound doesn't know of them: computed directly."""
    for P, Q, R, S, C, stride in (
        *((8, 8, 3, 3, 40, 1), (9, 9, 3, 3, 40, 1), (10, 10, 5, 5, 17, 1), (11, 11, 5, 5, 17, 1), (7, 7, 7, 7, 10, 1)),
        *((8, 8, 7, 7, 10, 2), (3, 8, 1, 3, 48, 1), (3, 9, 1, 3, 48, 1), (3, 11, 1, 9, 16, 1)),
    ):
        H, W = (P - 1) * stride + R, (Q - 1) * stride + S
        for i, j in itertools.product({0, 1, R - 1, H - R, H - 2, H - 1}, {0, 1, S - 1, W - S, W - 2, W - 1}):
            rng = RNG(i + 100 * j)
            x, w = rng.standard_normal((1, C, H, W)), rng.standard_normal((8, C, R, S))
            x[..., i, j] = 1e9
            for r, s in np.ndindex(R, S):
                (p, row), (q, column) = divmod(i - r, stride), divmod(j - s, stride)
                if row == column == 0 and padding <= p < P - padding and padding <= q < Q - padding:
                    w[:, :, r, s] = 0       # valid outputs, of whatever is near the edge, don't see the spike
            x, w = x.astype(dtype), w.astype(dtype)
            for options in ({"stride": stride}, {"stride": stride, "padding": 1 if R > 1 else (0, 1)}):
                check(winograd(x, w, **options), *oracle.correlate(x, w, **options), P, R, i, j, options)


FEW_TERMS = ((16, 3, 3), (6, 5, 5), (3, 7, 7), (40, 3, 3), (48, 1, 3), (144, 1, 3), (16, 1, 9), (29, 1, 5))


def smaller_weights(C, R, S, share, seed):
    """x with large pixels in a corner or along an edge, and w of which these meet the smaller part; channels alike."""
    rng = RNG(seed)
    P, Q = R + rng.integers(6), S + rng.integers(7)
    H, W = P + R - 1, Q + S - 1
    i = rng.choice([0, 1, R - 1, P - 1, H - 2, H - 1]) if R > 1 and seed % 2 else slice(None)
    j = rng.choice([0, 1, S - 1, Q - 1, W - 2, W - 1])
    w = rng.uniform(1, rng.choice([1.01, 1.3]), (4, 1, R, S)) * rng.choice([-1, 1], (4, 1, R, S))
    w *= 1.3 / abs(w).max(0, keepdims=True)
    met = [r for r in range(R) if i == slice(None) or 0 <= i - r < P], [s for s in range(S) if 0 <= j - s < Q]
    w[np.ix_(range(4), [0], *met)] *= share
    x = rng.uniform(0.5, 1, (1, 1, H, W))
    if share > 0.5 or seed % 3 == 0:
        x *= 10.0 ** rng.uniform(-3, 0)
        x[..., i, j] = 1 + rng.random(x[..., i, j].shape)
    else:
        x[..., i, j] = 10.0 ** rng.uniform(-1.5, 0.2) * x.mean() * abs(w).sum((1, 2, 3)).mean() / abs(w).max()
    return np.repeat(x, C, 1), np.repeat(w, C, 1)


@pytest.mark.parametrize(("C", "R", "S"), FEW_TERMS)
@pytest.mark.parametrize("share", [0.5001, 0.2501, 1e-4])
def test_large_pixels_that_smaller_weights_meet(C, R, S, share, dtype):
    """Of images that aren't looked at, as what they meet is large enough, and of others, some of which just pass."""
    trusted = 0
    for seed in SEEDS:
        x, w = (values.astype(dtype) for values in smaller_weights(C, R, S, share, seed))
        y = winograd(x, w)
        check(y, *oracle.correlate(x, w), seed)
        trusted += not same_bits(y, fastconv.correlate(x, w, method="direct-filters"))
    assert trusted > 3


@pytest.mark.parametrize(("C", "R", "S"), FEW_TERMS)
def test_single_pixels_and_channels_that_are_alike(C, R, S, dtype):
    """All roundings of a chain have the same sign then, wherever its points are largest."""
    rng = RNG(0)
    x, w = np.zeros((16, 1, R + 9, S + 9)), rng.uniform(0.7, 1, (64, 1, R, S)) * rng.choice([-1, 1], (64, 1, R, S))
    for _ in range(2):
        x[range(16), 0, rng.integers(R - 1, 10, 16), rng.integers(S - 1, 10, 16)] = rng.uniform(1, 2, 16)
    x, w = np.repeat(x, C, 1).astype(dtype), np.repeat(w, C, 1).astype(dtype)
    y = winograd(x, w)
    exact, bound = oracle.correlate(x, w)
    for n, k in itertools.product(range(16), range(64)):
        check(y[n, k], exact[n, k], bound[n, k], n, k)


# An image of 18 x 7 and two filters of 3 x 3 that hill climbing has found, for 16 channels that are all alike: many
# large pixels of either sign, each of which could disturb sums by 2.8 mean sums of magnitudes. Errors reach 1.7 times
# the bound where such an image is trusted.
DISTURBING = (
    "3RCLP+6lgD+XoYE/YItoP96bUT8AAIjABr92wNUcfz9bZHE/eHx1P2T3gz9Dsns/jr94wAAAiMDP4Wc/UJ2GPweIhj8M5m8/64x5P4iqXcDDRW"
    "BAwhp8P3J7ZT83P3U/AvtlP5A7ej+CyYBANfBawD8Kaz9EXII/cAB+PzNtej+P+W4/zjFywFj9e0BcxYE/WWBrP68tbj88sXg/Is56P8+3e0BX"
    "/ITAdiJ8P2QJeD99iHI/q8NyP+Ngdz/7z35AlCyGQDBNdD/zfUU/czV9PyCudT/45Xk/+pxtwJIEXsAJpYg/25pzP64bgT+pD38/Hul2PwAAiM"
    "AAAIhAp45zP8IidD/6ans/SwGCP1ebbz9543zAMwt4wCyOaj9tPmw/W4d0P7Erdj9gqHY/k/KAQKJLe8D3DYE/L3qDPxMpdT+NtoI/7UZ5PwAA"
    "iMC6vYJA3KmIP7xJfT9EN24/vYBhP8szfD/1vnbAs4+FQHvqfT8bmHM/YS6CPzHahD9OznY/omF8QAAKgUB6c4E/pAWCP2MtgD/xoXo/jxpzP7"
    "iUcUAAAIhA2794Pyk1aj8ohX4/X6B4P6mgbD8GTFpA1utawFAyeD/na2k/ZdyCP5cPXj+ZXXs/AACIwHjLh8DUcl8/6ZuCP6Ssez8CHW4/eKx2"
    "P+refMAPantA"
)
DISTURBED = (
    "sBmRP/4aPrwZrjQ8Yheav/UFPzzQvzK81RSNP7/jGLzUWza8ogOhv83UTLwEzkG8F7GLv38WTLxyN0C8V5qdvwIZIrzhhzK8"
)


@pytest.mark.parametrize("scale", [1, 0.9, 0.8, 0.7, 0.6, 0.55, 0.5, 0.45])
def test_many_large_pixels_of_either_sign(scale):
    """Also where that is just trusted."""
    x, w = (np.frombuffer(base64.b64decode(text), "<f4") for text in (DISTURBING, DISTURBED))
    x, w = np.where(abs(x) > 2, np.float32(scale) * x, x).reshape(1, 1, 18, 7), w.reshape(2, 1, 3, 3)
    x, w = np.repeat(x, 16, 1).astype(np.float32), np.repeat(w, 16, 1).astype(np.float32)
    check(winograd(x, w), *oracle.correlate(x, w), scale)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_trust_of_images_that_are_not_finite(value, dtype):
    """It is that of the rest of the image: what doesn't see the value is as it was, to the bit, in other tiles."""
    x, w, _ = alike(shape(C=20, K=8, R=3, S=3, P=18, Q=18), dtype)
    w[..., :2] *= 1e-3
    for edge in (1, 1e4):       # trusted, and not
        x[..., 1] *= edge
        y = winograd(x, w)
        direct = fastconv.correlate(x, w, method="direct-filters")
        assert same_bits(y, direct) == (edge > 1)
        for c in (0, 19):
            spoiled = x.copy()
            spoiled[0, c, 10, 10] = value
            changed = (winograd(spoiled, w) != y).any((0, 1))
            assert changed[8:11, 8:11].all()
            changed[8:12, 8:12] = False     # the tile of outputs that see it
            assert not changed.any()


def test_which_images_are_trusted():
    """Where weights that a corner meets are small: by what is in it, in a batch as alone, however it lies in memory."""
    case = shape(N=7, C=20, K=5, R=3, S=3, P=9, Q=13)
    x, w, bias = alike(case, np.float32)
    w[:, 3:6, :2, :2] *= 0.1
    large = (0, 3, 4), (1, 4, 5), (3, 19, 1), (5, 3, 1), (5, 4, 1), (6, 3, 0)     # images, channels, rows and columns
    trusted = [True, True, False, True, True, False, False]
    for n, c, i in large:
        x[n, c, i, i] = 400
    x[2, 3, 1, 1] = -400
    y = winograd(x, w, bias)
    direct = fastconv.correlate(x, w, bias=bias, method="direct-filters")
    assert [not same_bits(a, b) for a, b in zip(y, direct, strict=True)] == trusted
    plan = fastconv.Plan(w, x.shape, bias=bias, method="winograd")
    reversed_ = np.ascontiguousarray(x[:, ::-1, ::-1, ::-1])[:, ::-1, ::-1, ::-1]
    channels_last = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)
    for same in (x, reversed_, channels_last, x[:, :, :, :].astype(">f4")):
        assert same_bits(plan(same), y)
        for n in range(7):
            assert same_bits(plan(same[n : n + 1])[0], y[n])
    check(y, *oracle.correlate(x, w, bias))


@pytest.mark.parametrize("value", [np.nan, 1e30])
def test_columns_and_rows_that_no_output_sees(value, dtype):
    """With a stride, and where tiles or patches end behind the image, they aren't there."""
    for case in (
        *(shape(C=3, K=5, R=7, S=7, P=9, Q=34, stride=2), shape(C=16, K=5, R=3, S=3, P=9, Q=34)),
        *(shape(C=17, K=5, R=1, S=9, P=9, Q=34, stride=2), shape(C=48, K=5, R=1, S=3, P=9, Q=34)),
    ):
        x, w, bias = alike(case, dtype)
        y = winograd(x, w, bias, stride=case.stride)
        larger = np.full((1, case.C, case.H + 5, case.W + 5), value, dtype)
        seen = larger[:, :, : case.H, : case.W]
        seen[...] = x
        assert same_bits(winograd(seen, w, bias, stride=case.stride), y)
        if case.stride > 1:
            assert same_bits(winograd(larger[:, :, : case.H + 1, : case.W + 1], w, bias, stride=case.stride), y)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("filters", [FILTERS[0], FILTERS[2], FILTERS[3], FILTERS[8], FILTERS[9]])
def test_non_finite(value, filters, dtype):
    """NaN and Inf are where the direct sum has them; what else is in their tiles keeps to the bound."""
    C, R, S, stride = filters
    case = shape(N=2, C=C, K=19, R=R, S=S, P=11, Q=37, stride=stride)
    x, w, bias = alike(case, dtype)
    w[5] = 0                                # zero times Inf is NaN, and isn't left out
    exact, bound = oracle.correlate(x, w, bias, stride=stride)
    rng = RNG(2)
    for place in [(0, 0, 0, 0), tuple(size - 1 for size in x.shape), *(tuple(rng.integers(x.shape)) for _ in range(6))]:
        spoiled = x.copy()
        spoiled[place] = value
        for options in ({"stride": stride}, {"stride": stride, "padding": 1, "layout": "NHWC"}):
            image = np.moveaxis(spoiled, 1, -1) if "layout" in options else spoiled
            y = winograd(image, w, bias, **options)
            direct = fastconv.correlate(image, w, bias=bias, method="direct", **options)
            finite = np.isfinite(direct)
            assert not finite.all()
            assert np.array_equal(y[~finite], direct[~finite], equal_nan=True), (place, options)
            assert np.isfinite(y[finite]).all(), (place, options)
            if "layout" not in options:
                assert (abs(y - exact)[finite] <= bound.max()).all(), place
    for k in (0, 18):
        spoiled = w.copy()
        spoiled[k, -1, 0, 1] = value
        y = winograd(x, spoiled, bias, stride=stride)
        direct = fastconv.correlate(x, spoiled, bias=bias, stride=stride, method="direct")
        assert np.array_equal(y[:, k], direct[:, k], equal_nan=True)
        assert (abs(np.delete(y - exact, k, 1)) <= bound.max()).all()


def test_no_overflow_on_the_way(dtype):
    """Values near the largest, whose transforms overflow where the sum itself doesn't."""
    case = shape(C=16, K=3, R=3, S=3, P=9, Q=21)
    x, w, _ = alike(case, dtype)
    x *= np.finfo(dtype).max / 4 / np.abs(x).max()
    w *= 1 / np.abs(w).sum()
    exact, bound = oracle.correlate(x, w)
    y = winograd(x, w)
    assert np.isfinite(y).all()
    check(y, exact, bound)


@pytest.mark.parametrize(("C", "R", "S", "stride"), [*FILTERS[1:4], FILTERS[9]])
def test_same_bits(C, R, S, stride, dtype):
    """For any number of workers, in a batch or alone, and of any strides."""
    x, w, bias = alike(shape(N=3, C=C, K=70, R=R, S=S, P=29, Q=37, stride=stride), dtype)
    y = winograd(x, w, bias, stride=stride, workers=1)
    for workers in (2, 3, 5, 16):
        assert same_bits(winograd(x, w, bias, stride=stride, workers=workers), y), workers
    for image, alone in zip(x, y, strict=True):
        assert same_bits(winograd(image, w, bias, stride=stride, workers=2), alone)
    strided = np.full((3, C, x.shape[2] + 3, 2 * x.shape[3] + 1), np.nan, dtype)[:, :, 2:-1, 1::2][:, ::-1]
    strided[...] = x
    assert same_bits(winograd(strided, w, bias, stride=stride), y)
    assert same_bits(winograd(np.asfortranarray(x), np.asfortranarray(w), bias, stride=stride), y)


# Filters so many that a single call packs them where it needs them, which a plan never does.
MANY = ((80, 110, 3, 3, 1), (24, 100, 5, 5, 1), (40, 33, 7, 7, 2), (128, 200, 1, 5, 1))


@pytest.mark.parametrize("many", MANY)
def test_weights_packed_late(many, dtype):
    """The same bits, by any number of workers, of any strides of the weights, and of what isn't finite."""
    C, K, R, S, stride = many
    x, w, bias = alike(shape(C=C, K=K, R=R, S=S, P=13, Q=18, stride=stride), dtype)
    backwards = w[..., ::-1, ::-1].copy()
    spoiled = x.copy()
    spoiled[0, 3, 5, 7], spoiled[0, -1, -1, -1] = np.nan, np.inf
    for options in ({"stride": stride}, {"stride": stride, "padding": (1, 2), "pad_value": 3}):
        plan = fastconv.Plan(w, x.shape, bias=bias, method="winograd", **options)
        check(plan(x), *oracle.correlate(x, w, bias, **options), options)
        for image in (x, spoiled):
            y = plan(image)
            for workers in (1, 2, 5):
                assert same_bits(winograd(image, w, bias, workers=workers, **options), y), (workers, options)
            assert same_bits(winograd(image, backwards[..., ::-1, ::-1], bias, **options), y)
            assert same_bits(winograd(image, np.asfortranarray(w), bias, **options), y)
            last = np.ascontiguousarray(np.moveaxis(image, 1, -1))
            assert same_bits(np.moveaxis(winograd(last, w, bias, layout="NHWC", **options), -1, 1).copy(), y)
            assert same_bits(winograd(np.concatenate([x, image]), w, bias, **options)[1:], y)  # packed before
    small = w * np.finfo(dtype).smallest_normal / 100
    assert same_bits(winograd(x, small, bias, stride=stride),
                     fastconv.Plan(small, x.shape, bias=bias, stride=stride, method="winograd")(x))  # fmt: skip


@pytest.mark.parametrize("many", MANY)
def test_weights_packed_late_of_images_that_are_not_trusted(many, dtype):
    """The direct tiles that compute their outputs again read the same panel's weights."""
    C, K, R, S, stride = many
    x, w, _ = alike(shape(C=C, K=K, R=R, S=S, P=13, Q=18, stride=stride), dtype)
    w[:, :, 0, [0, stride]] = 0     # all that this pixel meets, but not all that is in its tile
    x[..., 0, stride] = 1e9
    y = winograd(x, w, stride=stride)
    check(y, *oracle.correlate(x, w, stride=stride))
    assert same_bits(y, fastconv.Plan(w, x.shape, stride=stride, method="winograd")(x))
    assert same_bits(y, fastconv.correlate(x, w, stride=stride, method="direct-filters"))


@pytest.mark.parametrize("name", ["float16", "complex64", "complex128"])
def test_dtypes_computed_in_others(name):
    rng = RNG(0)
    x, w = ((rng.standard_normal(size) + 1j * rng.standard_normal(size)) for size in ((1, 16, 9, 21), (3, 16, 3, 3)))
    x, w = (np.real(array).astype(name) if name == "float16" else array.astype(name) for array in (x, w))
    check(winograd(x, w), *oracle.correlate(x, w))


def test_what_it_cannot_compute():
    """Named, before anything is written."""
    for C, R, S, options in (
        (15, 3, 3, {}), (5, 5, 5, {}), (16, 3, 3, {"stride": 2}), (144, 1, 1, {}), (40, 3, 3, {"stride": 3}),
        (16, 3, 3, {"dilation": (1, 2)}), (16, 3, 3, {"dtype": "int32"}), (16, 11, 3, {}), (47, 1, 3, {}),
        (99, 1, 2, {}), (63, 3, 1, {}),
    ):  # fmt: skip
        dtype = options.pop("dtype", "float32")
        x, w = np.ones((C, 20, 20), dtype), np.ones((2, C, R, S), dtype)
        with pytest.raises(ValueError, match=r"method is 'winograd', which can't compute .* it takes floats"):
            winograd(x, w, **options)


@pytest.mark.parametrize("dtype", DTYPES)
def test_chosen_for_layers(dtype):
    """Where it saves most, it is what "auto" takes."""
    plan = fastconv.Plan(np.ones((64, 64, 3, 3), dtype), (64, 58, 58))
    assert plan.method == "winograd"
    x, w, bias = alike(shape(C=64, K=64, R=3, S=3, P=20, Q=20), dtype)
    assert same_bits(fastconv.Plan(w, x.shape, bias=bias)(x), winograd(x, w, bias))
