"""`edgeseg bag`: a rosbag2 recording with images in, one with masks out; without a ROS installation."""

from __future__ import annotations

import argparse
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeseg.apps.cli.options import add_backend_arguments, add_skip_broken_argument, engine_options, share
from edgeseg.apps.cli.progress import progress_for
from edgeseg.apps.cli.results import add_json_argument, only_results_on_stdout, print_json

if TYPE_CHECKING:
    from edgeseg.apps.ros.bag import BagFrame, ImageBag
    from edgeseg.segmenter import Segmenter

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `edgeseg bag`."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("source", type=Path, metavar="IN", help="a rosbag2 folder, or its .mcap or .db3 file")
    parser.add_argument("output", type=Path, metavar="OUT", help="the folder to make")
    parser.add_argument(
        "--topic",
        action="append",
        default=[],
        metavar="NAME",
        help="image topic to segment; may be repeated; default: the only one",
    )
    parser.add_argument("--overlay", action="store_true", help="write the colours over the image too")
    parser.add_argument(
        "--alpha", type=share, default=0.5, metavar="A", help="weight of the colours, 0..1 (default 0.5)"
    )
    parser.add_argument("--storage", choices=("mcap", "sqlite3"), help="of OUT; default: that of IN")
    add_skip_broken_argument(parser)
    parser.add_argument("--force", action="store_true", help="replace a bag that stands at OUT")
    add_backend_arguments(parser)
    add_json_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Segment the recording and print what was written."""
    import edgeseg
    from edgeseg.apps.ros.bag import ImageBag
    from edgeseg.apps.ros.masks import check_bag_output

    with (
        only_results_on_stdout(),
        ImageBag(options.source, options.topic, skip_broken=options.skip_broken) as bag,
    ):
        check_bag_output(options.output, source=options.source, force=options.force)
        with edgeseg.load(options.bundle, **engine_options(options)) as segmenter:
            done = _segment(segmenter, bag, options)
            done["backend"] = segmenter.backend_name
    if options.json:
        print_json(done)
    else:
        print(_text(done))
    return 0


def _segment(segmenter: Segmenter, bag: ImageBag, options: argparse.Namespace) -> dict[str, Any]:
    from edgeseg.apps.ros.masks import MaskBag, mask_topics

    storage = options.storage or bag.storage
    topics = {topic.name: mask_topics(topic.name, overlay=options.overlay) for topic in bag.topics}
    frames = dict.fromkeys(topics, 0)
    waiting: deque[BagFrame] = deque()
    start, infer = time.perf_counter(), 0.0
    with (
        MaskBag(options.output, segmenter.labels, storage, topics) as masks,
        progress_for(options.quiet).step("segment", len(bag)) as step,
    ):
        for result in segmenter.stream(_remember(bag, waiting)):
            frame = waiting.popleft()
            overlay = result.overlay(frame.image, options.alpha) if options.overlay else None
            masks.write(frame, result.class_map, overlay)
            frames[frame.topic] += 1
            infer += result.timing.infer
            step(1)
    count, seconds = sum(frames.values()), time.perf_counter() - start
    return {
        "output": str(options.output),
        "storage": storage,
        "topics": [{"image": name, **names, "frames": frames[name]} for name, names in topics.items()],
        "frames": count,
        "skipped": bag.skipped,
        "seconds": round(seconds, 3),
        "fps": count / seconds,
        "infer_ms": infer / count,
    }


def _remember(bag: ImageBag, waiting: deque[BagFrame]) -> Iterator[BagFrame]:
    """The frames, each kept until its result has come: `stream` keeps their order."""
    for frame in bag:
        waiting.append(frame)
        yield frame


def _text(done: dict[str, Any]) -> str:
    skipped = f", {done['skipped']} skipped" if done["skipped"] else ""
    lines = [
        f"{done['output']}: {done['frames']} frames{skipped} in {done['seconds']:.1f} s, "
        f"{done['fps']:.1f} frames/s end to end on {done['backend']}"
    ]
    for topic in done["topics"]:
        names = ", ".join(topic[kind] for kind in ("class_map", "label_info", "overlay") if kind in topic)
        lines.append(f"  {topic['image']} -> {names}")
    return "\n".join(lines)
