"""Ranges of every tensor, the cache that holds them, and which layers stay out of INT8."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from support.graphs import GraphBuilder, random_frame, run_graph

from edgeseg.calibration.cache import read_cache
from edgeseg.converters.embed import append_class_map
from edgeseg.converters.graph import GraphIndex
from edgeseg.converters.place import place_qdq, plan_placement, remove_qdq
from edgeseg.converters.targets.implicit import (
    activation_tensors,
    complete_ranges,
    layer_precisions,
    measure_missing,
    missing_ranges,
    quantized_ranges,
    range_cache,
)
from edgeseg.converters.targets.variants import with_planar_input
from edgeseg.errors import CalibrationError

FEEDS = [{"frame": random_frame()[None]}]


@pytest.fixture(scope="module")
def full(canonical: onnx.ModelProto) -> dict[str, float]:
    return measure_missing(canonical, {}, FEEDS)


class TestTensors:
    def test_every_float_tensor_behind_the_normalisation(self, canonical: onnx.ModelProto) -> None:
        plain = remove_qdq(canonical)
        made = [o for n in plain.graph.node if not n.name.startswith("preprocess") for o in n.output]
        assert activation_tensors(canonical) == activation_tensors(plain) == ("image", *made)

    def test_of_a_class_map_only_the_logits(self, canonical: onnx.ModelProto) -> None:
        model = append_class_map(canonical, 64, 64, "half_pixel")
        resized = "postprocess/resize_output"
        assert activation_tensors(model) == (*activation_tensors(canonical), resized)
        assert complete_ranges(model, {"logits": 3.0})[resized] == 3.0

    def test_planar_input_is_normalised_in_float(self, canonical: onnx.ModelProto) -> None:
        assert activation_tensors(with_planar_input(canonical)) == activation_tensors(canonical)

    def test_ranges_of_the_quantizers(self, canonical: onnx.ModelProto) -> None:
        index = GraphIndex(canonical)
        found = quantized_ranges(canonical)
        assert len(found) == 6
        for node in index.graph.node:
            if node.op_type == "QuantizeLinear" and node.input[0] in found:
                assert found[node.input[0]] == pytest.approx(127 * float(index.constant(node.input[1])))

    def test_what_is_missing(self, canonical: onnx.ModelProto) -> None:
        missing = missing_ranges(canonical, {})
        wanted, index = activation_tensors(canonical), GraphIndex(remove_qdq(canonical))
        assert set(missing) < set(wanted)
        # What the first ReLU takes follows from what it gives, which is quantized.
        relu = next(n for n in index.graph.node if n.op_type == "Relu")
        assert relu.input[0] in wanted
        assert relu.input[0] not in missing
        assert missing_ranges(canonical, dict.fromkeys(missing, 1.0)) == ()


def following(op: str, known: dict[str, float], *, inputs: int = 1, **attributes: Any) -> dict[str, float]:
    builder = GraphBuilder()
    names = [builder.add("Sin", "image", name=f"in{n}") for n in range(inputs)]
    model = builder.model(builder.add(op, *names, name="it", **attributes), (1, 8, 4, 4), output="out")
    return complete_ranges(model, known)


class TestCompleteRanges:
    @pytest.mark.parametrize(
        ("op", "attributes"),
        [("Relu", {}), ("MaxPool", {"kernel_shape": [2, 2]}), ("Transpose", {"perm": [0, 1, 3, 2]}),
         ("GlobalAveragePool", {})],
    )  # fmt: skip
    def test_results_stay_within(self, op: str, attributes: dict[str, Any]) -> None:
        assert following(op, {"in0_out": 3.0}, **attributes) == {"in0_out": 3.0, "out": 3.0}

    @pytest.mark.parametrize(
        ("op", "attributes", "follows"),
        [("Relu", {}, True), ("Transpose", {"perm": [0, 1, 3, 2]}, True), ("MaxPool", {"kernel_shape": [2, 2]}, False)],
    )
    def test_against_the_node(self, op: str, attributes: dict[str, Any], follows: bool) -> None:
        assert following(op, {"out": 3.0}, **attributes).get("in0_out") == (3.0 if follows else None)

    def test_concat_needs_all(self) -> None:
        assert following("Concat", {"in0_out": 3.0}, inputs=2, axis=1) == {"in0_out": 3.0}
        assert following("Concat", {"in0_out": 3.0, "in1_out": 5.0}, inputs=2, axis=1)["out"] == 5.0

    def test_sigmoid_ends_at_one(self) -> None:
        assert following("Sigmoid", {}) == {"out": 1.0}

    def test_what_is_known_is_not_changed(self) -> None:
        assert following("Relu", {"in0_out": 3.0, "out": 2.0}) == {"in0_out": 3.0, "out": 2.0}

    def test_what_others_read_keeps_its_own_range(self) -> None:
        builder = GraphBuilder()
        x = builder.add("Sin", "image", name="x")
        relu = builder.add("Relu", x, name="relu")
        model = builder.model(builder.add("Add", x, relu), (1, 8, 4, 4))
        assert "x_out" not in complete_ranges(model, {"relu_out": 3.0})

    def test_ranges_of_another_graph(self, canonical: onnx.ModelProto) -> None:
        with pytest.raises(CalibrationError, match=r"1 of 1 belong to another: module\.stem_out is no tensor of it"):
            complete_ranges(canonical, {"module.stem_out": 1.0})
        with pytest.raises(CalibrationError, match=r"image has the range 0\.\d+ in its Q/DQ, not 2; .* one bundle"):
            complete_ranges(canonical, {"image": 2.0})


class TestCache:
    def test_refuses_to_leave_one_out(self, canonical: onnx.ModelProto) -> None:
        count = len(missing_ranges(canonical, {}))
        wanted = len(activation_tensors(canonical))
        message = f"each of the {wanted} tensors, .* but {count} have none: .* and others; measure them"
        with pytest.raises(CalibrationError, match=message):
            range_cache(canonical, {})

    def test_covers_every_tensor(self, canonical: onnx.ModelProto, full: dict[str, float]) -> None:
        _, ranges = read_cache(range_cache(canonical, full))
        assert tuple(ranges) == activation_tensors(canonical)
        assert ranges == pytest.approx({tensor: full[tensor] for tensor in ranges}, rel=1e-6)

    def test_measured_ranges_are_those_of_the_tensors(self, canonical: onnx.ModelProto, full: dict[str, float]) -> None:
        plain = remove_qdq(canonical)
        plain.graph.output.append(onnx.helper.make_tensor_value_info("residual_out", TensorProto.FLOAT, None))
        largest = float(np.abs(run_graph(plain, **FEEDS[0])[1]).max())
        assert 0.5 * largest < full["residual_out"] <= largest * 1.001

    def test_nothing_is_measured_twice(self, canonical: onnx.ModelProto, full: dict[str, float]) -> None:
        assert measure_missing(canonical, full, []) == full

    def test_gives_the_same_network_back(self, canonical: onnx.ModelProto, full: dict[str, float]) -> None:
        """With the cache's ranges on the inputs of convolutions the graph without Q/DQ is the canonical one again."""
        _, ranges = read_cache(range_cache(canonical, full))
        plain = remove_qdq(canonical)
        again = place_qdq(plain, plan_placement(plain), ranges)
        np.testing.assert_allclose(
            run_graph(again, **FEEDS[0])[0], run_graph(canonical, **FEEDS[0])[0], rtol=0, atol=1e-5
        )


class TestPrecisions:
    def test_all_but_int8_layers_and_their_activations(self, canonical: onnx.ModelProto) -> None:
        ops = {n.name: n.op_type for n in canonical.graph.node}
        found = layer_precisions(canonical)
        assert [name for name, kind in found.items() if kind == "fp32"] == [
            f"preprocess/{step}" for step in ("cast", "transpose", "bgr", "mean", "scale")
        ]
        others = [ops[name] for name, kind in found.items() if kind == "fp16"]
        assert sorted(others) == ["Add", "BatchNormalization", "Concat", "PRelu", "PRelu"]

    def test_layer_that_stays_in_float(self, canonical: onnx.ModelProto) -> None:
        plain = remove_qdq(canonical)
        placement = plan_placement(plain, {"residual": "the user keeps it in float"})
        mixed = place_qdq(plain, placement, quantized_ranges(canonical))
        assert layer_precisions(mixed)["residual"] == "fp16"
        assert "residual" not in layer_precisions(canonical)
