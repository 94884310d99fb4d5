"""What dual super-resolution learning gains: one network on CamVid, with and without it, on one schedule.

    python benchmarks/dsrl.py RUNS [--network dabnet] [--size 192x256] [--seed 0 --seed 1] [-- OPTIONS OF edgeseg train]

Trains in RUNS, for every seed: the network at the small input, the same with DSRL, and the network at twice the input.
Prints for each the mean IoU of its last epoch on CamVid's val split and the multiply-accumulates of the deployed graph,
head included. What was trained is not trained again, and an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import onnx

from edgeseg.apps.cli.options import frame_size
from edgeseg.converters.export import export
from edgeseg.converters.macs import macs
from edgeseg.training.checkpoint import load_network
from edgeseg.training.folder import LAST


@dataclass(frozen=True)
class Variant:
    """One of the networks that are compared.

    Attributes:
        name: for the table.
        scale: its input over the small one.
        options: beyond those that all share.
    """

    name: str
    scale: int
    options: tuple[str, ...] = ()


VARIANTS = (
    Variant("plain", 1),
    Variant("dsrl", 1, ("--dsrl", "--affinity-subsampling", "16")),
    Variant("plain at twice the input", 2),
)


def train(variant: Variant, seed: int, arguments: argparse.Namespace) -> Path:
    """Train one variant, or go on with it; gives the folder of the run."""
    folder: Path = arguments.runs / f"{arguments.network}-{variant.name.replace(' ', '-')}-{seed}"
    height, width = (side * variant.scale for side in arguments.size)
    camvid = f"camvid:{arguments.shared / 'data' / 'camvid'}"
    command = [sys.executable, "-m", "edgeseg", "train", arguments.network, *variant.options, *arguments.options]
    command += ["--size", f"{height}x{width}", "--data", camvid, "--validation", camvid, "--seed", str(seed)]
    command += ["-o", str(folder), *(["--resume"] if (folder / LAST).is_file() else [])]
    print(" ".join(command[1:]), file=sys.stderr, flush=True)
    subprocess.run(command, check=True, stdout=sys.stderr)
    return folder


def last_score(folder: Path) -> float:
    """Mean IoU after the last epoch, 0..100: the best epoch would be chosen on the frames that it is scored on."""
    with (folder / "log.csv").open(encoding="utf-8") as file:
        return float(list(csv.DictReader(file))[-1]["miou"])


def gmacs(folder: Path) -> float:
    """10^9 multiply-accumulates of the deployed graph for one frame."""
    network, recipe = load_network(folder / LAST)
    with tempfile.TemporaryDirectory() as place:
        done = export(network, recipe.size, Path(place) / "model.onnx")
        return sum(macs(onnx.load(done.path)).values()) / 1e9


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    beside = Path(__file__).resolve().parent.parent.parent / "shared"
    parser.add_argument("runs", type=Path, metavar="RUNS")
    parser.add_argument("--shared", type=Path, default=beside, metavar="DIR", help="default: ../shared")
    parser.add_argument("--network", default="dabnet", metavar="NAME")
    parser.add_argument("--size", type=frame_size, default=(192, 256), metavar="HxW")
    parser.add_argument("--seed", type=int, action="append", metavar="N", help="default: 0; may be repeated")
    given = sys.argv[1:]
    own, further = (given[: given.index("--")], given[given.index("--") + 1 :]) if "--" in given else (given, [])
    arguments = parser.parse_args(own)
    arguments.options = further
    print(f"{'variant':26} {'GMACs':>8} {'mIoU':>7}  by seed")
    for variant in VARIANTS:
        folders = [train(variant, seed, arguments) for seed in arguments.seed or [0]]
        scores = [last_score(folder) for folder in folders]
        by_seed = " ".join(f"{score:.2f}" for score in scores)
        print(f"{variant.name:26} {gmacs(folders[0]):8.4f} {statistics.mean(scores):7.2f}  {by_seed}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
