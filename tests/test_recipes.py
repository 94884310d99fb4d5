"""The recipes run: every `sh` and `python` block of docs/recipes, in order, as a user types them, on fewer frames."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
RECIPES = REPOSITORY / "docs" / "recipes"
INDEX = RECIPES / "index.md"
PAGES = sorted(page for page in RECIPES.glob("*.md") if page != INDEX)
BUNDLE = "street.edgeseg"
FENCE = re.compile(r"^```(sh|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FEW = 6


def scaled(script: str) -> str:
    """A shell script on at most a few frames and for one epoch."""
    script = re.sub(r"((?:--count |count=|streets=))(\d+)", lambda m: f"{m[1]}{min(int(m[2]), FEW)}", script)
    return re.sub(r"--epochs \d+", "--epochs 1", script)


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """Language and content of what a page tells the user to run."""
    yield from FENCE.findall(page.read_text("utf-8"))


def run_page(page: Path, folder: Path, cache: Path) -> None:
    """Run a page in a folder."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "EDGESEG_CACHE_DIR": str(cache),
        "EDGESEG_BACKEND": "onnxruntime",
    }
    for language, block in blocks(page):
        start = ["bash", "-euo", "pipefail", "-c", scaled(block)] if language == "sh" else [sys.executable, "-c", block]
        done = subprocess.run(start, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{page.name}:\n{block}\n{done.stdout}\n{done.stderr}"


@pytest.fixture(scope="session")
def recipe_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled kernels and engines of all pages."""
    return tmp_path_factory.mktemp("recipe-cache")


@pytest.fixture(scope="session")
def street_bundle(tmp_path_factory: pytest.TempPathFactory, recipe_cache: Path) -> Path:
    """What the index makes for the other pages."""
    folder = tmp_path_factory.mktemp("recipes")
    run_page(INDEX, folder, recipe_cache)
    return folder / BUNDLE


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page_runs(page: Path, street_bundle: Path, recipe_cache: Path, tmp_path: Path) -> None:
    shutil.copytree(street_bundle, tmp_path / BUNDLE)
    run_page(page, tmp_path, recipe_cache)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_index_links_every_page(page: Path) -> None:
    assert f"({page.name})" in INDEX.read_text("utf-8")


@pytest.mark.parametrize("page", [INDEX, *PAGES], ids=lambda page: page.stem)
def test_pages_have_commands_and_need_no_data_of_ours(page: Path) -> None:
    found = list(blocks(page))
    assert any(language == "sh" for language, _ in found)
    assert not [block for _, block in found if "shared" in block or "CamVid" in block or "camvid:" in block]


class TestScale:
    def test_counts_become_few(self) -> None:
        script = 'a --frames "scene://street?count=48&streets=48&every=25" --count 40 --every 5 --epochs 30'
        assert scaled(script) == 'a --frames "scene://street?count=6&streets=6&every=25" --count 6 --every 5 --epochs 1'

    def test_what_is_small_stays(self) -> None:
        assert (
            scaled("edgeseg scenes large --count 1 --size 1500x2000")
            == "edgeseg scenes large --count 1 --size 1500x2000"
        )

    def test_blocks_of_other_languages_are_left_out(self, tmp_path: Path) -> None:
        page = tmp_path / "page.md"
        page.write_text("```sh\na\n```\n\n```bash\nb\n```\n\n```python\nc\n```\n")
        assert list(blocks(page)) == [("sh", "a\n"), ("python", "c\n")]

    def test_a_command_that_fails_is_told(self, tmp_path: Path) -> None:
        page = tmp_path / "page.md"
        page.write_text("```sh\nfalse | cat\necho no\n```\n")
        with pytest.raises(AssertionError, match=r"false \| cat"):
            run_page(page, tmp_path, tmp_path)
