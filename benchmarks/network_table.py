"""The section "Beside each other" of docs/networks.md and its chart, from cards, published scores and measured costs.

python benchmarks/network_table.py            # prints the section
python benchmarks/network_table.py --write    # puts it and the chart into docs/
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from made_section import add_section_arguments, publish_section

from edgeseg.apps.comparison import (
    COLUMNS,
    NUMBERS,
    ComparedNetwork,
    compare,
    comparison_rows,
    measured_on,
    published_rows,
)
from edgeseg.apps.comparison_chart import accuracy_chart
from edgeseg.models.costs import MeasuredCosts, read_costs

__all__ = ["CHART", "PAGE", "section"]

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE = DOCS / "networks.md"
CHART = DOCS / "images" / "networks.svg"
HEADING = "## Beside each other"

COLUMNS_TEXT = """\
* *parameters*, *card's GMACs*: of the network as published, exact, with the classes of its card (19 where it has them);
  10^9 multiply-accumulates of convolutions and linear layers.
* *GMACs here*: the same count with 19 classes.
* *INT8*: share of the converted graph's multiply-accumulates that are in INT8; what is left are transposed convolutions
  and products of matrices, those of attention and of pooling.
* *FP32 ms*, *INT8 ms*: one frame in OpenVINO, medians; *faster*: the median of their ratio, taken in turns.
* *TensorRT*: of the convolutions that Q/DQ asks to run in INT8, those that do in the engine that TensorRT-RTX builds.
* *published mIoU*: the first of those [below](#scores-and-their-sources); *mIoU here*: float and INT8, by edgeseg."""


def section(compared: Sequence[ComparedNetwork], costs: MeasuredCosts) -> str:
    """The whole section in Markdown."""
    parts = [
        HEADING,
        measured_on(costs),
        "![Mean IoU against multiply-accumulates, by data set](images/networks.svg)",
        COLUMNS_TEXT,
        _table(COLUMNS, comparison_rows(compared), NUMBERS),
        _building(compared, costs),
        "### Scores and their sources",
        "Scores of different data sets, sizes and recipes do not compare.",
        _table(("network", "mIoU", "data", "source", "note"), published_rows(compared), (1,)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _building(compared: Sequence[ComparedNetwork], costs: MeasuredCosts) -> str:
    """What export and conversion take at full width."""
    rows, setups = [], costs.setups
    for each in compared:
        cost = each.measured
        if cost is None or not (cost.layers or cost.problem):
            continue
        seconds = [_seconds(cost.cpu_seconds.get(step)) for step in ("export", "convert", "builder")]
        peak = "-" if cost.peak_mb is None else f"{cost.peak_mb / 1000:.1f}"
        clean = "-" if cost.findings is None else str(cost.findings)
        deployed = "-" if cost.graph_gmacs is None else f"{cost.graph_gmacs:.4f}"
        place = f"[{setups.index(cost.setup) + 1}]" if cost.setup else "-"
        rows.append((each.label, deployed, *seconds, peak, clean, place, cost.problem))
    if not rows:
        return ""
    columns = (
        "network",
        "GMACs deployed",
        "export s",
        "convert s",
        "builder s",
        "memory GB",
        "lint",
        "on",
        "problem",
    )
    text = (
        "From torch to the plan, by `python benchmarks/network_costs.py build`, with two calibration frames and the "
        "default recipe. *GMACs deployed*: of the graph with `--deploy`, products of matrices included; *s*: processor "
        "seconds; *memory*: the most of all processes together; *lint*: findings; *on*: the machine, above. What "
        "weights that learnt nothing agree on in INT8 says nothing of a trained network, and is left out."
    )
    return f"### At full width\n\n{text}\n\n{_table(columns, rows, (1, 2, 3, 4, 5, 6))}"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int]) -> str:
    rule = "".join("|---:" if i in numbers else "|---" for i in range(len(columns))) + "|"
    lines = [f"| {' | '.join(columns)} |", rule]
    lines += [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_section_arguments(parser)
    arguments = parser.parse_args()
    costs = read_costs()
    compared = compare(costs)
    pictures = {CHART: accuracy_chart(compared) + "\n"}
    stale = "is not what is known; run network_table.py --write"
    return publish_section(arguments, PAGE, section(compared, costs), pictures, stale)


if __name__ == "__main__":
    sys.exit(main())
