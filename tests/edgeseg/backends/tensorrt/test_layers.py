"""Layers of engines, as three generations of TensorRT spell them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edgeseg.backends.tensorrt.layers import count_precisions, layers_from_inspector, layers_from_log
from edgeseg.errors import EngineError


def entry(name: str, kind: str, given: str, made: str, **more: Any) -> dict[str, Any]:
    """A layer as 8.5 to 10 describe it."""
    tensors = [[{"Name": "t", "Dimensions": [1, 8, 8, 8], "Format/Datatype": text}] for text in (given, made)]
    return {"Name": name, "LayerType": kind, "Inputs": tensors[0], "Outputs": tensors[1], **more}


INT8 = "Thirty-two wide channel vectorized row major Int8 format."
HALF = "Channel major FP16 format where channel % 8 == 0"
FLOAT = "Row major linear FP32"


def inspect(*entries: dict[str, Any], **more: Any) -> str:
    return json.dumps({"Layers": list(entries), "Bindings": ["x"], **more})


class TestUpTo10:
    def test_reads_a_fused_convolution(self) -> None:
        text = inspect(entry("stem.weight + QuantizeLinear_3 + Conv_13 + PWN(Relu_14)", "CaskConvolution", INT8, HALF))
        layer = layers_from_inspector(text)[0]
        assert (layer.role, layer.precision, layer.outputs) == ("convolution", "int8", ("float16",))
        assert layer.nodes == ("stem.weight", "QuantizeLinear_3", "Conv_13", "Relu_14")

    def test_reads_metadata(self) -> None:
        metadata = "[ONNX Layer: Conv_13]\u001e[ONNX Layer: Relu_14]"
        layer = layers_from_inspector(inspect(entry("a || b", "CaskConvolution", INT8, INT8, Metadata=metadata)))[0]
        assert layer.own == ("a", "b")
        assert layer.nodes == ("a", "b", "Conv_13", "Relu_14")

    @pytest.mark.parametrize(
        ("kind", "parameters", "role"),
        [
            ("CaskConvolution", "Convolution", "convolution"),
            ("CaskGemmConvolution", "", "convolution"),
            ("CaskDeconvolutionV2", "Convolution", "deconvolution"),
            ("ConvActPool", "", "convolution"),
            ("Conversion", "", "other"),
            ("gemm", "", "matmul"),
            ("MatrixMultiply", "", "matmul"),
            ("DLA", "", "dla"),
            ("PointWiseV2", "PointWise", "other"),
            ("NoOp", "", "other"),
        ],
    )
    def test_knows_roles(self, kind: str, parameters: str, role: str) -> None:
        text = inspect(entry("x", kind, FLOAT, FLOAT, ParameterType=parameters))
        assert layers_from_inspector(text)[0].role == role

    @pytest.mark.parametrize(
        ("given", "made", "role"),
        [(FLOAT, HALF, "reformat"), (INT8, HALF, "reformat"), (INT8, INT8, "reformat"), (HALF, INT8, "requantize")],
    )
    def test_knows_steps_between_layers(self, given: str, made: str, role: str) -> None:
        assert layers_from_inspector(inspect(entry("copy", "Reformat", given, made)))[0].role == role

    @pytest.mark.parametrize(
        ("text", "precision"),
        [("Row major linear UINT8 format", "uint8"), ("Float", "float32"), ("Half", "float16"), ("BF16", "bfloat16"),
         ("Row major Int32", "int32"), ("Row major INT64", "int64"), ("Bool", "bool"), ("something", "")],
    )  # fmt: skip
    def test_knows_types(self, text: str, precision: str) -> None:
        assert layers_from_inspector(inspect(entry("x", "PointWise", text, text)))[0].precision == precision

    def test_takes_the_weights_type_where_shapes_are_dynamic(self) -> None:
        unknown = "N/A due to dynamic shapes"
        weighted = entry("conv", "CaskConvolution", unknown, unknown, Weights={"Type": "Int8", "Count": 9})
        found = layers_from_inspector(inspect(weighted, entry("pool", "CaskPooling", unknown, unknown)))
        assert [layer.precision for layer in found] == ["int8", ""]

    def test_reads_a_layer_without_tensors(self) -> None:
        layer = layers_from_inspector(inspect({"Name": "constant", "LayerType": "Constant"}))[0]
        assert (layer.precision, layer.inputs, layer.outputs) == ("", (), ())


@pytest.mark.parametrize("key", ["DataType", "Datatype"])
def test_reads_11(key: str) -> None:
    tensor = {"Name": "t", "Dimensions": [1, 8], "Format": "Channel major FP32 format", key: "Int8"}
    layer = {"Name": "Conv_1", "LayerType": "CaskConvolution", "Inputs": [tensor], "Outputs": [tensor]}
    found = layers_from_inspector(json.dumps({"Layers": [layer], "I/O Tensors": [{"Name": "t", "DataType": "Float"}]}))
    assert [(entry.precision, entry.role) for entry in found] == [("int8", "convolution")]


class TestRefused:
    @pytest.mark.parametrize("text", ["", "no JSON", "[]", "{}", '"Layers"'])
    def test_no_inspection(self, text: str) -> None:
        with pytest.raises(EngineError, match=r"engine inspector gave no list of layers .*; build the engine again"):
            layers_from_inspector(text)

    @pytest.mark.parametrize("layers", [["Conv_1", "Relu_2"], "Conv_1"])
    def test_names_only(self, layers: object) -> None:
        with pytest.raises(EngineError, match="built without detailed verbosity"):
            layers_from_inspector(json.dumps({"Layers": layers}))

    def test_a_log_in_another_form(self) -> None:
        with pytest.raises(EngineError, match="TensorRT-RTX's log lists no layers; report its version"):
            layers_from_log("Layers:\nsomething else")


TENSOR = "{{ Name: t, Dimensions: [1,8], Strides: [8,1], Datatype: {}, Format: (NHWC) Channel major format }}"


def line(name: str, kind: str, given: str, made: str, metadata: str = "") -> str:
    """A layer as TensorRT-RTX logs it."""
    first, weight, last = (TENSOR.format(text) for text in (given, "Half", made))
    return (
        f"Name: {name}, LayerType: {kind}, Inputs: [ {first}], Constants: [ {weight}], Outputs: [ {last}], "
        f"TacticName: __myelin_CASK_STUB, StreamId: 0, Metadata: {metadata}"
    )


class TestLog:
    def test_reads_a_convolution(self) -> None:
        text = line(
            "node_Conv_862_myl0_1", "correlation", "Int8", "Float", "[ONNX Layer: node_Conv_862][ONNX Layer: q]"
        )
        layer = layers_from_log(f"Layers:\n{text}\nsomething else")[0]
        assert (layer.name, layer.kind, layer.role) == ("node_Conv_862_myl0_1", "correlation", "convolution")
        assert (layer.inputs, layer.outputs) == (("int8",), ("float32",))
        assert layer.nodes == ("node_Conv_862", "q")

    @pytest.mark.parametrize(
        ("name", "kind", "role"),
        [
            ("up_myl0_3", "deconv", "deconvolution"),
            ("head_myl1_12", "gemm", "matmul"),
            ("pool_myl0_4", "avgpool", "other"),
            ("__myl_Move_myl0_11", "kgen", "reformat"),
            ("__myl_CastTranResh_myl0_11", "kgen", "reformat"),
            ("__myl_MulMinMaxRounCast_myl0_125", "kgen", "requantize"),
            ("__myl_MulMinMaxRounCastMulMinMaxRounCastConc_myl0_9", "kgen", "requantize"),
            ("__myl_MulAddReluMulMinMaxRounCast_myl0_2", "kgen", "other"),
            ("__myl_MulAddRelu_myl0_8", "kgen", "other"),
            ("__myl_DecoCast_myl0_8", "runtime_fusion", "deconvolution"),
        ],
    )
    def test_knows_roles(self, name: str, kind: str, role: str) -> None:
        assert layers_from_log(f"Layers:\n{line(name, kind, 'Float', 'Int8')}")[0].role == role

    def test_reads_a_layer_without_inputs(self) -> None:
        text = f"Name: c_myl0_0, LayerType: constant, Inputs: [], Outputs: [ {TENSOR.format('Float')}], TacticName: x"
        assert layers_from_log(text)[0].precision == ""


def test_counts_precisions() -> None:
    text = inspect(*(entry("x", "PointWise", kind, kind) for kind in (INT8, HALF, INT8, "?")))
    assert count_precisions(layers_from_inspector(text)) == {"int8": 2, "float16": 1, "unknown": 1}
