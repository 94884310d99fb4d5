"""What the camera application costs and survives: ratios in one run on this machine.

    python benchmarks/camera.py BUNDLE VIDEO [pipeline] [latency] [restarts] [recordings] [--times N] [--seconds S]

pipeline: frames per second of VIDEO -> BUNDLE -> overlay -> null, against decoding alone and the network alone, in
alternating rounds. latency: VIDEO as a camera at 25 frames per second before a network that takes 100 ms. restarts: an
RTSP server that is killed, and one that hangs; the time from its return to the next frame, and the growth of memory.
recordings: recorders killed at random; how much of what was recorded up to the kill plays.
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
from pathlib import Path
from typing import Any

import cv2

import edgeseg
from edgeseg.apps.camera.capture import Capture, Patience, Source
from edgeseg.apps.camera.live import Live, LiveOptions, Stream
from edgeseg.apps.camera.pipeline import Arrival, Pipeline
from edgeseg.apps.camera.platform import find_platform
from edgeseg.apps.camera.results import CameraFrame
from edgeseg.apps.camera.sinks import SinkOptions, open_sink
from edgeseg.apps.camera.sources import SourceOptions, launch_string
from edgeseg.apps.camera.statistics import StreamStatistics

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests" / "support"))
from rtsp_server import RtspCamera

EVERY = SourceOptions(live=False)


def pipeline(options: argparse.Namespace) -> None:
    """The whole against the slower of its parts."""
    with edgeseg.load(options.bundle) as segmenter:
        frames = _decode(options.video)[1]
        rounds: dict[str, list[float]] = {"decode": [], "network": [], "pipeline": []}
        segmenter(frames[0])
        for _ in range(options.times):
            began = time.perf_counter()
            count, _ = _decode(options.video, keep=False)
            rounds["decode"].append(count / (time.perf_counter() - began))
            began = time.perf_counter()
            for _ in segmenter.stream(frames):
                pass
            rounds["network"].append(len(frames) / (time.perf_counter() - began))
            began = time.perf_counter()
            sink = open_sink("null://draw", SinkOptions(lossless=True))
            stream = Stream(Source(str(options.video), EVERY), (sink,))
            live = Live(segmenter, segmenter.labels, [stream], LiveOptions(queue=2, lossless=True))
            live.run()
            count = live.statistics["0"].snapshot()["segmented"]
            rounds["pipeline"].append(count / (time.perf_counter() - began))
    rates = {name: statistics.median(values) for name, values in rounds.items()}
    ratios = [
        whole / min(decode, network)
        for whole, decode, network in zip(rounds["pipeline"], rounds["decode"], rounds["network"], strict=True)
    ]
    print("pipeline: " + ", ".join(f"{name} {rate:.1f} frames/s" for name, rate in rates.items()))
    print(f"  pipeline / min(decode, network) = {statistics.median(ratios):.3f} (each round: {_list(ratios)})")


def _decode(video: Path, *, keep: bool = True) -> tuple[int, list[Any]]:
    playing = Pipeline(launch_string(str(video), EVERY, find_platform()), live=False)
    count, frames = 0, []
    for event in playing.frames(threading.Event(), 0):
        if isinstance(event, Arrival):
            count += 1
            if keep:
                frames.append(event.image)
    playing.stop()
    return count, frames


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
    parser.add_argument("--seconds", type=float, default=300.0, help="of the latency's measurement (default 300)")
    options = parser.parse_args()
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"unknown part {', '.join(sorted(unknown))}; known: {', '.join(PARTS)}")
    for name in options.parts or PARTS:
        PARTS[name](options)


if __name__ == "__main__":
    main()
