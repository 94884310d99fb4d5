"""The whole recipe on a small network: what it writes, what it proves and what it refuses."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from support.frames import frame_folder, label_folder
from support.graphs import toy_network

import edgeseg
from edgeseg.bundle import Bundle
from edgeseg.calibration.cache import read_cache
from edgeseg.calibration.frames import frames_from
from edgeseg.calibration.table import CalibrationTable
from edgeseg.converters import calibrate
from edgeseg.converters import convert as recipe
from edgeseg.converters.convert import convert
from edgeseg.converters.lint import lint
from edgeseg.converters.options import ConvertOptions
from edgeseg.errors import (
    FrameError,
    LabelError,
    ModelError,
    OutputError,
    UsageError,
)

UNIT = ConvertOptions(mean=(127.5, 127.5, 127.5), std=(63.75, 63.75, 63.75))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "toy.onnx"
    onnx.save(toy_network(classes=4), path)
    return path


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    return frame_folder(tmp_path / "frames", 12)


class TestBundle:
    def test_what_it_holds(self, model: Path, frames: Path) -> None:
        result = convert(model, str(frames), UNIT)
        bundle = Bundle.open(model.with_suffix(".edgeseg"))
        assert result.bundle == bundle
        assert {p.name for p in bundle.path.iterdir()} == {
            "manifest.json", "model.onnx", "calibration.json", "calibration.cache", "report.html", "report.json",
        }  # fmt: skip
        manifest = bundle.manifest
        assert manifest.quantization.count("int8") == 7
        assert manifest.quantization.int8_mac_share == 1
        assert manifest.output.coordinates == "half_pixel"
        assert (manifest.output.height, manifest.output.width) == (16, 16)
        assert manifest.labels.names == ("class0", "class1", "class2", "class3")
        assert manifest.scores is not None
        assert manifest.scores.metric == "agreement"
        assert 90 < manifest.scores.int8_score <= 100
        assert lint(onnx.load_from_string(bundle.read_model())) == []
        proven = json.loads((bundle.path / "report.json").read_text())["files"]
        assert proven.keys() == {"model.onnx", "calibration.json", "calibration.cache"}
        assert proven.items() <= manifest.files.items()
        assert result.seconds.keys() == {"prepare", "check", "calibrate", "quantize", "verify", "write"}

    def test_ranges_are_in_both_tables(self, model: Path, frames: Path) -> None:
        folder = convert(model, str(frames), UNIT).bundle.path
        table = CalibrationTable.from_json((folder / "calibration.json").read_text())
        _, cached = read_cache((folder / "calibration.cache").read_bytes())
        assert cached == pytest.approx(table.ranges)
        assert len(cached) == 6

    def test_calibration_and_score_share_no_frame(self, model: Path, frames: Path) -> None:
        manifest = convert(model, str(frames), UNIT).bundle.manifest
        assert manifest.scores is not None
        assert len(manifest.quantization.frame_names) == 9
        assert len(manifest.scores.frame_names) == 3
        assert not set(manifest.quantization.frame_digests) & set(manifest.scores.frame_digests)

    def test_a_copy_of_a_calibration_frame_is_not_scored(
        self, model: Path, frames: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        other = frame_folder(tmp_path / "other", 2, first_seed=50)
        (other / "copy.png").write_bytes((frames / "frame00.png").read_bytes())
        options = dataclasses.replace(UNIT, score_frames=str(other))
        manifest = convert(model, str(frames), options).bundle.manifest
        assert manifest.scores is not None
        assert manifest.scores.frame_names == ("frame00.png", "frame01.png")
        assert "copy.png is left out of the score: calibration has seen the same pixels" in caplog.text

    def test_miou_with_labels(self, model: Path, frames: Path, tmp_path: Path) -> None:
        labels = label_folder(tmp_path / "labels", 12, 4)
        manifest = convert(model, str(frames), dataclasses.replace(UNIT, labels=labels)).bundle.manifest
        assert manifest.scores is not None
        assert manifest.scores.metric == "miou"
        assert 0 < manifest.scores.float_score < 50
        assert abs(manifest.scores.drop) < 5

    def test_class_map_in_the_graph_gives_the_same_result(self, model: Path, frames: Path, tmp_path: Path) -> None:
        logits = convert(model, str(frames), dataclasses.replace(UNIT, output=tmp_path / "a.edgeseg"))
        options = dataclasses.replace(UNIT, output=tmp_path / "b.edgeseg", output_kind="class-map")
        inside = convert(model, str(frames), options)
        assert inside.bundle.manifest.output.kind == "class-map"
        assert lint(onnx.load_from_string(inside.bundle.read_model())) == []
        frame = next(iter(frames_from(frames))).image
        maps = []
        for result in (logits, inside):
            with edgeseg.load(result.bundle.path, backend="onnxruntime") as segmenter:
                maps.append(segmenter(frame).class_map)
        assert np.mean(maps[0] == maps[1]) > 0.999


class TestPartners:
    def test_skips_are_quantized_and_said(self, model: Path, frames: Path) -> None:
        plain = convert(model, str(frames), dataclasses.replace(UNIT, partners="none"))
        joined = convert(
            model, str(frames), dataclasses.replace(UNIT, partners="all", output=model.parent / "joined.edgeseg")
        )
        before, after = plain.bundle.manifest.quantization, joined.bundle.manifest.quantization
        assert "quantized partners" in after.techniques
        assert "quantized partners" not in before.techniques
        assert [layer.precision for layer in after.layers] == [layer.precision for layer in before.layers]
        pairs = []
        for bundle in (plain.bundle, joined.bundle):
            graph = onnx.load_from_string(bundle.read_model()).graph
            rounded = {n.output[0] for n in graph.node if n.op_type == "DequantizeLinear"}
            pairs.append([sum(i in rounded for i in n.input) for n in graph.node if n.op_type == "Add"])
        assert pairs == [[0], [1]]
        assert joined.bundle.manifest.scores is not None
        assert joined.bundle.manifest.scores.drop < 10

    def test_not_with_a_budget(self, model: Path, frames: Path) -> None:
        with pytest.raises(UsageError, match="--partners quantizes sums, which --budget cannot leave in float"):
            convert(model, str(frames), dataclasses.replace(UNIT, partners="all", budget=1.0))

    def test_an_unknown_choice(self, model: Path, frames: Path) -> None:
        with pytest.raises(UsageError, match="partners"):
            convert(model, str(frames), dataclasses.replace(UNIT, partners="some"))  # type: ignore[arg-type]


class TestReuse:
    def test_second_conversion_reuses_the_ranges(
        self, model: Path, frames: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = convert(model, str(frames), UNIT)

        def never(*arguments: object, **options: object) -> None:
            raise AssertionError("measured again")

        monkeypatch.setattr(calibrate, "measure_ranges", never)
        second = convert(model, str(frames), dataclasses.replace(UNIT, force=True))
        assert not first.reused_calibration
        assert second.reused_calibration
        assert second.bundle.manifest.files["model.onnx"] == first.bundle.manifest.files["model.onnx"]
        assert "reused" in second.remarks[0]

    def test_names_and_digests_pair_up_in_another_order(self, model: Path, frames: Path, tmp_path: Path) -> None:
        scored = str(frame_folder(tmp_path / "other", 2, first_seed=50))
        manifests = []
        for names in (
            sorted(p.name for p in frames.iterdir()),
            sorted((p.name for p in frames.iterdir()), reverse=True),
        ):
            (frames / "list.txt").write_text("\n".join(names))
            options = dataclasses.replace(UNIT, score_frames=scored, force=True)
            result = convert(model, str(frames / "list.txt"), options)
            manifests.append(result.bundle.manifest.quantization)
            (frames / "list.txt").unlink()
        assert result.reused_calibration
        first, second = (dict(zip(m.frame_names, m.frame_digests, strict=True)) for m in manifests)
        assert list(first) != list(second)
        assert first == second

    def test_nothing_temporary_stays_where_ranges_cannot_be_kept(
        self,
        model: Path,
        frames: Path,
        cache_dir: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        def full(*arguments: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "replace", full)
        convert(model, str(frames), UNIT)
        assert "the calibration could not be kept" in caplog.text
        assert list((cache_dir / "calibration").iterdir()) == []

    def test_other_frames_are_measured(self, model: Path, frames: Path) -> None:
        convert(model, str(frames), UNIT)
        cv2.imwrite(str(frames / "frame00.png"), np.zeros((64, 64, 3), np.uint8))
        assert not convert(model, str(frames), dataclasses.replace(UNIT, force=True)).reused_calibration

    def test_damaged_store_is_measured_again(
        self, model: Path, frames: Path, cache_dir: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        convert(model, str(frames), UNIT)
        (stored,) = (cache_dir / "calibration").glob("*.json")
        stored.write_text("{")
        assert not convert(model, str(frames), dataclasses.replace(UNIT, force=True)).reused_calibration
        assert "cannot be used and is measured again" in caplog.text


class TestRefusals:
    def test_taken_place(self, model: Path, frames: Path) -> None:
        convert(model, str(frames), UNIT)
        with pytest.raises(OutputError, match="exists; choose another place with -o or replace it with --force"):
            convert(model, str(frames), UNIT)

    def test_force_replaces_no_other_folder(self, model: Path, frames: Path) -> None:
        precious = model.with_suffix(".edgeseg")
        precious.mkdir()
        (precious / "notes.txt").write_text("keep")
        with pytest.raises(OutputError, match="not an edgeseg bundle"):
            convert(model, str(frames), dataclasses.replace(UNIT, force=True))
        assert (precious / "notes.txt").read_text() == "keep"

    def test_failure_leaves_the_old_bundle(self, model: Path, frames: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        before = convert(model, str(frames), UNIT).bundle

        def full(*arguments: object, **options: object) -> None:
            raise OutputError("cannot write: the disk is full")

        monkeypatch.setattr(recipe, "write_bundle", full)
        with pytest.raises(OutputError):
            convert(model, str(frames), dataclasses.replace(UNIT, force=True))
        assert Bundle.open(before.path) == before
        assert [p.name for p in before.path.parent.iterdir() if p.name.startswith(".")] == []

    def test_tiny_frames(self, model: Path, tmp_path: Path) -> None:
        tiny = frame_folder(tmp_path / "tiny", 4, height=15, width=64)
        with pytest.raises(FrameError, match=r"is 15x64, but the network takes 64x64; frames of less than a quarter"):
            convert(model, str(tiny), UNIT)

    def test_tiny_frames_are_found_before_a_network_is_opened(
        self, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def opened(*arguments: object) -> None:
            raise AssertionError("a network was opened")

        monkeypatch.setattr(recipe, "network_on_cpu", opened)
        monkeypatch.setattr(recipe, "check_parity", opened)
        with pytest.raises(FrameError, match="frames of less than a quarter"):
            convert(model, str(frame_folder(tmp_path / "tiny", 4, height=15, width=64)), UNIT)

    @pytest.mark.parametrize("path", ["", "."])
    def test_a_model_without_a_name(self, path: str, frames: Path) -> None:
        with pytest.raises(ModelError, match=r"expected an ONNX file, but got '\.'; give a path such as model\.onnx"):
            convert(path, str(frames), UNIT)

    def test_smaller_frames_are_enlarged_with_a_warning(
        self, model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        small = frame_folder(tmp_path / "small", 4, height=48, width=64)
        convert(model, str(small), UNIT)
        assert "3 of 3 calibration frames are smaller than the network's 64x64" in caplog.text

    def test_one_frame_leaves_no_score(self, model: Path, tmp_path: Path) -> None:
        result = convert(model, str(frame_folder(tmp_path / "one", 1)), UNIT)
        assert result.bundle.manifest.scores is None
        assert any("no frame left to score" in remark for remark in result.remarks)

    def test_all_scored_frames_were_seen(self, model: Path, frames: Path) -> None:
        with pytest.raises(FrameError, match="every one was used for calibration"):
            convert(model, str(frames), dataclasses.replace(UNIT, score_frames=str(frames)))

    def test_broken_frames_at_both_ends(self, model: Path, frames: Path) -> None:
        for name in ("frame00.png", "frame11.png"):
            (frames / name).write_bytes(b"no image")
        result = convert(model, str(frames), dataclasses.replace(UNIT, skip_broken=True))
        assert result.frames == 7

    def test_broken_frame(self, model: Path, frames: Path) -> None:
        (frames / "frame05.png").write_bytes(b"no image")
        with pytest.raises(FrameError, match=r"frame05\.png.*--skip-broken"):
            convert(model, str(frames), UNIT)
        result = convert(model, str(frames), dataclasses.replace(UNIT, skip_broken=True))
        assert "frame05.png" not in result.bundle.manifest.quantization.frame_names

    def test_missing_frames(self, model: Path, tmp_path: Path) -> None:
        with pytest.raises(FrameError, match="there is no file or folder"):
            convert(model, str(tmp_path / "nowhere"), UNIT)

    def test_classes_that_do_not_fit(self, model: Path, frames: Path) -> None:
        with pytest.raises(LabelError, match="4 output channels, but the label set has 19 classes"):
            convert(model, str(frames), dataclasses.replace(UNIT, classes="cityscapes"))

    def test_label_of_another_size(self, model: Path, frames: Path, tmp_path: Path) -> None:
        labels = label_folder(tmp_path / "labels", 12, 4, height=32)
        with pytest.raises(LabelError, match="32x64"):
            convert(model, str(frames), dataclasses.replace(UNIT, labels=labels))

    def test_unknown_label_value(self, model: Path, frames: Path, tmp_path: Path) -> None:
        labels = label_folder(tmp_path / "labels", 12, 9)
        with pytest.raises(LabelError, match=r"frame\d\d\.png has the unknown label [4-8] in"):
            convert(model, str(frames), dataclasses.replace(UNIT, labels=labels))

    def test_unknown_method(self, model: Path, frames: Path) -> None:
        with pytest.raises(UsageError, match="did you mean entropy"):
            convert(model, str(frames), dataclasses.replace(UNIT, method="entropi"))

    def test_network_that_overflows(self, tmp_path: Path, frames: Path) -> None:
        network = toy_network()
        for tensor in network.graph.initializer:
            if tensor.name == network.graph.node[0].input[1]:
                values = np.full(tuple(tensor.dims), 3e38, np.float32)
                tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
        path = tmp_path / "overflow.onnx"
        onnx.save(network, path)
        with pytest.raises(ModelError, match="gives NaN or infinity in logits for random input"):
            convert(path, str(frames), UNIT)
        assert not path.with_suffix(".edgeseg").exists()
