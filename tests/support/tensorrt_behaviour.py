"""How a fake TensorRT behaves, and what all fakes of one module know."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

from support.tensorrt_api import Severity, read_dump

__all__ = ["MAGIC", "Behaviour", "Refusal", "Shared"]

MAGIC = b"fake plan "


@dataclass(frozen=True)
class Refusal:
    """What the parser says of a node, and what it logs beside it."""

    text: str
    node: str = "deform"
    operator: str = "DeformConv"
    index: int = 7
    logged: str = ""


@dataclass(frozen=True)
class Behaviour:
    """How a fake differs from one that works.

    Attributes:
        gpu: whether there is one.
        refusals: of the parser.
        silent_refusal: refuse without a word.
        failure: the builder's error, which then gives nothing.
        logged: messages (severity, text) of every build.
        float_nodes: convolutions that run in float whatever the graph says.
        dla_cores: of the board.
        takes_timings: whether a stored timing cache fits.
        loads: whether a plan loads.
        crash: called in the middle of a build.
        run: called with a context and a stream to run an engine; says whether it was taken.
    """

    gpu: bool = True
    refusals: tuple[Refusal, ...] = ()
    silent_refusal: bool = False
    failure: str = ""
    logged: tuple[tuple[str, str], ...] = ()
    float_nodes: frozenset[str] = frozenset()
    dla_cores: int = 2
    takes_timings: bool = True
    loads: bool = True
    crash: Any = None
    run: Any = None


class Shared:
    """What all fakes of one module know."""

    def __init__(self, module: ModuleType, behaviour: Behaviour, name: str) -> None:
        self.module: Any = module
        self.behaviour = behaviour
        self.major = int(str(read_dump(name)["version"]).partition(".")[0])
        self.rtx = name.startswith("tensorrt_rtx")

    def flag(self, flags: int, name: str) -> bool:
        found = getattr(self.module.NetworkDefinitionCreationFlag, name, None)
        return found is not None and bool(flags >> int(found) & 1)

    def no_gpu(self, logger: Any) -> None:
        if not self.behaviour.gpu and not self.rtx:
            logger.log(Severity.ERROR, "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")
