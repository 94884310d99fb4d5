from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from support.colours import Run
from support.graphs import random_frame, toy_network

GIVEN = ("--preset", "unit", "-q")


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """A float network of 64x64 pixels and three classes."""
    path = tmp_path / "toy.onnx"
    onnx.save(toy_network(), path)
    return path


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """Eight frames of the network's size, with labels beside them."""
    folder = tmp_path / "frames"
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    for index in range(8):
        cv2.imwrite(str(folder / "images" / f"{index}.png"), random_frame(seed=index))
        labels = np.random.default_rng(index).integers(0, 3, (64, 64), np.uint8)
        cv2.imwrite(str(folder / "labels" / f"{index}.png"), labels)
    return folder


class TestConvert:
    def test_json(self, edgeseg: Run, network: Path, frames: Path) -> None:
        code, out, err = edgeseg("convert", network, "--frames", frames, "--count", 6, *GIVEN, "--json")
        assert (code, err) == (0, "")
        found = json.loads(out)
        assert found["bundle"] == str(network.with_suffix(".edgeseg"))
        assert (found["frames"], found["method"], found["reused_calibration"]) == (6, "auto", False)
        scores = found["scores"]
        assert (scores["metric"], scores["float"], scores["frames"]) == ("agreement", 100.0, 2)
        assert scores["drop"] == pytest.approx(100 - scores["int8"])
        assert found["layers"]["int8"] + found["layers"]["float"] == 7
        assert 0 < found["layers"]["int8_mac_share"] <= 1
        assert found["seconds"] == pytest.approx(sum(found["seconds_by_step"].values()), abs=0.01)
        assert found["peak_rss_mb"] > 10
        assert found["smaller"] is None
        assert Path(found["report"]).is_file()

    def test_partners(self, edgeseg: Run, network: Path, frames: Path) -> None:
        given = ("convert", network, "--frames", frames, *GIVEN, "--force")
        code, out, _ = edgeseg(*given, "--partners", "--json")
        assert code == 0
        found = json.loads(out)["partners"]
        assert (found["taken"], found["left"], found["tolerance"]) == (1, 0, None)
        code, out, _ = edgeseg(*given, "--partners", "none", "--json")
        assert (code, json.loads(out)["partners"]) == (0, None)
        code, out, _ = edgeseg(*given)
        assert code == 0
        assert re.search(r"\n  joined  [01] of 1 partners of layers, for -?\d\.\d\d dB\n", out)

    def test_text_of_a_second_conversion(self, edgeseg: Run, network: Path, frames: Path) -> None:
        assert edgeseg("convert", network, "--frames", frames, *GIVEN)[0] == 0
        code, out, _ = edgeseg("convert", network, "--frames", frames, *GIVEN, "--force")
        assert code == 0
        assert out.startswith(f"{network.with_suffix('.edgeseg')}\n")
        assert "in INT8" in out
        assert "agreement with the float network: float 100.00, INT8" in out
        assert "reused" in out

    def test_labels_give_miou(self, edgeseg: Run, network: Path, frames: Path, tmp_path: Path) -> None:
        arguments = ("--labels", frames / "labels", "-o", tmp_path / "mine.edgeseg", "--json")
        code, out, _ = edgeseg("convert", network, "--frames", frames, *GIVEN, *arguments)
        assert code == 0
        found = json.loads(out)
        assert found["bundle"] == str(tmp_path / "mine.edgeseg")
        assert found["scores"]["metric"] == "miou"
        assert found["scores"]["drop"] == pytest.approx(found["scores"]["float"] - found["scores"]["int8"])

    def test_the_bundle_goes_through_the_other_commands(
        self, edgeseg: Run, network: Path, frames: Path, tmp_path: Path
    ) -> None:
        bundle = network.with_suffix(".edgeseg")
        assert edgeseg("convert", network, "--frames", frames, *GIVEN)[0] == 0
        assert edgeseg("lint", bundle)[0] == 0
        assert edgeseg("info", bundle)[0] == 0
        assert edgeseg("evaluate", bundle, "--data", frames, *GIVEN[2:])[0] == 0
        assert edgeseg("run", bundle, frames, "-o", tmp_path / "out", *GIVEN[2:])[0] == 0
        assert len(os.listdir(tmp_path / "out")) == 8


class TestAlsoSize:
    def test_says_what_both_cost(self, edgeseg: Run, network: Path, frames: Path) -> None:
        model = onnx.load(network)
        for axis in (2, 3):
            model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f"n{axis}"
        onnx.save(model, network)
        sizes = ("--size", "64x64", "--also-size", "32x64")
        code, out, err = edgeseg("convert", network, "--frames", frames, "--count", 6, *GIVEN, *sizes)
        assert (code, err) == (0, "")
        assert re.search(r"smaller 32x64, INT8 \d+\.\d\d, in .*toy\.edgeseg/smaller\n", out), out
        code, out, _ = edgeseg(
            "convert", network, "--frames", frames, "--count", 6, *GIVEN, *sizes, "--force", "--json"
        )
        found = json.loads(out)["smaller"]
        assert found["size"] == [32, 64]
        assert found["scores"]["metric"] == "agreement"


class TestFp16:
    def test_text(self, edgeseg: Run, network: Path, frames: Path) -> None:
        code, out, _ = edgeseg("convert", network, "--precision", "fp16", "--frames", frames, *GIVEN)
        assert code == 0
        assert "  layers  7 of 7 in FP16 (100.0 % of the MACs)\n  ranges  none: FP16 needs none\n" in out
        assert re.search(r"float 100\.00, FP16 \d+\.\d\d, drop \d\.\d\d \(95 %: .* on 8 frames\n", out)
        assert "INT8" not in out

    def test_without_frames(self, edgeseg: Run, network: Path) -> None:
        code, out, _ = edgeseg("convert", network, "--precision", "fp16", *GIVEN)
        assert code == 0
        assert "  scores  none: there was no frame; give some with --frames or --score-frames\n" in out
        assert "  note    Without frames nothing was scored" in out

    def test_json(self, edgeseg: Run, network: Path, frames: Path) -> None:
        code, out, _ = edgeseg("convert", network, "--precision", "fp16", "--score-frames", frames, *GIVEN, "--json")
        assert code == 0
        found = json.loads(out)
        assert (found["number_format"], found["method"], found["frames"]) == ("FP16", "fp16", 0)
        assert found["layers"] == {"int8": 0, "float": 7, "int8_mac_share": 0.0}
        assert found["scores"]["frames"] == 8

    def test_the_bundle_goes_through_the_other_commands(
        self, edgeseg: Run, network: Path, frames: Path, tmp_path: Path
    ) -> None:
        bundle = network.with_suffix(".edgeseg")
        assert edgeseg("convert", network, "--precision", "fp16", "--frames", frames, *GIVEN)[0] == 0
        assert edgeseg("lint", bundle)[0] == 0
        code, out, _ = edgeseg("info", bundle)
        assert code == 0
        assert re.search(r"^layers +7 in FP16 \(\d\.\d\d GMACs\)\nranges +none: FP16 needs no calibration$", out, re.M)
        assert re.search(r"^scores +agreement with the float network: float 100\.00, FP16 ", out, re.M)
        assert "in float:" not in out
        assert json.loads(edgeseg("info", bundle, "--json")[1])["quantization"]["number_format"] == "FP16"
        assert edgeseg("evaluate", bundle, "--data", frames, "-q")[0] == 0
        assert edgeseg("bench", bundle, "--seconds", "1", "-q")[0] == 0
        assert edgeseg("run", bundle, frames, "-o", tmp_path / "out", "-q")[0] == 0
        code, out, _ = edgeseg("compare", network, bundle, "--frames", frames, "--layers", "-q")
        assert code == 0
        assert f"{bundle} (bundle in FP16)" in out
        assert "no layer is below 20 dB" in out

    def test_sensitivity_has_no_ranges(self, edgeseg: Run, network: Path, frames: Path) -> None:
        assert edgeseg("convert", network, "--precision", "fp16", *GIVEN)[0] == 0
        code, out, err = edgeseg("sensitivity", network.with_suffix(".edgeseg"), "--frames", frames)
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert "is FP16 and was not calibrated, so it has no ranges for the analysis to start from" in err

    @pytest.mark.parametrize(
        ("given", "names"),
        [
            (("--budget", "1"), "--budget says"),
            (("--method", "mse", "--keep-float", "*"), "--method, --keep-float say"),
            (("--partners",), "--partners says"),
            (("--no-equalize",), "--no-equalize says"),
        ],
    )
    def test_what_contradicts_it(
        self, given: tuple[str, ...], names: str, edgeseg: Run, network: Path, frames: Path
    ) -> None:
        code, out, err = edgeseg("convert", network, "--precision", "fp16", "--frames", frames, *GIVEN, *given)
        assert (code, out) == (2, "")
        assert f"--precision fp16 neither calibrates nor quantizes, but {names} how to; give one or the other" in err


class TestBadInput:
    def test_no_frames(self, edgeseg: Run, network: Path) -> None:
        code, out, err = edgeseg("convert", network, "--preset", "unit")
        assert (code, out) == (2, "")
        assert err.startswith("edgeseg: error: convert needs --frames: ")
        assert "there is no default and no random calibration data" in err

    def test_no_preprocessing(self, edgeseg: Run, network: Path, frames: Path) -> None:
        code, _, err = edgeseg("convert", network, "--frames", frames)
        assert code == 2
        assert "give --mean and --std" in err

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("--method", "max"), "invalid choice: 'max'"),
            (("--count", "0"), "expected a whole number of at least 1, but got '0'"),
            (("--size", "64"), "expected HEIGHTxWIDTH in pixels, such as 360x480, but got '64'"),
            (("--size", "64x64", "--also-size", "64x64"), "needs a smaller size, but 64x64 is not below 64x64"),
            (("--output", "masks"), "invalid choice: 'masks'"),
        ],
    )
    def test_usage(self, arguments: tuple[str, ...], message: str, edgeseg: Run, network: Path, frames: Path) -> None:
        code, out, err = edgeseg("convert", network, "--frames", frames, *GIVEN, *arguments)
        assert (code, out) == (2, "")
        assert message in err

    def test_a_mapping_without_labels(self, edgeseg: Run, network: Path, frames: Path) -> None:
        code, _, err = edgeseg("convert", network, "--frames", frames, *GIVEN, "--map", "cityscapes:camvid")
        assert code == 2
        assert "give the labels with --labels DIR" in err

    @pytest.mark.parametrize("source", ["none", "empty", "*.nothing"])
    def test_sources_without_frames(self, source: str, edgeseg: Run, network: Path, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        code, out, err = edgeseg("convert", network, "--frames", tmp_path / source, *GIVEN)
        assert (code, out) == (1, "")
        assert err.startswith("edgeseg: error: ")
        assert err.count("\n") == 1
        assert str(tmp_path / source) in err
        assert not network.with_suffix(".edgeseg").exists()

    def test_a_broken_frame_among_good_ones(self, edgeseg: Run, network: Path, frames: Path) -> None:
        (frames / "images" / "3.png").write_bytes(b"\x89PNG\r\n")
        code, _, err = edgeseg("convert", network, "--frames", frames, *GIVEN)
        assert code == 1
        assert "3.png" in err
        assert "--skip-broken" in err
        code, out, err = edgeseg("convert", network, "--frames", frames, "--preset", "unit", "--skip-broken", "--json")
        assert code == 0
        assert "edgeseg: warning: skipped: " in err
        assert json.loads(out)["frames"] + json.loads(out)["scores"]["frames"] == 7

    def test_a_place_that_is_taken(self, edgeseg: Run, network: Path, frames: Path, tmp_path: Path) -> None:
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "thesis.txt").write_text("years of work")
        arguments = ("convert", network, "--frames", frames, *GIVEN, "-o", tmp_path / "mine")
        code, _, err = edgeseg(*arguments)
        assert code == 1
        assert "mine exists; choose another place with -o or replace it with --force" in err
        code, _, err = edgeseg(*arguments, "--force")
        assert code == 1
        assert "is not an edgeseg bundle, so --force does not replace it" in err
        assert os.listdir(tmp_path / "mine") == ["thesis.txt"]

    def test_classes_that_do_not_fit(self, edgeseg: Run, network: Path, frames: Path) -> None:
        code, _, err = edgeseg("convert", network, "--frames", frames, *GIVEN, "--classes", "camvid")
        assert code == 1
        assert "the network has 3 output channels, but the label set has 11 classes" in err


def test_an_interrupt_during_calibration(edgeseg: Run, network: Path, frames: Path, cache: Path) -> None:
    """A real Ctrl-C to a real process whose progress bar has reached the calibration."""
    bundle = network.with_suffix(".edgeseg")
    assert edgeseg("convert", network, "--frames", frames, *GIVEN)[0] == 0
    before, calibrations = snapshot(bundle), snapshot(cache / "calibration")
    for index in range(8, 3000):
        (frames / "images" / f"{index}.png").symlink_to(frames / "images" / f"{index % 8}.png")
    command = [sys.executable, "-m", "edgeseg", "convert", str(network), "--frames", str(frames), "--preset", "unit"]
    terminal, other_end = pty.openpty()
    process = subprocess.Popen(
        [*command, "--count", "2000", "--force"], stdout=subprocess.PIPE, stderr=other_end, text=True
    )
    os.close(other_end)
    shown = read_until(terminal, "calibrate")
    assert "calibrate" in shown
    time.sleep(0.3)
    assert process.poll() is None, "the conversion ended before it could be interrupted"
    process.send_signal(signal.SIGINT)
    shown = read_until(terminal, None)
    os.close(terminal)
    assert process.wait(timeout=60) == 130
    assert process.stdout is not None
    assert process.stdout.read() == ""
    process.stdout.close()
    assert shown.rstrip().endswith("edgeseg: interrupted")
    assert "Traceback" not in shown
    assert snapshot(bundle) == before
    assert snapshot(cache / "calibration") == calibrations
    assert sorted(p.name for p in network.parent.iterdir()) == ["frames", "toy.edgeseg", "toy.onnx"]


def read_until(terminal: int, word: str | None) -> str:
    """What a terminal shows until a word, or until its program has ended."""
    shown = ""
    while word is None or word not in shown:
        try:
            block = os.read(terminal, 65536)
        except OSError:  # Linux's way to say that the other end is closed
            break
        if not block:
            break
        shown += block.decode(errors="replace")
    return shown


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
