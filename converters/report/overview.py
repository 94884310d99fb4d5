"""The head of the page: the sentence, the headline number and the remarks."""

from __future__ import annotations

from edgeseg.converters.report.content import ReportContent
from edgeseg.converters.report.figures import moved_most
from edgeseg.converters.report.markup import Markup, element
from edgeseg.converters.report.numbers import count, decimal, duration, percent, signed
from edgeseg.manifest import Manifest, Scores

__all__ = ["header", "summary"]


def header(content: ReportContent, sections: dict[str, str]) -> Markup:
    """Name, size, classes and method, and links to the sections (title by id)."""
    manifest, found = content.manifest, content.manifest.quantization
    calibrated = f"ranges by {found.method} from {_frames(len(found.frame_names))}" if found.frame_names else "FP16"
    line = " \u00b7 ".join(
        (
            f"{manifest.input.width} \u00d7 {manifest.input.height} pixels",
            f"{len(manifest.labels.classes())} classes",
            calibrated,
        )
    )
    links = [element("a", title, href=f"#{key}") for key, title in sections.items()]
    return element(
        "header",
        element("p", f"edgeseg {found.number_format} report", class_="kicker"),
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
        element("div", _headline(content.manifest), element("div", *_tiles(content), class_="tiles"), class_="hero"),
        element("ul", *remarks, class_="remarks") if remarks else None,
        id="summary",
    )


def _headline(manifest: Manifest) -> Markup:
    scores, found = manifest.scores, manifest.quantization
    name = found.number_format
    if scores is None:
        lack = "every frame given went into the calibration" if found.frame_names else "none was given"
        return element(
            "div",
            element("p", "Not scored", class_="number words"),
            element(
                "p",
                f"No frame was left to score: {lack}. The accuracy of this network in {name} is unknown.",
                class_="quiet",
            ),
            class_="headline",
        )
    frames = _frames(len(scores.frame_names)) + (" that calibration never saw" if found.frame_names else "")
    lost = decimal(abs(scores.drop))
    if scores.metric == "miou":
        what = f"mIoU points lost to {name}" if scores.drop >= 0 else f"mIoU points gained in {name}"
        pair = _pair(("Float", decimal(scores.float_score)), (name, decimal(scores.int8_score)))
        how = f"Mean IoU over {frames}."
    else:
        lost += " %"
        what = f"of the pixels change class in {name}"
        pair = _pair(("Agreement with the float network", f"{decimal(scores.int8_score)} %"))
        how = f"Over {frames}; no labels were given."
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
    name, layers, scores = quantization.number_format, quantization.converted_layers, content.manifest.scores
    macs = sum(layer.macs for layer in quantization.layers)
    scored = f"{_frames(len(scores.frame_names))} scored" if scores else "none scored"
    others = _kept(quantization.count("float")) if content.table else "nothing is quantized"
    frames, method = len(quantization.frame_names), quantization.method if content.table else "FP16 needs none"
    return [
        _tile(f"Layers in {name}", f"{layers} of {len(quantization.layers)}", others),
        _tile(f"MACs in {name}", percent(quantization.converted_mac_share), f"of {count(macs, ' ')} for one frame"),
        _tile("Calibration", _frames(frames) if frames else "None", f"{method}; {scored}"),
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
