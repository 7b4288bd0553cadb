"""The peers, each called at its best, for compare.py.

A peer is a function of a shape, its arrays in C order and a number of threads. It returns its contenders by name: a
call without arguments, or a string that says why there is none. Whatever can be prepared for fixed weights is prepared
before the call, but for contenders whose name begins with "plain": they are given nothing but arrays, as
`fastconv.correlate` is. All compute float32, from images in the order NCHW to results in the order NCHW.

Modules are imported by the peer that needs them: none is needed for the others.
"""

import importlib.util
import tempfile
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

MOST_PLANES = 200  # images times filters that are put together plane by plane
DIRECT_RATE, PLANES_RATE = 0.12e9, 1.2e9  # flops a second of SciPy's two direct sums, to know which take too long
MOST_SECONDS = 2
MOST_SPECTRA = 1 << 30  # bytes
BLOCK_BYTES = 1 << 22  # of NumPy's unrolled windows: they are multiplied while they are in a cache


def to_numpy(result):
    """A contender's result as an array, of images each on its own too."""
    if isinstance(result, list):
        return np.stack([to_numpy(image) for image in result])
    return result.numpy() if hasattr(result, "numpy") else np.asarray(result)


def fastconv(shape, x, w, threads):
    """Its workers are those that the process's OMP_NUM_THREADS says: compare.py sees to that."""
    import fastconv

    x, options = x.reshape(shape.x), shape.options
    plan = fastconv.Plan(w, x.shape, **options)
    return {"plan": lambda: plan(x), "plain": lambda: fastconv.correlate(x, w, **options)}


def torch(shape, x, w, threads):
    import torch

    torch.set_num_threads(threads)
    torch.inference_mode().__enter__()  # for all that follows: entering it in each call would cost more than a tiny sum
    conv2d, options = torch.nn.functional.conv2d, shape.options
    x, w = torch.from_numpy(x), torch.from_numpy(w)
    channels_last = w.contiguous(memory_format=torch.channels_last)  # other kernels, and a result in that order
    return {
        "plain": lambda: conv2d(x, w, **options),
        "channels last": lambda: conv2d(x, channels_last, **options).contiguous(),
    }


def onnx_model(shape, w):
    """One Conv node whose weights are an initializer, serialized."""
    from onnx import TensorProto, helper, numpy_helper

    p = shape.padding
    node = helper.make_node(
        "Conv", ["x", "w"], ["y"], strides=[shape.stride] * 2, pads=[p, p, p, p], group=shape.groups
    )
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes)
        for name, sizes in (("x", (shape.N, shape.C, shape.H, shape.W)), ("y", shape.y))
    ]
    graph = helper.make_graph([node], "conv", ends[:1], ends[1:], [numpy_helper.from_array(w, "w")])
    # Versions that all of the runtimes of the last years read.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


def onnxruntime(shape, x, w, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(onnx_model(shape, w), options, providers=["CPUExecutionProvider"])
    y = np.empty(shape.y, np.float32)
    binding = session.io_binding()
    binding.bind_cpu_input("x", x)
    binding.bind_output("y", "cpu", 0, np.float32, y.shape, y.ctypes.data)

    def bound():
        session.run_with_iobinding(binding)
        return y

    return {"run": lambda: session.run(None, {"x": x})[0], "bound": bound}


def openvino(shape, x, w, threads):
    import openvino

    core = openvino.Core()
    options = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = core.compile_model(core.read_model(onnx_model(shape, w)), "CPU", options).create_infer_request()
    request.set_input_tensor(openvino.Tensor(x, shared_memory=True))
    y = request.get_output_tensor().data

    def infer():
        request.infer(share_outputs=True)
        return y

    return {"infer": infer}


def ncnn(shape, x, w, threads):
    """Images one by one: ncnn has no batches."""
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = threads
    net.opt.use_winograd_convolution = net.opt.use_sgemm_convolution = net.opt.use_packing_layout = True
    for option in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_packed", "bf16_storage"):
        setattr(net.opt, f"use_{option}", False)
    kind = "Convolution" if shape.groups == 1 else "ConvolutionDepthWise"
    fields = {0: shape.K, 1: shape.S, 11: shape.R, 3: shape.stride, 4: shape.padding, 5: 0, 6: w.size}
    if shape.groups > 1:
        fields[7] = shape.groups
    net.load_param_mem(
        f"7767517\n2 2\nInput in 0 1 x\n{kind} conv 1 1 x y " + " ".join(f"{k}={v}" for k, v in fields.items()) + "\n"
    )
    with tempfile.NamedTemporaryFile(suffix=".bin") as file:
        file.write(bytes(4) + w.tobytes())  # a tag, 0 of float32, before the weights
        file.flush()
        net.load_model(file.name)
    images = [ncnn.Mat(image).clone() for image in x]  # a clone is aligned as ncnn likes it

    def extract():
        results = []
        for image in images:
            extractor = net.create_extractor()
            extractor.input("x", image)
            results.append(extractor.extract("y")[1])
        return results

    return {"extract": extract}


def jax(shape, x, w, threads):
    """Its threads are as many as the CPUs that the process may use when jax starts: compare.py sees to that."""
    import jax

    def convolution(x, w):
        step, pad = (shape.stride,) * 2, ((shape.padding,) * 2,) * 2
        return jax.lax.conv_general_dilated(x, w, step, pad, feature_group_count=shape.groups)

    plain, constant = jax.jit(convolution), jax.jit(lambda x: convolution(x, w))
    on_device, w_on_device = jax.device_put(x), jax.device_put(w)
    return {
        "plain": lambda: plain(on_device, w_on_device).block_until_ready(),
        "constant": lambda: constant(on_device).block_until_ready(),
    }


def opencv(shape, x, w, threads):
    """filter2D of each plane by each filter's, summed over the channels."""
    import cv2

    planes = shape.N * shape.K * shape.C // shape.groups
    if shape.stride > 1:
        return {"plain": "filter2D has no stride"}
    if planes > MOST_PLANES:
        return {"plain": f"more than {MOST_PLANES} planes to filter and sum"}
    if 2 * shape.padding > min(shape.R, shape.S) - 1:
        return {"plain": "filter2D's results are no larger than the image"}
    cv2.setNumThreads(threads)
    anchor = (shape.padding, shape.padding)
    filters = w.shape[0] // shape.groups

    def plain():
        y = np.empty(shape.y, np.float32)
        for image, result in zip(x, y, strict=True):
            for k, bank in enumerate(w):
                first = k // filters * len(bank)
                total = None
                for plane, weights in zip(image[first:], bank, strict=False):
                    part = cv2.filter2D(plane, cv2.CV_32F, weights, anchor=anchor, borderType=cv2.BORDER_CONSTANT)
                    total = part if total is None else cv2.add(total, part, total)
                result[k] = total[: shape.y[2], : shape.y[3]]
        return y

    return {"plain": plain}


def padded(shape, x):
    return np.pad(x, ((0, 0), (0, 0), *((shape.padding, shape.padding),) * 2)) if shape.padding else x


def grouped(shape, x, w):
    """x with an axis of groups before its channels, and w with one before its filters."""
    g = shape.groups
    return x.reshape(len(x), g, -1, *x.shape[2:]), w.reshape(g, -1, *w.shape[1:])


def scipy(shape, x, w, threads):
    """Direct, each filter by each plane or by all of its channels, and FFTs of the whole bank at once."""
    import scipy.fft
    import scipy.ndimage
    import scipy.signal

    step = shape.stride
    p, q = (step * (size - 1) + 1 for size in shape.y[2:])  # rows and columns before every step-th is taken
    lengths = [scipy.fft.next_fast_len(size + 2 * shape.padding, real=True) for size in (shape.H, shape.W)]

    def direct(one):
        images, banks = grouped(shape, padded(shape, x), w)
        y = [
            [one(group, bank) for group, filters in zip(image, banks, strict=True) for bank in filters]
            for image in images
        ]
        return np.array(y)[..., :p:step, :q:step].reshape(shape.y)

    def planes(group, bank):
        top, left = shape.R // 2, shape.S // 2
        parts = (scipy.ndimage.correlate(a, b, mode="constant") for a, b in zip(group, bank, strict=True))
        return sum(part[top : top + p, left : left + q] for part in parts)

    def transform(w):
        return scipy.fft.rfft2(w, lengths, workers=threads).conj()

    def multiply(spectra):
        images, spectra = grouped(shape, scipy.fft.rfft2(padded(shape, x), lengths, workers=threads), spectra)
        products = np.einsum("ngcpq,gkcpq->ngkpq", images, spectra)
        y = scipy.fft.irfft2(products, lengths, workers=threads)
        return np.ascontiguousarray(y[..., :p:step, :q:step]).reshape(shape.y)

    contenders = {
        "plain direct": lambda: direct(lambda x, w: scipy.signal.correlate(x, w, "valid", "direct")[0]),
        "plain planes": lambda: direct(planes),
    }
    for name, rate in (("plain direct", DIRECT_RATE), ("plain planes", PLANES_RATE)):
        if shape.flops * step**2 > rate * MOST_SECONDS:
            contenders[name] = f"would take more than {MOST_SECONDS} s"
    size = 4 * lengths[0] * lengths[1] * (shape.N * (shape.C + shape.K) + w.shape[0] * w.shape[1])
    if size <= MOST_SPECTRA:
        prepared = transform(w)
        contenders["plain fft"] = lambda: multiply(transform(w))
        contenders["fft"] = lambda: multiply(prepared)
    else:
        contenders["plain fft"] = contenders["fft"] = f"would need {size / 2**30:.1f} GiB for spectra"
    return contenders


def numpy(shape, x, w, threads):
    """Windows laid out as columns, in blocks of rows of the result, times the filters as a matrix."""
    n, _, p, q = shape.y
    step, groups, terms = shape.stride, shape.groups, w[0].size
    filters = w.reshape(groups, -1, terms)
    rows = max(1, min(p, BLOCK_BYTES // (4 * groups * terms * q)))

    def multiply(x, y):
        windows = sliding_window_view(x, (shape.R, shape.S), (2, 3))[:, :, ::step, ::step]
        windows = windows.reshape(n, groups, -1, *windows.shape[2:])
        for image, result in zip(windows.transpose(0, 1, 2, 5, 6, 3, 4), y, strict=True):
            for top in range(0, p, rows):
                columns = image[..., top : top + rows, :].reshape(groups, terms, -1)
                np.matmul(filters, columns, out=result[..., top * q : (top + rows) * q])
        return y.reshape(shape.y)

    y = np.empty((n, groups, len(filters[0]), p * q), np.float32)
    return {
        "plain": lambda: multiply(padded(shape, x), np.empty_like(y)),
        "result kept": lambda: multiply(padded(shape, x), y),
    }


class Peer(NamedTuple):
    """Its contenders, and the packages that it needs: modules, by the name that pip knows."""

    contenders: Callable
    packages: dict


PEERS = {
    "torch": Peer(torch, {"torch": "torch"}),
    "onnxruntime": Peer(onnxruntime, {"onnxruntime": "onnxruntime", "onnx": "onnx"}),
    "openvino": Peer(openvino, {"openvino": "openvino", "onnx": "onnx"}),
    "ncnn": Peer(ncnn, {"ncnn": "ncnn"}),
    "jax": Peer(jax, {"jax": "jax"}),
    "opencv": Peer(opencv, {"opencv-python-headless": "cv2"}),
    "scipy": Peer(scipy, {"scipy": "scipy"}),
    "numpy": Peer(numpy, {"numpy": "numpy"}),
}


def missing(names):
    """Packages that aren't installed, by the peer that needs them."""
    lacking = {
        name: [package for package, module in PEERS[name].packages.items() if importlib.util.find_spec(module) is None]
        for name in names
    }
    return {name: packages for name, packages in lacking.items() if packages}
