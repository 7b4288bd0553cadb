"""Ctrl-C stops a long call, and the process computes on. The time limit guards against a hang; nothing is timed."""

import os
import signal
import subprocess
import sys

import pytest

SCRIPT = """
import signal
import threading
import time
import numpy as np
import fastconv
signal.signal(signal.SIGINT, signal.default_int_handler)    # a shell's background jobs ignore it
images = np.broadcast_to(np.ones({image}, np.float32), ({n}, *{image}))
plan = fastconv.Plan(np.ones({w}, np.float32), images.shape, method={method!r}, workers={workers})
out = np.zeros(plan.y_shape, np.float32)
def tell_when_begun():
    while out[0, 0, 0, 0] == 0:
        time.sleep(0.01)
    print("begun", flush=True)

threading.Thread(target=tell_when_begun, daemon=True).start()
try:
    plan(images, out=out)
except KeyboardInterrupt:
    print("interrupted", out[-1, -1, -1, -1] == 0)
print(np.rint(fastconv.correlate(np.ones((64, 50, 50)), np.ones((8, 64, 3, 3)), workers=2)[-1, -1, -1]))
"""

# Many seconds of work in little memory.
MANY_IMAGES = {"n": 4000, "image": (64, 128, 128), "w": (8, 64, 65, 65)}
FEW_ROWS_MANY_FILTERS = {"n": 1, "image": (64, 36, 4125), "w": (300, 64, 31, 31)}


@pytest.mark.skipif(os.name != "posix", reason="SIGINT can't be sent to a process of its own on this system")
@pytest.mark.parametrize(
    ("work", "method", "workers"),
    [
        (MANY_IMAGES, "direct-pixels", 2),
        (MANY_IMAGES, "direct-filters", 1),
        (FEW_ROWS_MANY_FILTERS, "direct-pixels", 1),
        (FEW_ROWS_MANY_FILTERS, "direct-filters", 1),
        (MANY_IMAGES, "fft", 2),
        (MANY_IMAGES, "fft", 1),
    ],
    ids=["images-pixels", "images-filters", "filters-pixels", "filters-filters", "images-fft", "images-fft-alone"],
)
def test_ctrl_c_stops_a_long_call(isa, work, method, workers):
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(method=method, workers=workers, **work)],
        env=os.environ | {"FASTCONV_ISA": isa},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        try:
            assert child.stdout.readline() == "begun\n", child.stderr.read()
            child.send_signal(signal.SIGINT)
            printed, errors = child.communicate(timeout=20)
        finally:
            child.kill()
    assert printed == "interrupted True\n576.0\n", errors
