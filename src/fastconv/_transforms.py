"""Real Fourier transforms of rows, as the first of these libraries has them that is installed.

ducc0.fft (the successor of pocketfft) takes three quarters of scipy.fft's time in float32; both are pocketfft's
algorithms, with the same errors. Neither is imported before a plan asks for transforms, nor needed without.
Rows come back as new arrays in C order. Both libraries let other Python threads run meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Transforms(Protocol):
    def spectra(self, rows: NDArray[Any]) -> NDArray[Any]:
        """The length // 2 + 1 first frequencies of each row."""

    def rows(self, spectra: NDArray[Any], length: int) -> NDArray[Any]:
        """Rows of an even length from their spectra."""


class Ducc:
    def __init__(self) -> None:
        from ducc0 import fft

        self.fft = fft

    def spectra(self, rows: NDArray[Any]) -> NDArray[Any]:
        return np.ascontiguousarray(self.fft.r2c(rows, axes=(1,), nthreads=1))

    def rows(self, spectra: NDArray[Any], length: int) -> NDArray[Any]:
        rows = self.fft.c2r(spectra, axes=(1,), lastsize=length, forward=False, inorm=2, nthreads=1)
        return np.ascontiguousarray(rows)


class SciPy:
    def __init__(self) -> None:
        from scipy import fft

        self.fft = fft

    def spectra(self, rows: NDArray[Any]) -> NDArray[Any]:
        return np.ascontiguousarray(self.fft.rfft(rows, axis=1, workers=1))

    def rows(self, spectra: NDArray[Any], length: int) -> NDArray[Any]:
        return np.ascontiguousarray(self.fft.irfft(spectra, length, axis=1, workers=1))


def installed() -> Transforms | None:
    """The fastest there is. Imports it."""
    for library in (Ducc, SciPy):
        try:
            return library()
        except ImportError:
            pass
    return None
