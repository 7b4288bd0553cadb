"""The examples in the docstrings of public names run, and print what they say."""

import doctest

import pytest

import fastconv

NAMES = [name for name in fastconv.__all__ if not name.startswith("__")]


@pytest.mark.parametrize("name", NAMES)
def test_examples(name):
    """Each public name has some."""
    tests = doctest.DocTestFinder(recurse=False).find(getattr(fastconv, name), name, module=False)
    examples = [test for test in tests if test.examples]
    assert examples, f"{name} has no example"
    for test in examples:
        report = []
        results = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=report.append)
        assert results.failed == 0, "".join(report)
