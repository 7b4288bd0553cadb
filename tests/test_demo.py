"""The command line, as a user runs it: in a process of its own, in a folder of its own."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import fastconv
from fastconv import _plan
from fastconv._demo import MOST_PIXELS, read_photograph

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def command(tmp_path, isa):
    """Run ``python -m fastconv`` with arguments in tmp_path; `hidden` is a package that it can't import."""

    def run(*arguments, hidden=None):
        python = [sys.executable, "-m", "fastconv"]
        if hidden:
            hide = (
                f"import runpy, sys; sys.modules[{hidden!r}] = None; runpy.run_module('fastconv', run_name='__main__')"
            )
            python = [sys.executable, "-c", hide]
        environment = os.environ | {"FASTCONV_ISA": isa}
        return subprocess.run(
            [*python, *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    return run


@pytest.fixture
def photograph():
    """A small RGB image, with edges and noise."""
    pixels = np.random.default_rng(1).integers(0, 60, (40, 48, 3), dtype=np.uint8)
    pixels[10:30, 12:36] += np.array([180, 120, 60], np.uint8)
    return Image.fromarray(pixels)


def assert_one_line(result, *words):
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("python -m fastconv demo: ")
    for word in words:
        assert word in result.stderr


def test_info(command):
    result = command("info")
    assert result.returncode == 0
    assert result.stdout.startswith(f"fastconv {fastconv.__version__}\n")
    assert "instruction set" in result.stdout


def test_demo(command, photograph, tmp_path, isa):
    photograph.save(tmp_path / "photo.png")
    result = command("demo", "photo.png")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "fastconv-demo.png").read_bytes().startswith(PNG_SIGNATURE)

    rows = [line.split() for line in result.stdout.splitlines()]
    table = [row for row in rows if row[:1] == ["3x40x48"]]
    assert [row[1].split("x")[-1] for row in table] == ["3", "5", "7", "9", "11"]
    for _, w, y, method, used, error, *times in table:
        size, filters = int(w.split("x")[-1]), w.split("x")[0]
        assert y == f"{filters}x{41 - size}x{49 - size}"
        assert method in _plan.METHODS
        assert used == isa
        assert float(error) <= 1
        assert len(times) >= 2
    equalities = [row[-1] for row in rows if row and row[-1] in ("True", "False")]
    assert equalities == ["True", "True", "True"]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_every_mode_is_read_as_rgb(photograph, tmp_path, mode):
    if mode == "I;16":
        image = Image.fromarray(np.asarray(photograph.convert("L"), np.uint16) * 257)
    else:
        image = photograph.convert(mode)
    path = tmp_path / ("photo.jpg" if mode == "CMYK" else "photo.png")
    image.save(path)
    _, x = read_photograph(str(path), least=11)
    assert x.shape == (3, 40, 48)
    assert x.dtype == np.float32
    assert 0 <= x.min() < x.max() <= 1
    if mode in ("L", "LA", "I;16"):
        gray = np.asarray(photograph.convert("L"), np.float32) / np.float32(255)
        np.testing.assert_array_equal(x, np.stack([gray] * 3))
    if mode == "RGBA":
        np.testing.assert_array_equal(x[0], np.asarray(photograph, np.float32)[..., 0] / np.float32(255))


def test_transparent_palette_stands_on_white(tmp_path):
    Image.new("P", (20, 20)).save(tmp_path / "photo.png", transparency=b"\x00" + b"\xff" * 255)
    _, x = read_photograph(str(tmp_path / "photo.png"), least=11)
    assert (x == 1).all()


def test_exif_orientation_is_obeyed(photograph, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    photograph.save(tmp_path / "photo.jpg", exif=exif)
    _, x = read_photograph(str(tmp_path / "photo.jpg"), least=11)
    assert x.shape == (3, 48, 40)


def test_large_photograph_is_reduced(tmp_path):
    Image.new("RGB", (3000, 2000)).save(tmp_path / "photo.png")
    name, x = read_photograph(str(tmp_path / "photo.png"), least=11)
    assert "3000 x 2000" in name
    assert 0.99 * MOST_PIXELS < x[0].size <= MOST_PIXELS
    assert x.shape[2] / x.shape[1] == pytest.approx(1.5, rel=0.01)


def test_missing_file(command):
    assert_one_line(command("demo", "nowhere.png"), "nowhere.png", "No such file")


def test_folder_for_an_image(command, tmp_path):
    (tmp_path / "folder.png").mkdir()
    assert_one_line(command("demo", "folder.png"), "folder.png")


@pytest.mark.parametrize("kind", ["text", "empty", "truncated png", "truncated jpg"])
def test_broken_file(command, photograph, tmp_path, kind):
    path = tmp_path / f"broken.{kind[-3:]}"
    if kind == "text":
        path.write_text("not an image")
    elif kind == "empty":
        path.touch()
    else:
        photograph.save(path)
        path.write_bytes(path.read_bytes()[:-500])
    assert_one_line(command("demo", path.name), path.name)


def test_image_smaller_than_the_filters(command, photograph, tmp_path):
    photograph.resize((30, 10)).save(tmp_path / "tiny.png")
    assert_one_line(command("demo", "tiny.png"), "tiny.png", "30 x 10", "11 x 11")


def test_output_in_no_folder(command, photograph, tmp_path):
    photograph.save(tmp_path / "photo.png")
    assert_one_line(command("demo", "photo.png", "-o", "nowhere/maps.png"), "nowhere")


@pytest.mark.parametrize("module", ["matplotlib", "PIL", "scipy"])
def test_missing_extra(command, module):
    assert_one_line(command("demo", hidden=module), 'pip install "fastconv[demo]"', module)


def test_import_leaves_the_extras_alone():
    python = "import sys, fastconv; print({'matplotlib', 'PIL', 'scipy'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", python], capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"


@pytest.mark.parametrize("arguments", [(), ("frobnicate",)])
def test_unknown_command(command, arguments):
    result = command(*arguments)
    assert result.returncode == 2
    assert "usage:" in result.stderr
