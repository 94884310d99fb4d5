"""Labelled frames by index and as batches: layouts, classes, order, memory and normalisation."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.training import LABELS, SIZE, blocks, colour_of, recipe, samples, write_data

from edgeseg.calibration import datasets
from edgeseg.errors import FrameError, LabelError, UsageError
from edgeseg.labels import load_labels
from edgeseg.training.augment import Augmentation
from edgeseg.training.samples import Batch, Samples, batches, open_data

STILL = Augmentation((1.0, 1.0), mirror=False, color=0.0)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data")


def save(path: Path, image: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image)


def same(one: Batch, other: Batch) -> bool:
    return torch.equal(one.low, other.low) and torch.equal(one.labels, other.labels)


class TestLayouts:
    def test_folder(self, data: Path) -> None:
        write_data(data, 3, "val")
        assert len(open_data(f"folder:{data}", "train")) == 8
        assert len(open_data(f"folder:{data}@val", "train")) == 3
        assert len(open_data(str(data), "val")) == 3

    def test_a_folder_without_splits_is_taken_whole(self, tmp_path: Path) -> None:
        for kind in ("images", "labels"):
            for index in range(3):
                save(tmp_path / kind / f"{index}.png", blocks(index))
        assert len(open_data(f"folder:{tmp_path}", "train", LABELS)) == 3
        assert len(open_data(str(tmp_path), "train", LABELS)) == 3
        with pytest.raises(FrameError, match="for the split train"):
            open_data(f"folder:{tmp_path}@train", "val", LABELS)

    def test_a_folder_without_the_split_is_refused(self, data: Path) -> None:
        with pytest.raises(FrameError, match="for the split val"):
            open_data(f"folder:{data}", "val")

    def test_camvid(self, tmp_path: Path) -> None:
        save(tmp_path / "train/images/a.png", colour_of(blocks(0)))
        save(tmp_path / "train/labels/a.png", np.full((24, 32), 11, np.uint8))
        found = open_data(f"camvid:{tmp_path}@train", "val")
        image, labels = Samples([found], load_labels("camvid").classes()).read(0)
        assert np.array_equal(image, colour_of(blocks(0))[:, :, ::-1])
        assert (labels == 255).all()  # CamVid's void is 11

    def test_cityscapes(self, tmp_path: Path) -> None:
        ids = np.array([[7, 8, 0], [33, 26, 4]], np.uint8)
        for city, values in (("aachen", ids), ("ulm", ids[::-1])):
            stem = f"train/{city}/{city}_000000_000019"
            save(tmp_path / f"leftImg8bit/{stem}_leftImg8bit.png", np.zeros((2, 3, 3), np.uint8))
            save(tmp_path / f"gtFine/{stem}_gtFine_labelIds.png", values)
        found = Samples([open_data(f"cityscapes:{tmp_path}", "train")], load_labels("cityscapes").classes())
        assert [found.read(i)[1].tolist() for i in range(2)] == [
            [[0, 1, 255], [18, 13, 255]],
            [[18, 13, 255], [0, 1, 255]],
        ]

    def test_voc(self, tmp_path: Path) -> None:
        (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
        (tmp_path / "ImageSets/Segmentation/train.txt").write_text("one\n")
        save(tmp_path / "JPEGImages/one.jpg", np.full((4, 4, 3), 90, np.uint8))
        save(tmp_path / "SegmentationClass/one.png", np.array([[0, 20], [255, 1]], np.uint8).repeat(2, 0).repeat(2, 1))
        found = Samples([open_data(f"voc:{tmp_path}", "train")], load_labels("voc").classes())
        assert found.read(0)[1][::2, ::2].tolist() == [[0, 20], [255, 1]]

    def test_a_folder_whose_name_has_an_at(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_data(tmp_path / "me@home" / "data")
        write_data(tmp_path / "data@home")
        monkeypatch.chdir(tmp_path)
        for spec in ("folder:me@home/data", "folder:data@home", "data@home"):
            assert len(open_data(spec, "train")) == 8

    def test_an_at_without_a_split(self, data: Path) -> None:
        with pytest.raises(UsageError, match=r"ends with @; name the split behind it, such as .*@train"):
            open_data(f"folder:{data}@", "train")

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(FrameError, match="there is no folder"):
            open_data(f"camvid:{tmp_path / 'none'}", "train")
        with pytest.raises(UsageError, match="did you mean cityscapes"):
            open_data(f"cityscape:{tmp_path}", "train")

    def test_empty(self, data: Path) -> None:
        for image in (data / "images/train").iterdir():
            image.unlink()
        with pytest.raises(FrameError):
            open_data(f"folder:{data}", "train")

    def test_a_frame_without_labels(self, data: Path) -> None:
        (data / "labels/train/03.png").unlink()
        with pytest.raises(LabelError, match=r"1 of 8 frames have no labels, the first is 03\.png"):
            open_data(f"folder:{data}", "train")

    def test_labels_of_another_size(self, data: Path) -> None:
        save(data / "labels/train/03.png", blocks(0)[:10])
        with pytest.raises(LabelError, match=r"labels must have the size of their frame, 24x32 for 03.png"):
            samples(data).read(3)


class TestClasses:
    def test_data_sets_of_other_classes(self, data: Path) -> None:
        for kind in ("images", "labels"):
            save(data / f"other/train/{kind}/a.png", np.zeros((4, 4), np.uint8))
        with pytest.raises(LabelError, match="trained on the classes road, sky, tree, car, but a data set has"):
            Samples([open_data(f"camvid:{data / 'other'}", "train")], LABELS)

    def test_a_label_out_of_range(self, data: Path) -> None:
        save(data / "labels/train/03.png", np.full((24, 32), 9, np.uint8))
        with pytest.raises(LabelError, match=r"unknown label 9 in 768 pixels"):
            samples(data).read(3)

    def test_a_label_out_of_range_where_nobody_named_the_classes(self, data: Path) -> None:
        (data / "labels.json").unlink()
        save(data / "labels/train/03.png", np.full((24, 32), 9, np.uint8))
        with pytest.raises(LabelError, match=r"labels must be 0 to 3 or the ignore index, but 03\.png has 9"):
            samples(data).read(3)

    def test_counts(self, tmp_path: Path) -> None:
        data = write_data(tmp_path / "data", 4, ignored=True)
        expected = sum(np.bincount(blocks(i)[3 * i :].ravel(), minlength=4) for i in range(4))
        assert samples(data).class_counts().tolist() == np.asarray(expected).tolist()


class TestMemory:
    @pytest.fixture
    def decoded(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        names: list[str] = []
        real: Callable[..., NDArray[np.uint8]] = datasets.read_labels

        def counted(path: Path, *arguments: object) -> NDArray[np.uint8]:
            names.append(path.stem)
            return real(path, *arguments)

        monkeypatch.setattr(datasets, "read_labels", counted)
        return names

    def test_keeps_frames_up_to_a_limit(self, data: Path, decoded: list[str]) -> None:
        one = 24 * 32 * 4
        limited = samples(data, memory=3 * one)
        for _ in range(2):
            for index in range(5):
                limited.read(index)
        assert decoded == ["00", "01", "02", "03", "04", "03", "04"]

    def test_keeps_all_by_default(self, data: Path, decoded: list[str]) -> None:
        kept = samples(data)
        for _ in range(3):
            first = kept.read(2)
        assert decoded == ["02"]
        assert np.array_equal(first[1], blocks(2))


class TestBatches:
    def test_are_decided_by_seed_epoch_and_place(self, data: Path) -> None:
        made = recipe()
        first = list(batches(samples(data), made, 3))
        assert len(first) == 2
        for workers in (1, 3):
            again = list(batches(samples(data), made, 3, workers=workers))
            assert all(map(same, first, again))
        assert not same(first[0], next(batches(samples(data), made, 4)))
        assert not same(first[0], next(batches(samples(data), replace(made, seed=1), 3)))

    def test_an_epoch_sees_each_frame_once(self, data: Path) -> None:
        made = recipe(size=(24, 32), augmentation=STILL, batch=2)
        seen = sorted(int(n.item()) for b in batches(samples(data), made, 0) for n in b.low.double().sum((1, 2, 3)))
        whole = recipe(size=(24, 32), augmentation=STILL, batch=8)
        (all_at_once,) = batches(samples(data), whole, 5)
        assert seen == sorted(int(n.item()) for n in all_at_once.low.double().sum((1, 2, 3)))

    def test_processes_share_each_batch(self, data: Path) -> None:
        made = recipe()
        whole = list(batches(samples(data), made, 1))
        parts = [list(batches(samples(data), made, 1, rank=rank, processes=2)) for rank in range(2)]
        for step in range(2):
            assert torch.equal(whole[step].low[0::2], parts[0][step].low)
            assert torch.equal(whole[step].labels[1::2], parts[1][step].labels)

    def test_super_resolved(self, data: Path) -> None:
        batch = next(batches(samples(data), recipe(dsrl=True), 0))
        height, width = SIZE
        assert batch.high is not None
        assert batch.low.shape == (4, 3, height, width)
        assert batch.high.shape == (4, 3, 2 * height, 2 * width)
        assert batch.labels.shape == (4, 2 * height, 2 * width)
        assert (torch.nn.functional.avg_pool2d(batch.high, 2) - batch.low).abs().max() < 0.02

    @pytest.mark.parametrize("dsrl", [False, True])
    def test_a_crop_is_a_part_of_the_frame_at_inference(self, data: Path, dsrl: bool) -> None:
        scale = 2 if dsrl else 1
        whole = recipe(size=(24, 32), augmentation=STILL, dsrl=dsrl)
        batch = next(batches(samples(data), replace(whole, crop=(8, 16)), 0))
        assert batch.low.shape == (4, 3, 8, 16)
        assert batch.labels.shape == (4, 8 * scale, 16 * scale)
        for part, all_of_it in zip(batch.labels, next(batches(samples(data), whole, 0)).labels, strict=True):
            height, width = part.shape
            places = all_of_it.unfold(0, height, 1).unfold(1, width, 1)
            assert (places == part).all(-1).all(-1).any()

    def test_normalises_in_the_networks_order(self, data: Path) -> None:
        made = recipe(size=(24, 32), augmentation=STILL, color_order="BGR", mean=(1.0, 2.0, 3.0), std=(2.0, 4.0, 5.0))
        batch = next(batches(samples(data), made, 0))
        order = np.random.default_rng([0, 0]).permutation(8)
        image = colour_of(blocks(int(order[0])))[:, :, ::-1].astype(np.float32)
        expected = (image - np.array([1, 2, 3], np.float32)) / np.array([2, 4, 5], np.float32)
        assert np.allclose(batch.low[0].numpy(), expected.transpose(2, 0, 1), atol=1e-6)

    def test_fewer_frames_than_a_batch(self, data: Path) -> None:
        with pytest.raises(UsageError, match="a batch of 9 needs as many frames, but there are 8; use --batch"):
            next(batches(samples(data), recipe(batch=9), 0))

    def test_a_batch_that_does_not_divide(self, data: Path) -> None:
        with pytest.raises(UsageError, match="a batch of 4 cannot be divided among 3 processes; use another --batch"):
            next(batches(samples(data), recipe(), 0, processes=3))

    def test_a_damaged_frame_is_named(self, data: Path) -> None:
        (data / "images/train/05.png").write_bytes(b"nothing")
        with pytest.raises(FrameError, match=re.escape("05.png")):
            list(batches(samples(data), recipe(), 0))
