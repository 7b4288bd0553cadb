"""The kernels: one compiled module an instruction set, of which one is loaded when fastconv is imported."""

import importlib
import os
import sys
from types import ModuleType

from fastconv._cpu import supported_isas, unsupported_isas


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
    """The kernel module of an instruction set. Of one that the CPU can't run: ModuleNotFoundError."""
    return importlib.import_module(f"{__name__}.{isa}")


# An import runs a module's own code. Tools import all modules of a package, and would end with an illegal instruction.
for _isa in unsupported_isas():
    sys.modules[f"{__name__}.{_isa}"] = None  # type: ignore[assignment]

isa = choose_isa(os.environ.get("FASTCONV_ISA", ""))
