"""The command `edgeseg`: one module a subcommand, results on stdout, everything else on stderr.

Exit codes: 0 good, 1 a failed check or a known error (one line on stderr), 2 usage, 130 interrupted. An exception
outside `edgeseg.errors` is a bug: it keeps its traceback and ends with 1.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from edgeseg._version import __version__
from edgeseg.errors import EdgesegError
from edgeseg.libraries import missing_dependency

__all__ = ["COMMANDS", "build_parser", "main"]

COMMANDS: dict[str, tuple[str, str]] = {
    "train": ("edgeseg.apps.cli.train", "train a network on labelled frames, with or without super-resolution"),
    "convert": (
        "edgeseg.apps.cli.convert",
        "turn a float ONNX network into an INT8 bundle, with proof of its accuracy",
    ),
    "models": ("edgeseg.apps.cli.models", "list the networks that can be built by name, with what they cost"),
    "export": ("edgeseg.apps.cli.export", "write a network or a checkpoint as the ONNX file that convert takes"),
    "build": ("edgeseg.apps.cli.build", "build a bundle's engine for TensorRT or TensorRT-RTX, proven to be INT8"),
    "evaluate": ("edgeseg.apps.cli.evaluate", "score a bundle or a float ONNX network against labels"),
    "compare": (
        "edgeseg.apps.cli.compare",
        "show where two networks differ: class maps, scores, logits and layers",
    ),
    "sensitivity": ("edgeseg.apps.cli.sensitivity", "show which layers INT8 harms, each alone and each spared"),
    "run": ("edgeseg.apps.cli.run", "segment images or a video and write overlays or class maps"),
    "baseline": ("edgeseg.apps.cli.baseline", "segment images without a network: Otsu's threshold, or a quadtree"),
    "bag": ("edgeseg.apps.cli.bag", "segment the images of a ROS 2 recording and write their masks as one"),
    "camera": ("edgeseg.apps.cli.camera", "segment cameras live: to a screen, a page, recordings, RTSP, or robots"),
    "launch": ("edgeseg.apps.cli.launch", "play a GStreamer pipeline in which the element edgeseg is known"),
    "scenes": (
        "edgeseg.apps.cli.scenes",
        "write rendered street scenes with exact labels: a test card, never real data",
    ),
    "bench": ("edgeseg.apps.cli.bench", "measure latency and throughput by stage, against the bare engine"),
    "emit": (
        "edgeseg.apps.cli.emit",
        "write what trtexec, DeepStream, Triton or jetson-inference read: graph, configuration, commands",
    ),
    "lint": ("edgeseg.apps.cli.lint", "check a graph or bundle for what TensorRT refuses or silently runs in float"),
    "info": ("edgeseg.apps.cli.info", "show what a bundle or an ONNX network is"),
    "doctor": ("edgeseg.apps.cli.doctor", "show versions, what is missing and the command that installs it"),
}
"""Module and summary by subcommand; a module is imported only when its subcommand is asked for."""

INTERRUPTED = 130


def build_parser(chosen: str | None = None) -> argparse.ArgumentParser:
    """The parser with every subcommand's name, and the options of the chosen one."""
    parser = argparse.ArgumentParser(
        prog="edgeseg",
        description="Turn a trained segmentation network into an INT8 engine whose accuracy is proven, and run it.",
        epilog="Options of a command: edgeseg COMMAND --help",
    )
    parser.add_argument("--version", action="version", version=f"edgeseg {__version__}")
    _add_verbosity(parser, verbose=0, quiet=False)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (module, summary) in COMMANDS.items():
        subparser = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        _add_verbosity(subparser, verbose=argparse.SUPPRESS, quiet=argparse.SUPPRESS)
        if name == chosen:
            import_module(module).add_arguments(subparser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: what follows the program's name; by default `sys.argv[1:]`.

    Returns:
        The exit code. As argparse does, `--help`, `--version` and wrong usage raise SystemExit instead.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    _open_closed_streams()
    try:
        return _run(arguments)
    except EdgesegError as error:
        print(f"edgeseg: error: {_one_line(error)}", file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        missing = missing_dependency(error)
        if missing is None:
            raise
        print(f"edgeseg: error: {missing}", file=sys.stderr)
        return missing.exit_code
    except KeyboardInterrupt:
        print("edgeseg: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone (edgeseg info x | head -1). Python flushes stdout once more at its end and
        # would complain there.
        _drop_stdout()
        return 1
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        # Results in files end with OutputError before this: left are stdout and the libraries' temporary files.
        _drop_stdout()
        where = error.filename or "the result to stdout"
        print(f"edgeseg: error: cannot write {where}: {error.strerror}; free some space", file=sys.stderr)
        return 1


def _run(arguments: list[str]) -> int:
    chosen = next((a for a in arguments if a in COMMANDS), None)
    options = build_parser(chosen).parse_args(arguments)
    from edgeseg.apps.cli.logs import logs_on_stderr

    with logs_on_stderr(options.verbose, options.quiet):
        code = int(import_module(COMMANDS[options.command][0]).run(options))
        sys.stdout.flush()
        return code


def _drop_stdout() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _open_closed_streams() -> None:
    """Give a stream that the caller closed (`>&-`) a place: else the next file opened would take its number."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
            setattr(sys, name, os.fdopen(number, "w", closefd=False))


def _add_verbosity(parser: argparse.ArgumentParser, *, verbose: object, quiet: object) -> None:
    # Both places take these options; the subcommand's default is SUPPRESS, so that it does not reset the first's.
    group = parser.add_mutually_exclusive_group()
    group.add_argument("-v", "--verbose", action="count", default=verbose, help="say more (-vv: everything)")
    group.add_argument("-q", "--quiet", action="store_true", default=quiet, help="no progress, only errors")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
