"""Against SciPy in float64: the three sums that people mix up, each by the name that fastconv gives it."""

import numpy as np
import oracle
import pytest
import scipy.signal
from cases import integers, methods, reals, shape

import fastconv

CASES = [
    shape(C=3, K=2, R=3, S=3, P=6, Q=20),
    shape(C=4, K=17, R=2, S=5, P=9, Q=33),
    shape(C=7, K=3, R=4, S=1, P=12, Q=5),
    shape(C=1, K=1, R=11, S=11, P=20, Q=70),
    shape(C=2, K=4, R=1, S=1, P=1, Q=1),
]
SCIPY = {"mode": "valid", "method": "direct"}


def correlate(x, w):
    return np.stack([scipy.signal.correlate(x, filter_, **SCIPY)[0] for filter_ in w])


def convolve(x, w):
    """The first of the question's sums: channel by channel."""
    return np.stack([sum(scipy.signal.convolve(x[c], filter_[c], **SCIPY) for c in range(len(x))) for filter_ in w])


def convolve_flipping_channels(x, w):
    """The second: an N-D convolution reverses the channels too."""
    return np.stack([scipy.signal.convolve(x, filter_, **SCIPY)[0] for filter_ in w])


# SciPy's sum, ours by name and options, and the filters that correlation would take for it.
SUMS = pytest.mark.parametrize(
    ("theirs", "name", "options", "axes"),
    [
        pytest.param(correlate, "correlate", {}, (), id="correlate"),
        pytest.param(convolve, "convolve", {}, (2, 3), id="convolve"),
        pytest.param(convolve_flipping_channels, "convolve", {"flip_channels": True}, (1, 2, 3), id="flip_channels"),
    ],
)


@SUMS
@pytest.mark.parametrize("case", CASES, ids=str)
def test_integers_are_equal(theirs, name, options, axes, case):
    x, w, _ = integers(case, "float64")
    expected = theirs(x[0], w)
    for method in methods(case, "float64"):
        assert np.array_equal(getattr(fastconv, name)(x[0], w, method=method, **options), expected), method
        assert np.array_equal(fastconv.correlate(x[0], np.flip(w, axes), method=method), expected), method


@SUMS
@pytest.mark.parametrize("case", CASES, ids=str)
def test_reals_are_within_both_bounds(theirs, name, options, axes, case):
    """SciPy adds the same terms in float64 and may be off by the same bound, to the other side."""
    x, w, _ = reals(case, "float64")
    _, bound = oracle.correlate(x, np.flip(w, axes))
    for method in methods(case, "float64"):
        y = getattr(fastconv, name)(x[0], w, method=method, **options)
        assert (abs(y - theirs(x[0], w)) <= 2 * bound[0]).all(), method


@pytest.mark.parametrize("case", CASES, ids=str)
def test_two_dimensions(case):
    x, w, _ = integers(case, "float64")
    image, filter_ = x[0, 0], w[0, 0]
    assert np.array_equal(fastconv.correlate(image, filter_), scipy.signal.correlate2d(image, filter_, "valid"))
    assert np.array_equal(fastconv.convolve(image, filter_), scipy.signal.convolve2d(image, filter_, "valid"))


def test_real_filters_on_a_photograph_like_image():
    """Gaussians and their derivatives on a smooth image with edges, as the demo has them."""
    rows, columns = np.mgrid[0:60, 0:80] / 20
    image = np.sin(rows * columns) + (columns > 2) + 0.5 * (rows > columns)
    offsets = np.arange(-4, 5) / 2
    blur = np.exp(-(offsets**2))
    filters = np.stack([np.outer(blur, blur), np.outer(offsets * blur, blur), np.outer(blur, offsets * blur)])
    x, w = np.stack([image, image.T[:60, :60].mean() * image, image**2]), np.stack([filters, filters[::-1]])
    _, bound = oracle.correlate(x[None], w)
    assert (abs(fastconv.correlate(x, w) - correlate(x, w)) <= 2 * bound[0]).all()
