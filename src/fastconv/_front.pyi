"""The front door: correlate, convolve and Plan. Arguments are read here; what they mean is settled in _problem."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NoReturn, Self, SupportsIndex, TypeAlias, TypeVar, overload

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray
from typing_extensions import disjoint_base  # type checkers know it even where it is not installed

_Out = TypeVar("_Out", bound=NDArray[Any])
_Mode: TypeAlias = Literal["valid", "same", "full"]
_Pair: TypeAlias = SupportsIndex | Sequence[SupportsIndex]
_Padding: TypeAlias = _Pair | Sequence[Sequence[SupportsIndex]]
_PadMode: TypeAlias = Literal["constant", "reflect", "symmetric", "edge", "wrap"]
_Number: TypeAlias = complex | np.number[Any] | np.bool_
_Layout: TypeAlias = Literal["NCHW", "NHWC"]

# With `out`, the result is that very array.
@overload
def correlate(
    x: ArrayLike,
    w: ArrayLike,
    *,
    mode: _Mode = "valid",
    stride: _Pair = 1,
    padding: _Padding = 0,
    dilation: _Pair = 1,
    groups: SupportsIndex = 1,
    pad_mode: _PadMode = "constant",
    pad_value: _Number = 0,
    layout: _Layout = "NCHW",
    bias: ArrayLike | None = None,
    out: None = None,
    dtype: DTypeLike | None = None,
    method: str = "auto",
    workers: SupportsIndex | None = None,
) -> NDArray[Any]: ...
@overload
def correlate(
    x: ArrayLike,
    w: ArrayLike,
    *,
    mode: _Mode = "valid",
    stride: _Pair = 1,
    padding: _Padding = 0,
    dilation: _Pair = 1,
    groups: SupportsIndex = 1,
    pad_mode: _PadMode = "constant",
    pad_value: _Number = 0,
    layout: _Layout = "NCHW",
    bias: ArrayLike | None = None,
    out: _Out,
    dtype: DTypeLike | None = None,
    method: str = "auto",
    workers: SupportsIndex | None = None,
) -> _Out: ...
@overload
def convolve(
    x: ArrayLike,
    w: ArrayLike,
    *,
    flip_channels: bool = False,
    mode: _Mode = "valid",
    stride: _Pair = 1,
    padding: _Padding = 0,
    dilation: _Pair = 1,
    groups: SupportsIndex = 1,
    pad_mode: _PadMode = "constant",
    pad_value: _Number = 0,
    layout: _Layout = "NCHW",
    bias: ArrayLike | None = None,
    out: None = None,
    dtype: DTypeLike | None = None,
    method: str = "auto",
    workers: SupportsIndex | None = None,
) -> NDArray[Any]: ...
@overload
def convolve(
    x: ArrayLike,
    w: ArrayLike,
    *,
    flip_channels: bool = False,
    mode: _Mode = "valid",
    stride: _Pair = 1,
    padding: _Padding = 0,
    dilation: _Pair = 1,
    groups: SupportsIndex = 1,
    pad_mode: _PadMode = "constant",
    pad_value: _Number = 0,
    layout: _Layout = "NCHW",
    bias: ArrayLike | None = None,
    out: _Out,
    dtype: DTypeLike | None = None,
    method: str = "auto",
    workers: SupportsIndex | None = None,
) -> _Out: ...

@disjoint_base
class Plan:
    def __new__(
        cls,
        w: ArrayLike,
        x_shape: Iterable[SupportsIndex],
        *,
        operation: Literal["correlate", "convolve"] = "correlate",
        flip_channels: bool = False,
        mode: _Mode = "valid",
        stride: _Pair = 1,
        padding: _Padding = 0,
        dilation: _Pair = 1,
        groups: SupportsIndex = 1,
        pad_mode: _PadMode = "constant",
        pad_value: _Number = 0,
        layout: _Layout = "NCHW",
        bias: ArrayLike | None = None,
        dtype: DTypeLike | None = None,
        method: str = "auto",
        workers: SupportsIndex | None = None,
    ) -> Self: ...
    @overload
    def __call__(self, x: ArrayLike, out: None = None) -> NDArray[Any]: ...
    @overload
    def __call__(self, x: ArrayLike, out: _Out) -> _Out: ...
    @property
    def operation(self) -> str: ...
    @property
    def method(self) -> str: ...
    @property
    def isa(self) -> str: ...
    @property
    def predicted(self) -> dict[str, float]: ...
    @property
    def measured(self) -> dict[str, float]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def x_shape(self) -> tuple[int, ...]: ...
    @property
    def y_shape(self) -> tuple[int, ...]: ...
    @property
    def flops(self) -> int: ...
    @property
    def workspace_bytes(self) -> int: ...
    @property
    def packed_bytes(self) -> int: ...
    def explain(self) -> str: ...
    def __reduce__(self) -> NoReturn: ...
