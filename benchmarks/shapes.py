"""Named shapes, shared by tests and benchmarks: what is measured is what is tested."""

from typing import NamedTuple

import numpy as np


class Shape(NamedTuple):
    """One correlation: N images of C x H x W by K filters of C / groups x R x S."""

    N: int
    C: int
    H: int
    W: int
    K: int
    R: int
    S: int
    stride: int = 1
    padding: int = 0
    groups: int = 1

    @classmethod
    def parse(cls, text):
        """The shape that is spelled N,C,H,W,K,R,S and, if they aren't 1, 0, 1, stride,padding,groups."""
        spelling = "N,C,H,W,K,R,S[,stride[,padding[,groups]]]"
        try:
            shape = cls(*map(int, text.split(",")))
        except (TypeError, ValueError):
            raise ValueError(f"a shape is spelled {spelling}, in integers, not {text!r}") from None
        if min(shape._replace(padding=1)) < 1 or shape.padding < 0:
            raise ValueError(f"{spelling} are at least 1, and the padding at least 0, not {text!r}")
        if shape.C % shape.groups or shape.K % shape.groups:
            raise ValueError(f"groups divide C and K; they don't in {text!r}")
        if min(shape.y) < 1:
            raise ValueError(f"the filters don't fit into the padded images of {text!r}")
        return shape

    def __str__(self):
        """As `parse` reads it."""
        return ",".join(map(str, self))

    @property
    def x(self):
        return (self.N, self.C, self.H, self.W) if self.N > 1 else (self.C, self.H, self.W)

    @property
    def w(self):
        return (self.K, self.C // self.groups, self.R, self.S)

    @property
    def y(self):
        rows, columns = self.H + 2 * self.padding - self.R, self.W + 2 * self.padding - self.S
        return (self.N, self.K, rows // self.stride + 1, columns // self.stride + 1)

    @property
    def options(self):
        """The arguments of `fastconv.correlate` beside x and w."""
        return {"stride": self.stride, "padding": self.padding, "groups": self.groups}

    @property
    def flops(self):
        n, k, p, q = self.y
        return 2 * n * k * p * q * self.C // self.groups * self.R * self.S

    @property
    def bytes(self):
        """What has to move at the least, in float32: w and y once, and x but for rows that the stride skips."""
        n, k, p, q = self.y
        rows = min(self.H, p * min(self.R, self.stride) + max(self.R - self.stride, 0))
        return 4 * (self.N * self.C * rows * self.W + self.K * self.C // self.groups * self.R * self.S + n * k * p * q)

    def arrays(self, dtype="float32"):
        """x and w, of normal random numbers."""
        rng = np.random.default_rng(0)
        return rng.standard_normal(self.x).astype(dtype), rng.standard_normal(self.w).astype(dtype)


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

# Compared with the peers, but with options that the tests and suites over SHAPES don't pass, or with filters too large
# for the tests' oracle.
MORE_SHAPES = {
    "stem-7x7": Shape(1, 3, 230, 230, 64, 7, 7, stride=2),
    "64x56-1x1": Shape(1, 64, 56, 56, 256, 1, 1),
    "512x28-1x1": Shape(1, 512, 28, 28, 256, 1, 1, stride=2),
    "photo-31x31": Shape(1, 3, 512, 512, 16, 31, 31),
    "gray-63x63": Shape(1, 1, 512, 512, 1, 63, 63),
    "depthwise-56": Shape(1, 128, 56, 56, 128, 3, 3, padding=1, groups=128),
    "depthwise-112": Shape(1, 32, 112, 112, 32, 3, 3, padding=1, groups=32),
    "depthwise-112-2": Shape(1, 64, 112, 112, 64, 3, 3, stride=2, padding=1, groups=64),
    "depthwise-14": Shape(1, 512, 14, 14, 512, 3, 3, padding=1, groups=512),
    "depthwise-7": Shape(1, 960, 7, 7, 960, 5, 5, padding=2, groups=960),
    "mask-1x1": Shape(1, 64, 388, 388, 2, 1, 1),
    "image-7x7": Shape(1, 64, 256, 256, 3, 7, 7, padding=3),
    "classifier": Shape(1, 1280, 1, 1, 1000, 1, 1),
    "excitation": Shape(1, 960, 1, 1, 240, 1, 1),
}

SETS = {
    "issue": (
        "seed digit thumbnail vgg-rgb stem-7x7 rgb-7x7 64x58 128x30 256x16 512x9 256x56-1x1 64x56-1x1 2048x7-1x1"
        " 512x28-1x1 batch-64x30 photo-5x5 gray-3x3 gray-11x11 photo-31x31 gray-63x63 depthwise-56"
    ),
    "small": "seed digit thumbnail",
    "layers": "64x58 128x30 256x16 512x9 256x56-1x1 64x56-1x1 2048x7-1x1 512x28-1x1 batch-64x30",
    "few": "vgg-rgb stem-7x7 rgb-7x7 photo-5x5 gray-3x3 gray-11x11",
    "large": "gray-11x11 photo-31x31 gray-63x63",
    "vectors": "classifier excitation",
    "depthwise": "depthwise-112 depthwise-112-2 depthwise-56 depthwise-14 depthwise-7",
    # Layers of networks that are in use: of images in patches, that recognise text, and that detect objects.
    "patches": "1,3,224,224,768,16,16,16 1,3,224,224,96,4,4,4 1,3,227,227,96,11,11,4 1,8,176,268,32,5,5,3",
    "text": (
        "1,24,32,160,24,3,3,1,1 1,48,16,80,192,3,3,1,1 1,64,8,40,256,3,3,1,1 1,128,12,160,128,3,3,1,1,128"
        " 1,240,12,80,240,5,5,1,2,240 1,480,3,80,480,5,5,1,2,480 1,200,2,96,200,5,5,1,2,200"
    ),
    "detection": (
        "1,12,208,208,24,3,3,1,1 1,48,104,104,96,3,3,2,1 1,96,52,52,96,3,3,1,1 1,96,26,26,96,3,3,1,1"
        " 1,64,40,40,128,3,3,2,1 1,64,20,20,64,3,3,1,1 1,128,10,10,128,3,3,1,1 1,256,10,10,64,3,3,1,1"
        " 1,96,160,128,24,3,3,1,1 1,192,40,32,192,5,5,1,2,192"
    ),
    # The last layers of networks that make images, masks or maps of depth: few filters of many channels.
    "maps": (
        "mask-1x1 1,32,256,256,1,1,1 1,16,512,512,3,1,1 image-7x7 1,64,180,180,1,3,3,1,1 1,32,240,320,1,3,3,1,1"
        " 1,64,256,256,3,3,3,1,1 1,64,128,128,2,3,3,1,1 1,32,200,300,4,5,5,1,2"
    ),
    # The families that the list is a sample of: layers of networks in use, and images of odd sizes.
    "vgg": "1,64,112,112,128,3,3,1,1 1,128,56,56,256,3,3,1,1 1,256,28,28,512,3,3,1,1 1,512,14,14,512,3,3,1,1",
    "googlenet": (
        "1,64,56,56,192,3,3,1,1 1,192,28,28,64,1,1 1,96,28,28,128,3,3,1,1 1,16,28,28,32,5,5,1,2 1,480,14,14,192,1,1"
        " 1,24,14,14,64,5,5,1,2 1,832,7,7,384,1,1"
    ),
    "mobilenet": (
        "1,3,224,224,32,3,3,2,1 1,32,112,112,64,1,1 1,96,112,112,96,3,3,2,1,96 1,144,56,56,24,1,1"
        " 1,192,28,28,192,3,3,1,1,192 1,384,14,14,96,1,1 1,576,14,14,576,3,3,2,1,576 1,320,7,7,1280,1,1"
    ),
    "resnext": (
        "1,128,56,56,128,3,3,1,1,32 1,256,56,56,256,3,3,2,1,32 1,512,14,14,512,3,3,1,1,32 1,1024,7,7,1024,3,3,1,1,32"
        " 1,256,56,56,512,1,1,2 1,256,28,28,512,1,1"
    ),
    "unet": "1,1,572,572,64,3,3 1,64,200,200,128,3,3 1,256,68,68,512,3,3 1,512,28,28,256,3,3 1,64,388,388,2,1,1",
    "speech": "1,1,161,632,32,41,11,2 1,80,1,3000,512,1,3 1,512,1,1500,512,1,3,2 1,64,1,1000,64,1,9 1,40,1,500,512,1,5",
    "images": (
        "1,1,479,641,1,3,3 1,1,517,683,1,5,5 1,1,333,1001,4,7,7 1,1,767,1023,1,9,9 1,3,375,501,3,3,3 1,3,480,640,16,5,5"
        " 1,3,601,799,1,7,7 1,3,300,450,8,11,11 1,1,1081,1921,2,3,3 1,1,251,333,8,21,21"
    ),
    "families": "vgg googlenet mobilenet resnext unet speech images",
}


def arrays(name, dtype="float32"):
    """x and w of a named shape."""
    return SHAPES[name].arrays(dtype)


def resolve(words):
    """Shapes by name, of words that are names of shapes or of sets, drawn:COUNT:SEED, or shapes spelled out."""
    shapes, known = {}, SHAPES | MORE_SHAPES
    for word in words:
        if word in SETS:
            shapes |= resolve(SETS[word].split())
        elif word in known:
            shapes[word] = known[word]
        elif word.startswith("drawn:"):
            try:
                count, seed = (int(number) for number in word.split(":")[1:])
            except ValueError:
                raise ValueError(f"drawn shapes are drawn:COUNT:SEED, not {word!r}") from None
            shapes |= drawn(count, seed)
        elif "," in word:
            shapes[word] = Shape.parse(word)
        else:
            raise ValueError(f"{word!r} is no shape and no set of shapes; there are {', '.join([*SETS, *known])}")
    return shapes


def drawn(count, seed):
    """Shapes such as occur: layers of known kinds of networks in turn, and images to be filtered."""
    rng = np.random.default_rng(seed)

    def pick(*values):
        return int(rng.choice(values))

    def between(low, high):
        return int(rng.integers(low, high + 1))

    def vgg():
        level = between(0, 4)
        channels, side = min(64 << level, 512), 224 >> level
        return Shape(1, pick(channels, channels // 2), side, side, channels, 3, 3, padding=1)

    def googlenet():
        size, side = pick(1, 3, 5), pick(7, 14, 28)
        channels = {1: 16 * between(12, 52), 3: 16 * between(6, 12), 5: pick(16, 24, 32, 48)}[size]
        return Shape(1, channels, side, side, 16 * between(1, 24) if size < 5 else pick(32, 64, 96, 128), size, size,
                     padding=size // 2)  # fmt: skip

    def mobilenet():
        channels, side = [(32, 112), (96, 112), (144, 56), (192, 28), (384, 14), (576, 14), (960, 7)][between(0, 6)]
        if pick(0, 1):
            return Shape(1, channels, side, side, pick(16, 24, 32, 64, 96, 160), 1, 1)
        size = pick(3, 5)
        return Shape(1, channels, side, side, channels, size, size, pick(1, 2), size // 2, channels)

    def resnext():
        level = between(0, 3)
        channels, side = 128 << level, 56 >> level
        return Shape(1, channels, side, side, channels, 3, 3, pick(1, 2), 1, 32)

    def unet():
        level = between(0, 4)
        channels, side = 64 << level, [572, 284, 140, 68, 32][level] - pick(0, 2)
        return Shape(1, pick(channels // 2, channels), side, side, channels, 3, 3)

    def speech():
        frames = between(100, 1200)
        return Shape(1, 1, 161, frames, 32, 41, 11, 2, 5) if pick(0, 1) else Shape(1, 32, 80, frames, 32, 3, 3, 1, 1)

    def ocr():
        channels, columns = pick(1, 64, 128, 256), between(60, 800)
        return Shape(pick(1, 1, 4), channels, 32 if channels == 1 else 16, columns, pick(64, 128), 3, 3, padding=1)

    def photo():
        size = between(2, 11)
        return Shape(1, 3, between(300, 1100), between(400, 1920), between(1, 16), size, size)

    def gray():
        return Shape(1, 1, between(17, 1500), between(17, 1500), 1, between(2, 17), between(2, 17))

    families = (vgg, googlenet, mobilenet, resnext, unet, speech, ocr, photo, gray)
    shapes = [(family, family()) for family in (families[i % len(families)] for i in range(count))]
    return {f"{family.__name__}:{shape}": shape for family, shape in shapes}
