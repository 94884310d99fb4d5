"""Rendered scenes as frames and as labelled data."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from edgeseg.calibration import scenes
from edgeseg.calibration.datasets import labelled_from
from edgeseg.calibration.frames import frames_from
from edgeseg.calibration.scenes import SceneFrames, open_scene
from edgeseg.errors import UsageError
from edgeseg.labels import load_labels
from edgeseg.scenes import Scene, Street, render

SMALL = "scene://street?count=6&seed=4&size=32x48"


class TestFrames:
    def test_are_those_of_the_drive(self) -> None:
        source = frames_from(SMALL)
        assert len(source) == 6
        assert source.names == tuple(f"street4_{n:06d}" for n in range(6))
        frames = list(source)
        assert [frame.name for frame in frames] == list(source.names)
        assert np.array_equal(frames[2].image, render(Street(4), 2, 32, 48).image)
        assert source.skipped == 0

    def test_again_and_again(self) -> None:
        source = frames_from(SMALL).select(2)
        digests = [frame.digest for frame in source]
        assert [frame.digest for frame in source] == digests
        assert len(set(digests)) == 2

    def test_streets_are_visited_evenly(self) -> None:
        source = SceneFrames(count=7, seed=10, streets=3, every=5)
        assert source.names == (
            *("street10_000000", "street10_000005", "street10_000010"),
            *("street11_000000", "street11_000005"),
            *("street12_000000", "street12_000005"),
        )

    def test_subsets(self) -> None:
        source = SceneFrames(count=9, streets=3)
        assert source.select(3).names == ("street0_000000", "street1_000001", "street2_000002")
        rest = source.select(3).exclude({"street1_000001"})
        assert rest.names == ("street0_000000", "street2_000002")
        assert len(rest.exclude(rest.names)) == 0

    def test_are_rendered_on_demand(self, monkeypatch: pytest.MonkeyPatch) -> None:
        rendered: list[int] = []

        def fake(street: Street, number: int, height: int, width: int) -> Scene:
            rendered.append(number)
            return Scene(np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.uint8))

        monkeypatch.setattr(scenes, "render", fake)
        frames: Iterator[object] = iter(SceneFrames(count=1000, height=16, width=16))
        next(frames)
        assert rendered == [0]


class TestData:
    def test_brings_its_labels(self) -> None:
        data = labelled_from(SMALL, "train")
        assert data.label_set == load_labels("camvid")
        assert len(data) == 6
        item = next(iter(data.exclude({data.names[0]})))
        assert item.frame.name == "street4_000001"
        assert np.array_equal(item.labels, render(Street(4), 1, 32, 48).labels)
        assert [found.frame.name for found in data.select(2)] == ["street4_000000", "street4_000005"]


class TestAddress:
    def test_defaults(self) -> None:
        assert open_scene("scene://street") == SceneFrames()
        assert open_scene("scene:/street") == SceneFrames()  # as pathlib writes it

    def test_all_options(self) -> None:
        found = open_scene("scene://street?count=8&seed=3&size=64x96&streets=2&every=5")
        assert found == SceneFrames(8, 64, 96, 3, 2, 5)

    @pytest.mark.parametrize(
        ("spec", "message"),
        [
            ("scene://stret", "unknown scene 'stret'.*street.*write it as scene://street"),
            ("scene://", "unknown scene ''"),
            ("scene://street?seeds=1", "unknown option of a scene 'seeds'.*seed"),
            ("scene://street?seed=1&seed=2", "gives seed twice"),
            ("scene://street?", r"has no option after the \?"),
            ("scene://street?count", "count of a scene must be a whole number, but is ''"),
            ("scene://street?count=-1", "must be a whole number, but is '-1'"),
            ("scene://street?count=0", "count of a scene must be 1 to 1000000, but is 0"),
            ("scene://street?seed=9999999999", "seed of a scene must be 0 to"),
            (
                "scene://street?size=360",
                "size of a scene must be HEIGHTxWIDTH in pixels, such as 360x480, but is '360'",
            ),
            ("scene://street?size=8x480", "16 to 4096 pixels a side, but 8x480"),
            ("scene://street?count=2&streets=3", "2 frames cannot visit 3 streets; give a count of at least 3"),
        ],
    )
    def test_refuses(self, spec: str, message: str) -> None:
        for opened in (frames_from, labelled_from):
            with pytest.raises(UsageError, match=message):
                opened(spec)
