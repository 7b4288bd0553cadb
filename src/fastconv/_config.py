"""What was built, and what is chosen here, for bug reports."""

import os
import platform

import numpy as np

from fastconv import _cpu, _kernels, _threads
from fastconv._version import __version__


def show_config() -> None:
    """Print the version, the instruction set that was chosen and those that this CPU runs, threads, and the compiler.

    Examples
    --------
    >>> import fastconv
    >>> fastconv.show_config()  # doctest: +ELLIPSIS
    fastconv ...
    """
    openmp = f"OpenMP {_threads.openmp}" if _threads.openmp else "none: built without OpenMP"
    print(f"fastconv {__version__}")
    print(f"  instruction set  {_kernels.isa} (this CPU runs {', '.join(_cpu.supported_isas())})")
    print(f"  threads          {openmp}; {_threads.get_workers()} workers by default, {os.cpu_count()} CPUs")
    print(f"  compiler         {_cpu.compiler}")
    print(f"  Python, NumPy    {platform.python_version()}, {np.__version__}")
