"""The section "Beside the peers" of docs/benchmarks.md and its charts, made from results/*.json and nothing else.

python benchmarks/peers/table.py            # prints the section
python benchmarks/peers/table.py --write    # puts it and the charts into docs/
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from charts import Bar, Panel, bar_chart
from results import EDGESEG, RESULTS, Results, Row, read_results
from verdicts import accuracy_verdict, ahead_verdict, cost_verdicts, is_noise

sys.path.append(str(Path(__file__).resolve().parent.parent))

from made_section import add_section_arguments, publish_section

__all__ = ["PAGE", "charts", "read_all", "section"]

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"
PAGE = DOCS / "benchmarks.md"
HEADING = "## Beside the peers"
NETWORKS = {
    "espnet": "ESPNet",
    "espnetv2-s0.5": "ESPNetv2 s=0.5",
    "espnetv2-s2.0": "ESPNetv2 s=2.0",
    "dabnet-dsrl-camvid": "dabnet-dsrl-camvid (ships with edgeseg)",
}
TOOLS = {"onnxruntime": "ONNX Runtime", "nncf": "NNCF", "modelopt": "ModelOpt"}

INTRODUCTION = """\
`benchmarks/peers/setup.sh` installs the peers, each in an environment of its own;
`python benchmarks/peers/compare_peers.py` measures, and `python benchmarks/peers/table.py --write` makes this section
from `benchmarks/peers/results/*.json`, which hold every figure.

Every tool gets the same float network, the same calibration frames prepared in the same way, and a process of its own.
All results run in ONNX Runtime (networks of OpenVINO in OpenVINO, with FP32 outside INT8; a graph whose INT8 kernels
ONNX Runtime cannot load, with Q and DQ computed one by one) and are scored by the scorer of `edgeseg convert`. edgeseg
runs as a user starts it, with no options but those that say what the network expects.
The peers have settings that they document: ONNX Runtime its pre-processing, weights per channel, symmetric signed
activations (`s8s8`) or asymmetric unsigned ones (`u8s8`), and no INT32 biases, which TensorRT does not take; NNCF its
presets with bias correction; ModelOpt FP32 for the rest, calibrating on a CPU. edgeseg's `one-scored-frame` makes the
same network and scores it on one frame alone, which shows the time without the proof.

* *edgeseg is higher by*: the difference of the scores with its 95 % interval, by bootstrap over the frames; where that
  holds 0, the difference is noise.
* *INT8*: convolutions whose data and weights are quantized, and their share of all convolutions' multiply-accumulates,
  in the tool's own graph.
* *symmetric*: all zero points are 0, as TensorRT needs it.
* *TensorRT*: `passes` where TensorRT-RTX parses and builds the graph and runs in INT8 all that is quantized; and the
  share of the multiply-accumulates that run in INT8 in its engine.
* *seconds*: the conversion alone, without imports, and for edgeseg without its parity check and its scores, which no
  peer computes, but with its report; in parentheses processor seconds of the whole process, with all of that.
* *memory*: the largest of the whole process and its children, looked at 20 times a second."""


def read_all(folder: Path = RESULTS) -> list[Results]:
    """All results, in the order of NETWORKS and with few frames first."""
    found = [read_results(file) for file in folder.glob("*.json")]
    return sorted(found, key=lambda r: (list(NETWORKS).index(r.network), r.frames))


def section(results: Sequence[Results]) -> str:
    """The whole section in Markdown."""
    parts = [HEADING, INTRODUCTION, _measured_on(results), _verdicts(results), _pictures(results)]
    for each in results:
        parts.append(f"### {_title(each)}")
        parts.append(f"Float: {each.float_miou:.2f} mIoU on {each.scored} frames.")
        parts.append("\n".join(_table(each)))
        parts.append(_reasons(each))
    return "\n\n".join(part for part in parts if part) + "\n"


def _title(results: Results) -> str:
    return f"{NETWORKS[results.network]}, {results.frames} frames"


def _measured_on(results: Sequence[Results]) -> str:
    machines = "; ".join(sorted({f"{r.machine} (limits of a conversion: {r.limits})" for r in results}))
    versions = {f"{name} {version}" for each in results for row in each.rows for name, version in row.versions.items()}
    return (
        f"Machine: {machines}, shared with other work, so that seconds move by half and more. Versions "
        f"in the tools' environments: {', '.join(sorted(versions - {'machine x86_64'}))}."
    )


def _verdicts(results: Sequence[Results]) -> str:
    lines = []
    for each in results:
        found = accuracy_verdict(each)
        if found:
            lines.append(f"* {_title(each)}: {found} {ahead_verdict(each)}")
    for each in results:
        if each.frames >= 256:
            lines += [f"* {_title(each)}. {verdict}" for verdict in cost_verdicts(each)]
    return "\n".join(lines)


def _pictures(results: Sequence[Results]) -> str:
    texts = {
        "accuracy": "What INT8 takes from the mIoU, by tool and setting",
        "cost": "Time and memory by tool and setting",
    }
    return "\n\n".join(f"![{texts[name]}](images/peers-{name}.svg)" for name in charts(results))


def _ordered(rows: Sequence[Row]) -> list[Row]:
    """edgeseg, then symmetric results, then others, then those without a result; the best first."""
    return sorted(rows, key=lambda r: (r.tool != EDGESEG, bool(r.problem), not r.symmetric, -(r.miou or 0), r.setting))


def _name(row: Row) -> str:
    return f"**edgeseg** {row.setting}" if row.tool == EDGESEG else f"{TOOLS[row.tool]} {row.setting}"


def _table(results: Results) -> list[str]:
    columns = ("tool, setting", "mIoU", "edgeseg is higher by", "agreement with float, %", "INT8", "symmetric")
    columns += ("TensorRT", "seconds (CPU)", "memory, MB", "file, MB")
    rows = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    return rows + [f"| {' | '.join(_cells(row))} |" for row in _ordered(results.rows)]


def _cells(row: Row) -> list[str]:
    cost = [f"- ({row.cpu_seconds:.0f})" if row.seconds is None else f"{row.seconds:.1f} ({row.cpu_seconds:.0f})"]
    cost.append(f"{row.peak_mb:.0f}")
    if row.problem:
        return [_name(row), row.problem.replace("|", "/"), *["-"] * 5, *cost, "-"]
    return [
        _name(row),
        f"{row.miou:.2f}",
        _difference(row),
        f"{row.agreement:.2f}",
        f"{row.int8} of {row.convolutions}, {_percent(row.int8_mac_share)}",
        "yes" if row.symmetric else "no",
        _tensorrt(row),
        *cost,
        f"{row.megabytes:.2f}",
    ]


def _difference(row: Row) -> str:
    if row.behind is None or row.behind_interval is None:
        return "-"
    low, high = row.behind_interval
    return f"{row.behind:.2f} ({low:.2f} to {high:.2f}){', noise' if is_noise(row) else ''}"


def _tensorrt(row: Row) -> str:
    said = row.tensorrt or "not asked"
    if said.startswith("refused"):
        return "refused"
    said = said.replace("builds, but ", "").replace(" quantized layers run", "")
    return said if row.tensorrt_mac_share is None else f"{said}, {_percent(row.tensorrt_mac_share)}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _reasons(results: Results) -> str:
    reasons = sorted({row.tensorrt for row in results.rows if (row.tensorrt or "").startswith("refused: ")} - {None})
    return "\n".join(f"TensorRT says of refused ones: `{str(reason).removeprefix('refused: ')}`" for reason in reasons)


def charts(results: Sequence[Results]) -> dict[str, str]:
    """SVG pictures by name: what INT8 costs, and what converting costs."""
    few = [r for r in results if r.frames < 256 and r.rows]
    many = [r for r in results if r.frames >= 256 and r.rows]
    found = {}
    if few:
        note = "points of mIoU below float, with 95 % interval; longer bars are cut; pale: asymmetric, not for TensorRT"
        panels = []
        for each in few:
            rows = [row for row in _ordered(each.rows) if row.setting != "one-scored-frame"]  # the same network again
            panels.append(Panel(_title(each), [_drop_bar(row) for row in rows], 5))
        found["accuracy"] = bar_chart(panels, note)
    if many:
        panels = []
        for each in many:
            rows = _ordered(each.rows)
            panels.append(Panel(f"{_title(each)}: seconds", [_seconds_bar(row) for row in rows], 120))
            panels.append(Panel(f"{_title(each)}: memory, MB", [_memory_bar(row) for row in rows], 4000))
        found["cost"] = bar_chart(panels, "seconds of the conversion alone; longer bars are cut")
    return found


def _label(row: Row) -> str:
    return f"{TOOLS.get(row.tool, row.tool)} {row.setting}"


def _drop_bar(row: Row) -> Bar:
    text = row.problem[:40] if row.drop is None else f"{row.drop:.2f}"
    return Bar(row.tool, _label(row), row.drop, text, row.drop_interval, pale=row.symmetric is False)


def _seconds_bar(row: Row) -> Bar:
    text = row.problem[:40] if row.seconds is None else f"{row.seconds:.1f}"
    return Bar(row.tool, _label(row), row.seconds, text, pale=row.symmetric is False)


def _memory_bar(row: Row) -> Bar:
    return Bar(row.tool, _label(row), row.peak_mb, f"{row.peak_mb:.0f}", pale=row.symmetric is False)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_section_arguments(parser)
    arguments = parser.parse_args()
    results = read_all()
    if not results:
        parser.error(f"expected results in {RESULTS}, but there are none; run compare_peers.py first")
    pictures = {DOCS / "images" / f"peers-{name}.svg": picture for name, picture in charts(results).items()}
    stale = "is not what was measured; run table.py --write"
    return publish_section(arguments, PAGE, section(results), pictures, stale)


if __name__ == "__main__":
    sys.exit(main())
