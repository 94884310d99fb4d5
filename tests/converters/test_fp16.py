"""The recipe where the network stays in floating point: what the bundle holds, and what contradicts FP16."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from support.frames import frame_folder, label_folder
from support.graphs import toy_network

import edgeseg
from benchmarks.networks import NETWORKS
from edgeseg.backends.tensorrt.proof import promised_layers
from edgeseg.bundle import Bundle
from edgeseg.calibration.frames import frames_from
from edgeseg.calibration.table import read_table
from edgeseg.converters.compare import compare
from edgeseg.converters.convert import convert
from edgeseg.converters.lint import lint
from edgeseg.converters.network import network_on_cpu
from edgeseg.converters.options import ConvertOptions, ConvertResult
from edgeseg.converters.prepare import prepare
from edgeseg.converters.sides import open_sides
from edgeseg.converters.targets import derive
from edgeseg.errors import BundleError, CalibrationError, UsageError

UNIT = ConvertOptions(mean=(127.5, 127.5, 127.5), std=(63.75, 63.75, 63.75), precision="fp16")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "toy.onnx"
    onnx.save(toy_network(classes=4), path)
    return path


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    return frame_folder(tmp_path / "frames", 6)


@pytest.fixture
def result(model: Path, frames: Path) -> ConvertResult:
    return convert(model, str(frames), UNIT)


class TestBundle:
    def test_what_it_holds(self, result: ConvertResult) -> None:
        bundle = Bundle.open(result.bundle.path)
        assert {p.name for p in bundle.path.iterdir()} == {"manifest.json", "model.onnx", "report.html", "report.json"}
        assert result.seconds.keys() == {"prepare", "check", "fp16", "verify", "write"}
        assert (result.frames, result.reused_calibration) == (0, False)
        found = bundle.manifest.quantization
        assert (found.number_format, found.method, found.frame_names, found.techniques) == ("FP16", "fp16", (), ())
        assert (found.count("int8"), found.converted_layers, found.converted_mac_share) == (0, 7, 1.0)
        assert {layer.reason for layer in found.layers} == {"the whole network is FP16"}
        assert bundle.manifest.schema_version == 3

    def test_the_graph_is_the_float_one(self, model: Path, result: ConvertResult) -> None:
        stored = onnx.load_from_string(result.bundle.read_model())
        assert stored.SerializeToString(deterministic=True) == prepare(model, UNIT).model.SerializeToString(
            deterministic=True
        )
        assert lint(stored) == []

    def test_no_engine_of_it_has_to_be_int8(self, result: ConvertResult) -> None:
        assert promised_layers(result.bundle.manifest) == ()

    @pytest.mark.parametrize("form", ["canonical", "fp16", "fp16_qdq", "tensorrt8", "jetpack4"])
    def test_forms_of_a_graph_without_quantizers(self, form: str, result: ConvertResult) -> None:
        nodes = derive(form, onnx.load_from_string(result.bundle.read_model())).model.graph.node
        assert sum(node.op_type in ("Conv", "ConvTranspose") for node in nodes) == 7
        assert not {node.op_type for node in nodes} & {"QuantizeLinear", "DequantizeLinear"}

    def test_no_int8_form_without_ranges(self, result: ConvertResult) -> None:
        with pytest.raises(CalibrationError, match="expected a range for each of the"):
            derive("implicit_int8", onnx.load_from_string(result.bundle.read_model()))

    def test_readers_of_ranges_say_so(self, result: ConvertResult) -> None:
        expected = r"toy\.edgeseg is FP16 and was not calibrated, so it has no ranges for the analysis to start from;"
        with pytest.raises(BundleError, match=expected + " convert the network with --precision int8"):
            read_table(result.bundle, "the analysis")

    def test_it_runs(self, frames: Path, result: ConvertResult) -> None:
        frame = next(iter(frames_from(frames))).image
        with edgeseg.load(result.bundle.path, backend="onnxruntime") as segmenter:
            assert segmenter(frame).class_map.shape == (64, 64)

    def test_class_map_in_the_graph(self, model: Path, frames: Path) -> None:
        made = convert(model, str(frames), replace(UNIT, output_kind="class-map"))
        assert made.bundle.manifest.output.kind == "class-map"
        assert made.bundle.manifest.scores is not None
        assert 99 < made.bundle.manifest.scores.int8_score <= 100


class TestScore:
    def test_it_is_that_of_the_rounded_network(self, model: Path, frames: Path, result: ConvertResult) -> None:
        prepared, stored = prepare(model, UNIT), onnx.load_from_string(result.bundle.read_model())
        found = result.bundle.manifest.quantization
        with (
            network_on_cpu(prepared, stored, prepared.output) as exact,
            network_on_cpu(prepared, stored, prepared.output, found) as rounded,
        ):
            equal = [np.mean(exact(frame.image) == rounded(frame.image)) for frame in frames_from(frames)]
        scores = result.bundle.manifest.scores
        assert scores is not None
        assert 99 < scores.int8_score == pytest.approx(100 * np.mean(equal))
        assert scores.int8_score < 100
        assert len(scores.frame_names) == 6

    def test_compare_rounds_too(self, frames: Path, result: ConvertResult) -> None:
        given = (result.bundle.path.with_suffix(".onnx"), result.bundle.path)
        found = compare(*open_sides(given, (ConvertOptions(), ConvertOptions())), frames_from(frames))
        scores = result.bundle.manifest.scores
        assert scores is not None
        assert found.agreement == pytest.approx(scores.int8_score)
        assert found.logits.snr is not None
        assert 40 < found.logits.snr < 90

    def test_score_frames_alone(self, model: Path, frames: Path) -> None:
        made = convert(model, None, replace(UNIT, score_frames=str(frames)))
        assert made.bundle.manifest.scores is not None
        assert len(made.bundle.manifest.scores.frame_names) == 6
        assert made.remarks == (
            "Without --labels the score is the agreement with the float network, not the accuracy.",
        )

    def test_score_frames_win(self, model: Path, frames: Path, tmp_path: Path) -> None:
        options = replace(UNIT, score_frames=str(frame_folder(tmp_path / "other", 2, first_seed=50)))
        made = convert(model, str(frames), options)
        assert made.bundle.manifest.scores is not None
        assert len(made.bundle.manifest.scores.frame_names) == 2
        assert any("so --frames was not read" in remark for remark in made.remarks)

    def test_no_frames_no_score(self, model: Path) -> None:
        made = convert(model, None, UNIT)
        assert made.bundle.manifest.scores is None
        assert made.remarks == (
            "Without frames nothing was scored, nor was the simplified graph checked against the given one; give some "
            "with --frames or --score-frames.",
        )
        assert json.loads((made.bundle.path / "report.json").read_text())["worst_frames"] == []
        assert "No frame was left to score: none was given." in made.report.read_text()

    def test_labels_give_miou(self, model: Path, frames: Path, tmp_path: Path) -> None:
        made = convert(model, str(frames), replace(UNIT, labels=label_folder(tmp_path / "labels", 6, 4)))
        assert made.bundle.manifest.scores is not None
        assert made.bundle.manifest.scores.metric == "miou"
        assert 0 < abs(made.bundle.manifest.scores.drop) < 1


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "names"),
        [
            ({"method": "mse"}, "--method says"),
            ({"count": 3}, "--count says"),
            ({"equalize": False, "correct_bias": False}, "--no-equalize, --no-bias-correction say"),
            ({"partners": "all"}, "--partners says"),
            ({"budget": 0.5, "target": "cpu"}, "--budget, --target say"),
            ({"keep_float": ("*",), "max_float_share": 0.5}, "--keep-float, --max-float-share say"),
            ({"search_frames": "x", "search_labels": Path("y")}, "--search-frames, --search-labels say"),
        ],
    )
    def test_what_quantizes(self, changes: dict[str, Any], names: str, model: Path, frames: Path) -> None:
        expected = f"--precision fp16 neither calibrates nor quantizes, but {names} how to; give one or the other"
        with pytest.raises(UsageError, match=expected):
            convert(model, str(frames), replace(UNIT, **changes))

    def test_labels_without_frames(self, model: Path, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="--labels are those of the frames to score; give these too"):
            convert(model, None, replace(UNIT, labels=tmp_path))

    def test_int8_without_frames(self, model: Path) -> None:
        with pytest.raises(UsageError, match="INT8 needs real frames of the network's domain to calibrate with"):
            convert(model, None, replace(UNIT, precision="int8"))

    def test_unknown_precision(self, model: Path, frames: Path) -> None:
        with pytest.raises(UsageError, match="did you mean fp16"):
            convert(model, str(frames), replace(UNIT, precision="fp61"))  # type: ignore[arg-type]


def test_espnet_loses_nothing(shared: Path, tmp_path: Path) -> None:
    camvid, network = shared / "data" / "camvid" / "val", NETWORKS["espnet"]
    names = frames_from(camvid / "images").select(3).names
    (tmp_path / "val.txt").write_text("\n".join(str(camvid / "images" / name) for name in names))
    options = replace(network.options, precision="fp16", labels=camvid / "labels", output=tmp_path / "espnet.edgeseg")
    manifest = convert(shared / "models" / network.file, str(tmp_path / "val.txt"), options).bundle.manifest
    assert manifest.quantization.converted_layers == 85
    assert manifest.scores is not None
    assert manifest.scores.metric == "miou"
    assert manifest.scores.float_score > 50
    assert 0 < abs(manifest.scores.drop) < 0.1
