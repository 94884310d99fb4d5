"""Reading a trained network from an ONNX file, with a clear refusal of everything that is not one."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto

from edgeseg.converters.ends import cut_to_logits, split_single_logit, take_planar
from edgeseg.converters.graph import GraphIndex, name_nodes, remove_unused, with_shapes
from edgeseg.converters.metadata import NetworkMetadata, read_metadata
from edgeseg.converters.opset import opset_of, to_target_opset
from edgeseg.converters.read import check_operators, read_model
from edgeseg.converters.simplify import simplify_graph
from edgeseg.errors import ModelError, UnsupportedModelError

__all__ = ["LoadedNetwork", "load_network"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedNetwork:
    """A network that edgeseg can convert.

    Attributes:
        model: opset 17, every shape static, batch 1, every node named, one input and one output.
        name: stem of the file.
        source: file name.
        digest: SHA-256 of the file, and of its external data files after it, hexadecimal.
        opset: opset of the file as given.
        input_name: the input, (1, 3, height, width) float32.
        output_name: the logits, (1, channels, h, w) float32.
        channels: number of logits per pixel.
        height, width: size of the input in pixels.
        map_size: (height, width) of the class map: that of the logits where a network super-resolves, else the input's.
        metadata: what the network says of itself.
    """

    model: onnx.ModelProto
    name: str
    source: str
    digest: str
    opset: int
    input_name: str
    output_name: str
    channels: int
    height: int
    width: int
    map_size: tuple[int, int]
    metadata: NetworkMetadata


def load_network(path: str | Path, size: tuple[int, int] | None = None, *, output: str | None = None) -> LoadedNetwork:
    """Read and check a network.

    A Softmax, Sigmoid or ArgMax that ends the graph is taken off, since it never changes which class wins; so are the
    Transposes of a network whose channels come last. One logit a pixel becomes two, background and class.

    Args:
        path: an ONNX file; external data is read from beside it.
        size: (height, width) for a network whose input size is dynamic.
        output: name of the output to keep where there are several.

    Raises:
        ModelError: for a file that is missing, truncated or no valid ONNX graph, or whose metadata is malformed.
        UnsupportedModelError: for a valid graph that is no float segmentation network with one image input.
    """
    path = Path(path)
    model, digest = read_model(path)
    opset, metadata = opset_of(model), read_metadata(model, path.name)
    check_operators(model)
    _drop_initializer_inputs(model)
    take_planar(model)
    _check_input(model)
    _keep_output(model, output)
    _fix_size(model, size)
    model = _bring_to_static(to_target_opset(model), size)
    cut_to_logits(model)
    split_single_logit(model)
    remove_unused(model)
    name_nodes(model)
    model = with_shapes(model)
    channels, height, width, map_size = _check_shapes(model)
    return LoadedNetwork(
        model=model,
        name=path.stem,
        source=path.name,
        digest=digest,
        opset=opset,
        input_name=model.graph.input[0].name,
        output_name=model.graph.output[0].name,
        channels=channels,
        height=height,
        width=width,
        map_size=map_size,
        metadata=metadata,
    )


def _drop_initializer_inputs(model: onnx.ModelProto) -> None:
    """Before IR version 4, every initializer was a graph input too."""
    names = {t.name for t in model.graph.initializer}
    kept = [i for i in model.graph.input if i.name not in names]
    if len(kept) != len(model.graph.input):
        del model.graph.input[:]
        model.graph.input.extend(kept)
        model.ir_version = max(model.ir_version, 4)


def _describe(value: onnx.ValueInfoProto) -> str:
    kind = value.type.tensor_type
    dims = [d.dim_param or ("?" if not d.HasField("dim_value") else str(d.dim_value)) for d in kind.shape.dim]
    return f"{value.name} ({', '.join(dims)}) {TensorProto.DataType.Name(kind.elem_type).lower()}"


def _check_input(model: onnx.ModelProto) -> None:
    inputs = list(model.graph.input)
    if len(inputs) != 1:
        names = "; ".join(map(_describe, inputs)) or "none"
        raise UnsupportedModelError(
            f"expected one image input, but the network has {len(inputs)}: {names}; export it with the image alone"
        )
    kind = inputs[0].type.tensor_type
    dims = kind.shape.dim
    if (
        kind.elem_type != TensorProto.FLOAT
        or len(dims) != 4
        or (dims[1].HasField("dim_value") and dims[1].dim_value != 3)
    ):
        raise UnsupportedModelError(
            f"expected a float32 image input (1, 3, H, W), but got {_describe(inputs[0])}; export the network in NCHW "
            "with three channels and without pre-processing (edgeseg puts it into the graph)"
        )


def _keep_output(model: onnx.ModelProto, output: str | None) -> None:
    outputs = {o.name: o for o in model.graph.output}
    if output is not None and output not in outputs:
        raise UnsupportedModelError(f"expected an output named {output}, but the network has: {', '.join(outputs)}")
    if output is None and len(outputs) > 1:
        raise UnsupportedModelError(
            f"expected one output with the logits, but the network has {len(outputs)}: "
            f"{'; '.join(map(_describe, outputs.values()))}; choose one with --output-name"
        )
    chosen = outputs[output or next(iter(outputs))]
    if len(outputs) > 1:
        kept = onnx.ValueInfoProto.FromString(chosen.SerializeToString())
        del model.graph.output[:]
        model.graph.output.append(kept)
        remove_unused(model)


def _fix_size(model: onnx.ModelProto, size: tuple[int, int] | None) -> None:
    """Write batch 1, three channels and the size into the input; shapes behind it are inferred again."""
    value = model.graph.input[0]
    dims = value.type.tensor_type.shape.dim
    fixed = tuple(d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in dims)
    if None in fixed[2:] and size is None:
        raise UnsupportedModelError(
            f"expected a fixed input size, but got {_describe(value)}; give the size to run at with --size HxW"
        )
    if size is not None and any(f is not None and f != s for f, s in zip(fixed[2:], size, strict=True)):
        raise UnsupportedModelError(
            f"the network has a fixed input of {fixed[2]}x{fixed[3]}, but the size asked for is {size[0]}x{size[1]}; "
            "leave --size out, or export the network with a dynamic size"
        )
    height, width = size or (fixed[2], fixed[3])
    if min(height or 0, width or 0) < 1:
        raise UnsupportedModelError(f"expected a positive size HxW, but got {height}x{width}")
    for dim, length in zip(dims, (1, 3, height, width), strict=True):
        dim.dim_value = length or 0
    del model.graph.value_info[:]
    for dim in model.graph.output[0].type.tensor_type.shape.dim:
        dim.Clear()


def _bring_to_static(model: onnx.ModelProto, size: tuple[int, int] | None) -> onnx.ModelProto:
    """Infer every shape; constant folding settles those that the graph computes from its input's size."""
    try:
        result = with_shapes(model)
        index = GraphIndex(result)
        if any(index.shape(o) is None for n in result.graph.node for o in n.output if o):
            result = simplify_graph(result)
    except ModelError as error:
        if size is None:
            raise
        raise UnsupportedModelError(
            f"the network does not take {size[0]}x{size[1]} frames ({error}); try multiples of 32 with --size HxW"
        ) from error
    return result


def _check_shapes(model: onnx.ModelProto) -> tuple[int, int, int, tuple[int, int]]:
    """Channels of the logits, height and width of the input, and the class map's size."""
    index = GraphIndex(model)
    value = model.graph.output[0]
    shape = index.shape(value.name)
    if shape is None:
        raise UnsupportedModelError(
            f"expected logits of a fixed size, but got {_describe(value)} even with a fixed input; "
            "export the network again with a fixed input size"
        )
    _, _, height, width = index.shape(model.graph.input[0].name) or (0, 0, 0, 0)
    if len(shape) == 4 and shape[0] != 1:
        raise UnsupportedModelError(
            f"expected batch 1, but the logits are {_describe(value)}: the batch is written into the graph; "
            "export the network with batch 1"
        )
    if value.type.tensor_type.elem_type != TensorProto.FLOAT or len(shape) != 4 or shape[1] < 2:
        last = index.producer(value.name)
        raise UnsupportedModelError(
            f"expected float32 logits (1, C, H, W) with at least 2 channels, but the network gives {_describe(value)} "
            f"from {last.op_type if last is not None else 'its input'}; export it without post-processing"
        )
    h, w = shape[2:]
    if h > height and h % height == 0 and w * height == h * width:
        return shape[1], height, width, (h, w)
    # Strided convolutions round up or down, so the two ratios may differ by less than a pixel of the logits.
    if h > height or w > width or abs(h * width - w * height) > max(height, width) * 2:
        raise UnsupportedModelError(
            f"expected logits of the input's size, a fraction or a whole multiple of it, but the input is "
            f"{height}x{width} and the logits are {h}x{w}; export the network so that both have the same aspect"
        )
    return shape[1], height, width, (height, width)
