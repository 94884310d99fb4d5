"""What a network says of itself in its ONNX metadata: how frames were normalised, its classes, its name and licence.

The keys are `edgeseg.name`, `edgeseg.licence` and `edgeseg.color_order` (plain text), `edgeseg.mean` and `edgeseg.std`
(JSON, three numbers in units of 0..255) and `edgeseg.classes` (JSON, a label set as its file holds it).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import onnx

from edgeseg.errors import LabelError, ModelError
from edgeseg.labels import LabelSet, parse_labels

__all__ = ["NetworkMetadata", "read_metadata", "write_metadata"]

Triple = tuple[float, float, float]

_PREFIX = "edgeseg."


@dataclass(frozen=True)
class NetworkMetadata:
    """What a network says of itself; None where it does not.

    Attributes:
        color_order: channel order of its input.
        mean, std: per channel in that order, in units of 0..255; the network was trained on (x - mean) / std. Both or
            neither.
        classes: the classes of its logits.
        licence: licence of its weights.
        name: a short name.
    """

    color_order: Literal["RGB", "BGR"] | None = None
    mean: Triple | None = None
    std: Triple | None = None
    classes: LabelSet | None = None
    licence: str | None = None
    name: str | None = None

    def summary(self) -> dict[str, Any]:
        """The values that are there, as JSON holds them."""
        values = asdict(self) | {"classes": self.classes.listing() if self.classes else None}
        return {key: value for key, value in values.items() if value is not None}


def write_metadata(model: onnx.ModelProto, metadata: NetworkMetadata) -> None:
    """Put the metadata into a model in place of what stood there; entries of other programs stay."""
    kept = [entry for entry in model.metadata_props if not entry.key.startswith(_PREFIX)]
    values = {e.key: e.value for e in kept}
    for key, value in metadata.summary().items():
        values[_PREFIX + key] = value if isinstance(value, str) else json.dumps(value)
    onnx.helper.set_model_props(model, values)


def read_metadata(model: onnx.ModelProto, source: str) -> NetworkMetadata:
    """Read what `write_metadata` wrote.

    Args:
        model: any ONNX model.
        source: the file's name, for messages.

    Raises:
        ModelError: for an unknown key under `edgeseg.` or a value that is not what its key must hold.
    """
    stated = {e.key.removeprefix(_PREFIX): e.value for e in model.metadata_props if e.key.startswith(_PREFIX)}
    unknown = sorted(stated.keys() - NetworkMetadata.__dataclass_fields__.keys())
    if unknown:
        raise _wrong(source, unknown[0], f"one of {', '.join(NetworkMetadata.__dataclass_fields__)}", unknown[0])
    if ("mean" in stated) != ("std" in stated):
        raise ModelError(
            f"{source}: its metadata has only one of {_PREFIX}mean and {_PREFIX}std, expected both; export it again"
        )
    for key in ("name", "licence"):
        if key in stated and not stated[key].strip():
            raise _wrong(source, key, "a text", stated[key])
    return NetworkMetadata(
        color_order=_color_order(stated, source),
        mean=_triple(stated, "mean", source),
        std=_triple(stated, "std", source),
        classes=_classes(stated, source),
        licence=stated.get("licence"),
        name=stated.get("name"),
    )


def _wrong(source: str, key: str, expected: str, found: str) -> ModelError:
    shown = found if len(found) <= 60 else f"{found[:57]}..."
    return ModelError(
        f"{source}: {_PREFIX}{key} in its metadata must be {expected}, but is {shown!r}; export it again or take the "
        "entry out"
    )


def _color_order(stated: Mapping[str, str], source: str) -> Literal["RGB", "BGR"] | None:
    value = stated.get("color_order")
    orders: dict[str | None, Literal["RGB", "BGR"] | None] = {None: None, "RGB": "RGB", "BGR": "BGR"}
    if value not in orders:
        raise _wrong(source, "color_order", "RGB or BGR", str(value))
    return orders[value]


def _triple(stated: Mapping[str, str], key: str, source: str) -> Triple | None:
    if key not in stated:
        return None
    try:
        first, second, third = (float(v) for v in json.loads(stated[key]))
    except (OverflowError, RecursionError, TypeError, ValueError):
        first = second = third = math.nan
    values = (first, second, third)
    if not all(map(math.isfinite, values)) or (key == "std" and min(values) <= 0):
        expected = "three positive numbers" if key == "std" else "three numbers"
        raise _wrong(source, key, f"{expected} as a JSON list", stated[key])
    return values


def _classes(stated: Mapping[str, str], source: str) -> LabelSet | None:
    if "classes" not in stated:
        return None
    try:
        return parse_labels(json.loads(stated["classes"]), f"{source}: {_PREFIX}classes in its metadata")
    except (RecursionError, ValueError) as error:
        raise _wrong(source, "classes", f"a label set as JSON ({error})", stated["classes"]) from error
    except LabelError as error:
        raise ModelError(f"{error}; export it again or take the entry out") from error
