"""The checks of conftest.py can fail."""

import numpy as np
import pytest
from conftest import CheckedPlan, checked

import fastconv
from fastconv import _kernels


def write_to(x, w=None, out=None):
    if w is not None:
        w[...] = 1
    if out is not None:
        out[...] = 1


def write_to_gap(view):
    view.base[0, 1] = 1


def test_a_written_input_is_noticed():
    with pytest.raises(AssertionError, match="write_to has written to an input"):
        checked(write_to)(np.zeros(3), w=np.zeros(3))


def test_a_written_gap_of_a_view_is_noticed():
    with pytest.raises(AssertionError, match="write_to_gap"):
        checked(write_to_gap)(np.zeros((4, 4))[:, ::2])


def test_a_written_out_is_allowed_beside_an_input():
    memory = np.zeros(8)
    checked(write_to)(memory[:4], out=memory[4:])
    assert memory.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


def test_public_functions_are_checked():
    assert fastconv.correlate.__wrapped__.__name__ == "correlate"
    assert fastconv.convolve.__wrapped__.__name__ == "convolve"
    assert fastconv.Plan is CheckedPlan


def test_the_instruction_set_is_in_use(isa):
    assert _kernels.isa == isa
    assert fastconv.Plan(np.ones((1, 1, 1)), (1, 1, 1)).isa == isa
