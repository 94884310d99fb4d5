"""Every network of the registry on its whole way: torch, ONNX, INT8 bundle, CPU, and a real TensorRT builder."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.frames import frame_folder
from support.graphs import random_frame
from support.networks import calm_residuals, tiny_network
from torch import nn

import edgeseg
from edgeseg.calibration.frames import frames_from
from edgeseg.converters.convert import convert
from edgeseg.converters.export import export
from edgeseg.converters.metadata import NetworkMetadata
from edgeseg.converters.options import ConvertOptions, ConvertResult
from edgeseg.labels import LabelSet
from edgeseg.models import NETWORKS, create
from edgeseg.models.network import SegmentationNetwork
from edgeseg.models.superresolution import SuperResolvedNetwork

CLASSES = 5
METADATA = NetworkMetadata("RGB", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375), LabelSet.numbered(CLASSES))


@dataclass(frozen=True)
class Case:
    """A network at a small size.

    Attributes:
        name: of the registry, or "tiny" for the one of the tests.
        options: for `create`.
        size: (height, width) of the input.
        super_resolved: whether it gets the head that doubles the class map.
        seed: of the weights; one with which the untrained network does not choose one class everywhere.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    size: tuple[int, int] = (64, 128)
    super_resolved: bool = False
    seed: int = 0

    def __str__(self) -> str:
        return "-".join([self.name, *map(str, self.options.values()), *["x2"] * self.super_resolved])

    def network(self) -> SegmentationNetwork:
        """With seeded weights, and the BatchNorm statistics of one batch, so that activations keep their size."""
        torch.manual_seed(self.seed)
        network: SegmentationNetwork
        if self.name == "tiny":
            network = tiny_network(CLASSES)
        else:
            network = create(self.name, classes=CLASSES, deploy=True, **self.options)
        if self.super_resolved:
            network = SuperResolvedNetwork(network)
        calm_residuals(network)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
        frames = np.stack([random_frame(*self.size, seed) for seed in range(100, 104)])
        batch = torch.from_numpy(((frames - np.float32(116)) / np.float32(57)).transpose(0, 3, 1, 2))
        with torch.no_grad():
            network.train()(batch)
        return network.eval()


CASES = [
    Case("tiny"),
    Case("tiny", super_resolved=True),
    Case("bisenetv1", {"backbone": "resnet18"}),
    Case("bisenetv1", {"backbone": "xception39"}),
    Case("bisenetv2"),
    Case("crfasrnn", {"stride": 8, "width": 0.125}),
    Case("dabnet"),
    Case("danet", {"backbone": "resnet50", "width": 0.125}),
    Case("deeplabv1", {"variant": "largefov", "width": 0.125}),
    Case("deeplabv1", {"variant": "msc", "width": 0.125}),
    Case("deeplabv3", {"backbone": "resnet50", "head": "aspp", "width": 0.125}),
    Case("deeplabv3", {"backbone": "resnet50", "head": "cascade", "width": 0.125}),
    Case("deeplabv3plus", {"backbone": "resnet50", "head": "dense", "width": 0.125}),
    Case("deeplabv3plus", {"backbone": "resnet50", "head": "separable", "width": 0.125}),
    Case("deeplabv3plus", {"backbone": "xception65", "head": "dense", "width": 0.125}),
    Case("espnet", {"q": 3}),
    Case("espnetv2", {"width": 0.5}),
    Case("espnetv2", {"width": 0.5}, super_resolved=True),
    Case("fastfcn", {"head": "psp", "width": 0.125}),
    Case("fastfcn", {"head": "deeplabv3", "width": 0.125}),
    Case("fastscnn"),
    Case("fcdensenet", {"depth": 56, "width": 0.5}),
    Case("fcn", {"stride": 8, "width": 0.125}),
    Case("gatedscnn", {"backbone": "wideresnet38", "width": 0.125}),
    Case("gatedscnn", {"backbone": "resnet50", "width": 0.125}),
    Case("masklab", {"backbone": "resnet50", "width": 0.125}),
    Case("parsenet", {"width": 0.125}, seed=1),
    Case("pspnet", {"backbone": "resnet50", "width": 0.125}),
    Case("refinenet", {"backbone": "resnet50", "width": 0.125}),
    Case("segnet", {"width": 0.125}),
    Case("unet", {"upsampling": "transposed", "width": 0.125}),
    Case("unet", {"upsampling": "bilinear", "width": 0.125}),
]


def parameters() -> list[Any]:
    """The cases; a network of some hundred nodes takes torch's exporter and the converter half a minute."""
    slow = (
        "danet",
        "deeplabv3",
        "deeplabv3plus",
        "espnetv2",
        "fastfcn",
        "fcdensenet",
        "gatedscnn",
        "masklab",
        "pspnet",
        "refinenet",
    )
    return [pytest.param(case, id=str(case), marks=[pytest.mark.slow] if case.name in slow else []) for case in CASES]


@pytest.fixture(scope="module", params=parameters())
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return frame_folder(tmp_path_factory.mktemp("frames"), 6, 128, 256)


@pytest.fixture(scope="module")
def converted(case: Case, frames: Path, tmp_path_factory: pytest.TempPathFactory) -> ConvertResult:
    """The bundle of the exported network, by its file alone."""
    place = tmp_path_factory.mktemp("networks") / f"{case}.onnx"
    images = [frame.image for frame in frames_from(frames).select(2)]
    export(case.network(), case.size, place, METADATA, frames=images)
    return convert(place, str(frames), ConvertOptions())


def test_every_network_is_here() -> None:
    assert {case.name for case in CASES} - {"tiny"} == set(NETWORKS)


def test_every_convolution_is_int8(case: Case, converted: ConvertResult) -> None:
    manifest = converted.bundle.manifest
    layers = manifest.quantization.layers
    assert [layer.name for layer in layers if layer.op == "Conv" and layer.precision != "int8"] == []
    assert sum(layer.op == "Conv" for layer in layers) == manifest.quantization.count("int8") > 0
    assert manifest.map_size == tuple(n * (2 if case.super_resolved else 1) for n in case.size)
    assert manifest.labels == METADATA.classes


def test_it_runs_on_a_cpu(converted: ConvertResult, frames: Path) -> None:
    frame = next(iter(frames_from(frames))).image
    scores = converted.bundle.manifest.scores
    assert scores is not None
    # Weights that nothing has trained leave logits close together and pass every rounding on: better than chance is all
    # that can be asked, and no figure about accuracy.
    assert scores.int8_score > 100 / CLASSES
    with edgeseg.load(converted.bundle.path, backend="openvino", threads=1) as segmenter:
        found = segmenter(frame).class_map
    assert found.shape == frame.shape[:2]
    assert np.unique(found).size > 1


@pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed (extra rtx)"
)
def test_every_int8_layer_is_int8_for_tensorrt(converted: ConvertResult, shared: Path) -> None:
    oracle = shared / "tools" / "trt_oracle.py"
    if not oracle.is_file():
        pytest.skip("trt_oracle.py is not on this machine")
    command = [sys.executable, str(oracle), str(converted.bundle.path / "model.onnx")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    report = json.loads(run.stdout)
    assert report["parsed"], report["parse_errors"]
    assert report["built"], report["errors"]
    assert report["not_int8"] == []
    assert report["expected_int8"] == converted.bundle.manifest.quantization.count("int8")
    assert run.returncode == 0
