from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.colours import Run

from edgeseg.models import costs
from edgeseg.models.cards import CARDS, Card, Cost
from edgeseg.models.costs import Builder, MeasuredCost, MeasuredCosts, Setup, Times, write_costs

CARD = Card(
    "tinynet",
    "TinyNet",
    "A. Author, A tiny network, 2020",
    "https://example.org",
    4,
    (Cost({"width": 1.0, "classes": 5}, 1234, 0.5), Cost({"width": 2.0, "classes": 5}, 56789, None, (64, 128))),
    "pools by a fixed kernel",
)


@pytest.fixture(autouse=True)
def card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CARDS, "tinynet", CARD)


def test_the_table(edgeseg: Run) -> None:
    code, out, err = edgeseg("models")
    assert (code, err) == (0, "")
    first = next(line for line in out.splitlines() if line.startswith("tinynet"))
    assert "TinyNet" in first
    for word in ("width=1.0", "1,234", "0.5000", "512x1024", "4", "variant"):
        assert word in first.split()
    assert "width=2.0" in out
    assert "56,789" in out
    assert "64x128" in out


def test_a_card(edgeseg: Run) -> None:
    code, out, _ = edgeseg("models", "tinynet")
    assert code == 0
    for text in ("A. Author, A tiny network, 2020", "https://example.org", "pools by a fixed kernel", "56,789"):
        assert text in out


def test_json(edgeseg: Run) -> None:
    networks = json.loads(edgeseg("models", "--json")[1])["networks"]
    assert [n["name"] for n in networks] == sorted(CARDS)
    found = json.loads(edgeseg("models", "tinynet", "--json")[1])
    assert found["costs"][1] == {
        "options": {"width": 2.0, "classes": 5}, "parameters": 56789, "gmacs": None, "size": [64, 128],
    }  # fmt: skip
    assert found["stride"] == 4


def test_an_unknown_name(edgeseg: Run) -> None:
    code, out, err = edgeseg("models", "tinynett")
    assert (code, out) == (2, "")
    assert "unknown network 'tinynett'; did you mean tinynet?" in err


def test_without_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; from edgeseg.apps.cli import main; sys.exit(main(['models']))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


class TestCompare:
    @pytest.fixture(autouse=True)
    def measured(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """One of the two variants was measured."""
        setup = Setup("a quiet processor", {"openvino": "2026.4"})
        cost = MeasuredCost(
            "tinynet",
            {"width": 1.0},
            (360, 480),
            1200,
            0.25,
            int8_share=0.99999,
            int8_layers=7,
            layers=8,
            builder=Builder(7, 7, 2.0, 900),
            times=Times(4.04, 2.02, 2.1, 9, False, "2026-11-21", setup),
            setup=setup,
        )
        file = tmp_path / "costs.json"
        networks = (cost, MeasuredCost("segnet", {}, (360, 480), 29_453_971, 107.5087))
        file.write_text(write_costs(MeasuredCosts(5, networks)), "utf-8")
        monkeypatch.setattr(costs, "COSTS_FILE", str(file))

    def test_the_table(self, edgeseg: Run) -> None:
        code, out, err = edgeseg("models", "--compare", "tinynet")
        assert (code, err) == (0, "")
        first, second = (line for line in out.splitlines() if line.startswith("tinynet"))
        for text in (
            "width=1.0",
            "1,234",
            "0.5000 at 512x1024",
            "0.2500",
            "99.99 %",
            "4.0",
            "2.0",
            "2.10",
            "7 of 7 INT8",
        ):
            assert text in first
        assert "56,789" in second
        assert second.split()[3:] == ["-"] * 9
        assert "a quiet processor with OpenVINO 2026.4" in out
        assert "Times beside other work" in out

    def test_all_networks_with_their_scores(self, edgeseg: Run) -> None:
        out = edgeseg("models", "--compare")[1]
        assert {line.split()[0] for line in out.splitlines()[1:] if line} >= set(CARDS)
        (line,) = [line for line in out.splitlines() if line.startswith("segnet")]
        assert "46.4 CamVid" in line

    def test_json(self, edgeseg: Run) -> None:
        found = json.loads(edgeseg("models", "--compare", "--json")[1])
        assert found["measured_on"] == {
            "classes": 5,
            "setups": [{"machine": "a quiet processor", "versions": {"openvino": "2026.4"}}],
        }
        first, second = (n for n in found["networks"] if n["name"] == "tinynet")
        assert first["measured"]["builder"]["verdict"] == "7 of 7 INT8"
        assert first["measured"]["times"]["ratio"] == 2.1
        assert (first["measured"]["setup"], first["measured"]["times"]["setup"]) == (0, 0)
        assert (first["options"], first["classes"], first["gmacs"]) == ({"width": 1.0}, 5, 0.5)
        assert (second["measured"], second["published"]) == (None, [])
        (segnet,) = (n for n in found["networks"] if n["name"] == "segnet")
        assert segnet["published"][0]["source"]

    def test_the_page(self, edgeseg: Run, tmp_path: Path) -> None:
        page = tmp_path / "networks.html"
        assert edgeseg("models", "--compare", "-o", page)[0] == 0
        text = page.read_text("utf-8")
        assert text.startswith("<!doctype html>")
        for part in ("<svg", "tinynet", "7 of 7 INT8", "sacmehta/EdgeNets", "a quiet processor"):
            assert part in text
        assert "<script" not in text
        code, _, err = edgeseg("models", "--compare", "-o", page)
        assert code == 1
        assert "exists; choose another place with -o or write into it with --force" in err
        assert edgeseg("models", "--compare", "-o", page, "--force")[0] == 0

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--compare", "-o", "networks.svg"], "expected a file that ends in .html, but got -o networks.svg"),
            (["-o", "networks.html"], "give --compare with -o"),
            (["--compare", "tinynett"], "did you mean tinynet?"),
        ],
    )
    def test_what_is_refused(self, edgeseg: Run, arguments: list[str], message: str) -> None:
        code, out, err = edgeseg("models", *arguments)
        assert (code, out) == (2, "")
        assert message in err

    def test_a_broken_file_of_costs(self, edgeseg: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "costs.json").write_text("{}")
        code, out, err = edgeseg("models", "--compare")
        assert (code, out) == (1, "")
        assert "expected measured costs in" in err
