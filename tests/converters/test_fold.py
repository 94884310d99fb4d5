from collections import Counter

import numpy as np
import onnx
import pytest
from support.graphs import GraphBuilder, run_graph, toy_network

from edgeseg.converters.fold import fold_batch_norms, remaining_batch_norms

IMAGE = np.random.default_rng(2).normal(0, 1, (1, 3, 64, 64)).astype(np.float32)
AFFINE = ("BatchNormalization", "Mul", "Add", "Sub", "Div")


def channels(values: list[float]) -> np.ndarray:
    return np.array(values, np.float32).reshape(1, -1, 1, 1)


def folded(model: onnx.ModelProto, *, nodes: dict[str, int]) -> onnx.ModelProto:
    """Fold, and check that the result is valid, equal, and holds exactly these operators; the input stays untouched."""
    before = model.SerializeToString()
    result = fold_batch_norms(model)
    assert model.SerializeToString() == before
    onnx.checker.check_model(result, full_check=True)
    expected, got = run_graph(model, image=IMAGE), run_graph(result, image=IMAGE)
    assert len(expected) == len(got)
    for one, two in zip(expected, got, strict=True):
        np.testing.assert_allclose(two, one, rtol=0, atol=2e-5)
    assert Counter(n.op_type for n in result.graph.node) == Counter(nodes)
    return result


class TestBackwards:
    @pytest.mark.parametrize("bias", [True, False])
    @pytest.mark.parametrize("group", [1, 2])
    def test_convolution(self, bias, group):
        builder = GraphBuilder()
        x = builder.conv(builder.conv("image", 3, 4), 4, 6, group=group, bias=bias)
        folded(builder.model(builder.batch_norm(x, 6)), nodes={"Conv": 2})

    @pytest.mark.parametrize("bias", [True, False])
    def test_transposed_convolution(self, bias):
        builder = GraphBuilder()
        x = builder.conv_transpose("image", 3, 5, bias=bias)
        folded(builder.model(builder.batch_norm(x, 5)), nodes={"ConvTranspose": 1})

    def test_grouped_transposed_convolution(self):
        builder = GraphBuilder()
        weight = builder.constant(builder.random.normal(0, 1, (4, 3, 2, 2)).astype(np.float32))
        x = builder.add("ConvTranspose", builder.conv("image", 3, 4), weight, group=2, strides=[2, 2])
        folded(builder.model(builder.batch_norm(x, 6)), nodes={"Conv": 1, "ConvTranspose": 1})

    def test_weights_shared_by_two_convolutions_are_not_touched(self):
        builder = GraphBuilder()
        first = builder.conv("image", 3, 3, name="first")
        weight, bias = builder.nodes[0].input[1:]
        second = builder.add("Conv", first, weight, bias, pads=[1] * 4, name="second")
        folded(builder.model(builder.batch_norm(second, 3)), nodes={"Conv": 2})

    @pytest.mark.parametrize(
        ("op", "constant_first"),
        [("Mul", False), ("Mul", True), ("Add", False), ("Add", True), ("Sub", False), ("Sub", True), ("Div", False)],
    )
    @pytest.mark.parametrize("value", [channels([0.5, -2, 3, 1]), np.float32(1.5), np.array([2.5], np.float32)])
    def test_arithmetic_with_constants(self, op, constant_first, value):
        builder = GraphBuilder()
        operands = [builder.conv("image", 3, 4), builder.constant(value)]
        model = builder.model(builder.add(op, *operands[:: -1 if constant_first else 1]))
        folded(model, nodes={"Conv": 1})

    def test_a_chain(self):
        builder = GraphBuilder()
        x = builder.batch_norm(builder.conv("image", 3, 4), 4)
        x = builder.add("Mul", x, builder.constant(channels([1, 2, 3, 4])))
        folded(builder.model(builder.batch_norm(x, 4)), nodes={"Conv": 1})

    def test_arithmetic_behind_a_batch_norm_that_stays(self):
        builder = GraphBuilder()
        x = builder.add("Mul", builder.batch_norm("image", 3), builder.constant(channels([1, 2, 3])))
        model = builder.model(builder.add("Relu", x))
        result = folded(model, nodes={"BatchNormalization": 1, "Relu": 1})
        assert remaining_batch_norms(result) == ("batchnormalization_0",)

    def test_concat_splits_the_map(self):
        builder = GraphBuilder()
        branches = [builder.conv("image", 3, 2), builder.conv("image", 3, 5, dilation=2), builder.conv("image", 3, 1)]
        x = builder.batch_norm(builder.add("Concat", *branches, axis=1), 8)
        folded(builder.model(builder.prelu(x, 8)), nodes={"Conv": 3, "Concat": 1, "PRelu": 1})

    def test_concat_with_a_branch_that_others_read_stays(self):
        builder = GraphBuilder()
        left, right = builder.conv("image", 3, 4), builder.conv("image", 3, 4)
        x = builder.batch_norm(builder.add("Concat", left, right, axis=1), 8)
        x = builder.add("Concat", x, left, axis=1)
        folded(builder.model(x), nodes={"Conv": 2, "Concat": 2, "BatchNormalization": 1})

    def test_concat_of_the_same_tensor_twice_stays(self):
        builder = GraphBuilder()
        x = builder.conv("image", 3, 4)
        x = builder.batch_norm(builder.add("Concat", x, x, axis=1), 8)
        folded(builder.model(x), nodes={"Conv": 1, "Concat": 1, "BatchNormalization": 1})

    def test_concat_over_rows_stays(self):
        builder = GraphBuilder()
        x = builder.add("Concat", builder.conv("image", 3, 4), builder.conv("image", 3, 4), axis=2)
        folded(builder.model(builder.batch_norm(x, 4)), nodes={"Conv": 2, "Concat": 1, "BatchNormalization": 1})

    def test_concat_with_an_identity_for_a_shared_branch(self):
        builder = GraphBuilder()
        left, right = builder.conv("image", 3, 2), builder.conv("image", 3, 2)
        x = builder.add("Mul", builder.add("Concat", left, right, axis=1), builder.constant(channels([1, 1, 2, 3])))
        folded(builder.model(builder.add("Concat", x, left, axis=1)), nodes={"Conv": 2, "Concat": 2})

    def test_add_of_two_convolutions_gets_the_shift_once(self):
        builder = GraphBuilder()
        x = builder.add("Add", builder.conv("image", 3, 4), builder.conv("image", 3, 4))
        folded(builder.model(builder.batch_norm(x, 4)), nodes={"Conv": 2, "Add": 1})

    def test_add_with_a_branch_that_others_read_stays(self):
        builder = GraphBuilder()
        left, right = builder.conv("image", 3, 4), builder.conv("image", 3, 4)
        x = builder.batch_norm(builder.add("Add", left, right), 4)
        x = builder.add("Add", x, left)
        folded(builder.model(x), nodes={"Conv": 2, "Add": 2, "BatchNormalization": 1})

    @pytest.mark.parametrize(
        ("op", "attributes"),
        [
            ("AveragePool", {"kernel_shape": [3, 3], "pads": [1] * 4, "count_include_pad": 0}),
            ("AveragePool", {"kernel_shape": [2, 2], "strides": [2, 2], "count_include_pad": 1}),
            ("MaxPool", {"kernel_shape": [3, 3], "pads": [1] * 4, "strides": [2, 2]}),
            ("GlobalAveragePool", {}),
            ("GlobalMaxPool", {}),
        ],
    )
    def test_through_pooling(self, op, attributes):
        builder = GraphBuilder()
        x = builder.add(op, builder.conv("image", 3, 4), **attributes)
        folded(builder.model(builder.batch_norm(x, 4)), nodes={"Conv": 1, op: 1})

    @pytest.mark.parametrize("mode", ["linear", "nearest"])
    def test_through_resize(self, mode):
        builder = GraphBuilder()
        x = builder.resize(builder.conv("image", 3, 4, stride=2), 2, mode=mode)
        folded(builder.model(builder.batch_norm(x, 4)), nodes={"Conv": 1, "Resize": 1})

    def test_not_through_padding_that_counts(self):
        builder = GraphBuilder()
        options = {"kernel_shape": [3, 3], "pads": [1] * 4, "count_include_pad": 1}
        x = builder.add("AveragePool", builder.conv("image", 3, 4), **options)
        nodes = {"Conv": 1, "AveragePool": 1, "BatchNormalization": 1}
        folded(builder.model(builder.batch_norm(x, 4)), nodes=nodes)

    def test_not_through_max_pooling_with_a_negative_scale(self):
        builder = GraphBuilder()
        x = builder.add("MaxPool", builder.conv("image", 3, 4), kernel_shape=[2, 2])
        x = builder.add("Mul", x, builder.constant(channels([1, -1, 1, 1])))
        folded(builder.model(x), nodes={"Conv": 1, "MaxPool": 1, "Mul": 1})

    @pytest.mark.parametrize("op", ["Relu", "LeakyRelu", "PRelu"])
    def test_a_positive_scale_goes_through_an_activation(self, op):
        builder = GraphBuilder()
        x = builder.conv("image", 3, 4)
        x = builder.prelu(x, 4) if op == "PRelu" else builder.add(op, x)
        x = builder.add("Mul", x, builder.constant(channels([0.5, 2, 3, 1])))
        folded(builder.model(x), nodes={"Conv": 1, op: 1})

    @pytest.mark.parametrize(("op", "values"), [("Mul", [0.5, -2, 3, 1]), ("Add", [0.5, 2, 3, 1])])
    def test_a_negative_scale_or_a_shift_does_not(self, op, values):
        builder = GraphBuilder()
        x = builder.add("Relu", builder.conv("image", 3, 4))
        x = builder.add(op, x, builder.constant(channels(values)))
        folded(builder.model(x), nodes={"Conv": 1, "Relu": 1, op: 1})

    def test_not_when_another_node_reads_the_convolution(self):
        builder = GraphBuilder()
        x = builder.conv("image", 3, 4)
        x = builder.add("Concat", builder.batch_norm(x, 4), x, axis=1)
        folded(builder.model(x), nodes={"Conv": 1, "Concat": 1, "BatchNormalization": 1})

    def test_not_when_the_convolution_is_an_output(self):
        builder = GraphBuilder()
        x = builder.conv("image", 3, 4, name="early")
        model = builder.model(builder.batch_norm(x, 4))
        model.graph.output.append(onnx.helper.make_tensor_value_info("early_out", 1, [1, 4, 64, 64]))
        folded(model, nodes={"Conv": 1, "BatchNormalization": 1})

    def test_constants_by_pixel_stay(self):
        builder = GraphBuilder()
        constant = builder.constant(np.linspace(1, 2, 64, dtype=np.float32))
        model = builder.model(builder.add("Mul", builder.conv("image", 3, 4), constant))
        folded(model, nodes={"Conv": 1, "Mul": 1})

    def test_a_constant_that_widens_the_tensor_stays(self):
        builder = GraphBuilder()
        pooled = builder.add("GlobalAveragePool", builder.conv("image", 3, 1))
        model = builder.model(builder.add("Add", pooled, builder.constant(channels([1, 2, 3]))))
        folded(model, nodes={"Conv": 1, "GlobalAveragePool": 1, "Add": 1})

    def test_one_that_does_nothing_goes_even_where_others_read_its_input(self):
        builder = GraphBuilder()
        x = builder.conv("image", 3, 4)
        y = builder.add("Mul", x, builder.constant(np.float32(1)))
        folded(builder.model(builder.add("Concat", y, x, axis=1)), nodes={"Conv": 1, "Concat": 1})

    def test_one_that_does_nothing_between_input_and_output_stays(self):
        builder = GraphBuilder()
        folded(builder.model(builder.add("Mul", "image", builder.constant(np.float32(1)))), nodes={"Mul": 1})


class TestForwards:
    @pytest.mark.parametrize("group", [1, 3])
    @pytest.mark.parametrize("bias", [True, False])
    def test_into_convolutions_without_padding(self, group, bias):
        builder = GraphBuilder()
        x = builder.batch_norm("image", 3)
        first = builder.conv(x, 3, 6, kernel=1, padding=0, group=group, bias=bias)
        second = builder.conv(x, 3, 6, kernel=1, padding=0)
        folded(builder.model(builder.add("Add", first, second)), nodes={"Conv": 2, "Add": 1})

    def test_a_scale_alone_goes_into_a_padded_convolution(self):
        builder = GraphBuilder()
        x = builder.add("Mul", "image", builder.constant(channels([0.5, -2, 3])))
        folded(builder.model(builder.conv(x, 3, 4)), nodes={"Conv": 1})

    def test_a_shift_does_not(self):
        builder = GraphBuilder()
        model = builder.model(builder.conv(builder.batch_norm("image", 3), 3, 4))
        folded(model, nodes={"Conv": 1, "BatchNormalization": 1})

    def test_not_where_something_else_reads_it(self):
        builder = GraphBuilder()
        x = builder.batch_norm("image", 3)
        y = builder.conv(x, 3, 3, kernel=1, padding=0)
        folded(builder.model(builder.add("Add", y, x)), nodes={"Conv": 1, "BatchNormalization": 1, "Add": 1})


def test_the_toy_network_keeps_one():
    result = fold_batch_norms(toy_network())
    assert len(remaining_batch_norms(toy_network())) == 4
    assert len(remaining_batch_norms(result)) == 1
    np.testing.assert_allclose(run_graph(result, image=IMAGE)[0], run_graph(toy_network(), image=IMAGE)[0], atol=1e-4)


def test_training_mode_stays():
    builder = GraphBuilder()
    model = builder.model(builder.batch_norm(builder.conv("image", 3, 4), 4))
    model.graph.node[1].attribute.append(onnx.helper.make_attribute("training_mode", 1))
    model.graph.node[1].output.extend(["running_mean", "running_variance"])
    result = fold_batch_norms(model)
    assert len(remaining_batch_norms(result)) == 1
