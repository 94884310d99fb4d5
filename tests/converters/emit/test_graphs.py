"""Variants of the canonical graph for single programs, held against the canonical graph in ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from support.bundles import toy_manifest
from support.graphs import random_frame, run_graph

from edgeseg.converters.embed import append_class_map
from edgeseg.converters.emit.graphs import (
    with_batch,
    with_name,
    with_normalised_input,
    with_plain_names,
    with_probabilities,
)
from edgeseg.converters.graph import GraphIndex, copy_model, rename_tensor
from edgeseg.converters.lint import lint
from edgeseg.converters.targets import with_planar_input
from edgeseg.errors import UnsupportedModelError

FRAME = random_frame()
MANIFEST = toy_manifest(64, 64, classes=3, logits=(16, 16), coordinates="half_pixel")


class TestProbabilities:
    def test_choose_the_classes_of_the_class_map(self, canonical: onnx.ModelProto) -> None:
        model = with_probabilities(canonical, MANIFEST.output, MANIFEST.input)
        (found,) = run_graph(model, frame=FRAME[None])
        (expected,) = run_graph(append_class_map(canonical, 64, 64, "half_pixel"), frame=FRAME[None])
        assert found.dtype == np.float32
        np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
        assert found.max(axis=1).min() > 0  # DeepStream's least threshold
        assert np.mean(found.argmax(axis=1) == expected) > 0.999  # ties of two classes
        assert lint(model) == []

    def test_at_the_size_of_the_logits(self, canonical: onnx.ModelProto) -> None:
        (found,) = run_graph(
            with_probabilities(canonical, MANIFEST.output, MANIFEST.input, logits_size=True), frame=FRAME[None]
        )
        (logits,) = run_graph(canonical, frame=FRAME[None])
        np.testing.assert_array_equal(found.argmax(axis=1), logits.argmax(axis=1))

    def test_name_that_is_taken(self, canonical: onnx.ModelProto) -> None:
        model = copy_model(canonical)
        rename_tensor(model, "logits", "probabilities")
        changed = with_probabilities(model, MANIFEST.output, MANIFEST.input)
        assert GraphIndex(changed).outputs == ["probabilities"]
        onnx.checker.check_model(changed, full_check=True)


class TestNormalisedInput:
    def test_undoes_what_the_program_did(self, canonical: onnx.ModelProto) -> None:
        mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
        model = with_normalised_input(with_planar_input(canonical), mean, std, "input_0")
        given = (FRAME.astype(np.float32) - np.float32(mean)) / np.float32(std)
        (found,) = run_graph(model, input_0=given.transpose(2, 0, 1)[None])
        (expected,) = run_graph(canonical, frame=FRAME[None])
        # Rounding moves a value over the edge of an INT8 step here and there.
        assert np.mean(found.argmax(axis=1) == expected.argmax(axis=1)) > 0.99
        assert lint(model) == []


class TestNames:
    def test_of_tensors(self, canonical: onnx.ModelProto) -> None:
        model, names = with_name(canonical, "logits", "output_0")
        assert (GraphIndex(model).outputs, names) == (["output_0"], {"logits": "output_0"})
        twice, names = with_name(model, "output_0", "frame")
        assert names == {"output_0": "frame", "frame": "frame_1"}
        assert (GraphIndex(twice).inputs, GraphIndex(twice).outputs) == (["frame_1"], ["frame"])

    def test_of_nodes(self, canonical: onnx.ModelProto) -> None:
        model = copy_model(canonical)
        first, second = model.graph.node[0], model.graph.node[1]
        first.name, second.name = "a,b:c", "a;b'c"
        names = [node.name for node in with_plain_names(model).graph.node]
        assert names[:2] == ["a_b_c", "a_b_c_1"]
        assert len(set(names)) == len(names)


class TestBatch:
    def test_gives_for_each_frame_what_it_gives_alone(self, canonical: onnx.ModelProto) -> None:
        model = append_class_map(canonical, 64, 64, "half_pixel")
        frames = np.stack([FRAME, 255 - FRAME, FRAME[::-1]])
        (found,) = run_graph(with_batch(model, 3), frame=frames)
        alone = [run_graph(model, frame=frame[None])[0][0] for frame in frames]
        np.testing.assert_array_equal(found, np.stack(alone))

    def test_of_one(self, canonical: onnx.ModelProto) -> None:
        assert with_batch(canonical, 1) is canonical

    def reshaped(self, canonical: onnx.ModelProto, shape: list[int]) -> onnx.ModelProto:
        """A network that ends with a Reshape of its (1, 3, 16, 16) logits to a shape that it holds."""
        model = copy_model(canonical)
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(shape, np.int64), "shape"))
        model.graph.node.append(helper.make_node("Reshape", ["logits", "shape"], ["end"], name="reshape"))
        del model.graph.output[:]
        model.graph.output.append(helper.make_tensor_value_info("end", TensorProto.FLOAT, shape))
        return model

    def test_shape_that_begins_with_the_batch(self, canonical: onnx.ModelProto) -> None:
        model = with_batch(self.reshaped(canonical, [1, 48, 16]), 2)
        (found,) = run_graph(model, frame=np.stack([FRAME, 255 - FRAME]))
        (logits,) = run_graph(canonical, frame=(255 - FRAME)[None])
        np.testing.assert_array_equal(found[1], logits[0].reshape(48, 16))

    @pytest.mark.parametrize("shape", [[3, 16, 16], [48, 1, 16]])
    def test_shape_that_has_lost_it(self, shape: list[int], canonical: onnx.ModelProto) -> None:
        with pytest.raises(UnsupportedModelError, match="take 2 frames at once, but the batch of 1 is written into it"):
            with_batch(self.reshaped(canonical, shape), 2)
