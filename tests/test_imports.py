"""Who imports whom: DESIGN's table, held against every module; and what every source file owes its reader."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

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
    "edgeseg.training": Rule(frozenset({"numpy", "torch"}), ENGINES, (*RUNTIME, "edgeseg.apps")),
    "edgeseg.apps": Rule(anything=True),
}
"""DESIGN's table; the longest package that holds a module is its row."""

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


def violations(module: str, source: str, modules: frozenset[str] = frozenset()) -> list[str]:
    """What `module` imports against the table.

    `modules` are all that exist: they tell a backend from another name of the seam.
    """
    rule, found = rule_of(module), set()
    for entry in imports_of(ast.parse(source)):
        root, where = entry.module.split(".")[0], f"{module}:{entry.line}"
        if entry.module.startswith("."):
            found.add(f"{where} imports relatively")
        elif root == "edgeseg":
            if any(f"{entry.module}.".startswith(f"{name}.") for name in rule.never) and module != ENTRY_POINT:
                found.add(f"{where} imports {entry.module}")
            if other_backend(module, entry.module, modules):
                found.add(f"{where} imports another backend, {entry.module}")
        elif not rule.allows(root, lazy=entry.lazy):
            found.add(f"{where} imports {root}" + (" outside a function" if root in rule.lazy else ""))
    return sorted(found)


def other_backend(module: str, imported: str, modules: frozenset[str]) -> bool:
    """Whether a backend imports from a backend's file other than its own."""
    here, there = module.split(".")[:3], imported.split(".")[:3]
    seam = ["edgeseg", "backends"]
    both = here[:2] == there[:2] == seam and here != seam != there
    return both and here != there and ".".join(there) in modules


def sources() -> dict[str, Path]:
    """Path of every module of the package by its dotted name."""
    found = {}
    for package, folder in FOLDERS.items():
        for path in sorted((REPOSITORY / folder).rglob("*.py")):
            parts = path.relative_to(REPOSITORY / folder).with_suffix("").parts
            found[".".join((package, *(part for part in parts if part != "__init__")))] = path
    return found


SOURCES = sources()
MODULES = frozenset(SOURCES)


@pytest.mark.parametrize("module", SOURCES)
class TestModule:
    def test_imports_what_the_table_allows(self, module: str) -> None:
        assert violations(module, SOURCES[module].read_text("utf-8"), MODULES) == []

    def test_says_what_it_is_for(self, module: str) -> None:
        assert ast.get_docstring(ast.parse(SOURCES[module].read_text("utf-8")))

    def test_does_one_thing(self, module: str) -> None:
        assert len(SOURCES[module].read_text("utf-8").splitlines()) <= 400, "look for a second thing inside"

    def test_exports_what_it_says(self, module: str) -> None:
        assert export_errors(SOURCES[module].read_text("utf-8")) == []


def export_errors(source: str) -> list[str]:
    """Names that `__all__` promises and the module lacks, and public classes and functions that it keeps back."""
    tree = ast.parse(source)
    promised: list[str] | None = None
    bound, own = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            bound |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            own.add(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value:
            names = {
                part.id for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)
            }
            bound |= names
            promised = list(ast.literal_eval(node.value)) if "__all__" in names else promised
    if promised is None:
        return []
    missing = [f"{name} is in __all__, but is not defined" for name in sorted(set(promised) - bound - own)]
    kept = sorted(name for name in own - set(promised) if not name.startswith("_"))
    return missing + [f"{name} is public, but is not in __all__" for name in kept]


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
        known = frozenset({"edgeseg.backends.openvino", "edgeseg.backends.onnxruntime"})
        assert message in violations(module, source, known)

    @pytest.mark.parametrize(
        ("module", "source"),
        [
            ("edgeseg.segmenter", "import json\nimport numpy as np\ndef f():\n    import cv2"),
            ("edgeseg.segmenter", "if TYPE_CHECKING:\n    import openvino"),
            ("edgeseg.backends.openvino", "from edgeseg.backends import TensorSpec"),
            ("edgeseg.__main__", "import_module('edgeseg.apps.cli')"),
            ("edgeseg.calibration.frames", "import onnx\nfrom edgeseg.errors import FrameError"),
            ("edgeseg.converters.export", "import torch"),
            ("edgeseg.apps.cli", "import rich\nimport edgeseg.converters"),
        ],
    )
    def test_allows(self, module: str, source: str) -> None:
        assert violations(module, source, MODULES) == []

    def test_knows_every_folder(self) -> None:
        assert {"edgeseg", "edgeseg.calibration", "edgeseg.converters", "edgeseg.apps", "edgeseg.backends"} <= MODULES

    def test_compares_exports(self) -> None:
        assert export_errors("__all__ = ['a', 'b', 'C']\nfrom x import b\nclass C: ...") == [
            "a is in __all__, but is not defined"
        ]
        assert export_errors("__all__ = []\ndef f(): ...\ndef _g(): ...") == ["f is public, but is not in __all__"]
        assert export_errors("def f(): ...") == []
