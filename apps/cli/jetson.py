"""What `edgeseg doctor` says of a Jetson: its JetPack, what it can do, and what is missing."""

from __future__ import annotations

import importlib.util
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeseg.backends.tensorrt.board import Board, memory_advice
from edgeseg.jetpack import (
    JETPACKS,
    BoardKind,
    JetPack,
    cuda_bindings,
    dla_source,
    find_board,
    find_jetpack,
    version_numbers,
)

__all__ = ["board_text", "examine_board"]

_DLA = {
    "cache": "INT8 from a calibration cache",
    "qdq": "INT8 from the strongly typed Q/DQ graph",
    None: "not driven by this TensorRT",
}


def examine_board(
    board: Board, libraries: Sequence[Mapping[str, Any]], root: Path = Path("/")
) -> dict[str, Any] | None:
    """What a Jetson is and can do, as `edgeseg doctor --json` prints it; None on any other machine.

    Args:
        board: what the system's files say.
        libraries: what doctor found of each library: `module`, `state` and `version`.
        root: of the file system, for tests.
    """
    if board.l4t is None:
        return None
    jetpack, kind = find_jetpack(board.l4t), find_board(board.model or "")
    tensorrt = _version_of("tensorrt", libraries)
    driven = tensorrt or (jetpack.tensorrt if jetpack else None)
    return {
        "model": board.model,
        "l4t": board.l4t,
        "jetpack": jetpack.name if jetpack else None,
        "expected": {"tensorrt": jetpack.tensorrt, "cuda": jetpack.cuda, "python": jetpack.python} if jetpack else None,
        "tensorrt": tensorrt,
        "kind": kind.name if kind else None,
        "compute_capability": ".".join(map(str, kind.compute_capability)) if kind else None,
        "fp16": True if kind else None,
        "int8": kind.int8 if kind else None,
        "dla_cores": kind.dla_cores if kind else None,
        "dla": _dla(kind, driven),
        "power_mode": board.power_mode,
        "memory_mb": board.memory_mb,
        "free_mb": board.free_mb,
        "advice": [
            *_release_advice(board.l4t, jetpack),
            *_tensorrt_advice(jetpack, tensorrt, root),
            *_cuda_advice(jetpack, libraries),
            *filter(None, [memory_advice(board)]),
        ],
    }


def _version_of(module: str, libraries: Sequence[Mapping[str, Any]]) -> str | None:
    """Version of a library that works."""
    return next((e["version"] for e in libraries if e["module"] == module and e["state"] == "ok"), None)


def _dla(kind: BoardKind | None, tensorrt: str | None) -> str | None:
    if kind is None or not kind.dla_cores or tensorrt is None:
        return None
    source = dla_source(version_numbers(tensorrt))
    return None if source == "qdq" and kind.name != "AGX Orin" else source


def _release_advice(l4t: str, jetpack: JetPack | None) -> list[str]:
    if jetpack is None:
        return [
            f"Jetson Linux {l4t} is none of the releases that edgeseg knows, JetPack {JETPACKS[0].name} to "
            f"{JETPACKS[-1].name}: what stands here is not told by it"
        ]
    if not jetpack.supported:
        return [f"JetPack {jetpack.name} has Python {jetpack.python}, edgeseg needs 3.10: flash JetPack 6 or newer"]
    return []


def _tensorrt_advice(jetpack: JetPack | None, tensorrt: str | None, root: Path) -> list[str]:
    running = ".".join(platform.python_version_tuple()[:2])
    advice = []
    if jetpack is not None and jetpack.supported and running != jetpack.python:
        advice.append(
            f"this is Python {running}, and JetPack's TensorRT has bindings for Python {jetpack.python} alone: make "
            f"the environment with python{jetpack.python} -m venv --system-site-packages .venv"
        )
    elif tensorrt is None and sys.prefix != sys.base_prefix and _installed_for_the_system(root):
        advice.append(
            "TensorRT is installed, but this virtual environment does not see it; make it again with: python3 -m venv "
            "--system-site-packages .venv"
        )
    elif tensorrt is None:
        advice.append("TensorRT's Python bindings are not installed; run: sudo apt-get install python3-libnvinfer")
    if tensorrt is not None and jetpack is not None:
        expected = version_numbers(jetpack.tensorrt)
        if version_numbers(tensorrt)[: len(expected)] != expected:
            advice.append(
                f"TensorRT {tensorrt} is not the {jetpack.tensorrt} of JetPack {jetpack.name}: engines of the one do "
                "not run on the other, build them again"
            )
    return advice


def _installed_for_the_system(root: Path) -> bool:
    return any(root.glob("usr/lib/python3*/dist-packages/tensorrt"))


def _cuda_advice(jetpack: JetPack | None, libraries: Sequence[Mapping[str, Any]]) -> list[str]:
    requirement = cuda_bindings(jetpack.cuda) if jetpack is not None else None
    if jetpack is None or requirement is None:
        return []
    found = _version_of("cuda.bindings", libraries)
    if found is None and importlib.util.find_spec("pycuda") is not None:
        return []
    if found is None:
        return [f"nothing here reaches the GPU's memory; run: pip install '{requirement}'"]
    if version_numbers(found)[:1] != version_numbers(jetpack.cuda)[:1]:
        return [f"cuda-bindings {found} does not fit CUDA {jetpack.cuda}; run: pip install '{requirement}'"]
    return []


def board_text(found: Mapping[str, Any] | None) -> list[str]:
    """The same for a person, one line each."""
    if found is None:
        return []
    expected, cores = found["expected"], found["dla_cores"]
    lines = [
        f"{found['model'] or 'unknown board'}, JetPack {found['jetpack'] or 'unknown'} (L4T {found['l4t']}), "
        f"power mode {found['power_mode'] or 'unknown'}, {found['free_mb']} of {found['memory_mb']} MB free",
        f"TensorRT {found['tensorrt'] or 'not found'}"
        + (
            f"; JetPack has {expected['tensorrt']}, CUDA {expected['cuda']}, Python {expected['python']}"
            if expected
            else ""
        ),
    ]
    if found["kind"] is not None:
        gpu = "INT8 and FP16" if found["int8"] else "FP16, no INT8"
        dla = f"up to {cores} DLA cores, {_DLA[found['dla']]}" if cores else "no DLA"
        lines.append(f"{found['kind']}: {gpu} on its GPU (compute capability {found['compute_capability']}); {dla}")
    lines += [f"advice: {text}" for text in found["advice"]]
    return [f"        {line}" for line in lines]
