"""The rules against TensorRT's own parser and builder (TensorRT-RTX builds ahead of time without a GPU)."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx
import pytest
from support.lint_graphs import FAULTY, canonical_graph

from edgeseg.converters.lint import RULES

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed (extra edgeseg[rtx])"
)

Inspect = Callable[[onnx.ModelProto], dict[str, Any]]

# TensorRT-RTX is one version of many. Q107, Q109 and the like concern older ones; these it judges itself.
REFUSED = (
    "Q101", "Q106", "Q110", "Q112", "Q113", "Q115", "T101", "T102", "T103", "T105", "T107", "T108", "O101", "O102",
    "O104", "O105", "O107", "O108", "G102", "G105",
)  # fmt: skip
FLOAT = ("Q103", "Q104", "Q105", "Q201", "Q202")
BUILT_IN_INT8 = ("Q102", "Q107", "Q108", "Q109", "Q111", "Q114", "Q116", "Q203", "Q204", "G103", "G104", "A106")


@pytest.fixture(scope="session")
def oracle(shared: Path) -> ModuleType:
    """The program that asks the builder which layers become INT8."""
    path = shared / "tools" / "trt_oracle.py"
    if not path.is_file():
        pytest.skip("trt_oracle.py is not on this machine")
    spec = importlib.util.spec_from_file_location("trt_oracle", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def inspect(oracle: ModuleType, tmp_path: Path) -> Inspect:
    def run(model: onnx.ModelProto) -> dict[str, Any]:
        onnx.save(model, tmp_path / "model.onnx")
        report: dict[str, Any] = oracle.inspect(str(tmp_path / "model.onnx"))
        return report

    return run


@pytest.mark.parametrize("class_map", [False, True])
def test_canonical_graph_runs_in_int8(inspect: Inspect, class_map: bool) -> None:
    report = inspect(canonical_graph(class_map=class_map))
    assert report["ok"], report
    assert report["int8"] == report["expected_int8"] == 4


@pytest.mark.parametrize("code", REFUSED)
def test_refused(inspect: Inspect, code: str) -> None:
    assert RULES[code].effect == "refused"
    assert not inspect(FAULTY[code]())["built"]


@pytest.mark.parametrize("code", FLOAT)
def test_silently_in_float(inspect: Inspect, code: str) -> None:
    assert RULES[code].effect == "silent"
    report = inspect(FAULTY[code]())
    assert report["built"]
    assert report["int8"] == 0
    assert report["not_int8"]


@pytest.mark.parametrize("code", BUILT_IN_INT8)
def test_built_without_a_word(inspect: Inspect, code: str) -> None:
    """These faults are not seen by looking at precisions: only a rule finds them."""
    report = inspect(FAULTY[code]())
    assert report["built"]
    assert report["int8"] == report["expected_int8"] > 0
