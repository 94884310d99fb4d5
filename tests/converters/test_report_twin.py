"""The report for programs."""

from __future__ import annotations

import json

import pytest
from support.report_content import digest, floating, hostile_content, manifest, scored, small

from edgeseg.converters.report import report_json

HOSTILE = "</script>\"'\x00\u202e"


class TestTwin:
    def test_keys_and_values(self) -> None:
        content = small(manifest=scored(float_score=70.0, int8_score=69.5, drop_interval=(0.25, 0.75)))
        data = json.loads(report_json(content))
        assert list(data) == [
            "schema_version", "network", "input", "output", "classes", "number_format", "calibration", "scores",
            "layers", "sensitivity", "worst_frames", "ranges", "partners", "steps", "seconds", "peak_rss_mb",
            "remarks", "tools", "files",
        ]  # fmt: skip
        assert data["network"]["name"] == "espnetv2_s2.0_cityscapes"
        assert data["classes"][0] == {"name": "road", "color": [128, 64, 128]}
        assert data["calibration"]["method"] == "mse"
        assert data["calibration"]["frames"][1] == {"name": "aachen_000001", "sha256": digest("aachen_000001")}
        assert {key: data["scores"][key] for key in ("metric", "float", "int8", "drop")} == {
            "metric": "miou", "float": 70.0, "int8": 69.5, "drop": 0.5,
        }  # fmt: skip
        assert data["scores"]["drop_interval"] == [0.25, 0.75]
        sizes = [abs(row["change"]) for row in data["scores"]["moved_most"]]
        assert sizes == sorted((abs(row["change"] or 0) for row in data["scores"]["iou"]), reverse=True)[:3]
        assert data["scores"]["iou"][-1] == {"class": "train", "float": None, "int8": None, "change": None}
        assert (data["layers"]["int8"], data["layers"]["float"]) == (115, 5)
        assert sum(layer["mac_share"] for layer in data["layers"]["list"]) == pytest.approx(1)
        assert data["seconds"] == pytest.approx(110.41)
        assert data["worst_frames"][0]["name"] == "frame_7"
        assert set(data["worst_frames"][0]["changes"][0]) == {"float", "int8", "share"}
        assert "image" not in report_json(content)

    def test_histograms_of_the_drawn_tensors_only(self) -> None:
        listing = json.loads(report_json(small()))["ranges"]
        assert len(listing) == 110
        assert ["histogram" in entry for entry in listing] == [True] * 10 + [False] * 100
        assert listing[0]["clipped_share"] >= listing[1]["clipped_share"]
        assert len(listing[0]["histogram"]) == 128

    def test_fp16(self) -> None:
        data = json.loads(report_json(floating()))
        assert (data["number_format"], json.loads(report_json(small()))["number_format"]) == ("FP16", "INT8")
        assert (data["ranges"], data["partners"]) == ([], None)
        assert data["calibration"] == {"method": "fp16", "frames": []}
        assert (data["layers"]["int8"], data["layers"]["float"]) == (0, 120)
        assert data["scores"]["int8"] < data["scores"]["float"]

    def test_unscored(self) -> None:
        assert json.loads(report_json(small(manifest=manifest(scores=None), worst=())))["scores"] is None

    def test_what_is_not_finite_is_null(self) -> None:
        data = json.loads(report_json(small(peak_rss_mb=float("nan"))), parse_constant=pytest.fail)
        assert data["peak_rss_mb"] is None

    def test_hostile_names_stay_as_they_are(self) -> None:
        data = json.loads(report_json(hostile_content(HOSTILE)))
        assert data["network"]["name"] == HOSTILE
