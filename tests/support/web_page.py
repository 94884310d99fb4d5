"""Results for the web page, a running page, and a Chromium that is told what to do over its DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import shutil
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.apps.camera.results import CameraFrame, CameraResult, StreamFacts
from edgeseg.apps.camera.sinks.options import SinkOptions
from edgeseg.apps.camera.sinks.web import WebSink
from edgeseg.labels import LabelSet
from edgeseg.segmentation import Segmentation, Timing

HOSTILE = "<script>window.broken=1</script><img src=x onerror=window.broken=1>"
LABELS = LabelSet(("road", "sky", HOSTILE), ((128, 64, 128), (70, 130, 180), (220, 20, 60)))
WAIT_S = 20.0
"""How long anything may take on a busy machine."""


def camera_result(number: int = 0, height: int = 48, width: int = 64, latency_ms: float = 20.0) -> CameraResult:
    """Half road, a quarter sky and the rest the hostile class, on a grey frame; one row moves with the number."""
    class_map = np.zeros((height, width), np.uint8)
    class_map[: height // 2, : width // 2] = 1
    class_map[: height // 2, width // 2 :] = 2
    class_map[number % height] = 1
    image = np.full((height, width, 3), 128, np.uint8)
    now = time.monotonic()
    frame = CameraFrame(image, number, now - latency_ms / 1e3)
    return CameraResult(frame, Segmentation(class_map, LABELS, Timing(0, 0, 5, 1, 6), number), now)


def noisy_result(number: int = 0, height: int = 480, width: int = 640) -> CameraResult:
    """Noise, whose pictures are as large as they get."""
    random = np.random.default_rng(number)
    image = random.integers(0, 255, (height, width, 3), dtype=np.uint8)
    class_map = random.integers(0, 3, (height, width), dtype=np.uint8)
    now = time.monotonic()
    return CameraResult(
        CameraFrame(image, number, now), Segmentation(class_map, LABELS, Timing(0, 0, 5, 1, 6), number), now
    )


FACTS = StreamFacts("0", "test://smpte", LABELS, 30.0)


@contextlib.contextmanager
def page_of(uri: str = "web://127.0.0.1:0", options: SinkOptions | None = None) -> Iterator[WebSink]:
    """A page that is served until the block ends."""
    sink = WebSink(uri, options or SinkOptions())
    sink.start(FACTS)
    try:
        yield sink
    finally:
        sink.stop()


@contextlib.contextmanager
def filled(sink: Any, results: Iterator[CameraResult] | None = None, rate: float = 30.0) -> Iterator[None]:
    """Results put at a camera's rate until the block ends."""
    ending = threading.Event()
    results = results or (camera_result(number) for number in itertools.count())

    def put() -> None:
        while not ending.wait(1 / rate):
            sink.put(next(results))

    thread = threading.Thread(target=put)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()


def chromium_path() -> str | None:
    """Chromium where the machine has one."""
    found = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome", "chrome")]
    return next((name for name in found if name), None)


class Tab:
    """One page of a browser, over the DevTools protocol."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self.console: list[str] = []
        """Errors, refusals by the content security policy, and whatever the page logs."""

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command and its answer."""
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        while True:
            message = json.loads((await asyncio.wait_for(self._socket.receive(), WAIT_S)).data)
            if message.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled"):
                self.console.append(json.dumps(message["params"]))
            if message.get("id") == number:
                assert "error" not in message, (method, message)
                answer: dict[str, Any] = message["result"]
                return answer

    async def value(self, expression: str) -> Any:
        """What an expression gives on the page."""
        answer = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def until(self, expression: str) -> Any:
        """Wait until an expression is true on the page."""
        end = time.monotonic() + WAIT_S
        # The page may still be loading, without the elements that the expression names.
        quiet = f"(() => {{ try {{ return {expression}; }} catch {{ return null; }} }})()"
        while not (found := await self.value(quiet)):
            assert time.monotonic() < end, f"never came true: {expression}; {self.console}"
            await asyncio.sleep(0.05)
        return found

    async def click(self, selector: str) -> None:
        """A real click in the middle of an element."""
        found = f"document.querySelector({selector!r})"
        await self.value(f"{found}.scrollIntoView({{block: 'center'}})")
        box = await self.value(f"(r => [r.x + r.width / 2, r.y + r.height / 2])({found}.getBoundingClientRect())")
        for kind in ("mousePressed", "mouseReleased"):
            await self.call("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    async def key(self, key: str, code: int) -> None:
        """A key pressed and let go."""
        for kind in ("rawKeyDown", "keyUp"):
            await self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    async def screenshot(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB."""
        import cv2

        content = base64.b64decode((await self.call("Page.captureScreenshot", format="png"))["data"])
        image: NDArray[np.uint8] = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
        return image


@contextlib.asynccontextmanager
async def browser(path: str, folder: Path, *, width: int = 1280, height: int = 900) -> AsyncIterator[Tab]:
    """A headless Chromium without a profile or network; downloads lie in `folder`/downloads."""
    import aiohttp

    profile = folder / "profile"
    command = [
        path, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
        "--force-device-scale-factor=1", f"--window-size={width},{height}", f"--user-data-dir={profile}",
        "--remote-debugging-port=0", "about:blank",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 3 * WAIT_S
        while not (profile / "DevToolsActivePort").exists():
            assert process.poll() is None, "Chromium ended"
            assert time.monotonic() < end, "Chromium did not start"
            await asyncio.sleep(0.05)
        port = (profile / "DevToolsActivePort").read_text().split()[0]
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json") as response:
                targets = await response.json()
            url = next(target["webSocketDebuggerUrl"] for target in targets if target["type"] == "page")
            async with session.ws_connect(url, max_msg_size=0) as socket:
                tab = Tab(socket)
                for domain in ("Page", "Runtime", "Log"):
                    await tab.call(f"{domain}.enable")
                await tab.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder / "downloads"))
                yield tab
    finally:
        process.kill()
        process.wait()
