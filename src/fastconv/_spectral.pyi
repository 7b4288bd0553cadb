"""Method "fft". All that is in it is for the other compiled modules."""

from typing import final

@final
class Spectra: ...
