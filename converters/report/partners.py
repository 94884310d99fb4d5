"""What is quantized beside layers, what is not, and what that costs."""

from __future__ import annotations

from edgeseg.calibration.partners import Partner, Partners
from edgeseg.calibration.table import CalibrationTable
from edgeseg.converters.report.markup import Markup, element, join
from edgeseg.converters.report.numbers import quantity

__all__ = ["partner_table"]

_COLUMNS = ("Joined by", "Tensors", "Range \u00b1", "Cost alone", "Taken")


def partner_table(table: CalibrationTable) -> Markup:
    """Each partner with its cost; empty where the network has none."""
    found = table.partners
    if found is None:
        return join()
    head = element(
        "tr", *(element("th", c, scope="col", class_="num" if i > 1 else None) for i, c in enumerate(_COLUMNS))
    )
    rows = (_row(partner, table, found.tolerance) for partner in found.groups)
    body = element("table", element("thead", head), element("tbody", *rows), class_="list")
    return join(
        element("h3", "Partners of INT8 layers"),
        element("p", _intro(found), class_="intro"),
        element("div", body, class_="scroll", tabindex=0, role="region", aria_label="Partners of INT8 layers"),
    )


def _intro(found: Partners) -> str:
    allowed = "all were asked for" if found.tolerance is None else f"up to {found.tolerance:g} dB may be lost"
    return (
        "TensorRT joins a sum with the convolution before it where its other input is quantized too, and concatenates "
        f"in INT8 where all tensors have one range. {len(found.taken)} of {len(found.groups)} such places are "
        f"quantized; together they change the logits' signal-to-noise ratio by {-found.loss:+.2f} dB ({allowed}). The "
        "cost of each is what it takes from that ratio alone."
    )


def _row(partner: Partner, table: CalibrationTable, tolerance: float | None) -> Markup:
    place = element("code", partner.node) if partner.kind == "sum" else "concatenation"
    entry = table.entries.get(partner.tensors[0])
    known = quantity(entry.amax) if entry is not None and partner.taken else ""
    why = "yes" if partner.taken else "no: too costly alone"
    if not partner.taken and tolerance is not None and partner.loss <= tolerance:
        why = "no: too costly with the others"
    return element(
        "tr",
        element("td", place),
        element("td", *(element("code", f"{name} ") for name in partner.tensors)),
        element("td", known, class_="num"),
        element("td", f"{partner.loss:+.2f} dB", class_="num"),
        element("td", why, class_="num"),
    )
