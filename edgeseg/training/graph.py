"""A canonical ONNX graph as a torch module, so that what is trained is what will run; and the way back."""

from __future__ import annotations

import math

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from edgeseg.converters.graph import GraphIndex, attribute, copy_model, set_constant
from edgeseg.converters.place import weight_scales
from edgeseg.errors import TrainingError, unknown_name
from edgeseg.training.operators import OPERATORS
from edgeseg.training.quantization import ActivationQuantization, WeightQuantization
from edgeseg.training.step import Step, unsupported

__all__ = ["GraphModule"]

_TRAINED = {
    **dict.fromkeys(("Conv", "ConvTranspose", "Gemm", "InstanceNormalization", "LayerNormalization"), (1, 2)),
    "PRelu": (1,),
}
"""Inputs that are weights, by operator. A MatMul's constant is none: in these networks it averages, see
`edgeseg.models.pooling`."""


class GraphModule(nn.Module):
    """A graph, float or with Q/DQ pairs, whose weights and activation scales are parameters.

    Args:
        model: opset 17 with static shapes and batch 1, as `edgeseg convert` writes it.
        output: the tensor to compute; None for the graph's first output.

    Raises:
        UnsupportedModelError: for an operator or a form of it that cannot be trained through, naming the node.
    """

    def __init__(self, model: onnx.ModelProto, output: str | None = None) -> None:
        super().__init__()
        self._index = GraphIndex(model)
        self._input, self._output = self._index.inputs[0], output or self._index.outputs[0]
        self._keys: dict[str, str] = {}
        self._pairs: dict[str, str] = {}
        self._weight_scales: dict[str, str] = {}
        self.scales = nn.ModuleDict()
        self._weights = WeightQuantization()
        nodes = self._needed()
        trained = {
            self._stored(node.input[place])
            for node in nodes
            for place in _TRAINED.get(node.op_type, ())
            if place < len(node.input)
        }
        self._steps = tuple(step for node in nodes if (step := self._step(node)) is not None)
        for step in self._steps:
            for name in step.inputs:
                self._keep(name, name in trained)
        last = {name: number for number, step in enumerate(self._steps) for name in step.inputs}
        self._finished = [[n for n, at in last.items() if at == number] for number in range(len(self._steps))]
        del self._index

    def _needed(self) -> list[onnx.NodeProto]:
        """The nodes that the output depends on, in the order of the graph."""
        wanted, nodes = {self._output}, []
        for node in reversed(self._index.graph.node):
            if wanted.intersection(node.output) and node.op_type != "Constant":
                wanted.update(node.input)
                nodes.append(node)
        return nodes[::-1]

    def _stored(self, tensor: str) -> str:
        """The initializer behind a tensor, through its Q/DQ pair where it has one."""
        for _ in range(2):
            node = self._index.producer(tensor)
            if node is not None and node.op_type in ("QuantizeLinear", "DequantizeLinear"):
                tensor = node.input[0]
        return tensor

    def _step(self, node: onnx.NodeProto) -> Step | None:
        """What to do for a node; None for the first of a pair, whose work is done at the second."""
        index = self._index
        values = [index.constant(name) if name else None for name in node.input]
        step = Step(
            node.name,
            node.op_type,
            tuple(node.input),
            tuple(node.output),
            {a.name: attribute(node, a.name, None) for a in node.attribute},
            tuple(v if v is not None and (v.dtype.kind in "iu" or v.size == 1) else None for v in values),
            index.shape(node.output[0]),
        )
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            return self._pair(node, step)
        if node.op_type not in OPERATORS:
            raise unsupported(step, unknown_name("operator", node.op_type, OPERATORS))
        return step

    def _pair(self, node: onnx.NodeProto, step: Step) -> Step | None:
        """The pair that a DequantizeLinear ends, as one step."""
        index = self._index
        if node.op_type == "QuantizeLinear":
            reader = index.only_consumer(node.output[0])
            if reader is None or reader.op_type != "DequantizeLinear":
                raise unsupported(step, "expected one DequantizeLinear behind it")
            return None
        first, scale = index.producer(node.input[0]), index.constant(node.input[1])
        if first is None or first.op_type != "QuantizeLinear" or first.input[1:] != node.input[1:]:
            raise unsupported(step, "expected a QuantizeLinear with the same scale before it")
        source = first.input[0]
        if scale is None or scale.min() <= 0:
            raise unsupported(step, "expected a constant positive scale")
        if scale.ndim == 0 and index.constant(source) is None:
            key = self._pairs.setdefault(node.input[1], f"scale{len(self._pairs)}")
            if key not in self.scales:
                self.scales[key] = ActivationQuantization(float(scale))
        elif scale.ndim == 1 and index.constant(source) is not None and attribute(node, "axis", 1) == 0:
            key = ""
            self._weight_scales[node.input[1]] = source
        else:
            raise unsupported(step, "expected one scale for an activation, or one for each output channel of weights")
        return Step(node.name, node.op_type, (source,), step.outputs, {"scale": key}, (None,), step.shape)

    def _keep(self, name: str, trained: bool) -> None:
        """Hold a float constant as a parameter or buffer; numbers that steer an operator stand in its step."""
        value = self._index.constant(name) if name else None
        if name in self._keys or value is None or value.dtype != np.float32:
            return
        # Names of tensors hold dots and slashes, which torch does not take.
        key = self._keys[name] = f"tensor{len(self._keys)}"
        tensor = torch.from_numpy(value.copy())
        if trained:
            self.register_parameter(key, nn.Parameter(tensor))
        else:
            self.register_buffer(key, tensor)

    def forward(self, frame: Tensor) -> Tensor:
        """Run the graph.

        Args:
            frame: (N, H, W, 3) uint8 RGB of the graph's height and width.

        Returns:
            The output, (N, C, h, w) float32 logits.
        """
        values = {self._input: frame}
        for step, finished in zip(self._steps, self._finished, strict=True):
            inputs = [self._value(name, values) for name in step.inputs]
            result = self._run(step, inputs)
            values.update(zip(step.outputs, result if isinstance(result, tuple) else (result,), strict=False))
            for name in finished:
                if name != self._output:
                    values.pop(name, None)
        return values[self._output]

    def _value(self, name: str, values: dict[str, Tensor]) -> Tensor | None:
        found = values.get(name)
        if found is None and name in self._keys:
            found = getattr(self, self._keys[name])
        return found

    def _run(self, step: Step, inputs: list[Tensor | None]) -> Tensor | tuple[Tensor, ...]:
        if step.op != "DequantizeLinear":
            try:
                result: Tensor | tuple[Tensor, ...] = OPERATORS[step.op](step, *inputs)
            except (RuntimeError, TypeError, IndexError) as error:
                if isinstance(error, torch.OutOfMemoryError):
                    raise
                raise unsupported(step, f"torch refuses it: {str(error).splitlines()[0]}") from error
            return result
        (source,) = inputs
        assert source is not None  # a pair stands behind a computed tensor or a float constant
        key = step.attributes["scale"]
        quantized: Tensor = (self.scales[key] if key else self._weights)(source)
        return quantized

    def activation_scales(self) -> dict[str, float]:
        """Scale by the name of its initializer."""
        found = {}
        for name, key in self._pairs.items():
            module = self.scales[key]
            assert isinstance(module, ActivationQuantization)
            found[name] = float(module.scale.detach())
        return found

    def write_back(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """The graph with what was learned: weights, biases, slopes and scales, and nothing else changed.

        Args:
            model: the graph that this module was made from.

        Raises:
            TrainingError: where a learned number is not finite.
        """
        result = copy_model(model)
        values: dict[str, np.ndarray] = {}
        for name, key in self._keys.items():
            tensor = getattr(self, key)
            if isinstance(tensor, nn.Parameter):
                values[name] = tensor.detach().cpu().numpy()
        for scale, weight in self._weight_scales.items():
            values[scale] = weight_scales(values[weight])
        values |= {name: np.array(scale, np.float32) for name, scale in self.activation_scales().items()}
        for name, value in values.items():
            if not all(map(math.isfinite, (value.min(), value.max()))):
                raise TrainingError(f"{name} is not finite after training; fine-tune with a smaller --lr")
            set_constant(result, name, value)
        return result
