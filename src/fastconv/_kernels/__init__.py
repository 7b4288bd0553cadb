"""The kernels: one compiled module an instruction set, of which one is loaded when fastconv is imported."""

import importlib
import os
from types import ModuleType

from fastconv._cpu import supported_isas


def choose_isa(forced: str) -> str:
    """The best instruction set that the CPU can run, or `forced` if it isn't empty.

    Raises ImportError where the forced one can't run: its code would end the process.
    """
    isas = supported_isas()
    if not forced:
        return isas[-1]
    if forced not in isas:
        raise ImportError(
            f"FASTCONV_ISA={forced!r} isn't what this CPU runs; expected one of {', '.join(isas)}, or none for the best"
        )
    return forced


def load(isa: str) -> ModuleType:
    """The kernel module of an instruction set. Only ask for one that the CPU can run."""
    return importlib.import_module(f"fastconv._kernels.{isa}")


isa = choose_isa(os.environ.get("FASTCONV_ISA", ""))
