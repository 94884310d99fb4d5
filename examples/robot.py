"""Steer along free space: `python3 examples/robot.py BUNDLE FRAMES [CLASS]`; FRAMES is a folder, a video or a scene."""

import sys

import numpy as np

import edgeseg
from edgeseg.calibration.frames import frames_from

bundle, source, free = (*sys.argv[1:], "road")[:3]
with edgeseg.load(bundle) as segmenter:
    for frame in frames_from(source):
        near = segmenter(frame.image).mask(free)[frame.image.shape[0] // 2 :]  # the lower half: the next few metres
        columns = near.sum(axis=0)  # free pixels in each direction
        middle = np.average(np.linspace(-1, 1, len(columns)), weights=columns) if columns.any() else 0.0
        print(f"{frame.name}: steer {middle:+.2f}, speed {near.mean():.2f}")  # -1 is left, +1 is right; 0..1
