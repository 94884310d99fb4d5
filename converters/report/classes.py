"""IoU by class before and after, as a table whose rows carry their bars."""

from __future__ import annotations

from collections.abc import Sequence

from edgeseg.converters.report.figures import ClassScore, class_scores
from edgeseg.converters.report.markup import Markup, element, join
from edgeseg.converters.report.numbers import decimal, nice_step, signed
from edgeseg.labels import LabelSet
from edgeseg.manifest import Manifest

__all__ = ["class_section", "swatch"]

_OPEN_ROWS = 32
_GRID = (0, 25, 50, 75, 100)


def class_section(manifest: Manifest) -> Markup:
    """The chart, or a sentence that says why there is none."""
    scores = manifest.scores
    rows = class_scores(scores) if scores else ()
    title = element("h2", "IoU by class")
    if scores is None or not rows:
        text = (
            "No frame was scored."
            if scores is None
            else "Agreement was measured over all classes together; IoU by class needs labels (--labels)."
        )
        return element("section", title, element("p", text, class_="quiet"), id="classes")
    against = "labels" if scores.metric == "miou" else "the float network\u2019s class map"
    name = manifest.quantization.number_format
    intro = f"In percent against {against}, float and {name}; the greatest loss comes first. {_losers(rows)}"
    bound = _bound(rows)
    tables = [_table(rows[:_OPEN_ROWS], manifest.labels, bound, name)]
    if rows[_OPEN_ROWS:]:
        more = element("summary", f"{len(rows) - _OPEN_ROWS} more classes")
        tables.append(element("details", more, _table(rows[_OPEN_ROWS:], manifest.labels, bound, name)))
    return element("section", title, element("p", intro, class_="intro"), _key(name), *tables, id="classes")


def _losers(rows: Sequence[ClassScore]) -> str:
    changes = [row.change for row in rows if row.change is not None]
    lost = sum(change < -0.5 for change in changes)
    return f"{lost or 'None'} of {len(changes)} lose{'s' if lost == 1 else ''} more than half a point."


def _key(name: str) -> Markup:
    entry = '<svg class="mark" aria-hidden="true"><rect class="{0}" width="12" height="12" rx="2"/></svg>'
    return element("p", Markup(entry.format("float")), "Float", Markup(entry.format("int8")), name, class_="key")


def swatch(color: tuple[int, int, int]) -> Markup:
    """A small square in a class's colour."""
    return element("span", class_="swatch", style="background:#{:02x}{:02x}{:02x}".format(*color), aria_hidden="true")


def _bound(rows: Sequence[ClassScore]) -> float:
    """End of the axis of changes, in points: the largest change rounded up."""
    return nice_step(max((abs(row.change) for row in rows if row.change is not None), default=1.0), 1)


def _table(rows: Sequence[ClassScore], labels: LabelSet, bound: float, name: str) -> Markup:
    head = element(
        "tr",
        element("th", "Class", scope="col"),
        element("th", _axis([(v, f"{v}") for v in _GRID], "IoU, %"), class_="chart", scope="col"),
        element("th", "Float", class_="num", scope="col"),
        element("th", name, class_="num", scope="col"),
        element(
            "th",
            _axis([(0, signed(-bound, 1)), (50, "0"), (100, signed(bound, 1))], "Change, points"),
            class_="chart change",
            scope="col",
        ),
        element("th", "Change", class_="num", scope="col"),
    )
    body = [_row(row, labels, bound) for row in rows]
    columns = [element("col", class_=c) for c in ("name", "bars", "figure", "figure", "change", "figure")]
    table = element("table", element("colgroup", *columns), element("thead", head), element("tbody", *body))
    return element("div", table, class_="classes")


def _axis(marks: Sequence[tuple[float, str]], title: str) -> Markup:
    """Tick labels above a column of bars, placed in percent of its width so that text never scales."""
    texts = [
        element(
            "text",
            label,
            x=f"{x}%",
            y=28,
            text_anchor="start" if x == 0 else "end" if x == 100 else "middle",
        )
        for x, label in marks
    ]
    return element("svg", element("text", title, x=0, y=12, class_="title"), *texts, class_="plot axis")


def _row(row: ClassScore, labels: LabelSet, bound: float) -> Markup:
    color = labels.palette[labels.names.index(row.name)] if row.name in labels.names else None
    bars = [
        element("rect", x=0, y=y, height=7, width=f"{value:.2f}%", class_=kind)
        for y, value, kind in ((6, row.float_iou, "float"), (14, row.int8_iou, "int8"))
        if value is not None
    ]
    change = row.change
    lost = change is not None and change <= -0.5
    return element(
        "tr",
        element("th", swatch(color) if color else None, element("span", row.name), scope="row"),
        element("td", element("svg", _grid(_GRID), *bars, class_="plot", aria_hidden="true"), class_="chart"),
        element("td", decimal(row.float_iou), class_="num"),
        element("td", decimal(row.int8_iou), class_="num strong"),
        element("td", _change_bar(change, bound), class_="chart change"),
        element("td", signed(change), class_="num lost" if lost else "num"),
    )


def _grid(positions: Sequence[float]) -> Markup:
    return join(*(element("line", x1=f"{x}%", x2=f"{x}%", y1=0, y2="100%") for x in positions))


def _change_bar(change: float | None, bound: float) -> Markup:
    """A bar to the left of the middle for a loss, to the right for a gain."""
    length = 50 * abs(change or 0) / bound
    start = 50 - length if (change or 0) < 0 else 50
    kind = "loss" if (change or 0) < 0 else "gain"
    bar = element("rect", x=f"{start:.2f}%", y=10, height=7, width=f"{length:.2f}%", class_=kind)
    return element("svg", _grid((0, 50, 100)), bar, class_="plot", aria_hidden="true")
