"""`edgeseg baseline`: class maps without a network."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.colours import Run

from edgeseg.refine import Quadtree, otsu


def read(path: Path) -> np.ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert image is not None, path
    return image


def rgb(path: Path) -> np.ndarray:
    return np.ascontiguousarray(read(path)[:, :, ::-1])


class TestWrites:
    def test_otsu(self, edgeseg: Run, frames: Path, tmp_path: Path) -> None:
        code, out, err = edgeseg("baseline", frames, "--method", "otsu", "-o", tmp_path / "out", "--json")
        assert (code, err) == (0, "")
        done = json.loads(out)
        assert (done["output"], done["method"], done["frames"], done["skipped"]) == (
            str(tmp_path / "out"),
            "otsu",
            3,
            0,
        )
        assert sorted(os.listdir(tmp_path / "out")) == ["0_red.png", "1_green.png", "2_blue.png"]
        for image in done["images"]:
            bright, level = otsu(rgb(frames / f"{Path(image['name']).stem}.png"))
            written = read(tmp_path / "out" / f"{Path(image['name']).stem}.png")
            assert written.dtype == np.uint8
            assert np.array_equal(written, bright)
            assert (image["threshold"], image["bright"]) == (level, pytest.approx(bright.mean()))

    def test_quadtree(self, edgeseg: Run, frames: Path, tmp_path: Path) -> None:
        code, out, _ = edgeseg("baseline", frames / "1_green.png", "--method", "quadtree", "-o", tmp_path / "out")
        assert code == 0
        assert f"{tmp_path / 'out'}: 1 class maps by quadtree in" in out
        assert "regions 2 to 2" in out
        written = read(tmp_path / "out" / "1_green.png")
        assert np.array_equal(written, Quadtree()(rgb(frames / "1_green.png"))[0])
        assert (written[:, :16] == written[0, 0]).all()
        assert (written[:, 16:] == 1 - written[0, 0]).all()

    def test_options_of_the_quadtree(self, edgeseg: Run, frames: Path, tmp_path: Path) -> None:
        options = ("--method", "quadtree", "--difference", 255, "--deviation", 3, "--smallest", 2)
        out = edgeseg("baseline", frames, *options, "-o", tmp_path / "out", "--json")[1]
        assert [image["regions"] for image in json.loads(out)["images"]] == [1, 1, 1]

    def test_real_frames(self, edgeseg: Run, shared: Path, tmp_path: Path) -> None:
        frame = sorted((shared / "data/camvid/val/images").iterdir())[0]
        for method in ("otsu", "quadtree"):
            assert edgeseg("baseline", frame, "--method", method, "-o", tmp_path / method)[0] == 0
            written = read(tmp_path / method / f"{frame.stem}.png")
            assert written.shape == read(frame).shape[:2]
            assert len(np.unique(written)) == 2 if method == "otsu" else len(np.unique(written)) > 10


class TestRefuses:
    def test_a_full_folder(self, edgeseg: Run, frames: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        out.mkdir()
        (out / "kept.txt").write_text("")
        code, _, err = edgeseg("baseline", frames, "--method", "otsu", "-o", out)
        assert code == 1
        assert "exists and is not empty" in err
        assert edgeseg("baseline", frames, "--method", "otsu", "-o", out, "--force")[0] == 0

    def test_a_file_in_the_way(self, edgeseg: Run, frames: Path, tmp_path: Path) -> None:
        (tmp_path / "out").write_text("")
        code, _, err = edgeseg("baseline", frames, "--method", "otsu", "-o", tmp_path / "out", "--force")
        assert code == 1
        assert "is a file, but class maps are written into a folder" in err

    def test_replacing_the_images(self, edgeseg: Run, frames: Path) -> None:
        before = read(frames / "0_red.png")
        code, _, err = edgeseg("baseline", frames, "--method", "otsu", "-o", frames, "--force")
        assert code == 1
        assert "0_red.png, one of the images; choose another place with -o" in err
        assert np.array_equal(read(frames / "0_red.png"), before)

    @pytest.mark.parametrize(
        ("options", "code", "message"),
        [
            (("--method", "watershed"), 2, "invalid choice: 'watershed'"),
            ((), 2, "the following arguments are required: --method"),
            (("--method", "otsu", "--smallest", 3), 2, "--smallest only go with --method quadtree"),
            (("--method", "quadtree", "--smallest", 0), 2, "smallest is a side in pixels and must be at least 1"),
        ],
    )
    def test_options(
        self, edgeseg: Run, frames: Path, tmp_path: Path, options: tuple[object, ...], code: int, message: str
    ) -> None:
        found, _, err = edgeseg("baseline", frames, *options, "-o", tmp_path / "out")
        assert found == code
        assert message in err
        assert not (tmp_path / "out").exists()
