"""The sum of design.md, written out: naive, in a wider type, and independent of the library."""

import itertools

import numpy as np

WIDER = {
    "float16": np.float64,
    "bfloat16": np.float64,
    "float32": np.float64,
    "float64": np.longdouble,
    "complex64": np.complex128,
    "complex128": np.clongdouble,
}
COMPUTED_IN = {"float16": np.float32, "bfloat16": np.float32, "complex64": np.float32, "complex128": np.float64}
ROOM = 2**18  # values of windows that are copied at a time
assert np.finfo(np.longdouble).nmant > np.finfo(np.float64).nmant, "this platform has no type to check float64 with"


def pair(value):
    """An option for rows and columns, of one integer for both or a pair."""
    return (value, value) if isinstance(value, int) else value


def pads(mode, padding, reach_r, reach_s):
    """((top, bottom), (left, right)) for filters that reach so many rows and columns beyond their first."""
    if mode == "full":
        return (reach_r, reach_r), (reach_s, reach_s)
    if mode == "same":  # of "full" what begins at reach // 2 and is as large as the image
        return (reach_r - reach_r // 2, reach_r // 2), (reach_s - reach_s // 2, reach_s // 2)
    rows, columns = pair(padding)
    return pair(rows), pair(columns)


def correlate(
    x, w, bias=None, *, mode="valid", stride=1, padding=0, dilation=1, groups=1, pad_mode="constant", pad_value=0,
    dtype=None,
):  # fmt: skip
    """What correlate(x, w, bias, ...) should be, and how far each element may be from it.

    Parameters
    ----------
    x : ndarray, (N, G * C, H, W)
    w : ndarray, (G * K, C, R, S)
    bias : ndarray, (G * K,), optional
    mode, stride, padding, dilation, groups, pad_mode, pad_value, dtype
        As of the library.

    Returns
    -------
    exact : ndarray, (N, G * K, P, Q)
        The sum in a wider type. Of integers and booleans, the very result: the sum modulo 2^bits, or whether any
        term is true.
    bound : ndarray
        gamma * (abs(w) * abs(x) + abs(bias)), the contract of method "direct", and one rounding more where the result
        is narrower than what it is computed in. A bias counts as one term more. Of complex sums, the bounds of the
        real part and of the imaginary part, each a real sum of two terms for each product. Zero for integers.
    """
    dtype = np.dtype(np.result_type(x, w) if dtype is None else dtype)
    floating = dtype.name in WIDER
    wider = np.dtype(WIDER[dtype.name] if floating else np.uint64)
    (p_step, q_step), (r_step, s_step) = pair(stride), pair(dilation)
    rows, columns = w.shape[2:]
    reach_r, reach_s = (rows - 1) * r_step, (columns - 1) * s_step
    widths = (0, 0), (0, 0), *pads(mode, padding, reach_r, reach_s)
    constants = {"constant_values": np.asarray(pad_value).astype(dtype)} if pad_mode == "constant" else {}
    x = np.pad(x.astype(dtype), widths, pad_mode, **constants).astype(wider)
    w = w.astype(dtype).astype(wider)
    x = x.reshape(len(x), groups, -1, *x.shape[2:])
    w = w.reshape(groups, -1, *w.shape[1:])
    windows = np.lib.stride_tricks.sliding_window_view(x, (reach_r + 1, reach_s + 1), (3, 4))
    windows = np.moveaxis(windows[:, :, :, ::p_step, ::q_step, ::r_step, ::s_step], 2, 4)  # (N, G, P, Q, C, R, S)
    terms = w[0, 0].size
    exact, total = np.zeros((2, *windows.shape[:4], w.shape[1]), wider)
    band = max(1, ROOM // max(1, len(x) * windows.shape[3] * terms))
    for group, first in itertools.product(range(groups), range(0, windows.shape[2], band)):
        part = np.s_[:, group, first : first + band]
        window, weight = windows[part].reshape(-1, terms), w[group].conj().reshape(-1, terms)
        exact[part] = products(window, weight).reshape(exact[part].shape)
        if floating:
            total[part] = sums_of_magnitudes(window, weight).reshape(exact[part].shape)
    if bias is not None:
        bias = bias.astype(dtype).astype(wider).reshape(groups, 1, 1, -1)
        exact += bias
        total += magnitude(bias)
    exact, total = (np.moveaxis(array, 4, 2).reshape(len(x), -1, *windows.shape[2:4]) for array in (exact, total))
    if not floating:
        return exact.astype(dtype), np.zeros(exact.shape)
    computed_in = COMPUTED_IN.get(dtype.name, dtype)
    bound = gamma(terms * (2 if dtype.kind == "c" else 1) + (bias is not None), computed_in) * total
    if np.dtype(computed_in) != dtype and dtype.kind != "c":
        bound += rounding(abs(exact) + bound, dtype)
    return exact, bound


def convolve(x, w, bias=None, *, flip_channels=False, **options):
    """The same of convolve, which reverses filters and doesn't conjugate them."""
    w = np.flip(w, (1, 2, 3) if flip_channels else (2, 3))
    return correlate(x, w.conj() if w.dtype.kind == "c" else w, bias, **options)


def magnitude(z):
    """Magnitudes of real and imaginary parts, as the parts of a complex number."""
    return abs(z.real) + 1j * abs(z.imag) if z.dtype.kind == "c" else abs(z)


def products(windows, weights):
    """Sums of products along the last axis, (windows, weights); for long numbers np.dot is fast in this order alone."""
    return np.dot(windows, weights.T)


def sums_of_magnitudes(windows, weights):
    """The same sums of magnitudes; of complex numbers, of the real sums that their parts are."""
    windows, weights = magnitude(windows), magnitude(weights)
    if weights.dtype.kind != "c":
        return products(windows, weights)
    return products(windows, weights.conj()).real + 1j * products(windows, weights).imag


def within(y, exact, bound):
    """Whether each element of y, or each part of it, is no further from the exact one than its bound."""
    if bound.dtype.kind == "c":
        return within(y.real, exact.real, bound.real) and within(y.imag, exact.imag, bound.imag)
    if exact.dtype.kind in "biu":
        return np.array_equal(y, exact)
    return bool((abs(y.astype(exact.dtype) - exact) <= bound).all())


def largest(bound):
    """The bound of every method but the direct ones: the largest of all elements' for each.

    Of complex sums, of both parts' for either: that is no more than the bound of magnitudes.
    """
    if bound.dtype.kind == "c":
        return np.full_like(bound, max(bound.real.max(), bound.imag.max()) * (1 + 1j))
    return np.full_like(bound, bound.max())


def gamma(terms, dtype):
    """The relative error that a sum of products may gather: n * u / (1 - n * u)."""
    unit_roundoff = np.finfo(dtype).eps / 2
    return terms * unit_roundoff / (1 - terms * unit_roundoff)


def rounding(values, dtype):
    """The most that rounding to dtype can change values of this magnitude, normal or subnormal."""
    info = finfo(dtype)
    return np.maximum(values * float(info.eps) / 2, float(info.smallest_subnormal) / 2)


def finfo(dtype):
    """NumPy's, or that of ml_dtypes for bfloat16."""
    if np.dtype(dtype).kind == "f":
        return np.finfo(dtype)
    import ml_dtypes  # noqa: PLC0415

    return ml_dtypes.finfo(dtype)


def integers(x, w):
    """The same sum for integer values, at once and still exact: every partial sum is one that float64 holds."""
    windows = np.lib.stride_tricks.sliding_window_view(x.astype(np.float64), w.shape[2:], axis=(2, 3))
    return np.moveaxis(np.tensordot(windows, w.astype(np.float64), axes=((1, 4, 5), (1, 2, 3))), 3, 1)
