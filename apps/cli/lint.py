"""`edgeseg lint`: what TensorRT would refuse or silently run in float, found in a graph without a GPU."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeseg.apps.cli.results import add_json_argument, only_results_on_stdout, print_json
from edgeseg.bundle import MODEL, Bundle
from edgeseg.errors import ModelError

if TYPE_CHECKING:
    import onnx

    from edgeseg.converters.lint import Finding

__all__ = ["add_arguments", "read_network", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `edgeseg lint`."""
    parser.add_argument("path", type=Path, metavar="FILE.onnx|BUNDLE")
    parser.add_argument(
        "--profile",
        default="canonical",
        metavar="NAME",
        help="what the graph must suit: canonical (TensorRT 8.5 to 11, the default), tensorrt-10 (10 to 11), "
        "strongly-typed, no-quantizers or jetpack-4",
    )
    parser.add_argument(
        "--advice", action="store_true", help="also show what costs speed; this does not change the exit code"
    )
    add_json_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Print the findings; 1 when there is any."""
    with only_results_on_stdout():
        model = read_network(options.path)
        from edgeseg.converters.lint import advise, lint

        findings = lint(model, options.profile)
        advice = advise(model, options.profile) if options.advice else None
    if options.json:
        found: dict[str, Any] = {"findings": [asdict(f) for f in findings]}
        if advice is not None:
            found["advice"] = [asdict(f) for f in advice]
        print_json(found)
    else:
        print("\n".join(map(_text, findings)) or "no findings")
        if advice is not None:
            print("\n".join(f"advice {_text(f)}" for f in advice) or "no advice")
    return 1 if findings else 0


def read_network(path: Path) -> onnx.ModelProto:
    """The graph of an ONNX file or of a bundle, with all its weights.

    Raises:
        ModelError: for a file that is missing or no ONNX network, or whose external data is missing.
        BundleError: for a folder that is no bundle, or a broken one.
    """
    import onnx

    from edgeseg.converters.read import read_graph

    file = Bundle.open(path).path / MODEL if path.is_dir() else path
    model, _ = read_graph(file)
    try:
        onnx.load_external_data_for_model(model, str(file.parent))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise ModelError(
            f"{path} keeps weights in another file that cannot be read ({error}); copy that file beside it"
        ) from error
    return model


def _text(finding: Finding) -> str:
    return f"{finding.code} {finding.node}: {finding.message}\n    cure: {finding.cure}"
