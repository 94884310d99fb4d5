"""Layers that stay in float: by name, or because the budget asks for it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper
from support.frames import frame_folder, label_folder
from support.graphs import toy_network

from edgeseg.bundle import Bundle
from edgeseg.converters.convert import convert
from edgeseg.converters.mixed import kept_by_name, search_set
from edgeseg.converters.options import ConvertOptions
from edgeseg.converters.place import plan_placement
from edgeseg.converters.prepare import prepare
from edgeseg.converters.split import split_frames
from edgeseg.errors import FrameError, UnsupportedModelError, UsageError

UNIT = ConvertOptions(mean=(127.5, 127.5, 127.5), std=(63.75, 63.75, 63.75), method="minmax", equalize=False)


def uneven_network() -> onnx.ModelProto:
    """The toy network with one weight of the stem so large that its other channels lose all but a few levels."""
    model = toy_network(classes=4)
    stem = next(node for node in model.graph.node if node.op_type == "Conv")
    for tensor in model.graph.initializer:
        if tensor.name == stem.input[1]:
            weight = numpy_helper.to_array(tensor).copy()
            weight[:, 0, 0, 0] *= 60
            tensor.CopyFrom(numpy_helper.from_array(weight, tensor.name))
    return model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "toy.onnx"
    onnx.save(uneven_network(), path)
    return path


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    return frame_folder(tmp_path / "frames", 12)


class TestByName:
    def test_patterns(self, model: Path) -> None:
        placement = plan_placement(prepare(model, UNIT).model)
        names = [layer.name for layer in placement.layers]
        assert set(kept_by_name(placement, [names[0], "depth*"])) == {names[0], "depthwise"}
        assert kept_by_name(placement, []) == {}

    def test_one_that_matches_nothing(self, model: Path) -> None:
        placement = plan_placement(prepare(model, UNIT).model)
        with pytest.raises(UsageError, match=r"--keep-float 'head\.\*' matches none of the 7 layers"):
            kept_by_name(placement, ["head.*"])

    def test_in_the_bundle(self, model: Path, frames: Path) -> None:
        bundle = convert(model, str(frames), dataclasses.replace(UNIT, keep_float=("depthwise",))).bundle
        layers = {layer.name: layer for layer in bundle.manifest.quantization.layers}
        assert (layers["depthwise"].precision, layers["depthwise"].reason) == ("float", "the user keeps it in float")
        assert bundle.manifest.quantization.count("int8") == 6
        graph = onnx.load(bundle.path / "model.onnx").graph
        node = next(node for node in graph.node if node.name == "depthwise")
        producers = {output: each.op_type for each in graph.node for output in each.output}
        assert producers.get(node.input[0]) != "DequantizeLinear"
        assert node.input[1] in {tensor.name for tensor in graph.initializer}

    def test_all_of_them(self, model: Path, frames: Path) -> None:
        with pytest.raises(UnsupportedModelError, match="every one is to stay in float"):
            convert(model, str(frames), dataclasses.replace(UNIT, keep_float=("*",)))


class TestSearchFrames:
    def test_a_third_of_the_labelled_ones(self, model: Path, frames: Path, tmp_path: Path) -> None:
        prepared = prepare(model, UNIT)
        labels = label_folder(tmp_path / "labels", 12, 4)
        options = dataclasses.replace(UNIT, count=3, score_frames=str(frames), labels=labels)
        split = split_frames(str(frames), options, prepared.labels.classes())
        found = search_set(prepared, split, options, None, frozenset())
        assert len(found.frames) == 4
        assert found.truth is not None
        size = (prepared.output.height, prepared.output.width)
        assert all(each.labels is not None and each.labels.shape == size for each in found.frames)
        scored = {frame.digest for frame, _ in split.scored(frozenset(), frozenset(found.digests))}
        assert len(scored) == 8
        assert not scored & set(found.digests)

    def test_calibration_frames_without_labels(self, model: Path, frames: Path) -> None:
        prepared = prepare(model, UNIT)
        split = split_frames(str(frames), UNIT, prepared.labels.classes())
        found = search_set(prepared, split, UNIT, None, frozenset())
        assert found.truth is None
        assert set(found.names) <= set(split.calibration.names)

    def test_the_users(self, model: Path, frames: Path, tmp_path: Path) -> None:
        prepared = prepare(model, UNIT)
        others = frame_folder(tmp_path / "others", 5, first_seed=50)
        options = dataclasses.replace(UNIT, search_frames=str(others))
        split = split_frames(str(frames), options, prepared.labels.classes())
        assert len(search_set(prepared, split, options, None, frozenset()).frames) == 5
        labels = label_folder(tmp_path / "labels", 5, 4)
        options = dataclasses.replace(options, search_labels=labels)
        assert search_set(prepared, split, options, None, frozenset()).truth is not None

    def test_none_left(self, model: Path, frames: Path, tmp_path: Path) -> None:
        prepared = prepare(model, UNIT)
        two = frame_folder(tmp_path / "two", 2, first_seed=50)
        labels = label_folder(tmp_path / "labels", 2, 4)
        options = dataclasses.replace(UNIT, score_frames=str(two), labels=labels)
        split = split_frames(str(frames), options, prepared.labels.classes())
        with pytest.raises(FrameError, match="give some with --search-frames"):
            search_set(prepared, split, options, None, frozenset())


class TestBudget:
    def test_is_kept_and_explained(self, model: Path, frames: Path) -> None:
        loose = convert(model, str(frames), dataclasses.replace(UNIT, budget=100.0)).bundle.manifest
        assert loose.scores is not None
        assert loose.quantization.budget is not None
        assert loose.quantization.count("float") == 0
        budget = loose.quantization.budget.int8_drop / 2
        assert budget > 0.05, "the network must lose something for the search to win back"
        options = dataclasses.replace(UNIT, budget=budget, force=True, target="cpu")
        result = convert(model, str(frames), options)
        manifest = Bundle.open(result.bundle.path).manifest
        found = manifest.quantization.budget
        assert found is not None
        assert (found.points, found.metric, found.target, found.met) == (budget, "agreement", "cpu", True)
        assert found.drop <= budget < found.int8_drop
        kept = [layer for layer in manifest.quantization.layers if layer.precision == "float"]
        assert 0 < len(kept) < 7
        assert all(layer.reason.startswith(f"the budget of {budget:g} points") for layer in kept)
        assert 0 < found.float_share < 1
        assert manifest.scores is not None
        assert manifest.scores.drop < loose.scores.drop
        assert result.seconds.keys() >= {"sensitivity", "search"}
        report = json.loads((result.bundle.path / "report.json").read_text("utf-8"))
        noise = {row["layer"]: row["alone"]["snr_db"] for row in report["sensitivity"]["layers"]}
        assert noise.keys() == {layer.name for layer in manifest.quantization.layers}
        for layer in kept:
            assert f"{noise[layer.name]:.1f} dB" in layer.reason
        assert 'id="sensitivity"' in (result.bundle.path / "report.html").read_text("utf-8")

    def test_the_same_twice(self, model: Path, frames: Path) -> None:
        options = dataclasses.replace(UNIT, budget=1.0, force=True)
        first, second = (convert(model, str(frames), options).bundle.manifest for _ in range(2))
        assert first.quantization == second.quantization
        assert first.files["model.onnx"] == second.files["model.onnx"]

    def test_one_that_cannot_be_met(self, model: Path, frames: Path) -> None:
        options = dataclasses.replace(UNIT, budget=0.0, max_float_share=0.0)
        result = convert(model, str(frames), options)
        found = result.bundle.manifest.quantization.budget
        assert found is not None
        assert not found.met
        (remark,) = [text for text in result.remarks if "budget" in text]
        assert "was not met" in remark
        assert "edgeseg train --qat" in remark

    def test_held_out_frames_are_not_scored(self, model: Path, frames: Path, tmp_path: Path) -> None:
        scored = frame_folder(tmp_path / "scored", 9, first_seed=50)
        labels = label_folder(tmp_path / "labels", 9, 4)
        options = dataclasses.replace(UNIT, budget=100.0, score_frames=str(scored), labels=labels, count=4)
        manifest = convert(model, str(frames), options).bundle.manifest
        found = manifest.quantization.budget
        assert found is not None
        assert found.metric == "miou"
        assert manifest.scores is not None
        assert len(found.frame_names) == 3
        assert len(manifest.scores.frame_names) == 6
        assert not set(found.frame_digests) & set(manifest.scores.frame_digests)
        assert not set(found.frame_digests) & set(manifest.quantization.frame_digests)
