"""What a GPU does through either library: memory, copies, streams, events, graphs, kernels, and their rules of life."""

from __future__ import annotations

import logging
import threading
from typing import Any

import numpy as np
import pytest
from support.cuda_devices import fake_device
from support.fake_gpu import FakeGpu

from edgeseg.backends.cuda import Cuda, pycuda_driver
from edgeseg.errors import EngineError, ShapeError

ADD = """
extern "C" __global__ void add(float* values, int count, float number)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) values[i] += number;
}
"""
BYTES = np.arange(200, dtype=np.uint8)


class TestFacts:
    def test_names_the_device(self, cuda: Cuda) -> None:
        facts = cuda.facts
        assert facts.name
        assert facts.compute_capability >= (5, 0)
        assert facts.multiprocessors > 0
        assert facts.driver_version >= (11, 0)
        assert facts.runtime_version >= (11, 0)
        assert 0 < facts.free_memory <= facts.total_memory

    def test_of_the_fake(self, fake_cuda: Cuda, gpu: FakeGpu) -> None:
        facts = fake_cuda.facts
        assert (facts.name, facts.compute_capability, facts.multiprocessors) == ("Orin (fake)", (8, 7), 8)
        assert facts.integrated
        assert facts.maps_host_memory
        assert facts.driver_version == (12, 6)
        assert facts.total_memory == facts.free_memory == gpu.total

    def test_names_the_library(self, fake_cuda: Cuda, library: str) -> None:
        assert fake_cuda.library.name.split()[0] == library
        assert fake_cuda.has_graphs == (library == "cuda-bindings")

    def test_free_memory_follows_what_is_allocated(self, fake_cuda: Cuda) -> None:
        before = fake_cuda.free_memory()
        with fake_cuda.allocate(1000, "a frame"):
            assert fake_cuda.free_memory() == before - 1000
        assert fake_cuda.free_memory() == before


class TestMemory:
    def test_there_and_back(self, cuda: Cuda) -> None:
        with (
            cuda.stream() as stream,
            cuda.allocate(200) as first,
            cuda.allocate(200) as second,
            cuda.host_buffer((200,), np.uint8) as source,
            cuda.host_buffer((200,), np.uint8) as result,
        ):
            source.array[:], result.array[:] = BYTES, 0
            stream.copy_to_device(first, source.array)
            stream.copy_on_device(second, first)
            stream.copy_to_host(result.array, second)
            stream.synchronize()
            assert np.array_equal(result.array, BYTES)

    def test_pageable_arrays_may_change_after_the_call(self, cuda: Cuda) -> None:
        with cuda.stream() as stream, cuda.allocate(200) as memory:
            source, result = BYTES.copy(), np.zeros(200, np.uint8)
            stream.copy_to_device(memory, source)
            stream.copy_to_host(result, memory)
            stream.synchronize()
            assert np.array_equal(result, BYTES)

    def test_part_of_a_memory(self, cuda: Cuda) -> None:
        with cuda.stream() as stream, cuda.allocate(200) as memory, cuda.allocate(200) as other:
            stream.fill(memory, 7)
            stream.fill(other, 1)
            stream.copy_to_device(memory, BYTES[:3])
            stream.copy_on_device(other, memory, 5)
            result = np.zeros(200, np.uint8)
            stream.copy_to_host(result, other)
            stream.synchronize()
            assert result[:6].tolist() == [0, 1, 2, 7, 7, 1]

    def test_arrays_have_shape_and_type(self, cuda: Cuda) -> None:
        with cuda.host_buffer((2, 3, 4), np.float32, "logits") as buffer:
            assert (buffer.array.shape, buffer.array.dtype) == ((2, 3, 4), np.float32)
            assert buffer.array.flags.c_contiguous
            buffer.array[:], buffer.array[1] = 0, 5
            assert buffer.array.sum() == 60

    def test_mapped_memory_is_the_devices_too(self, cuda: Cuda) -> None:
        with cuda.host_buffer((8,), np.float32, "scores", mapped=True) as buffer, cuda.stream() as stream:
            buffer.array[:] = np.arange(8)
            with cuda.compile(ADD, "a test") as module:
                arguments = (np.uint64(buffer.device_pointer), np.int32(6), np.float32(0.5))
                module.kernel("add").launch(stream, (1, 1, 1), (8, 1, 1), arguments)
                stream.synchronize()
            assert buffer.array.tolist() == [0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6, 7]

    def test_flags_reach_the_library(self, fake_cuda: Cuda, modules: Any, library: str) -> None:
        for mapped, combined in ((False, False), (True, False), (False, True), (True, True)):
            fake_cuda.host_buffer((1,), np.uint8, mapped=mapped, write_combined=combined).close()
        flags = (modules.runtime if library == "cuda-bindings" else modules.driver).host_flags
        assert flags == [1, 3, 5, 7]

    def test_only_mapped_buffers_have_a_pointer(self, cuda: Cuda) -> None:
        with (
            cuda.host_buffer((4,), np.uint8, "a frame") as buffer,
            pytest.raises(
                EngineError, match="the pinned buffer for a frame is not mapped into the GPU; make it with map"
            ),
        ):
            _ = buffer.device_pointer

    def test_a_device_that_cannot_map(self, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
        cuda, _ = fake_device(library, FakeGpu(maps_host_memory=False), monkeypatch)
        with cuda, pytest.raises(EngineError, match=r"Orin \(fake\) cannot map host memory; make the buffer without"):
            cuda.host_buffer((1,), np.uint8, mapped=True)

    @pytest.mark.parametrize("size", [0, -5])
    def test_needs_a_size(self, cuda: Cuda, size: int) -> None:
        with pytest.raises(EngineError, match=f"has at least 1 byte, but {size} were asked for"):
            cuda.allocate(size)

    def test_refuses_what_does_not_fit(self, cuda: Cuda) -> None:
        with cuda.stream() as stream, cuda.allocate(100, "a frame") as memory, cuda.allocate(10) as small:
            with pytest.raises(
                ShapeError, match="an array of 200 bytes does not fit the GPU memory for a frame of 100"
            ):
                stream.copy_to_device(memory, BYTES)
            with pytest.raises(ShapeError, match="of 0 bytes does not fit"):
                stream.copy_to_host(BYTES[:0], memory)
            with pytest.raises(ShapeError, match=r"must be C-contiguous; use numpy\.ascontiguousarray"):
                stream.copy_to_host(np.zeros((4, 4), np.uint8)[:, :2], memory)
            with pytest.raises(ShapeError, match=r"100 bytes do not fit from 100 bytes .* to 10"):
                stream.copy_on_device(small, memory)


class TestOrder:
    def test_streams_work_when_they_are_waited_for(self, fake_cuda: Cuda) -> None:
        with (
            fake_cuda.stream() as stream,
            fake_cuda.allocate(200) as memory,
            fake_cuda.host_buffer((200,), np.uint8) as buffer,
        ):
            buffer.array[:] = 1
            stream.fill(memory, 2)
            stream.copy_to_host(buffer.array, memory)
            assert not stream.is_done()
            assert buffer.array.max() == 1
            stream.synchronize()
            assert stream.is_done()
            assert buffer.array.min() == 2

    def test_a_stream_waits_for_an_event_of_another(self, cuda: Cuda) -> None:
        with (
            cuda.stream() as copy,
            cuda.stream() as work,
            cuda.event(timing=False) as arrived,
            cuda.allocate(200) as memory,
            cuda.host_buffer((200,), np.uint8) as source,
            cuda.host_buffer((200,), np.uint8) as result,
        ):
            source.array[:], result.array[:] = BYTES, 0
            copy.copy_to_device(memory, source.array)
            arrived.record(copy)
            work.wait(arrived)
            work.copy_to_host(result.array, memory)
            work.synchronize()
            assert np.array_equal(result.array, BYTES)
            copy.synchronize()

    def test_events_time_what_is_between(self, cuda: Cuda) -> None:
        with cuda.stream() as stream, cuda.event() as start, cuda.event() as end, cuda.allocate(1 << 20) as memory:
            start.record(stream)
            for value in range(5):
                stream.fill(memory, value)
            end.record(stream)
            end.synchronize()
            assert end.elapsed_ms(start) > 0
            assert start.elapsed_ms(start) == 0
            assert end.elapsed_ms(start) == -start.elapsed_ms(end)

    def test_events_of_the_fake_count(self, fake_cuda: Cuda) -> None:
        with fake_cuda.stream() as stream, fake_cuda.event() as start, fake_cuda.event() as end:
            with fake_cuda.allocate(8) as memory:
                start.record(stream)
                for value in range(5):
                    stream.fill(memory, value)
                end.record(stream)
                with pytest.raises(
                    EngineError, match=r"cannot time a stream: .*(NotReady|NOT_READY) \(device not ready\)"
                ):
                    end.elapsed_ms(start)
                end.synchronize()
            assert end.elapsed_ms(start) == 6

    def test_events_without_timing(self, cuda: Cuda) -> None:
        with cuda.stream() as stream, cuda.event(timing=False) as start, cuda.event(timing=False) as end:
            start.record(stream)
            end.record(stream)
            stream.synchronize()
            with pytest.raises(EngineError, match=r"cannot time a stream: .*(InvalidResourceHandle|INVALID_HANDLE)"):
                end.elapsed_ms(start)

    def test_any_thread_may_call(self, fake_cuda: Cuda) -> None:
        results: list[int] = []

        def work() -> None:
            with fake_cuda.stream() as stream, fake_cuda.allocate(4) as memory:
                result = np.zeros(4, np.uint8)
                with fake_cuda.compile(ADD, "a test") as module:
                    arguments = (np.uint64(memory.pointer), np.int32(1), np.float32(1))
                    stream.fill(memory, 0)
                    module.kernel("add").launch(stream, (1, 1, 1), (1, 1, 1), arguments)
                stream.copy_to_host(result, memory)
                results.append(int(result.view(np.float32)[0]))

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
            thread.join()
        assert results == [1, 1]

    def test_a_device_can_be_made_current_for_others(self, fake_cuda: Cuda, modules: Any, library: str) -> None:
        with fake_cuda.current():
            if library == "pycuda":
                assert len(modules.driver.contexts.stack) == 1
            else:
                assert modules.runtime.chosen.device == 0


class TestKernels:
    def test_runs_every_thread(self, cuda: Cuda) -> None:
        values = np.arange(1000, dtype=np.float32)
        with cuda.stream() as stream, cuda.allocate(values.nbytes) as memory, cuda.compile(ADD, "a test") as module:
            stream.copy_to_device(memory, values)
            arguments = (np.uint64(memory.pointer), np.int32(999), np.float32(2))
            module.kernel("add").launch(stream, (8, 1, 1), (128, 1, 1), arguments)
            result = np.zeros_like(values)
            stream.copy_to_host(result, memory)
            stream.synchronize()
            assert np.array_equal(result[:999], values[:999] + 2)
            assert result[999] == 999

    def test_options_reach_the_compiler(self, cuda: Cuda) -> None:
        source = 'extern "C" __global__ void put(int* value) { *value = NUMBER; }'
        with cuda.stream() as stream, cuda.allocate(4) as memory:
            with cuda.compile(source, "a test", ["-DNUMBER=42", "--fmad=false"]) as module:
                module.kernel("put").launch(stream, (1, 1, 1), (1, 1, 1), (np.uint64(memory.pointer),))
                result = np.zeros(1, np.int32)
                stream.copy_to_host(result, memory)
                stream.synchronize()
            assert result[0] == 42

    def test_compiles_for_the_devices_architecture(self, fake_cuda: Cuda, modules: Any, library: str) -> None:
        fake_cuda.compile(ADD, "a test", ["--fmad=false"]).close()
        if library == "pycuda":
            asked = modules.compiler.asked
            assert (asked["arch"], asked["nvcc"], asked["no_extern_c"]) == ("sm_87", "/fake/nvcc", True)
            assert asked["options"] == ["--fmad=false"]
            assert asked["cache"].endswith("/cache/kernels")
        else:
            assert modules.nvrtc.options == [b"--gpu-architecture=sm_87", b"--fmad=false"]

    def test_a_source_with_an_error(self, cuda: Cuda) -> None:
        with pytest.raises(EngineError, match=r"(?s)cannot compile the kernels for a test: .*nonsense"):
            cuda.compile('extern "C" __global__ void add(int* x) { nonsense }', "a test")

    def test_an_unknown_kernel(self, cuda: Cuda) -> None:
        with (
            cuda.compile(ADD, "a test") as module,
            pytest.raises(EngineError, match=r"cannot find the kernel subtract: .*CUDA_ERROR_NOT_FOUND \(named symbol"),
        ):
            module.kernel("subtract")

    def test_arguments_must_have_a_size(self, cuda: Cuda) -> None:
        message = "argument 1 of the kernel add must be a NumPy scalar, but is a int; wrap it, pointers in np.uint64"
        with (
            cuda.stream() as stream,
            cuda.compile(ADD, "a test") as module,
            pytest.raises(ShapeError, match=message),
        ):
            module.kernel("add").launch(stream, (1, 1, 1), (1, 1, 1), (np.uint64(1), 5))  # type: ignore[arg-type]

    def test_a_kernel_dies_with_its_module(self, cuda: Cuda) -> None:
        with cuda.stream() as stream:
            with cuda.compile(ADD, "a test") as module:
                kernel = module.kernel("add")
            with pytest.raises(EngineError, match="the kernel module for a test is closed"):
                kernel.launch(stream, (1, 1, 1), (1, 1, 1), (np.uint64(0), np.int32(0), np.float32(0)))


class TestGraphs:
    def test_does_later_what_was_captured(self, cuda: Cuda) -> None:
        if not cuda.has_graphs:
            pytest.skip(f"{cuda.library.name} has no graphs")
        with (
            cuda.stream() as stream,
            cuda.allocate(32) as memory,
            cuda.host_buffer((8,), np.float32) as values,
            cuda.compile(ADD, "a test") as module,
        ):
            arguments = (np.uint64(memory.pointer), np.int32(8), np.float32(1))

            def work() -> None:
                stream.copy_to_device(memory, values.array)
                module.kernel("add").launch(stream, (1, 1, 1), (8, 1, 1), arguments)
                stream.copy_to_host(values.array, memory)

            values.array[:] = 0
            with stream.capture(work) as graph:
                stream.synchronize()
                assert values.array.max() == 0
                for _ in range(3):
                    graph.launch(stream)
                stream.synchronize()
                assert values.array.tolist() == [3.0] * 8

    def test_an_error_while_capturing_ends_the_capture(self, cuda: Cuda) -> None:
        if not cuda.has_graphs:
            pytest.skip(f"{cuda.library.name} has no graphs")

        def fail() -> None:
            raise ShapeError("no such frame")

        with cuda.stream() as stream, cuda.allocate(8) as memory:
            with pytest.raises(ShapeError, match="no such frame"):
                stream.capture(fail)
            stream.fill(memory, 3)
            result = np.zeros(8, np.uint8)
            stream.copy_to_host(result, memory)
            stream.synchronize()
            assert result.max() == 3

    def test_what_cannot_be_captured(self, fake_cuda: Cuda, gpu: FakeGpu) -> None:
        if not fake_cuda.has_graphs:
            pytest.skip("pycuda has no graphs")
        with fake_cuda.stream() as stream:

            def spoil() -> None:
                gpu.streams[stream.handle].captured = None

            with pytest.raises(EngineError, match=r"cannot make a CUDA graph of a stream's work: .*CaptureInvalidated"):
                stream.capture(spoil)
        assert gpu.graphs == {}

    def test_pycuda_says_that_it_has_none(self, fake_cuda: Cuda, library: str) -> None:
        if library != "pycuda":
            pytest.skip("cuda-bindings has graphs")
        with (
            fake_cuda.stream() as stream,
            pytest.raises(EngineError, match=r"pycuda 2026.1 has no CUDA graphs; run with"),
        ):
            stream.capture(lambda: None)


class TestLife:
    def test_everything_is_given_back(self, fake_cuda: Cuda, gpu: FakeGpu) -> None:
        made = [
            fake_cuda.allocate(10),
            fake_cuda.host_buffer((10,), np.uint8, mapped=True),
            fake_cuda.stream(),
            fake_cuda.event(),
            fake_cuda.compile(ADD, "a test"),
        ]
        assert fake_cuda.open_resources == {
            "GPU memory": 1,
            "pinned buffer": 1,
            "stream": 1,
            "event": 1,
            "kernel module": 1,
        }
        for resource in made:
            resource.close()
            resource.close()
            assert resource.closed
        assert fake_cuda.open_resources == {}
        assert gpu.left == {}

    def test_a_closed_resource_says_so(self, cuda: Cuda) -> None:
        memory, buffer, stream = cuda.allocate(4, "a frame"), cuda.host_buffer((4,), np.uint8), cuda.stream()
        for resource in (memory, buffer, stream):
            resource.close()
        with pytest.raises(EngineError, match="the GPU memory for a frame is closed; load the engine again"):
            _ = memory.pointer
        with pytest.raises(EngineError, match="the pinned buffer is closed"):
            _ = buffer.array
        with pytest.raises(EngineError, match="the stream is closed"):
            stream.synchronize()

    def test_close_frees_what_is_left_and_warns(
        self, fake_cuda: Cuda, gpu: FakeGpu, caplog: pytest.LogCaptureFixture
    ) -> None:
        memory = fake_cuda.allocate(10)
        fake_cuda.allocate(10), fake_cuda.stream()
        fake_cuda.close()
        assert "the GPU is closed with 2 x GPU memory, 1 x stream in use, which are freed now" in caplog.text
        assert gpu.left == {}
        assert memory.closed
        memory.close()
        fake_cuda.close()
        with pytest.raises(EngineError, match="the GPU is closed; load the engine again"):
            fake_cuda.allocate(1)

    def test_close_says_nothing_when_all_is_well(self, fake_cuda: Cuda, caplog: pytest.LogCaptureFixture) -> None:
        fake_cuda.allocate(10).close()
        fake_cuda.close()
        assert caplog.text == ""

    def test_a_failing_free_is_logged(self, fake_cuda: Cuda, gpu: FakeGpu, caplog: pytest.LogCaptureFixture) -> None:
        memory = fake_cuda.allocate(10, "a frame")
        gpu.blocks.clear()
        with caplog.at_level(logging.WARNING):
            memory.close()
        assert "cannot free the GPU memory for a frame: " in caplog.text
        assert "invalid argument" in caplog.text

    def test_pycudas_context_is_given_back_as_the_process_ends(
        self, fake_cuda: Cuda, gpu: FakeGpu, modules: Any, library: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if library != "pycuda":
            pytest.skip("cuda-bindings' runtime does it")
        (context,) = pycuda_driver._contexts.values()
        assert modules.driver.retained == 1
        pycuda_driver._detach(context, modules.driver.Error)
        assert modules.driver.retained == 0
        gpu.broken = "ILLEGAL_ADDRESS"
        pycuda_driver._detach(context, modules.driver.Error)  # says nothing
        gpu.broken = None


class TestErrors:
    def test_out_of_memory(self, fake_cuda: Cuda, library: str) -> None:
        name = {"cuda-bindings": "cudaErrorMemoryAllocation", "pycuda": "CUDA_ERROR_OUT_OF_MEMORY"}[library]
        with fake_cuda.allocate(10_000_000), pytest.raises(EngineError) as caught:
            fake_cuda.allocate(60_000_000, "logits")
        assert str(caught.value).startswith("cannot allocate GPU memory for logits: cu")
        assert f" failed: {name} (out of memory); 60.0 MB were asked for, 57.1 MB of 67.1 MB are free; " in str(
            caught.value
        )
        with pytest.raises(
            EngineError, match=r"cannot allocate pinned host memory for frames: .*80\.0 MB were asked for"
        ):
            fake_cuda.host_buffer((80_000_000,), np.uint8, "frames")
        fake_cuda.allocate(10).close()

    def test_a_pinned_buffer_without_an_address_is_not_kept(self, fake_cuda: Cuda, gpu: FakeGpu, library: str) -> None:
        if library != "cuda-bindings":
            pytest.skip("pycuda asks for the address of an object that frees itself")
        runtime: Any = fake_cuda.library._rt  # type: ignore[attr-defined]
        runtime.cudaHostGetDevicePointer = lambda host, flags: (runtime.cudaError_t(1), None)
        with pytest.raises(EngineError, match=r"cudaHostGetDevicePointer failed: cudaErrorInvalidValue \(invalid arg"):
            fake_cuda.host_buffer((4,), np.uint8, mapped=True)
        assert gpu.left == {}

    @pytest.mark.parametrize("call", ["allocate", "stream", "event", "record", "wait", "is_done", "fill", "launch"])
    def test_each_call_says_what_it_was_for(self, fake_cuda: Cuda, gpu: FakeGpu, call: str) -> None:
        stream, event, memory = fake_cuda.stream(), fake_cuda.event(), fake_cuda.allocate(4, "a frame")
        kernel = fake_cuda.compile(ADD, "a test").kernel("add")
        arguments = (np.uint64(memory.pointer), np.int32(1), np.float32(1))
        calls = {
            "allocate": (lambda: fake_cuda.allocate(1, "a mask"), "allocate GPU memory for a mask"),
            "stream": (fake_cuda.stream, "make a stream"),
            "event": (fake_cuda.event, "make an event"),
            "record": (lambda: event.record(stream), "record an event"),
            "wait": (lambda: stream.wait(event), "let a stream wait"),
            "is_done": (stream.is_done, "ask the GPU"),
            "fill": (lambda: stream.fill(memory), "fill the GPU memory for a frame"),
            "launch": (lambda: kernel.launch(stream, (1, 1, 1), (1, 1, 1), arguments), "launch the kernel add"),
        }
        work, doing = calls[call]
        enter, gpu.calls = gpu.enter, []
        # The device is asked for by other calls first; the one under test fails.
        setup = {"cudaSetDevice", "cudaFree"}

        def fail(name: str) -> None:
            if name not in setup:
                gpu.fail_next = "INVALID_VALUE"
            enter(name)

        gpu.enter = fail  # type: ignore[method-assign]
        with pytest.raises(EngineError, match=f"^cannot {doing}: cu.* failed: .*InvalidValue|INVALID_VALUE"):
            work()
        gpu.enter = enter  # type: ignore[method-assign]

    def test_a_lost_device(self, fake_cuda: Cuda, gpu: FakeGpu, library: str) -> None:
        name = {"cuda-bindings": "cudaErrorIllegalAddress", "pycuda": "CUDA_ERROR_ILLEGAL_ADDRESS"}[library]
        stream, memory = fake_cuda.stream(), fake_cuda.allocate(16)
        with fake_cuda.current():
            fake_cuda.library.fill(memory.pointer, 0, 1 << 20, stream.handle)
        with pytest.raises(
            EngineError, match=f"cannot wait for the GPU: .*{name} .*lost: load the engine again, and rest"
        ):
            stream.synchronize()
        assert fake_cuda.lost is not None
        assert name in fake_cuda.lost
        with pytest.raises(
            EngineError, match=f"the GPU was lost earlier in this process .*{name}.*; load the engine again"
        ):
            fake_cuda.allocate(1)
        before = len(gpu.calls)
        memory.close()
        stream.close()
        fake_cuda.close()
        assert len(gpu.calls) == before, "nothing is asked of a lost device"


class TestComesBack:
    def test_a_new_device_resets_a_broken_one(self, library: str, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
        gpu = FakeGpu()
        old, _ = fake_device(library, gpu, monkeypatch)
        memory = old.allocate(10)
        gpu.broken = "ILLEGAL_ADDRESS"
        if library == "pycuda":
            with pytest.raises(
                EngineError, match=r"the GPU was lost .*ILLEGAL_ADDRESS.* does not come back; restart the"
            ):
                fake_device(library, gpu, monkeypatch)
            return
        new, _ = fake_device(library, gpu, monkeypatch)
        assert gpu.resets == 1
        assert "it was reset and works again" in caplog.text
        new.allocate(10).close()
        assert old.lost is not None
        address = new.allocate(10)
        memory.close()  # its address belongs to what is gone
        assert gpu.left == {"blocks": 1}
        address.close()
        new.close()
        old.close()

    def test_a_device_that_stays_broken(self, monkeypatch: pytest.MonkeyPatch) -> None:
        gpu = FakeGpu()
        gpu.broken = "ILLEGAL_ADDRESS"
        gpu.reset = lambda: None  # type: ignore[method-assign]
        with pytest.raises(
            EngineError, match=r"was lost earlier in this process \(.*IllegalAddress .*restart the program"
        ):
            fake_device("cuda-bindings", gpu, monkeypatch)

    def test_another_error_at_the_first_call(self, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
        gpu = FakeGpu()
        gpu.broken = "INVALID_VALUE"
        with pytest.raises(EngineError, match=r"cannot open the GPU: .*\(invalid argument\)"):
            fake_device(library, gpu, monkeypatch)
