"""One frame through one engine: fitted, run, and its class map brought to the frame's size."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg import fused
from edgeseg.backends import ClassMapEngine, DeviceEngine, Engine
from edgeseg.checks import check_class_map
from edgeseg.errors import EngineError
from edgeseg.frame import FittableFrame, FrameFitter, as_frame, lies_on_gpu
from edgeseg.manifest import Manifest
from edgeseg.segmentation import Timing
from edgeseg.upsample import Upsampling, frame_logits, nearest_class_map, upsampling

__all__ = ["FrameInference"]


class FrameInference:
    """What a network's engines need around them. Safe to use from several threads.

    Args:
        manifest: of the network.
        compiled: False where class maps are so few that compiling their kernel would take longer than they do.
    """

    def __init__(self, manifest: Manifest, *, compiled: bool = True) -> None:
        self._manifest = manifest
        self._gives_logits = manifest.output.kind == "logits"
        self._fit = FrameFitter(manifest.input.height, manifest.input.width)
        self._class_map = fused.class_map if compiled else fused.uncompiled_class_map
        if self._gives_logits and compiled:
            fused.warm_up()

    def class_map(
        self, engine: Engine, frame: Any, class_map: Any = None, decode: float = 0.0
    ) -> tuple[NDArray[np.uint8], Timing]:
        """Run once.

        Args:
            engine: of the network.
            frame, class_map: see `edgeseg.segmenter.Segmenter.segment_into`; None gives a new array.
            decode: for the timing, ms.

        Returns:
            `class_map`, or the new one, and the time by stage.

        Raises:
            ShapeError, EngineError: as there.
        """
        started = time.perf_counter()
        if lies_on_gpu(frame) or lies_on_gpu(class_map):
            found = self._on_gpu(engine, frame, class_map)
            milliseconds = 1e3 * (time.perf_counter() - started)
            return found, Timing(decode, 0.0, milliseconds, 0.0, milliseconds)
        frame = _taken(frame)
        size = frame.shape[0], frame.shape[1]
        if class_map is not None:
            check_class_map(class_map, size)
        image = self._fit(frame)
        prepared = time.perf_counter()
        done = self._in_one(engine, image, size)
        inferred = time.perf_counter()
        if done is None:
            (output,) = engine.infer([image])
            inferred = time.perf_counter()
            class_map = self._finish(output[0], size, class_map)
        elif class_map is None:
            class_map = done
        else:
            np.copyto(class_map, done)
        finished = time.perf_counter()
        seconds = (prepared - started, inferred - prepared, finished - inferred, finished - started)
        return class_map, Timing(decode, *(1e3 * s for s in seconds))

    def logits(self, engine: Engine, frame: Any) -> NDArray[np.float32]:
        """See `edgeseg.segmenter.Segmenter.logits`; for a network that gives logits."""
        frame = _taken(frame)
        (output,) = engine.infer([self._fit(frame)])
        axes = self._upsampling((frame.shape[0], frame.shape[1]))
        values = frame_logits(output[0], axes.rows, axes.columns)
        if not np.isfinite(values).all():
            raise EngineError("the engine gave logits that are not finite; check the network and its ranges")
        return values

    def _in_one(self, engine: Engine, image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8] | None:
        """The class map by the engine alone, which does both in one; None for an engine that gives its output only."""
        if not self._gives_logits or not isinstance(engine, ClassMapEngine):
            return None
        return engine.infer_class_map([image], self._upsampling(size))

    def _on_gpu(self, engine: Engine, frame: Any, class_map: Any) -> Any:
        """The class map of a frame in the GPU's memory: in `class_map`, or a new array in the processor's."""
        if not (lies_on_gpu(frame) and self._gives_logits and isinstance(engine, DeviceEngine)):
            size = as_frame(frame).shape[:2]  # refuses a frame that lies there
            check_class_map(class_map, (size[0], size[1]))
            raise AssertionError("neither the frame nor the class map lies in a GPU's memory")
        if lies_on_gpu(class_map):
            engine.infer_on_device(frame, self._upsampling, class_map)
            return class_map
        found = engine.infer_on_device(frame, self._upsampling)
        if class_map is None or found is None:
            return found
        check_class_map(class_map, found.shape)
        np.copyto(class_map, found)
        return class_map

    def _upsampling(self, size: tuple[int, int]) -> Upsampling:
        manifest = self._manifest
        shape = (manifest.output.height, manifest.output.width)
        return upsampling(size, manifest.map_size, shape, manifest.output.coordinates)

    def _finish(self, output: NDArray[Any], size: tuple[int, int], out: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
        if self._gives_logits:
            return self._class_map(output, self._upsampling(size), out)
        axes = upsampling(size, self._manifest.map_size, self._manifest.map_size, None)
        return nearest_class_map(output, axes.rows, axes.columns, out)


def _taken(frame: Any) -> NDArray[np.uint8] | FittableFrame:
    """A frame that fits itself, or an array that was checked."""
    return frame if isinstance(frame, FittableFrame) else as_frame(frame)
