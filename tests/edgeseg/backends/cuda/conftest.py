"""Devices for the tests of CUDA: both libraries, each over a fake GPU, and the real ones on a real GPU."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from support.cuda_devices import fake_device
from support.fake_gpu import FakeGpu

from edgeseg.backends.cuda import Cuda, open_cuda
from edgeseg.errors import EdgesegError


@pytest.fixture
def gpu() -> FakeGpu:
    return FakeGpu()


@pytest.fixture(params=["cuda-bindings", "pycuda"])
def library(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def opened(library: str, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Cuda, SimpleNamespace]]:
    cuda, modules = fake_device(library, gpu, monkeypatch)
    yield cuda, modules
    cuda.close()
    assert not getattr(modules.driver, "outside", []), "freed without a context"
    if library == "pycuda":
        assert modules.driver.contexts.stack == [], "a context stays on the stack"
    elif not gpu.broken:
        assert modules.nvrtc.programs == 0, "a program of the compiler stays"


@pytest.fixture
def fake_cuda(opened: tuple[Cuda, SimpleNamespace]) -> Cuda:
    return opened[0]


@pytest.fixture
def modules(opened: tuple[Cuda, SimpleNamespace]) -> Any:
    return opened[1]


REAL = [pytest.param(f"real {name}", marks=pytest.mark.gpu) for name in ("cuda-bindings", "pycuda")]


def _device(library: str, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cuda]:
    if library.startswith("real"):
        try:
            device = open_cuda(library.partition(" ")[2])
        except EdgesegError as error:
            pytest.skip(str(error))
    else:
        device, _ = fake_device(library, gpu, monkeypatch)
    with device:
        yield device
        assert device.open_resources == {} or device.lost, "the test leaks"


@pytest.fixture(params=["cuda-bindings", "pycuda", *REAL])
def cuda(request: pytest.FixtureRequest, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cuda]:
    """Each library over a fake GPU and, with -m gpu, on the real one."""
    yield from _device(request.param, gpu, monkeypatch)


@pytest.fixture(params=["cuda-bindings", *REAL])
def exact(request: pytest.FixtureRequest, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cuda]:
    """One fake, for what does not depend on the library, and the real ones."""
    yield from _device(request.param, gpu, monkeypatch)
