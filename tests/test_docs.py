"""The examples in the docstrings of public names and in README.md run, and print what they say."""

import doctest
import inspect
import operator
import re
from pathlib import Path

import pytest

import fastconv
from fastconv import _front

NAMES = [*(name for name in fastconv.__all__ if not name.startswith("__")), "Plan.explain"]


@pytest.mark.parametrize("name", NAMES)
def test_examples(name):
    """Each public name has some."""
    tests = doctest.DocTestFinder(recurse=False).find(operator.attrgetter(name)(fastconv), name, module=False)
    examples = [test for test in tests if test.examples]
    assert examples, f"{name} has no example"
    for test in examples:
        report = []
        results = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=report.append)
        assert results.failed == 0, "".join(report)


def test_readme():
    """Its pieces of Python, one after the other; results have the shapes that the comments beside them say."""
    text = Path(__file__).parents[1].joinpath("README.md").read_text()
    pieces = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    names = {}
    said = 0
    for piece in pieces:
        exec(piece, names)
        for name, shape in re.findall(r"^(\w+) = (?:.|\n )*?# (\(.*\))$", piece, re.MULTILINE):
            assert names[name].shape == eval(shape), name
            said += 1
    assert len(pieces) >= 3
    assert said >= 2


def test_signatures():
    """As editors show them: a plan has the options of a call, and their defaults."""
    call, plan = (dict(inspect.signature(what).parameters) for what in (_front.convolve, _front.Plan))
    options = [name for name in call if name not in ("x", "w", "out")]
    assert list(plan) == ["w", "x_shape", "operation", *options]
    assert [plan[name] for name in options] == [call[name] for name in options]
    assert not _front.Plan.__doc__.startswith("Plan(")
