"""Class names, colours and the ignore index of a data set, and the mapping of one data set's classes to another's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeseg.errors import LabelError, unknown_name

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["PRESETS", "UNMAPPED", "ClassMapping", "LabelSet", "load_labels", "load_mapping", "parse_labels"]

PRESETS = ("ade20k", "camvid", "cityscapes", "voc")
UNMAPPED = 255
"""Value that a mapping gives to a class without a counterpart: a prediction of it is never correct."""


@dataclass(frozen=True)
class LabelSet:
    """The classes of a network or a data set.

    Attributes:
        names: class names by index.
        palette: (red, green, blue), 0..255, by index.
        ignore_index: value in label images that no score counts; None where every pixel is labelled.
        background: index of a channel that stands for no class (void), as some networks have as their last; its
            predictions are never correct. The last channel, or the one of ignore_index. None where every channel is a
            class.
    """

    names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    ignore_index: int | None = 255
    background: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= len(self.names) <= 255:
            raise LabelError(f"a label set has 1 to 255 classes, but got {len(self.names)}")
        if len(self.palette) != len(self.names):
            raise LabelError(f"{len(self.names)} class names need as many colours, but got {len(self.palette)}")
        twice = sorted({n for n in self.names if self.names.count(n) > 1})
        if twice:
            raise LabelError(f"class names must differ, but these come twice: {', '.join(twice)}")
        if any(not 0 <= v <= 255 for colour in self.palette for v in colour):
            raise LabelError("colours must be 0..255")
        if not _is_index(self.ignore_index, 256):
            raise LabelError(f"ignore_index must be 0..255 or null, but is {self.ignore_index!r}")
        if not _is_index(self.background, len(self.names)):
            raise LabelError(
                f"background must be the index of one of the {len(self.names)} classes or null, "
                f"but is {self.background!r}"
            )
        if self.background not in (None, len(self.names) - 1, self.ignore_index):
            raise LabelError(
                f"background must be the last of the {len(self.names)} classes or the ignore_index, but is "
                f"{self.background}: labels of it would count as right"
            )

    def __len__(self) -> int:
        return len(self.names)

    def index(self, name: str) -> int:
        """Index of a class by name.

        Raises:
            LabelError: for an unknown name, with the nearest spelling.
        """
        if name not in self.names:
            raise LabelError(unknown_name("class", name, self.names))
        return self.names.index(name)

    def colors(self) -> NDArray[np.uint8]:
        """The palette as a (256, 3) uint8 RGB table; indices beyond the classes are black."""
        import numpy as np

        table = np.zeros((256, 3), np.uint8)
        table[: len(self.palette)] = self.palette
        return table

    def listing(self) -> dict[str, Any]:
        """The label set as its JSON file holds it."""
        named = enumerate(zip(self.names, self.palette, strict=True))
        classes = [{"id": index, "name": name, "color": list(color)} for index, (name, color) in named]
        return {"classes": classes, "ignore_index": self.ignore_index, "background": self.background}

    def for_channels(self, channels: int) -> LabelSet:
        """The label set of a network with this many output channels; one channel more than classes is its void.

        Raises:
            LabelError: when the number of channels fits neither.
        """
        if channels == len(self):
            return self
        if channels == len(self) + 1 and self.background is None:
            name = next(n for n in ("void", "background", "unlabelled") if n not in self.names)
            return LabelSet((*self.names, name), (*self.palette, (0, 0, 0)), self.ignore_index, len(self))
        raise LabelError(
            f"the network has {channels} output channels, but the label set has {len(self)} classes; "
            f"give --classes with {channels} names (or {channels - 1} and a last channel for void)"
        )

    def classes(self) -> LabelSet:
        """This set without a void channel at its end: what is labelled and scored (not an ignored one)."""
        if self.background is None or self.background != len(self) - 1:
            return self
        return LabelSet(self.names[:-1], self.palette[:-1], self.ignore_index)

    @classmethod
    def numbered(cls, channels: int) -> LabelSet:
        """Classes named class0, class1, ... with well separated colours (the VOC bit pattern), for a network whose
        classes nobody named."""
        palette = []
        for index in range(channels):
            red = green = blue = 0
            for bit in range(8):
                red |= (index >> (3 * bit) & 1) << (7 - bit)
                green |= (index >> (3 * bit + 1) & 1) << (7 - bit)
                blue |= (index >> (3 * bit + 2) & 1) << (7 - bit)
            palette.append((red, green, blue))
        return cls(tuple(f"class{i}" for i in range(channels)), tuple(palette))


def _is_index(value: object, count: int) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and 0 <= value < count)


@dataclass(frozen=True)
class ClassMapping:
    """Brings the class indices of one label set to another's.

    Attributes:
        table: target index by source index; UNMAPPED where the source class has no counterpart.
        target: the label set that the table leads to.
    """

    table: tuple[int, ...]
    target: LabelSet

    def __call__(self, class_map: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Map a uint8 class map of any shape; indices beyond the table become UNMAPPED."""
        import numpy as np

        full = np.full(256, UNMAPPED, np.uint8)
        full[: len(self.table)] = self.table
        return full[class_map]


def load_labels(name: str | Path) -> LabelSet:
    """A preset by name, or a JSON file.

    The file holds a list of {"id", "name", "color": [r, g, b]}, or an object with that list as "classes" and
    optionally "ignore_index" (255 unless given, null for none) and "background" (index of a void channel).

    Raises:
        LabelError: for an unknown preset or a file that does not fit.
    """
    if str(name) in PRESETS:
        text = resources.files("edgeseg").joinpath("label_sets").joinpath(f"{name}.json").read_text("utf-8")
        return parse_labels(json.loads(text), str(name))
    path = Path(name)
    if path.suffix != ".json":
        raise LabelError(unknown_name("label set", str(name), PRESETS) + "; or give a .json file")
    return parse_labels(_read_json(path), str(path))


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise LabelError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise LabelError(f"{path} is not JSON: {error}") from error


def parse_labels(data: Any, where: str) -> LabelSet:
    """A label set from what JSON gave for its file, see `load_labels`.

    Args:
        data: the list, or the object that holds it.
        where: what it was read from, for messages.

    Raises:
        LabelError: for data that does not fit.
    """
    wanted = 'expected a list of {"id": 0, "name": "road", "color": [128, 64, 128]}'
    listing: Any = data.get("classes") if isinstance(data, dict) else data
    options: dict[str, Any] = data if isinstance(data, dict) else {}
    if not isinstance(listing, list) or not all(isinstance(c, dict) for c in listing):
        raise LabelError(f"{where} is no label set: {wanted}")
    try:
        entries = sorted(listing, key=lambda c: int(c["id"]))
        if [int(c["id"]) for c in entries] != list(range(len(entries))):
            raise LabelError(f"{where}: ids must run from 0 without a gap, but are {[c['id'] for c in entries]}")
        palette = tuple((int(r), int(g), int(b)) for r, g, b in (c["color"] for c in entries))
        names = tuple(str(c["name"]) for c in entries)
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        raise LabelError(f"{where} is no label set ({error!r}): {wanted}") from error
    return LabelSet(names, palette, options.get("ignore_index", 255), options.get("background"))


_MAPPINGS: dict[tuple[str, str], Sequence[int]] = {
    # Cityscapes train ids to the eleven CamVid classes; what CamVid does not name goes to the nearest thing it does.
    ("cityscapes", "camvid"): (3, 4, 1, 1, 7, 2, 6, 6, 5, 5, 0, 9, 10, 8, 8, 8, 8, 10, 10),
}


def load_mapping(spec: str, source: LabelSet) -> ClassMapping:
    """A mapping by name ("cityscapes:camvid") or from a JSON file.

    The file holds {"to": preset or label file, "map": {source class name: target class name, or null for none}}; a
    source class that it does not name is unmapped.

    Args:
        spec: the name or the path.
        source: the label set of the network, whose void channel is always unmapped.

    Raises:
        LabelError: for an unknown mapping or class, or when the mapping does not fit the network's classes.
    """
    if not spec.endswith(".json"):
        first, _, second = spec.partition(":")
        if (first, second) not in _MAPPINGS:
            known = (":".join(pair) for pair in _MAPPINGS)
            raise LabelError(unknown_name("mapping", spec, known) + "; or give a .json file")
        table = _MAPPINGS[first, second]
        if source.classes().names != load_labels(first).names:
            raise LabelError(
                f"the mapping {spec} is for the classes of {first}, but the network has others: {source.names}"
            )
        return ClassMapping((*table, *[UNMAPPED] * (len(source) - len(table))), load_labels(second))
    data = _read_json(Path(spec))
    if not isinstance(data, dict) or not isinstance(data.get("map"), dict) or not isinstance(data.get("to"), str):
        raise LabelError(f'{spec} is no mapping: expected {{"to": "camvid", "map": {{"sidewalk": "pavement"}}}}')
    target = load_labels(data["to"])
    values = [UNMAPPED] * len(source)
    for name, other in data["map"].items():
        values[source.index(name)] = UNMAPPED if other is None else target.index(str(other))
    return ClassMapping(tuple(values), target)
