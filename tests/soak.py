"""Many threads for a long time: ``python tests/soak.py --minutes 10 [--threads 16] [--seed N]``.

Each thread makes calls of all kinds, one-off and of plans of its own, and calls of one plan that all threads share,
with different numbers of workers. All results are checked against a sum that NumPy does; memory doesn't grow.
"""

import argparse
import collections
import contextlib
import ctypes
import gc
import mmap
import random
import sys
import threading
import time

import numpy as np

import fastconv

GROWTH = 32 << 20  # most bytes by which the last quarter's average may be above the second's
M_ARENA_MAX = -8  # of glibc's malloc.h
SETTLED = 2  # minutes; in shorter runs threads and their arenas are still new
DTYPES = ("float32", "float64", "int8", "uint8", "int32", "int64", "bool", "float16", "complex64")


def summed(x, w, bias, *, stride, padding, dilation, groups, pad_mode="constant", layout="NCHW"):
    """The sum by NumPy alone; exact for small integers, of whatever dtype. Takes x as 4-D."""
    wide = np.complex128 if x.dtype.kind == "c" else np.float64
    if layout == "NHWC":
        x = np.moveaxis(x, 3, 1)
    x = np.pad(x.astype(wide), ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2), pad_mode)
    rows, columns = ((size - 1) * step + 1 for size, step in zip(w.shape[2:], dilation, strict=True))
    windows = np.lib.stride_tricks.sliding_window_view(x, (rows, columns), axis=(2, 3))
    windows = windows[:, :, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]
    parts = zip(np.split(windows, groups, 1), np.split(w.conj().astype(wide), groups), strict=True)
    y = np.concatenate([np.einsum("ncpqrs,kcrs->nkpq", *part, optimize=True) for part in parts], 1)
    y = y + bias.astype(wide)[:, None, None]
    return np.moveaxis(y, 1, 3) if layout == "NHWC" else y


def rounded(y, dtype):
    """The exact sum as the library's result of that dtype."""
    if np.dtype(dtype).kind in "iu":
        return y.astype(np.int64).astype(dtype)
    return y.astype(dtype)


def equal(y, exact):
    """Whether a result is the exact one, of integers. Methods that round come so near that rounding gives it back."""
    return np.array_equal(np.rint(y) if y.dtype.kind in "fc" else y, exact)


def problem(rng, numbers):
    """x, w, bias and options of a problem of some thousand to some million multiplications."""
    groups, c = rng.choice(((1, 1), (1, 3), (1, 16), (2, 4), (4, 1)))
    k, r, s = groups * rng.choice((1, 2, 8, 33)), rng.choice((1, 3, 5)), rng.choice((1, 2, 3))
    options = {
        "groups": groups,
        "stride": rng.choice(((1, 1), (1, 1), (2, 2), (1, 3))),
        "padding": rng.choice(((0, 0), (0, 0), (1, 1), (2, 0))),
        "dilation": rng.choice(((1, 1), (1, 1), (2, 1), (2, 2))),
        "pad_mode": rng.choice(("constant", "reflect", "edge", "wrap")),
        "layout": rng.choice(("NCHW", "NHWC")),
    }
    n, height, width, dtype = rng.choice((1, 1, 2)), rng.randrange(12, 60), rng.randrange(12, 100), rng.choice(DTYPES)
    sizes = (n, height, width, groups * c) if options["layout"] == "NHWC" else (n, groups * c, height, width)
    x, w, bias = (numbers.integers(-3, 4, size).astype(dtype) for size in (sizes, (k, c, r, s), k))
    return x, w, bias, options


def call(rng, x, w, bias, options):
    """The result, in one of the ways to ask for it."""
    options = options | {"workers": rng.choice((None, 1, 2, 3, 8))}
    way = rng.randrange(4)
    if way == 0:
        return fastconv.Plan(w, x.shape, bias=bias, **options)(x)
    if way == 1 and w.dtype.kind != "c":
        return fastconv.convolve(x, w[:, :, ::-1, ::-1], bias=bias, **options)
    if way == 2:
        out = np.empty(fastconv.Plan(w, x.shape, **options).y_shape, x.dtype)
        return fastconv.correlate(x, w, bias=bias, out=out, **options)
    with fastconv.set_workers(rng.choice((1, 2, 4))):
        return fastconv.correlate(x, w, bias=bias, **(options | {"workers": None}))


class Shared:
    """One plan, and images with their exact results, for all threads."""

    def __init__(self):
        numbers = np.random.default_rng(0)
        self.images = [numbers.integers(-3, 4, (1, 8, 40, 70)).astype(np.float32) for _ in range(8)]
        w, bias = (numbers.integers(-3, 4, size).astype(np.float32) for size in ((20, 4, 3, 3), 20))
        options = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 2, "pad_mode": "reflect"}
        self.results = [summed(x, w, bias, **options) for x in self.images]
        self.plan = fastconv.Plan(w, self.images[0].shape, bias=bias, workers=2, **options)

    def right(self, number):
        number %= len(self.images)
        return equal(self.plan(self.images[number]), self.results[number])


def resident_bytes():
    """Of this process, after all that is freed has been given back; 0 where that can't be told."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
    with contextlib.suppress(OSError), open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * mmap.PAGESIZE
    return 0


def share_one_heap():
    """With a heap for each thread, what one has freed fits no other's arrays: memory grows without calls too."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or mallopt(M_ARENA_MAX, 1) != 1:
        print("NOTE: this C library has no mallopt with M_ARENA_MAX: memory may grow without a leak", flush=True)


def soak(seed, thread, *, end, shared, counts, failures):
    rng = random.Random(f"{seed} {thread}")
    numbers = np.random.default_rng(rng.randrange(2**63))
    try:
        while time.monotonic() < end and not failures:
            x, w, bias, options = problem(rng, numbers)
            exact = rounded(summed(x, w, bias, **options), x.dtype)
            for _ in range(4):
                if not equal(call(rng, x, w, bias, options), exact):
                    failures.append(f"thread {thread}: wrong result of {x.shape} by {w.shape}, {x.dtype}, {options}")
                if not shared.right(rng.randrange(100)):
                    failures.append(f"thread {thread}: wrong result of the shared plan")
                counts[thread] += 2
    except BaseException as error:
        failures.append(f"thread {thread}: {error!r}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    args = parser.parse_args()
    share_one_heap()
    shared, counts, failures = Shared(), collections.Counter(), []
    start = time.monotonic()
    end = start + args.minutes * 60
    threads = [
        threading.Thread(
            target=soak,
            args=(args.seed, thread),
            kwargs={"end": end, "shared": shared, "counts": counts, "failures": failures},
        )
        for thread in range(args.threads)
    ]
    for thread in threads:
        thread.start()
    samples = []
    while any(thread.is_alive() for thread in threads):
        time.sleep(min(1, args.minutes))
        samples.append(resident_bytes())
    quarter = len(samples) // 4
    before, after = np.mean(samples[quarter : 2 * quarter + 1]), np.mean(samples[-quarter - 1 :])
    print(f"resident memory: {before / 2**20:.0f} MiB in the second quarter, {after / 2**20:.0f} MiB in the last")
    if after - before > GROWTH and args.minutes > SETTLED:
        failures.append("memory grows")
    print(
        f"seed {args.seed}: {counts.total()} results of {args.threads} threads checked in "
        f"{time.monotonic() - start:.0f} s: {'FAILED' if failures else 'no failures'}",
        *failures,
        sep="\n",
    )
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
