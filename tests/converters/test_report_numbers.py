"""How the report writes numbers."""

from __future__ import annotations

import pytest

from edgeseg.converters.report import numbers


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.005, "1.00"), (-0.5, "\u22120.50"), (-0.001, "0.00"), (None, "\u2013"), (float("nan"), "\u2013")],
)
def test_decimal(value: float | None, text: str) -> None:
    assert numbers.decimal(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.5, "+0.50"), (-0.5, "\u22120.50"), (0.001, "0.00"), (None, "\u2013")])
def test_signed(value: float | None, text: str) -> None:
    assert numbers.signed(value) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0, "0 %"),
        (1, "100 %"),
        (0.9704, "97.0 %"),
        (0.99964, ">99.9 %"),
        (1 - 0.9, "10.0 %"),
        (0.0203, "2.03 %"),
        (0.00959, "0.96 %"),
        (0.0000551, "0.0055 %"),
        (1e-9, "<0.000001 %"),
        (float("nan"), "\u2013"),
    ],
)
def test_percent(share: float, text: str) -> None:
    assert numbers.percent(share) == text.replace(" ", "\u00a0")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (1.04, "1.04"), (-12.0, "\u221212.0"), (123.4, "123"), (0.00052, "0.00052"), (56789.0, "5.68e+04")],
)
def test_quantity(value: float, text: str) -> None:
    assert numbers.quantity(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(1, "1"), (999, "999"), (1000, "1k"), (10_800_000_000, "10.8G"), (999_900, "1M")]
)
def test_count(value: float, text: str) -> None:
    assert numbers.count(value) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.04, "0.0 s"), (119.94, "119.9 s"), (179.6, "3 min 0 s")])
def test_duration(seconds: float, text: str) -> None:
    assert numbers.duration(seconds) == text


@pytest.mark.parametrize(
    ("end", "expected"),
    [(2.56, [0, 1, 2]), (10.0, [0, 2.5, 5, 7.5, 10]), (0.0031, [0, 0.001, 0.002, 0.003]), (0.95, [0, 0.25, 0.5, 0.75])],
)
def test_ticks(end: float, expected: list[float]) -> None:
    assert list(numbers.ticks(end, 4)) == pytest.approx(expected)


@pytest.mark.parametrize("end", [0.0, -1.0, float("inf"), float("nan")])
def test_step_of_nothing(end: float) -> None:
    assert numbers.nice_step(end, 4) == 1.0
