"""Published networks with their own weights in every form: what they give on real frames, and what a builder makes."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from support.graphs import cpu_session

from benchmarks.networks import NETWORKS
from edgeseg.calibration.cache import read_cache
from edgeseg.calibration.datasets import pair_labels
from edgeseg.calibration.frames import FrameSource, frames_from
from edgeseg.calibration.table import read_table
from edgeseg.converters.convert import convert
from edgeseg.converters.joined import with_partners
from edgeseg.converters.lint import lint
from edgeseg.converters.options import ConvertResult
from edgeseg.converters.place import place_qdq, plan_placement, remove_qdq
from edgeseg.converters.targets import FORMS, derive, measure_missing, missing_ranges, with_class_map
from edgeseg.converters.verify import verify
from edgeseg.frame import fit_frame
from edgeseg.labels import load_mapping
from edgeseg.upsample import nearest_class_map, upsampling

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Case:
    """A network of ../shared/models.

    Attributes:
        name: in the benchmarks' registry.
        int8: its convolutions.
        agreement: share of the pixels of which the form "fp16" at least keeps the class.
    """

    name: str
    int8: int
    agreement: float


# ESPNetv2 s=0.5 is unsure of its classes on these frames: its weights alone, rounded to float16 with everything else in
# float32, move 0.09 % of the pixels.
CASES = [Case("espnet", 82, 0.999), Case("espnetv2-s0.5", 123, 0.998)]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


@pytest.fixture(scope="module")
def converted(case: Case, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> ConvertResult:
    """The network with 6 calibration frames."""
    folder = tmp_path_factory.mktemp("targets")
    camvid = shared / "data" / "camvid"
    listing = folder / "val.txt"
    listing.write_text("\n".join(str(camvid / "val" / "images" / name) for name in val_frames(shared).names))
    options = replace(NETWORKS[case.name].options, count=6, score_frames=str(listing), output=folder / "b.edgeseg")
    return convert(shared / "models" / NETWORKS[case.name].file, str(camvid / "train" / "images"), options)


def val_frames(shared: Path) -> FrameSource:
    return frames_from(shared / "data" / "camvid" / "val" / "images").select(3)


@pytest.fixture(scope="module")
def model(converted: ConvertResult) -> onnx.ModelProto:
    return onnx.load_from_string(converted.bundle.read_model())


@pytest.fixture(scope="module")
def full(converted: ConvertResult, model: onnx.ModelProto, shared: Path) -> dict[str, float]:
    """Ranges of all tensors: those of the bundle's cache, and the others measured on two frames."""
    _, ranges = read_cache((converted.bundle.path / "calibration.cache").read_bytes())
    assert missing_ranges(model, ranges)
    spec = converted.bundle.manifest.input
    frames = frames_from(shared / "data" / "camvid" / "train" / "images").select(2)
    feeds = ({spec.tensor: fit_frame(frame.image, spec.height, spec.width)} for frame in frames)
    return measure_missing(model, ranges, feeds)


def predictor(model: onnx.ModelProto, converted: ConvertResult) -> Callable[[Image], Image]:
    """The class map of a frame by ONNX Runtime, which rounds to float16 behind every node that computes in it."""
    manifest = converted.bundle.manifest
    graph, _ = with_class_map(model, manifest.output, manifest.input)
    session = cpu_session(graph)

    def predict(frame: Image) -> Image:
        feed = {manifest.input.tensor: fit_frame(frame, manifest.input.height, manifest.input.width)}
        class_map = session.run(None, feed)[0][0]
        axes = upsampling(frame.shape[:2], class_map.shape, class_map.shape, None)
        return nearest_class_map(class_map, axes.rows, axes.columns)

    return predict


def agreement(first: Callable[[Image], Image], second: Callable[[Image], Image], frames: FrameSource) -> float:
    """Share of the pixels of which two networks say the same class."""
    return float(np.mean([np.mean(first(frame.image) == second(frame.image)) for frame in frames]))


def test_float16_gives_the_class_map(
    case: Case, converted: ConvertResult, model: onnx.ModelProto, shared: Path
) -> None:
    found = predictor(derive("fp16", model).model, converted)
    assert case.agreement <= agreement(predictor(remove_qdq(model), converted), found, val_frames(shared)) < 1


def test_float16_with_quantizers_stays_within_their_error(
    case: Case, converted: ConvertResult, model: onnx.ModelProto, shared: Path
) -> None:
    """One rounding that flips grows with Q/DQ (docs/decisions.md, 7), but to less than Q/DQ itself does."""
    int8, frames = predictor(model, converted), val_frames(shared)
    found = agreement(predictor(derive("fp16_qdq", model).model, converted), int8, frames)
    assert max(0.97, agreement(predictor(remove_qdq(model), converted), int8, frames)) < found < 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fp16", "fp16_qdq"])
def test_float16_costs_no_accuracy(
    case: Case, converted: ConvertResult, model: onnx.ModelProto, shared: Path, name: str
) -> None:
    """Mean IoU on all frames; on a few of them it is chance."""
    camvid, labels = shared / "data" / "camvid" / "val", converted.bundle.manifest.labels
    mapping = NETWORKS[case.name].options.mapping
    known = load_mapping(mapping, labels) if mapping else None
    frames = frames_from(camvid / "images")
    items = pair_labels(frames, camvid / "labels", (known.target if known else labels).classes())
    reference = predictor(remove_qdq(model) if name == "fp16" else model, converted)
    form = predictor(derive(name, model).model, converted)
    verification = verify(reference, form, zip(frames, items, strict=True), labels, known)
    assert verification.scores.float_score > 40
    assert abs(verification.scores.drop) <= 0.1


@pytest.mark.parametrize("name", FORMS)
def test_follows_its_rules(name: str, model: onnx.ModelProto, full: dict[str, float]) -> None:
    derived = derive(name, model, full)
    assert lint(derived.model, FORMS[name].profile) == []


def test_tensorrt8_is_the_canonical_graph(model: onnx.ModelProto) -> None:
    assert derive("tensorrt8", model).model.graph.node == model.graph.node


def test_cache_gives_the_canonical_network(
    converted: ConvertResult, model: onnx.ModelProto, full: dict[str, float], shared: Path
) -> None:
    derived = derive("implicit_int8", model, full)
    _, ranges = read_cache(derived.cache)
    taken = read_table(converted.bundle, "comparing").partners
    placement = with_partners(plan_placement(derived.model, partners="auto"), taken)
    again = place_qdq(derived.model, placement, ranges)
    image = next(iter(val_frames(shared))).image
    np.testing.assert_array_equal(predictor(again, converted)(image), predictor(model, converted)(image))


@pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed (extra edgeseg[rtx])"
)
@pytest.mark.parametrize("name", [name for name, form in FORMS.items() if form.rtx])
def test_builder_takes_it(case: Case, model: onnx.ModelProto, name: str, shared: Path, tmp_path: Path) -> None:
    onnx.save(derive(name, model).model, tmp_path / "model.onnx")
    command = [sys.executable, str(shared / "tools" / "trt_oracle.py"), str(tmp_path / "model.onnx")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    report = json.loads(run.stdout)
    assert report["parsed"], report["parse_errors"]
    assert report["built"], report["errors"]
    kinds = Counter(layer["dtype"] for layer in report["compute"])
    if FORMS[name].int8:
        assert kinds["Int8"] == case.int8
        assert set(kinds) == {"Int8", "Float" if name == "canonical" else "Half"}
    else:
        # Without Q/DQ a few 1x1 convolutions behind a global pooling are no layers of their own.
        assert set(kinds) == {"Half"}
        assert kinds["Half"] >= case.int8
