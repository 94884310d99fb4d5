"""The manifest: what a bundle holds, where it came from and how well it does, as frozen values and JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Literal

from edgeseg.errors import BundleError
from edgeseg.json_values import read_value
from edgeseg.labels import LabelSet

__all__ = [
    "FP16",
    "SCHEMA_VERSION",
    "Budget",
    "Coordinates",
    "InputSpec",
    "Layer",
    "Manifest",
    "Network",
    "OutputSpec",
    "Quantization",
    "Scores",
]

SCHEMA_VERSION = 3
"""1 had no `map_height` and `map_width`; it is read as it was meant, with class maps of the input's size. 2 had no
`techniques` and no `drop_interval`."""

FP16 = "fp16"
"""`Quantization.method` of a network that stays in floating point and was not calibrated."""

Coordinates = Literal["align_corners", "half_pixel", "pytorch_half_pixel", "asymmetric"]


@dataclass(frozen=True)
class Network:
    """Where the network came from.

    Attributes:
        name: a short name, by default the stem of the source file.
        source: file name of the network as it was given.
        digest: SHA-256 of that file, hexadecimal.
        opset: ONNX opset of the given file.
        licence: licence of the weights where the owner stated it.
    """

    name: str
    source: str
    digest: str
    opset: int
    licence: str | None = None


@dataclass(frozen=True)
class InputSpec:
    """The frame that the graph takes: one (1, height, width, 3) uint8 RGB tensor.

    Attributes:
        tensor: name of the graph's input.
        height, width: the network's size in pixels; other frames are resized to it.
        color_order: order in which the network was trained; the graph itself turns RGB into it.
        mean, std: per channel in the network's order, in units of 0..255; the graph applies (x - mean) / std.
        resize: interpolation that brings another frame to this size.
    """

    tensor: str
    height: int
    width: int
    color_order: Literal["RGB", "BGR"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resize: Literal["bilinear"] = "bilinear"

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise BundleError(f"input size must be positive, but is {self.height}x{self.width}")
        if not all(math.isfinite(v) for v in self.mean + self.std) or min(self.std) <= 0:
            raise BundleError(f"mean and std must be finite and std positive, but are {self.mean} and {self.std}")


@dataclass(frozen=True)
class OutputSpec:
    """What the graph gives: logits (1, channels, height, width) float32, or a class map (1, height, width) uint8.

    Attributes:
        tensor: name of the graph's output.
        kind: "logits", or "class-map" where upsampling and argmax stand in the graph.
        channels: number of logits per pixel.
        height, width: size of that tensor.
        coordinates: how a bilinear upsampling maps logits to the class map's size; None where the sizes are equal.
        map_height, map_width: size of the class map: that of the input or, for a network that super-resolves, a whole
            multiple of it; None, as in bundles of schema version 1, is the input's size.
    """

    tensor: str
    kind: Literal["logits", "class-map"]
    channels: int
    height: int
    width: int
    coordinates: Coordinates | None = None
    map_height: int | None = None
    map_width: int | None = None

    def map_size(self, frame: InputSpec) -> tuple[int, int]:
        """(height, width) of the class map of a graph with that input."""
        if self.map_height is None or self.map_width is None:
            return frame.height, frame.width
        return self.map_height, self.map_width


@dataclass(frozen=True)
class Layer:
    """One compute layer (Conv, ConvTranspose, Gemm, MatMul) of the canonical graph.

    Attributes:
        name: the node's name.
        op: its ONNX operator.
        precision: "int8" or "float".
        macs: multiply-accumulate operations for one frame.
        reason: why it stayed in float; empty for an INT8 layer.
    """

    name: str
    op: str
    precision: Literal["int8", "float"]
    macs: int
    reason: str = ""


@dataclass(frozen=True)
class Budget:
    """What the user allowed quantization to cost, and how the layers that stay in float were found.

    Attributes:
        points: that may be lost: of mean IoU where the search had labels, else of agreement with the float network.
        metric: which of the two it was.
        target: where float layers were weighed: cpu, orin or thor.
        int8_drop: points lost on the search frames with every layer in INT8.
        drop: with the layers that stay in float.
        met: whether that is within the budget by one standard error.
        float_share: cost of the float layers over that of all layers on the target, 0..1.
        frame_names, frame_digests: the search frames; none of them is scored.
        drop_error: standard error of `drop`, by bootstrap over these frames.
    """

    points: float
    metric: Literal["miou", "agreement"]
    target: str
    int8_drop: float
    drop: float
    met: bool
    float_share: float
    frame_names: tuple[str, ...]
    frame_digests: tuple[str, ...]
    drop_error: float = 0.0


@dataclass(frozen=True)
class Quantization:
    """How the ranges were found and what they were put on.

    Attributes:
        method: range chooser (auto, mse, entropy, percentile or minmax), followed by "+qat" after fine-tuning in INT8;
            FP16 where nothing is quantized.
        frame_names, frame_digests: the calibration frames; digests are SHA-256 of the size and the RGB pixels. None in
            FP16.
        layers: every compute layer with its precision.
        techniques: what was done so that INT8 costs less, in words.
        budget: how layers were left in float for the accuracy's sake; None where nothing was searched.
    """

    method: str
    frame_names: tuple[str, ...]
    frame_digests: tuple[str, ...]
    layers: tuple[Layer, ...]
    techniques: tuple[str, ...] = ()
    budget: Budget | None = None

    @property
    def number_format(self) -> Literal["INT8", "FP16"]:
        """What the bundle's engine is meant to compute in: INT8 where layers allow it, or FP16 throughout."""
        return "FP16" if self.method == FP16 else "INT8"

    @property
    def converted_layers(self) -> int:
        """Number of compute layers in `number_format`."""
        return self.count("float" if self.number_format == "FP16" else "int8")

    @property
    def converted_mac_share(self) -> float:
        """Share of the multiply-accumulate operations in `number_format`, 0..1."""
        return self._mac_share("float" if self.number_format == "FP16" else "int8")

    def count(self, precision: str) -> int:
        """Number of compute layers of a precision."""
        return sum(layer.precision == precision for layer in self.layers)

    @property
    def int8_mac_share(self) -> float:
        """Share of the multiply-accumulate operations that run in INT8, 0..1."""
        return self._mac_share("int8")

    def _mac_share(self, precision: str) -> float:
        total = sum(layer.macs for layer in self.layers)
        return sum(layer.macs for layer in self.layers if layer.precision == precision) / total if total else 0.0


@dataclass(frozen=True)
class Scores:
    """Accuracy before and after conversion to INT8 or FP16, on frames that calibration never saw.

    Attributes:
        metric: "miou" against labels, or "agreement" with the float network's class map (then `float_score` is 100).
        float_score, int8_score: 0..100, before and after; of an FP16 bundle `int8_score` is the FP16 network's.
        float_iou, int8_iou: 0..100 by class name, None for a class without a labelled or predicted pixel.
        frame_names, frame_digests: the frames scored.
        drop_interval: low and high end of the 95 % interval of `drop`, by bootstrap over the frames; None for fewer
            than two frames.
    """

    metric: Literal["miou", "agreement"]
    float_score: float
    int8_score: float
    float_iou: dict[str, float | None] = field(default_factory=dict)
    int8_iou: dict[str, float | None] = field(default_factory=dict)
    frame_names: tuple[str, ...] = ()
    frame_digests: tuple[str, ...] = ()
    drop_interval: tuple[float, float] | None = None

    @property
    def drop(self) -> float:
        """Points lost by the conversion; negative where the converted network scores higher."""
        return self.float_score - self.int8_score


@dataclass(frozen=True)
class Manifest:
    """Everything that a program needs to know to run a bundle and to trust it.

    Attributes:
        network, input, output, labels, quantization, scores: see their classes; `scores` is None only where no frame
            was left to score.
        files: SHA-256 by file name of every file in the bundle that is not an engine and not this manifest.
        tools: version by library that made the bundle.
        schema_version: format of the manifest file.
    """

    network: Network
    input: InputSpec
    output: OutputSpec
    labels: LabelSet
    quantization: Quantization
    scores: Scores | None
    files: dict[str, str]
    tools: dict[str, str]
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        logits, (height, width) = (self.output.height, self.output.width), self.map_size
        factor = height // self.input.height
        if factor < 1 or (height, width) != (factor * self.input.height, factor * self.input.width):
            raise BundleError(
                f"the manifest has a class map of {height}x{width} for an input of {self.input.height}x"
                f"{self.input.width}, expected a whole multiple of it; convert the network again"
            )
        if self.output.coordinates is None and logits != self.map_size:
            raise BundleError(
                f"the manifest has an output of {logits[0]}x{logits[1]} for a class map of {height}x{width}, "
                "but no rule to bring one to the other; convert the network again"
            )
        if len(self.labels) != self.output.channels:
            raise BundleError(
                f"the manifest names {len(self.labels)} classes for {self.output.channels} output channels; "
                "convert the network again"
            )

    @property
    def map_size(self) -> tuple[int, int]:
        """(height, width) of the class map, before it is brought to the frame's size."""
        return self.output.map_size(self.input)

    def to_json(self) -> str:
        """The manifest as indented JSON with stable key order."""
        return json.dumps(dataclasses.asdict(self), indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Read what `to_json` wrote.

        Raises:
            BundleError: for text that is no manifest, has a missing, unknown or wrongly typed field, or a newer schema.
        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise BundleError(f"manifest.json is not JSON ({error}); convert the network again") from error
        if not isinstance(data, dict) or not isinstance(data.get("schema_version"), int):
            raise BundleError("manifest.json has no schema_version: this is not an edgeseg bundle")
        if data["schema_version"] < 1:
            raise BundleError(
                f"manifest.json has schema_version {data['schema_version']}, which no edgeseg writes; "
                "convert the network again"
            )
        if data["schema_version"] > SCHEMA_VERSION:
            raise BundleError(
                f"the bundle has schema version {data['schema_version']}, but this edgeseg reads up to "
                f"{SCHEMA_VERSION}; upgrade with: pip install --upgrade edgeseg"
            )
        manifest = read_value(cls, data, "manifest")
        assert isinstance(manifest, cls)
        return manifest
