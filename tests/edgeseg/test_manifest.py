"""The manifest as JSON: the round trip, and every way in which a file can be wrong."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from support.bundles import toy_manifest

from edgeseg.errors import BundleError, LabelError
from edgeseg.manifest import InputSpec, Layer, Manifest, Quantization, Scores


def changed(path: str, value: Any) -> str:
    """The toy manifest's JSON with one field changed, or removed where the value is `...`."""
    data = json.loads(toy_manifest().to_json())
    *parents, last = path.split(".")
    place = data
    for name in parents:
        place = place[int(name)] if isinstance(place, list) else place[name]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return json.dumps(data)


class TestJson:
    @pytest.mark.parametrize("scores", [True, False])
    def test_round_trip(self, scores: bool) -> None:
        manifest = toy_manifest(logits=(2, 3), coordinates="align_corners")
        if not scores:
            manifest = dataclasses.replace(manifest, scores=None)
        assert Manifest.from_json(manifest.to_json()) == manifest

    def test_not_finite_numbers_are_not_written(self) -> None:
        wrong = dataclasses.replace(toy_manifest(), scores=Scores("miou", float("nan"), 1.0))
        with pytest.raises(ValueError, match="not JSON compliant"):
            wrong.to_json()

    @pytest.mark.parametrize("text", ["", "{", "no"])
    def test_not_json(self, text: str) -> None:
        with pytest.raises(BundleError, match=r"manifest\.json is not JSON \(.*\); convert the network again"):
            Manifest.from_json(text)

    @pytest.mark.parametrize("text", ["[]", "3", "{}", '{"schema_version": "1"}'])
    def test_foreign(self, text: str) -> None:
        with pytest.raises(BundleError, match="has no schema_version: this is not an edgeseg bundle"):
            Manifest.from_json(text)

    @pytest.mark.parametrize(
        ("path", "value", "message"),
        [
            ("network", 3, "manifest.network must be an object, but is 3"),
            ("network.name", ..., "manifest.network lacks name; convert the network again"),
            ("network.name", 3, "manifest.network.name must be .*str.*, but is 3"),
            ("network.opset", True, "manifest.network.opset must be .*int.*, but is True"),
            ("network.opset", 17.5, "manifest.network.opset must be .*int.*, but is 17.5"),
            ("network.extra", 1, "manifest.network has unknown fields extra"),
            ("input.color_order", "GBR", "manifest.input.color_order must be one of RGB, BGR, but is 'GBR'"),
            ("input.mean", [1, 2], r"manifest.input.mean must be .*tuple.*, but is \[1, 2\]"),
            ("input.mean", [1, 2, "3"], r"manifest.input.mean\[2\] must be .*float.*, but is '3'"),
            ("input.height", 0, "input size must be positive, but is 0x12"),
            ("input.std", [1, 0, 1], "std positive, but are"),
            ("output.coordinates", "half", "manifest.output.coordinates must be one of align_corners, half_pixel"),
            ("output.kind", None, "manifest.output.kind must be one of logits, class-map, but is None"),
            ("quantization.layers", {}, "manifest.quantization.layers must be"),
            ("quantization.layers.0.macs", "many", r"manifest.quantization.layers\[0\].macs must be"),
            ("files", [], r"manifest.files must be .*dict.*, but is \[\]"),
            ("files", {"model.onnx": 3}, "manifest.files.model.onnx must be .*str.*, but is 3"),
            ("scores.int8_iou", {"road": "good"}, "manifest.scores.int8_iou.road must be"),
        ],
    )
    def test_wrong_field(self, path: str, value: Any, message: str) -> None:
        with pytest.raises(BundleError, match=message):
            Manifest.from_json(changed(path, value))

    @pytest.mark.parametrize("number", ["NaN", "Infinity"])
    def test_numbers_that_are_not_finite(self, number: str) -> None:
        with pytest.raises(BundleError, match="mean and std must be finite"):
            Manifest.from_json(changed("input.mean", [1, 2, 3]).replace("[1, 2, 3]", f"[1, 2, {number}]"))

    def test_labels_that_contradict_themselves(self) -> None:
        with pytest.raises((BundleError, LabelError), match="4 class names need as many colours, but got 3"):
            Manifest.from_json(changed("labels.palette", [[0, 0, 0]] * 3))


class TestValues:
    def test_input_sizes(self) -> None:
        with pytest.raises(BundleError, match="input size must be positive, but is 3x-1"):
            InputSpec("frame", 3, -1, "RGB", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))

    def test_share_of_int8(self) -> None:
        layers = (
            Layer("a", "Conv", "int8", 300),
            Layer("b", "Conv", "float", 100, "kept"),
            Layer("c", "Gemm", "int8", 0),
        )
        quantization = Quantization("mse", (), (), layers)
        assert (quantization.count("int8"), quantization.count("float")) == (2, 1)
        assert quantization.int8_mac_share == 0.75
        assert Quantization("mse", (), (), ()).int8_mac_share == 0

    def test_the_interval_of_the_drop_is_kept(self) -> None:
        scores = Scores("miou", 69.35, 69.1, drop_interval=(0.1, 0.4))
        manifest = dataclasses.replace(toy_manifest(), scores=scores)
        assert Manifest.from_json(manifest.to_json()) == manifest

    def test_drop(self) -> None:
        assert Scores("miou", 69.35, 69.1).drop == pytest.approx(0.25)


class TestHostileFiles:
    def test_endless_nesting(self) -> None:
        with pytest.raises(BundleError, match="is not JSON"):
            Manifest.from_json("[" * 200_000)

    def test_an_integer_beyond_every_float(self) -> None:
        with pytest.raises(BundleError, match=r"manifest\.input is not valid \(int too large"):
            Manifest.from_json(changed("input.mean", [10**400, 0, 0]))

    @pytest.mark.parametrize("version", [0, -1])
    def test_versions_that_were_never_written(self, version: int) -> None:
        with pytest.raises(BundleError, match=f"has schema_version {version}, which no edgeseg writes"):
            Manifest.from_json(changed("schema_version", version))

    def test_classes_that_do_not_fit_the_channels(self) -> None:
        with pytest.raises(BundleError, match="names 4 classes for 5 output channels; convert the network again"):
            Manifest.from_json(changed("output.channels", 5))


def test_smaller_logits_need_a_rule() -> None:
    with pytest.raises(BundleError, match="an output of 2x3 for a class map of 8x12, but no rule"):
        toy_manifest(8, 12, logits=(2, 3), coordinates=None)
    assert toy_manifest(8, 12, logits=(2, 3), coordinates="half_pixel").output.height == 2


class TestMapSize:
    def test_is_the_inputs_where_nothing_is_said(self) -> None:
        assert toy_manifest(8, 12).map_size == (8, 12)
        assert toy_manifest(8, 12, logits=(16, 24), map_size=(16, 24)).map_size == (16, 24)

    def test_a_manifest_of_schema_version_1_still_opens(self) -> None:
        data = json.loads(toy_manifest(8, 12, logits=(2, 3), coordinates="half_pixel").to_json())
        del data["output"]["map_height"], data["output"]["map_width"]
        manifest = Manifest.from_json(json.dumps({**data, "schema_version": 1}))
        assert manifest.map_size == (8, 12)
        assert manifest.schema_version == 1

    @pytest.mark.parametrize("size", [(4, 6), (16, 12), (12, 18), (0, 0)])
    def test_is_a_whole_multiple_of_the_input(self, size: tuple[int, int]) -> None:
        message = f"a class map of {size[0]}x{size[1]} for an input of 8x12, expected a whole multiple of it; convert"
        with pytest.raises(BundleError, match=message):
            toy_manifest(8, 12, logits=(2, 3), coordinates="half_pixel", map_size=size)

    def test_logits_of_the_inputs_size_need_a_rule_to_become_larger(self) -> None:
        with pytest.raises(BundleError, match="an output of 8x12 for a class map of 16x24, but no rule"):
            toy_manifest(8, 12, logits=(8, 12), map_size=(16, 24))
