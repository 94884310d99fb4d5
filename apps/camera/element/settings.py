"""The element's properties as one value, and what they are called in GStreamer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edgeseg.errors import UsageError, unknown_name

__all__ = ["ElementSettings", "Mode", "properties"]

Mode = Literal["overlay", "mask", "none"]
_MODES: dict[str, Mode] = {"overlay": "overlay", "mask": "mask", "none": "none", "true": "overlay", "false": "none"}
_INT, _FLOAT = (-(2**31), 2**31 - 1), (-1e300, 1e300)
"""Ranges of the properties. GStreamer ignores a value beyond a range with a warning; here it is an error."""


@dataclass(frozen=True)
class ElementSettings:
    """The properties, by their names with `_` for `-`.

    Attributes:
        model: the bundle's folder.
        backend: as `edgeseg.load` takes it.
        threads: CPU threads; 0 for all.
        enabled: False lets frames pass as they are.
        overlay: what is drawn.
        alpha: share of the colour, 0..1.
        classes: names of the classes that are drawn, with commas between them; empty for all.
        every_n: one frame of this many is segmented; the others get the last class map.
    """

    model: str = ""
    backend: str = "auto"
    threads: int = 0
    enabled: bool = True
    overlay: str = "overlay"
    alpha: float = 0.5
    classes: str = ""
    every_n: int = 1

    def check(self) -> None:
        """Refuse numbers out of their range.

        Raises:
            UsageError: says which.
        """
        if self.every_n < 1:
            raise UsageError(f"every-n must be at least 1, but is {self.every_n}")
        if self.threads < 0:
            raise UsageError(f"threads must be at least 1, or 0 for all, but is {self.threads}")
        if not 0 <= self.alpha <= 1:
            raise UsageError(f"alpha is the share of colour and must be 0..1, but is {self.alpha:g}")

    @property
    def bundle(self) -> Path:
        """The bundle's folder.

        Raises:
            UsageError: where the property is not set.
        """
        if not self.model:
            raise UsageError("edgeseg needs a bundle; set model=NAME.edgeseg")
        return Path(self.model).expanduser()

    @property
    def mode(self) -> Mode:
        """What is drawn; `true` and `false` stand for overlay and none.

        Raises:
            UsageError: for another word.
        """
        if self.overlay.lower() not in _MODES:
            raise UsageError(unknown_name("overlay", self.overlay, ("overlay", "mask", "none")))
        return _MODES[self.overlay.lower()]

    @property
    def chosen(self) -> tuple[str, ...] | None:
        """Names of the classes that are drawn; None for all."""
        return tuple(name.strip() for name in self.classes.split(",") if name.strip()) or None


def properties(gst: Any) -> dict[str, tuple[Any, ...]]:
    """The properties as PyGObject's `__gproperties__` takes them: type, nick, blurb, range, default, flags."""
    default, flags = ElementSettings(), gst.GObject.ParamFlags.READWRITE
    readable = gst.GObject.ParamFlags.READABLE
    return {
        "model": (str, "Model", "Folder of the bundle, NAME.edgeseg", default.model, flags),
        "backend": (str, "Backend", "tensorrt, openvino, onnxruntime ... or auto", default.backend, flags),
        "threads": (int, "Threads", "CPU threads of the engine, 0 for all", *_INT, default.threads, flags),
        "enabled": (bool, "Enabled", "False lets frames pass as they are", default.enabled, flags),
        "overlay": (str, "Overlay", "What is drawn: overlay, mask or none", default.overlay, flags),
        "alpha": (float, "Alpha", "Share of the colour in an overlay, 0..1", *_FLOAT, default.alpha, flags),
        "classes": (str, "Classes", "Classes drawn, with commas between them; empty for all", default.classes, flags),
        "every-n": (int, "Every n", "Segment one frame of this many, at least 1", *_INT, default.every_n, flags),
        "stats": (gst.Gst.Structure, "Stats", "What has been done since the start", readable),
        "segmentation": (object, "Segmentation", "The last result, an edgeseg.Segmentation (Python)", readable),
    }
