"""A command line, and a bundle whose answer is known."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.colours import COLOURS, HEIGHT, WIDTH, Run, brightest_channel, save_frame

from edgeseg.apps import cli
from edgeseg.bundle import write_bundle
from edgeseg.manifest import InputSpec, Layer, Manifest, Network, OutputSpec, Quantization, Scores


@pytest.fixture
def edgeseg(capfd: pytest.CaptureFixture[str], cache: Path) -> Run:
    """Runs a command line in this process; gives exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as ending:
            code = int(ending.code or 0)
        return code, *capfd.readouterr()

    return run


@pytest.fixture(scope="session")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled kernels of all tests: making them takes seconds."""
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture
def cache(kernels: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of this test, but for the kernels."""
    folder = tmp_path_factory.mktemp("cache")
    (folder / "kernels").symlink_to(kernels)
    monkeypatch.setenv("EDGESEG_CACHE_DIR", str(folder))
    monkeypatch.setenv("EDGESEG_BACKEND", "onnxruntime")
    return folder


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle of 24x32 pixels and the classes red, green and blue."""
    layer = Layer("classify", "Conv", "int8", 9 * HEIGHT * WIDTH)
    manifest = Manifest(
        network=Network("colours", "colours.onnx", "0" * 64, 17),
        input=InputSpec("frame", HEIGHT, WIDTH, "RGB", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
        output=OutputSpec("logits", "logits", 3, HEIGHT, WIDTH),
        labels=COLOURS,
        quantization=Quantization("mse", ("a", "b"), ("1", "2"), (layer, Layer("last", "Conv", "float", 0, "asked"))),
        scores=Scores("miou", 70.25, 70.0),
        files={},
        tools={"numpy": "2.0"},
    )
    return write_bundle(tmp_path / "colours.edgeseg", manifest, {"model.onnx": brightest_channel()}).path


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """Three frames, each of one colour over the left half and blue over the right: red, green, blue."""
    folder = tmp_path / "frames"
    folder.mkdir()
    for index, name in enumerate(COLOURS.names):
        save_frame(folder / f"{index}_{name}.png", index)
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The same frames with labels in which the network is right but for one column of the first frame."""
    root = tmp_path / "data"
    (root / "images").mkdir(parents=True)
    (root / "labels").mkdir()
    for index in range(3):
        image = save_frame(root / "images" / f"{index}.png", index)
        labels = image.argmax(axis=2).astype(np.uint8)
        if index == 0:
            labels[:, 0] = 1
        cv2.imwrite(str(root / "labels" / f"{index}.png"), labels)
    classes = [
        {"id": i, "name": n, "color": c} for i, (n, c) in enumerate(zip(COLOURS.names, COLOURS.palette, strict=True))
    ]
    (root / "labels.json").write_text(json.dumps(classes))
    return root
