"""edgeseg beside ONNX Runtime, NNCF and ModelOpt: the same float network, frames and scorer, each tool in a process.

    benchmarks/peers/setup.sh
    python benchmarks/peers/compare_peers.py [--network espnet] [--frames 64] [--only 'nncf-*']

Every tool gets the float network as its user has it and the same calibration frames; edgeseg runs as a user starts it.
All results run in ONNX Runtime on a CPU (OpenVINO networks in OpenVINO) and are scored by `edgeseg.converters.verify`.
A finished row is kept in benchmarks/peers/results, so a run that was interrupted goes on when it is started again.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from ask_tensorrt import ask_tensorrt
from class_maps import class_maps, network_input
from limited_process import Limits, Outcome, run_limited
from numpy.typing import NDArray
from protocol import OURS, PEER_NETWORKS, Tool, edgeseg_command, model_file, peer_command, tools_of
from quantized_layers import quantized_layers
from results import EDGESEG, RESULTS, Results, Row, read_results, write_results

from edgeseg.converters.options import ConvertOptions
from edgeseg.converters.prepare import Prepared, prepare
from edgeseg.converters.split import FrameSplit, split_frames
from edgeseg.converters.verify import Verification, verify
from edgeseg.labels import ClassMapping, load_mapping
from edgeseg.tools import tool_versions

from networks import options_for  # isort: skip  # found through protocol

HERE = Path(__file__).resolve().parent
PROOF = ("check", "verify")
"""Steps of `edgeseg convert` that prove and do not quantize: no peer does them."""


@dataclass(frozen=True)
class Bench:
    """One network, its frames, and where everything is."""

    name: str
    model: Path
    train: Path
    options: ConvertOptions
    prepared: Prepared
    mapping: ClassMapping | None
    split: FrameSplit
    folder: Path
    environments: Path
    oracle: Path
    limits: Limits
    revision: str
    rounds: int

    @classmethod
    def of(cls, name: str, arguments: argparse.Namespace) -> Bench:
        folder = arguments.work / f"{name}-{arguments.frames}"
        folder.mkdir(parents=True, exist_ok=True)
        options = options_for(PEER_NETWORKS[name], arguments.shared, folder, arguments.frames)
        model = model_file(name, arguments.shared)
        prepared = prepare(model, options)
        mapping = load_mapping(options.mapping, prepared.labels) if options.mapping else None
        train = arguments.shared / "data" / "camvid" / "train" / "images"
        split = split_frames(str(train), options, (mapping.target if mapping else prepared.labels).classes())
        limits = Limits(arguments.minutes * 60, arguments.memory)
        places = (folder, arguments.venvs, arguments.shared / "tools" / "trt_oracle.py")
        return cls(
            name, model, train, options, prepared, mapping, split, *places, limits, arguments.revision, arguments.rounds
        )

    def inputs(self) -> Path:
        """The calibration frames as the float network takes them, one file each."""
        folder = self.folder / "inputs"
        if not folder.is_dir():
            unfinished = self.folder / "unfinished-inputs"
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            for number, frame in enumerate(self.split.calibration):
                np.save(unfinished / f"{number:04}.npy", network_input(self.prepared, frame.image))
            unfinished.rename(folder)
        return folder

    def maps(self, label: str, network: Path) -> NDArray[np.uint8]:
        """Class maps of a network over the frames to score."""
        assert self.split.scoring is not None
        return class_maps(self.prepared, network, self.split.scoring, self.folder / "maps" / f"{label}.npz")

    def score(self, first: NDArray[np.uint8], second: NDArray[np.uint8]) -> Verification:
        """Two networks' class maps against the labels, by the scorer of `edgeseg convert`."""
        before, after = iter(first), iter(second)
        scored = self.split.scored(frozenset())
        return verify(lambda _: next(before), lambda _: next(after), scored, self.prepared.labels, self.mapping)


def measure(bench: Bench, tool: Tool) -> Row:
    """Convert with one tool and score what it made."""
    folder = bench.folder / tool.label
    (bench.folder / "maps" / f"{tool.label}.npz").unlink(missing_ok=True)
    artefact = tool.artefact(folder)
    rows: list[Row] = []
    while len(rows) < bench.rounds:
        # Nothing of an earlier round is left: edgeseg would take its ranges from it, and compiled kernels.
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        outcome = run_limited(
            _command(bench, tool, artefact), bench.limits, {"EDGESEG_CACHE_DIR": str(folder / "cache")}
        )
        (folder / "log.txt").write_text(outcome.stdout + outcome.stderr, "utf-8")
        rows.append(_row(tool, outcome, bench.revision))
        if rows[-1].problem:
            return rows[-1]
    row = _median(rows)
    try:
        return _examined(bench, tool, artefact, row)
    except Exception as error:  # whatever a graph of another tool makes of an engine belongs in its row
        return replace(row, problem=f"cannot be run: {type(error).__name__}: {str(error).splitlines()[0][:200]}")


def _command(bench: Bench, tool: Tool, artefact: Path) -> list[str]:
    if tool.name == EDGESEG:
        return edgeseg_command(bench.model, bench.train, _options(bench, tool), artefact)
    return peer_command(tool, bench.environments, bench.model, bench.inputs(), artefact)


def _options(bench: Bench, tool: Tool) -> ConvertOptions:
    """What edgeseg is told: the frames to score are all, or the first one."""
    if tool == OURS:
        return bench.options
    listing = bench.folder / "one-frame.txt"
    listing.write_text(Path(str(bench.options.score_frames)).read_text("utf-8").splitlines()[0] + "\n", "utf-8")
    return replace(bench.options, score_frames=str(listing))


def _row(tool: Tool, outcome: Outcome, revision: str) -> Row:
    whole = (outcome.seconds, outcome.cpu_seconds, outcome.peak_mb)
    if outcome.problem:
        return Row(tool.name, tool.setting, {}, outcome.problem, None, *whole)
    if tool.name != EDGESEG:
        said = json.loads(outcome.stdout.splitlines()[-1])  # the peers print on stdout too
        return Row(tool.name, tool.setting, said["versions"], "", said["seconds"], *whole)
    said = json.loads(outcome.stdout)
    if said["reused_calibration"]:
        raise RuntimeError(f"expected a conversion from nothing, but {said['bundle']} holds ranges of an earlier one")
    steps: dict[str, float] = said["seconds_by_step"]
    seconds = round(sum(took for step, took in steps.items() if step not in PROOF), 3)
    return Row(tool.name, tool.setting, {**tool_versions(), "revision": revision}, "", seconds, *whole)


def _median(rows: list[Row]) -> Row:
    """One row of several rounds that all ended: medians of the times, the largest memory."""
    return replace(
        rows[0],
        rounds=len(rows),
        seconds=statistics.median(r.seconds for r in rows if r.seconds is not None),
        whole_seconds=statistics.median(r.whole_seconds for r in rows),
        cpu_seconds=statistics.median(r.cpu_seconds for r in rows),
        peak_mb=max(r.peak_mb for r in rows),
    )


def _examined(bench: Bench, tool: Tool, artefact: Path, row: Row) -> Row:
    network = artefact / "model.onnx" if artefact.is_dir() else artefact
    files = [network, network.with_suffix(".bin")] if network.suffix == ".xml" else [network]
    layers = quantized_layers(network)
    said, in_float = ask_tensorrt(bench.oracle, network)
    maps = bench.maps(tool.label, artefact)
    result = bench.score(bench.maps("float", bench.model), maps)
    scores = result.scores
    row = replace(
        row,
        megabytes=round(sum(file.stat().st_size for file in files) / 1e6, 3),
        convolutions=layers.convolutions,
        int8=len(layers.shares),
        int8_mac_share=round(layers.mac_share, 4),
        symmetric=layers.symmetric,
        tensorrt=said,
        tensorrt_mac_share=None if in_float is None else round(layers.mac_share_without(in_float), 4),
        miou=round(scores.int8_score, 3),
        drop=round(scores.drop, 3),
        drop_interval=_rounded(scores.drop_interval),
        agreement=round(result.agreement, 3),
    )
    return _beside_edgeseg(bench, tool, row)


def _beside_edgeseg(bench: Bench, tool: Tool, row: Row) -> Row:
    """The row with its distance to edgeseg's, where both have been scored in this folder."""
    maps = [bench.folder / "maps" / f"{label}.npz" for label in (OURS.label, tool.label)]
    if row.problem or tool.name == EDGESEG or not all(file.is_file() for file in maps):
        return row
    ours, theirs = (bench.maps(label, bench.folder) for label in (OURS.label, tool.label))
    scores = bench.score(ours, theirs).scores
    return replace(row, behind=round(scores.drop, 3), behind_interval=_rounded(scores.drop_interval))


def _rounded(interval: tuple[float, float] | None) -> tuple[float, float] | None:
    return None if interval is None else (round(interval[0], 3), round(interval[1], 3))


def _revision() -> str:
    """The commit of this checkout; empty outside one."""
    command = ["git", "-C", str(HERE), "describe", "--always", "--dirty"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    return run.stdout.strip() if run.returncode == 0 else ""


def _machine() -> str:
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    kind = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    flags = next((set(line.split()) for line in lines if line.startswith("flags")), set[str]())
    special = [flag for flag in ("avx2", "avx512_vnni", "avx512_bf16", "amx_int8") if flag in flags]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    cores = len(os.sched_getaffinity(0))
    return f"{kind}, {cores} cores, {', '.join(special)}, {memory:.0f} GB, Python {platform.python_version()}"


def _started(bench: Bench, file: Path) -> Results:
    """The rows that are there, or a file without any."""
    if file.is_file():
        return read_results(file)
    maps = bench.maps("float", bench.model)
    limits = f"{bench.limits.seconds / 60:g} min, {bench.limits.gigabytes:g} GB"
    score = bench.score(maps, maps).scores.float_score
    return Results(bench.name, bench.options.count, len(maps), _machine(), round(score, 3), limits)


def _rows_to_measure(results: Results, tools: list[Tool], again: bool) -> Iterator[Tool]:
    yield from (tool for tool in tools if again or not results.has(tool.name, tool.setting))


def compare(name: str, arguments: argparse.Namespace) -> None:
    """Measure what is missing of one network, and print each row."""
    bench = Bench.of(name, arguments)
    file = arguments.results / f"{name}-{arguments.frames}.json"
    results = _started(bench, file)
    say = partial(print, flush=True)
    for tool in _rows_to_measure(results, tools_of(arguments.only), arguments.again):
        if tool.name != EDGESEG and not (arguments.venvs / tool.name / "bin" / "python").is_file():
            say(f"{name} {tool.label}: not installed, run benchmarks/peers/setup.sh")
            continue
        row = measure(bench, tool)
        results = results.with_row(row)
        if tool == OURS:
            rows = [_beside_edgeseg(bench, Tool(other.tool, other.setting), other) for other in results.rows]
            results = replace(results, rows=tuple(rows))
        write_results(file, results)
        score = row.problem or f"mIoU {row.miou:.2f} (float {results.float_miou:.2f}), {row.seconds:.1f} s"
        say(f"{name} {tool.label}: {score}, {row.peak_mb:.0f} MB, TensorRT: {row.tensorrt}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    beside = HERE.parent.parent.parent / "shared"
    parser.add_argument("--shared", type=Path, default=beside, metavar="DIR", help="default: ../shared")
    parser.add_argument("--network", action="append", choices=sorted(PEER_NETWORKS), help="default: all; repeatable")
    parser.add_argument("--frames", type=int, default=64, metavar="N", help="calibration frames (default 64)")
    parser.add_argument("--only", action="append", default=[], metavar="PATTERN", help="TOOL-SETTING, with * and ?")
    parser.add_argument("--again", action="store_true", help="measure rows again that are there")
    parser.add_argument("--rounds", type=int, default=1, metavar="N", help="conversions, for medians (default 1)")
    parser.add_argument("--minutes", type=float, default=30, help="limit of a conversion (default 30)")
    parser.add_argument("--memory", type=float, default=14, metavar="GB", help="limit of a conversion (default 14)")
    parser.add_argument("--venvs", type=Path, default=HERE / ".venvs", metavar="DIR", help="what setup.sh made")
    parser.add_argument("--work", type=Path, default=HERE / ".work", metavar="DIR", help="inputs, networks, class maps")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help=f"default: {RESULTS.name}/")
    parser.add_argument("--revision", default=_revision(), help="of edgeseg, for the results (default: by git)")
    arguments = parser.parse_args()
    for name in arguments.network or PEER_NETWORKS:
        compare(name, arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
