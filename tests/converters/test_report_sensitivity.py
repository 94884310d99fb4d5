"""Which layers cost accuracy: in the report, in its twin and on a page by itself."""

from __future__ import annotations

import json
import math
import re

import pytest
from support.report_content import layers, report_content, sensitivity, small

from edgeseg.calibration.sensitivity import Effect, LayerEffect, Sensitivity
from edgeseg.converters.report import report_html, report_json, sensitivity_figures, sensitivity_html
from edgeseg.manifest import Layer

LAYERS = (Layer("stem", "Conv", "int8", 100, ""), Layer("left", "Conv", "int8", 300, ""))


def measured(*noises: float, spared: bool = True, miou: float | None = None, **changes: object) -> Sensitivity:
    """Of the layers above; what spares one is ten times quieter than it alone."""
    effects = tuple(
        LayerEffect(layer.name, Effect(noise, 99.5, miou), Effect(noise / 10, 99.9, miou) if spared else None)
        for layer, noise in zip(LAYERS, noises, strict=True)
    )
    return Sensitivity(Effect(0.0, 100.0, miou), Effect(0.1, 97.25, miou), effects, 3)


def section(text: str) -> str:
    return text[text.index('<section id="sensitivity">') :].split("</section>")[0]


def rows(text: str) -> list[str]:
    """The text of each row but the head's."""
    found = re.findall("<tr>.*?</tr>", section(text))
    cells = [re.findall("<t[hd].*?</t[hd]>", row) for row in found]
    plain = [[re.sub("<.*?>", " ", cell).strip() for cell in row] for row in cells if "<code>" in row[0]]
    return [" ".join(" ".join(filter(None, row)).split()) for row in plain]


def page(found: Sensitivity, listed: tuple[Layer, ...] = LAYERS) -> str:
    return sensitivity_html("net", found, listed, ("a", "b"))


class TestRows:
    def test_the_loudest_comes_first(self) -> None:
        assert rows(page(measured(0.001, 0.02))) == [
            "left 75.0 % 17.0 99.50 27.0",
            "stem 25.0 % 30.0 99.50 40.0",
        ]

    def test_with_labels_and_without_sparing(self) -> None:
        text = page(measured(0.02, 0.001, spared=False, miou=61.5))
        assert rows(text) == ["stem 25.0 % 17.0 99.50 61.50", "left 75.0 % 30.0 99.50 61.50"]
        assert "Spared" not in text
        assert "mean IoU 61.50 of 61.50" in text

    def test_bars_have_the_length_of_the_noise(self) -> None:
        widths = re.findall(r'<rect x="0" y="10" height="7" width="([\d.]+)%"', page(measured(0.03, 0.015)))
        # The axis ends at four steps of 1 %.
        assert widths == ["75.00", "37.50"]
        axis = re.findall(r'<text x="[\d.]+%" y="28".*?>(.*?)</text>', page(measured(0.03, 0.015)))
        assert [each.replace("\u00a0", " ") for each in axis] == ["0 %", "2.00 %", "4.00 %"]

    def test_no_noise_at_all(self) -> None:
        text = page(measured(0.0, 0.0))
        assert re.findall(r'height="7" width="([\d.]+)%"', text) == ["0.00", "0.00"]
        assert rows(text)[0] == "stem 25.0 % \u221e 99.50 \u221e"

    def test_a_block_names_its_layers(self) -> None:
        block = LayerEffect("stem", Effect(0.01, 99, None), None, ("left",))
        whole = Effect(0.1, 97, None)
        text = page(Sensitivity(whole, whole, (block,), 1))
        assert rows(text) == ["stem and 1 other layer left 100.0 % 20.0 99.00"]
        assert "on 1 frame at" in text
        assert "when one block alone is in INT8" in text
        assert "when one layer alone is in INT8" in page(measured(0.001, 0.02))

    def test_many_are_folded(self) -> None:
        many = layers(40)
        text = page(sensitivity(many), many)
        assert "<summary>16 more, each of less noise</summary>" in text
        assert len(rows(text)) == 40

    def test_none(self) -> None:
        whole = Effect(0.0, 100.0, None)
        assert "No layer can be quantized." in page(Sensitivity(whole, whole, (), 1))


class TestReport:
    def test_has_it_where_it_was_measured(self) -> None:
        text = report_html(small(sensitivity=sensitivity(layers(), spared=False)))
        assert 'href="#sensitivity"' in text
        assert "All of them in INT8: 7.0 dB, 92.00 % of the pixels keep their class, mean IoU 52.00" in text
        assert "measured on 4 frames at the size of the logits" in text
        assert text.index('id="layers"') < text.index('id="sensitivity"') < text.index('id="frames"')
        assert len(rows(text)) == 120

    def test_has_none_otherwise(self) -> None:
        assert "sensitivity" not in report_html(small()).split("</style>")[1]
        assert json.loads(report_json(small()))["sensitivity"] is None

    def test_twin(self) -> None:
        listed = layers()
        found = json.loads(report_json(report_content(worst=(), sensitivity=sensitivity(listed, block=2))))
        data = found["sensitivity"]
        assert data["frames"] == 4
        assert data["float"] == {"snr_db": None, "agreement": 100.0, "miou": 70.0}
        assert data["int8"] == pytest.approx({"snr_db": -10 * math.log10(0.2), "agreement": 92.0, "miou": 52.0})
        assert len(data["layers"]) == 60
        assert sum(row["mac_share"] for row in data["layers"]) == pytest.approx(1)
        order = [row["alone"]["snr_db"] for row in data["layers"]]
        assert order == sorted(order)
        first = data["layers"][0]
        assert first["layers"] == [listed[6].name, listed[7].name]
        assert first["layer"] == first["layers"][0]
        assert first["mac_share"] == pytest.approx((listed[6].macs + listed[7].macs) / sum(x.macs for x in listed))
        assert set(first["spared"]) == {"snr_db", "agreement", "miou"}

    def test_not_spared_is_null(self) -> None:
        figures = sensitivity_figures(measured(0.02, 0.001, spared=False), LAYERS)
        assert [row["spared"] for row in figures["layers"]] == [None, None]


class TestPage:
    def test_asks_for_nothing(self) -> None:
        text = page(measured(0.02, 0.001))
        assert not re.search(r"<script|url\(|@import|https?:", text)
        assert re.findall(r'(?:src|href)="(.*?)"', text) == ["data:,"]
        assert "default-src &#x27;none&#x27;" in text
        assert "<title>net: Which layers cost accuracy</title>" in text
        assert "Frames: a, b" in text

    def test_names_are_text(self) -> None:
        text = sensitivity_html("<b>net", measured(0.02, 0.001), LAYERS, ("<b>frame",))
        assert "<b>" not in text
        assert text.count("&lt;b&gt;") == 3
