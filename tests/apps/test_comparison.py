"""The comparison's rows and its chart."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from edgeseg.apps.comparison import COLUMNS, ComparedNetwork, compare, comparison_rows, measured_on, published_rows
from edgeseg.apps.comparison_chart import PANELS, accuracy_chart, points_of
from edgeseg.models.cards import CARDS, Card, Cost
from edgeseg.models.costs import Builder, MeasuredCost, MeasuredCosts, Setup, Times
from edgeseg.models.published import MeasuredScore, PublishedScore

CARD = Card(
    "tinynet",
    "TinyNet",
    "paper",
    "source",
    4,
    (
        Cost({"width": 1.0, "classes": 21}, 1, 0.1),
        Cost({"width": 1.0, "classes": 19}, 2, 0.2),
        Cost({"width": 1.0, "classes": 19}, 2, 0.3, (64, 64)),
        Cost({"width": 2.0, "classes": 11}, 3),
    ),
)
NOTHING = MeasuredCosts(19, ())


def variant(gmacs: float, *scores: PublishedScore | MeasuredScore, name: str = "tinynet") -> ComparedNetwork:
    measured = MeasuredCost(name, {"width": gmacs}, (360, 480), 1, gmacs)
    published = tuple(score for score in scores if isinstance(score, PublishedScore))
    own = tuple(score for score in scores if isinstance(score, MeasuredScore))
    return ComparedNetwork(CARD, {"width": gmacs}, CARD.costs[0], measured, published, own)


def published(miou: float, data: str, source: str = "the paper") -> PublishedScore:
    return PublishedScore("tinynet", {}, miou, data, source)


class TestRows:
    def test_one_row_a_variant_with_the_cost_for_nineteen_classes(self) -> None:
        first, second = compare(NOTHING, {"tinynet": CARD})
        assert (first.options, first.cost.parameters, first.cost.gmacs) == ({"width": 1.0}, 2, 0.2)
        assert (second.options, second.cost.parameters) == ({"width": 2.0}, 3)
        assert second.label == "tinynet width=2.0"

    def test_what_is_not_known_is_a_dash(self) -> None:
        _, second = comparison_rows(compare(NOTHING, {"tinynet": CARD}))
        assert second == ("tinynet", "width=2.0", "3", *["-"] * (len(COLUMNS) - 3))

    @pytest.mark.parametrize(
        ("changes", "column", "text"),
        [
            ({"int8_share": 1.0}, "INT8", "100 %"),
            ({"int8_share": 0.999999}, "INT8", "99.99 %"),
            ({"problem": "too large"}, "TensorRT", "not converted"),
            ({"builder": Builder(3, 0, None, None, "no")}, "TensorRT", "refused"),
            ({"builder": Builder(3, 2, 1.0, 1)}, "TensorRT", "2 of 3 INT8"),
            ({"size": (352, 480)}, "GMACs here", "0.5000 at 352x480"),
            ({"times": Times(10.0, 4.0, 2.5, 3, True, "2026-01-01")}, "faster", "2.50"),
        ],
    )
    def test_cells(self, changes: dict[str, object], column: str, text: str) -> None:
        values = {"network": "tinynet", "options": {"width": 1.0}, "size": (360, 480), "parameters": 1, "gmacs": 0.5}
        costs = MeasuredCosts(19, (MeasuredCost(**{**values, **changes}),))  # type: ignore[arg-type]
        row = comparison_rows(compare(costs, {"tinynet": CARD}))[0]
        assert row[COLUMNS.index(column)] == text

    def test_every_score_has_its_source(self) -> None:
        rows = published_rows(compare(NOTHING))
        assert ("fcn stride=8", "57", "CamVid", "table 3 of the FC-DenseNet paper", "") in rows
        assert any(row[0] == "dabnet" and row[3] == "scored here, float / INT8" for row in rows)

    def test_where_it_was_measured(self) -> None:
        assert measured_on(NOTHING) == "Nothing was measured: run benchmarks/network_costs.py."
        old, new = (Setup(name, {"openvino": year, "python": "3"}) for name, year in (("one", "2026"), ("two", "2027")))
        quiet = MeasuredCost("a", {}, (360, 480), 1, 0.1, times=Times(1.0, 1.0, 1.0, 3, True, "2026-01-01", old))
        text = measured_on(MeasuredCosts(19, (replace(quiet, setup=new), MeasuredCost("b", {}, (360, 480), 1, 0.1))))
        assert "19 classes" in text
        assert "[1] two with OpenVINO 2027; [2] one with OpenVINO 2026." in text
        assert "Times on [2], of one frame" in text
        assert "other work" not in text


class TestChart:
    def test_the_first_score_of_each_kind_on_a_data_set(self) -> None:
        scores = (
            published(70.0, "Cityscapes val"),
            published(71.0, "Cityscapes test"),
            published(72.0, "Cityscapes val", "PaddleSeg"),
            published(60.0, "CamVid"),
            MeasuredScore("tinynet", {}, 61.5, 61.0, "CamVid val, 101 frames", "ours"),
        )
        (each,) = [variant(2.0, *scores)]
        assert [(p.kind, p.miou) for p in points_of([each], "Cityscapes")] == [("paddleseg", 72.0), ("published", 70.0)]
        assert [(p.kind, p.miou) for p in points_of([each], "CamVid")] == [("own", 61.0), ("published", 60.0)]
        assert points_of([each], "VOC") == []

    def test_a_variant_without_a_cost_is_not_drawn(self) -> None:
        assert points_of(compare(NOTHING), "Cityscapes") == []
        assert "No network has both" in accuracy_chart(compare(NOTHING))

    def test_dearer_is_further_right_and_better_is_higher(self) -> None:
        svg = accuracy_chart([variant(g, published(m, "CamVid")) for g, m in ((0.5, 40.0), (5.0, 50.0), (50.0, 45.0))])
        marks = re.findall(r'<title>tinynet width=([\d.]+)[^<]*</title><circle cx="([\d.]+)" cy="([\d.]+)"', svg)
        across = {float(width): float(x) for width, x, _ in marks}
        down = {float(width): float(y) for width, _, y in marks}
        assert across[0.5] < across[5.0] < across[50.0]
        assert across[5.0] - across[0.5] == pytest.approx(across[50.0] - across[5.0], abs=0.2)
        assert down[5.0] < down[50.0] < down[0.5]

    def test_every_mark_is_inside_the_picture(self) -> None:
        points = [variant(g, published(m, "VOC 2012 val")) for g, m in ((0.18, 47.1), (498.0, 84.9), (1.0, 47.1))]
        svg = accuracy_chart(points)
        width, height = map(float, re.search(r'viewBox="0 0 (\d+) (\d+)"', svg).groups())  # type: ignore[union-attr]
        marks = re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', svg)
        assert len(marks) == len(points) + 2  # the legend's
        assert all(0 < float(x) < width and 0 < float(y) < height for x, y in marks)

    def test_labels_do_not_cover_each_other(self) -> None:
        svg = accuracy_chart([variant(2.0 + i / 10, published(70.0 + i / 10, "CamVid")) for i in range(4)])
        places = re.findall(r'<text x="([\d.]+)" y="([\d.]+)" style="[^"]*">tinynet', svg)
        boxes = [(float(x), float(y)) for x, y in places]
        assert len(boxes) == 4
        for i, (x, y) in enumerate(boxes):
            assert all(abs(x - u) > 60 or abs(y - v) >= 12 for u, v in boxes[i + 1 :])

    def test_names_are_escaped(self) -> None:
        each = variant(2.0, published(70.0, "CamVid <val>", "a & b"))
        svg = accuracy_chart([each])
        assert "CamVid &lt;val&gt; (a &amp; b)" in svg

    def test_every_panel_of_the_package_has_points(self) -> None:
        from edgeseg.models.costs import read_costs

        compared = compare(read_costs(), CARDS)
        assert all(len(points_of(compared, data)) >= 5 for data in PANELS)
