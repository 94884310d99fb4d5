"""Small manifests, canonical Q/DQ graphs and bundles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper
from support.graphs import GraphBuilder

from benchmarks.networks import NETWORKS
from edgeseg.bundle import MODEL, Bundle, write_bundle
from edgeseg.calibration.frames import frames_from
from edgeseg.converters.convert import convert
from edgeseg.labels import LabelSet
from edgeseg.manifest import Coordinates, InputSpec, Layer, Manifest, Network, OutputSpec, Quantization, Scores


def toy_manifest(
    height: int = 8,
    width: int = 12,
    *,
    classes: int = 4,
    kind: str = "logits",
    logits: tuple[int, int] | None = None,
    coordinates: Coordinates | None = None,
    map_size: tuple[int, int] | None = None,
) -> Manifest:
    """A manifest of a network of that input size; logits and class map have the input's size unless told."""
    rows, columns = logits or (height, width)
    return Manifest(
        network=Network("toy", "toy.onnx", "0" * 64, 17),
        input=InputSpec("frame", height, width, "RGB", (127.5, 127.5, 127.5), (63.75, 63.75, 63.75)),
        output=OutputSpec(
            "logits" if kind == "logits" else "class_map",
            "logits" if kind == "logits" else "class-map",
            classes,
            rows,
            columns,
            coordinates,
            *(map_size or (None, None)),
        ),
        labels=LabelSet.numbered(classes),
        quantization=Quantization("mse", ("a.png",), ("1" * 64,), (Layer("first", "Conv", "int8", 1000),)),
        scores=Scores("agreement", 100.0, 99.5, {"class0": 100.0}, {"class0": None}, ("b.png",), ("2" * 64,)),
        files={},
        tools={"edgeseg": "0"},
    )


def toy_bundle(path: Path, manifest: Manifest | None = None, model: bytes = b"graph") -> Bundle:
    """A bundle with that model; by default one for the fake backend."""
    return write_bundle(path, manifest or toy_manifest(), {MODEL: model})


def quantized_graph(height: int = 32, width: int = 48, *, classes: int = 4, largest: int = 127, seed: int = 0) -> bytes:
    """A canonical graph: three quantized convolutions between a uint8 frame and logits at a quarter of its size.

    Args:
        height, width: of the input `frame` (1, height, width, 3) uint8; multiples of 4.
        classes: channels of `logits` (1, classes, height / 4, width / 4).
        largest: of the int8 weights' magnitudes.
        seed: of the weights.
    """
    builder = GraphBuilder(seed)
    zero = builder.constant(np.int8(0))

    def quantized(x: str, amax: float) -> str:
        scale = builder.constant(np.float32(amax / 127))
        return builder.add("DequantizeLinear", builder.add("QuantizeLinear", x, scale, zero), scale, zero)

    def conv(x: str, cin: int, cout: int, kernel: int, stride: int) -> str:
        stored = np.round(builder.random.normal(0, largest / 3, (cout, cin, kernel, kernel)))
        stored = np.clip(stored, -largest, largest)
        stored[:, 0, 0, 0] = largest
        scales = np.full(cout, 1 / (largest * np.sqrt(cin) * kernel), np.float32)
        weight = builder.constant(stored.astype(np.float32) * scales[:, None, None, None])
        scale, zeros = builder.constant(scales), builder.constant(np.zeros(cout, np.int8))
        weight = builder.add("QuantizeLinear", weight, scale, zeros, axis=0)
        weight = builder.add("DequantizeLinear", weight, scale, zeros, axis=0)
        bias = builder.constant(builder.random.normal(0, 0.1, cout).astype(np.float32))
        attributes = {"kernel_shape": [kernel] * 2, "pads": [kernel // 2] * 4, "strides": [stride] * 2}
        return builder.add("Conv", quantized(x, 2.0), weight, bias, **attributes)

    x = builder.add("Transpose", builder.add("Cast", "frame", to=TensorProto.FLOAT), perm=[0, 3, 1, 2])
    x = builder.add("Sub", x, builder.constant(np.full((1, 3, 1, 1), 127.5, np.float32)))
    x = builder.add("Mul", x, builder.constant(np.full((1, 3, 1, 1), 1 / 63.75, np.float32)))
    x = builder.add("Relu", conv(x, 3, 16, 3, 2))
    x = builder.add("Relu", conv(x, 16, 32, 3, 2))
    result = conv(x, 32, classes, 1, 1)
    graph = helper.make_graph(
        [*builder.nodes, helper.make_node("Identity", [result], ["logits"])],
        "toy",
        [helper.make_tensor_value_info("frame", TensorProto.UINT8, [1, height, width, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, classes, height // 4, width // 4])],
        builder.initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def quantized_bundle(path: Path, height: int = 32, width: int = 48) -> Bundle:
    """A bundle of `quantized_graph` that both CPU backends run."""
    manifest = toy_manifest(height, width, logits=(height // 4, width // 4), coordinates="half_pixel")
    return toy_bundle(path, manifest, quantized_graph(height, width))


def published_espnet(shared: Path, folder: Path) -> Bundle:
    """The published ESPNet, calibrated on two frames: enough for what its layers are."""
    camvid = shared / "data" / "camvid"
    listing = folder / "val.txt"
    listing.write_text(str(camvid / "val" / "images" / frames_from(camvid / "val" / "images").select(1).names[0]))
    network = NETWORKS["espnet"]
    options = replace(
        network.options,
        count=2,
        method="minmax",
        equalize=False,
        correct_bias=False,
        score_frames=str(listing),
        output=folder / "espnet.edgeseg",
    )
    return convert(shared / "models" / network.file, str(camvid / "train" / "images"), options).bundle
