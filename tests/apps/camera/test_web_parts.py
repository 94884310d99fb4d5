"""The page's pictures, numbers, and its sharing of encodes."""

from __future__ import annotations

import asyncio
import json
import struct
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from support.web_page import LABELS, camera_result, noisy_result

from edgeseg.apps.camera.web.figures import Figures, class_areas
from edgeseg.apps.camera.web.newest import Newest, SharedEncoding
from edgeseg.apps.camera.web.pictures import class_map_png, jpeg, live_message


def class_maps() -> dict[str, NDArray[np.uint8]]:
    random = np.random.default_rng(0)
    return {
        "one pixel": np.array([[7]], np.uint8),
        "one row": np.arange(256, dtype=np.uint8)[None],
        "one column": np.arange(255, -1, -1, dtype=np.uint8)[:, None],
        "noise": random.integers(0, 256, (37, 53), dtype=np.uint8),
        "a view": random.integers(0, 256, (40, 60), dtype=np.uint8)[::2, ::3],
        "usual": camera_result(5).segmentation.class_map,
    }


class TestPng:
    @pytest.mark.parametrize("name", class_maps())
    def test_is_exact(self, name: str) -> None:
        class_map = class_maps()[name]
        content = np.frombuffer(class_map_png(class_map), np.uint8)
        np.testing.assert_array_equal(cv2.imdecode(content, cv2.IMREAD_UNCHANGED), class_map)
        content = np.frombuffer(class_map_png(class_map, LABELS), np.uint8)
        colored = cv2.imdecode(content, cv2.IMREAD_COLOR)[:, :, ::-1]
        np.testing.assert_array_equal(colored, LABELS.colors()[class_map])


class TestJpeg:
    @pytest.mark.parametrize(("width", "shape"), [(64, (48, 64, 3)), (1000, (48, 64, 3)), (32, (24, 32, 3))])
    def test_is_at_most_so_wide(self, width: int, shape: tuple[int, int, int]) -> None:
        content = jpeg(camera_result().frame.image, width, 80)
        assert cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR).shape == shape

    def test_keeps_a_row_of_a_wide_picture(self) -> None:
        content = jpeg(np.zeros((1, 900, 3), np.uint8), 64, 80)
        assert cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR).shape == (1, 64, 3)

    def test_colours_and_quality(self) -> None:
        red = np.zeros((16, 16, 3), np.uint8)
        red[:, :, 0] = 250
        pixel = cv2.imdecode(np.frombuffer(jpeg(red, 64, 90), np.uint8), cv2.IMREAD_COLOR)[8, 8]
        assert pixel[2] > 240
        assert max(pixel[:2]) < 10
        noise = noisy_result().frame.image
        assert len(jpeg(noise, 640, 30)) < 0.7 * len(jpeg(noise, 640, 90))


class TestMessage:
    def test_holds_the_whole_class_map_beside_a_small_picture(self) -> None:
        result = camera_result(7, latency_ms=20)
        content = live_message(result, 32, 80)
        length = struct.unpack(">I", content[:4])[0]
        facts = json.loads(content[4 : 4 + length])
        assert facts == {"number": 7, "width": 64, "height": 48, "jpeg": facts["jpeg"], "latency_ms": 20}
        picture, pixels = content[4 + length :][: facts["jpeg"]], content[4 + length + facts["jpeg"] :]
        assert cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR).shape == (24, 32, 3)
        assert pixels in class_map_png(result.segmentation.class_map)


class TestFigures:
    def test_rate_and_latency_of_the_last_two_seconds(self) -> None:
        now = [100.0]
        figures = Figures(lambda: now[0])
        for number in range(60):
            now[0] = 100 + number / 10
            figures.put(at(number, now[0], 10 if number < 40 else 20 + (number - 40)))
        numbers = figures.numbers()
        assert numbers["fps"] == 10
        assert numbers["latency_ms"] == {"p50": 29.5, "p95": 38.05}
        assert (numbers["frames"], numbers["missed"], numbers["number"], numbers["age_s"]) == (60, 0, 59, 0)
        now[0] += 30
        numbers = figures.numbers()
        assert (numbers["fps"], numbers["latency_ms"], numbers["age_s"]) == (0, None, 30)

    def test_counts_missed_frames(self) -> None:
        figures = Figures()
        for number in (3, 4, 7, 20):
            figures.put(camera_result(number))
        assert figures.numbers()["missed"] == 14

    def test_before_the_first(self) -> None:
        numbers = Figures().numbers()
        assert numbers == {
            "frames": 0, "missed": 0, "number": None, "fps": 0, "latency_ms": None, "age_s": None,
        }  # fmt: skip

    def test_areas_are_those_of_the_segmentation(self) -> None:
        segmentation = noisy_result().segmentation
        expected = segmentation.areas()
        assert class_areas(segmentation.class_map, 3) == pytest.approx(list(expected.values()), abs=1e-6)


def at(number: int, finished: float, latency_ms: float) -> Any:
    """A result with times of its own."""
    result = camera_result(number)
    frame = type(result.frame)(result.frame.image, number, finished - latency_ms / 1e3)
    return type(result)(frame, result.segmentation, finished)


class Encoder:
    """Encodes a result as its number, and counts."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def __call__(self, result: Any) -> bytes:
        assert self.may_go_on.wait(20)
        self.numbers.append(result.frame.number)
        if result.frame.number == 13:
            raise ValueError("no luck")
        return str(result.frame.number).encode()


def shared(steps: Callable[[Newest, SharedEncoding], Awaitable[None]], encoder: Encoder, interval: float = 0.0) -> None:
    async def run() -> None:
        newest = Newest()
        newest.attach(asyncio.get_running_loop())
        with ThreadPoolExecutor(1) as worker:
            await asyncio.wait_for(steps(newest, SharedEncoding(newest, encoder, worker, interval)), 20)

    asyncio.run(run())


class TestSharedEncoding:
    def test_one_for_all(self) -> None:
        encoder = Encoder()

        async def steps(newest: Newest, encoding: SharedEncoding) -> None:
            waiting = [asyncio.create_task(encoding.after(0)) for _ in range(20)]
            await asyncio.sleep(0)
            threading.Thread(target=newest.put, args=(camera_result(5),)).start()
            assert {(found.version, found.content) for found in await asyncio.gather(*waiting)} == {(1, b"5")}
            # Who comes later gets the same one, and the next only once it is there.
            assert (await encoding.after(0)).content == b"5"
            late = asyncio.create_task(encoding.after(1))
            await asyncio.sleep(0.05)
            assert not late.done()
            newest.put(camera_result(6))
            assert (await late).content == b"6"

        shared(steps, encoder)
        assert encoder.numbers == [5, 6]

    def test_leaves_out_what_came_meanwhile(self) -> None:
        encoder = Encoder()

        async def steps(newest: Newest, encoding: SharedEncoding) -> None:
            encoder.may_go_on.clear()
            newest.put(camera_result(0))
            first = asyncio.create_task(encoding.after(0))
            await asyncio.sleep(0.05)
            for number in range(1, 10):
                newest.put(camera_result(number))
            encoder.may_go_on.set()
            assert (await first).content == b"0"
            found = await encoding.after((await first).version)
            assert (found.version, found.content) == (10, b"9")

        shared(steps, encoder)
        assert encoder.numbers == [0, 9]

    def test_goes_on_when_the_first_client_leaves(self) -> None:
        async def steps(newest: Newest, encoding: SharedEncoding) -> None:
            first, second = (asyncio.create_task(encoding.after(0)) for _ in range(2))
            await asyncio.sleep(0.01)
            first.cancel()
            await asyncio.sleep(0.01)
            newest.put(camera_result(3))
            assert (await second).content == b"3"

        shared(steps, Encoder())

    def test_who_comes_while_another_waits_gets_what_is_there(self) -> None:
        async def steps(newest: Newest, encoding: SharedEncoding) -> None:
            newest.put(camera_result(3))
            waiting = asyncio.create_task(encoding.after((await encoding.after(0)).version))
            await asyncio.sleep(0.01)
            assert (await encoding.after(0)).content == b"3"
            assert not waiting.done()
            waiting.cancel()

        shared(steps, Encoder())

    def test_keeps_its_pace_with_the_newest(self) -> None:
        encoder = Encoder()

        async def steps(newest: Newest, encoding: SharedEncoding) -> None:
            newest.put(camera_result(0))
            version = (await encoding.after(0)).version
            began = asyncio.get_running_loop().time()
            newest.put(camera_result(1))
            following = asyncio.create_task(encoding.after(version))
            await asyncio.sleep(0.05)
            newest.put(camera_result(2))
            assert (await following).content == b"2"
            assert asyncio.get_running_loop().time() - began > 0.5

        shared(steps, encoder, 1.0)
        assert encoder.numbers == [0, 2]

    def test_a_failure_is_empty_and_told(self, caplog: pytest.LogCaptureFixture) -> None:
        async def steps(newest: Newest, encoding: SharedEncoding) -> None:
            newest.put(camera_result(13))
            failed = await encoding.after(0)
            assert (failed.version, failed.content) == (1, b"")
            newest.put(camera_result(14))
            assert (await encoding.after(failed.version)).content == b"14"

        shared(steps, Encoder())
        assert "the web page leaves out frame 13: no luck" in caplog.text

    def test_putting_after_the_end_is_harmless(self) -> None:
        kept: list[Newest] = []

        async def steps(newest: Newest, encoding: SharedEncoding) -> None:
            kept.append(newest)
            waiting = asyncio.create_task(encoding.after(0))
            await asyncio.sleep(0.01)
            waiting.cancel()

        shared(steps, Encoder())
        kept[0].put(camera_result(1))
        assert kept[0].item[0] == 1
