"""NNCF's post-training quantization on its ONNX and its OpenVINO backend; see peer.py for the arguments.

Presets: "performance" is symmetric, "mixed" quantizes activations asymmetrically. Bias correction is on, as by default.
"""

from __future__ import annotations

from functools import partial

import nncf
import onnx
import openvino
from peer import Job, run_peer

PRESETS = {"performance": nncf.QuantizationPreset.PERFORMANCE, "mixed": nncf.QuantizationPreset.MIXED}


def on_onnx(job: Job, *, preset: str) -> None:
    dataset = nncf.Dataset(job.files, job.read)
    quantized = nncf.quantize(onnx.load(job.model), dataset, preset=PRESETS[preset], subset_size=len(job.files))
    onnx.save(quantized, job.output)


def on_openvino(job: Job, *, preset: str) -> None:
    dataset = nncf.Dataset(job.files, job.read)
    network = openvino.Core().read_model(job.model)
    quantized = nncf.quantize(network, dataset, preset=PRESETS[preset], subset_size=len(job.files))
    openvino.save_model(quantized, job.output, compress_to_fp16=False)


SETTINGS = {
    f"{preset}-{backend}": partial(convert, preset=preset)
    for backend, convert in (("onnx", on_onnx), ("openvino", on_openvino))
    for preset in PRESETS
}


if __name__ == "__main__":
    run_peer(SETTINGS, ("nncf", "openvino", "onnx"))
