"""The class-map kernels of an engine: one for each size of frames, compiled when the first such frame comes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Any

from edgeseg.backends import TensorSpec
from edgeseg.backends.cuda import Cuda
from edgeseg.backends.cuda.class_map import ClassMapKernel, LogitsFormat
from edgeseg.errors import EngineError, MissingDependencyError, ShapeError
from edgeseg.upsample import Upsampling

__all__ = ["ClassMapKernels"]

_log = logging.getLogger(__name__)

_MOST = 4
"""Each takes a fraction of a second to compile, which a size that comes once is not worth."""


class ClassMapKernels:
    """Safe to use from several threads; a kernel lives until `close`, which no run may outlast.

    Args:
        cuda: the GPU.
        slots: runs at once.
    """

    def __init__(self, cuda: Cuda, *, slots: int) -> None:
        self._cuda, self._slots = cuda, slots
        self._lock = threading.Lock()
        self._known: dict[int, tuple[Upsampling, ClassMapKernel | None]] = {}

    def get(self, outputs: Sequence[TensorSpec], upsampling: Upsampling) -> ClassMapKernel | None:
        """The kernel for an engine's outputs and a size of frames.

        Returns:
            None for outputs that are no logits, for more sizes than are worth it, and where kernels do not compile,
            which is logged once.

        Raises:
            EngineError: when the GPU is lost.
        """
        with self._lock:
            known = self._known.get(id(upsampling))
            if known is None:
                if len(self._known) >= _MOST:
                    return None
                # The upsampling stays with its kernel, so that its id cannot become another's.
                known = self._known[id(upsampling)] = (upsampling, self._compile(outputs, upsampling))
            return known[1]

    def close(self) -> None:
        """Free the kernels."""
        with self._lock:
            for _, kernel in self._known.values():
                if kernel is not None:
                    kernel.close()
            self._known.clear()

    def _compile(self, outputs: Sequence[TensorSpec], upsampling: Upsampling) -> ClassMapKernel | None:
        if len(outputs) != 1 or len(outputs[0].shape) != 4:
            return None
        _, channels, rows, columns = outputs[0].shape
        dtype: Any = outputs[0].dtype
        try:
            logits = LogitsFormat.of((channels, rows, columns), dtype)
            return ClassMapKernel(self._cuda, logits, upsampling, slots=self._slots)
        except (EngineError, MissingDependencyError, ShapeError) as error:
            if self._cuda.lost is not None:
                raise
            _log.warning("class maps are made on the processor, which is slower: %s", error)
            return None
