"""Workers: how many there are, and OpenMP's loop over numbered tasks. Nothing else in the library knows of threads."""

import contextlib
import operator
import os
import threading

from cython.parallel cimport prange, threadid

from fastconv._quota import cpu_quota

from fastconv._kernels.kernel cimport split

cdef extern from *:
    """
    #ifdef _OPENMP
    #include <omp.h>
    #define OPENMP _OPENMP
    #else
    #define OPENMP 0
    #define omp_get_max_threads() 1
    #endif
    """
    int OPENMP
    int omp_get_max_threads() nogil

# How many threads OpenMP has for the calling thread: what it had for its last call.
cdef extern from *:
    """
    #include <pthread.h>
    static __thread int team = 1;
    """
    int team
    ctypedef unsigned long pthread_t
    ctypedef struct pthread_mutex_t:
        pass
    int pthread_create(pthread_t* thread, const void* attributes, void* (*start)(void*) noexcept nogil,
                       void* argument) nogil
    int pthread_join(pthread_t thread, void** result) nogil
    int pthread_mutex_init(pthread_mutex_t* mutex, const void* attributes) nogil
    int pthread_mutex_lock(pthread_mutex_t* mutex) nogil
    int pthread_mutex_unlock(pthread_mutex_t* mutex) nogil
    int pthread_mutex_destroy(pthread_mutex_t* mutex) nogil

openmp = OPENMP     # the version of OpenMP as yyyymm, or 0 in a serial build

# A child process that was forked after the parent's OpenMP threads had started has none of them, and some OpenMP
# libraries wait for them forever: it computes on the calling thread.
cdef bint pool_started = False
cdef bint pool_lost = False

_local = threading.local()

# Whoever sets OMP_NUM_THREADS, or another number through threadpoolctl, has decided. Otherwise OpenMP knows the CPUs
# that there were when it was loaded, but not how much of their time there is.
cdef int undecided = -1 if "OMP_NUM_THREADS" in os.environ else omp_get_max_threads()
_quota = cpu_quota()


def _after_fork():
    global pool_lost
    pool_lost = pool_lost or pool_started


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def get_workers():
    """Number of workers that ``workers=None`` means in this thread.

    It is what `set_workers` has set; or else what ``OMP_NUM_THREADS`` or threadpoolctl say; or else the CPUs that this
    process may run on, but no more than its control group has CPU time for (Linux). One in a build without OpenMP.

    Returns
    -------
    int

    Examples
    --------
    >>> import fastconv
    >>> with fastconv.set_workers(2):
    ...     fastconv.get_workers()
    2
    """
    return count_workers(None)


@contextlib.contextmanager
def set_workers(workers):
    """Context manager that sets what ``workers=None`` means in this thread.

    Parameters
    ----------
    workers : int
        Number of workers, at least 1. A negative number counts from the number of CPUs: -1 is all of them,
        -2 all but one, as in `scipy.fft`.

    Raises
    ------
    ValueError, TypeError
        If workers is 0, is less than minus the number of CPUs, or isn't an integer.

    Examples
    --------
    >>> import fastconv, numpy as np
    >>> with fastconv.set_workers(1):
    ...     y = fastconv.correlate(np.ones((1, 8, 8)), np.ones((1, 1, 3, 3)))
    """
    if workers is None:
        raise TypeError("workers is None; expected an integer")
    number = count_workers(workers)
    before = getattr(_local, "workers", None)
    _local.workers = number
    try:
        yield
    finally:
        _local.workers = before


cdef int default_workers() except -1:
    cdef int most = omp_get_max_threads()
    if most != undecided:
        return most
    if hasattr(os, "sched_getaffinity"):
        most = min(most, len(os.sched_getaffinity(0)))
    return most if _quota is None else min(most, _quota)


cdef int count_workers(object workers) except -1:
    """The number of workers that an argument `workers` asks for."""
    if workers is None:
        workers = getattr(_local, "workers", None)
        if workers is None:
            return default_workers()
    try:
        number = operator.index(workers)
    except TypeError:
        raise TypeError(f"workers is {workers!r}; expected an integer or None") from None
    if number > 0:
        return min(number, 1 << 16)
    cpus = os.cpu_count() or 1      # asks the system: longer than a small problem takes
    if number == 0 or number < -cpus:
        raise ValueError(f"workers is {number}; expected at least 1, or -1 to -{cpus} to count from all {cpus} CPUs")
    return number + 1 + cpus


cdef void* wait_and_end(void* mutex) noexcept nogil:
    pthread_mutex_lock(<pthread_mutex_t*> mutex)
    pthread_mutex_unlock(<pthread_mutex_t*> mutex)
    return NULL


cdef int startable(int workers) noexcept nogil:
    """How many of so many threads there can be, the calling one among them. Assumes at most MOST_THREADS.

    An OpenMP that can't start a thread ends the process. So whenever there are to be more than in this thread's last
    call, as many are started, and ended, before.
    """
    global team
    cdef pthread_t threads[MOST_THREADS]
    cdef pthread_mutex_t mutex
    cdef int started = 1, i
    if workers > team:
        pthread_mutex_init(&mutex, NULL)
        pthread_mutex_lock(&mutex)
        while started < workers and pthread_create(&threads[started], NULL, wait_and_end, &mutex) == 0:
            started += 1
        pthread_mutex_unlock(&mutex)
        for i in range(1, started):
            pthread_join(threads[i], NULL)
        pthread_mutex_destroy(&mutex)
        workers = started
    team = workers
    return workers


cdef inline dim taken(dim turn, dim tasks, int workers) noexcept nogil:
    """The task that is taken at some turn: each worker begins with a share of its own.

    Neighbouring tasks write to the same lines of y, where one's rows end and the other's begin, and read the same rows
    of x. At the same time, workers would take these lines from each other.
    """
    return split(tasks, workers, turn % workers) + turn // workers


cdef void run_tasks(TaskFunction function, void* context, dim first, dim last, int workers) noexcept nogil:
    """Call function(context, task, worker) for each task, at most workers at a time; worker is 0 .. workers-1."""
    global pool_started
    cdef dim task, turn
    if workers > 1:
        workers = 1 if pool_lost or OPENMP == 0 else startable(workers)
    if workers == 1:
        for task in range(first, last):
            function(context, task, 0)
    else:
        pool_started = True
        for turn in prange(last - first, num_threads=workers, schedule="dynamic", chunksize=1):
            function(context, first + taken(turn, last - first, workers), threadid())
