"""The worst frames side by side, and the colours of the classes."""

from __future__ import annotations

from collections.abc import Sequence

from edgeseg.converters.report.classes import swatch
from edgeseg.converters.report.content import WorstFrame
from edgeseg.converters.report.figures import class_changes
from edgeseg.converters.report.images import difference_uri, map_uri, photo_uri
from edgeseg.converters.report.markup import Markup, element
from edgeseg.converters.report.numbers import decimal, percent
from edgeseg.labels import LabelSet

__all__ = ["MAX_FRAMES", "frame_section"]

MAX_FRAMES = 10
"""Frames that the page shows, so that it stays below about 3 MB; the JSON twin lists every one given."""


def frame_section(frames: Sequence[WorstFrame], labels: LabelSet, name: str) -> Markup:
    """Frame, float map, the map of the network in the number format of that name, and their difference, by frame."""
    title = element("h2", "Worst frames")
    if not frames:
        text = "No frame was scored, so there is none to show."
        return element("section", title, element("p", text, class_="quiet"), id="frames")
    intro = (
        f"The scored frames whose class map changed most, the worst first. The difference shows the {name} class where "
        "the two maps disagree, on the faded frame."
    )
    hidden = len(frames) - MAX_FRAMES
    more = f"{hidden} more {'is' if hidden == 1 else 'are'} listed in report.json." if hidden > 0 else None
    return element(
        "section",
        title,
        element("p", intro, class_="intro"),
        _legend(labels),
        *(_figure(frame, labels, name) for frame in frames[:MAX_FRAMES]),
        element("p", more, class_="quiet") if more else None,
        id="frames",
    )


def _figure(frame: WorstFrame, labels: LabelSet, name: str) -> Markup:
    colors = labels.colors()
    panels = (
        ("Frame", photo_uri(frame.frame)),
        ("Float", map_uri(frame.float_map, colors)),
        (name, map_uri(frame.int8_map, colors)),
        ("Difference", difference_uri(frame.frame, frame.float_map, frame.int8_map, colors)),
    )
    height, width = frame.frame.shape[:2]
    images = [
        element(
            "div",
            element("img", src=uri, alt=f"{kind} of {frame.name}", width=width, height=height, loading="lazy"),
            element("span", kind),
        )
        for kind, uri in panels
    ]
    changes = [f"{c.before} \u2192 {c.after} {percent(c.share, 2)}" for c in class_changes(frame, labels)]
    return element(
        "figure",
        element(
            "figcaption",
            element("strong", frame.name),
            element("span", f"{decimal(frame.agreement)} % agree", class_="agree"),
            element(
                "span", "Most changed pixels: " + ", ".join(changes) if changes else "No pixel changed", class_="quiet"
            ),
        ),
        element("div", *images, class_="panels"),
    )


def _legend(labels: LabelSet) -> Markup:
    entries = [
        element("li", swatch(color), element("span", name))
        for name, color in zip(labels.names, labels.palette, strict=True)
    ]
    listing = element("ul", *entries, class_="legend", aria_label="Colours of the classes")
    if len(entries) <= 40:
        return listing
    return element("details", element("summary", f"Colours of the {len(entries)} classes"), listing)
