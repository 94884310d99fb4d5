import numpy as np
import onnx
import pytest
from support.graphs import GraphBuilder, random_frame, run_graph, toy_network

from edgeseg.converters.embed import append_class_map, cut_upsampling, embed_preprocessing
from edgeseg.converters.graph import rename_tensor
from edgeseg.errors import ModelError, UnsupportedModelError

MEAN = (110.3, 108.4, 105.0)
STD = (72.1, 60.7, 69.9)
FRAME = random_frame()
RULES = ("align_corners", "half_pixel", "pytorch_half_pixel", "asymmetric")


def prepared(frame: np.ndarray, color_order: str) -> np.ndarray:
    """What a program does around a network: colour order, normalisation, layout."""
    colors = frame[:, :, ::-1] if color_order == "BGR" else frame
    normal = (colors.astype(np.float64) - MEAN) / STD
    return normal.transpose(2, 0, 1)[None].astype(np.float32)


def shape_of(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    return tuple(d.dim_value for d in value.type.tensor_type.shape.dim)


class TestPreprocessing:
    @pytest.mark.parametrize("color_order", ["RGB", "BGR"])
    def test_takes_the_frame(self, color_order):
        model = toy_network()
        result = embed_preprocessing(model, color_order=color_order, mean=MEAN, std=STD)
        onnx.checker.check_model(result, full_check=True)
        expected = run_graph(model, image=prepared(FRAME, color_order))[0]
        np.testing.assert_allclose(run_graph(result, frame=FRAME[None])[0], expected, rtol=0, atol=1e-4)

    def test_form_of_the_canonical_graph(self):
        result = embed_preprocessing(toy_network(), color_order="BGR", mean=MEAN, std=STD)
        (frame,) = result.graph.input
        assert (frame.name, shape_of(frame)) == ("frame", (1, 64, 64, 3))
        assert frame.type.tensor_type.elem_type == onnx.TensorProto.UINT8
        first = [n.op_type for n in result.graph.node[:6]]
        assert first == ["Cast", "Transpose", "Gather", "Sub", "Mul", "Conv"]
        assert list(result.graph.node[4].output) == ["image"]

    def test_names_that_are_taken(self):
        model = toy_network()
        rename_tensor(model, "stem_out", "frame")
        model.graph.node[2].name = "preprocess/cast"
        result = embed_preprocessing(model, color_order="RGB", mean=MEAN, std=STD)
        onnx.checker.check_model(result, full_check=True)
        names = [n.name for n in result.graph.node]
        assert len(set(names)) == len(names)
        expected = run_graph(model, image=prepared(FRAME, "RGB"))[0]
        np.testing.assert_allclose(run_graph(result, frame=FRAME[None])[0], expected, rtol=0, atol=1e-4)

    def test_an_input_that_is_called_frame(self):
        model = toy_network()
        rename_tensor(model, "image", "frame")
        result = embed_preprocessing(model, color_order="RGB", mean=MEAN, std=STD)
        assert run_graph(result, frame=FRAME[None])[0].shape == (1, 3, 64, 64)

    def test_another_input(self):
        once = embed_preprocessing(toy_network(), color_order="RGB", mean=MEAN, std=STD)
        with pytest.raises(ModelError, match=r"expected an input \(1, 3, H, W\) .* but frame is \(1, 64, 64, 3\)"):
            embed_preprocessing(once, color_order="RGB", mean=MEAN, std=STD)


class TestCut:
    @pytest.mark.parametrize("rule", RULES)
    @pytest.mark.parametrize("embedded", [False, True])
    def test_before_the_last_resize(self, rule, embedded):
        model = toy_network(coordinates=rule)
        if embedded:
            model = embed_preprocessing(model, color_order="RGB", mean=MEAN, std=STD)
        result, coordinates = cut_upsampling(model)
        onnx.checker.check_model(result, full_check=True)
        assert coordinates == rule
        assert [(o.name, shape_of(o)) for o in result.graph.output] == [("logits", (1, 3, 16, 16))]
        assert "Resize" not in {n.op_type for n in result.graph.node}
        assert result.graph.node[-1].name == "classifier"

    def test_sizes_instead_of_scales(self):
        builder = GraphBuilder()
        sizes = builder.constant(np.array([1, 4, 64, 64]))
        x = builder.add("Resize", builder.conv("image", 3, 4, stride=3), "", "", sizes, mode="linear")
        result, coordinates = cut_upsampling(builder.model(x, output="scores"))
        assert coordinates == "half_pixel"
        assert [(o.name, shape_of(o)) for o in result.graph.output] == [("logits", (1, 4, 22, 22))]

    def test_logits_of_full_size(self):
        builder = GraphBuilder()
        model = builder.model(builder.conv("image", 3, 4), output="scores")
        result, coordinates = cut_upsampling(model)
        assert coordinates is None
        assert [(o.name, shape_of(o)) for o in result.graph.output] == [("logits", (1, 4, 64, 64))]
        assert len(result.graph.node) == 1

    def test_a_network_that_ends_small(self):
        result, coordinates = cut_upsampling(toy_network(coordinates=None))
        assert coordinates == "half_pixel"
        assert shape_of(result.graph.output[0]) == (1, 3, 16, 16)

    @pytest.mark.parametrize(
        ("mode", "rule"), [("nearest", "half_pixel"), ("cubic", "half_pixel"), ("linear", "tf_crop_and_resize")]
    )
    def test_other_resizes_stay(self, mode, rule):
        builder = GraphBuilder()
        small = builder.conv("image", 3, 4, stride=2)
        region = builder.constant(np.array([0, 0, 0, 0, 1, 1, 1, 1], np.float32))
        scales = builder.constant(np.array([1, 1, 2, 2], np.float32))
        x = builder.add("Resize", small, region, scales, mode=mode, coordinate_transformation_mode=rule)
        result, coordinates = cut_upsampling(builder.model(x))
        assert coordinates is None
        assert result.graph.node[-1].op_type == "Resize"

    def test_a_resize_to_less_than_the_input_stays(self):
        builder = GraphBuilder()
        x = builder.resize(builder.conv("image", 3, 4, stride=4), 2)
        result, coordinates = cut_upsampling(builder.model(x))
        assert coordinates == "half_pixel"
        assert shape_of(result.graph.output[0]) == (1, 4, 32, 32)

    def test_scales_that_are_not_the_ratio_of_the_sizes_stay(self):
        builder = GraphBuilder()
        # 22 rows times 2.95 are 64.9: 64 rows, but the coordinates follow 2.95 and not 64 / 22.
        x = builder.resize(builder.conv("image", 3, 4, stride=3), 2.95)
        result, coordinates = cut_upsampling(builder.model(x))
        assert coordinates is None
        assert result.graph.node[-1].op_type == "Resize"

    def test_a_tensor_that_is_called_logits_already(self):
        model = toy_network()
        rename_tensor(model, "logits", "scores")
        rename_tensor(model, "stem_out", "logits")
        result, _ = cut_upsampling(model)
        onnx.checker.check_model(result, full_check=True)
        assert result.graph.node[-1].output[0] == "logits"

    def test_an_image_that_is_only_resized(self):
        builder = GraphBuilder()
        model = builder.model(builder.resize("image", 1))
        result, coordinates = cut_upsampling(model)
        assert coordinates is None
        assert result.graph.node[-1].op_type == "Resize"


class TestClassMap:
    @pytest.mark.parametrize("rule", [*RULES, None])
    def test_equals_argmax_of_the_whole_network(self, rule):
        if rule is None:
            builder = GraphBuilder()
            network = builder.model(builder.conv("image", 3, 4))
        else:
            network = toy_network(coordinates=rule)
        cut, coordinates = cut_upsampling(embed_preprocessing(network, color_order="RGB", mean=MEAN, std=STD))
        result = append_class_map(cut, 64, 64, coordinates)
        onnx.checker.check_model(result, full_check=True)
        class_map = run_graph(result, frame=FRAME[None])[0]
        logits = run_graph(network, image=prepared(FRAME, "RGB"))[0]
        assert (class_map.shape, class_map.dtype) == ((1, 64, 64), np.uint8)
        assert len(np.unique(class_map)) > 1
        assert np.mean(class_map == logits.argmax(axis=1)) > 0.999

    def test_form(self):
        cut, coordinates = cut_upsampling(toy_network())
        result = append_class_map(cut, 64, 64, coordinates)
        assert [n.op_type for n in result.graph.node[-4:]] == ["Resize", "ArgMax", "Cast", "Cast"]
        assert [(o.name, shape_of(o)) for o in result.graph.output] == [("class_map", (1, 64, 64))]

    def test_another_size(self):
        cut, coordinates = cut_upsampling(toy_network())
        result = append_class_map(cut, 100, 50, coordinates)
        assert run_graph(result, image=prepared(FRAME, "RGB"))[0].shape == (1, 100, 50)

    def test_logits_that_are_called_class_map(self):
        model = toy_network()
        rename_tensor(model, "logits", "class_map")
        result = append_class_map(model, 64, 64, None)
        assert run_graph(result, image=prepared(FRAME, "RGB"))[0].dtype == np.uint8

    def test_too_many_classes(self):
        with pytest.raises(UnsupportedModelError, match="at most 256 classes, but the network has 257"):
            append_class_map(toy_network(classes=257), 64, 64, None)

    def test_no_rule_for_small_logits(self):
        cut, _ = cut_upsampling(toy_network())
        with pytest.raises(ModelError, match="brings 16x16 logits to 64x64, but got none"):
            append_class_map(cut, 64, 64, None)
