"""`--refine` of `edgeseg run` and `edgeseg evaluate`."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.colours import Run

import edgeseg as library
from edgeseg.refine import LearnedCRF, refinement


def read(path: Path) -> np.ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert image is not None, path
    return image


def speckle(folder: Path) -> None:
    """Give every frame grey pixels whose class hangs on one level: the network takes it, a refinement does not."""
    for file in sorted(folder.iterdir()):
        image = read(file)
        image[5, 5] = (120, 121, 120)
        image[5, 6:9] = (120, 120, 121)
        cv2.imwrite(str(file), image)


@pytest.mark.parametrize("name", ["densecrf", "gridcrf"])
class TestRun:
    def test_writes_what_the_refinement_gives(
        self, edgeseg: Run, bundle: Path, frames: Path, tmp_path: Path, name: str
    ) -> None:
        speckle(frames)
        options = ("--class-map", "--refine", name, "--json")
        code, out, err = edgeseg("run", bundle, frames, "-o", tmp_path / "out", *options)
        assert (code, err) == (0, "")
        assert json.loads(out)["refine"] == name
        assert json.loads(out)["frames"] == 3
        with library.load(bundle) as segmenter:
            for file in sorted(frames.iterdir()):
                image = np.ascontiguousarray(read(file)[:, :, ::-1])
                expected = refinement(name)(segmenter.logits(image), image).argmax(axis=0)
                assert np.array_equal(read(tmp_path / "out" / file.name), expected)

    def test_scores_it(self, edgeseg: Run, bundle: Path, data: Path, name: str) -> None:
        code, out, err = edgeseg("evaluate", bundle, "--data", data, "--refine", name, "--json")
        assert (code, err) == (0, "")
        found = json.loads(out)
        assert found["refine"] == name
        # The frames' colours are far apart: what was right stays right, as without a refinement.
        assert found["confusion"] == [[360, 0, 0, 0], [24, 384, 0, 0], [0, 0, 1536, 0]]
        text = edgeseg("evaluate", bundle, "--data", data, "--refine", name)[1]
        assert f"on 3 frames, onnxruntime, {name}, " in text


class TestLearned:
    """A file of parameters that `edgeseg export` wrote of a CRF-as-RNN."""

    @pytest.fixture
    def crf(self, tmp_path: Path) -> Path:
        random = np.random.default_rng(0)
        matrices = (np.eye(3) + random.normal(0, 0.1, (3, 3, 3))).astype(np.float32)
        (tmp_path / "net.crf.json").write_text(LearnedCRF(*matrices[:2], -matrices[2]).to_json())
        return tmp_path / "net.crf.json"

    def test_refines(self, edgeseg: Run, bundle: Path, frames: Path, tmp_path: Path, crf: Path) -> None:
        speckle(frames)
        options = ("--class-map", "--refine", "densecrf", "--refine-preset", crf)
        code, _, err = edgeseg("run", bundle, frames, "-o", tmp_path / "out", *options)
        assert (code, err) == (0, "")
        with library.load(bundle) as segmenter:
            for file in sorted(frames.iterdir()):
                image = np.ascontiguousarray(read(file)[:, :, ::-1])
                expected = LearnedCRF.read(crf)(segmenter.logits(image), image).argmax(axis=0)
                assert np.array_equal(read(tmp_path / "out" / file.name), expected)

    def test_is_scored(self, edgeseg: Run, bundle: Path, data: Path, crf: Path) -> None:
        options = ("--refine", "densecrf", "--refine-preset", crf, "--json")
        code, out, err = edgeseg("evaluate", bundle, "--data", data, *options)
        assert (code, err) == (0, "")
        assert json.loads(out)["confusion"] == [[360, 0, 0, 0], [24, 384, 0, 0], [0, 0, 1536, 0]]

    def test_of_other_classes(self, edgeseg: Run, bundle: Path, data: Path, tmp_path: Path) -> None:
        eye = np.eye(4, dtype=np.float32)
        (tmp_path / "four.json").write_text(LearnedCRF(eye, eye, -eye).to_json())
        options = ("--refine", "densecrf", "--refine-preset", tmp_path / "four.json")
        code, out, err = edgeseg("evaluate", bundle, "--data", data, *options)
        assert (code, out) == (1, "")
        assert "these parameters were learned with 4 classes, but the network has 3" in err

    def test_a_file_that_is_none(self, edgeseg: Run, bundle: Path, data: Path, tmp_path: Path) -> None:
        options = ("--refine", "densecrf", "--refine-preset", tmp_path / "none.json")
        code, out, err = edgeseg("evaluate", bundle, "--data", data, *options)
        assert (code, out) == (1, "")
        assert f"cannot read the CRF's parameters {tmp_path / 'none.json'}: No such file or directory" in err

    def test_of_gridcrf(self, edgeseg: Run, bundle: Path, data: Path, crf: Path) -> None:
        code, _, err = edgeseg("evaluate", bundle, "--data", data, "--refine", "gridcrf", "--refine-preset", crf)
        assert code == 2
        assert "gridcrf has no presets; leave the preset" in err


class TestWithout:
    def test_is_null(self, edgeseg: Run, bundle: Path, data: Path, frames: Path, tmp_path: Path) -> None:
        assert json.loads(edgeseg("evaluate", bundle, "--data", data, "--json")[1])["refine"] is None
        assert json.loads(edgeseg("run", bundle, frames, "-o", tmp_path / "out", "--json")[1])["refine"] is None


class TestRefuses:
    @pytest.mark.parametrize("command", ["run", "evaluate"])
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (("--refine", "densecfr"), "densecrf"),
            (("--refine-preset", "deeplab"), "--refine-preset goes with --refine densecrf; give both or none"),
            (("--refine", "gridcrf", "--refine-preset", "deeplab"), "gridcrf has no presets; leave the preset"),
            (("--refine", "densecrf", "--refine-preset", "deeplap"), "deeplab"),
        ],
    )
    def test_options(
        self,
        edgeseg: Run,
        bundle: Path,
        data: Path,
        tmp_path: Path,
        command: str,
        options: tuple[str, ...],
        message: str,
    ) -> None:
        rest = ("--data", data) if command == "evaluate" else (data / "images", "-o", tmp_path / "out")
        code, out, err = edgeseg(command, bundle, *rest, *options)
        assert (code, out) == (2, "")
        assert message in err
        assert not (tmp_path / "out").exists()

    def test_a_float_network(self, edgeseg: Run, data: Path) -> None:
        code, _, err = edgeseg("evaluate", "--onnx", "x.onnx", "--data", data, "--refine", "gridcrf")
        assert code == 2
        assert "--refine only goes with a bundle; convert the network first" in err
