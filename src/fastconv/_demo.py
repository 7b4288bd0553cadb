"""The demo: a photograph through banks of real filters, checked against SciPy, timed beside the peers, and drawn."""

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import matplotlib.cbook
import numpy as np
import scipy
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageOps

import fastconv

Floats = NDArray[np.floating[Any]]
Banks = dict[int, dict[str, Floats]]  # effects by name for each filter size
Contender = Callable[[], Any]

MOST_PIXELS = 1024 * 1024  # larger photographs are reduced to this: the peers would take minutes
SECONDS = 0.3  # of timing for each contender and bank
DRAWN = (
    *("Sharpened", "Unsharp mask", "Strong blur"),
    *("Sobel, across", "Sobel, down", "Laplacian", "Laplacian of Gaussian"),
    *("Red against green", "Blue against yellow", "Gabor, 22.5°", "Gabor, 67.5°"),
    *("Gabor, 0°", "Gabor, 45°", "Gabor, 90°", "Gabor, 135°"),
)
LUMA = np.array([0.299, 0.587, 0.114])  # brightness of red, green and blue (ITU-R BT.601)


class UnusableFileError(Exception):
    """A file that can't be read or written, or isn't a photograph that the filters fit; the message is for the user."""


def run(image: str | None, output: str) -> int:
    """Do the whole demo; returns the exit code, 1 where a result isn't what it should be."""
    if not Path(output).absolute().parent.is_dir():
        raise UnusableFileError(f"can't write {output}: there is no folder {Path(output).parent}")
    banks = filter_banks()
    name, x = read_photograph(image, least=max(banks))
    results = {size: fastconv.correlate(x, weights_of(effects)) for size, effects in banks.items()}
    errors = {size: worst_error(x, weights_of(effects), results[size]) for size, effects in banks.items()}

    print(f"x is {name}: {by(x.shape)}, {x.dtype}, values 0 to 1. Workers: {fastconv.get_workers()}.")
    print_table(x, banks, errors)
    equal = print_question()
    draw(name, x, banks, results, output)
    print(f"\nThe photograph and its feature maps: {output}")
    return 0 if equal and max(errors.values()) <= 1 else 1


# The photograph


def read_photograph(path: str | None, least: int) -> tuple[str, Floats]:
    """The name of an image file and its pixels as float32 RGB, (3, H, W), 0 to 1. It is `least` x `least` at least."""
    try:
        found = path or matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)
        with Image.open(str(found)) as file:
            image = ImageOps.exif_transpose(file)
            if image.mode.startswith("I"):  # 16 bits of gray, which Pillow would clip to 8
                image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
            if "A" in image.getbands() or "transparency" in image.info:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            image = image.convert("RGB")
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise UnusableFileError(f"can't read an image from {path or 'matplotlib'}: {reason}") from error
    if min(image.size) < least:
        size = f"{image.width} x {image.height} pixels"
        raise UnusableFileError(f"{path} is {size}; expected at least {least} x {least}, the largest filter")
    name = Path(found).name
    shrink = math.sqrt(MOST_PIXELS / (image.width * image.height))
    if shrink < 1:
        name += f", reduced from {image.width} x {image.height} pixels"
        image = image.resize((max(least, int(image.width * shrink)), max(least, int(image.height * shrink))))
    return name, np.ascontiguousarray(np.asarray(image, np.float32).transpose(2, 0, 1) / np.float32(255))


# The filters


def gaussian(size: int, sigma: float) -> Floats:
    """A Gaussian blur, of sum 1."""
    v, u = np.mgrid[:size, :size] - size // 2
    weights = np.exp(-(u**2 + v**2) / (2 * sigma**2))
    return np.asarray(weights / weights.sum())


def laplacian_of_gaussian(size: int, sigma: float) -> Floats:
    """Bright where a spot is darker than what is around it; of sum 0."""
    v, u = np.mgrid[:size, :size] - size // 2
    weights = ((u**2 + v**2) / sigma**2 - 2) * gaussian(size, sigma)
    return np.asarray(weights - weights.mean())


def gabor(size: int, degrees: float) -> Floats:
    """A wave under a Gaussian: finds lines and edges across its direction; of sum 0."""
    v, u = np.mgrid[:size, :size] - size // 2
    along = u * np.cos(np.radians(degrees)) + v * np.sin(np.radians(degrees))
    envelope = gaussian(size, size / 5)
    weights = envelope * np.cos(2 * np.pi * along / (0.55 * size))
    return np.asarray(weights - envelope * weights.sum())


def on_brightness(weights: Any) -> Floats:
    """One filter for RGB, of the sum of its channels as bright as they look: (1, 3, R, R)."""
    return np.asarray(LUMA[:, None, None] * np.asarray(weights))[None]


def on_colours(weights: Any) -> Floats:
    """Three filters for RGB, one for each colour: (3, 3, R, R)."""
    return np.asarray(np.eye(3)[:, :, None, None] * np.asarray(weights))


def opponent(size: int, centre: Any, surround: Any) -> Floats:
    """One colour in the middle against another around it, as cells of the retina compare them: (1, 3, R, R)."""
    middle, around = gaussian(size, size / 8), gaussian(size, size / 4)
    return np.asarray([np.multiply.outer(centre, middle) - np.multiply.outer(surround, around)])


def filter_banks() -> Banks:
    """Effects by name for each filter size: three filters that make a colour image, or one that makes a map."""
    sobel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 4
    laplacian = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]])
    identity = np.pad([[1.0]], 2)
    return {
        3: {
            "Sharpened": on_colours(np.pad([[1]], 1) - laplacian),
            "Sobel, across": on_brightness(sobel),
            "Sobel, down": on_brightness(sobel.T),
            "Laplacian": on_brightness(laplacian),
        },
        5: {"Unsharp mask": on_colours(identity + 2 * (identity - gaussian(5, 1.2)))},
        7: {
            "Gaussian blur": on_colours(gaussian(7, 1.5)),
            "Laplacian of Gaussian": on_brightness(laplacian_of_gaussian(7, 1.2)),
        },
        9: {
            "Red against green": opponent(9, [1, 0, 0], [0, 1, 0]),
            "Blue against yellow": opponent(9, [0, 0, 1], [0.5, 0.5, 0]),
        },
        11: {
            "Strong blur": on_colours(gaussian(11, 3)),
            **{f"Gabor, {degrees:g}°": on_brightness(gabor(11, degrees)) for degrees in np.arange(8) * 22.5},
        },
    }


def weights_of(effects: dict[str, Floats]) -> Floats:
    """The filters of all effects as one bank, (K, 3, R, R) in float32: one call computes them together."""
    return np.concatenate(list(effects.values())).astype(np.float32)


# The check


def worst_error(x: Floats, w: Floats, y: Floats) -> float:
    """The largest error of y beside SciPy's float64, as a ratio to the bound gamma * (|w| corr |x|).

    SciPy's FFT rounds too, at the scale of the largest output: 64 units of float64 there are allowed besides.
    """

    def correlate(x: Floats, filter_: Floats) -> Any:
        return scipy.signal.fftconvolve(x, filter_[:, ::-1, ::-1], "valid", axes=(1, 2)).sum(axis=0)

    n, unit = w[0].size, float(np.finfo(y.dtype).eps) / 2
    gamma = n * unit / (1 - n * unit)
    x, w = x.astype(np.float64), w.astype(np.float64)
    worst = 0.0
    for filter_, result in zip(w, y, strict=True):
        error = np.abs(result - correlate(x, filter_))
        size = np.abs(correlate(np.abs(x), np.abs(filter_)))
        worst = max(worst, float(np.max(error / (gamma * size + 64 * np.finfo(np.float64).eps * size.max()))))
    return worst


# The peers: each function sets one up on the same work, and returns the call to time


def with_scipy(x: Floats, w: Floats) -> Contender:
    """The fastest of SciPy's ways: by FFT or by blocks of it in one call, or directly for each filter."""
    reversed_w = w[:, :, ::-1, ::-1]

    def by_fft(convolve: Any) -> Any:
        with scipy.fft.set_workers(fastconv.get_workers()):
            return convolve(x[None], reversed_w, "valid", axes=(2, 3)).sum(axis=1)

    ways: list[Contender] = [partial(by_fft, scipy.signal.fftconvolve), partial(by_fft, scipy.signal.oaconvolve)]
    if scipy.signal.choose_conv_method(x, w[0], "valid") == "direct":
        ways.append(lambda: [scipy.signal.correlate(x, filter_, "valid", method="direct") for filter_ in w])
    return min(ways, key=seconds)


def with_torch(x: Floats, w: Floats) -> Contender:
    """PyTorch's conv2d."""
    torch = import_module("torch")
    torch.set_num_threads(fastconv.get_workers())
    image, weights = torch.from_numpy(x), torch.from_numpy(w)

    def conv2d() -> Any:
        with torch.inference_mode():
            return torch.nn.functional.conv2d(image[None], weights)[0]

    return conv2d


def with_onnxruntime(x: Floats, w: Floats) -> Contender:
    """A model of one Conv node, with the weights in it, as ONNX Runtime packs them when it loads a model."""
    onnx, onnxruntime = import_module("onnx"), import_module("onnxruntime")

    def tensor(name: str) -> Any:
        return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)

    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"])
    graph = onnx.helper.make_graph([node], "conv", [tensor("x")], [tensor("y")], [onnx.numpy_helper.from_array(w, "w")])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = fastconv.get_workers()
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": x[None]})[0][0]


def with_opencv(x: Floats, w: Floats) -> Contender:
    """OpenCV's filter2D on each plane that a filter has weights for, summed; it computes the edges too."""
    cv2 = import_module("cv2")
    cv2.setNumThreads(fastconv.get_workers())
    planes = [[(x[c], filter_[c]) for c in range(len(x)) if filter_[c].any()] for filter_ in w]

    def filter2d() -> list[Any]:
        return [sum(cv2.filter2D(plane, -1, weights) for plane, weights in pairs) for pairs in planes]

    return filter2d


PEERS = {  # how each is set up, and the modules that it takes
    "SciPy": (with_scipy, ["scipy"]),
    "torch": (with_torch, ["torch"]),
    "onnxruntime": (with_onnxruntime, ["onnxruntime", "onnx"]),
    "OpenCV": (with_opencv, ["cv2"]),
}


# The table


def seconds(call: Contender) -> float:
    """Time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def best_times(contenders: dict[str, Contender]) -> dict[str, float]:
    """Best time of one call of each contender. They take turns, each with an untimed call to warm the caches first."""
    best = dict.fromkeys(contenders, math.inf)
    end = time.perf_counter() + SECONDS * len(contenders)
    turns = 0
    while turns < 3 or time.perf_counter() < end:
        for name, call in contenders.items():
            call()
            best[name] = min(best[name], seconds(call))
        turns += 1
    return best


def by(shape: tuple[int, ...]) -> str:
    """A shape as 3x600x512."""
    return "x".join(map(str, shape))


def print_rows(rows: Sequence[Sequence[str]], left: int) -> None:
    """A table, with the first `left` columns aligned to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [f"{cell:{'<' if i < left else '>'}{widths[i]}}" for i, cell in enumerate(row)]
        print("  " + "  ".join(cells).rstrip())


def print_table(x: Floats, banks: Banks, errors: dict[int, float]) -> None:
    """One line for each bank: shapes, method, instruction set, error, and best times."""
    peers = {name: peer for name, (peer, modules) in PEERS.items() if all(map(find_spec, modules))}
    rows = [["x", "w", "y", "method", "ISA", "error/bound", "fastconv", *peers]]
    for size, effects in banks.items():
        w = weights_of(effects)
        plan = fastconv.Plan(w, x.shape)
        times = best_times({"fastconv": partial(plan, x)} | {name: peer(x, w) for name, peer in peers.items()})
        shapes = [by(plan.x_shape), by(w.shape), by(plan.y_shape)]
        milliseconds = [f"{best * 1e3:.2f}" for best in times.values()]
        rows.append([*shapes, plan.method, plan.isa, f"{errors[size]:.3f}", *milliseconds])
    print("\nOne call for each bank of filters, y = correlate(x, w). Best times in ms, with as many threads for each.")
    print("The error is the worst beside SciPy in float64, as a part of the bound gamma * (|w| corr |x|).\n")
    print_rows(rows, left=5)
    if missing := [name for name in PEERS if name not in peers]:
        print(f"  not installed, so not timed: {', '.join(missing)}")


# The question


def print_question() -> bool:
    """The three sums that people mix up, on whole numbers; returns whether each equals its call of SciPy."""
    x, w = np.arange(75.0).reshape(3, 5, 5), np.arange(12.0).reshape(3, 2, 2)
    by_channel = np.sum([scipy.signal.convolve(x[c], w[c], "valid") for c in range(3)], axis=0)[None]
    sums = [
        ("correlate(x, w)", "correlate(x, w, 'valid')", "what neural networks call convolution"),
        ("convolve(x, w)", "sum of convolve(x[c], w[c], 'valid')", "w reversed along rows and columns"),
        ("convolve(x, w, flip_channels=True)", "convolve(x, w, 'valid')", "and along channels: the N-D convolution"),
    ]
    ours = [fastconv.correlate(x, w), fastconv.convolve(x, w), fastconv.convolve(x, w, flip_channels=True)]
    scipys = [scipy.signal.correlate(x, w, "valid"), by_channel, scipy.signal.convolve(x, w, "valid")]
    equal = [np.array_equal(y, scipy_y) for y, scipy_y in zip(ours, scipys, strict=True)]
    print(
        "\nWhy isn't scipy.signal.convolve(x, w, 'valid') the sum of the channels' convolutions? It reverses channels,"
    )
    print("too. There are three sums that people mix up; here with arange(75) as 3x5x5 and arange(12) as 3x2x2:\n")
    rows = [("fastconv", "scipy.signal", "the sum", "y[0,0,0]", "equal")]
    rows += [(*words, f"{y[0, 0, 0]:g}", str(same)) for words, y, same in zip(sums, ours, equal, strict=True)]
    print_rows(rows, left=3)
    return all(equal)


# The picture


def draw(name: str, x: Floats, banks: Banks, results: dict[int, Floats], output: str) -> None:
    """Write the photograph and a selection of feature maps, each with its filter in a corner, as a PNG."""
    maps = {}
    for size, effects in banks.items():
        first = 0
        for title, weights in effects.items():
            maps[title] = (weights, results[size][first : first + len(weights)])
            first += len(weights)
    height, width = x.shape[1:]
    figure = Figure(figsize=(16, 16 * height / width + 2.2), dpi=110, layout="constrained")
    figure.suptitle(f"{name}, filtered by fastconv (red is positive, blue negative)", fontsize=18, wrap=True)
    panels = figure.subplots(4, 4).flat
    for axes in panels:
        axes.set_axis_off()
    panels[0].imshow(x.transpose(1, 2, 0))
    panels[0].set_title("The photograph", fontsize=14)
    for axes, title in zip(panels[1:], DRAWN, strict=True):
        weights, y = maps[title]
        size = weights.shape[-1]
        axes.set_title(f"{title}, {size} x {size}", fontsize=14)
        if len(y) == 3:
            axes.imshow(np.clip(y.transpose(1, 2, 0), 0, 1))
        else:
            limit = float(np.percentile(np.abs(y), 99)) or 1.0
            axes.imshow(y[0], cmap="RdBu_r", vmin=-limit, vmax=limit)
        side = 0.25 * min(width, height)
        corner = axes.inset_axes((0.01, 0.01, side / width, side / height))
        kernel = weights[0, 0] if len(weights) == 3 else weights[0].sum(axis=0)
        limit = np.abs(kernel).max()
        corner.imshow(kernel, cmap="RdBu_r", vmin=-limit, vmax=limit)
        corner.set_xticks([])
        corner.set_yticks([])
    try:
        figure.savefig(output, format="png")
    except OSError as error:
        raise UnusableFileError(f"can't write {output}: {error.strerror or error}") from error
