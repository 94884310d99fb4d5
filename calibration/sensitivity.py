"""Which layers quantization harms: the effect of quantizing each alone, and of sparing each alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeseg.calibration.bootstrap import class_counts, drop_error
from edgeseg.calibration.measure import Feed
from edgeseg.errors import CalibrationError
from edgeseg.labels import ClassMapping
from edgeseg.machine import usable_processors
from edgeseg.metrics import ConfusionMatrix

__all__ = [
    "Drop",
    "Effect",
    "LayerEffect",
    "MixtureScore",
    "SearchFrame",
    "Sensitivity",
    "Truth",
    "measure_sensitivity",
    "sensitivity_runs",
]

Run = Callable[[Feed, Collection[str]], NDArray[np.float32]]
"""Logits (1, C, h, w) of a frame with the named layers in INT8."""


@dataclass(frozen=True)
class Truth:
    """What labels mean.

    Attributes:
        classes: number of labelled classes.
        ignore_index: label value that does not count.
        mapping: from the network's classes to them, where they differ.
    """

    classes: int
    ignore_index: int | None
    mapping: ClassMapping | None = None


@dataclass(frozen=True, eq=False)
class SearchFrame:
    """A frame to search on.

    Attributes:
        feed: its array by name of the graph's input.
        labels: (h, w) uint8 at the size of the logits, or None.
    """

    feed: Feed
    labels: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class Effect:
    """What a mixture of INT8 and float layers gives, against the float network on the same frames.

    Attributes:
        noise: mean square of the difference of the logits over the mean square of the float ones.
        agreement: share of the pixels with the same class, 0..100, at the size of the logits.
        miou: mean IoU against labels, 0..100, at the size of the logits; None without labels.
    """

    noise: float
    agreement: float
    miou: float | None

    @property
    def snr(self) -> float:
        """Signal-to-noise ratio of the logits in dB; infinite without noise."""
        return math.inf if self.noise == 0 else -10 * math.log10(self.noise)


@dataclass(frozen=True)
class LayerEffect:
    """One layer, or one block of layers.

    Attributes:
        name: of the layer; of a block's first one.
        alone: it alone is quantized.
        spared: all others are quantized; None where that was not measured.
        others: names of the block's other layers; empty for a layer.
    """

    name: str
    alone: Effect
    spared: Effect | None
    others: tuple[str, ...] = ()

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of all its layers."""
        return (self.name, *self.others)


@dataclass(frozen=True)
class Sensitivity:
    """All layers.

    Attributes:
        float_network: the float network itself.
        int8_network: everything quantized.
        layers: each layer or block, in the order of the graph.
        frames: number of frames measured on.
    """

    float_network: Effect
    int8_network: Effect
    layers: tuple[LayerEffect, ...]
    frames: int


@dataclass
class _Sums:
    """What one mixture adds up over frames."""

    noise: float = 0.0
    signal: float = 0.0
    equal: int = 0
    pixels: int = 0
    counts: NDArray[np.int64] | None = None


def measure_sensitivity(
    run: Run,
    layers: Sequence[str],
    frames: Iterable[SearchFrame],
    truth: Truth | None = None,
    progress: Callable[[int], None] = lambda units: None,
    *,
    spare: bool = True,
    blocks: Sequence[Sequence[str]] | None = None,
) -> Sensitivity:
    """Quantize each layer alone, and spare each alone.

    The runs of a frame follow each other on one thread in the order of the graph, so that `run` can keep what the next
    one begins with.

    Args:
        run: the network with switches; called from several threads.
        layers: names of the layers with a switch, in the order of the graph.
        frames: all with labels or all without.
        truth: what the labels mean.
        progress: called with 1 after every run of the network, see `sensitivity_runs`.
        spare: also measure what sparing each alone gives, which takes as long again.
        blocks: layers to quantize and to spare together, every layer in one block; None: each by itself.

    Raises:
        CalibrationError: without frames.
    """
    parts = [(name,) for name in layers] if blocks is None else [tuple(block) for block in blocks]
    everything = frozenset(layers)
    mixtures = [frozenset(), everything]
    mixtures += [frozenset(part) for part in parts]
    if spare:
        mixtures += [everything.difference(part) for part in parts]
    kept = list(frames)
    effects = _effects(run, mixtures, kept, truth, progress)
    count = len(parts)
    alone = effects[2 : 2 + count]
    spared: Sequence[Effect | None] = effects[2 + count :] if spare else [None] * count
    found = tuple(
        LayerEffect(part[0], one, other, part[1:]) for part, one, other in zip(parts, alone, spared, strict=True)
    )
    return Sensitivity(effects[0], effects[1], found, len(kept))


def sensitivity_runs(layers: int, frames: int, *, spare: bool = True) -> int:
    """How often `measure_sensitivity` runs the network for a number of layers, or of blocks."""
    return frames * (2 + layers * (2 if spare else 1))


@dataclass(frozen=True)
class Drop:
    """Points that a mixture of INT8 and float layers loses on some frames.

    Attributes:
        points: of mean IoU with labels, else of agreement; negative where it gains.
        error: standard error of `points` for the frames being a sample of others, by bootstrap.
    """

    points: float
    error: float = 0.0

    @property
    def bound(self) -> float:
        """What other frames of the kind lose at most, five times of six: the drop and one standard error."""
        return self.points + self.error


class MixtureScore:
    """What mixtures of INT8 and float layers lose on the same frames.

    Args:
        run: the network with switches; called from several threads.
        layers: names of the layers with a switch.
        frames: all with labels or all without.
        truth: what the labels mean.

    Raises:
        CalibrationError: without frames.
    """

    def __init__(self, run: Run, layers: Sequence[str], frames: Sequence[SearchFrame], truth: Truth | None) -> None:
        if not frames:
            raise CalibrationError("no frames were given to measure layers on; give at least one")
        self._run, self._frames, self._truth = run, frames, truth
        self._layers = frozenset(layers)
        self._float_maps = self._maps(frozenset())
        self._float_counts = self._counts(self._float_maps)

    def drop(self, kept: Collection[str]) -> Drop:
        """What is lost with the named layers in float and all others in INT8, at the size of the logits."""
        counts = self._counts(self._maps(self._layers - frozenset(kept)))
        before, after = (_mean_iou(np.stack(each).sum(axis=0)) for each in (self._float_counts, counts))
        return Drop(before - after, drop_error(self._float_counts, counts))

    def _maps(self, quantized: frozenset[str]) -> list[NDArray[np.uint8]]:
        with ThreadPoolExecutor(usable_processors(), "search") as pool:
            return list(pool.map(lambda frame: _class_map(self._run(frame.feed, quantized)), self._frames))

    def _counts(self, maps: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.int64]]:
        """`class_counts` of each frame; without labels those of a single class, where the class map is right that is
        the float network's."""
        if self._truth is None:
            pairs = zip(self._float_maps, maps, strict=True)
            return [np.array([[np.count_nonzero(a == b)], [b.size]], np.int64) for a, b in pairs]
        pairs_with_labels = zip(self._frames, maps, strict=True)
        return [_counts(class_map, frame.labels, self._truth) for frame, class_map in pairs_with_labels]


def _effects(
    run: Run,
    mixtures: Sequence[frozenset[str]],
    frames: Sequence[SearchFrame],
    truth: Truth | None,
    progress: Callable[[int], None],
) -> list[Effect]:
    """One effect a mixture; the first mixture is the reference."""
    if not frames:
        raise CalibrationError("no frames were given to measure layers on; give at least one")
    sums = [_Sums() for _ in mixtures]

    def measure(frame: SearchFrame) -> list[_Sums]:
        reference = run(frame.feed, mixtures[0])
        found = []
        for mixture in mixtures:
            logits = reference if mixture is mixtures[0] else run(frame.feed, mixture)
            found.append(_compared(reference, logits, frame.labels, truth))
            progress(1)
        return found

    # A frame a thread: threads inside one run would wait for each other at every layer.
    with ThreadPoolExecutor(usable_processors(), "sensitivity") as pool:
        for parts in pool.map(measure, frames):
            for total, part in zip(sums, parts, strict=True):
                total.noise += part.noise
                total.signal += part.signal
                total.equal += part.equal
                total.pixels += part.pixels
                if part.counts is not None:
                    total.counts = part.counts if total.counts is None else total.counts + part.counts
    return [_effect(total) for total in sums]


def _compared(
    reference: NDArray[np.float32],
    logits: NDArray[np.float32],
    labels: NDArray[np.uint8] | None,
    truth: Truth | None,
) -> _Sums:
    difference = (logits - reference).astype(np.float64).reshape(-1)
    before, after = _class_map(reference), _class_map(logits)
    sums = _Sums(
        float(difference @ difference),
        float(np.square(reference.astype(np.float64)).sum()),
        int(np.count_nonzero(before == after)),
        before.size,
    )
    if truth is not None:
        sums.counts = _counts(after, labels, truth)
    return sums


def _class_map(logits: NDArray[np.float32]) -> NDArray[np.uint8]:
    class_map: NDArray[np.uint8] = logits[0].argmax(axis=0).astype(np.uint8)
    return class_map


def _counts(class_map: NDArray[np.uint8], labels: NDArray[np.uint8] | None, truth: Truth) -> NDArray[np.int64]:
    assert labels is not None  # all frames have labels where there is a truth
    matrix = ConfusionMatrix(truth.classes)
    matrix.add(labels, class_map if truth.mapping is None else truth.mapping(class_map), truth.ignore_index)
    return class_counts(matrix.matrix, truth.ignore_index)


def _mean_iou(counts: NDArray[np.int64] | None) -> float:
    if counts is None or not counts[1].any():
        return math.nan
    hits, union = counts.astype(np.float64)
    return 100 * float((hits[union > 0] / union[union > 0]).mean())


def _effect(sums: _Sums) -> Effect:
    miou = None if sums.counts is None else _mean_iou(sums.counts)
    return Effect(sums.noise / max(sums.signal, 1e-30), 100.0 * sums.equal / sums.pixels, miou)
