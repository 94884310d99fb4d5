"""The page: its sections in order, its style and the policy that keeps it from running or fetching anything."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

from edgeseg.calibration.sensitivity import Sensitivity
from edgeseg.converters.report.classes import class_section
from edgeseg.converters.report.content import ReportContent
from edgeseg.converters.report.frames import frame_section
from edgeseg.converters.report.layers import layer_section
from edgeseg.converters.report.markup import Markup, element, join
from edgeseg.converters.report.origin import origin_section
from edgeseg.converters.report.overview import header, summary
from edgeseg.converters.report.ranges import range_section
from edgeseg.converters.report.sensitivity import TITLE, sensitivity_section
from edgeseg.manifest import Layer

__all__ = ["html_page", "report_html", "sensitivity_html"]

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_SECTIONS = {
    "classes": "IoU by class",
    "layers": "Layers",
    "sensitivity": "Sensitivity",
    "frames": "Worst frames",
    "ranges": "Calibration",
    "origin": "Origin",
}


def report_html(content: ReportContent) -> str:
    """The report as one self-contained HTML page.

    It has no script and asks for no other file: images are data URIs, charts inline SVG, and a content security policy
    forbids the rest. Every name that came from the network or the frames is escaped.

    Args:
        content: what to show.

    Returns:
        The page, to be written as UTF-8.

    Raises:
        MissingDependencyError: when frames are to be drawn and OpenCV is not installed.
    """
    manifest, measured = content.manifest, content.sensitivity
    absent = {"sensitivity": measured is None, "ranges": content.table is None}
    sections = {key: title for key, title in _SECTIONS.items() if not absent.get(key)}
    number_format = manifest.quantization.number_format
    body = element(
        "body",
        header(content, sections),
        element(
            "main",
            summary(content),
            class_section(manifest),
            layer_section(manifest.quantization),
            None if measured is None else sensitivity_section(measured, manifest.quantization.layers),
            frame_section(content.worst, manifest.labels, number_format),
            None if content.table is None else range_section(content.table),
            origin_section(content),
        ),
    )
    return html_page(f"{manifest.network.name}: {number_format} report", body)


def sensitivity_html(name: str, sensitivity: Sensitivity, layers: Sequence[Layer], frames: Sequence[str]) -> str:
    """What INT8 does in each layer as a page by itself, made as the report is.

    Args:
        name: of the network.
        sensitivity: what was measured.
        layers: those whose work counts as all.
        frames: names of the frames that it was measured on.

    Returns:
        The page, to be written as UTF-8.
    """
    head = element(
        "header",
        element("p", "edgeseg sensitivity", class_="kicker"),
        element("h1", name),
        element("p", "Frames: " + ", ".join(frames), class_="lead"),
    )
    main = element("main", sensitivity_section(sensitivity, layers))
    return html_page(f"{name}: {TITLE}", element("body", head, main))


def html_page(title: str, body: Markup) -> str:
    """A whole page in the report's style, without scripts and other files.

    Args:
        title: of the window.
        body: its body element.
    """
    return "<!doctype html>\n" + element("html", _head(title), body, lang="en") + "\n"


def _head(title: str) -> Markup:
    style = resources.files("edgeseg.converters.report").joinpath("report.css").read_text("utf-8")
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        # An empty icon keeps a browser from asking the server for one.
        element("link", rel="icon", href="data:,"),
        element("title", title),
        join(Markup(f"<style>{style}</style>")),
    )
