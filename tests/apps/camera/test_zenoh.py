"""Class maps over Zenoh: a real subscriber on the loopback reads what the sink publishes."""

from __future__ import annotations

import json
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from edgeseg.apps.camera.results import CameraFrame, CameraResult, StreamFacts
from edgeseg.apps.camera.sinks.options import SinkOptions
from edgeseg.apps.camera.sinks.zenoh import ZenohAddress, ZenohSink
from edgeseg.apps.ros.cdr import CDRMessages
from edgeseg.apps.ros.messages import IMAGE, LABEL_INFO
from edgeseg.errors import MissingDependencyError, OutputError, UsageError
from edgeseg.labels import LabelSet
from edgeseg.segmentation import Segmentation, Timing

zenoh = pytest.importorskip("zenoh", reason="eclipse-zenoh is not installed; run: pip install 'edgeseg[ros]'")
pytest.importorskip("rosbags", reason="rosbags is not installed; run: pip install 'edgeseg[ros]'")

LABELS = LabelSet(("road", "sky"), ((1, 2, 3), (4, 5, 6)))
FACTS = StreamFacts("0", "test://smpte", LABELS)
PATIENCE = 20


def result(number: int, stream: str = "0") -> CameraResult:
    """A class map of that number everywhere, captured now and finished 40 ms later."""
    now = time.monotonic()
    frame = CameraFrame(np.zeros((6, 10, 3), np.uint8), number, now, stream)
    classes = np.full((6, 10), number % 256, np.uint8)
    return CameraResult(frame, Segmentation(classes, LABELS, Timing(0, 1, 2, 3, 6), number), now + 0.04)


class Listener:
    """A session of its own with a subscriber; `samples` in the order of arrival."""

    def __init__(self, key: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.locator = f"tcp/127.0.0.1:{probe.getsockname()[1]}"
        config = zenoh.Config()
        config.insert_json5("scouting/multicast/enabled", "false")
        config.insert_json5("listen/endpoints", json.dumps([self.locator]))
        self.samples: queue.Queue[Any] = queue.Queue()
        self.session = zenoh.open(config)
        self.session.declare_subscriber(key, self.samples.put)

    def next(self, end: str) -> Any:
        """The next sample whose key ends so."""
        while True:
            sample = self.samples.get(timeout=PATIENCE)
            if str(sample.key_expr).endswith(end):
                return sample


@pytest.fixture
def listen() -> Iterator[Callable[[str], Listener]]:
    made: list[Listener] = []

    def start(key: str) -> Listener:
        made.append(Listener(key))
        return made[-1]

    yield start
    for listener in made:
        listener.session.close()


@pytest.fixture
def started() -> Iterator[Callable[..., ZenohSink]]:
    sinks: list[ZenohSink] = []

    def start(uri: str, facts: StreamFacts = FACTS, **options: Any) -> ZenohSink:
        sinks.append(ZenohSink(uri, SinkOptions(**options)))
        sinks[-1].start(facts)
        return sinks[-1]

    yield start
    for sink in sinks:
        sink.stop()


def wait_for(what: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < until
        time.sleep(0.005)


def read(sample: Any, kind: str) -> Any:
    return CDRMessages().read(bytes(sample.payload), kind)


class TestPublishing:
    def test_a_subscriber_reads_the_class_map(
        self, listen: Callable[[str], Listener], started: Callable[..., ZenohSink]
    ) -> None:
        listener = listen("robot/**")
        sink = started(f"zenoh://robot/front/class_map?connect={listener.locator}&frame_id=front")
        wait_for(lambda: sink._class_maps.matching_status.matching)
        before = time.time()
        sink.put(result(7))
        sample = listener.next("class_map")
        assert str(sample.key_expr) == "robot/front/class_map"
        assert str(sample.encoding) == "application/cdr;sensor_msgs/msg/Image"
        message = read(sample, IMAGE)
        assert (message.encoding, message.height, message.width, message.header.frame_id) == ("mono8", 6, 10, "front")
        assert (message.data == 7).all()
        assert before - 1 < message.header.stamp.sec + message.header.stamp.nanosec / 1e9 < time.time() + 1
        facts = json.loads(sample.attachment.to_string())
        assert facts["latency_ms"] == pytest.approx(40)
        assert (facts["frame_number"], facts["stream"], facts["names"]) == (7, "0", ["road", "sky"])

    def test_and_what_its_classes_are(
        self, listen: Callable[[str], Listener], started: Callable[..., ZenohSink]
    ) -> None:
        listener = listen("robot/**")
        sink = started(f"zenoh://robot/front/class_map?connect={listener.locator}")
        wait_for(lambda: sink._labels.matching_status.matching)
        sink.put(result(0))
        sample = listener.next("label_info")
        assert str(sample.key_expr) == "robot/front/label_info"
        message = read(sample, LABEL_INFO)
        assert [(c.class_id, c.class_name) for c in message.class_map] == [(0, "road"), (1, "sky")]
        assert message.header.frame_id == "0"

    def test_streams_do_not_share_a_key(
        self, listen: Callable[[str], Listener], started: Callable[..., ZenohSink]
    ) -> None:
        listener = listen("masks/**")
        for name in ("0", "1"):
            facts = StreamFacts(name, "test://smpte", LABELS)
            sink = started(f"zenoh://masks?connect={listener.locator}", facts, several=True)
            wait_for(lambda sink=sink: sink._class_maps.matching_status.matching)
            sink.put(result(3, name))
        keys = {str(listener.samples.get(timeout=PATIENCE).key_expr) for _ in range(4)}
        assert keys == {"masks/0", "masks/0/label_info", "masks/1", "masks/1/label_info"}

    def test_what_waits_is_published_at_the_end(
        self, listen: Callable[[str], Listener], started: Callable[..., ZenohSink]
    ) -> None:
        listener = listen("robot/**")
        sink = started(f"zenoh://robot/class_map?connect={listener.locator}")
        wait_for(lambda: sink._class_maps.matching_status.matching)
        for number in range(20):
            sink.put(result(number))
        sink.stop()
        assert sink.published + sink.left_out == 20
        numbers = [read(listener.next("class_map"), IMAGE).data[0] for _ in range(sink.published)]
        assert numbers == sorted(numbers)
        assert numbers[-1] == 19


class Slow:
    """A publisher that is held back."""

    def __init__(self) -> None:
        self.go, self.reached, self.payloads = threading.Event(), threading.Event(), []

    def put(self, payload: bytes, **_: object) -> None:
        self.reached.set()
        assert self.go.wait(PATIENCE)
        self.payloads.append(payload)


class TestSlowNetwork:
    def test_never_holds_the_masks_back(self, started: Callable[..., ZenohSink]) -> None:
        sink = started("zenoh://robot/class_map?listen=tcp/127.0.0.1:0")
        slow = sink._class_maps = Slow()
        sink.put(result(0))
        assert slow.reached.wait(PATIENCE)
        for number in range(1, 100):
            sink.put(result(number))  # returns, though nothing is published
        assert slow.payloads == []
        slow.go.set()
        sink.stop()
        assert (sink.published, sink.left_out) == (2, 98)

    def test_an_error_ends_this_sink_in_one_line(self, started: Callable[..., ZenohSink]) -> None:
        class Broken:
            def put(self, payload: bytes, **_: object) -> None:
                raise zenoh_error("the session is closed at /src/x.rs:1.")

        sink = started("zenoh://robot/class_map?listen=tcp/127.0.0.1:0")
        sink._class_maps = Broken()
        sink.put(result(0))
        wait_for(lambda: sink._failed is not None)
        with pytest.raises(OutputError, match=r"cannot publish on zenoh://robot/class_map: the session is closed$"):
            sink.put(result(1))

    def test_every_result_where_that_is_asked_for(self, started: Callable[..., ZenohSink]) -> None:
        sink = started("zenoh://robot/class_map?listen=tcp/127.0.0.1:0", lossless=True)
        for number in range(30):
            sink.put(result(number))
        sink.stop()
        assert (sink.published, sink.left_out) == (30, 0)


def zenoh_error(text: str) -> Exception:
    return RuntimeError(text)


class TestAddress:
    def test_says_where_to(self) -> None:
        found = ZenohAddress.parse("zenoh://robot/front?connect=tcp/1.2.3.4:7447&connect=tcp/[::1]:1&frame_id=cam")
        assert found == ZenohAddress("robot/front", ("tcp/1.2.3.4:7447", "tcp/[::1]:1"), (), False, "cam")

    @pytest.mark.parametrize("uri", ["zenoh", "zenoh://"])
    def test_has_a_default(self, uri: str) -> None:
        assert ZenohAddress.parse(uri) == ZenohAddress("edgeseg/class_map", (), (), True, "")

    def test_looks_for_others_where_told(self) -> None:
        assert ZenohAddress.parse("zenoh://a?listen=tcp/0.0.0.0:1&scouting=on").scouting is True
        assert ZenohAddress.parse("zenoh://a?scouting=off").scouting is False

    @pytest.mark.parametrize(
        ("uri", "message"),
        [
            ("zenoh://robot/*", r"names the key 'robot/\*', but one key without \*, \$, # and // is published on"),
            ("zenoh://a//b", "names the key 'a//b'"),
            ("zenoh://a?conect=x", r"unknown option of zenoh:// 'conect'; did you mean connect\?"),
            ("zenoh://a?scouting=maybe", "scouting is on or off, but is 'maybe'"),
        ],
    )
    def test_that_does_not_fit(self, uri: str, message: str) -> None:
        with pytest.raises(UsageError, match=message):
            ZenohSink(uri, SinkOptions())

    @pytest.mark.parametrize(
        ("option", "message"),
        [
            ("listen=nonsense", r"cannot publish on zenoh://a: .*nonsense"),
            ("listen=tcp/192.0.2.7:7", r"cannot publish on zenoh://a: .*192\.0\.2\.7"),
        ],
    )
    def test_that_cannot_be_had(self, option: str, message: str) -> None:
        with pytest.raises(OutputError, match=message):
            ZenohSink(f"zenoh://a?{option}", SinkOptions()).start(FACTS)

    def test_without_the_library(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "zenoh", None)
        with pytest.raises(MissingDependencyError, match=r"zenoh is needed to publish .* pip install .*edgeseg\[ros\]"):
            ZenohSink("zenoh://a", SinkOptions()).start(FACTS)
