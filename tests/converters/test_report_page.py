"""The page as a browser shows it: screenshots, width on a phone, and no script that runs."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.report_content import floating, hostile_content, layers, manifest, report_content, sensitivity, worst_frame

from edgeseg.converters.report import report_html, sensitivity_html
from edgeseg.labels import LabelSet
from edgeseg.manifest import Scores

cv2 = pytest.importorskip("cv2")

PHONE = 390
"""Width in CSS pixels of a usual phone."""

HOSTILE = "<script>parent.broken=1</script><img src=x onerror=parent.broken=1>" + "long_name" * 20

# Opens everything that is folded, then tells the width that the content takes and what stands out to the right.
MEASURE = """
onload = () => {
  const found = [...document.querySelectorAll("iframe")].map(({contentDocument: page, clientWidth}) => {
    page.querySelectorAll("details").forEach(d => d.open = true);
    const scrolls = e => e && (getComputedStyle(e).overflowX !== "visible" || scrolls(e.parentElement));
    const outside = [...page.body.querySelectorAll("*")].filter(
      e => e.getBoundingClientRect().right > clientWidth + 0.5 && !scrolls(e.parentElement));
    return {width: page.documentElement.scrollWidth, outside: outside.map(e => e.outerHTML.slice(0, 120))};
  });
  document.getElementById("found").textContent = JSON.stringify({found, ran: window.ran, broken: window.broken ?? 0});
};
"""


@pytest.fixture(scope="module")
def chromium() -> str:
    found = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome", "chrome")]
    path = next((name for name in found if name), None)
    if path is None:
        pytest.skip("no Chromium on this machine")
    return path


def browse(chromium: str, page: Path, *options: str) -> str:
    """Load a page without network, window or profile; returns what Chromium prints."""
    profile = page.parent / f"profile_{page.stem}"
    command = [
        chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--hide-scrollbars", "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--disable-dev-shm-usage", "--force-device-scale-factor=1", f"--user-data-dir={profile}",
        *options, page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def screenshot(chromium: str, folder: Path, text: str, *options: str) -> NDArray[np.uint8]:
    """The page at 1200 x 2400 pixels as (2400, 1200, 3) uint8 RGB."""
    page, image = folder / "report.html", folder / "report.png"
    page.write_text(text, "utf-8")
    browse(chromium, page, f"--screenshot={image}", "--window-size=1200,2400", *options)
    pixels: NDArray[np.uint8] = cv2.imread(str(image), cv2.IMREAD_COLOR)[:, :, ::-1]
    return pixels


def share(pixels: NDArray[np.uint8], color: str) -> float:
    """Share of the pixels that have a #rrggbb colour, 0..1."""
    wanted = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])
    return float((pixels == wanted).all(axis=2).mean())


class TestScreenshot:
    def test_light(self, chromium: str, tmp_path: Path) -> None:
        pixels = screenshot(chromium, tmp_path, report_html(report_content()))
        assert pixels.shape == (2400, 1200, 3)
        assert share(pixels, "#f5f6f8") + share(pixels, "#ffffff") > 0.5
        # INT8 and float bars, the losses beside them, text.
        assert share(pixels, "#1560bd") > 0.02
        assert share(pixels, "#8592a1") > 0.01
        assert share(pixels, "#b8431c") > 0.0002
        assert share(pixels, "#18202b") > 0.001
        # Class maps: road and car of Cityscapes.
        assert share(pixels, "#804080") > 0.002
        assert share(pixels, "#00008e") > 0.001

    def test_dark(self, chromium: str, tmp_path: Path) -> None:
        pixels = screenshot(chromium, tmp_path, report_html(report_content()), "--force-dark-mode")
        if share(pixels, "#f5f6f8") > 0.05:
            pytest.skip("this Chromium does not ask pages for their dark colours")
        assert share(pixels, "#0f1318") + share(pixels, "#171c23") > 0.5
        assert share(pixels, "#5b9ff0") > 0.02
        assert pixels[5, 5].max() < 40

    @pytest.mark.parametrize(
        ("options", "loss", "card"), [((), "#b8431c", "#ffffff"), (("--force-dark-mode",), "#f08a63", "#171c23")]
    )
    def test_sensitivity(self, options: tuple[str, ...], loss: str, card: str, chromium: str, tmp_path: Path) -> None:
        loud, quiet = (
            screenshot(chromium, tmp_path, sensitivity_html("net", sensitivity(few), few, ("frame",)), *options)
            for few in (layers(12), layers(1))
        )
        if options and share(loud, "#f5f6f8") > 0.05:
            pytest.skip("this Chromium does not ask pages for their dark colours")
        assert share(loud, card) > 0.1
        # Two of the twelve bars are long; a single one is drawn against an axis of its own.
        assert 0.0005 < share(quiet, loss) < share(loud, loss) < 0.01


def pages() -> dict[str, str]:
    """The page in its extremes, and one that is too wide, by name."""
    frames = (worst_frame("a", 19, 1, (48, 96)),)
    many = LabelSet.numbered(150)
    iou: dict[str, float | None] = dict.fromkeys(many.names, 61.5)
    hostile = report_html(hostile_content(HOSTILE))
    return {
        "usual": report_html(report_content()),
        "many classes": report_html(
            report_content(manifest=manifest(many, scores=Scores("miou", 61.5, 61.5, iou, iou)), worst=())
        ),
        "agreement": report_html(
            report_content(manifest=manifest(scores=Scores("agreement", 100.0, 99.0, frame_names=("a",))), worst=frames)
        ),
        "sensitivity": report_html(report_content(sensitivity=sensitivity(layers(), spared=False), worst=())),
        "sensitivity alone": sensitivity_html("net", sensitivity(layers()), layers(), ("frame_1", "frame_2" * 40)),
        "sensitivity by block": sensitivity_html(HOSTILE, sensitivity(layers(), block=9), layers(), (HOSTILE,)),
        "fp16": report_html(floating(worst=frames)),
        "unscored": report_html(report_content(manifest=manifest(scores=None), worst=())),
        # Without its policy, so that only escaping keeps the names from running.
        "hostile": re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", hostile),
        "too wide": '<div style="width: 600px">x</div><script>parent.ran=1</script>',
    }


@pytest.fixture(scope="module")
def measured(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    frames = "".join(
        f'<iframe width="{PHONE}" height="800" style="border: 0" srcdoc="{html.escape(text)}"></iframe>'
        for text in pages().values()
    )
    page = tmp_path_factory.mktemp("phone") / "phone.html"
    page.write_text(f'<!doctype html><pre id="found"></pre>{frames}<script>{MEASURE}</script>', "utf-8")
    printed = browse(chromium, page, "--dump-dom", "--virtual-time-budget=10000")
    result = json.loads(html.unescape(re.search(r'<pre id="found">(.*?)</pre>', printed)[1]))  # type: ignore[index]
    return result | {"found": dict(zip(pages(), result["found"], strict=True))}


class TestPhone:
    @pytest.mark.parametrize("name", [name for name in pages() if name != "too wide"])
    def test_fits(self, measured: Any, name: str) -> None:
        assert measured["found"][name] == {"width": PHONE, "outside": []}

    def test_measures_what_does_not_fit(self, measured: Any) -> None:
        assert measured["found"]["too wide"]["width"] > 600
        assert len(measured["found"]["too wide"]["outside"]) == 1

    def test_hostile_names_do_not_run(self, measured: Any) -> None:
        assert measured["ran"] == 1
        assert measured["broken"] == 0
