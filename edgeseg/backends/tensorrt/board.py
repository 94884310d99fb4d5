"""The machine that an engine is built on: a Jetson's model, release, power mode and memory, and the GPU's driver."""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Board", "Device", "default_workspace", "find_device", "memory_advice", "read_board"]

_SHORT_OF_MEMORY = 5 * 1024
_MODEST_MEMORY = 9 * 1024
_LEAST_FREE = 1536

_CAPABILITY_ATTRIBUTES = (75, 76)
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR of cuda.h."""


@dataclass(frozen=True)
class Board:
    """What the system's files say of a machine.

    Attributes:
        model: of a board with a device tree, such as "NVIDIA Jetson Orin Nano Developer Kit".
        l4t: release of Jetson Linux, such as "36.4.3"; None on any other machine.
        power_mode: name of nvpmodel's mode, such as "15W", or its number where the names are not there.
        memory_mb, free_mb: of the system; on a Jetson the GPU's memory too.
    """

    model: str | None
    l4t: str | None
    power_mode: str | None
    memory_mb: int
    free_mb: int

    @property
    def is_jetson(self) -> bool:
        """Whether the GPU shares this memory and the board has power modes."""
        return self.l4t is not None


@dataclass(frozen=True)
class Device:
    """The first GPU: its name, compute capability such as (8, 7), and its driver's CUDA version, such as "12.6"."""

    name: str
    compute_capability: tuple[int, int]
    driver: str

    @property
    def capability_text(self) -> str:
        """The compute capability as NVIDIA's tables have it, such as "8.7"."""
        return ".".join(map(str, self.compute_capability))


def read_board(root: Path = Path("/")) -> Board:
    """Read the system's files; what is not there is None or 0.

    Args:
        root: of the file system, for tests.
    """
    memory = dict(re.findall(r"^(\w+):\s+(\d+) kB", _read(root / "proc/meminfo") or "", re.MULTILINE))
    total, free = (int(memory.get(key, 0)) // 1024 for key in ("MemTotal", "MemAvailable"))
    model = _read(root / "proc/device-tree/model")
    return Board(model, _release(_read(root / "etc/nv_tegra_release")), _power_mode(root), total, free)


def _read(path: Path) -> str | None:
    try:
        return path.read_text("utf-8", errors="replace").strip("\0 \n")
    except OSError:
        return None


def _release(text: str | None) -> str | None:
    """ "36.4.3" of a first line such as "# R36 (release), REVISION: 4.3, GCID: ..."."""
    found = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", text or "")
    return f"{found.group(1)}.{found.group(2)}" if found else None


def _power_mode(root: Path) -> str | None:
    status = re.search(r"pmode:0*(\d+)", _read(root / "var/lib/nvpmodel/status") or "")
    if status is None:
        return None
    names = dict(re.findall(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+?)\s*>", _read(root / "etc/nvpmodel.conf") or ""))
    return names.get(status.group(1), status.group(1))


def default_workspace(board: Board) -> int | None:
    """MB of workspace for a build where the user said nothing; None leaves TensorRT's default, all of the device.

    On boards whose GPU shares few GB with the system the default lets the builder try kernels until the system kills
    it; a smaller workspace is what helps there (ultralytics#19614, tkDNN#26, tensorrt_demos#293).
    """
    if not board.is_jetson or not board.memory_mb:
        return None
    if board.memory_mb < _SHORT_OF_MEMORY:
        return 256
    return 1024 if board.memory_mb < _MODEST_MEMORY else None


def memory_advice(board: Board) -> str | None:
    """What to do before a build on a board that is short of memory; None where it is not."""
    if not board.is_jetson or not 0 < board.free_mb < _LEAST_FREE:
        return None
    return (
        f"{board.free_mb} MB of {board.memory_mb} MB are free, and a build may be killed; stop the desktop "
        "(sudo systemctl isolate multi-user.target), close cameras, and lower --workspace and --optimization-level"
    )


def find_device(driver: Any = None) -> Device | None:
    """Ask the driver for the first GPU; None where there is no driver or no GPU.

    Args:
        driver: libcuda as ctypes has it; None loads the system's.
    """
    if driver is None:
        try:
            driver = ctypes.CDLL("libcuda.so.1")
        except OSError:
            return None
    device, name, version = ctypes.c_int(), ctypes.create_string_buffer(256), ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), 0):
        return None
    driver.cuDriverGetVersion(ctypes.byref(version))
    driver.cuDeviceGetName(name, len(name), device)
    numbers = [ctypes.c_int(), ctypes.c_int()]
    for number, attribute in zip(numbers, _CAPABILITY_ATTRIBUTES, strict=True):
        driver.cuDeviceGetAttribute(ctypes.byref(number), attribute, device)
    text = name.value.decode("utf-8", "replace")
    return Device(text, (numbers[0].value, numbers[1].value), f"{version.value // 1000}.{version.value % 1000 // 10}")
