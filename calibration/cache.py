"""TensorRT's calibration cache, read by IInt8EntropyCalibrator2 up to TensorRT 10 and by tools built on it.

    TRT-8503-EntropyCalibration2
    input: 3c010204

One line a tensor: its ONNX name, then the scale amax / 127 as the 8 hexadecimal digits of a big-endian float32.
Sources: NVIDIA Model-Optimizer (modelopt/onnx/quantization/calib_utils.py), NVIDIA tao_deploy (engine/builder.py).
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping

import numpy as np

from edgeseg.calibration.ranges import LEVELS
from edgeseg.errors import CalibrationError

__all__ = ["read_cache", "write_cache"]

_HEADER = re.compile(r"TRT-([0-9X]+)-EntropyCalibration2\s*")
_HEX = re.compile(r"[0-9a-fA-F]{1,8}")


def write_cache(ranges: Mapping[str, float], version: str = "8503") -> bytes:
    """Write ranges as a calibration cache.

    Args:
        ranges: amax by ONNX tensor name; written in this order. A tensor with amax 0 has no scale and gets no line.
        version: NV_TENSORRT_VERSION for the header. TensorRT compares the algorithm's name, not this number.

    Raises:
        CalibrationError: for a name that the format cannot hold, or an amax whose scale is no positive float32.
    """
    if not re.fullmatch(r"[0-9X]+", version):
        raise CalibrationError(f"a TensorRT version in a cache is digits such as 8503 or 100300, but got {version!r}")
    lines = [f"TRT-{version}-EntropyCalibration2"]
    for name, amax in ranges.items():
        if amax == 0:
            continue
        if not name or ": " in name or name.splitlines() != [name]:
            raise CalibrationError(f"the tensor name {name!r} cannot stand in a calibration cache; rename the tensor")
        lines.append(f"{name}: {struct.pack('>f', _scale(name, amax)).hex()}")
    return ("\n".join(lines) + "\n").encode()


def _scale(name: str, amax: float) -> float:
    scale = amax / LEVELS
    if not (math.isfinite(scale) and 0 < scale <= float(np.finfo(np.float32).max)) or np.float32(scale) == 0:
        raise CalibrationError(f"tensor {name} has amax {amax}, whose scale is no positive float32 number")
    return scale


def read_cache(data: bytes) -> tuple[str, dict[str, float]]:
    """Read a calibration cache.

    Writers that drop leading zeros or leave a space after the header are understood.

    Returns:
        The version in the header, and amax by tensor name: 127 times the float32 scale, so that writing what TensorRT
        wrote gives the same bytes again (but for tensors of scale 0, see `write_cache`).

    Raises:
        CalibrationError: for another file, another calibrator's cache, or a line that does not fit, with its number.
    """
    try:
        lines = data.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise CalibrationError(f"this is no calibration cache: it is not text ({error})") from error
    header = _HEADER.fullmatch(lines[0])
    if header is None:
        raise CalibrationError(
            f"this is no calibration cache of IInt8EntropyCalibrator2: its first line is {lines[0][:80]!r}, "
            "expected TRT-8503-EntropyCalibration2 or another version of it"
        )
    ranges: dict[str, float] = {}
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        name, colon, digits = line.rstrip("\r").rpartition(": ")
        if not (colon and name and _HEX.fullmatch(digits.strip())) or name in ranges:
            raise CalibrationError(f"line {number} of the calibration cache is {line!r}, expected a new NAME: 3c010204")
        (scale,) = struct.unpack(">f", bytes.fromhex(digits.strip().zfill(8)))
        if not math.isfinite(scale) or scale < 0:
            raise CalibrationError(f"line {number} of the calibration cache has the scale {scale} for {name}")
        ranges[name] = scale * LEVELS
    return header.group(1), ranges
