"""The comparison with peers, but for its times: shapes, rooflines, results that are checked, and what is reported."""

import os

import compare
import numpy as np
import oracle
import peers
import pytest
import roofline
from shapes import MORE_SHAPES, SETS, SHAPES, Shape, drawn, resolve

import fastconv

ODD = "2,6,11,9,4,3,2,2,1,2"  # everything at once: a batch, an even side, stride, padding, groups


def test_spelled_shapes():
    assert Shape.parse(ODD) == Shape(2, 6, 11, 9, 4, 3, 2, stride=2, padding=1, groups=2)
    assert Shape.parse("1,3,5,5,1,2,2") == SHAPES["seed"]
    assert str(Shape.parse(ODD)) == ODD


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1,3,5,5,1,2", "N,C,H,W,K,R,S"),
        ("1,3,5,5,1,2,2,1,0,1,1", "N,C,H,W,K,R,S"),
        ("1,3,5,5,1,2,two", "integers"),
        ("1,3,5,5,0,2,2", "at least 1"),
        ("1,3,5,5,1,2,2,0", "at least 1"),
        ("1,3,5,5,1,2,2,1,-1", "padding"),
        ("1,3,5,5,1,2,2,1,0,2", "groups"),
        ("1,3,5,5,1,6,2", "fit"),
    ],
)
def test_bad_shapes_are_repeated(text, said, capsys):
    with pytest.raises(ValueError, match=said) as caught:
        resolve([text])
    assert repr(text) in str(caught.value)
    with pytest.raises(SystemExit):
        compare.parse_arguments(["--shapes", text])
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("word", ["seedling", "drawn:3", "drawn:many:1"])
def test_unknown_shapes(word):
    with pytest.raises(ValueError, match=repr(word)):
        resolve([word])


@pytest.mark.parametrize("threads", ["0", "100000"])
def test_threads_that_there_are_no_cpus_for(threads, capsys):
    with pytest.raises(SystemExit):
        compare.parse_arguments(["--threads", threads])
    assert "--threads" in capsys.readouterr().err


def test_the_plans_sizes():
    """Results' sizes and flops of all shapes are what the library says."""
    assert len(resolve(["issue"])) == 21
    shapes = [*resolve([*SETS, *SHAPES, *MORE_SHAPES, ODD]).values(), *drawn(100, 0).values()]
    for shape in shapes:
        plan = fastconv.Plan(np.broadcast_to(np.float32(1), shape.w), shape.x, **shape.options)
        assert plan.y_shape == shape.y[len(shape.y) - len(shape.x) :]
        assert plan.flops == shape.flops
        assert Shape.parse(str(shape)) == shape


def test_drawn_shapes_are_the_seeds():
    assert resolve(["drawn:20:3"]) == drawn(20, 3) != drawn(20, 4)


def test_bytes():
    assert SHAPES["seed"].bytes == 4 * (3 * 5 * 5 + 3 * 2 * 2 + 4 * 4)
    # Every second row isn't read.
    assert MORE_SHAPES["512x28-1x1"].bytes == 4 * (512 * 14 * 28 + 256 * 512 + 256 * 14 * 14)
    assert MORE_SHAPES["depthwise-56"].bytes == 4 * (128 * 56 * 56 + 128 * 9 + 128 * 56 * 56)


def test_roofline():
    """That of flops, that of bytes, and of both when the copy took 1 ms and the multiply-adds a second."""
    shape = SHAPES["gray-3x3"]
    assert roofline.least_time(shape, 18 * 1022**2, 1e30) == 1
    assert roofline.least_time(shape, 1e30, 4 * (1024**2 + 9 + 1022**2)) == 1
    assert roofline.least_time(shape, 1e30, 4 * (1024**2 + 9 + 1022**2), itemsize=8) == 2
    assert roofline.rates({"peak": 1.0, "copy": 1e-3})[1] == 2000 * (4 << 20)


@pytest.mark.parametrize("shape", [ODD, "1,2,40,31,3,2,3", "1,2,14,29,3,13,11,2,3"])
def test_reference(shape):
    shape = Shape.parse(shape)
    x, w = (array.reshape(-1, *array.shape[-3:]) for array in shape.arrays())
    exact, _ = oracle.correlate(x, w, **shape.options)
    _, total = oracle.correlate(abs(x), abs(w), **shape.options)
    y, largest = compare.reference(shape, x, w)
    assert np.abs(y - exact).max() <= 1e-14 * largest
    assert largest == pytest.approx(total.max() / oracle.gamma(w[0].size, "float32"))


@pytest.mark.parametrize("name", peers.PEERS)
def test_peers_results(name, run_python):
    """In a process of its own: some of them change what threads or forked children there may be."""
    if lacking := peers.missing([name]):
        pytest.skip(f"needs {lacking[name]}")
    script = f"""
import sys
sys.path[:0] = {[compare.__file__.rpartition("/")[0]]}
import numpy as np
from compare import TOLERANCE, reference
from peers import PEERS, to_numpy
from shapes import Shape
for text in ({ODD!r}, "1,3,5,5,1,2,2", "1,4,20,23,4,3,3,1,1,4", "3,2,14,29,3,13,11", "1,8,12,12,6,1,1,2"):
    shape = Shape.parse(text)
    x, w = shape.arrays()
    x = x.reshape(shape.N, shape.C, shape.H, shape.W)
    exact, largest = reference(shape, x, w)
    for contender, call in PEERS[{name!r}].contenders(shape, x, w, 1).items():
        if not isinstance(call, str):
            assert np.abs(to_numpy(call()).reshape(shape.y) - exact).max() <= TOLERANCE * largest, (text, contender)
"""
    done = run_python(script)
    assert done.returncode == 0, done.stderr


def test_missing_peers_are_named(monkeypatch, capsys):
    monkeypatch.setitem(
        peers.PEERS, "absent", peers.Peer(None, {"no-such-package": "no_such_module", "numpy": "numpy"})
    )
    assert peers.missing(["numpy", "absent"]) == {"absent": ["no-such-package"]}
    arguments = "compare.py --peers absent --shapes seed --seconds 0 --threads 1"
    monkeypatch.setattr("sys.argv", arguments.split())
    assert compare.main() == 0
    printed = capsys.readouterr().out
    assert "missing: absent, which needs no-such-package" in printed
    assert "fastconv" in printed


@pytest.fixture
def row(monkeypatch):
    """A row of peers that are right, wrong, not a number, skipped, and raise; without a clock."""

    def contenders(shape, x, w, threads):
        right = fastconv.correlate(x, w, **shape.options)
        return {
            "plain": lambda: right,
            "prepared": right.copy,
            "wrong": lambda: right + 0.01,
            "nan": lambda: right * np.nan,
            "none": "for a reason",
            "raises": lambda: 1 / 0,
        }

    def broken(shape, x, w, threads):
        raise ImportError("half installed")

    for name, function in (("peer", contenders), ("broken", broken)):
        monkeypatch.setitem(peers.PEERS, name, peers.Peer(function, {}))
    taken = {"fastconv plan": 2.0, "fastconv plain": 6.0, "peer plain": 3.0, "peer prepared": 1.0}
    taken |= {"peak": 1.0, "copy": 1.0}
    monkeypatch.setattr(compare, "best_times", lambda calls, *_, **__: {name: taken[name] for name in calls})
    monkeypatch.setattr(compare, "trial", lambda call: 1.0)
    return {"name": "odd"} | compare.measure(Shape.parse(ODD), 2, ["peer", "broken"], 0)


def test_failures_are_told_and_never_win(row):
    assert set(row["failed"]) == {"peer wrong", "peer nan", "peer raises", "broken"}
    assert "wrong" in row["failed"]["peer wrong"]
    assert "ZeroDivisionError" in row["failed"]["peer raises"]
    assert "half installed" in row["failed"]["broken"]
    assert row["skipped"] == {"peer none": "for a reason"}
    assert set(row["times"]) == {"fastconv plan", "fastconv plain", "peer plain", "peer prepared"}


def test_ratios(row):
    assert (row["best"], row["ratio"]) == ("peer prepared", 0.5)
    assert (row["plain_best"], row["plain_ratio"]) == ("peer plain", 0.5)
    assert "0.50!" in compare.line(row)
    assert any("for a reason" in text for text in compare.details(row))


def test_ratios_without_peers_or_without_us():
    assert compare.ratios({"fastconv plan": 1.0})["ratio"] is None
    assert compare.ratios({"peer plain": 1.0})["ratio"] == 0


def test_summary(row):
    won = row | {"name": "won", "ratio": 2.0, "plain_ratio": None, "skipped": {}}
    plan, plain, skipped = compare.summary([row, won])
    assert plan == "2 threads, Plan: geometric mean 1.00, worst 0.50 (odd), 1 losses in 2: odd"
    assert "1 losses in 1" in plain
    assert skipped == "skipped: peer none, for a reason: odd"


def test_plot(row, tmp_path):
    pytest.importorskip("matplotlib").use("Agg")
    rows = [row, row | {"name": "won", "ratio": 2.0}, row | {"threads": 1}]
    compare.plot(rows, tmp_path / "plot.png", "a machine")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_processes_get_their_threads():
    before = os.environ.get("OMP_NUM_THREADS")
    with compare.limited(1):
        assert os.environ["OMP_NUM_THREADS"] == "1"
        assert not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) == 1
    assert os.environ.get("OMP_NUM_THREADS") == before
