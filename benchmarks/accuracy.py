"""The accuracy contract as a table: the worst ratio of error to bound, by method, dtype and shape. All are to be <= 1.

Of the direct methods each element has a bound, of the others the largest of these holds for all.

    python benchmarks/accuracy.py [--isa avx2]

Values are of either sign over six decades, so that sums cancel. Exact sums and bounds come from the tests' oracle,
which knows nothing of the library, for a sample of filters.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from shapes import resolve

import fastconv
from fastconv import _plan

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import oracle

DTYPES = ("float16", "float32", "float64", "complex64", "complex128", "int8", "int32", "int64")
METHODS = _plan.METHODS
NAMES = (
    "seed", "digit", "thumbnail", "vgg-rgb", "rgb-7x7", "64x58", "256x16", "512x9", "2048x7-1x1", "excitation",
    "gray-11x11",
)
OPTIONS = {  # one padded, dilated, grouped and strided problem beside the plain ones
    "odd": (
        (2, 12, 61, 47),
        (9, 4, 5, 3),
        {"groups": 3, "stride": (2, 3), "dilation": 2, "padding": 4, "pad_mode": "wrap"},
    )
}
MOST_PIXELS = 300 * 300


def problem(name, dtype):
    """x, w and options of a named shape, cut to a size that the oracle can manage."""
    if name in OPTIONS:
        x_shape, w_shape, options = OPTIONS[name]
    else:
        shape, options = resolve([name])[name], {}
        side = min(shape.H, int(MOST_PIXELS**0.5))
        x_shape, w_shape = (1, shape.C, side, min(shape.W, side)), (min(shape.K, 6), *shape.w[1:])
    rng = np.random.default_rng(0)
    return *(values(rng, size, np.dtype(dtype)) for size in (x_shape, w_shape)), options


def values(rng, size, dtype):
    if dtype.kind == "i":
        info = np.iinfo(dtype)
        return rng.integers(info.min, info.max, size, dtype, endpoint=True)
    decades = 2 if dtype.name == "float16" else 6
    real = rng.standard_normal(size) * 10.0 ** rng.uniform(-decades / 2, decades / 2, size)
    return (real + 1j * rng.permuted(real) if dtype.kind == "c" else real).astype(dtype)


def worst_ratio(y, exact, bound):
    """Of error to bound; where the bound is 0, which it is of integers, any error is infinitely many."""
    if bound.dtype.kind == "c":
        return max(worst_ratio(y.real, exact.real, bound.real), worst_ratio(y.imag, exact.imag, bound.imag))
    error = np.abs(y.astype(exact.dtype) - exact) if y.dtype.kind == "f" else (y != exact).astype(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.nanmax(np.where(error == 0, 0.0, error / bound)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--isa", help="force an instruction set")
    options = parser.parse_args()
    if options.isa:
        _plan.use_isa(options.isa)
    print(f"worst error / bound, {fastconv.Plan([[1.0]], (1, 1)).isa}; - where a method can't compute a shape")
    print(f"{'':27s}" + "".join(f"{dtype:>11s}" for dtype in DTYPES))
    worst = 0.0
    for name in (*NAMES, *OPTIONS):
        ratios = {}
        for dtype in DTYPES:
            x, w, geometry = problem(name, dtype)
            exact, bound = oracle.correlate(x, w, **geometry)
            for method in METHODS:
                try:
                    y = fastconv.correlate(x, w, method=method, **geometry)
                except ValueError:
                    continue
                direct = method.startswith("direct")
                ratios[method, dtype] = worst_ratio(y, exact, bound if direct else oracle.largest(bound))
        for method in METHODS:
            cells = (ratios.get((method, dtype)) for dtype in DTYPES)
            row = "".join(f"{'-':>11s}" if ratio is None else f"{ratio:11.3f}" for ratio in cells)
            print(f"{name:12s}{method:15s}{row}", flush=True)
        worst = max([worst, *ratios.values()])
    print(f"the worst of all is {worst:.3f}")
    return 0 if worst <= 1 else 1


if __name__ == "__main__":
    sys.exit(main())
