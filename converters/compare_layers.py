"""The first layer at which two forms of one network part: the noise at the output of every layer that both have."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from edgeseg.backends import Engine, Target, get_backend
from edgeseg.calibration.frames import Frame, FrameSource
from edgeseg.converters.graph import GraphIndex, copy_model, remove_unused
from edgeseg.converters.macs import COMPUTE
from edgeseg.converters.sides import Side
from edgeseg.errors import EngineError, FrameError, ModelError
from edgeseg.frame import fit_frame
from edgeseg.manifest import InputSpec

__all__ = ["LayerDifference", "LayerPlan", "SharedLayer", "compare_layers", "first_below", "plan_layers"]

_LARGEST_OUTPUTS = 128 * 2**20  # bytes of layers' outputs that a network hands out at a time
_EQUAL = 1e-13  # share of the signal's power that the rounding of float64 sums leaves


@dataclass(frozen=True)
class LayerDifference:
    """How far a layer of B is from the same layer of A.

    Attributes:
        name, op: of the node.
        snr: signal-to-noise ratio of its output in dB, after one positive factor was fitted to every channel of B;
            infinite where nothing but rounding is left.
        factors: smallest and largest of these factors, about 1 where B's channels have A's scale; None where no
            channel of B follows A's.
    """

    name: str
    op: str
    snr: float
    factors: tuple[float, float] | None


@dataclass(frozen=True)
class SharedLayer:
    """A compute layer that both graphs have.

    Attributes:
        name, op: of the node.
        tensors: name of its output in A and in B.
        shape: of that output, float32.
    """

    name: str
    op: str
    tensors: tuple[str, str]
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Size of the output."""
        return 4 * math.prod(self.shape)

    @property
    def channel_axis(self) -> int:
        """Axis of the output that holds its channels."""
        return 1 if self.op in ("Conv", "ConvTranspose") else len(self.shape) - 1


@dataclass(frozen=True)
class LayerPlan:
    """Which layers are compared.

    Attributes:
        groups: layers in graph order; a group's outputs are computed and held together.
        unmatched: names of compute layers without a counterpart of the same name, operator and output shape.
    """

    groups: tuple[tuple[SharedLayer, ...], ...]
    unmatched: tuple[str, ...]

    def units(self, frames: int) -> int:
        """Calls of the progress for a number of frames."""
        return frames * len(self.groups)


def plan_layers(first: Side, second: Side) -> LayerPlan:
    """Find the compute layers (Conv, ConvTranspose, Gemm, MatMul) that both graphs have, by node name.

    Raises:
        ModelError: where there is none.
    """
    a, b = _outputs(first.model), _outputs(second.model)
    shared = [name for name, (op, _, shape) in a.items() if name in b and (op, shape) == (b[name][0], b[name][2])]
    if not shared:
        raise ModelError(
            f"{first.path} and {second.path} have {len(a)} and {len(b)} compute layers, but none with the same name, "
            "operator and output shape; --layers compares two forms of one network at one size"
        )
    groups: list[list[SharedLayer]] = []
    held = 0
    for name in shared:
        op, tensor, shape = a[name]
        layer = SharedLayer(name, op, (tensor, b[name][1]), shape)
        held += layer.bytes
        if not groups or held > _LARGEST_OUTPUTS:
            groups.append([])
            held = layer.bytes
        groups[-1].append(layer)
    unmatched = tuple(dict.fromkeys(name for name in (*a, *b) if name not in set(shared)))
    return LayerPlan(tuple(map(tuple, groups)), unmatched)


def compare_layers(
    first: Side,
    second: Side,
    plan: LayerPlan,
    frames: FrameSource,
    progress: Callable[[int], None] = lambda units: None,
) -> tuple[LayerDifference, ...]:
    """Noise at the output of each layer, in graph order.

    Both networks run from the frame on, so a layer's noise is what it adds and what reached it. Cross-layer
    equalization rescales the channels of one network's tensors, which changes nothing behind the next layer; so each
    channel of B is first multiplied by the positive factor that brings it nearest to A's by least squares. The sums of
    a*a, a*b and b*b by channel suffice for that, so no output outlives its frame.

    Args:
        first, second: A and B, with the same layers.
        plan: from `plan_layers`.
        frames: a few.
        progress: called with 1 after every frame of every group.

    Raises:
        FrameError: for frames that cannot be read.
        EngineError: where the engine does not take a graph, or an output is not finite.
    """
    found: list[LayerDifference] = []
    for group in plan.groups:
        sums = [_Sums() for _ in group]
        with _engine(first, group, 0) as a, _engine(second, group, 1) as b:
            for frame in frames:
                _add(frame, (a, b), (first.manifest.input, second.manifest.input), group, sums)
                progress(1)
        found += [each.difference(layer) for layer, each in zip(group, sums, strict=True)]
    return tuple(found)


def first_below(layers: Sequence[LayerDifference], threshold: float) -> LayerDifference | None:
    """The first layer whose signal-to-noise ratio is below a threshold in dB; None where all reach it."""
    return next((layer for layer in layers if layer.snr < threshold), None)


def _outputs(model: onnx.ModelProto) -> dict[str, tuple[str, str, tuple[int, ...]]]:
    """Operator, output tensor and its shape by name of the compute nodes, in graph order."""
    index = GraphIndex(model)
    nodes = [node for node in model.graph.node if node.op_type in COMPUTE]
    shapes = {node.name: index.shape(node.output[0]) for node in nodes}
    return {
        node.name: (node.op_type, node.output[0], shape) for node in nodes if (shape := shapes[node.name]) is not None
    }


@contextmanager
def _engine(network: Side, group: Sequence[SharedLayer], side: int) -> Iterator[Engine]:
    """The part of a graph that computes these layers, with their outputs for its own, in their order."""
    part = copy_model(network.model)
    del part.graph.output[:]
    part.graph.output.extend(
        helper.make_tensor_value_info(layer.tensors[side], TensorProto.FLOAT, layer.shape) for layer in group
    )
    remove_unused(part)
    backend = get_backend(network.backend)
    target = Target(precision="float32")
    engine = backend.load(backend.compile(part.SerializeToString(), target), target)
    try:
        yield engine
    finally:
        engine.close()


def _add(
    frame: Frame,
    engines: tuple[Engine, Engine],
    inputs: tuple[InputSpec, InputSpec],
    group: Sequence[SharedLayer],
    sums: Sequence[_Sums],
) -> None:
    a, b = (
        engine.infer([fit_frame(frame.image, entry.height, entry.width)])
        for engine, entry in zip(engines, inputs, strict=True)
    )
    for layer, total, own, other in zip(group, sums, a, b, strict=True):
        if not total.add(_by_channel(own, layer), _by_channel(other, layer)):
            raise EngineError(
                f"layer {layer.name} gives values that are not finite on frame {frame.name}; check both networks"
            )


def _by_channel(values: NDArray[Any], layer: SharedLayer) -> NDArray[Any]:
    """(channels, values) of a layer's output."""
    axis = layer.channel_axis
    return np.moveaxis(values, axis, 0).reshape(layer.shape[axis], -1)


@dataclass
class _Sums:
    """Of a*a, a*b and b*b by channel, over frames: (3, channels) float64."""

    total: NDArray[np.float64] | None = None

    def add(self, a: NDArray[Any], b: NDArray[Any]) -> bool:
        """Add one frame's (channels, values); False where any is not finite."""
        pairs = ((a, a), (a, b), (b, b))
        # Products of float32 are exact in float64, so that small noise is not lost in large sums.
        sums = np.stack([np.einsum("cv,cv->c", x, y, dtype=np.float64) for x, y in pairs])
        self.total = sums if self.total is None else self.total + sums
        return bool(np.isfinite(sums).all())

    def difference(self, layer: SharedLayer) -> LayerDifference:
        """The noise that is left when each channel of b has its best positive factor, ab / bb."""
        if self.total is None:
            raise FrameError("there is no frame to compare layers on; give a source with at least one")
        aa, ab, bb = self.total
        follows = (ab > 0) & (bb > 0)
        factors = ab[follows] / bb[follows]
        noise = aa.copy()  # a channel that no positive factor brings nearer is all noise
        noise[follows] -= ab[follows] * factors
        signal, left = float(aa.sum()), float(np.maximum(noise, 0).sum())
        # A channel of zeros in A and of anything else in B has no factor either, and its noise is what B gives.
        left += float(bb[aa == 0].sum())
        snr = math.inf if left <= _EQUAL * signal else 10 * math.log10(signal / left) if signal else -math.inf
        return LayerDifference(
            layer.name, layer.op, snr, (float(factors.min()), float(factors.max())) if factors.size else None
        )
