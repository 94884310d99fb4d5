"""Layers by precision with their share of the work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgeseg.converters.report.figures import float_reasons, layer_shares
from edgeseg.converters.report.markup import Markup, element, join
from edgeseg.converters.report.numbers import decimal, percent
from edgeseg.manifest import Layer, Quantization

__all__ = ["layer_section"]


def layer_section(quantization: Quantization) -> Markup:
    """The stacked bars, the layers that stayed in float with their reasons, and the list of all."""
    layers, titles = quantization.layers, _titles(quantization)
    title = element("h2", "Layers by precision")
    if not layers:
        text = "The network has no convolution or matrix product, so nothing was quantized."
        return element("section", title, element("p", text, class_="quiet"), id="layers")
    return element(
        "section",
        title,
        element("p", "Share of the multiply-accumulate operations (MACs) of one frame.", class_="intro"),
        _key(quantization, titles),
        _stacks(layers, titles),
        _reasons(layers),
        _list(layers, titles),
        id="layers",
    )


def _titles(quantization: Quantization) -> dict[str, str]:
    """What the page calls the layers of each precision."""
    return {"int8": "INT8", "float": "FP16" if quantization.number_format == "FP16" else "Float"}


def _key(quantization: Quantization, titles: Mapping[str, str]) -> Markup:
    entries = []
    for kind, share in (("int8", quantization.int8_mac_share), ("float", 1 - quantization.int8_mac_share)):
        number = quantization.count(kind)
        mark = Markup(
            f'<svg class="mark" aria-hidden="true"><rect class="{kind}" width="12" height="12" rx="2"/></svg>'
        )
        noun = "layer" if number == 1 else "layers"
        entries.append(join(mark, element("strong", titles[kind]), f" {number} {noun}, {percent(share)}"))
    return element("p", *(element("span", entry) for entry in entries), class_="key")


def _stacks(layers: Sequence[Layer], titles: Mapping[str, str]) -> Markup:
    """One bar by precision, one in graph order with a segment a layer, over a common axis."""
    shares = layer_shares(layers)
    named = [(layer, share, True) for layer, share in zip(layers, shares, strict=True)]
    ordered = sorted(zip(layers, shares, strict=True), key=lambda pair: pair[0].precision != "int8")
    texts = [
        element("text", f"{x} %", x=f"{x}%", y=12, text_anchor="start" if x == 0 else "end" if x == 100 else "middle")
        for x in (0, 25, 50, 75, 100)
    ]
    return element(
        "div",
        element("p", "By precision", class_="label"),
        _stack(_merged(ordered), "Share of the MACs by precision", titles),
        element("p", "In graph order, a segment a layer", class_="label"),
        _stack(named, "Share of the MACs in graph order", titles),
        element("svg", *texts, class_="plot axis low", aria_hidden="true"),
        class_="stacks",
    )


def _merged(ordered: Sequence[tuple[Layer, float]]) -> list[tuple[Layer, float, bool]]:
    """One segment a precision; its first layer stands for all."""
    merged = []
    for kind in ("int8", "float"):
        members = [(layer, share) for layer, share in ordered if layer.precision == kind]
        if members:
            merged.append((members[0][0], sum(share for _, share in members), False))
    return merged


def _stack(segments: Sequence[tuple[Layer, float, bool]], label: str, titles: Mapping[str, str]) -> Markup:
    parts, start = [], 0.0
    for layer, share, named in segments:
        text = f"{layer.name} ({layer.op}): {titles[layer.precision]}, {percent(share)}" if named else percent(share)
        parts.append(
            element(
                "rect",
                element("title", text),
                x=f"{100 * start:.3f}%",
                width=f"{100 * share:.3f}%",
                height="100%",
                class_=layer.precision + (" segment" if named else ""),
            )
        )
        start += share
    return element("svg", *parts, class_="plot stack", role="img", aria_label=label)


def _reasons(layers: Sequence[Layer]) -> Markup | None:
    groups = float_reasons(layers)
    if not groups:
        return None
    total = sum(layer.macs for layer in layers) or 1
    rows = [
        element(
            "tr",
            element("td", reason, _names(group)),
            element("td", len(group), class_="num"),
            element("td", decimal(sum(layer.macs for layer in group) / 1e6, 1), class_="num"),
            element("td", percent(sum(layer.macs for layer in group) / total), class_="num"),
        )
        for reason, group in groups.items()
    ]
    head = _head(("Why it stayed in float", ""), ("Layers", "num"), ("MMACs", "num"), ("Share", "num"))
    return element("div", element("table", head, element("tbody", *rows), class_="reasons"), class_="scroll")


def _names(group: Sequence[Layer]) -> Markup:
    names = join(*(element("code", layer.name) for layer in group))
    if len(group) <= 3:
        return element("div", names, class_="names")
    return element("details", element("summary", f"{len(group)} layers"), element("div", names, class_="names"))


def _list(layers: Sequence[Layer], titles: Mapping[str, str]) -> Markup:
    rows = [
        element(
            "tr",
            element("td", index, class_="num quiet"),
            element("td", element("code", layer.name)),
            element("td", layer.op),
            element("td", element("span", titles[layer.precision], class_=f"chip {layer.precision}")),
            element("td", decimal(layer.macs / 1e6, 2), class_="num"),
            element("td", f"{decimal(100 * share)} %", class_="num"),
            element("td", layer.reason),
        )
        for index, (layer, share) in enumerate(zip(layers, layer_shares(layers), strict=True), 1)
    ]
    head = _head(
        ("#", "num"),
        ("Layer", ""),
        ("Operator", ""),
        ("Precision", ""),
        ("MMACs", "num"),
        ("Share", "num"),
        ("Reason", ""),
    )
    table = element("table", head, element("tbody", *rows), class_="list")
    return element(
        "details",
        element("summary", f"All {len(layers)} layers"),
        element("div", table, class_="scroll tall", tabindex=0, role="region", aria_label="All layers"),
    )


def _head(*columns: tuple[str, str]) -> Markup:
    return element("thead", element("tr", *(element("th", t, class_=c or None, scope="col") for t, c in columns)))
