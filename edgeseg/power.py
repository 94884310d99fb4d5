"""Power rails and temperatures of a board, read from sysfs and sampled while something runs.

A Jetson measures its supply with INA3221 monitors (three rails each; INA238 on Thor). Linux shows them as hwmon devices
(kernel.org, Documentation/hwmon/ina3221: inN_label, inN_input in mV, currN_input in mA; powerN_input in uW of
hwmon/sysfs-interface), L4T before 35 as IIO devices (rail_name_N, in_powerN_input in mW). Temperatures are the kernel's
thermal zones (Documentation/ABI/testing/sysfs-class-thermal: type, temp in thousandths of a degree).
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import InputError

__all__ = ["PowerMeter", "PowerRecord", "Rail", "Sensors", "Zone", "find_sensors", "total_rails"]

Span = tuple[float, float]
"""Begin and end, in seconds of time.perf_counter."""

_DRIVERS = ("ina3221", "ina3221x", "ina238")
_UNCONNECTED = frozenset({"", "NC"})
_COLDEST = -100.0
"""Degrees; zones of units that are switched off say less, -256 on Orin."""

_TOTALS: tuple[tuple[str, ...], ...] = (
    ("VIN",),
    ("VDD_IN",),
    ("POM_5V_IN",),
    ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),
    ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"),
)
"""Rails that together feed a module, which are counted once each: Thor (the carrier board's input); Orin Nano, Orin NX,
Xavier NX and TX2; Nano; AGX Orin and AGX Xavier, which have no rail of their input (names of NVIDIA's Jetson Linux
Developer Guide, Power Monitors). The first that a board has counts."""


@dataclass(frozen=True)
class Rail:
    """One supply.

    Attributes:
        name: as the board's device tree has it, "VDD_IN".
        files: one file with the power, or one with mV and one with mA.
        scale: watts by unit of the file, or of the files' product.
    """

    name: str
    files: tuple[Path, ...]
    scale: float

    def read(self) -> float:
        """Watts now; OSError or ValueError where the file gives none."""
        product = self.scale
        for path in self.files:
            product *= int(path.read_text("ascii"))
        return product


@dataclass(frozen=True)
class Zone:
    """One place whose temperature is measured."""

    name: str
    file: Path

    def read(self) -> float:
        """Degrees Celsius now; OSError or ValueError where the zone is switched off."""
        degrees = int(self.file.read_text("ascii")) / 1000
        if degrees < _COLDEST:
            raise ValueError(f"{self.file} holds {degrees} degrees")
        return degrees


@dataclass(frozen=True)
class Sensors:
    """What a board measures of itself."""

    rails: tuple[Rail, ...]
    zones: tuple[Zone, ...]


def find_sensors(root: Path = Path("/")) -> Sensors:
    """The rails and zones of this machine that can be read.

    Args:
        root: of the file system.

    Raises:
        InputError: when there is no rail, or none may be read.
    """
    i2c = root / "sys/bus/i2c/drivers"
    rails: dict[str, Rail] = {}
    refused: list[Path] = []
    for driver in _DRIVERS:
        for rail in (*_hwmon_rails(i2c / driver), *_iio_rails(i2c / driver)):
            if rail.name not in rails and _readable(rail, refused):
                rails[rail.name] = rail
    if not rails and refused:
        raise InputError(f"power rails are there, but {refused[0]} may not be read; run as root")
    if not rails:
        raise InputError(
            f"power is read from a Jetson's monitors (INA3221, INA238), but {i2c} has none; measure without --power"
        )
    return Sensors(tuple(rails.values()), tuple(_zones(root / "sys/class/thermal")))


def total_rails(names: Iterable[str]) -> tuple[str, ...] | None:
    """The rails that together are all that the board draws; None for a board that is not known."""
    present = set(names)
    return next((total for total in _TOTALS if present.issuperset(total)), None)


def _zones(folder: Path) -> list[Zone]:
    zones: dict[str, Zone] = {}
    for path in _numbered(folder, "thermal_zone*"):
        name = _text(path / "type") or path.name
        zone = Zone(f"{name} ({path.name})" if name in zones else name, path / "temp")
        if _readable(zone, []):
            zones[zone.name] = zone
    return list(zones.values())


def _hwmon_rails(driver: Path) -> list[Rail]:
    """Rails of every monitor that a driver of the hwmon kind holds."""
    rails = []
    for monitor in _numbered(driver, "*/hwmon/hwmon*"):
        power = monitor / "power1_input"
        if power.exists():  # INA238 has one channel; on Thor it is the carrier board's input
            rails.append(Rail(_text(monitor / "in1_label") or "VIN", (power,), 1e-6))
            continue
        for label in _numbered(monitor, "in*_label"):
            number, name = re.sub(r"\D", "", label.name), _text(label)
            files = (monitor / f"in{number}_input", monitor / f"curr{number}_input")
            # A fourth current is the sum of the others, and its label that of a voltage without a meaning.
            if name not in _UNCONNECTED and int(number) <= 3 and all(file.exists() for file in files):
                rails.append(Rail(name, files, 1e-6))
    return rails


def _iio_rails(driver: Path) -> list[Rail]:
    rails = []
    for label in _numbered(driver, "*/iio:device*/rail_name_*"):
        number, name = label.name.rpartition("_")[2], _text(label)
        if name not in _UNCONNECTED:
            rails.append(Rail(name, (label.parent / f"in_power{number}_input",), 1e-3))
    return rails


def _numbered(folder: Path, pattern: str) -> list[Path]:
    """Paths of a pattern, 2 before 10."""
    return sorted(folder.glob(pattern), key=lambda p: [int(n) for n in re.findall(r"\d+", str(p.relative_to(folder)))])


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""


def _readable(sensor: Rail | Zone, refused: list[Path]) -> bool:
    """Whether a sensor gives a number; what may not be read is noted."""
    try:
        sensor.read()
    except PermissionError as error:
        refused.append(Path(error.filename))
        return False
    except (OSError, ValueError):  # a channel that is switched off answers ENODATA
        return False
    return True


@dataclass(frozen=True)
class PowerRecord:
    """Samples of all sensors.

    Attributes:
        times: (N,) float64, seconds of time.perf_counter, rising.
        watts: (N,) float64 by rail; NaN where a read failed.
        degrees: (N,) float64 by zone, likewise.
    """

    times: NDArray[np.float64]
    watts: dict[str, NDArray[np.float64]]
    degrees: dict[str, NDArray[np.float64]]

    def joules(self, rails: Sequence[str], spans: Sequence[Span]) -> float:
        """Energy of rails together, by the trapezoid rule over the samples; the power at a span's ends is interpolated.

        Args:
            rails: names.
            spans: when; outside the samples the nearest counts.

        Raises:
            InputError: for a rail that was never read.
        """
        return sum(self._rail_joules(rail, spans) for rail in rails)

    def temperatures(self) -> dict[str, dict[str, float]]:
        """The first, last and highest degrees Celsius by zone; a zone that never answered is left out."""
        known = {name: values[np.isfinite(values)] for name, values in self.degrees.items()}
        return {
            name: {"first": float(values[0]), "last": float(values[-1]), "highest": float(values.max())}
            for name, values in known.items()
            if values.size
        }

    def _rail_joules(self, rail: str, spans: Sequence[Span]) -> float:
        known = np.isfinite(self.watts[rail])
        times, watts = self.times[known], self.watts[rail][known]
        if not times.size:
            raise InputError(f"the power rail {rail} could not be read while it was measured; measure again")
        total = 0.0
        for begin, end in spans:
            inside = times[(times > begin) & (times < end)]
            at = np.concatenate([[begin], inside, [end]])
            power = np.interp(at, times, watts)
            total += float((np.diff(at) * (power[1:] + power[:-1]) / 2).sum())
        return total


class PowerMeter:
    """Samples sensors in a thread of its own while it is open.

    Args:
        sensors: what to read.
        interval: seconds from sample to sample; the monitors average over some milliseconds.
    """

    def __init__(self, sensors: Sensors, interval: float = 0.05) -> None:
        self._sensors = sensors
        self._interval = interval
        self._stop = threading.Event()
        self._samples: list[tuple[float, list[float], list[float]]] = []
        self._thread = threading.Thread(target=self._run, name="edgeseg-power", daemon=True)

    def __enter__(self) -> PowerMeter:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def record(self) -> PowerRecord:
        """What was sampled; call it after the meter is closed."""
        times, watts, degrees = zip(*self._samples, strict=True)
        rails = [rail.name for rail in self._sensors.rails]
        zones = [zone.name for zone in self._sensors.zones]
        return PowerRecord(np.array(times), _columns(rails, watts), _columns(zones, degrees))

    def _run(self) -> None:
        """Sample at the start, at every interval, and at the end."""
        while True:
            stopped = self._stop.is_set()
            began = time.perf_counter()
            watts = [_now(rail) for rail in self._sensors.rails]
            degrees = [_now(zone) for zone in self._sensors.zones]
            # A read takes its time over I2C: the middle is when its numbers are from.
            self._samples.append(((began + time.perf_counter()) / 2, watts, degrees))
            if stopped:
                return
            self._stop.wait(max(0.0, self._interval - (time.perf_counter() - began)))


def _columns(names: Sequence[str], rows: Sequence[Sequence[float]]) -> dict[str, NDArray[np.float64]]:
    table = np.array(rows, np.float64).reshape(len(rows), len(names))
    return {name: table[:, i] for i, name in enumerate(names)}


def _now(sensor: Rail | Zone) -> float:
    try:
        return sensor.read()
    except (OSError, ValueError):
        return float("nan")
