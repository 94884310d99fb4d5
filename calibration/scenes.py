"""Rendered street scenes as a frame source: each frame is drawn when it is asked for. A test card, never real data."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
from numpy.typing import NDArray

from edgeseg.calibration.frames import Frame, evenly_spaced
from edgeseg.errors import UsageError, unknown_name
from edgeseg.scenes import Street, render
from edgeseg.scenes.camera import RATE
from edgeseg.scenes.render import LARGEST_SIDE, SMALLEST_SIDE

__all__ = ["RATE", "SceneFrame", "SceneFrames", "is_scene", "open_scene"]

_SCENES = ("street",)
_LARGEST = {"count": 1_000_000, "seed": 2**31 - 1, "streets": 1_000_000, "every": 100_000}
_EXAMPLE = "scene://street?count=64&seed=0&size=360x480"


@dataclass(frozen=True, eq=False)
class SceneFrame(Frame):
    """A rendered frame, which knows what is to be seen in it.

    Attributes:
        labels: (H, W) uint8, indices of CamVid's classes, 11 for void.
    """

    labels: NDArray[np.uint8]


@dataclass(frozen=True)
class SceneFrames:
    """Frames of drives along rendered streets; the same values give the same pixels.

    Attributes:
        count: frames in all.
        height, width: in pixels.
        seed: of the first street; the others have the numbers after it.
        streets: how many are visited, one after the other, each for the same number of frames or one more.
        every: frames of the drive, `RATE` a second, from one that is taken to the next.
        chosen: positions in 0..count - 1 that are there, ascending; None for all.
    """

    count: int = 64
    height: int = 360
    width: int = 480
    seed: int = 0
    streets: int = 1
    every: int = 1
    chosen: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for name, least in (("count", 1), ("seed", 0), ("streets", 1), ("every", 1)):
            value = getattr(self, name)
            if not least <= value <= _LARGEST[name]:
                raise UsageError(f"{name} of a scene must be {least} to {_LARGEST[name]}, but is {value}")
        if self.streets > self.count:
            raise UsageError(
                f"{self.count} frames cannot visit {self.streets} streets; give a count of at least {self.streets}"
            )
        if min(self.height, self.width) < SMALLEST_SIDE or max(self.height, self.width) > LARGEST_SIDE:
            raise UsageError(
                f"a scene has {SMALLEST_SIDE} to {LARGEST_SIDE} pixels a side, but {self.height}x{self.width} (height "
                "x width) was asked for"
            )

    def __len__(self) -> int:
        return len(self._positions)

    @property
    def _positions(self) -> range | tuple[int, ...]:
        return range(self.count) if self.chosen is None else self.chosen

    @property
    def names(self) -> tuple[str, ...]:
        """Seed of the street and number of the frame in its drive: street3_000012."""
        return tuple(self._name(*self._place(position)) for position in self._positions)

    @property
    def skipped(self) -> int:
        """No rendered frame is ever broken."""
        return 0

    def select(self, count: int) -> SceneFrames:
        """An evenly spaced subset; only its frames are rendered."""
        positions = self._positions
        return replace(self, chosen=tuple(positions[i] for i in evenly_spaced(len(positions), count)))

    def exclude(self, names: Collection[str]) -> SceneFrames:
        """All but the frames named."""
        pairs = zip(self._positions, self.names, strict=True)
        return replace(self, chosen=tuple(position for position, name in pairs if name not in names))

    def __iter__(self) -> Iterator[SceneFrame]:
        """Render the frames, one after the other."""
        for position in self._positions:
            seed, number = self._place(position)
            scene = render(Street(seed), number, self.height, self.width)
            yield SceneFrame(self._name(seed, number), scene.image, scene.labels)

    def _place(self, position: int) -> tuple[int, int]:
        """Seed of the street and number of the frame in its drive."""
        street = position * self.streets // self.count
        first = -(-street * self.count // self.streets)
        return self.seed + street, (position - first) * self.every

    @staticmethod
    def _name(seed: int, number: int) -> str:
        return f"street{seed}_{number:06d}"


def is_scene(spec: str | Path) -> bool:
    """Whether a user's words name a scene and not a file."""
    return str(spec).startswith("scene:/")


def open_scene(spec: str) -> SceneFrames:
    """The scene that an address names.

    Args:
        spec: scene://street, and after a ? any of count, seed, size (HEIGHTxWIDTH), streets and every, with & between
            them; see `SceneFrames`.

    Raises:
        UsageError: for an unknown scene or option, or a value that does not fit.
    """
    name, question, query = spec.partition("?")
    kind = name.removeprefix("scene:").strip("/")
    if kind not in _SCENES:
        raise UsageError(f"{unknown_name('scene', kind, _SCENES)}; write it as {_EXAMPLE}")
    values: dict[str, Any] = {}
    given: set[str] = set()
    for key, text in parse_qsl(query, keep_blank_values=True):
        if key not in (*_LARGEST, "size"):
            raise UsageError(f"{unknown_name('option of a scene', key, (*_LARGEST, 'size'))}; write it as {_EXAMPLE}")
        if key in given:
            raise UsageError(f"{spec} gives {key} twice; give it once")
        given.add(key)
        numbers = text.lower().split("x") if key == "size" else [text]
        if len(numbers) != (2 if key == "size" else 1) or not all(_is_number(n) for n in numbers):
            wanted = "HEIGHTxWIDTH in pixels, such as 360x480" if key == "size" else "a whole number"
            raise UsageError(f"{key} of a scene must be {wanted}, but is {text!r} in {spec}")
        names = ("height", "width") if key == "size" else (key,)
        values |= dict(zip(names, map(int, numbers), strict=True))
    if question and not given:
        raise UsageError(f"{spec} has no option after the ?; write it as {_EXAMPLE}")
    return SceneFrames(**values)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 10
