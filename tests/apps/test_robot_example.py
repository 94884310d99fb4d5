"""The example for robot programs runs as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.colours import Run

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "robot.py"


def steer(*arguments: object) -> list[tuple[str, float, float]]:
    """Name, steering and speed by frame."""
    command = [sys.executable, str(EXAMPLE), *(str(argument) for argument in arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [re.fullmatch(r"(.*): steer ([+-][\d.]+), speed ([\d.]+)", line) for line in done.stdout.splitlines()]
    return [(line[1], float(line[2]), float(line[3])) for line in lines if line]


@pytest.mark.usefixtures("cache")
class TestRobot:
    def test_steers_to_where_it_is_free(self, bundle: Path, frames: Path) -> None:
        # The left half is red in the first frame, green in the second, blue in the third; the right half is blue.
        assert steer(bundle, frames, "red") == [("0_red.png", -0.52, 0.5), ("1_green.png", 0, 0), ("2_blue.png", 0, 0)]
        assert steer(bundle, frames, "blue") == [
            ("0_red.png", 0.52, 0.5),
            ("1_green.png", 0.52, 0.5),
            ("2_blue.png", 0, 1),
        ]

    def test_takes_a_video(self, edgeseg: Run, bundle: Path, frames: Path, tmp_path: Path) -> None:
        assert edgeseg("run", bundle, frames, "-o", tmp_path / "drive.mp4", "--alpha", "0")[0] == 0
        _, direction, speed = steer(bundle, tmp_path / "drive.mp4", "red")[0]
        assert (direction, speed) == (pytest.approx(-0.52, abs=0.1), pytest.approx(0.5, abs=0.1))

    def test_is_short(self) -> None:
        assert len(EXAMPLE.read_text("utf-8").splitlines()) <= 16
