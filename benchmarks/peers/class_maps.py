"""Class maps of every tool's network over the same frames, computed once and kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnxruntime
import openvino
from numpy.typing import NDArray

import edgeseg
from edgeseg.calibration.frames import Frame
from edgeseg.calibration.scoring import Predictor
from edgeseg.converters.prepare import Prepared
from edgeseg.frame import fit_frame
from edgeseg.upsample import reference_class_map, upsampling

__all__ = ["class_maps", "network_input"]


def network_input(prepared: Prepared, image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """A frame, (H, W, 3) uint8 RGB, as the given network takes it: (1, 3, height, width) float32."""
    spec = prepared.input
    planes = fit_frame(image, spec.height, spec.width).astype(np.float32).transpose(0, 3, 1, 2)
    if spec.color_order == "BGR":
        planes = planes[:, ::-1]
    mean, std = (np.asarray(v, np.float32).reshape(1, 3, 1, 1) for v in (spec.mean, spec.std))
    return np.ascontiguousarray((planes - mean) / std)


def class_maps(prepared: Prepared, network: Path, frames: Iterable[Frame], kept: Path) -> NDArray[np.uint8]:
    """Class maps of a network, (frames, H, W) uint8, at the size of the frames.

    Args:
        prepared: how frames become inputs, and the size of the given network's class map.
        network: a bundle's folder, an ONNX file or an OpenVINO network (.xml).
        frames: all of one size.
        kept: a file NAME.npz to keep them in; read instead where it is there.
    """
    if not kept.is_file():
        predict = _predictor(prepared, network)
        maps = np.stack([predict(frame.image) for frame in frames])
        kept.parent.mkdir(parents=True, exist_ok=True)
        unfinished = kept.with_name(f"unfinished-{kept.name}")
        np.savez_compressed(unfinished, maps=maps)
        unfinished.replace(kept)
    with np.load(kept) as content:
        found: NDArray[np.uint8] = content["maps"]
    return found


def _predictor(prepared: Prepared, network: Path) -> Predictor:
    if network.is_dir():
        # The engine of the other ONNX graphs: OpenVINO, which `convert` scores with, rounds a little otherwise.
        segmenter = edgeseg.load(network, backend="onnxruntime", precision="float32")
        return lambda image: segmenter(image).class_map
    return _around(prepared, _in_openvino(network) if network.suffix == ".xml" else _in_onnxruntime(network))


def _around(prepared: Prepared, infer: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> Predictor:
    """What a user of the given network writes around it."""

    def predict(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        logits = infer(network_input(prepared, image))
        size, full = (logits.shape[2], logits.shape[3]), prepared.loaded.map_size
        axes = upsampling(image.shape[:2], full, size, prepared.output.coordinates if size != full else None)
        return reference_class_map(logits[0], axes.rows, axes.columns)

    return predict


def _in_onnxruntime(network: Path) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    try:
        session = _session(network)
    except Exception:  # onnxruntime's errors share no base class below Exception
        # Some peers quantize operators whose fused INT8 kernels ONNX Runtime cannot load; Q and DQ alone it can.
        session = _session(network, {"session.disable_quant_qdq": "1"})
    name = session.get_inputs()[0].name
    return lambda array: session.run(None, {name: array})[0]


def _session(network: Path, entries: Mapping[str, str] = MappingProxyType({})) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    for key, value in entries.items():
        options.add_session_config_entry(key, value)
    return onnxruntime.InferenceSession(str(network), options, providers=["CPUExecutionProvider"])


def _in_openvino(network: Path) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    core = openvino.Core()
    # Layers outside INT8 are not left to BF16, as they are not in ONNX Runtime.
    compiled = core.compile_model(core.read_model(network), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda array: compiled(array)[0]
