"""An open GPU for a test: edgeseg's device over the fake modules of either library."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from support import fake_cuda_bindings, fake_pycuda
from support.fake_gpu import FakeGpu

from edgeseg.backends.cuda import Cuda
from edgeseg.backends.cuda import pycuda_driver as adapter
from edgeseg.backends.cuda.cuda_bindings import CudaBindings


def bindings_on(gpu: FakeGpu) -> SimpleNamespace:
    runtime = fake_cuda_bindings.FakeRuntime(gpu)
    driver, nvrtc = fake_cuda_bindings.FakeDriver(gpu, runtime), fake_cuda_bindings.FakeNvrtc(gpu)
    return SimpleNamespace(runtime=runtime, driver=driver, nvrtc=nvrtc)


def pycuda_on(gpu: FakeGpu) -> SimpleNamespace:
    return SimpleNamespace(driver=fake_pycuda.FakeDriver(gpu), compiler=fake_pycuda.FakeCompiler(gpu))


def fake_device(library: str, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> tuple[Cuda, SimpleNamespace]:
    """An open device over a fake GPU, and the fake modules."""
    if library == "cuda-bindings":
        modules = bindings_on(gpu)
        return Cuda(CudaBindings(modules.runtime, modules.driver, modules.nvrtc, version="12.9.4")), modules
    monkeypatch.setattr(adapter, "_contexts", {})
    modules = pycuda_on(gpu)
    return Cuda(adapter.PyCuda(modules.driver, modules.compiler, version="2026.1", nvcc="/fake/nvcc")), modules
