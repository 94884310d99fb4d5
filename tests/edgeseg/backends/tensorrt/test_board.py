"""A Jetson's files and its driver, played by a folder and a fake."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import pytest

from edgeseg.backends.tensorrt.board import Board, Device, default_workspace, find_device, memory_advice, read_board


def orin_nano(root: Path, total_kb: int = 7_800_000, free_kb: int = 5_000_000) -> Path:
    files = {
        "proc/meminfo": f"MemTotal:        {total_kb} kB\nMemFree:  1000 kB\nMemAvailable:   {free_kb} kB\n",
        "proc/device-tree/model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0",
        "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n",
        "var/lib/nvpmodel/status": "pmode:0001 fmode:quiet\n",
        "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=15W >\nCPU_ONLINE CORE_0 1\n< POWER_MODEL ID=1 NAME=25W >\n",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


class TestBoard:
    def test_reads_a_jetson(self, tmp_path: Path) -> None:
        board = read_board(orin_nano(tmp_path))
        assert board == Board(
            "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super", "36.4.3", "25W", 7617, 4882
        )
        assert board.is_jetson

    def test_reads_a_machine_without_any(self, tmp_path: Path) -> None:
        assert read_board(tmp_path) == Board(None, None, None, 0, 0)
        assert not read_board(tmp_path).is_jetson

    def test_reads_this_machine(self) -> None:
        board = read_board()
        assert 0 < board.free_mb <= board.memory_mb

    def test_a_mode_without_a_name(self, tmp_path: Path) -> None:
        (orin_nano(tmp_path) / "etc/nvpmodel.conf").unlink()
        assert read_board(tmp_path).power_mode == "1"

    def test_a_release_in_another_form(self, tmp_path: Path) -> None:
        (orin_nano(tmp_path) / "etc/nv_tegra_release").write_text("something else")
        assert read_board(tmp_path).l4t is None


class TestMemory:
    @pytest.mark.parametrize(
        ("megabytes", "l4t", "workspace"),
        [(3600, "36.4.3", 256), (7600, "36.4.3", 1024), (30000, "36.4.3", None), (3600, None, None), (0, "36.4", None)],
    )
    def test_workspace(self, megabytes: int, l4t: str | None, workspace: int | None) -> None:
        assert default_workspace(Board(None, l4t, None, megabytes, 3000)) == workspace

    def test_advice(self) -> None:
        advice = memory_advice(Board("nano", "36.4.3", None, 3600, 900))
        assert advice is not None
        assert advice.startswith("900 MB of 3600 MB are free, and a build may be killed; stop the desktop")

    @pytest.mark.parametrize("board", [Board("n", "36.4", None, 7600, 5000), Board(None, None, None, 3600, 100)])
    def test_no_advice(self, board: Board) -> None:
        assert memory_advice(board) is None


class FakeDriver:
    """libcuda with one Orin."""

    def __init__(self, status: int = 0, devices: int = 1) -> None:
        self.status, self.devices = status, devices

    def cuInit(self, flags: int) -> int:  # noqa: N802 - CUDA's name
        return self.status

    def cuDeviceGet(self, device: Any, index: int) -> int:  # noqa: N802
        return 0 if index < self.devices else 101

    def cuDriverGetVersion(self, version: Any) -> int:  # noqa: N802
        version._obj.value = 12060
        return 0

    def cuDeviceGetName(self, name: Any, length: int, device: ctypes.c_int) -> int:  # noqa: N802
        name.value = b"Orin"
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: ctypes.c_int) -> int:  # noqa: N802
        value._obj.value = {75: 8, 76: 7}[attribute]
        return 0


class TestDevice:
    def test_reads_the_first_gpu(self) -> None:
        device = find_device(FakeDriver())
        assert device == Device("Orin", (8, 7), "12.6")
        assert device.capability_text == "8.7"

    @pytest.mark.parametrize("driver", [FakeDriver(status=100), FakeDriver(devices=0)])
    def test_no_gpu(self, driver: FakeDriver) -> None:
        assert find_device(driver) is None

    def test_no_driver(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def missing(name: str) -> None:
            raise OSError(f"{name}: cannot open shared object file")

        monkeypatch.setattr(ctypes, "CDLL", missing)
        assert find_device() is None
