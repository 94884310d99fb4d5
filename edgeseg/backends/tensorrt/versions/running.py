"""From a plan to results: the runtime's side of every version.

Tensors are named everywhere: the names here exist from 8.5 to 11 and in TensorRT-RTX.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edgeseg.backends.tensorrt.versions.library import Library
from edgeseg.backends.tensorrt.versions.parsing import Shape
from edgeseg.errors import EngineError

__all__ = [
    "IOTensor",
    "context_shape",
    "create_context",
    "create_runtime",
    "describe_layers",
    "device_memory_size",
    "enqueue",
    "io_tensors",
    "listen_to_layers",
    "load_plan",
    "missing_shapes",
    "profile_shapes",
    "select_profile",
    "set_input_shape",
    "set_tensor_address",
]

_DTYPES = {
    "BF16": "bfloat16",
    "BOOL": "bool",
    "FLOAT": "float32",
    "HALF": "float16",
    "INT32": "int32",
    "INT64": "int64",
    "INT8": "int8",
    "UINT8": "uint8",
}
"""numpy's name by TensorRT's."""


@dataclass(frozen=True)
class IOTensor:
    """An input or output of an engine; -1 in `shape` is a dynamic dimension, `dtype` is numpy's name."""

    name: str
    is_input: bool
    shape: Shape
    dtype: str


def create_runtime(library: Library, logger: Any, dla_core: int | None = None) -> Any:
    """A trt.Runtime, which must outlive its engines.

    Args:
        library: whose.
        logger: what it says.
        dla_core: deep learning accelerator that its engines run on.

    Raises:
        EngineError: where there is no GPU or driver.
    """
    trt = library.module
    try:
        runtime = trt.Runtime(logger)
        if dla_core is not None:
            runtime.DLA_core = dla_core
        return runtime
    except TypeError as error:  # "factory function returned nullptr": the reason stands in the log
        raise EngineError(f"{library} cannot start: it needs an NVIDIA GPU and a driver that fits it") from error


def load_plan(runtime: Any, plan: bytes) -> Any:
    """The trt.ICudaEngine of a plan; None where it cannot be read, whose reason stands in the log."""
    return runtime.deserialize_cuda_engine(plan)


def io_tensors(library: Library, engine: Any) -> tuple[IOTensor, ...]:
    """Inputs and outputs of an engine, in its order."""
    trt = library.module
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    return tuple(
        IOTensor(
            name,
            engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT,
            tuple(engine.get_tensor_shape(name)),
            _dtype(engine.get_tensor_dtype(name).name),
        )
        for name in names
    )


def _dtype(name: str) -> str:
    return _DTYPES.get(name, name.lower())


def profile_shapes(engine: Any, name: str, profile: int = 0) -> tuple[Shape, Shape, Shape]:
    """Least, best and largest shape that an optimization profile takes of an input."""
    least, best, largest = (tuple(shape) for shape in engine.get_tensor_profile_shape(name, profile))
    return least, best, largest


def device_memory_size(library: Library, engine: Any) -> int:
    """Bytes of device memory that an execution context takes for its activations."""
    if library.has_wide_memory_size:
        return int(engine.device_memory_size_v2)
    return int(engine.device_memory_size)


def create_context(library: Library, engine: Any) -> Any:
    """A trt.IExecutionContext with device memory of its own.

    Raises:
        EngineError: where the device has too little memory, with how much is needed.
    """
    context = engine.create_execution_context()
    if context is None:
        megabytes = device_memory_size(library, engine) / 2**20
        raise EngineError(
            f"{library} cannot make an execution context, which takes {megabytes:.0f} MB of device memory; close other "
            "programs that use the GPU"
        )
    return context


def select_profile(context: Any, index: int, stream: int) -> None:
    """Switch to an optimization profile on a stream.

    Raises:
        EngineError: for a profile that the engine does not have.
    """
    if not context.set_optimization_profile_async(index, stream):
        raise EngineError(f"the engine has no optimization profile {index}; build it again with --batch")


def set_input_shape(context: Any, name: str, shape: Shape) -> None:
    """Choose the shape of a dynamic input.

    Raises:
        EngineError: for one outside the profile.
    """
    if not context.set_input_shape(name, shape):
        raise EngineError(f"the engine does not take {name} of shape {shape}; build it again with --batch")


def context_shape(context: Any, name: str) -> Shape:
    """The shape of a tensor for the inputs' shapes chosen."""
    return tuple(context.get_tensor_shape(name))


def missing_shapes(context: Any) -> list[str]:
    """Names of the inputs whose shape must still be chosen before a run."""
    return list(context.infer_shapes())


def set_tensor_address(context: Any, name: str, address: int) -> None:
    """Say where a tensor stands in device memory (or in mapped host memory).

    Raises:
        EngineError: for an unknown name or an address that the engine refuses.
    """
    if not context.set_tensor_address(name, address):
        raise EngineError(f"the engine does not take {address:#x} as address of {name}; give it memory of this device")


def enqueue(context: Any, stream: int) -> None:
    """Run on a stream, without waiting.

    Raises:
        EngineError: when the engine refuses or the device is lost.
    """
    if not context.execute_async_v3(stream):
        raise EngineError("the engine did not run: TensorRT's log says why; load it again")


def listen_to_layers(library: Library, context: Any, receive: Callable[[str, float], None]) -> Any:
    """Hand on each layer's name and time in ms, after each synchronised run.

    Returns:
        The profiler, which must live as long as the context.
    """
    trt = library.module

    class Times(trt.IProfiler):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            receive(layer_name, ms)

    times = Times()
    context.profiler = times
    return times


def describe_layers(library: Library, engine: Any, shapes: Mapping[str, Shape]) -> str:
    """What an engine's layers are, as the engine inspector's JSON.

    Args:
        library: whose engine.
        engine: built with detailed profiling verbosity.
        shapes: of dynamic inputs; without them the inspector has "N/A due to dynamic shapes" for every type.
    """
    trt = library.module
    inspector = engine.create_engine_inspector()
    if shapes:
        context = create_context(library, engine)
        for name, shape in shapes.items():
            set_input_shape(context, name, shape)
        inspector.execution_context = context
    return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
