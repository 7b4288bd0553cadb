"""Arrays to test with, and which methods can compute them."""

import numpy as np
from shapes import Shape

import fastconv
from fastconv import _plan

DTYPES = ("float32", "float64")
METHODS = tuple(method for method in _plan.CHOICES if method.startswith("direct"))
VECTOR_BYTES = {"baseline": 16, "avx2": 32, "avx512": 64}


def shape(*, N=1, C=1, K=1, R=1, S=1, P=1, Q=1, stride=1):
    """A shape by the sizes of its result."""
    return Shape(N, C, (P - 1) * stride + R, (Q - 1) * stride + S, K, R, S, stride)


def methods(shape, dtype):
    """The direct methods that can compute a shape with the kernels in use, as a plan says."""
    predicted = fastconv.Plan(np.zeros(shape.w, dtype), shape.x[-3:]).predicted
    return [method for method in METHODS if method == "direct" or method in predicted]


def reals(shape, dtype, seed=0):
    """x, w and bias of either sign and of magnitudes over some decades, as 4-D, 4-D and 1-D."""
    rng = np.random.default_rng(seed)
    sizes = (shape.N, shape.C, shape.H, shape.W), shape.w, (shape.K,)
    return [(rng.standard_normal(size) * 10.0 ** rng.uniform(-3, 3, size)).astype(dtype) for size in sizes]


def integers(shape, dtype, seed=0):
    """x, w and bias of small integers, whose sums are exact in any order."""
    rng = np.random.default_rng(seed)
    sizes = (shape.N, shape.C, shape.H, shape.W), shape.w, (shape.K,)
    return [rng.integers(-8, 9, size).astype(dtype) for size in sizes]


def same_bits(a, b):
    """Whether two arrays are of one shape and dtype and hold the same bits, signs of zeros and NaNs included."""
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()
