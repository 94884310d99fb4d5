from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from support.graphs import toy_network
from support.lint_graphs import FAULTY, Toy, canonical_graph

from edgeseg.converters.lint import CANONICAL, PROFILES, RULES, Finding, advise, lint, require_clean
from edgeseg.converters.lint.findings import rule
from edgeseg.converters.place import place_qdq, plan_placement
from edgeseg.errors import LintError, ModelError, UsageError

REPOSITORY = Path(__file__).resolve().parents[2]
FAULTS = sorted(code for code in RULES if RULES[code].effect != "advice")
ADVICE = sorted(set(RULES) - set(FAULTS))


def profile_of(code: str) -> str:
    """A profile that has the rule."""
    return next(iter(RULES[code].profiles), CANONICAL)


def codes(findings: list[Finding]) -> set[str]:
    return {finding.code for finding in findings}


class TestEveryRule:
    def test_has_a_graph(self) -> None:
        assert set(FAULTY) == set(RULES)

    @pytest.mark.parametrize("code", FAULTS)
    def test_finds_its_fault_and_no_other(self, code: str) -> None:
        assert codes(lint(FAULTY[code](), profile_of(code))) == {code}

    @pytest.mark.parametrize("code", sorted(c for c in RULES if RULES[c].profiles))
    def test_of_a_profile_is_silent_in_others(self, code: str) -> None:
        assert set(RULES[code].profiles) < set(PROFILES)
        assert lint(FAULTY[code]()) == []

    @pytest.mark.parametrize("code", ADVICE)
    def test_advice_is_no_finding(self, code: str) -> None:
        model = FAULTY[code]()
        assert codes(advise(model)) == {code}
        assert lint(model) == []

    @pytest.mark.parametrize("code", sorted(RULES))
    def test_names_what_is_in_the_graph(self, code: str) -> None:
        model = FAULTY[code]()
        tensors = {t for n in model.graph.node for t in (*n.input, *n.output)}
        known = {n.name for n in model.graph.node} | {f"node_of_{t}" for t in tensors} | tensors | {"graph"}
        for finding in lint(model, profile_of(code)) + advise(model):
            assert finding.node in known - {""}
            assert finding.message
            assert finding.cure

    def test_stands_in_the_documentation(self) -> None:
        page = (REPOSITORY / "docs" / "lint.md").read_text("utf-8")
        rows = re.findall(r"^\| `([A-Z]\d+)` \| (\w+) \|", page, re.MULTILINE)
        assert len(rows) == len(RULES)
        assert dict(rows) == {r.code: r.effect for r in RULES.values()}

    @pytest.mark.parametrize("code", sorted(c for c in RULES if RULES[c].fixed_in == (10, 0)))
    def test_newer_versions_take_what_they_learned(self, code: str) -> None:
        assert lint(FAULTY[code](), profile="tensorrt-10") == []


class TestGoodGraph:
    @pytest.mark.parametrize("class_map", [False, True])
    def test_canonical_graph_has_no_finding(self, class_map: bool) -> None:
        model = canonical_graph(class_map=class_map)
        onnx.checker.check_model(onnx.shape_inference.infer_shapes(model), full_check=True)
        assert lint(model) == []
        assert lint(model, profile="tensorrt-10") == []
        require_clean(model)

    def test_float_network_has_no_finding(self) -> None:
        model = toy_network(batch_norm=False)
        assert lint(model) == []
        assert advise(model) == []

    def test_placed_network_has_no_finding(self) -> None:
        network = toy_network(batch_norm=False)
        placement = plan_placement(network)
        placed = place_qdq(network, placement, dict.fromkeys(placement.tensors, 3.0))
        assert {n.op_type for n in placed.graph.node} >= {"QuantizeLinear", "DequantizeLinear"}
        assert lint(placed) == []

    def test_output_of_a_layer_that_feeds_the_next_directly_may_have_a_pair(self) -> None:
        toy = Toy()
        middle = toy.int8_conv(toy.input())
        toy.output(toy.node("Add", toy.int8_conv(middle), toy.node("Relu", middle)))
        assert lint(toy.model()) == []

    def test_microsoft_quantizers_are_accepted(self) -> None:
        toy = Toy()
        toy.output(toy.conv(toy.quantize(toy.input(), domain="com.microsoft")))
        assert lint(toy.model(com_microsoft=1)) == []

    def test_float16_between_pairs_of_float32_scales(self) -> None:
        toy = Toy()
        half = toy.node("Cast", toy.quantize(toy.input()), to=TensorProto.FLOAT16)
        weight = toy.node("Cast", toy.quantized_weight(8, 8, 3, 3), to=TensorProto.FLOAT16)
        toy.output(toy.conv(half, weight), TensorProto.FLOAT16)
        assert lint(toy.model()) == []

    @pytest.mark.parametrize(
        ("operator", "attributes"),
        [
            ("MaxPool", {"kernel_shape": [2, 2]}),
            ("Transpose", {"perm": [0, 1, 3, 2]}),
            ("Identity", {}),
            ("Split", {"outputs": 2, "axis": 1}),
        ],
    )
    def test_int8_passes_through(self, operator: str, attributes: dict[str, Any]) -> None:
        toy = Toy()
        channels = 4 if operator == "Split" else 8
        moved = toy.node(operator, toy.quantize(toy.input()), **attributes)
        toy.output(toy.conv(moved, toy.quantized_weight(8, channels, 3, 3)))
        assert lint(toy.model()) == []

    @pytest.mark.parametrize("scale", [1e-8, 1.0, 1e5])
    def test_ordinary_scales(self, scale: float) -> None:
        toy = Toy()
        toy.output(toy.conv(toy.quantize(toy.input(), np.float32(scale))))
        assert lint(toy.model()) == []


class TestScales:
    @pytest.mark.parametrize("scale", [0.0, -0.1, np.nan])
    def test_not_positive(self, scale: float) -> None:
        toy = Toy()
        toy.output(toy.conv(toy.quantize(toy.input(), np.float32(scale))))
        (finding,) = lint(toy.model())
        assert finding.code == "Q101"
        assert f"(first: {scale:g})" in finding.message

    @pytest.mark.parametrize("scale", [np.inf, 1e-12, 1e-39, 1e30])
    def test_out_of_range(self, scale: float) -> None:
        toy = Toy()
        toy.output(toy.conv(toy.quantize(toy.input(), np.float32(scale))))
        (finding,) = lint(toy.model())
        assert finding.code == "Q102"
        assert "outside 1e-09 to 1e+06" in finding.message

    def test_counts_the_channels(self) -> None:
        (finding,) = lint(FAULTY["Q101"]())
        assert finding.message.startswith("1 of the 8 scales of weight")
        assert "clamp" in finding.cure

    def test_one_weight_scale_may_be_a_vector(self) -> None:
        toy = Toy()
        weight = toy.quantize(toy.constant(toy.weight(8, 8, 3, 3)), np.float32([0.01]), np.int8([0]))
        toy.output(toy.conv(toy.quantize(toy.input()), weight))
        assert lint(toy.model()) == []

    @pytest.mark.parametrize(
        ("operator", "shape", "axis", "attributes", "fits"),
        [
            ("Gemm", (32, 16), 1, {}, True),
            ("Gemm", (32, 16), 0, {}, False),
            ("Gemm", (16, 32), 0, {"transB": 1}, True),
            ("MatMul", (32, 16), 1, {}, True),
            ("MatMul", (32, 16), -1, {}, True),
            ("MatMul", (32, 16), 0, {}, False),
        ],
    )
    def test_output_channels_of_matrix_products(
        self, operator: str, shape: tuple[int, int], axis: int, attributes: dict[str, int], fits: bool
    ) -> None:
        toy = Toy()
        weight = toy.quantized_weight(*shape, axis=axis % 2)
        for node in toy.nodes:
            node.attribute[0].i = axis
        toy.output(toy.node(operator, toy.quantize(toy.input(shape=(1, 32))), weight, **attributes))
        assert codes(lint(toy.model())) == (set() if fits else {"Q105"})

    def test_scale_given_by_the_caller(self) -> None:
        toy = Toy()
        toy.output(toy.conv(toy.quantize(toy.input(), toy.input("scale", ()))))
        (finding,) = lint(toy.model())
        assert finding.code == "Q106"
        assert "computed by the caller (a graph input)" in finding.message

    def test_pair_with_two_scales_is_looked_at_twice(self) -> None:
        toy = Toy()
        zero = toy.constant(np.int8(0))
        quantized = toy.node("QuantizeLinear", toy.input(), toy.constant(np.float32(0.1)), zero)
        data = toy.node("DequantizeLinear", quantized, toy.constant(np.float32([0.1])), zero)
        toy.output(toy.conv(data))
        assert [(f.code, f.node) for f in lint(toy.model())] == [("Q103", "DequantizeLinear_1")]

    def test_number_of_zero_points(self) -> None:
        toy = Toy()
        scale, weight = np.full(8, 0.01, np.float32), toy.constant(toy.weight(8, 8, 3, 3))
        toy.output(toy.conv(toy.quantize(toy.input()), toy.quantize(weight, scale, np.int8(0), axis=0)))
        (finding,) = lint(toy.model())
        assert finding.code == "Q109"
        assert "8 scales but 1 zero points" in finding.message


class TestPlacement:
    def test_quantized_weight_alone(self) -> None:
        toy = Toy()
        toy.output(toy.conv(toy.node("Relu", toy.quantize(toy.input()))))
        (finding,) = lint(toy.model())
        assert (finding.code, finding.node) == ("Q201", "Conv_5")
        assert "its data is not (Relu_2_out comes from Relu, which gives float)" in finding.message

    def test_concatenation_of_two_scales_does_not_reach_the_layer_in_int8(self) -> None:
        toy = Toy()
        x = toy.input()
        parts = [toy.quantize(x), toy.quantize(toy.node("Relu", x), np.float32(0.1))]
        toy.output(toy.conv(toy.node("Concat", *parts, axis=1), toy.quantized_weight(8, 16, 3, 3)))
        assert codes(lint(toy.model())) == {"Q201"}

    def test_concatenation_of_one_scale_does(self) -> None:
        toy = Toy()
        x = toy.input()
        parts = [toy.quantize(x), toy.quantize(toy.node("Relu", x))]
        toy.output(toy.conv(toy.node("Concat", *parts, axis=1), toy.quantized_weight(8, 16, 3, 3)))
        assert lint(toy.model()) == []

    @pytest.mark.parametrize(("value", "found"), [(0.0, set()), (1.5, {"Q201"})])
    def test_padding_by_zero_only(self, value: float, found: set[str]) -> None:
        toy = Toy()
        pads = toy.constant(np.array([0, 0, 1, 1, 0, 0, 1, 1]))
        toy.output(toy.conv(toy.node("Pad", toy.quantize(toy.input()), pads, toy.constant(np.float32(value)))))
        assert codes(lint(toy.model())) == found

    def test_pair_before_activation_behind_batch_norm(self) -> None:
        toy = Toy()
        parameters = [toy.constant(np.ones(8, np.float32)) for _ in range(4)]
        normal = toy.node("BatchNormalization", toy.int8_conv(toy.input()), *parameters)
        toy.output(toy.int8_conv(toy.node("LeakyRelu", toy.quantize(normal))))
        (finding,) = lint(toy.model())
        assert finding.code == "Q203"
        assert "between Conv Conv_4 and its LeakyRelu LeakyRelu_8" in finding.message

    def test_pair_on_a_float_output_of_the_graph(self) -> None:
        toy = Toy()
        toy.output(toy.quantize(toy.int8_conv(toy.input())))
        (finding,) = lint(toy.model())
        assert finding.code == "Q204"
        assert "(only output)" in finding.message

    def test_int8_output_is_accepted(self) -> None:
        toy = Toy()
        parameters = toy.constant(np.float32(0.1)), toy.constant(np.int8(0))
        toy.output(toy.node("QuantizeLinear", toy.int8_conv(toy.input()), *parameters), TensorProto.INT8)
        assert lint(toy.model()) == []


class TestTypes:
    def test_every_reader_of_a_uint8_input_counts(self) -> None:
        toy = Toy()
        x = toy.input(kind=TensorProto.UINT8)
        toy.output(toy.node("Cast", x, to=TensorProto.FLOAT))
        toy.output(toy.node("Reshape", x, toy.constant(np.array([8, -1]))), TensorProto.UINT8)
        assert [(f.code, f.node) for f in lint(toy.model())] == [("T101", "Reshape_1")]

    def test_stored_palette(self) -> None:
        toy = Toy()
        classes = toy.node("ArgMax", toy.input(), axis=1, keepdims=0)
        toy.output(toy.node("Gather", toy.constant(np.zeros((8, 3), np.uint8)), classes), TensorProto.UINT8)
        assert [(f.code, f.node) for f in lint(toy.model())] == [("T103", "Gather_1")]

    def test_scale_gives_the_type(self) -> None:
        toy = Toy()
        toy.output(toy.conv(toy.quantize(toy.input(), np.float16(0.05))))
        finding = next(f for f in lint(toy.model()) if f.code == "T105")
        assert "DequantizeLinear_1_out is FLOAT16 and DequantizeLinear_3_out is FLOAT" in finding.message

    def test_bfloat16_is_newer(self) -> None:
        toy = Toy()
        toy.output(toy.node("Cast", toy.input(), to=TensorProto.BFLOAT16), TensorProto.BFLOAT16)
        model = toy.model()
        assert [(f.code, f.node) for f in lint(model)] == [("T107", "Cast_0")]
        assert lint(model, profile="tensorrt-10") == []


class TestOperators:
    @pytest.mark.parametrize(("kernel", "found"), [((316, 316), False), ((250, 400), True), ((317, 317), True)])
    def test_window_limit(self, kernel: tuple[int, int], found: bool) -> None:
        toy = Toy()
        toy.output(toy.node("MaxPool", toy.input(shape=(1, 1, 400, 400)), kernel_shape=kernel))
        assert codes(lint(toy.model())) == ({"O107"} if found else set())

    def test_max_pool_with_indices(self) -> None:
        toy = Toy()
        toy.output(toy.node("MaxPool", toy.input(), kernel_shape=[2, 2], outputs=2))
        assert codes(lint(toy.model())) == {"O104"}

    def test_foreign_domain(self) -> None:
        toy = Toy()
        toy.output(toy.node("FusedConv", toy.input(), toy.constant(toy.weight(8, 8, 3, 3)), domain="com.microsoft"))
        (finding,) = lint(toy.model(com_microsoft=1))
        assert finding.message.startswith("TensorRT has no FusedConv of domain com.microsoft")

    def test_model_local_function(self) -> None:
        toy = Toy()
        toy.output(toy.node("Twice", toy.input(), domain="own"))
        model = toy.model(own=1)
        body = [helper.make_node("Add", ["a", "a"], ["b"])]
        model.functions.append(helper.make_function("own", "Twice", ["a"], ["b"], body, [helper.make_opsetid("", 17)]))
        assert codes(lint(model)) == {"O103"}
        assert lint(model, profile="tensorrt-10") == []

    def test_one_resize_option_after_the_other(self) -> None:
        toy = Toy()
        scales = toy.constant(np.array([1, 1, 2, 2], np.float32))
        toy.output(toy.node("Resize", toy.input(), "", scales, mode="cubic", antialias=1))
        (finding,) = lint(toy.model())
        assert finding.message.startswith("Resize asks for mode cubic, antialias;")


class TestStructure:
    @pytest.mark.parametrize(
        ("opset", "profile", "found"),
        [(9, "canonical", False), (8, "canonical", True), (18, "canonical", True), (20, "tensorrt-10", False)],
    )
    def test_opset_of_a_float_graph(self, opset: int, profile: str, found: bool) -> None:
        toy = Toy()
        toy.output(toy.node("Relu", toy.input()))
        assert codes(lint(toy.model(opset), profile)) == ({"G101"} if found else set())

    def test_pairs_need_opset_13(self) -> None:
        toy = Toy()
        toy.output(toy.int8_conv(toy.input()))
        (finding,) = lint(toy.model(12))
        assert "opset 12, but TensorRT 8.5 and newer together read 13" in finding.message

    def test_initializer_among_the_inputs_is_no_input(self) -> None:
        toy = Toy()
        toy.output(toy.node("Add", toy.input(), toy.constant(np.float32(1))))
        model = toy.model()
        model.graph.input.append(helper.make_tensor_value_info("constant_0", TensorProto.FLOAT, ["any"]))
        assert lint(model) == []

    def test_input_without_a_shape(self) -> None:
        toy = Toy()
        toy.output(toy.node("Relu", toy.input()))
        model = toy.model()
        model.graph.input[0].type.tensor_type.ClearField("shape")
        (finding,) = lint(model)
        assert "input x has size unknown" in finding.message

    def test_output_that_nothing_makes(self) -> None:
        toy = Toy()
        toy.node("Relu", toy.input())
        assert [(f.code, f.node) for f in lint(toy.output("lost").model())] == [("G105", "lost")]


class TestLint:
    def test_findings_stand_in_graph_order(self) -> None:
        toy = Toy()
        first = toy.conv(toy.quantize(toy.input(), np.float32([0.1]), np.int8([0])))
        toy.output(toy.conv(toy.quantize(first, np.float32(0))), TensorProto.FLOAT)
        assert [f.code for f in lint(toy.model(18))] == ["G101", "Q103", "Q101"]

    def test_does_not_change_the_model(self) -> None:
        model = canonical_graph()
        before = model.SerializeToString()
        lint(model)
        advise(model)
        assert model.SerializeToString() == before

    def test_unknown_profile(self) -> None:
        with pytest.raises(UsageError, match="unknown lint profile 'canonica'; did you mean canonical"):
            lint(canonical_graph(), profile="canonica")
        assert set(PROFILES) == {"canonical", "tensorrt-10", "strongly-typed", "no-quantizers", "jetpack-4"}

    def test_weights_left_outside(self) -> None:
        model = canonical_graph()
        model.graph.initializer[1].data_location = TensorProto.EXTERNAL
        with pytest.raises(ModelError, match=r"1 of them \(constant_1 first\) stand in another file"):
            lint(model)

    def test_code_is_taken_once(self) -> None:
        with pytest.raises(ValueError, match="lint rule Q101 is already taken by 'scale that is zero"):
            rule("Q101", "silent", "again")(lambda subject: [])

    def test_empty_graph(self) -> None:
        assert codes(lint(onnx.ModelProto())) == {"G101"}


class TestRequireClean:
    def test_names_the_finding_and_its_cure(self) -> None:
        with pytest.raises(LintError, match=r"got 1 findings: Q103 QuantizeLinear_0: .*; cure: store the scale as a"):
            require_clean(FAULTY["Q103"]())

    def test_lists_the_first_five(self) -> None:
        toy = Toy()
        tensor = toy.input()
        for _ in range(7):
            tensor = toy.conv(toy.quantize(tensor), toy.constant(toy.weight(8, 8, 3, 3)))
        with pytest.raises(LintError) as caught:
            require_clean(toy.output(tensor).model())
        assert str(caught.value).count("cure:") == 5
        assert str(caught.value).endswith("and 2 more, see edgeseg lint")
