"""Which range chooser keeps most accuracy: INT8 against float on published networks, the four methods side by side.

    python benchmarks/accuracy.py [--network espnet] [--count 64]

The histograms of a network are measured once and serve all methods; the scores are mean IoU on CamVid's val split.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path

from networks import NETWORKS, BenchmarkNetwork, add_shared_argument, options_for

from edgeseg.calibration.measure import measure_ranges
from edgeseg.calibration.ranges import METHODS
from edgeseg.converters.network import network_on_cpu
from edgeseg.converters.place import place_qdq, plan_placement
from edgeseg.converters.prepare import prepare
from edgeseg.converters.split import split_frames
from edgeseg.converters.verify import verify
from edgeseg.frame import fit_frame
from edgeseg.labels import load_mapping


def measure(name: str, network: BenchmarkNetwork, shared: Path, count: int, folder: Path) -> None:
    """Print one line a method."""
    options = options_for(network, shared, folder, count)
    prepared = prepare(shared / "models" / network.file, options)
    placement = plan_placement(prepared.model)
    mapping = load_mapping(options.mapping, prepared.labels) if options.mapping else None
    truth = (mapping.target if mapping else prepared.labels).classes()
    split = split_frames(str(shared / "data" / "camvid" / "train" / "images"), options, truth)
    spec = prepared.input
    feeds = ({spec.tensor: fit_frame(f.image, spec.height, spec.width)} for f in split.calibration)
    histograms = measure_ranges(prepared.model, placement.tensors, feeds)
    seen = frozenset(frame.digest for frame in split.calibration)
    with network_on_cpu(prepared, prepared.model, prepared.output) as float_network:
        known = {f.digest: float_network(f.image) for f, _ in split.scored(seen)}
        for method, choose in METHODS.items():
            quantized = place_qdq(prepared.model, placement, {t: choose(h) for t, h in histograms.items()})
            replay = partial(next, iter(known.values()))
            with network_on_cpu(prepared, quantized, prepared.output) as int8_network:
                found = verify(lambda _, r=replay: r(), int8_network, split.scored(seen), prepared.labels, mapping)
            scores = found.scores
            line = f"float {scores.float_score:6.2f}  int8 {scores.int8_score:6.2f}  drop {scores.drop:5.2f}"
            print(f"{name:14} {method:10} {line}  agreement {found.agreement:6.2f}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_shared_argument(parser)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.network or NETWORKS:
            measure(name, NETWORKS[name], arguments.shared, arguments.count, Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
