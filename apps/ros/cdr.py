"""Messages without a ROS installation: made, written and read in ROS 2's wire format (CDR) by the library rosbags."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.apps.ros.messages import CLASS, LABEL_INFO
from edgeseg.libraries import require

__all__ = ["CDRMessages", "import_rosbags"]

# The fields of vision_msgs 4, which rosbags does not bring; ROS compares types by their fields.
_VISION_MESSAGES = {
    CLASS: "uint16 class_id\nstring class_name\n",
    LABEL_INFO: "std_msgs/Header header\nvision_msgs/VisionClass[] class_map\nfloat32 threshold\n",
}
_NANOSECONDS = 1_000_000_000


def import_rosbags(purpose: str) -> None:
    """Look whether rosbags is there, before its modules are imported.

    Raises:
        MissingDependencyError: with the command that installs it.
    """
    require("rosbags", purpose)


class CDRMessages:
    """A `MessageMaker` whose messages become bytes.

    The types are those of ROS 2 Humble; images and headers have been the same in all releases since Dashing.
    """

    def __init__(self) -> None:
        self.store = _typestore()

    def make(self, kind: str, **fields: Any) -> Any:
        """See `MessageMaker.make`."""
        return self.store.types[kind](**fields)

    def octets(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """See `MessageMaker.octets`."""
        return np.ascontiguousarray(pixels).reshape(-1)

    def header(self, nanoseconds: int, frame_id: str) -> Any:
        """A header with that time since 1970."""
        seconds, rest = divmod(nanoseconds, _NANOSECONDS)
        stamp = self.make("builtin_interfaces/msg/Time", sec=seconds, nanosec=rest)
        return self.make("std_msgs/msg/Header", stamp=stamp, frame_id=frame_id)

    def write(self, message: Any, kind: str) -> memoryview:
        """A message as CDR."""
        content: memoryview = self.store.serialize_cdr(message, kind)
        return content

    def read(self, content: bytes | memoryview, kind: str) -> Any:
        """A message from CDR; raises errors of rosbags' own and of struct for bytes that are no such message."""
        return self.store.deserialize_cdr(content, kind)


@lru_cache(maxsize=1)
def _typestore() -> Any:
    import_rosbags("read and write ROS messages")
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    store = get_typestore(Stores.ROS2_HUMBLE)
    for kind, definition in _VISION_MESSAGES.items():
        store.register(get_types_from_msg(definition, kind))
    return store
