"""`edgeseg run --tile`: large images in bounded memory."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from support.colours import Run, save_frame

from benchmarks.peers.limited_process import Limits, run_limited
from edgeseg.segmenter import Segmenter


def read(path: Path) -> np.ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert image is not None, path
    return image


def save_large(path: Path, height: int = 100, width: int = 150, seed: int = 0) -> np.ndarray:
    """Random pixels; gives the class map: of the network under test the brightest channel."""
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    cv2.imwrite(str(path), image[:, :, ::-1])
    return image.argmax(axis=2).astype(np.uint8)


class TestImages:
    @pytest.mark.parametrize("suffix", [".png", ".tif"])
    def test_one_image(self, suffix: str, edgeseg: Run, bundle: Path, tmp_path: Path) -> None:
        wanted = save_large(tmp_path / f"large{suffix}")
        code, out, err = edgeseg(
            "run", bundle, tmp_path / f"large{suffix}", "-o", tmp_path / "map.png", "--class-map", "--tile", "network"
        )
        assert (code, err) == (0, "")
        assert np.array_equal(read(tmp_path / "map.png"), wanted)
        assert "1 frames as 36 tiles of 24x32 in" in out

    def test_json(self, edgeseg: Run, bundle: Path, tmp_path: Path) -> None:
        save_large(tmp_path / "large.png")
        out = edgeseg(
            "run", bundle, tmp_path / "large.png", "-o", tmp_path / "out", "--tile", "48x64", "--overlap", 4, "--json"
        )[1]
        found = json.loads(out)
        assert (found["tile"], found["overlap"], found["tiles"], found["frames"]) == ([48, 64], 4, 9, 1)
        assert found["infer_ms"] > 0

    def test_without_tiles_json_has_none(self, edgeseg: Run, bundle: Path, frames: Path, tmp_path: Path) -> None:
        found = json.loads(edgeseg("run", bundle, frames, "-o", tmp_path / "out", "--json")[1])
        assert (found["tile"], found["overlap"], found["tiles"]) == (None, None, None)

    def test_a_folder_of_several_sizes(self, edgeseg: Run, bundle: Path, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        sizes = [(100, 150), (24, 32), (7, 90), (61, 20)]
        wanted = [save_large(tmp_path / "in" / f"{i}.png", *size, i) for i, size in enumerate(sizes)]
        arguments = ("--tile", "network", "--class-map", "--overlay", "--json")
        code, out, _ = edgeseg("run", bundle, tmp_path / "in", "-o", tmp_path / "out", *arguments)
        assert code == 0
        assert json.loads(out)["frames"] == 4
        for i, classes in enumerate(wanted):
            assert np.array_equal(read(tmp_path / "out" / "class_maps" / f"{i}.png"), classes)
            assert read(tmp_path / "out" / "overlays" / f"{i}.jpg").shape == (*sizes[i], 3)

    def test_a_video(self, edgeseg: Run, bundle: Path, frames: Path, tmp_path: Path) -> None:
        for file in frames.iterdir():
            save_frame(file, int(file.name[0]), 96, 128)
        assert edgeseg("run", bundle, frames, "-o", tmp_path / "a.avi")[0] == 0
        code, out, _ = edgeseg(
            "run", bundle, tmp_path / "a.avi", "-o", tmp_path / "b.avi", "--tile", "network", "--json"
        )
        assert code == 0
        assert json.loads(out)["frames"] == 3
        assert cv2.VideoCapture(str(tmp_path / "b.avi")).get(cv2.CAP_PROP_FRAME_COUNT) == 3

    def test_refined(self, edgeseg: Run, bundle: Path, tmp_path: Path) -> None:
        save_frame(tmp_path / "large.png", 1, 60, 100)
        arguments = ("--class-map", "--tile", "network", "--refine", "gridcrf")
        assert edgeseg("run", bundle, tmp_path / "large.png", "-o", tmp_path / "map.png", *arguments)[0] == 0
        classes = read(tmp_path / "map.png")
        assert (classes[:, :50] == 1).all()
        assert (classes[:, 50:] == 2).all()

    def test_distorted_tiles_are_told(self, edgeseg: Run, bundle: Path, tmp_path: Path) -> None:
        save_large(tmp_path / "large.png")
        code, _, err = edgeseg("run", bundle, tmp_path / "large.png", "-o", tmp_path / "out", "--tile", 48)
        assert code == 0
        assert err == (
            "edgeseg: warning: tiles of 48x48 are distorted to the network's input of 24x32 (height x width); --tile "
            "network shows it every pixel as it is\n"
        )


class TestProgress:
    @pytest.fixture
    def steps(self, monkeypatch: pytest.MonkeyPatch) -> list[list[Any]]:
        """Title, total and units done of every bar."""
        opened: list[list[Any]] = []

        class Recorder:
            def step(self, title: str, total: int | None) -> Any:
                @contextlib.contextmanager
                def bar() -> Iterator[Any]:
                    opened.append([title, total, 0])
                    yield lambda units: opened[-1].__setitem__(2, opened[-1][2] + units)

                return bar()

        monkeypatch.setattr("edgeseg.apps.cli.run.progress_for", lambda quiet: Recorder())
        return opened

    def test_counts_the_tiles_of_one_image(
        self, steps: list[list[Any]], edgeseg: Run, bundle: Path, tmp_path: Path
    ) -> None:
        save_large(tmp_path / "large.png")
        edgeseg("run", bundle, tmp_path / "large.png", "-o", tmp_path / "out", "--tile", "network")
        assert steps == [["segment (tiles)", 36, 36]]

    def test_counts_frames_where_there_are_several(
        self, steps: list[list[Any]], edgeseg: Run, bundle: Path, frames: Path, tmp_path: Path
    ) -> None:
        edgeseg("run", bundle, frames, "-o", tmp_path / "out", "--tile", "network")
        assert steps == [["segment", 3, 3]]


class TestBadInput:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (
                ("--tile", "64", "--overlap", "32"),
                "the overlap of tiles of 64x64 must be 0 to 31, less than half a tile",
            ),
            (("--tile", "4"), "a tile has 8 to 8192 pixels a side, but 4x4 (height x width) was asked for"),
            (("--tile", "9000"), "but 9000x9000 (height x width) was asked for"),
            (("--tile", "network", "--overlap", "12"), "the overlap of tiles of 24x32 must be 0 to 11"),
            (("--tile", "512", "--overlap", "999999999"), "but is 999999999"),
            (
                ("--tile", "99999999999999999999"),
                "expected pixels such as 512, HEIGHTxWIDTH such as 360x480, or network",
            ),
            (("--tile", "0"), "or network, but got '0'"),
            (("--tile", "-5"), "or network, but got '-5'"),
            (("--tile", "auto"), "or network, but got 'auto'"),
            (("--tile", "64", "--overlap", "1.5"), "expected a whole number of pixels from 0, but got '1.5'"),
            (("--overlap", "8"), "--overlap is for tiles: give --tile beside it, such as --tile network"),
        ],
    )
    def test_usage(
        self, arguments: tuple[str, ...], message: str, edgeseg: Run, bundle: Path, frames: Path, tmp_path: Path
    ) -> None:
        code, out, err = edgeseg("run", bundle, frames, "-o", tmp_path / "out", *arguments)
        assert (code, out) == (2, "")
        assert message in err
        assert not (tmp_path / "out").exists()

    def test_ctrl_c_between_tiles_leaves_nothing(
        self, edgeseg: Run, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        save_large(tmp_path / "large.png")
        stream = Segmenter.stream

        def interrupted(self: Segmenter, *arguments: Any, **options: Any) -> Iterator[Any]:
            for number, result in enumerate(stream(self, *arguments, **options)):
                if number == 5:
                    raise KeyboardInterrupt
                yield result

        monkeypatch.setattr(Segmenter, "stream", interrupted)
        code, out, err = edgeseg("run", bundle, tmp_path / "large.png", "-o", tmp_path / "out", "--tile", "network")
        assert (code, out, err) == (130, "", "edgeseg: interrupted\n")
        assert os.listdir(tmp_path / "out") == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "result"), [("--class-map", "map.png"), ("--overlay", "a.jpg"), ("--overlay", "a.png")]
)
def test_memory_of_ten_thousand_pixels_a_side(
    kind: str, result: str, bundle: Path, cache: Path, tmp_path: Path
) -> None:
    """In a process of its own, all told; tiles of 512 are resized to the small network."""
    column = np.random.default_rng(0).integers(0, 256, (10_000, 1, 3), np.uint8)
    image = np.repeat(column, 10_000, axis=1)
    image[:, ::7] //= 2
    cv2.imwrite(str(tmp_path / "large.png"), image)
    arguments = [
        "run",
        bundle,
        tmp_path / "large.png",
        "-o",
        tmp_path / result,
        kind,
        "--tile",
        512,
        "--overlap",
        64,
        "--json",
    ]
    outcome = run_limited([sys.executable, "-m", "edgeseg", *map(str, arguments)], Limits(1800, 3))
    assert outcome.problem == ""
    assert json.loads(outcome.stdout)["tiles"] == 26**2
    assert outcome.peak_mb < 1500
