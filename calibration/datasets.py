"""Frames with labels, by the layout of the data set that holds them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeseg.calibration.frames import Frame, FrameSource, ImageFrames, frames_from, images_in
from edgeseg.calibration.label_images import check_labels, read_labels
from edgeseg.calibration.scenes import SceneFrame, is_scene, open_scene
from edgeseg.errors import FrameError, LabelError, UsageError, unknown_name
from edgeseg.labels import LabelSet, load_labels

__all__ = ["DATA_SETS", "LabelledFrame", "LabelledFrames", "labelled_from", "pair_labels"]


@dataclass(frozen=True, eq=False)
class LabelledFrame:
    """A frame and what is to be seen in it.

    Attributes:
        frame: (H, W, 3) uint8 RGB and its name.
        labels: (H, W) uint8 class indices or the ignored value.
    """

    frame: Frame
    labels: NDArray[np.uint8]


@dataclass(frozen=True)
class LabelledFrames:
    """Frames with labels, that can be read again and again.

    Attributes:
        frames: where the frames come from.
        label_paths: the label image by the name of the frame; rendered scenes bring their labels and need none.
        label_set: the classes; values are checked against it. None where nobody named the classes: then nothing is.
        remap: new value by stored value, (256,) uint8, applied before the check; None for the values as stored.
    """

    frames: FrameSource
    label_paths: Mapping[str, Path]
    label_set: LabelSet | None
    remap: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the frames."""
        return self.frames.names

    @property
    def skipped(self) -> int:
        """Broken frames that the latest pass left out."""
        return self.frames.skipped

    def select(self, count: int) -> LabelledFrames:
        """An evenly spaced subset; see `FrameSource.select`."""
        return LabelledFrames(self.frames.select(count), self.label_paths, self.label_set, self.remap)

    def exclude(self, names: Collection[str]) -> LabelledFrames:
        """All but the frames named."""
        return LabelledFrames(self.frames.exclude(names), self.label_paths, self.label_set, self.remap)

    def __iter__(self) -> Iterator[LabelledFrame]:
        """Read frames and labels in order.

        Raises:
            FrameError: for a frame that cannot be read.
            LabelError: for labels that cannot be read, have another size than the frame, or unknown values.
        """
        for frame in self.frames:
            yield LabelledFrame(frame, self._labels(frame))

    def _labels(self, frame: Frame) -> NDArray[np.uint8]:
        if isinstance(frame, SceneFrame):
            return frame.labels
        path = self.label_paths[frame.name]
        labels = read_labels(path, self.label_set)
        if labels.shape != frame.image.shape[:2]:
            raise LabelError(
                f"labels must have the size of their frame, {frame.image.shape[0]}x{frame.image.shape[1]} for "
                f"{frame.name}, but {path} is {labels.shape[0]}x{labels.shape[1]} (height x width)"
            )
        if self.remap is not None:
            labels = self.remap[labels]
        if self.label_set is not None:
            check_labels(labels, self.label_set, path)
        return labels


def pair_labels(source: FrameSource, labels_dir: Path, label_set: LabelSet | None = None) -> LabelledFrames:
    """Give the frames of a source the label images of a folder, by stem.

    NAME.jpg gets NAME.png, frame 12 of a video clip.mp4 gets clip_000012.png.

    Args:
        source: the frames.
        labels_dir: folder of label images, not searched in depth.
        label_set: see `LabelledFrames`.

    Raises:
        LabelError: for a folder that is missing, frames without a label image or with two, or two frames of one stem.
    """
    try:
        known = labels_dir.is_dir()
    except OSError as error:
        raise LabelError(f"cannot read the labels {labels_dir}: {error.strerror}; check its permissions") from error
    if not known:
        raise LabelError(f"there is no folder of labels {labels_dir}")
    by_stem: dict[str, Path] = {}
    for file in images_in(labels_dir):
        other = by_stem.setdefault(file.stem, file)
        if other != file:
            raise LabelError(f"{other} and {file} are labels of the same frame; remove one of them")
    paths = {name: labels_dir / f"{Path(name).stem}.png" for name in source.names}
    twice = [name for name, count in Counter(paths.values()).items() if count > 1]
    if twice:
        both = [name for name, path in paths.items() if path == twice[0]]
        raise LabelError(
            f"{both[0]} and {both[1]} have the same stem, so {labels_dir} cannot tell their labels apart; rename one, "
            "or give frames of one folder"
        )
    found = {name: by_stem.get(path.stem, path) for name, path in paths.items()}
    return _labelled(source, found, label_set)


def _labelled(
    source: FrameSource, paths: Mapping[str, Path], label_set: LabelSet | None, remap: NDArray[np.uint8] | None = None
) -> LabelledFrames:
    missing = [name for name in source.names if not paths[name].is_file()]
    if missing:
        raise LabelError(
            f"{len(missing)} of {len(source)} frames have no labels, the first is {missing[0]}: "
            f"there is no file {paths[missing[0]]}"
        )
    return LabelledFrames(source, paths, label_set, remap)


def labelled_from(
    spec: str, split: str | None = None, *, label_set: LabelSet | None = None, skip_broken: bool = False
) -> LabelledFrames:
    """Labelled frames by what a user names.

    Args:
        spec: `camvid:DIR`, `cityscapes:DIR`, `voc:DIR`, `folder:DIR`, DIR, which is read as `folder:DIR`, or a
            rendered scene as `open_scene` takes it.
        split: part of the data set, such as train, val or test; None is val, and for `folder` all where its images are
            not divided. A scene has no splits: give another seed.
        label_set: classes of a `folder`; its own labels.json comes first. The others bring theirs.
        skip_broken: leave out frames that cannot be read.

    Raises:
        UsageError: for an unknown data set or scene.
        FrameError: for a folder that is missing or laid out otherwise, or a split that is not there.
        LabelError: for frames without labels; for other labels that do not fit, when they are read.
    """
    try:
        return _labelled_from(spec, split, label_set, skip_broken)
    except OSError as error:  # of a folder on the way that may not be entered, or a name that is too long
        raise FrameError(f"cannot read the data {spec}: {error.strerror}; check the path and permissions") from error


def _labelled_from(spec: str, split: str | None, label_set: LabelSet | None, skip_broken: bool) -> LabelledFrames:
    if is_scene(spec):
        return LabelledFrames(open_scene(spec), {}, load_labels("camvid"))
    kind, colon, folder = spec.partition(":")
    if not colon or Path(spec).is_dir():
        kind, folder = "folder", spec
    if kind not in DATA_SETS:
        raise UsageError(unknown_name("data set", kind, DATA_SETS) + "; write it as NAME:FOLDER")
    if not Path(folder).is_dir():
        raise FrameError(f"there is no folder {folder!r}, which --data {spec} names")
    return DATA_SETS[kind](Path(folder), split, label_set, skip_broken)


def _absent(layout: str, root: Path, split: str | None) -> FrameError:
    present = sorted(p.name for p in root.iterdir() if p.is_dir())
    return FrameError(
        f"{root} has no {layout} for the split {split or 'val'}; its folders are: {', '.join(present) or 'none'}"
    )


def _camvid(root: Path, split: str | None, label_set: LabelSet | None, skip_broken: bool) -> LabelledFrames:
    """SPLIT/images and SPLIT/labels, or SPLIT and SPLITannot as SegNet's tutorial has them."""
    part = root / (split or "val")
    classes = load_labels("camvid")
    if (part / "images").is_dir():
        return pair_labels(frames_from(part / "images", skip_broken=skip_broken), part / "labels", classes)
    if part.is_dir():
        return pair_labels(frames_from(part, skip_broken=skip_broken), part.with_name(part.name + "annot"), classes)
    raise _absent("SPLIT/images and SPLIT/labels, or SPLIT and SPLITannot,", root, split)


_CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, *range(19, 29), 31, 32, 33)


def _cityscapes_train_ids() -> NDArray[np.uint8]:
    """Train id by label id: the 19 evaluated classes in order, 255 for all others. Ids from 34 on stay, as unknown."""
    table = np.arange(256, dtype=np.uint8)
    table[:34] = 255
    table[list(_CITYSCAPES_IDS)] = np.arange(len(_CITYSCAPES_IDS))
    return table


def _cityscapes(root: Path, split: str | None, label_set: LabelSet | None, skip_broken: bool) -> LabelledFrames:
    """leftImg8bit/SPLIT/CITY/*_leftImg8bit.png and gtFine/SPLIT/CITY/*_gtFine_labelTrainIds.png or *_labelIds.png."""
    frames = root / "leftImg8bit" / (split or "val")
    files = sorted(frames.glob("*/*_leftImg8bit.png"))
    if not files:
        raise _absent("leftImg8bit/SPLIT/CITY/*_leftImg8bit.png", root, split)
    names = tuple(f.relative_to(root).as_posix() for f in files)
    source = ImageFrames(tuple(files), names, skip_broken)
    bases = [
        root / "gtFine" / frames.name / f.parent.name / f.name.replace("_leftImg8bit.png", "_gtFine_") for f in files
    ]
    train_ids = all(Path(f"{base}labelTrainIds.png").is_file() for base in bases)
    kind, remap = ("labelTrainIds", None) if train_ids else ("labelIds", _cityscapes_train_ids())
    paths = {name: Path(f"{base}{kind}.png") for name, base in zip(names, bases, strict=True)}
    return _labelled(source, paths, load_labels("cityscapes"), remap)


def _voc(root: Path, split: str | None, label_set: LabelSet | None, skip_broken: bool) -> LabelledFrames:
    """JPEGImages, SegmentationClass and ImageSets/Segmentation/SPLIT.txt, here or in the one VOCdevkit/VOC* folder."""
    nested = sorted(root.glob("VOCdevkit/VOC*")) or sorted(root.glob("VOC2*"))
    if not (root / "ImageSets").is_dir() and len(nested) == 1:
        root = nested[0]
    listing = root / "ImageSets" / "Segmentation" / f"{split or 'val'}.txt"
    try:
        stems = listing.read_text("utf-8").split()
    except OSError as error:
        raise _absent("ImageSets/Segmentation/SPLIT.txt", root, split) from error
    if not stems:
        raise FrameError(f"the list {listing} names no frame")
    names = tuple(f"JPEGImages/{stem}.jpg" for stem in stems)
    source = ImageFrames(tuple(root / name for name in names), names, skip_broken)
    paths = {name: root / "SegmentationClass" / f"{stem}.png" for name, stem in zip(names, stems, strict=True)}
    return _labelled(source, paths, load_labels("voc"))


def _plain(root: Path, split: str | None, label_set: LabelSet | None, skip_broken: bool) -> LabelledFrames:
    """images and labels (or masks), each divided into splits or not."""
    images = root / "images" / (split or "val")
    divided = images.is_dir()
    if not divided:
        images = root / "images"
        if split is not None or not (images.is_dir() and images_in(images)):
            raise _absent("images/SPLIT and labels/SPLIT (or masks/SPLIT)", root, split)
    kind = next((name for name in ("labels", "masks") if (root / name).is_dir()), "labels")
    labels = root / kind / images.name if divided else root / kind
    own = root / "labels.json"
    classes = load_labels(own) if own.is_file() else label_set
    return pair_labels(frames_from(images, skip_broken=skip_broken), labels, classes)


DATA_SETS: dict[str, Callable[[Path, str | None, LabelSet | None, bool], LabelledFrames]] = {
    "camvid": _camvid,
    "cityscapes": _cityscapes,
    "folder": _plain,
    "voc": _voc,
}
"""Readers by the name before the colon."""
