"""Published networks with their own weights: converted, linted, and built by a real TensorRT builder."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

import edgeseg
from benchmarks.networks import NETWORKS, BenchmarkNetwork
from edgeseg.calibration.frames import frames_from
from edgeseg.converters.convert import convert
from edgeseg.converters.options import ConvertResult


@dataclass(frozen=True)
class Case:
    """A network of ../shared/models and how many of its layers are INT8 and float."""

    name: str
    int8: int
    in_float: int

    @property
    def network(self) -> BenchmarkNetwork:
        return NETWORKS[self.name]


CASES = [Case("espnet", 82, 3), Case("espnetv2-s0.5", 123, 16), Case("espnetv2-s2.0", 123, 16)]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


@pytest.fixture(scope="module")
def converted(case: Case, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> ConvertResult:
    """The network with 6 calibration frames of the train split and 3 labelled frames of the val split."""
    folder = tmp_path_factory.mktemp("real")
    camvid = shared / "data" / "camvid"
    chosen = frames_from(camvid / "val" / "images").select(3).names
    listing = folder / "val.txt"
    listing.write_text("\n".join(str(camvid / "val" / "images" / name) for name in chosen))
    options = replace(
        case.network.options,
        count=6,
        score_frames=str(listing),
        labels=camvid / "val" / "labels",
        output=folder / f"{case.name}.edgeseg",
    )
    return convert(shared / "models" / case.network.file, str(camvid / "train" / "images"), options)


def test_layers_and_accuracy(case: Case, converted: ConvertResult) -> None:
    manifest = converted.bundle.manifest
    quantization = manifest.quantization
    assert (quantization.count("int8"), quantization.count("float")) == (case.int8, case.in_float)
    assert all(layer.reason for layer in quantization.layers if layer.precision == "float")
    assert manifest.scores is not None
    assert manifest.scores.metric == "miou"
    # Three frames and six calibration frames: a sanity check of the whole way, not a figure.
    assert manifest.scores.float_score > 30
    assert manifest.scores.drop < 6


@pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed (extra rtx)"
)
def test_every_int8_layer_is_int8_for_tensorrt(case: Case, converted: ConvertResult, shared: Path) -> None:
    oracle = shared / "tools" / "trt_oracle.py"
    command = [sys.executable, str(oracle), str(converted.bundle.path / "model.onnx")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    report = json.loads(run.stdout)
    assert report["parsed"], report["parse_errors"]
    assert report["built"], report["errors"]
    assert report["not_int8"] == []
    assert report["expected_int8"] == case.int8
    assert run.returncode == 0


def test_backends_agree(case: Case, converted: ConvertResult, shared: Path) -> None:
    frames = frames_from(shared / "data" / "camvid" / "val" / "images").select(3)
    with (
        edgeseg.load(converted.bundle.path, backend="openvino", precision="float32") as first,
        edgeseg.load(converted.bundle.path, backend="onnxruntime") as second,
    ):
        equal = np.mean([np.mean(first(f.image).class_map == second(f.image).class_map) for f in frames])
    # Where two engines round one activation differently, the layers behind it grow that to the size of the
    # quantization error itself (docs/decisions.md), so this is not the 100 % of a float graph.
    assert equal > 0.97
