"""The documents hold: links lead somewhere, commands parse, code compiles, and the manifest page names every field."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeseg import labels, manifest
from edgeseg.apps.cli import COMMANDS, build_parser

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")])
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)[^)]*\)")
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def prose(text: str) -> str:
    """A page without its code blocks."""
    return FENCE.sub("", text)


def anchors(text: str) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path, root: Path = REPOSITORY) -> list[str]:
    """Links of a page to headings or files under `root` that do not exist; addresses elsewhere are not visited."""
    broken = []
    for link in LINK.findall(prose(page.read_text("utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        missing = not target.exists() or not target.is_relative_to(root)
        if missing or (anchor and anchor not in anchors(target.read_text("utf-8"))):
            broken.append(link)
    return broken


def command_lines(text: str) -> Iterator[list[str]]:
    """Words of every command in the shell blocks of a page, without variables before it and comments behind it."""
    for language, block in FENCE.findall(text):
        if language not in ("bash", "sh", "console"):
            continue
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                words = words[1:]
            if words:
                yield words


def inline_commands(text: str) -> set[str]:
    """Subcommands that a page's prose names, as in `edgeseg convert`."""
    return set(re.findall(r"`edgeseg ([a-z]\w*)", prose(text)))


def refused(words: list[str]) -> str:
    """Why a command of a page would not start; empty where it would."""
    name = words[0].removeprefix(".venv/bin/")
    if name == "edgeseg":
        command = next((word for word in words[1:] if word in COMMANDS), None)
        try:
            build_parser(command).parse_args(words[1:])
        except SystemExit as stop:
            return "" if stop.code == 0 else f"usage error in: {' '.join(words)}"
    elif "/" in name and not name.startswith(("/", "~")) and name == words[0]:
        return "" if (REPOSITORY / name).is_file() else f"{name} does not exist"
    return ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())
class TestPage:
    def test_links_lead_somewhere(self, page: Path) -> None:
        assert broken_links(page) == []

    def test_commands_start(self, page: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert [why for words in command_lines(page.read_text("utf-8")) if (why := refused(words))] == []

    def test_names_commands_that_exist(self, page: Path) -> None:
        assert inline_commands(page.read_text("utf-8")) <= set(COMMANDS)

    def test_code_compiles(self, page: Path) -> None:
        for language, block in FENCE.findall(page.read_text("utf-8")):
            if language == "python":
                ast.parse(block)
            if language == "json":
                json.loads(block)

    def test_is_reached(self, page: Path) -> None:
        if page.parent.name == "docs" and page.name != "index.md":
            assert f"({page.name})" in (page.parent / "index.md").read_text("utf-8"), "link the page in docs/index.md"


class TestManifestPage:
    page = REPOSITORY / "docs" / "manifest.md"

    @pytest.mark.parametrize(
        "kind",
        [
            manifest.Manifest,
            manifest.Network,
            manifest.InputSpec,
            manifest.OutputSpec,
            labels.LabelSet,
            manifest.Quantization,
            manifest.Budget,
            manifest.Layer,
            manifest.Scores,
        ],
    )
    def test_lists_every_field_in_order(self, kind: type) -> None:
        assert dataclasses.is_dataclass(kind)
        section = self.page.read_text("utf-8").split(f"\n### {kind.__name__}\n")[1].split("\n#")[0]
        rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", section, re.MULTILINE)
        assert [name for name, _ in rows] == [field.name for field in dataclasses.fields(kind)]
        nullable = [field.name for field in dataclasses.fields(kind) if str(field.type).endswith("| None")]
        assert [name for name, text in rows if text.endswith("?")] == nullable

    def test_covers_every_value_of_the_manifest(self) -> None:
        headings = set(re.findall(r"^### (\w+)$", self.page.read_text("utf-8"), re.MULTILINE))
        kinds = {k for k, v in vars(manifest).items() if dataclasses.is_dataclass(v) and isinstance(v, type)}
        assert headings == kinds

    def test_gives_an_example_that_reads(self) -> None:
        (example,) = [block for language, block in FENCE.findall(self.page.read_text("utf-8")) if language == "json"]
        read = manifest.Manifest.from_json(example)
        assert read.scores is not None
        assert read.scores.drop == pytest.approx(0.15)

    def test_states_the_schema_version(self) -> None:
        assert f"format of this file, now {manifest.SCHEMA_VERSION};" in self.page.read_text("utf-8")


class TestChecker:
    """The checks above find what they are for."""

    def test_broken_links(self, tmp_path: Path) -> None:
        page = tmp_path / "page.md"
        page.write_text(
            "# A title\n[x](https://example.org) [a](#a-title) [b](#other) [c](missing.md)\n```\n[d](e)\n```\n"
        )
        assert broken_links(page, tmp_path) == ["#other", "missing.md"]

    def test_commands(self, capsys: pytest.CaptureFixture[str]) -> None:
        block = "```bash\n$ edgeseg convert a.onnx --frames b  # c\nX=1 edgeseg frobnicate\nscripts/none\n```\n"
        text = block + "with `edgeseg fly`"
        lines = list(command_lines(text))
        assert lines == [["edgeseg", "convert", "a.onnx", "--frames", "b"], ["edgeseg", "frobnicate"], ["scripts/none"]]
        assert [refused(line) for line in lines] == [
            "",
            "usage error in: edgeseg frobnicate",
            "scripts/none does not exist",
        ]
        assert inline_commands(text) == {"fly"}
