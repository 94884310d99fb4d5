"""The runtime's side of every version, on fakes that have exactly its names."""

from __future__ import annotations

import json
from typing import Any

import onnx
import pytest
from support.bundles import quantized_graph
from support.tensorrt_api import DUMPS
from support.tensorrt_fakes import Behaviour, fake_library

from edgeseg.backends.tensorrt.construct import construct
from edgeseg.backends.tensorrt.logger import BuildLog
from edgeseg.backends.tensorrt.options import BuildOptions
from edgeseg.backends.tensorrt.versions import parsing, running
from edgeseg.backends.tensorrt.versions.library import Library
from edgeseg.errors import EngineError


def dynamic_graph() -> bytes:
    """The toy graph with a dynamic batch."""
    model = onnx.load_from_string(quantized_graph())
    for tensor in (model.graph.input[0], model.graph.output[0]):
        tensor.type.tensor_type.shape.dim[0].dim_param = "n"
    content: bytes = model.SerializeToString()
    return content


def engine_of(library: Library, graph: bytes | None = None, batch: tuple[int, int, int] = (1, 1, 1)) -> Any:
    logger = parsing.make_logger(library, BuildLog().receive)
    made = construct(library, graph or quantized_graph(), BuildOptions(library=library.name, batch=batch))
    return running.load_plan(running.create_runtime(library, logger), made.plan)


@pytest.mark.parametrize("dump", DUMPS)
class TestEveryVersion:
    def test_lists_tensors(self, dump: str) -> None:
        library = fake_library(dump)
        assert running.io_tensors(library, engine_of(library)) == (
            running.IOTensor("frame", True, (1, 32, 48, 3), "uint8"),
            running.IOTensor("logits", False, (1, 4, 8, 12), "float32"),
        )

    def test_tells_memory(self, dump: str) -> None:
        library = fake_library(dump)
        assert running.device_memory_size(library, engine_of(library)) == 3 << 20

    def test_runs(self, dump: str) -> None:
        library = fake_library(dump)
        context = running.create_context(library, engine_of(library))
        times: list[tuple[str, float]] = []
        assert running.listen_to_layers(library, context, lambda *time: times.append(time)) is context.profiler
        running.select_profile(context, 0, 99)
        running.set_tensor_address(context, "frame", 0x100)
        running.set_tensor_address(context, "logits", 0x200)
        running.enqueue(context, 99)
        assert context._addresses == {"frame": 0x100, "logits": 0x200}
        assert context._streams == [99]
        assert times == [(f"{name}.weight + {name}", 0.5) for name in ("conv_8", "conv_14", "conv_20")]
        assert running.missing_shapes(context) == []

    def test_takes_dynamic_shapes(self, dump: str) -> None:
        library = fake_library(dump)
        engine = engine_of(library, dynamic_graph(), (1, 2, 4))
        assert running.profile_shapes(engine, "frame") == ((1, 32, 48, 3), (2, 32, 48, 3), (4, 32, 48, 3))
        context = running.create_context(library, engine)
        assert running.missing_shapes(context) == ["frame"]
        running.set_input_shape(context, "frame", (3, 32, 48, 3))
        assert running.missing_shapes(context) == []
        assert running.context_shape(context, "frame") == (3, 32, 48, 3)
        with pytest.raises(
            EngineError, match=r"does not take frame of shape \(5, 32, 48, 3\); build it again with --batch"
        ):
            running.set_input_shape(context, "frame", (5, 32, 48, 3))

    def test_refusals(self, dump: str) -> None:
        context = running.create_context(library := fake_library(dump), engine_of(library))
        with pytest.raises(EngineError, match="the engine has no optimization profile 3"):
            running.select_profile(context, 3, 0)
        with pytest.raises(EngineError, match="the engine does not take 0x0 as address of frame"):
            running.set_tensor_address(context, "frame", 0)
        with pytest.raises(EngineError, match="the engine did not run: TensorRT's log says why; load it again"):
            running.enqueue(context, 0)

    def test_a_plan_that_is_none(self, dump: str) -> None:
        library = fake_library(dump)
        runtime = running.create_runtime(library, parsing.make_logger(library, BuildLog().receive))
        assert running.load_plan(runtime, b"no plan") is None


@pytest.mark.parametrize("dump", [dump for dump in DUMPS if dump.startswith("tensorrt-")])
class TestFullTensorRT:
    def test_describes_layers(self, dump: str) -> None:
        library = fake_library(dump)
        found = json.loads(running.describe_layers(library, engine_of(library), {}))
        assert len(found["Layers"]) == 3
        assert ("I/O Tensors" in found) is dump.startswith("tensorrt-11")

    def test_describes_layers_of_dynamic_shapes(self, dump: str) -> None:
        library = fake_library(dump)
        engine = engine_of(library, dynamic_graph(), (1, 2, 4))
        text = running.describe_layers(library, engine, {"frame": (2, 32, 48, 3)})
        assert "N/A" not in text
        if not dump.startswith("tensorrt-11"):
            assert "N/A due to dynamic shapes" in running.describe_layers(library, engine, {})

    def test_no_gpu(self, dump: str) -> None:
        library = fake_library(dump, Behaviour(gpu=False))
        with pytest.raises(EngineError, match=f"{library} cannot start: it needs an NVIDIA GPU"):
            running.create_runtime(library, parsing.make_logger(library, BuildLog().receive))


def test_no_memory_for_a_context() -> None:
    library = fake_library("tensorrt-10.3.0")
    engine = engine_of(library)
    poor = fake_library("tensorrt-10.3.0", Behaviour(gpu=False)).module.ICudaEngine(engine._content)
    with pytest.raises(EngineError, match=r"cannot make an execution context, which takes 3 MB of device memory"):
        running.create_context(library, poor)
