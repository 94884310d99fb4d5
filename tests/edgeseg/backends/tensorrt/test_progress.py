"""Nested phases become one number that grows."""

from __future__ import annotations

import itertools

import pytest

from edgeseg.backends.tensorrt.options import BuildProgress
from edgeseg.backends.tensorrt.progress import ProgressTree


@pytest.fixture
def told() -> list[BuildProgress]:
    return []


@pytest.fixture
def tree(told: list[BuildProgress]) -> ProgressTree:
    return ProgressTree(told.append, itertools.count().__next__)


def shares(told: list[BuildProgress]) -> list[float]:
    return [round(progress.share or 0, 3) for progress in told]


def test_counts_nested_steps(tree: ProgressTree, told: list[BuildProgress]) -> None:
    tree.start("build", None, 2)
    tree.start("graph", "build", 4)
    assert all(tree.step("graph", step) for step in range(2))
    tree.finish("graph")
    tree.step("build", 0)
    tree.start("tactics", "build", 1)
    tree.start("layer", "tactics", 2)
    tree.step("layer", 0)
    tree.finish("layer")
    tree.finish("tactics")
    tree.step("build", 1)
    tree.finish("build")
    assert shares(told) == [0, 0, 0.125, 0.25, 0.5, 0.5, 0.5, 0.5, 0.75, 1, 1, 1, 1]
    assert [progress.phase for progress in told[:3]] == ["build", "graph", "graph"]


def test_never_falls(tree: ProgressTree, told: list[BuildProgress]) -> None:
    tree.start("build", None, 1)
    tree.start("first", "build", 2)
    tree.step("first", 1)
    tree.start("second", "build", 100)
    tree.step("second", 0)
    assert shares(told) == sorted(shares(told))


def test_takes_phases_that_make_no_sense(tree: ProgressTree, told: list[BuildProgress]) -> None:
    """A version may say more or less than another."""
    assert tree.step("unknown", 3)
    tree.finish("unknown")
    tree.start("empty", None, 0)
    tree.step("empty", 7)
    tree.start("orphan", "unknown", 3)
    tree.step("orphan", 2)
    assert shares(told)[-1] == 1


def test_reports_twenty_times_a_second(told: list[BuildProgress]) -> None:
    times = iter([0, 0.01, 0.02, 0.06, 0.07])
    tree = ProgressTree(told.append, times.__next__)
    tree.start("build", None, 10)
    for step in range(3):
        tree.step("build", step)
    tree.finish("build")
    assert shares(told) == [0, 0.3, 1], "the last word is always said"


def test_stops_the_build_when_nobody_listens() -> None:
    def refuse(progress: BuildProgress) -> None:
        raise BrokenPipeError

    tree = ProgressTree(refuse, itertools.count().__next__)
    tree.start("build", None, 2)
    assert not tree.step("build", 0)
