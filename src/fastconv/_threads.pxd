from fastconv._kernels.kernel cimport dim

cdef enum:
    MOST_THREADS = 256      # of one call: more are never faster

ctypedef void (*TaskFunction)(void* context, dim task, int worker) noexcept nogil

cdef int count_workers(object workers) except -1
cdef void run_tasks(TaskFunction function, void* context, dim first, dim last, int workers) noexcept nogil
