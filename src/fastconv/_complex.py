"""A complex correlation as a real one of twice the channels and twice the filters.

In each group the channels become the real parts, then the imaginary parts, and so do the filters. With a filter
a + ib, the real part of a product with x + iy is a x - b y and the imaginary part b x + a y.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def real_image(x: NDArray[Any], groups: int, channels_last: bool, dtype: Any) -> NDArray[Any]:
    """Images of real parts and imaginary parts, channels first or last as they were."""
    axis = -1 if channels_last or x.ndim == 2 else -3
    if x.ndim == 2:
        return np.stack([x.real, x.imag]).astype(dtype, copy=False)
    channels = np.moveaxis(x, axis, 0)
    parts = channels.reshape(groups, len(channels) // groups, *channels.shape[1:])
    split = np.stack([parts.real, parts.imag], axis=1).astype(dtype, copy=False)
    return np.moveaxis(split.reshape(2 * len(channels), *channels.shape[1:]), 0, axis)


def real_weights(w: NDArray[Any], groups: int, conjugate: bool, dtype: Any) -> NDArray[Any]:
    """A bank (2 K, 2 C, R, S) of real filters for a filter or a bank of complex ones."""
    bank = w.reshape((1,) * (4 - w.ndim) + w.shape)
    bank = bank.reshape(groups, -1, *bank.shape[1:])
    a, b = bank.real.astype(dtype), bank.imag.astype(dtype)     # booleans and unsigned integers can't be negated
    if conjugate:
        b = -b
    rows = np.concatenate([np.concatenate([a, -b], axis=2), np.concatenate([b, a], axis=2)], axis=1)
    return rows.reshape(-1, *rows.shape[2:])


def real_bias(bias: NDArray[Any], groups: int, dtype: Any) -> NDArray[Any]:
    """The biases of `real_weights`."""
    parts = np.asarray(bias).reshape(groups, -1)
    return np.concatenate([parts.real, parts.imag], axis=1).reshape(-1).astype(dtype)


def store(y: NDArray[Any], out: NDArray[Any], groups: int, channels_last: bool) -> None:
    """A real result of twice the filters into a complex array."""
    if out.ndim == 2:
        out.real, out.imag = y
        return
    axis = -1 if channels_last else -3
    parts, target = np.moveaxis(y, axis, 0), np.moveaxis(out, axis, 0)
    filters = len(target) // groups
    for group in range(groups):
        first = 2 * filters * group
        here = target[group * filters : (group + 1) * filters]
        here.real = parts[first : first + filters]
        here.imag = parts[first + filters : first + 2 * filters]
