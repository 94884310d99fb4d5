"""What the page says."""

from __future__ import annotations

import base64
import dataclasses
import re
import sys
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from support.report_content import (
    digest,
    floating,
    hostile_content,
    manifest,
    ranges,
    report_content,
    scored,
    small,
    table,
    worst_frame,
)

from edgeseg.calibration.partners import Partner, Partners
from edgeseg.calibration.table import Entry
from edgeseg.converters.report import ReportContent, WorstFrame, report_html
from edgeseg.errors import MissingDependencyError, ShapeError
from edgeseg.labels import LabelSet, load_labels
from edgeseg.manifest import Layer, Quantization, Scores

HOSTILE = "</style><script>parent.broken=1</script>\"'><img src=x onerror=parent.broken=1>\x00\u202e&amp;"


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.text = re.sub(r"\s+", " ", " ".join(self.texts))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, key, value or "") for key, value in attrs]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


class TestSafety:
    def test_asks_for_nothing(self) -> None:
        text = report_html(small())
        page = Page(text)
        links = [value for _, key, value in page.attributes if key in ("src", "href", "srcset", "action", "data")]
        assert all(value.startswith(("data:", "#")) for value in links)
        assert len(links) == 4 + 5 + 1
        assert not page.tags & {"script", "iframe", "object", "embed", "form", "base"}
        assert "url(" not in text
        assert "@import" not in text

    def test_forbids_scripts_and_requests(self) -> None:
        policies = [v for _, k, v in Page(report_html(small())).attributes if k == "content" and "default-src" in v]
        assert len(policies) == 1
        assert policies[0].startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")

    def test_hostile_names_are_text(self) -> None:
        text = report_html(hostile_content(HOSTILE))
        page = Page(text)
        assert page.tags == Page(report_html(small())).tags
        assert not [key for _, key, _ in page.attributes if key.startswith("on")]
        assert not re.search("[\x00\u202e]", text)
        assert text.count("</style>") == 1
        # Network (3), classes (2) in chart, legend, changes; layer, operator, reason; tensor; frame; step; remark ...
        assert page.text.count("<script>parent.broken=1</script>") > 20

    def test_links_lead_to_sections(self) -> None:
        page = Page(report_html(small()))
        ids = {value for _, key, value in page.attributes if key == "id"}
        assert {value[1:] for _, key, value in page.attributes if key == "href" and value[0] == "#"} <= ids

    def test_can_be_written_whatever_the_names_hold(self) -> None:
        text = report_html(small(remarks=("lone \ud800 surrogate",)))
        assert b"lone \xef\xbf\xbd surrogate" in text.encode("utf-8")

    def test_stays_small(self) -> None:
        frames = tuple(worst_frame(f"f{i}", 19, i, (512, 1024)) for i in range(3))
        assert len(report_html(report_content(worst=frames))) < 1_000_000


class TestSummary:
    def test_loss(self) -> None:
        page = Page(report_html(small(manifest=scored(float_score=69.354, int8_score=69.201))))
        assert "0.15 mIoU points lost to INT8 Float 69.35 INT8 69.20" in page.text
        assert "over 101 frames that calibration never saw" in page.text

    def test_gain(self) -> None:
        page = Page(report_html(small(manifest=scored(float_score=69.0, int8_score=69.25))))
        assert "0.25 mIoU points gained in INT8" in page.text

    def test_how_sure_the_drop_is(self) -> None:
        iou = {"road": 90.0, "sky": 80.0, "car": 70.0, "pole": 60.0}
        after = {"road": 90.0, "sky": 79.5, "car": 72.0, "pole": 58.75}
        changes = {"float_iou": iou, "int8_iou": after, "drop_interval": (-0.034, 0.276)}
        page = Page(report_html(small(manifest=scored(float_score=69.35, int8_score=69.2, **changes))))
        assert "95 % interval of the drop, by bootstrap over the frames: \u22120.03 to 0.28 points." in page.text
        assert "IoU moved most: car +2.00, pole \u22121.25, sky \u22120.50." in page.text

    def test_no_interval_and_no_change(self) -> None:
        changes = {"float_iou": {"road": 90.0}, "int8_iou": {"road": 90.0}}
        page = Page(report_html(small(manifest=scored(**changes))))
        assert "interval of the drop" not in page.text
        assert "IoU moved most" not in page.text

    def test_agreement(self) -> None:
        whole = manifest(scores=Scores("agreement", 100.0, 98.37, frame_names=("a",), frame_digests=(digest("a"),)))
        page = Page(report_html(small(manifest=whole)))
        assert "1.63 % of the pixels change class in INT8" in page.text
        assert "98.37 %" in page.text
        assert "Over 1 frame that" in page.text
        assert "IoU by class needs labels" in page.text

    def test_unscored(self) -> None:
        page = Page(report_html(small(manifest=manifest(scores=None), worst=())))
        assert "Not scored No frame was left to score" in page.text
        assert "No frame was scored, so there is none to show." in page.text
        assert "64 frames mse; none scored" in page.text

    def test_figures(self) -> None:
        page = Page(report_html(small()))
        assert "1024 \u00d7 512 pixels · 19 classes · ranges by mse from 64 frames" in page.text
        assert "Layers in INT8 115 of 120 5 stayed in float" in page.text
        assert "Conversion 110.4 s 1,185 MB of memory at most" in page.text
        assert "The ranges come from an earlier conversion" in page.text
        assert "onnxsim 0.4.36" in page.text
        assert digest("model.onnx") in page.text
        assert digest("aachen_000063") in page.text

    def test_void_channel_is_no_class(self) -> None:
        page = Page(report_html(small(manifest=manifest(load_labels("camvid").for_channels(12)))))
        assert " 11 classes " in page.text


class TestFp16:
    def test_nothing_speaks_of_int8(self) -> None:
        text = report_html(floating())
        page = Page(text)
        assert "<title>espnetv2_s2.0_cityscapes: FP16 report</title>" in text
        assert "edgeseg FP16 report" in page.text
        assert "mIoU points lost to FP16" in page.text
        assert "Layers in FP16 120 of 120 nothing is quantized" in page.text
        assert "MACs in FP16 100\u00a0%".replace("\u00a0", " ") in page.text.replace("\u00a0", " ")
        assert "Calibration None FP16 needs none; 101 frames scored" in page.text
        assert "Mean IoU over 101 frames." in page.text
        assert "the FP16 class where the two maps disagree" in page.text
        assert "the whole network is FP16" in page.text
        # The key of the layers says that none is in INT8; nothing else names it.
        assert page.text.count("INT8") == 1
        assert "INT8 0 layers" in page.text

    def test_there_is_no_calibration_to_show(self) -> None:
        page = Page(report_html(floating()))
        assert ("a", "href", "#ranges") not in page.attributes
        assert "Calibration ranges" not in page.text
        assert "calibration never saw" not in page.text
        assert ("a", "href", "#ranges") in Page(report_html(small())).attributes


class TestClasses:
    def rows(self, content: ReportContent) -> list[str]:
        text = report_html(content)
        section = text[text.index('id="classes"') : text.index('id="layers"')]
        return [Page(row).text.strip() for row in re.findall("<tr>.*?</tr>", section)][1:]

    def test_greatest_loss_first_and_absent_last(self) -> None:
        whole = scored(
            float_iou={"road": 90.0, "sky": 80.0, "bus": None}, int8_iou={"road": 90.5, "sky": 78.9, "bus": 1}
        )
        assert self.rows(small(manifest=whole)) == [
            "sky 80.00 78.90 \u22121.10",
            "road 90.00 90.50 +0.50",
            "bus \u2013 1.00 \u2013",
        ]

    def test_bars_have_the_length_of_the_values(self) -> None:
        text = report_html(small(manifest=scored(float_iou={"road": 90.0}, int8_iou={"road": 87.5})))
        bars = re.findall(r'<rect x="([\d.%]+)" y="\d+" height="7" width="([\d.]+)%" class="(\w+)">', text)
        # The change of 2.5 points fills an axis that ends at the next round value, 2.5.
        assert bars == [("0", "90.00", "float"), ("0", "87.50", "int8"), ("0.00%", "50.00", "loss")]

    def test_agreement_by_class_is_against_the_float_map(self) -> None:
        whole = manifest(scores=Scores("agreement", 100.0, 98.0, {}, {"road": 97.0, "sky": None}, ("a",), ("b",)))
        assert self.rows(small(manifest=whole)) == ["road 100.00 97.00 \u22123.00", "sky \u2013 \u2013 \u2013"]
        assert "against the float network\u2019s class map" in Page(report_html(small(manifest=whole))).text

    def test_folds_a_long_list(self) -> None:
        labels = LabelSet.numbered(150)
        iou: dict[str, float | None] = dict.fromkeys(labels.names, 50.0)
        whole = manifest(labels, scores=Scores("miou", 50.0, 50.0, iou, iou))
        text = report_html(small(manifest=whole))
        assert "118 more classes" in text
        assert "Colours of the 150 classes" in text


class TestLayers:
    def test_reasons_with_their_share(self) -> None:
        listing = (
            Layer("a", "Conv", "int8", 900_000_000),
            Layer("b", "Conv", "float", 60_000_000, "too sensitive"),
            Layer("c", "Conv", "float", 40_000_000, "too sensitive"),
        )
        page = Page(report_html(small(manifest=manifest(quantization=Quantization("mse", (), (), listing)))))
        assert "INT8 1 layer, 90.0 % Float 2 layers, 10.0 %" in page.text
        assert "too sensitive b c 2 100.0 10.0 %" in page.text
        assert "2 b Conv Float 60.00 6.00 % too sensitive" in page.text

    def test_segments_cover_the_bar(self) -> None:
        text = report_html(small())
        segments = re.findall(
            r'<rect x="([\d.]+)%" width="([\d.]+)%" height="100%" class="(?:int8|float) segment">', text
        )
        assert len(segments) == 120
        assert sum(float(width) for _, width in segments) == pytest.approx(100, abs=0.1)

    def test_network_without_layers(self) -> None:
        page = Page(report_html(small(manifest=manifest(quantization=Quantization("mse", (), (), ())))))
        assert "has no convolution or matrix product" in page.text

    def test_layers_without_work(self) -> None:
        whole = manifest(quantization=Quantization("mse", (), (), (Layer("a", "Conv", "float", 0),)))
        assert "no reason was recorded" in Page(report_html(small(manifest=whole))).text


class TestFrames:
    def image(self, text: str, kind: str) -> Any:
        cv2 = pytest.importorskip("cv2")
        (data,) = re.findall(rf'src="data:image/(?:png|jpeg);base64,([^"]+)" alt="{kind} of', text)
        return cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]

    def test_maps_in_their_colours(self) -> None:
        frame = worst_frame("f", 19, 7, (48, 96))
        text = report_html(small(worst=(frame,)))
        colors = load_labels("cityscapes").colors()
        assert np.array_equal(self.image(text, "Float"), colors[frame.float_map])
        assert np.array_equal(self.image(text, "INT8"), colors[frame.int8_map])
        assert np.abs(self.image(text, "Frame").astype(int) - frame.frame).mean() < 8

    def test_difference(self) -> None:
        frame = worst_frame("f", 19, 7, (48, 96))
        drawn = self.image(report_html(small(worst=(frame,))), "Difference")
        changed = frame.float_map != frame.int8_map
        assert 0 < changed.mean() < 1
        assert np.array_equal(drawn[changed], load_labels("cityscapes").colors()[frame.int8_map][changed])
        assert np.ptp(drawn[~changed], axis=1).max() == 0
        assert drawn[~changed].min() >= 190

    def test_wide_frames_are_reduced(self) -> None:
        text = report_html(small(worst=(worst_frame("f", 19, 7, (300, 1000)),)))
        assert {self.image(text, kind).shape for kind in ("Frame", "Float", "INT8", "Difference")} == {(144, 480, 3)}
        assert 'width="1000" height="300"' in text

    def test_names_the_largest_changes(self) -> None:
        before = np.zeros((10, 10), np.uint8)
        after = before.copy()
        after[:2], after[2, :5], after[3, 0] = 1, 8, 255
        frame = WorstFrame("f", 74.0, np.zeros((10, 10, 3), np.uint8), before, after)
        page = Page(report_html(small(worst=(frame,))))
        assert "74.00 % agree" in page.text
        assert "road → sidewalk 20 %, road → vegetation 5.0 %, road → no class (255) 1.0 %" in page.text

    def test_draws_ten_and_counts_the_rest(self) -> None:
        frames = tuple(worst_frame(f"f{i}", 19, i, (16, 24)) for i in range(12))
        text = report_html(small(worst=frames))
        assert text.count("<img") == 40
        assert "2 more are listed in report.json" in text

    @pytest.mark.parametrize(
        ("frame", "float_map", "message"),
        [
            ((4, 6, 4), (4, 6), r"frame f must be \(H, W, 3\) uint8 RGB, but is \(4, 6, 4\) uint8"),
            ((4, 6), (4, 6), r"but is \(4, 6\) uint8"),
            ((4, 6, 3), (2, 3), r"the float class map of frame f must be \(4, 6\) uint8 as the frame, but is \(2, 3\)"),
        ],
    )
    def test_refuses_other_shapes(self, frame: Any, float_map: Any, message: str) -> None:
        with pytest.raises(ShapeError, match=message):
            WorstFrame("f", 99.0, np.zeros(frame, np.uint8), np.zeros(float_map, np.uint8), np.zeros((4, 6), np.uint8))

    def test_without_opencv(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "cv2", None)
        with pytest.raises(MissingDependencyError, match="cv2 is needed to draw the report"):
            report_html(small())
        assert "Not scored" in report_html(small(manifest=manifest(scores=None), worst=()))


class TestRanges:
    def test_ten_most_clipped(self) -> None:
        text = report_html(small())
        listing = sorted(table().entries.items(), key=lambda item: (-item[1].clipped_share, item[0]))
        assert re.findall(r"<figcaption><code>(.*?)</code>", text) == [name for name, _ in listing[:10]]
        assert text.count('class="histogram"') == 10
        assert "The 10 most clipped of 110 tensors" in text
        assert "Ranges of all 110 tensors" in text

    def test_clipped_bins_stand_behind_the_mark(self) -> None:
        entry = Entry(2.0, -1.0, 4.0, 0.01, (1000, 100, 10, 1), 1.0)
        text = report_html(small(table=ranges(x=entry)))
        kept, clipped = (re.search(rf'<path d="([^"]*)" class="{kind}">', text) for kind in ("int8", "loss"))
        assert kept is not None
        assert clipped is not None
        assert kept[1].count("M") == clipped[1].count("M") == 2
        mark = float(re.search(r'<line x1="([\d.]+)"[^>]*class="chosen">', text)[1])  # type: ignore[index]
        assert float(clipped[1][1:].split()[0]) == pytest.approx(mark)
        # A tenth of the values takes one step of the logarithmic axis.
        heights = [float(y) for y in re.findall(r"V([\d.]+)H", kept[1] + clipped[1])]
        assert np.diff(heights) == pytest.approx(np.full(3, np.diff(heights)[0]), abs=0.2)
        assert "±2.00 of ±4.00 seen, 1.00 % clipped" in Page(text).text

    def test_nothing_clipped(self) -> None:
        entry = Entry(4.0, -1.0, 4.0, 0.0, (5, 4, 3, 2), 1.0)
        page = Page(report_html(small(table=ranges(x=entry))))
        assert "mse clips no value of any of the 1 tensors" in page.text

    def test_nothing_counted(self) -> None:
        page = Page(report_html(small(table=ranges(x=Entry(1.0, 0.0, 0.0, 0.0, (0, 0), 1.0)))))
        assert "No value was counted." in page.text

    def test_range_beyond_the_values(self) -> None:
        text = report_html(small(table=ranges(x=Entry(8.0, 0.0, 2.0, 0.0, (9, 1), 1.0))))
        assert re.search(r'<line x1="322.0"[^>]*class="chosen">', text)
        assert "H110.5V" in text

    def test_no_tensors(self) -> None:
        assert "No tensor was calibrated." in Page(report_html(small(table=ranges()))).text


class TestPartners:
    def page(self, tolerance: float | None, *groups: Partner) -> str:
        content = report_content()
        table = dataclasses.replace(content.table, partners=Partners(groups, 0.31, tolerance))
        return Page(report_html(dataclasses.replace(content, table=table))).text

    def test_each_with_its_cost_and_why_it_was_not_taken(self) -> None:
        first = next(iter(report_content().table.entries))
        text = self.page(
            0.5,
            Partner("sum", (first,), "add<1", -0.125, taken=True),
            Partner("sum", ("b",), "add_2", 0.375, taken=False),
            Partner("concatenation", ("d", "e"), "", 2.0, taken=False),
        )
        assert "Partners of INT8 layers" in text
        assert "1 of 3 such places are quantized; together they change" in text
        assert "ratio by -0.31 dB (up to 0.5 dB may be lost)" in text
        assert re.search(rf"add<1 {re.escape(first)} [\d.]+ -0.12 dB yes", text)
        assert "add_2 b +0.38 dB no: too costly with the others" in text
        assert "concatenation d e +2.00 dB no: too costly alone" in text

    def test_all(self) -> None:
        assert "(all were asked for)" in self.page(None, Partner("sum", ("b",), "add", 3.0, taken=True))

    def test_none_without_partners(self) -> None:
        assert "Partners of INT8 layers" not in report_html(report_content())
