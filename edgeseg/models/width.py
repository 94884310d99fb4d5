"""Narrower variants of large networks: every layer keeps a fraction of its channels."""

from __future__ import annotations

from edgeseg.errors import UsageError

__all__ = ["check_choice", "check_width", "scaled"]

_STEP = 8
"""Channels come in multiples of this, so that INT8 kernels are filled whatever the width."""


def scaled(channels: int, width: float) -> int:
    """Channels of a layer at a width: the nearest multiple of 8, at least 8; the number itself at width 1."""
    if width == 1:
        return channels
    return max(_STEP, round(channels * width / _STEP) * _STEP)


def check_width(name: str, width: float) -> None:
    """Refuse a width that leaves nothing or adds channels.

    Args:
        name: of the network, for the message.
        width: fraction of the published channels.

    Raises:
        UsageError: where the width is not above 0 and at most 1.
    """
    if not 0 < width <= 1:
        raise UsageError(f"width of {name} must be above 0 and at most 1, but is {width}")


def check_choice(name: str, option: str, value: object, choices: tuple[object, ...]) -> None:
    """Refuse a value that a network does not take.

    Args:
        name: of the network, for the message.
        option: its name.
        value: what was given.
        choices: what the network takes.

    Raises:
        UsageError: where the value is none of the choices.
    """
    if value not in choices:
        raise UsageError(f"{option} of {name} must be one of {', '.join(map(str, choices))}, but is {value}")
