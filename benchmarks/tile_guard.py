"""The tile guard: register tiles' rates as a share of the multiply-add peak, measured in the same run.

A register tile that isn't unrolled or spills to memory is 2 to 20 times slower and raises no error. Run this with
each compiler:

    python benchmarks/tile_guard.py            # the goals: 95 % (AVX-512, AVX2), 70 % (baseline), 60 % (groups)
    python benchmarks/tile_guard.py --quick    # only far misses fail: for busy machines

"tile" is that of filter_lanes.pxi, "groups" that of depthwise layers, which reads a vector for each multiply-add.
Exits with 1 where an instruction set misses its goal.
"""

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor

from clock import best_times

from fastconv import _cpu, _kernels

GOALS = {"baseline": 0.70, "avx2": 0.95, "avx512": 0.95}
GROUPS_GOAL = 0.6
QUICK_GOAL = 0.5
ROUNDS = {"peak": 20_000, "tile": 200, "groups": 4000}


def rates_of(isa, dtype, seconds):
    """Flops a second of each; the best on two stacks: on Zen 3 one in thirty costs "groups" of Clang two thirds."""
    kernel = _kernels.load(isa)
    calls = {what: lambda what=what: kernel.flops(what, dtype, ROUNDS[what]) for what in ROUNDS}
    here = best_times(calls, seconds / 2)
    with ThreadPoolExecutor(1) as thread:
        there = thread.submit(best_times, calls, seconds / 2).result()
    return {what: calls[what]() / min(here[what], there[what]) for what in ROUNDS}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short, and only far misses fail")
    quick = parser.parse_args().quick
    missed = False
    print(f"compiler: {_cpu.compiler}")
    for isa in _cpu.supported_isas():
        for dtype in ("float32", "float64"):
            rates = rates_of(isa, dtype, 1.0 if quick else 2.0)
            for what, idle_goal in (("tile", GOALS[isa]), ("groups", GROUPS_GOAL)):
                goal = min(idle_goal, QUICK_GOAL) if quick else idle_goal
                low = rates[what] < goal * rates["peak"]
                missed |= low
                print(
                    f"{isa:9s} {dtype}  {what:6s} {rates[what] / 1e9:6.1f}  peak {rates['peak'] / 1e9:6.1f} GFLOP/s"
                    f"  share {rates[what] / rates['peak']:5.3f}  goal {goal:.2f}{'  MISSED' if low else ''}"
                )
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
