"""The tile guard: the register tile's rate as a share of the multiply-add peak, measured in the same run.

A register tile that isn't unrolled or spills to memory is 4 to 20 times slower and raises no error. Run this with
each compiler:

    python benchmarks/tile_guard.py            # the goals: 95 % (AVX-512, AVX2), 70 % (baseline)
    python benchmarks/tile_guard.py --quick    # only far misses fail: for busy machines

Exits with 1 where an instruction set misses its goal.
"""

import argparse
import sys

from clock import best_times

from fastconv import _cpu, _kernels

GOALS = {"baseline": 0.70, "avx2": 0.95, "avx512": 0.95}
QUICK_GOAL = 0.5
ROUNDS = {"peak": 20_000, "tile": 200}


def share(isa, dtype, seconds):
    """The tile's flops a second, and the peak's."""
    kernel = _kernels.load(isa)
    calls = {what: lambda what=what: kernel.flops(what, dtype, ROUNDS[what]) for what in ROUNDS}
    times = best_times(calls, seconds)
    return [calls[what]() / times[what] for what in ("tile", "peak")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short, and only far misses fail")
    quick = parser.parse_args().quick
    missed = False
    print(f"compiler: {_cpu.compiler}")
    for isa in _cpu.supported_isas():
        for dtype in ("float32", "float64"):
            goal = min(GOALS[isa], QUICK_GOAL) if quick else GOALS[isa]
            tile, peak = share(isa, dtype, 1.0 if quick else 2.0)
            missed |= tile < goal * peak
            print(
                f"{isa:9s} {dtype}  tile {tile / 1e9:6.1f}  peak {peak / 1e9:6.1f} GFLOP/s  share {tile / peak:5.3f}"
                f"  goal {goal:.2f}{'  MISSED' if tile < goal * peak else ''}"
            )
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
