"""What the machine can do at most, measured as contenders beside what is compared with it."""

import numpy as np

from fastconv import _kernels

PEAK_ROUNDS = 100_000
COPY_BYTES = 4 << 20


def contenders(dtype="float32"):
    """Multiply-adds in registers, of one core, and NumPy's copy of 4 MiB."""
    kernel = _kernels.load(_kernels.isa)
    source, target = np.ones(COPY_BYTES, np.uint8), np.zeros(COPY_BYTES, np.uint8)
    return {
        "peak": lambda: kernel.flops("peak", dtype, PEAK_ROUNDS),
        "copy": lambda: np.copyto(target, source),
    }


def rates(times, dtype="float32"):
    """Flops and bytes a second, of the times that the contenders took. A copy reads and writes: both count."""
    flops = _kernels.load(_kernels.isa).flops("peak", dtype, PEAK_ROUNDS)
    return flops / times["peak"], 2 * COPY_BYTES / times["copy"]


def peak_cycles(dtype="float32"):
    """Of the contender "peak": it issues as many multiply-adds of vectors in each as the CPU can."""
    kernel = _kernels.load(_kernels.isa)
    return kernel.flops("peak", dtype, PEAK_ROUNDS) / kernel.flops_a_cycle(dtype)


def least_time(shape, flop_rate, byte_rate, itemsize=4):
    """The roofline: no direct sum of this shape takes less time."""
    return max(shape.flops / flop_rate, shape.bytes * itemsize / 4 / byte_rate)
