"""Which library is taken, and what is said where none works."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from support.cuda_devices import bindings_on, pycuda_on
from support.fake_gpu import FakeGpu

from edgeseg.backends.cuda import open_cuda, opening, pycuda_driver
from edgeseg.errors import EngineError, MissingDependencyError, UsageError

NAMES = ("cuda", "cuda.bindings", "cuda.bindings.runtime", "cuda.bindings.driver", "cuda.bindings.nvrtc")
OLD_NAMES = ("cuda.cudart", "cuda.cuda", "cuda.nvrtc")
PYCUDA = ("pycuda", "pycuda.driver", "pycuda.compiler")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put modules in place of what is installed; None for one that is not."""
    monkeypatch.setattr(pycuda_driver, "_contexts", {})
    monkeypatch.setattr(opening, "library_version", {"cuda-bindings": "12.9.4", "pycuda": "2026.1"}.get)

    def put(**modules: Any) -> None:
        for name in (*NAMES, *OLD_NAMES, *PYCUDA):
            monkeypatch.setitem(sys.modules, name, modules.get(name.replace(".", "_")))

    return put


def with_bindings(gpu: FakeGpu) -> tuple[dict[str, Any], SimpleNamespace]:
    fakes = bindings_on(gpu)
    package = ModuleType("cuda")
    modules = {"cuda_bindings_runtime": fakes.runtime, "cuda_bindings_driver": fakes.driver}
    return {"cuda": package, "cuda_bindings": package, **modules, "cuda_bindings_nvrtc": fakes.nvrtc}, fakes


def with_pycuda(gpu: FakeGpu) -> tuple[dict[str, Any], SimpleNamespace]:
    fakes = pycuda_on(gpu)
    return {"pycuda": ModuleType("pycuda"), "pycuda_driver": fakes.driver, "pycuda_compiler": fakes.compiler}, fakes


class TestChoice:
    def test_cuda_bindings_come_first(self, installed: Any, gpu: FakeGpu) -> None:
        installed(**with_bindings(gpu)[0], **with_pycuda(gpu)[0])
        with open_cuda() as cuda:
            assert cuda.library.name == "cuda-bindings 12.9.4"
        with open_cuda("pycuda") as cuda:
            assert cuda.library.name == "pycuda 2026.1"

    def test_pycuda_where_that_is_all(self, installed: Any, gpu: FakeGpu) -> None:
        installed(**with_pycuda(gpu)[0])
        with open_cuda() as cuda:
            assert cuda.library.name == "pycuda 2026.1"

    def test_the_names_of_older_versions(self, installed: Any, gpu: FakeGpu) -> None:
        fakes = bindings_on(gpu)
        package = ModuleType("cuda")
        installed(cuda=package, cuda_cudart=fakes.runtime, cuda_cuda=fakes.driver, cuda_nvrtc=fakes.nvrtc)
        with open_cuda("cuda-bindings") as cuda:
            assert cuda.facts.name == "Orin (fake)"

    def test_an_unknown_name(self) -> None:
        with pytest.raises(UsageError, match="unknown library for CUDA 'pycude'; did you mean pycuda"):
            open_cuda("pycude")

    def test_none_is_installed(self, installed: Any) -> None:
        installed()
        with pytest.raises(
            MissingDependencyError, match=r"cuda.bindings is needed to use the GPU from Python, .*; run: pip"
        ):
            open_cuda()
        with pytest.raises(MissingDependencyError, match=r"pycuda is needed to use .*; run: pip install pycuda$"):
            open_cuda("pycuda")

    def test_another_missing_module_is_not_hidden(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(name: str) -> None:
            raise ModuleNotFoundError("No module named 'pytools'", name="pytools")

        monkeypatch.setattr(opening, "import_module", fail)
        with pytest.raises(ModuleNotFoundError, match="pytools"):
            open_cuda("cuda-bindings")


class TestNoDevice:
    def test_no_driver(self, installed: Any, gpu: FakeGpu) -> None:
        modules, fakes = with_bindings(gpu)
        fakes.runtime.driver_version = 0
        installed(**modules)
        with pytest.raises(EngineError, match=r"CUDA finds no usable GPU: cudaGetDeviceCount failed: cudaErrorInsuff"):
            open_cuda()

    def test_no_driver_as_versions_up_to_12_say_it(self, installed: Any, gpu: FakeGpu) -> None:
        modules, fakes = with_bindings(gpu)

        def fail() -> None:
            raise RuntimeError("Failed to dlopen libcuda.so.1")

        fakes.runtime.cudaGetDeviceCount = fail
        installed(**modules)
        with pytest.raises(
            EngineError, match=r"Failed to dlopen libcuda.so.1\); on a Jetson flash JetPack, in a container"
        ):
            open_cuda()
        fakes.runtime.cudaDriverGetVersion = fail
        with pytest.raises(
            EngineError, match=r"cudaDriverGetVersion failed: .*libcuda.so.1\); on a Jetson flash JetPack"
        ):
            open_cuda()

    def test_no_device(self, installed: Any, gpu: FakeGpu) -> None:
        modules, fakes = with_bindings(gpu)
        fakes.runtime.devices = 0
        installed(**modules)
        with pytest.raises(EngineError, match=r"cudaErrorNoDevice \(no CUDA-capable device is detected\); on a Jetson"):
            open_cuda()

    @pytest.mark.parametrize("make", [with_bindings, with_pycuda])
    def test_another_device_than_there_is(self, installed: Any, gpu: FakeGpu, make: Any) -> None:
        installed(**make(gpu)[0])
        with pytest.raises(EngineError, match="GPU 2 was asked for, but this machine has 1, numbered from 0"):
            open_cuda(device=2)

    def test_a_library_newer_than_the_driver(self, installed: Any, gpu: FakeGpu) -> None:
        modules, fakes = with_bindings(gpu)
        fakes.runtime.runtime_version = 13050
        installed(**modules)
        message = (
            r'needs a driver for CUDA 13, but this one serves CUDA 12\.6; run: pip install "cuda-bindings==12\.\*"'
        )
        with pytest.raises(EngineError, match=message):
            open_cuda()

    def test_a_library_of_before_12(self, installed: Any, gpu: FakeGpu) -> None:
        modules, fakes = with_bindings(gpu)
        fakes.runtime.runtime_version = 11080
        installed(**modules)
        with pytest.raises(
            EngineError, match=r"cuda-bindings 12.9.4 is for CUDA 11, but 12 or later is needed; run: pip"
        ):
            open_cuda()

    def test_pycuda_without_a_driver(self, installed: Any, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(name: str) -> None:
            raise ImportError("libcuda.so.1: cannot open shared object file: No such file or directory")

        monkeypatch.setattr(opening, "import_module", fail)
        with pytest.raises(
            EngineError, match=r"pycuda does not load \(libcuda.so.1: .*\): there is no NVIDIA driver; on a"
        ):
            open_cuda("pycuda")

    def test_pycuda_without_a_device(self, installed: Any, gpu: FakeGpu) -> None:
        modules, fakes = with_pycuda(gpu)
        fakes.driver.init_error = "no CUDA-capable device is detected"
        installed(**modules)
        with pytest.raises(
            EngineError, match=r"no usable GPU: cuInit failed: CUDA_ERROR_NO_DEVICE \(no CUDA-capable dev"
        ):
            open_cuda()


class TestCompilers:
    def test_no_nvrtc(self, installed: Any, gpu: FakeGpu) -> None:
        modules, fakes = with_bindings(gpu)

        def fail(*arguments: Any) -> None:
            raise RuntimeError('Failure finding "libnvrtc.so"')

        fakes.nvrtc.nvrtcCreateProgram = fail
        installed(**modules)
        message = (
            "libnvrtc is needed to compile CUDA kernels, but it is not installed; run: pip install nvidia-cuda-nvrtc"
        )
        with open_cuda() as cuda, pytest.raises(MissingDependencyError, match=f"{message}-cu12 "):
            cuda.compile("", "a test")
        fakes.runtime.runtime_version, fakes.runtime.driver_version = 13000, 13000
        with open_cuda() as cuda, pytest.raises(MissingDependencyError, match=f"{message} "):
            cuda.compile("", "a test")

    def test_nvcc_is_found(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        nvcc = tmp_path / "nvcc"
        nvcc.write_text("#!/bin/sh\n")
        nvcc.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        assert pycuda_driver.find_nvcc() == str(nvcc)

    def test_no_nvcc(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        if Path("/usr/local/cuda/bin/nvcc").is_file():
            pytest.skip("this machine has nvcc where it is always found")
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(MissingDependencyError, match="nvcc is needed to compile CUDA kernels with pycuda"):
            pycuda_driver.find_nvcc()

    def test_kernels_are_compiled_again_where_the_cache_cannot_be_written(
        self, installed: Any, gpu: FakeGpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("EDGESEG_CACHE_DIR", str(tmp_path / "file"))
        monkeypatch.setattr(pycuda_driver, "find_nvcc", lambda: "nvcc")
        modules, fakes = with_pycuda(gpu)
        installed(**modules)
        with open_cuda() as cuda:
            cuda.compile('extern "C" __global__ void nothing() {}', "a test").close()
        assert fakes.compiler.asked["cache"] is False


@pytest.mark.parametrize(
    ("release", "command"),
    [
        ("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic", 'pip install "cuda-bindings==12.*"'),
        ("# R38 (release), REVISION: 2.0, GCID: 41844464, BOARD: generic", 'pip install "cuda-bindings==13.*"'),
        ("# R39 (release), REVISION: 2.0", 'pip install "cuda-bindings==13.*"'),
        ("# R35 (release), REVISION: 4.1", "pip install pycuda (JetPack 5 and older have no cuda-bindings)"),
        ("", "pip install cuda-bindings (13 for a driver of CUDA 13, otherwise cuda-bindings==12.*)"),
        (None, "pip install cuda-bindings (13 for a driver of CUDA 13, otherwise cuda-bindings==12.*)"),
    ],
)
def test_the_command_is_this_machines(tmp_path: Path, release: str | None, command: str) -> None:
    if release is not None:
        (tmp_path / "etc").mkdir()
        (tmp_path / "etc/nv_tegra_release").write_text(release)
    assert opening.install_command("cuda-bindings", tmp_path) == command
    assert opening.install_command("pycuda", tmp_path) == "pip install pycuda"
