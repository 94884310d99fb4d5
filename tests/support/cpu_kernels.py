"""CUDA C++ on a processor: the very source that a GPU gets, compiled with g++ and run thread after thread."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import pytest

PRELUDE = """
#include <cmath>
#include <cstddef>
#include <utility>
#define __global__
#define __device__
struct Three { unsigned int x, y, z; };
static thread_local Three blockIdx, threadIdx, blockDim, gridDim;
"""

RUNNER = """
template <typename... A, std::size_t... I>
static void call(void (*kernel)(A...), void** values, std::index_sequence<I...>) { kernel(*(A*)values[I]...); }

template <typename... A>
static void run(void (*kernel)(A...), const unsigned int* size, void** values)
{
    gridDim = {size[0], size[1], size[2]}, blockDim = {size[3], size[4], size[5]};
    for (blockIdx.z = 0; blockIdx.z < size[2]; blockIdx.z++)
    for (blockIdx.y = 0; blockIdx.y < size[1]; blockIdx.y++)
    for (blockIdx.x = 0; blockIdx.x < size[0]; blockIdx.x++)
    for (threadIdx.z = 0; threadIdx.z < size[5]; threadIdx.z++)
    for (threadIdx.y = 0; threadIdx.y < size[4]; threadIdx.y++)
    for (threadIdx.x = 0; threadIdx.x < size[3]; threadIdx.x++)
        call(kernel, values, std::index_sequence_for<A...>());
}

template <typename... A>
static int sizes(void (*)(A...), int* out) { int i = 0; ((out[i++] = sizeof(A)), ...); return i; }
"""

FUNCTIONS = """
extern "C" void run_{0}(const unsigned int* size, void** values) {{ run({0}, size, values); }}
extern "C" int sizes_{0}(int* out) {{ return sizes({0}, out); }}
"""

FLAGS = ("-O2", "-std=c++17", "-shared", "-fPIC", "-ffp-contract=off", "-fno-strict-aliasing", "-w")


class KernelCompileError(Exception):
    """g++'s log."""


@lru_cache(maxsize=256)
def compile_kernels(source: str, options: tuple[str, ...]) -> CompiledKernels:
    """The kernels of a source.

    Args:
        source: CUDA C++ without barriers or shared memory.
        options: of the compiler; "--fmad=false" and architectures mean nothing here.

    Raises:
        KernelCompileError: with g++'s log.
    """
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("g++, which compiles the kernels for the processor, is not on this machine")
    names = re.findall(r'extern "C" __global__ void (\w+)\(', source)
    text = PRELUDE + '\n#line 1 "edgeseg.cu"\n' + source + RUNNER + "".join(FUNCTIONS.format(name) for name in names)
    folder = Path(tempfile.mkdtemp(prefix="edgeseg-kernels-"))
    try:
        (folder / "kernels.cpp").write_text(text, "utf-8")
        library = folder / "kernels.so"
        defines = [option for option in options if option.startswith("-D")]
        command = [compiler, *FLAGS, *defines, str(folder / "kernels.cpp"), "-o", str(library)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise KernelCompileError(done.stderr)
        return CompiledKernels(ctypes.CDLL(str(library)), names)
    finally:
        shutil.rmtree(folder)


class CompiledKernels:
    """Kernels in a shared library."""

    def __init__(self, library: ctypes.CDLL, names: Sequence[str]) -> None:
        self._library = library
        self.names = names

    def sizes(self, name: str) -> list[int]:
        """Bytes of each parameter."""
        out = (ctypes.c_int * 64)()
        return list(out[: self._library[f"sizes_{name}"](out)])

    def run(self, name: str, grid: Sequence[int], block: Sequence[int], values: Sequence[bytes]) -> None:
        """Run every thread of a launch, one after the other."""
        size = (ctypes.c_uint * 6)(*grid, *block)
        held = [ctypes.create_string_buffer(value, len(value)) for value in values]
        pointers = (ctypes.c_void_p * len(held))(*(ctypes.addressof(value) for value in held))
        self._library[f"run_{name}"](size, pointers)
