"""A backend without a library: its class of a pixel is the red channel divided by 64."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.backends import LayerProfile, Target, TensorSpec
from edgeseg.errors import EngineError, MissingDependencyError


class FakeEngine:
    """Gives (1, 4, h, w) logits of the frame's size; `before` is called with the frame in every run."""

    def __init__(self, height: int, width: int, before: Callable[[NDArray[Any]], None]) -> None:
        self.inputs = (TensorSpec("frame", (1, height, width, 3), "uint8"),)
        self.outputs = (TensorSpec("logits", (1, 4, height, width), "float32"),)
        self.before = before
        self.closed = 0

    def infer(self, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        if self.closed:
            raise EngineError("the fake engine is closed")
        self.before(arrays[0])
        wanted = arrays[0][:, None, :, :, 0] // 64
        return [(wanted == np.arange(4)[None, :, None, None]).astype(np.float32)]

    def profile(self) -> list[LayerProfile]:
        raise EngineError("the fake engine keeps no times")

    def close(self) -> None:
        self.closed += 1


class FakeBackend:
    """Compiles to the graph with a mark before it; `compiled` counts, `seconds` is the time of a run."""

    def __init__(self, name: str = "fake", size: tuple[int, int] = (8, 12), *, seconds: float = 0.0) -> None:
        self.name = name
        self.size = size
        self.seconds = seconds
        self.installed = True
        self.compiled: list[Target] = []
        self.engines: list[FakeEngine] = []
        self.before: Callable[[NDArray[Any]], None] = lambda frame: time.sleep(self.seconds)

    def version(self) -> str:
        if not self.installed:
            raise MissingDependencyError(self.name, "test", f"pip install {self.name}")
        return "1.0"

    def compile(self, model: bytes, target: Target) -> bytes:
        self.compiled.append(target)
        return b"compiled:" + model

    def load(self, engine: bytes, target: Target) -> FakeEngine:
        if not engine.startswith(b"compiled:"):
            raise EngineError("not compiled by the fake backend")
        self.engines.append(FakeEngine(*self.size, lambda frame: self.before(frame)))
        return self.engines[-1]
