"""Data sets with labels, each as a tiny tree of files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeseg.calibration.datasets import DATA_SETS, labelled_from, pair_labels
from edgeseg.calibration.frames import frames_from
from edgeseg.errors import FrameError, LabelError, UsageError
from edgeseg.labels import LabelSet, load_labels


def write_frame(path: Path, value: int = 0, size: tuple[int, int] = (2, 3)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((*size, 3), value, np.uint8))


def write_labels(path: Path, values: Sequence[int] = (0, 1, 2, 3, 4, 5)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.array(values, np.uint8).reshape(2, 3))


def write_pairs(images: Path, labels: Path, stems: Sequence[str] = ("a", "b", "c"), suffix: str = ".png") -> None:
    for i, stem in enumerate(stems):
        write_frame(images / f"{stem}{suffix}", i * 50)
        write_labels(labels / f"{stem}.png", [i] * 6)


def contents(data: object) -> list[tuple[str, int, list[int]]]:
    """Name, brightness and label values of each frame."""
    return [
        (item.frame.name, int(item.frame.image[0, 0, 0]), item.labels.reshape(-1).tolist())
        for item in data  # type: ignore[attr-defined]
    ]


class TestCamVid:
    @pytest.mark.parametrize(("images", "labels"), [("val/images", "val/labels"), ("val", "valannot")])
    def test_both_layouts(self, tmp_path: Path, images: str, labels: str) -> None:
        write_pairs(tmp_path / images, tmp_path / labels)
        data = labelled_from(f"camvid:{tmp_path}", "val")
        assert contents(data) == [("a.png", 0, [0] * 6), ("b.png", 50, [1] * 6), ("c.png", 100, [2] * 6)]
        assert data.label_set == load_labels("camvid")
        assert len(labelled_from(f"camvid:{tmp_path}")) == 3

    def test_unknown_ids(self, tmp_path: Path) -> None:
        write_pairs(tmp_path / "val" / "images", tmp_path / "val" / "labels")
        write_labels(tmp_path / "val" / "labels" / "b.png", [0, 11, 12, 12, 12, 0])
        with pytest.raises(LabelError, match=r"b\.png has the unknown label 12 in 3 pixels; the labels are 0\.\.10"):
            list(labelled_from(f"camvid:{tmp_path}", "val"))

    def test_absent_split(self, tmp_path: Path) -> None:
        write_pairs(tmp_path / "train" / "images", tmp_path / "train" / "labels")
        with pytest.raises(FrameError, match=r"for the split test; its folders are: train"):
            labelled_from(f"camvid:{tmp_path}", "test")

    def test_real_frames(self, shared: Path) -> None:
        data = labelled_from(f"camvid:{shared / 'data' / 'camvid'}", "val")
        assert len(data) == 101
        items = list(data.select(3))
        assert [Path(item.frame.name).stem for item in items] == ["0016E5_07959", "0016E5_08059", "0016E5_08159"]
        assert all(item.labels.shape == (360, 480) and item.labels.max() <= 11 for item in items)


class TestCityscapes:
    STEMS = ("aachen/aachen_000000_000019", "bonn/bonn_000003_000019")

    def write(self, root: Path, kind: str, values: Sequence[int]) -> None:
        for i, stem in enumerate(self.STEMS):
            write_frame(root / "leftImg8bit" / "val" / f"{stem}_leftImg8bit.png", i * 50)
            write_labels(root / "gtFine" / "val" / f"{stem}_gtFine_{kind}.png", values)

    def test_label_ids_become_train_ids(self, tmp_path: Path) -> None:
        self.write(tmp_path, "labelIds", [7, 8, 0, 33, 28, 255])
        data = labelled_from(f"cityscapes:{tmp_path}", "val")
        assert contents(data) == [
            ("leftImg8bit/val/aachen/aachen_000000_000019_leftImg8bit.png", 0, [0, 1, 255, 18, 15, 255]),
            ("leftImg8bit/val/bonn/bonn_000003_000019_leftImg8bit.png", 50, [0, 1, 255, 18, 15, 255]),
        ]
        assert data.label_set == load_labels("cityscapes")

    def test_every_evaluated_id(self, tmp_path: Path) -> None:
        evaluated = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
        seen: list[int] = []
        for start in range(0, 36, 6):
            self.write(tmp_path, "labelIds", [min(i, 33) for i in range(start, start + 6)])
            seen += contents(labelled_from(f"cityscapes:{tmp_path}"))[0][2]
        assert [i for i in range(34) if seen[i] != 255] == evaluated
        assert [seen[i] for i in evaluated] == list(range(19))

    def test_train_ids_are_taken_where_all_frames_have_them(self, tmp_path: Path) -> None:
        self.write(tmp_path, "labelIds", [7] * 6)
        self.write(tmp_path, "labelTrainIds", [0, 1, 2, 3, 18, 255])
        assert contents(labelled_from(f"cityscapes:{tmp_path}"))[1][2] == [0, 1, 2, 3, 18, 255]
        (tmp_path / "gtFine" / "val" / f"{self.STEMS[1]}_gtFine_labelTrainIds.png").unlink()
        assert contents(labelled_from(f"cityscapes:{tmp_path}"))[1][2] == [0] * 6

    def test_unknown_ids(self, tmp_path: Path) -> None:
        self.write(tmp_path, "labelIds", [7, 7, 7, 40, 40, 7])
        with pytest.raises(LabelError, match=r"labelIds\.png has the unknown label 40 in 2 pixels"):
            list(labelled_from(f"cityscapes:{tmp_path}"))

    def test_missing_labels(self, tmp_path: Path) -> None:
        self.write(tmp_path, "labelIds", [7] * 6)
        (tmp_path / "gtFine" / "val" / f"{self.STEMS[1]}_gtFine_labelIds.png").unlink()
        with pytest.raises(LabelError, match=r"1 of 2 frames have no labels, the first is .*bonn_000003"):
            labelled_from(f"cityscapes:{tmp_path}")

    def test_absent_split(self, tmp_path: Path) -> None:
        with pytest.raises(FrameError, match=r"no leftImg8bit/SPLIT/CITY.* for the split train; its folders are: none"):
            labelled_from(f"cityscapes:{tmp_path}", "train")


class TestVoc:
    def write(self, root: Path) -> None:
        for stem in ("2007_000033", "2007_000042", "2007_000061"):
            write_frame(root / "JPEGImages" / f"{stem}.jpg")
            write_labels(root / "SegmentationClass" / f"{stem}.png", [0, 20, 255, 15, 1, 255])
        lists = root / "ImageSets" / "Segmentation"
        lists.mkdir(parents=True)
        (lists / "val.txt").write_text("2007_000061\n2007_000033\n")
        (lists / "none.txt").write_text("\n")

    @pytest.mark.parametrize("folder", [".", "VOCdevkit/VOC2012", "VOC2012"])
    def test_frames_of_the_list(self, tmp_path: Path, folder: str) -> None:
        self.write(tmp_path / folder)
        data = labelled_from(f"voc:{tmp_path}", "val")
        assert [name for name, _, _ in contents(data)] == ["JPEGImages/2007_000061.jpg", "JPEGImages/2007_000033.jpg"]
        assert contents(data)[0][2] == [0, 20, 255, 15, 1, 255]
        assert data.label_set == load_labels("voc")

    def test_absent_and_empty_split(self, tmp_path: Path) -> None:
        self.write(tmp_path)
        with pytest.raises(FrameError, match="for the split train; its folders are: ImageSets, JPEGImages, Seg"):
            labelled_from(f"voc:{tmp_path}", "train")
        with pytest.raises(FrameError, match=r"none\.txt names no frame"):
            labelled_from(f"voc:{tmp_path}", "none")


class TestFolder:
    @pytest.mark.parametrize("kind", ["labels", "masks"])
    @pytest.mark.parametrize("prefix", ["folder:", ""])
    def test_divided_into_splits(self, tmp_path: Path, kind: str, prefix: str) -> None:
        write_pairs(tmp_path / "images" / "val", tmp_path / kind / "val", suffix=".jpg")
        write_pairs(tmp_path / "images" / "train", tmp_path / kind / "train", ["x"])
        assert [name for name, _, _ in contents(labelled_from(f"{prefix}{tmp_path}"))] == ["a.jpg", "b.jpg", "c.jpg"]
        assert labelled_from(f"{prefix}{tmp_path}", "train").names == ("x.png",)

    def test_undivided(self, tmp_path: Path) -> None:
        write_pairs(tmp_path / "images", tmp_path / "labels")
        data = labelled_from(str(tmp_path))
        assert len(list(data)) == 3
        assert data.label_set is None
        with pytest.raises(FrameError, match="for the split test; its folders are: images, labels"):
            labelled_from(str(tmp_path), "test")

    def test_label_set_given_or_its_own(self, tmp_path: Path) -> None:
        write_pairs(tmp_path / "images", tmp_path / "labels")
        given = LabelSet(("one", "two"), ((0, 0, 0), (1, 1, 1)))
        with pytest.raises(LabelError, match=r"c\.png has the unknown label 2 in 6 pixels; the labels are 0\.\.1"):
            list(labelled_from(str(tmp_path), label_set=given))
        own = '[{"id": %d, "name": "%s", "color": [0, 0, %d]}]'
        (tmp_path / "labels.json").write_text(own % (0, "only", 9))
        data = labelled_from(str(tmp_path), label_set=given)
        assert data.label_set is not None
        assert data.label_set.names == ("only",)

    def test_a_folder_with_a_colon_in_its_name(self, tmp_path: Path) -> None:
        root = tmp_path / "camvid:copy"
        write_pairs(root / "images", root / "labels")
        assert len(labelled_from(str(root))) == 3

    def test_neither_layout(self, tmp_path: Path) -> None:
        (tmp_path / "pictures").mkdir()
        with pytest.raises(FrameError, match=r"no images/SPLIT and labels/SPLIT .* its folders are: pictures"):
            labelled_from(str(tmp_path))


class TestLabelledFrames:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        write_pairs(tmp_path / "images", tmp_path / "labels", "abcdef")
        return tmp_path

    def test_select_and_exclude_keep_the_labels(self, root: Path) -> None:
        data = labelled_from(str(root))
        assert [(name, labels[0]) for name, _, labels in contents(data.select(2))] == [("a.png", 0), ("f.png", 5)]
        rest = data.exclude({"a.png", "f.png"}).exclude({"c.png"})
        assert [(name, labels[0]) for name, _, labels in contents(rest)] == [("b.png", 1), ("d.png", 3), ("e.png", 4)]
        assert len(rest) == 3

    def test_size_of_the_labels(self, root: Path) -> None:
        write_frame(root / "images" / "c.png", size=(4, 6))
        message = r"labels must have the size of their frame, 4x6 for c\.png, but .*labels/c\.png is 2x3"
        with pytest.raises(LabelError, match=message):
            list(labelled_from(str(root)))

    def test_broken_frames_are_skipped_only_when_asked(self, root: Path) -> None:
        (root / "images" / "b.png").write_bytes(b"broken")
        with pytest.raises(FrameError, match=r"images/b\.png"):
            list(labelled_from(str(root)))
        data = labelled_from(str(root), skip_broken=True)
        assert [name for name, _, _ in contents(data)] == ["a.png", "c.png", "d.png", "e.png", "f.png"]
        assert data.skipped == 1


class TestPairLabels:
    def test_by_stem(self, tmp_path: Path) -> None:
        write_pairs(tmp_path / "frames", tmp_path / "truth", suffix=".jpg")
        source = frames_from(tmp_path / "frames").select(2)
        data = pair_labels(source, tmp_path / "truth", load_labels("voc"))
        assert [(name, labels[0]) for name, _, labels in contents(data)] == [("a.jpg", 0), ("c.jpg", 2)]

    def test_missing_labels(self, tmp_path: Path) -> None:
        write_pairs(tmp_path / "frames", tmp_path / "truth")
        (tmp_path / "truth" / "b.png").unlink()
        message = r"1 of 3 frames have no labels, the first is b\.png: there is no file .*truth/b\.png"
        with pytest.raises(LabelError, match=message):
            pair_labels(frames_from(tmp_path / "frames"), tmp_path / "truth")

    def test_two_frames_of_one_stem(self, tmp_path: Path) -> None:
        write_pairs(tmp_path / "day", tmp_path / "labels", ("a", "b"))
        write_frame(tmp_path / "night" / "b.png")
        source = frames_from(str(tmp_path / "*" / "[ab].png")).exclude(
            {(tmp_path / "labels" / name).as_posix() for name in ("a.png", "b.png")}
        )
        with pytest.raises(LabelError, match=r"day/b\.png and .*night/b\.png have the same stem, so .*labels cannot"):
            pair_labels(source, tmp_path / "labels")

    def test_two_labels_of_one_frame(self, tmp_path: Path) -> None:
        write_pairs(tmp_path / "frames", tmp_path / "truth")
        write_labels(tmp_path / "truth" / "b.bmp")
        with pytest.raises(LabelError, match=r"b\.bmp and .*b\.png are labels of the same frame"):
            pair_labels(frames_from(tmp_path / "frames"), tmp_path / "truth")

    def test_missing_folder(self, tmp_path: Path) -> None:
        write_frame(tmp_path / "frames" / "a.png")
        with pytest.raises(LabelError, match=f"there is no folder of labels {tmp_path}/truth"):
            pair_labels(frames_from(tmp_path / "frames"), tmp_path / "truth")


class TestSpec:
    def test_unknown_data_set(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"unknown data set 'cityscape'; did you mean cityscapes.*NAME:FOLDER"):
            labelled_from(f"cityscape:{tmp_path}")

    @pytest.mark.parametrize("kind", DATA_SETS)
    def test_missing_folder(self, tmp_path: Path, kind: str) -> None:
        with pytest.raises(FrameError, match=f"there is no folder '{tmp_path}/none', which --data {kind}:"):
            labelled_from(f"{kind}:{tmp_path}/none")

    def test_paths_that_cannot_be_looked_up(self, tmp_path: Path) -> None:
        with pytest.raises(FrameError, match=r"cannot read the data camvid:a+: File name too long; check the path"):
            labelled_from("camvid:" + "a" * 300)
        write_frame(tmp_path / "frames" / "a.png")
        with pytest.raises(LabelError, match=r"cannot read the labels a+: File name too long"):
            pair_labels(frames_from(tmp_path / "frames"), Path("a" * 300))

    def test_missing_plain_folder(self, tmp_path: Path) -> None:
        with pytest.raises(FrameError, match=f"there is no folder '{tmp_path}/none'"):
            labelled_from(f"{tmp_path}/none")


def test_labels_as_arrays(tmp_path: Path) -> None:
    write_pairs(tmp_path / "images", tmp_path / "labels")
    labels: NDArray[np.uint8] = next(iter(labelled_from(str(tmp_path)))).labels
    assert labels.dtype == np.uint8
    assert labels.shape == (2, 3)
