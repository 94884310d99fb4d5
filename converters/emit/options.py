"""What is emitted for, and which form of the graph follows from it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgeseg.errors import UsageError
from edgeseg.jetpack import dla_source

__all__ = ["DEFAULT_TENSORRT", "EmitOptions", "Version", "form_for", "parse_version", "version_text"]

Version = tuple[int, int]

DEFAULT_TENSORRT: Version = (10, 3)
"""JetPack 6.1 and 6.2."""

_OLDEST: Version = (8, 5)
_BEFORE: Version = (12, 0)
_IMPLICIT_BEFORE: Version = (11, 0)


@dataclass(frozen=True)
class EmitOptions:
    """How to emit.

    Attributes:
        tensorrt: version that will build the engine, (major, minor).
        fp16_only: no INT8 at all, for boards without it and networks that lose too much.
        implicit: INT8 from a calibration cache instead of Q/DQ.
        dla_core: deep learning accelerator that runs what it can; None for the GPU alone.
        batch: frames at once, fixed in the graph.
        logits_size: give scores at the size of the network's logits instead of the class map's (DeepStream).
    """

    tensorrt: Version = DEFAULT_TENSORRT
    fp16_only: bool = False
    implicit: bool = False
    dla_core: int | None = None
    batch: int = 1
    logits_size: bool = False

    def __post_init__(self) -> None:
        if not _OLDEST <= self.tensorrt < _BEFORE:
            raise UsageError(
                f"expected a TensorRT from {version_text(_OLDEST)} to 11, but got {version_text(self.tensorrt)}"
            )
        if self.batch < 1:
            raise UsageError(f"expected at least 1 frame at once, but got --batch {self.batch}")
        if self.dla_core not in (None, 0, 1):
            raise UsageError(f"a Jetson has DLA cores 0 and 1, but --dla {self.dla_core} was asked for")
        if self.fp16_only and self.implicit:
            raise UsageError("--implicit is about INT8, and --fp16-only leaves INT8 away; give one of them")
        if self.implicit and self.tensorrt >= _IMPLICIT_BEFORE:
            raise UsageError(
                f"TensorRT {version_text(self.tensorrt)} takes no calibration cache; leave --implicit away: the Q/DQ "
                "graph needs none"
            )
        if self.dla_core is not None and dla_source(self.tensorrt) is None:
            raise UsageError(
                f"TensorRT {version_text(self.tensorrt)} drives no DLA on a Jetson: versions up to 10.7 do, and 11.4.1 "
                "on AGX Orin; leave --dla away"
            )


def parse_version(text: str) -> Version:
    """(10, 3) of "10.3" or "10.3.0".

    Raises:
        UsageError: for any other text.
    """
    found = re.fullmatch(r"(\d{1,3})\.(\d{1,3})(\.\d+)*", text)
    if found is None:
        raise UsageError(f"expected a TensorRT version such as 8.6, 10.3 or 11.4, but got {text!r}")
    return int(found.group(1)), int(found.group(2))


def version_text(version: Version) -> str:
    """A version as people write it."""
    return ".".join(map(str, version))


def form_for(options: EmitOptions) -> str:
    """The form of `edgeseg.converters.targets.FORMS` that an engine for these options is built from."""
    if options.fp16_only:
        return "fp16"
    if options.implicit or (options.dla_core is not None and dla_source(options.tensorrt) == "cache"):
        return "implicit_int8"
    if options.tensorrt < (10, 0):
        return "tensorrt8"
    return "canonical" if options.tensorrt < (11, 0) else "fp16_qdq"
