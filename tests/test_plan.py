"""Plans: what they say of themselves, that they keep their own weights, and that threads may share one."""

import concurrent.futures
import copy
import os
import pickle
import sysconfig
import threading
import time

import numpy as np
import oracle
import pytest
from cases import DTYPES, METHODS, integers, methods, reals, same_bits, shape
from shapes import SHAPES

import fastconv
from fastconv import _plan


def test_attributes(isa, dtype):
    plan = fastconv.Plan(np.ones((8, 3, 5, 3), dtype), (3, 20, 30))
    assert plan.operation == "correlate"
    assert plan.method in METHODS
    assert plan.isa == isa
    assert plan.dtype == np.dtype(dtype)
    assert plan.x_shape == (3, 20, 30)
    assert plan.y_shape == (8, 16, 28)
    assert plan.flops == 2 * 8 * 16 * 28 * 3 * 5 * 3
    assert plan.packed_bytes >= 8 * 3 * 5 * 3 * np.dtype(dtype).itemsize
    assert 0 <= plan.workspace_bytes <= 1 << 20
    assert fastconv.Plan(np.ones((1, 1, 1)), (1, 1, 1), operation="convolve").operation == "convolve"


@pytest.mark.parametrize("x_shape", [(3, 20, 30), (7, 3, 20, 30), (1, 3, 20, 30), (0, 3, 20, 30)])
def test_shapes_with_images(x_shape):
    plan = fastconv.Plan(np.ones((8, 3, 5, 3)), x_shape)
    images = x_shape[:-3]
    assert plan.x_shape == x_shape
    assert plan.y_shape == (*images, 8, 16, 28) == plan(np.ones(x_shape)).shape
    assert plan.flops == 2 * int(np.prod(images)) * 8 * 16 * 28 * 45


def test_two_dimensions():
    plan = fastconv.Plan(np.ones((5, 3)), (20, 30))
    assert (plan.x_shape, plan.y_shape) == ((20, 30), (16, 28))
    assert plan(np.ones((20, 30))).shape == (16, 28)


@pytest.mark.parametrize("name", ["method", "isa", "dtype", "x_shape", "y_shape", "flops", "operation"])
def test_attributes_are_read_only(name):
    plan = fastconv.Plan(np.ones((1, 1, 1)), (1, 1, 1))
    with pytest.raises(AttributeError):
        setattr(plan, name, getattr(plan, name))


def test_repr(isa, dtype):
    w = np.ones((8, 3, 5, 3), dtype)
    text = repr(fastconv.Plan(w, (2, 3, 20, 30), operation="convolve", method="direct-filters"))
    for part in ("convolve", dtype, "(2, 3, 20, 30)", "8 filt", "3 x 5 x 3", "(2, 8, 16, 28)", "direct-filters", isa):
        assert part in text


@pytest.mark.parametrize("method", ["direct-pixels", "direct-filters"])
def test_a_method_that_is_asked_for_is_taken(method):
    assert fastconv.Plan(np.ones((2, 3, 3, 3)), (3, 40, 40), method=method).method == method


def test_pixels_need_channels_first():
    """Where there are several, of the result."""
    assert fastconv.Plan(np.ones((1, 2, 3, 3)), (9, 9, 2), layout="NHWC", method="direct-pixels").y_shape == (7, 7, 1)
    with pytest.raises(ValueError, match="method is 'direct-pixels'"):
        fastconv.Plan(np.ones((2, 2, 3, 3)), (9, 9, 2), layout="NHWC", method="direct-pixels")


@pytest.mark.parametrize("name", SHAPES)
def test_the_method_is_chosen_from_one_image(name, dtype):
    """Never from the number of images or workers: the bits would depend on them."""
    w, x_shape = np.ones(SHAPES[name].w, dtype), SHAPES[name].x[-3:]
    chosen = {
        fastconv.Plan(w, (*images, *x_shape), workers=workers).method
        for images, workers in (((), None), ((), 64), ((0,), 1), ((1000,), 2))
    }
    assert len(chosen) == 1


@pytest.mark.parametrize("w_dtype", DTYPES)
@pytest.mark.parametrize("dtype", [None, *DTYPES])
@pytest.mark.parametrize("x_dtype", DTYPES)
def test_dtypes(w_dtype, dtype, x_dtype):
    """The filters' dtype, or a wider one; images of a dtype that it holds."""
    x, w, _ = reals(shape(C=2, K=3, R=2, S=2, P=3, Q=20), "float32")
    x, w = x.astype(x_dtype), w.astype(w_dtype)
    wanted = np.dtype(dtype or w_dtype)
    if wanted < w.dtype:
        with pytest.raises(TypeError, match="dtype is float32"):
            fastconv.Plan(w, x.shape, dtype=dtype)
        return
    plan = fastconv.Plan(w, x.shape, dtype=dtype)
    assert plan.dtype == wanted
    if x.dtype > wanted:
        with pytest.raises(TypeError, match="x has dtype float64"):
            plan(x)
    else:
        assert same_bits(plan(x), fastconv.correlate(x.astype(wanted), w.astype(wanted)))


@pytest.mark.parametrize("planned", [(), (0,), (1,), (5,)])
def test_any_number_of_images(planned, dtype):
    case = shape(N=4, C=3, K=9, R=3, S=3, P=6, Q=30)
    x, w, bias = reals(case, dtype)
    plan = fastconv.Plan(w, (*planned, *x.shape[1:]), bias=bias)
    for n in (0, 1, 2, 4):
        y = plan(x[:n])
        assert same_bits(y, fastconv.correlate(x[:n], w, bias=bias))
        assert y.shape == (n, *case.y[1:])
    assert same_bits(plan(x[2]), fastconv.correlate(x[2], w, bias=bias))
    assert plan.x_shape == (*planned, *x.shape[1:])


def test_out(dtype):
    x, w, _ = reals(shape(N=2, C=3, K=5, R=2, S=2, P=6, Q=20), dtype)
    plan = fastconv.Plan(w, x.shape)
    out = np.full(plan.y_shape, np.nan, dtype)
    assert plan(x, out=out) is out
    assert same_bits(out, plan(x))
    assert plan(x[0], out=out[1]).base is out
    assert same_bits(out[1], plan(x[0]))


@pytest.mark.parametrize("method", ["direct", "direct-pixels", "direct-filters"])
def test_weights_and_bias_are_copied(method, dtype):
    """What is written to them later doesn't reach the plan, which outlives them."""
    x, w, bias = integers(shape(C=3, K=5, R=3, S=2, P=6, Q=30), dtype)
    plan = fastconv.Plan(w, x.shape, bias=bias, method=method)
    exact = oracle.integers(x, w) + bias[:, None, None]
    w[...], bias[...] = np.nan, np.nan
    del w, bias
    assert np.array_equal(plan(x), exact)


def test_weights_of_any_layout_are_copied():
    x, w, _ = integers(shape(C=3, K=5, R=3, S=2, P=6, Q=30), "float64")
    exact = oracle.integers(x, w)
    for other in (np.asfortranarray(w), w.astype(">f8"), w[::-1, ::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1, ::-1]):
        plan = fastconv.Plan(other, x.shape)
        other[...] = np.nan
        assert np.array_equal(plan(x), exact)


def test_threads_share_a_plan(dtype):
    """Eight Python threads at once, each with images of its own, get the bits that one gets alone."""
    case = shape(C=8, K=20, R=3, S=3, P=24, Q=40)
    w, bias = reals(case, dtype)[1:]
    images = [reals(case, dtype, seed)[0] for seed in range(8)]
    for method in methods(case, dtype):
        plan = fastconv.Plan(w, images[0].shape, bias=bias, method=method)
        alone = [plan(x) for x in images]
        start = threading.Barrier(len(images))

        def compute(thread, plan=plan, start=start):
            x = images[thread] if thread % 2 else np.concatenate([images[thread]] * 2)
            start.wait(timeout=60)
            return [plan(x) for _ in range(10)]

        with concurrent.futures.ThreadPoolExecutor(len(images)) as threads:
            for thread, results in enumerate(threads.map(compute, range(len(images)))):
                assert all(same_bits(image, alone[thread][0]) for y in results for image in y), (method, thread)


def test_threads_make_plans_and_calls(dtype):
    """Planning and one-off calls at once, of different shapes."""
    cases = [shape(C=1 + i, K=3 + 5 * i, R=1 + i % 3, S=2, P=10, Q=20 + i) for i in range(8)]

    def compute(i):
        x, w, _ = integers(cases[i], dtype)
        exact = oracle.integers(x, w)
        return all(
            np.array_equal(fastconv.correlate(x, w), exact) and np.array_equal(fastconv.Plan(w, x.shape)(x), exact)
            for _ in range(10)
        )

    with concurrent.futures.ThreadPoolExecutor(len(cases)) as threads:
        assert all(threads.map(compute, range(len(cases))))


LARGE = (8, 1024, 1100)  # of float32, a result whose memory is used again


def large_result(value):
    return fastconv.correlate(np.full(LARGE, value, np.float32), np.ones((8, 1, 1, 1), np.float32), groups=8)


@pytest.mark.skipif(bool(sysconfig.get_config_var("Py_GIL_DISABLED")), reason="a Python without a GIL: none is kept")
def test_memory_of_a_dropped_result_is_used_again():
    y = large_result(1)
    where = y.ctypes.data
    del y
    y = large_result(2)
    assert y.ctypes.data == where
    assert (y == 2).all()


@pytest.mark.parametrize("hold", [lambda y: y, lambda y: y[3:, ::2, 5], memoryview, lambda y: y.base])
def test_memory_of_a_held_result_is_left_alone(hold):
    held = hold(large_result(3))
    before = np.array(held)
    assert (large_result(4) == 4).all()
    assert (large_result(5) == 5).all()
    assert same_bits(np.array(held), before)


def test_threads_have_large_results_of_their_own():
    start = threading.Barrier(4)

    def compute(thread):
        start.wait(timeout=60)
        for i in range(4):
            y = large_result(10 * thread + i)
            time.sleep(0.01)
            if not (y == 10 * thread + i).all():
                return False
        return True

    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        assert all(threads.map(compute, range(4)))


def resident_bytes():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="no /proc/self/statm to read resident memory from")
def test_memory_is_freed():
    """400 MB in all, of which less than a quarter may stay: of plans, calls, and those that raise half way."""
    w = np.ones((64, 16, 16, 16), np.float32)
    x = np.ones((16, 17, 17), np.float32)
    out = np.ones((64, 2, 2), np.float32)

    def use():
        fastconv.Plan(w, x.shape)(x)
        fastconv.correlate(x, w, method="direct-filters")
        with pytest.raises(ValueError, match="workers"):
            fastconv.correlate(x, w, out=out, workers=0)
        with pytest.raises(TypeError, match="workers"):
            fastconv.convolve(x, w, workers="many")

    use()
    before = resident_bytes()
    for _ in range(100):
        use()
    assert resident_bytes() - before < 100 << 20


# What is said of the choice.


@pytest.mark.parametrize("name", SHAPES)
def test_the_least_predicted_is_chosen(isa, name):
    plan = fastconv.Plan(np.ones(SHAPES[name].w, "f4"), SHAPES[name].x)
    assert plan.method == min(plan.predicted, key=plan.predicted.get) == next(iter(plan.predicted))
    assert set(plan.predicted) <= set(_plan.METHODS)
    assert plan.measured == {}


def test_methods_that_are_predicted_can_be_asked_for(isa, dtype):
    """And the others raise; "fft" alone may be asked for where "auto" doesn't trust it."""
    sizes = {"C": 2, "R": 3, "S": 3, "Q": 40}, {"C": 40, "Q": 5}, {"C": 16, "R": 3, "S": 3, "Q": 9}
    for case in (shape(K=4, P=9, **size) for size in sizes):
        w, x_shape = np.ones(case.w, dtype), case.x
        predicted = fastconv.Plan(w, x_shape).predicted
        for method in _plan.METHODS:
            if method in predicted:
                assert fastconv.Plan(w, x_shape, method=method).method == method
            elif method != "fft":
                with pytest.raises(ValueError, match=f"method is '{method}', which can't"):
                    fastconv.Plan(w, x_shape, method=method)


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8", "bool", "complex64"])
@pytest.mark.parametrize("options", [{}, {"layout": "NHWC"}, {"padding": 1, "pad_mode": "wrap"}, {"stride": 2}])
def test_measure(isa, dtype, options):
    """It takes a method that it has measured to be the fastest, which then computes the same as if asked for."""
    rng = np.random.default_rng(0)
    channels_last = "layout" in options
    x = rng.integers(0, 3, (20, 24, 4) if channels_last else (4, 20, 24)).astype(dtype)
    w = rng.integers(0, 3, (6, 4, 3, 3)).astype(dtype)
    plan = fastconv.Plan(w, x.shape, method="measure", **options)
    assert plan.method == min(plan.measured, key=plan.measured.get)
    assert set(plan.measured) == set(plan.predicted)
    assert all(seconds > 0 for seconds in plan.measured.values())
    assert plan.x_shape == x.shape
    assert same_bits(plan(x), fastconv.Plan(w, x.shape, method=plan.method, **options)(x))
    assert plan(np.stack([x, x])).shape == (2, *plan.y_shape)


@pytest.mark.parametrize("x_shape", [(5, 6), (1, 5, 6), (0, 1, 5, 6), (3, 1, 5, 6)])
@pytest.mark.parametrize("filters", [0, 1, 2])
def test_measure_of_any_shape(x_shape, filters):
    w = np.ones((2, 2) if len(x_shape) == 2 else (filters, 1, 2, 2))
    plan = fastconv.Plan(w, x_shape, method="measure")
    assert plan.x_shape == x_shape
    assert plan(np.ones(x_shape)).shape == plan.y_shape


def test_only_a_plan_measures():
    with pytest.raises(ValueError, match=r"method is 'measure'.* of a Plan"):
        fastconv.correlate(np.ones((5, 5)), np.ones((2, 2)), method="measure")


@pytest.mark.parametrize("dtype", ["float32", "int8", "complex64"])
@pytest.mark.parametrize("method", ["auto", "measure"])
def test_explain(isa, dtype, method):
    plan = fastconv.Plan(np.ones((6, 4, 3, 3), dtype), (4, 20, 24), method=method)
    text = plan.explain()
    assert text.startswith(repr(plan))
    lines = {line.split()[0]: line for line in text.splitlines()[-len(_plan.METHODS) :]}
    assert set(lines) == set(_plan.METHODS)
    for name, line in lines.items():
        assert ("predicted" in line) == (name in plan.predicted)
        assert ("not taken" in line) == (name not in plan.predicted)
        assert ("measured" in line) == (name in plan.measured)


def test_plans_are_not_pickled(dtype):
    plan = fastconv.Plan(np.ones((1, 1, 3, 3), dtype), (1, 9, 9), method="measure")
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="can't be pickled"):
            pickle.dumps(plan, protocol)
    with pytest.raises(TypeError, match="make another one"):
        copy.copy(plan)
    plan.measured.clear()
    assert plan.measured  # another dict each time
