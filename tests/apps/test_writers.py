from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeseg.apps.writers import VIDEO_CODECS, VideoWriter, check_output, file_stems, write_image
from edgeseg.errors import OutputError

RED = np.full((24, 32, 3), (200, 10, 30), np.uint8)


class TestWriteImage:
    def test_colours_are_rgb(self, tmp_path: Path) -> None:
        write_image(tmp_path / "a.png", RED)
        assert cv2.imread(str(tmp_path / "a.png"))[0, 0].tolist() == [30, 10, 200]
        assert os.listdir(tmp_path) == ["a.png"]

    def test_an_image_that_is_spent_is_written_from_its_own_memory(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        image = np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8)
        before, encode, shared = image.copy(), cv2.imencode, []

        def encoded(ending: str, pixels: np.ndarray) -> Any:
            shared.append(np.shares_memory(pixels, image))
            return encode(ending, pixels)

        monkeypatch.setattr(cv2, "imencode", encoded)
        write_image(tmp_path / "kept.png", image)
        assert np.array_equal(image, before)
        write_image(tmp_path / "spent.png", image, spent=True)
        assert shared == [False, True]
        for name in ("kept.png", "spent.png"):
            assert np.array_equal(cv2.imread(str(tmp_path / name))[:, :, ::-1], before)

    def test_a_class_map_is_one_lossless_channel(self, tmp_path: Path) -> None:
        classes = np.arange(256, dtype=np.uint8).reshape(16, 16)
        write_image(tmp_path / "a.png", classes)
        assert np.array_equal(cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED), classes)

    @pytest.mark.parametrize("name", ["a.xyz", "a"])
    def test_an_unknown_format(self, name: str, tmp_path: Path) -> None:
        with pytest.raises(OutputError, match=r"use \.png or \.jpg"):
            write_image(tmp_path / name, RED)

    def test_a_full_disk_loses_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = tmp_path / "a.png"
        file.write_text("old")

        def full(*arguments: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(Path, "write_bytes", full)
        with pytest.raises(OutputError, match=r"cannot write .*a\.png: the disk is full; free some space"):
            write_image(file, RED)
        assert file.read_text() == "old"
        assert os.listdir(tmp_path) == ["a.png"]

    def test_a_missing_folder(self, tmp_path: Path) -> None:
        with pytest.raises(OutputError, match=r"No such file or directory; choose another place with -o"):
            write_image(tmp_path / "none" / "a.png", RED)


class TestCheckOutput:
    def test_free_places(self, tmp_path: Path) -> None:
        check_output(tmp_path, force=False)
        check_output(tmp_path / "new", force=False)

    def test_a_file_that_exists(self, tmp_path: Path) -> None:
        file = tmp_path / "a.mp4"
        file.write_text("x")
        with pytest.raises(
            OutputError, match=r"a\.mp4 exists; choose another place with -o or write into it with --force"
        ):
            check_output(file, force=False)
        check_output(file, force=True)

    def test_a_folder_that_is_not_empty(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_text("x")
        with pytest.raises(OutputError, match="exists and is not empty"):
            check_output(tmp_path, force=False)
        check_output(tmp_path, force=True)

    def test_a_parent_that_does_not_exist(self, tmp_path: Path) -> None:
        with pytest.raises(OutputError, match=r"the folder .*none does not exist; create it first"):
            check_output(tmp_path / "none" / "out", force=False)

    def test_a_folder_without_permission(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
        with pytest.raises(OutputError, match="no permission in"):
            check_output(tmp_path / "out", force=False)


class TestFileStems:
    def test_stems(self) -> None:
        assert file_stems(["images/a.jpg", "b.png", "clip_000001"]) == ["a", "b", "clip_000001"]

    def test_equal_stems_keep_their_folders_and_endings(self) -> None:
        assert file_stems(["x/a.jpg", "y/a.jpg"]) == ["x_a.jpg", "y_a.jpg"]

    def test_names_that_still_collide_are_numbered(self) -> None:
        assert file_stems(["x/a.jpg", "x_a.jpg", "y/a.jpg"]) == ["000000_x_a.jpg", "000001_x_a.jpg", "000002_y_a.jpg"]


def write_video(file: Path, frames: Iterable[NDArray[np.uint8]]) -> None:
    with VideoWriter(file, 12.5) as writer:
        for frame in frames:
            writer.write(frame)


def interrupted() -> Iterator[NDArray[np.uint8]]:
    yield RED
    raise KeyboardInterrupt


class TestVideoWriter:
    @pytest.mark.parametrize("suffix", VIDEO_CODECS)
    def test_can_be_read_again(self, suffix: str, tmp_path: Path) -> None:
        file = tmp_path / f"a{suffix}"
        write_video(file, [RED] * 5)
        video = cv2.VideoCapture(str(file))
        frames = []
        while (read := video.read())[0]:
            frames.append(read[1])
        assert len(frames) == 5
        assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(12.5)
        assert np.abs(frames[4][12, 16].astype(int) - (30, 10, 200)).max() < 12
        assert os.listdir(tmp_path) == [file.name]

    def test_an_error_leaves_nothing_and_keeps_the_old(self, tmp_path: Path) -> None:
        file = tmp_path / "a.mp4"
        file.write_text("old")
        with pytest.raises(KeyboardInterrupt):
            write_video(file, interrupted())
        assert file.read_text() == "old"
        assert os.listdir(tmp_path) == ["a.mp4"]

    def test_frames_of_two_sizes(self, tmp_path: Path) -> None:
        with pytest.raises(OutputError, match=r"after \(32, 24\) came \(16, 24\)"):
            write_video(tmp_path / "a.mp4", [RED, RED[:, :16]])
        assert os.listdir(tmp_path) == []

    def test_a_video_that_was_cut_by_a_full_disk(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("edgeseg.apps.writers._count_frames", lambda file: 1)
        with pytest.raises(OutputError, match=r"2 frames were written, but 1 can be read again; is the disk full\?"):
            write_video(tmp_path / "a.mp4", [RED, RED])
        assert os.listdir(tmp_path) == []

    def test_no_frame_at_all(self, tmp_path: Path) -> None:
        with pytest.raises(OutputError, match="0 frames were written"):
            write_video(tmp_path / "a.mp4", [])
