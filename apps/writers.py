"""Images and videos as result files: written beside their place under a temporary name, checked, then renamed."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.calibration.images import import_cv2
from edgeseg.errors import OutputError

__all__ = ["VIDEO_CODECS", "VideoWriter", "check_output", "file_stems", "output_errors", "replace_file", "write_image"]

VIDEO_CODECS = {".mp4": "mp4v", ".mkv": "mp4v", ".mov": "mp4v", ".avi": "MJPG", ".webm": "VP80"}
"""A codec by file ending that the wheels of OpenCV both write and read: their FFmpeg has no H.264 encoder."""


def write_image(path: Path, image: NDArray[np.uint8], *, spent: bool = False) -> None:
    """Write an image in the format of its file ending.

    Args:
        path: the file; one that exists is replaced.
        image: (H, W, 3) uint8 RGB, or (H, W) uint8 as one grey channel.
        spent: nobody reads the image any more, so that it may be changed; a large one is then not there twice.

    Raises:
        OutputError: when it cannot be written; what stood at `path` is then still there.
    """
    cv2 = import_cv2()
    pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR, dst=image if spent else None) if image.ndim == 3 else image
    try:
        good, content = cv2.imencode(path.suffix, pixels)
    except cv2.error:
        good = False
    if not good:
        raise OutputError(f"OpenCV cannot write {path.suffix or 'files without ending'}; use .png or .jpg for {path}")
    del image, pixels  # of a large image 600 MB, while the file is written
    replace_file(path, memoryview(content))


def replace_file(path: Path, content: bytes | memoryview) -> None:
    """Write a file beside its place and rename it.

    Raises:
        OutputError: when the place cannot be written or the disk is full; nothing is lost then.
    """
    with output_errors(path), _beside(path) as temporary:
        temporary.write_bytes(content)
        os.replace(temporary, path)


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turn the system's errors while writing `path` into OutputError."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        cure = (
            "the disk is full; free some space" if full else f"{error.strerror or error}; choose another place with -o"
        )
        raise OutputError(f"cannot write {path}: {cure}") from error


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A temporary name in the same folder with the same ending; whatever stands there at the end is removed."""
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        temporary.chmod(0o644)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def check_output(path: Path, *, force: bool) -> None:
    """Refuse a place for results that is taken or cannot be written, before any work.

    Args:
        path: a file or folder.
        force: allow one that exists; in a folder only files of the same name are replaced.

    Raises:
        OutputError: with what to do.
    """
    with output_errors(path):
        _check_output(path, force)


def _check_output(path: Path, force: bool) -> None:
    taken = path.is_file() or (path.is_dir() and any(path.iterdir()))
    if taken and not force:
        what = "exists" if path.is_file() else "exists and is not empty"
        raise OutputError(f"{path} {what}; choose another place with -o or write into it with --force")
    existing = path if path.is_dir() else path.parent
    if not existing.is_dir():
        raise OutputError(f"cannot write {path}: the folder {path.parent} does not exist; create it first")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write {path}: no permission in {existing}; choose another place with -o")


def file_stems(names: Sequence[str]) -> list[str]:
    """A file name without ending for each frame: its stem, or its whole path where stems repeat."""
    stems = [Path(name).stem for name in names]
    if len(set(stems)) == len(stems):
        return stems
    flat = [name.strip("/").replace("/", "_").replace("\\", "_") for name in names]
    return flat if len(set(flat)) == len(flat) else [f"{i:06d}_{name}" for i, name in enumerate(flat)]


class VideoWriter:
    """Writes frames of one size to a video, readable again or not there at all."""

    def __init__(self, path: Path, frames_per_second: float) -> None:
        """Nothing is opened before the first frame, which gives the size.

        Args:
            path: ends in one of `VIDEO_CODECS`.
            frames_per_second: rate at which the video plays.
        """
        self.path = path
        self.rate = frames_per_second
        self.count = 0
        self._size: tuple[int, int] | None = None
        self._writer: Any = None
        self._open = _beside(path)
        self._temporary: Path | None = None

    def __enter__(self) -> VideoWriter:
        with output_errors(self.path):
            self._temporary = self._open.__enter__()
        return self

    def write(self, image: NDArray[np.uint8]) -> None:
        """Append a frame, (H, W, 3) uint8 RGB.

        Raises:
            OutputError: for a frame of another size than the first, or when OpenCV cannot write such a video.
        """
        cv2 = import_cv2()
        size = image.shape[1], image.shape[0]
        if self._writer is None:
            # FFmpeg's own lines on stderr would stand beside the error raised here; it reads this when it first opens.
            os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
            self._size = size
            codec = cv2.VideoWriter_fourcc(*VIDEO_CODECS[self.path.suffix.lower()])
            self._writer = cv2.VideoWriter(str(self._temporary), cv2.CAP_FFMPEG, codec, self.rate, size)
            if not self._writer.isOpened():
                raise OutputError(f"OpenCV cannot write the video {self.path} of {size[0]}x{size[1]}; try .avi")
        if size != self._size:
            raise OutputError(
                f"a video has frames of one size, but after {self._size} came {size} (width, height); "
                "write images instead: give -o a folder"
            )
        self._writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        self.count += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._writer is not None:
                self._writer.release()
            if kind is None and self._temporary is not None:
                self._check(self._temporary)
                with output_errors(self.path):
                    os.replace(self._temporary, self.path)
        finally:
            self._open.__exit__(None, None, None)

    def _check(self, file: Path) -> None:
        # OpenCV does not report a failed write, as on a full disk; only reading it back tells.
        readable = _count_frames(file)
        if readable != self.count or not self.count:
            raise OutputError(
                f"cannot write {self.path}: {self.count} frames were written, but {readable} can be read again; "
                "is the disk full?"
            )


def _count_frames(file: Path) -> int:
    cv2 = import_cv2()
    capture = cv2.VideoCapture(str(file), cv2.CAP_FFMPEG)
    count = 0
    try:
        while capture.isOpened() and capture.grab():
            count += 1
    finally:
        capture.release()
    return count
