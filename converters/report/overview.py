"""The head of the page: the sentence, the headline number and the remarks."""

from __future__ import annotations

from edgeseg.converters.report.content import ReportContent
from edgeseg.converters.report.figures import moved_most
from edgeseg.converters.report.markup import Markup, element
from edgeseg.converters.report.numbers import count, decimal, duration, percent, signed
from edgeseg.manifest import Scores

__all__ = ["header", "summary"]


def header(content: ReportContent, sections: dict[str, str]) -> Markup:
    """Name, size, classes and method, and links to the sections (title by id)."""
    manifest = content.manifest
    line = " \u00b7 ".join(
        (
            f"{manifest.input.width} \u00d7 {manifest.input.height} pixels",
            f"{len(manifest.labels.classes())} classes",
            f"ranges by {manifest.quantization.method} from {_frames(len(manifest.quantization.frame_names))}",
        )
    )
    links = [element("a", title, href=f"#{key}") for key, title in sections.items()]
    return element(
        "header",
        element("p", "edgeseg INT8 report", class_="kicker"),
        element("h1", manifest.network.name),
        element("p", line, class_="lead"),
        element("nav", *links, aria_label="Sections"),
    )


def summary(content: ReportContent) -> Markup:
    """The headline number beside the figures that explain it, and the remarks."""
    remarks = [element("li", remark) for remark in content.remarks]
    return element(
        "section",
        element("h2", "Summary", class_="unseen"),
        element(
            "div", _headline(content.manifest.scores), element("div", *_tiles(content), class_="tiles"), class_="hero"
        ),
        element("ul", *remarks, class_="remarks") if remarks else None,
        id="summary",
    )


def _headline(scores: Scores | None) -> Markup:
    if scores is None:
        return element(
            "div",
            element("p", "Not scored", class_="number words"),
            element(
                "p",
                "No frame was left to score: every frame given went into the calibration. The accuracy of this network "
                "in INT8 is unknown.",
                class_="quiet",
            ),
            class_="headline",
        )
    lost = decimal(abs(scores.drop))
    if scores.metric == "miou":
        what = "mIoU points lost to INT8" if scores.drop >= 0 else "mIoU points gained in INT8"
        pair = _pair(("Float", decimal(scores.float_score)), ("INT8", decimal(scores.int8_score)))
        how = f"Mean IoU over {_frames(len(scores.frame_names))} that calibration never saw."
    else:
        lost += " %"
        what = "of the pixels change class in INT8"
        pair = _pair(("Agreement with the float network", f"{decimal(scores.int8_score)} %"))
        how = f"Over {_frames(len(scores.frame_names))} that calibration never saw; no labels were given."
    return element(
        "div",
        element("p", lost, class_="number"),
        element("p", what, class_="what"),
        pair,
        element("p", how, class_="quiet"),
        *_certainty(scores),
        class_="headline",
    )


def _certainty(scores: Scores) -> list[Markup]:
    """How sure the drop is, and which classes it comes from; what was not measured is left out."""
    texts = []
    if scores.drop_interval is not None:
        low, high = map(decimal, scores.drop_interval)
        texts.append(f"95 % interval of the drop, by bootstrap over the frames: {low} to {high} points.")
    moved = ", ".join(f"{row.name} {signed(row.change)}" for row in moved_most(scores))
    if moved:
        texts.append(f"IoU moved most: {moved}.")
    return [element("p", text, class_="quiet") for text in texts]


def _pair(*items: tuple[str, str]) -> Markup:
    return element("dl", *(element("div", element("dt", k), element("dd", v)) for k, v in items), class_="pair")


def _tiles(content: ReportContent) -> list[Markup]:
    quantization = content.manifest.quantization
    int8, scores = quantization.count("int8"), content.manifest.scores
    macs = sum(layer.macs for layer in quantization.layers)
    scored = f"{_frames(len(scores.frame_names))} scored" if scores else "none scored"
    return [
        _tile("Layers in INT8", f"{int8} of {len(quantization.layers)}", _kept(quantization.count("float"))),
        _tile("MACs in INT8", percent(quantization.int8_mac_share), f"of {count(macs, ' ')} for one frame"),
        _tile("Calibration", _frames(len(quantization.frame_names)), f"{quantization.method}; {scored}"),
        _tile("Conversion", duration(sum(content.steps.values())), f"{content.peak_rss_mb:,.0f} MB of memory at most"),
    ]


def _kept(layers: int) -> str:
    return "none stayed in float" if not layers else "1 stayed in float" if layers == 1 else f"{layers} stayed in float"


def _tile(label: str, value: str, note: str) -> Markup:
    return element(
        "div",
        element("p", label, class_="label"),
        element("p", value, class_="value"),
        element("p", note, class_="quiet"),
        class_="tile",
    )


def _frames(number: int) -> str:
    return "1 frame" if number == 1 else f"{number} frames"
