"""What the camera application costs and survives: ratios in one run on this machine.

    python benchmarks/camera.py BUNDLE VIDEO [pipeline] [latency] [restarts] [recordings] [--times N] [--plays N]
        [--seconds S]

pipeline: frames per second of VIDEO (H.264 in mp4) -> BUNDLE -> overlay -> null, against decoding alone and the network
alone, in alternating rounds: the bare engine on prepared arrays, called by one thread and saturated by several, and
the network with its class maps on frames in memory. Processor time says what each costs on a machine that others use.
latency: VIDEO as a camera at 25 frames per second before a network that takes 100 ms. restarts: an RTSP server that is
killed, and one that hangs; the time from its return to the next frame, and the growth of memory. recordings: recorders
killed at random; how much of what was recorded up to the kill plays.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

import edgeseg
from edgeseg.apps.camera.capture import Capture, Patience, Source
from edgeseg.apps.camera.gst import gstreamer
from edgeseg.apps.camera.live import Live, LiveOptions, Stream
from edgeseg.apps.camera.pipeline import Arrival, Pipeline
from edgeseg.apps.camera.platform import find_platform
from edgeseg.apps.camera.results import CameraFrame
from edgeseg.apps.camera.sinks import SinkOptions, open_sink
from edgeseg.apps.camera.sources import SourceOptions, launch_string
from edgeseg.apps.camera.statistics import StreamStatistics
from edgeseg.backends import Engine
from edgeseg.frame import fit_frame
from edgeseg.machine import split_threads

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests" / "support"))
from rtsp_server import RtspCamera

EVERY = SourceOptions(live=False)


@dataclass(frozen=True)
class Cost:
    """Frames of one measurement, the seconds they took, and the processor's seconds of this process."""

    frames: int
    seconds: float
    processor: float

    @property
    def rate(self) -> float:
        """Frames per second."""
        return self.frames / self.seconds

    @property
    def processor_ms(self) -> float:
        """Milliseconds of processor time a frame."""
        return 1e3 * self.processor / self.frames


def measured(run: Callable[[], int]) -> Cost:
    """The cost of something that gives the number of its frames."""
    began, used = time.perf_counter(), time.process_time()
    count = run()
    return Cost(count, time.perf_counter() - began, time.process_time() - used)


def pipeline(options: argparse.Namespace) -> None:
    """The whole against the slower of its parts."""
    with edgeseg.load(options.bundle) as segmenter:
        frames = _frames(options.video)
        entry = segmenter.bundle.manifest.input
        arrays = [fit_frame(frame, entry.height, entry.width).copy() for frame in frames]
        single, parallel = segmenter.make_engine("latency"), segmenter.make_engine("throughput")
        callers = split_threads(None, "throughput")[0] + 1
        ways: dict[str, Callable[[], int]] = {
            "decode": lambda: sum(_decode(options.video, len(frames)) for _ in range(options.plays)),
            "network, one caller": lambda: _infer(single, arrays, 1),
            "network, saturated": lambda: _infer(parallel, arrays, callers),
            "network and class maps": lambda: sum(1 for _ in segmenter.stream(frames)),
            "pipeline": lambda: _whole(segmenter, options.video, options.plays),
        }
        costs: dict[str, list[Cost]] = {name: [] for name in ways}
        _infer(single, arrays[:8], 1)
        _infer(parallel, arrays[:8], callers)
        _whole(segmenter, options.video, 1)
        for _ in range(options.times):
            for name, run in ways.items():
                costs[name].append(measured(run))
        single.close()
        parallel.close()
    print(f"pipeline, {options.bundle.name}, {len(frames)} frames, {options.plays} plays, {options.times} rounds:")
    milliseconds = {}
    for name, found in costs.items():
        milliseconds[name] = statistics.median(cost.processor_ms for cost in found)
        rate = statistics.median(cost.rate for cost in found)
        print(f"  {name:24} {rate:7.1f} frames/s, {milliseconds[name]:6.2f} ms of processor time a frame")
    for name in [name for name in ways if name.startswith("network")]:
        ratios = [
            whole.rate / min(decode.rate, network.rate)
            for whole, decode, network in zip(costs["pipeline"], costs["decode"], costs[name], strict=True)
        ]
        print(f"  pipeline / min(decode; {name}) = {statistics.median(ratios):.3f} (each round: {_list(ratios)})")
    # Where all processors are busy, as they are with the network alone, a frame of both takes the sum of both.
    network, decode = milliseconds["network, saturated"], milliseconds["decode"]
    print(
        f"  with nothing but decode and network it would be {network / (network + decode):.3f}, since they share the "
        f"processors; by processor time it is {network / milliseconds['pipeline']:.3f}"
    )


def _whole(segmenter: edgeseg.Segmenter, video: Path, plays: int) -> int:
    """The application: every frame decoded, segmented and drawn."""
    sink = open_sink("null://draw", SinkOptions(lossless=True))
    source = Source(str(video), SourceOptions(live=False, loop=plays - 1))
    live = Live(segmenter, segmenter.labels, [Stream(source, (sink,))], LiveOptions(queue=2, lossless=True))
    live.run()
    return int(live.statistics["0"].snapshot()["segmented"])


def _decode(video: Path, frames: int) -> int:
    """Decoding alone, as gst-launch-1.0 does it; the number of frames that it is known to give."""
    gst = gstreamer().Gst
    playing = gst.parse_launch(f'filesrc location="{video}" ! qtdemux ! h264parse ! avdec_h264 ! fakesink sync=false')
    playing.set_state(gst.State.PLAYING)
    message = playing.get_bus().timed_pop_filtered(600 * gst.SECOND, gst.MessageType.EOS | gst.MessageType.ERROR)
    playing.set_state(gst.State.NULL)
    if message is None or message.type != gst.MessageType.EOS:
        raise SystemExit(f"{video} does not decode: give a clip of H.264 in mp4")
    return frames


def _infer(engine: Engine, arrays: list[Any], callers: int) -> int:
    """The bare engine on arrays that are ready for it, called by that many threads."""

    def call(first: int) -> int:
        mine = arrays[first::callers]
        for array in mine:
            engine.infer([array])
        return len(mine)

    with ThreadPoolExecutor(callers) as pool:
        return sum(pool.map(call, range(callers)))


def _frames(video: Path) -> list[Any]:
    """All frames of a clip."""
    playing = Pipeline(launch_string(str(video), EVERY, find_platform()), live=False)
    frames = [_image(event) for event in playing.frames(threading.Event(), 0) if isinstance(event, Arrival)]
    playing.stop()
    return frames


def _image(arrival: Arrival) -> Any:
    return CameraFrame(arrival.pixels, 0, arrival.captured).image


def latency(options: argparse.Namespace) -> None:
    """A camera that is faster than the network."""
    with edgeseg.load(options.bundle) as segmenter:

        def slowed(image: Any) -> Any:
            began = time.perf_counter()
            found = segmenter(image)
            time.sleep(max(0.1 - (time.perf_counter() - began), 0))
            return found

        source = Source(str(options.video), SourceOptions(loop=-1))
        live = Live(slowed, segmenter.labels, [Stream(source, (open_sink("null", SinkOptions()),))])
        minutes: list[float] = []
        live.start()
        end = time.monotonic() + options.seconds
        while time.monotonic() < end:
            time.sleep(options.seconds / 5)
            minutes.append(live.statistics["0"].recent()["latency_ms"]["p50"])
        live.stop()
    counts = live.statistics["0"].snapshot()
    total = counts["latency_ms"]["total"]
    limit = 2 * 100 + 40
    print(
        f"latency: p50 {total['p50']:.0f} ms, p99 {total['p99']:.0f} ms (p99 / limit {limit} ms = "
        f"{total['p99'] / limit:.2f}), medians over time {_list(minutes)} ms"
    )
    added = counts["segmented"] + counts["dropped"] + counts["skipped"] + counts["broken"]
    print(f"  captured {counts['captured']} = accounted {added}: {counts['captured'] == added}")


def restarts(options: argparse.Namespace) -> None:
    """A camera that goes and comes back."""
    for loss in ("kill", "hang"):
        with RtspCamera() as camera:
            came = [0.0]

            def take(frame: CameraFrame, came: list[float] = came) -> None:
                came[0] = time.monotonic()

            numbers = StreamStatistics("0")
            capture = Capture(
                Source(camera.address), "0", take, numbers, lambda: None, patience=Patience(frame=2.0, start=20.0)
            )
            capture.start()
            _wait(lambda came=came: came[0] > 0)
            times, sizes = [], []
            for _ in range(options.times + 2):
                time.sleep(0.5)
                getattr(camera, loss)()
                time.sleep(random.uniform(2.5, 4.0))
                camera.start() if loss == "kill" else camera.resume()
                began = time.monotonic()
                _wait(lambda came=came, began=began: came[0] > began)
                times.append(came[0] - began)
                sizes.append(int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6)
            capture.stop()
            capture.join()
        print(
            f"restarts by {loss}: back after {_list(times)} s; "
            f"within 1 s: {sum(t <= 1 for t in times)} of {len(times)}; "
            f"memory {sizes[-1] - sizes[1]:+.1f} MB after the first two, {sizes[-1] - sizes[0]:+.1f} MB after the first"
        )


def _wait(true: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.005)


def recordings(options: argparse.Namespace) -> None:
    """A recorder that is killed."""
    with tempfile.TemporaryDirectory() as folder:
        for ending in (".mkv", ".mp4"):
            lost = []
            for number in range(options.times):
                path = Path(folder) / f"{number}{ending}"
                command = [sys.executable, "-m", "edgeseg", "camera", str(options.bundle), "--source", "test://ball"]
                process = subprocess.Popen(
                    [*command, "--sink", str(path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                )
                _wait(lambda path=path: path.exists() and path.stat().st_size > 1000, 60)
                began = time.time()
                time.sleep(random.uniform(1.5, 4.0))
                process.kill()
                recorded = time.time() - began
                process.wait()
                lost.append(recorded - _playable(path))
            good = sum(seconds <= 1 for seconds in lost)
            print(f"recordings{ending}: lost before the kill {_list(lost)} s; within 1 s: {good} of {len(lost)}")


def _playable(path: Path) -> float:
    """Seconds that decode."""
    capture, last = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG), 0.0
    while capture.isOpened() and capture.grab():
        last = max(last, capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
    capture.release()
    return last


def _list(values: list[float]) -> str:
    return " ".join(f"{value:.2f}" for value in values)


PARTS = {"pipeline": pipeline, "latency": latency, "restarts": restarts, "recordings": recordings}


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("video", type=Path)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--times", type=int, default=10, help="rounds, restarts and recordings (default 10)")
    parser.add_argument("--plays", type=int, default=3, help="of the clip in a round of `pipeline` (default 3)")
    parser.add_argument("--seconds", type=float, default=300.0, help="of the latency's measurement (default 300)")
    options = parser.parse_args()
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"unknown part {', '.join(sorted(unknown))}; known: {', '.join(PARTS)}")
    for name in options.parts or PARTS:
        PARTS[name](options)


if __name__ == "__main__":
    main()
