"""Networks whose logits are larger than their input: the class map keeps that size until frames sample it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from support.frames import frame_folder, label_folder
from support.graphs import GraphBuilder, run_graph, toy_network

import edgeseg
from edgeseg.calibration.frames import frames_from
from edgeseg.converters.convert import convert
from edgeseg.converters.embed import cut_upsampling
from edgeseg.converters.lint import lint
from edgeseg.converters.load import load_network
from edgeseg.converters.network import as_given, network_on_cpu
from edgeseg.converters.options import ConvertOptions
from edgeseg.converters.prepare import prepare

UNIT = ConvertOptions(mean=(127.5, 127.5, 127.5), std=(63.75, 63.75, 63.75))
SIZE, MAP = (32, 48), (64, 96)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A network of 32x48 pixels with logits of 64x96."""
    path = tmp_path / "large.onnx"
    onnx.save(toy_network(4, *SIZE, scale=8), path)
    return path


def expected(model: Path, frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The class map by ONNX Runtime of a frame of the network's size, sampled at `size`."""
    image = ((frame.astype(np.float32) - 127.5) / 63.75).transpose(2, 0, 1)[None]
    (logits,) = run_graph(onnx.load(model), image=np.ascontiguousarray(image))
    classes = logits[0].argmax(0).astype(np.uint8)
    rows, columns = (np.arange(n) * m // n for n, m in zip(size, MAP, strict=True))
    return classes[rows[:, None], columns[None, :]]


def test_the_size_is_read_from_the_network(model: Path) -> None:
    loaded = load_network(model)
    assert ((loaded.height, loaded.width), loaded.map_size) == (SIZE, MAP)
    _, rule = cut_upsampling(loaded.model, loaded.map_size)
    assert rule == "half_pixel"


def test_the_float_graph_gives_the_networks_class_map(model: Path, tmp_path: Path) -> None:
    prepared = prepare(model, UNIT)
    assert (prepared.output.height, prepared.output.width) == (8, 12)
    frame = next(iter(frames_from(frame_folder(tmp_path / "frames", 1, *SIZE)))).image
    large = np.repeat(np.repeat(frame, 2, axis=0), 2, axis=1)  # resized to the network's size it is `frame` again
    with network_on_cpu(prepared, prepared.model, prepared.output) as canonical, as_given(prepared) as given:
        for predict in (canonical, given):
            assert np.array_equal(predict(frame), expected(model, frame, SIZE))
            assert np.mean(predict(large) == expected(model, frame, MAP)) > 0.999


@pytest.mark.parametrize("kind", ["logits", "class-map"])
def test_a_bundle(model: Path, tmp_path: Path, kind: str) -> None:
    frames = frame_folder(tmp_path / "frames", 8, *MAP)
    labels = label_folder(tmp_path / "labels", 8, 4, *MAP)
    options = dataclasses.replace(UNIT, output_kind=kind, labels=labels)
    bundle = convert(model, str(frames), options).bundle
    assert bundle.manifest.map_size == MAP
    assert lint(onnx.load_from_string(bundle.read_model())) == []
    report = json.loads((bundle.path / "report.json").read_text())
    assert (report["output"]["map_height"], report["output"]["map_width"]) == MAP
    assert "64 \u00d7 96" in (bundle.path / "report.html").read_text()
    with edgeseg.load(bundle.path, backend="onnxruntime") as segmenter:
        frame = next(iter(frames_from(frames))).image
        found = segmenter(frame).class_map
    assert found.shape == MAP
    # Pixels of one input pixel differ somewhere: the map is not one of the input's size, repeated.
    assert (found[::2] != found[1::2]).any()


def test_logits_without_a_last_resize(tmp_path: Path) -> None:
    builder = GraphBuilder()
    x = builder.conv("image", 3, 8, stride=2, name="stem")
    x = builder.conv_transpose(builder.conv_transpose(x, 8, 8), 8, 4)
    onnx.save(builder.model(x, (1, 3, *SIZE)), tmp_path / "net.onnx")
    prepared = prepare(tmp_path / "net.onnx", UNIT)
    assert (prepared.output.height, prepared.output.width, prepared.output.coordinates) == (*MAP, None)
    frame = next(iter(frames_from(frame_folder(tmp_path / "frames", 1, *SIZE)))).image
    with network_on_cpu(prepared, prepared.model, prepared.output) as canonical:
        assert np.mean(canonical(frame) == expected(tmp_path / "net.onnx", frame, SIZE)) > 0.999
