"""Reading an ONNX file with its external data, and refusing operators that no segmentation network of ours may hold."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import onnx
import onnx.inliner
from google.protobuf.message import DecodeError
from onnx import TensorProto, external_data_helper

from edgeseg.converters.graph import GraphIndex, attribute
from edgeseg.converters.opset import opset_of
from edgeseg.errors import ModelError, UnsupportedModelError

__all__ = ["check_operators", "read_graph", "read_model"]

_STANDARD_DOMAINS = ("", "ai.onnx")
_QUANTIZED = frozenset(("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger"))
# No TensorRT version takes these in a segmentation network, or only through plug-ins.
_RECURRENT = ("GRU", "LSTM", "RNN")
_CONTROL = ("If", "Loop", "Scan", "Optional", "OptionalGetElement", "OptionalHasElement")
_SEQUENCES = ("SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceInsert", "SequenceMap", "SplitToSequence")
_RANDOM = ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")
_DATA_DEPENDENT = ("Compress", "NonMaxSuppression", "NonZero", "StringNormalizer", "TfIdfVectorizer", "Unique")
_WITHOUT_KERNEL = ("DeformConv", "MaxUnpool")
_UNSUPPORTED = frozenset(_RECURRENT + _CONTROL + _SEQUENCES + _RANDOM + _DATA_DEPENDENT + _WITHOUT_KERNEL)


def read_graph(path: Path) -> tuple[onnx.ModelProto, bytes]:
    """An ONNX model as its file holds it, without external data, and the file's content.

    Raises:
        ModelError: for a file that is missing, truncated or no ONNX network.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"expected an ONNX file, but {path} cannot be read: {error.strerror}") from error
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError as error:
        raise ModelError(
            f"expected an ONNX file, but {path} is none or is truncated ({len(content)} bytes); copy or export it again"
        ) from error
    if not model.graph.node or not model.opset_import:
        raise ModelError(f"expected an ONNX file, but {path} holds no graph ({len(content)} bytes); export it again")
    return model, content


def read_model(path: Path) -> tuple[onnx.ModelProto, str]:
    """A valid ONNX model with all weights, and the SHA-256 of its file and of its external data files after it.

    Raises:
        ModelError: for a file that is missing, truncated, not valid ONNX, or whose external data is missing.
        UnsupportedModelError: for operators that ONNX does not have.
    """
    model, content = read_graph(path)
    digest = hashlib.sha256(content)
    _read_external_data(model, path, digest.update)
    try:
        if model.functions:
            # PyTorch's newer exporter writes functions of its own around standard operators.
            model = onnx.inliner.inline_local_functions(model)
        _check_known_operators(model)
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        reason = " ".join(str(error).split("==> Context")[0].split()).rstrip(".")
        raise ModelError(f"{path.name} is not valid ONNX: {reason}; export it again") from error
    return model, digest.hexdigest()


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    yield from model.graph.initializer
    for node in model.graph.node:
        for item in node.attribute:
            if item.HasField("t"):
                yield item.t


def _read_external_data(model: onnx.ModelProto, path: Path, feed: Callable[[bytes], object]) -> None:
    wanted: dict[str, int] = {}
    for tensor in _tensors(model):
        if external_data_helper.uses_external_data(tensor):
            entries = {e.key: e.value for e in tensor.external_data}
            try:
                end = int(entries.get("offset", 0)) + int(entries.get("length", 0))
            except ValueError as error:
                raise ModelError(
                    f"{path.name} does not say where the weights {tensor.name} are kept ({error}); export it again"
                ) from error
            location = entries.get("location", "")
            wanted[location] = max(wanted.get(location, 0), end)
    for location, length in sorted(wanted.items()):
        feed(_external_file(path, location, length).read_bytes())
    if wanted:
        try:
            external_data_helper.load_external_data_for_model(model, str(path.parent))
        except (onnx.checker.ValidationError, OSError, ValueError) as error:
            raise ModelError(f"the external data of {path.name} cannot be read: {error}") from error


def _external_file(path: Path, location: str, length: int) -> Path:
    inside = PurePosixPath(location)
    if not location or inside.is_absolute() or ".." in inside.parts:
        raise ModelError(f"{path.name} names weights outside its own folder ({location!r}); export the network again")
    file = path.parent / inside
    if not file.is_file():
        raise ModelError(
            f"{path.name} keeps its weights in {location}, but {file} does not exist; "
            "copy it beside the network, or export with all weights in one file"
        )
    size = file.stat().st_size
    if size < length:
        raise ModelError(
            f"expected at least {length} bytes of weights in {file}, but it has {size}: it is truncated or belongs to "
            "another network; copy it again"
        )
    return file


def _check_known_operators(model: onnx.ModelProto) -> None:
    """Name what is no operator of ONNX, before the checker says something less clear."""
    opset = opset_of(model)
    for node in model.graph.node:
        if node.domain in _STANDARD_DOMAINS and not onnx.defs.has(node.op_type, opset, ""):
            raise UnsupportedModelError(
                f"{_where(node)} is no operator of ONNX opset {opset}; export the network with standard operators only"
            )


def _where(node: onnx.NodeProto) -> str:
    return f"{node.op_type} ({node.name or node.output[0]})"


def check_operators(model: onnx.ModelProto) -> None:
    """Refuse quantized and 16-bit networks, operators outside the standard, control flow and recurrence.

    Raises:
        UnsupportedModelError: names the operator, the node and the cure.
    """
    index = GraphIndex(model)
    for node in model.graph.node:
        if node.op_type in _QUANTIZED or node.op_type.startswith("QLinear"):
            raise UnsupportedModelError(
                f"expected a float network, but {_where(node)} is quantized already; "
                "give the float32 network that it was made from"
            )
        if node.domain not in _STANDARD_DOMAINS:
            raise UnsupportedModelError(
                f"expected standard ONNX operators, but {_where(node)} is of domain {node.domain!r}; "
                "export the network without custom or runtime-specific operators"
            )
        if node.op_type in _UNSUPPORTED or any(a.HasField("g") or a.graphs for a in node.attribute):
            raise UnsupportedModelError(
                f"{_where(node)} is not supported: TensorRT does not run it in a segmentation network; "
                "replace it in the network and export again"
            )
        if node.op_type == "MaxPool" and any(index.consumers(o) or o in index.outputs for o in node.output[1:]):
            raise UnsupportedModelError(
                f"{_where(node)} gives indices, which no TensorRT version takes; "
                "replace the unpooling by a Resize or a ConvTranspose and train again"
            )
        if node.op_type == "BatchNormalization" and attribute(node, "training_mode", 0):
            raise UnsupportedModelError(
                f"{_where(node)} is in training mode: it would normalise every frame by its own statistics; "
                "call model.eval() and export again"
            )
    half = [t.name for t in _tensors(model) if t.data_type in (TensorProto.FLOAT16, TensorProto.BFLOAT16)]
    if half:
        raise UnsupportedModelError(
            f"expected float32 weights, but {len(half)} tensors are 16-bit (first: {half[0]}); "
            "export the float32 network: edgeseg chooses the precision"
        )
