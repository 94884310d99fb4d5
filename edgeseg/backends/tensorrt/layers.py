"""What an engine's layers are: from the engine inspector's JSON or, without a GPU, from TensorRT-RTX's log."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from edgeseg.errors import EngineError

__all__ = ["COMPUTE", "EngineLayer", "Role", "count_precisions", "layers_from_inspector", "layers_from_log"]

Role = Literal["convolution", "deconvolution", "matmul", "dla", "reformat", "requantize", "other"]
"""What a layer is for; a "reformat" changes layout or type only, a "requantize" also rounds to INT8."""

COMPUTE: frozenset[Role] = frozenset({"convolution", "deconvolution", "matmul"})
"""Roles whose layers a bundle promises to run in INT8."""

_TYPES = {
    "int8": "int8",
    "uint8": "uint8",
    "fp16": "float16",
    "half": "float16",
    "fp32": "float32",
    "float": "float32",
    "bf16": "bfloat16",
    "bfloat16": "bfloat16",
    "fp8": "float8",
    "int32": "int32",
    "int64": "int64",
    "bool": "bool",
}
"""numpy's name by the words in which the versions say a data type."""

_TYPE_KEYS = ("Format/Datatype", "Format/DataType", "Datatype", "DataType")
"""Up to 10 the inspector gives layout and type in one sentence; 11 gives the type alone, in two spellings."""

_KINDS: tuple[tuple[str, Role], ...] = (
    ("deconv", "deconvolution"),
    (r"conv(?!er)", "convolution"),
    ("correlation", "convolution"),
    ("gemm", "matmul"),
    ("matrixmultiply", "matmul"),
    ("matrix_multiply", "matmul"),
    ("fully_connected", "matmul"),
    ("dla", "dla"),
    ("reformat", "reformat"),
    ("reorder", "reformat"),
    ("shufflecopy", "reformat"),
)
"""Role by pattern in a layer's type, the first that fits: CaskConvolution, correlation, CaskDeconvolutionV2 ..."""

_MOVING = frozenset({"Cast", "Conc", "Copy", "Max", "Min", "Move", "Mul", "Resh", "Roun", "Slic", "Tran"})
"""Operations in the names of generated kernels that only move, scale and round: __myl_MulMinMaxRounCast is a Q."""

_ROUNDING = "Roun"
_DECONVOLUTION = "Deco"
_LAYER_LINE = re.compile(r"Name: (.*?), LayerType: (\w+), (.*)")
_TENSOR = re.compile(r"\{ Name: ([^,]+), Dimensions: \[([^\]]*)\][^}]*?Datatype: (\w+)")
_NODE = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_SUFFIX = re.compile(r"_myl\d+_\d+$")
_SECTION_ENDS = (", Constants: [", ", Outputs: [", ", TacticName:", ", ParameterType")


@dataclass(frozen=True)
class EngineLayer:
    """One layer of an engine.

    Attributes:
        name: TensorRT's, often the names of the nodes fused into it.
        kind: its type as the version spells it, such as CaskConvolution or correlation.
        role: what it is for.
        inputs, outputs: data types by numpy's names; "" where the version does not tell.
        own: ONNX nodes, and constants, that its name says.
        nodes: those and the ones in its metadata, which lists neighbours' nodes too.
    """

    name: str
    kind: str
    role: Role
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    own: tuple[str, ...]
    nodes: tuple[str, ...]

    @property
    def precision(self) -> str:
        """The data type that it computes on: that of its first input."""
        return self.inputs[0] if self.inputs else ""


def layers_from_inspector(text: str) -> tuple[EngineLayer, ...]:
    """Layers of an engine that was built with detailed verbosity.

    Args:
        text: of `IEngineInspector.get_engine_information` in JSON, of 8.5 to 10 ("Bindings", "Format/Datatype") or 11
            ("I/O Tensors", "DataType").

    Raises:
        EngineError: for text that is not such JSON, or an engine without details.
    """
    try:
        entries = json.loads(text)["Layers"]
    except (ValueError, TypeError, KeyError) as error:
        raise EngineError(f"the engine inspector gave no list of layers ({error}); build the engine again") from error
    if not isinstance(entries, list) or any(not isinstance(entry, dict) for entry in entries):
        raise EngineError("the engine was built without detailed verbosity and does not tell its layers' precision")
    return tuple(_inspected(entry) for entry in entries)


def _inspected(entry: Mapping[str, Any]) -> EngineLayer:
    name, kind = str(entry.get("Name", "")), str(entry.get("LayerType", ""))
    inputs, outputs = (_inspected_types(entry.get(key)) for key in ("Inputs", "Outputs"))
    weights = entry.get("Weights")
    if inputs[:1] == ("",) and isinstance(weights, dict):  # "N/A due to dynamic shapes": the weights' type stays
        inputs = (_data_type(str(weights.get("Type", ""))), *inputs[1:])
    own = _own_nodes(name)
    nodes = tuple(dict.fromkeys([*own, *_NODE.findall(str(entry.get("Metadata", "")))]))
    role = _role(kind, str(entry.get("ParameterType", "")), name, inputs, outputs)
    return EngineLayer(name, kind, role, inputs, outputs, own, nodes)


def _inspected_types(tensors: Any) -> tuple[str, ...]:
    found = []
    for tensor in tensors if isinstance(tensors, list) else ():
        texts = [str(tensor[key]) for key in _TYPE_KEYS if key in tensor] if isinstance(tensor, dict) else []
        found.append(_data_type(texts[0]) if texts else "")
    return tuple(found)


def _data_type(text: str) -> str:
    """The data type named in a sentence such as "Thirty-two wide channel vectorized row major Int8 format"."""
    words = re.findall(r"[a-z]+\d*", text.lower())
    return next((_TYPES[word] for word in words if word in _TYPES), "")


def layers_from_log(text: str) -> tuple[EngineLayer, ...]:
    """Layers in the verbose message of TensorRT-RTX that starts with "Layers:".

    Raises:
        EngineError: where the message lists none.
    """
    found = [match.groups() for line in text.splitlines() if (match := _LAYER_LINE.match(line))]
    if not found:
        raise EngineError("TensorRT-RTX's log lists no layers; report its version, since that log's form has changed")
    return tuple(_logged(name, kind, rest) for name, kind, rest in found)


def _logged(name: str, kind: str, rest: str) -> EngineLayer:
    inputs, outputs = (_logged_types(rest, section) for section in ("Inputs: [", "Outputs: ["))
    own, role = _own_nodes(name), _role(kind, "", name, inputs, outputs)
    return EngineLayer(name, kind, role, inputs, outputs, own, tuple(dict.fromkeys([*own, *_NODE.findall(rest)])))


def _logged_types(text: str, section: str) -> tuple[str, ...]:
    part = text.partition(section)[2]
    for end in _SECTION_ENDS:
        part = part.partition(end)[0]
    return tuple(_data_type(kind) for _, _, kind in _TENSOR.findall(part))


def _own_nodes(name: str) -> tuple[str, ...]:
    """The parts of a layer's name: "a + b", "a || b", "PWN(c)", "a_myl0_1"."""
    parts = [_SUFFIX.sub("", part.strip()) for part in re.split(r" \+ | \|\| ", name)]
    return tuple(part[4:-1] if part.startswith("PWN(") and part.endswith(")") else part for part in parts)


def _role(kind: str, parameters: str, name: str, inputs: Sequence[str], outputs: Sequence[str]) -> Role:
    for word in (kind.lower(), parameters.lower()):
        for pattern, role in _KINDS:
            if re.search(pattern, word):
                return "requantize" if role == "reformat" and _rounds(inputs, outputs) else role
    kernel = re.match(r"__myl_(\w+?)(?:_myl\d+_\d+)?$", name)
    operations = set(re.findall(r"[A-Z][a-z]*", kernel.group(1))) if kernel else set()
    if _DECONVOLUTION in operations:  # in float it can be one kernel with a conversion behind it
        return "deconvolution"
    if not operations or operations - _MOVING:
        return "other"
    return "requantize" if _ROUNDING in operations else "reformat"


def _rounds(inputs: Sequence[str], outputs: Sequence[str]) -> bool:
    return "int8" in outputs and "int8" not in inputs


def count_precisions(layers: Iterable[EngineLayer]) -> dict[str, int]:
    """Number of layers by precision, "unknown" where the engine does not tell, the most frequent first."""
    return dict(Counter(layer.precision or "unknown" for layer in layers).most_common())
