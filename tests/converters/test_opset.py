import numpy as np
import onnx
import pytest
from support.graphs import GraphBuilder, run_graph, toy_network

from edgeseg.converters.load import load_network
from edgeseg.converters.opset import opset_of, to_target_opset
from edgeseg.errors import UnsupportedModelError

IMAGE = np.random.default_rng(5).normal(0, 1, (1, 3, 64, 64)).astype(np.float32)


def test_a_network_at_the_target_stays():
    model = toy_network()
    result = to_target_opset(model)
    assert opset_of(result) == 17
    assert [n.name for n in result.graph.node] == [n.name for n in model.graph.node]


@pytest.mark.parametrize("opset", [13, 15, 18, 20, 22])
def test_other_opsets_compute_the_same(opset, tmp_path):
    model = toy_network(opset=min(opset, 17))
    model.opset_import[0].version = opset
    model.ir_version = 10
    onnx.checker.check_model(model)
    path = tmp_path / "net.onnx"
    onnx.save(model, path)
    network = load_network(path)
    assert network.opset == opset
    assert (opset_of(network.model), network.model.ir_version) == (17, 8)
    np.testing.assert_allclose(
        run_graph(network.model, image=IMAGE)[0], run_graph(model, image=IMAGE)[0], atol=1e-5, rtol=0
    )


def test_opset_11_is_taken():
    builder = GraphBuilder()
    model = builder.model(builder.add("Relu", builder.conv("image", 3, 4)), opset=11)
    np.testing.assert_allclose(run_graph(to_target_opset(model), image=IMAGE)[0], run_graph(model, image=IMAGE)[0])


def test_split_and_pad_of_opset_18():
    builder = GraphBuilder()
    x = builder.conv("image", 3, 7)
    left = builder.add("Split", x, outputs=2, name="split", axis=1, num_outputs=2)
    joined = builder.add("Concat", "split_out1", left, axis=1)
    pads, axes = builder.constant(np.array([1, 2, 3, 4])), builder.constant(np.array([2, -1]))
    padded = builder.add("Pad", joined, pads, builder.constant(np.float32(0.5)), axes, name="pad")
    model = builder.model(builder.conv(padded, 7, 4), opset=18)
    result = to_target_opset(model)
    onnx.checker.check_model(result, full_check=True)
    np.testing.assert_allclose(run_graph(result, image=IMAGE)[0], run_graph(model, image=IMAGE)[0], atol=1e-5, rtol=0)


def test_weights_do_not_go_through_the_converter(monkeypatch):
    builder = GraphBuilder()
    model = builder.model(builder.conv(builder.conv("image", 3, 64), 64, 4), opset=20)
    seen = []
    convert = onnx.version_converter.convert_version
    monkeypatch.setattr(
        onnx.version_converter, "convert_version", lambda light, to: seen.append(light.ByteSize()) or convert(light, to)
    )
    model.metadata_props.add(key="mean", value="1, 2, 3")
    model.producer_name, model.doc_string = "a trainer", "words"
    result = to_target_opset(model)
    assert seen[0] * 2 < model.ByteSize()
    onnx.checker.check_model(result, full_check=True)
    assert {t.name for t in result.graph.initializer} == {t.name for t in model.graph.initializer}
    assert [value.name for value in result.graph.input] == ["image"]
    assert (result.producer_name, result.doc_string) == ("a trainer", "words")
    assert result.metadata_props[0].value == "1, 2, 3"
    np.testing.assert_allclose(run_graph(result, image=IMAGE)[0], run_graph(model, image=IMAGE)[0], atol=1e-5, rtol=0)


def test_too_old():
    model = toy_network()
    model.opset_import[0].version = 10
    with pytest.raises(UnsupportedModelError, match=r"opset 11 or newer, but got opset 10; .*opset_version=17"):
        to_target_opset(model)


def test_operator_without_an_older_form():
    builder = GraphBuilder()
    size = builder.constant(np.array([32, 32]))
    model = builder.model(builder.add("CenterCropPad", builder.conv("image", 3, 4), size, axes=[2, 3]), opset=20)
    with pytest.raises(UnsupportedModelError, match=r"from opset 20 to 17, .*CenterCropPad.*opset_version=17"):
        to_target_opset(model)


def test_padding_that_wraps_around():
    builder = GraphBuilder()
    pads = builder.constant(np.array([0, 0, 1, 1, 0, 0, 1, 1]))
    model = builder.model(builder.conv(builder.add("Pad", "image", pads, name="pad", mode="wrap"), 3, 4), opset=19)
    with pytest.raises(UnsupportedModelError, match="Pad 'pad' wraps around"):
        to_target_opset(model)


class TestAttributesOfNewerOpsets:
    @staticmethod
    def resize() -> onnx.ModelProto:
        builder = GraphBuilder()
        scales = builder.constant(np.array([1, 1, 2, 2], np.float32))
        values = {"mode": "linear", "antialias": 0, "keep_aspect_ratio_policy": "stretch"}
        x = builder.add("Resize", builder.conv("image", 3, 4), "", scales, name="up", **values)
        return builder.model(x, opset=18)

    def test_a_default_is_dropped(self):
        result = to_target_opset(self.resize())
        onnx.checker.check_model(result)
        assert {a.name for a in result.graph.node[-1].attribute} == {"mode"}

    @staticmethod
    def reduction(noop: int) -> onnx.ModelProto:
        builder = GraphBuilder()
        axes = builder.constant(np.array([2, 3], np.int64))
        mean = builder.add("ReduceMean", "image", axes, name="mean", keepdims=1, noop_with_empty_axes=noop)
        return builder.model(builder.add("Mul", builder.conv("image", 3, 3), mean), opset=18)

    def test_a_reduction_computes_the_same(self):
        model = self.reduction(0)
        result = to_target_opset(model)
        onnx.checker.check_model(result)
        np.testing.assert_allclose(run_graph(result, image=IMAGE)[0], run_graph(model, image=IMAGE)[0], atol=1e-5)

    def test_another_value_is_refused(self):
        with pytest.raises(UnsupportedModelError, match="ReduceMean 'mean' has noop_with_empty_axes=1, which opset 17"):
            to_target_opset(self.reduction(1))
