import hashlib
import logging
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.graphs import GraphBuilder, run_graph, toy_network

from edgeseg.converters.graph import GraphIndex
from edgeseg.converters.load import load_network
from edgeseg.errors import ModelError, UnsupportedModelError


def save(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "net.onnx"
    onnx.save(model, path)
    return path


def refusal(model: onnx.ModelProto, folder: Path, **options: object) -> str:
    with pytest.raises(UnsupportedModelError) as caught:
        load_network(save(model, folder), **options)
    return str(caught.value)


def image(height: int = 64, width: int = 64) -> np.ndarray:
    return np.random.default_rng(3).normal(0, 1, (1, 3, height, width)).astype(np.float32)


def ended_by(
    *steps: tuple[str, dict[str, object]], output_type: int = TensorProto.FLOAT, rank: int = 4
) -> onnx.ModelProto:
    """A small network with operators behind its logits."""
    builder = GraphBuilder()
    x = builder.conv("image", 3, 5, name="classifier")
    for op, attributes in steps:
        x = builder.add(op, x, **attributes)
    return builder.model(x, output_shape=[f"d{i}" for i in range(rank)], output_type=output_type, output="result")


class TestGood:
    def test_what_is_known_afterwards(self, tmp_path):
        path = save(toy_network(classes=5, height=32, width=64), tmp_path)
        network = load_network(path)
        assert (network.name, network.source, network.opset) == ("net", "net.onnx", 17)
        assert network.digest == hashlib.sha256(path.read_bytes()).hexdigest()
        assert (network.input_name, network.output_name) == ("image", "logits")
        assert (network.channels, network.height, network.width) == (5, 32, 64)

    def test_names_are_unique(self, tmp_path):
        model = toy_network()
        for node in model.graph.node:
            node.name = ""
        names = [n.name for n in load_network(save(model, tmp_path)).model.graph.node]
        assert all(names)
        assert len(set(names)) == len(names)

    def test_initializers_that_are_inputs_too(self, tmp_path):
        model = toy_network()
        for tensor in model.graph.initializer:
            model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        assert [i.name for i in load_network(save(model, tmp_path)).model.graph.input] == ["image"]

    def test_dynamic_size_is_fixed(self, tmp_path):
        model = toy_network()
        dims = model.graph.input[0].type.tensor_type.shape.dim
        for dim, name in zip(dims, ("n", "c", "h", "w"), strict=True):
            dim.dim_param = name
        network = load_network(save(model, tmp_path), (32, 96))
        assert (network.height, network.width) == (32, 96)
        assert run_graph(network.model, image=image(32, 96))[0].shape == (1, 3, 32, 96)

    def test_size_computed_in_the_graph_is_settled(self, tmp_path):
        builder = GraphBuilder()
        x = builder.conv("image", 3, 4, stride=2)
        shape = builder.add("Shape", "image", start=2)
        sizes = builder.add("Concat", builder.constant(np.array([1, 4])), shape, axis=0)
        x = builder.add("Resize", x, "", "", sizes, mode="linear")
        model = builder.model(x, ("n", 3, "h", "w"), ("n", 4, "h", "w"))
        network = load_network(save(model, tmp_path), (32, 48))
        assert run_graph(network.model, image=image(32, 48))[0].shape == (1, 4, 32, 48)
        assert GraphIndex(network.model).shape("logits") == (1, 4, 32, 48)

    def test_fixed_batch_is_set_to_one(self, tmp_path):
        model = toy_network()
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
        model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 4
        network = load_network(save(model, tmp_path))
        assert run_graph(network.model, image=image())[0].shape == (1, 3, 64, 64)

    def test_external_data(self, tmp_path):
        model = toy_network()
        path = tmp_path / "net.onnx"
        onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
        network = load_network(path)
        expected = hashlib.sha256(path.read_bytes() + (tmp_path / "weights.bin").read_bytes()).hexdigest()
        assert network.digest == expected
        np.testing.assert_array_equal(
            run_graph(network.model, image=image())[0], run_graph(toy_network(), image=image())[0]
        )

    @pytest.mark.parametrize(
        "steps",
        [
            [("Softmax", {"axis": 1})],
            [("LogSoftmax", {"axis": -3}), ("Identity", {})],
            [("ArgMax", {"axis": 1, "keepdims": 1})],
            [("Softmax", {"axis": 1}), ("ArgMax", {"axis": 1, "keepdims": 1}), ("Cast", {"to": TensorProto.UINT8})],
            [("Transpose", {"perm": [0, 2, 3, 1]})],
            [("Transpose", {"perm": [0, 2, 3, 1]}), ("Softmax", {"axis": -1})],
            [("Sigmoid", {}), ("Transpose", {"perm": [0, 2, 3, 1]}), ("ArgMax", {"axis": 3, "keepdims": 1})],
        ],
    )
    def test_what_keeps_the_winning_class_is_cut(self, steps, tmp_path, caplog):
        kinds = {"ArgMax": TensorProto.INT64, "Cast": TensorProto.UINT8}
        model = ended_by(*steps, output_type=kinds.get(steps[-1][0], TensorProto.FLOAT))
        with caplog.at_level(logging.INFO):
            network = load_network(save(model, tmp_path))
        assert [n.op_type for n in network.model.graph.node] == ["Conv"]
        assert network.channels == 5
        assert "now ends at the logits classifier_out instead of result" in caplog.text

    def test_one_of_several_outputs_is_chosen(self, tmp_path):
        model = toy_network()
        model.graph.output.append(helper.make_tensor_value_info("stem_out", TensorProto.FLOAT, [1, 8, 32, 32]))
        network = load_network(save(model, tmp_path), output="logits")
        assert [o.name for o in network.model.graph.output] == ["logits"]
        assert load_network(tmp_path / "net.onnx", output="stem_out").channels == 8


class TestFile:
    def test_missing(self, tmp_path):
        with pytest.raises(ModelError, match=r"no\.onnx cannot be read: No such file or directory"):
            load_network(tmp_path / "no.onnx")

    def test_empty(self, tmp_path):
        (tmp_path / "net.onnx").write_bytes(b"")
        with pytest.raises(ModelError, match=r"holds no graph \(0 bytes\)"):
            load_network(tmp_path / "net.onnx")

    def test_truncated(self, tmp_path):
        path = save(toy_network(), tmp_path)
        path.write_bytes(path.read_bytes()[:5000])
        with pytest.raises(ModelError, match=r"is none or is truncated \(5000 bytes\)"):
            load_network(path)

    def test_another_format(self, tmp_path):
        (tmp_path / "net.onnx").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
        with pytest.raises(ModelError, match="expected an ONNX file, but"):
            load_network(tmp_path / "net.onnx")

    def test_not_valid(self, tmp_path):
        model = toy_network()
        model.graph.node[0].input[1] = "gone"
        with pytest.raises(ModelError, match=r"net\.onnx is not valid ONNX"):
            load_network(save(model, tmp_path))

    def test_external_data_missing(self, tmp_path):
        path = tmp_path / "net.onnx"
        onnx.save(toy_network(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
        (tmp_path / "weights.bin").unlink()
        with pytest.raises(ModelError, match=r"keeps its weights in weights\.bin, but .*weights\.bin does not exist"):
            load_network(path)

    def test_external_data_truncated(self, tmp_path):
        path = tmp_path / "net.onnx"
        onnx.save(toy_network(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
        (tmp_path / "weights.bin").write_bytes(bytes(17))
        with pytest.raises(ModelError, match=r"expected at least \d+ bytes of weights in .*, but it has 17"):
            load_network(path)

    def test_external_data_without_a_place(self, tmp_path):
        path = tmp_path / "net.onnx"
        onnx.save(toy_network(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
        model = onnx.load(path, load_external_data=False)
        for entry in model.graph.initializer[0].external_data:
            if entry.key == "offset":
                entry.value = "abc"
        path.write_bytes(model.SerializeToString())
        with pytest.raises(ModelError, match=r"does not say where the weights .* are kept .*'abc'.*export it again"):
            load_network(path)

    @pytest.mark.parametrize("location", ["../weights.bin", "/etc/hostname", ""])
    def test_external_data_outside_the_folder(self, location, tmp_path):
        path = tmp_path / "net.onnx"
        onnx.save(toy_network(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
        model = onnx.load(path, load_external_data=False)
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = location
        path.write_bytes(model.SerializeToString())
        with pytest.raises(ModelError, match="names weights outside its own folder"):
            load_network(path)


class TestRefusals:
    def test_two_inputs(self, tmp_path):
        model = toy_network()
        model.graph.input.append(helper.make_tensor_value_info("scale", TensorProto.FLOAT, [1]))
        message = refusal(model, tmp_path)
        assert "expected one image input, but the network has 2: image (1, 3, 64, 64) float; scale (1) float" in message

    @pytest.mark.parametrize("shape", [[1, 64, 64, 3], [1, 4, 64, 64], [3, 64, 64]])
    def test_other_input_shape(self, shape, tmp_path):
        builder = GraphBuilder()
        model = builder.model(builder.add("Relu", "image"), shape, shape)
        message = refusal(model, tmp_path)
        assert "expected a float32 image input (1, 3, H, W), but got image (" in message
        assert str(shape[-1]) in message

    def test_uint8_input(self, tmp_path):
        builder = GraphBuilder()
        x = builder.conv(builder.add("Cast", "image", to=TensorProto.FLOAT), 3, 4)
        assert "uint8; export the network in NCHW" in refusal(builder.model(x, input_type=TensorProto.UINT8), tmp_path)

    def test_dynamic_size_without_a_size(self, tmp_path):
        model = toy_network()
        model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
        message = refusal(model, tmp_path)
        assert "image (1, 3, height, 64) float; give the size to run at with --size HxW" in message

    def test_another_size_than_the_fixed_one(self, tmp_path):
        message = refusal(toy_network(), tmp_path, size=(32, 64))
        assert "fixed input of 64x64, but the size asked for is 32x64" in message

    def test_size_that_the_network_does_not_take(self, tmp_path):
        builder = GraphBuilder()
        x = builder.conv("image", 3, 4, stride=2)
        x = builder.add("Add", builder.resize(x, 2), builder.conv("image", 3, 4))
        model = builder.model(x, (1, 3, "h", "w"), (1, 4, "h", "w"))
        message = refusal(model, tmp_path, size=(33, 64))
        assert "does not take 33x64 frames" in message
        assert "try multiples of 32" in message

    @pytest.mark.parametrize("size", [(0, 64), (-3, 64)])
    def test_size_that_is_none(self, size, tmp_path):
        model = toy_network()
        model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
        assert f"positive size HxW, but got {size[0]}x64" in refusal(model, tmp_path, size=size)

    def test_several_outputs(self, tmp_path):
        model = toy_network()
        model.graph.output.append(helper.make_tensor_value_info("stem_out", TensorProto.FLOAT, [1, 8, 32, 32]))
        message = refusal(model, tmp_path)
        assert "logits (1, 3, 64, 64) float; stem_out (1, 8, 32, 32) float; choose one with --output-name" in message

    def test_output_that_does_not_exist(self, tmp_path):
        message = refusal(toy_network(), tmp_path, output="scores")
        assert message == "expected an output named scores, but the network has: logits"

    def test_batch_written_into_the_graph(self, tmp_path):
        builder = GraphBuilder()
        x = builder.add("Expand", builder.conv("image", 3, 4), builder.constant(np.array([2, 1, 1, 1])))
        assert "expected batch 1, but the logits are logits (2, 4, 64, 64)" in refusal(builder.model(x), tmp_path)

    def test_no_logits(self, tmp_path):
        builder = GraphBuilder()
        x = builder.add("Flatten", builder.add("GlobalAveragePool", builder.conv("image", 3, 4)))
        message = refusal(builder.model(x, output_shape=(1, 4)), tmp_path)
        assert "expected float32 logits (1, C, H, W)" in message
        assert "logits (1, 4) float from Flatten" in message

    def test_class_map_that_hides_its_logits(self, tmp_path):
        model = ended_by(("Cast", {"to": TensorProto.INT32}), output_type=TensorProto.INT32)
        assert "int32 from Cast; export it without post-processing" in refusal(model, tmp_path)

    def test_other_aspect(self, tmp_path):
        builder = GraphBuilder()
        pool = {"kernel_shape": [1, 4], "strides": [1, 4]}
        x = builder.conv(builder.add("MaxPool", "image", **pool), 3, 4)
        assert "the input is 64x64 and the logits are 64x16" in refusal(builder.model(x), tmp_path)

    def test_larger_than_the_input(self, tmp_path):
        builder = GraphBuilder()
        x = builder.resize(builder.conv("image", 3, 4), 1.5)
        said = refusal(builder.model(x), tmp_path)
        assert "a whole multiple of it, but the input is 64x64 and the logits are 96x96" in said

    def test_larger_by_two_factors(self, tmp_path):
        builder = GraphBuilder()
        sizes = builder.constant(np.array([1, 4, 128, 192], np.int64))
        x = builder.add("Resize", builder.conv("image", 3, 4), "", "", sizes, mode="linear")
        assert "the input is 64x64 and the logits are 128x192" in refusal(builder.model(x), tmp_path)

    def test_quantized(self, tmp_path):
        builder = GraphBuilder()
        scale, zero = builder.constant(np.float32(0.1)), builder.constant(np.int8(0))
        x = builder.add("QuantizeLinear", builder.conv("image", 3, 4), scale, zero, name="quantize")
        model = builder.model(builder.add("DequantizeLinear", x, scale, zero))
        assert "QuantizeLinear (quantize) is quantized already; give the float32 network" in refusal(model, tmp_path)

    def test_custom_domain(self, tmp_path):
        model = toy_network()
        model.graph.node[0].domain = "com.microsoft"
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
        assert "Conv (stem) is of domain 'com.microsoft'" in refusal(model, tmp_path)

    def test_unknown_operator(self, tmp_path):
        model = toy_network()
        model.graph.node[0].op_type = "Convolve"
        assert "Convolve (stem) is no operator of ONNX opset 17" in refusal(model, tmp_path)

    def test_unsupported_operator(self, tmp_path):
        builder = GraphBuilder()
        x = builder.add("RandomNormalLike", builder.conv("image", 3, 4), name="noise")
        assert "RandomNormalLike (noise) is not supported" in refusal(builder.model(x), tmp_path)

    def test_control_flow(self, tmp_path):
        model = toy_network()
        branch = helper.make_graph(
            [helper.make_node("Relu", ["logits_before"], ["r"])],
            "branch",
            [],
            [helper.make_tensor_value_info("r", TensorProto.FLOAT, [1, 3, 64, 64])],
        )
        model.graph.node[-1].output[0] = "logits_before"
        condition = numpy_helper.from_array(np.array(True), "condition")
        model.graph.initializer.append(condition)
        choice = helper.make_node(
            "If", ["condition"], ["logits"], name="choice", then_branch=branch, else_branch=branch
        )
        model.graph.node.append(choice)
        assert "If (choice) is not supported" in refusal(model, tmp_path)

    def test_pooling_with_indices(self, tmp_path):
        builder = GraphBuilder()
        pooled = builder.add("MaxPool", builder.conv("image", 3, 4), name="pool", outputs=2, kernel_shape=[1, 1])
        x = builder.add("Add", pooled, builder.add("Cast", "pool_out1", to=TensorProto.FLOAT))
        assert "MaxPool (pool) gives indices" in refusal(builder.model(x), tmp_path)

    def test_sixteen_bit_weights(self, tmp_path):
        builder = GraphBuilder()
        half = builder.add("Cast", builder.constant(np.ones((1, 4, 1, 1), np.float16), "half"), to=TensorProto.FLOAT)
        x = builder.add("Mul", builder.conv("image", 3, 4), half)
        assert "1 tensors are 16-bit (first: half)" in refusal(builder.model(x), tmp_path)

    def test_training_mode(self, tmp_path):
        builder = GraphBuilder()
        model = builder.model(builder.batch_norm(builder.conv("image", 3, 4), 4))
        model.graph.node[1].attribute.append(helper.make_attribute("training_mode", 1))
        model.graph.node[1].output.extend(["running_mean", "running_variance"])
        message = refusal(model, tmp_path)
        assert "BatchNormalization (batchnormalization_1) is in training mode" in message
        assert "call model.eval()" in message

    def test_messages_name_an_unnamed_node_by_its_output(self, tmp_path):
        model = toy_network()
        model.graph.node[0].op_type = "Convolve"
        model.graph.node[0].name = ""
        assert "Convolve (stem_out)" in refusal(model, tmp_path)


def test_functions_are_inlined(tmp_path):
    model = toy_network()
    relu = next(n for n in model.graph.node if n.op_type == "Relu")
    relu.op_type, relu.domain = "Rectify", "pkg.exporter"
    body = [helper.make_node("Relu", ["x"], ["y"])]
    model.functions.append(
        helper.make_function("pkg.exporter", "Rectify", ["x"], ["y"], body, [helper.make_opsetid("", 17)])
    )
    model.opset_import.append(helper.make_opsetid("pkg.exporter", 1))
    network = load_network(save(model, tmp_path))
    assert {n.domain for n in network.model.graph.node} == {""}
    np.testing.assert_array_equal(
        run_graph(network.model, image=image())[0], run_graph(toy_network(), image=image())[0]
    )
