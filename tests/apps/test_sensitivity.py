"""`edgeseg sensitivity`: a network and a bundle, as text and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from support.colours import Run
from support.frames import frame_folder, label_folder
from support.graphs import toy_network


@pytest.fixture
def network(tmp_path: Path) -> Path:
    path = tmp_path / "toy.onnx"
    onnx.save(toy_network(), path)
    return path


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    return frame_folder(tmp_path / "frames", 6)


def test_json_of_a_network(edgeseg: Run, network: Path, frames: Path, tmp_path: Path) -> None:
    labels = label_folder(tmp_path / "labels", 6, 3)
    given = ("--frames", frames, "--preset", "unit", "--count", 2, "--labels", labels, "-q", "--json")
    code, out, err = edgeseg("sensitivity", network, *given)
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert len(found["frames"]) == 2
    assert found["float"] == {"snr_db": None, "agreement": 100.0, "miou": found["float"]["miou"]}
    layers = {row["layer"]: row for row in found["layers"]}
    assert len(layers) == 7
    assert sum(row["mac_share"] for row in layers.values()) == pytest.approx(1)
    whole = found["int8"]["snr_db"]
    for row in layers.values():
        assert row["alone"]["snr_db"] > whole
        assert row["spared"]["snr_db"] > whole - 3
        assert 0 <= row["alone"]["miou"] <= 100
    order = [row["alone"]["snr_db"] for row in found["layers"]]
    assert order == sorted(order)


def test_a_bundle_as_text(edgeseg: Run, network: Path, frames: Path) -> None:
    assert edgeseg("convert", network, "--frames", frames, "--preset", "unit", "-q")[0] == 0
    bundle = network.with_suffix(".edgeseg")
    code, out, err = edgeseg("sensitivity", bundle, "--frames", frames, "--count", 2, "-q", "--sort", "graph")
    assert (code, err) == (0, "")
    head, *rows, last = out.splitlines()
    assert head.split()[:2] == ["layer", "MACs"]
    assert [row.split()[0] for row in rows] == [n.name for n in onnx.load(network).graph.node if n.op_type == "Conv"]
    assert last.startswith("all in INT8: ")
    assert last.endswith("agreement, on 2 frames at the size of the logits")


def test_by_block(edgeseg: Run, network: Path, frames: Path) -> None:
    given = ("sensitivity", network, "--frames", frames, "--preset", "unit", "--count", 1, "-q")
    code, out, _ = edgeseg(*given, "--by", "block", "--json", "--sort", "graph")
    assert code == 0
    found = json.loads(out)
    layers = [row["layers"] for row in found["layers"]]
    assert layers == [["stem"], ["depthwise"], ["pointwise"], ["left", "right", "residual"], ["classifier"]]
    assert [row["layer"] for row in found["layers"]] == [names[0] for names in layers]
    each = {row["layer"]: row for row in json.loads(edgeseg(*given, "--json")[1])["layers"]}
    block = found["layers"][3]
    assert block["mac_share"] == pytest.approx(sum(each[name]["mac_share"] for name in block["layers"]))
    assert block["alone"]["snr_db"] < min(each[name]["alone"]["snr_db"] for name in block["layers"])
    assert found["layers"][0] == each["stem"]
    assert "left (+2)" in edgeseg(*given, "--by", "block")[1]


def test_sorted_by_what_sparing_gains(edgeseg: Run, network: Path, frames: Path) -> None:
    given = ("--frames", frames, "--preset", "unit", "--count", 1, "-q", "--json", "--sort", "spared")
    rows = json.loads(edgeseg("sensitivity", network, *given)[1])["layers"]
    gains = [row["spared"]["snr_db"] for row in rows]
    assert gains == sorted(gains, reverse=True)
    assert len(set(gains)) > 1


class TestPage:
    def given(self, network: Path, frames: Path, page: Path) -> tuple[object, ...]:
        return ("sensitivity", network, "--frames", frames, "--preset", "unit", "--count", 1, "-q", "-o", page)

    def test_is_written_beside_the_results(self, edgeseg: Run, network: Path, frames: Path, tmp_path: Path) -> None:
        page = tmp_path / "layers.html"
        code, out, err = edgeseg(*self.given(network, frames, page), "--json")
        assert (code, err) == (0, "")
        text = page.read_text("utf-8")
        assert text.startswith("<!doctype html>")
        assert "<h1>toy</h1>" in text
        for row in json.loads(out)["layers"]:
            assert f"<code>{row['layer']}</code>" in text
            assert f">{row['alone']['snr_db']:.1f}</td>" in text
        assert sorted(path.name for path in tmp_path.iterdir()) == ["frames", "layers.html", "toy.onnx"]

    def test_one_that_exists(self, edgeseg: Run, network: Path, frames: Path, tmp_path: Path) -> None:
        page = tmp_path / "layers.html"
        page.write_text("mine")
        code, out, err = edgeseg(*self.given(network, frames, page))
        assert (code, out) == (1, "")
        assert "exists; choose another place with -o or write into it with --force" in err
        assert page.read_text() == "mine"
        assert edgeseg(*self.given(network, frames, page), "--force")[0] == 0
        assert page.read_text("utf-8") != "mine"

    def test_of_another_kind(self, edgeseg: Run, network: Path, frames: Path, tmp_path: Path) -> None:
        code, _, err = edgeseg(*self.given(network, frames, tmp_path / "layers.png"))
        assert code == 2
        assert "expected a file that ends in .html, but got -o" in err


def test_layers_that_a_bundle_has_in_float_have_no_switch(edgeseg: Run, network: Path, frames: Path) -> None:
    given = ("--frames", frames, "--preset", "unit", "-q")
    assert edgeseg("convert", network, *given, "--keep-float", "depthwise")[0] == 0
    code, out, _ = edgeseg("sensitivity", network.with_suffix(".edgeseg"), "--frames", frames, "-q", "--json")
    assert code == 0
    assert "depthwise" not in {row["layer"] for row in json.loads(out)["layers"]}
    assert len(json.loads(out)["layers"]) == 6


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--map", "cityscapes:camvid"), "give the labels with --labels DIR"),
        (("--count", 0), "at least 1"),
        ((), "--preset"),
    ],
)
def test_wrong_usage(edgeseg: Run, network: Path, frames: Path, given: tuple[object, ...], message: str) -> None:
    code, out, err = edgeseg("sensitivity", network, "--frames", frames, *given)
    assert (code, out) == (2, "")
    assert message in err


def test_a_bundle_that_gives_class_maps(edgeseg: Run, network: Path, frames: Path) -> None:
    given = ("--frames", frames, "--preset", "unit", "-q")
    assert edgeseg("convert", network, *given, "--output", "class-map")[0] == 0
    code, _, err = edgeseg("sensitivity", network.with_suffix(".edgeseg"), "--frames", frames)
    assert code == 1
    assert "convert it with --output logits" in err


def test_a_bundle_without_its_ranges(edgeseg: Run, bundle: Path, frames: Path) -> None:
    code, out, err = edgeseg("sensitivity", bundle, "--frames", frames)
    assert (code, out) == (1, "")
    assert "has no calibration.json, whose ranges the analysis starts from" in err
