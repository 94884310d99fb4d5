"""Options that several commands share, and their checks."""

from __future__ import annotations

import argparse
import contextlib
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeseg.errors import UsageError

if TYPE_CHECKING:
    from edgeseg.training.augment import Augmentation

__all__ = [
    "PRESETS",
    "add_backend_arguments",
    "add_classes_argument",
    "add_map_argument",
    "add_network_arguments",
    "add_preprocessing_arguments",
    "add_skip_broken_argument",
    "augmentation",
    "engine_options",
    "frame_size",
    "network_option",
    "network_options",
    "points",
    "positive_count",
    "preprocessing",
    "share",
    "stated_color",
    "thread_count",
]

Triple = tuple[float, float, float]

_LARGEST_SIDE = 65535  # of a JPEG, the largest image that a camera gives
_MOST_THREADS = 1024  # engines start as many as they are told, and a machine stands still under far too many

PRESETS: dict[str, tuple[Triple, Triple]] = {
    # ImageNet's statistics as torchvision gives them, (0.485, 0.456, 0.406) and (0.229, 0.224, 0.225), times 255.
    "imagenet": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    "unit": ((0.0, 0.0, 0.0), (255.0, 255.0, 255.0)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
"""Mean and standard deviation of red, green and blue, in units of 0..255."""


def frame_size(text: str) -> tuple[int, int]:
    """(height, width) from "360x480", for argparse."""
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdecimal() and 0 < int(part) <= _LARGEST_SIDE for part in parts):
        raise argparse.ArgumentTypeError(f"expected HEIGHTxWIDTH in pixels, such as 360x480, but got {text!r}")
    return int(parts[0]), int(parts[1])


def positive_count(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    if not text.isdecimal() or not 1 <= int(text) < 2**31:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, but got {text!r}")
    return int(text)


def points(text: str) -> float:
    """Points of a score from 0 to 100, for argparse."""
    return _number(text, 100.0)


def share(text: str) -> float:
    """A share from 0 to 1, for argparse."""
    return _number(text, 1.0)


def _number(text: str, most: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= most:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to {most:g}, but got {text!r}")
    return value


def thread_count(text: str) -> int:
    """A number of threads, for argparse."""
    count = positive_count(text)
    if count > _MOST_THREADS:
        raise argparse.ArgumentTypeError(f"expected 1 to {_MOST_THREADS} threads, but got {text!r}")
    return count


def add_backend_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that choose the engine."""
    parser.add_argument(
        "--backend",
        default="auto",
        metavar="NAME",
        help="tensorrt, tensorrt-rtx, openvino, onnxruntime or auto (default): EDGESEG_BACKEND where it is set, "
        "otherwise TensorRT where it and a GPU are here, else the faster of the others, timed once",
    )
    parser.add_argument("--threads", type=thread_count, metavar="N", help="CPU threads; default: all of this process")
    parser.add_argument(
        "--plan",
        type=Path,
        metavar="FILE",
        help="engine of TensorRT that edgeseg build -o wrote; default: the one in the bundle",
    )


def engine_options(options: argparse.Namespace) -> dict[str, Any]:
    """What `edgeseg.load` takes of parsed `add_backend_arguments`."""
    return {"backend": options.backend, "threads": options.threads, "plan": options.plan}


_NETWORK_OPTIONS = ("width", "q", "backbone")
"""Options of the networks themselves that have a word of their own; which network has which, and what it takes, is its
own matter."""


def add_network_arguments(group: argparse._ArgumentGroup) -> None:
    """Options that say which variant of a network is built."""
    group.add_argument(
        "--width", type=float, metavar="W", help="width of espnetv2; of large networks a share of channels"
    )
    group.add_argument("--q", type=int, metavar="Q", help="depth of espnet")
    group.add_argument("--backbone", metavar="B", help="backbone of bisenetv1, deeplabv3, pspnet and others")
    group.add_argument(
        "--option",
        action="append",
        default=[],
        type=network_option,
        metavar="NAME=VALUE",
        help="any other option that edgeseg models shows, such as head=cascade or stride=16; repeatable",
    )
    group.add_argument("--deploy", action="store_true", help="the variant that INT8 engines take better")


def network_options(options: argparse.Namespace) -> dict[str, Any]:
    """What `edgeseg.models.create` takes beside name, classes and deploy, where it is given."""
    words = {name: value for name in _NETWORK_OPTIONS if (value := getattr(options, name)) is not None}
    return words | dict(options.option)


def network_option(text: str) -> tuple[str, Any]:
    """NAME=VALUE of a network's option; the value is a number or truth value where it reads as one."""
    name, equals, value = text.partition("=")
    if not (name.isidentifier() and equals and value):
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE such as stride=16, but got {text!r}")
    if value in ("true", "false"):
        return name, value == "true"
    for number in (int, float):
        with contextlib.suppress(ValueError):
            return name, number(value)
    return name, value


def augmentation(options: argparse.Namespace) -> Augmentation:
    """How training frames are varied: --scale, --no-mirror and --color-change, with defaults for what is not given."""
    from edgeseg.training.augment import Augmentation

    default = Augmentation()
    return Augmentation(
        default.scale if options.scale is None else (options.scale[0], options.scale[1]),
        not options.no_mirror,
        default.color if options.color_change is None else options.color_change,
    )


def add_preprocessing_arguments(
    parser: argparse.ArgumentParser, size: str = "fixes a network whose input size is dynamic"
) -> None:
    """Options that say what a float network expects of a frame."""
    group = parser.add_argument_group("what the network expects of a frame")
    group.add_argument(
        "--color",
        choices=("RGB", "BGR"),
        help="channel order of the network's input; default: what its metadata says, else RGB",
    )
    group.add_argument("--mean", nargs="+", metavar="V", help="three numbers in 0..255 units, in the network's order")
    group.add_argument("--std", nargs="+", metavar="V", help="three numbers in 0..255 units: (x - mean) / std")
    group.add_argument(
        "--preset",
        choices=sorted(PRESETS),
        help="mean and std by name: imagenet, unit (x / 255) or none (x as it is)",
    )
    group.add_argument("--size", type=frame_size, metavar="HxW", help=size)


def add_classes_argument(parser: argparse._ActionsContainer) -> None:
    """The option --classes: of a float network."""
    parser.add_argument(
        "--classes",
        metavar="NAME|FILE.json",
        help="camvid, cityscapes, voc, ade20k or a file; default: what the network's metadata says, else numbered",
    )


def add_map_argument(parser: argparse._ActionsContainer) -> None:
    """The option --map."""
    parser.add_argument(
        "--map", metavar="NAME|FILE.json", help="brings the network's classes to the labels', such as cityscapes:camvid"
    )


def add_skip_broken_argument(parser: argparse._ActionsContainer) -> None:
    """The option --skip-broken."""
    parser.add_argument(
        "--skip-broken", action="store_true", help="leave out images that cannot be read, and say which"
    )


def preprocessing(options: argparse.Namespace, color_order: str | None = None) -> tuple[Triple, Triple] | None:
    """Mean and standard deviation, in 0..255 units and in the network's channel order; None where none is given.

    Args:
        options: parsed `add_preprocessing_arguments`.
        color_order: what the network's metadata says of its order, where --color is not given.

    Raises:
        UsageError: when only one is given, both ways are, or they are no three numbers that fit.
    """
    given = options.mean is not None or options.std is not None
    if given and options.preset:
        raise UsageError("give either --preset or --mean and --std, not both")
    if options.preset:
        mean, std = PRESETS[options.preset]
        return (mean[::-1], std[::-1]) if (options.color or color_order) == "BGR" else (mean, std)
    if not given:
        return None
    if options.mean is None or options.std is None:
        raise UsageError(
            "--mean and --std go together: give --mean and --std (three numbers each, in 0..255 units), or --preset "
            "imagenet, unit (x / 255) or none"
        )
    mean, std = _three("--mean", options.mean), _three("--std", options.std)
    if min(std) <= 0:
        raise UsageError(f"--std must be positive, but got {_spaced(std)}")
    if max(std) < 1 and max(mean) <= 1:
        raise UsageError(
            f"--mean {_spaced(mean)} --std {_spaced(std)} look like values for frames in 0..1; frames are 0..255, so "
            f"give --mean {_spaced(v * 255 for v in mean)} --std {_spaced(v * 255 for v in std)}"
        )
    return mean, std


def stated_color(options: argparse.Namespace, network: Path) -> str | None:
    """The channel order that a network's metadata states, where a preset needs it: presets are known as RGB.

    Raises:
        ModelError: for a file that is no ONNX network, or malformed metadata.
    """
    if options.preset is None or options.color is not None:
        return None
    from edgeseg.converters.metadata import read_metadata
    from edgeseg.converters.read import read_graph

    return read_metadata(read_graph(network)[0], network.name).color_order


def _three(option: str, words: Sequence[str]) -> Triple:
    parts = " ".join(words).replace(",", " ").split()
    try:
        values = [float(part) for part in parts]
    except ValueError:
        values = []
    if len(values) != 3 or not all(math.isfinite(v) for v in values):
        raise UsageError(
            f"{option} takes three numbers, such as 123.675,116.28,103.53, but got {' '.join(words)!r}; "
            "with spaces between them, the option must stand after the file names"
        )
    return values[0], values[1], values[2]


def _spaced(values: Iterable[float]) -> str:
    return " ".join(f"{v:g}" for v in values)
