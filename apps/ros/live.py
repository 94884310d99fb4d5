"""Live images in, masks out: what the ROS 2 node does with a message, without ROS's own library."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any

from edgeseg.apps.ros.messages import MessageMaker, class_map_message, frame_of, overlay_message
from edgeseg.errors import EdgesegError, FrameDroppedError
from edgeseg.segmentation import Segmentation
from edgeseg.segmenter import Segmenter

__all__ = ["LiveMasks"]


class LiveMasks:
    """Segments the newest image and publishes its masks with the image's header.

    Args:
        segmenter: stays the caller's to close.
        maker: makes the messages.
        kind: of the images, one of `edgeseg.apps.ros.messages.IMAGE_KINDS`.
        publish: called with "class_map" or "overlay" and a message, from the segmenter's thread.
        warn: called with one line for an image that cannot be read or segmented, from any thread.
        overlay: whether overlays are published too.
        alpha: share of the colours in them, 0..1.
        deadline_ms: longest wait of an image for the engine; None for any. Older images are given up for newer ones
            anyway.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        maker: MessageMaker,
        kind: str,
        publish: Callable[[str, Any], None],
        warn: Callable[[str], None],
        *,
        overlay: bool = False,
        alpha: float = 0.5,
        deadline_ms: float | None = None,
    ) -> None:
        self.dropped = 0
        self._segmenter = segmenter
        self._maker = maker
        self._kind = kind
        self._publish = publish
        self._warn = warn
        self._alpha = alpha if overlay else None
        self._deadline_ms = deadline_ms

    def take(self, message: Any) -> None:
        """Hand in an image; returns at once. Nothing may write to the message until its masks are published."""
        try:
            frame = frame_of(message, self._kind)
            future = self._segmenter.submit(frame, deadline_ms=self._deadline_ms)
        except EdgesegError as error:
            self._warn(str(error))
            return
        future.add_done_callback(lambda done: self._give(done, message.header, frame))

    def _give(self, done: Future[Segmentation], header: Any, frame: Any) -> None:
        try:
            result = done.result()
        except CancelledError:
            return
        except FrameDroppedError:
            self.dropped += 1
            return
        except EdgesegError as error:
            self._warn(str(error))
            return
        self._publish("class_map", class_map_message(self._maker, header, result.class_map))
        if self._alpha is not None:
            self._publish("overlay", overlay_message(self._maker, header, result.overlay(frame, self._alpha)))
