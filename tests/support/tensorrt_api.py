"""The dumped names of TensorRT's versions, and module objects that have exactly those."""

from __future__ import annotations

import enum
import json
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["API_FOLDER", "DUMPS", "VERSIONS", "Severity", "has_name", "module_of", "read_dump"]

API_FOLDER = Path(__file__).resolve().parent.parent / "edgeseg" / "backends" / "tensorrt" / "api"
DUMPS = tuple(sorted(path.stem for path in API_FOLDER.glob("*.json")))
"""Such as "tensorrt-10.3.0" and "tensorrt_rtx-1.7.1.116"."""

VERSIONS = tuple(name for name in DUMPS if name.startswith("tensorrt-"))
"""Those of full TensorRT."""


class _Number(enum.Enum):
    """An enumeration as pybind11 makes it: it has a name, and int() gives its value."""

    def __int__(self) -> int:
        return int(self.value)


class Severity(enum.Enum):
    """ILogger.Severity, the same in every version."""

    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3
    VERBOSE = 4


@cache
def read_dump(name: str) -> dict[str, Any]:
    """Names by class or enumeration, and the version."""
    dump: dict[str, Any] = json.loads((API_FOLDER / f"{name}.json").read_text("utf-8"))
    return dump


def has_name(dump: dict[str, Any], dotted: str) -> bool:
    """Whether a version has a name such as "BuilderFlag.INT8" or "Builder"."""
    first, _, rest = dotted.partition(".")
    entry = dump["api"].get(first)
    return entry is not None and (not rest or rest in entry.get("values", {}) or rest in entry.get("members", ()))


class Strict:
    """An object that has the members of its class and no others, as pybind11's objects do.

    A class of Python's that is derived from it may have more, as there.
    """

    _members: frozenset[str] = frozenset()

    def __setattr__(self, name: str, value: object) -> None:
        if type(self).__dict__.get("_fake") and not name.startswith("_") and name not in self._members:
            raise AttributeError(f"{type(self).__name__} has no attribute {name}")
        object.__setattr__(self, name, value)


def module_of(name: str, behaviour: dict[str, type] | None = None) -> ModuleType:
    """A module with the names of a dump.

    Args:
        name: one of DUMPS.
        behaviour: what a class's members do, as a class by the name of TensorRT's; what the version does not have of it
            is left out, and what it has beyond it raises NotImplementedError.
    """
    dump = read_dump(name)
    module = ModuleType(name.partition("-")[0])
    vars(module)["__version__"] = dump["version"]
    for key, entry in dump["api"].items():
        made: Any = (
            _Number(key, entry["values"])  # type: ignore[arg-type]
            if "values" in entry
            else _strict_class(key, frozenset(entry["members"]), (behaviour or {}).get(key))
        )
        setattr(module, key, made)
    return module


def _strict_class(name: str, members: frozenset[str], behaviour: type | None) -> type:
    namespace: dict[str, Any] = {"_members": members, "_fake": True}
    if name == "ILogger":
        namespace["Severity"] = Severity
    for member in members - set(namespace):
        namespace[member] = _Unknown(f"{name}.{member}")
    for base in reversed(behaviour.__mro__[:-1] if behaviour else ()):
        for member, value in vars(base).items():
            if member in members or (
                member.startswith("_") and member not in ("__dict__", "__weakref__", "__module__")
            ):
                namespace[member] = value
    return type(name, (Strict,), namespace)


class _Unknown:
    """A member that the version has and the fake does not play; it may be set, and then reads as set."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: type) -> Any:
        if instance is None:
            return self
        raise NotImplementedError(f"the fake does not play {self._name}")
