"""Named shapes, shared by tests and benchmarks: what is measured is what is tested."""

from typing import NamedTuple

import numpy as np


class Shape(NamedTuple):
    """One correlation: N images of C x H x W by K filters of C x R x S."""

    N: int
    C: int
    H: int
    W: int
    K: int
    R: int
    S: int

    @property
    def x(self):
        return (self.N, self.C, self.H, self.W) if self.N > 1 else (self.C, self.H, self.W)

    @property
    def w(self):
        return (self.K, self.C, self.R, self.S)

    @property
    def y(self):
        return (self.N, self.K, self.H - self.R + 1, self.W - self.S + 1)

    @property
    def flops(self):
        n, k, p, q = self.y
        return 2 * n * k * p * q * self.C * self.R * self.S

    @property
    def bytes(self):
        """What has to move at the least, in float32: x, w and y once."""
        n, k, p, q = self.y
        return 4 * (self.N * self.C * self.H * self.W + self.K * self.C * self.R * self.S + n * k * p * q)


SHAPES = {
    "seed": Shape(1, 3, 5, 5, 1, 2, 2),
    "digit": Shape(1, 1, 28, 28, 6, 5, 5),
    "thumbnail": Shape(1, 3, 32, 32, 16, 3, 3),
    "vgg-rgb": Shape(1, 3, 226, 226, 64, 3, 3),
    "rgb-7x7": Shape(1, 3, 224, 224, 64, 7, 7),
    "64x58": Shape(1, 64, 58, 58, 64, 3, 3),
    "128x30": Shape(1, 128, 30, 30, 128, 3, 3),
    "256x16": Shape(1, 256, 16, 16, 256, 3, 3),
    "512x9": Shape(1, 512, 9, 9, 512, 3, 3),
    "256x56-1x1": Shape(1, 256, 56, 56, 64, 1, 1),
    "2048x7-1x1": Shape(1, 2048, 7, 7, 512, 1, 1),
    "batch-64x30": Shape(16, 64, 30, 30, 64, 3, 3),
    "photo-5x5": Shape(1, 3, 512, 512, 8, 5, 5),
    "gray-3x3": Shape(1, 1, 1024, 1024, 1, 3, 3),
    "gray-11x11": Shape(1, 1, 1024, 1024, 1, 11, 11),
}

# Of filters that tests would take too long for.
LARGE_FILTERS = {
    "photo-31x31": Shape(1, 3, 512, 512, 16, 31, 31),
    "gray-63x63": Shape(1, 1, 512, 512, 1, 63, 63),
}


def arrays(name, dtype="float32"):
    """x and w of a named shape, of normal random numbers."""
    shape = (SHAPES | LARGE_FILTERS)[name]
    rng = np.random.default_rng(0)
    return rng.standard_normal(shape.x).astype(dtype), rng.standard_normal(shape.w).astype(dtype)
