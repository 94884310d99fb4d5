"""Trial quantization: beside each convolution a quantized twin on the same input, in one graph.

What a layer loses by itself is seen at its output, where range and weights have both had their effect, and not from
the histogram of its input alone. The ranges are an input of the graph, so that any number of them is tried on one
compiled network.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgeseg.calibration.measure import Feed, Forward
from edgeseg.calibration.ranges import LEVELS
from edgeseg.converters.graph import GraphIndex, copy_model
from edgeseg.converters.place import Placement
from edgeseg.converters.rounding import level_limits, rounded_weight, rounding
from edgeseg.errors import CalibrationError
from edgeseg.machine import usable_processors

__all__ = ["LayerError", "Trials", "best_by_output"]

_STEPS = "trial_steps"
_SMALLEST_ENERGY = 1e-30


@dataclass(frozen=True, eq=False)
class LayerError:
    """What quantizing a layer's input and weights does to its output, its input being that of the float network.

    Attributes:
        noise: mean squared error over the mean square of the output.
        shift: (output channels,) float64, mean of float minus quantized output.
    """

    noise: float
    shift: NDArray[np.float64]


class Trials:
    """The float network with the twins of its INT8 layers.

    Args:
        model: the float graph.
        placement: which layers are quantized.
    """

    def __init__(self, model: onnx.ModelProto, placement: Placement) -> None:
        self._tensors = placement.tensors
        names = {layer.name for layer in placement.layers if layer.precision == "int8"}
        self._layers = [node for node in model.graph.node if node.name in names]
        outputs = [f"trial_{kind}_{i}" for i in range(len(self._layers)) for kind in ("noise", "signal", "shift")]
        self._forward = Forward(self._twinned(model), outputs, usable_processors())

    def _twinned(self, model: onnx.ModelProto) -> onnx.ModelProto:
        twinned = copy_model(model)
        graph, index = twinned.graph, GraphIndex(model)
        graph.input.append(helper.make_tensor_value_info(_STEPS, TensorProto.FLOAT, [len(self._tensors)]))
        graph.initializer.extend(level_limits("trial"))
        for number, tensor in enumerate(self._tensors):
            graph.initializer.append(numpy_helper.from_array(np.array(number, np.int64), f"trial_number_{number}"))
            step = f"trial_step_{number}"
            graph.node.append(helper.make_node("Gather", [_STEPS, f"trial_number_{number}"], [step]))
            graph.node.extend(rounding(tensor, step, "trial", number))
        rounded = {tensor: f"trial_rounded_{number}" for number, tensor in enumerate(self._tensors)}
        for number, layer in enumerate(self._layers):
            weight = index.constant(layer.input[1])
            assert weight is not None  # or it would not be quantized
            name = f"trial_weight_{number}"
            graph.initializer.append(numpy_helper.from_array(rounded_weight(weight), name))
            graph.node.extend(_twin(layer, rounded[layer.input[0]], name, number))
            for kind in ("noise", "signal", "shift"):
                graph.output.append(onnx.ValueInfoProto(name=f"trial_{kind}_{number}"))
        return twinned

    def run(self, ranges: Mapping[str, float], feeds: Iterable[Feed]) -> dict[str, LayerError]:
        """Try ranges.

        Args:
            ranges: amax of every quantized tensor.
            feeds: for each frame its arrays by name of the graph's input.

        Returns:
            By name of the layer.

        Raises:
            CalibrationError: without frames.
        """
        steps = np.array([ranges[tensor] / LEVELS for tensor in self._tensors], np.float32)
        energies = np.zeros((len(self._layers), 2))
        shifts: list[NDArray[np.float64]] = [np.zeros(1) for _ in self._layers]
        count = 0
        for feed in feeds:
            count += 1
            arrays = self._forward({**feed, _STEPS: steps}, f"number {count}")
            for i in range(len(self._layers)):
                energies[i] += [float(arrays[f"trial_{kind}_{i}"]) ** 2 for kind in ("noise", "signal")]
                shifts[i] = shifts[i] + arrays[f"trial_shift_{i}"].reshape(-1)
        if not count:
            raise CalibrationError("no frames were given to try ranges on; give at least one")
        return {
            layer.name: LayerError(float(noise / max(signal, _SMALLEST_ENERGY)), shift / count)
            for layer, (noise, signal), shift in zip(self._layers, energies, shifts, strict=True)
        }

    def noise_by_tensor(self, ranges: Mapping[str, float], feeds: Iterable[Feed]) -> dict[str, float]:
        """The noise of all layers that read a tensor, in sum, with the arguments of `run`."""
        errors = self.run(ranges, feeds)
        totals = dict.fromkeys(self._tensors, 0.0)
        for layer in self._layers:
            totals[layer.input[0]] += errors[layer.name].noise
        return totals


def _twin(layer: onnx.NodeProto, tensor: str, weight: str, number: int) -> list[onnx.NodeProto]:
    """The quantized layer, and what it differs by."""
    output, error = (f"trial_{name}_{number}" for name in ("output", "error"))
    twin = onnx.NodeProto.FromString(layer.SerializeToString())
    twin.name = f"trial_layer_{number}"
    twin.input[:2] = [tensor, weight]
    twin.output[:] = [output]
    original = layer.output[0]
    return [
        twin,
        helper.make_node("Sub", [original, output], [error]),
        helper.make_node("ReduceL2", [error], [f"trial_noise_{number}"], keepdims=0),
        helper.make_node("ReduceL2", [original], [f"trial_signal_{number}"], keepdims=0),
        helper.make_node("GlobalAveragePool", [error], [f"trial_shift_{number}"]),
    ]


def best_by_output(
    trials: Trials, candidates: Mapping[str, Mapping[str, float]], feeds: Iterable[Feed]
) -> dict[str, str]:
    """For every tensor the candidate whose range leaves the least noise at the outputs of the layers that read it.

    Args:
        trials: of the network.
        candidates: ranges by tensor, by the name of what chose them.
        feeds: frames to try them on; a few are enough, each is run once for every candidate.

    Returns:
        The candidate's name by tensor; of equal ones the first.
    """
    frames = list(feeds)
    noise = {name: trials.noise_by_tensor(ranges, frames) for name, ranges in candidates.items()}
    tensors = next(iter(noise.values()))
    return {tensor: min(noise, key=lambda name: noise[name][tensor]) for tensor in tensors}
