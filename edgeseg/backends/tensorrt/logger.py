"""TensorRT's log: filtered, handed to Python's logging, and kept as far as errors and layers stand only there."""

from __future__ import annotations

import logging
from collections.abc import Callable

__all__ = ["BuildLog", "is_noise"]

_LEVELS = {"INTERNAL_ERROR": "error", "ERROR": "error", "WARNING": "warning", "INFO": "info", "VERBOSE": "debug"}

_NOISE = (
    "cudaError 35",  # without a GPU this follows many messages and means nothing
    "CUDA driver version is insufficient for CUDA runtime version",
)

_LAYERS = "Layers:"


def is_noise(line: str) -> bool:
    """Whether a line says only that there is no GPU, which is no news where one builds without."""
    return any(text in line for text in _NOISE)


class BuildLog:
    """What a builder or runtime said.

    Args:
        forward: gets the level's name as logging spells it ("error", "warning", "info") and each message once;
            verbose messages, ten thousand a build, are not forwarded. None logs them here.
        keep_noise: whether lines about a missing GPU are kept: where one is needed they are the reason.
    """

    def __init__(self, forward: Callable[[str, str], None] | None = None, *, keep_noise: bool = False) -> None:
        self._forward = forward or _log_message
        self._keep_noise = keep_noise
        self._seen: set[str] = set()
        self._errors: list[str] = []
        self._layers: str | None = None

    def receive(self, severity: str, message: str) -> None:
        """Take one message of TensorRT's; never raises, since the caller is C++.

        Args:
            severity: the name of its ILogger.Severity.
            message: its text, of one or many lines.
        """
        if message.startswith(_LAYERS):
            self._layers = message
            return
        level = _LEVELS.get(severity, "info")
        if level == "debug":
            return
        lines = [line for line in message.splitlines() if self._keep_noise or not is_noise(line)]
        text = " ".join(" ".join(lines).split())
        if not text or text in self._seen:
            return
        self._seen.add(text)
        if level == "error":
            self._errors.append(text)
        self._forward(level, text)

    @property
    def errors(self) -> tuple[str, ...]:
        """Errors in their order, each once."""
        return tuple(self._errors)

    @property
    def layers(self) -> str | None:
        """The message that lists the engine's layers, which TensorRT-RTX writes at detailed verbosity."""
        return self._layers


def _log_message(level: str, message: str) -> None:
    # Errors reach the user in the one line of the exception that follows them.
    numbers = {"error": logging.INFO, "warning": logging.WARNING, "info": logging.DEBUG}
    logging.getLogger(__name__).log(numbers[level], "%s", message)
