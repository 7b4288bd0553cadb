"""What the library costs a process: peak memory, and the time of its import."""

from shapes import arrays

import fastconv


class Memory:
    params = ("512x9", "vgg-rgb", "gray-3x3")
    param_names = ("shape",)

    def setup(self, name):
        self.x, self.w = arrays(name)

    def peakmem_inputs(self, name):
        """The process with its inputs, to compare with."""

    def peakmem_correlate(self, name):
        fastconv.correlate(self.x, self.w)


def timeraw_import():
    return "import fastconv", "import numpy"
