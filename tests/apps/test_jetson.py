"""What doctor says of boards, from trees of files like theirs."""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path
from typing import Any

import pytest
from support.colours import Run

from edgeseg.apps.cli import doctor, jetson
from edgeseg.apps.cli.jetson import board_text, examine_board
from edgeseg.backends.tensorrt.board import read_board

ORIN_NANO = "NVIDIA Jetson Orin Nano Developer Kit"
AGX_ORIN = "NVIDIA Jetson AGX Orin Developer Kit"
THOR = "NVIDIA Jetson AGX Thor Developer Kit"


@pytest.fixture(autouse=True)
def outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a virtual environment nor pycuda unless a test says so; JetPack 6's Python."""
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    monkeypatch.setattr(platform, "python_version_tuple", lambda: ("3", "10", "12"))
    monkeypatch.setattr(jetson.importlib.util, "find_spec", lambda name: None)


def tree(root: Path, model: str, release: str = "# R36 (release), REVISION: 4.3, GCID: 1", free: int = 6000) -> Path:
    """The files of a board."""
    for path, text in {
        "etc/nv_tegra_release": release + "\n",
        "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=1 NAME=25W >\n",
        "var/lib/nvpmodel/status": "pmode:0001\n",
        "proc/device-tree/model": model + "\0",
        "proc/meminfo": f"MemTotal: {7620 * 1024} kB\nMemAvailable: {free * 1024} kB\n",
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


def libraries(tensorrt: str | None = "10.3.0", bindings: str | None = "12.9.1") -> list[dict[str, Any]]:
    found = {"tensorrt": tensorrt, "cuda.bindings": bindings}
    return [{"module": m, "state": "ok" if v else "missing", "version": v} for m, v in found.items()]


def examined(root: Path, **versions: str | None) -> dict[str, Any]:
    found = examine_board(read_board(root), libraries(**versions), root)
    assert found is not None
    return found


class TestOrinNano:
    def test_with_all_that_it_needs(self, tmp_path: Path) -> None:
        found = examined(tree(tmp_path, ORIN_NANO))
        assert found == {
            "model": ORIN_NANO, "l4t": "36.4.3", "jetpack": "6.2 to 6.2.2",
            "expected": {"tensorrt": "10.3", "cuda": "12.6", "python": "3.10"}, "tensorrt": "10.3.0",
            "kind": "Orin Nano", "compute_capability": "8.7", "fp16": True, "int8": True, "dla_cores": 0, "dla": None,
            "power_mode": "25W", "memory_mb": 7620, "free_mb": 6000, "advice": [],
        }  # fmt: skip

    def test_text(self, tmp_path: Path) -> None:
        lines = board_text(examined(tree(tmp_path, ORIN_NANO)))
        assert [line.strip() for line in lines] == [
            f"{ORIN_NANO}, JetPack 6.2 to 6.2.2 (L4T 36.4.3), power mode 25W, 6000 of 7620 MB free",
            "TensorRT 10.3.0; JetPack has 10.3, CUDA 12.6, Python 3.10",
            "Orin Nano: INT8 and FP16 on its GPU (compute capability 8.7); no DLA",
        ]

    def test_short_of_memory(self, tmp_path: Path) -> None:
        (advice,) = examined(tree(tmp_path, ORIN_NANO, free=900))["advice"]
        assert advice.startswith("900 MB of 7620 MB are free, and a build may be killed")


class TestAccelerators:
    @pytest.mark.parametrize(
        ("model", "tensorrt", "dla", "text"),
        [
            (AGX_ORIN, "10.3.0", "cache", "up to 2 DLA cores, INT8 from a calibration cache"),
            (AGX_ORIN, None, "cache", "INT8 from a calibration cache"),
            (AGX_ORIN, "10.16.2.10", None, "up to 2 DLA cores, not driven by this TensorRT"),
            (AGX_ORIN, "11.4.1", "qdq", "INT8 from the strongly typed Q/DQ graph"),
            ("NVIDIA Jetson Orin NX 16GB", "11.4.1", None, "not driven by this TensorRT"),
            (THOR, "10.13.3", None, "no DLA"),
        ],
    )
    def test_by_board_and_version(
        self, model: str, tensorrt: str | None, dla: str | None, text: str, tmp_path: Path
    ) -> None:
        found = examined(tree(tmp_path, model), tensorrt=tensorrt)
        assert found["dla"] == dla
        assert text in "\n".join(board_text(found))

    def test_board_without_int8(self, tmp_path: Path) -> None:
        found = examined(
            tree(tmp_path, "NVIDIA Jetson Nano Developer Kit", "# R32 (release), REVISION: 7.1, GCID: 1"),
            tensorrt=None, bindings=None,
        )  # fmt: skip
        assert found["int8"] is False
        assert "Nano, TX1: FP16, no INT8 on its GPU" in "\n".join(board_text(found))
        assert (
            found["advice"][0] == "JetPack 4.6.1 to 4.6.6 has Python 3.6, edgeseg needs 3.10: flash JetPack 6 or newer"
        )


class TestAdvice:
    def test_no_tensorrt(self, tmp_path: Path) -> None:
        (advice,) = examined(tree(tmp_path, ORIN_NANO), tensorrt=None)["advice"]
        assert advice.endswith("run: sudo apt-get install python3-libnvinfer")

    def test_tensorrt_that_a_virtual_environment_does_not_see(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "prefix", "/home/me/.venv")
        (tree(tmp_path, ORIN_NANO) / "usr/lib/python3.10/dist-packages/tensorrt").mkdir(parents=True)
        (advice,) = examined(tmp_path, tensorrt=None)["advice"]
        assert advice.endswith("make it again with: python3 -m venv --system-site-packages .venv")

    def test_another_python(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(platform, "python_version_tuple", lambda: ("3", "12", "3"))
        (advice,) = examined(tree(tmp_path, ORIN_NANO), tensorrt=None)["advice"]
        assert advice.startswith("this is Python 3.12, and JetPack's TensorRT has bindings for Python 3.10 alone")
        assert "python3.10 -m venv --system-site-packages .venv" in advice

    def test_another_tensorrt(self, tmp_path: Path) -> None:
        (advice,) = examined(tree(tmp_path, ORIN_NANO), tensorrt="10.7.0")["advice"]
        assert advice.startswith("TensorRT 10.7.0 is not the 10.3 of JetPack 6.2 to 6.2.2")

    @pytest.mark.parametrize(("bindings", "text"), [(None, "nothing here reaches"), ("13.0.1", "13.0.1 does not fit")])
    def test_cuda_bindings(self, bindings: str | None, text: str, tmp_path: Path) -> None:
        (advice,) = examined(tree(tmp_path, ORIN_NANO), bindings=bindings)["advice"]
        assert text in advice
        assert advice.endswith("pip install 'cuda-bindings>=12.6,<13'")

    def test_pycuda_does_as_well(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(jetson.importlib.util, "find_spec", lambda name: object())
        assert examined(tree(tmp_path, ORIN_NANO), bindings=None)["advice"] == []

    def test_jetpack_7(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(platform, "python_version_tuple", lambda: ("3", "12", "3"))
        found = examined(
            tree(tmp_path, THOR, "# R38 (release), REVISION: 2.0, GCID: 1"), tensorrt="10.13.3.9", bindings=None
        )
        assert found["jetpack"] == "7.0"
        assert found["advice"] == [
            "nothing here reaches the GPU's memory; run: pip install 'cuda-bindings>=13.0,<14'",
        ]

    def test_unknown_release_and_board(self, tmp_path: Path) -> None:
        found = examined(tree(tmp_path, "NVIDIA Jetson Ultra", "# R77 (release), REVISION: 1.0, GCID: 1"))
        assert (found["jetpack"], found["kind"], found["int8"]) == (None, None, None)
        (advice,) = found["advice"]
        assert advice.startswith("Jetson Linux 77.1.0 is none of the releases that edgeseg knows")
        assert len(board_text(found)) == 3


class TestCommand:
    def test_elsewhere(self, edgeseg: Run) -> None:
        assert json.loads(edgeseg("doctor", "--json")[1])["board"] is None

    def test_on_a_board(self, edgeseg: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        board = read_board(tree(tmp_path, AGX_ORIN))
        monkeypatch.setattr(doctor, "read_board", lambda: board)
        code, out, _ = edgeseg("doctor", "--json")
        assert (code, json.loads(out)["board"]["jetpack"]) == (0, "6.2 to 6.2.2")
        assert f"        {AGX_ORIN}, JetPack 6.2 to 6.2.2" in edgeseg("doctor")[1]
