from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.colours import COLOURS

from edgeseg.apps.camera.capture import Patience, Source
from edgeseg.apps.camera.live import Live, LiveOptions, Stream
from edgeseg.apps.camera.results import CameraResult, StreamFacts
from edgeseg.apps.camera.sinks.callback import CallbackSink
from edgeseg.apps.camera.sources import SourceOptions
from edgeseg.errors import EngineError, FrameError, OutputError, ShapeError, UsageError
from edgeseg.segmentation import Segmentation, Timing

pytestmark = pytest.mark.usefixtures("gst")

EVERY = SourceOptions(live=False)
LOSSLESS = LiveOptions(queue=2, lossless=True)
Segment = Callable[[NDArray[Any]], Segmentation]


class Kept:
    """A sink that keeps results in memory."""

    def __init__(self) -> None:
        self.results: list[CameraResult] = []
        self.facts: StreamFacts | None = None
        self.stops = 0
        self.thread: int | None = None

    def start(self, stream: StreamFacts) -> None:
        self.facts, self.thread = stream, threading.get_ident()

    def put(self, result: CameraResult) -> None:
        assert self.thread == threading.get_ident()
        self.results.append(result)

    def stop(self) -> None:
        assert self.thread == threading.get_ident()
        self.stops += 1


class Failing(Kept):
    def put(self, result: CameraResult) -> None:
        super().put(result)
        if len(self.results) == 5:
            raise OutputError("the disk is full; free some space")


def slowed(segment: Segment, seconds: float) -> Segment:
    def slow(image: NDArray[Any]) -> Segmentation:
        time.sleep(seconds)
        found = segment(image)
        return Segmentation(found.class_map, COLOURS, Timing(0.0, 0.0, 1e3 * seconds, 0.0, 1e3 * seconds))

    return slow


def consistent(live: Live, name: str = "0") -> dict[str, Any]:
    """The stream's counts, which must add up."""
    counts = live.statistics[name].snapshot()
    assert counts["captured"] == sum(counts[key] for key in ("segmented", "dropped", "skipped", "broken"))
    return counts


class TestEveryFrame:
    def test_reaches_every_sink(self, clip: Path, segment: Segment) -> None:
        sinks = Kept(), Kept()
        live = Live(segment, COLOURS, [Stream(Source(str(clip), EVERY), sinks)], LOSSLESS)
        live.run()
        for sink in sinks:
            assert [result.frame.number for result in sink.results] == list(range(30))
            assert sink.stops == 1
            assert sink.facts is not None
            assert (sink.facts.name, sink.facts.labels) == ("0", COLOURS)
        result = sinks[0].results[7]
        np.testing.assert_array_equal(result.segmentation.class_map, result.frame.image.argmax(axis=2))
        assert result.latency_ms >= 0
        counts = consistent(live)
        assert (counts["captured"], counts["segmented"]) == (30, 30)
        assert counts["latency_ms"]["total"]["p99"] > 0

    @pytest.mark.usefixtures("cache")
    def test_with_a_real_segmenter_several_are_in_the_network_at_once(self, clip: Path, tmp_path: Path) -> None:
        from support.bundles import quantized_bundle

        import edgeseg

        sink = Kept()
        with edgeseg.load(quantized_bundle(tmp_path / "toy.edgeseg").path) as segmenter:
            options = LiveOptions(queue=2, lossless=True, every=2)
            live = Live(segmenter, segmenter.labels, [Stream(Source(str(clip), EVERY), (sink,))] * 2, options)
            live.run()
            for name in "01":
                numbers = [result.frame.number for result in sink.results if result.frame.stream == name]
                assert numbers == list(range(0, 30, 2))
                assert consistent(live, name)["skipped"] == 15
            for result in sink.results[::7]:
                np.testing.assert_array_equal(result.segmentation.class_map, segmenter(result.frame.image).class_map)

    def test_each_third(self, clip: Path, segment: Segment) -> None:
        sink = Kept()
        options = LiveOptions(queue=2, lossless=True, every=3)
        live = Live(segment, COLOURS, [Stream(Source(str(clip), EVERY), (sink,))], options)
        live.run()
        assert [result.frame.number for result in sink.results] == list(range(0, 30, 3))
        assert consistent(live)["skipped"] == 20


class TestSeveralStreams:
    def test_are_fair_and_apart(self, clip: Path, segment: Segment) -> None:
        sinks = [Kept() for _ in range(3)]
        streams = [Stream(Source(str(clip), EVERY), (sink,)) for sink in sinks]
        live = Live(slowed(segment, 0.005), COLOURS, streams, LOSSLESS)
        live.run()
        for number, sink in enumerate(sinks):
            assert {result.frame.stream for result in sink.results} == {str(number)}
            assert len(sink.results) == consistent(live, str(number))["segmented"] == 30
        # Once all have begun, none is served twice before another that waits.
        order = sorted((result.finished, result.frame.stream) for sink in sinks for result in sink.results)
        middle = [stream for _, stream in order[30:60]]
        assert {middle.count(name) for name in "012"} <= set(range(8, 13))

    def test_a_slow_one_is_not_starved_by_a_fast_one(self, segment: Segment) -> None:
        """Between two frames of the slow one, ten of the fast one are segmented: a frame that waits has its turn."""
        fast, slow, ended = Kept(), Kept(), threading.Event()
        image = np.zeros((16, 16, 3), np.uint8)

        def often() -> Iterator[NDArray[np.uint8]]:
            while not ended.is_set():
                time.sleep(0.0005)
                yield image

        def seldom() -> Iterator[NDArray[np.uint8]]:
            for number in range(20):
                yield image
                while live.statistics["1"].snapshot()["captured"] <= number:
                    time.sleep(0.001)
                before = len(fast.results)
                while len(fast.results) < before + 10:
                    time.sleep(0.001)
            ended.set()

        streams = [
            Stream(Source("appsrc://", frames=often), (fast,)),
            Stream(Source("appsrc://", frames=seldom), (slow,)),
        ]
        live = Live(slowed(segment, 0.003), COLOURS, streams)
        live.run()
        assert [result.frame.number for result in slow.results] == list(range(20))
        counts = consistent(live, "1")
        assert (counts["captured"], counts["segmented"], counts["dropped"]) == (20, 20, 0)
        counts = consistent(live, "0")
        assert counts["segmented"] == len(fast.results) >= 200
        assert counts["dropped"] > 0

    def test_a_lost_camera_leaves_the_others_and_comes_back(
        self, gst: Any, segment: Segment, caplog: pytest.LogCaptureFixture
    ) -> None:
        from support.rtsp_server import RtspCamera

        sinks, ended = [Kept(), Kept()], threading.Event()

        def frames() -> Iterator[NDArray[np.uint8]]:
            while not ended.is_set():
                time.sleep(0.01)
                yield np.zeros((16, 16, 3), np.uint8)

        def more(sink: Kept, count: int) -> bool:
            wanted, deadline = len(sink.results) + count, time.monotonic() + 30
            while len(sink.results) < wanted and time.monotonic() < deadline:
                time.sleep(0.01)
            return len(sink.results) >= wanted

        with RtspCamera() as camera:
            streams = [
                Stream(Source(camera.address), (sinks[0],)),
                Stream(Source("appsrc://", frames=frames), (sinks[1],)),
            ]
            live = Live(segment, COLOURS, streams, LiveOptions(patience=Patience(frame=1.0)))
            live.start()
            try:
                assert more(sinks[0], 5)
                camera.kill()
                lost = time.monotonic() + 30
                while "is lost" not in caplog.text and time.monotonic() < lost:
                    time.sleep(0.01)
                assert more(sinks[1], 50)
                camera.start()
                assert more(sinks[0], 5)
            finally:
                ended.set()
                live.stop()
        assert [consistent(live, name)["reconnects"] for name in "01"] == [1, 0]
        assert "stream 0: rtsp://127.0.0.1" in caplog.text
        assert "stream 1" not in caplog.text

    def test_one_that_fails_leaves_the_others(
        self, clip: Path, tmp_path: Path, segment: Segment, caplog: pytest.LogCaptureFixture
    ) -> None:
        broken = tmp_path / "broken.mp4"
        broken.write_bytes(clip.read_bytes()[:200])
        sink = Kept()
        streams = [Stream(Source(str(broken), EVERY), (Kept(),)), Stream(Source(str(clip), EVERY), (sink,))]
        options = LiveOptions(queue=2, lossless=True, patience=Patience(start=1.0))
        live = Live(segment, COLOURS, streams, options)
        with pytest.raises(FrameError, match=r"cannot capture .*broken.mp4"):
            live.run()
        assert len(sink.results) == 30
        assert caplog.text.count("stream 0 ended: cannot capture") == 1, "said at once, not when the others end"


class TestSlowNetwork:
    def test_gets_the_newest_frame_and_counts_the_rest(self, clip: Path, segment: Segment) -> None:
        sink = Kept()
        source = Source(str(clip), SourceOptions(loop=1))
        live = Live(slowed(segment, 0.1), COLOURS, [Stream(source, (sink,))])
        live.run()
        counts = consistent(live)
        assert counts["captured"] == 60
        assert counts["segmented"] == len(sink.results)
        assert counts["dropped"] >= 30
        # The frame waits at most one frame's time for the network: its age does not grow over the stream.
        waits = [result.latency_ms - 100 for result in sink.results]
        assert np.median(waits[len(waits) // 2 :]) <= np.median(waits) + 40

    def test_max_latency_skips_and_says_so(
        self, clip: Path, segment: Segment, caplog: pytest.LogCaptureFixture
    ) -> None:
        sink = Kept()
        options = LiveOptions(queue=6, max_latency=120)
        source = Source(str(clip), SourceOptions(loop=1))
        live = Live(slowed(segment, 0.08), COLOURS, [Stream(source, (sink,))], options)
        live.run()
        assert consistent(live)["skipped"] > 0
        assert "skipping frames to keep --max-latency 120 ms" in caplog.text
        without = Live(slowed(segment, 0.08), COLOURS, [Stream(source, (Kept(),))], LiveOptions(queue=6))
        without.run()
        medians = [item.statistics["0"].snapshot()["latency_ms"]["total"]["p50"] for item in (live, without)]
        assert medians[0] < medians[1]

    def test_a_network_slower_than_the_limit_still_gives_masks(
        self, clip: Path, segment: Segment, caplog: pytest.LogCaptureFixture
    ) -> None:
        sink = Kept()
        source = Source(str(clip), SourceOptions(loop=1))
        live = Live(slowed(segment, 0.1), COLOURS, [Stream(source, (sink,))], LiveOptions(max_latency=50))
        live.run()
        assert len(sink.results) >= 3
        assert "the network alone takes 100 ms, more than --max-latency 50" in caplog.text


class TestFaults:
    def test_a_sink_that_fails_is_stopped_alone(
        self, clip: Path, segment: Segment, caplog: pytest.LogCaptureFixture
    ) -> None:
        good, bad = Kept(), Failing()
        live = Live(segment, COLOURS, [Stream(Source(str(clip), EVERY), (good, bad))], LOSSLESS)
        live.run()
        assert (len(good.results), len(bad.results)) == (30, 5)
        assert bad.stops == 1
        assert [str(error) for error in live.sink_errors] == ["the disk is full; free some space"]
        assert caplog.text.count("the disk is full") == 1

    def test_ends_when_no_sink_is_left(self, clip: Path, segment: Segment) -> None:
        live = Live(segment, COLOURS, [Stream(Source(str(clip), EVERY), (Failing(),))], LOSSLESS)
        with pytest.raises(OutputError, match="no sink is left"):
            live.run()

    def test_a_sink_that_cannot_start(self, clip: Path, segment: Segment) -> None:
        class Refusing(Kept):
            def start(self, stream: StreamFacts) -> None:
                raise OutputError("port 1 is taken")

        first = Kept()
        live = Live(segment, COLOURS, [Stream(Source(str(clip), EVERY), (first, Refusing()))], LOSSLESS)
        with pytest.raises(OutputError, match="port 1 is taken"):
            live.run()
        assert (first.stops, first.results) == (1, [])

    def test_a_sink_that_stalls_does_not_stop_the_masks(self, clip: Path, segment: Segment) -> None:
        free = threading.Event()
        stalled, good = CallbackSink(lambda result: free.wait(30) and None), Kept()
        source = Source(str(clip), SourceOptions(loop=1))
        live = Live(segment, COLOURS, [Stream(source, (stalled, good))])
        live.start()
        deadline = time.monotonic() + 20
        while len(good.results) < 20 and time.monotonic() < deadline:
            time.sleep(0.01)
        free.set()
        live.stop()
        assert len(good.results) >= 20
        assert stalled.left_out >= 10

    def test_a_frame_that_the_network_refuses(self, clip: Path, segment: Segment) -> None:
        calls = iter(range(100))

        def picky(image: NDArray[Any]) -> Segmentation:
            if next(calls) == 3:
                raise ShapeError("this frame is broken")
            return segment(image)

        live = Live(picky, COLOURS, [Stream(Source(str(clip), EVERY), (Kept(),))], LOSSLESS)
        live.run()
        counts = consistent(live)
        assert (counts["broken"], counts["segmented"]) == (1, 29)

    def test_a_network_that_fails_ends_it(self, clip: Path) -> None:
        def failing(image: NDArray[Any]) -> Segmentation:
            raise EngineError("the engine is closed")

        sink = Kept()
        live = Live(failing, COLOURS, [Stream(Source(str(clip), EVERY), (sink,))], LOSSLESS)
        with pytest.raises(EngineError, match="the engine is closed"):
            live.run()
        assert sink.stops == 1

    def test_max_latency_of_nothing(self) -> None:
        with pytest.raises(UsageError, match="above 0, but is 0"):
            LiveOptions(max_latency=0)


def test_memory_is_flat(segment: Segment) -> None:
    """Two thousand frames: what is kept of them does not grow."""
    import tracemalloc

    image = np.zeros((32, 32, 3), np.uint8)
    sizes: list[int] = []

    def frames() -> Iterator[NDArray[np.uint8]]:
        for number in range(2000):
            if number in (1000, 1999):
                sizes.append(tracemalloc.get_traced_memory()[0])
            yield image

    class Nothing(Kept):
        def put(self, result: CameraResult) -> None:
            pass

    tracemalloc.start()
    try:
        source = Source("appsrc://", EVERY, frames)
        Live(segment, COLOURS, [Stream(source, (Nothing(),))], LOSSLESS).run()
    finally:
        tracemalloc.stop()
    assert sizes[1] - sizes[0] < 100_000


def test_patience_is_the_applications(segment: Segment) -> None:
    options = LiveOptions(patience=Patience(frame=0.5, start=0.5))
    live = Live(segment, COLOURS, [Stream(Source("rtsp://127.0.0.1:9/none"), (Kept(),))], options)
    with pytest.raises(FrameError, match=r"rtsp://127.0.0.1:9/none gives no frame: Could not open resource"):
        live.run()


class TestSmallerNetwork:
    """A network that sleeps longer than the limit cannot keep it on any machine."""

    def test_takes_over_and_says_so(self, segment: Segment, caplog: pytest.LogCaptureFixture) -> None:
        sinks = [Kept(), Kept()]
        enough = threading.Event()

        def frames() -> Iterator[NDArray[np.uint8]]:
            image = np.zeros((16, 16, 3), np.uint8)
            while not enough.is_set():
                time.sleep(0.01)
                yield image

        def small(image: NDArray[Any]) -> Segmentation:
            if live.network.segmented[1] > 40:
                enough.set()
            found = segment(image)
            return Segmentation(np.full_like(found.class_map, 2), COLOURS, found.timing)

        streams = [Stream(Source("appsrc://", frames=frames), (sink,)) for sink in sinks]
        live = Live(slowed(segment, 0.15), COLOURS, streams, LiveOptions(max_latency=100), smaller=[small])
        live.run()
        assert caplog.text.count("the network is now network 1 instead of network 0") == 1
        results = sorted((one for sink in sinks for one in sink.results), key=lambda one: one.finished)
        which = [int(one.segmentation.class_map[0, 0]) for one in results]
        assert which[:10] == [0] * 10
        assert which[10:] == [2] * (len(which) - 10)
        assert {one.frame.stream for one in results[10:]} == {"0", "1"}
        assert live.network.snapshot()["segmented"] == {"network 0": 10, "network 1": len(which) - 10}
        for name in "01":
            consistent(live, name)

    @pytest.mark.parametrize("options", [LiveOptions(), LiveOptions(lossless=True, max_latency=50)])
    def test_only_where_a_latency_is_to_be_kept(self, segment: Segment, options: LiveOptions) -> None:
        with pytest.raises(UsageError, match=r"so it needs --max-latency, and frames at their own pace \(--realtime\)"):
            Live(segment, COLOURS, [], options, smaller=[segment])

    @pytest.mark.usefixtures("cache")
    def test_is_named_by_its_size_and_needs_the_same_classes(self, segment: Segment, tmp_path: Path) -> None:
        from support.bundles import quantized_bundle

        import edgeseg

        bundles = [quantized_bundle(tmp_path / f"{height}", height).path for height in (32, 16)]
        with (
            edgeseg.load(bundles[0], threads=1) as one,
            edgeseg.load(bundles[1], threads=1) as two,
            edgeseg.load(bundles[1], threads=1) as three,
        ):
            options = LiveOptions(max_latency=50)
            live = Live(one, one.labels, [], options, smaller=[two, three])
            assert live.network.names == ("32x48", "16x48", "16x48 (2)")
            with pytest.raises(UsageError, match=r"16 has the classes class0, .* but the first network has .*red"):
                Live(segment, COLOURS, [], options, smaller=[two])
