"""A section of a page in docs/ that a program makes of measured figures: printed, written, or held against the page."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

__all__ = ["add_section_arguments", "publish_section"]


def add_section_arguments(parser: argparse.ArgumentParser) -> None:
    """The options --write and --check."""
    parser.add_argument("--write", action="store_true", help="replace the section and its pictures in docs/")
    parser.add_argument("--check", action="store_true", help="only say whether docs/ hold what it would write")


def publish_section(
    arguments: argparse.Namespace, page: Path, text: str, pictures: Mapping[Path, str], stale: str
) -> int:
    """Do what the options ask for.

    Args:
        arguments: with the options of `add_section_arguments`.
        page: that holds the section, or gets it at its end.
        text: the whole section; its first line is its heading.
        pictures: content by file.
        stale: what is said of a file that holds something else, after its name.

    Returns:
        Exit status: 1 where a file that is checked holds something else.
    """
    before, after = _around(page.read_text("utf-8"), text.partition("\n")[0])
    files = {page: before + text + after, **pictures}
    if arguments.check:
        old = [file for file, new in files.items() if not file.is_file() or file.read_text("utf-8") != new]
        print("\n".join(f"{file} {stale}" for file in old), file=sys.stderr)
        return 1 if old else 0
    if not arguments.write:
        print(text, end="")
        return 0
    for file, new in files.items():
        file.write_text(new, "utf-8")
    return 0


def _around(page: str, heading: str) -> tuple[str, str]:
    """A page's text before a section and behind it."""
    before, found, rest = page.partition(f"{heading}\n")
    if not found:
        return before.rstrip("\n") + "\n\n", ""
    _, following, after = rest.partition("\n## ")
    return before, following + after
