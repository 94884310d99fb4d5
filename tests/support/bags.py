"""Recordings as `ros2 bag record` makes them, and what is in one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.rosbag2 import Reader, StoragePlugin, Writer

from edgeseg.apps.ros.cdr import CDRMessages
from edgeseg.apps.ros.messages import COMPRESSED_IMAGE, IMAGE

STRING = "std_msgs/msg/String"
START = 1_700_000_000_000_000_000


@dataclass(frozen=True)
class Entry:
    """A message to record, with the ns since `START` at which it was."""

    topic: str
    kind: str
    message: Any
    time: int


@dataclass(frozen=True)
class Recorded:
    """A message of a recording, read back."""

    topic: str
    kind: str
    time: int
    message: Any


def image(frame: np.ndarray, time: int = 0, *, encoding: str = "rgb8", frame_id: str = "camera", pad: int = 0) -> Any:
    """`sensor_msgs/Image` of pixels that have that encoding already; rows may end in unused bytes."""
    messages, height = CDRMessages(), frame.shape[0]
    rows = np.ascontiguousarray(frame).reshape(height, -1)
    rows = np.pad(rows, ((0, 0), (0, pad)), constant_values=77)
    return messages.make(
        IMAGE,
        header=messages.header(START + time - 5, frame_id),
        height=height,
        width=frame.shape[1],
        encoding=encoding,
        is_bigendian=0,
        step=rows.shape[1],
        data=rows.reshape(-1),
    )


def compressed(frame: np.ndarray, time: int = 0, *, suffix: str = ".png", described: str = "") -> Any:
    """`sensor_msgs/CompressedImage` of an RGB frame."""
    messages = CDRMessages()
    _, content = cv2.imencode(suffix, frame[:, :, ::-1])
    return messages.make(
        COMPRESSED_IMAGE,
        header=messages.header(START + time - 5, "camera"),
        format=described or suffix[1:],
        data=content.reshape(-1),
    )


def write_bag(
    path: Path, entries: list[Entry], *, storage: str = "mcap", empty: tuple[tuple[str, str], ...] = ()
) -> Path:
    """A recording; `empty` are topics (name, kind) without a message."""
    messages = CDRMessages()
    with Writer(path, version=8, storage_plugin=StoragePlugin[storage.upper()]) as writer:
        topics = dict.fromkeys([(entry.topic, entry.kind) for entry in entries] + list(empty))
        connections = {t: writer.add_connection(*t, typestore=messages.store) for t in topics}
        for entry in entries:
            content = messages.write(entry.message, entry.kind)
            writer.write(connections[entry.topic, entry.kind], START + entry.time, content)
    return path


def read_bag(path: Path) -> list[Recorded]:
    """Every message, in the order of recording."""
    messages = CDRMessages()
    with Reader(path) as reader:
        return [
            Recorded(c.topic, c.msgtype, time, messages.read(content, c.msgtype))
            for c, time, content in reader.messages()
        ]


def nanoseconds(header: Any) -> int:
    return int(header.stamp.sec) * 1_000_000_000 + int(header.stamp.nanosec)


def pixels(message: Any) -> np.ndarray:
    """The rows of an Image as (H, W) or (H, W, 3)."""
    return np.asarray(message.data).reshape(message.height, message.width, -1).squeeze()
