from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.colours import Run, save_frame


def read(path: Path) -> np.ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert image is not None, path
    return image


class TestImages:
    def test_overlays_of_a_folder(self, edgeseg: Run, bundle: Path, frames: Path, tmp_path: Path) -> None:
        code, out, err = edgeseg("run", bundle, frames, "-o", tmp_path / "out")
        assert (code, err) == (0, "")
        assert sorted(os.listdir(tmp_path / "out")) == ["0_red.jpg", "1_green.jpg", "2_blue.jpg"]
        assert f"{tmp_path / 'out'}: 3 frames in" in out
        assert "frames/s end to end" in out
        # Half frame (200 red), half colour (255 red), as BGR.
        assert np.abs(read(tmp_path / "out" / "0_red.jpg")[12, 4].astype(int) - (0, 0, 228)).max() < 12

    def test_class_maps_are_indices(self, edgeseg: Run, bundle: Path, frames: Path, tmp_path: Path) -> None:
        assert edgeseg("run", bundle, frames, "-o", tmp_path / "out", "--class-map")[0] == 0
        assert sorted(os.listdir(tmp_path / "out")) == ["0_red.png", "1_green.png", "2_blue.png"]
        for index, name in enumerate(("0_red", "1_green", "2_blue")):
            classes = read(tmp_path / "out" / f"{name}.png")
            assert classes.dtype == np.uint8
            assert classes.shape == (24, 32)
            assert (classes[:, :16] == index).all()
            assert (classes[:, 16:] == 2).all()

    def test_a_class_map_has_the_size_of_its_frame(self, edgeseg: Run, bundle: Path, tmp_path: Path) -> None:
        save_frame(tmp_path / "large.png", 1, 60, 100)
        assert edgeseg("run", bundle, tmp_path / "large.png", "-o", tmp_path / "map.png", "--class-map")[0] == 0
        classes = read(tmp_path / "map.png")
        assert classes.shape == (60, 100)
        assert (classes[:, :44] == 1).all()

    def test_both_kinds_stand_apart(self, edgeseg: Run, bundle: Path, frames: Path, tmp_path: Path) -> None:
        assert edgeseg("run", bundle, frames, "-o", tmp_path / "out", "--class-map", "--overlay")[0] == 0
        assert sorted(os.listdir(tmp_path / "out")) == ["class_maps", "overlays"]
        assert len(os.listdir(tmp_path / "out" / "class_maps")) == 3
        assert len(os.listdir(tmp_path / "out" / "overlays")) == 3

    def test_every_second(self, edgeseg: Run, bundle: Path, frames: Path, tmp_path: Path) -> None:
        code, out, _ = edgeseg("run", bundle, frames, "-o", tmp_path / "out", "--every", 2, "--json")
        assert code == 0
        assert json.loads(out)["frames"] == 2
        assert sorted(os.listdir(tmp_path / "out")) == ["0_red.jpg", "2_blue.jpg"]

    def test_json(self, edgeseg: Run, bundle: Path, frames: Path, tmp_path: Path) -> None:
        found = json.loads(edgeseg("run", bundle, frames, "-o", tmp_path / "out", "--json")[1])
        assert found["output"] == [str(tmp_path / "out")]
        assert (found["frames"], found["skipped"], found["backend"]) == (3, 0, "onnxruntime")
        assert found["fps"] > 0
        assert found["infer_ms"] > 0


class TestVideo:
    def test_a_video_becomes_an_overlay_video(self, edgeseg: Run, bundle: Path, frames: Path, tmp_path: Path) -> None:
        assert edgeseg("run", bundle, frames, "-o", tmp_path / "a.mp4", "--fps", 8)[0] == 0
        code, out, _ = edgeseg("run", bundle, tmp_path / "a.mp4", "-o", tmp_path / "b.avi", "--json")
        assert code == 0
        assert json.loads(out)["frames"] == 3
        video = cv2.VideoCapture(str(tmp_path / "b.avi"))
        assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(8)  # the source's
        assert [video.read()[0] for _ in range(4)] == [True, True, True, False]

    def test_every_second_frame_keeps_the_pace(self, edgeseg: Run, bundle: Path, frames: Path, tmp_path: Path) -> None:
        assert edgeseg("run", bundle, frames, "-o", tmp_path / "a.mp4", "--fps", 8)[0] == 0
        assert edgeseg("run", bundle, tmp_path / "a.mp4", "-o", tmp_path / "b.mp4", "--every", 2)[0] == 0
        assert cv2.VideoCapture(str(tmp_path / "b.mp4")).get(cv2.CAP_PROP_FPS) == pytest.approx(4)

    def test_images_and_a_video(self, edgeseg: Run, bundle: Path, frames: Path, tmp_path: Path) -> None:
        video = tmp_path / "a.mkv"
        assert edgeseg("run", bundle, frames, "-o", tmp_path / "out", "--class-map", "--video", video)[0] == 0
        assert len(os.listdir(tmp_path / "out")) == 3
        assert cv2.VideoCapture(str(video)).read()[0]

    def test_frames_of_two_sizes(self, edgeseg: Run, bundle: Path, frames: Path, tmp_path: Path) -> None:
        save_frame(frames / "9.png", 0, 30, 40)
        code, _, err = edgeseg("run", bundle, frames, "-o", tmp_path / "a.mp4")
        assert code == 1
        assert "after (32, 24) came (40, 30) (width, height); write images instead" in err
        assert not (tmp_path / "a.mp4").exists()


class TestBadInput:
    def test_images_are_never_replaced_by_their_results(
        self, edgeseg: Run, bundle: Path, frames: Path, tmp_path: Path
    ) -> None:
        folder = tmp_path / "photos"
        folder.mkdir()
        for file in frames.iterdir():
            cv2.imwrite(str(folder / f"{file.stem}.jpg"), read(file))
        before = {file.name: file.read_bytes() for file in folder.iterdir()}
        code, _, err = edgeseg("run", bundle, folder, "-o", folder, "--force")
        assert code == 1
        assert f"would replace {folder / min(before)}, one of the frames; choose another place with -o" in err
        assert {file.name: file.read_bytes() for file in folder.iterdir()} == before

    def test_a_video_is_never_replaced_by_its_result(
        self, edgeseg: Run, bundle: Path, frames: Path, tmp_path: Path
    ) -> None:
        video = tmp_path / "clip.avi"
        assert edgeseg("run", bundle, frames, "-o", video)[0] == 0
        before = video.read_bytes()
        code, _, err = edgeseg("run", bundle, video, "-o", video, "--force")
        assert code == 1
        assert f"the results would replace {video}, one of the frames" in err
        assert video.read_bytes() == before

    def test_a_name_that_is_too_long(self, edgeseg: Run, bundle: Path, frames: Path) -> None:
        code, _, err = edgeseg("run", bundle, frames, "-o", "a" * 300)
        assert code == 1
        assert "File name too long; choose another place with -o" in err

    def test_output_that_exists(self, edgeseg: Run, bundle: Path, frames: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        out.mkdir()
        (out / "0_red.jpg").write_text("mine")
        code, _, err = edgeseg("run", bundle, frames, "-o", out)
        assert code == 1
        assert "out exists and is not empty; choose another place with -o or write into it with --force" in err
        assert (out / "0_red.jpg").read_text() == "mine"
        assert edgeseg("run", bundle, frames, "-o", out, "--force")[0] == 0
        assert read(out / "0_red.jpg").shape == (24, 32, 3)

    def test_a_broken_image_among_good_ones(self, edgeseg: Run, bundle: Path, frames: Path, tmp_path: Path) -> None:
        (frames / "1_green.png").write_bytes((frames / "1_green.png").read_bytes()[:40])
        code, _, err = edgeseg("run", bundle, frames, "-o", tmp_path / "out")
        assert code == 1
        assert "1_green.png" in err
        assert "--skip-broken" in err
        code, out, err = edgeseg("run", bundle, frames, "-o", tmp_path / "out", "--force", "--skip-broken", "--json")
        assert code == 0
        assert (json.loads(out)["frames"], json.loads(out)["skipped"]) == (2, 1)
        assert "edgeseg: warning: skipped: " in err
        assert "1_green.png" in err

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("-o", "a.mp4", "--class-map"), "a.mp4 is a video: for images too, give -o a folder and --video a.mp4"),
            (("-o", "a.png", "--class-map", "--overlay"), "a.png is one file: for overlay and class map together"),
            (("-o", "a.jpg", "--class-map"), "a class map is written as PNG, since other formats change its values"),
            (("-o", "a.png"), "a.png is one file, but the source has 3 frames; give a folder"),
            (("-o", "a", "--video", "b.gif"), "--video must end in .mp4, .mkv, .mov, .avi, .webm, but is b.gif"),
            (("-o", "a", "--alpha", "2"), "expected a number from 0 to 1, but got '2'"),
            (("-o", "a", "--fps", "0"), "expected frames per second, such as 25, but got '0'"),
            (("-o", "a", "--every", "0"), "expected a whole number of at least 1, but got '0'"),
            (("-o", "a", "--backend", "openvin"), "unknown backend 'openvin'; did you mean openvino?"),
            ((), "the following arguments are required: -o"),
        ],
    )
    def test_usage(
        self, arguments: tuple[str, ...], message: str, edgeseg: Run, bundle: Path, frames: Path, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        monkeypatch.chdir(tmp_path)
        code, out, err = edgeseg("run", bundle, frames, *arguments)
        assert (code, out) == (2, "")
        assert message in err

    @pytest.mark.parametrize("source", ["none", "empty"])
    def test_sources_without_frames(self, source: str, edgeseg: Run, bundle: Path, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        code, _, err = edgeseg("run", bundle, tmp_path / source, "-o", tmp_path / "out")
        assert code == 1
        assert err.startswith("edgeseg: error: ")
        assert str(tmp_path / source) in err
        assert not (tmp_path / "out").exists()

    def test_a_bundle_that_was_changed(self, edgeseg: Run, bundle: Path, frames: Path, tmp_path: Path) -> None:
        (bundle / "model.onnx").write_bytes(b"x")
        code, _, err = edgeseg("run", bundle, frames, "-o", tmp_path / "out")
        assert code == 1
        assert "model.onnx was changed or cut short" in err
        assert not (tmp_path / "out").exists()
