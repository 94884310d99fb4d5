"""`zenoh://robot/front/class_map`: class maps over Zenoh, as the ROS 2 messages that its bridges pass on."""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from edgeseg.apps.camera.results import CameraResult, StreamFacts
from edgeseg.apps.camera.sinks.options import SinkOptions
from edgeseg.apps.ros.cdr import CDRMessages
from edgeseg.apps.ros.messages import IMAGE, LABEL_INFO, class_map_message, label_info_message
from edgeseg.errors import EdgesegError, OutputError, UsageError, unknown_name
from edgeseg.libraries import require

__all__ = ["ZenohAddress", "ZenohSink"]

_KEY = "edgeseg/class_map"
_OPTIONS = ("connect", "frame_id", "listen", "scouting")
_PATIENCE = 2.0
_SWITCH = {"on": True, "off": False}


@dataclass(frozen=True)
class ZenohAddress:
    """Where class maps go.

    Attributes:
        key: Zenoh key expression without wildcards; a bridge to ROS 2 makes it the topic of that name.
        connect: locators to connect to, such as "tcp/192.168.1.5:7447".
        listen: locators to listen on.
        scouting: whether other participants are looked for by multicast; off where `connect` or `listen` are given.
        frame_id: of the messages; empty for the name of the stream.
    """

    key: str
    connect: tuple[str, ...]
    listen: tuple[str, ...]
    scouting: bool
    frame_id: str

    @classmethod
    def parse(cls, uri: str) -> ZenohAddress:
        """Read `zenoh://KEY/EXPRESSION?connect=LOCATOR&listen=LOCATOR&scouting=on&frame_id=NAME`.

        Raises:
            UsageError: for a key that is no name, or an option that is not known.
        """
        parts = urlsplit(uri if "://" in uri else f"{uri}://")
        key = f"{parts.netloc}{parts.path}".strip("/") or _KEY
        if any(mark in key for mark in "*$#") or "//" in key:
            raise UsageError(f"{uri} names the key {key!r}, but one key without *, $, # and // is published on")
        given: dict[str, list[str]] = {}
        for name, value in parse_qsl(parts.query, keep_blank_values=True):
            if name not in _OPTIONS:
                raise UsageError(f"{uri}: {unknown_name('option of zenoh://', name, _OPTIONS)}")
            given.setdefault(name, []).append(value)
        connect, listen = tuple(given.get("connect", [])), tuple(given.get("listen", []))
        switch = given.get("scouting", ["off" if connect or listen else "on"])[-1]
        if switch not in _SWITCH:
            raise UsageError(f"{uri}: scouting is on or off, but is {switch!r}")
        return cls(key, connect, listen, _SWITCH[switch], given.get("frame_id", [""])[-1])


class ZenohSink:
    """Publishes each class map as CDR of `sensor_msgs/Image` (mono8), and what its classes are.

    On the key itself: the class map; encoding "application/cdr;sensor_msgs/msg/Image"; the header has the time of
    capture (system clock) and the frame_id. Its attachment is JSON: `stream`, `frame_number`, `latency_ms` (capture to
    class map) and `names` (classes by index). Beside it, on the key whose last part is `label_info`:
    `vision_msgs/LabelInfo`, once a second, because Zenoh keeps nothing for who comes later.

    A thread publishes the newest result; those that come while it works are left out, unless the application asks for
    every one. Who cannot keep up misses messages (congestion control "drop") and stops nobody.

    Args:
        uri: see `ZenohAddress.parse`. Of several streams, each publishes below its own name: KEY/0, KEY/1, ...
        options: of the application.

    Raises:
        UsageError: for a URI that does not fit.
    """

    def __init__(self, uri: str, options: SinkOptions) -> None:
        self.address = ZenohAddress.parse(uri)
        self.published = 0
        self.left_out = 0
        self._options = options
        self._changed = threading.Condition()
        self._waiting: CameraResult | None = None
        self._stopping = False
        self._failed: EdgesegError | None = None
        self._thread: threading.Thread | None = None
        self._session: Any = None

    def start(self, stream: StreamFacts) -> None:
        """Join the network.

        Raises:
            MissingDependencyError: without eclipse-zenoh or rosbags.
            OutputError: when a locator cannot be had.
        """
        zenoh = require("zenoh", "publish class maps over Zenoh")
        self._messages = CDRMessages()
        self._stream = stream
        key = f"{self.address.key}/{stream.name}" if self._options.several else self.address.key
        try:
            self._session = zenoh.open(_configuration(zenoh, self.address))
            drop = zenoh.CongestionControl.DROP
            self._class_maps = self._session.declare_publisher(
                key, encoding=f"application/cdr;{IMAGE}", congestion_control=drop
            )
            self._labels = self._session.declare_publisher(
                f"{key if self._options.several else key.rpartition('/')[0]}/label_info".lstrip("/"),
                encoding=f"application/cdr;{LABEL_INFO}",
                congestion_control=drop,
            )
        except zenoh.ZError as error:
            self._close()
            raise OutputError(f"cannot publish on zenoh://{key}: {_reason(error)}") from error
        self._thread = threading.Thread(target=self._publish_all, name=f"edgeseg-zenoh-{stream.name}", daemon=True)
        self._thread.start()

    def put(self, result: CameraResult) -> None:
        """Take a result; see `edgeseg.apps.camera.results.Sink`."""
        with self._changed:
            if self._options.lossless:
                self._changed.wait_for(lambda: self._waiting is None or self._failed is not None)
            if self._failed is not None:
                raise self._failed
            self.left_out += self._waiting is not None
            self._waiting = result
            self._changed.notify_all()

    def stop(self) -> None:
        """Publish what waits and leave the network."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(_PATIENCE)
        self._close()

    def _close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def _publish_all(self) -> None:
        labelled = -1.0
        while (result := self._next()) is not None:
            try:
                if result.finished - labelled >= 1:
                    labelled = result.finished
                    self._publish_labels(result)
                self._publish(result)
                self.published += 1
            except Exception as error:  # zenoh's errors and rosbags' have no base below Exception
                with self._changed:
                    self._failed = OutputError(f"cannot publish on zenoh://{self.address.key}: {_reason(error)}")
                    self._changed.notify_all()
                return

    def _next(self) -> CameraResult | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting is not None or self._stopping)
            result, self._waiting = self._waiting, None
            self._changed.notify_all()
            return result

    def _publish(self, result: CameraResult) -> None:
        message = class_map_message(self._messages, self._header(result), result.segmentation.class_map)
        facts = {
            "stream": result.frame.stream,
            "frame_number": result.frame.number,
            "latency_ms": round(result.latency_ms, 3),
            "names": list(self._stream.labels.names),
        }
        self._class_maps.put(bytes(self._messages.write(message, IMAGE)), attachment=json.dumps(facts))

    def _publish_labels(self, result: CameraResult) -> None:
        message = label_info_message(self._messages, self._header(result), self._stream.labels)
        self._labels.put(bytes(self._messages.write(message, LABEL_INFO)))

    def _header(self, result: CameraResult) -> Any:
        # ROS stamps are of the system's clock; frames are timed by the monotonic one, which has no date.
        captured = time.time_ns() - int(1e9 * (time.monotonic() - result.frame.captured))
        return self._messages.header(captured, self.address.frame_id or self._stream.name)


def _configuration(zenoh: Any, address: ZenohAddress) -> Any:
    """Zenoh's own configuration, from its ZENOH_CONFIG where that is set, with what the address says."""
    config = zenoh.Config.from_env() if os.environ.get("ZENOH_CONFIG") else zenoh.Config()
    if not address.scouting:
        config.insert_json5("scouting/multicast/enabled", "false")
    if address.connect:
        config.insert_json5("connect/endpoints", json.dumps(address.connect))
    if address.listen:
        config.insert_json5("listen/endpoints", json.dumps(address.listen))
    return config


def _reason(error: BaseException) -> str:
    """What an error says, without the lines of Rust code that Zenoh appends."""
    return " ".join(str(error).split()).partition(" at /")[0].rstrip(".") or type(error).__name__
