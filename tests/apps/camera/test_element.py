"""The element in real pipelines, its pixels held against `Segmentation.overlay`."""

from __future__ import annotations

import gc
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from support.bundles import quantized_bundle
from support.pipelines import Ran, need_gstreamer, parsed, planes, pulled, wait

import edgeseg
from edgeseg.apps.camera.element import analytics, painter, pixels, register, segmenters, stage, transform
from edgeseg.apps.camera.gst import gstreamer, mapped

Image = NDArray[np.uint8]
ORDERS = {
    "RGB": [0, 1, 2],
    "BGR": [2, 1, 0],
    "RGBx": [0, 1, 2],
    "BGRx": [2, 1, 0],
    "RGBA": [0, 1, 2],
    "BGRA": [2, 1, 0],
}
"""Channels of a format in memory that are red, green and blue."""

SIZES = [(640, 480), (638, 478), (639, 479)]
YUV = ["bt601", "bt709"]


@pytest.fixture(autouse=True)
def _gstreamer(monkeypatch: pytest.MonkeyPatch) -> None:
    need_gstreamer()
    monkeypatch.setenv("EDGESEG_BACKEND", "onnxruntime")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose class maps have all its classes on a test picture."""
    return quantized_bundle(tmp_path_factory.mktemp("toy") / "toy.edgeseg").path


@pytest.fixture
def reference(model: Path) -> Iterator[edgeseg.Segmenter]:
    with edgeseg.load(model) as segmenter:
        yield segmenter


def both(element: str, caps: str, count: int = 1, after: str = "") -> tuple[list[list[Image]], list[list[Image]], Ran]:
    """Planes of the frames before and after the element; the same buffers go both ways."""
    with parsed(
        f"videotestsrc num-buffers={count} pattern=smpte ! video/x-raw,width=96,height=64,framerate=30/1,{caps} ! "
        f"tee name=t t. ! queue max-size-bytes=0 ! appsink name=before sync=false wait-on-eos=false "
        f"t. ! queue max-size-bytes=0 ! {element} ! {after} appsink name=after sync=false wait-on-eos=false"
    ) as pipeline:
        ran = wait(pipeline)
        found = [[planes(s) for s in pulled(pipeline.get_by_name(name))] for name in ("before", "after")]
    return found[0], found[1], ran


def only_sample(description: str) -> Any:
    """What a pipeline that ends in `appsink name=after` gives, which must be one frame."""
    with parsed(f"{description} ! appsink name=after sync=false wait-on-eos=false") as pipeline:
        assert wait(pipeline).ended
        (sample,) = pulled(pipeline.get_by_name("after"))
    return sample


def rgb(frame: list[Image], form: str) -> Image:
    return np.ascontiguousarray(frame[0][:, :, ORDERS[form]])


class TestPixels:
    @pytest.mark.parametrize(("width", "height"), SIZES)
    @pytest.mark.parametrize("form", ORDERS)
    def test_are_those_of_overlay(
        self, form: str, width: int, height: int, model: Path, reference: edgeseg.Segmenter
    ) -> None:
        caps = f"format={form},width={width},height={height}"
        before, after, ran = both(f"edgeseg model={model} alpha=0.3", caps)
        assert ran.ended
        assert ran.errors == []
        picture = rgb(before[0], form)
        expected = reference(picture)
        assert len(np.unique(expected.class_map)) > 1
        np.testing.assert_array_equal(rgb(after[0], form), expected.overlay(picture, 0.3))

    @pytest.mark.parametrize("form", ["RGBA", "BGRA"])
    def test_leave_alpha(self, form: str, model: Path) -> None:
        sample = only_sample(
            f"videotestsrc num-buffers=1 ! video/x-raw,format={form},width=99,height=64 ! alpha alpha=0.25 ! "
            f"video/x-raw,format={form} ! edgeseg model={model}"
        )
        assert set(np.unique(planes(sample)[0][:, :, 3])) <= {63, 64}

    def test_of_a_mask(self, model: Path, reference: edgeseg.Segmenter) -> None:
        before, after, _ = both(f"edgeseg model={model} overlay=mask alpha=0.1", "format=RGB,width=638")
        np.testing.assert_array_equal(after[0][0], reference(before[0][0]).colorize())

    @pytest.mark.parametrize("word", ["none", "false", "NONE"])
    def test_stay_without_an_overlay(self, word: str, model: Path) -> None:
        before, after, ran = both(f"edgeseg model={model} overlay={word}", "format=RGB")
        np.testing.assert_array_equal(after[0][0], before[0][0])
        assert ran.stats[-1]["segmented"] == 1

    def test_of_some_classes(self, model: Path, reference: edgeseg.Segmenter) -> None:
        before, after, _ = both(f'edgeseg model={model} classes="class1, class3"', "format=RGB,width=638")
        result = reference(before[0][0])
        drawn = np.isin(result.class_map, [1, 3])
        assert 0 < drawn.sum() < drawn.size
        expected = np.where(drawn[:, :, None], result.overlay(before[0][0]), before[0][0])
        np.testing.assert_array_equal(after[0][0], expected)

    def test_of_a_mask_of_some_classes(self, model: Path, reference: edgeseg.Segmenter) -> None:
        before, after, _ = both(f"edgeseg model={model} overlay=mask classes=class1", "format=BGRx,width=638")
        result = reference(rgb(before[0], "BGRx"))
        expected = np.where(result.mask("class1")[:, :, None], result.colorize(), 0)
        np.testing.assert_array_equal(rgb(after[0], "BGRx"), expected)


@pytest.mark.parametrize("form", ["NV12", "I420"])
class TestYuv:
    @pytest.mark.parametrize("matrix", YUV)
    @pytest.mark.parametrize(("width", "height"), SIZES)
    def test_is_read_with_the_matrix_of_its_caps(self, form: str, width: int, height: int, matrix: str) -> None:
        """Against GStreamer's own conversion of the same frames, in 8 bits; how chroma is smoothed at an edge is a
        matter of taste."""
        caps = f"format={form},width={width},height={height},colorimetry={matrix}"
        before, converted, ran = both("identity", caps, after="videoconvert dither=none ! video/x-raw,format=RGB !")
        assert ran.errors == []

        def far(matrix: str) -> float:
            layout = pixels.FrameLayout(form, height, width, (), (), matrix)
            found = pixels.rgb_of(tuple(before[0]), layout, (height, width)).astype(int)
            return float(np.percentile(np.abs(found - converted[0][0]).max(axis=2), 90))

        assert far(matrix) <= 5
        assert far(next(other for other in YUV if other != matrix)) >= 15

    @pytest.mark.parametrize("full_range", [False, True])
    @pytest.mark.parametrize("matrix", pixels.MATRICES)
    def test_there_and_back(self, form: str, matrix: str, full_range: bool) -> None:
        layout = pixels.FrameLayout(form, 2, 2, (), (), matrix, full_range)
        colors = np.random.default_rng(0).integers(0, 256, (256, 3), np.uint8)
        back = pixels.rgb_of(pixels.tables_of(layout, colors), layout, (256, 1))[:, 0]
        assert np.abs(back.astype(int) - colors).max() <= 3

    @pytest.mark.parametrize("matrix", YUV)
    @pytest.mark.parametrize(("width", "height"), SIZES)
    def test_overlay(
        self, form: str, width: int, height: int, matrix: str, model: Path, reference: edgeseg.Segmenter
    ) -> None:
        caps = f"format={form},width={width},height={height},colorimetry={matrix}"
        results: list[edgeseg.Segmentation] = []
        with parsed(
            f"videotestsrc num-buffers=1 ! video/x-raw,{caps} ! tee name=t "
            "t. ! queue ! appsink name=before sync=false wait-on-eos=false t. ! queue ! "
            f"edgeseg name=e model={model} alpha=0.4 ! appsink name=after sync=false wait-on-eos=false"
        ) as pipeline:
            pipeline.get_by_name("e").connect("segmented", lambda _, result, pts: results.append(result))
            assert wait(pipeline).ended
            ((before,), (after,)) = (pulled(pipeline.get_by_name(name)) for name in ("before", "after"))
        class_map, colors = results[0].class_map, results[0].labels.colors()
        assert class_map.shape == (height, width)
        layout = pixels.FrameLayout(form, height, width, (), (), matrix)
        chroma = [class_map[::2, ::2]] * (len(pixels.CHROMA[form]))
        tables = pixels.tables_of(layout, colors)
        for plane, drawn, table, part in zip(planes(before), planes(after), tables, (class_map, *chroma), strict=True):
            expected = 0.6 * plane + 0.4 * table[part, 0]
            assert np.abs(drawn - expected).max() <= 0.5 + 1e-6

    def test_class_map_is_near_that_of_the_converted_frame(
        self, form: str, model: Path, reference: edgeseg.Segmenter
    ) -> None:
        results: list[edgeseg.Segmentation] = []
        with parsed(
            f"videotestsrc num-buffers=1 pattern=smpte ! video/x-raw,format={form},width=640,height=480 ! tee name=t "
            f"t. ! queue ! edgeseg name=e model={model} ! fakesink async=false "
            "t. ! queue ! videoconvert ! video/x-raw,format=RGB ! appsink name=rgb sync=false wait-on-eos=false"
        ) as pipeline:
            pipeline.get_by_name("e").connect("segmented", lambda _, result, pts: results.append(result))
            assert wait(pipeline).ended
            (sample,) = pulled(pipeline.get_by_name("rgb"))
        assert np.mean(results[0].class_map == reference(planes(sample)[0]).class_map) > 0.95


class TestStream:
    def test_every_n(self, model: Path) -> None:
        numbers: list[int] = []
        with parsed(
            f"videotestsrc num-buffers=10 ! video/x-raw,format=RGB,width=64,height=48 ! "
            f"edgeseg name=e model={model} every-n=4 overlay=mask ! appsink name=after sync=false wait-on-eos=false"
        ) as pipeline:
            element = pipeline.get_by_name("e")
            element.connect("segmented", lambda _, result, pts: numbers.append(result.frame_number))
            ran = wait(pipeline)
            frames = [planes(sample)[0] for sample in pulled(pipeline.get_by_name("after"))]
            assert element.get_property("segmentation").frame_number == 8
        assert numbers == [0, 4, 8]
        assert (ran.stats[-1]["frames"], ran.stats[-1]["segmented"], ran.stats[-1]["late"]) == (10, 3, 0)
        for index in range(10):
            np.testing.assert_array_equal(frames[index], frames[index // 4 * 4])

    def test_disabled_needs_no_model(self) -> None:
        before, after, ran = both("edgeseg enabled=false", "format=RGB", 3)
        np.testing.assert_array_equal(after, before)
        assert (ran.stats[-1]["frames"], ran.stats[-1]["segmented"]) == (3, 0)

    def test_takes_a_new_size_in_mid_stream(self, model: Path, reference: edgeseg.Segmenter) -> None:
        shapes: list[tuple[int, int]] = []
        one = "videotestsrc num-buffers=2 ! video/x-raw,format=RGB,width={},height={} ! c."
        with parsed(
            f"concat name=c ! edgeseg name=e model={model} every-n=5 ! fakesink "
            f"{one.format(64, 48)} {one.format(98, 50)}"
        ) as pipeline:
            pipeline.get_by_name("e").connect("segmented", lambda _, r, pts: shapes.append(r.class_map.shape))
            assert wait(pipeline).ended
        assert shapes == [(48, 64), (50, 98)]

    def test_properties_change_while_it_runs(self, model: Path) -> None:
        """From no drawing, where the buffer is not even writable, to a mask, to nothing at all."""
        changes = {2: ("overlay", "mask"), 5: ("enabled", False)}
        with parsed(
            "videotestsrc num-buffers=8 ! video/x-raw,format=RGB,width=64,height=48 ! tee name=t "
            "t. ! queue ! appsink name=before sync=false wait-on-eos=false t. ! queue ! "
            f"edgeseg name=e model={model} overlay=none ! appsink name=after sync=false wait-on-eos=false"
        ) as pipeline:
            element = pipeline.get_by_name("e")

            def change(_: Any, result: edgeseg.Segmentation, pts: int) -> None:
                if result.frame_number in changes:
                    element.set_property(*changes[result.frame_number])

            element.connect("segmented", change)
            ran = wait(pipeline)
            before, after = ([planes(s)[0] for s in pulled(pipeline.get_by_name(n))] for n in ("before", "after"))
        assert ran.stats[-1]["segmented"] == 6
        same = [np.array_equal(a, b) for a, b in zip(before, after, strict=True)]
        # Frame 3 came while the buffers could not be written yet, unless all get metadata; the next one can be.
        assert same == [True, True, True, analytics.analytics() is None, False, False, True, True]

    def test_elements_of_one_bundle_share_an_engine(self, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        loaded: list[Path] = []
        load = edgeseg.load
        monkeypatch.setattr(edgeseg, "load", lambda path, **options: loaded.append(path) or load(path, **options))
        source = "videotestsrc num-buffers=3 ! video/x-raw,format=RGB,width=64,height=48"
        with parsed(
            f"{source} ! edgeseg model={model} ! edgeseg model={model.parent}/./{model.name} alpha=0.1 ! fakesink "
            f"{source} ! edgeseg model={model} threads=1 ! fakesink"
        ) as pipeline:
            assert wait(pipeline).ended
            assert len(segmenters.shared) == 2
        assert loaded == [model.resolve()] * 2
        assert len(segmenters.shared) == 0

    def test_plays_again_after_its_end(self, model: Path) -> None:
        with parsed(
            f"videotestsrc num-buffers=3 ! video/x-raw,format=RGB ! edgeseg name=e model={model} ! fakesink"
        ) as pipeline:
            for _ in range(2):
                assert wait(pipeline).stats[-1]["frames"] == 3
                pipeline.set_state(gstreamer().Gst.State.NULL)
                structure = pipeline.get_by_name("e").get_property("stats")
                assert structure.get_value("segmented") == 3
                assert pipeline.get_by_name("e").get_property("segmentation") is None

    def test_posts_its_stats_each_second(self, model: Path) -> None:
        with parsed(
            "videotestsrc is-live=true num-buffers=60 ! video/x-raw,format=RGB,width=64,height=48,framerate=25/1 ! "
            f"edgeseg model={model} ! fakesink sync=false"
        ) as pipeline:
            ran = wait(pipeline)
        counts = [stats["frames"] for stats in ran.stats]
        assert len(counts) >= 3
        assert counts == sorted(counts)
        assert counts[-1] == 60
        assert all(stats["inference-ms"] > 0 and stats["frame-ms"] >= stats["inference-ms"] for stats in ran.stats)

    def test_is_one_thing_on_the_way(self) -> None:
        element = gstreamer().Gst.ElementFactory.make("edgeseg")
        caps = element.get_static_pad("sink").get_pad_template_caps().to_string()
        assert all(name in caps for name in pixels.FORMATS)
        register()  # a second time does nothing


class TestLateFrames:
    def test_pass_without_inference(self, model: Path) -> None:
        """The sink says that frames come 1 s late: those of the next second are counted, and drawn with the last."""
        gst = gstreamer().Gst
        with parsed(
            "videotestsrc num-buffers=60 ! video/x-raw,format=RGB,width=64,height=48,framerate=30/1 ! "
            f"edgeseg name=e model={model} ! fakesink name=sink signal-handoffs=true sync=false"
        ) as pipeline:
            element, segmented = pipeline.get_by_name("e"), []

            def arrived(sink: Any, buffer: Any, pad: Any) -> None:
                if buffer.offset == 9 or buffer.pts == 9 * gst.SECOND // 30:
                    event = gst.Event.new_qos(gst.QOSType.UNDERFLOW, 2.0, gst.SECOND, buffer.pts)
                    pad.push_event(event)

            element.connect("segmented", lambda _, result, pts: segmented.append(result.frame_number))
            pipeline.get_by_name("sink").connect("handoff", arrived)
            ran = wait(pipeline)
        assert segmented == [*range(10), *range(40, 60)]
        assert (ran.stats[-1]["frames"], ran.stats[-1]["segmented"], ran.stats[-1]["late"]) == (60, 30, 30)

    def test_come_from_a_network_slower_than_the_sink(self, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        segment = stage.Stage._segment

        def slow(*arguments: Any) -> edgeseg.Segmentation:
            time.sleep(0.15)
            return segment(*arguments)

        monkeypatch.setattr(stage.Stage, "_segment", slow)
        with parsed(
            "videotestsrc num-buffers=45 ! video/x-raw,format=RGB,width=64,height=48,framerate=30/1 ! "
            f"edgeseg model={model} ! fakesink sync=true qos=true"
        ) as pipeline:
            stats = wait(pipeline).stats[-1]
        assert stats["late"] >= 20
        assert stats["segmented"] >= 2
        assert stats["frames"] == stats["segmented"] + stats["late"] == 45

    def test_a_sink_in_time_clears_it(self, model: Path) -> None:
        gst = gstreamer().Gst
        worker = gst.ElementFactory.make("edgeseg").worker
        worker.upstream(gst.Event.new_qos(gst.QOSType.OVERFLOW, 0.5, -gst.SECOND, 5 * gst.SECOND))
        assert worker.earliest == 4 * gst.SECOND
        worker.downstream(gst.Event.new_flush_stop(True))
        assert worker.earliest is None


class TestErrors:
    def error(self, element: str, caps: str = "format=RGB") -> tuple[str, str, str]:
        with parsed(f"videotestsrc num-buffers=3 ! video/x-raw,{caps} ! {element} name=it ! fakesink") as pipeline:
            ran = wait(pipeline)
        assert not ran.ended
        (found,) = ran.errors
        assert "\n" not in found[1]
        return found

    @pytest.mark.parametrize(
        ("properties", "message", "kind"),
        [
            ("", "edgeseg needs a bundle; set model=NAME.edgeseg", "UsageError"),
            ("model=/none.edgeseg", "there is no bundle at /none.edgeseg; make one with", "BundleError"),
            ("model={model} classes=clas1", "unknown class 'clas1'; did you mean class1?", "LabelError"),
            ("model={model} overlay=masks", "unknown overlay 'masks'; did you mean mask?", "UsageError"),
            ("model={model} every-n=0", "every-n must be at least 1, but is 0", "UsageError"),
            ("model={model} threads=-1", "threads must be at least 1, or 0 for all, but is -1", "UsageError"),
            ("model={model} alpha=1.5", "alpha is the share of colour and must be 0..1, but is 1.5", "UsageError"),
            ("model={model} backend=openvin", "unknown backend 'openvin'; did you mean openvino?", "UsageError"),
        ],
    )
    def test_are_one_line(self, properties: str, message: str, kind: str, model: Path) -> None:
        source, text, debug = self.error(f"edgeseg {properties.format(model=model)}")
        assert source == "it"
        assert text.startswith(message)
        assert debug == kind
        assert len(segmenters.shared) == 0

    def test_in_mid_stream(self, model: Path) -> None:
        with parsed(f"videotestsrc ! video/x-raw,format=RGB ! edgeseg name=e model={model} ! fakesink") as pipeline:
            element = pipeline.get_by_name("e")
            element.connect("segmented", lambda _, r, pts: element.set_property("classes", "roof"))
            ran = wait(pipeline)
        assert ran.errors[0][1].startswith("unknown class 'roof'")

    def test_bugs_keep_their_traceback(self, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(stage.Stage, "frame", lambda *a, **k: 1 / 0)
        _, text, debug = self.error(f"edgeseg model={model}")
        assert text == "a bug in edgeseg: ZeroDivisionError: division by zero; please report it with the debug text"
        assert "Traceback" in debug

    def test_short_buffers(self) -> None:
        layout = pixels.FrameLayout("RGB", 4, 5, (0,), (16,))
        with pytest.raises(edgeseg.EdgesegError, match="a RGB frame of 5x4 came in 62 bytes, which is too small"):
            pixels.planes_of(np.zeros(62, np.uint8), layout)
        assert pixels.planes_of(np.zeros(63, np.uint8), layout)[0].shape == (4, 5, 3)

    def test_other_formats_are_refused_by_caps(self, model: Path) -> None:
        with (
            pytest.raises(gstreamer().GLib.Error, match="could not link"),
            parsed(f"videotestsrc ! video/x-raw,format=GRAY8 ! edgeseg model={model} ! fakesink"),
        ):
            pass


@dataclass
class Attached:
    """A class map read from a buffer with GStreamer's own library.

    Attributes:
        mask: its pixels.
        place: of the mask in the frame: left, top, width, height.
        names: class names by region id.
    """

    mask: Image
    place: tuple[int, int, int, int]
    names: dict[int, str]


def attached(library: Any, buffer: Any) -> list[Attached]:
    """What segmentation metadata a buffer carries; each comes with a classification right after it."""
    gst, found = gstreamer(), []
    relation = library.buffer_get_analytics_relation_meta(buffer)
    for index in range(library.relation_get_length(relation) if relation is not None else 0):
        is_segmentation, regions = relation.get_segmentation_mtd(index)
        if not is_segmentation:
            continue
        mask, *place = regions.get_mask()
        meta = gst.GstVideo.buffer_get_video_meta(mask)
        assert meta.format == gst.GstVideo.VideoFormat.GRAY8
        with mapped(mask) as data:
            pixels = data.reshape(meta.height, meta.stride[0])[:, : meta.width].copy()
        is_named, classes = relation.get_cls_mtd(index + 1)
        assert is_named
        assert relation.get_relation(index, index + 1) == library.RelTypes.N_TO_N
        assert classes.get_length() == regions.get_region_count()
        names = {
            regions.get_region_id(region): gst.GLib.quark_to_string(classes.get_quark(region))
            for region in range(regions.get_region_count())
        }
        found.append(Attached(pixels, tuple(place), names))
    return found


@pytest.fixture
def library() -> Any:
    """GStreamer's analytics library, where it has what the element writes."""
    found = analytics.analytics()
    if found is None:
        version = ".".join(map(str, gstreamer().Gst.version()[:3]))
        pytest.skip(f"GStreamer {version} has no segmentation metadata that Python can write; 1.26 does")
    return found


class TestMetadata:
    """With GStreamer's own library."""

    @pytest.mark.parametrize("overlay", ["none", "overlay"])
    @pytest.mark.parametrize(("form", "width", "height"), [("RGB", 62, 48), ("BGRx", 639, 479), ("NV12", 63, 49)])
    def test_is_the_class_map(
        self, form: str, width: int, height: int, overlay: str, model: Path, reference: edgeseg.Segmenter, library: Any
    ) -> None:
        results: list[edgeseg.Segmentation] = []
        with parsed(
            f"videotestsrc num-buffers=3 pattern=smpte ! video/x-raw,format={form},width={width},height={height} ! "
            "tee name=t t. ! queue ! appsink name=before sync=false wait-on-eos=false t. ! queue ! "
            f"edgeseg name=e model={model} every-n=2 overlay={overlay} ! "
            "appsink name=after sync=false wait-on-eos=false"
        ) as pipeline:
            pipeline.get_by_name("e").connect("segmented", lambda _, result, pts: results.append(result))
            ran = wait(pipeline)
            assert ran.errors == []
            before, after = (pulled(pipeline.get_by_name(name)) for name in ("before", "after"))
        first, between, last = (attached(library, sample.get_buffer()) for sample in after)
        assert between == []
        assert [attached(library, sample.get_buffer()) for sample in before] == [[]] * 3
        for (found,), result in zip((first, last), results, strict=True):
            np.testing.assert_array_equal(found.mask, result.class_map)
            assert found.place == (0, 0, width, height)
            indices = np.unique(result.class_map)
            assert len(indices) > 1
            assert found.names == {int(index): result.labels.names[index] for index in indices}
        if form != "NV12":
            np.testing.assert_array_equal(first[0].mask, reference(rgb(planes(before[0]), form)).class_map)

    def test_names_follow_the_indices_that_occur(self, library: Any) -> None:
        labels = edgeseg.LabelSet(("a", "b", "c", "d"), ((1, 2, 3), (4, 5, 6), (7, 8, 9), (9, 9, 9)))
        class_map = np.array([[3, 1, 3], [1, 1, 3]], np.uint8)
        buffer = gstreamer().Gst.Buffer.new()
        result = edgeseg.Segmentation(class_map, labels, edgeseg.Timing(0, 0, 0, 0, 0))
        assert analytics.attach(library, buffer, result)
        (found,) = attached(library, buffer)
        assert found.names == {1: "b", 3: "d"}
        np.testing.assert_array_equal(found.mask, class_map)

    def test_of_two_elements_is_on_one_buffer(self, model: Path, library: Any) -> None:
        sample = only_sample(
            f"videotestsrc num-buffers=1 ! video/x-raw,format=RGB,width=62,height=48 ! edgeseg model={model} ! "
            f"edgeseg model={model} threads=1"
        )
        assert len(attached(library, sample.get_buffer())) == 2


class TestAnalytics:
    def test_is_left_out_where_the_version_has_none(self) -> None:
        if gstreamer().Gst.version() >= (1, 26, 0, 0):
            pytest.skip("this GStreamer has it")
        assert transform.analytics() is None

    @pytest.mark.parametrize(("methods", "taken"), [({}, False), ({"add_segmentation_mtd": None}, True)])
    def test_is_taken_where_it_can_be_written(
        self, methods: dict[str, None], taken: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """GStreamer 1.24 has the library, but no segmentation in it."""
        library = SimpleNamespace(RelationMeta=type("RelationMeta", (), methods))
        monkeypatch.setattr(analytics, "introspected", lambda *_: library)
        assert (analytics.analytics.__wrapped__() is library) == taken

    def test_attaches_the_class_map(self, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """With a stand-in for the library's calls: which are made, on a buffer that may be written."""
        gst, calls = gstreamer(), []

        class Relation:
            def add_segmentation_mtd(self, mask: Any, kind: str, ids: list[int], *place: int) -> tuple[bool, Any]:
                meta = gst.GstVideo.buffer_get_video_meta(mask)
                size, form = mask.get_size(), meta.format
                calls.append((kind, ids, place, size, form, (meta.width, meta.height), list(meta.stride)[:1]))
                return True, SimpleNamespace(id=7)

            def add_cls_mtd(self, confidences: list[float], quarks: list[int]) -> tuple[bool, Any]:
                calls.append((confidences, [gst.GLib.quark_to_string(quark) for quark in quarks]))
                return True, SimpleNamespace(id=8)

            def set_relation(self, kind: str, first: int, second: int) -> bool:
                calls.append((kind, first, second))
                return True

        class Library:
            class SegmentationType:
                SEMANTIC = "semantic"

            class RelTypes:
                N_TO_N = "n to n"

            @staticmethod
            def buffer_add_analytics_relation_meta(buffer: Any) -> Relation:
                # As any meta, this one wants a buffer that may be written.
                assert buffer.add_reference_timestamp_meta(gst.Gst.Caps.from_string("test/x"), 0, 0) is not None
                return Relation()

        monkeypatch.setattr(transform, "analytics", lambda: Library)
        results: list[edgeseg.Segmentation] = []
        with parsed(
            f"videotestsrc num-buffers=2 ! video/x-raw,format=RGB,width=62,height=48 ! "
            f"edgeseg name=e model={model} every-n=2 overlay=none ! fakesink"
        ) as pipeline:
            pipeline.get_by_name("e").connect("segmented", lambda _, result, pts: results.append(result))
            assert wait(pipeline).ended
            assert not pipeline.get_by_name("e").is_passthrough()
        ids = [int(index) for index in np.unique(results[0].class_map)]
        gray = gst.GstVideo.VideoFormat.GRAY8
        names = [results[0].labels.names[index] for index in ids]
        assert calls == [
            ("semantic", ids, (0, 0, 62, 48), 62 * 48, gray, (62, 48), [62]),
            ([-1.0] * len(ids), names),
            ("n to n", 7, 8),
        ]


class TestMemory:
    @pytest.mark.slow
    @pytest.mark.parametrize("form", ["RGB", "NV12"])
    def test_is_flat_over_2000_frames(self, form: str, model: Path) -> None:
        with parsed(
            f"videotestsrc num-buffers=2400 ! video/x-raw,format={form},width=320,height=240 ! "
            f"edgeseg name=e model={model} ! fakesink name=sink signal-handoffs=true"
        ) as pipeline:
            sizes: list[int] = []

            gst = gstreamer().Gst

            def look(sink: Any, buffer: Any, pad: Any) -> None:
                if len(sizes) % 400 == 0:
                    gc.collect()
                sizes.append(resident())
                # One event a frame, as sinks send them: this one says that the frame was in time.
                pad.push_event(gst.Event.new_qos(gst.QOSType.OVERFLOW, 0.5, -gst.SECOND, buffer.pts))

            pipeline.get_by_name("sink").connect("handoff", look)
            assert wait(pipeline).ended
        assert max(sizes[2000:]) - sizes[400] < 4e6


class TestBenchmark:
    def test_starts(self) -> None:
        program = Path(__file__).resolve().parents[3] / "benchmarks" / "element.py"
        words = ["--size", "48x64", "--frames", "20", "--rounds", "1", "--format", "NV12", "--json"]
        done = subprocess.run([sys.executable, program, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert set(json.loads(done.stdout)) >= {"nothing_cpu_ms", "disabled_added_ms", "no_network_added_ms"}


def resident() -> int:
    """Bytes of this process in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def test_painter_draws_nothing_before_a_class_map() -> None:
    layout = pixels.FrameLayout("RGB", 4, 4, (0,), (12,))
    labels = edgeseg.LabelSet(("a", "b"), ((1, 2, 3), (4, 5, 6)))
    frame = np.full((4, 4, 3), 9, np.uint8)
    drawn = painter.Painter(layout, labels, "overlay", 0.5, None)
    drawn.draw((frame,))
    assert (frame == 9).all()
    drawn.take(np.ones((4, 4), np.uint8))
    drawn.draw((frame,))
    np.testing.assert_array_equal(
        frame, cv2.addWeighted(np.full_like(frame, 9), 0.5, np.full_like(frame, (4, 5, 6)), 0.5, 0)
    )
