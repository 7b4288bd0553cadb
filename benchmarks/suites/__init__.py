"""asv suites: setup prepares, time_ only measures. Sizes are the named shapes that the tests use too."""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # asv imports this folder alone

from shapes import SHAPES


def arrays(name, dtype="float32"):
    """x and w of a named shape, of normal random numbers."""
    shape = SHAPES[name]
    rng = np.random.default_rng(0)
    return rng.standard_normal(shape.x).astype(dtype), rng.standard_normal(shape.w).astype(dtype)
