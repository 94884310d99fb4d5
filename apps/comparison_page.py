"""The comparison of the networks as one page: chart, table, and every published figure with its source."""

from __future__ import annotations

from collections.abc import Sequence

from edgeseg.apps.comparison import (
    COLUMNS,
    NUMBERS,
    ComparedNetwork,
    comparison_rows,
    measured_on,
    published_rows,
)
from edgeseg.apps.comparison_chart import accuracy_chart
from edgeseg.converters.report import html_page
from edgeseg.converters.report.markup import Markup, element
from edgeseg.models.costs import MeasuredCosts

__all__ = ["comparison_html"]


def comparison_html(compared: Sequence[ComparedNetwork], costs: MeasuredCosts) -> str:
    """The page, to be written as UTF-8; like a report it has no script and asks for no other file.

    Args:
        compared: the variants.
        costs: what was measured, for where and when.
    """
    head = element(
        "header",
        element("p", "edgeseg models --compare", class_="kicker"),
        element("h1", "The networks beside each other"),
        element("p", measured_on(costs), class_="lead"),
    )
    chart = element(
        "section",
        element("h2", "Accuracy against cost"),
        element(
            "p", "Scores of different data sets do not compare; a mark's title says where it is from.", class_="intro"
        ),
        accuracy_chart(compared),
    )
    costs_table = element(
        "section",
        element("h2", "Cost and INT8"),
        _table(COLUMNS, comparison_rows(compared), NUMBERS),
    )
    sources = element(
        "section",
        element("h2", "Scores and their sources"),
        _table(("network", "mIoU", "data", "source", "note"), published_rows(compared), (1,)),
    )
    return html_page(
        "The networks beside each other", element("body", head, element("main", chart, costs_table, sources))
    )


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int]) -> Markup:
    def kind(place: int) -> str | None:
        return "num" if place in numbers else None

    head = element("tr", *(element("th", text, class_=kind(i), scope="col") for i, text in enumerate(columns)))
    body = [element("tr", *(element("td", text, class_=kind(i)) for i, text in enumerate(row))) for row in rows]
    table = element("table", element("thead", head), element("tbody", *body), class_="list")
    return element("div", table, class_="scroll")
