from __future__ import annotations

import json
from pathlib import Path

import onnx
from support.colours import Run
from support.graphs import toy_network


class TestBundle:
    def test_text(self, edgeseg: Run, bundle: Path) -> None:
        code, out, err = edgeseg("info", bundle)
        assert (code, err) == (0, "")
        assert "24x32 RGB uint8 frame" in out
        assert "red, green, blue" in out
        assert "1 of 2 in INT8 (100.0 %" in out
        assert "mse over 2 frames" in out
        assert "mIoU: float 70.25, INT8 70.00, drop 0.25" in out
        assert "in float: last (asked)" in out

    def test_json(self, edgeseg: Run, bundle: Path) -> None:
        found = json.loads(edgeseg("info", bundle, "--json")[1])
        assert (found["kind"], found["path"]) == ("bundle", str(bundle))
        assert found["classes"] == ["red", "green", "blue"]
        assert found["scores"] == {
            "metric": "miou", "float": 70.25, "int8": 70.0, "drop": 0.25, "drop_interval": None, "frames": 0
        }  # fmt: skip
        assert found["quantization"]["int8"] == found["quantization"]["float"] == 1
        assert found["files"] == {"model.onnx": (bundle / "model.onnx").stat().st_size}
        assert found["input"]["height"] == 24

    def test_what_is_no_bundle(self, edgeseg: Run, tmp_path: Path) -> None:
        code, out, err = edgeseg("info", tmp_path)
        assert (code, out) == (1, "")
        assert "is not an edgeseg bundle: expected a folder with manifest.json" in err

    def test_a_newer_bundle(self, edgeseg: Run, bundle: Path) -> None:
        manifest = json.loads((bundle / "manifest.json").read_text())
        (bundle / "manifest.json").write_text(json.dumps({**manifest, "schema_version": 99}))
        code, _, err = edgeseg("info", bundle)
        assert code == 1
        assert "schema version 99, but this edgeseg reads up to 3; upgrade with: pip install --upgrade edgeseg" in err

    def test_half_a_bundle(self, edgeseg: Run, bundle: Path) -> None:
        (bundle / "model.onnx").unlink()
        code, _, err = edgeseg("info", bundle)
        assert code == 1
        assert "is incomplete: model.onnx is missing" in err


class TestNetwork:
    def test_text(self, edgeseg: Run, tmp_path: Path) -> None:
        onnx.save(toy_network(), tmp_path / "toy.onnx")
        code, out, err = edgeseg("info", tmp_path / "toy.onnx")
        assert (code, err) == (0, "")
        assert "image: 1x3x64x64 float" in out
        assert "logits: 1x3x64x64 float" in out
        assert "Conv 7" in out

    def test_json(self, edgeseg: Run, tmp_path: Path) -> None:
        onnx.save(toy_network(opset=16), tmp_path / "toy.onnx")
        found = json.loads(edgeseg("info", tmp_path / "toy.onnx", "--json")[1])
        assert found["kind"] == "onnx"
        assert found["opset"] == {"ai.onnx": 16}
        assert found["inputs"] == [{"name": "image", "shape": [1, 3, 64, 64], "dtype": "float"}]
        assert found["operators"]["Conv"] == 7
        assert found["parameters"] > 0
        assert found["quantize_nodes"] == 0

    def test_what_is_no_network(self, edgeseg: Run, tmp_path: Path) -> None:
        (tmp_path / "a.onnx").write_bytes(b"\x07\x07\x07 no protobuf")
        (tmp_path / "empty.onnx").write_bytes(b"")
        reasons = {"a.onnx": "is none or is truncated (15 bytes)", "empty.onnx": "holds no graph (0 bytes)"}
        for name, reason in reasons.items():
            code, _, err = edgeseg("info", tmp_path / name)
            assert code == 1
            assert f"{name} {reason}" in err

    def test_a_missing_file(self, edgeseg: Run, tmp_path: Path) -> None:
        code, _, err = edgeseg("info", tmp_path / "a.onnx")
        assert code == 1
        assert "a.onnx cannot be read: No such file or directory" in err

    def test_malformed_metadata(self, edgeseg: Run, tmp_path: Path) -> None:
        model = toy_network()
        onnx.helper.set_model_props(model, {"edgeseg.mean": "grey", "edgeseg.std": "[1, 1, 1]"})
        onnx.save(model, tmp_path / "toy.onnx")
        code, out, err = edgeseg("info", tmp_path / "toy.onnx")
        assert (code, out) == (1, "")
        assert "toy.onnx: edgeseg.mean in its metadata must be three numbers as a JSON list, but is 'grey'" in err
