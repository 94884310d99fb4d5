from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from support.colours import Run
from support.frames import frame_folder, label_folder
from support.graphs import toy_network

from edgeseg.bundle import MODEL
from edgeseg.converters.convert import convert
from edgeseg.converters.options import ConvertOptions


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network toy.onnx, its bundle toy.edgeseg, eight frames and their labels."""
    root = tmp_path_factory.mktemp("compared")
    onnx.save(toy_network(classes=3), root / "toy.onnx")
    frames = frame_folder(root / "frames", 8)
    label_folder(root / "labels", 8, 3)
    unit = ConvertOptions(mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0))
    convert(root / "toy.onnx", str(frames), unit)
    return root


@pytest.fixture
def pair(folder: Path) -> tuple[Path, Path, str, Path]:
    """A float network, its bundle, and the frames."""
    return folder / "toy.onnx", folder / "toy.edgeseg", "--frames", folder / "frames"


class TestCompare:
    def test_json(self, edgeseg: Run, pair: tuple[object, ...]) -> None:
        code, out, err = edgeseg("compare", *pair, "--json")
        assert (code, err) == (0, "")
        found = json.loads(out)
        assert list(found) == [
            "a", "b", "frames", "labelled", "agreement", "agreement_interval", "logits", "miou", "classes",
            "worst_frames", "layers", "skipped", "seconds",
        ]  # fmt: skip
        assert (found["a"]["kind"], found["b"]["kind"]) == ("float network", "bundle")
        assert (found["a"]["int8_layers"], found["b"]["int8_layers"]) == (None, 7)
        assert (found["frames"], found["skipped"], found["labelled"], found["layers"]) == (8, 0, False, None)
        assert 90 < found["agreement"] <= 100
        low, high = found["agreement_interval"]
        assert low <= found["agreement"] <= high
        assert 15 < found["logits"]["snr_db"] < 60
        assert found["miou"]["a"] == 100
        assert found["miou"]["b"] == pytest.approx(np.mean([row["b"] for row in found["classes"]]))
        agreements = [frame["agreement"] for frame in found["worst_frames"]]
        assert len(agreements) == 4
        assert agreements == sorted(agreements)

    def test_text_with_labels(self, edgeseg: Run, pair: tuple[object, ...], folder: Path) -> None:
        code, out, err = edgeseg("compare", *pair, "--labels", folder / "labels", "--count", 4)
        assert (code, err) == (0, "")
        lines = out.splitlines()
        assert lines[0] == f"A          {folder}/toy.onnx (float network)"
        assert lines[1] == f"B          {folder}/toy.edgeseg (bundle, 7 layers in INT8)"
        assert "of the pixels on 4 frames" in lines[2]
        assert lines[3].endswith(" dB signal-to-noise ratio")
        assert "points against labels" in lines[4]
        assert lines[6].split() == ["class", "IoU", "A", "IoU", "B", "difference"]
        assert lines[10].split()[0] == "mean"

    def test_scores_are_those_of_evaluate(
        self, edgeseg: Run, pair: tuple[object, ...], folder: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "images").symlink_to(folder / "frames")
        (tmp_path / "labels").symlink_to(folder / "labels")
        compared = json.loads(edgeseg("compare", *pair, "--labels", folder / "labels", "--json")[1])
        arguments = ("--data", tmp_path, "--backend", "openvino", "--json")
        scored = json.loads(edgeseg("evaluate", folder / "toy.edgeseg", *arguments)[1])
        # Evaluate may compute float operators in BF16 where the processor has it; compare never does.
        assert compared["miou"]["b"] == pytest.approx(scored["miou"], abs=0.3)
        low, high = scored["miou_interval"]
        assert low < scored["miou"] < high

    def test_layers(self, edgeseg: Run, pair: tuple[object, ...]) -> None:
        found = json.loads(edgeseg("compare", *pair, "--layers", "--threshold", "200", "--json")[1])["layers"]
        assert (found["frames"], found["threshold_db"], found["first_below"]) == (4, 200, "stem")
        assert [layer["name"] for layer in found["list"]][-1] == "classifier"
        assert found["unmatched"] == []
        out = edgeseg("compare", *pair, "--layers", "--threshold", "-50")[1]
        assert out.endswith("\nno layer is below -50 dB\n")

    def test_a_bundle_with_its_own_graph(self, edgeseg: Run, folder: Path) -> None:
        bundle = folder / "toy.edgeseg"
        out = edgeseg("compare", bundle, bundle / MODEL, "--frames", folder / "frames", "--count", 2, "--layers")[1]
        assert "100.00 % (95 %: 100.00 to 100.00) of the pixels on 2 frames" in out
        assert "logits     equal\n" in out
        assert "no layer is below 20 dB" in out

    def test_two_float_networks(self, edgeseg: Run, folder: Path, tmp_path: Path) -> None:
        onnx.save(toy_network(classes=3, seed=1), tmp_path / "other.onnx")
        arguments = ("--frames", folder / "frames", "--count", 1, "--preset", "unit", "--json")
        found = json.loads(edgeseg("compare", folder / "toy.onnx", tmp_path / "other.onnx", *arguments)[1])
        assert found["agreement"] < 90
        assert found["agreement_interval"] is None  # one frame says nothing of others


class TestBadInput:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("--threshold", "10"), "--threshold says when a layer has parted; give --layers too"),
            (("--layers", "--threshold", "nan"), "expected a number of decibels, such as 20, but got 'nan'"),
            (("--map", "cityscapes:camvid"), "give the labels with --labels DIR"),
            (("--count", "0"), "expected a whole number of at least 1, but got '0'"),
            (("--preset", "unit", "--mean", "1,2,3"), "give either --preset or --mean and --std, not both"),
        ],
    )
    def test_usage(self, arguments: tuple[str, ...], message: str, edgeseg: Run, pair: tuple[object, ...]) -> None:
        code, out, err = edgeseg("compare", *pair, *arguments)
        assert (code, out) == (2, "")
        assert message in err

    def test_one_network(self, edgeseg: Run, folder: Path) -> None:
        code, out, err = edgeseg("compare", folder / "toy.onnx", "--frames", folder / "frames")
        assert (code, out) == (2, "")
        assert "the following arguments are required: B" in err

    def test_options_that_two_bundles_do_not_need(self, edgeseg: Run, folder: Path) -> None:
        bundle = folder / "toy.edgeseg"
        code, _, err = edgeseg("compare", bundle, bundle, "--frames", folder / "frames", "--preset", "unit")
        assert code == 2
        assert "--mean, --std or --preset only go with a float network, but A is a bundle and B a bundle" in err

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("none.onnx", "none.onnx cannot be read: No such file"),
            ("none.edgeseg", "there is no bundle at"),
            ("text.onnx", "is none or is truncated"),
            ("frames", "is not an edgeseg bundle"),
        ],
    )
    def test_no_network(self, name: str, message: str, edgeseg: Run, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "text.onnx").write_text("no network")
        (tmp_path / "frames").mkdir()
        code, out, err = edgeseg("compare", folder / "toy.edgeseg", tmp_path / name, "--frames", folder / "frames")
        assert (code, out) == (1, "")
        assert err.startswith("edgeseg: error: ")
        assert err.count("\n") == 1
        assert message in err

    def test_no_frames(self, edgeseg: Run, folder: Path, tmp_path: Path) -> None:
        code, out, err = edgeseg("compare", folder / "toy.onnx", folder / "toy.edgeseg", "--frames", tmp_path / "none")
        assert (code, out) == (1, "")
        assert f"there is no file or folder {tmp_path / 'none'}" in err

    def test_a_broken_frame(self, edgeseg: Run, folder: Path, tmp_path: Path) -> None:
        frames = frame_folder(tmp_path / "some", 3)
        (frames / "frame01.png").write_bytes(b"\x89PNG")
        arguments = ("compare", folder / "toy.onnx", folder / "toy.edgeseg", "--frames", frames, "--json")
        code, _, err = edgeseg(*arguments)
        assert code == 1
        assert "frame01.png" in err
        found = json.loads(edgeseg(*arguments, "--skip-broken")[1])
        assert (found["frames"], found["skipped"]) == (2, 1)

    def test_a_network_of_other_classes(self, edgeseg: Run, folder: Path, bundle: Path, tmp_path: Path) -> None:
        onnx.save(toy_network(classes=5), tmp_path / "five.onnx")
        arguments = ("--frames", folder / "frames", "--preset", "unit")
        code, _, err = edgeseg("compare", tmp_path / "five.onnx", bundle, *arguments)
        assert code == 1
        assert f"{tmp_path}/five.onnx has 5 classes and {bundle} has 3" in err

    def test_no_layer_in_common(self, edgeseg: Run, folder: Path, bundle: Path) -> None:
        arguments = ("--frames", folder / "frames", "--layers")
        code, out, err = edgeseg("compare", folder / "toy.edgeseg", bundle, *arguments)
        assert (code, out) == (1, "")
        assert "have 7 and 1 compute layers, but none with the same name, operator and output shape" in err

    def test_a_graph_with_a_strange_frame(self, edgeseg: Run, folder: Path, tmp_path: Path) -> None:
        graph = helper.make_graph(
            [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)],
            "planes",
            [helper.make_tensor_value_info("x", TensorProto.UINT8, [1, 3, 8, 8])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 8, 8])],
        )
        onnx.save(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "x.onnx"
        )
        code, _, err = edgeseg("compare", folder / "toy.edgeseg", tmp_path / "x.onnx", "--frames", folder / "frames")
        assert code == 1
        assert "expected a frame (1, H, W, 3) uint8" in err
        assert "(1, 3, 8, 8)" in err


def test_real_networks(edgeseg: Run, shared: Path, tmp_path: Path) -> None:
    """ESPNet with its input in the wrong channel order parts from itself at the first layer."""
    network = shared / "models" / "espnet_camvid_360x480.onnx"
    order = [2, 1, 0]
    model = onnx.load(network)
    first = next(node for node in model.graph.node if node.op_type == "Conv")
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == first.input[1])
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight)[:, order], weight.name))
    onnx.save(model, tmp_path / "wrong.onnx")
    code, out, _ = edgeseg(
        *("compare", network, tmp_path / "wrong.onnx", "--classes", "camvid", "--color", "BGR", "--layers"),
        *("--mean", "110.33102417,108.40886688,105.03319550", "--std", "18392.0559,18536.1393,17825.6093"),
        *("--frames", shared / "data" / "camvid" / "val", "--count", "2", "--json"),
    )
    assert code == 0
    found = json.loads(out)
    assert found["agreement"] < 99
    assert found["layers"]["first_below"] == found["layers"]["list"][0]["name"]
