"""Where the bundle comes from: network, tensors, tools, time by step and every digest."""

from __future__ import annotations

from collections.abc import Sequence

from edgeseg.converters.report.content import ReportContent
from edgeseg.converters.report.figures import digests
from edgeseg.converters.report.markup import Markup, element, join
from edgeseg.converters.report.numbers import duration
from edgeseg.manifest import Manifest

__all__ = ["origin_section"]


def origin_section(content: ReportContent) -> Markup:
    """Where the network came from, what it takes and gives, how the conversion went, and every digest."""
    manifest = content.manifest
    return element(
        "section",
        element("h2", "Origin"),
        element(
            "div",
            _list("Network", _network(manifest)),
            _list("Input and output", _tensors(manifest)),
            _list("Made with", manifest.tools),
            _steps(content),
            class_="facts",
        ),
        _digests(manifest),
        id="origin",
    )


def _network(manifest: Manifest) -> dict[str, str]:
    network = manifest.network
    return {
        "Name": network.name,
        "Source": network.source,
        "Opset": str(network.opset),
        "Licence": network.licence or "not stated",
        "SHA-256": network.digest,
    }


def _tensors(manifest: Manifest) -> dict[str, str]:
    taken, given = manifest.input, manifest.output
    return {
        "Input": f"{taken.tensor}: uint8 RGB, 1 \u00d7 {taken.height} \u00d7 {taken.width} \u00d7 3",
        "Trained in": taken.color_order,
        "Mean": ", ".join(f"{v:g}" for v in taken.mean),
        "Deviation": ", ".join(f"{v:g}" for v in taken.std),
        "Output": f"{given.tensor}: "
        + (
            f"logits, 1 \u00d7 {given.channels} \u00d7 {given.height} \u00d7 {given.width}"
            if given.kind == "logits"
            else f"class map, 1 \u00d7 {given.height} \u00d7 {given.width}"
        ),
        "Class map": "{} \u00d7 {}".format(*manifest.map_size),
        "Upsampling": given.coordinates.replace("_", " ") if given.coordinates else "none after the graph",
    }


def _list(title: str, pairs: dict[str, str]) -> Markup:
    rows = [join(element("dt", key), element("dd", value)) for key, value in pairs.items()]
    return element("div", element("h3", title), element("dl", *rows))


def _steps(content: ReportContent) -> Markup:
    longest = max(content.steps.values(), default=0.0) or 1.0
    rows = [
        element(
            "tr",
            element("th", step, scope="row"),
            element(
                "td",
                element(
                    "svg",
                    element("rect", x=0, y=3, height=6, width=f"{100 * seconds / longest:.2f}%", class_="float"),
                    class_="plot short",
                    aria_hidden="true",
                ),
                class_="chart",
            ),
            element("td", duration(seconds), class_="num"),
        )
        for step, seconds in content.steps.items()
    ]
    return element("div", element("h3", "Time by step"), element("table", element("tbody", *rows), class_="steps"))


def _digests(manifest: Manifest) -> Markup:
    calibrated, scores = manifest.quantization, manifest.scores
    groups = {
        "Files of the bundle": tuple(manifest.files.items()),
        "Calibration frames": digests(calibrated.frame_names, calibrated.frame_digests),
        "Scored frames": digests(scores.frame_names, scores.frame_digests) if scores else (),
    }
    tables = [_digest_table(title, pairs) for title, pairs in groups.items() if pairs]
    total = sum(map(len, groups.values()))
    return element("details", element("summary", f"SHA-256 of {total} files and frames"), *tables)


def _digest_table(title: str, pairs: Sequence[tuple[str, str]]) -> Markup:
    rows = [element("tr", element("th", k, scope="row"), element("td", element("code", v))) for k, v in pairs]
    return join(
        element("h3", title),
        element("div", element("table", *rows, class_="digests"), class_="scroll tall", tabindex=0),
    )
