"""The section "Beside each other" of docs/networks.md and its chart, from cards, published scores and measured costs.

python benchmarks/network_table.py            # prints the section
python benchmarks/network_table.py --write    # puts it and the chart into docs/
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

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

__all__ = ["CHART", "PAGE", "section", "section_of"]

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
        _building(compared),
        "### Scores and their sources",
        "Scores of different data sets, sizes and recipes do not compare.",
        _table(("network", "mIoU", "data", "source", "note"), published_rows(compared), (1,)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _building(compared: Sequence[ComparedNetwork]) -> str:
    """What export and conversion take at full width."""
    rows = []
    for each in compared:
        cost = each.measured
        if cost is None or not (cost.layers or cost.problem):
            continue
        seconds = [_seconds(cost.cpu_seconds.get(step)) for step in ("export", "convert", "builder")]
        peak = "-" if cost.peak_mb is None else f"{cost.peak_mb / 1000:.1f}"
        clean = "-" if cost.findings is None else str(cost.findings)
        deployed = "-" if cost.graph_gmacs is None else f"{cost.graph_gmacs:.4f}"
        rows.append((each.label, deployed, *seconds, peak, clean, cost.problem))
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
        "problem",
    )
    text = (
        "From torch to the plan, by `python benchmarks/network_costs.py build`, with two calibration frames and the "
        "default recipe. *GMACs deployed*: of the graph with `--deploy`, products of matrices included; *s*: processor "
        "seconds; *memory*: the most of all processes together; *lint*: findings. What weights that learnt nothing "
        "agree on in INT8 says nothing of a trained network, and is left out."
    )
    return f"### At full width\n\n{text}\n\n{_table(columns, rows, (1, 2, 3, 4, 5, 6))}"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int]) -> str:
    rule = "".join("|---:" if i in numbers else "|---" for i in range(len(columns))) + "|"
    lines = [f"| {' | '.join(columns)} |", rule]
    lines += [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows]
    return "\n".join(lines)


def section_of(page: str) -> tuple[str, str, str]:
    """A page's text before the section, the section (empty where there is none), and the text behind it."""
    before, heading, rest = page.partition(f"{HEADING}\n")
    if not heading:
        return before.rstrip("\n") + "\n\n", "", ""
    text, following, after = rest.partition("\n## ")
    return before, heading + text, following + after


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="replace the section in docs/networks.md and the chart")
    parser.add_argument("--check", action="store_true", help="only say whether docs/ hold what is known")
    arguments = parser.parse_args()
    costs = read_costs()
    compared = compare(costs)
    text = section(compared, costs)
    before, _, after = section_of(PAGE.read_text("utf-8"))
    files = {PAGE: before + text + after, CHART: accuracy_chart(compared) + "\n"}
    if arguments.check:
        stale = [str(file) for file, new in files.items() if not file.is_file() or file.read_text("utf-8") != new]
        print(
            "\n".join(f"{file} is not what is known; run network_table.py --write" for file in stale), file=sys.stderr
        )
        return 1 if stale else 0
    if not arguments.write:
        print(text, end="")
        return 0
    for file, new in files.items():
        file.write_text(new, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
