"""Frame rate of inference while browsers watch the web page, against the same with nobody there.

    python benchmarks/web_clients.py [--clients 20] [--seconds 24] [--rate 30] [--work 15] [--threads 1] [--path /live]

A thread stands for the camera and the network: each frame costs `--work` ms of processor time outside Python's lock, as
an engine does, on `--threads` threads that wait for each other, and goes to the web sink; `--rate 0` computes as fast
as it goes. The clients run in a process of their own and read everything they are sent; a page's client (/live) asks
for the next picture as soon as it has one. Turns with and without clients follow each other, so that a busy machine
disturbs both alike. What the page costs is the processor time of its own threads: no other program changes that.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import itertools
import json
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np

from edgeseg.apps.camera.results import CameraFrame, CameraResult, StreamFacts
from edgeseg.apps.camera.sinks import SinkOptions
from edgeseg.apps.camera.sinks.web import WebSink
from edgeseg.labels import load_labels
from edgeseg.scenes import Street, render
from edgeseg.segmentation import Segmentation, Timing

HEIGHT, WIDTH = 540, 960
LABELS = load_labels("camvid").for_channels(12)


class Network:
    """Spends time on a processor without Python's lock, and gives the labels of a rendered frame."""

    def __init__(self, work_ms: float, threads: int = 1) -> None:
        self.work_ms = work_ms
        self._others = ThreadPoolExecutor(threads - 1) if threads > 1 else None
        self._threads = threads
        self.scenes = [render(Street(seed=seed), 25, HEIGHT, WIDTH) for seed in range(8)]
        sample = bytes(8 << 20)
        seconds = []
        for _ in range(5):
            began = time.thread_time()
            hashlib.sha256(sample)
            seconds.append(time.thread_time() - began)
        self._input = bytes(int(len(sample) * work_ms / 1e3 / min(seconds) / threads))

    def result(self, number: int) -> CameraResult:
        """The next frame with its class map."""
        scene, captured = self.scenes[number % len(self.scenes)], time.monotonic()
        # One call without Python's lock and without memory, as of an engine; the amount of work is always the same.
        others = (
            [self._others.submit(hashlib.sha256, self._input) for _ in range(self._threads - 1)] if self._others else []
        )
        hashlib.sha256(self._input)
        wait(others)
        timing = Timing(0, 0, self.work_ms, 0, self.work_ms)
        segmentation = Segmentation(scene.labels, LABELS, timing, number)
        return CameraResult(CameraFrame(scene.image, number, captured), segmentation, time.monotonic())


def inference_fps(network: Network, sink: WebSink, rate: float, seconds: float) -> tuple[float, float]:
    """Results per second of a loop that runs that long, and the 95th percentile of their latency in ms."""
    started = time.monotonic()
    latencies = []
    for number in itertools.count():
        if rate:
            time.sleep(max(0.0, started + number / rate - time.monotonic()))
        if time.monotonic() - started >= seconds:
            break
        result = network.result(number)
        sink.put(result)
        latencies.append(result.latency_ms)
    return len(latencies) / (time.monotonic() - started), float(np.percentile(latencies, 95))


def watch(url: str, path: str, clients: int, received: Any, ending: Any) -> None:
    """Clients that read until they are told to end; counts pictures."""
    import aiohttp

    async def page(session: aiohttp.ClientSession) -> None:
        async with session.ws_connect(path, max_msg_size=0) as live:
            await live.send_str("next")
            await live.send_str("next")
            async for message in live:
                if message.type is aiohttp.WSMsgType.BINARY:
                    received.value += 1
                    await live.send_str("next")

    async def stream(session: aiohttp.ClientSession) -> None:
        async with session.get(path) as response:
            async for chunk in response.content.iter_any():
                received.value += chunk.count(b"--frame")

    async def run() -> None:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(url, connector=connector, timeout=aiohttp.ClientTimeout(None)) as session:
            one = page if path == "/live" else stream
            tasks = [asyncio.create_task(one(session)) for _ in range(clients)]
            await asyncio.get_running_loop().run_in_executor(None, ending.wait)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # Real clients are other machines: here they take what the camera's side leaves of the processors.
    os.nice(19)
    asyncio.run(run())


@contextlib.contextmanager
def watching(url: str, path: str, clients: int) -> Iterator[Any]:
    """A process with clients; gives their count of pictures."""
    context = multiprocessing.get_context("spawn")
    received, ending = context.Value("q", 0, lock=False), context.Event()
    process = context.Process(target=watch, args=(url, path, clients, received, ending))
    process.start()
    try:
        yield received
    finally:
        ending.set()
        process.join()


def server_seconds() -> float:
    """Processor time of the page's threads so far, which other programs on the machine do not change."""
    nanoseconds = 0
    for thread in threading.enumerate():
        if thread.name.startswith("edgeseg-web"):
            nanoseconds += int(Path(f"/proc/self/task/{thread.native_id}/schedstat").read_text().split()[0])
    return nanoseconds / 1e9


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All turns."""
    network = Network(options.work, options.threads)
    sink = WebSink("web://127.0.0.1:0", SinkOptions())
    sink.start(StreamFacts("0", "scene://street", LABELS, options.rate or None))
    part = options.seconds / (2 * options.turns)
    alone, watched, pictures, cost = [], [], 0, 0.0
    try:
        for _ in range(options.turns):
            alone.append(inference_fps(network, sink, options.rate, part))
            with watching(sink.url, options.path, options.clients) as received:
                while received.value < options.clients:
                    sink.put(network.result(0))
                before, spent = received.value, server_seconds()
                watched.append(inference_fps(network, sink, options.rate, part))
                pictures += received.value - before
                cost += server_seconds() - spent
    finally:
        sink.stop()
    ratios = [with_clients[0] / without[0] for with_clients, without in zip(watched, alone, strict=True)]
    return {
        "clients": options.clients,
        "path": options.path,
        "alone_fps": float(np.median([fps for fps, _ in alone])),
        "watched_fps": float(np.median([fps for fps, _ in watched])),
        "ratio": float(np.median(ratios)),
        "alone_p95_ms": float(np.median([p95 for _, p95 in alone])),
        "watched_p95_ms": float(np.median([p95 for _, p95 in watched])),
        "pictures_per_client_per_second": pictures / options.clients / (options.turns * part),
        "page_processor_share": cost / (options.turns * part),
        "page_ms_per_picture": 1e3 * cost / max(pictures / options.clients, 1),
        "processors": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=24.0, help="over all turns")
    parser.add_argument("--rate", type=float, default=30.0, help="frames per second of the camera; 0: no limit")
    parser.add_argument("--work", type=float, default=15.0, help="ms of one processor that a frame costs")
    parser.add_argument("--threads", type=int, default=1, help="of the network")
    parser.add_argument("--turns", type=int, default=4, help="with clients, and as many without")
    parser.add_argument("--path", choices=("/live", "/stream.mjpg"), default="/live")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    result = measure(options)
    if options.json:
        print(json.dumps(result))
        return
    print(f"{result['alone_fps']:.1f} frames/s alone, {result['watched_fps']:.1f} with {options.clients} clients")
    print(f"ratio {result['ratio']:.3f}; p95 {result['alone_p95_ms']:.1f} and {result['watched_p95_ms']:.1f} ms")
    print(f"each client saw {result['pictures_per_client_per_second']:.1f} pictures a second")
    share, each = 100 * result["page_processor_share"], result["page_ms_per_picture"]
    print(f"the page took {share:.0f} % of one processor, {each:.1f} ms a picture for all clients")


if __name__ == "__main__":
    main()
