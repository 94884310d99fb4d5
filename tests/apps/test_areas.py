"""`edgeseg run --areas`: areas of frames, and the volume of what a stack of slices shows."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest
from support.colours import Run

# Every frame of the fixture has 24 x 16 pixels of its own colour and as many of blue.
HALF = 24 * 16


class TestAreas:
    def test_shares_as_csv(self, edgeseg: Run, bundle: Path, frames: Path, tmp_path: Path) -> None:
        file = tmp_path / "areas.csv"
        code, out, _ = edgeseg("run", bundle, frames, "-o", tmp_path / "out", "--areas", file)
        assert code == 0
        assert f"{tmp_path / 'out'}, {file}: 3 frames" in out
        assert "volume" not in out
        assert list(csv.reader(file.read_text().splitlines())) == [
            ["frame", "red", "green", "blue"],
            ["0_red.png", "0.5", "0.0", "0.5"],
            ["1_green.png", "0.0", "0.5", "0.5"],
            ["2_blue.png", "0.0", "0.0", "1.0"],
        ]

    def test_square_units_as_json(self, edgeseg: Run, bundle: Path, frames: Path, tmp_path: Path) -> None:
        file = tmp_path / "areas.json"
        arguments = ("--areas", file, "--spacing", 0.5, 0.25)
        assert edgeseg("run", bundle, frames, "-o", tmp_path / "out", *arguments)[0] == 0
        found = json.loads(file.read_text())
        assert (found["spacing"], found["slice_distance"], found["volumes"]) == ([0.5, 0.25], None, None)
        assert found["frames"][1] == {
            "name": "1_green.png",
            "areas": {"red": 0.0, "green": HALF * 0.125, "blue": HALF * 0.125},
        }

    def test_of_tiles(self, edgeseg: Run, bundle: Path, frames: Path, tmp_path: Path) -> None:
        file = tmp_path / "areas.json"
        arguments = ("--areas", file, "--tile", "16x16", "--overlap", 0, "-q")
        assert edgeseg("run", bundle, frames, "-o", tmp_path / "out", *arguments)[0] == 0
        assert json.loads(file.read_text())["frames"][0]["areas"] == {"red": 0.5, "green": 0.0, "blue": 0.5}

    def test_a_file_that_exists_stays(self, edgeseg: Run, bundle: Path, frames: Path, tmp_path: Path) -> None:
        (tmp_path / "areas.csv").write_text("mine")
        code, _, err = edgeseg("run", bundle, frames, "-o", tmp_path / "out", "--areas", tmp_path / "areas.csv")
        assert code == 1
        assert "areas.csv exists; choose another place with -o or write into it with --force" in err
        assert (tmp_path / "areas.csv").read_text() == "mine"
        assert not (tmp_path / "out").exists()

    def test_written_only_when_complete(self, edgeseg: Run, bundle: Path, frames: Path, tmp_path: Path) -> None:
        (frames / "2_blue.png").write_bytes(b"broken")
        assert edgeseg("run", bundle, frames, "-o", tmp_path / "out", "--areas", tmp_path / "a.csv")[0] == 1
        assert "a.csv" not in os.listdir(tmp_path)


class TestVolumes:
    def test_sum_of_areas_times_distance(self, edgeseg: Run, bundle: Path, frames: Path, tmp_path: Path) -> None:
        arguments = ("--spacing", 0.5, 0.5, "--slice-distance", 2)
        code, out, _ = edgeseg("run", bundle, frames, "-o", tmp_path / "out", *arguments)
        assert code == 0
        # Red and green fill half of one slice, blue half of two and all of one: 384 pixels of 0.25, 2 apart.
        rows = dict(line.split() for line in out.splitlines()[1:4])
        assert {name: float(volume) for name, volume in rows.items()} == {"red": 192, "green": 192, "blue": 768}
        assert "by Cavalieri: the sum of the areas of 3 slices x 2\n" in out

    def test_json(self, edgeseg: Run, bundle: Path, frames: Path, tmp_path: Path) -> None:
        arguments = ("--spacing", 1, 1, "--slice-distance", 0.5, "--areas", tmp_path / "a.json", "--json")
        found = json.loads(edgeseg("run", bundle, frames, "-o", tmp_path / "out", *arguments)[1])
        assert found["volumes"] == {"red": HALF / 2, "green": HALF / 2, "blue": 2 * HALF}
        assert (found["spacing"], found["slice_distance"]) == ([1.0, 1.0], 0.5)
        assert json.loads((tmp_path / "a.json").read_text())["volumes"] == found["volumes"]

    def test_every_second_slice_is_twice_as_thick(
        self, edgeseg: Run, bundle: Path, frames: Path, tmp_path: Path
    ) -> None:
        arguments = ("--spacing", 1, 1, "--slice-distance", 0.5, "--every", 2, "--json")
        found = json.loads(edgeseg("run", bundle, frames, "-o", tmp_path / "out", *arguments)[1])
        assert found["slice_distance"] == 1.0
        assert found["volumes"] == {"red": HALF, "green": 0, "blue": 3 * HALF}


class TestBadInput:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("--areas", "a.txt"), "--areas must end in .csv or .json, but is a.txt"),
            (("--spacing", "1", "1"), "--spacing is for areas and volumes: give --areas FILE or --slice-distance D"),
            (("--slice-distance", "2"), "a volume needs the size of a pixel: give --spacing DY DX beside"),
            (("--spacing", "0", "1", "--areas", "a.csv"), "expected a distance above 0, such as 0.5, but got '0'"),
            (("--spacing", "1", "nan", "--areas", "a.csv"), "expected a distance above 0, such as 0.5, but got 'nan'"),
            (("--spacing", "1", "--areas", "a.csv"), "expected 2 arguments"),
            (("--spacing", "1", "1", "--slice-distance", "inf"), "expected a distance above 0, such as 0.5"),
            (("--spacing", "1", "1", "--slice-distance", "1", "--skip-broken"), "a volume needs every slice"),
        ],
    )
    def test_usage(
        self, arguments: tuple[str, ...], message: str, edgeseg: Run, bundle: Path, frames: Path, tmp_path: Path
    ) -> None:
        code, out, err = edgeseg("run", bundle, frames, "-o", tmp_path / "out", *arguments)
        assert (code, out) == (2, "")
        assert message in err
        assert not (tmp_path / "out").exists()
