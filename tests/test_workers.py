"""Workers: how many there are by default, set and asked for, and that calls survive threads and forks."""

import concurrent.futures
import os
import sys
import textwrap

import numpy as np
import pytest
import threadpoolctl
from cases import methods, reals, same_bits, shape

import fastconv
from fastconv import _threads

CPUS = os.cpu_count()
BAD = [(0, ValueError), (-CPUS - 1, ValueError), (1.0, TypeError), ("2", TypeError), ([1], TypeError)]

needs_openmp = pytest.mark.skipif(not _threads.openmp, reason="fastconv was built without OpenMP")
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
    """As many as are asked for run, and one worker starts none."""
    script = """
        import os, numpy as np, fastconv
        x, w = np.ones((16, 100, 100), np.float32), np.ones((16, 16, 5, 5), np.float32)
        threads = lambda: len(os.listdir("/proc/self/task"))
        before = threads()
        fastconv.correlate(x, w, workers=1)
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
        os._exit(0 if (fastconv.correlate(x, w, workers=3) == 400).all() else 1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    done = run_python(lines(script), timeout=30)
    assert done.stdout == "0\n", done.stderr


@needs_openmp
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of address space are Linux's to keep")
def test_more_workers_than_there_is_room_for(run_python):
    """Where the system won't give that many threads, a call computes with fewer, or raises; it doesn't end Python."""
    script = """
        import resource, numpy as np, fastconv
        resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))      # stacks of 8 MiB: some 500 threads
        x, w = np.ones((4, 64, 3000), np.float32), np.ones((64, 4, 3, 3), np.float32)
        try:
            print((fastconv.correlate(x, w, workers=10_000, method="direct-filters") == 36).all())
        except (MemoryError, RuntimeError, ValueError) as error:
            print("workers" in str(error))
    """
    done = run_python(lines(script), OPENBLAS_NUM_THREADS="1", OMP_STACKSIZE="8M")
    assert done.stdout == "True\n", done.stderr
