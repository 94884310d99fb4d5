"""Which form follows from a TensorRT version and what is asked of it."""

from __future__ import annotations

from typing import Any

import pytest

from edgeseg.converters.emit import EmitOptions, form_for, parse_version
from edgeseg.converters.targets import FORMS
from edgeseg.errors import UsageError


@pytest.mark.parametrize(
    ("version", "options", "form"),
    [
        ((8, 6), {}, "tensorrt8"),
        ((10, 3), {}, "canonical"),
        ((10, 16), {}, "canonical"),
        ((11, 4), {}, "fp16_qdq"),
        ((8, 6), {"implicit": True}, "implicit_int8"),
        ((10, 3), {"dla_core": 1}, "implicit_int8"),
        ((11, 4), {"dla_core": 0}, "fp16_qdq"),
        ((10, 3), {"fp16_only": True, "dla_core": 0}, "fp16"),
        ((11, 4), {"fp16_only": True}, "fp16"),
    ],
)
def test_form(version: tuple[int, int], options: dict[str, Any], form: str) -> None:
    assert form_for(EmitOptions(version, **options)) == form
    assert FORMS[form].suits(version)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tensorrt": (8, 2)}, "expected a TensorRT from 8.5 to 11, but got 8.2"),
        ({"tensorrt": (12, 0)}, "expected a TensorRT from 8.5 to 11, but got 12.0"),
        ({"batch": 0}, "at least 1 frame at once, but got --batch 0"),
        ({"dla_core": 2}, "DLA cores 0 and 1, but --dla 2"),
        ({"implicit": True, "fp16_only": True}, "give one of them"),
        ({"implicit": True, "tensorrt": (11, 4)}, "TensorRT 11.4 takes no calibration cache"),
        ({"dla_core": 0, "tensorrt": (10, 8)}, "TensorRT 10.8 drives no DLA on a Jetson"),
        ({"dla_core": 0, "tensorrt": (11, 3)}, "TensorRT 11.3 drives no DLA on a Jetson"),
    ],
)
def test_what_does_not_go_together(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        EmitOptions(**options)


@pytest.mark.parametrize(("text", "version"), [("10.3", (10, 3)), ("10.3.0", (10, 3)), ("8.6.2.3", (8, 6))])
def test_version(text: str, version: tuple[int, int]) -> None:
    assert parse_version(text) == version


@pytest.mark.parametrize("text", ["", "10", "ten.3", "10.3-rc", "-8.6", "10."])
def test_no_version(text: str) -> None:
    with pytest.raises(UsageError, match=r"such as 8\.6, 10\.3 or 11\.4"):
        parse_version(text)
