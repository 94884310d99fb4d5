"""Predictors for the proof: the canonical graph through the runtime, and the network as it was given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgeseg.backends import Engine, OpeningBackend, Target, get_backend
from edgeseg.bundle import Bundle
from edgeseg.calibration.scoring import Predictor
from edgeseg.converters.prepare import Prepared
from edgeseg.converters.targets import derive
from edgeseg.converters.targets.emulate import emulate_float16
from edgeseg.frame import fit_frame
from edgeseg.libraries import require
from edgeseg.machine import return_freed_memory
from edgeseg.manifest import Manifest, OutputSpec, Quantization
from edgeseg.segmenter import Segmenter
from edgeseg.upsample import reference_class_map, upsampling

__all__ = ["PROOF_BACKEND", "as_computed", "as_given", "canonical_reference", "graph_on_cpu", "network_on_cpu"]

PROOF_BACKEND = "openvino"

_COMPILED_FROM = 10**9
"""Interpolated logits from which compiling the kernel for class maps takes less time than doing without it."""

_UNQUANTIZED = Quantization("", (), (), ())


def as_computed(model: onnx.ModelProto, quantization: Quantization) -> tuple[onnx.ModelProto, str]:
    """The graph of a bundle as its engine computes it, and the backend that computes it so on a CPU.

    Args:
        model: the canonical graph. With Q/DQ it says itself what is rounded; for FP16 the graph typed in float16 does,
            and is run with its roundings, see `edgeseg.converters.targets.emulate`.
        quantization: of the manifest.

    Raises:
        LintError: for a graph that TensorRT would not take in FP16.
    """
    if quantization.number_format == "FP16":
        return emulate_float16(derive("fp16", model).model), "onnxruntime"
    return model, PROOF_BACKEND


@contextmanager
def network_on_cpu(
    prepared: Prepared,
    model: onnx.ModelProto,
    output: OutputSpec,
    quantization: Quantization = _UNQUANTIZED,
    frames: int | None = None,
) -> Iterator[Predictor]:
    """A canonical graph, float or quantized, run exactly as a user of the bundle will run it.

    Args:
        prepared: its input and labels.
        model: the graph.
        output: what it gives.
        quantization: what it computes in, see `as_computed`; without it, what the graph says.
        frames: how many there will be, where that is known: for a few nothing is compiled.

    Raises:
        EngineError: when the engine does not take the graph.
    """
    manifest = Manifest(prepared.network, prepared.input, output, prepared.labels, quantization, None, {}, {})
    with graph_on_cpu(manifest, model, frames) as predict:
        yield predict


@contextmanager
def graph_on_cpu(manifest: Manifest, model: onnx.ModelProto, frames: int | None = None) -> Iterator[Predictor]:
    """`network_on_cpu` for a graph with a manifest.

    Args:
        manifest: its input, output and labels, and what it computes in.
        model: the graph, float or quantized.
        frames: how many there will be, where that is known.

    Raises:
        EngineError: when the engine does not take the graph.
    """
    computed, name = as_computed(model, manifest.quantization)
    backend = get_backend(name)
    content = computed.SerializeToString()

    def make(target: Target) -> Engine:
        return_freed_memory()
        if isinstance(backend, OpeningBackend):
            return backend.open(content, target)
        return backend.load(backend.compile(content, target), target)

    # What the network computes is to be scored, so layers outside INT8 are not left to BF16 or FP16.
    target = Target(precision="float32")
    bundle = Bundle(Path(manifest.network.source), manifest)
    height, width = manifest.map_size
    compiled = frames is None or frames * manifest.output.channels * height * width > _COMPILED_FROM
    with Segmenter(bundle, backend, make, target, compiled=compiled) as segmenter:
        yield lambda frame: segmenter(frame).class_map


@contextmanager
def as_given(prepared: Prepared) -> Iterator[Predictor]:
    """The user's own graph in ONNX Runtime, with pre- and post-processing in NumPy around it."""
    spec, name = prepared.input, prepared.loaded.input_name
    mean = np.asarray(spec.mean, np.float32).reshape(1, 3, 1, 1)
    # Multiplied, as the canonical graph does: a quotient's last bit moves the maxima of a network that chooses by them.
    factor = (1 / np.asarray(spec.std, np.float64)).astype(np.float32).reshape(1, 3, 1, 1)

    def feed(image: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        values = image.astype(np.float32).transpose(0, 3, 1, 2)
        if spec.color_order == "BGR":
            values = values[:, ::-1]
        return {name: np.ascontiguousarray((values - mean) * factor)}

    yield _reference(prepared, prepared.loaded.model, prepared.loaded.output_name, feed)


@contextmanager
def canonical_reference(prepared: Prepared) -> Iterator[Predictor]:
    """The canonical float graph in the engine, and with the post-processing, of `as_given`."""
    tensor = prepared.output.tensor
    yield _reference(prepared, prepared.model, tensor, lambda image: {prepared.input.tensor: image})


def _reference(
    prepared: Prepared,
    model: onnx.ModelProto,
    output: str,
    feed: Callable[[NDArray[np.uint8]], Mapping[str, NDArray[Any]]],
) -> Predictor:
    """A float graph in ONNX Runtime.

    Args:
        prepared: the frame's size, and how logits are enlarged.
        model: the graph.
        output: its logits.
        feed: the graph's input from frames (1, H, W, 3) of the network's size.
    """
    ort = require("onnxruntime", "check the simplified graph against the given one")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = False  # an arena pays over many runs, and takes twice the memory
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    spec, full = prepared.input, prepared.loaded.map_size

    def predict(frame: NDArray[Any]) -> NDArray[np.uint8]:
        (logits,) = session.run([output], feed(fit_frame(frame, spec.height, spec.width)))
        size = (logits.shape[2], logits.shape[3])
        rule = prepared.output.coordinates if size != full else None
        axes = upsampling(frame.shape[:2], full, size, rule)
        return reference_class_map(logits[0], axes.rows, axes.columns)

    return predict
