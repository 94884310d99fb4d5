"""One network at two sizes in one bundle."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import onnx
import pytest
from support.frames import frame_folder
from support.graphs import random_frame, toy_network

import edgeseg
from edgeseg.bundle import Bundle
from edgeseg.converters.options import ConvertOptions, ConvertResult
from edgeseg.converters.smaller import convert_with_smaller
from edgeseg.errors import BundleError, FrameError, ModelError, OutputError, UsageError

UNIT = ConvertOptions(mean=(127.5, 127.5, 127.5), std=(63.75, 63.75, 63.75), size=(64, 64))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of dynamic size."""
    network = toy_network(classes=4)
    for value in (*network.graph.input, *network.graph.output):
        for axis, name in ((2, "height"), (3, "width")):
            value.type.tensor_type.shape.dim[axis].dim_param = name
    path = tmp_path_factory.mktemp("network") / "toy.onnx"
    onnx.save(network, path)
    return path


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(frame_folder(tmp_path_factory.mktemp("frames") / "frames", 4))


@pytest.fixture(scope="module")
def converted(model: Path, frames: str) -> ConvertResult:
    """Beside the network, as nothing else was asked for."""
    return convert_with_smaller(model, frames, UNIT, (32, 32))


@pytest.fixture
def copied(converted: ConvertResult, tmp_path: Path) -> Path:
    return Path(shutil.copytree(converted.bundle.path, tmp_path / "toy.edgeseg"))


class TestConvert:
    def test_holds_both(self, model: Path, converted: ConvertResult) -> None:
        result, bundle = converted, Bundle.open(model.with_suffix(".edgeseg"))
        assert result.bundle == bundle
        assert result.report == bundle.path / "report.html"
        held = bundle.smaller
        assert held is not None
        assert held.path == bundle.path / "smaller"
        assert held.smaller is None
        sizes = [(one.manifest.input.height, one.manifest.input.width) for one in (bundle, held)]
        assert sizes == [(64, 64), (32, 32)]
        assert bundle.manifest.labels == held.manifest.labels
        assert all(one.manifest.scores is not None for one in (bundle, held))
        assert {name for name in bundle.manifest.files if name.startswith("smaller/")} == {
            f"smaller/{name}" for name in ("manifest.json", *held.manifest.files)
        }
        assert "calibrate (smaller)" in result.seconds
        frame = random_frame(64, 64, 0)
        for one in (bundle, held):
            with edgeseg.load(one.path, backend="onnxruntime", threads=1) as segmenter:
                assert segmenter(frame).class_map.shape == (64, 64)

    def test_a_changed_file_is_refused(self, copied: Path) -> None:
        file = copied / "smaller" / "model.onnx"
        file.write_bytes(file.read_bytes() + b"x")
        with pytest.raises(BundleError, match=r"smaller/model\.onnx was changed or cut short"):
            Bundle.open(copied)


class TestRefused:
    @pytest.mark.parametrize("size", [(64, 64), (128, 32), (65, 64)])
    def test_no_smaller_size(self, model: Path, frames: str, size: tuple[int, int]) -> None:
        with pytest.raises(UsageError, match=rf"needs a smaller size, but {size[0]}x{size[1]} is not below 64x64"):
            convert_with_smaller(model, frames, UNIT, size)

    def test_a_network_of_one_size(self, tmp_path: Path, frames: str) -> None:
        path = tmp_path / "fixed.onnx"
        onnx.save(toy_network(), path)
        with pytest.raises(ModelError, match="export the network with a dynamic size"):
            convert_with_smaller(path, frames, UNIT, (32, 32))
        assert not path.with_suffix(".edgeseg").exists()

    def test_one_size(self, model: Path, frames: str) -> None:
        with pytest.raises(UsageError, match="needs both; give the larger with --size HxW"):
            convert_with_smaller(model, frames, dataclasses.replace(UNIT, size=None), (32, 32))

    def test_a_place_that_is_taken(self, model: Path, frames: str, copied: Path) -> None:
        taken = dataclasses.replace(UNIT, output=copied)
        with pytest.raises(OutputError, match="exists; choose another place with -o or replace it with --force"):
            convert_with_smaller(model, frames, taken, (32, 32))
        before, force = (copied / "manifest.json").read_bytes(), dataclasses.replace(taken, force=True)
        with pytest.raises(FrameError):
            convert_with_smaller(model, "no such folder", force, (32, 32))
        assert (copied / "manifest.json").read_bytes() == before
        convert_with_smaller(model, frames, force, (32, 48))
        held = Bundle.open(copied).smaller
        assert held is not None
        assert held.manifest.input.width == 48
        assert {path.name for path in copied.parent.iterdir()} - {"cache"} == {"toy.edgeseg"}
