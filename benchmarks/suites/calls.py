"""Whole calls: named layers, tiny problems, each method, numbers of workers."""

import numpy as np
from shapes import MORE_SHAPES, SHAPES, arrays, resolve

import fastconv


class Layers:
    """A plan's call, the result's memory included."""

    params = ([name for name in SHAPES if name != "seed"], ["float32", "float64"])
    param_names = ("shape", "dtype")

    def setup(self, name, dtype):
        self.x, w = arrays(name, dtype)
        self.plan = fastconv.Plan(w, self.x.shape, workers=1)

    def time_plan(self, name, dtype):
        self.plan(self.x)


class Bytes:
    """Images of uint8 by filters of int8, summed in 32 bits."""

    params = ("vgg-rgb", "64x58", "512x9", "256x56-1x1", "gray-3x3")
    param_names = ("shape",)

    def setup(self, name):
        rng = np.random.default_rng(0)
        self.x = rng.integers(0, 256, SHAPES[name].x).astype(np.uint8)
        w = rng.integers(-128, 128, SHAPES[name].w).astype(np.int8)
        self.plan = fastconv.Plan(w, self.x.shape, dtype="int32", workers=1)

    def time_plan(self, name):
        self.plan(self.x)


class Tiny:
    """What a call costs when there is next to nothing to compute."""

    params = ("seed", "digit", "thumbnail")
    param_names = ("shape",)

    def setup(self, name):
        self.x, self.w = arrays(name)
        self.plan = fastconv.Plan(self.w, self.x.shape)

    def time_correlate(self, name):
        fastconv.correlate(self.x, self.w)

    def time_plan(self, name):
        self.plan(self.x)

    def time_add(self, name):
        """A ufunc call on the same image, to compare with."""
        np.add(self.x, self.x)


class Methods:
    """Every method where it can compute the shape: a slip of one that isn't chosen shows too."""

    params = (
        ["64x58", "512x9", "256x56-1x1", "vgg-rgb", "gray-3x3", "depthwise-14", "mask-1x1", "image-7x7", "classifier"],
        ["direct-pixels", "direct-filters", "direct-matrix", "direct-groups", "direct-terms", "winograd"],
    )
    param_names = ("shape", "method")

    def setup(self, name, method):
        shape = resolve([name])[name]
        self.x, w = shape.arrays()
        try:
            self.plan = fastconv.Plan(w, self.x.shape, method=method, workers=1, **shape.options)
        except ValueError as error:  # not for this method
            raise NotImplementedError from error

    def time_plan(self, name, method):
        self.plan(self.x)


class LargeFilters:
    """Transforms and direct sums, of a plan's call; and of a call that transforms the weights too."""

    params = (["photo-31x31", "gray-63x63"], ["fft", "direct"])
    param_names = ("shape", "method")

    def setup(self, name, method):
        self.x, self.w = MORE_SHAPES[name].arrays("float32")
        self.plan = fastconv.Plan(self.w, self.x.shape, method=method, workers=1)

    def time_plan(self, name, method):
        self.plan(self.x)

    def time_correlate(self, name, method):
        fastconv.correlate(self.x, self.w, method=method, workers=1)

    def peakmem_correlate(self, name, method):
        fastconv.correlate(self.x, self.w, method=method, workers=1)


class Gaussians:
    """Filters that are columns times rows, along both and as a whole."""

    params = ((5, 7, 11, 31), ("separable", "direct"))
    param_names = ("size", "method")

    def setup(self, size, method):
        row = np.exp(-(np.linspace(-3, 3, size) ** 2) / 2)
        w = np.outer(row, row).astype(np.float32)
        self.x = np.random.default_rng(0).standard_normal((1024, 1024)).astype(np.float32)
        self.plan = fastconv.Plan(w, self.x.shape, method=method, workers=1)

    def time_plan(self, size, method):
        self.plan(self.x)


class Workers:
    params = (("64x58", "512x9", "vgg-rgb", "batch-64x30"), (1, 2, 4))
    param_names = ("shape", "workers")

    def setup(self, name, workers):
        self.x, w = arrays(name)
        self.plan = fastconv.Plan(w, self.x.shape, workers=workers)

    def time_plan(self, name, workers):
        self.plan(self.x)
