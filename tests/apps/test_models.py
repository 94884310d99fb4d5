from __future__ import annotations

import json
import subprocess
import sys

import pytest
from support.colours import Run

from edgeseg.models.cards import CARDS, Card, Cost

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
