"""The question that fastconv starts from: why do these two differ, and which is which here?"""

import numpy as np
import pytest
import scipy.signal

import fastconv

# A 3x5x5 image and a 3x2x2 filter of small integers: every sum is exact.
X = np.array(
    [
        [[4, 1, 7, 0, 3], [2, 8, 5, 6, 1], [9, 3, 0, 2, 4], [1, 7, 6, 8, 5], [0, 2, 9, 3, 7]],
        [[6, 2, 0, 9, 5], [1, 4, 8, 3, 7], [5, 0, 2, 6, 1], [8, 9, 3, 4, 0], [7, 5, 1, 2, 6]],
        [[3, 9, 4, 1, 8], [0, 6, 2, 7, 5], [7, 1, 8, 0, 3], [4, 2, 5, 9, 6], [6, 8, 0, 1, 2]],
    ]
)
W = np.array([[[1, 5], [8, 2]], [[7, 0], [3, 9]], [[4, 6], [2, 1]]])


@pytest.fixture
def x(dtype):
    return X.astype(dtype)


@pytest.fixture(params=["3x2x2", "1x3x2x2"])
def w(request, dtype):
    return W.astype(dtype).reshape([int(size) for size in request.param.split("x")])


def test_first_sum_is_convolve(x, w):
    r1 = np.sum([scipy.signal.convolve(x[c], W[c].astype(x.dtype), "valid") for c in range(3)], axis=0)
    assert np.array_equal(fastconv.convolve(x, w), r1[None])


def test_second_sum_flips_channels(x, w):
    r2 = scipy.signal.convolve(x, W.astype(x.dtype), "valid")
    assert np.array_equal(fastconv.convolve(x, w, flip_channels=True), r2)


def test_the_answer(x, w):
    """The answer: reverse the channels of one argument, and the N-D convolution is the sum over channels."""
    r1 = scipy.signal.convolve(x, W[::-1].astype(x.dtype), "valid")
    assert np.array_equal(fastconv.convolve(x, w), r1)


def test_the_sums_differ(x, w):
    """By hand, at the top left: windows [4 1; 2 8], [6 2; 1 4], [3 9; 0 6] by filters read either way."""
    first, second = fastconv.correlate(x, w), fastconv.convolve(x, w)
    third = fastconv.convolve(x, w, flip_channels=True)
    assert first[0, 0, 0] == (4 + 5 + 16 + 16) + (42 + 0 + 3 + 36) + (12 + 54 + 0 + 6)
    assert second[0, 0, 0] == (8 + 8 + 10 + 8) + (54 + 6 + 0 + 28) + (3 + 18 + 0 + 24)
    assert third[0, 0, 0] == (4 + 2 + 12 + 32) + (54 + 6 + 0 + 28) + (6 + 72 + 0 + 6)
    assert first.shape == second.shape == third.shape == (1, 4, 4)
