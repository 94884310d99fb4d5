"""Frames and where they come from: a folder, one image, a glob pattern, a text list, a video or a scene."""

from __future__ import annotations

import glob
import hashlib
import logging
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgeseg.calibration.images import IMAGE_SUFFIXES, read_image
from edgeseg.errors import FrameError, ShapeError

__all__ = ["Frame", "FrameSource", "ImageFrames", "evenly_spaced", "frames_from", "images_in"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame and its name.

    Attributes:
        name: unique in its source: an image's path relative to the source, or STEM_000012 for frame 12 of a video.
        image: (H, W, 3) uint8 RGB.
    """

    name: str
    image: NDArray[np.uint8]

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or self.image.shape[2] != 3 or self.image.dtype != np.uint8 or not self.image.size:
            raise ShapeError(
                f"frame {self.name} must be (H, W, 3) uint8 RGB, but is {self.image.shape} {self.image.dtype}"
            )

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hexadecimal) of height and width (4 bytes each, little-endian) and the RGB pixels, row by row."""
        height, width, _ = self.image.shape
        content = hashlib.sha256(np.array([height, width], "<u4").tobytes())
        content.update(np.ascontiguousarray(self.image).data)
        return content.hexdigest()


class FrameSource(Protocol):
    """Frames that can be read again and again, in one order."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Frame]: ...

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the frames, in order; each is there once."""
        ...

    @property
    def skipped(self) -> int:
        """Broken frames that the latest pass left out; always 0 unless asked to skip them."""
        ...

    def select(self, count: int) -> FrameSource:
        """An evenly spaced subset that holds the first and the last frame; all frames when `count` reaches them."""
        ...

    def exclude(self, names: Collection[str]) -> FrameSource:
        """All frames but those named; may be empty."""
        ...


@dataclass(frozen=True)
class ImageFrames:
    """Image files as frames, read one at a time.

    Attributes:
        paths: the files, in order.
        names: their names.
        skip_broken: leave out files that cannot be read, with a warning in the log.
    """

    paths: tuple[Path, ...]
    names: tuple[str, ...]
    skip_broken: bool = False
    _broken: set[str] = field(default_factory=set, compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def skipped(self) -> int:
        """Files that the latest pass left out."""
        return len(self._broken)

    def select(self, count: int) -> ImageFrames:
        """An evenly spaced subset."""
        return self._subset(evenly_spaced(len(self), count))

    def exclude(self, names: Collection[str]) -> ImageFrames:
        """All frames but those named."""
        return self._subset([i for i, name in enumerate(self.names) if name not in names])

    def _subset(self, indices: list[int]) -> ImageFrames:
        paths, names = tuple(self.paths[i] for i in indices), tuple(self.names[i] for i in indices)
        return ImageFrames(paths, names, self.skip_broken)

    def __iter__(self) -> Iterator[Frame]:
        """Read the files in order.

        Raises:
            FrameError: for a file that cannot be read; with `skip_broken` only when none can.
        """
        self._broken.clear()
        for path, name in zip(self.paths, self.names, strict=True):
            try:
                image = read_image(path)
            except FrameError as error:
                if not self.skip_broken:
                    raise FrameError(f"{error}; use --skip-broken to leave such frames out") from error
                self._broken.add(name)
                _log.warning("skipped: %s", error)
                continue
            yield Frame(name, image)
            del image  # a large one would still be there while the next is read
        if self.paths and len(self._broken) == len(self.paths):
            raise FrameError(f"none of the {len(self.paths)} images can be read, the first is {self.paths[0]}")


def evenly_spaced(total: int, count: int) -> list[int]:
    """Indices of `count` of `total` items with the first and the last among them; the middle one for a single item.

    Raises:
        FrameError: for a count below 1.
    """
    if count < 1:
        raise FrameError(f"at least 1 frame must be taken, but {count} were asked for")
    if count >= total:
        return list(range(total))
    if count == 1:
        return [total // 2]
    return [(2 * i * (total - 1) + count - 1) // (2 * (count - 1)) for i in range(count)]


def frames_from(spec: str | Path, *, skip_broken: bool = False) -> FrameSource:
    """Frames by what a user names.

    Args:
        spec: a folder (the images directly in it, or in its `images` folder where it holds none), an image, a glob
            pattern, a .txt list (one path a line, relative to the list; a second column such as CamVid's label paths is
            ignored; blank lines and lines that start with # too), an mp4, mkv, avi, mov or webm video, or a rendered
            scene as `calibration.scenes.open_scene` takes it. Files come in the order of their names, a list's in its
            own.
        skip_broken: leave out images that cannot be read instead of raising; see `FrameSource.skipped`.

    Raises:
        FrameError: for a spec that is missing, empty, unreadable, or no kind of frame source. Broken images and videos
            that end early raise when they are read.
        UsageError: for a scene that does not exist, or options that it does not have.
    """
    try:
        return _frames_from(spec, skip_broken)
    except OSError as error:  # of a folder on the way that may not be entered, or a name that is too long
        raise FrameError(f"cannot read the frames {spec}: {error.strerror}; check the path and permissions") from error


def _frames_from(spec: str | Path, skip_broken: bool) -> FrameSource:
    from edgeseg.calibration.scenes import is_scene, open_scene
    from edgeseg.calibration.video import VIDEO_SUFFIXES, open_video

    if is_scene(spec):
        return open_scene(str(spec))
    path = Path(spec)
    suffix = path.suffix.lower()
    if path.is_dir():
        return _folder(path, skip_broken)
    if not path.exists():
        if glob.has_magic(str(spec)):
            return _pattern(str(spec), skip_broken)
        raise FrameError(f"there is no file or folder {spec}; give a folder, image, glob pattern, .txt list or video")
    if suffix == ".txt":
        return _list(path, skip_broken)
    if suffix in VIDEO_SUFFIXES:
        return open_video(path, skip_broken=skip_broken)
    if suffix in IMAGE_SUFFIXES:
        return ImageFrames((path,), (path.name,), skip_broken)
    known = ", ".join(sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES))
    raise FrameError(f"{spec} is no frame source: expected a folder, a .txt list, or a file that ends in {known}")


def images_in(folder: Path) -> list[Path]:
    """Image files directly in a folder, sorted by name, without hidden ones.

    Raises:
        FrameError: for a folder that cannot be listed.
    """
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if entry.is_file())
    except OSError as error:
        raise FrameError(f"cannot list the folder {folder}: {error.strerror}") from error
    return [folder / n for n in names if Path(n).suffix.lower() in IMAGE_SUFFIXES and not n.startswith(".")]


def _folder(folder: Path, skip_broken: bool) -> ImageFrames:
    files = images_in(folder)
    if not files and (folder / "images").is_dir():
        files = images_in(folder / "images")
    if not files:
        raise FrameError(f"the folder {folder} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return ImageFrames(tuple(files), tuple(f.relative_to(folder).as_posix() for f in files), skip_broken)


def _pattern(pattern: str, skip_broken: bool) -> ImageFrames:
    found = sorted(Path(f) for f in glob.glob(pattern, recursive=True))
    files = [f for f in found if f.suffix.lower() in IMAGE_SUFFIXES and f.is_file()]
    if not files:
        raise FrameError(f"no image matches the pattern {pattern}; check it with: ls {pattern}")
    return ImageFrames(tuple(files), tuple(f.as_posix() for f in files), skip_broken)


def _list(path: Path, skip_broken: bool) -> ImageFrames:
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FrameError(f"cannot read the list {path}: {error}") from error
    entries: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        if not (path.parent / entry).is_file():
            entry = entry.split()[0]
        if not (path.parent / entry).is_file():
            raise FrameError(f"line {number} of {path} names {entry}, but there is no file {path.parent / entry}")
        if entry in entries:
            raise FrameError(f"line {number} of {path} repeats {entry} of line {entries[entry]}; remove one of them")
        entries[entry] = number
    if not entries:
        raise FrameError(f"the list {path} names no image; write one path a line, relative to the list")
    return ImageFrames(tuple(path.parent / e for e in entries), tuple(entries), skip_broken)
