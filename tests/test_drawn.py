"""Drawn problems of every geometry and dtype, by the generator of differential.py, of which this is a sample."""

import differential
from hypothesis import given, settings
from hypothesis import strategies as st


@settings(max_examples=120)
@given(st.data())
def test_a_drawn_problem(data):
    pick = lambda values: data.draw(st.sampled_from(values))  # noqa: E731
    differential.check(differential.draw(pick, most_work=10_000))
