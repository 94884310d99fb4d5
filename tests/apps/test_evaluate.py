from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.colours import HEIGHT, WIDTH, Run

PIXELS = HEIGHT * WIDTH


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """A float network whose logits are the channels of its input: blue, green, red when it is fed as BGR."""
    nodes = [helper.make_node("Conv", ["image", "weight"], ["logits"], kernel_shape=[1, 1])]
    shape = [1, 3, HEIGHT, WIDTH]
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1), "weight")],
    )
    path = tmp_path / "colours.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture
def classes(data: Path) -> Path:
    return data / "labels.json"


class TestBundle:
    def test_json(self, edgeseg: Run, bundle: Path, data: Path) -> None:
        code, out, err = edgeseg("evaluate", bundle, "--data", f"folder:{data}", "--json")
        assert (code, err) == (0, "")
        found = json.loads(out)
        # Of 3 x 768 pixels one column of 24 is labelled green and seen red; the right half of all frames is blue.
        assert found["iou"] == {
            "red": pytest.approx(100 * 360 / 384),
            "green": pytest.approx(100 * 384 / 408),
            "blue": pytest.approx(100.0),
        }
        assert found["miou"] == pytest.approx(sum(found["iou"].values()) / 3)
        assert found["pixel_accuracy"] == pytest.approx(100 * (1 - HEIGHT / (3 * PIXELS)))
        assert found["confusion"] == [[360, 0, 0, 0], [24, 384, 0, 0], [0, 0, 1536, 0]]
        assert (found["frames"], found["backend"], found["skipped"]) == (3, "onnxruntime", 0)
        assert found["seconds"] >= 0

    def test_a_table(self, edgeseg: Run, bundle: Path, data: Path) -> None:
        code, out, _ = edgeseg("evaluate", bundle, "--data", data, "--backend", "onnxruntime")
        lines = out.splitlines()
        assert code == 0
        assert lines[0].split() == ["class", "IoU", "labelled", "pixels"]
        assert lines[1].split() == ["red", "93.75", "360"]
        assert lines[-1].startswith("pixel accuracy 98.96 % on 3 frames, onnxruntime")

    def test_boundary_iou(self, edgeseg: Run, bundle: Path, data: Path) -> None:
        found = json.loads(edgeseg("evaluate", bundle, "--data", data, "--boundary", "0.1", "--json")[1])
        near = found["boundary_iou"]
        assert (near["share"], near["pixels"]) == (0.1, [4, 4])
        assert list(near["iou"]) == found["classes"]
        # The wrong column lies at an outline: it weighs more there than in the whole frame.
        assert near["iou"]["red"] < found["iou"]["red"]
        assert near["iou"]["blue"] == pytest.approx(100)
        assert near["mean"] == pytest.approx(sum(near["iou"].values()) / 3)
        assert json.loads(edgeseg("evaluate", bundle, "--data", data, "--json")[1])["boundary_iou"] is None

    def test_boundary_iou_in_the_table(self, edgeseg: Run, bundle: Path, data: Path) -> None:
        code, out, _ = edgeseg("evaluate", bundle, "--data", data, "--boundary")
        lines = out.splitlines()
        assert code == 0
        assert lines[0].split() == ["class", "IoU", "boundary", "IoU", "labelled", "pixels"]
        near = lines[4].split()[2]
        assert lines[4].split()[::3] == ["mean", "2,304"]
        assert f"boundary IoU {near} within 1 pixel (0.02 of the diagonal) of an outline" in lines

    @pytest.mark.parametrize(
        ("share", "message"),
        [
            ("0", "--boundary is a share of a frame's diagonal above 0, such as 0.02"),
            ("2", "expected a number from 0 to 1, but got '2'"),
        ],
    )
    def test_refuses_a_boundary(self, edgeseg: Run, bundle: Path, data: Path, share: str, message: str) -> None:
        code, out, err = edgeseg("evaluate", bundle, "--data", data, "--boundary", share)
        assert (code, out) == (2, "")
        assert message in err

    def test_every_second_frame(self, edgeseg: Run, bundle: Path, data: Path) -> None:
        out = edgeseg("evaluate", bundle, "--data", data, "--every", "2", "--json")[1]
        assert json.loads(out)["frames"] == 2

    def test_a_mapping(self, edgeseg: Run, bundle: Path, data: Path, tmp_path: Path) -> None:
        names = [{"id": 0, "name": "warm", "color": [255, 0, 0]}, {"id": 1, "name": "cold", "color": [0, 0, 255]}]
        (data / "labels.json").write_text(json.dumps(names))
        for file in (data / "labels").iterdir():
            labels = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
            cv2.imwrite(str(file), np.array([0, 1, 1], np.uint8)[labels])
        mapping = tmp_path / "map.json"
        mapping.write_text(json.dumps({"to": str(data / "labels.json"), "map": {"red": "warm", "blue": "cold"}}))
        found = json.loads(edgeseg("evaluate", bundle, "--data", data, "--map", mapping, "--json")[1])
        assert found["classes"] == ["warm", "cold"]
        # Green has no counterpart, so that its 384 pixels (labelled cold) are wrong.
        assert found["confusion"] == [[360, 0, 0], [24, 1536, 384]]


class TestFloatNetwork:
    def test_is_scored_by_the_same_protocol(self, edgeseg: Run, network: Path, classes: Path, data: Path) -> None:
        arguments = ("--onnx", network, "--data", data, "--classes", classes, "--preset", "unit", "--json")
        for backend in ("onnxruntime", "openvino"):
            found = json.loads(edgeseg("evaluate", *arguments, "--backend", backend)[1])
            assert found["backend"] == backend
            assert found["confusion"] == [[360, 0, 0, 0], [24, 384, 0, 0], [0, 0, 1536, 0]]

    def test_colour_order_counts(self, edgeseg: Run, network: Path, classes: Path, data: Path) -> None:
        arguments = ("--onnx", network, "--data", data, "--classes", classes, "--preset", "unit", "--color", "BGR")
        found = json.loads(edgeseg("evaluate", *arguments, "--json")[1])
        assert found["iou"]["red"] == 0.0

    def test_classes_that_do_not_fit_the_channels(self, edgeseg: Run, network: Path, data: Path) -> None:
        arguments = ("--onnx", network, "--data", data, "--classes", "camvid", "--preset", "unit")
        code, _, err = edgeseg("evaluate", *arguments)
        assert code == 1
        assert "the network has 3 output channels, but the label set has 11 classes" in err


class TestBadInput:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((), "evaluate takes one network: either a BUNDLE or --onnx MODEL.onnx"),
            (("BUNDLE", "--onnx", "a.onnx"), "evaluate takes one network"),
            (("BUNDLE", "--preset", "unit", "--color", "BGR"), "--preset, --color only go with --onnx"),
            (("--onnx", "a.onnx", "--mean", "1,2,3"), "give --mean and --std"),
            (("--onnx", "a.onnx", "--preset", "unit", "--threads", "2"), "--threads only goes with a bundle"),
            (("--onnx", "a.onnx", "--preset", "unit", "--plan", "a.plan"), "--plan only goes with a bundle"),
            (("--onnx", "a.onnx", "--preset", "unit", "--backend", "opnvino"), "did you mean openvino?"),
        ],
    )
    def test_usage(self, arguments: tuple[str, ...], message: str, edgeseg: Run, bundle: Path, data: Path) -> None:
        given = [str(bundle) if word == "BUNDLE" else word for word in arguments]
        code, out, err = edgeseg("evaluate", *given, "--data", data)
        assert (code, out) == (2, "")
        assert message in err

    def test_labels_of_another_size(self, edgeseg: Run, bundle: Path, data: Path) -> None:
        cv2.imwrite(str(data / "labels" / "1.png"), np.zeros((5, 6), np.uint8))
        code, _, err = edgeseg("evaluate", bundle, "--data", data)
        assert code == 1
        assert "24x32" in err
        assert "5x6" in err
        assert "1.png" in err

    def test_labels_with_an_unknown_id(self, edgeseg: Run, bundle: Path, data: Path) -> None:
        (data / "labels.json").unlink()  # then the network's own classes are those of the labels
        cv2.imwrite(str(data / "labels" / "1.png"), np.full((HEIGHT, WIDTH), 9, np.uint8))
        code, _, err = edgeseg("evaluate", bundle, "--data", data)
        assert code == 1
        assert "9" in err
        assert "1.png" in err

    def test_labels_of_other_classes(self, edgeseg: Run, bundle: Path, data: Path) -> None:
        (data / "labels.json").write_text(json.dumps([{"id": 0, "name": "all", "color": [0, 0, 0]}]))
        code, _, err = edgeseg("evaluate", bundle, "--data", data)
        assert code == 1
        assert "the network has 3 classes (red, green, blue), but the labels have 1 (all)" in err
        assert "--map" in err

    def test_a_missing_label(self, edgeseg: Run, bundle: Path, data: Path) -> None:
        (data / "labels" / "2.png").unlink()
        code, _, err = edgeseg("evaluate", bundle, "--data", data)
        assert code == 1
        assert "1 of 3 frames have no labels" in err

    def test_a_broken_image(self, edgeseg: Run, bundle: Path, data: Path) -> None:
        (data / "images" / "1.png").write_bytes(b"\x89PNG")
        code, _, err = edgeseg("evaluate", bundle, "--data", data)
        assert code == 1
        assert "1.png" in err
        found = json.loads(edgeseg("evaluate", bundle, "--data", data, "--skip-broken", "--json")[1])
        assert (found["frames"], found["skipped"]) == (2, 1)

    def test_an_unknown_data_set(self, edgeseg: Run, bundle: Path, data: Path) -> None:
        code, _, err = edgeseg("evaluate", bundle, "--data", f"camvd:{data}")
        assert code == 2
        assert "unknown data set 'camvd'; did you mean camvid?" in err


def test_the_protocol_on_real_frames(edgeseg: Run, shared: Path) -> None:
    """Three CamVid frames through ESPNet: the printed scores follow from the printed confusion matrix."""
    code, out, _ = edgeseg(
        *("evaluate", "--onnx", shared / "models" / "espnet_camvid_360x480.onnx", "--classes", "camvid"),
        *("--color", "BGR", "--mean", "110.33102417,108.40886688,105.03319550"),
        *("--std", "18392.0559,18536.1393,17825.6093", "--data", f"camvid:{shared / 'data' / 'camvid'}"),
        *("--every", "50", "--json"),
    )
    assert code == 0
    found = json.loads(out)
    matrix = np.array(found["confusion"])
    assert matrix.shape == (11, 12)
    hits = np.diagonal(matrix)
    union = matrix.sum(axis=1) + matrix[:, :11].sum(axis=0) - hits
    assert found["frames"] == 3
    assert list(found["iou"].values()) == pytest.approx(100 * hits / union)
    assert found["pixel_accuracy"] == pytest.approx(100 * hits.sum() / matrix.sum())
    assert found["miou"] > 55
