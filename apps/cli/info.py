"""`edgeseg info`: what a bundle or an ONNX network is."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeseg.apps.cli.results import add_json_argument, only_results_on_stdout, print_json, scores_summary, table
from edgeseg.backends.tensorrt.plans import list_plans
from edgeseg.bundle import Bundle

if TYPE_CHECKING:
    import onnx

    from edgeseg.backends.tensorrt.plans import Plan

__all__ = ["add_arguments", "describe_bundle", "describe_network", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `edgeseg info`."""
    parser.add_argument("path", type=Path, metavar="BUNDLE|FILE.onnx")
    add_json_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Print what the path holds."""
    path: Path = options.path
    with only_results_on_stdout():
        is_network = path.suffix == ".onnx" and not path.is_dir()
        found = describe_network(path) if is_network else describe_bundle(Bundle.open(path))
    if options.json:
        print_json(found)
    else:
        print(_network_text(found) if is_network else _bundle_text(found))
    return 0


def describe_bundle(bundle: Bundle) -> dict[str, Any]:
    """The JSON object of `edgeseg info BUNDLE --json`."""
    manifest = bundle.manifest
    return {
        "kind": "bundle",
        "path": str(bundle.path),
        "network": manifest.network,
        "input": manifest.input,
        "output": manifest.output,
        "classes": list(manifest.labels.names),
        "background": manifest.labels.background,
        "ignore_index": manifest.labels.ignore_index,
        "quantization": {
            "number_format": manifest.quantization.number_format,
            "method": manifest.quantization.method,
            "frames": len(manifest.quantization.frame_names),
            "int8": manifest.quantization.count("int8"),
            "float": manifest.quantization.count("float"),
            "int8_mac_share": manifest.quantization.int8_mac_share,
            "macs": sum(layer.macs for layer in manifest.quantization.layers),
            "float_layers": {x.name: x.reason for x in manifest.quantization.layers if x.precision == "float"},
        },
        "scores": scores_summary(manifest.scores),
        "files": {name: (bundle.path / name).stat().st_size for name in sorted(manifest.files)},
        "engines": [_engine(plan) for plan in list_plans(bundle)],
        "tools": manifest.tools,
        "schema_version": manifest.schema_version,
    }


def _engine(plan: Plan) -> dict[str, Any]:
    build = plan.record.build
    return {
        "plan": str(plan.path),
        "runs_on": plan.record.side,
        "form": plan.record.form,
        "int8": build.int8,
        "batch": [build.batch[0], build.batch[2]],
        "dla_core": build.dla_core,
        "bytes": build.plan_bytes,
        "convolutions": build.convolutions,
    }


def describe_network(path: Path) -> dict[str, Any]:
    """The JSON object of `edgeseg info FILE.onnx --json`; weights in external files are not read.

    Raises:
        ModelError: for a file that is missing or no ONNX network, or whose metadata is malformed.
    """
    from edgeseg.converters.metadata import read_metadata
    from edgeseg.converters.read import read_graph

    model, _ = read_graph(path)
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    operators = Counter(node.op_type for node in graph.node)
    return {
        "kind": "onnx",
        "path": str(path),
        "bytes": path.stat().st_size,
        "opset": {entry.domain or "ai.onnx": entry.version for entry in model.opset_import},
        "producer": f"{model.producer_name} {model.producer_version}".strip(),
        "inputs": [_tensor(value) for value in graph.input if value.name not in constants],
        "outputs": [_tensor(value) for value in graph.output],
        "nodes": len(graph.node),
        "operators": dict(operators.most_common()),
        "parameters": sum(_size(tensor) for tensor in graph.initializer),
        "quantize_nodes": operators["QuantizeLinear"],
        "stated": read_metadata(model, path.name).summary(),
        "metadata": {entry.key: entry.value for entry in model.metadata_props},
    }


def _tensor(value: onnx.ValueInfoProto) -> dict[str, Any]:
    import onnx

    kind = value.type.tensor_type
    shape = [d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in kind.shape.dim]
    return {"name": value.name, "shape": shape, "dtype": onnx.TensorProto.DataType.Name(kind.elem_type).lower()}


def _size(tensor: onnx.TensorProto) -> int:
    count = 1
    for extent in tensor.dims:
        count *= extent
    return count


def _bundle_text(found: dict[str, Any]) -> str:
    network, entry, output = found["network"], found["input"], found["output"]
    quantization, scores = found["quantization"], found["scores"]
    resized = f", upsampled by {output.coordinates}" if output.coordinates else ""
    height, width = output.map_size(entry)
    rows = [
        ("bundle", found["path"]),
        ("network", f"{network.name}, from {network.source} (opset {network.opset}), SHA-256 {network.digest[:16]}..."),
        ("licence", network.licence or "not stated"),
        (
            "input",
            f"{entry.height}x{entry.width} RGB uint8 frame; inside: {entry.color_order}, mean {entry.mean}, "
            f"std {entry.std}",
        ),
        (
            "output",
            f"{output.kind}, {output.channels} channels of {output.height}x{output.width}{resized}; class map "
            f"{height}x{width}",
        ),
        ("classes", ", ".join(found["classes"])),
        *_quantization_rows(quantization),
        ("scores", _scores_text(scores, quantization["number_format"])),
        ("files", ", ".join(f"{name} ({size / 1e6:.2f} MB)" for name, size in found["files"].items())),
        ("made by", ", ".join(f"{name} {version}" for name, version in found["tools"].items())),
    ]
    lines = [table(rows)]
    lines += [f"engine: {_engine_text(engine)}" for engine in found["engines"]]
    if quantization["int8"]:
        lines += [
            f"in float: {name} ({reason or 'no reason given'})" for name, reason in quantization["float_layers"].items()
        ]
    return "\n".join(lines)


def _engine_text(engine: dict[str, Any]) -> str:
    kind = f"{'INT8' if engine['int8'] else 'FP16'} ({engine['form']})"
    batch = "" if engine["batch"][1] == 1 else ", {} to {} frames".format(*engine["batch"])
    dla = "" if engine["dla_core"] is None else f", DLA {engine['dla_core']}"
    return f"{engine['runs_on']}: {kind}{batch}{dla}, {engine['bytes'] / 1e6:.2f} MB, {engine['plan']}"


def _quantization_rows(found: dict[str, Any]) -> list[tuple[str, str]]:
    gmacs, total = found["macs"] / 1e9, found["int8"] + found["float"]
    if found["number_format"] == "FP16":
        return [("layers", f"{total} in FP16 ({gmacs:.2f} GMACs)"), ("ranges", "none: FP16 needs no calibration")]
    share = f"{100 * found['int8_mac_share']:.1f} % of {gmacs:.2f} GMACs"
    return [
        ("layers", f"{found['int8']} of {total} in INT8 ({share})"),
        ("ranges", f"{found['method']} over {found['frames']} frames"),
    ]


def _scores_text(scores: dict[str, Any] | None, number_format: str) -> str:
    if scores is None:
        return "none"
    name = "mIoU" if scores["metric"] == "miou" else "agreement with the float network"
    return (
        f"{name}: float {scores['float']:.2f}, {number_format} {scores['int8']:.2f}, drop {scores['drop']:.2f} "
        f"on {scores['frames']} frames"
    )


def _network_text(found: dict[str, Any]) -> str:
    rows = [("network", f"{found['path']} ({found['bytes'] / 1e6:.2f} MB)")]
    rows.append(("opset", ", ".join(f"{domain} {version}" for domain, version in found["opset"].items())))
    for kind in ("inputs", "outputs"):
        for tensor in found[kind]:
            shape = "x".join(map(str, tensor["shape"]))
            rows.append((kind[:-1], f"{tensor['name']}: {shape} {tensor['dtype']}"))
    common = ", ".join(f"{name} {count}" for name, count in list(found["operators"].items())[:8])
    rows.append(("nodes", f"{found['nodes']}: {common}"))
    rows.append(("parameters", f"{found['parameters']:,}"))
    rows.append(("quantized", f"{found['quantize_nodes']} QuantizeLinear nodes" if found["quantize_nodes"] else "no"))
    rows += [(key.replace("_", " "), value) for key, value in _stated(found["stated"]).items()]
    if found["producer"]:
        rows.append(("made by", found["producer"]))
    return table(rows)


def _stated(stated: dict[str, Any]) -> dict[str, str]:
    """What the network's metadata says, as text by key."""
    texts = {}
    for key, value in stated.items():
        if key == "classes":
            texts[key] = ", ".join(entry["name"] for entry in value["classes"])
        else:
            texts[key] = value if isinstance(value, str) else " ".join(f"{v:g}" for v in value)
    return texts
