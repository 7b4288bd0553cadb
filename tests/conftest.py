"""Every test runs on each instruction set that the CPU has, and no call may change its inputs."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import hypothesis
import numpy as np
import pytest

import fastconv
from fastconv import _cpu, _kernels, _plan

# Nothing here depends on how long something takes, drawing examples included.
hypothesis.settings.register_profile(
    "fastconv", max_examples=40, deadline=None, database=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("fastconv")


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run the tests marked slow too")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--slow"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="slow; run with --slow"))


@pytest.fixture(params=_cpu.supported_isas(), autouse=True, scope="session")
def isa(request):
    """An instruction set; its kernels are in use for the whole test."""
    before = _kernels.isa
    _plan.use_isa(request.param)
    yield request.param
    _plan.use_isa(before)


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    return request.param


def storage(array):
    """The array that owns a view's memory, so that the gaps between the view's elements are looked at too."""
    owner = base = array
    while base is not None:
        if isinstance(base, np.ndarray):
            owner = base
        base = getattr(base, "base", None)  # of arrays, and of what as_strided puts between them
    return owner


def checked(function):
    """The function, followed by a look at whether its array arguments other than `out` hold what they held before."""

    @functools.wraps(function)
    def call(*args, **kwargs):
        out = kwargs.get("out")
        arrays = [value for value in (*args, *kwargs.values()) if isinstance(value, np.ndarray) and value is not out]
        # Where `out` lies in the same memory as an input, the rest of that memory is `out`'s to write.
        watched = [array if storage(array) is storage(out) else storage(array) for array in arrays]
        before = [array.tobytes() for array in watched]
        try:
            return function(*args, **kwargs)
        finally:
            for array, held in zip(watched, before, strict=True):
                assert array.tobytes() == held, f"{function.__name__} has written to an input"

    return call


class CheckedPlan(fastconv.Plan):
    __doc__ = fastconv.Plan.__doc__     # whose examples are tests

    # Checked when it is made and whenever it is called.

    @checked
    def __new__(cls, *args, **kwargs):
        return super().__new__(cls, *args, **kwargs)

    @checked
    def __call__(self, *args, **kwargs):
        return super().__call__(*args, **kwargs)


@pytest.fixture(autouse=True, scope="session")
def inputs_stay_unmodified():
    """Put the checked functions in the place of the public ones. Tests say fastconv.correlate, never import it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fastconv, "correlate", checked(fastconv.correlate))
        patch.setattr(fastconv, "convolve", checked(fastconv.convolve))
        patch.setattr(fastconv, "Plan", CheckedPlan)
        yield


@pytest.fixture
def run_python(isa):
    """Run a script in a Python of its own, with the same kernels forced; returns the completed process.

    It can import the modules beside this file.
    """
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])

    def run(script, timeout=300, **environment):  # seconds; with sanitizers a minute isn't enough
        return subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ | {"FASTCONV_ISA": isa, "PYTHONPATH": path} | environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run
