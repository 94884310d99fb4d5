"""Every error that edgeseg raises on purpose, in one tree.

    EdgesegError
    ├── UsageError                 options that do not go together (exit code 2)
    ├── MissingDependencyError     a library that this step needs is not installed
    ├── InputError                 what the user gave cannot be used
    │   ├── FrameError             a frame, folder, list or video that cannot be read
    │   ├── ShapeError             an array of the wrong shape, layout or type
    │   └── LabelError             class names, colours, label images or class maps between data sets
    ├── ModelError                 an ONNX graph that cannot be taken
    │   ├── UnsupportedModelError  valid, but not a segmentation graph that edgeseg converts
    │   └── LintError              a graph that TensorRT would refuse or silently run in float
    ├── CalibrationError           ranges that cannot be measured or read
    ├── BundleError                a bundle that is foreign, truncated, changed or newer
    ├── EngineError                an engine that does not compile, load or run
    ├── FrameDroppedError          a submitted frame that was not segmented, because newer ones came
    │   └── DeadlineError          ... because it waited too long for the engine
    ├── TrainingError              a training run that cannot go on
    └── OutputError                a result that cannot be written

A message says what was expected, what came, and what to do. Errors that are not in this tree are bugs of edgeseg and
keep their traceback.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "BundleError",
    "CalibrationError",
    "DeadlineError",
    "EdgesegError",
    "EngineError",
    "FrameDroppedError",
    "FrameError",
    "InputError",
    "LabelError",
    "LintError",
    "MissingDependencyError",
    "ModelError",
    "OutputError",
    "ShapeError",
    "TrainingError",
    "UnsupportedModelError",
    "UsageError",
    "unknown_name",
]


class EdgesegError(Exception):
    """Root of the tree; the command line prints its message as one line and exits with `exit_code`."""

    exit_code = 1


class UsageError(EdgesegError):
    """Options or arguments that do not go together."""

    exit_code = 2


class MissingDependencyError(EdgesegError):
    """A library that this step needs is not installed.

    Args:
        library: name of the missing module as it is imported.
        purpose: what needs it, as the end of "... is needed to".
        cure: the command that installs it.
    """

    def __init__(self, library: str, purpose: str, cure: str) -> None:
        super().__init__(f"{library} is needed to {purpose}, but it is not installed; run: {cure}")
        self.library = library
        self.cure = cure


class InputError(EdgesegError):
    """Something that the user gave cannot be used."""


class FrameError(InputError):
    """A frame, folder, list or video that cannot be read."""


class ShapeError(InputError):
    """An array of the wrong shape, layout or type."""


class LabelError(InputError):
    """Class names, colours, label images or a mapping between data sets that do not fit."""


class ModelError(EdgesegError):
    """An ONNX graph that cannot be taken."""


class UnsupportedModelError(ModelError):
    """A valid graph that is not a segmentation network which edgeseg converts."""


class LintError(ModelError):
    """A graph that TensorRT would refuse or silently run in float."""


class CalibrationError(EdgesegError):
    """Ranges that cannot be measured or read."""


class BundleError(EdgesegError):
    """A bundle that is foreign, truncated, changed or newer."""


class EngineError(EdgesegError):
    """An engine that does not compile, load or run."""


class FrameDroppedError(EdgesegError):
    """A submitted frame that was not segmented, because newer ones came."""


class DeadlineError(FrameDroppedError):
    """A submitted frame that was not segmented, because it waited longer for the engine than its caller allowed."""


class TrainingError(EdgesegError):
    """A training run that cannot go on."""


class OutputError(EdgesegError):
    """A result that cannot be written."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """Message for a name that a registry does not hold: the nearest spelling first, then the whole list."""
    names = sorted(known)
    near = get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"unknown {kind} {name!r}; {hint}known: {', '.join(names) or 'none'}"
