"""From torch to the file that convert takes: what is in it, what is not, and every refusal."""

from __future__ import annotations

import logging
import re
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from support.frames import frame_folder
from support.graphs import random_frame, run_graph
from support.networks import TinyNetwork, tiny_network
from torch import Tensor

from edgeseg.calibration.frames import frames_from
from edgeseg.converters import export as exporter
from edgeseg.converters.convert import convert
from edgeseg.converters.export import RANDOM_IMAGES, export
from edgeseg.converters.metadata import NetworkMetadata, read_metadata
from edgeseg.converters.opset import to_target_opset
from edgeseg.converters.options import ConvertOptions
from edgeseg.errors import MissingDependencyError, ModelError, OutputError, UsageError
from edgeseg.labels import LabelSet

SIZE = (32, 64)
METADATA = NetworkMetadata("BGR", (100.0, 110.0, 120.0), (50.0, 60.0, 70.0), LabelSet.numbered(4), "MIT", "tiny")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    path = tmp_path_factory.mktemp("export") / "tiny.onnx"
    export(tiny_network(), SIZE, path, METADATA)
    return onnx.load(path)


class TestFile:
    def test_input_and_output(self, model: onnx.ModelProto) -> None:
        shapes = [
            (value.name, [d.dim_value for d in value.type.tensor_type.shape.dim])
            for value in (*model.graph.input, *model.graph.output)
        ]
        assert shapes == [("image", [1, 3, *SIZE]), ("logits", [1, 4, *SIZE])]
        assert [(o.domain, o.version) for o in model.opset_import] == [("", 17)]
        onnx.checker.check_model(model, full_check=True)

    def test_metadata(self, model: onnx.ModelProto) -> None:
        assert read_metadata(model, "tiny.onnx") == METADATA

    def test_nothing_of_training(self, model: onnx.ModelProto) -> None:
        weights = sum(int(np.prod(t.dims)) for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT)
        # Of each layer are left its weight and a bias, into which BatchNorm is folded. The auxiliary head is gone.
        assert weights == 3 * 8 * 9 + 8 + 8 + 8 * 16 * 9 + 16 + 16 * 4 + 4
        assert not any("auxiliary" in t.name for t in model.graph.initializer)

    def test_nothing_of_the_machine(self, model: onnx.ModelProto) -> None:
        text = model.SerializeToString()
        assert b".py" not in text
        assert str(Path.cwd()).encode() not in text

    def test_the_network_itself_is_unchanged(self, tmp_path: Path) -> None:
        network = tiny_network().train()
        before = {name: value.clone() for name, value in network.state_dict().items()}
        export(network, SIZE, tmp_path / "net.onnx")
        assert network.training
        assert len(network.auxiliary) == 1
        assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())

    def test_a_network_that_super_resolves(self, tmp_path: Path) -> None:
        done = export(tiny_network(scale=2), SIZE, tmp_path / "net.onnx")
        assert (done.output_shape, done.pixels) == ((1, 4, 64, 128), RANDOM_IMAGES * 64 * 128)
        image = np.random.default_rng(1).normal(size=(1, 3, *SIZE)).astype(np.float32)
        with torch.inference_mode():
            expected = tiny_network(scale=2)(torch.from_numpy(image)).numpy()
        (found,) = run_graph(onnx.load(tmp_path / "net.onnx"), image=image)
        np.testing.assert_allclose(found, expected, atol=1e-5)

    def test_convert_needs_no_options(self, tmp_path: Path) -> None:
        export(tiny_network(scale=2), SIZE, tmp_path / "net.onnx", METADATA)
        manifest = convert(
            tmp_path / "net.onnx", str(frame_folder(tmp_path / "f", 6)), ConvertOptions()
        ).bundle.manifest
        assert (manifest.input.color_order, manifest.input.mean) == ("BGR", METADATA.mean)
        assert (manifest.network.name, manifest.labels) == ("tiny", METADATA.classes)
        assert manifest.map_size == (64, 128)
        assert manifest.quantization.int8_mac_share == 1


class TestCheck:
    def test_real_frames_are_prepared_as_the_metadata_says(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen = []
        run = exporter._run

        def spy(network: TinyNetwork, image: np.ndarray) -> np.ndarray:
            seen.append(image)
            return run(network, image)

        monkeypatch.setattr(exporter, "_run", spy)
        frames = [frame.image for frame in frames_from(frame_folder(tmp_path / "frames", 2, *SIZE))]
        done = export(tiny_network(), SIZE, tmp_path / "net.onnx", METADATA, frames=frames)
        assert (done.random_images, done.frames, done.pixels) == (RANDOM_IMAGES, 2, 5 * 32 * 64)
        expected = (frames[1][:, :, ::-1].astype(np.float32) - METADATA.mean) / METADATA.std
        np.testing.assert_allclose(seen[-1][0].transpose(1, 2, 0), expected, atol=1e-5)

    def test_real_frames(self, tmp_path: Path, shared: Path) -> None:
        frames = frames_from(shared / "data" / "camvid" / "val" / "images").select(3)
        done = export(
            tiny_network(scale=2), (90, 120), tmp_path / "net.onnx", METADATA, frames=(f.image for f in frames)
        )
        assert (done.frames, done.pixels) == (3, 6 * 180 * 240)
        assert done.ties <= 1e-4 * done.pixels

    def test_frames_need_their_normalisation(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="say how they are normalised: give --mean and --std, or --preset"):
            export(tiny_network(), SIZE, tmp_path / "net.onnx", frames=[random_frame()])
        assert list(tmp_path.iterdir()) == []

    def test_a_graph_that_disagrees_is_not_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        written = exporter._onnx_program

        def other(network: TinyNetwork, size: tuple[int, int]) -> onnx.ModelProto:
            with torch.no_grad():
                network.head.bias[0] += 0.5
            program = written(network, size)
            with torch.no_grad():
                network.head.bias[0] -= 0.5
            return program

        monkeypatch.setattr(exporter, "_onnx_program", other)
        with pytest.raises(ModelError, match=r"chooses another class than torch in \d+ of 6144 pixels on 3 images"):
            export(tiny_network(), SIZE, tmp_path / "net.onnx")
        assert list(tmp_path.iterdir()) == []
        monkeypatch.setattr(TinyNetwork, "unsteady", 1.0)
        assert export(tiny_network(), SIZE, tmp_path / "net.onnx").ties > 0

    def test_equal_logits_are_counted_apart(self, tmp_path: Path) -> None:
        network = tiny_network()
        with torch.no_grad():
            network.head.weight[1:] = network.head.weight[:1] * (1 + 1e-7)
            network.head.bias[:] = 0
        done = export(network, SIZE, tmp_path / "net.onnx")
        assert 0 <= done.ties <= done.pixels

    def test_weights_that_are_not_finite(self, tmp_path: Path) -> None:
        network = tiny_network()
        with torch.no_grad():
            network.head.bias[0] = float("nan")
        with pytest.raises(ModelError, match="numbers that are not finite; check its weights"):
            export(network, SIZE, tmp_path / "net.onnx")


class _Refusing(TinyNetwork):
    """Branches on a value, which no exporter follows."""

    def predict(self, features: Tensor) -> Tensor:
        if features.sum() > 0:
            return self.head(features)
        return self.head(-features)


class TestRefusals:
    def test_a_size_that_the_network_does_not_take(self, tmp_path: Path) -> None:
        class Pooling(TinyNetwork):
            def predict(self, features: Tensor) -> Tensor:
                return self.head(torch.nn.functional.avg_pool2d(features, 16))

        with pytest.raises(ModelError, match=re.escape("the network does not take an image of 32x64: ")):
            export(Pooling(4), SIZE, tmp_path / "net.onnx")

    def test_a_network_that_cannot_be_exported(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"torch cannot export this network: .*; --verbose shows"):
            export(_Refusing(4), SIZE, tmp_path / "net.onnx")

    def test_a_graph_that_onnx_runtime_does_not_take(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def foreign(exported: onnx.ModelProto) -> onnx.ModelProto:
            """The exporter's graph with an operator that no runtime has."""
            model = to_target_opset(exported)
            model.graph.node[-1].domain = "nobody.knows"
            model.opset_import.append(onnx.helper.make_opsetid("nobody.knows", 1))
            return model

        monkeypatch.setattr(exporter, "to_target_opset", foreign)
        with pytest.raises(ModelError, match=r"a graph that ONNX Runtime does not take: .*; nothing was written"):
            export(tiny_network(), SIZE, tmp_path / "net.onnx")
        assert list(tmp_path.iterdir()) == []

    def test_places(self, tmp_path: Path) -> None:
        (tmp_path / "net.onnx").write_text("mine")
        with pytest.raises(OutputError, match=r"net\.onnx exists; choose another place with -o or replace it with"):
            export(tiny_network(), SIZE, tmp_path / "net.onnx")
        with pytest.raises(OutputError, match="is a folder, expected the name of a file"):
            export(tiny_network(), SIZE, tmp_path, force=True)
        with pytest.raises(OutputError, match=r"the folder .*none does not exist; create it first"):
            export(tiny_network(), SIZE, tmp_path / "none" / "net.onnx")
        assert (tmp_path / "net.onnx").read_text() == "mine"
        export(tiny_network(), SIZE, tmp_path / "net.onnx", force=True)
        assert onnx.load(tmp_path / "net.onnx").graph.output[0].name == "logits"
        assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]

    def test_a_missing_library(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "onnxscript", None)
        with pytest.raises(MissingDependencyError, match=r"onnxscript is needed.*pip install edgeseg\[train\]"):
            export(tiny_network(), SIZE, tmp_path / "net.onnx")


def test_the_exporter_is_silent_unless_asked(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    before = logging.getLogger("torch.onnx").level
    export(tiny_network(), SIZE, tmp_path / "net.onnx")
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("torch.onnx").level == before
    caplog.set_level(logging.INFO, logger="edgeseg")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export(tiny_network(), SIZE, tmp_path / "loud.onnx")
    assert "[torch.onnx]" in capfd.readouterr().out
