"""The registry of forms, each linted by its own rules and built by a real TensorRT builder where that takes it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from support.graphs import random_frame, run_graph

from edgeseg.calibration.cache import read_cache
from edgeseg.converters.embed import append_class_map
from edgeseg.converters.graph import copy_model
from edgeseg.converters.lint import PROFILES, lint
from edgeseg.converters.place import remove_qdq
from edgeseg.converters.targets import FORMS, derive, get_form, measure_missing, with_planar_input
from edgeseg.errors import CalibrationError, LintError, UsageError

FRAME = random_frame()[None]
FEEDS = [{"frame": FRAME}]
needs_builder = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed (extra edgeseg[rtx])"
)


@pytest.fixture(scope="module")
def full(canonical: onnx.ModelProto) -> dict[str, float]:
    return measure_missing(canonical, {}, FEEDS)


def built(model: onnx.ModelProto, shared: Path, folder: Path) -> dict[str, Any]:
    """What the builder makes of a graph."""
    oracle = shared / "tools" / "trt_oracle.py"
    if not oracle.is_file():
        pytest.skip("trt_oracle.py is not on this machine")
    onnx.save(model, folder / "model.onnx")
    command = [sys.executable, str(oracle), str(folder / "model.onnx")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    report: dict[str, Any] = json.loads(run.stdout)
    assert report["parsed"], report["parse_errors"]
    assert report["built"], report["errors"]
    return report


class TestRegistry:
    def test_names_and_profiles(self) -> None:
        assert list(FORMS) == ["canonical", "fp16_qdq", "fp16", "tensorrt8", "implicit_int8", "jetpack4"]
        assert all(name == form.name and form.profile in PROFILES for name, form in FORMS.items())

    @pytest.mark.parametrize(
        ("version", "names"),
        [
            ((8, 2), {"jetpack4"}),
            ((8, 5), {"fp16", "tensorrt8", "implicit_int8", "jetpack4"}),
            ((10, 3), {"canonical", "fp16", "implicit_int8"}),
            ((10, 16), {"canonical", "fp16_qdq", "fp16", "implicit_int8"}),
            ((11, 4), {"fp16_qdq", "fp16"}),
        ],
    )
    def test_suits(self, version: tuple[int, int], names: set[str]) -> None:
        assert {name for name, form in FORMS.items() if form.suits(version)} == names

    def test_the_oldest_version_is_that_of_the_rules(self) -> None:
        for form in FORMS.values():
            assert PROFILES[form.profile].oldest <= form.oldest

    def test_unknown_name(self) -> None:
        with pytest.raises(UsageError, match="unknown graph form 'fp16-qdq'; did you mean fp16_qdq"):
            get_form("fp16-qdq")

    def test_stands_in_the_documentation(self) -> None:
        page = (Path(__file__).resolve().parents[3] / "docs" / "targets.md").read_text("utf-8")
        assert [name for name in FORMS if f"| `{name}` |" not in page] == []


class TestEveryForm:
    @pytest.mark.parametrize("name", FORMS)
    def test_keeps_the_caller_s_graph(self, name: str, canonical: onnx.ModelProto, full: dict[str, float]) -> None:
        given = canonical.SerializeToString()
        derived = derive(name, canonical, full)
        assert canonical.SerializeToString() == given
        onnx.checker.check_model(derived.model, full_check=True)
        assert lint(derived.model, FORMS[name].profile) == []
        assert (derived.cache != b"") == (derived.layer_precisions != {}) == (name == "implicit_int8")

    @pytest.mark.parametrize("class_map", [False, True])
    @pytest.mark.parametrize("name", ["canonical", "fp16_qdq", "fp16", "tensorrt8", "implicit_int8"])
    def test_gives_what_the_canonical_graph_gives(
        self, name: str, class_map: bool, canonical: onnx.ModelProto, full: dict[str, float]
    ) -> None:
        model = append_class_map(canonical, 64, 64, "half_pixel") if class_map else canonical
        derived = derive(name, model, full)
        reference = model if "QuantizeLinear" in {n.op_type for n in derived.model.graph.node} else remove_qdq(model)
        (found,), (expected,) = (run_graph(graph, frame=FRAME) for graph in (derived.model, reference))
        assert found.dtype == expected.dtype
        if not name.startswith("fp16"):
            np.testing.assert_array_equal(found, expected)
            return
        classes, wanted = (array if class_map else array.argmax(axis=1) for array in (found, expected))
        # Random weights give logits that lie close together; test_real_networks.py has the figures of trained ones.
        assert np.mean(classes == wanted) >= (0.97 if name == "fp16_qdq" else 0.99)

    @pytest.mark.parametrize("name", FORMS)
    def test_has_the_quantizers_that_it_promises(
        self, name: str, canonical: onnx.ModelProto, full: dict[str, float]
    ) -> None:
        count = Counter(n.op_type for n in derive(name, canonical, full).model.graph.node)
        expected = 0 if name in ("fp16", "implicit_int8", "jetpack4") else 7 + 6
        assert count["QuantizeLinear"] == count["DequantizeLinear"] == expected

    def test_implicit_int8_of_a_variant(self, canonical: onnx.ModelProto, full: dict[str, float]) -> None:
        variant = append_class_map(with_planar_input(canonical), 64, 64, "half_pixel")
        derived = derive("implicit_int8", variant, full)
        assert derived.cache.startswith(b"TRT-")
        assert derived.layer_precisions["postprocess/resize"] == "fp16"

    def test_precisions_are_of_nodes_of_the_graph(self, canonical: onnx.ModelProto, full: dict[str, float]) -> None:
        model = copy_model(canonical)
        for node in model.graph.node:
            if node.op_type in ("Add", "PRelu"):
                node.name = ""
        derived = derive("implicit_int8", model, full)
        names = [node.name for node in derived.model.graph.node]
        assert set(derived.layer_precisions) < set(names)
        assert set(read_cache(derived.cache)[1]) <= {t for n in derived.model.graph.node for t in (*n.input, *n.output)}


class TestErrors:
    def test_ranges_are_missing(self, canonical: onnx.ModelProto) -> None:
        with pytest.raises(CalibrationError, match="measure them on calibration frames"):
            derive("implicit_int8", canonical)

    def test_what_breaks_the_rules_of_a_form(self, canonical: onnx.ModelProto) -> None:
        model = copy_model(canonical)
        for initializer in model.graph.initializer:
            if initializer.name == "image_scale":
                initializer.CopyFrom(onnx.numpy_helper.from_array(np.float32([0.01]), "image_scale"))
        for name in ("canonical", "fp16_qdq", "tensorrt8"):
            with pytest.raises(LintError, match="Q103 image/QuantizeLinear"):
                derive(name, model)


@needs_builder
class TestBuilder:
    @pytest.mark.parametrize("class_map", [False, True])
    @pytest.mark.parametrize("name", [name for name, form in FORMS.items() if form.rtx])
    def test_takes_it(
        self, name: str, class_map: bool, canonical: onnx.ModelProto, shared: Path, tmp_path: Path
    ) -> None:
        model = append_class_map(canonical, 64, 64, "half_pixel") if class_map else canonical
        report = built(derive(name, model).model, shared, tmp_path)
        kinds = Counter(layer["dtype"] for layer in report["compute"])
        assert kinds == ({"Int8": 7} if FORMS[name].int8 else {"Half": 7})

    def test_float16_reaches_the_layers_outside_int8(
        self, canonical: onnx.ModelProto, shared: Path, tmp_path: Path
    ) -> None:
        """A convolution that stays in float is Half in the form and Float in the canonical graph."""
        model = remove_qdq(canonical)
        before, after = (built(graph, shared, tmp_path) for graph in (model, derive("fp16", canonical).model))
        assert {layer["dtype"] for layer in before["compute"]} == {"Float"}
        assert {layer["dtype"] for layer in after["compute"]} == {"Half"}
