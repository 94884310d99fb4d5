"""What TensorRT-RTX makes of the quantized graphs of several tools: layers in INT8, and kernels that only convert.

    python benchmarks/engine_layers.py edgeseg=model.edgeseg/model.onnx onnxruntime=other.onnx ...
    python benchmarks/engine_layers.py --peers benchmarks/peers/.work

Needs no GPU: the ahead-of-time builder, for SM 8.6. With --peers, every graph that `peers/compare_peers.py` left there.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from edgeseg.backends.tensorrt.build import build
from edgeseg.backends.tensorrt.options import BuildOptions
from edgeseg.errors import EdgesegError

COLUMNS = ("graph", "kernels", "conv INT8", "conv float", "deconv", "reformat", "requantize", "build s", "MB")


def row(name: str, graph: Path) -> tuple[str, ...]:
    """Counts of one graph's engine; what TensorRT says where it refuses the graph."""
    try:
        built = build(graph.read_bytes(), BuildOptions(target="rtx-ampere"))
    except EdgesegError as error:
        return (name, f"refused: {' '.join(str(error).split())[:110]}", *[""] * (len(COLUMNS) - 2))
    roles = Counter(layer.role for layer in built.layers)
    int8 = sum(layer.role == "convolution" and layer.precision == "int8" for layer in built.layers)
    record = built.record
    numbers = (
        len(built.layers), int8, roles["convolution"] - int8, roles["deconvolution"], roles["reformat"],
        roles["requantize"],
    )  # fmt: skip
    return (name, *map(str, numbers), f"{record.seconds:.1f}", f"{record.peak_memory_mb:.0f}")


def graphs_of_peers(folder: Path) -> list[tuple[str, Path]]:
    """(network and tool, graph) in the order of the networks."""
    found = []
    for network in sorted(path for path in folder.iterdir() if path.is_dir()):
        for tool in sorted(path for path in network.iterdir() if path.is_dir()):
            graphs = [tool / "network.edgeseg" / "model.onnx", tool / "network.onnx"]
            found += [(f"{network.name} {tool.name}", graph) for graph in graphs if graph.is_file()]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("graphs", nargs="*", metavar="NAME=FILE.onnx")
    parser.add_argument("--peers", type=Path, metavar="DIR")
    arguments = parser.parse_args()
    graphs = [(name, Path(path)) for name, _, path in (text.partition("=") for text in arguments.graphs)]
    if arguments.peers is not None:
        graphs += graphs_of_peers(arguments.peers)
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for name, path in graphs:
        print(f"| {' | '.join(row(name, path))} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
