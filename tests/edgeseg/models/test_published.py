"""Scores belong to variants that exist, and those measured here are the ones that the documents state."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeseg.models.cards import CARDS
from edgeseg.models.published import MEASURED, PUBLISHED, MeasuredScore, PublishedScore, scores_of

REPOSITORY = Path(__file__).resolve().parent.parent.parent.parent


def without_classes(options: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in options.items() if key != "classes"}


@pytest.mark.parametrize("score", [*PUBLISHED, *MEASURED], ids=lambda s: f"{s.network}-{s.data}")
def test_every_score_is_of_a_variant_on_a_card(score: PublishedScore | MeasuredScore) -> None:
    variants = [without_classes(cost.options) for cost in CARDS[score.network].costs]
    assert score.options in variants


@pytest.mark.parametrize("score", PUBLISHED, ids=lambda s: f"{s.network}-{s.data}-{s.source}")
def test_a_published_score_is_a_percentage_with_data_and_source(score: PublishedScore) -> None:
    assert 20 < score.miou < 90
    assert score.data.startswith(("Cityscapes", "CamVid", "VOC", "PASCAL Context"))
    assert score.source


def test_no_figure_stands_twice() -> None:
    keys = [(s.network, repr(s.options), s.data, s.source, s.note) for s in PUBLISHED]
    assert len(set(keys)) == len(keys)


def test_scores_of_a_variant() -> None:
    found = scores_of(PUBLISHED, "fcn", {"stride": 8, "classes": 19})
    assert {(s.miou, s.data) for s in found} == {(57.0, "CamVid"), (65.5, "VOC 2011 val"), (67.2, "VOC 2012 test")}
    assert scores_of(PUBLISHED, "fcn", {}) == ()
    assert scores_of(PUBLISHED, "fcn", {"stride": 4}) == ()


def test_what_others_measured_with_unknown_variants_comes_last() -> None:
    for name, card in CARDS.items():
        for cost in card.costs:
            sources = [s.source == "PaddleSeg" for s in scores_of(PUBLISHED, name, cost.options)]
            assert sources == sorted(sources)


@pytest.mark.parametrize(
    ("network", "width", "line"),
    [("espnet", None, "| ESPNet | {} | {} |"), ("espnetv2", 0.5, "| ESPNetv2 s=0.5 | {} | {} |"),
     ("espnetv2", 2.0, "| ESPNetv2 s=2.0 | {} | {} |")],
)  # fmt: skip
def test_own_scores_are_those_of_the_benchmarks(network: str, width: float | None, line: str) -> None:
    (score,) = [s for s in MEASURED if s.network == network and s.options.get("width") == width]
    page = (REPOSITORY / "docs" / "benchmarks.md").read_text("utf-8")
    assert line.format(f"{score.float_miou:.2f}", f"{score.int8_miou:.2f}") in page


def test_the_shipped_network_has_the_scores_of_its_card() -> None:
    (score,) = [s for s in MEASURED if s.network == "dabnet"]
    card = (REPOSITORY / "edgeseg" / "zoo" / "dabnet-dsrl-camvid.md").read_text("utf-8")
    assert f"**{score.float_miou:.2f}**" in card
    assert f"**{score.int8_miou:.2f}**" in card
