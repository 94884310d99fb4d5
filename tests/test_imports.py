"""Who imports whom: DESIGN's table, held against every module; and what every source file owes its reader."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgeseg.backends import BACKENDS

REPOSITORY = Path(__file__).resolve().parent.parent

FOLDERS = {
    "edgeseg": "edgeseg",
    "edgeseg.calibration": "calibration",
    "edgeseg.converters": "converters",
    "edgeseg.apps": "apps",
}
"""Source folder by package, as setup.cfg's package_dir has it."""

ENGINES = frozenset({"cv2", "cuda", "numba", "onnxruntime", "openvino", "tensorrt", "tensorrt_rtx"})
GRAPH = frozenset({"numpy", "onnx", "google"})
"""onnx brings protobuf (google.protobuf), whose exceptions it lets through."""


@dataclass(frozen=True)
class Rule:
    """What the modules under a package may import.

    Attributes:
        top: libraries at the top of a module; the standard library is always allowed.
        lazy: libraries inside functions and under TYPE_CHECKING only.
        never: edgeseg's own packages that these modules do not name.
        anything: every library, anywhere.
    """

    top: frozenset[str] = frozenset()
    lazy: frozenset[str] = frozenset()
    never: tuple[str, ...] = ()
    anything: bool = False

    def allows(self, library: str, *, lazy: bool) -> bool:
        if self.anything or library in sys.stdlib_module_names or library in self.top:
            return True
        return lazy and library in self.lazy


TOOLS = ("edgeseg.calibration", "edgeseg.converters", "edgeseg.apps")
RUNTIME = ("edgeseg.segmenter", "edgeseg.backends")
RULES = {
    "edgeseg": Rule(frozenset({"numpy"}), ENGINES, (*TOOLS, "edgeseg.models", "edgeseg.training")),
    "edgeseg.calibration": Rule(GRAPH, ENGINES, ("edgeseg.converters", "edgeseg.apps")),
    "edgeseg.converters": Rule(GRAPH, ENGINES | {"onnxsim"}, ("edgeseg.apps",)),
    "edgeseg.converters.export": Rule(GRAPH | {"torch"}, ENGINES | {"onnxsim"}, ("edgeseg.apps",)),
    "edgeseg.models": Rule(frozenset({"numpy", "torch"}), never=RUNTIME),
    "edgeseg.training": Rule(GRAPH | {"torch"}, ENGINES, (*RUNTIME, "edgeseg.apps")),
    "edgeseg.apps": Rule(anything=True),
}
"""DESIGN's table; the longest package that holds a module is its row."""

ENGINE_MODULES = {".".join(entry.partition(":")[0].split(".")[:3]) for entry in BACKENDS.values()}
"""The modules of the registered backends; other modules beside them are shared by all."""

ENTRY_POINT = "edgeseg.__main__"
"""The one module of the device side that starts the command line, by name and not by import."""


@dataclass(frozen=True)
class Import:
    """One imported name: its full dotted module, its line, and whether importing the file runs it."""

    module: str
    line: int
    lazy: bool


def rule_of(module: str) -> Rule:
    return RULES[max((name for name in RULES if f"{module}.".startswith(f"{name}.")), key=len)]


def imports_of(tree: ast.Module) -> Iterator[Import]:
    """Every import, also inside functions, under TYPE_CHECKING and through import_module("...")."""
    waiting: list[tuple[ast.AST, bool]] = [(tree, False)]
    while waiting:
        node, lazy = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = "." * node.level + (node.module or "")
            yield Import(start, node.lineno, lazy)
            yield from (Import(f"{start}.{alias.name}", node.lineno, lazy) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            names = [argument.value for argument in node.args[:1] if isinstance(argument, ast.Constant)]
            yield from (Import(str(name), node.lineno, lazy) for name in names)
        inner = lazy or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        inner = inner or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        waiting.extend((child, inner) for child in ast.iter_child_nodes(node))


def violations(module: str, source: str) -> list[str]:
    """What `module` imports against the table."""
    rule, found = rule_of(module), set()
    for entry in imports_of(ast.parse(source)):
        root, where = entry.module.split(".")[0], f"{module}:{entry.line}"
        if entry.module.startswith("."):
            found.add(f"{where} imports relatively")
        elif root == "edgeseg":
            if any(f"{entry.module}.".startswith(f"{name}.") for name in rule.never) and module != ENTRY_POINT:
                found.add(f"{where} imports {entry.module}")
            if other_backend(module, entry.module):
                found.add(f"{where} imports another backend, {entry.module}")
        elif not rule.allows(root, lazy=entry.lazy):
            found.add(f"{where} imports {root}" + (" outside a function" if root in rule.lazy else ""))
    return sorted(found)


def other_backend(module: str, imported: str) -> bool:
    """Whether a module under edgeseg.backends imports a backend other than itself."""
    here, there = (".".join(name.split(".")[:3]) for name in (module, imported))
    return here.startswith("edgeseg.backends.") and there in ENGINE_MODULES and there != here


def sources() -> dict[str, Path]:
    """Path of every module of the package by its dotted name."""
    found = {}
    for package, folder in FOLDERS.items():
        for path in sorted((REPOSITORY / folder).rglob("*.py")):
            parts = path.relative_to(REPOSITORY / folder).with_suffix("").parts
            found[".".join((package, *(part for part in parts if part != "__init__")))] = path
    return found


SOURCES = sources()


@pytest.mark.parametrize("module", SOURCES)
class TestModule:
    def test_imports_what_the_table_allows(self, module: str) -> None:
        assert violations(module, SOURCES[module].read_text("utf-8")) == []

    def test_says_what_it_is_for(self, module: str) -> None:
        assert ast.get_docstring(ast.parse(SOURCES[module].read_text("utf-8")))

    def test_does_one_thing(self, module: str) -> None:
        assert len(SOURCES[module].read_text("utf-8").splitlines()) <= 400, "look for a second thing inside"

    def test_defines_what_it_exports(self, module: str) -> None:
        assert undefined_exports(SOURCES[module].read_text("utf-8")) == []

    def test_takes_only_what_others_export(self, module: str) -> None:
        assert private_uses(SOURCES[module].read_text("utf-8"), EXPORTED) == []


def exports(source: str) -> set[str] | None:
    """The names in a module's `__all__`; None for a module without."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return None


def undefined_exports(source: str) -> list[str]:
    """Names that `__all__` promises and the module lacks."""
    bound = set()
    for node in ast.parse(source).body:
        for part in ast.walk(node):
            if isinstance(part, (ast.Import, ast.ImportFrom)):
                bound |= {alias.asname or alias.name for alias in part.names}
            elif isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and part is node:
                bound.add(part.name)
            elif isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                bound.add(part.id)
    return sorted((exports(source) or set()) - bound)


def private_uses(source: str, exported: dict[str, set[str] | None]) -> list[str]:
    """Names that a module imports from another of edgeseg's that does not export them."""
    used = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (names := exported.get(node.module or "")) is not None:
            used += [f"{node.module}.{alias.name}" for alias in node.names if alias.name not in names]
    return sorted(name for name in used if name not in exported)


EXPORTED = {name: exports(path.read_text("utf-8")) for name, path in SOURCES.items()}


class TestChecker:
    """The checks above find what they are for."""

    @pytest.mark.parametrize(
        ("module", "source", "message"),
        [
            ("edgeseg.segmenter", "import torch", "edgeseg.segmenter:1 imports torch"),
            ("edgeseg.segmenter", "def f():\n    import onnx", "edgeseg.segmenter:2 imports onnx"),
            ("edgeseg.segmenter", "import cv2", "edgeseg.segmenter:1 imports cv2 outside a function"),
            ("edgeseg.segmenter", "class A:\n    import cv2", "edgeseg.segmenter:2 imports cv2 outside a function"),
            ("edgeseg.segmenter", "from edgeseg import converters", "edgeseg.segmenter:1 imports edgeseg.converters"),
            ("edgeseg.metrics", "import_module('edgeseg.apps.cli')", "edgeseg.metrics:1 imports edgeseg.apps.cli"),
            ("edgeseg.metrics", "from . import labels", "edgeseg.metrics:1 imports relatively"),
            ("edgeseg.calibration.frames", "import onnxsim", "edgeseg.calibration.frames:1 imports onnxsim"),
            ("edgeseg.converters.load", "import torch", "edgeseg.converters.load:1 imports torch"),
            ("edgeseg.converters.exporter", "import torch", "edgeseg.converters.exporter:1 imports torch"),
            ("edgeseg.models.espnet", "import edgeseg.backends", "edgeseg.models.espnet:1 imports edgeseg.backends"),
            (
                "edgeseg.backends.openvino",
                "from edgeseg.backends import onnxruntime",
                "edgeseg.backends.openvino:1 imports another backend, edgeseg.backends.onnxruntime",
            ),
        ],
    )
    def test_finds(self, module: str, source: str, message: str) -> None:
        assert message in violations(module, source)

    @pytest.mark.parametrize(
        ("module", "source"),
        [
            ("edgeseg.segmenter", "import json\nimport numpy as np\ndef f():\n    import cv2"),
            ("edgeseg.segmenter", "if TYPE_CHECKING:\n    import openvino"),
            ("edgeseg.backends.openvino", "from edgeseg.backends import TensorSpec"),
            ("edgeseg.backends.openvino", "from edgeseg.backends.arrays import contiguous"),
            ("edgeseg.__main__", "import_module('edgeseg.apps.cli')"),
            ("edgeseg.calibration.frames", "import onnx\nfrom edgeseg.errors import FrameError"),
            ("edgeseg.converters.export", "import torch"),
            ("edgeseg.apps.cli", "import rich\nimport edgeseg.converters"),
        ],
    )
    def test_allows(self, module: str, source: str) -> None:
        assert violations(module, source) == []

    def test_knows_every_folder(self) -> None:
        assert {"edgeseg", "edgeseg.calibration", "edgeseg.converters", "edgeseg.apps", "edgeseg.backends"} <= set(
            SOURCES
        )

    def test_compares_exports(self) -> None:
        source = "from x import b\n__all__ = ['A', 'a', 'b', 'c']\nclass A:\n    def a(self): ...\nc = 1"
        assert exports(source) == {"A", "a", "b", "c"}
        assert undefined_exports(source) == ["a"]
        assert undefined_exports("def f(): ...") == []

    def test_finds_private_uses(self) -> None:
        known = {"edgeseg.a": {"f"}, "edgeseg.a.b": None}
        assert private_uses("from edgeseg.a import b, f", known) == []
        assert private_uses("from edgeseg.a import _g, h", known) == ["edgeseg.a._g", "edgeseg.a.h"]
