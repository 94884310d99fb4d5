"""Folders of small frames and label images."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from support.graphs import random_frame


def frame_folder(folder: Path, count: int, height: int = 64, width: int = 64, first_seed: int = 0) -> Path:
    """Write `count` different PNG frames frame00.png, frame01.png ... and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        frame = random_frame(height, width, first_seed + number)
        cv2.imwrite(str(folder / f"frame{number:02}.png"), frame[:, :, ::-1])
    return folder


def label_folder(folder: Path, count: int, classes: int, height: int = 64, width: int = 64) -> Path:
    """Write a random label image for each frame of `frame_folder` and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        labels = np.random.default_rng(number).integers(0, classes, (height, width), np.uint8)
        cv2.imwrite(str(folder / f"frame{number:02}.png"), labels)
    return folder
