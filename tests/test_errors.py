"""Bad input: which exception, that it names the argument and shows what came, and that nothing was written before."""

import re
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

import fastconv

X = np.ones((3, 8, 9), np.float32)
W = np.ones((4, 3, 3, 2), np.float32)
SENTINEL = 777.0


def huge(*shape):
    """An array of any shape on one value's memory."""
    return np.broadcast_to(np.float32(1), shape)


def ones(*shape, dtype=np.float32):
    return np.ones(shape, dtype)


class Case(NamedTuple):
    """Arguments, the exception they raise, and texts that its message holds."""

    x: Any
    w: Any
    options: dict
    exception: type
    said: list


def case(exception, said, x=X, w=W, **options):
    return pytest.param(Case(x, w, options, exception, said), id=" / ".join(said))


SHAPES = [
    case(ValueError, ["x has shape (9,)", str(W.shape)], x=ones(9)),
    case(ValueError, ["x has shape ()"], x=np.float32(1)),
    case(ValueError, ["x has shape (1, 1, 3, 8, 9)"], x=ones(1, 1, 3, 8, 9)),
    case(ValueError, ["w has shape (2,)", str(X.shape)], w=ones(2)),
    case(ValueError, ["w has shape (1, 4, 3, 3, 2)"], w=ones(1, 4, 3, 3, 2)),
    case(ValueError, ["x has shape (3, 8, 9)", "w has shape (3, 2)"], w=ones(3, 2)),
    case(ValueError, ["x has shape (8, 9)", "w has shape (4, 3, 3, 2)"], x=ones(8, 9)),
    # Channels.
    case(ValueError, ["x has 2 channels", "(2, 8, 9)", "w has 3", "(4, 3, 3, 2)"], x=ones(2, 8, 9)),
    case(ValueError, ["x has 3 channels", "w has 4", "(4, 3, 2)"], w=ones(4, 3, 2)),
    case(ValueError, ["x has 8 channels", "(8, 9, 3)", "w has 3", "with layout='NHWC' 3"], x=ones(8, 9, 3)),
    case(ValueError, ["x has 9 channels", "w has 3", "with layout='NCHW' 3"], layout="NHWC"),
    case(ValueError, ["w has shape (4, 0, 3, 2)", "at least one channel"], x=ones(0, 8, 9), w=ones(4, 0, 3, 2)),
    case(ValueError, ["w has shape (0, 3, 2)", "at least one channel"], x=ones(5, 0, 8, 9), w=ones(0, 3, 2)),
    # Filters that are empty, or larger than the image.
    case(ValueError, ["w has shape (4, 3, 0, 2)"], w=ones(4, 3, 0, 2)),
    case(ValueError, ["w has shape (4, 3, 3, 0)"], w=ones(4, 3, 3, 0)),
    case(ValueError, ["w has shape (0, 0)"], x=ones(8, 9), w=ones(0, 0)),
    case(ValueError, ["w is 9 x 2", "x", "8 x 9"], w=ones(4, 3, 9, 2)),
    case(ValueError, ["w is 3 x 10", "8 x 9"], w=ones(4, 3, 3, 10)),
    case(ValueError, ["w is 3 x 2", "0 x 9", "(3, 0, 9)"], x=ones(3, 0, 9)),
    case(ValueError, ["w is 3 x 2", "8 x 0", "(3, 8, 0)"], x=ones(3, 8, 0)),
    # Sizes that only an array of strides 0 can have.
    case(ValueError, [f"(3, {2**30}, {2**29})", "larger than any memory"], x=huge(3, 2**30, 2**29)),
    case(ValueError, [f"({2**56}, 3, 3, 2)", "larger than any memory"], w=huge(2**56, 3, 3, 2)),
    case(ValueError, [f"({2**40}, 3, 8, 9)", "larger than any memory"], x=huge(2**40, 3, 8, 9), w=huge(2**20, 3, 3, 2)),
    case(ValueError, [f"(4, 3, {2**56}, 2)", "(3, 8, 9)"], w=as_strided(W, (4, 3, 2**56, 2), (0, 0, 0, 4))),
]

ARGUMENTS = [
    # Dtypes.
    case(TypeError, ["x has dtype object", "numeric dtype"], x=X.astype(object)),
    case(TypeError, ["w has dtype <U3", "numeric dtype"], w=W.astype("U3")),
    case(TypeError, ["x has dtype datetime64"], x=np.zeros(X.shape, "M8[s]")),
    case(TypeError, ["w has dtype [('a', '<f4')]"], w=np.zeros(W.shape, [("a", "<f4")])),
    case(TypeError, ["x has dtype object"], x=None),
    case(TypeError, ["x can't be read as an array", "inhomogeneous"], x=[[1.0, 2.0], [3.0]]),
    case(TypeError, ["dtype", "'no such dtype'"], dtype="no such dtype"),
    case(TypeError, ["dtype", "float32", "float64"], x=X.astype(np.float64), dtype=np.float32),
    case(TypeError, ["dtype", "object"], dtype=object),
    # Bias.
    case(ValueError, ["bias has shape (3,)", "(4,)"], bias=ones(3)),
    case(ValueError, ["bias has shape ()", "(4,)"], bias=1.0),
    case(ValueError, ["bias has shape (4, 1)", "(4,)"], bias=ones(4, 1)),
    case(TypeError, ["bias has dtype <U1"], bias=["a", "b", "c", "d"]),
    # Names and numbers.
    case(ValueError, ["mode is 'circular'", "'valid'"], mode="circular"),
    case(ValueError, ["mode is None"], mode=None),
    case(ValueError, ["method is 'fft2'", "'direct'"], method="fft2"),
    case(ValueError, ["method is None"], method=None),
    case(ValueError, ["method is array([]"], method=np.zeros(0)),
    case(ValueError, ["workers is 0"], workers=0),
    case(ValueError, ["workers is -100000"], workers=-100_000),
    case(TypeError, ["workers is 2.0"], workers=2.0),
    case(TypeError, ["workers is '2'"], workers="2"),
    case(TypeError, ["workers is '3'"], workers="3", padding=10**6),  # before memory is asked for
    case(ValueError, ["method is 'x'"], method="x", padding=10**6),
]

OPTIONS = [
    case(ValueError, ["stride is 0", "at least 1"], stride=0),
    case(ValueError, ["stride is (1, -2)", "at least 1"], stride=(1, -2)),
    case(ValueError, ["stride is (1, 1, 1)", "pair"], stride=(1, 1, 1)),
    case(TypeError, ["stride is 1.5", "integer"], stride=1.5),
    case(TypeError, ["stride is '2'", "integer"], stride="2"),
    case(TypeError, ["stride is {1, 2}", "pair of integers"], stride={1, 2}),
    case(TypeError, ["stride is {0: 1, 1: 2}", "pair of integers"], stride={0: 1, 1: 2}),
    case(ValueError, ["stride", str(2**70), "at most"], stride=2**70),
    case(ValueError, ["with dilation", str(2**30), "larger than any memory"], dilation=2**30, x=huge(3, 2**30, 9)),
    case(ValueError, ["dilation is 0", "at least 1"], dilation=0),
    case(ValueError, ["dilation", "larger than x", "9 x 2"], dilation=(4, 1)),
    case(ValueError, ["padding is -1", "at least 0"], padding=-1),
    case(ValueError, ["padding is (1, 1, 1, 1)", "((top, bottom), (left, right))"], padding=(1, 1, 1, 1)),
    case(TypeError, ["padding is ((1, 1), 1)", "((top, bottom), (left, right))"], padding=((1, 1), 1)),
    case(ValueError, ["padding is ((1, 1), (1, -1))"], padding=((1, 1), (1, -1))),
    case(ValueError, ["padding is ((1, 1, 1), (1, 1, 1))", "((top, bottom), (left, right))"],
         padding=((1, 1, 1), (1, 1, 1))),
    case(TypeError, ["padding is 0.5", "integer"], padding=0.5),
    case(ValueError, ["padding is 'same'", "mode"], padding="same"),
    case(ValueError, ["padding is 1", "mode='same'"], padding=1, mode="same"),
    case(ValueError, ["padding", f"{2**61}", "memory"], padding=2**61),
    case(ValueError, ["groups is 0"], groups=0),
    case(ValueError, ["groups is -1"], groups=-1),
    case(ValueError, ["groups is 2", "3 channels"], groups=2),
    case(ValueError, ["groups is 3", "4 filters"], groups=3, w=ones(4, 1, 3, 2)),
    case(ValueError, ["x has 3 channels", "w has 2 in each of 3 groups"], groups=3, w=ones(3, 2, 3, 2)),
    case(TypeError, ["groups is 1.5"], groups=1.5),
    case(ValueError, ["pad_mode is 'zeros'", "'constant'", "'wrap'"], pad_mode="zeros"),
    case(ValueError, ["pad_mode is None"], pad_mode=None),
    case(TypeError, ["pad_value is 'a'", "number"], pad_value="a"),
    case(TypeError, ["pad_value is [1, 2]", "number"], pad_value=[1, 2]),
    case(ValueError, ["pad_value is 1", "pad_mode='edge'"], pad_value=1, pad_mode="edge", padding=1),
    case(ValueError, ["layout is 'CHWN'", "'NHWC'"], layout="CHWN"),
    case(ValueError, ["layout is 3"], layout=3),
    case(ValueError, ["x has shape (3, 0, 9)", "pixels to pad with"], x=ones(3, 0, 9), padding=3, pad_mode="edge"),
    *(case(TypeError, ["dtype", name], dtype=name) for name in ("bool", "int8", "uint8", "int64", "float16")),
    *(
        case(TypeError, [argument, "dtype", np.dtype(name).name, "cast"], **{argument: values.astype(name)})
        for argument, values in (("x", X), ("w", W))
        for name in ("longdouble", "clongdouble", "object")
    ),
    case(TypeError, ["bias has dtype complex128"], bias=[1j, 2, 3, 4]),
]


def check_message(raised, said):
    message = str(raised.value)
    assert all(text in message for text in said), message


def call_correlate(x, w, options, out):
    fastconv.correlate(x, w, out=out, **options)


def call_convolve(x, w, options, out):
    fastconv.convolve(x, w, out=out, **options)


def call_plan(x, w, options, out):
    """A plan knows x by its shape alone; what is wrong with x's values comes to light when it is called."""
    fastconv.Plan(w, np.shape(x), **options)(x, out=out)


CALLS = pytest.mark.parametrize("call", [call_correlate, call_convolve], ids=lambda call: call.__name__)


@CALLS
@pytest.mark.parametrize("bad", SHAPES + ARGUMENTS + OPTIONS)
def test_functions(call, bad):
    out = np.full((4, 6, 8), SENTINEL, np.float32)
    with pytest.raises(bad.exception) as raised:
        call(bad.x, bad.w, bad.options, out)
    check_message(raised, bad.said)
    assert (out == SENTINEL).all()


def of_plan(parameters):
    """Those that a plan has, which knows x by its shape; shapes that are none of an image are in test_plan_x_shape."""
    images = [(row, row.values[0].x) for row in parameters]
    return [row for row, x in images if getattr(x, "dtype", None) == np.float32 and x.ndim in (2, 3, 4)]


@pytest.mark.parametrize("bad", of_plan(SHAPES + ARGUMENTS + OPTIONS))
def test_plan(bad):
    with pytest.raises(bad.exception) as raised:
        fastconv.Plan(bad.w, bad.x.shape, **bad.options)
    check_message(raised, bad.said)


@CALLS
def test_a_method_that_cannot_compute_the_shape(call):
    out = np.full((4, 6, 1), SENTINEL, np.float32)
    with pytest.raises(ValueError, match=r"method is 'direct-matrix'.* 6 x 1"):
        call(ones(3, 8, 2), W, {"method": "direct-matrix"}, out)
    assert (out == SENTINEL).all()


def test_all_rows_of_the_table_differ():
    """A row that repeats another would hide a missing one."""
    ids = [row.id for row in SHAPES + ARGUMENTS + OPTIONS]
    assert len(set(ids)) == len(ids)


OUTS = [
    (ones(4, 6, 7), ValueError, ["out has shape (4, 6, 7)", "(4, 6, 8)"]),
    (ones(1, 4, 6, 8), ValueError, ["out has shape (1, 4, 6, 8)", "(4, 6, 8)"]),
    (ones(4, 6, 8, dtype=np.float64), TypeError, ["out has dtype float64", "float32"]),
    (ones(4, 6, 8, dtype=np.int32), TypeError, ["out has dtype int32", "float32"]),
    (np.ones((4, 6, 8), np.dtype(np.float32).newbyteorder()), TypeError, ["out has dtype >f4", "float32"]),
    (ones(8, 6, 4).T, ValueError, ["out has strides (4, 16, 96)", "C-contiguous"]),
    (ones(4, 6, 16)[..., ::2], ValueError, ["out has strides (384, 64, 8)", "C-contiguous"]),
    (ones(4, 6, 8)[:, ::-1], ValueError, ["out has strides (192, -32, 4)", "C-contiguous"]),
    (np.zeros(4 * 6 * 8 * 4 + 1, np.uint8)[1:].view(np.float32).reshape(4, 6, 8), ValueError, ["out", "aligned"]),
    ([0.0], TypeError, ["out is a list", "NumPy array"]),
    ("out", TypeError, ["out is a str", "NumPy array"]),
]


@pytest.mark.parametrize("call", [call_correlate, call_convolve, call_plan], ids=lambda call: call.__name__)
@pytest.mark.parametrize(("out", "exception", "said"), OUTS, ids=[said[0] for _, _, said in OUTS])
def test_out(call, out, exception, said):
    if isinstance(out, np.ndarray):
        out[...] = 77
    with pytest.raises(exception) as raised:
        call(X, W, {}, out)
    check_message(raised, said)
    if isinstance(out, np.ndarray):
        assert (out == 77).all()


@pytest.mark.parametrize("call", [call_correlate, call_convolve, call_plan], ids=lambda call: call.__name__)
def test_out_read_only(call):
    out = np.full((4, 6, 8), SENTINEL, np.float32)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="out is read-only"):
        call(X, W, {}, out)
    assert (out == SENTINEL).all()


@pytest.mark.parametrize("call", [call_correlate, call_convolve, call_plan], ids=lambda call: call.__name__)
@pytest.mark.parametrize("shift", [0, 1, 191, 215])
def test_out_overlaps_x(call, shift):
    """In the last row of x, 3 x 8 x 9 values, they share a single value."""
    memory = np.arange(216.0 + 192, dtype=np.float32)
    with pytest.raises(ValueError, match="out overlaps x"):
        call(memory[:216].reshape(3, 8, 9), W, {}, memory[shift : shift + 192].reshape(4, 6, 8))
    assert np.array_equal(memory, np.arange(216.0 + 192))
    call(memory[:216].reshape(3, 8, 9), W, {}, memory[216:].reshape(4, 6, 8))   # side by side is no overlap
    assert not np.array_equal(memory[216:], np.arange(216.0, 216 + 192))


@CALLS
def test_out_overlaps_w_or_bias(call):
    memory = np.ones(192 + 72, np.float32)
    out = memory[:192].reshape(4, 6, 8)
    with pytest.raises(ValueError, match="out overlaps w"):
        call(X, memory[191 : 191 + 72].reshape(W.shape), {}, out)
    with pytest.raises(ValueError, match="out overlaps bias"):
        call(X, W, {"bias": memory[191:195]}, out)
    assert (memory == 1).all()


def test_out_between_the_rows_of_x_is_no_overlap():
    """They share a stretch of memory, but not a value of it."""
    memory = np.ones((3, 16), np.float32)
    x, out = memory[:, :8], memory[1:2, 8:]
    assert np.may_share_memory(x, out)
    assert fastconv.correlate(x, np.full((3, 1), 5, np.float32), out=out) is out
    assert (out == 15).all()
    assert (x == 1).all()


@pytest.mark.parametrize("n", [None, 0, 3])
@pytest.mark.parametrize("k", [0, 2])
def test_empty_results(n, k, dtype):
    """No images or no filters give no results, of the shape and dtype that they would have."""
    x = np.ones((3, 8, 9) if n is None else (n, 3, 8, 9), dtype)
    w = np.ones((k, 3, 3, 2), dtype)
    shape = (k, 6, 8) if n is None else (n, k, 6, 8)
    for y in (
        fastconv.correlate(x, w),
        fastconv.convolve(x, w, bias=np.ones(k, dtype), workers=2),
        fastconv.correlate(x, w, method="direct-filters"),
        fastconv.correlate(x, w, out=np.empty(shape, dtype)),
        fastconv.Plan(w, x.shape)(x),
    ):
        assert y.shape == shape
        assert y.dtype == dtype


def test_arguments_are_looked_at_even_if_the_result_is_empty():
    for argument, value in (("workers", 0), ("method", "no"), ("mode", "no")):
        with pytest.raises(ValueError, match=f"{argument} is {value!r}"):
            fastconv.correlate(X, W[:0], **{argument: value})


def test_too_large_for_memory():
    """What could be on some machine, and isn't on this one, is a MemoryError."""
    for x in (huge(2**20, 3, 2**8, 2**16), huge(3, 2**22, 2**22)):
        with pytest.raises(MemoryError):
            fastconv.correlate(x, W)


def test_weights_too_large_for_memory():
    """Refused before they are looked at. Not timed: that took months."""
    for x_shape in ((0, 2, 2, 4), (1, 2, 2**40, 4)):
        with pytest.raises(MemoryError, match=r"[0-9]"):
            fastconv.Plan(huge(2, 2**40, 4), x_shape, mode="same")


def test_padding_too_large_for_memory():
    """Planned at once, and refused: a length for transforms of 2^54 numbers was looked for, one after the other."""
    w = ones(2, 2, 1, 2, dtype=np.float64)
    for method in ("auto", "direct", "fft"):
        with pytest.raises(MemoryError, match=r"[0-9]"):
            fastconv.Plan(w, (1, 4, 2, 3), groups=2, mode="full", dilation=2**53, method=method)


@pytest.mark.parametrize(
    ("x_shape", "exception", "said"),
    [
        (8, TypeError, "x_shape is 8"),
        (None, TypeError, "x_shape is None"),
        ("3, 8, 9", TypeError, "x_shape is '3, 8, 9'"),
        ((3.0, 8, 9), TypeError, "x_shape is (3.0, 8, 9)"),
        ((), ValueError, "x_shape is ()"),
        ((9,), ValueError, "x_shape is (9,)"),
        ((1, 1, 3, 8, 9), ValueError, "x_shape is (1, 1, 3, 8, 9)"),
        ((3, -8, 9), ValueError, "x_shape is (3, -8, 9)"),
        ((3, 2**70, 9), ValueError, f"x_shape is (3, {2**70}, 9)"),
        ((2**62, 3, 2**62, 2**62), ValueError, "larger than any memory"),
        ((0, 3, 2**62, 2**62), ValueError, "larger than any memory"),
    ],
    ids=str,
)
def test_plan_x_shape(x_shape, exception, said):
    with pytest.raises(exception, match=re.escape(said)):
        fastconv.Plan(W, x_shape)


def test_plan_operation():
    with pytest.raises(ValueError, match="operation is 'multiply'; expected 'correlate' or 'convolve'"):
        fastconv.Plan(W, X.shape, operation="multiply")
    with pytest.raises(ValueError, match="flip_channels is True"):
        fastconv.Plan(W, X.shape, flip_channels=True)


@pytest.mark.parametrize(
    ("x", "exception", "said"),
    [
        (ones(3, 8, 8), ValueError, ["x has shape (3, 8, 8)", "(3, 8, 9)"]),
        (ones(3, 9, 9), ValueError, ["x has shape (3, 9, 9)", "(3, 8, 9)"]),
        (ones(2, 4, 8, 9), ValueError, ["x has shape (2, 4, 8, 9)", "(3, 8, 9)"]),
        (ones(8, 9), ValueError, ["x has shape (8, 9)", "(3, 8, 9)"]),
        (ones(9), ValueError, ["x has shape (9,)", "(3, 8, 9)"]),
        (np.float32(1), ValueError, ["x has shape ()", "(3, 8, 9)"]),
        (ones(1, 1, 3, 8, 9), ValueError, ["x has shape (1, 1, 3, 8, 9)", "(3, 8, 9)"]),
        (X.astype(np.float64), TypeError, ["x has dtype float64", "float32"]),
        (X.astype(object), TypeError, ["x has dtype object"]),
        (X.astype(np.int32), TypeError, ["x has dtype int32", "float32"]),
    ],
    ids=lambda value: str(np.shape(value)) if isinstance(value, np.ndarray) else None,
)
def test_plan_call(x, exception, said):
    plan = fastconv.Plan(W, X.shape)
    out = np.full(plan.y_shape, SENTINEL, np.float32)
    with pytest.raises(exception) as raised:
        plan(x, out=out)
    check_message(raised, said)
    assert (out == SENTINEL).all()
    assert (plan(X) == 18).all()    # and the plan is as good as new


def test_plan_call_with_a_batch_too_large():
    plan = fastconv.Plan(huge(2**20, 3, 3, 2), X.shape)
    with pytest.raises(ValueError, match=re.escape(str((2**40, 3, 8, 9)))):
        plan(huge(2**40, 3, 8, 9))


def test_options_are_keywords():
    with pytest.raises(TypeError):
        fastconv.correlate(X, W, "valid")
    with pytest.raises(TypeError, match="no_such_option"):
        fastconv.correlate(X, W, no_such_option=1)
