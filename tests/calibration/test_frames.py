"""Frame sources made of image files, and the function that chooses among all sources."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeseg.calibration.frames import Frame, evenly_spaced, frames_from
from edgeseg.errors import FrameError, ShapeError


def write_frame(path: Path, value: int = 50) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((6, 8, 3), value, np.uint8))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten frames 00.png .. 09.png of rising brightness, and files that are no frames."""
    for i in range(10):
        write_frame(tmp_path / f"{i:02}.png", i * 20)
    (tmp_path / "notes.txt").write_text("ten frames")
    write_frame(tmp_path / ".hidden.png")
    return tmp_path


class TestFrame:
    def test_digest_is_of_size_and_pixels(self) -> None:
        image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
        expected = hashlib.sha256(b"\x02\0\0\0\x04\0\0\0" + bytes(range(24))).hexdigest()
        assert Frame("a", image).digest == expected
        assert Frame("b", image.reshape(4, 2, 3)).digest != expected
        assert Frame("c", np.asfortranarray(image)).digest == expected

    @pytest.mark.parametrize(
        "image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)]
    )
    def test_other_arrays_are_refused(self, image: np.ndarray) -> None:
        with pytest.raises(ShapeError, match=r"frame x must be \(H, W, 3\) uint8 RGB, but is \(4, 4"):
            Frame("x", image)


class TestEvenlySpaced:
    @pytest.mark.parametrize(
        ("total", "count", "expected"),
        [
            (101, 51, list(range(0, 101, 2))),
            (10, 2, [0, 9]),
            (10, 1, [5]),
            (10, 4, [0, 3, 6, 9]),
            (3, 3, [0, 1, 2]),
            (3, 7, [0, 1, 2]),
            (0, 4, []),
        ],
    )
    def test_known_cases(self, total: int, count: int, expected: list[int]) -> None:
        assert evenly_spaced(total, count) == expected

    def test_no_index_comes_twice(self) -> None:
        for total in range(1, 40):
            for count in range(1, total + 1):
                indices = evenly_spaced(total, count)
                assert len(set(indices)) == count
                assert indices == sorted(indices)
                assert 0 <= indices[0] <= indices[-1] < total

    def test_none_is_refused(self) -> None:
        with pytest.raises(FrameError, match="at least 1 frame must be taken, but 0 were asked for"):
            evenly_spaced(10, 0)


class TestFolder:
    def test_images_in_the_order_of_their_names(self, folder: Path) -> None:
        source = frames_from(folder)
        assert len(source) == 10
        assert source.names == tuple(f"{i:02}.png" for i in range(10))
        assert [int(frame.image[0, 0, 0]) for frame in source] == [i * 20 for i in range(10)]
        assert [frame.name for frame in source] == list(source.names)

    def test_images_subfolder(self, tmp_path: Path) -> None:
        write_frame(tmp_path / "images" / "a.jpg")
        assert frames_from(str(tmp_path)).names == ("images/a.jpg",)

    def test_select_and_exclude(self, folder: Path) -> None:
        source = frames_from(folder)
        chosen = source.select(3)
        assert chosen.names == ("00.png", "05.png", "09.png")
        assert source.exclude(set(chosen.names)).names == tuple(f"{i:02}.png" for i in (1, 2, 3, 4, 6, 7, 8))
        assert len(source.exclude(source.names)) == 0
        assert list(source.exclude(source.names)) == []
        assert [int(f.image[0, 0, 0]) for f in chosen] == [0, 100, 180]

    def test_empty(self, tmp_path: Path) -> None:
        with pytest.raises(FrameError, match=f"the folder {tmp_path} holds no image"):
            frames_from(tmp_path)

    def test_unreadable(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(path: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(os, "scandir", refuse)
        with pytest.raises(FrameError, match=f"cannot list the folder {folder}: Permission denied"):
            frames_from(folder)


class TestBrokenImages:
    @pytest.fixture
    def broken(self, folder: Path) -> Path:
        path = folder / "03.png"
        path.write_bytes(path.read_bytes()[:-20])
        return path

    def test_one_is_named_and_stops_the_pass(self, folder: Path, broken: Path) -> None:
        source = frames_from(folder)
        with pytest.raises(FrameError, match=rf"{broken} is cut short .*use --skip-broken"):
            list(source)

    def test_skipped_only_when_asked_and_never_silently(
        self, folder: Path, broken: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        source = frames_from(folder, skip_broken=True)
        with caplog.at_level(logging.WARNING):
            names = [frame.name for frame in source]
        assert len(names) == 9
        assert "03.png" not in names
        assert source.skipped == 1
        assert f"skipped: the image {broken}" in caplog.text
        list(source)
        assert source.skipped == 1

    def test_skipping_survives_select(self, folder: Path, broken: Path) -> None:
        chosen = frames_from(folder, skip_broken=True).select(4)
        assert [frame.name for frame in chosen] == ["00.png", "06.png", "09.png"]
        assert chosen.skipped == 1

    def test_all_broken(self, tmp_path: Path) -> None:
        for name in ("a.png", "b.png"):
            (tmp_path / name).write_bytes(b"nothing")
        with pytest.raises(FrameError, match=rf"none of the 2 images can be read, the first is {tmp_path}/a\.png"):
            list(frames_from(tmp_path, skip_broken=True))


class TestList:
    def test_first_column_relative_to_the_list(self, folder: Path) -> None:
        listing = folder / "train.txt"
        write_frame(folder / "with space.png")
        listing.write_text("# frames labels\n05.png labels/05.png\n\n01.png\nwith space.png\n")
        source = frames_from(listing)
        assert source.names == ("05.png", "01.png", "with space.png")
        assert [int(f.image[0, 0, 0]) for f in source] == [100, 20, 50]

    def test_missing_file_is_named_with_its_line(self, folder: Path) -> None:
        (folder / "list.txt").write_text("01.png\n\nlost.png lost_label.png\n")
        with pytest.raises(FrameError, match=r"line 3 of .*list\.txt names lost\.png, but there is no file"):
            frames_from(folder / "list.txt")

    def test_repeated_file(self, folder: Path) -> None:
        (folder / "list.txt").write_text("01.png\n02.png\n01.png\n")
        with pytest.raises(FrameError, match=r"line 3 of .*list\.txt repeats 01\.png of line 1"):
            frames_from(folder / "list.txt")

    def test_empty(self, folder: Path) -> None:
        (folder / "list.txt").write_text("\n# nothing\n")
        with pytest.raises(FrameError, match=r"list\.txt names no image"):
            frames_from(folder / "list.txt")

    def test_binary(self, folder: Path) -> None:
        (folder / "list.txt").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(FrameError, match=r"cannot read the list .*list\.txt"):
            frames_from(folder / "list.txt")


class TestOtherSpecs:
    def test_glob(self, folder: Path) -> None:
        source = frames_from(f"{folder}/0[1-3].*")
        assert source.names == tuple(f"{folder}/0{i}.png" for i in (1, 2, 3))
        with pytest.raises(FrameError, match=r"no image matches the pattern .*/\*\.jpg"):
            frames_from(f"{folder}/*.jpg")

    def test_single_image(self, folder: Path) -> None:
        assert frames_from(folder / "04.png").names == ("04.png",)

    def test_a_path_that_is_too_long(self) -> None:
        with pytest.raises(FrameError, match=r"cannot read the frames a+: File name too long; check the path"):
            frames_from("a" * 300)

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(FrameError, match=f"there is no file or folder {tmp_path}/frames; give a folder"):
            frames_from(tmp_path / "frames")

    def test_foreign(self, tmp_path: Path) -> None:
        (tmp_path / "model.onnx").touch()
        with pytest.raises(FrameError, match=r"model\.onnx is no frame source: expected .*\.avi, \.bmp"):
            frames_from(tmp_path / "model.onnx")


def test_real_frames(shared: Path) -> None:
    source = frames_from(shared / "data" / "camvid" / "train.txt")
    assert len(source) == 367
    folder = frames_from(shared / "data" / "camvid" / "train")
    assert {Path(name).name for name in source.names} == {Path(name).name for name in folder.names}
    frame = next(iter(folder))
    assert frame.image.shape == (360, 480, 3)
