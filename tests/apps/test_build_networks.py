"""Every network of the registry on its whole way to a plan of the real TensorRT-RTX: INT8, FP16 and a dynamic batch."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from support.frames import frame_folder
from support.graphs import random_frame
from support.networks import SMALL, calm_residuals
from torch import nn

from edgeseg.apps.engine_build import EngineRequest, build_engine
from edgeseg.backends.tensorrt.options import BuildOptions
from edgeseg.bundle import Bundle
from edgeseg.calibration.frames import frames_from
from edgeseg.converters.convert import convert
from edgeseg.converters.export import export
from edgeseg.converters.metadata import NetworkMetadata
from edgeseg.converters.options import ConvertOptions
from edgeseg.labels import LabelSet
from edgeseg.models import NETWORKS, create

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed (extra edgeseg[rtx])"
    ),
]

CLASSES, SIZE = 5, (64, 128)
METADATA = NetworkMetadata("RGB", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375), LabelSet.numbered(CLASSES))
OPTIONS = {**SMALL, "bisenetv1": {"backbone": "resnet18"}}


@pytest.fixture(scope="module", params=sorted(NETWORKS))
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A network with seeded weights and the BatchNorm statistics of one batch, exported small and quantized."""
    folder = tmp_path_factory.mktemp(request.param)
    frames = frame_folder(folder / "frames", 4, *SIZE)
    torch.manual_seed(0)
    network = create(request.param, classes=CLASSES, deploy=True, **OPTIONS.get(request.param, {}))
    calm_residuals(network)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    images = np.stack([random_frame(*SIZE, seed) for seed in range(4)])
    batch = torch.from_numpy(((images - np.float32(116)) / np.float32(57)).transpose(0, 3, 1, 2))
    with torch.no_grad():
        network.train()(batch)
    place = folder / f"{request.param}.onnx"
    export(network.eval(), SIZE, place, METADATA, frames=[frame.image for frame in frames_from(frames).select(2)])
    return convert(place, str(frames), ConvertOptions(method="minmax", equalize=False, correct_bias=False)).bundle


def folder_of(bundle: Bundle) -> Path:
    return bundle.path / "engines"


@pytest.mark.parametrize("batch", [(1, 1, 1), (1, 8, 8)])
def test_int8(bundle: Bundle, batch: tuple[int, int, int]) -> None:
    result = build_engine(bundle, EngineRequest(BuildOptions(target="rtx", batch=batch)))
    build = result.plan.record.build
    assert build.proven_int8 == build.promised_int8 == bundle.manifest.quantization.count("int8") > 0
    assert build.batch == batch
    assert build.seconds <= 60
    assert build.peak_memory_mb <= 2000
    assert result.plan.path.parent == folder_of(bundle)


def test_fp16(bundle: Bundle) -> None:
    build = build_engine(bundle, EngineRequest(BuildOptions(target="rtx"), fp16_only=True)).plan.record.build
    assert set(build.convolutions) == {"float16"}
    assert build.seconds <= 60


def test_float32_outside_int8(bundle: Bundle) -> None:
    build = build_engine(bundle, EngineRequest(BuildOptions(target="rtx", fp16=False))).plan.record.build
    assert build.proven_int8 == build.promised_int8
    assert "float16" not in build.precisions
