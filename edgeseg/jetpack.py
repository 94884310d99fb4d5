"""The JetPack matrix: which release brings which TensorRT, CUDA and Python, and what each Jetson can do.

Sources: NVIDIA's JetPack pages and release notes of TensorRT 10.7 to 11.4.1; the tables of rbonghi/jetson_stats
(jtop/core/jetson_variables.py) and dusty-nv/jetson-containers (l4t_version.py, cudastack/config.py); NVIDIA's support
matrix for INT8 by compute capability. Python and GStreamer are those of the Ubuntu release.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

__all__ = [
    "BOARDS",
    "JETPACKS",
    "BoardKind",
    "JetPack",
    "cuda_bindings",
    "dla_source",
    "find_board",
    "find_jetpack",
    "version_numbers",
]

Numbers = tuple[int, ...]


@dataclass(frozen=True)
class JetPack:
    """One release, or several that bring the same.

    Attributes:
        name: version of JetPack.
        first, last: Jetson Linux (L4T) releases that it stands on; None for those after the row before, whose numbers
            are not known.
        ubuntu, python, gstreamer, cuda, tensorrt: versions, shortened to what the releases share.
        boards: that it runs on.
        dla: what drives their deep learning accelerators.
    """

    name: str
    first: Numbers
    last: Numbers | None
    ubuntu: str
    python: str
    gstreamer: str
    cuda: str
    tensorrt: str
    boards: str
    dla: str

    @property
    def l4t(self) -> str:
        """The releases of Jetson Linux as a table has them, such as "36.4.3 to 36.5"."""
        first = ".".join(map(str, self.first))
        if self.last is None:
            return f"newer than {first}"
        return first if self.last == self.first else f"{first} to {'.'.join(map(str, self.last))}"

    @property
    def supported(self) -> bool:
        """Whether its Python runs edgeseg."""
        return version_numbers(self.python) >= (3, 10)


JETPACKS: tuple[JetPack, ...] = (
    JetPack(
        "4.6", (32, 6, 1), (32, 6, 1), "18.04", "3.6", "1.14", "10.2", "8.0",
        "Nano, TX1, TX2, Xavier", "Xavier: cache",
    ),
    JetPack(
        "4.6.1 to 4.6.6", (32, 7, 1), (32, 7, 6), "18.04", "3.6", "1.14", "10.2", "8.2",
        "Nano, TX1, TX2, Xavier", "Xavier: cache",
    ),
    JetPack(
        "5.0.2", (35, 1), (35, 1), "20.04", "3.8", "1.16", "11.4", "8.4",
        "Xavier, AGX Orin", "Xavier, AGX Orin: cache",
    ),
    JetPack(
        "5.1 to 5.1.6", (35, 2, 1), (35, 6, 4), "20.04", "3.8", "1.16", "11.4", "8.5",
        "Xavier, Orin", "Xavier, Orin NX, AGX Orin: cache",
    ),
    JetPack(
        "6.0", (36, 2), (36, 3), "22.04", "3.10", "1.20", "12.2", "8.6", "Orin", "Orin NX, AGX Orin: cache",
    ),
    JetPack(
        "6.1", (36, 4), (36, 4), "22.04", "3.10", "1.20", "12.6", "10.3", "Orin", "Orin NX, AGX Orin: cache",
    ),
    JetPack(
        "6.2 to 6.2.2", (36, 4, 3), (36, 5), "22.04", "3.10", "1.20", "12.6", "10.3", "Orin",
        "Orin NX, AGX Orin: cache",
    ),
    JetPack("7.0", (38, 2), (38, 2), "24.04", "3.12", "1.24", "13.0", "10.13", "Thor", "none"),
    JetPack("7.1", (38, 4), (38, 4), "24.04", "3.12", "1.24", "13.0", "10.13", "Thor", "none"),
    JetPack("7.2 to 7.2.1", (39, 0), (39, 2), "24.04", "3.12", "1.24", "13.2", "10.16", "Orin, Thor", "none"),
    JetPack(
        "7.2.2", (39, 2), None, "24.04", "3.12", "1.24", "13.2", "10.16", "Orin, Thor",
        "AGX Orin: Q/DQ, once TensorRT 11.4.1 is installed",
    ),
)  # fmt: skip
"""Releases, oldest first."""


@dataclass(frozen=True)
class BoardKind:
    """A kind of Jetson.

    Attributes:
        name: for people.
        pattern: found in the device tree's model, ignoring case; kinds are tried in order.
        compute_capability: of its GPU.
        int8: whether TensorRT runs INT8 on its GPU.
        dla_cores: deep learning accelerators of its largest module.
        note: what else to know.
    """

    name: str
    pattern: str
    compute_capability: tuple[int, int]
    int8: bool
    dla_cores: int
    note: str = ""


BOARDS: tuple[BoardKind, ...] = (
    BoardKind("Thor", r"thor|t[45]000", (11, 0), True, 0, "10.1 in CUDA 12.8"),
    BoardKind("Orin Nano", r"orin nano", (8, 7), True, 0),
    BoardKind("Orin NX", r"orin nx", (8, 7), True, 2, "one core with 8 GB, two with 16 GB"),
    BoardKind("AGX Orin", r"orin", (8, 7), True, 2),
    BoardKind("Xavier", r"xavier", (7, 2), True, 2, "NX and AGX"),
    BoardKind("TX2", r"tx2", (6, 2), False, 0, "FP16 only"),
    BoardKind("Nano, TX1", r"nano|tx1", (5, 3), False, 0, "FP16 only"),
)
"""Kinds of boards, newest first."""


def version_numbers(text: str) -> Numbers:
    """Leading numbers of a version: (10, 3, 0) of "10.3.0+cuda12"; empty for text without any."""
    found = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(int(part) for part in found.group().split(".")) if found else ()


def find_jetpack(l4t: str) -> JetPack | None:
    """The JetPack of a release of Jetson Linux, such as "36.4.3"; None for one that the matrix does not hold."""
    release = version_numbers(l4t)
    for jetpack in reversed(JETPACKS):
        # A release without a third number holds for all of its revisions: 36.4.0 is 36.4.
        first, last = jetpack.first, jetpack.last
        if last is None:
            if release[: len(first)] > first and release[0] == first[0]:
                return jetpack
        elif first <= release and release[: len(last)] <= last:
            return jetpack
    return None


def find_board(model: str) -> BoardKind | None:
    """The kind of a board by its device tree's model, such as "NVIDIA Jetson Orin Nano Developer Kit"."""
    return next((kind for kind in BOARDS if re.search(kind.pattern, model, re.IGNORECASE)), None)


def dla_source(tensorrt: Numbers) -> Literal["cache", "qdq"] | None:
    """What a TensorRT version takes INT8 ranges from on a deep learning accelerator of a Jetson.

    Args:
        tensorrt: (10, 3) or longer; (11, 4) alone is taken as 11.4.1 or newer.

    Returns:
        "cache": a calibration cache, for a graph without Q/DQ (up to 10.7); "qdq": a strongly typed Q/DQ graph (from
        11.4.1, on AGX Orin only); None where it drives no accelerator at all.
    """
    if tensorrt < (10, 8):
        return "cache"
    return "qdq" if tensorrt == (11, 4) or tensorrt >= (11, 4, 1) else None


_CUDA_BINDINGS = {12: "cuda-bindings>=12.6,<13", 13: "cuda-bindings>=13.0,<14"}


def cuda_bindings(cuda: str) -> str | None:
    """The requirement on cuda-bindings that fits a CUDA version; None where there are none for it."""
    return _CUDA_BINDINGS.get(next(iter(version_numbers(cuda)), 0))
