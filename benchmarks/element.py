"""CPU time that the GStreamer element adds to a frame without a network, against the same pipeline without it.

    python benchmarks/element.py [--size 1080x1920] [--format RGB] [--frames 400] [--rounds 7] [--json]

The pipeline is `fakesrc` with frames of that size, which costs next to nothing by itself, and `fakesink`. In it stand,
in turns: nothing; `identity`; the element with `enabled=false`, which looks at no pixel; and the element with all but
the network: the frame mapped, its planes as arrays and what the network would see, a class map taken, counts,
statistics and the signal to a listener. Nothing is drawn: that is OpenCV's time, and grows with the frame. CPU time is
of the whole process, medians over the rounds; wall time on a busy machine says little.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.apps.camera.element import register, segmenters
from edgeseg.apps.camera.gst import gstreamer
from edgeseg.labels import LabelSet
from edgeseg.segmentation import Segmentation, Timing

FORMATS = ("RGB", "RGBx", "BGRx", "NV12")
NETWORK = (360, 480)
"""Input of the network that is not there: what NV12 is converted at."""


class NoNetwork:
    """Stands for a segmenter: the same class map for every frame."""

    def __init__(self, height: int, width: int) -> None:
        self.labels = LabelSet.numbered(4)
        self.bundle = SimpleNamespace(
            manifest=SimpleNamespace(input=SimpleNamespace(height=NETWORK[0], width=NETWORK[1]))
        )
        self.result = Segmentation(np.zeros((height, width), np.uint8), self.labels, Timing(0, 0, 0, 0, 0))

    def __call__(self, frame: NDArray[Any]) -> Segmentation:
        return self.result

    def close(self) -> None:
        """Nothing to free."""


def played(middle: str, caps: str, size: int, frames: int) -> float:
    """CPU ms a frame of one run."""
    gst = gstreamer().Gst
    pipeline = gst.parse_launch(
        f"fakesrc num-buffers={frames} sizetype=fixed sizemax={size} filltype=nothing format=time ! {caps} ! "
        f"{middle} fakesink name=sink"
    )
    element = pipeline.get_by_name("element")
    if element is not None:
        element.connect("segmented", lambda *_: None)
    pipeline.set_state(gst.State.PAUSED)
    pipeline.get_state(gst.CLOCK_TIME_NONE)
    started = time.process_time()
    pipeline.set_state(gst.State.PLAYING)
    message = pipeline.get_bus().timed_pop_filtered(gst.CLOCK_TIME_NONE, gst.MessageType.EOS | gst.MessageType.ERROR)
    used = time.process_time() - started
    if message.type == gst.MessageType.ERROR:
        raise SystemExit(f"the pipeline failed: {message.parse_error()[0].message}")
    pipeline.set_state(gst.State.NULL)
    return 1e3 * used / frames


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="1080x1920", help="HEIGHTxWIDTH")
    parser.add_argument("--format", default="RGB", choices=FORMATS)
    parser.add_argument("--frames", type=int, default=400, help="of one run")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    height, width = map(int, options.size.split("x"))
    register()
    gst = gstreamer()
    caps = f"video/x-raw,format={options.format},width={width},height={height},framerate=30/1"
    size = gst.GstVideo.VideoInfo.new_from_caps(gst.Gst.Caps.from_string(caps)).size
    with tempfile.TemporaryDirectory() as folder:
        os.environ["EDGESEG_CACHE_DIR"] = folder
        network: Any = NoNetwork(height, width)
        bundle = Path(folder).resolve()
        segmenters.shared._open[segmenters.SegmenterKey(bundle, "auto", None)] = (network, 1)
        variants = {
            "nothing": "",
            "identity": "identity !",
            "disabled": "edgeseg enabled=false !",
            "no_network": f"edgeseg name=element model={bundle} overlay=none !",
        }
        times: dict[str, list[float]] = {name: [] for name in variants}
        for _ in range(options.rounds):
            for name, middle in variants.items():
                times[name].append(played(middle, caps, size, options.frames))
    result: dict[str, Any] = {f"{name}_cpu_ms": float(np.median(values)) for name, values in times.items()}
    for name in ("disabled", "no_network"):
        result[f"{name}_added_ms"] = float(np.median(np.subtract(times[name], times["nothing"])))
    print(json.dumps(result) if options.json else "\n".join(f"{name:20} {value:.4f}" for name, value in result.items()))


if __name__ == "__main__":
    main()
