"""The sum of design.md, written out: naive, in a wider type, and independent of the library."""

import numpy as np

WIDER = {"float32": np.float64, "float64": np.longdouble}
assert np.finfo(np.longdouble).nmant > np.finfo(np.float64).nmant, "this platform has no type to check float64 with"


def correlate(x, w, bias=None):
    """What correlate(x, w, bias) should be, and how far each element may be from it.

    Parameters
    ----------
    x : ndarray, (N, C, H, W)
    w : ndarray, (K, C, R, S)
    bias : ndarray, (K,), optional

    Returns
    -------
    exact, bound : ndarray, (N, K, P, Q)
        The sum in a wider type, and gamma * (abs(w) * abs(x) + abs(bias)), the contract of method "direct". A bias
        counts as one term more.
    """
    n, channels, height, width = x.shape
    filters, _, rows, columns = w.shape
    wider = WIDER[np.result_type(x, w).name]
    exact = np.zeros((n, filters, height - rows + 1, width - columns + 1), wider)
    total = np.zeros_like(exact)
    if bias is not None:
        exact += bias[:, None, None]
        total += abs(bias[:, None, None])
    for c, r, s in np.ndindex(w.shape[1:]):
        window = x[:, None, c, r : r + exact.shape[2], s : s + exact.shape[3]]
        term = window * w[:, c, r, s, None, None].astype(wider)
        exact += term
        total += abs(term)
    return exact, gamma(channels * rows * columns + (bias is not None), np.result_type(x, w)) * total


def gamma(terms, dtype):
    """The relative error that a sum of products may gather: n * u / (1 - n * u)."""
    unit_roundoff = np.finfo(dtype).eps / 2
    return terms * unit_roundoff / (1 - terms * unit_roundoff)


def integers(x, w):
    """The same sum for integer values, at once and still exact: every partial sum is one that float64 holds."""
    windows = np.lib.stride_tricks.sliding_window_view(x.astype(np.float64), w.shape[2:], axis=(2, 3))
    return np.moveaxis(np.tensordot(windows, w.astype(np.float64), axes=((1, 4, 5), (1, 2, 3))), 3, 1)
