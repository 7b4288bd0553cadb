"""Kernels for one instruction set: what `capsule` hands out, and the rates that the tile guard compares."""

from typing import Any, Literal

capsule: Any

def flops(what: Literal["peak", "tile", "groups"], dtype: Literal["float32", "float64"], rounds: int) -> float: ...
def flops_a_cycle(dtype: Literal["float32", "float64"]) -> int: ...
