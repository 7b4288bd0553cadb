"""What the choice of a method costs: every method measured on drawn shapes, beside what the kernels predict.

    python benchmarks/choice.py                         # 252 drawn shapes
    python benchmarks/choice.py --shapes drawn:90:1 depthwise --dtype float64 --isa avx2 --json choice.json

The regret of a shape is the time of the method that `auto` takes over that of the fastest, with one worker, through a
Plan. Goals: 1.10 in the geometric mean, 1.25 at worst. Then the calibration: for each method the measured cycles over
the predicted ones, as quantiles over the shapes. A cost is right where all methods' ratios are equal, so it is the
differences between them that the constants of `*_cost` in the kernels are corrected by. A cycle is that of the FMA
peak, measured in the same turns. Run it on an idle machine.
"""

import argparse
import functools
import json
import sys
from pathlib import Path

import numpy as np
import roofline
from clock import best_times
from shapes import resolve

import fastconv
from fastconv import _plan

MOST = 20  # predicted to take so many times as long as the fastest method, a method isn't measured
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def measure(shape, dtype, seconds):
    """The method that is chosen; for each method, predicted cycles, and measured ones unless it is far behind."""
    x, w = shape.arrays(dtype)
    chosen = fastconv.Plan(w, x.shape, workers=1, **shape.options)
    predicted = chosen.predicted
    out = np.empty(chosen.y_shape, dtype)
    calls = {"peak": roofline.contenders(dtype)["peak"]}
    for method, cycles in predicted.items():
        if cycles <= MOST * min(predicted.values()):
            plan = fastconv.Plan(w, x.shape, workers=1, method=method, **shape.options)
            calls[method] = functools.partial(plan, x, out)
    times = best_times(calls, seconds)
    cycle = times.pop("peak") / roofline.peak_cycles(dtype)
    measured = {method: taken / cycle for method, taken in times.items()}
    return {"method": chosen.method, "predicted": predicted, "measured": measured}


def regret(row):
    return row["measured"][row["method"]] / min(row["measured"].values())


def worst(rows):
    """Lines: the shapes of the largest regrets."""
    for name, row in sorted(rows.items(), key=lambda item: -regret(item[1]))[:20]:
        best = min(row["measured"], key=row["measured"].get)
        if best != row["method"]:
            predicted = row["predicted"][row["method"]] / row["predicted"][best]
            yield f"  {regret(row):5.2f}  {name:44s} {row['method']}, predicted {predicted:.2f} of {best}"


def calibration(rows):
    """Lines: each method's measured cycles by predicted ones, over all shapes that it was measured on."""
    for method in _plan.METHODS:
        found = [row for row in rows.values() if method in row["measured"]]
        if found:
            ratios = [row["measured"][method] / row["predicted"][method] for row in found]
            quantiles = " ".join(f"{value:7.2f}" for value in np.quantile(ratios, QUANTILES))
            yield f"  {method:14s} {len(found):4d} shapes {quantiles}"


def report(rows):
    regrets = [regret(row) for row in rows.values()]
    mean = np.exp(np.mean(np.log(regrets)))
    yield f"regret: geometric mean {mean:.3f} (goal 1.10), worst {max(regrets):.2f} (goal 1.25), {len(rows)} shapes"
    yield from worst(rows)
    yield f"measured cycles / predicted ones: quantiles {QUANTILES}"
    yield from calibration(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=["drawn:252:0"], help="as of compare.py")
    parser.add_argument("--dtype", default="float32", choices=["float32", "float64"])
    parser.add_argument("--isa", help="force an instruction set")
    parser.add_argument("--seconds", type=float, default=0.1, help="time for each method of each shape")
    parser.add_argument("--json", type=Path, help="file for everything")
    options = parser.parse_args()
    try:
        shapes = resolve(options.shapes)
    except ValueError as error:
        parser.error(str(error))
    if options.isa:
        _plan.use_isa(options.isa)
    rows = {}
    for name, shape in shapes.items():
        row = rows[name] = measure(shape, options.dtype, options.seconds)
        print(f"{regret(row):6.2f}  {name:44s} {row['method']}", flush=True)
    print(*report(rows), sep="\n")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    sys.exit(main())
