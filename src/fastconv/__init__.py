"""Multi-channel 2-D convolution and correlation on the CPU. Start with `correlate`, `convolve` and `Plan`."""

from fastconv._config import show_config
from fastconv._front import Plan, convolve, correlate
from fastconv._threads import get_workers, set_workers
from fastconv._version import __version__

__all__ = ["Plan", "__version__", "convolve", "correlate", "get_workers", "set_workers", "show_config"]
