"""The runtime's classes of the fakes: they load the fake builder's plans, run what they are told, describe layers."""

from __future__ import annotations

import json
from typing import Any

from support.tensorrt_api import Severity
from support.tensorrt_behaviour import MAGIC, Shared

__all__ = ["EngineInspector", "ICudaEngine", "IExecutionContext", "Runtime"]


class Runtime:
    """See fake_module."""

    _shared: Shared

    def __init__(self, logger: Any) -> None:
        self._shared.no_gpu(logger)
        self._logger = logger

    def deserialize_cuda_engine(self, plan: bytes) -> Any:
        if not self._shared.behaviour.loads or not plan.startswith(MAGIC):
            self._logger.log(Severity.ERROR, "deserializeCudaEngine: Error Code 1: magic tag does not match")
            return None
        return self._shared.module.ICudaEngine(json.loads(plan[len(MAGIC) :]))


class ICudaEngine:
    """See fake_module."""

    _shared: Shared

    def __init__(self, content: dict[str, Any]) -> None:
        self._content = content

    @property
    def num_io_tensors(self) -> int:
        return len(self._content["inputs"]) + len(self._content["outputs"])

    def get_tensor_name(self, index: int) -> str:
        return [*self._content["inputs"], *self._content["outputs"]][index]

    def get_tensor_mode(self, name: str) -> Any:
        modes = self._shared.module.TensorIOMode
        return modes.INPUT if name in self._content["inputs"] else modes.OUTPUT

    def get_tensor_shape(self, name: str) -> list[int]:
        shape: list[int] = {**self._content["inputs"], **self._content["outputs"]}[name]
        return shape

    def get_tensor_dtype(self, name: str) -> Any:
        return self._shared.module.DataType[self._content["types"][name]]

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[list[int]]:
        shapes: list[list[int]] = self._content["profiles"][profile][name]
        return shapes

    @property
    def device_memory_size(self) -> int:
        return 3 << 20

    device_memory_size_v2 = device_memory_size

    def create_execution_context(self) -> Any:
        return self._shared.module.IExecutionContext(self) if self._shared.behaviour.gpu else None

    def create_engine_inspector(self) -> Any:
        return self._shared.module.EngineInspector(self)


class IExecutionContext:
    """See fake_module."""

    _shared: Shared

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._streams: list[int] = []

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        return index < max(1, len(self._engine._content["profiles"]))

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        least, _, largest = self._engine.get_tensor_profile_shape(name, 0)
        fits = tuple(least) <= tuple(shape) <= tuple(largest)
        if fits:
            self._shapes[name] = tuple(shape)
        return fits

    def get_tensor_shape(self, name: str) -> list[int]:
        return list(self._shapes.get(name) or self._engine.get_tensor_shape(name))

    def infer_shapes(self) -> list[str]:
        dynamic = [name for name, shape in self._engine._content["inputs"].items() if -1 in shape]
        return [name for name in dynamic if name not in self._shapes]

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return address > 0

    def execute_async_v3(self, stream: int) -> bool:
        self._streams.append(stream)
        monitor = vars(self).get("profiler")
        if monitor is not None:
            for layer in self._engine._content["layers"] or [{"name": "stem"}]:
                monitor.report_layer_time(f"{layer['name']}.weight + {layer['name']}", 0.5)
        if self._shared.behaviour.run is not None:
            return bool(self._shared.behaviour.run(self, stream))
        return len(self._addresses) == self._engine.num_io_tensors


class EngineInspector:
    """See fake_module."""

    _shared: Shared

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def get_engine_information(self, form: Any) -> str:
        assert form.name == "JSON"
        dynamic = any(-1 in shape for shape in self._engine._content["inputs"].values())
        known = not dynamic or vars(self).get("execution_context") is not None
        layers = [self._layer(layer, known) for layer in self._engine._content["layers"]]
        names = [*self._engine._content["inputs"], *self._engine._content["outputs"]]
        entries: dict[str, Any] = {"Layers": layers, "Bindings": names}
        if self._shared.major >= 11:
            entries = {"Layers": layers, "I/O Tensors": [{"Name": name} for name in names]}
        return json.dumps(entries)

    def _layer(self, layer: dict[str, Any], known: bool) -> dict[str, Any]:
        kind = "DLA" if layer["name"].startswith("{") else "CaskConvolution"
        tensor: dict[str, Any] = {"Name": "x", "Dimensions": [1, 8, 8, 8]}
        if self._shared.major >= 11:
            tensor |= {"Format": "Thirty-two wide channel vectorized row major format", "DataType": layer["type"]}
        elif known:
            tensor |= {"Format/Datatype": f"Thirty-two wide channel vectorized row major {layer['type']} format"}
        else:
            tensor |= {"Format/Datatype": "N/A due to dynamic shapes"}
        return {
            "Name": f"{layer['name']}.weight + {layer['name']}" if kind != "DLA" else layer["name"],
            "LayerType": kind,
            "Inputs": [tensor],
            "Outputs": [tensor],
            "ParameterType": "Convolution",
            "Metadata": f"[ONNX Layer: {layer['name']}]",
        }
