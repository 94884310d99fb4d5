"""The forms in which the canonical graph goes to the versions of TensorRT."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import onnx

from edgeseg.converters.graph import copy_model, name_nodes
from edgeseg.converters.lint import CANONICAL, JETPACK_4, NO_QUANTIZERS, STRONGLY_TYPED, require_clean
from edgeseg.converters.place import remove_qdq
from edgeseg.converters.targets.float16 import to_float16
from edgeseg.converters.targets.implicit import layer_precisions, range_cache
from edgeseg.converters.targets.tensorrt8 import to_jetpack4, to_tensorrt8
from edgeseg.errors import UsageError, unknown_name

__all__ = ["FORMS", "Derived", "Form", "derive", "get_form"]

Version = tuple[int, int]


@dataclass(frozen=True)
class Derived:
    """What a form is made of.

    Attributes:
        model: the graph.
        cache: calibration cache whose names are tensors of this graph; empty for a form that needs none.
        layer_precisions: "fp16" or "fp32" by name of the layers that are not to run in INT8; as `cache`.
    """

    model: onnx.ModelProto
    cache: bytes = b""
    layer_precisions: Mapping[str, str] = field(default_factory=dict)


Make = Callable[[onnx.ModelProto, Mapping[str, float]], Derived]


@dataclass(frozen=True)
class Form:
    """One form of the canonical graph.

    Attributes:
        name: as it is asked for.
        title: what it is, in a few words.
        make: derives it from the canonical graph and from what is known of ranges, amax by tensor.
        profile: the linter's profile that it is held to.
        oldest: oldest TensorRT version that reads it, (major, minor).
        before: first version that does not; None where none is known.
        strongly_typed: whether it is built with strong typing; otherwise with the INT8 and FP16 flags that fit.
        rtx: whether TensorRT-RTX reads it.
        int8: whether its convolutions run in INT8.
        targets: what it is for, in words.
    """

    name: str
    title: str
    make: Make
    profile: str
    oldest: Version
    before: Version | None
    strongly_typed: bool
    rtx: bool
    int8: bool
    targets: tuple[str, ...]

    def suits(self, version: Version) -> bool:
        """Whether a TensorRT version reads this form."""
        return self.oldest <= version and (self.before is None or version < self.before)


def _canonical(model: onnx.ModelProto, ranges: Mapping[str, float]) -> Derived:
    return Derived(copy_model(model))


def _fp16_qdq(model: onnx.ModelProto, ranges: Mapping[str, float]) -> Derived:
    return Derived(to_float16(model, ranges))


def _fp16(model: onnx.ModelProto, ranges: Mapping[str, float]) -> Derived:
    return Derived(to_float16(remove_qdq(model), ranges))


def _tensorrt8(model: onnx.ModelProto, ranges: Mapping[str, float]) -> Derived:
    return Derived(to_tensorrt8(model))


def _jetpack4(model: onnx.ModelProto, ranges: Mapping[str, float]) -> Derived:
    return Derived(to_jetpack4(model))


def _implicit_int8(model: onnx.ModelProto, ranges: Mapping[str, float]) -> Derived:
    named = copy_model(model)
    name_nodes(named)
    return Derived(remove_qdq(named), range_cache(named, ranges), layer_precisions(named))


FORMS: dict[str, Form] = {
    form.name: form
    for form in (
        Form(
            "canonical", "Q/DQ, the rest in float32", _canonical, CANONICAL, (10, 0), (11, 0),
            strongly_typed=False, rtx=True, int8=True, targets=("JetPack 6 and 7 with TensorRT 10",),
        ),
        Form(
            "fp16_qdq", "Q/DQ, the rest in float16", _fp16_qdq, STRONGLY_TYPED, (10, 12), None,
            strongly_typed=True, rtx=True, int8=True,
            targets=("TensorRT 11", "DLA of AGX Orin with TensorRT 11.4.1", "RTX GPUs"),
        ),
        Form(
            "fp16", "float16 without Q/DQ", _fp16, NO_QUANTIZERS, (8, 5), None,
            strongly_typed=True, rtx=True, int8=False, targets=("networks that lose too much in INT8",),
        ),
        Form(
            "tensorrt8", "Q/DQ as TensorRT 8 imports it", _tensorrt8, CANONICAL, (8, 5), (9, 0),
            strongly_typed=False, rtx=False, int8=True, targets=("JetPack 5.1", "JetPack 6.0"),
        ),
        Form(
            "implicit_int8", "no Q/DQ, with calibration cache and layer precisions", _implicit_int8, NO_QUANTIZERS,
            (8, 5), (11, 0), strongly_typed=False, rtx=False, int8=True,
            targets=("DLA up to TensorRT 10.7", "DeepStream", "jetson-inference", "trtexec"),
        ),
        Form(
            "jetpack4", "no Q/DQ, planar float input, opset 13", _jetpack4, JETPACK_4, (8, 2), (9, 0),
            strongly_typed=False, rtx=False, int8=False, targets=("Nano, TX1 and TX2 with JetPack 4.6",),
        ),
    )
}  # fmt: skip
"""Every form by its name."""


def get_form(name: str) -> Form:
    """The form of that name.

    Raises:
        UsageError: for an unknown name, with the nearest spelling.
    """
    if name not in FORMS:
        raise UsageError(unknown_name("graph form", name, FORMS))
    return FORMS[name]


def derive(name: str, model: onnx.ModelProto, ranges: Mapping[str, float] | None = None) -> Derived:
    """Derive a form and hold it to its rules.

    Args:
        name: one of FORMS.
        model: the canonical graph of a bundle, or a variant of it; it is not changed.
        ranges: amax by tensor name, as far as known; "implicit_int8" needs one of every tensor, see
            `edgeseg.converters.targets.implicit.measure_missing`.

    Raises:
        UsageError: for an unknown name.
        CalibrationError: for ranges of another graph, or when "implicit_int8" lacks some.
        LintError: for a graph that TensorRT would refuse, or run otherwise than meant, in this form.
    """
    form = get_form(name)
    derived = form.make(model, ranges or {})
    require_clean(derived.model, form.profile)
    return derived
