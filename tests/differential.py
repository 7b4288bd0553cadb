"""Any geometry, dtype and layout against the oracle, SciPy and torch: python tests/differential.py --cases 20000

A case is drawn, computed, and computed again from other memory, by a plan, image by image and with more workers, which
must give the same bits; then it is compared with each of the three that can compute it. A failure is printed as the
expression that repeats it. The test suite draws some hundreds of the same cases (test_drawn.py).
"""

import argparse
import collections
import sys
import traceback
from typing import Any, NamedTuple

import memory
import numpy as np
import oracle
import scipy.signal

import fastconv
from fastconv import _cpu, _plan

try:
    import torch
except ImportError:
    torch = None
else:
    torch.set_num_threads(1)
try:
    import ml_dtypes  # noqa: F401, gives NumPy the name bfloat16
except ImportError:
    BFLOAT16 = ()
else:
    BFLOAT16 = ("bfloat16",)

INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
REALS = ("float32", "float64", "complex64", "complex128", "float16", *BFLOAT16)
DTYPES = (*REALS, *INTEGERS, "bool")
ROUNDING = ("winograd", "separable", "fft")  # which integers aren't for
MOST_WORK = 100_000  # multiplications, about
MOST_SCIPY = 1_000_000  # those by zeros between the weights included
SCIPY_BOUNDARY = {"constant": "fill", "wrap": "wrap", "symmetric": "symm"}
TORCH_PAD_MODE = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


class Case(NamedTuple):
    operation: str
    N: int
    groups: int
    C: int  # of a group
    H: int
    W: int
    K: int  # of a group
    R: int
    S: int
    mode: str
    stride: Any
    padding: Any
    dilation: Any
    pad_mode: str
    pad_value: Any
    layout: str
    x_dtype: str
    w_dtype: str
    dtype: str | None
    bias: bool
    method: str
    memory: str
    workers: int
    kind: str
    seed: int

    @property
    def result(self):
        return np.dtype(self.dtype or np.result_type(np.dtype(self.x_dtype), np.dtype(self.w_dtype)))

    @property
    def geometry(self):
        names = "mode", "stride", "padding", "dilation", "groups", "pad_mode", "pad_value"
        return {name: getattr(self, name) for name in names}


LIMITED = tuple(method for method in _plan.METHODS if method != "direct-filters")  # which don't compute every problem


# Of filters and of images, in floating point. Of one order: methods that keep a norm-wise bound compute numbers over
# decades, of which small ones may be an element's largest, directly.
KINDS = ("columns by rows", "subnormal", "of one order", "of one order", "of one order")


def draw(pick, most_work=MOST_WORK):
    """A case; pick(values) chooses one of them, simpler ones stand first."""
    method = pick(("auto", "direct-filters", *LIMITED))
    groups, C, K = pick((1, 1, 1, 2, 3, 5)), pick((1, 2, 3, 4, 9, 17, 33)), pick((1, 2, 3, 5, 6, 7, 13, 17, 33, 65))
    R, S = pick((1, 2, 3, 4, 5, 7)), pick((1, 2, 3, 4, 5, 7))
    P = pick((1, 2, 3, 5, 6, 7, 13, 14, 15))
    Q = pick((1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 14, 15, 16, 17, 29, 31, 32, 33, 47, 64, 65, 70, 129))
    N = pick((1, 1, 2, 3))
    if method == "winograd":  # which takes few of all problems
        C, K, R, S = pick((16, 17, 33, 50)), min(K, 33), min(R, P), pick((3, 5, 7))
    if method == "separable":
        R, S = max(R, 4), max(S, 4)
    for size in (64, 9, 3):  # nothing takes long
        if N * groups * C * K * R * S * P * Q > most_work:
            K, C, Q = min(K, size), min(C, max(16, size) if method == "winograd" else size), min(Q, 2 * size)
    steps = (1, 1, 1, 2, 3, (1, 2), (2, 1), (3, 2), (1, 7), (9, 1), 11)
    stride, dilation = pick(steps), pick(steps)
    if method == "winograd":
        stride, dilation, Q = pick((1, 1, 2, (1, 2))), 1, max(Q, S)
    mode = pick(("valid", "valid", "same", "full"))
    padding = 0
    if mode == "valid":
        padding = pick((0, 0, 1, 2, (0, 3), (2, 0), ((1, 0), (2, 3)), ((0, 4), (0, 0)), 9, ((20, 1), (0, 31))))
    pad_mode = pick(("constant", "constant", "reflect", "symmetric", "edge", "wrap"))
    # As many rows and columns as P x Q outputs need, and perhaps some more, at which no window begins.
    reach = [(taps - 1) * step for taps, step in zip((R, S), oracle.pair(dilation), strict=True)]
    pads = oracle.pads(mode, padding, *reach)
    H, W = (
        max(1, (size - 1) * step + taps + 1 + pick(range(step)) - sum(sides))
        for size, step, taps, sides in zip((P, Q), oracle.pair(stride), reach, pads, strict=True)
    )
    x_dtype = pick((*REALS, *REALS, *DTYPES) if method in ROUNDING else DTYPES)
    others = DTYPES[:2] if x_dtype == "bfloat16" else [other for other in DTYPES if other != "bfloat16"]
    w_dtype = pick((x_dtype, x_dtype, pick(others)))
    if "float16" in {x_dtype, w_dtype} and {x_dtype, w_dtype} & {"uint8", "int8"}:
        w_dtype = x_dtype  # it overflows for sums with integers of 8 bits
    result = np.result_type(np.dtype(x_dtype), np.dtype(w_dtype))
    # float16 overflows for the products of integers of 8 bits.
    wider = [wide for wide in DTYPES if np.can_cast(result, np.dtype(wide)) and wide != "float16"]
    dtype = pick((None, None, None, pick(wider)))
    kinds = ("any", "columns by rows") if method == "separable" else ("any", "any", "any", "any", *KINDS)
    return Case(
        pick(("correlate", "convolve")), N, groups, C, H, W, K, R, S, mode, stride, padding, dilation, pad_mode,
        pick((0, 0, 1, -3, 2.5)) if pad_mode == "constant" else 0, pick(("NCHW", "NCHW", "NHWC")),
        x_dtype, w_dtype, dtype, pick((False, True)), method,
        pick(tuple(memory.LAYOUTS)), pick((1, 2, 3, 5)), pick(kinds), pick(range(1000)),
    )  # fmt: skip


def values(rng, size, dtype, kind="any"):
    """Integers of the whole range; reals of either sign, over some decades if of any kind, that don't overflow."""
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return rng.random(size) < 0.3
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return rng.integers(info.min, info.max, size, dtype, endpoint=True)
    decades = (0, 0) if kind == "of one order" else (-3, 0) if dtype.itemsize == 2 else (-3, 3)
    parts = [rng.standard_normal(size) * 10.0 ** rng.uniform(*decades, size) for _ in range(2)]
    return (parts[0] + 1j * parts[1] if dtype.kind == "c" else parts[0]).astype(dtype)


def arrays(case):
    """x and w, channels first, and bias or None."""
    rng = np.random.default_rng(case.seed)
    x = values(rng, (case.N, case.groups * case.C, case.H, case.W), case.x_dtype, case.kind)
    w = values(rng, (case.groups * case.K, case.C, case.R, case.S), case.w_dtype, case.kind)
    if case.kind == "columns by rows" and w.dtype.kind == "f":
        w = (w[..., :1] * w[..., :1, :]).astype(w.dtype)
    if case.kind == "subnormal" and x.dtype.char in "fdFD":
        x *= 10 * np.finfo(x.dtype).tiny
    return x, w, values(rng, case.groups * case.K, case.result, case.kind) if case.bias else None


def scipy_sum(case, x, w):
    """The sum by scipy.signal.correlate2d and convolve2d, in the widest type of its kind, or None."""
    if case.padding != 0 or case.pad_mode not in SCIPY_BOUNDARY:
        return None
    wide = {"c": np.complex128, "i": np.uint64, "u": np.uint64, "b": np.uint64}.get(case.result.kind, np.float64)
    r_step, s_step = oracle.pair(case.dilation)
    taps = np.zeros((*w.shape[:2], (case.R - 1) * r_step + 1, (case.S - 1) * s_step + 1), wide)
    if case.N * case.H * case.W * taps.size > MOST_SCIPY:
        return None
    taps[:, :, ::r_step, ::s_step] = w.astype(case.result)
    sum2d = getattr(scipy.signal, case.operation + "2d")
    how = {
        "mode": "valid" if case.mode == "valid" else "full",
        "boundary": SCIPY_BOUNDARY[case.pad_mode],
        "fillvalue": np.asarray(case.pad_value).astype(case.result).astype(wide),
    }
    x = x.astype(case.result).astype(wide)
    y = np.stack(
        [
            np.stack([sum(sum2d(image[k // case.K * case.C + c], taps[k, c], **how) for c in range(case.C))
                      for k in range(len(w))])
            for image in x
        ]
    )  # fmt: skip
    if case.mode == "same":
        top, left = (taps.shape[2] - 1) // 2, (taps.shape[3] - 1) // 2
        y = y[:, :, top : top + case.H, left : left + case.W]
    p_step, q_step = oracle.pair(case.stride)
    return y[:, :, ::p_step, ::q_step]


def torch_sum(case, x, w):
    """The sum by torch.nn.functional.conv2d in double precision, or None."""
    if torch is None or case.pad_mode not in TORCH_PAD_MODE or case.result.kind in "biu":
        return None
    r_step, s_step = oracle.pair(case.dilation)
    pads = oracle.pads(case.mode, case.padding, (case.R - 1) * r_step, (case.S - 1) * s_step)
    (top, bottom), (left, right) = pads
    if case.pad_mode == "reflect" and (max(top, bottom) >= case.H or max(left, right) >= case.W):
        return None
    if case.pad_mode == "wrap" and (max(top, bottom) > case.H or max(left, right) > case.W):
        return None
    x, w = x.astype(case.result), w.astype(case.result)
    w = w.conj() if case.operation == "correlate" else w[:, :, ::-1, ::-1]

    def conv2d(x, w, pad_value=case.pad_value):
        x, w = (torch.from_numpy(array.astype(np.float64)) for array in (x, w))
        value = {"value": pad_value} if case.pad_mode == "constant" else {}
        x = torch.nn.functional.pad(x, (left, right, top, bottom), TORCH_PAD_MODE[case.pad_mode], **value)
        steps = {"stride": case.stride, "dilation": case.dilation, "groups": case.groups}
        return torch.nn.functional.conv2d(x, w, **steps).numpy()

    if case.result.kind != "c":
        return conv2d(x, w)
    # Not torch's own complex sum, which saves a product and loses the bound.
    real = conv2d(x.real, w.real) - conv2d(x.imag, w.imag, 0)
    return real + 1j * (conv2d(x.real, w.imag) + conv2d(x.imag, w.real, 0))


def check(case):
    """Compute a case in every way. Returns with what it was compared; raises AssertionError for a difference."""
    x, w, bias = arrays(case)
    channels_last = case.layout == "NHWC"
    placed = memory.LAYOUTS[case.memory if case.x_dtype != "bfloat16" else "gapped"]
    given = np.ascontiguousarray(np.moveaxis(x, 1, -1) if channels_last else x)
    options = case.geometry | {"layout": case.layout, "bias": bias, "dtype": case.result, "method": case.method}
    call = getattr(fastconv, case.operation)
    if case.method == "auto":  # a single call may take another method than a plan
        options["method"] = fastconv.Plan(w, given.shape[1:], operation=case.operation, **options).method
    try:
        y = call(given, w, **options)
    except ValueError as error:  # integers by a method that rounds, filters of other sizes
        if case.method not in LIMITED or "which can't compute outputs" not in str(error):
            raise
        options["method"] = "direct"
        y = call(given, w, **options)
    assert y.dtype == case.result, f"the result has dtype {y.dtype}"
    assert y.flags.c_contiguous
    # Other ways to the same bits.
    again = call(placed(given), placed(w), **(options | {"dtype": case.dtype}), workers=case.workers)
    assert_same_bits(again, y, f"{case.memory} memory with {case.workers} workers")
    plan = fastconv.Plan(w, given.shape[1:], operation=case.operation, workers=case.workers, **options)
    assert_same_bits(plan(given), y, "a plan")
    for image, result in zip(given, y, strict=True):
        assert_same_bits(plan(image), result, "a plan of one image")
        assert_same_bits(call(image, w, **options), result, "one image")
    # The sum itself.
    y = np.moveaxis(y, -1, 1) if channels_last else y
    exact, bound = getattr(oracle, case.operation)(x, w, bias, **case.geometry, dtype=case.result)
    compared = ["oracle"]
    if not plan.method.startswith("direct"):
        bound = oracle.largest(bound)
        direct = call(given, w, **(options | {"method": "direct"}))
        if direct.tobytes() != again.tobytes():
            compared.append(f"oracle, by {plan.method} and not directly")
    if case.kind == "subnormal" and case.result.char in "fdFD":  # each term may underflow
        each = 4 * float(np.finfo(case.result).smallest_subnormal)
        bound = bound + case.C * case.R * case.S * (each * (1 + 1j) if case.result.kind == "c" else each)
    assert y.shape == exact.shape, f"the result has shape {y.shape}, the oracle's {exact.shape}"
    assert oracle.within(y, exact, bound), "not within the oracle's bound"
    for name, peer in (("scipy", scipy_sum), ("torch", torch_sum)):
        theirs = peer(case, x, w)
        if theirs is None:
            continue
        compared.append(name)
        assert theirs.shape == exact.shape, f"{name}'s result has shape {theirs.shape}"
        if bias is not None:
            theirs = theirs + bias.astype(theirs.dtype)[:, None, None]
        # They add in double precision, and may be off by the bound of that.
        allowed = bound * (2 if case.result.name in ("float64", "complex128") else 1 + 2**-28)
        assert oracle.within(y, theirs.astype(exact.dtype), allowed), f"not within {name}'s bound"
    return compared


def assert_same_bits(a, b, what):
    assert a.shape == b.shape, what
    assert a.dtype == b.dtype, what
    assert a.tobytes() == b.tobytes(), f"{what}: other bits"


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--isa", choices=_cpu.supported_isas(), action="append", help="default: all that the CPU has")
    arguments = parser.parse_args()
    counts, failures = collections.Counter(), []
    isas = arguments.isa or _cpu.supported_isas()
    for place, isa in enumerate(isas):
        _plan.use_isa(isa)
        rng = np.random.default_rng((arguments.seed, place))
        for number in range(arguments.cases // len(isas)):
            case = draw(lambda options: options[rng.integers(len(options))])  # noqa: B023, called at once
            kinds = [isa, case.operation, f"mode {case.mode}", f"pad_mode {case.pad_mode}", str(case.result),
                     case.layout, case.method, "groups" if case.groups > 1 else "one group"]  # fmt: skip
            try:
                kinds += [f"against {name}" for name in check(case)]
            except Exception as error:
                failures.append(case)
                kinds.append("FAILED")
                if not isinstance(error, AssertionError):
                    traceback.print_exc()
                print(f"{isa}, case {number}: {error}\n    differential.check(differential.{case!r})", flush=True)
            counts.update(kinds)
    for kind, count in sorted(counts.items()):
        print(f"{count:8} {kind}")
    print(f"{arguments.cases // len(isas) * len(isas)} cases, {len(failures)} failures")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
