"""No load or store leaves the arrays: they end, or begin, where memory that can't be touched does."""

import sys

import pytest

SCRIPT = """
import ctypes, mmap
import numpy as np
from cases import integers, methods, shape
import fastconv

libc = ctypes.CDLL(None, use_errno=True)
page = mmap.PAGESIZE

def guarded(array, at_end):
    "A copy of the array between two pages without access, up against one of them."
    pages = -(-array.nbytes // page)
    memory = mmap.mmap(-1, (pages + 2) * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for guard in (start, start + (pages + 1) * page):
        assert libc.mprotect(ctypes.c_void_p(guard), ctypes.c_size_t(page), 0) == 0
    copy = np.frombuffer(memory, array.dtype, array.size, page + at_end * (pages * page - array.nbytes))
    copy = copy.reshape(array.shape)
    copy[...] = array
    return copy

for dtype in ("float32", "float64"):
    for at_end in (False, True):
        for case in (
            *(shape(C=2, K=K, R=R, S=3, P=7, Q=Q) for K in (1, 2, 3, 7) for R in (1, 3) for Q in (1, 5, 16, 17, 65)),
            shape(C=5, K=33, R=3, S=3, P=4, Q=4), shape(C=3, K=70, P=1, Q=1), shape(N=2, C=70, K=17, P=14, Q=14),
            shape(K=1, P=3, Q=4100),
        ):
            x, w, bias = integers(case, dtype)
            for method in methods(case, dtype):
                y = fastconv.correlate(x, w, bias=bias, method=method)
                out = guarded(np.zeros_like(y), at_end)
                arrays = guarded(x, at_end), guarded(w, at_end)
                fastconv.correlate(*arrays, bias=guarded(bias, at_end), out=out, method=method)
                assert np.array_equal(out, y), (case, method)
print("within bounds")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mprotect through ctypes is written for Linux")
def test_no_access_outside_the_arrays(run_python):
    """In a process of its own, which a load or store outside would end."""
    done = run_python(SCRIPT, PYTHONPATH=":".join(path for path in sys.path if path))
    assert done.stdout == "within bounds\n", (done.returncode, done.stderr)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mprotect through ctypes is written for Linux")
def test_an_access_outside_would_be_noticed(run_python):
    script = SCRIPT.partition("for dtype in")[0] + """
three = guarded(np.ones(3), True)
print(ctypes.c_double.from_address(three.ctypes.data + 16).value, flush=True)
print(ctypes.c_double.from_address(three.ctypes.data + 24).value, flush=True)
"""
    done = run_python(script, PYTHONPATH=":".join(path for path in sys.path if path))
    assert done.stdout == "1.0\n"
    assert done.returncode < 0
