"""TensorRT's calibration cache."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgeseg.calibration.cache import read_cache, write_cache
from edgeseg.errors import CalibrationError


def test_byte_exact() -> None:
    ranges = {"image": 127 * 0.5, "/conv/Conv_output_0": 127.0, "tiny": 127 * 2.0**-126, "a": 254.0}
    assert write_cache(ranges) == (
        b"TRT-8503-EntropyCalibration2\nimage: 3f000000\n/conv/Conv_output_0: 3f800000\ntiny: 00800000\na: 40000000\n"
    )


def test_known_scale_of_a_real_cache() -> None:
    """0.019148 is the scale that TensorRT 10.16 wrote for an input whose largest value was 2.43."""
    version, ranges = read_cache(b"TRT-101601-EntropyCalibration2\nimage: 3c9cdc9b\n")
    assert version == "101601"
    assert ranges["image"] / 127 == pytest.approx(0.019148, abs=5e-7)
    assert ranges["image"] == pytest.approx(2.43, abs=0.005)


def test_reading_and_writing_gives_the_same_bytes() -> None:
    random = np.random.default_rng(0)
    bits = random.integers(0x00800000, 0x7F000000, 2000)
    lines = [f"/stage{i}/Add_output_0: {b:08x}\n" for i, b in enumerate(bits)]
    data = ("TRT-100300-EntropyCalibration2\n" + "".join(lines)).encode()
    version, ranges = read_cache(data)
    assert len(ranges) == 2000
    assert write_cache(ranges, version) == data


def test_ranges_come_back_as_float32_scales() -> None:
    ranges = {"a": 3.3, "b": 1e-30, "c": 5e30}
    _, back = read_cache(write_cache(ranges))
    for name, amax in ranges.items():
        assert back[name] == float(np.float32(amax / 127)) * 127


def test_what_other_writers_do_is_understood() -> None:
    version, ranges = read_cache(
        b"TRT-8XXX-EntropyCalibration2 \r\nx: 3F800000\r\ndropped zeros: 800000\nwith:colon: 40000000"
    )
    assert version == "8XXX"
    assert ranges == {"x": 127.0, "dropped zeros": 127 * 2.0**-126, "with:colon": 254.0}


def test_a_line_is_divided_at_its_last_colon() -> None:
    assert read_cache(b"TRT-8503-EntropyCalibration2\na: b: 3f800000\n")[1] == {"a: b": 127.0}


def test_a_tensor_without_a_scale_gets_no_line() -> None:
    assert write_cache({"zero": 0.0, "one": 127.0}) == b"TRT-8503-EntropyCalibration2\none: 3f800000\n"


@pytest.mark.parametrize("name", ["a: b", "two\nlines", "two\rlines", ""])
def test_names_that_the_format_cannot_hold(name: str) -> None:
    with pytest.raises(CalibrationError, match="cannot stand in a calibration cache; rename the tensor"):
        write_cache({name: 1.0})


@pytest.mark.parametrize("amax", [math.nan, math.inf, -1.0, 1e300, 1e-60])
def test_ranges_without_a_float32_scale(amax: float) -> None:
    with pytest.raises(CalibrationError, match=r"tensor x has amax .*, whose scale is no positive float32"):
        write_cache({"x": amax})


def test_version() -> None:
    with pytest.raises(CalibrationError, match=r"digits such as 8503 or 100300, but got '8\.5'"):
        write_cache({}, "8.5")


@pytest.mark.parametrize("data", [b"", b"\n", b"image: 3c9cdc9b\n", b"TRT-8503-MinMaxCalibration\nx: 3c9cdc9b\n"])
def test_other_files(data: bytes) -> None:
    with pytest.raises(CalibrationError, match="no calibration cache of IInt8EntropyCalibrator2: its first line is"):
        read_cache(data)


def test_binary_file() -> None:
    with pytest.raises(CalibrationError, match="it is not text"):
        read_cache(b"\xff\xfe\x00\x01")


@pytest.mark.parametrize("line", ["no colon", "x: 3c9cdc9b0", "x: zzzz", ": 3c9cdc9b", "a: 3c9cdc9b"])
def test_lines_that_do_not_fit_are_numbered(line: str) -> None:
    with pytest.raises(CalibrationError, match=f"line 3 of the calibration cache is '{line}'"):
        read_cache(f"TRT-8503-EntropyCalibration2\na: 3f800000\n{line}\n".encode())


@pytest.mark.parametrize("digits", ["7fc00000", "7f800000", "bf800000"])
def test_scales_that_are_no_scales(digits: str) -> None:
    with pytest.raises(CalibrationError, match=r"line 2 of the calibration cache has the scale (nan|inf|-1\.0) for x"):
        read_cache(f"TRT-8503-EntropyCalibration2\nx: {digits}\n".encode())
