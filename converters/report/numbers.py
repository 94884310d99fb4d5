"""How the report writes numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator

__all__ = ["count", "decimal", "duration", "nice_step", "percent", "quantity", "signed", "ticks"]

ABSENT = "\u2013"
MINUS = "\u2212"
NBSP = "\u00a0"
"""Keeps a number and its unit on one line."""


def decimal(value: float | None, digits: int = 2) -> str:
    """A value with fixed decimals, so that a column of them aligns; a dash for None and what is not finite."""
    if value is None or not math.isfinite(value):
        return ABSENT
    text = f"{value:.{digits}f}"
    return text.replace("-", MINUS) if float(text) else text.lstrip("-")


def signed(value: float | None, digits: int = 2) -> str:
    """A change: with its sign, unless it rounds to zero."""
    text = decimal(value, digits)
    return text if value is None or text.startswith((MINUS, ABSENT)) or not float(text) else f"+{text}"


def percent(share: float, digits: int = 3) -> str:
    """A share of 0..1 in percent with significant digits; small ones keep their order of magnitude."""
    value = 100 * share
    if value == 0 or not math.isfinite(value):
        return f"0{NBSP}%" if value == 0 else ABSENT
    if value < 1e-6:
        return f"<0.000001{NBSP}%"
    if value < 1:
        return f"{value:.{min(6, 1 - math.floor(math.log10(value)))}f}{NBSP}%"
    rounded = float(f"{value:.{digits}g}")
    if rounded >= 100 > value:
        # 99.96 % must not become 100 %: some of it is missing.
        return f">{100 - 10.0 ** (2 - digits):g}{NBSP}%"
    return f"{rounded:.{max(0, digits - 1 - math.floor(math.log10(rounded)))}f}{NBSP}%"


def quantity(value: float) -> str:
    """A measured value with three significant digits, without an exponent where that stays short."""
    if not math.isfinite(value):
        return ABSENT
    text = f"{value:.3g}" if abs(value) < 1e-3 or abs(value) >= 1e4 else f"{value:#.3g}".rstrip(".")
    return ("0" if value == 0 else text).replace("-", MINUS)


def count(value: float, space: str = "") -> str:
    """A large number in thousands (k), millions (M) or milliards (G)."""
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * factor:
            return f"{value / factor:{'.3g' if value < 999.5 * factor else '.0f'}}{space}{unit}"
    return f"{value:g}"


def duration(seconds: float) -> str:
    """Seconds, or minutes and seconds above two minutes."""
    if seconds < 120:
        return f"{decimal(seconds, 1)} s"
    return f"{round(seconds) // 60} min {round(seconds) % 60} s"


def nice_step(span: float, steps: int) -> float:
    """The smallest of 1, 2, 2.5 and 5 times a power of ten that covers `span` in at most `steps` steps."""
    if not (span > 0 and math.isfinite(span)):
        return 1.0
    power = 10.0 ** math.floor(math.log10(span / steps))
    return next(f * power for f in (1.0, 2.0, 2.5, 5.0, 10.0, 20.0) if f * power * steps >= span * (1 - 1e-9))


def ticks(end: float, steps: int) -> Iterator[float]:
    """Round values from 0 up to `end`, at most `steps` + 1 of them."""
    step = nice_step(end, steps)
    yield from (i * step for i in range(steps + 1) if i * step <= end * (1 + 1e-9))
