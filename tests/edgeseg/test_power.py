"""Rails and temperatures of fake boards, and their energy."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from edgeseg.errors import InputError
from edgeseg.power import PowerMeter, PowerRecord, Rail, Sensors, Zone, find_sensors, total_rails


def write(root: Path, files: dict[str, object]) -> None:
    for name, content in files.items():
        path = root / "sys" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n", "ascii")


def ina3221(address: str, number: int, rails: list[tuple[str, int, int]]) -> dict[str, object]:
    """Files of one monitor; rails as (label, mV, mA)."""
    folder = f"bus/i2c/drivers/ina3221/{address}/hwmon/hwmon{number}"
    files: dict[str, object] = {f"{folder}/name": "ina3221", f"{folder}/in7_label": "sum of shunt voltages"}
    for i, (label, voltage, current) in enumerate(rails, start=1):
        files |= {f"{folder}/in{i}_label": label, f"{folder}/in{i}_input": voltage, f"{folder}/curr{i}_input": current}
        files |= {f"{folder}/in{i + 3}_input": 12345}
    files |= {f"{folder}/curr4_input": 99999, f"{folder}/curr1_max": 1}
    return files


def thermal(*zones: tuple[str, int]) -> dict[str, object]:
    files: dict[str, object] = {}
    for i, (name, temperature) in enumerate(zones):
        files |= {f"class/thermal/thermal_zone{i}/type": name, f"class/thermal/thermal_zone{i}/temp": temperature}
    return files


ORIN_NANO = {
    **ina3221("1-0040", 1, [("VDD_IN", 5000, 1500), ("VDD_CPU_GPU_CV", 4900, 400), ("VDD_SOC", 4950, 300)]),
    **thermal(("cpu-thermal", 48500), ("gpu-thermal", 47000), ("cv0-thermal", -256000), ("tj-thermal", 49250)),
}
AGX_ORIN = {
    **ina3221("1-0040", 3, [("VDD_GPU_SOC", 20000, 500), ("VDD_CPU_CV", 20000, 100), ("VIN_SYS_5V0", 5000, 800)]),
    **ina3221("1-0041", 4, [("NC", 0, 0), ("VDDQ_VDD2_1V8AO", 5000, 200), ("NC", 0, 0)]),
}
NANO_IIO = {
    "bus/i2c/drivers/ina3221x/6-0040/iio:device0/rail_name_0": "POM_5V_IN",
    "bus/i2c/drivers/ina3221x/6-0040/iio:device0/in_power0_input": 2345,
    "bus/i2c/drivers/ina3221x/6-0040/iio:device0/rail_name_1": "POM_5V_GPU",
    "bus/i2c/drivers/ina3221x/6-0040/iio:device0/in_power1_input": 120,
}
THOR = {
    "bus/i2c/drivers/ina238/2-0044/hwmon/hwmon5/power1_input": 45_600_000,
    "bus/i2c/drivers/ina238/2-0044/hwmon/hwmon5/in1_label": "VIN",
    **ina3221("2-0040", 6, [("VDD_GPU", 12000, 1000), ("VDD_CPU_SOC_MSS", 12000, 900), ("VIN_SYS_5V0", 5000, 700)]),
}


class TestBoards:
    @pytest.mark.parametrize(
        ("files", "watts", "total"),
        [
            (ORIN_NANO, {"VDD_IN": 7.5, "VDD_CPU_GPU_CV": 1.96, "VDD_SOC": 1.485}, ("VDD_IN",)),
            (
                AGX_ORIN,
                {"VDD_GPU_SOC": 10.0, "VDD_CPU_CV": 2.0, "VIN_SYS_5V0": 4.0, "VDDQ_VDD2_1V8AO": 1.0},
                ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),
            ),
            (NANO_IIO, {"POM_5V_IN": 2.345, "POM_5V_GPU": 0.12}, ("POM_5V_IN",)),
            (THOR, {"VDD_GPU": 12.0, "VDD_CPU_SOC_MSS": 10.8, "VIN_SYS_5V0": 3.5, "VIN": 45.6}, ("VIN",)),
        ],
    )
    def test_rails(
        self, tmp_path: Path, files: dict[str, object], watts: dict[str, float], total: tuple[str, ...]
    ) -> None:
        write(tmp_path, files)
        rails = find_sensors(tmp_path).rails
        assert {rail.name: rail.read() for rail in rails} == pytest.approx(watts)
        assert total_rails(rail.name for rail in rails) == total

    def test_zones_that_are_on(self, tmp_path: Path) -> None:
        write(tmp_path, ORIN_NANO)
        zones = find_sensors(tmp_path).zones
        assert {zone.name: zone.read() for zone in zones} == {
            "cpu-thermal": 48.5,
            "gpu-thermal": 47,
            "tj-thermal": 49.25,
        }

    def test_zones_of_one_name(self, tmp_path: Path) -> None:
        write(tmp_path, ORIN_NANO | thermal(("acpitz", 30000), ("acpitz", 31000)))
        names = [zone.name for zone in find_sensors(tmp_path).zones]
        assert names == ["acpitz", "acpitz (thermal_zone1)", "tj-thermal"]

    def test_a_channel_that_is_off(self, tmp_path: Path) -> None:
        write(tmp_path, ORIN_NANO)
        (tmp_path / "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1/curr2_input").write_text("")
        (tmp_path / "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1/curr3_input").unlink()
        assert [rail.name for rail in find_sensors(tmp_path).rails] == ["VDD_IN"]

    def test_a_board_that_is_not_known_has_no_total(self) -> None:
        assert total_rails(["VDD_GPU", "VDD_CPU"]) is None
        assert total_rails(["GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"]) == (
            "GPU",
            "CPU",
            "SOC",
            "CV",
            "VDDRQ",
            "SYS5V",
        )

    def test_no_rail(self, tmp_path: Path) -> None:
        write(tmp_path, thermal(("x86_pkg_temp", 40000)))
        message = "power is read from a Jetson's monitors .* has none; measure without --power"
        with pytest.raises(InputError, match=message):
            find_sensors(tmp_path)

    def test_rails_that_may_not_be_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write(tmp_path, ORIN_NANO)
        read = Path.read_text

        def refuse(path: Path, *arguments: str) -> str:
            if path.name.startswith("curr"):
                raise PermissionError(13, "Permission denied", str(path))
            return read(path, *arguments)

        monkeypatch.setattr(Path, "read_text", refuse)
        with pytest.raises(InputError, match=r"power rails are there, but .*curr1_input may not be read; run as root"):
            find_sensors(tmp_path)


def ramp() -> PowerRecord:
    """Power 2 t watts at t = 0..10, the third sample missing, and a rail of 5 W."""
    times = np.arange(11.0)
    watts = {"rising": 2 * times, "flat": np.full(11, 5.0), "dead": np.full(11, np.nan)}
    watts["rising"][2] = np.nan
    return PowerRecord(times, watts, {"tj": 40 + times, "off": np.full(11, np.nan)})


class TestEnergy:
    @pytest.mark.parametrize(
        ("spans", "joules"),
        [
            ([(0.0, 10.0)], 100.0),
            ([(1.0, 3.0)], 8.0),
            ([(1.5, 2.25), (2.25, 3.75)], 3.75**2 - 1.5**2),
            ([(4.2, 4.6)], 4.6**2 - 4.2**2),
            ([], 0.0),
        ],
    )
    def test_is_the_integral_of_power(self, spans: list[tuple[float, float]], joules: float) -> None:
        assert ramp().joules(["rising"], spans) == pytest.approx(joules)

    def test_of_several_rails(self) -> None:
        assert ramp().joules(["rising", "flat"], [(0.0, 4.0)]) == pytest.approx(16 + 20)

    def test_outside_the_samples_the_nearest_counts(self) -> None:
        assert ramp().joules(["flat"], [(-2.0, 1.0), (9.0, 12.0)]) == pytest.approx(30)

    def test_a_rail_without_a_sample(self) -> None:
        with pytest.raises(InputError, match="the power rail dead could not be read while it was measured"):
            ramp().joules(["dead"], [(0.0, 1.0)])

    def test_temperatures(self) -> None:
        record = PowerRecord(np.arange(3.0), {}, {"tj": np.array([50.0, 61.5, 55.0]), "off": np.full(3, np.nan)})
        assert record.temperatures() == {"tj": {"first": 50.0, "last": 55.0, "highest": 61.5}}


class CountingRail:
    """Its power is the number of the read; it fails where told."""

    name = "VDD_IN"

    def __init__(self, fails: frozenset[int] = frozenset()) -> None:
        self.reads = 0
        self.fails = fails
        self.third = threading.Event()

    def read(self) -> float:
        self.reads += 1
        if self.reads >= 3:
            self.third.set()
        if self.reads in self.fails:
            raise OSError(61, "No data available")
        return float(self.reads)


class TestMeter:
    def test_samples_in_the_background(self) -> None:
        rail = CountingRail(fails=frozenset({2}))
        before = time.perf_counter()
        with PowerMeter(Sensors((rail,), ()), interval=0.001) as meter:  # type: ignore[arg-type]
            assert rail.third.wait(30)
        record = meter.record()
        watts = record.watts["VDD_IN"]
        assert len(watts) == len(record.times) == rail.reads >= 3
        assert np.isnan(watts[1])
        assert watts[[0, 2]].tolist() == [1, 3]
        assert (np.diff(record.times) > 0).all()
        assert before < record.times[0] < record.times[-1] < time.perf_counter()
        assert not any(thread.name == "edgeseg-power" for thread in threading.enumerate())

    def test_reads_files(self, tmp_path: Path) -> None:
        write(tmp_path, ORIN_NANO)
        with PowerMeter(find_sensors(tmp_path)) as meter:
            pass
        record = meter.record()
        assert record.watts["VDD_IN"].tolist() == [7.5] * len(record.times)
        assert record.degrees["tj-thermal"][0] == 49.25

    def test_samples_at_both_ends_of_a_short_run(self) -> None:
        rail = CountingRail()
        with PowerMeter(Sensors((rail,), ()), interval=60) as meter:  # type: ignore[arg-type]
            pass
        assert len(meter.record().times) in (1, 2)

    def test_a_zone_that_is_switched_off_meanwhile(self, tmp_path: Path) -> None:
        write(tmp_path, thermal(("cv", -256000)))
        zone = Zone("cv", tmp_path / "sys/class/thermal/thermal_zone0/temp")
        with pytest.raises(ValueError, match=r"holds -256\.0 degrees"):
            zone.read()
        with PowerMeter(Sensors((), (zone,))) as meter:
            pass
        assert meter.record().temperatures() == {}

    def test_a_file_is_read_anew_each_time(self, tmp_path: Path) -> None:
        path = tmp_path / "power1_input"
        path.write_text("1000000")
        rail = Rail("VIN", (path,), 1e-6)
        assert rail.read() == 1
        path.write_text("2500000" + os.linesep)
        assert rail.read() == 2.5
