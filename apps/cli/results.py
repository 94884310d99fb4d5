"""Results on stdout: plain text for a person, or one JSON object for a program, and nothing else."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeseg.manifest import Scores

__all__ = ["add_json_argument", "only_results_on_stdout", "print_json", "scores_summary", "spread", "table"]


def add_json_argument(parser: argparse.ArgumentParser) -> None:
    """The option --json."""
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout instead of text")


@contextlib.contextmanager
def only_results_on_stdout() -> Iterator[None]:
    """Send what libraries print meanwhile, from Python or from C++, to stderr; the result is printed afterwards."""
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)


def print_json(value: dict[str, Any]) -> None:
    """Print one JSON object; numbers that JSON does not know (NaN, infinity) become null."""
    print(json.dumps(_plain(value), indent=2, allow_nan=False))


def scores_summary(scores: Scores | None) -> dict[str, Any] | None:
    """Accuracy before and after, in points of 0..100, as `convert` and `info` print it; None where not measured."""
    if scores is None:
        return None
    return {
        "metric": scores.metric,
        "float": scores.float_score,
        "int8": scores.int8_score,
        "drop": scores.drop,
        "drop_interval": scores.drop_interval,
        "frames": len(scores.frame_names),
    }


def spread(interval: tuple[float, float] | None) -> str:
    """An interval in points as text prints it behind its figure; empty where there is none."""
    return "" if interval is None else f" (95 %: {interval[0]:.2f} to {interval[1]:.2f})"


def table(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Text columns, two spaces apart.

    Args:
        rows: cells; a row may be shorter than the others.
        right: columns to align right.
    """
    count = max(len(row) for row in rows)
    widths = [max((len(row[i]) for row in rows if i < len(row)), default=0) for i in range(count)]
    lines = []
    for row in rows:
        cells = [c.rjust(widths[i]) if i in right else c.ljust(widths[i]) for i, c in enumerate(row)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
