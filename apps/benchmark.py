"""How fast a bundle is end to end, against its bare engine on prepared arrays in the same run.

Rounds of both kinds alternate, and their order turns from round to round, so that a machine that slows down or is
shared meanwhile slows both sides.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.frame import fit_frame
from edgeseg.machine import split_threads

if TYPE_CHECKING:
    from edgeseg.backends import Engine
    from edgeseg.segmenter import NamedFrame, Segmenter

__all__ = ["STAGES", "FrameMaker", "Measurement", "Percentiles", "SyntheticFrame", "measure", "synthetic_frames"]

STAGES = ("decode", "preprocess", "infer", "postprocess")

ROUND_SECONDS = 1.0
_WARM_UP = 3

FrameMaker = Callable[[int], "Iterable[NamedFrame]"]
"""Gives an iterable of that many frames, decoded while it is read where they come from files."""


@dataclass(frozen=True)
class SyntheticFrame:
    """A made-up frame: `image` is (H, W, 3) uint8 RGB."""

    name: str
    image: NDArray[np.uint8]


@dataclass(frozen=True)
class Percentiles:
    """Milliseconds that 50, 95 and 99 percent of the samples stay below, and their mean."""

    p50: float
    p95: float
    p99: float
    mean: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Percentiles:
        """From single samples in ms."""
        p50, p95, p99 = np.percentile(samples, (50, 95, 99)).tolist()
        return cls(p50, p95, p99, float(np.mean(samples)))


@dataclass
class Measurement:
    """What was measured, round after round.

    Attributes:
        latency: ms from a frame's arrival to its class map, one frame at a time.
        stages: ms by stage of the same frames; decode is the wait for the source, before the frame's arrival.
        frames, seconds: of the stream, several frames in flight.
        spans: begin and end of the stream's rounds, in seconds of time.perf_counter.
        bare_frames, bare_seconds: of the bare engine, as many calls in flight.
        rounds: pairs of rounds.
    """

    latency: list[float] = field(default_factory=list)
    stages: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in STAGES})
    frames: int = 0
    seconds: float = 0.0
    spans: list[tuple[float, float]] = field(default_factory=list)
    bare_frames: int = 0
    bare_seconds: float = 0.0
    rounds: int = 0

    @property
    def fps(self) -> float:
        """Frames a second of the stream, end to end."""
        return self.frames / self.seconds

    @property
    def bare_fps(self) -> float:
        """Frames a second of the bare engine."""
        return self.bare_frames / self.bare_seconds


def measure(
    segmenter: Segmenter,
    engine: Engine,
    frames: FrameMaker,
    seconds: float,
    *,
    threads: int | None = None,
    progress: Callable[[int], None] = lambda units: None,
) -> Measurement:
    """Measure a segmenter, and an engine of the same graph made for throughput.

    Args:
        segmenter: end to end.
        engine: bare; its frames are brought to its size beforehand.
        frames: makes the frames.
        seconds: time to spend, roughly; one round of each kind is done in any case.
        threads: as the segmenter got it; one call more than they run at once is in flight.
        progress: called with the whole seconds just spent.
    """
    spec = segmenter.bundle.manifest.input
    prepared = [fit_frame(frame.image, spec.height, spec.width) for frame in frames(4)]
    flights = split_threads(threads, "throughput")[0] + 1
    count = _frames_a_round(segmenter, engine, frames, prepared, flights)
    result = Measurement()
    start, told = time.perf_counter(), 0
    while not result.rounds or time.perf_counter() - start < seconds:
        pair: list[Callable[[], None]] = [
            lambda: _stream(segmenter, frames(count), result),
            lambda: _bare(engine, prepared, count, flights, result),
        ]
        for run in pair if result.rounds % 2 else reversed(pair):
            run()
        _one_by_one(segmenter, frames(max(count // 2, 8)), result)
        result.rounds += 1
        spent = min(int(time.perf_counter() - start), int(seconds))
        progress(spent - told)
        told = spent
    return result


def synthetic_frames(height: int, width: int) -> FrameMaker:
    """Made-up frames of a size, in memory: time does not depend on what a frame shows."""
    random = np.random.default_rng(0)
    made = [SyntheticFrame(f"synthetic{i}", random.integers(0, 256, (height, width, 3), np.uint8)) for i in range(4)]
    return lambda count: itertools.islice(itertools.cycle(made), count)


def _frames_a_round(
    segmenter: Segmenter, engine: Engine, frames: FrameMaker, prepared: list[NDArray[np.uint8]], flights: int
) -> int:
    """Warm both sides up, and find how many frames take about ROUND_SECONDS."""
    for _ in segmenter.stream(frames(_WARM_UP)):
        pass
    warm = Measurement()
    _one_by_one(segmenter, frames(_WARM_UP), warm)
    _bare(engine, prepared, _WARM_UP * flights, flights, warm)
    return max(2 * flights, int(1e3 * ROUND_SECONDS / max(min(warm.latency), 0.1)))


def _stream(segmenter: Segmenter, frames: Iterable[Any], result: Measurement) -> None:
    start = time.perf_counter()
    count = sum(1 for _ in segmenter.stream(frames))
    end = time.perf_counter()
    result.seconds += end - start
    result.spans.append((start, end))
    result.frames += count


def _bare(engine: Engine, prepared: Sequence[NDArray[np.uint8]], count: int, flights: int, result: Measurement) -> None:
    """`count` calls, `flights` at once, as a stream has them in flight, and nothing else."""
    numbers = iter(range(count))
    lock = threading.Lock()
    errors: list[BaseException] = []

    def work() -> None:
        try:
            while True:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                engine.infer([prepared[number % len(prepared)]])
        except BaseException as error:
            errors.append(error)

    workers = [threading.Thread(target=work, name="edgeseg-bare", daemon=True) for _ in range(flights)]
    start = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if errors:
        raise errors[0]
    result.bare_seconds += time.perf_counter() - start
    result.bare_frames += count


def _one_by_one(segmenter: Segmenter, frames: Iterable[NamedFrame], result: Measurement) -> None:
    asked = time.perf_counter()
    for frame in frames:
        decoded = time.perf_counter()
        timing = segmenter(frame.image).timing
        result.latency.append(timing.total)
        result.stages["decode"].append(1e3 * (decoded - asked))
        for name in STAGES[1:]:
            result.stages[name].append(getattr(timing, name))
        asked = time.perf_counter()
