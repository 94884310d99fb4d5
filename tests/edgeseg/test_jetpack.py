"""The JetPack matrix: releases, boards, accelerators, and the table of the documentation."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest

from edgeseg.jetpack import BOARDS, JETPACKS, cuda_bindings, dla_source, find_board, find_jetpack, version_numbers

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "jetson.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("l4t", "name"),
    [
        ("32.6.1", "4.6"), ("32.7.4", "4.6.1 to 4.6.6"), ("35.1.0", "5.0.2"), ("35.4.1", "5.1 to 5.1.6"),
        ("36.2.0", "6.0"), ("36.3.0", "6.0"), ("36.4.0", "6.1"), ("36.4", "6.1"), ("36.4.3", "6.2 to 6.2.2"),
        ("36.4.7", "6.2 to 6.2.2"), ("36.5.0", "6.2 to 6.2.2"), ("38.2.0", "7.0"), ("38.4.0", "7.1"),
        ("39.0.0", "7.2 to 7.2.1"), ("39.2.0", "7.2 to 7.2.1"), ("39.3.0", "7.2.2"),
    ],
)  # fmt: skip
def test_release(l4t: str, name: str) -> None:
    found = find_jetpack(l4t)
    assert found is not None
    assert found.name == name


@pytest.mark.parametrize("l4t", ["28.1", "34.1.1", "36.6.0", "37.0", "38.3.0", "40.0", ""])
def test_release_that_the_matrix_does_not_hold(l4t: str) -> None:
    assert find_jetpack(l4t) is None


def test_rows_do_not_overlap() -> None:
    ends = [(j.first, j.last or (99,)) for j in JETPACKS]
    assert ends == sorted(ends)
    assert all(before[1] < after[0] or after[1] == (99,) for before, after in pairwise(ends))
    assert next(j.name for j in JETPACKS if j.supported) == "6.0"


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super", "Orin Nano"),
        ("NVIDIA Jetson Orin NX Engineering Reference Developer Kit", "Orin NX"),
        ("Jetson AGX Orin Developer Kit", "AGX Orin"),
        ("NVIDIA Jetson AGX Thor Developer Kit", "Thor"),
        ("NVIDIA Jetson Xavier NX Developer Kit", "Xavier"),
        ("Jetson-AGX", None),
        ("NVIDIA Jetson Nano Developer Kit", "Nano, TX1"),
        ("NVIDIA Jetson TX2 Developer Kit", "TX2"),
        ("Raspberry Pi 5", None),
    ],
)
def test_board(model: str, kind: str | None) -> None:
    found = find_board(model)
    assert (found.name if found else None) == kind


@pytest.mark.parametrize(
    ("version", "source"),
    [
        ((8, 6), "cache"), ((10, 3, 0), "cache"), ((10, 7), "cache"), ((10, 8), None), ((10, 16, 2, 10), None),
        ((11, 0), None), ((11, 4, 0), None), ((11, 4), "qdq"), ((11, 4, 1), "qdq"), ((11, 5), "qdq"),
    ],
)  # fmt: skip
def test_what_drives_an_accelerator(version: tuple[int, ...], source: str | None) -> None:
    assert dla_source(version) == source


def test_versions_of_libraries() -> None:
    assert version_numbers("10.3.0+cuda12.5") == (10, 3, 0)
    assert version_numbers("unknown") == ()
    wanted = [cuda_bindings(j.cuda) for j in JETPACKS if j.supported]
    assert set(wanted) == {"cuda-bindings>=12.6,<13", "cuda-bindings>=13.0,<14"}
    assert cuda_bindings("11.4") is None


def rows(heading: str) -> list[list[str]]:
    """Cells of the table under a heading of docs/jetson.md."""
    part = PAGE.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in part.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


class TestPage:
    def test_releases(self) -> None:
        expected = [
            [j.name, j.l4t, f"{j.ubuntu}, {j.python}, {j.gstreamer}", j.cuda, j.tensorrt, j.boards, j.dla]
            for j in JETPACKS
        ]
        assert rows("Releases") == expected

    def test_boards(self) -> None:
        expected = [
            [
                kind.name, ".".join(map(str, kind.compute_capability)), "yes" if kind.int8 else "no",
                str(kind.dla_cores), kind.note,
            ]
            for kind in BOARDS
        ]  # fmt: skip
        assert rows("Boards") == expected

    def test_says_what_ran_nowhere(self) -> None:
        cells = rows("What was verified where")
        assert cells
        columns = re.search(r"\| what \|(.*)\|\n", PAGE)
        assert columns is not None
        names = [name.strip() for name in columns.group(1).split("|")]
        assert names == ["parser", "builder", "ran on a GPU", "ran on a Jetson"]
        assert {row[3] for row in cells} == {row[4] for row in cells} == {"no"}, "change this test with the first run"
