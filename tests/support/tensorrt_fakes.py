"""TensorRT without TensorRT: fakes with exactly the names of a version, which parse, build and describe small graphs.

They hold what the versions do differently and edgeseg must therefore do differently: the explicit batch, flags against
types in the graph, progress, timing caches, the inspector's two spellings, DLA, and the ways in which each fails.
"""

from __future__ import annotations

import json
from types import ModuleType
from typing import Any

import onnx
from support.tensorrt_api import Severity, module_of
from support.tensorrt_behaviour import MAGIC, Behaviour, Refusal, Shared
from support.tensorrt_runtime_fakes import EngineInspector, ICudaEngine, IExecutionContext, Runtime

from edgeseg.backends.tensorrt.versions.library import Library, library_of

__all__ = ["Behaviour", "Refusal", "fake_library", "fake_module"]


def fake_library(name: str, behaviour: Behaviour | None = None) -> Library:
    """The library of a dump, such as "tensorrt-10.3.0"."""
    return library_of(fake_module(name, behaviour))


def fake_module(name: str, behaviour: Behaviour | None = None) -> ModuleType:
    """The module of a dump, with the fakes below where the version has their names."""
    classes = {cls.__name__: cls for cls in _CLASSES}
    module = module_of(name, classes)
    shared: Any = Shared(module, behaviour or Behaviour(), name)
    for cls in classes:
        if hasattr(module, cls):
            vars_of: Any = getattr(module, cls)
            vars_of._shared = shared
    return module


class Builder:
    """See fake_module."""

    _shared: Shared

    def __init__(self, logger: Any) -> None:
        self._shared.no_gpu(logger)
        self._logger = logger

    @property
    def num_DLA_cores(self) -> int:  # noqa: N802 - TensorRT's name
        return 0 if self._shared.rtx else self._shared.behaviour.dla_cores

    def create_network(self, flags: int = 0) -> Any:
        return self._shared.module.INetworkDefinition(flags)

    def create_builder_config(self) -> Any:
        return self._shared.module.IBuilderConfig()

    def create_optimization_profile(self) -> Any:
        return self._shared.module.IOptimizationProfile()

    def build_serialized_network(self, network: Any, config: Any) -> Any:
        shared, behaviour = self._shared, self._shared.behaviour
        for severity, text in behaviour.logged:
            self._logger.log(Severity[severity], text)
        failure = behaviour.failure or _wrong(shared, network, config)
        if failure or not _tell_progress(config, behaviour):
            self._logger.log(Severity.ERROR, failure or "the build was cancelled")
            return None
        flags = _flag_names(config)
        quantizes = network._strong or "INT8" in flags
        other = "FP16" if "FP16" in flags else "Float"
        layers = []
        for node, inputs, quantized in network._convolutions:
            int8 = quantized or config._ranges is not None
            kind = "Int8" if quantizes and int8 and node not in behaviour.float_nodes else other
            layers.append({"name": node, "type": kind, "inputs": inputs})
        if config._on_dla:
            layers = [
                {"name": "{ForeignNode[stem...head]}", "type": "Int8" if "INT8" in flags else "Half", "inputs": 1}
            ]
        if shared.rtx:
            self._logger.log(Severity.VERBOSE, "\n".join(["Layers:", *map(_log_line, layers)]))
        content = {
            "layers": layers,
            "inputs": network._shapes,
            "outputs": network._outputs,
            "types": network._types,
            "profiles": config._profiles,
            "pools": config._pools,
            "tf32": "TF32" in flags,
            "level": vars(config).get("builder_optimization_level"),
        }
        return shared.module.IHostMemory(MAGIC + json.dumps(content).encode())


def _wrong(shared: Shared, network: Any, config: Any) -> str:
    """What a real builder refuses."""
    if network._strong and {"INT8", "FP16"} & _flag_names(config):
        return "Error Code 3: precision flags are set for a strongly typed network"
    if any(-1 in shape for shape in network._shapes.values()) and not config._profiles:
        return "Network has dynamic or shape inputs, but no optimization profile has been defined."
    if shared.rtx and not vars(config).get("num_compute_capabilities"):
        return "no compute capability was chosen"
    return ""


def _flag_names(config: Any) -> set[str]:
    return {flag.name for flag in config._flags}


def _tell_progress(config: Any, behaviour: Behaviour) -> bool:
    """Two phases, one in the other; false when the listener stops them."""
    monitor = vars(config).get("progress_monitor")
    goes_on = True
    if monitor is not None:
        monitor.phase_start("Building Engine", None, 2)
        monitor.phase_start("Tactic selection", "Building Engine", 4)
        steps = [monitor.step_complete("Tactic selection", step) for step in range(4)]
        goes_on = all(steps)
        monitor.phase_finish("Tactic selection")
        goes_on = monitor.step_complete("Building Engine", 0) and goes_on
    if behaviour.crash is not None:
        behaviour.crash()
    if monitor is not None:
        monitor.phase_finish("Building Engine")
    return goes_on


def _log_line(layer: dict[str, Any]) -> str:
    tensor = "{{ Name: {}, Dimensions: [1,8,8,8], Strides: [512,64,8,1], Datatype: {}, Format: (Linear) }}"
    given, made = tensor.format("x", layer["type"]), tensor.format("y", "Float")
    return (
        f"Name: {layer['name']}_myl0_1, LayerType: correlation, Inputs: [ {given}], Constants: [ {given}], "
        f"Outputs: [ {made}], TacticName: stub, StreamId: 0, Metadata: [ONNX Layer: {layer['name']}]"
    )


class IBuilderConfig:
    """See fake_module."""

    _shared: Shared

    def __init__(self) -> None:
        self._flags: list[Any] = [self._shared.module.BuilderFlag.TF32]
        self._pools: dict[str, int] = {}
        self._profiles: list[dict[str, Any]] = []
        self._cache: Any = None
        self._capabilities: dict[int, str] = {}

    @property
    def _ranges(self) -> bytes | None:
        calibrator = vars(self).get("int8_calibrator")
        if calibrator is None:
            return None
        assert calibrator.get_batch_size() == 1
        assert calibrator.get_batch([]) is None
        calibrator.write_calibration_cache(b"")
        ranges: bytes = calibrator.read_calibration_cache()
        return ranges

    @property
    def _on_dla(self) -> bool:
        device = vars(self).get("default_device_type")
        return (
            device is not None and device.name == "DLA" and self.DLA_core >= 0 and "GPU_FALLBACK" in _flag_names(self)
        )

    DLA_core = -1

    def set_flag(self, flag: Any) -> None:
        assert flag in self._shared.module.BuilderFlag
        self._flags.append(flag)

    def clear_flag(self, flag: Any) -> None:
        self._flags.remove(flag)

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        self._pools[pool.name] = size

    def add_optimization_profile(self, profile: Any) -> int:
        if any(not least <= best <= largest for least, best, largest in profile._shapes.values()):
            return -1
        self._profiles.append(profile._shapes)
        return len(self._profiles) - 1

    def create_timing_cache(self, content: bytes) -> Any:
        return self._shared.module.ITimingCache(content)

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        if cache._content and not self._shared.behaviour.takes_timings:
            return False
        self._cache = cache
        return True

    def get_timing_cache(self) -> Any:
        return self._cache

    def set_compute_capability(self, capability: Any, index: int) -> bool:
        self._capabilities[index] = capability.name
        return True


class ITimingCache:
    """See fake_module."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def serialize(self) -> Any:
        return self._shared.module.IHostMemory(self._content + b"measured;")  # type: ignore[attr-defined]


class IHostMemory:
    """See fake_module."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __bytes__(self) -> bytes:
        return self._content

    @property
    def nbytes(self) -> int:
        return len(self._content)


class IOptimizationProfile:
    """See fake_module."""

    def __init__(self) -> None:
        self._shapes: dict[str, Any] = {}

    def set_shape(self, name: str, least: Any, best: Any, largest: Any) -> None:
        self._shapes[name] = (tuple(least), tuple(best), tuple(largest))


class INetworkDefinition:
    """See fake_module."""

    _shared: Shared

    def __init__(self, flags: int) -> None:
        self._explicit = self._shared.flag(flags, "EXPLICIT_BATCH") or self._shared.major != 8
        weak = hasattr(self._shared.module.BuilderFlag, "INT8")
        self._strong = self._shared.flag(flags, "STRONGLY_TYPED") or not weak
        self._shapes: dict[str, list[int]] = {}
        self._outputs: dict[str, list[int]] = {}
        self._types: dict[str, str] = {}
        self._convolutions: list[tuple[str, int, bool]] = []
        self._layers: list[Any] = []

    @property
    def num_inputs(self) -> int:
        return len(self._shapes)

    def get_input(self, index: int) -> Any:
        tensor = self._shared.module.ITensor()
        tensor.name, tensor.shape = list(self._shapes.items())[index]
        return tensor

    @property
    def num_layers(self) -> int:
        return len(self._layers)

    def get_layer(self, index: int) -> Any:
        return self._layers[index]


class OnnxParser:
    """See fake_module."""

    _shared: Shared

    def __init__(self, network: Any, logger: Any) -> None:
        self._network, self._logger = network, logger
        self._errors: list[Any] = []

    def parse(self, model: bytes) -> bool:
        behaviour = self._shared.behaviour
        refusals = list(behaviour.refusals)
        if not self._network._explicit:
            refusals.append(Refusal("the ONNX parser only supports networks with an explicit batch", "", "", -1))
        for refusal in refusals:
            self._logger.log(Severity.ERROR, refusal.logged)
        self._errors = [self._shared.module.ParserError(refusal) for refusal in refusals]
        if refusals or behaviour.silent_refusal:
            return False
        self._read(onnx.load_from_string(model).graph)
        return True

    def _read(self, graph: Any) -> None:
        dequantized = {output for node in graph.node if node.op_type == "DequantizeLinear" for output in node.output}
        for node in graph.node:
            if node.op_type == "Cast" and node.input[0] in dequantized:
                dequantized.update(node.output)
            if node.op_type == "Conv":
                quantized = all(name in dequantized for name in node.input[:2])
                self._network._convolutions.append((node.name, len(node.input), quantized))
            layer = self._shared.module.ILayer()
            layer.name = node.name
            self._network._layers.append(layer)
        for tensors, found in ((graph.input, self._network._shapes), (graph.output, self._network._outputs)):
            for tensor in tensors:
                dims = tensor.type.tensor_type.shape.dim
                kind = onnx.TensorProto.DataType.Name(tensor.type.tensor_type.elem_type)
                self._network._types[tensor.name] = {"FLOAT16": "HALF"}.get(kind, kind)
                found[tensor.name] = [-1 if dim.dim_param else dim.dim_value for dim in dims]

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> Any:
        return self._errors[index]


class ParserError:
    """See fake_module."""

    def __init__(self, refusal: Refusal) -> None:
        self._refusal = refusal

    def desc(self) -> str:
        return self._refusal.text

    def node(self) -> int:
        return self._refusal.index

    def node_name(self) -> str:
        return self._refusal.node

    def node_operator(self) -> str:
        return self._refusal.operator


_CLASSES = (
    Builder, EngineInspector, IBuilderConfig, ICudaEngine, IExecutionContext, IHostMemory, INetworkDefinition,
    IOptimizationProfile, ITimingCache, OnnxParser, ParserError, Runtime,
)  # fmt: skip
