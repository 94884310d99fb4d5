"""What keeps accuracy in INT8: each technique alone and all together, INT8 against float on published networks.

    python benchmarks/accuracy.py [--network espnet] [--count 64]

The scores are mean IoU on CamVid's val split. "mse", "percentile", "entropy" and "minmax" choose every range by the
same rule and do nothing else; "auto" chooses by the error at the layers' outputs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Collection
from functools import partial
from pathlib import Path

from networks import NETWORKS, BenchmarkNetwork, add_shared_argument, options_for

from edgeseg.calibration.ranges import AUTO, METHODS
from edgeseg.converters.calibrate import CalibrationRecipe, calibrate
from edgeseg.converters.joined import with_partners
from edgeseg.converters.network import network_on_cpu
from edgeseg.converters.partners import PartnerRule
from edgeseg.converters.place import place_qdq, plan_placement
from edgeseg.converters.prepare import prepare
from edgeseg.converters.split import split_frames
from edgeseg.converters.verify import verify
from edgeseg.labels import load_mapping

PLAIN = {"equalize": False, "correct_bias": False, "round_weights": False}

RECIPES = {
    **{method: CalibrationRecipe(method, **PLAIN) for method in (*METHODS, AUTO)},
    **{
        f"{method}, {title}": CalibrationRecipe(method, **{**PLAIN, technique: True})
        for method in ("mse", AUTO)
        for title, technique in (("equalized", "equalize"), ("bias", "correct_bias"), ("rounding", "round_weights"))
    },
    "auto, all": CalibrationRecipe(AUTO),
    "auto, all but rounding": CalibrationRecipe(AUTO, round_weights=False),
    "auto, all, partners": CalibrationRecipe(AUTO),
    "auto, all, every partner": CalibrationRecipe(AUTO, tolerance=None),
}

PARTNERS: dict[str, PartnerRule] = {"auto, all, partners": "auto", "auto, all, every partner": "all"}
"""What is quantized beside layers; "auto, all, partners" is what `edgeseg convert` does."""


def measure(
    name: str, network: BenchmarkNetwork, shared: Path, count: int, folder: Path, recipes: Collection[str]
) -> None:
    """Print one line a recipe."""
    options = options_for(network, shared, folder, count)
    prepared = prepare(shared / "models" / network.file, options)
    mapping = load_mapping(options.mapping, prepared.labels) if options.mapping else None
    truth = (mapping.target if mapping else prepared.labels).classes()
    split = split_frames(str(shared / "data" / "camvid" / "train" / "images"), options, truth)
    seen = frozenset(frame.digest for frame in split.calibration)
    with network_on_cpu(prepared, prepared.model, prepared.output) as float_network:
        known = {f.digest: float_network(f.image) for f, _ in split.scored(seen)}
    for title in recipes:
        recipe = RECIPES[title]
        placement = plan_placement(prepared.model, partners=PARTNERS.get(title, "none"))
        found = calibrate(prepared, placement, split.calibration, recipe, lambda units: None)
        placement = with_partners(placement, found.table.partners)
        quantized = place_qdq(found.model, placement, found.table.ranges, found.shifts, found.moved)
        replay = partial(next, iter(known.values()))
        with network_on_cpu(prepared, quantized, prepared.output) as int8_network:
            result = verify(lambda _, r=replay: r(), int8_network, split.scored(seen), prepared.labels, mapping)
        scores = result.scores
        line = f"float {scores.float_score:6.2f}  int8 {scores.int8_score:6.2f}  drop {scores.drop:5.2f}"
        low, high = scores.drop_interval or (0.0, 0.0)
        spread = f"({low:5.2f} to {high:5.2f})"
        print(f"{name:14} {title:20} {line} {spread}  agreement {result.agreement:6.2f}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_shared_argument(parser)
    parser.add_argument("--recipe", action="append", choices=RECIPES, help="default: all; may be repeated")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.network or NETWORKS:
            measure(name, NETWORKS[name], arguments.shared, arguments.count, Path(folder), arguments.recipe or RECIPES)
    return 0


if __name__ == "__main__":
    sys.exit(main())
