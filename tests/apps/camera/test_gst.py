"""GStreamer in one process with the engines."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.bundles import quantized_bundle

from edgeseg.apps.camera.gst import first_structure


@pytest.mark.usefixtures("gst")
@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_comes_before_an_engine(tmp_path: Path, backend: str) -> None:
    """OpenVINO throws and catches while it compiles, which libunwind, linked to GStreamer, must not take over."""
    bundle = quantized_bundle(tmp_path / "toy.edgeseg").path
    code = (
        "import numpy as np, edgeseg\n"
        "from edgeseg.apps.camera.gst import gstreamer\n"
        "gstreamer().Gst.parse_launch('videotestsrc ! fakesink')\n"
        f"with edgeseg.load({str(bundle)!r}, backend={backend!r}, threads=1) as segmenter:\n"
        "    print(segmenter(np.zeros((32, 48, 3), np.uint8)).class_map.shape)\n"
    )
    environment = {**os.environ, "EDGESEG_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "(32, 48)\n", "")


class TestFirstStructure:
    def test_of_caps(self, gst: Any) -> None:
        with first_structure(gst.Gst.Caps.from_string("video/x-raw,format=RGB; video/x-raw,format=I420")) as structure:
            assert structure.get_value("format") == "RGB"

    @pytest.mark.parametrize("handed_out", [lambda found: found, contextlib.nullcontext])
    def test_of_caps_as_versions_give_it(self, handed_out: Any) -> None:
        found = object()
        with first_structure(SimpleNamespace(get_structure=lambda _: handed_out(found))) as structure:
            assert structure is found
