"""What the programs of the peers share: arguments, prepared inputs, time. Needs numpy and onnx, nothing of edgeseg.

    .venvs/PEER/bin/python with_PEER.py MODEL.onnx INPUTS SETTING OUTPUT

MODEL.onnx is a float network with one input (1, 3, H, W) float32, INPUTS a folder of such arrays as NAME.npy. Prints
one JSON object: the seconds of the conversion, without imports, and the versions of the packages.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

__all__ = ["Job", "Setting", "run_peer"]


@dataclass(frozen=True)
class Job:
    """One conversion.

    Attributes:
        model: the float network.
        input_name: its input.
        files: the prepared inputs, (1, 3, H, W) float32 each.
        output: where the quantized network goes.
    """

    model: Path
    input_name: str
    files: tuple[Path, ...]
    output: Path

    def read(self, file: Path) -> dict[str, NDArray[Any]]:
        """One input, by the network's name for it."""
        return {self.input_name: np.load(file)}

    def inputs(self) -> Iterator[dict[str, NDArray[Any]]]:
        """All inputs, each read when it is asked for."""
        return map(self.read, self.files)


Setting = Callable[[Job], None]
"""Does one conversion."""


def run_peer(settings: Mapping[str, Setting], packages: Sequence[str]) -> None:
    """Read the arguments, convert, print what it took.

    Args:
        settings: what the peer can be asked for, by name.
        packages: whose versions are printed.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("inputs", type=Path)
    parser.add_argument("setting", choices=sorted(settings))
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    files = tuple(sorted(arguments.inputs.glob("*.npy")))
    if not files:
        parser.error(f"expected arrays NAME.npy in {arguments.inputs}, but there are none")
    input_name = onnx.load(arguments.model, load_external_data=False).graph.input[0].name
    job = Job(arguments.model, input_name, files, arguments.output)
    start = time.perf_counter()
    settings[arguments.setting](job)
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": round(seconds, 3), "versions": {name: version(name) for name in packages}}))
