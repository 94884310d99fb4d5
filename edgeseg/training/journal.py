"""The log of a run: one line an epoch in log.csv, and TensorBoard's events where asked for."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgeseg.errors import OutputError
from edgeseg.libraries import require

__all__ = ["Journal"]

_FIELDS = ("epoch", "step", "lr", "loss", "segmentation", "auxiliary", "image", "affinity", "miou")


class Journal:
    """Writes what an epoch gave.

    Args:
        folder: of the run.
        tensorboard: also write events, for which tensorboard must be installed.
        epoch: epochs that an interrupted run has finished: later lines of its log are dropped.

    Raises:
        OutputError: when the log cannot be written.
        MissingDependencyError: for TensorBoard without its library.
    """

    def __init__(self, folder: Path, tensorboard: bool, epoch: int) -> None:
        self._path = folder / "log.csv"
        self._events: Any = None
        if tensorboard:
            require("tensorboard", "log for TensorBoard")
            from torch.utils.tensorboard.writer import SummaryWriter

            self._events = SummaryWriter(str(folder), purge_step=epoch + 1)
        kept = self._lines()[: epoch + 1] if epoch else []
        self._start("".join(kept) or ",".join(_FIELDS) + "\n")

    def write(self, epoch: int, step: int, lr: float, parts: Mapping[str, float], miou: float | None) -> None:
        """Add one epoch.

        Args:
            epoch, step: done so far.
            lr: learning rate of the last step.
            parts: means of the loss and its parts.
            miou: 0..100 where the epoch was scored.
        """
        row: dict[str, Any] = {"epoch": epoch, "step": step, "lr": f"{lr:.6g}"}
        row.update({name: f"{value:.5f}" for name, value in parts.items()})
        row["miou"] = "" if miou is None else f"{miou:.3f}"
        with self._said(), self._path.open("a", encoding="utf-8") as file:
            file.write(",".join(str(row.get(name, "")) for name in _FIELDS) + "\n")
        if self._events is not None:
            for name, value in {**parts, **({} if miou is None else {"miou": miou}), "lr": lr}.items():
                self._events.add_scalar(name, value, epoch)
            self._events.flush()

    def close(self) -> None:
        """Close TensorBoard's file."""
        if self._events is not None:
            self._events.close()

    def _lines(self) -> list[str]:
        try:
            return self._path.read_text("utf-8").splitlines(keepends=True)
        except OSError:
            return []

    def _start(self, text: str) -> None:
        beside = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        with self._said():
            try:
                beside.write_text(text, "utf-8")
                os.replace(beside, self._path)  # at once, so that an interruption keeps the lines of earlier epochs
            finally:
                beside.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _said(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(f"cannot write the log {self._path}: {error.strerror}; free space") from error
