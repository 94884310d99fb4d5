"""What was measured, as it is kept in results/NETWORK-FRAMES.json: one object a network and number of frames."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

__all__ = ["EDGESEG", "RESULTS", "Results", "Row", "read_results", "write_results"]

RESULTS = Path(__file__).resolve().parent / "results"
EDGESEG = "edgeseg"

Interval = tuple[float, float]


@dataclass(frozen=True)
class Row:
    """One tool with one setting on one network.

    Attributes:
        tool, setting: names.
        versions: of the tool and what it rests on.
        problem: empty, or why there is no result; then all scores are None.
        seconds: of the conversion alone, without imports and without edgeseg's proof and report; None where it did not
            end.
        whole_seconds, cpu_seconds: wall and processor time of the whole process, everything included.
        rounds: conversions whose medians these are.
        peak_mb: largest resident memory of the process and its children, MB of 10^6 bytes.
        megabytes: of the network's file or files, MB of 10^6 bytes.
        convolutions, int8: all of them, and those whose data and weights are both quantized to 8 bits.
        int8_mac_share: multiply-accumulates of the latter, 0..1 of all.
        symmetric: whether all zero points are 0.
        tensorrt: "passes", or what TensorRT's parser and builder say against it; None where they were not asked.
        tensorrt_mac_share: `int8_mac_share` of the engine that TensorRT builds; None where there is none.
        miou: 0..100.
        drop, drop_interval: what the float network's score is higher by, in points, and its 95 % interval.
        agreement: share of the pixels with the float network's class, 0..100.
        behind, behind_interval: what edgeseg's score is higher by, in points, and its 95 % interval; None for edgeseg.
    """

    tool: str
    setting: str
    versions: dict[str, str]
    problem: str
    seconds: float | None
    whole_seconds: float
    cpu_seconds: float
    peak_mb: float
    megabytes: float | None = None
    convolutions: int | None = None
    int8: int | None = None
    int8_mac_share: float | None = None
    symmetric: bool | None = None
    tensorrt: str | None = None
    tensorrt_mac_share: float | None = None
    miou: float | None = None
    drop: float | None = None
    drop_interval: Interval | None = None
    agreement: float | None = None
    behind: float | None = None
    behind_interval: Interval | None = None
    rounds: int = 1


@dataclass(frozen=True)
class Results:
    """All rows of one network and number of calibration frames.

    Attributes:
        network: a name of `protocol.PEER_NETWORKS`.
        frames: calibration frames.
        scored: frames scored.
        machine: what it ran on, for a person.
        float_miou: of the given network in ONNX Runtime, 0..100.
        limits: what every conversion was allowed, for a person.
        rows: in the order of measurement.
    """

    network: str
    frames: int
    scored: int
    machine: str
    float_miou: float
    limits: str
    rows: tuple[Row, ...] = ()

    def with_row(self, row: Row) -> Results:
        """With a row added, or put in place of the one of the same tool and setting."""
        others = [r for r in self.rows if (r.tool, r.setting) != (row.tool, row.setting)]
        return replace(self, rows=(*others, row))

    def has(self, tool: str, setting: str) -> bool:
        """Whether the row was measured."""
        return any((r.tool, r.setting) == (tool, setting) for r in self.rows)


def read_results(file: Path) -> Results:
    """Read what `write_results` wrote."""
    content = json.loads(file.read_text("utf-8"))
    content["rows"] = tuple(Row(**_with_intervals(row)) for row in content["rows"])
    return Results(**content)


def _with_intervals(row: dict[str, object]) -> dict[str, object]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}


def write_results(file: Path, results: Results) -> None:
    """Write beside and rename, so that a run that is interrupted leaves the rows before it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(asdict(results), indent=1) + "\n", "utf-8")
    unfinished.replace(file)
