"""A machine with a GPU and a TensorRT, played for `edgeseg.load`; and bundles whose promises hold."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from support.bundles import quantized_graph, toy_bundle, toy_manifest
from support.cuda_devices import fake_device
from support.fake_gpu import FakeGpu
from support.tensorrt_execution import Execution
from support.tensorrt_fakes import Behaviour, fake_module

from edgeseg.backends.tensorrt import backend as backend_module
from edgeseg.backends.tensorrt.board import Board, Device
from edgeseg.bundle import Bundle
from edgeseg.manifest import Layer

__all__ = ["NODES", "ORIN", "Machine", "promised_bundle"]

NODES = ("conv_8", "conv_14", "conv_20")
ORIN = Device("Orin", (8, 7), "12.6")

_DRIVER = """
#include <string.h>
int cuInit(unsigned f) { return 0; }
int cuDeviceGet(int* d, int n) { *d = 0; return 0; }
int cuDriverGetVersion(int* v) { *v = 12060; return 0; }
int cuDeviceGetName(char* name, int size, int d) { strncpy(name, "Orin", size); return 0; }
int cuDeviceGetAttribute(int* v, int a, int d) { *v = a == 75 ? 8 : 7; return 0; }
"""


def promised_bundle(path: Path, height: int = 32, width: int = 48, seed: int = 0) -> Bundle:
    """A bundle of `quantized_graph` whose manifest names its three convolutions."""
    manifest = toy_manifest(height, width, logits=(height // 4, width // 4), coordinates="half_pixel")
    layers = tuple(Layer(name, "Conv", "int8", 1000) for name in NODES)
    manifest = replace(manifest, quantization=replace(manifest.quantization, layers=layers))
    return toy_bundle(path, manifest, quantized_graph(height, width, seed=seed))


@dataclass
class Machine:
    """What this process and the processes that it starts take for their machine."""

    folder: Path
    patch: pytest.MonkeyPatch
    gpu: FakeGpu
    execution: Execution

    @classmethod
    def make(cls, folder: Path, patch: pytest.MonkeyPatch) -> Machine:
        """An Orin without any TensorRT."""
        gpu = FakeGpu()
        gpu.integrated = False
        machine = cls(folder, patch, gpu, Execution(gpu))
        folder.mkdir(exist_ok=True)
        patch.setattr(backend_module, "open_cuda", lambda: fake_device("cuda-bindings", gpu, patch)[0])
        machine.board(jetson=False)
        machine.device(ORIN)
        return machine

    def device(self, device: Device | None) -> None:
        self.patch.setattr(backend_module, "find_device", lambda: device)

    def board(self, *, jetson: bool, model: str | None = None) -> None:
        board = Board(model, "36.4.3" if jetson else None, None, 16000, 12000)
        self.patch.setattr(backend_module, "read_board", lambda: board)

    def install(self, version: str, **behaviour: Any) -> None:
        """Put a version's fake in this process and, where it behaves, on the path of its children."""
        name = version.partition("-")[0]
        module = fake_module(version, Behaviour(run=self.execution, **behaviour))
        self.patch.setitem(sys.modules, name, module)
        self.patch.syspath_prepend(self.folder)
        text = f"""
            import sys
            from support.tensorrt_fakes import Behaviour, fake_module
            sys.modules[__name__] = fake_module({version!r}, Behaviour())
        """
        (self.folder / f"{name}.py").write_text(textwrap.dedent(text))
        tests = Path(__file__).resolve().parent.parent
        self.patch.setenv("PYTHONPATH", os.pathsep.join(map(str, (self.folder, tests, tests.parent))))

    def install_driver(self) -> None:
        """A libcuda for the children, which find the Orin then too."""
        compiler = shutil.which("gcc")
        if compiler is None:
            pytest.skip("gcc, which makes a driver for the children, is not on this machine")
        source = self.folder / "cuda.c"
        source.write_text(_DRIVER)
        library = self.folder / "libcuda.so.1"
        subprocess.run([compiler, "-shared", "-fPIC", "-w", str(source), "-o", str(library)], check=True)
        self.patch.setenv("LD_LIBRARY_PATH", str(self.folder))
