"""Ranges, factors and shifts of a network: found by a recipe once, and then taken from what was kept."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from support.frames import frame_folder
from support.graphs import GraphBuilder, random_frame, run_graph, toy_network

from edgeseg.calibration.frames import FrameSource, frames_from
from edgeseg.calibration.measure import measure_ranges
from edgeseg.calibration.ranges import AUTO, CANDIDATES, METHODS
from edgeseg.calibration.table import choose_ranges
from edgeseg.converters import calibrate as steps
from edgeseg.converters.calibrate import Calibrated, CalibrationRecipe, calibrate, calibration_units
from edgeseg.converters.graph import GraphIndex, copy_model
from edgeseg.converters.options import ConvertOptions
from edgeseg.converters.place import place_qdq, plan_placement
from edgeseg.converters.prepare import Prepared, prepare
from edgeseg.converters.switches import SwitchedNetwork
from edgeseg.errors import CalibrationError, UsageError
from edgeseg.frame import fit_frame

UNIT = ConvertOptions(mean=(127.5, 127.5, 127.5), std=(63.75, 63.75, 63.75))
FRAMES = 20
PLAIN = CalibrationRecipe("mse", equalize=False, correct_bias=False, round_weights=False)
RECIPES = [
    CalibrationRecipe(AUTO),
    CalibrationRecipe(AUTO, equalize=False, correct_bias=False),
    CalibrationRecipe("percentile", correct_bias=False),
    CalibrationRecipe(round_weights=False),
    CalibrationRecipe("entropy", equalize=False),
    PLAIN,
]


def spread_network() -> onnx.ModelProto:
    """The toy network with a stem whose channels differ by a factor of up to 100, which `depthwise` evens out."""
    model = toy_network()
    factors = np.array([1, 100, 3, 50, 1, 10, 2, 30], np.float32)
    nodes = {node.name: node for node in model.graph.node}
    norm = next(n for n in model.graph.node if n.op_type == "BatchNormalization" and n.input[0] == "stem_out")
    for name, values in (
        (norm.input[1], factors),
        (norm.input[2], factors),
        (nodes["depthwise"].input[1], 1 / factors.reshape(8, 1, 1, 1)),
    ):
        tensor = next(t for t in model.graph.initializer if t.name == name)
        tensor.CopyFrom(numpy_helper.from_array((numpy_helper.to_array(tensor) * values).astype(np.float32), name))
    return model


def prepared_network(model: onnx.ModelProto, folder: Path) -> Prepared:
    path = folder / "toy.onnx"
    onnx.save(model, path)
    return prepare(path, UNIT)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepared_network(spread_network(), tmp_path_factory.mktemp("network"))


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> FrameSource:
    return frames_from(frame_folder(tmp_path_factory.mktemp("calibration") / "frames", FRAMES))


def run(prepared: Prepared, frames: FrameSource, recipe: CalibrationRecipe) -> Calibrated:
    return calibrate(prepared, plan_placement(prepared.model), frames, recipe, lambda units: None)


def noise_ratio(prepared: Prepared, calibrated: Calibrated) -> float:
    """Of the quantized network, on frames that calibration has not seen, in dB."""
    placement = plan_placement(prepared.model)
    quantized = place_qdq(calibrated.model, placement, calibrated.table.ranges, calibrated.shifts, calibrated.moved)
    signal = noise = 0.0
    for seed in range(90, 94):
        frame = random_frame(seed=seed)[None]
        exact, rough = (run_graph(m, **{prepared.input.tensor: frame})[0] for m in (prepared.model, quantized))
        signal += float((exact**2).sum())
        noise += float(((exact - rough) ** 2).sum())
    return 10 * float(np.log10(signal / noise))


class TestRecipe:
    def test_techniques(self) -> None:
        assert CalibrationRecipe().techniques == ("cross-layer equalization", "bias correction", "weight rounding")
        assert CalibrationRecipe(equalize=False).techniques == ("bias correction", "weight rounding")
        assert PLAIN.techniques == ()

    @pytest.mark.parametrize("recipe", RECIPES)
    def test_progress_counts_what_was_announced(
        self, recipe: CalibrationRecipe, prepared: Prepared, frames: FrameSource
    ) -> None:
        expected = FRAMES + (steps.CHANNEL_FRAMES if recipe.equalize else 0)
        expected += steps.LEVEL_FRAMES if recipe.round_weights else 0
        assert calibration_units(frames, recipe) == expected
        for _ in range(2):
            told: list[int] = []
            calibrate(prepared, plan_placement(prepared.model), frames, recipe, told.append)
            assert sum(told) == expected

    @pytest.mark.parametrize(
        ("method", "nearest"), [("entropi", "entropy"), ("aut", "auto"), ("percentil", "percentile")]
    )
    def test_unknown_method(
        self, method: str, nearest: str, prepared: Prepared, frames: FrameSource, cache_dir: Path
    ) -> None:
        with pytest.raises(UsageError, match=f"calibration method.*{method}.*did you mean {nearest}"):
            run(prepared, frames, CalibrationRecipe(method))
        assert not cache_dir.exists()


class TestReuse:
    @pytest.mark.parametrize("recipe", RECIPES)
    def test_second_run_gives_the_same(
        self, recipe: CalibrationRecipe, prepared: Prepared, frames: FrameSource, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = run(prepared, frames, recipe)

        def never(*arguments: object, **options: object) -> None:
            raise AssertionError("measured again")

        for step in ("measure_ranges", "measure_channels", "choose_levels", "Trials"):
            monkeypatch.setattr(steps, step, never)
        second = run(prepared, frames, recipe)
        assert (first.reused, second.reused) == (False, True)
        assert second.model.SerializeToString(deterministic=True) == first.model.SerializeToString(deterministic=True)
        assert second.table == first.table
        assert second.table.to_json() == first.table.to_json()
        assert second.names == first.names
        assert list(second.shifts) == list(first.shifts)
        for layer, shift in first.shifts.items():
            np.testing.assert_array_equal(second.shifts[layer], shift)
        assert list(second.moved) == list(first.moved)
        for weight, positions in first.moved.items():
            np.testing.assert_array_equal(second.moved[weight], positions)

    def test_measured_twice_gives_the_same(self, prepared: Prepared, frames: FrameSource, cache_dir: Path) -> None:
        first = run(prepared, frames, CalibrationRecipe())
        for path in (cache_dir / "calibration").iterdir():
            path.unlink()
        second = run(prepared, frames, CalibrationRecipe())
        assert not second.reused
        assert second.table == first.table
        assert second.model.SerializeToString(deterministic=True) == first.model.SerializeToString(deterministic=True)

    def test_each_recipe_has_a_key_of_its_own(self, prepared: Prepared, frames: FrameSource) -> None:
        recipes = [
            CalibrationRecipe(m, *done) for m in ("mse", AUTO) for done in itertools.product((False, True), repeat=3)
        ]
        found = [run(prepared, frames.select(2), recipe) for recipe in recipes]
        assert not any(calibrated.reused for calibrated in found)
        assert len({calibrated.table.key for calibrated in found}) == len(recipes)

    def test_other_frames_have_another_key(self, prepared: Prepared, frames: FrameSource) -> None:
        one, other = (run(prepared, frames.select(count), PLAIN) for count in (2, 3))
        assert one.table.key != other.table.key
        assert not other.reused

    @pytest.mark.parametrize("damage", ["factors", "shifts", "moved", "table"])
    def test_damaged_findings_are_found_again(
        self, damage: str, prepared: Prepared, frames: FrameSource, cache_dir: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        first = run(prepared, frames.select(2), CalibrationRecipe())
        (kept,) = (cache_dir / "calibration").iterdir()
        content = json.loads(kept.read_text())
        content[damage] = {"broken": None}
        kept.write_text(json.dumps(content))
        second = run(prepared, frames.select(2), CalibrationRecipe())
        assert not second.reused
        assert second.table == first.table
        assert "cannot be used and is measured again" in caplog.text
        assert run(prepared, frames.select(2), CalibrationRecipe()).reused

    def test_a_cache_that_cannot_be_written(
        self, prepared: Prepared, frames: FrameSource, cache_dir: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        cache_dir.write_text("a file")
        found = run(prepared, frames.select(2), CalibrationRecipe())
        assert not found.reused
        assert set(found.table.entries) == set(plan_placement(prepared.model).tensors)
        assert "the calibration could not be kept" in caplog.text


class TestMethods:
    def test_a_plain_recipe_leaves_the_network_alone(self, prepared: Prepared, frames: FrameSource) -> None:
        found = run(prepared, frames, PLAIN)
        assert found.model.SerializeToString(deterministic=True) == prepared.model.SerializeToString(deterministic=True)
        assert (found.shifts, found.moved) == ({}, {})

    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("equalize", [False, True])
    def test_ranges_are_those_of_the_network_that_comes_back(
        self, method: str, equalize: bool, prepared: Prepared, frames: FrameSource
    ) -> None:
        found = run(prepared, frames, CalibrationRecipe(method, equalize=equalize, correct_bias=False))
        tensors, spec = plan_placement(prepared.model).tensors, prepared.input
        feeds = [{spec.tensor: fit_frame(frame.image, spec.height, spec.width)} for frame in frames]
        assert found.table.entries == choose_ranges(measure_ranges(found.model, tensors, feeds), method)
        assert found.table.method == method

    @pytest.mark.parametrize("correct_bias", [False, True])
    def test_auto_takes_one_of_the_candidates_for_each_tensor(
        self, correct_bias: bool, prepared: Prepared, frames: FrameSource
    ) -> None:
        found = run(prepared, frames, CalibrationRecipe(AUTO, correct_bias=correct_bias))
        tensors, spec = plan_placement(prepared.model).tensors, prepared.input
        feeds = [{spec.tensor: fit_frame(frame.image, spec.height, spec.width)} for frame in frames]
        seen = measure_ranges(found.model, tensors, feeds)
        assert list(found.table.entries) == list(tensors)
        for tensor, entry in found.table.entries.items():
            assert entry.amax == CANDIDATES[entry.method](seen[tensor])
        assert found.table.method == AUTO

    def test_equalized_network_computes_the_same(self, prepared: Prepared, frames: FrameSource) -> None:
        found = run(prepared, frames, CalibrationRecipe("minmax", correct_bias=False))
        frame = {prepared.input.tensor: random_frame(seed=77)[None]}
        exact, scaled = run_graph(prepared.model, **frame)[0], run_graph(found.model, **frame)[0]
        assert found.model.SerializeToString() != prepared.model.SerializeToString()
        np.testing.assert_allclose(scaled, exact, rtol=0, atol=1e-4 * np.abs(exact).max())

    def test_shifts_are_of_every_quantized_layer(self, prepared: Prepared, frames: FrameSource) -> None:
        found = run(prepared, frames, CalibrationRecipe())
        index = GraphIndex(found.model)
        layers = [node for node in found.model.graph.node if node.op_type == "Conv"]
        assert set(found.shifts) == {node.name for node in layers}
        for node in layers:
            weight = index.constant(node.input[1])
            assert weight is not None
            assert found.shifts[node.name].shape == weight.shape[:1]
            assert np.isfinite(found.shifts[node.name]).all()
            assert found.shifts[node.name].any()


class TestGain:
    def test_equalization(self, prepared: Prepared, frames: FrameSource) -> None:
        with_it, without = (
            noise_ratio(prepared, run(prepared, frames, CalibrationRecipe("minmax", equalize=e, correct_bias=False)))
            for e in (True, False)
        )
        assert with_it > without + 3

    def test_weight_rounding(self, prepared: Prepared, frames: FrameSource) -> None:
        with_it, without = (
            noise_ratio(prepared, run(prepared, frames, CalibrationRecipe(round_weights=r))) for r in (True, False)
        )
        assert with_it > without + 0.1

    def test_the_whole_recipe(self, prepared: Prepared, frames: FrameSource) -> None:
        assert noise_ratio(prepared, run(prepared, frames, CalibrationRecipe())) > 3 + noise_ratio(
            prepared, run(prepared, frames, PLAIN)
        )


class TestRefusals:
    @pytest.mark.parametrize("recipe", RECIPES)
    def test_a_network_that_overflows(
        self, recipe: CalibrationRecipe, prepared: Prepared, frames: FrameSource, cache_dir: Path
    ) -> None:
        # Past what `prepare` sees with random input.
        model = copy_model(prepared.model)
        first = next(node for node in model.graph.node if node.op_type == "Conv")
        weight = next(t for t in model.graph.initializer if t.name == first.input[1])
        weight.CopyFrom(numpy_helper.from_array(np.full(tuple(weight.dims), 3e38, np.float32), weight.name))
        broken = dataclasses.replace(prepared, model=model)
        with pytest.raises(CalibrationError, match=r"of frame frame00\.png: values are NaN or infinite"):
            run(broken, frames, recipe)
        assert not (cache_dir / "calibration").exists()

    def test_a_dead_network_is_calibrated(self, frames: FrameSource, tmp_path: Path) -> None:
        network = toy_network(batch_norm=False)
        weight = next(t for t in network.graph.initializer if t.name == network.graph.node[0].input[1])
        weight.CopyFrom(numpy_helper.from_array(np.zeros(tuple(weight.dims), np.float32), weight.name))
        dead = prepared_network(network, tmp_path)
        found = run(dead, frames.select(3), CalibrationRecipe())
        assert all(np.isfinite(shift).all() for shift in found.shifts.values())
        assert all(amax > 0 for amax in found.table.ranges.values())
        assert noise_ratio(dead, found) > 10


@pytest.mark.parametrize("opset", [13, 17, 20])
def test_opsets_and_a_convolution_over_channels(opset: int, tmp_path: Path, cache_dir: Path) -> None:
    """Efficient channel attention convolves (1, 1, C): a convolution of rank 3 among others of rank 4."""
    builder = GraphBuilder()
    x = builder.conv("image", 3, 8, name="first")
    pooled = builder.add("GlobalAveragePool", x)
    line = builder.add("Reshape", pooled, builder.constant(np.array([1, 1, 8], np.int64)))
    kernel = builder.constant(np.float32([[[0.2, 0.5, 0.3]]]))
    line = builder.add("Conv", line, kernel, "", name="over_channels", kernel_shape=[3], pads=[1, 1])
    gate = builder.add("Sigmoid", builder.add("Reshape", line, builder.constant(np.array([1, 8, 1, 1], np.int64))))
    x = builder.conv(builder.add("Mul", x, gate), 8, 4, name="last")
    path = tmp_path / "attention.onnx"
    onnx.save(builder.model(x, opset=opset), path)
    prepared = prepare(path, UNIT)
    placement = plan_placement(prepared.model)
    frames = frames_from(frame_folder(tmp_path / "frames", 3))
    found = calibrate(prepared, placement, frames, CalibrationRecipe(), lambda units: None)
    assert set(found.shifts) == {"first", "over_channels", "last"}
    quantized = place_qdq(found.model, placement, found.table.ranges, found.shifts)
    corrected = next(node for node in quantized.graph.node if node.name == "over_channels")
    assert corrected.input[2]  # the bias that it did not have
    network = SwitchedNetwork(found.model, placement, found.table.ranges, found.shifts)
    feed = {prepared.input.tensor: random_frame(64, 64)[None]}
    logits = network.run(feed, network.layers)
    np.testing.assert_allclose(logits, run_graph(quantized, **feed)[0], atol=0.05 * np.abs(logits).max())
