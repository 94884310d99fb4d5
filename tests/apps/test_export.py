from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from support.colours import Run
from support.frames import frame_folder
from support.networks import TinyNetwork, tiny_network

from edgeseg import models
from edgeseg.labels import load_labels
from edgeseg.training import checkpoint
from edgeseg.training.recipe import Recipe


class Wide(TinyNetwork):
    """The tiny network as the registry builds it."""

    def __init__(self, classes: int, deploy: bool = False, width: float = 1.0) -> None:
        super().__init__(classes)


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("support.networks.Wide", Wide, raising=False)
    monkeypatch.setitem(models.NETWORKS, "tinynet", "support.networks:Wide")


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A checkpoint of the tiny network for CamVid's classes."""
    recipe = Recipe("tinynet", (32, 64), load_labels("camvid"), color_order="BGR")
    network = tiny_network(11)
    state = {"network": network.state_dict(), "ema": None, "recipe": recipe.to_dict(), "step": 1, "epoch": 1}
    checkpoint.save_checkpoint(tmp_path / "best.pt", state)
    return tmp_path / "best.pt"


class TestByName:
    def test_json(self, edgeseg: Run, tmp_path: Path) -> None:
        place = tmp_path / "net.onnx"
        code, out, err = edgeseg(
            *("export", "tinynet", "--width", 2, "--classes", "camvid", "--size", "32x64", "--preset", "imagenet"),
            *(
                "--frames",
                frame_folder(tmp_path / "frames", 3),
                "--count",
                2,
                "-o",
                place,
                "--licence",
                "MIT",
                "--json",
            ),
        )
        assert (code, err) == (0, "")
        found = json.loads(out)
        assert (found["model"], found["input"], found["output"]) == (str(place), [1, 3, 32, 64], [1, 11, 32, 64])
        assert (found["random_images"], found["frames"], found["pixels"]) == (3, 2, 5 * 32 * 64)
        assert found["stated"]["color_order"] == "RGB"
        assert (found["stated"]["name"], found["stated"]["licence"]) == ("tinynet", "MIT")
        assert found["remarks"] == [
            "The weights are random: give trained ones with --weights FILE, or train them first."
        ]
        shown = edgeseg("info", place)[1]
        for text in (
            "color order  RGB",
            "mean         123.675 116.28 103.53",
            "sky, building, pole",
            "licence      MIT",
        ):
            assert text in shown
        stated = json.loads(edgeseg("info", place, "--json")[1])["stated"]
        assert stated == found["stated"]

    def test_text(self, edgeseg: Run, tmp_path: Path) -> None:
        arguments = ("export", "tinynet", "--classes", 4, "--size", "32x64", "-o", tmp_path / "net.onnx")
        code, out, err = edgeseg(*arguments)
        assert (code, err) == (0, "")
        assert out.startswith(f"{tmp_path / 'net.onnx'}\n  image   1x3x32x64, logits 1x4x32x64, ")
        assert "agrees  with torch in the class of all 6,144 pixels of 3 images of noise" in out
        assert "note    The weights are random" in out
        assert not any(e.key == "edgeseg.classes" for e in onnx.load(tmp_path / "net.onnx").metadata_props)
        code, _, err = edgeseg(*arguments)
        assert code == 1
        assert "net.onnx exists; choose another place with -o or replace it with --force" in err
        assert edgeseg(*arguments, "--force")[0] == 0

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (
                ("tinynet", "--classes", "4"),
                "is built for --classes (a number, or a label set) and --size HxW; give both",
            ),
            (("tinynet", "--size", "32x64"), "give both"),
            (("tinynt", "--classes", "4", "--size", "32x64"), "unknown network 'tinynt'; did you mean tinynet?"),
            (("tinynet", "--classes", "0", "--size", "32x64"), "classes must be at least 1, but is 0"),
            (("tinynet", "--classes", "4", "--size", "32x64", "--q", "3"), "tinynet has no option q; it has width"),
            (("tinynet", "--classes", "4", "--size", "32x64", "--mean", "1,2,3"), "--mean and --std go together"),
        ],
    )
    def test_usage(self, edgeseg: Run, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
        code, out, err = edgeseg("export", *arguments, "-o", tmp_path / "net.onnx")
        assert (code, out) == (2, "")
        assert message in err
        assert list(tmp_path.iterdir()) == []

    def test_weights_are_loaded(self, edgeseg: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def load_weights(network: TinyNetwork, path: Path) -> None:
            network.load_state_dict(torch.load(path, weights_only=True))

        module = types.ModuleType("edgeseg.models.weights")
        module.load_weights = load_weights  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        torch.save(tiny_network(4, seed=7).state_dict(), tmp_path / "weights.pt")
        code, out, _ = edgeseg(
            *("export", "tinynet", "--weights", tmp_path / "weights.pt", "--classes", 4, "--size", "32x64"),
            *("-o", tmp_path / "net.onnx", "--json"),
        )
        assert (code, json.loads(out)["remarks"]) == (0, [])
        (head,) = (t for t in onnx.load(tmp_path / "net.onnx").graph.initializer if t.name == "head.weight")
        expected = tiny_network(4, seed=7).head.weight.detach().numpy()
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(head), expected)

    def test_no_torch(self, edgeseg: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "torch", None)
        code, _, err = edgeseg("export", "tinynet", "--classes", 4, "--size", "32x64", "-o", tmp_path / "net.onnx")
        assert code == 1
        assert err == (
            "edgeseg: error: torch is needed to export networks, but it is not installed; run: "
            "pip install edgeseg[train]\n"
        )


class TestCheckpoint:
    def test_a_checkpoint_needs_no_options(self, edgeseg: Run, trained: Path, tmp_path: Path) -> None:
        code, out, err = edgeseg("export", trained, "-o", tmp_path / "net.onnx", "--json")
        assert (code, err) == (0, "")
        found = json.loads(out)
        assert (found["input"], found["output"], found["remarks"]) == ([1, 3, 32, 64], [1, 11, 32, 64], [])
        assert found["stated"]["color_order"] == "BGR"
        assert found["stated"]["classes"]["classes"][0]["name"] == load_labels("camvid").names[0]
        weights = {tuple(t.dims) for t in onnx.load(tmp_path / "net.onnx").graph.initializer}
        assert (11, 16, 1, 1) in weights

    def test_a_network_trained_to_super_resolve(self, edgeseg: Run, tmp_path: Path) -> None:
        recipe = Recipe("tinynet", (32, 64), load_labels("camvid"), dsrl=True)
        weights = checkpoint.build_network(recipe).state_dict()
        state = {"network": weights, "ema": weights, "recipe": recipe.to_dict(), "step": 1, "epoch": 1}
        checkpoint.save_checkpoint(tmp_path / "best.pt", state)
        code, out, _ = edgeseg("export", tmp_path / "best.pt", "-o", tmp_path / "net.onnx", "--json")
        assert code == 0
        assert json.loads(out)["output"] == [1, 11, 64, 128]

    def test_another_size_and_name(self, edgeseg: Run, trained: Path, tmp_path: Path) -> None:
        code, out, _ = edgeseg(
            "export", trained, "--size", "64x64", "--name", "mine", "-o", tmp_path / "net.onnx", "--json"
        )
        assert code == 0
        assert json.loads(out)["input"] == [1, 3, 64, 64]
        assert json.loads(out)["stated"]["name"] == "mine"

    def test_evaluate_and_convert_need_no_options(self, edgeseg: Run, trained: Path, tmp_path: Path) -> None:
        place = tmp_path / "net.onnx"
        assert edgeseg("export", trained, "-o", place)[0] == 0
        frames = frame_folder(tmp_path / "data" / "images", 6)
        code, out, err = edgeseg("convert", place, "--frames", frames, "--json")
        assert (code, err) == (0, "")
        (tmp_path / "data" / "labels").mkdir()
        for index in range(6):
            labels = np.full((64, 64), index, np.uint8)
            cv2.imwrite(str(tmp_path / "data" / "labels" / f"frame{index:02}.png"), labels)
        code, out, _ = edgeseg("evaluate", "--onnx", place, "--data", tmp_path / "data", "--json")
        assert code == 0
        assert json.loads(out)["classes"] == list(load_labels("camvid").names)
        code, _, err = edgeseg("convert", place, "--frames", frames, "--preset", "unit", "--force")
        assert code == 0
        assert "edgeseg: warning: --mean wins over what the network's metadata says" in err

    def test_options_that_it_knows_itself(self, edgeseg: Run, trained: Path, tmp_path: Path) -> None:
        options = ("--classes", 4, "--option", "stride=8", "--deploy")
        code, _, err = edgeseg("export", trained, *options, "-o", tmp_path / "net.onnx")
        assert code == 2
        assert "a checkpoint knows its network: --classes, --option, --deploy only go with a network's name" in err

    def test_a_file_that_is_none(self, edgeseg: Run, tmp_path: Path) -> None:
        torch.save({"format": "other"}, tmp_path / "other.pt")
        code, _, err = edgeseg("export", tmp_path / "other.pt", "-o", tmp_path / "net.onnx")
        assert code == 1
        assert "is not a checkpoint of edgeseg train" in err
