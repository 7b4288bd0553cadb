"""Hostile arguments at the front door, for as long as one likes: ``python tests/fuzz.py --minutes 60 [--seed N]``.

Each input is a call that is right but for a few of its arguments, which are anything at all. It has to return, or to
raise ValueError, TypeError, NotImplementedError or MemoryError with a message that names an argument (of memory: a
size), or to pass on what a hostile object has raised by itself. After an error `out` is as it was; inputs always are.
Memory doesn't grow. The calls are made in a child process: when it crashes, or hangs, the parent knows the input, which
`--only` repeats.
"""

import argparse
import array
import contextlib
import decimal
import faulthandler
import fractions
import functools
import itertools
import mmap
import os
import random
import re
import subprocess
import sys
import tempfile
import time
import warnings

import numpy as np
from numpy.lib.stride_tricks import as_strided
from soak import resident_bytes

import fastconv
from fastconv import _plan

try:
    import room
except ImportError:  # not on Windows
    room = None

OPTIONS = (
    "mode",
    "stride",
    "padding",
    "dilation",
    "groups",
    "pad_mode",
    "pad_value",
    "layout",
    "bias",
    "dtype",
    "method",
    "workers",
)
NAMES = ("x", "w", "out", "x_shape", "operation", "flip_channels", *OPTIONS)
NAMED = re.compile(rf"\b({'|'.join(NAMES)}) (is|has|can't|overlaps)\b")
ALLOWED = (ValueError, TypeError, NotImplementedError, MemoryError)
SECONDS_AN_INPUT = 120  # more is a hang
MOST_WORK = 10**11  # multiply-adds, about: more may take as long, with nothing wrong
MOST_VALUES = 10**6  # of an array that is looked at
GROWTH = 24 << 20  # most bytes that the second half may leave behind; freed memory in pieces isn't given back
LEAK_SECONDS = 60  # shorter runs haven't settled
ROOM = 1 << 30  # address space for the calls

DTYPES = ("?", "b", "B", "h", "H", "i", "I", "l", "L", "q", "Q", "e", "f", "d", "F", "D", ">f4", ">f8", ">i2", ">c8")
OTHER_DTYPES = ("g", "G", "O", "U3", "S2", "V4", "M8[s]", "m8", "f4,i4")


class Hostile(Exception):
    """What hostile objects raise."""


def method_that_raises(name):
    def method(self, *args, **kwargs):
        raise Hostile(name)

    return type(f"Raising{name}", (), {name: method})()


class Changing:
    """Another value each time that it is asked."""

    def __init__(self, values):
        self.values = itertools.cycle(values)

    def __index__(self):
        return next(self.values)

    def __array__(self, *args, **kwargs):
        return np.ones([next(self.values) % 5 for _ in range(next(self.values) % 4)])

    def __len__(self):
        return next(self.values)

    def __getitem__(self, index):
        if index > 5:
            raise IndexError
        return next(self.values)

    def __eq__(self, other):
        return next(self.values) % 2 == 0

    __hash__ = None


class Returning:
    """An array protocol that returns what it shouldn't."""

    def __init__(self, value):
        self.value = value

    def __array__(self, *args, **kwargs):
        return self.value


class Meddling:
    """Changes the shape or dtype of another argument while it is read."""

    def __init__(self, victim, value):
        self.victim, self.value = victim, value

    def meddle(self):
        with contextlib.suppress(Exception), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if self.victim.ndim % 2:
                self.victim.dtype = np.uint8
            self.victim.shape = (*(1,) * (self.victim.ndim - 1), -1)

    def __array__(self, *args, **kwargs):
        self.meddle()
        return np.asarray(self.value)

    def __index__(self):
        self.meddle()
        return 1


class Subclass(np.ndarray):
    """Overrides what a subclass can."""

    def __array_finalize__(self, other):
        if other is not None and getattr(other, "armed", False):
            raise Hostile("__array_finalize__")

    def __array_function__(self, *args, **kwargs):
        raise Hostile("__array_function__")

    def __array_ufunc__(self, *args, **kwargs):
        raise Hostile("__array_ufunc__")

    def __repr__(self):
        return "Subclass"

    shape = property(lambda self: (1, 2, 3))
    strides = property(lambda self: (1, 2, 3))


class Word(str):
    """A string that equals anything."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other):
        return True


RAISING = (
    "__index__",
    "__int__",
    "__float__",
    "__bool__",
    "__len__",
    "__iter__",
    "__getitem__",
    "__eq__",
    "__hash__",
    "__repr__",
    "__getattr__",
    "__getattribute__",
    "__array__",
    "__dlpack__",
    "__array_function__",
    "__array_ufunc__",
)


def integer(rng):
    return rng.choice(
        (
            0,
            1,
            2,
            3,
            5,
            7,
            -1,
            -2,
            100,
            2**15,
            2**31 - 1,
            2**31,
            2**32,
            2**53,
            2**61,
            2**62,
            2**63 - 1,
            2**63,
            2**64,
            2**100,
            -(2**31),
            -(2**63),
            -(2**64),
        )
    )


def number(rng):
    return rng.choice(
        (
            integer(rng),
            float("nan"),
            float("inf"),
            -0.0,
            1.5,
            1e300,
            1j,
            complex("nan"),
            np.float32("nan"),
            np.int8(-1),
            np.uint64(2**63),
            np.bool_(True),
            np.longdouble(1),
            np.float16(6e4),
            np.array(2),
            np.array(2.5),
            np.array([3]),
            decimal.Decimal("NaN"),
            fractions.Fraction(1, 3),
            True,
            False,
        )
    )


def thing(rng):
    """Anything."""
    return rng.choice(
        (
            lambda: None,
            functools.partial(integer, rng),
            functools.partial(number, rng),
            lambda: tuple(number(rng) for _ in range(rng.randrange(5))),
            lambda: tuple(integer(rng) for _ in range(rng.randrange(4))),
            lambda: [tuple(integer(rng) for _ in range(rng.randrange(4))) for _ in range(rng.randrange(4))],
            lambda: rng.choice(
                (
                    "",
                    "valid",
                    "same",
                    "full",
                    "NHWC",
                    "edge",
                    "wrap",
                    "direct-pixels",
                    "direct-filters",
                    "winograd",
                    "fft",
                    "float32",
                    "12",
                    "ab",
                    "\0",
                    "\ud800",
                    Word("valid"),
                    Word("no"),
                    b"ab",
                    b"",
                )
            ),
            lambda: rng.choice(
                (
                    object(),
                    ...,
                    NotImplemented,
                    {},
                    {1: 2},
                    {1, 2},
                    range(3),
                    slice(1),
                    int,
                    np,
                    print,
                    [1, [2]],
                    [[]],
                    [None],
                    [["1"]],
                    memoryview(b"abcd"),
                    bytearray(4),
                    np.ma.masked,
                )
            ),
            lambda: rng.choice((itertools.count(), itertools.repeat((1, 2)), iter([1, 2]), map(abs, (2, 1)))),
            functools.partial(array.array, "d", [1, 2]),
            lambda: method_that_raises(rng.choice(RAISING)),
            lambda: Changing([rng.choice((integer(rng), 0, 1, 2, 3)) for _ in range(rng.randrange(1, 6))]),
            lambda: Returning(rng.choice((None, 1, "a", [1], np.zeros(3), np.zeros((0, 3)), np.float64(2)))),
            functools.partial(any_array, rng),
        )
    )()


def any_array(rng):
    """An array of any dtype and layout; its elements all lie in memory of its own."""
    kind = rng.randrange(10)
    sizes = [rng.choice((0, 1, 1, 2, 3, 4, 6, 9, 17)) for _ in range(rng.randrange(6))]
    dtype = np.dtype(rng.choice(DTYPES + (OTHER_DTYPES if rng.random() < 0.3 else ())))
    if kind < 4 or not sizes:
        return np.zeros(sizes, dtype)
    if kind == 4:  # of any size, on one value's memory
        sizes[rng.randrange(len(sizes))] = rng.choice((2**20, 2**31, 2**33, 2**40, 2**56))
        with contextlib.suppress(ValueError):
            return np.broadcast_to(np.zeros((), dtype), sizes)
        return np.zeros(3, dtype)
    return relaid(rng, np.zeros(sizes, dtype), kind)


def relaid(rng, values, kind):
    """The values' shape and dtype, in another layout or class; of kind 5, other values too."""
    if kind == 5:  # windows that overlap, in any order of strides, unaligned too
        memory = np.zeros(4096, np.uint8)
        strides, low, high = [], 0, values.itemsize
        for size in values.shape:
            stride = rng.choice((0, 1, 3, 4, 8, 12, 16, -1, -4, -8, -16, 64))
            reach = (size - 1) * stride if size else 0
            if abs(low) + high + abs(reach) > 4000:
                stride = reach = 0
            low, high = low + min(reach, 0), high + max(reach, 0)
            strides.append(stride)
        if values.dtype.hasobject:
            return values
        return as_strided(memory[-low:][: values.itemsize].view(values.dtype), values.shape, strides)
    if kind == 6:
        other = np.zeros([2 * size for size in values.shape], values.dtype)
        other = other[tuple(slice(None, None, 2) for _ in values.shape)]
        other[...] = values
        return other
    if kind == 7:
        return np.flip(np.flip(values).copy()) if rng.random() < 0.5 else np.asfortranarray(values)
    if kind == 8:
        values.flags.writeable = False
        return values
    return rng.choice(
        (
            lambda: values.view(Subclass),
            lambda: np.ma.masked_array(values),
            lambda: values.view(np.recarray),
            lambda: np.matrix(values) if values.ndim == 2 else values,
            values.tolist,
            lambda: values.astype(values.dtype.newbyteorder()),
            lambda: memoryview(values) if values.dtype.kind in "biufc" else values,
        )
    )()


def problem(rng, numbers):
    """Arguments of a call that is right."""
    g = rng.choice((1, 1, 1, 2, 3))
    c, k, r, s = (rng.randrange(1, 4) for _ in range(4))
    k = rng.choice((k, k, 20)) * g
    image = rng.choice((1, 4, 9)) + r, rng.choice((1, 4, 17, 40)) + s
    flat = g == c == k == 1 and rng.random() < 0.5
    options = {}
    last = rng.random() < 0.3
    sizes = (*image, c * g) if last else (c * g, *image)
    if rng.random() < 0.5:
        sizes = (rng.choice((0, 1, 2, 3)), *sizes)
    w_shape = (k, c, r, s) if k > 1 or rng.random() < 0.5 else (c, r, s)
    if flat:
        sizes, w_shape = image, (r, s)
    elif last:
        options["layout"] = "NHWC"
    if g > 1:
        options["groups"] = g
    for name, values in (
        ("mode", ("valid", "same", "full")),
        ("stride", (1, 2, (1, 3), [3, 2])),
        ("padding", (0, 1, (2, 0), ((0, 1), (2, 3)))),
        ("pad_mode", ("constant", "reflect", "symmetric", "edge", "wrap")),
        ("pad_value", (0, 1, -2.5)),
        ("workers", (None, 1, 2, 3, -1)),
        ("method", _plan.CHOICES),
        ("dtype", (None, "float64", "complex64")),
    ):
        if rng.random() < 0.25:
            options[name] = rng.choice(values)
    dtype = rng.choice(DTYPES) if rng.random() < 0.6 else "f"
    x, w = ((numbers.integers(0, 5, size)).astype(dtype) for size in (sizes, w_shape))
    if rng.random() < 0.3:
        options["bias"] = numbers.integers(0, 5, k).astype(dtype)
    return x, w, options


def spoiled(rng, name, x, w):
    """A bad value for an argument; some of them are good."""
    if name in ("x", "w", "bias", "out") and rng.random() < 0.6:
        return any_array(rng)
    if name == "bias" and rng.random() < 0.2:
        return Meddling(rng.choice((x, w)), np.ones(len(w)))
    if rng.random() < 0.1:
        return Meddling(rng.choice((x, w)), 1)
    if name == "dtype":
        return rng.choice(
            (
                *DTYPES,
                *OTHER_DTYPES,
                "nothing",
                "(2,3,f4",
                "f4,",
                [("a", "f4"), ("a", "f4")],
                int,
                float,
                complex,
                {"names": ["a"], "formats": ["f4"], "offsets": [-1]},
                thing(rng),
            )
        )
    return thing(rng)


def is_array(value):
    """isinstance asks hostile objects for their class."""
    return issubclass(type(value), np.ndarray)


def show(value):
    try:
        if is_array(value):
            strides = np.ndarray.strides.__get__(value)
            return f"<{type(value).__name__} {np.ndarray.shape.__get__(value)} {value.dtype} strides {strides}>"
        return repr(value)[:200]
    except Exception:
        return f"<{type(value).__name__}>"


class Input:
    """One call: what is called, and with what."""

    def __init__(self, seed, number):
        rng = random.Random(f"{seed} {number}")
        x, w, options = problem(rng, np.random.default_rng(rng.randrange(2**63)))
        self.function = rng.choice(("correlate", "correlate", "convolve", "Plan", "Plan", "set_workers"))
        self.x, self.w, self.options, self.out, self.x_shape = x, w, options, None, x.shape
        if rng.random() < 0.5:
            # The result's, or nearly, and now and then in an input's memory.
            with contextlib.suppress(Exception):
                self.out = np.ascontiguousarray(fastconv.correlate(x.copy(), w.copy(), **options))
                if rng.random() < 0.2:
                    memory = rng.choice((x, w)).reshape(-1).view(np.uint8)
                    first = rng.randrange(max(1, memory.size - self.out.nbytes + 1))
                    self.out = memory[first : first + self.out.nbytes].view(self.out.dtype).reshape(self.out.shape)
        names = ("x", "w", "out", "x_shape", "x layout", "w layout", "out layout", "flip_channels", *OPTIONS)
        changed = rng.sample(names, rng.choice((1, 1, 1, 2, 3)))
        for name in changed:
            with contextlib.suppress(MemoryError, ValueError):  # what can't be made isn't tried
                self.spoil(rng, name, x, w)
        if self.function not in ("convolve", "Plan"):
            self.options.pop("flip_channels", None)
        if self.function == "Plan" and rng.random() < 0.5:
            self.options["operation"] = rng.choice(("correlate", "convolve", "convolve", thing(rng)))

    def spoil(self, rng, name, x, w):
        """Give an argument a bad value, or another layout."""
        argument, _, layout = name.partition(" ")
        if layout:
            value = getattr(self, argument)
            if is_array(value) and value.ndim and value.size < MOST_VALUES:
                setattr(self, argument, relaid(rng, np.asarray(value), rng.randrange(5, 10)))
        elif argument in ("x", "w", "out", "x_shape"):
            setattr(self, argument, spoiled(rng, name, x, w))
        else:
            self.options[argument] = spoiled(rng, name, x, w)

    def __str__(self):
        arguments = {"x": self.x, "w": self.w, "x_shape": self.x_shape, "out": self.out, **self.options}
        return f"{self.function}: " + ", ".join(f"{name}={show(value)}" for name, value in arguments.items())

    def work(self):
        """Multiply-adds of mode "full", about, where the result isn't too large for memory anyway."""
        if not (is_array(self.x) and is_array(self.w)) or min(self.x.ndim, self.w.ndim) < 2:
            return 0
        layout = self.options.get("layout")
        last = type(layout) is str and layout == "NHWC" and self.x.ndim > 2
        height, width = self.x.shape[-3:-1] if last else self.x.shape[-2:]
        outputs = (height + self.w.shape[-2]) * (width + self.w.shape[-1])
        return outputs * self.w.size if outputs < ROOM else 0

    def call(self):
        if self.function == "set_workers":
            with fastconv.set_workers(self.options.get("workers", self.x)):
                return None
        if self.function == "Plan":
            plan = fastconv.Plan(self.w, self.x_shape, **self.options)
            repr(plan), plan.flops, plan.workspace_bytes, plan.packed_bytes, plan.y_shape
            return plan(self.x, out=self.out)
        return getattr(fastconv, self.function)(self.x, self.w, out=self.out, **self.options)

    def faults(self):
        """What is wrong with how the library takes it."""
        arrays = {
            name: value
            for name, value in {"x": self.x, "w": self.w, "bias": self.options.get("bias")}.items()
            if is_array(value) and value.size < MOST_VALUES
        }
        before = {name: np.ndarray.tobytes(value) for name, value in arrays.items()}
        out_before = np.ndarray.tobytes(self.out) if is_array(self.out) and self.out.size < MOST_VALUES else None
        faults = []
        try:
            result = self.call()
        except Hostile:
            raised = True
        except ALLOWED as error:
            raised, text = True, str(error)
            cause = error
            while cause is not None and not isinstance(cause, Hostile):
                cause = cause.__cause__ or cause.__context__
            named = re.search(r"\d", text) if isinstance(error, MemoryError) else NAMED.search(text)
            if not named and cause is None:
                faults.append(f"unclear: {type(error).__name__}: {text}")
        except BaseException as error:
            raised = True
            faults.append(f"raised {type(error).__name__}: {error}")
        else:
            raised = False
            if self.function != "set_workers":
                if not isinstance(result, np.ndarray):
                    faults.append(f"returned a {type(result).__name__}")
                if self.out is not None and result is not self.out:
                    faults.append("returned another array than out")
        if raised and out_before is not None and np.ndarray.tobytes(self.out) != out_before:
            faults.append("out was written before an error")
        for name, held in before.items():
            shares = is_array(self.out) and np.may_share_memory(*map(np.asarray, (arrays[name], self.out)))
            if np.ndarray.tobytes(arrays[name]) != held and not (shares and not raised):
                faults.append(f"{name} was written")
        return faults, raised


def tried(one):
    """An input's faults, and whether it was refused."""
    return ([], False) if one.work() > MOST_WORK else one.faults()


def limit_address_space():
    """So that what asks for too much gets a MemoryError, here and not from the machine."""
    if room is None or not os.path.exists("/proc/self/statm") or "libasan" in os.environ.get("LD_PRELOAD", ""):
        return
    fastconv.correlate(np.ones((8, 200, 200)), np.ones((8, 8, 3, 3)), workers=os.cpu_count())  # threads' stacks
    room.leave(ROOM)


def child(seed, first, seconds, progress, only):
    """Inputs one after the other; `progress` holds the number of the one that is tried."""
    faulthandler.enable()
    warnings.simplefilter("ignore")
    limit_address_space()
    if only is not None:
        one = Input(seed, only)
        print(one, *tried(one)[0], sep="\n", flush=True)
        return 0
    start = time.monotonic()
    bad = raised = base = 0
    number = first
    with open(progress, "r+b") as file, mmap.mmap(file.fileno(), 16) as shared:
        while (passed := time.monotonic() - start) < seconds:
            if not base and passed > seconds / 2:
                base = resident_bytes()
            shared[:16] = number.to_bytes(8, "little") + raised.to_bytes(8, "little")
            one = Input(seed, number)
            faults, error = tried(one)
            raised += error
            for fault in faults:
                print(f"FAILURE {fault}\n  {one}\n  repeat with --seed {seed} --only {number}", flush=True)
            bad += bool(faults)
            number += 1
        shared[:16] = number.to_bytes(8, "little") + raised.to_bytes(8, "little")
    grown = resident_bytes() - base if base else 0
    if base:
        print(f"resident memory: {base >> 20} MiB half way, {(base + grown) >> 20} MiB at the end", flush=True)
    if grown > GROWTH and seconds > LEAK_SECONDS:
        print(f"FAILURE leak of {grown >> 20} MiB", flush=True)
        bad += 1
    return bad > 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--only", type=int, help="one input alone, by its number")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)  # first input, and file of the progress
    args = parser.parse_args()
    seed = random.randrange(2**32) if args.seed is None else args.seed
    if args.child or args.only is not None:
        first, progress = args.child or (0, None)
        return child(seed, int(first), args.minutes * 60, progress, args.only)

    start = time.monotonic()
    failed = False
    tried = raised = 0
    with tempfile.TemporaryDirectory() as folder:
        progress = os.path.join(folder, "progress")
        while (left := args.minutes * 60 - (time.monotonic() - start)) > 0:
            with open(progress, "wb") as file:
                file.write(tried.to_bytes(8, "little") + bytes(8))
            command = [sys.executable, __file__, "--seed", str(seed), "--minutes", str(left / 60)]
            command += ["--child", str(tried), progress]
            code, at, errors = watched(command, progress)
            failed = failed or code != 0
            tried, raised = at, raised + errors
            if code in (0, 1):
                break
            print(
                f"FAILURE {'a hang' if code is None else f'a crash, exit code {code}'}: repeat with --seed {seed} "
                f"--only {at}",
                flush=True,
            )
            tried += 1
    print(
        f"seed {seed}: {tried} inputs tried in {time.monotonic() - start:.0f} s, of which {raised} were refused: "
        f"{'FAILED' if failed else 'no failures'}"
    )
    return int(failed)


def watched(command, progress):
    """Run a child; its exit code (None: it made no progress for long), the input it stood at, and how many raised."""
    with subprocess.Popen(command, env={"MALLOC_ARENA_MAX": "2", "OMP_STACKSIZE": "1M", **os.environ}) as process:
        try:
            at, since = -1, time.monotonic()
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    code = process.wait(timeout=1)
                    break
                with open(progress, "rb") as file:
                    now = int.from_bytes(file.read(8), "little")
                if now != at:
                    at, since = now, time.monotonic()
                elif time.monotonic() - since > SECONDS_AN_INPUT:
                    code = None
                    break
        finally:
            process.kill()
    with open(progress, "rb") as file:
        return code, int.from_bytes(file.read(8), "little"), int.from_bytes(file.read(8), "little")


if __name__ == "__main__":
    sys.exit(main())
