"""Channels of narrower networks, and values that a network does not take."""

from __future__ import annotations

import pytest

from edgeseg.errors import UsageError
from edgeseg.models.width import check_choice, check_width, scaled


@pytest.mark.parametrize(
    ("channels", "width", "expected"), [(728, 1.0, 728), (728, 0.125, 88), (64, 0.25, 16), (48, 0.125, 8), (3, 0.5, 8)]
)
def test_scaled(channels: int, width: float, expected: int) -> None:
    assert scaled(channels, width) == expected


@pytest.mark.parametrize("width", [0, -1, 1.5, float("nan")])
def test_refuses_a_width(width: float) -> None:
    with pytest.raises(UsageError) as caught:
        check_width("pspnet", width)
    assert str(caught.value) == f"width of pspnet must be above 0 and at most 1, but is {width}"


def test_refuses_a_choice() -> None:
    check_choice("deeplabv3", "output_stride", 8, (8, 16))
    with pytest.raises(UsageError) as caught:
        check_choice("deeplabv3", "output_stride", 32, (8, 16))
    assert str(caught.value) == "output_stride of deeplabv3 must be one of 8, 16, but is 32"
