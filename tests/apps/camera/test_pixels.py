from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeseg.apps.camera.element.pixels import MATRICES, FrameLayout, planes_of
from edgeseg.apps.camera.gst import first_structure, mapped
from edgeseg.apps.camera.pixels import TAKEN, FrameReader
from edgeseg.apps.camera.yuv import YuvFrame, yuv_of
from edgeseg.errors import FrameError, UsageError
from edgeseg.frame import fit_frame

SIZES = [(48, 64), (47, 63), (129, 70), (1, 1), (2, 3)]


def laid_out(pixels: str, height: int, width: int, **values: Any) -> tuple[NDArray[np.uint8], FrameLayout]:
    """Noise in a buffer with padded rows that begins with a few bytes of something else."""
    stride, half = width + width % 2 + 10, -(-height // 2)
    offsets, strides = [3, 3 + stride * height], [stride, stride]
    if pixels == "I420":
        strides = [stride, stride // 2, stride // 2]
        offsets.append(offsets[1] + strides[1] * half)
    data = np.random.default_rng(height).integers(0, 256, offsets[-1] + strides[-1] * half, np.uint8)
    return data, FrameLayout(pixels, height, width, tuple(offsets), tuple(strides), **values)


def by_the_recommendation(data: NDArray[np.uint8], layout: FrameLayout) -> NDArray[np.float64]:
    """R, G and B in 0..255 of ITU-R BT.709-6, 3.2 to 3.5 solved for them, from Y, Cb and Cr; not rounded."""
    luma, *chroma = planes_of(data, layout)
    pair = np.concatenate(chroma, axis=2).repeat(2, 0).repeat(2, 1)[: layout.height, : layout.width].astype(float)
    y, cb, cr = luma[:, :, 0].astype(float), pair[:, :, 0] - 128, pair[:, :, 1] - 128
    if not layout.full_range:
        y, cb, cr = (y - 16) * 255 / 219, cb * 255 / 224, cr * 255 / 224
    of_red, of_blue = MATRICES[layout.matrix]
    red, blue = y + 2 * (1 - of_red) * cr, y + 2 * (1 - of_blue) * cb
    green = (y - of_red * red - of_blue * blue) / (1 - of_red - of_blue)
    return np.clip(np.stack([red, green, blue], axis=2), 0, 255)


class TestYuv:
    @pytest.mark.parametrize("matrix", MATRICES)
    @pytest.mark.parametrize("full_range", [False, True])
    @pytest.mark.parametrize("pixels", ["I420", "NV12"])
    def test_is_what_the_recommendation_says(self, pixels: str, full_range: bool, matrix: str) -> None:
        for height, width in SIZES:
            data, layout = laid_out(pixels, height, width, matrix=matrix, full_range=full_range)
            found = YuvFrame(data, layout).rgb()
            assert found.shape == (height, width, 3)
            assert np.abs(found - by_the_recommendation(data, layout)).max() <= 0.501

    def test_several_sizes_in_one_thread(self) -> None:
        for height, width in ((8, 8), (9, 200), (8, 8)):
            data, layout = laid_out("I420", height, width)
            found = YuvFrame(data, layout).rgb()
            assert np.abs(found - by_the_recommendation(data, layout)).max() <= 0.501


def sample_of(gst: Any, launch: str) -> Any:
    """The first frame of a pipeline that ends in an appsink `frames`."""
    pipeline = gst.Gst.parse_launch(launch)
    pipeline.set_state(gst.Gst.State.PLAYING)
    try:
        return pipeline.get_by_name("frames").try_pull_sample(20 * gst.Gst.SECOND)
    finally:
        pipeline.set_state(gst.Gst.State.NULL)


class TestReader:
    @pytest.mark.parametrize("color", ["bt601", "bt709", "1:4:0:0"])
    def test_is_near_videoconvert(self, gst: Any, color: str) -> None:
        """videoconvert itself is up to 6 levels from the formulas: its sums of 8-bit parts are cut off."""
        caps = f"video/x-raw,format=I420,width=160,height=120,colorimetry={color}"
        start = f"videotestsrc num-buffers=1 pattern=smpte ! {caps}"
        own = FrameReader()(sample_of(gst, f"{start} ! videoconvert ! {TAKEN} ! appsink name=frames")).rgb()
        sample = sample_of(gst, f"{start} ! videoconvert ! video/x-raw,format=RGB ! appsink name=frames")
        theirs = FrameReader()(sample)
        assert np.abs(own.astype(int) - theirs).max() <= 7

    @pytest.mark.parametrize(
        ("caps", "left"),
        [
            ("format=I420,interlace-mode=progressive", "I420"),
            ("format=NV12,interlace-mode=progressive", "NV12"),
            ("format=I420,interlace-mode=interleaved", "RGB"),
            ("format=YUY2", "RGB"),
            ("format=Y42B", "RGB"),
            ("format=BGRx", "RGB"),
        ],
    )
    def test_what_videoconvert_leaves_as_it_is(self, gst: Any, caps: str, left: str) -> None:
        start = f"videotestsrc num-buffers=1 ! video/x-raw,width=64,height=48,{caps}"
        sample = sample_of(gst, f"{start} ! videoconvert ! {TAKEN} ! appsink name=frames")
        with first_structure(sample.get_caps()) as structure:
            assert structure.get_value("format") == left

    def test_follows_a_change_of_size(self, gst: Any) -> None:
        reader = FrameReader()
        for width in (64, 96, 64):
            start = f"videotestsrc num-buffers=1 ! video/x-raw,format=I420,width={width},height=48"
            assert reader(sample_of(gst, f"{start} ! appsink name=frames")).shape == (48, width, 3)

    @pytest.mark.parametrize("pixels", ["RGB", "I420"])
    def test_the_memory_is_its_own(self, gst: Any, pixels: str) -> None:
        caps = f"video/x-raw,format={pixels},width=64"
        sample = sample_of(gst, f"videotestsrc num-buffers=1 ! {caps} ! appsink name=frames")
        found = FrameReader()(sample)
        with mapped(sample.get_buffer()) as data:
            assert not np.shares_memory(found.data if pixels == "I420" else found, data)

    @pytest.mark.parametrize("pixels", ["I420", "NV12"])
    def test_rows_that_are_padded(self, gst: Any, pixels: str) -> None:
        """A decoder's buffers say in their metadata where the planes are."""
        data, layout = laid_out(pixels, 47, 63)
        buffer = gst.Gst.Buffer.new_wrapped(data.tobytes())
        caps = gst.Gst.Caps.from_string(f"video/x-raw,format={pixels},width=63,height=47,framerate=1/1")
        count, flags = len(layout.offsets), gst.GstVideo.VideoFrameFlags.NONE
        kind = gst.GstVideo.VideoFormat.from_string(pixels)
        places = [*layout.offsets, 0, 0][:4], [*layout.strides, 0, 0][:4]
        gst.GstVideo.buffer_add_video_meta_full(buffer, flags, kind, 63, 47, count, *places)
        found = FrameReader()(gst.Gst.Sample.new(buffer, caps, None, None))
        assert found.layout.offsets[0] == 0
        assert found.data.size == found.layout.size < data.size
        for mine, theirs in zip(planes_of(found.data, found.layout), planes_of(data, layout), strict=True):
            np.testing.assert_array_equal(mine, theirs)

    def test_another_format(self, gst: Any) -> None:
        sample = sample_of(gst, "videotestsrc num-buffers=1 ! video/x-raw,format=GRAY8 ! appsink name=frames")
        with pytest.raises(UsageError, match="but are GRAY8; put videoconvert before the end"):
            FrameReader()(sample)

    @pytest.mark.parametrize("pixels", ["RGB", "I420", "NV12"])
    def test_a_buffer_that_is_too_small(self, gst: Any, pixels: str) -> None:
        whole = sample_of(
            gst, f"videotestsrc num-buffers=1 ! video/x-raw,format={pixels},width=64,height=48 ! appsink name=frames"
        )
        part = gst.Gst.Buffer.new_allocate(None, 64 * 48, None)
        sample = gst.Gst.Sample.new(part, whole.get_caps(), None, None)
        with pytest.raises(FrameError, match=f"a frame of 64x48 {pixels} has only 3072 bytes"):
            FrameReader()(sample)


def test_strides_of_a_layout_are_those_of_its_planes() -> None:
    """`planes_of`, which the reference above uses, and the kernel read the same bytes."""
    data, layout = laid_out("NV12", 6, 6)
    moved = dataclasses.replace(layout, offsets=tuple(offset - 3 for offset in layout.offsets))
    assert (YuvFrame(data[3:], moved).rgb() == YuvFrame(data, layout).rgb()).all()


class TestFit:
    @pytest.mark.parametrize("pixels", ["I420", "NV12"])
    def test_is_the_resized_rgb(self, pixels: str) -> None:
        """To the bit where a frame becomes smaller, so that class maps do not depend on the way."""
        sizes = [(270, 480), (129, 70), (96, 128), (48, 64), (47, 63), (200, 64), (48, 201)]
        for height, width in sizes:
            for values in ({}, {"matrix": "bt709", "full_range": True}):
                frame = YuvFrame(*laid_out(pixels, height, width, **values))
                found = np.empty((48, 64, 3), np.uint8)
                frame.fit(found)
                assert np.abs(found.astype(int) - fit_frame(frame.rgb(), 48, 64)[0]).max() <= (height < 48)

    def test_one_that_becomes_larger(self) -> None:
        for height, width in ((1, 1), (2, 3), (30, 41)):
            frame = YuvFrame(*laid_out("I420", height, width))
            found = np.empty((48, 64, 3), np.uint8)
            frame.fit(found)
            assert np.abs(found.astype(int) - fit_frame(frame.rgb(), 48, 64)[0]).max() <= 1

    def test_several_sizes_in_one_thread(self) -> None:
        frame = YuvFrame(*laid_out("I420", 90, 120))
        for size in ((30, 40), (45, 40), (30, 41)):
            found = np.empty((*size, 3), np.uint8)
            frame.fit(found)
            np.testing.assert_array_equal(found, fit_frame(frame.rgb(), *size)[0])


@pytest.mark.parametrize("pixels", ["I420", "NV12"])
def test_rgb_and_back(pixels: str) -> None:
    """Colours that are the same in each four pixels come back within a level or two of rounding."""
    picture = np.random.default_rng(3).integers(0, 256, (20, 30, 3), np.uint8).repeat(2, 0).repeat(2, 1)
    _, layout = laid_out(pixels, 40, 60, matrix="bt709")
    assert np.abs(yuv_of(picture, layout).rgb().astype(int) - picture).max() <= 2
