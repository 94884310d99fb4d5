"""The page in a real Chromium: what it shows, and what its controls do."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support.web_page import HOSTILE, LABELS, WAIT_S, Tab, browser, camera_result, chromium_path, filled, page_of

from edgeseg.apps.camera.drawing import Drawing, Painter
from edgeseg.apps.camera.sinks import SinkOptions

cv2 = pytest.importorskip("cv2")
pytest.importorskip("aiohttp")

PHONE = 390
ROAD, SKY, OTHER = LABELS.palette
GREY = (128, 128, 128)

PIXEL = "Array.from(document.getElementById('picture').getContext('2d').getImageData({x}, {y}, 1, 1).data.slice(0, 3))"
DRAWN = "document.getElementById('picture').dataset.number"


@pytest.fixture(scope="module")
def chromium() -> str:
    path = chromium_path()
    if path is None:
        pytest.skip("no Chromium on this machine")
    return path


def watch(
    chromium: str,
    folder: Path,
    steps: Callable[[Tab], Awaitable[None]],
    options: SinkOptions | None = None,
    width: int = 1280,
    dark: bool = False,
) -> Tab:
    """Open the page of a running camera, wait for its first picture, and take some steps."""

    async def all_steps() -> Tab:
        async with browser(chromium, folder) as tab:
            await tab.call(
                "Emulation.setDeviceMetricsOverride",
                width=width,
                height=844,
                deviceScaleFactor=1,
                mobile=width < 500,
            )
            scheme = "dark" if dark else "light"
            await tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
            await tab.call("Page.navigate", url=sink.url)
            await tab.until(f"Number({DRAWN}) > 3 && document.getElementById('state').textContent === 'live'")
            await steps(tab)
            return tab

    with page_of(options=options) as sink, filled(sink):
        return asyncio.run(all_steps())


async def colors(tab: Tab) -> list[list[int]]:
    """Pixels of road, sky and the third class, read back from the canvas; JPEG makes them a little unlike."""
    return [await tab.value(PIXEL.format(x=x, y=y)) for x, y in ((8, 40), (8, 8), (56, 8))]


def blend(alpha: float, *classes: tuple[int, int, int] | None) -> list[NDArray[np.float64]]:
    """Colours over the grey frame; None for a class that is not drawn."""
    grey = np.array(GREY, float)
    return [grey if color is None else (1 - alpha) * grey + alpha * np.array(color) for color in classes]


def near(found: list[list[int]], expected: list[NDArray[np.float64]]) -> bool:
    return bool(np.abs(np.array(found, float) - np.array(expected)).max() <= 4)


async def move_alpha(tab: Tab, keys: str, code: int) -> None:
    await tab.value("document.getElementById('alpha').focus()")
    await tab.key(keys, code)


def keep(image: NDArray[np.uint8], name: str) -> None:
    """Leave a screenshot where WEB_PAGE_SCREENSHOTS says, for a person to look at."""
    folder = os.environ.get("WEB_PAGE_SCREENSHOTS")
    if folder:
        cv2.imwrite(str(Path(folder) / name), image[:, :, ::-1])


class TestPicture:
    def test_shows_the_frame_under_its_classes(self, chromium: str, tmp_path: Path) -> None:
        async def steps(tab: Tab) -> None:
            # The row that moves is elsewhere at most moments.
            await tab.until(f"Number({DRAWN}) % 48 > 8 && Number({DRAWN}) % 48 < 30")
            assert near(await colors(tab), blend(0.5, ROAD, SKY, OTHER))

        watch(chromium, tmp_path, steps)

    def test_follows_the_camera(self, chromium: str, tmp_path: Path) -> None:
        async def steps(tab: Tab) -> None:
            first = int(await tab.value(DRAWN))
            await tab.until(f"Number({DRAWN}) > {first + 30}")

        watch(chromium, tmp_path, steps)

    def test_begins_with_what_the_application_draws(self, chromium: str, tmp_path: Path) -> None:
        async def steps(tab: Tab) -> None:
            assert await tab.value("document.getElementById('alpha').value") == "80"
            boxes = "[...document.querySelectorAll('#legend input')].map(box => box.checked)"
            assert await tab.value(boxes) == [False, True, False]
            await tab.click("#pause")
            await tab.until(f"Number({DRAWN}) > 0")
            found = await colors(tab)
            assert near([found[0], found[2]], blend(0.8, None, None))

        options = SinkOptions(Painter(Drawing(alpha=0.8, classes=("sky",))))
        watch(chromium, tmp_path, steps, options)


class TestControls:
    def test_pause_and_go_on(self, chromium: str, tmp_path: Path) -> None:
        async def steps(tab: Tab) -> None:
            await tab.click("#pause")
            await tab.until("document.getElementById('state').textContent === 'paused'")
            assert await tab.value("document.getElementById('pause').getAttribute('aria-pressed')") == "true"
            held = await tab.value(DRAWN)
            await asyncio.sleep(0.5)
            assert await tab.value(DRAWN) == held
            await tab.click("#pause")
            await tab.until(f"Number({DRAWN}) > {int(held) + 5}")
            await tab.value("document.activeElement.blur()")
            await tab.key(" ", 32)
            await tab.until("document.getElementById('state').textContent === 'paused'")

        watch(chromium, tmp_path, steps)

    def test_pause_lets_no_picture_through_that_was_on_its_way(self, chromium: str, tmp_path: Path) -> None:
        pause_before_the_next_picture_is_drawn = f"""(() => {{
            const next = requestAnimationFrame;
            window.requestAnimationFrame = (step) => {{
                window.requestAnimationFrame = next;
                document.getElementById('pause').click();
                window.held = {DRAWN};
                return next(step);
            }};
        }})()"""

        async def steps(tab: Tab) -> None:
            await tab.value(pause_before_the_next_picture_is_drawn)
            await tab.until("window.held !== undefined")
            await asyncio.sleep(0.3)
            assert await tab.value(DRAWN) == await tab.value("window.held")

        watch(chromium, tmp_path, steps)

    def test_alpha(self, chromium: str, tmp_path: Path) -> None:
        async def steps(tab: Tab) -> None:
            await tab.until(f"Number({DRAWN}) % 48 > 8 && Number({DRAWN}) % 48 < 20")
            await tab.click("#pause")
            # While the page pauses it draws the held picture anew.
            await move_alpha(tab, "Home", 36)
            await tab.until("document.getElementById('alpha_value').textContent === '0 %'")
            assert near(await colors(tab), blend(0, ROAD, SKY, OTHER))
            await move_alpha(tab, "End", 35)
            await tab.until("document.getElementById('alpha_value').textContent === '100 %'")
            assert near(await colors(tab), blend(1, ROAD, SKY, OTHER))

        watch(chromium, tmp_path, steps)

    def test_classes(self, chromium: str, tmp_path: Path) -> None:
        async def steps(tab: Tab) -> None:
            await tab.until(f"Number({DRAWN}) % 48 > 8 && Number({DRAWN}) % 48 < 20")
            await tab.click("#pause")
            await tab.click("#legend li:nth-child(2) input")
            await settled(tab, blend(0.5, ROAD, None, OTHER))
            await tab.click("#none")
            await settled(tab, blend(0.5, None, None, None))
            await tab.click("#all")
            await settled(tab, blend(0.5, ROAD, SKY, OTHER))

        async def settled(tab: Tab, expected: list[NDArray[np.float64]]) -> None:
            for _ in range(100):
                found = await colors(tab)
                if near(found, expected):
                    return
                await asyncio.sleep(0.05)
            pytest.fail(f"{found} and not {expected}")

        watch(chromium, tmp_path, steps)

    def test_downloads(self, chromium: str, tmp_path: Path) -> None:
        saved: dict[str, NDArray[np.uint8]] = {}

        async def steps(tab: Tab) -> None:
            await tab.click("#pause")
            await tab.until("document.getElementById('state').textContent === 'paused'")
            # One at a time: a page that saves several files at once asks for a permission first.
            number = int(await tab.value(DRAWN))
            for button, name in (("mask", "mask"), ("mask_color", "mask_color"), ("snapshot", "snapshot")):
                await tab.click(f"#{button}")
                path = tmp_path / "downloads" / f"{name}_{number:06d}.{'jpg' if name == 'snapshot' else 'png'}"
                for _ in range(int(WAIT_S / 0.1)):
                    await asyncio.sleep(0.1)
                    if path.exists() and path.stat().st_size:
                        break
                else:
                    pytest.fail(f"no {path.name} among {sorted(file.name for file in path.parent.glob('*'))}")
                saved[name] = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            saved["expected"] = camera_result(number).segmentation.class_map

        watch(chromium, tmp_path, steps)
        expected = saved["expected"]
        np.testing.assert_array_equal(saved["mask"], expected)
        np.testing.assert_array_equal(saved["mask_color"][:, :, ::-1], LABELS.colors()[expected])
        assert saved["snapshot"].shape == (48, 64, 3)


class TestConnection:
    def test_token_in_the_address(self, chromium: str, tmp_path: Path) -> None:
        async def steps(url: str) -> None:
            async with browser(chromium, tmp_path) as tab:
                await tab.call("Page.navigate", url=url.partition("?")[0])
                await tab.until("document.querySelector('input[name=token]') && document.readyState === 'complete'")
                await tab.click("input[name=token]")
                await tab.call("Input.insertText", text="12345678")
                await tab.click("button")
                await tab.until(f"Number({DRAWN}) > 0")
                await tab.call("Page.navigate", url="about:blank")
                await tab.call("Page.navigate", url=url)
                await tab.until(f"Number({DRAWN}) > 0")
                assert await tab.value("location.pathname + location.search") == "/"

        with page_of("web://127.0.0.1:0?token=12345678") as sink, filled(sink):
            asyncio.run(steps(sink.url))

    def test_comes_back_after_the_application(self, chromium: str, tmp_path: Path) -> None:
        async def steps() -> None:
            async with browser(chromium, tmp_path) as tab:
                with page_of() as sink, filled(sink):
                    url = sink.url
                    await tab.call("Page.navigate", url=url)
                    await tab.until(f"Number({DRAWN}) > 20")
                await tab.until("document.getElementById('state').textContent === 'connection lost'")
                with page_of(url.replace("http", "web")) as sink:
                    await tab.until("document.getElementById('state').textContent === 'no frame yet'")
                    with filled(sink):
                        await tab.until(f"Number({DRAWN}) < 20")
                        await tab.until("document.getElementById('state').textContent === 'live'")
                    await tab.until("/^no frame for \\d+ s$/.test(document.getElementById('state').textContent)")

        asyncio.run(steps())

    def test_without_scripts(self, chromium: str, tmp_path: Path) -> None:
        async def steps(url: str) -> None:
            async with browser(chromium, tmp_path) as tab:
                await tab.call("Emulation.setScriptExecutionDisabled", value=True)
                await tab.call("Page.navigate", url=url)
                for _ in range(100):
                    await asyncio.sleep(0.1)
                    image = await tab.screenshot()
                    if near([list(image[200, 350])], blend(0.5, SKY)):
                        return
                keep(image, "noscript.png")
                pytest.fail("the motion JPEG is not to be seen")

        with page_of() as sink, filled(sink):
            asyncio.run(steps(sink.url))


class TestStatistics:
    def test_numbers_and_areas(self, chromium: str, tmp_path: Path) -> None:
        async def steps(tab: Tab) -> None:
            assert float(await tab.until("Number(document.getElementById('fps').textContent)")) > 1
            assert float(await tab.value("document.getElementById('p50').textContent")) >= 20
            assert await tab.value("document.getElementById('missed').textContent") == "0"
            areas = await tab.value(
                "[...document.querySelectorAll('#legend .area')].map(e => parseFloat(e.textContent))"
            )
            assert areas[0] == pytest.approx(50, abs=3)
            assert sum(areas) == pytest.approx(100, abs=0.2)
            for chart in ("fps_chart", "latency_chart"):
                read = f"document.getElementById('{chart}')"
                data = f"Array.from({read}.getContext('2d').getImageData(34, 0, 999, 76).data)"
                await tab.until(f"{data}.some((v, i, all) => i % 4 === 2 && v > 150 && all[i - 2] < 60 && all[i + 1])")

        watch(chromium, tmp_path, steps)

    def test_hostile_names_are_text(self, chromium: str, tmp_path: Path) -> None:
        async def steps(tab: Tab) -> None:
            names = await tab.value("[...document.querySelectorAll('#legend .name')].map(e => e.textContent)")
            assert names == ["road", "sky", HOSTILE]
            assert await tab.value("window.broken ?? 0") == 0
            await tab.value("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=window.broken=1>')")
            await asyncio.sleep(0.3)
            assert await tab.value("window.broken ?? 0") == 0, "the policy lets inline scripts run"

        watch(chromium, tmp_path, steps)


class TestLayout:
    def test_desktop(self, chromium: str, tmp_path: Path) -> None:
        async def steps(tab: Tab) -> None:
            await asyncio.sleep(3)
            image = await tab.screenshot()
            keep(image, "desktop.png")
            assert image[5, 5].min() > 230
            assert await tab.value("document.documentElement.scrollWidth") <= 1280

        tab = watch(chromium, tmp_path, steps)
        assert tab.console == []

    def test_phone_dark(self, chromium: str, tmp_path: Path) -> None:
        async def steps(tab: Tab) -> None:
            await asyncio.sleep(3)
            image = await tab.screenshot()
            keep(image, "phone.png")
            assert image[2, 2].max() < 40
            assert await tab.value("document.documentElement.scrollWidth") <= PHONE
            heights = await tab.value("[...document.querySelectorAll('.tools button')].map(b => b.offsetHeight)")
            assert min(heights) >= 40
            await tab.value("scrollTo(0, 10000)")
            await asyncio.sleep(1)
            keep(await tab.screenshot(), "phone_end.png")

        tab = watch(chromium, tmp_path, steps, width=PHONE, dark=True)
        assert tab.console == []
