"""What a trial says a layer loses is what ONNX Runtime loses with the Q/DQ pairs in place."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from support.graphs import GraphBuilder, run_graph

from edgeseg.calibration.measure import measure_ranges
from edgeseg.calibration.ranges import minmax, mse, percentile
from edgeseg.converters.place import Placement, place_qdq, plan_placement
from edgeseg.converters.trials import Trials, best_by_output
from edgeseg.errors import CalibrationError

Array = NDArray[np.float32]
LAYERS = {"first": "image", "depthwise": "relu_out", "left": "depthwise_out", "right": "depthwise_out"}
"""The tensor that each layer reads."""


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    """Five convolutions: with stride, groups, dilation, without bias, two that read one tensor, and one in float."""
    builder = GraphBuilder(4)
    x = builder.add("Relu", builder.conv("image", 3, 6, stride=2, name="first"), name="relu")
    x = builder.conv(x, 6, 6, group=6, name="depthwise")
    left, right = builder.conv(x, 6, 4, bias=False, name="left"), builder.conv(x, 6, 4, dilation=2, name="right")
    x = builder.conv_transpose(builder.add("Add", left, right), 4, 3, name="last")
    return builder.model(x, (1, 3, 16, 20))


@pytest.fixture(scope="module")
def placement(model: onnx.ModelProto) -> Placement:
    return plan_placement(model)


def feeds(count: int = 3) -> list[dict[str, Array]]:
    random = np.random.default_rng(8)
    return [{"image": random.normal(0.2, 1, (1, 3, 16, 20)).astype(np.float32)} for _ in range(count)]


def ranges(model: onnx.ModelProto, placement: Placement, share: float = 1.0) -> dict[str, float]:
    seen = measure_ranges(model, placement.tensors, feeds())
    return {name: share * minmax(histogram) for name, histogram in seen.items()}


def inside(model: onnx.ModelProto, tensor: str, feed: dict[str, Array]) -> Array:
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    if tensor not in feed:
        watched.graph.output.append(onnx.ValueInfoProto(name=tensor))
    return feed.get(tensor, run_graph(watched, **feed)[-1])


def alone(model: onnx.ModelProto, name: str, shape: tuple[int, ...]) -> onnx.ModelProto:
    """One layer of a model, with its tensor as the input."""
    builder = GraphBuilder()
    node = onnx.NodeProto()
    node.CopyFrom(next(n for n in model.graph.node if n.name == name))
    node.input[0] = "image"
    builder.nodes.append(node)
    builder.initializers += [t for t in model.graph.initializer if t.name in node.input]
    return builder.model(node.output[0], shape)


class TestRun:
    @pytest.mark.parametrize("share", [1.0, 0.4])
    @pytest.mark.parametrize("name", LAYERS)
    def test_noise_and_shift_are_those_of_onnx_runtime(
        self, name: str, share: float, model: onnx.ModelProto, placement: Placement
    ) -> None:
        tried = ranges(model, placement, share)
        found = Trials(model, placement).run(tried, feeds())[name]
        noise, signal, shifts = 0.0, 0.0, []
        for feed in feeds():
            x = inside(model, LAYERS[name], feed)
            layer = alone(model, name, x.shape)
            quantized = place_qdq(layer, plan_placement(layer), {"image": tried[LAYERS[name]]})
            exact, rough = (run_graph(m, image=x)[0].astype(np.float64) for m in (layer, quantized))
            noise += ((exact - rough) ** 2).mean()
            signal += (exact**2).mean()
            shifts.append((exact - rough).mean(axis=(0, 2, 3)))
        # A value on the edge of two levels may go either way.
        assert found.noise == pytest.approx(noise / signal, rel=1e-2)
        assert found.shift.dtype == np.float64
        np.testing.assert_allclose(found.shift, np.mean(shifts, axis=0), atol=2e-2 * np.abs(shifts).max() + 1e-5)

    def test_only_quantized_layers_are_tried(self, model: onnx.ModelProto, placement: Placement) -> None:
        assert list(Trials(model, placement).run(ranges(model, placement), feeds())) == list(LAYERS)

    def test_several_frames_are_their_mean(self, model: onnx.ModelProto, placement: Placement) -> None:
        trials, tried = Trials(model, placement), ranges(model, placement)
        together = trials.run(tried, iter(feeds()))
        single = [trials.run(tried, [feed]) for feed in feeds()]
        for name in LAYERS:
            np.testing.assert_allclose(
                together[name].shift, np.mean([s[name].shift for s in single], axis=0), rtol=1e-6
            )
            noises = [s[name].noise for s in single]
            assert min(noises) <= together[name].noise <= max(noises)

    def test_one_graph_serves_any_ranges(self, model: onnx.ModelProto, placement: Placement) -> None:
        trials, tried = Trials(model, placement), ranges(model, placement)
        first = trials.run(tried, feeds())
        worse = trials.run({name: 50 * amax for name, amax in tried.items()}, feeds())
        again = trials.run(tried, feeds())
        for name in LAYERS:
            assert worse[name].noise > 100 * first[name].noise
            assert again[name].noise == first[name].noise
            np.testing.assert_array_equal(again[name].shift, first[name].shift)

    def test_each_range_is_that_of_its_tensor(self, model: onnx.ModelProto, placement: Placement) -> None:
        trials, tried = Trials(model, placement), ranges(model, placement)
        good = trials.run(tried, feeds())
        other = trials.run({**tried, "relu_out": 100 * tried["relu_out"]}, feeds())
        changed = {name for name in LAYERS if other[name].noise != good[name].noise}
        assert changed == {"depthwise"}

    def test_noise_of_a_tensor_is_that_of_all_its_readers(self, model: onnx.ModelProto, placement: Placement) -> None:
        trials, tried = Trials(model, placement), ranges(model, placement)
        errors, totals = trials.run(tried, feeds()), trials.noise_by_tensor(tried, feeds())
        assert list(totals) == list(placement.tensors)
        assert totals["depthwise_out"] == pytest.approx(errors["left"].noise + errors["right"].noise)
        assert totals["image"] == pytest.approx(errors["first"].noise)

    def test_a_layer_whose_output_is_zero(self) -> None:
        builder = GraphBuilder()
        weight = builder.constant(np.zeros((3, 3, 1, 1), np.float32))
        model = builder.model(builder.add("Conv", "image", weight, name="silent"), (1, 3, 16, 20))
        error = Trials(model, plan_placement(model)).run({"image": 3.0}, feeds())["silent"]
        assert error.noise == 0
        assert error.shift.tolist() == [0, 0, 0]

    def test_the_given_model_is_not_changed(self, model: onnx.ModelProto, placement: Placement) -> None:
        before = model.SerializeToString()
        Trials(model, placement).run(ranges(model, placement), feeds(1))
        assert model.SerializeToString() == before

    def test_no_frames(self, model: onnx.ModelProto, placement: Placement) -> None:
        with pytest.raises(CalibrationError, match="no frames were given to try ranges on; give at least one"):
            Trials(model, placement).run(ranges(model, placement), [])


class TestBest:
    def test_of_a_good_a_small_and_a_large_range(self, model: onnx.ModelProto, placement: Placement) -> None:
        shares = {"small": 0.02, "good": 1.0, "large": 60.0}
        candidates = {name: ranges(model, placement, share) for name, share in shares.items()}
        found = best_by_output(Trials(model, placement), candidates, iter(feeds()))
        assert found == dict.fromkeys(placement.tensors, "good")

    def test_each_tensor_has_a_choice_of_its_own(self, model: onnx.ModelProto, placement: Placement) -> None:
        good, large = ranges(model, placement), ranges(model, placement, 60)
        mixed = {tensor: (good if number % 2 else large)[tensor] for number, tensor in enumerate(placement.tensors)}
        other = {tensor: (large if number % 2 else good)[tensor] for number, tensor in enumerate(placement.tensors)}
        found = best_by_output(Trials(model, placement), {"odd": mixed, "even": other}, feeds())
        assert [found[tensor] for tensor in placement.tensors] == ["even", "odd", "even"]

    def test_of_equal_ones_the_first(self, model: onnx.ModelProto, placement: Placement) -> None:
        tried = ranges(model, placement)
        found = best_by_output(Trials(model, placement), {"b": tried, "a": dict(tried)}, feeds())
        assert set(found.values()) == {"b"}

    def test_no_chooser_is_better_by_noise(self, model: onnx.ModelProto, placement: Placement) -> None:
        seen = measure_ranges(model, placement.tensors, feeds())
        choosers = {"minmax": minmax, "mse": mse, "percentile": percentile}
        candidates = {name: {t: choose(h) for t, h in seen.items()} for name, choose in choosers.items()}
        trials = Trials(model, placement)
        best = best_by_output(trials, candidates, feeds())
        chosen = trials.noise_by_tensor({t: candidates[name][t] for t, name in best.items()}, feeds())
        for tried in candidates.values():
            noise = trials.noise_by_tensor(tried, feeds())
            assert all(chosen[tensor] <= noise[tensor] for tensor in placement.tensors)


class TestBiasCorrection:
    def test_the_mean_error_of_a_layer_goes(self, model: onnx.ModelProto, placement: Placement) -> None:
        tried = ranges(model, placement, 0.5)
        shift = Trials(model, placement).run(tried, feeds())["first"].shift
        only = Placement(tuple(layer for layer in placement.layers if layer.name == "first"), ("image",))
        means = []
        for shifts in ({}, {"first": shift}):
            quantized = place_qdq(model, only, tried, shifts)
            errors = [inside(model, "first_out", f) - inside(quantized, "first_out", f) for f in feeds()]
            means.append(np.abs(np.mean(errors, axis=(0, 1, 3, 4))))
        plain, corrected = means
        assert plain.max() > 0.01
        assert corrected.max() < 0.02 * plain.max()

    def test_the_output_of_the_network_is_nearer_in_the_mean(
        self, model: onnx.ModelProto, placement: Placement
    ) -> None:
        tried = ranges(model, placement, 0.5)
        errors = Trials(model, placement).run(tried, feeds())
        shifts = {name: error.shift for name, error in errors.items()}
        means = []
        for given in (None, shifts):
            quantized = place_qdq(model, placement, tried, given)
            off = [run_graph(model, **f)[0] - run_graph(quantized, **f)[0] for f in feeds()]
            means.append(float(np.abs(np.mean(off, axis=(0, 1, 3, 4))).mean()))
        assert means[1] < 0.85 * means[0]
