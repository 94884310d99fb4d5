"""The names of TensorRT that a source file uses, and what must hold of the version where each is used."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = ["VARIABLES", "Use", "uses_in"]

VARIABLES = {
    "builder": "Builder",
    "config": "IBuilderConfig",
    "context": "IExecutionContext",
    "engine": "ICudaEngine",
    "inspector": "EngineInspector",
    "layer": "ILayer",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "profile": "IOptimizationProfile",
    "refusal": "ParserError",
    "runtime": "Runtime",
    "tensor": "ITensor",
}
"""What the adapter calls an object of which class."""

Guard = tuple[str, bool]
"""A capability of `Library`, and whether the version must have it."""


@dataclass(frozen=True)
class Use:
    """A name such as "BuilderFlag.INT8", its line, and what holds of the version there."""

    name: str
    line: int
    guards: tuple[Guard, ...]


def uses_in(source: str) -> list[Use]:
    """Every trt.X, trt.X.Y and attribute of a variable in VARIABLES, with the `if library.…` around and before it."""
    return list(_block(ast.parse(source).body, ()))


def _block(statements: Sequence[ast.stmt], guards: tuple[Guard, ...]) -> Iterator[Use]:
    for statement in statements:
        if isinstance(statement, ast.If):
            found = _guards(statement.test)
            yield from _expression(statement.test, guards)
            yield from _block(statement.body, guards + found)
            opposite = tuple((name, not truth) for name, truth in found) if len(found) == 1 else ()
            yield from _block(statement.orelse, guards + opposite)
            if isinstance(statement.body[-1], (ast.Return, ast.Raise)):
                guards += opposite
        else:
            blocks = [value for _, value in ast.iter_fields(statement) if _is_block(value)]
            inner = {id(child) for block in blocks for child in block}
            for child in ast.iter_child_nodes(statement):
                if id(child) not in inner:
                    yield from _expression(child, guards)
            for block in blocks:
                yield from _block(_statements(block), guards)


def _is_block(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], (ast.stmt, ast.ExceptHandler))


def _statements(block: Sequence[ast.AST]) -> list[ast.stmt]:
    found: list[ast.stmt] = []
    for child in block:
        found += child.body if isinstance(child, ast.ExceptHandler) else [child] if isinstance(child, ast.stmt) else []
    return found


def _guards(test: ast.expr) -> tuple[Guard, ...]:
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
        return tuple(guard for value in test.values for guard in _guards(value))
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        inner = _guards(test.operand)
        return tuple((name, not truth) for name, truth in inner) if len(inner) == 1 else ()
    if isinstance(test, ast.Attribute) and isinstance(test.value, ast.Name) and test.value.id == "library":
        return ((test.attr, True),)
    return ()


def _expression(node: ast.AST, guards: tuple[Guard, ...]) -> Iterator[Use]:
    inner = {id(child.value) for child in ast.walk(node) if isinstance(child, ast.Attribute)}
    for child in ast.walk(node):
        if isinstance(child, ast.Attribute) and id(child) not in inner:
            root, *parts = _chain(child)
            if root == "trt":
                public = [part for part in parts[:2] if not part.startswith("_")]  # no dump holds __init__
                yield Use(".".join(public), child.lineno, guards)
            elif root in VARIABLES:
                yield Use(f"{VARIABLES[root]}.{parts[0]}", child.lineno, guards)


def _chain(node: ast.expr) -> list[str]:
    """["trt", "BuilderFlag", "INT8"]; [""] for what does not start at a variable."""
    if isinstance(node, ast.Attribute):
        found = _chain(node.value)
        return [*found, node.attr] if found != [""] else found
    return [node.id] if isinstance(node, ast.Name) else [""]
