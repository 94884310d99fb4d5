"""What `convert` can be told, and what it gives back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgeseg.bundle import Bundle

__all__ = [
    "DEFAULT_BUDGET",
    "DEFAULT_COUNT",
    "DEFAULT_METHOD",
    "PARTNERS",
    "TARGETS",
    "ConvertOptions",
    "ConvertResult",
]

TARGETS = ("cpu", "orin", "thor")
"""Where the cost of layers in float can be weighed, see `edgeseg.converters.costs`."""

DEFAULT_BUDGET = 0.5
"""Points of mean IoU, or of agreement, that mixed precision may cost."""

PARTNERS = ("auto", "all", "none")
"""Which partners of quantized tensors are quantized too, see `edgeseg.converters.joined`."""

DEFAULT_COUNT = 128
DEFAULT_METHOD = "auto"
"""For each tensor the chooser that leaves the least error at the outputs of the layers that read it."""


@dataclass(frozen=True)
class ConvertOptions:
    """How to convert a network.

    Attributes:
        mean, std: per channel in the network's order, in 0..255 units; the network was trained on (x - mean) / std.
            None where the network's own metadata says it.
        color_order: channel order in which the network was trained; None takes what its metadata says, else RGB.
        classes: a preset label set or a JSON file; None takes what the metadata says, else numbers the classes.
        precision: "int8" quantizes, but for what `budget` and `keep_float` leave in float; "fp16" leaves the whole
            network in floating point and calibrates nothing.
        method: range chooser, see `edgeseg.calibration.ranges.METHODS`; "auto" chooses for each tensor.
        equalize: bring channels of one tensor to like magnitudes first.
        correct_bias: add to biases what quantization takes from the means of outputs.
        round_weights: choose the levels of weights by the error at their layer's output, not each the nearest.
        partners: what is quantized beside layers because TensorRT joins it with INT8 convolutions: "auto" what can save
            something and costs no accuracy, see `edgeseg.converters.joined`; "all"; or "none", as with a budget.
        budget: points that quantization may cost; layers stay in float until it is kept. None quantizes all.
        keep_float: patterns (*, ?) of names of layers that stay in float.
        max_float_share: of the cost of all layers, 0..1, that the budget may leave in float.
        target: where float layers are weighed, one of TARGETS.
        search_frames: frames to search on; None takes some of those that score, which are then not scored, or without
            labels some that calibrate.
        search_labels: folder with their label images.
        count: calibration frames, evenly spaced over the source.
        score_frames: frames to score on; None takes those of the source that calibration left.
        labels: folder with a label image for each scored frame; None scores agreement with the float network.
        mapping: from the network's classes to those of the labels, see `edgeseg.labels.load_mapping`.
        size: (height, width) for a network of dynamic size.
        output_kind: "logits" ends the graph at the last logits, "class-map" puts upsampling and argmax into it.
        output_name: which output holds the logits, where the network has several.
        output: the bundle's folder; None puts MODEL.edgeseg beside the network.
        force: replace a bundle that stands there.
        skip_broken: leave out frames that cannot be read instead of stopping at them.
        licence: licence of the weights, for the manifest; None takes what the metadata says.
    """

    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    color_order: Literal["RGB", "BGR"] | None = None
    classes: str | None = None
    precision: Literal["int8", "fp16"] = "int8"
    method: str = DEFAULT_METHOD
    equalize: bool = True
    correct_bias: bool = True
    round_weights: bool = True
    partners: Literal["auto", "all", "none"] = "auto"
    budget: float | None = None
    keep_float: tuple[str, ...] = ()
    max_float_share: float = 1.0
    target: str = "orin"
    search_frames: str | None = None
    search_labels: Path | None = None
    count: int = DEFAULT_COUNT
    score_frames: str | None = None
    labels: Path | None = None
    mapping: str | None = None
    size: tuple[int, int] | None = None
    output_kind: Literal["logits", "class-map"] = "logits"
    output_name: str | None = None
    output: Path | None = None
    force: bool = False
    skip_broken: bool = False
    licence: str | None = None


@dataclass(frozen=True)
class ConvertResult:
    """What `convert` made.

    Attributes:
        bundle: the bundle, complete on disk.
        frames: calibration frames used; 0 in FP16.
        reused_calibration: whether the ranges of an earlier conversion were taken.
        seconds: wall time by step.
        peak_rss_mb: largest resident memory of the process so far, in MB of 10^6 bytes.
        remarks: what the user should know, one sentence each.
    """

    bundle: Bundle
    frames: int
    reused_calibration: bool
    seconds: dict[str, float]
    peak_rss_mb: float
    remarks: tuple[str, ...] = ()

    @property
    def report(self) -> Path:
        """The report for a person."""
        return self.bundle.path / "report.html"
