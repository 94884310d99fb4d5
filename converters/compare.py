"""Two networks side by side on the same frames: where their class maps, scores and logits differ, and by how much."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.backends import Engine, LayerProfile, Target, TensorSpec, get_backend
from edgeseg.bundle import Bundle
from edgeseg.calibration.bootstrap import Interval
from edgeseg.calibration.datasets import LabelledFrames
from edgeseg.calibration.frames import Frame, FrameSource
from edgeseg.calibration.scoring import Predictor
from edgeseg.converters.report.figures import ClassScore, class_scores
from edgeseg.converters.sides import Side, common_labels
from edgeseg.converters.verify import Verification, verify
from edgeseg.labels import ClassMapping
from edgeseg.segmenter import Segmenter

__all__ = ["Comparison", "LogitsDifference", "compare"]


@dataclass(frozen=True)
class LogitsDifference:
    """How far the logits of B are from those of A, at the graphs' own size.

    Attributes:
        snr: signal-to-noise ratio in dB, 10 log10 of sum(a^2) over sum((a - b)^2), over all frames; infinite for equal
            logits; None where they cannot be compared.
        reason: why not; empty where they were.
    """

    snr: float | None
    reason: str = ""


@dataclass(frozen=True)
class Comparison:
    """What two networks have in common.

    Attributes:
        labelled: whether labels were given; without them the truth is A's class map.
        frames: number of frames.
        agreement: share of the pixels of the frames with the same class, 0..100.
        agreement_interval: 95 % interval of it, by bootstrap over the frames; None with labels or for a single frame.
        miou: mean IoU of A and of B, 0..100; without labels 100 and that of B's classes against A's.
        difference_interval: 95 % interval of B's mean IoU less A's; None without labels or for a single frame.
        classes: IoU of A (float) and B (int8) by class, the largest difference first.
        worst: name and agreement (0..100) of the frames that differ most, the worst first.
        logits: how far they are apart.
    """

    labelled: bool
    frames: int
    agreement: float
    agreement_interval: Interval | None
    miou: tuple[float, float]
    difference_interval: Interval | None
    classes: tuple[ClassScore, ...]
    worst: tuple[tuple[str, float], ...]
    logits: LogitsDifference


def compare(
    first: Side,
    second: Side,
    frames: FrameSource | LabelledFrames,
    mapping: ClassMapping | None = None,
    progress: Callable[[int], None] = lambda units: None,
) -> Comparison:
    """Run both networks over frames, as a user of their bundles would run them, in one pass.

    Args:
        first, second: A and B.
        frames: with labels or without.
        mapping: from the networks' classes to those of the labels, where they differ.
        progress: called with 1 after every frame.

    Raises:
        LabelError: for networks of different classes, or labels with other classes.
        FrameError: for frames that cannot be read.
        EngineError: where the engine does not take a graph.
    """
    classes = common_labels(first, second)
    noise = _Noise(_incomparable(first, second))
    with _watched(first) as (predict, own), _watched(second) as (predict_second, other):

        def predict_and_note(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
            class_map = predict_second(image)
            noise.add(own.last, other.last)  # the first network has just seen the same frame
            return class_map

        found = verify(predict, predict_and_note, _pairs(frames), classes, mapping, progress)
    return _conclude(found, LogitsDifference(noise.snr(), noise.reason))


def _pairs(frames: FrameSource | LabelledFrames) -> Iterator[tuple[Frame, Any]]:
    if isinstance(frames, LabelledFrames):
        yield from ((item.frame, item) for item in frames)
    else:
        yield from ((frame, None) for frame in frames)


def _conclude(found: Verification, logits: LogitsDifference) -> Comparison:
    scores, intervals = found.scores, found.intervals
    labelled = scores.metric == "miou"
    rows = class_scores(scores)
    drop = scores.drop_interval
    return Comparison(
        labelled,
        len(scores.frame_names),
        found.agreement,
        None if labelled or intervals is None else intervals.int8_score,
        (scores.float_score, scores.int8_score if labelled else _mean([row.int8_iou for row in rows])),
        (-drop[1], -drop[0]) if labelled and drop is not None else None,
        tuple(sorted(rows, key=lambda row: math.inf if row.change is None else -abs(row.change))),
        tuple((frame.name, frame.agreement) for frame in found.worst),
        logits,
    )


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known)


def _incomparable(first: Side, second: Side) -> str:
    outputs = first.manifest.output, second.manifest.output
    if any(output.kind != "logits" for output in outputs):
        return "a graph that ends in a class map gives no logits"
    a, b = ((output.channels, output.height, output.width) for output in outputs)
    return "" if a == b else f"A's are {a[0]}x{a[1]}x{a[2]} and B's {b[0]}x{b[1]}x{b[2]} (channels x height x width)"


@dataclass
class _Noise:
    """Sums over frames; nothing is added where `reason` says that the logits cannot be compared."""

    reason: str
    signal: float = 0.0
    noise: float = 0.0

    def add(self, a: NDArray[Any], b: NDArray[Any]) -> None:
        if not self.reason:
            values, error = a.reshape(-1), (a - b).reshape(-1)
            self.signal += float(np.einsum("i,i->", values, values, dtype=np.float64))
            self.noise += float(np.einsum("i,i->", error, error, dtype=np.float64))

    def snr(self) -> float | None:
        if self.reason:
            return None
        if self.noise == 0:
            return math.inf
        return 10 * math.log10(self.signal / self.noise) if self.signal else -math.inf


@dataclass
class _Watched:
    """An engine that keeps its last output for a second reader, until the next call."""

    engine: Engine
    last: NDArray[Any] = field(default_factory=lambda: np.empty(0))

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self.engine.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self.engine.outputs

    def infer(self, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        found = self.engine.infer(arrays)
        self.last = found[0]
        return found

    def profile(self) -> list[LayerProfile]:
        return self.engine.profile()

    def close(self) -> None:
        self.engine.close()


@contextmanager
def _watched(side: Side) -> Iterator[tuple[Predictor, _Watched]]:
    """The network as `network.graph_on_cpu` runs it, and its engine."""
    backend = get_backend(side.backend)
    target = Target(precision="float32")
    engine = _Watched(backend.load(backend.compile(side.model.SerializeToString(), target), target))
    with Segmenter(Bundle(side.path, side.manifest), backend, lambda _: engine, target) as segmenter:
        yield (lambda frame: segmenter(frame).class_map), engine
