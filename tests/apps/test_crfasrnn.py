"""A CRF-as-RNN on its whole way on the command line: trained, exported, converted, run with what it learned."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
from support.colours import Run
from support.training import write_data

import edgeseg as library
from edgeseg.refine import LearnedCRF


def test_from_training_to_refined_class_maps(edgeseg: Run, tmp_path: Path) -> None:
    data = write_data(write_data(tmp_path / "data", 4), 2, "val")
    network = ("--option", "width=0.02", "--deploy", "--size", "24x32")
    source = ("--data", f"folder:{data}", "--validation", f"folder:{data}")
    options = ("--batch", 2, "--epochs", 2, "--optimizer", "adamw", "--lr", 0.001, "--scale", 1, 1, "--device", "cpu")
    code, out, err = edgeseg("train", "crfasrnn", *network, *source, *options, "-o", tmp_path / "run", "-q", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["miou"] > 0

    code, out, err = edgeseg("export", tmp_path / "run" / "last.pt", "-o", tmp_path / "net.onnx")
    assert (code, err) == (0, "")
    crf = tmp_path / "net.crf.json"
    assert f"crf     {crf}, not in the graph: run the bundle with --refine densecrf --refine-preset {crf}" in out
    learned = LearnedCRF.read(crf)
    assert learned.classes == 4
    assert np.abs(learned.compatibility + np.eye(4)).max() > 1e-4

    frames = data / "images" / "train"
    assert edgeseg("convert", tmp_path / "net.onnx", "--frames", frames, "-q")[0] == 0
    bundle, maps = tmp_path / "net.edgeseg", tmp_path / "maps"
    refine = ("--refine", "densecrf", "--refine-preset", crf)
    code, _, err = edgeseg("run", bundle, data / "images" / "val", "-o", maps, "--class-map", *refine)
    assert (code, err) == (0, "")
    with library.load(bundle) as segmenter:
        for file in sorted((data / "images" / "val").iterdir()):
            image = np.ascontiguousarray(cv2.imread(str(file))[:, :, ::-1])
            found = cv2.imread(str(maps / file.name), cv2.IMREAD_UNCHANGED)
            assert np.array_equal(found, learned(segmenter.logits(image), image).argmax(0))
    code, out, err = edgeseg("evaluate", bundle, *source[:2], "--split", "val", *refine, "--boundary", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["refine"] == "densecrf"
    assert json.loads(out)["boundary_iou"]["pixels"] == [1, 1]
