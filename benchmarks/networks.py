"""The published networks and the protocol that the benchmarks of this folder share.

Networks and frames are looked for in ../shared beside the checkout, or in the folder that --shared names:
models/NAME.onnx and data/camvid/{train,val}/{images,labels}.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

from edgeseg.converters.options import ConvertOptions

__all__ = ["NETWORKS", "BenchmarkNetwork", "add_shared_argument", "options_for"]

_IMAGENET = ConvertOptions(
    mean=(123.675, 116.28, 103.53),
    std=(58.395, 57.12, 57.375),
    classes="cityscapes",
    mapping="cityscapes:camvid",
)
_CAMVID = ConvertOptions(
    mean=(110.33102417, 108.40886688, 105.03319550),
    std=(18392.0559295, 18536.1393045, 17825.6092214),
    color_order="BGR",
    classes="camvid",
)


@dataclass(frozen=True)
class BenchmarkNetwork:
    """A network, how its frames are normalised, and which val frames score it (every n-th)."""

    file: str
    options: ConvertOptions
    every: int


NETWORKS = {
    "espnet": BenchmarkNetwork("espnet_camvid_360x480.onnx", _CAMVID, 1),
    "espnetv2-s0.5": BenchmarkNetwork("espnetv2_s0.5_cityscapes_352x480.onnx", _IMAGENET, 2),
    "espnetv2-s2.0": BenchmarkNetwork("espnetv2_s2.0_cityscapes_512x1024.onnx", _IMAGENET, 2),
}


def add_shared_argument(parser: argparse.ArgumentParser) -> None:
    """The options that say which networks and where they are."""
    beside = Path(__file__).resolve().parent.parent.parent / "shared"
    parser.add_argument("--shared", type=Path, default=beside, metavar="DIR", help="default: ../shared")
    parser.add_argument("--network", action="append", choices=sorted(NETWORKS), help="default: all; may be repeated")
    parser.add_argument("--count", type=int, default=64, metavar="N", help="calibration frames (default 64)")


def options_for(network: BenchmarkNetwork, shared: Path, folder: Path, count: int) -> ConvertOptions:
    """Options that calibrate on the train split and score on every n-th frame of the val split.

    Args:
        network: one of NETWORKS.
        shared: where the frames are.
        folder: a folder to write the list of scored frames and the bundle to.
        count: calibration frames.
    """
    camvid = shared / "data" / "camvid"
    images = sorted((camvid / "val" / "images").glob("*.jpg"))[:: network.every]
    listing = folder / f"{network.file}.txt"
    listing.write_text("\n".join(str(image.resolve()) for image in images))
    return replace(
        network.options,
        count=count,
        score_frames=str(listing),
        labels=camvid / "val" / "labels",
        output=folder / network.file.replace(".onnx", ".edgeseg"),
        force=True,
    )
