"""Every name of TensorRT that edgeseg uses exists in each version that it is used on."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from support.api_names import VARIABLES, Use, uses_in
from support.tensorrt_api import DUMPS, has_name, module_of, read_dump
from support.tensorrt_fakes import fake_library

import edgeseg.backends.tensorrt

PACKAGE = Path(edgeseg.backends.tensorrt.__path__[0])
ADAPTER = sorted((PACKAGE / "versions").glob("*.py"))
OTHERS = sorted(path for path in PACKAGE.glob("*.py"))


def missing(uses: list[Use], dump: str) -> list[str]:
    """Names that a version lacks where the code runs on it."""
    library = fake_library(dump)
    reached = [use for use in uses if all(getattr(library, name) is truth for name, truth in use.guards)]
    return [f"line {use.line}: {use.name}" for use in reached if not has_name(read_dump(dump), use.name)]


def test_there_are_dumps_of_every_generation() -> None:
    assert {name.rpartition("-")[2].partition(".")[0] for name in DUMPS} == {"1", "8", "10", "11"}
    assert len(DUMPS) == 7


@pytest.mark.parametrize("dump", DUMPS)
@pytest.mark.parametrize("path", ADAPTER, ids=lambda path: path.stem)
def test_every_name_exists_where_it_is_used(path: Path, dump: str) -> None:
    assert missing(uses_in(path.read_text("utf-8")), dump) == []


def test_the_adapter_uses_names_that_versions_lack() -> None:
    """Otherwise the test above would hold of anything."""
    used = {use.name for path in ADAPTER for use in uses_in(path.read_text("utf-8"))}
    assert {"BuilderFlag.INT8", "NetworkDefinitionCreationFlag.EXPLICIT_BATCH", "ComputeCapability"} <= used
    assert {"IExecutionContext.execute_async_v3", "IBuilderConfig.builder_optimization_level"} <= used
    assert len(used) > 60


@pytest.mark.parametrize("path", OTHERS, ids=lambda path: path.stem)
def test_nothing_else_knows_a_version(path: Path) -> None:
    attributes = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Attribute)]
    of_library = {node.attr for node in attributes if ast.unparse(node.value) in ("library", "trt", "module")}
    assert of_library & {"module", "version", "has"} == set()
    objects = {ast.unparse(node) for node in attributes if ast.unparse(node.value) in set(VARIABLES) - {"layer"}}
    assert objects == set(), "only the adapter touches TensorRT's objects"


class TestWalker:
    """The reader of names sees what it is for."""

    def test_finds_a_name_that_some_versions_lack(self) -> None:
        uses = uses_in("def f(trt):\n    return trt.BuilderFlag.INT8")
        assert missing(uses, "tensorrt-10.3.0") == []
        assert missing(uses, "tensorrt-11.4.0.106") == ["line 2: BuilderFlag.INT8"]

    def test_finds_members_of_variables(self) -> None:
        uses = uses_in("config.max_workspace_size = 1\nfor i in range(engine.num_bindings): pass")
        assert missing(uses, "tensorrt-8.6.0") == []
        assert missing(uses, "tensorrt-10.3.0") == [
            "line 1: IBuilderConfig.max_workspace_size",
            "line 2: ICudaEngine.num_bindings",
        ]

    @pytest.mark.parametrize(
        "source",
        [
            "if library.weakly_typed:\n    trt.BuilderFlag.INT8",
            "if x and library.weakly_typed:\n    for i in y:\n        trt.BuilderFlag.INT8",
            "if not library.weakly_typed:\n    pass\nelse:\n    trt.BuilderFlag.INT8",
            "def f():\n    if not library.weakly_typed:\n        return 0\n    return trt.BuilderFlag.INT8",
            "try:\n    if library.calibrates:\n        class A(trt.IInt8EntropyCalibrator2): pass\nfinally: pass",
        ],
    )
    def test_knows_guards(self, source: str) -> None:
        assert len(uses_in(source)) == 1
        assert missing(uses_in(source), "tensorrt-11.4.0.106") == []

    @pytest.mark.parametrize(
        "source",
        [
            "if library.reports_progress:\n    trt.BuilderFlag.INT8",
            "if library.weakly_typed:\n    pass\ntrt.BuilderFlag.INT8",
            "if library.weakly_typed:\n    pass\nelse:\n    trt.BuilderFlag.INT8",
            "if other.weakly_typed:\n    trt.BuilderFlag.INT8",
        ],
    )
    def test_is_not_fooled(self, source: str) -> None:
        assert len(missing(uses_in(source), "tensorrt-11.4.0.106")) == 1


class TestFakes:
    """The fakes have the names of their version and no others."""

    @pytest.mark.parametrize("dump", DUMPS)
    def test_have_exactly_the_dumped_names(self, dump: str) -> None:
        module = module_of(dump)
        for name, entry in read_dump(dump)["api"].items():
            made = getattr(module, name)
            if "values" in entry:
                assert {key: int(value) for key, value in made.__members__.items()} == entry["values"]
            else:
                assert {key for key in dir(made) if not key.startswith("_")} == set(entry["members"])

    def test_refuse_other_names(self) -> None:
        library = fake_library("tensorrt-10.3.0")
        config = library.module.IBuilderConfig()
        with pytest.raises(AttributeError):
            config.max_workspace_size = 1
        with pytest.raises(AttributeError):
            _ = config.max_workspace_size
        with pytest.raises(AttributeError):
            _ = library.module.ComputeCapability

    @pytest.mark.skipif("tensorrt_rtx" not in " ".join(DUMPS), reason="no dump of TensorRT-RTX")
    def test_the_dump_is_the_installed_one(self) -> None:
        """Names that edgeseg uses exist in whatever TensorRT-RTX is installed."""
        rtx = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed (extra edgeseg[rtx])")
        library = fake_library("tensorrt_rtx-1.7.1.116")
        uses = [use for path in ADAPTER for use in uses_in(path.read_text("utf-8"))]
        reached = {use.name for use in uses if all(getattr(library, name) is truth for name, truth in use.guards)}
        for name in reached:
            found = rtx
            for part in name.split("."):
                assert hasattr(found, part), name
                found = getattr(found, part)
