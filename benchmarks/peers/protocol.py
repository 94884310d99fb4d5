"""Which networks, tools and settings are compared, and how each tool is started."""

from __future__ import annotations

import fnmatch
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from results import EDGESEG

from edgeseg.converters.options import ConvertOptions
from edgeseg.zoo import shipped_path

# The protocol of the other benchmarks, one folder up.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from networks import NETWORKS, BenchmarkNetwork

__all__ = ["OURS", "PEER_NETWORKS", "SETTINGS", "Tool", "edgeseg_command", "model_file", "peer_command", "tools_of"]

_HERE = Path(__file__).resolve().parent

SHIPPED = "dabnet-dsrl-camvid"

PEER_NETWORKS: dict[str, BenchmarkNetwork] = {
    **NETWORKS,
    SHIPPED: BenchmarkNetwork(f"{SHIPPED}.onnx", ConvertOptions(), 1),
}

SETTINGS = {
    EDGESEG: ("default", "one-scored-frame"),
    "nncf": ("performance-onnx", "performance-openvino", "mixed-onnx", "mixed-openvino"),
    "onnxruntime": (
        "minmax-s8s8-convolutions",
        "minmax-s8s8",
        "minmax-u8s8",
        "percentile-s8s8",
        "entropy-s8s8",
        "moving-average-s8s8-convolutions",
        "moving-average-u8s8-convolutions",
        "percentile-s8s8-convolutions",
        "percentile-u8s8",
        "entropy-u8s8",
    ),
    "modelopt": ("entropy", "max"),
}
"""Settings by tool, in the order of measurement; edgeseg comes first, since the others are compared with it.

The second setting of edgeseg makes the same network and scores it on one frame alone: what converting costs in
processor time without the proof, which no peer gives.
"""


@dataclass(frozen=True)
class Tool:
    """A tool and one of its settings."""

    name: str
    setting: str

    @property
    def label(self) -> str:
        """Both in one word."""
        return f"{self.name}-{self.setting}"

    def artefact(self, folder: Path) -> Path:
        """Where its network goes."""
        if self.name == EDGESEG:
            return folder / "network.edgeseg"
        return folder / ("network.xml" if self.setting.endswith("openvino") else "network.onnx")


OURS = Tool(EDGESEG, "default")
"""What every peer is compared with."""


def tools_of(patterns: Sequence[str]) -> list[Tool]:
    """Tools and settings whose label fits one of the patterns (*, ?); all without patterns. OURS is always there."""
    tools = [Tool(name, setting) for name, settings in SETTINGS.items() for setting in settings]
    return [t for t in tools if t == OURS or any(fnmatch.fnmatch(t.label, p) for p in patterns or ("*",))]


def model_file(name: str, shared: Path) -> Path:
    """The float network of a name of PEER_NETWORKS."""
    return shipped_path(name) if name == SHIPPED else shared / "models" / PEER_NETWORKS[name].file


def peer_command(tool: Tool, environments: Path, model: Path, inputs: Path, output: Path) -> list[str]:
    """The program of a peer in its own environment."""
    program = _HERE / f"with_{tool.name}.py"
    python = environments / tool.name / "bin" / "python"
    return [str(python), str(program), str(model), str(inputs), tool.setting, str(output)]


def edgeseg_command(model: Path, frames: Path, options: ConvertOptions, bundle: Path) -> list[str]:
    """`edgeseg convert` with the options that a user of this network gives."""
    command = [sys.executable, "-m", "edgeseg", "convert", str(model), "--frames", str(frames)]
    command += ["--count", str(options.count), "--score-frames", str(options.score_frames)]
    command += ["--labels", str(options.labels), "-o", str(bundle), "--force", "--json", "--quiet"]
    if options.mean is not None and options.std is not None:
        command += ["--mean", *map(str, options.mean), "--std", *map(str, options.std)]
    named = {"--color": options.color_order, "--classes": options.classes, "--map": options.mapping}
    return command + [word for key, value in named.items() if value for word in (key, value)]
