"""Errors of method "fft" in unit roundoffs of the norms that it bounds them by, on data made to find large ones.

    python benchmarks/fft_errors.py

The same steps as _spectral.pyx and products.pxi take, in float32 through NumPy, against float64. The last column is
what relative_error in _spectral.pyx allows; it is to be some twice the largest ratio of its row.
"""

import itertools

import numpy as np
import scipy.fft

SIZES = (  # C, R, S, H, W
    (1, 1, 31, 8, 482),
    (1, 5, 31, 40, 512),
    (1, 31, 31, 64, 512),
    (3, 15, 15, 32, 128),
    (16, 31, 31, 48, 256),
    (1, 1, 9, 8, 4000),
    (1, 63, 63, 80, 512),
    (1, 101, 31, 120, 512),
)


def spectra(x, w, length):
    """Of x, and conjugate ones of w."""
    return scipy.fft.rfft(x, length, axis=2), scipy.fft.rfft(w, length, axis=3).conj()


def sums(x, w, rows):
    """Over channels and rows of products of planes (C, H, frequency) and (K, C, R, frequency)."""
    total = np.zeros((len(w), rows, x.shape[2]), x.dtype)
    for c, r in np.ndindex(w.shape[1:3]):
        total += x[c, r : r + rows] * w[:, c, r, None]
    return total


def ratio(x, w):
    """The largest error of a sum, by the unit roundoff and the largest sum of products of rows' norms."""
    rows = x.shape[1] - w.shape[2] + 1
    columns = x.shape[2] - w.shape[3] + 1
    length = scipy.fft.next_fast_len(x.shape[2], real=True)
    (a, v), (exact_a, exact_v) = (spectra(x.astype(d), w.astype(d), length) for d in ("float32", "float64"))
    re, im, both = (sums(f(a), f(v), rows) for f in (np.real, np.imag, lambda z: z.real + z.imag))
    y = scipy.fft.irfft((re - im) + 1j * (both - re - im), length, axis=2)[..., :columns]
    exact = scipy.fft.irfft(sums(exact_a, exact_v, rows), length, axis=2)[..., :columns]
    x_norms, w_norms = np.linalg.norm(x, axis=2), np.linalg.norm(w, axis=3).max(axis=0)
    most = sums(x_norms[..., None], w_norms[None, ..., None], rows).max()
    return float(abs(y - exact).max() / (most * 2.0**-24))


def data(rng, sizes):
    """Images and filters by name."""
    C, R, S, H, W = sizes
    decades = 10 ** rng.uniform(-5, 5, (C, H, W))
    first = np.zeros((2, C, R, S))
    first[:, 0, 0, 0] = 1.7
    images = {
        "normal": rng.standard_normal((C, H, W)),
        "positive": rng.random((C, H, W)),
        "constant": np.full((C, H, W), 1.1),
        "spikes": np.where(rng.random((C, H, W)) < 0.001, 1e3, 1e-3),
        "decades": rng.standard_normal((C, H, W)) * decades,
        "wave": np.broadcast_to(np.cos(0.3 * np.arange(W)), (C, H, W)),
        "ramp": np.broadcast_to(np.arange(W) / 3, (C, H, W)),
    }
    filters = {
        "normal": rng.standard_normal((2, C, R, S)),
        "box": np.full((2, C, R, S), 1 / 3),
        "first value": first,
        "wave": np.broadcast_to(np.cos(0.3 * np.arange(S)), (2, C, R, S)),
    }
    return itertools.product(images.items(), filters.items())


def main():
    rng = np.random.default_rng(0)
    for sizes in SIZES:
        C, R, _, _, W = sizes
        ratios = {
            f"{image} by {filter_}": ratio(x.astype(np.float32), w.astype(np.float32))
            for (image, x), (filter_, w) in data(rng, sizes)
        }
        worst = max(ratios, key=ratios.get)
        allowed = 0.75 * np.log2(scipy.fft.next_fast_len(W, real=True)) + C * R / 4
        print(f"{sizes!s:24s}{ratios[worst]:8.2f} {worst:24s}{allowed:8.2f}")


if __name__ == "__main__":
    main()
