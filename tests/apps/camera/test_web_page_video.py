"""The page's video over WebRTC in a real Chromium."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.web_page import LABELS, WAIT_S, Tab, browser, camera_result, chromium_path, filled, page_of

from edgeseg.apps.camera.web import codecs
from edgeseg.apps.camera.web.codecs import codec_of
from edgeseg.apps.camera.web.encoder import VideoEncoder
from edgeseg.errors import MissingDependencyError, OutputError

cv2 = pytest.importorskip("cv2")
pytest.importorskip("aiohttp")

SHOWN = "!document.getElementById('video').hidden"
DRAWN = "Number(document.getElementById('picture').dataset.number)"
TIME = "document.getElementById('video').currentTime"
NOTE = "document.getElementById('note').textContent"
PIXELS = """(() => {
  const video = document.getElementById('video');
  const canvas = Object.assign(document.createElement('canvas'), {width: video.videoWidth, height: video.videoHeight});
  const pen = canvas.getContext('2d', {willReadFrequently: true});
  pen.drawImage(video, 0, 0);
  return [[8, 40], [8, 8], [56, 8]].map(([x, y]) => Array.from(pen.getImageData(x, y, 1, 1).data.slice(0, 3)));
})()"""


@pytest.fixture(scope="module")
def chromium(gst: Any) -> str:
    path = chromium_path()
    if path is None:
        pytest.skip("no Chromium on this machine")
    try:
        codec_of("vp8", bitrate=1_000_000, rate=30)
    except MissingDependencyError as error:
        pytest.skip(str(error))
    return path


def watch(chromium: str, folder: Path, steps: Callable[[Tab], Awaitable[None]], options: str = "") -> Tab:
    """Open the page of a camera that sees nothing move, and take some steps."""

    async def all_steps(url: str) -> Tab:
        async with browser(chromium, folder) as tab:
            await tab.call("Page.navigate", url=url)
            await steps(tab)
            return tab

    with page_of(f"web://127.0.0.1:0{options}") as sink, filled(sink, (camera_result(30) for _ in itertools.count())):
        return asyncio.run(all_steps(sink.url))


async def plays(tab: Tab) -> None:
    """The video has a size, and goes on."""
    await tab.until(SHOWN)
    assert await tab.value("document.getElementById('video').videoWidth") == 64
    assert await tab.value("document.getElementById('video').videoHeight") == 48
    before = await tab.value(TIME)
    await tab.until(f"{TIME} > {before} + 0.5")


@pytest.mark.parametrize("codec", ["vp8", "h264"])
def test_plays_the_overlay(codec: str, chromium: str, tmp_path: Path) -> None:
    async def steps(tab: Tab) -> None:
        await plays(tab)
        road, sky, other = (np.array(color) / 2 + 64 for color in LABELS.palette)
        found = np.array(await tab.value(PIXELS), float)
        assert abs(found - [road, sky, other]).max() <= 16, found
        assert await tab.value("document.querySelector('#legend input').disabled") is True
        assert await tab.value("document.getElementById('view').title") == (f"{codec} over WebRTC, drawn by the camera")

    tab = watch(chromium, tmp_path, steps, f"?view=video&codec={codec}")
    assert tab.console == []


def test_is_chosen_and_left_on_the_page(chromium: str, tmp_path: Path) -> None:
    async def steps(tab: Tab) -> None:
        controls = "['#alpha', '#mask', '#none', '#legend input'].map(name => document.querySelector(name).disabled)"
        await tab.until(f"{DRAWN} >= 0 && !document.getElementById('view').disabled")
        assert await tab.value(f"{SHOWN}") is False
        assert await tab.value(controls) == [False] * 4
        await tab.click("#view")
        await plays(tab)
        # The camera draws the colours of a video, and the video holds no class map.
        assert await tab.value(controls) == [True] * 4
        assert await tab.value("document.getElementById('view').getAttribute('aria-pressed')") == "true"
        assert await tab.value("document.getElementById('picture').hidden") is True
        await tab.click("#view")
        await tab.until(f"!({SHOWN})")
        assert await tab.value(controls) == [False] * 4
        await tab.value("document.getElementById('picture').dataset.number = -1")
        await tab.until(f"{DRAWN} >= 0")
        await tab.click("#view")
        await plays(tab)

    tab = watch(chromium, tmp_path, steps)
    assert tab.console == []


def test_pause_and_snapshot(chromium: str, tmp_path: Path) -> None:
    async def steps(tab: Tab) -> None:
        await plays(tab)
        await tab.click("#pause")
        await tab.until("document.getElementById('video').paused")
        await tab.click("#snapshot")
        folder = tmp_path / "downloads"
        for _ in range(int(WAIT_S / 0.1)):
            await asyncio.sleep(0.1)
            found = list(folder.glob("snapshot_*.jpg"))
            if found and found[0].stat().st_size:
                break
        assert cv2.imread(str(found[0])).shape == (48, 64, 3)
        await tab.click("#pause")
        await plays(tab)

    watch(chromium, tmp_path, steps, "?view=video")


def test_falls_back_and_says_what_is_missing(chromium: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codecs, "missing_of", lambda names: {"gstreamer1.0-nice": ("nicesrc", "nicesink")})

    async def steps(tab: Tab) -> None:
        await tab.until(f"{DRAWN} >= 0 && {NOTE}")
        assert await tab.value(NOTE) == (
            "No video by WebRTC: nicesrc, nicesink is needed to show video by WebRTC, but it is not installed; "
            "run: sudo apt-get install -y gstreamer1.0-nice. These are single pictures."
        )
        assert await tab.value("document.getElementById('view').disabled") is True
        assert "gstreamer1.0-nice" in await tab.value("document.getElementById('view').title")

    watch(chromium, tmp_path, steps, "?view=video")


def test_falls_back_when_the_encoder_fails(chromium: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: VideoEncoder, picture: Any) -> None:
        raise OutputError("cannot encode video as vp8: no ink")

    async def steps(tab: Tab) -> None:
        await plays(tab)
        monkeypatch.setattr(VideoEncoder, "push", fail)
        await tab.until(f"!({SHOWN}) && {DRAWN} >= 0")
        assert await tab.value(NOTE) == (
            "No video by WebRTC: cannot encode video as vp8: no ink. These are single pictures."
        )

    watch(chromium, tmp_path, steps, "?view=video")


def test_comes_back_with_the_application(chromium: str, tmp_path: Path) -> None:
    async def steps() -> None:
        async with browser(chromium, tmp_path) as tab:
            with page_of("web://127.0.0.1:0?view=video") as sink, filled(sink):
                url = sink.url
                await tab.call("Page.navigate", url=url)
                await plays(tab)
            await tab.until("document.getElementById('state').textContent === 'connection lost'")
            assert await tab.value(NOTE) == "The video ended. These are single pictures."
            with page_of(url.replace("http", "web")) as sink, filled(sink):
                await plays(tab)
                assert await tab.value("document.getElementById('note').hidden") is True

    asyncio.run(steps())
