"""fastconv and its peers side by side: times, ratios and errors of named shapes, with one thread and with two.

    python benchmarks/compare.py                       # the list of shapes that the project is measured by
    python benchmarks/compare.py --shapes small 1,8,40,40,8,3,3,2,1 drawn:20:7 --verbose --json all.json --plot all.png

Each shape and number of threads is a row: `Plan` against the best of all peers, and `correlate` against the best of
those that are given plain arrays too. A ratio is the peer's time over ours, so below 1 is a loss. Errors are the
largest ones, against a sum in float64, as a share of its largest sum of magnitudes. The roofline is that of the direct
sum: the FMA peak of as many cores, or the bytes of x, w and y at the rate that one core copies 4 MiB at.

Each number of threads has a process of its own, with as many CPUs. There contenders take turns; times are the best of
many samples. A peer that took 10 times as long as the best, and 20 ms, in its first three calls isn't called again.
Each call makes a new result, but those of peers that can do without. Exits with 1 if a contender fails or is wrong. Run
it on an idle machine.
"""

import argparse
import concurrent.futures
import contextlib
import importlib.metadata
import importlib.util
import itertools
import json
import multiprocessing
import os
import platform
import sys
import time
from pathlib import Path

import numpy as np
import peers
import roofline
from clock import best_times
from shapes import SETS, resolve

import fastconv

PLAN, PLAIN = "fastconv plan", "fastconv plain"
TOLERANCE = 1e-5  # a few times Winograd's in float32; sums in bfloat16, or that lack something, are further off
MANY_TAPS = 100  # from here on float64's sum is made by FFT


def reference(shape, x, w):
    """The correlation in float64, and the largest sum of magnitudes."""
    x, w = peers.grouped(shape, peers.padded(shape, x.astype(float)), w.astype(float))
    h, v = x.shape[-2:]
    p, q = h - shape.R + 1, v - shape.S + 1

    def by_taps(x, w):
        y = np.zeros((*x.shape[:2], w.shape[1], p * q))
        for r, s in np.ndindex(shape.R, shape.S):
            y += w[..., r, s] @ x[..., r : r + p, s : s + q].reshape(*x.shape[:3], -1)
        return y.reshape(*y.shape[:3], p, q)

    def by_fft(x, w):
        spectra = np.fft.rfft2(x), np.fft.rfft2(w, (h, v)).conj()
        return np.fft.irfft2(np.einsum("ngcpq,gkcpq->ngkpq", *spectra), (h, v))[..., :p, :q]

    correlate = by_fft if shape.R * shape.S > MANY_TAPS else by_taps
    every = (..., slice(None, None, shape.stride), slice(None, None, shape.stride))
    return correlate(x, w)[every].reshape(shape.y), correlate(abs(x), abs(w))[every].max()


def timed(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def trial(call):
    """Best of three calls; of one, if that takes long."""
    first = timed(call)
    return first if first > 0.2 else min(first, timed(call), timed(call))


def measure(shape, threads, names, seconds):
    """A row: times in seconds and errors by contender, and why others have none. In a process with its threads."""
    x, w = shape.arrays()
    x = x.reshape(shape.N, shape.C, shape.H, shape.W)
    calls, errors, skipped, failed = {}, {}, {}, {}
    for name, peer in {"fastconv": peers.fastconv, **{name: peers.PEERS[name].contenders for name in names}}.items():
        try:
            found = peer(shape, x, w, threads)
        except Exception as error:  # whatever a peer may raise: it is reported, and the others go on
            failed[name] = repr(error)
            continue
        for variant, call in found.items():
            (skipped if isinstance(call, str) else calls)[f"{name} {variant}"] = call
    exact, largest = reference(shape, x, w)
    for name, call in calls.items():
        try:
            errors[name] = float(np.abs(peers.to_numpy(call()).reshape(shape.y) - exact).max() / largest)
        except Exception as error:
            failed[name] = repr(error)
        else:
            if not errors[name] <= TOLERANCE:  # nor is NaN
                failed[name] = f"wrong, with an error of {errors[name]:.1e}"
    calls = {name: call for name, call in calls.items() if name not in failed}
    tried = {name: trial(call) for name, call in calls.items()}
    limit = max(10 * min(tried.values()), 0.02)
    once = {name: taken for name, taken in tried.items() if taken > limit and name not in (PLAN, PLAIN)}
    turns = {name: call for name, call in calls.items() if name not in once} | roofline.contenders()
    times = best_times(turns, seconds, settled=threads > 1)
    peak, copy = roofline.rates({name: times.pop(name) for name in ("peak", "copy")})
    return {
        "threads": threads,
        "method": fastconv.Plan(w, x.shape, **shape.options).method,
        "times": times | once,
        "once": list(once),
        "errors": errors,
        "skipped": skipped,
        "failed": failed,
        "peak": peak,
        "copy": copy,
        "roofline": roofline.least_time(shape, threads * peak, copy),
    } | ratios(times | once)


def ratios(times):
    """The best peers of both kinds and what they take by our time: 0 where ours has failed, None without a peer."""
    theirs = {name: taken for name, taken in times.items() if name not in (PLAN, PLAIN)}
    plain = {name: taken for name, taken in theirs.items() if name.split()[1] == "plain"}
    row = {}
    for ours, rivals, prefix in ((PLAN, theirs, ""), (PLAIN, plain, "plain_")):
        best = min(rivals, key=rivals.get, default=None)
        row[prefix + "best"] = best
        row[prefix + "ratio"] = best and rivals[best] / times.get(ours, float("inf"))
    return row


@contextlib.contextmanager
def limited(threads):
    """For processes that are started here: CPUs and pools of as many threads.

    What a pool's size is set by when its library is loaded can't be set later, and jax's is the number of CPUs.
    """
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NPROC")
    before = {name: os.environ.get(name) for name in names}
    os.environ |= dict.fromkeys(names, str(threads))
    if affinity := hasattr(os, "sched_setaffinity"):
        allowed = os.sched_getaffinity(0)
        os.sched_setaffinity(0, cpus(allowed)[:threads])
    try:
        yield
    finally:
        if affinity:
            os.sched_setaffinity(0, allowed)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def cpus(allowed):
    """The CPUs in the order to take them: one of each core first, and late ones, as CPU 0 has most interrupts."""
    cores = {}
    for cpu in sorted(allowed, reverse=True):
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        cores.setdefault(siblings.read_text() if siblings.exists() else cpu, []).append(cpu)
    return [cpu for turn in itertools.zip_longest(*cores.values()) for cpu in turn if cpu is not None]


def machine(names):
    model = platform.processor()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    packages = sorted({"fastconv", "numpy", *(package for name in names for package in peers.PEERS[name].packages)})
    return {
        "cpu": model,
        "cpus": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "isa": fastconv.Plan([[1.0]], (1, 1)).isa,
        "versions": {package: importlib.metadata.version(package) for package in packages},
    }


HEADER = (
    f"{'shape':38s} threads {'method':14s} {'plan us':>9s} {'plain us':>9s}  {'best peer':25s}{'us':>9s} {'ratio':>7s}"
    f"  {'best of plain':16s}{'us':>9s} {'ratio':>7s}  roofline  error  peers'"
)


def line(row):
    """A row as printed; losses are marked."""

    def microseconds(name):
        return f"{row['times'][name] * 1e6:9.1f}" if name in row["times"] else f"{'-':>9s}"

    def ratio(value):
        return f"{'-':>6s} " if value is None else f"{value:6.2f}{'!' if value < 1 else ' '}"

    share = row["roofline"] / row["times"].get(PLAN, float("inf"))
    worst = max((error for name, error in row["errors"].items() if name not in (PLAN, PLAIN)), default=0.0)
    return (
        f"{row['name']:38s} {row['threads']:7d} {row['method']:14s} {microseconds(PLAN)} {microseconds(PLAIN)}"
        f"  {row['best'] or '-':25s}{microseconds(row['best'])} {ratio(row['ratio'])}"
        f"  {row['plain_best'] or '-':16s}{microseconds(row['plain_best'])} {ratio(row['plain_ratio'])}"
        f" {share:8.2f} {row['errors'].get(PLAN, float('nan')):7.0e} {worst:7.0e}"
    )


def details(row):
    """Every contender of a row, the fastest first."""
    for name in sorted(row["times"], key=row["times"].get):
        note = "  (in its first calls)" if name in row["once"] else ""
        yield f"    {name:25s}{row['times'][name] * 1e6:11.1f} us  error {row['errors'][name]:.1e}{note}"
    for name, reason in row["skipped"].items():
        yield f"    {name:25s} skipped: {reason}"


def summary(rows):
    """Geometric mean, worst ratio and losses, for each number of threads; and what was skipped."""
    for threads in sorted({row["threads"] for row in rows}):
        for what, key in (("Plan", "ratio"), ("correlate", "plain_ratio")):
            found = {row["name"]: row[key] for row in rows if row["threads"] == threads and row[key] is not None}
            if not found:
                continue
            with np.errstate(divide="ignore"):
                mean = np.exp(np.mean(np.log(list(found.values()))))
            worst = min(found, key=found.get)
            lost = [name for name, ratio in found.items() if ratio < 1]
            yield (
                f"{threads} thread{'s' * (threads > 1)}, {what}: geometric mean {mean:.2f}, worst {found[worst]:.2f}"
                f" ({worst}), {len(lost)} losses in {len(found)}{': ' * bool(lost)}{' '.join(lost)}"
            )
    skipped = {}
    for row in rows:
        for name, reason in row["skipped"].items():
            skipped.setdefault((name, reason), {})[row["name"]] = None
    for (name, reason), shapes in skipped.items():
        yield f"skipped: {name}, {reason}: {' '.join(shapes)}"


def plot(rows, file, title):
    """Our time by that of the best peer, a bar a shape, numbers of threads side by side; losses are red."""
    import matplotlib.pyplot as plt  # noqa: PLC0415
    from matplotlib import ticker  # noqa: PLC0415

    counts = sorted({row["threads"] for row in rows})
    names = list(dict.fromkeys(row["name"] for row in rows))
    figure, axes = plt.subplots(
        1, len(counts), sharex=True, sharey=True, squeeze=False, layout="constrained",
        figsize=(3 + 4.5 * len(counts), 1.5 + 0.28 * len(names)),
    )  # fmt: skip
    for axis, threads in zip(axes[0], counts, strict=True):
        found = {row["name"]: row for row in rows if row["threads"] == threads and row["ratio"]}
        relative = [1 / row["ratio"] for row in found.values()]
        places = [names.index(name) for name in found]
        # Bars begin at the best peer's time: what is faster goes left, what is slower right.
        lengths = [value - 1 for value in relative]
        axis.barh(places, lengths, left=1, color=["tab:red" if value > 1 else "tab:blue" for value in relative])
        for place, row in zip(places, found.values(), strict=True):
            axis.text(1.03 if row["ratio"] >= 1 else 0.97, place, row["best"], va="center", fontsize=7,
                      ha="left" if row["ratio"] >= 1 else "right")  # fmt: skip
        axis.axvline(1, color="black", linewidth=0.8)
        axis.set(xscale="log", title=f"{threads} thread{'s' * (threads > 1)}", xlabel="time of Plan / best peer's")
        axis.set_xlim(min([0.5, *relative]) / 1.2, max([1.2, *relative]) * 2)  # with room for names
        axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
        axis.xaxis.set_minor_formatter(ticker.NullFormatter())
        axis.set_yticks(range(len(names)), names, fontsize=8)
        axis.grid(axis="x", which="both", alpha=0.3)
    axes[0, 0].invert_yaxis()
    figure.suptitle(title, fontsize=9)
    figure.savefig(file, dpi=120)
    plt.close(figure)


def parse_arguments(arguments=None):
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2][:available])
    parser.add_argument(
        "--shapes", nargs="+", default=["issue"],
        help=f"sets ({', '.join(SETS)}), names, N,C,H,W,K,R,S,stride,padding,groups, and drawn:COUNT:SEED",
    )  # fmt: skip
    parser.add_argument("--peers", nargs="+", choices=peers.PEERS, default=list(peers.PEERS))
    parser.add_argument("--seconds", type=float, default=1.0, help="time for each contender of each row")
    parser.add_argument("--verbose", action="store_true", help="print every contender")
    parser.add_argument("--json", type=Path, help="file for everything")
    parser.add_argument("--plot", type=Path, help="PNG file for the ratios")
    options = parser.parse_args(arguments)
    try:
        options.shapes = resolve(options.shapes)
    except ValueError as error:
        parser.error(str(error))
    if not all(1 <= threads <= available for threads in options.threads):
        parser.error(f"--threads are 1 to {available}, the CPUs that there are, not {options.threads}")
    if options.plot and importlib.util.find_spec("matplotlib") is None:
        parser.error("--plot needs matplotlib")
    return options


def main():
    options = parse_arguments()
    missing = peers.missing(options.peers)
    for name, packages in missing.items():
        print(f"missing: {name}, which needs {' and '.join(packages)}: pip install 'fastconv[bench]'")
    names = [name for name in options.peers if name not in missing]
    about = machine(names)
    versions = ", ".join(f"{package} {version}" for package, version in about["versions"].items())
    print(f"{about['cpu']}, {about['isa']}; {versions}\n{HEADER}", flush=True)
    rows = []
    for threads in options.threads:
        context = multiprocessing.get_context("spawn")
        with limited(threads), concurrent.futures.ProcessPoolExecutor(1, context) as pool:
            for name, shape in options.shapes.items():
                row = pool.submit(measure, shape, threads, names, options.seconds).result()
                rows.append({"name": name, "shape": shape._asdict(), **row})
                print(line(rows[-1]), *(details(row) if options.verbose else ()), sep="\n", flush=True)
                for contender, reason in row["failed"].items():
                    print(f"    FAILED: {contender}: {reason}", flush=True)
    print(*summary(rows), sep="\n")
    if options.json:
        everything = {"machine": about, "seconds": options.seconds, "missing": missing, "rows": rows}
        options.json.write_text(json.dumps(everything, indent=1))
    if options.plot:
        plot(rows, options.plot, f"{about['cpu']}, {about['isa']}")
    return int(any(row["failed"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
