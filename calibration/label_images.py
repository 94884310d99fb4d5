"""Reading one label image as class indices, whatever way its author stored them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.calibration.images import decode, import_cv2, is_complete
from edgeseg.calibration.png import palette_as_grey, read_header
from edgeseg.errors import LabelError
from edgeseg.labels import LabelSet

__all__ = ["check_labels", "read_labels"]

_BORDER = (224, 224, 192)
_BLACK = (0, 0, 0)


def read_labels(path: Path, label_set: LabelSet | None = None) -> NDArray[np.uint8]:
    """Read a label image.

    A grey image holds the indices themselves. A palette image holds them as indices of its palette (OpenCV would give
    its colours). An RGB image is read by the colours of the label set; black, and the (224, 224, 192) of PASCAL VOC's
    borders, stand for the ignored value there unless a class has that colour.

    Args:
        path: a PNG, or another format that stores pixels without loss.
        label_set: classes and colours; needed for RGB images only.

    Returns:
        (H, W) uint8 values as they are stored, not checked against the classes; see `check_labels`.

    Raises:
        LabelError: for a file that is missing, cut, lossy, has values beyond 255, or colours of no class.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise LabelError(f"cannot read the labels {path}: {error.strerror}") from error
    if data.startswith(b"\xff\xd8"):
        raise LabelError(f"the labels {path} are a JPEG, which changes class indices; save them as PNG")
    if not data or not is_complete(data):
        raise LabelError(f"the labels {path} are cut short or damaged ({len(data)} bytes); copy or save them again")
    header = read_header(data)
    if header is not None and header.is_palette:
        data = palette_as_grey(data)
    image = decode(data, import_cv2().IMREAD_UNCHANGED)
    if image is None:
        raise LabelError(f"cannot decode the labels {path} ({len(data)} bytes): they are damaged or no image")
    if header is not None and header.depth < 8:
        # The decoder spreads 1, 2 and 4 bits over 0..255.
        image = image // (255 // (2**header.depth - 1))
    if image.ndim == 2:
        return _as_uint8(image, path)
    return _by_color(image, path, label_set)


def _as_uint8(image: NDArray[Any], path: Path) -> NDArray[np.uint8]:
    largest = image.max()
    if not np.issubdtype(image.dtype, np.integer) or largest > 255:
        raise LabelError(
            f"labels must be whole numbers 0..255, but {path} has {image.dtype} values up to {largest}; "
            "instance ids must be turned into class ids first"
        )
    return image.astype(np.uint8)


def _by_color(image: NDArray[Any], path: Path, label_set: LabelSet | None) -> NDArray[np.uint8]:
    if label_set is None:
        raise LabelError(
            f"the labels {path} are colours, which need a label set to be read; "
            "name one with --classes, or save class indices as a grey PNG"
        )
    if image.dtype != np.uint8 or image.shape[2] not in (3, 4):
        raise LabelError(f"colour labels must be 8 bits a channel, but {path} is {image.shape} {image.dtype}")
    blue, green, red = (image[:, :, channel].astype(np.uint32) for channel in range(3))
    codes = red << 16 | green << 8 | blue
    values = {} if label_set.ignore_index is None else dict.fromkeys((_BORDER, _BLACK), label_set.ignore_index)
    for index, color in reversed(list(enumerate(label_set.palette))):
        values[color] = index
    found, inverse, counts = np.unique(codes, return_inverse=True, return_counts=True)
    colors = [(int(code) >> 16, int(code) >> 8 & 255, int(code) & 255) for code in found]
    unknown = [i for i, color in enumerate(colors) if color not in values]
    if unknown:
        raise LabelError(
            f"the labels {path} have {len(unknown)} colours of no class, the first is {colors[unknown[0]]} "
            f"in {int(counts[unknown[0]])} pixels; give the label set that they were drawn with"
        )
    table = np.array([values[color] for color in colors], np.uint8)
    labels: NDArray[np.uint8] = table[inverse.reshape(codes.shape)]
    return labels


def check_labels(labels: NDArray[np.uint8], label_set: LabelSet, path: Path) -> None:
    """Refuse label values that are neither a class nor the ignored one.

    Args:
        labels: (H, W) uint8.
        label_set: what they must be of.
        path: where they came from, for the message.

    Raises:
        LabelError: with the value, the number of pixels and the file.
    """
    counts = np.bincount(labels.reshape(-1), minlength=256)
    if label_set.ignore_index is not None:
        counts[label_set.ignore_index] = 0
    unknown = np.flatnonzero(counts[len(label_set) :]) + len(label_set)
    if unknown.size:
        ignored = "nothing is" if label_set.ignore_index is None else f"{label_set.ignore_index} is"
        raise LabelError(
            f"{path} has the unknown label {unknown[0]} in {counts[unknown[0]]} pixels; the labels are "
            f"0..{len(label_set) - 1} ({ignored} ignored): give the label set that they were drawn with"
        )
