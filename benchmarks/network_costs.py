"""What every network costs at full width: exported, converted to INT8, linted, built by TensorRT-RTX, and timed.

    python benchmarks/network_costs.py count              # parameters and GMACs alone, of what is new on the cards
    python benchmarks/network_costs.py build              # everything but the times; goes on where it stopped
    python benchmarks/network_costs.py times [--quiet]    # the times alone, of the bundles that `build` left behind
    python benchmarks/network_costs.py build --one        # of each network the first variant alone

Writes edgeseg/models/costs.json, which `edgeseg models --compare` and network_table.py read. Each network is one
process; a bundle of 500 MB takes up to 8 GB of memory and the bundles of all networks 7 GB of disk. `times` measures
FP32 and INT8 in turns and keeps the ratio, which moves less than the times on a machine with other work; --quiet says
that there is none, and measures what was not measured so yet, so that it too goes on where it stopped.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.append(str(REPOSITORY / "benchmarks" / "peers"))

from limited_process import Limits, run_limited  # noqa: E402

from edgeseg.apps.comparison import CLASSES, ComparedNetwork, compare, options_text  # noqa: E402
from edgeseg.errors import ModelError  # noqa: E402
from edgeseg.machine import usable_processors  # noqa: E402
from edgeseg.models.costs import (  # noqa: E402
    COSTS_FILE,
    Builder,
    MeasuredCost,
    MeasuredCosts,
    Setup,
    Times,
    read_costs,
    write_costs,
)
from edgeseg.tools import tool_versions  # noqa: E402

PROGRAM = Path(__file__).with_name("network_build.py")
FILE = REPOSITORY / "edgeseg" / "models" / COSTS_FILE
FRAMES = 3
"""Of CamVid's train split: all but the last calibrate."""


def machine() -> str:
    """The processor and how much of it is used."""
    text = Path("/proc/cpuinfo").read_text("utf-8", "replace") if Path("/proc/cpuinfo").is_file() else ""
    name = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
    flags = re.search(r"^flags\s*: (.*)$", text, re.MULTILINE)
    kinds = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_vnni": "VNNI", "amx_int8": "AMX"}
    has = [title for flag, title in kinds.items() if flags and flag in flags.group(1).split()]
    return f"{name.group(1).strip() if name else 'unknown processor'}, {usable_processors()} cores, {', '.join(has)}"


def present_setup() -> Setup:
    """This machine with the libraries that it has."""
    versions = {name: version for name, version in tool_versions().items() if name not in ("edgeseg", "machine")}
    return Setup(machine(), versions)


def frames(shared: Path) -> list[str]:
    images = sorted((shared / "data" / "camvid" / "train" / "images").glob("*.jpg"))
    if len(images) < FRAMES:
        raise SystemExit(f"expected CamVid in {shared}/data/camvid, but there are {len(images)} frames; give --shared")
    return [str(images[i * len(images) // FRAMES].resolve()) for i in range(FRAMES)]


class Record:
    """The file of measured costs; read anew and written after every network, so that runs may go side by side."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> MeasuredCosts:
        """What is known so far."""
        try:
            return read_costs(self._path) if self._path.is_file() else MeasuredCosts(CLASSES, ())
        except ModelError as error:
            raise SystemExit(f"{error}; or remove the file to start anew") from error

    def of(self, each: ComparedNetwork) -> MeasuredCost | None:
        return self.read().of(each.card.name, each.options)

    def put(self, cost: MeasuredCost) -> None:
        """Add an entry, or replace the one of its variant."""
        costs = self.read()
        others = [c for c in costs.networks if (c.network, c.options) != (cost.network, cost.options)]
        ordered = sorted([*others, cost], key=lambda c: (c.network, json.dumps(c.options)))
        beside = self._path.with_suffix(".tmp")
        beside.write_text(write_costs(replace(costs, networks=tuple(ordered))), "utf-8")
        os.replace(beside, self._path)


def chosen(names: list[str], *, one: bool = False) -> list[ComparedNetwork]:
    """Variants by the number of their parameters.

    Args:
        names: those whose label has one of the words; all without words.
        one: of each network the first of its card alone.
    """
    found = [each for each in compare(MeasuredCosts(CLASSES, ())) if match(each, names)]
    first = {each.card.name: each for each in reversed(found)}
    return sorted(first.values() if one else found, key=lambda each: each.cost.parameters)


def match(each: ComparedNetwork, names: list[str]) -> bool:
    return not names or any(name in each.label for name in names)


def folder_of(root: Path, each: ComparedNetwork) -> Path:
    return root / re.sub(r"[^\w.]+", "-", f"{each.card.name} {options_text(each.options)}").strip("-")


def ask(request: dict[str, Any], limits: Limits) -> tuple[Any, str, float]:
    """The child's answer, what went wrong, and its peak in MB."""
    cache = Path(request["folder"]) / "cache"
    outcome = run_limited(
        [sys.executable, str(PROGRAM), json.dumps(request)], limits, {"EDGESEG_CACHE_DIR": str(cache)}
    )
    if outcome.problem:
        print(outcome.stderr[-1500:], file=sys.stderr)
        return None, outcome.problem, outcome.peak_mb
    return json.loads(outcome.stdout.strip().splitlines()[-1]), "", outcome.peak_mb


def count(arguments: argparse.Namespace, record: Record) -> None:
    """Note size, parameters and GMACs of what the record does not have yet; of all that is asked for with --again."""
    asked = chosen(arguments.name, one=arguments.one)
    new = [each for each in asked if arguments.again or record.of(each) is None]
    networks = [(each.card.name, dict(each.options)) for each in new]
    arguments.folder.mkdir(parents=True, exist_ok=True)
    request = {"task": "count", "networks": networks, "classes": CLASSES, "folder": str(arguments.folder)}
    answer, problem, _ = ask(request, Limits(arguments.seconds, arguments.gigabytes)) if new else ([], "", 0.0)
    if answer is None:
        raise SystemExit(f"the networks cannot be counted: {problem}")
    for entry in answer:
        cost = cost_of(entry, None)
        known = record.read().of(cost.network, cost.options)
        counted = {"size": cost.size, "parameters": cost.parameters, "gmacs": cost.gmacs}
        record.put(replace(known, **counted) if known else cost)


def cost_of(answer: dict[str, Any], known: Times | None) -> MeasuredCost:
    """A child's answer as a value, with the times that were known."""
    builder = answer.pop("builder")
    return MeasuredCost(
        **{**answer, "size": tuple(answer["size"]), "times": known, "builder": Builder(**builder) if builder else None}
    )


def build(arguments: argparse.Namespace, record: Record) -> None:
    """Export, convert, lint and build what was not converted yet, or has only failed."""
    count(arguments, record)
    pictures = frames(arguments.shared)
    limits = Limits(arguments.seconds, arguments.gigabytes)
    for each in chosen(arguments.name, one=arguments.one):
        folder, known = folder_of(arguments.folder, each), record.of(each)
        assert known is not None
        if known.layers and not arguments.again:
            continue
        folder.mkdir(parents=True, exist_ok=True)
        request = {
            "task": "build",
            "network": each.card.name,
            "classes": CLASSES,
            "options": dict(each.options),
            "frames": pictures,
            "folder": str(folder),
        }
        answer, problem, peak = ask(request, limits)
        cost = replace(known, problem=problem) if answer is None else cost_of(answer, known.times)
        record.put(replace(cost, peak_mb=peak, setup=present_setup()))
        verdict = cost.problem or (cost.builder.verdict if cost.builder else "builder not asked")
        steps = ", ".join(f"{step} {taken:.0f} s" for step, taken in cost.cpu_seconds.items())
        print(f"{each.label:60} {verdict}; {steps}; {peak:.0f} MB", flush=True)


def times(arguments: argparse.Namespace, record: Record) -> None:
    pictures = frames(arguments.shared)
    for each in chosen(arguments.name, one=arguments.one):
        known, folder = record.of(each), folder_of(arguments.folder, each)
        if known is None or not known.layers:
            continue
        done = known.times is not None and (known.times.quiet or not arguments.quiet)
        if done and not arguments.again:
            continue
        if not (folder / "network.edgeseg").is_dir():
            print(f"{each.label}: no bundle in {folder}; run build --again {each.card.name}", file=sys.stderr)
            continue
        request = {"task": "times", "frames": pictures, "folder": str(folder), "seconds": arguments.seconds}
        answer, problem, _ = ask(request, Limits(600, arguments.gigabytes))
        if answer is None:
            print(f"{each.label}: {problem}", file=sys.stderr)
            continue
        today = datetime.date.today().isoformat()
        found = Times(**answer, quiet=arguments.quiet, date=today, setup=present_setup())
        record.put(replace(known, times=found))
        text = (
            f"FP32 {found.float_ms:9.2f} ms  INT8 {found.int8_ms:9.2f} ms  {found.ratio:5.2f} x, {found.rounds} rounds"
        )
        print(f"{each.label:60} {text}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tasks = parser.add_subparsers(dest="task", required=True)
    kinds = (
        ("count", "count what is not known yet", 900, "limit"),
        ("build", "export, convert, lint and build", 3600, "limit of one network, other work included"),
        ("times", "time the bundles", 3, "measured for each network"),
    )
    for task, what, seconds, meaning in kinds:
        options = tasks.add_parser(task, help=what)
        options.add_argument("name", nargs="*", help="variants whose name and options hold this text; default: all")
        options.add_argument("--one", action="store_true", help="of each network the first variant of its card alone")
        options.add_argument("--again", action="store_true", help="also what was measured already")
        options.add_argument("--shared", type=Path, default=REPOSITORY.parent / "shared", metavar="DIR")
        options.add_argument("--folder", type=Path, default=REPOSITORY / "out" / "networks", help="for the bundles")
        options.add_argument("--seconds", type=float, default=seconds, help=f"{meaning} (default {seconds})")
        options.add_argument("--gigabytes", type=float, default=16, help="of memory that one network may take")
        if task == "times":
            options.add_argument("--quiet", action="store_true", help="nothing else runs on this machine")
    arguments = parser.parse_args()
    {"count": count, "build": build, "times": times}[arguments.task](arguments, Record(FILE))
    return 0


if __name__ == "__main__":
    sys.exit(main())
