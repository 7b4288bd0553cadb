"""Workers: how many there are by default, set and asked for, and that calls survive threads and forks."""

import concurrent.futures
import os
import random
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest
import soak
import threadpoolctl
from cases import methods, reals, same_bits, shape

import fastconv
from fastconv import _threads

CPUS = os.cpu_count()
BAD = [(0, ValueError), (-CPUS - 1, ValueError), (1.0, TypeError), ("2", TypeError), ([1], TypeError)]

needs_openmp = pytest.mark.skipif(not _threads.openmp, reason="fastconv was built without OpenMP")
needs_limits = pytest.mark.skipif(
    not sys.platform.startswith("linux") or "libasan" in os.environ.get("LD_PRELOAD", ""),
    reason="limits of address space are Linux's to keep, and the address sanitizer needs terabytes of it",
)
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def lines(script):
    return textwrap.dedent(script)


@pytest.mark.parametrize(("workers", "number"), [(1, 1), (2, 2), (999, 999), (-1, CPUS), (-CPUS, 1), (np.int64(3), 3)])
def test_set_workers(workers, number):
    """As in scipy.fft: negative numbers count from the number of CPUs."""
    before = fastconv.get_workers()
    with fastconv.set_workers(workers):
        assert fastconv.get_workers() == number
    assert fastconv.get_workers() == before


def test_nested():
    with fastconv.set_workers(5):
        with fastconv.set_workers(3):
            assert fastconv.get_workers() == 3
        assert fastconv.get_workers() == 5


def test_an_exception_restores():
    with fastconv.set_workers(5):
        with pytest.raises(KeyError), fastconv.set_workers(3):
            raise KeyError
        assert fastconv.get_workers() == 5


@pytest.mark.parametrize(("workers", "exception"), BAD)
def test_bad_numbers(workers, exception):
    """Refused wherever they are given, by name and value, and nothing is changed."""
    before = fastconv.get_workers()
    x, w = np.ones((1, 4, 4)), np.ones((1, 1, 2, 2))
    for use in (
        lambda: fastconv.set_workers(workers).__enter__(),
        lambda: fastconv.correlate(x, w, workers=workers),
        lambda: fastconv.convolve(x, w, workers=workers),
        lambda: fastconv.Plan(w, x.shape, workers=workers),
    ):
        with pytest.raises(exception) as raised:
            use()
        assert "workers" in str(raised.value)
        assert repr(workers) in str(raised.value)
    assert fastconv.get_workers() == before


def test_set_workers_takes_no_none():
    with pytest.raises(TypeError, match="workers is None"), fastconv.set_workers(None):
        pass


def test_set_for_this_thread_alone():
    with concurrent.futures.ThreadPoolExecutor(1) as other:
        elsewhere = other.submit(fastconv.get_workers).result()
        with fastconv.set_workers(elsewhere + 3):
            assert other.submit(fastconv.get_workers).result() == elsewhere
            assert fastconv.get_workers() == elsewhere + 3


@needs_openmp
def test_threadpoolctl_sets_the_default():
    with threadpoolctl.threadpool_limits(3, user_api="openmp"):
        assert fastconv.get_workers() == 3
        with fastconv.set_workers(2):
            assert fastconv.get_workers() == 2


@needs_openmp
@pytest.mark.parametrize("number", [1, 3])
def test_omp_num_threads_sets_the_default(run_python, number):
    done = run_python("import fastconv; print(fastconv.get_workers())", OMP_NUM_THREADS=str(number))
    assert done.stdout == f"{number}\n", done.stderr


@needs_openmp
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no sched_setaffinity")
def test_affinity_sets_the_default(run_python):
    script = """
        import os
        os.environ.pop("OMP_NUM_THREADS", None)
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        import fastconv
        print(fastconv.get_workers())
    """
    done = run_python(lines(script))
    assert done.stdout == "1\n", done.stderr


@needs_openmp
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="no /proc/self/task to count threads in")
def test_workers_are_threads(run_python):
    """As many as are asked for run; one worker starts none, nor does making a plan: a process may fork afterwards."""
    script = """
        import os, numpy as np, fastconv
        x, w = np.ones((16, 100, 100), np.float32), np.ones((16, 16, 5, 5), np.float32)
        threads = lambda: len(os.listdir("/proc/self/task"))
        before = threads()
        fastconv.correlate(x, w, workers=1)
        fastconv.Plan(np.ones((300, 300, 3, 3)), (300, 20, 20), workers=3)
        print(threads() - before)
        with fastconv.set_workers(3):
            fastconv.correlate(x, w)
        print(threads() - before)
        fastconv.Plan(w, x.shape, workers=4)(x)
        print(threads() - before)
    """
    done = run_python(lines(script), OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    assert done.stdout == "0\n2\n3\n", done.stderr


def test_bits_are_the_same(dtype):
    """Of work large enough to be shared, with more workers than CPUs, and more than tasks."""
    for case in (shape(N=2, C=8, K=40, R=3, S=3, P=37, Q=41), shape(C=3, K=2, R=5, S=5, P=100, Q=150)):
        x, w, bias = reals(case, dtype)
        for method in methods(case, dtype):
            alone = fastconv.correlate(x, w, bias=bias, method=method, workers=1)
            for workers in (*range(2, 17), 200):
                y = fastconv.correlate(x, w, bias=bias, method=method, workers=workers)
                assert same_bits(y, alone), (method, workers)
            with fastconv.set_workers(3):
                assert same_bits(fastconv.correlate(x, w, bias=bias, method=method), alone), method
            plan = fastconv.Plan(w, x.shape, bias=bias, method=method, workers=5)
            assert same_bits(plan(x), alone), method


def test_bits_are_the_same_for_pieces_of_one_row():
    """They differ by a column, and may be cut into tiles of other widths for that."""
    rng = np.random.default_rng(0)
    w = rng.standard_normal((33, 64, 1, 1)).astype(np.float32)
    for columns in range(1100, 1300, 3):
        x = rng.standard_normal((64, 1, columns)).astype(np.float32)
        alone = fastconv.correlate(x, w, method="direct-filters", workers=1)
        for workers in (2, 3, 4):
            y = fastconv.correlate(x, w, method="direct-filters", workers=workers)
            assert same_bits(y, alone), (columns, workers)


@pytest.mark.parametrize("N", [1, 3])
def test_bits_are_the_same_for_few_blocks(N, dtype):
    """Of which some workers would have one more than others: there are others then, that end anywhere in a tile."""
    cases = [shape(N=N, C=60, K=70, R=2, S=3, P=rows, Q=33) for rows in (1, 13, 18)]
    cases += [shape(N=N, C=40, K=filters, R=3, S=3, P=rows, Q=70) for filters, rows in ((2, 15), (3, 26))]
    cases += [shape(N=N, C=300, K=50, R=2, S=2, P=7, Q=3), shape(N=N, C=30, K=3, R=3, S=3, P=18, Q=40, stride=2)]
    cases += [shape(N=N, C=700, K=90, P=1, Q=pixels) for pixels in (17, 23, 36, 65, 129)]
    for case in cases:
        x, w, bias = reals(case, dtype)
        for method in fastconv.Plan(w, x.shape, stride=case.stride).predicted:
            alone = fastconv.correlate(x, w, bias=bias, stride=case.stride, method=method, workers=1)
            for workers in (2, 3, 5):
                y = fastconv.correlate(x, w, bias=bias, stride=case.stride, method=method, workers=workers)
                assert same_bits(y, alone), (case, method, workers)


GEOMETRIES = (
    {"stride": 2, "padding": 1},
    {"stride": (1, 3), "dilation": (2, 1), "pad_mode": "reflect", "padding": (3, 2)},
    {"groups": 4, "mode": "same"},
    {"groups": 8, "padding": 2, "layout": "NHWC"},
    {"dilation": 3, "layout": "NHWC"},
    {"mode": "full", "pad_value": 1.5},
)


# Weights whose packing is worth several threads, and whose panels don't end with a vector; several images, as those of
# a single one may be packed late.
@pytest.mark.parametrize(("x", "w", "groups"), [
    ((2, 513, 7, 9), (203, 513, 1, 1), 1),
    ((2, 67, 10, 12), (131, 67, 3, 3), 1),
    ((2, 4160, 4, 5), (1040, 32, 3, 3), 130),
    ((9, 700, 1, 2), (1001, 700, 1, 1), 1),
    ((2, 9, 40, 41), (70, 9, 15, 15), 1),
], ids=str)
def test_weights_packed_by_workers(x, w, groups, dtype):
    """The bits of weights that one thread packs, by each method."""
    rng = np.random.default_rng(0)
    values, weights = rng.standard_normal(x).astype(dtype), rng.standard_normal(w).astype(dtype)
    if w[-1] > 3:
        weights = rng.standard_normal((*w[:-1], 1)).astype(dtype) * 0.5 ** np.arange(w[-1]).astype(dtype)   # separable
    bias = rng.standard_normal(w[0]).astype(dtype)
    for method in fastconv.Plan(weights, x, groups=groups).predicted:
        options = {"groups": groups, "bias": bias, "method": method}
        y = fastconv.Plan(weights, x, workers=1, **options)(values)
        assert same_bits(fastconv.correlate(values, weights, workers=7, **options), y)
        assert same_bits(fastconv.correlate(values, np.asfortranarray(weights), workers=7, **options), y)


@pytest.mark.parametrize("options", GEOMETRIES, ids=str)
def test_bits_are_the_same_for_every_geometry(options):
    """For 1 to 16 workers, of real values in one dtype and of integers or complex numbers in another."""
    rng = np.random.default_rng(0)
    sizes = (2, 37, 71, 8) if "layout" in options else (2, 8, 37, 71)
    for number, name in enumerate(("float32", "float64", "int8", "int64", "float16", "complex64")):
        if name != "float32" and number % 3 != len(str(options)) % 3:
            continue
        w_shape = (24, 8 // options.get("groups", 1), 3, 2)
        x, w, bias = ((rng.standard_normal(size) * 50).astype(name) for size in (sizes, w_shape, 24))
        for method in fastconv.Plan(w, x.shape, dtype=name, **options).predicted:
            alone = fastconv.correlate(x, w, bias=bias, method=method, workers=1, **options)
            for workers in range(2, 17):
                y = fastconv.correlate(x, w, bias=bias, method=method, workers=workers, **options)
                assert same_bits(y, alone), (name, method, workers)


def test_64_threads_at_once():
    """Each with shapes, geometries and dtypes of its own, and all with one plan: the sums are NumPy's."""
    shared = soak.Shared()
    start = threading.Barrier(64)

    def compute(thread):
        rng = random.Random(thread)
        problems = [soak.problem(rng, np.random.default_rng(thread)) for _ in range(2)]
        results = []
        start.wait(timeout=60)
        for x, w, bias, options in problems:
            y = fastconv.correlate(x, w, bias=bias, workers=1 + thread % 3, **options)
            results.append(soak.equal(y, soak.rounded(soak.summed(x, w, bias, **options), x.dtype)))
            results.append(shared.right(thread))
        return results

    with concurrent.futures.ThreadPoolExecutor(64) as threads:
        assert all(all(results) for results in threads.map(compute, range(64)))


SHARED = """
    import multiprocessing, os, threading, numpy as np, fastconv
    x, w = np.arange(160_000, dtype=np.float32).reshape(16, 100, 100) % 7, np.ones((16, 16, 5, 5), np.float32)
    compute = lambda: fastconv.correlate(x, w, workers=4).tobytes()
    before = compute()
"""


@needs_fork
def test_a_forked_child_computes(run_python):
    """After the parent's threads have run, which the child doesn't have; and so does the parent afterwards."""
    script = SHARED + """
    child = os.fork()
    if child == 0:
        os._exit(0 if compute() == before else 1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), compute() == before)
    """
    done = run_python(lines(script), timeout=30)
    assert done.stdout == "0 True\n", done.stderr


@needs_fork
def test_a_pool_of_forked_children_computes(run_python):
    script = SHARED + """
    def task(i):
        return compute() == before
    with multiprocessing.get_context("fork").Pool(2) as pool:
        print(pool.map(task, range(4)))
    """
    done = run_python(lines(script), timeout=30)
    assert done.stdout == "[True, True, True, True]\n", done.stderr


@needs_fork
def test_a_child_forked_before_any_call_computes(run_python):
    """It starts threads of its own."""
    script = """
    import os, numpy as np, fastconv
    x, w = np.ones((16, 100, 100), np.float32), np.ones((16, 16, 5, 5), np.float32)
    child = os.fork()
    if child == 0:
        os._exit(0 if (np.rint(fastconv.correlate(x, w, workers=3)) == 400).all() else 1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    done = run_python(lines(script), timeout=30)
    assert done.stdout == "0\n", done.stderr


CHILD = """
import sys, threading, multiprocessing, numpy as np, fastconv

def compute(workers):
    x = np.arange(160_000, dtype=np.float32).reshape(16, 100, 100) % 7
    w = np.ones((16, 4, 5, 5), np.float32)
    return fastconv.correlate(x, w, groups=4, stride=2, padding=2, workers=workers).tobytes()

if __name__ == "__main__":
    threads = [threading.Thread(target=compute, args=(2 + i % 3,)) for i in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
        print(set(pool.map(compute, [1, 2, 3, 4])) == {compute(4)})
"""


@pytest.mark.parametrize("start", [pytest.param("fork", marks=needs_fork), pytest.param("forkserver", marks=needs_fork),
                                   "spawn"])
def test_children_compute_after_threads_have(isa, start, tmp_path):
    """However they are started; nothing that threads held before is waited for."""
    script = tmp_path / "children.py"
    script.write_text(CHILD)
    done = subprocess.run(
        [sys.executable, str(script), start], env=os.environ | {"FASTCONV_ISA": isa}, capture_output=True, text=True,
        timeout=60, check=False,
    )
    assert done.stdout == "True\n", done.stderr


@needs_limits
def test_an_allocation_that_fails(run_python):
    """Of the result, packed weights, workspace, a converted image: a MemoryError with its size, and all is released."""
    script = """
        import numpy as np, fastconv, room
        from fastconv import _transforms
        _transforms.installed()     # a plan may import it, and that is kept
        one = np.ones((), np.float32)
        x, w = np.ones((1, 40, 40), np.float32), np.ones((1, 1, 3, 3), np.float32)
        wide = np.broadcast_to(one, (1, 1, 2, 60_000_000))
        calls = {
            "result": lambda: fastconv.correlate(x, np.broadcast_to(one, (200_000, 1, 3, 3))),
            "result of integers": lambda: fastconv.correlate(x.astype("i1"), np.ones((70_000, 1, 3, 3), "i1")),
            "weights": lambda: fastconv.correlate(np.stack((x, x)), np.broadcast_to(one, (3_000_000, 1, 40, 40))),
            "a plan's weights": lambda: fastconv.Plan(np.broadcast_to(one, (300_000, 1, 30, 30)), x.shape),
            "image": lambda: fastconv.correlate(wide[0], w[..., :1, :], stride=1000),
            "workspace": lambda: fastconv.correlate(np.moveaxis(np.broadcast_to(wide, (1, 2, 2, 60_000_000)), 1, 3),
                np.ones((1, 2, 1, 1), np.float32), stride=(1, 5_000_000), layout="NHWC", workers=2),
        }
        fastconv.correlate(np.ones((16, 100, 100)), np.ones((8, 16, 5, 5)), workers=2)      # threads' stacks
        room.leave(100 << 20)
        for name, call in calls.items():
            before = room.used()
            for _ in range(8):
                try:
                    call()
                    print(name, "was computed")
                except MemoryError as error:
                    if not any(digit in str(error) for digit in "123456789"):
                        print(name, "without its size:", error)
            if room.used() - before > 32 << 20:     # the C library keeps some that is freed, and 64 MiB for each arena
                print(name, "keeps", room.used() - before)
        print((fastconv.correlate(x, w) == 9).all())
    """
    done = run_python(lines(script), OPENBLAS_NUM_THREADS="1", MALLOC_ARENA_MAX="1")
    assert done.stdout == "True\n", done.stdout + done.stderr


@pytest.mark.slow
def test_more_elements_than_32_bits_count():
    """2**31 and some more: of the result, and of the image. Some 15 GB at a time, with what is computed in."""
    numbers = np.random.default_rng(0)
    x, w = numbers.integers(0, 9, (1, 1024, 1024), np.int8), np.arange(2100).astype(np.int8).reshape(2100, 1, 1, 1)
    y = fastconv.correlate(x, w)
    assert y.size > 2**31
    for k in (0, 1, 1023, 2047, 2048, 2099):
        assert np.array_equal(y[k], x[0] * w[k, 0])
    del y
    y = fastconv.correlate(x.reshape(1024, 1024, 1), w, layout="NHWC")
    assert y.size > 2**31
    for p in (0, 1000, 1022, 1023):
        assert np.array_equal(y[p], x[0, p, :, None] * w[:, 0, 0, 0])
    del y
    x = np.zeros((2, 33_000, 33_000), np.bool_)
    assert x.size > 2**31
    x[1, -2, -2] = x[1, -4, ::2] = x[0, 4, 4] = True
    w = np.ones((1, 2, 1, 1), np.bool_)
    for method in ("direct-pixels", "direct-filters"):
        y = fastconv.correlate(x, w, stride=2, method=method)
        assert y[0, -1, -1]
        assert y[0, -2].all()
        assert y[0, 2, 2]
        assert y.sum() == 2 + 16_500
        del y


@needs_openmp
@needs_limits
@pytest.mark.parametrize("gigabytes", [0.5, 1, 2, 4])
def test_more_workers_than_there_is_room_for(run_python, gigabytes):
    """Where the system won't give that many threads, a call computes with fewer; it doesn't end Python."""
    script = f"""
        import numpy as np, fastconv, room
        room.leave(int({gigabytes} * 2**30))    # stacks of 8 MiB
        x, w = np.ones((4, 64, 3000), np.float32), np.ones((64, 4, 3, 3), np.float32)
        print((fastconv.correlate(x, w, workers=10_000, method="direct-filters") == 36).all())
    """
    done = run_python(lines(script), OPENBLAS_NUM_THREADS="1", OMP_STACKSIZE="8M")
    assert done.stdout == "True\n", done.stderr
