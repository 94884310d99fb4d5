"""Class maps as a rosbag2 recording: written beside its place, then renamed."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgeseg.apps.ros.bag import BagFrame
from edgeseg.apps.ros.cdr import CDRMessages, import_rosbags
from edgeseg.apps.ros.messages import IMAGE, LABEL_INFO, class_map_message, label_info_message, overlay_message
from edgeseg.apps.writers import output_errors
from edgeseg.bundle import put_in_place
from edgeseg.errors import OutputError
from edgeseg.labels import LabelSet

__all__ = ["STORAGES", "MaskBag", "check_bag_output", "mask_topics"]

STORAGES = ("mcap", "sqlite3")
_METADATA = "metadata.yaml"
# Of the two that rosbags writes the one that the older releases read.
_VERSION: Literal[8] = 8


def mask_topics(image_topic: str, *, overlay: bool) -> dict[str, str]:
    """Names of the topics of a mask by what they hold, beside the class map as vision_msgs wants its LabelInfo."""
    base = image_topic.rstrip("/").removesuffix("/compressed")
    kinds = ("class_map", "label_info", *(("overlay",) if overlay else ()))
    return {kind: f"{base}/{kind}" for kind in kinds}


def check_bag_output(path: Path, *, source: Path, force: bool) -> None:
    """Refuse a place for a recording that is taken, before any work.

    Raises:
        OutputError: with what to do; a folder that is no recording, and the source, are never replaced.
    """
    with output_errors(path):
        if path.resolve() in (source.resolve(), source.resolve().parent) or source.resolve() in path.resolve().parents:
            raise OutputError(f"{path} is, holds or lies in the bag that is read; choose another place")
        if path.exists() and not force:
            raise OutputError(f"{path} exists; choose another place or replace it with --force")
        if path.exists() and not (path / _METADATA).is_file():
            raise OutputError(f"{path} exists and is not a bag, so --force does not replace it; choose another place")
        if not path.parent.is_dir():
            raise OutputError(f"cannot write {path}: the folder {path.parent} does not exist; create it first")


class MaskBag:
    """Writes the results of frames with the stamps, frame_ids and recording times of these frames.

    Used as a context: the recording appears when the context ends without an error, and nothing is left otherwise.

    Args:
        path: the folder to make; a recording that stands there is replaced.
        labels: classes of the class maps.
        storage: one of `STORAGES`; MCAP is compressed, which makes class maps small.
        topics: image topics, each with its `mask_topics`.
    """

    def __init__(self, path: Path, labels: LabelSet, storage: str, topics: dict[str, dict[str, str]]) -> None:
        import_rosbags("write rosbag2 recordings")
        self.path = path
        self._labels = labels
        self._storage = storage
        self._topics = topics
        self._messages = CDRMessages()
        self._connections: dict[str, Any] = {}
        self._labelled: set[str] = set()

    def __enter__(self) -> MaskBag:
        from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

        with self._errors():
            # The recording's files are named after its folder, so the temporary folder is the one around it.
            self._around = Path(tempfile.mkdtemp(prefix=f".{self.path.name}.", dir=self.path.parent))
        try:
            with self._errors():
                self._writer = Writer(
                    self._around / self.path.name, version=_VERSION, storage_plugin=StoragePlugin[self._storage.upper()]
                )
                if self._storage == "mcap":
                    self._writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
                self._writer.open()
                for names in self._topics.values():
                    for kind, name in names.items():
                        self._connections[name] = self._connection(name, LABEL_INFO if kind == "label_info" else IMAGE)
        except BaseException:
            shutil.rmtree(self._around, ignore_errors=True)
            raise
        return self

    def write(self, frame: BagFrame, class_map: NDArray[np.uint8], overlay: NDArray[np.uint8] | None = None) -> None:
        """Append the result of a frame, and before the first of its topic what its classes are.

        Args:
            frame: what was segmented.
            class_map: (H, W) uint8.
            overlay: (H, W, 3) uint8 RGB, where the topic has one.

        Raises:
            OutputError: when the disk is full or cannot be written.
        """
        names, make = self._topics[frame.topic], self._messages
        if frame.topic not in self._labelled:
            self._labelled.add(frame.topic)
            info = label_info_message(make, frame.header, self._labels)
            self._append(names["label_info"], frame.time, make.write(info, LABEL_INFO))
        message = class_map_message(make, frame.header, class_map)
        self._append(names["class_map"], frame.time, make.write(message, IMAGE))
        if overlay is not None:
            message = overlay_message(make, frame.header, overlay)
            self._append(names["overlay"], frame.time, make.write(message, IMAGE))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with self._errors():
                self._writer.__exit__(kind, error, trace)
                if kind is None:
                    put_in_place(self._around / self.path.name, self.path)
        finally:
            shutil.rmtree(self._around, ignore_errors=True)

    def _append(self, topic: str, time: int, content: memoryview) -> None:
        with self._errors():
            self._writer.write(self._connections[topic], time, content)

    def _connection(self, topic: str, kind: str) -> Any:
        from rosbags.interfaces import (
            Qos,
            QosDurability,
            QosHistory,
            QosLiveliness,
            QosReliability,
            QosTime,
        )

        # Who joins a playback later still gets the classes, as vision_msgs asks for: transient local.
        latched = kind == LABEL_INFO
        never = QosTime(2147483647, 4294967295)
        quality = Qos(
            QosHistory.KEEP_LAST,
            1 if latched else 10,
            QosReliability.RELIABLE,
            QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
            never,
            never,
            QosLiveliness.AUTOMATIC,
            never,
            avoid_ros_namespace_conventions=False,
        )
        return self._writer.add_connection(topic, kind, typestore=self._messages.store, offered_qos_profiles=[quality])

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            with output_errors(self.path):
                yield
        except sqlite3.Error as error:
            raise OutputError(f"cannot write {self.path}: {error}; choose another place or free some space") from error
