"""What TensorRT makes of a graph, asked of TensorRT-RTX's parser and builder, which need no GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

__all__ = ["ask_tensorrt"]


def ask_tensorrt(oracle: Path, network: Path) -> tuple[str | None, list[str] | None]:
    """What TensorRT says of a graph, and which quantized layers it leaves in float.

    Args:
        oracle: the program trt_oracle.py, which builds an engine and lists the data types of its layers.
        network: the graph.

    Returns:
        "passes" or what is wrong, None where TensorRT-RTX is not here; names of layers, None where there is no engine.
    """
    if not oracle.is_file():
        return None, None
    if network.suffix == ".xml":
        return "no ONNX file", None
    run = subprocess.run([sys.executable, str(oracle), str(network)], capture_output=True, text=True, check=False)
    if run.returncode == 2:
        return None, None
    report = json.loads(run.stdout)
    if report["parsed"] and report["built"]:
        in_float = [layer["node"] for layer in report["not_int8"]]
        text = f"builds, but {len(in_float)} of {report['expected_int8']} quantized layers run in float"
        return ("passes" if report["ok"] else text), in_float
    reasons = [e["desc"] for e in report.get("parse_errors", [])] + report.get("errors", [])
    reason = next((line for text in [*reasons, report.get("crash", "")] for line in text.splitlines() if line), "")
    return f"refused: {' '.join(reason.split())[:160]}", None
