"""What a segmenter refuses: an engine that is not what its manifest says, and arrays that cannot take a class map."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeseg.backends import Engine, TensorSpec
from edgeseg.bundle import Bundle
from edgeseg.errors import BundleError, ShapeError
from edgeseg.frame import lies_on_gpu

__all__ = ["check_class_map", "check_engine"]


def check_class_map(given: Any, size: tuple[int, int]) -> None:
    """Refuse an array that cannot take the class map of a frame of that size, (H, W).

    Raises:
        ShapeError: with how to make one.
    """
    if lies_on_gpu(given):
        raise ShapeError(
            f"class_map lies in a GPU's memory ({type(given).__name__}), but the frame does not, or the engine does "
            f"not run there; make it with np.empty({size}, np.uint8)"
        )
    if not isinstance(given, np.ndarray) or given.shape != size or given.dtype != np.uint8:
        got = f"{given.shape} {given.dtype}" if isinstance(given, np.ndarray) else type(given).__name__
        raise ShapeError(
            f"class_map must be {size} uint8, the size of the frame, but got {got}; "
            f"make it once with np.empty({size}, np.uint8)"
        )
    if not (given.flags.c_contiguous and given.flags.writeable):
        raise ShapeError("class_map must be contiguous and writable, but is a view or read-only; make it with np.empty")


def check_engine(bundle: Bundle, engine: Engine) -> None:
    """Refuse a graph that is not what the manifest says, and close its engine.

    Raises:
        BundleError: with both.
    """
    frame, out = bundle.manifest.input, bundle.manifest.output
    shape = (1, out.channels, out.height, out.width) if out.kind == "logits" else (1, *bundle.manifest.map_size)
    expected = (
        (TensorSpec(frame.tensor, (1, frame.height, frame.width, 3), "uint8"),),
        (TensorSpec(out.tensor, shape, "float32" if out.kind == "logits" else "uint8"),),
    )
    if (engine.inputs, engine.outputs) != expected:
        engine.close()
        raise BundleError(
            f"{bundle.path}: the manifest describes {_describe(*expected)}, but the graph has "
            f"{_describe(engine.inputs, engine.outputs)}; convert the network again"
        )


def _describe(inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> str:
    sides = [", ".join(f"{t.name} {t.shape} {t.dtype}" for t in side) for side in (inputs, outputs)]
    return " -> ".join(sides)
