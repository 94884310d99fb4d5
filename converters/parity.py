"""Whether the canonical float graph is still the network that was given."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np

from edgeseg.calibration.frames import Frame
from edgeseg.calibration.scoring import Predictor
from edgeseg.converters.network import as_given, canonical_reference, network_on_cpu
from edgeseg.converters.prepare import Prepared
from edgeseg.errors import ModelError

__all__ = ["agreement", "check_parity"]

_PARITY = 99.9
"""Least share of the pixels, in percent, on which the canonical float graph must agree with the network as given."""

_ENGINES = 98.0
"""The same for two engines that run one graph: a SegNet of random weights was seen at 99.5."""

_log = logging.getLogger(__name__)


def agreement(
    first: Predictor, second: Predictor, frames: Sequence[Frame], advance: Callable[[int], None] | None = None
) -> float:
    """The share of pixels, 0..100, on which two networks give the same class; `advance` is called with 1 a frame."""
    equal = pixels = 0
    for frame in frames:
        same = first(frame.image) == second(frame.image)
        equal += int(np.count_nonzero(same))
        pixels += same.size
        if advance:
            advance(1)
    return 100.0 * equal / pixels if pixels else 100.0


def check_parity(prepared: Prepared, frames: Sequence[Frame], advance: Callable[[int], None] | None = None) -> float:
    """Make sure that the canonical float graph is still the network that was given, pre-processing included.

    The graph is run in the engine of a bundle's user, the given network in ONNX Runtime. Their sums end in other last
    bits, and a network that goes on with the largest of a window, as SegNet does, may come to other classes by them.
    Where the two differ the graph is therefore run in ONNX Runtime too, so that what is left is the graph's doing.

    Args:
        prepared: both.
        frames: a few real ones.
        advance: called with 1 a frame.

    Returns:
        The share of pixels, 0..100, on which both give the same class in their two engines.

    Raises:
        ModelError: when the graph computes something else; that is a mistake of edgeseg, never of the user. Also when
            the engines differ by more than rounding explains.
    """
    with as_given(prepared) as given:
        with network_on_cpu(prepared, prepared.model, prepared.output, frames=len(frames)) as canonical:
            share = agreement(given, canonical, frames, advance)
        if share >= _PARITY:
            return share
        with canonical_reference(prepared) as reference:
            exact = agreement(given, reference, frames)
    if exact < _PARITY:
        raise ModelError(
            f"the simplified graph agrees with the given network on {exact:.2f} % of the pixels, expected {_PARITY} %; "
            "please report this network as a bug"
        )
    if share < _ENGINES:
        raise ModelError(
            f"OpenVINO and ONNX Runtime give the same class on {share:.2f} % of the pixels in float32, expected "
            f"{_ENGINES:g} %: rounding decides what this network says; train it further, or report it as a bug"
        )
    _log.warning(
        "rounding alone changes the class of %.2f %% of the pixels from one engine to another: this network chooses "
        "between values that are nearly equal",
        100 - share,
    )
    return share
