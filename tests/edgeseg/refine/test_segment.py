"""Frames through a segmenter and a refinement."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from support.bundles import toy_bundle, toy_manifest
from support.fake_backend import FakeBackend

from edgeseg.backends import Target, TensorSpec
from edgeseg.errors import ShapeError, UsageError
from edgeseg.refine import PRESETS, REFINEMENTS, GridCRF, refinement, segment_refined, stream_refined
from edgeseg.segmenter import Segmenter

HEIGHT, WIDTH = 8, 12


@dataclass(frozen=True)
class Named:
    name: str
    image: np.ndarray


def frame(seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture
def segmenter(tmp_path: Path) -> Iterator[Segmenter]:
    backend = FakeBackend(size=(HEIGHT, WIDTH))

    def make(target: Target) -> object:
        return backend.load(backend.compile(b"graph", target), target)

    with Segmenter(toy_bundle(tmp_path / "toy.edgeseg"), backend, make, Target(threads=2)) as made:
        yield made


class TestLogits:
    @pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (31, 17), (4, 5)])
    def test_largest_is_the_class(self, segmenter: Segmenter, size: tuple[int, int]) -> None:
        image = frame(1, *size)
        logits = segmenter.logits(image)
        assert (logits.shape, logits.dtype) == ((4, *size), np.float32)
        assert np.array_equal(logits.argmax(axis=0), segmenter(image).class_map)

    def test_refuses_what_is_no_frame(self, segmenter: Segmenter) -> None:
        with pytest.raises(ShapeError, match="repeat a grey frame"):
            segmenter.logits(np.zeros((4, 4), np.uint8))

    def test_refuses_a_bundle_of_class_maps(self, tmp_path: Path) -> None:
        backend = FakeBackend(size=(HEIGHT, WIDTH))
        bundle = toy_bundle(tmp_path / "maps.edgeseg", toy_manifest(HEIGHT, WIDTH, kind="class-map"))

        def make(target: Target) -> object:
            engine = backend.load(backend.compile(b"graph", target), target)
            engine.outputs = (TensorSpec("class_map", (1, HEIGHT, WIDTH), "uint8"),)
            return engine

        with (
            Segmenter(bundle, backend, make, Target(threads=2)) as segmenter,
            pytest.raises(UsageError, match="gives class maps, not logits; convert the network without an argmax"),
        ):
            segmenter.logits(frame())


class TestSegment:
    def test_refines_at_the_size_of_the_frame(self, segmenter: Segmenter) -> None:
        image = frame(2, 31, 17)
        crf = GridCRF(8.0)
        result = segment_refined(segmenter, crf, image, 7, "seven", 1.5)
        assert result.class_map.dtype == np.uint8
        assert np.array_equal(result.class_map, crf(segmenter.logits(image), image).argmax(axis=0))
        assert (result.frame_number, result.name, result.timing.decode) == (7, "seven", 1.5)
        assert result.timing.total == pytest.approx(result.timing.infer + result.timing.postprocess)

    def test_streams_in_order(self, segmenter: Segmenter) -> None:
        frames = [Named(f"frame {seed}", frame(seed)) for seed in range(7)]
        found = list(stream_refined(segmenter, GridCRF(), frames))
        assert [(result.frame_number, result.name) for result in found] == [(i, f"frame {i}") for i in range(7)]
        for given, result in zip(frames, found, strict=True):
            assert np.array_equal(result.class_map, segment_refined(segmenter, GridCRF(), given.image).class_map)

    def test_an_error_comes_in_its_place(self, segmenter: Segmenter) -> None:
        frames = [Named("good", frame()), Named("bad", frame()[..., 0])]
        results = stream_refined(segmenter, GridCRF(), frames)
        assert next(results).name == "good"
        with pytest.raises(ShapeError, match="repeat a grey frame"):
            next(results)


class TestByName:
    def test_gives_presets(self) -> None:
        assert refinement("densecrf") is PRESETS["deeplab"]
        assert refinement("densecrf", "crfasrnn") is PRESETS["crfasrnn"]
        assert refinement("gridcrf") == GridCRF()
        assert set(REFINEMENTS) == {"densecrf", "gridcrf"}

    @pytest.mark.parametrize(
        ("name", "preset", "message"),
        [
            ("densecfr", None, "densecrf"),
            ("densecrf", "deeplap", "deeplab"),
            ("gridcrf", "deeplab", "gridcrf has no presets"),
        ],
    )
    def test_refuses(self, name: str, preset: str | None, message: str) -> None:
        with pytest.raises(UsageError, match=message):
            refinement(name, preset)
