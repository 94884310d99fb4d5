"""Other ends of the canonical graph: a class map out, planar floats in."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from support.bundles import toy_manifest
from support.graphs import random_frame, run_graph, toy_network

from edgeseg.converters.graph import GraphIndex, copy_model, rename_tensor
from edgeseg.converters.lint import lint
from edgeseg.converters.targets import with_class_map, with_planar_input
from edgeseg.errors import UnsupportedModelError
from edgeseg.upsample import reference_class_map, upsampling

FRAME = random_frame()


class TestClassMap:
    @pytest.mark.parametrize("size", [(64, 64), (128, 128)])
    def test_is_that_of_the_reference(self, canonical: onnx.ModelProto, size: tuple[int, int]) -> None:
        manifest = toy_manifest(64, 64, classes=3, logits=(16, 16), coordinates="half_pixel", map_size=size)
        model, output = with_class_map(canonical, manifest.output, manifest.input)
        assert (output.tensor, output.kind, output.height, output.width) == ("class_map", "class-map", *size)
        axes = upsampling(size, size, (16, 16), "half_pixel")
        expected = reference_class_map(run_graph(canonical, frame=FRAME[None])[0][0], axes.rows, axes.columns)
        (found,) = run_graph(model, frame=FRAME[None])
        assert found.dtype == np.uint8
        assert np.mean(found[0] == expected) > 0.999  # ties of two classes
        assert lint(model) == []

    def test_graph_that_has_one(self, canonical: onnx.ModelProto) -> None:
        manifest = toy_manifest(64, 64, kind="class-map")
        assert with_class_map(canonical, manifest.output, manifest.input) == (canonical, manifest.output)


class TestPlanarInput:
    def test_computes_the_same(self, canonical: onnx.ModelProto) -> None:
        model = with_planar_input(canonical)
        onnx.checker.check_model(model, full_check=True)
        (value,) = model.graph.input
        shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
        assert (shape, value.type.tensor_type.elem_type) == ([1, 3, 64, 64], onnx.TensorProto.FLOAT)
        planar = FRAME.transpose(2, 0, 1)[None].astype(np.float32)
        found = run_graph(model, **{value.name: planar})[0]
        np.testing.assert_array_equal(found, run_graph(canonical, frame=FRAME[None])[0])
        assert lint(model) == []

    def test_keeps_the_names_of_tensors(self, canonical: onnx.ModelProto) -> None:
        """So that a calibration cache still fits."""
        made = {o for n in canonical.graph.node for o in n.output} - {
            "preprocess/cast_output",
            "preprocess/transpose_output",
        }
        assert {o for n in with_planar_input(canonical).graph.node for o in n.output} == made

    def test_another_graph(self) -> None:
        with pytest.raises(UnsupportedModelError, match="whose input image goes through Cast and Transpose"):
            with_planar_input(toy_network())

    def test_name_that_is_taken(self, canonical: onnx.ModelProto) -> None:
        model = copy_model(canonical)
        rename_tensor(model, "left_out", "planar_frame")
        assert GraphIndex(with_planar_input(canonical)).inputs == ["planar_frame"]
        assert GraphIndex(with_planar_input(model)).inputs == ["planar_frame_1"]
