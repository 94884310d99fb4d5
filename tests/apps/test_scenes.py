"""`edgeseg scenes`, and scenes where other commands take frames."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.colours import Run

from edgeseg.calibration.datasets import labelled_from
from edgeseg.labels import load_labels
from edgeseg.scenes import Street, render

SMALL = ("--count", 3, "--seed", 5, "--size", "32x48")


class TestFiles:
    def test_are_a_data_set(self, edgeseg: Run, tmp_path: Path) -> None:
        code, out, err = edgeseg("scenes", tmp_path / "out", *SMALL, "--png", "--json")
        assert (code, err) == (0, "")
        done = json.loads(out)
        assert (done["output"], done["frames"], done["size"]) == (str(tmp_path / "out"), 3, [32, 48])
        assert (done["seed"], done["streets"], done["every"]) == (5, 1, 1)
        data = labelled_from(str(tmp_path / "out"))
        assert data.label_set == load_labels("camvid")
        for number, item in enumerate(data):
            scene = render(Street(5), number, 32, 48)
            assert np.array_equal(item.frame.image, scene.image)
            assert np.array_equal(item.labels, scene.labels)
        labels = np.stack([item.labels for item in data])
        assert done["areas"]["road"] == pytest.approx(np.mean(labels == 3))

    def test_text_and_jpeg(self, edgeseg: Run, tmp_path: Path) -> None:
        code, out, _ = edgeseg("scenes", tmp_path / "out", *SMALL, "--streets", 3, "--every", 7)
        assert code == 0
        assert "3 frames of 32x48 in" in out
        assert "rendered, for tests only" in out
        names = sorted(path.name for path in (tmp_path / "out" / "images").iterdir())
        assert names == [f"street{seed}_000000.jpg" for seed in (5, 6, 7)]

    def test_force(self, edgeseg: Run, tmp_path: Path) -> None:
        (tmp_path / "other.txt").write_text("kept")
        code, out, err = edgeseg("scenes", tmp_path, *SMALL)
        assert (code, out) == (1, "")
        assert "exists and is not empty; name another folder or write into it with --force" in err
        assert edgeseg("scenes", tmp_path, *SMALL, "--force")[0] == 0
        assert (tmp_path / "other.txt").read_text() == "kept"

    def test_a_file_in_the_way(self, edgeseg: Run, tmp_path: Path) -> None:
        (tmp_path / "out").write_text("")
        code, _, err = edgeseg("scenes", tmp_path / "out", *SMALL, "--force")
        assert code == 1
        assert "is a file, but scenes are written into a folder" in err

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("--count", 2, "--streets", 3), "2 frames cannot visit 3 streets"),
            (("--size", "8x8"), "16 to 4096 pixels a side"),
            (("--seed", "-1"), "expected"),
            (("--seed", "x"), "expected a whole number from 0"),
        ],
    )
    def test_usage(self, edgeseg: Run, tmp_path: Path, arguments: tuple[object, ...], message: str) -> None:
        code, out, err = edgeseg("scenes", tmp_path / "out", *arguments)
        assert (code, out) == (2, "")
        assert message in err
        assert not (tmp_path / "out").exists()


class TestElsewhere:
    def test_run_takes_a_scene(self, edgeseg: Run, bundle: Path, tmp_path: Path) -> None:
        video = tmp_path / "out.avi"
        source = "scene://street?count=4&size=32x48&every=2"
        assert edgeseg("run", bundle, source, "-o", video, "--every", 2)[0] == 0
        capture = cv2.VideoCapture(str(video))
        assert (capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)) == (6.25, 2)
        capture.release()

    def test_run_names_what_is_wrong(self, edgeseg: Run, bundle: Path, tmp_path: Path) -> None:
        code, out, err = edgeseg("run", bundle, "scene://street?coun=4", "-o", tmp_path / "out")
        assert (code, out) == (2, "")
        assert "'coun'" in err
        assert len(err.splitlines()) == 1

    def test_evaluate_takes_its_labels(self, edgeseg: Run, bundle: Path) -> None:
        code, _, err = edgeseg("evaluate", bundle, "--data", "scene://street?count=2&size=32x48")
        assert code == 1  # this bundle's classes are red, green and blue
        assert "but the labels have 11 (sky, building, pole, road, ...)" in err

    def test_evaluate_scores(self, edgeseg: Run, bundle: Path, tmp_path: Path) -> None:
        mapping = {"to": "camvid", "map": {"red": "road", "green": "tree", "blue": "sky"}}
        (tmp_path / "map.json").write_text(json.dumps(mapping))
        data = "scene://street?count=2&size=32x48"
        code, out, _ = edgeseg("evaluate", bundle, "--data", data, "--map", tmp_path / "map.json", "--json")
        found = json.loads(out)
        assert (code, found["frames"], found["skipped"]) == (0, 2, 0)
        labelled = sum(np.count_nonzero(render(Street(0), n, 32, 48).labels == 0) for n in (0, 1))
        assert sum(found["confusion"][0]) == labelled

    def test_a_scene_has_no_splits(self, edgeseg: Run, bundle: Path) -> None:
        code, out, err = edgeseg("evaluate", bundle, "--data", "scene://street", "--split", "val")
        assert (code, out) == (2, "")
        assert "a scene has no splits; leave --split out and give another seed" in err
