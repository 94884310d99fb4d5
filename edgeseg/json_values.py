"""Plain JSON into frozen values: every field is checked, and none may be missing or unknown."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from edgeseg.errors import BundleError

__all__ = ["read_value"]


def read_value(kind: Any, value: Any, where: str) -> Any:
    """Turn plain JSON into a value.

    Args:
        kind: its type: a dataclass of such types, Literal, None or another, tuple, dict by text, float, int, str, bool.
        value: what JSON gave.
        where: its name in messages.

    Raises:
        BundleError: for a value of another type, and a field that is missing, unknown or out of its range.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _read_dataclass(kind, value, where)
    if origin is Literal:
        if value not in arguments:
            raise BundleError(f"{where} must be one of {', '.join(map(str, arguments))}, but is {value!r}")
        return value
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return read_value(next(a for a in arguments if a is not type(None)), value, where)
    if origin is tuple and isinstance(value, list):
        if arguments[-1] is Ellipsis:
            return tuple(read_value(arguments[0], v, f"{where}[{i}]") for i, v in enumerate(value))
        if len(value) == len(arguments):
            return tuple(
                read_value(a, v, f"{where}[{i}]") for i, (a, v) in enumerate(zip(arguments, value, strict=True))
            )
    if origin is dict and isinstance(value, dict):
        return {str(k): read_value(arguments[1], v, f"{where}.{k}") for k, v in value.items()}
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if kind in (int, str) and isinstance(value, kind) and not isinstance(value, bool):
        return value
    if kind is bool and isinstance(value, bool):
        return value
    raise BundleError(f"{where} must be {typing.cast(Any, kind)}, but is {value!r}; convert the network again")


def _read_dataclass(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise BundleError(f"{where} must be an object, but is {value!r}; convert the network again")
    hints = get_type_hints(kind)
    known = {f.name: f for f in dataclasses.fields(kind)}
    unknown = sorted(set(value) - set(known))
    if unknown:
        raise BundleError(f"{where} has unknown fields {', '.join(unknown)}; convert the network again")
    required = {n for n, f in known.items() if f.default is f.default_factory is dataclasses.MISSING}
    missing = sorted(required - set(value))
    if missing:
        raise BundleError(f"{where} lacks {', '.join(missing)}; convert the network again")
    try:
        return kind(**{name: read_value(hints[name], v, f"{where}.{name}") for name, v in value.items()})
    except (OverflowError, TypeError, ValueError) as error:
        raise BundleError(f"{where} is not valid ({error}); convert the network again") from error
