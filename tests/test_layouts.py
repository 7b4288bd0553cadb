"""Channels last, and arrays of any memory and origin: the values alone decide, down to the bits."""

import array
import functools
import itertools

import memory
import numpy as np
import oracle
import pytest
from cases import same_bits
from differential import values

import fastconv

METHODS = ("auto", "direct-filters")
OPTIONS = [
    {},
    {"mode": "same", "pad_mode": "reflect"},
    {"padding": ((2, 0), (1, 3)), "pad_value": 2, "stride": (2, 1)},
    {"mode": "full", "stride": 2, "dilation": (2, 3), "groups": 2},
]
OPTION_SETS = pytest.mark.parametrize("options", OPTIONS, ids=str)
DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "float16", "int64", "uint8", "bool"])


def arrays(dtype="float32", *, N=2, C=3, K=5, groups=1, H=9, W=41, R=3, S=2):
    rng = np.random.default_rng(0)
    sizes = (N, groups * C, H, W), (groups * K, C, R, S), groups * K
    return [values(rng, size, dtype) for size in sizes]


def channels_last(x):
    return np.ascontiguousarray(np.moveaxis(x, -3, -1))


# Channels last.


@DTYPES
@OPTION_SETS
def test_channels_last_is_channels_first_moved(options, dtype):
    for C, K, W in ((3, 5, 41), (1, 1, 41), (1, 4, 20), (4, 1, 5), (17, 35, 7)):
        x, w, bias = arrays(dtype, C=C, K=K, W=W, groups=options.get("groups", 1))
        for operation in (fastconv.correlate, fastconv.convolve):
            y = operation(x, w, bias=bias, **options)
            last = operation(channels_last(x), w, bias=bias, layout="NHWC", **options)
            assert last.flags.c_contiguous
            assert same_bits(last, channels_last(y))
            out = np.empty_like(last)
            assert operation(channels_last(x), w, bias=bias, layout="NHWC", out=out, **options) is out
            assert same_bits(out, last)


@OPTION_SETS
def test_channels_last_within_bound(options):
    x, w, bias = arrays(groups=options.get("groups", 1))
    exact, bound = oracle.correlate(x, w, bias, **options)
    y = fastconv.correlate(channels_last(x), w, bias=bias, layout="NHWC", **options)
    assert oracle.within(np.moveaxis(y, -1, 1), exact, bound)


def test_channels_last_of_one_image_and_of_two_dimensions():
    x, w, bias = arrays()
    y = fastconv.correlate(channels_last(x), w, bias=bias, layout="NHWC")
    assert y.shape == (2, 7, 40, 5)
    assert same_bits(fastconv.correlate(channels_last(x[1]), w, bias=bias, layout="NHWC"), y[1])
    assert same_bits(fastconv.correlate(x[0, 0], w[0, 0], layout="NHWC"), fastconv.correlate(x[0, 0], w[0, 0]))


@pytest.mark.parametrize("layout", memory.LAYOUTS)
def test_channels_last_in_any_memory(layout):
    x, w, bias = arrays()
    x = channels_last(x)
    for options in OPTIONS[:3]:
        y = fastconv.correlate(x, w, bias=bias, layout="NHWC", **options)
        assert same_bits(fastconv.correlate(memory.LAYOUTS[layout](x), w, bias=bias, layout="NHWC", **options), y)


# Memory. (test_properties.py has the same for valid correlations of floats.)


@DTYPES
@pytest.mark.parametrize("layout", memory.LAYOUTS)
def test_memory_of_the_arguments(layout, dtype):
    place = memory.LAYOUTS[layout]
    for options in OPTIONS:
        x, w, bias = arrays(dtype, groups=options.get("groups", 1))
        assert np.array_equal(place(x), x)
        for method in METHODS:
            y = fastconv.convolve(x, w, bias=bias, method=method, **options)
            other = fastconv.convolve(place(x), place(w), bias=place(bias[:, None])[:, 0], method=method, **options)
            assert same_bits(other, y)


@pytest.mark.parametrize("axes", list(itertools.permutations(range(4))), ids=str)
def test_axes_in_any_order_in_memory(axes):
    x, w, _ = arrays()
    for options in OPTIONS[:3]:
        y = fastconv.correlate(x, w, **options)
        moved_x, moved_w = (np.ascontiguousarray(a.transpose(axes)).transpose(np.argsort(axes)) for a in (x, w))
        assert same_bits(fastconv.correlate(moved_x, moved_w, **options), y)


@OPTION_SETS
@pytest.mark.parametrize("axis", range(4))
def test_broadcast_arrays(axis, options):
    """Strides of zero along any axis."""
    x, w, bias = arrays(groups=options.get("groups", 1))
    repeated_x = np.broadcast_to(x.take([0], axis), x.shape)
    repeated_w = np.broadcast_to(w.take([0], axis), w.shape)
    y = fastconv.correlate(repeated_x.copy(), repeated_w.copy(), bias=bias, **options)
    assert same_bits(fastconv.correlate(repeated_x, repeated_w, bias=bias, **options), y)


@OPTION_SETS
def test_overlapping_windows_of_a_signal(options):
    """Images whose rows share memory."""
    signal = np.random.default_rng(0).standard_normal(300)
    x = np.lib.stride_tricks.sliding_window_view(signal, 41)[:54:3].reshape(1, 2, 9, 41)
    w = np.random.default_rng(1).standard_normal((4, 2 // options.get("groups", 1), 3, 2))
    assert np.shares_memory(x[0, 0, 0], x[0, 0, 1])
    assert same_bits(fastconv.correlate(x, w, **options), fastconv.correlate(x.copy(), w, **options))


def test_memmap(tmp_path):
    x, w, _ = arrays()
    x.tofile(tmp_path / "x")
    for mode in ("r", "c"):
        mapped = np.memmap(tmp_path / "x", "float32", mode, shape=x.shape)
        for options in OPTIONS[:3]:
            assert same_bits(fastconv.correlate(mapped, w, **options), fastconv.correlate(x, w, **options))
    y = fastconv.correlate(x, w)
    out = np.memmap(tmp_path / "y", "float32", "w+", shape=y.shape)
    assert fastconv.correlate(x, w, out=out) is out
    out.flush()
    assert np.array_equal(np.fromfile(tmp_path / "y", "float32").reshape(y.shape), y)


@DTYPES
@OPTION_SETS
def test_out_of_every_dtype(options, dtype):
    """A slice of a larger array, of which nothing else is written."""
    x, w, bias = arrays(dtype, groups=options.get("groups", 1))
    y = fastconv.correlate(x, w, bias=bias, **options)
    larger = np.ones((y.shape[0] + 2, *y.shape[1:]), dtype)
    assert fastconv.correlate(x, w, bias=bias, out=larger[1:-1], **options).base is larger
    assert same_bits(larger[1:-1], y)
    assert (larger[[0, -1]] == 1).all()


# Other sources than NumPy's arrays.


def only(array, *names):
    """An object that has these methods of an array, and nothing else."""

    def handed_on(name):
        return lambda _, *args, **kwargs: getattr(array, name)(*args, **kwargs)

    return type("Only", (), {name: handed_on(name) for name in names})()


@OPTION_SETS
def test_protocols(options):
    x, w, _ = arrays(groups=options.get("groups", 1))
    y = fastconv.correlate(x, w, **options)
    plan = fastconv.Plan(only(w, "__array__"), x.shape, **options)
    for protocol in (("__array__",), ("__dlpack__", "__dlpack_device__")):
        assert same_bits(fastconv.correlate(only(x, *protocol), only(w, *protocol), **options), y)
        assert same_bits(plan(only(x, *protocol)), y)
    assert same_bits(fastconv.correlate(memoryview(x), memoryview(w), **options), y)


def test_lists_and_buffers():
    x, w = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], [[1.0, -1.0]]
    assert fastconv.correlate(x, w).tolist() == [[-1.0, -1.0], [-1.0, -1.0]]
    rows = memoryview(array.array("d", [1, 2, 3, 4, 5, 6])).cast("B").cast("d", (2, 3))
    assert fastconv.correlate(rows, w).tolist() == [[-1.0, -1.0], [-1.0, -1.0]]
    pixels = memoryview(bytearray([1, 2, 3, 4, 5, 255])).cast("B", (2, 3))
    assert fastconv.correlate(pixels, memoryview(b"\1\1").cast("B", (1, 2))).tolist() == [[3, 5], [9, 4]]


@DTYPES
@OPTION_SETS
def test_torch_tensors(options, dtype):
    torch = pytest.importorskip("torch")
    x, w, bias = arrays(dtype, groups=options.get("groups", 1))
    tensors = [torch.from_numpy(array) for array in (x, w, bias)]
    y = fastconv.correlate(x, w, bias=bias, **options)
    assert same_bits(fastconv.correlate(tensors[0], tensors[1], bias=tensors[2], **options), y)
    strided = tensors[0].contiguous(memory_format=torch.channels_last)
    assert same_bits(fastconv.correlate(strided, tensors[1], bias=bias, **options), y)
    assert same_bits(fastconv.correlate(only(strided, "__dlpack__", "__dlpack_device__"), w, bias=bias, **options), y)


def test_tensors_that_cannot_be_read():
    torch = pytest.importorskip("torch")
    x = torch.ones((1, 4, 4), requires_grad=True)
    with pytest.raises(TypeError, match="x can't be read as an array"):
        fastconv.correlate(x, np.ones((1, 1, 2, 2), "float32"))


# Plans.


COLUMN_OPTIONS = (
    {},
    {"padding": (3, 0)},
    {"padding": ((1, 2), (0, 0)), "pad_mode": "reflect"},
    {"mode": "same", "dilation": (2, 1)},
    {"stride": (2, 1), "groups": 2},
    {"stride": 3, "mode": "full", "pad_value": 2},
)


@DTYPES
@pytest.mark.parametrize("options", COLUMN_OPTIONS, ids=str)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_a_column_is_a_row_that_is_turned(layout, options, dtype):
    """All of it, so that images of one column take no longer: bits, shapes and what errors say."""
    x, w, bias = arrays(dtype, N=2, C=4, K=40, R=5, S=1, H=50, W=1, groups=options.get("groups", 1))
    turned = {
        name: value if isinstance(value, int | str) else value[::-1] for name, value in options.items()
    }  # of pairs, which are for rows and for columns, the other way round
    row, column = np.swapaxes(x, 2, 3), x
    axes = (2, 3)
    if layout == "NHWC":
        row, column, axes = channels_last(row), channels_last(column), (1, 2)
    for method, operation in itertools.product(METHODS, ("correlate", "convolve")):
        compute = functools.partial(getattr(fastconv, operation), bias=bias, layout=layout, method=method)
        y = compute(column, w, **options)
        assert same_bits(y, np.swapaxes(compute(row, np.swapaxes(w, 2, 3), **turned), *axes))
        assert same_bits(y, compute(memory.gapped(column), memory.gapped(w), **options))
        plan = fastconv.Plan(
            w, column.shape[1:], bias=bias, layout=layout, method=method, operation=operation, **options
        )
        assert same_bits(plan(column), y)
        assert plan.x_shape == column.shape[1:]
        assert plan.y_shape == y.shape[1:]
        assert f"{w.shape[1]} x 5 x 1 ->" in repr(plan)
        with pytest.raises(ValueError, match=r"x has shape .*; expected \(.*50, 1.*as planned"):
            plan(row)


@pytest.mark.parametrize("options", COLUMN_OPTIONS, ids=str)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_plans_of_columns_take_wider_images(layout, options):
    """By a second plan, which is made from the first one's arguments."""
    x, w, bias = arrays("int8", N=2, C=4, K=6, R=5, S=1, H=50, W=1, groups=options.get("groups", 1))
    x = channels_last(x) if layout == "NHWC" else x
    options = options | {"bias": bias, "layout": layout, "dtype": "int32"}
    plan = fastconv.Plan(w, x.shape, **options)
    for image in (x, x.astype("int32") * 100_000):
        y = fastconv.correlate(image, w, **options)
        assert same_bits(plan(image), y)
        assert plan.y_shape == y.shape


@DTYPES
@OPTION_SETS
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_plans_give_the_bits_of_calls(layout, options, dtype):
    """For a batch and alone, with any number of workers, into `out` or not."""
    x, w, bias = arrays(dtype, N=3, groups=options.get("groups", 1))
    if layout == "NHWC":
        x = channels_last(x)
    options = options | {"bias": bias, "layout": layout}
    for operation, method in itertools.product(("correlate", "convolve"), METHODS):
        y = getattr(fastconv, operation)(x, w, method=method, **options)
        plan = fastconv.Plan(w, x.shape[1:], operation=operation, method=method, **options)
        assert plan.dtype == y.dtype
        assert plan.x_shape == x.shape[1:]
        assert plan.y_shape == y.shape[1:]
        assert same_bits(plan(x), y)
        assert same_bits(plan(x[1]), y[1])
        out = np.empty_like(y)
        assert plan(memory.gapped(x), out=out) is out
        assert same_bits(out, y)
        for workers in range(1, 6):
            plan = fastconv.Plan(w, x.shape, operation=operation, method=method, workers=workers, **options)
            assert same_bits(plan(x), y)
            assert same_bits(plan(x[2]), y[2])


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@OPTION_SETS
def test_many_workers_share_a_larger_problem(options, layout):
    """Large enough that it is cut otherwise for each number of workers."""
    x, w, bias = arrays(N=1, C=9, K=40, H=40, W=60, groups=options.get("groups", 1))
    x = channels_last(x) if layout == "NHWC" else x
    options = options | {"bias": bias, "layout": layout}
    for method in METHODS:
        y = fastconv.correlate(x, w, method=method, workers=1, **options)
        for workers in (2, 3, 4, 5):
            assert same_bits(fastconv.correlate(x, w, method=method, workers=workers, **options), y)
