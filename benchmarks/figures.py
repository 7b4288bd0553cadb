"""The direct path's figures, all as ratios in one run: layers with one and two workers, tiny calls, memory, import.

    python benchmarks/figures.py [--dtype float64] [--seconds 2] [--only tiny memory]

Each row ends with its goal. Rates are of the direct sum's flops; the peak is of multiply-adds in registers, the copy
is of 4 MiB by NumPy, both measured in turn with the row's own call. Run it on an idle machine.
"""

import argparse
import subprocess
import sys

import numpy as np
import roofline
from clock import best_times
from shapes import SHAPES, arrays

import fastconv
from fastconv import _kernels

# Shape: its goal, and what the goal is a share of.
LAYERS = {
    "64x58": (0.90, "peak"),
    "128x30": (0.90, "peak"),
    "256x16": (0.90, "peak"),
    "256x56-1x1": (0.90, "peak"),
    "512x9": (0.80, "peak"),
    "2048x7-1x1": (0.80, "peak"),
    "rgb-7x7": (0.85, "peak"),
    "vgg-rgb": (0.60, "roofline"),
    "gray-3x3": (0.45, "roofline"),
}


def layers(dtype, seconds):
    """Layers through a direct Plan, with one worker and with two."""
    print(f"layers, {dtype}, {_kernels.isa}: share of the FMA peak or of the roofline; two workers against one")
    for name, (goal, limit) in LAYERS.items():
        shape, (x, w) = SHAPES[name], arrays(name, dtype)
        one, two = (fastconv.Plan(w, x.shape, method="direct", workers=workers) for workers in (1, 2))
        out = one(x)
        times = best_times(
            {
                **roofline.contenders(dtype),
                "one": lambda one=one, x=x, out=out: one(x, out),
                "two": lambda two=two, x=x, out=out: two(x, out),
            },
            seconds,
        )
        peak, copy = roofline.rates(times, dtype)
        least = roofline.least_time(shape, peak, copy, x.itemsize)
        reached = (shape.flops / peak if limit == "peak" else least) / times["one"]
        print(
            f"  {name:12s} {one.method:15s} {times['one'] * 1e6:8.0f} us"
            f" {shape.flops / times['one'] / 1e9:6.1f} GFLOP/s"
            f"  {reached:.3f} of {limit:8s} goal {goal:.2f}   two workers {times['one'] / times['two']:.2f}x"
            + ("  goal 1.85" if times["one"] > 0.5e-3 else "")
        )


def tiny(dtype, seconds):
    """The seed example, against a NumPy ufunc call."""
    x, w = arrays("seed", dtype)
    plan = fastconv.Plan(w, x.shape)
    times = best_times(
        {
            "np.add(x, x)": lambda: np.add(x, x),
            "correlate": lambda: fastconv.correlate(x, w),
            "plan": lambda: plan(x),
        },
        seconds,
    )
    print("tiny, 3x5x5 by 1x3x2x2: against np.add(x, x)")
    for name, taken in times.items():
        print(f"  {name:12s} {taken * 1e9:6.0f} ns  {taken / times['np.add(x, x)']:.2f}x  goal 2.00")


MEMORY = """
import numpy as np, fastconv
from shapes import SHAPES

def status(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))

shape = SHAPES[{name!r}]
x, w, y = (np.ones(sizes, {dtype!r}) for sizes in (shape.x, shape.w, shape.y[1:]))
fastconv.correlate(np.ones((1, 40, 40), {dtype!r}), np.ones((1, 1, 1, 1), {dtype!r}))
open("/proc/self/clear_refs", "w").write("5")   # the peak begins anew
before = status("VmRSS")
plan = fastconv.Plan(w, x.shape, method="direct", workers=1)
plan(x, y)
print(status("VmHWM") - before, plan.packed_bytes >> 10)
"""


def memory(dtype, seconds):
    """Memory of plan and call, by what the process grew (Linux)."""
    print("memory: growth of the process beyond x, w and y, with one worker")
    for name in ("512x9", "rgb-7x7", "gray-3x3"):
        grown, packed = map(int, run(MEMORY.format(name=name, dtype=dtype)).split())
        print(f"  {name:12s} {grown:6d} KiB, packed weights {packed} KiB; goal {packed + 1024} KiB")


def import_time(dtype, seconds):
    """What importing fastconv adds to importing NumPy."""
    code = "import time, numpy; start = time.perf_counter(); import fastconv; print(time.perf_counter() - start)"
    print(f"import: fastconv adds {min(float(run(code)) for _ in range(15)) * 1e3:.1f} ms to NumPy; goal 10.0")


def run(code):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=sys.path[0]
    ).stdout


def main():
    sections = {"layers": layers, "tiny": tiny, "memory": memory, "import": import_time}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", default="float32", choices=["float32", "float64"])
    parser.add_argument("--seconds", type=float, default=2.0, help="time for each contender")
    parser.add_argument("--only", nargs="+", choices=sections, default=list(sections), help="sections")
    options = parser.parse_args()
    for name in options.only:
        sections[name](options.dtype, options.seconds)


if __name__ == "__main__":
    main()
