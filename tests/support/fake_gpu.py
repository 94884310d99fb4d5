"""A GPU in the host's memory: what both fakes of CUDA's Python libraries work on.

Work of a stream waits until somebody synchronizes, as it may on a real device: a test that reads too early fails here
too. Memory lies between guards, which a kernel that writes beside it destroys.
"""

from __future__ import annotations

import ctypes
import itertools
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from support.cpu_kernels import CompiledKernels

GUARD = 64
GUARD_BYTE = 0xA5
ALIGNMENT = 256


class GpuError(Exception):
    """A call that fails, with its name in the driver API without the prefix CUDA_ERROR_."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


@dataclass
class Block:
    """Allocated memory."""

    address: int
    size: int
    buffer: ctypes.Array[ctypes.c_char]
    place: str
    """"device", "host" or "mapped"."""

    @classmethod
    def make(cls, size: int, place: str) -> Block:
        buffer = ctypes.create_string_buffer(size + 2 * GUARD + ALIGNMENT)
        ctypes.memset(buffer, GUARD_BYTE, len(buffer))
        address = -(-(ctypes.addressof(buffer) + GUARD) // ALIGNMENT) * ALIGNMENT
        return cls(address, size, buffer, place)

    def guards_hold(self) -> bool:
        before = ctypes.string_at(self.address - GUARD, GUARD)
        after = ctypes.string_at(self.address + self.size, GUARD)
        return set(before) == set(after) == {GUARD_BYTE}


@dataclass
class FakeStream:
    waiting: deque[Callable[[], None]] = field(default_factory=deque)
    captured: list[Callable[[], None]] | None = None


@dataclass
class FakeEvent:
    timing: bool
    stream: int | None = None
    """Where it was recorded and is not passed yet."""
    time: float | None = None
    recorded: bool = False


class FakeGpu:
    """State of the device; every method may raise GpuError."""

    capability = (8, 7)
    integrated = True
    multiprocessors = 8
    name = "Orin (fake)"

    def __init__(self, total: int = 64 << 20, maps_host_memory: bool = True) -> None:
        self.total = total
        self.maps_host_memory = maps_host_memory
        self.blocks: dict[int, Block] = {}
        self.streams: dict[int, FakeStream] = {}
        self.events: dict[int, FakeEvent] = {}
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self.modules: dict[int, CompiledKernels] = {}
        self.functions: dict[int, tuple[CompiledKernels, str]] = {}
        self.kernels: list[CompiledKernels] = []
        self.calls: list[str] = []
        self.milliseconds = 0.0
        self.broken: str | None = None
        self.fail_next: str | None = None
        self.resets = 0
        self._handles = itertools.count(0x1000, 0x10)

    @property
    def used(self) -> int:
        return sum(block.size for block in self.blocks.values())

    @property
    def left(self) -> dict[str, int]:
        """What is not freed, by kind."""
        kinds = {"blocks": self.blocks, "streams": self.streams, "events": self.events, "graphs": self.graphs}
        return {kind: len(held) for kind, held in {**kinds, "modules": self.modules}.items() if held}

    def enter(self, call: str) -> None:
        """What every call begins with: a broken device answers all of them with its error."""
        self.calls.append(call)
        if self.broken:
            raise GpuError(self.broken)
        if self.fail_next:
            name, self.fail_next = self.fail_next, None
            raise GpuError(name)

    def reset(self) -> None:
        self.blocks, self.streams, self.events, self.graphs, self.modules = {}, {}, {}, {}, {}
        self.broken = None
        self.resets += 1

    def allocate(self, size: int, place: str) -> int:
        if size > self.total - self.used:
            raise GpuError("OUT_OF_MEMORY")
        block = Block.make(size, place)
        self.blocks[block.address] = block
        return block.address

    def free(self, address: int, *places: str) -> None:
        if address not in self.blocks or self.blocks[address].place not in places:
            raise GpuError("INVALID_VALUE")
        self.run_all()
        block = self.blocks.pop(address)
        assert block.guards_hold(), f"something wrote beside the {block.size} bytes at {block.address:#x}"

    def block_of(self, address: int, size: int, *places: str) -> Block | None:
        for block in self.blocks.values():
            if block.place in places and block.address <= address and address + size <= block.address + block.size:
                return block
        return None

    def on_device(self, address: int, size: int) -> None:
        """Break, as a device does, on an address that it cannot reach."""
        if self.block_of(address, size, "device", "mapped") is None:
            self.broken = "ILLEGAL_ADDRESS"
            raise GpuError(self.broken)

    def copy_in(self, pointer: int, host: int, size: int, stream: int) -> None:
        if self.block_of(host, size, "host", "mapped"):
            self.put(stream, lambda: self._move(pointer, host, size, (pointer,)))
        else:  # pageable memory is staged before the call returns
            staged = ctypes.string_at(host, size)

            def arrive() -> None:
                self.on_device(pointer, size)
                ctypes.memmove(pointer, staged, size)

            self.put(stream, arrive)

    def copy_out(self, host: int, pointer: int, size: int, stream: int) -> None:
        self.put(stream, lambda: self._move(host, pointer, size, (pointer,)))
        if not self.block_of(host, size, "host", "mapped"):
            self.run(stream)

    def copy_inside(self, target: int, source: int, size: int, stream: int) -> None:
        self.put(stream, lambda: self._move(target, source, size, (target, source)))

    def fill(self, pointer: int, value: int, size: int, stream: int) -> None:
        def write() -> None:
            self.on_device(pointer, size)
            ctypes.memset(pointer, value, size)

        self.put(stream, write)

    def launch(
        self, function: int, grid: Sequence[int], block: Sequence[int], values: Sequence[bytes], stream: int
    ) -> None:
        kernels, name = self.functions[function]
        assert [len(value) for value in values] == kernels.sizes(name), "arguments of other sizes than the parameters"
        self.put(stream, lambda: kernels.run(name, grid, block, values))

    def put(self, stream: int, work: Callable[[], None]) -> None:
        held = self._stream(stream)
        (held.waiting if held.captured is None else held.captured).append(work)

    def run(self, stream: int) -> None:
        """Do what a stream waits with; each piece takes a millisecond."""
        waiting = self._stream(stream).waiting
        while waiting:
            work = waiting.popleft()
            self.milliseconds += 1
            work()

    def run_all(self) -> None:
        for stream in list(self.streams):
            self.run(stream)

    def make_stream(self) -> int:
        return self._register(self.streams, FakeStream())

    def drop_stream(self, stream: int) -> None:
        self.run(stream)
        del self.streams[stream]

    def wait(self, stream: int, event: int) -> None:
        self.put(stream, lambda: self.pass_event(event))

    def make_event(self, timing: bool) -> int:
        return self._register(self.events, FakeEvent(timing))

    def record(self, event: int, stream: int) -> None:
        held = self._event(event)
        held.stream, held.time, held.recorded = stream, None, True

        def pass_it() -> None:
            held.stream, held.time = None, self.milliseconds

        self.put(stream, pass_it)

    def pass_event(self, event: int) -> None:
        held = self._event(event)
        if held.stream is not None:
            self.run(held.stream)

    def elapsed(self, start: int, end: int) -> float:
        events = [self._event(start), self._event(end)]
        if not all(event.timing and event.recorded for event in events):
            raise GpuError("INVALID_HANDLE")
        first, second = (event.time for event in events)
        if first is None or second is None:
            raise GpuError("NOT_READY")
        return second - first

    def begin_capture(self, stream: int) -> None:
        self._stream(stream).captured = []

    def end_capture(self, stream: int) -> list[Callable[[], None]]:
        held = self._stream(stream)
        captured, held.captured = held.captured, None
        if captured is None:
            raise GpuError("STREAM_CAPTURE_INVALIDATED")
        return captured

    def make_graph(self, captured: list[Callable[[], None]]) -> int:
        return self._register(self.graphs, captured)

    def launch_graph(self, graph: int, stream: int) -> None:
        for work in self.graphs[graph]:
            self.put(stream, work)

    def compiled(self, kernels: CompiledKernels) -> bytes:
        """Machine code, as far as this device knows it."""
        self.kernels.append(kernels)
        return f"cubin {len(self.kernels) - 1}".encode()

    def load(self, code: bytes) -> int:
        if not code.startswith(b"cubin "):
            raise GpuError("INVALID_IMAGE")
        return self._register(self.modules, self.kernels[int(code[6:])])

    def function(self, module: int, name: str) -> int:
        if name not in self.modules[module].names:
            raise GpuError("NOT_FOUND")
        return self._register(self.functions, (self.modules[module], name))

    def _move(self, target: int, source: int, size: int, on_device: Sequence[int]) -> None:
        for pointer in on_device:
            self.on_device(pointer, size)
        ctypes.memmove(target, source, size)

    def _stream(self, stream: int) -> FakeStream:
        if stream not in self.streams:
            raise GpuError("INVALID_HANDLE")
        return self.streams[stream]

    def _event(self, event: int) -> FakeEvent:
        if event not in self.events:
            raise GpuError("INVALID_HANDLE")
        return self.events[event]

    def _register(self, held: dict[int, object] | dict, thing: object) -> int:  # type: ignore[type-arg]
        handle = next(self._handles)
        held[handle] = thing
        return handle
