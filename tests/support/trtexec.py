"""What the trtexec of each TensorRT version takes, and the commands that edgeseg writes for it.

Options: samples/common/sampleOptions.cpp of NVIDIA/TensorRT, release 8.6 and 10; NVIDIA's page "Migrating trtexec Usage
from TensorRT 10.x to 11.x" lists what 11 removed.
"""

from __future__ import annotations

import re
import shlex

PRECISION = {"--int8", "--fp16", "--calib", "--precisionConstraints", "--layerPrecisions"}
"""Gone in TensorRT 11, and refused or ignored by a strongly typed build."""

ALL = {
    "--onnx", "--saveEngine", "--skipInference", "--profilingVerbosity", "--exportLayerInfo", "--useDLACore",
    "--allowGPUFallback", "--memPoolSize",
}  # fmt: skip
"""In the source of 8.6 and 10. Of these NVIDIA's pages on TensorRT 11 name --onnx, --saveEngine, --useDLACore and
--allowGPUFallback; that the others stayed follows from their not being listed as removed."""


def known(version: tuple[int, int]) -> set[str]:
    """Options of that version's trtexec that a build may use."""
    if version >= (11, 0):
        return ALL
    return ALL | PRECISION | ({"--stronglyTyped"} if version >= (10, 0) else set())


def options_of(script: str) -> dict[str, str]:
    """Value by option of the call in a build script; "" for an option without one."""
    call = re.search(r'^exec "\$\{TRTEXEC:-\S+\}"(.*)', script.replace("\\\n", " "), re.MULTILINE)
    assert call is not None, script
    words = [word for word in shlex.split(call.group(1)) if word != "$@"]
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def layer_precisions(value: str) -> dict[str, str]:
    """As trtexec splits --layerPrecisions: at commas, then at the colon."""
    pairs = [pair.split(":") for pair in value.split(",")]
    assert all(len(pair) == 2 for pair in pairs), value
    return dict(pairs)
