"""What a conversion found comes back as it was kept, or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeseg.calibration.table import CalibrationTable, Entry
from edgeseg.converters.findings import Findings, keep, stored

KEY = "ab" * 32


@pytest.fixture
def findings() -> Findings:
    random = np.random.default_rng(0)
    entries = {
        "first": Entry(1 / 3, -0.2, 0.4, 1e-5, tuple(range(128)), 0.1 / 3),
        "second/out:0": Entry(2e-7, 0.0, 7.5, 0.25, (0,) * 128, 1e-9, method="percentile 99.9"),
    }
    return Findings(
        CalibrationTable(KEY, "auto", ("cd" * 32,), entries),
        {"first": random.uniform(2**-8, 1, 5), "höher": np.array([1 / 3])},
        {"conv": random.normal(0, 1e-3, 7), "none": np.zeros(0)},
        {"weight": np.array([0, 5, 123456789012])},
    )


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return list(one) == list(other) and all(
        one[name].dtype == other[name].dtype and np.array_equal(one[name], other[name]) for name in one
    )


class TestRoundTrip:
    def test_nothing_is_lost(self, findings: Findings, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        path = tmp_path / "deep" / "folder" / "findings.json"
        keep(path, findings)
        found = stored(path, KEY)
        assert found is not None
        assert found.table == findings.table
        assert same(found.factors, findings.factors)
        assert same(found.shifts, findings.shifts)
        assert same(found.moved, findings.moved)
        assert caplog.text == ""

    def test_without_factors_and_shifts(self, findings: Findings, tmp_path: Path) -> None:
        keep(tmp_path / "f.json", Findings(findings.table, {}, {}, {}))
        assert stored(tmp_path / "f.json", KEY) == Findings(findings.table, {}, {}, {})

    def test_the_later_one_stays(self, findings: Findings, tmp_path: Path) -> None:
        keep(tmp_path / "f.json", findings)
        keep(tmp_path / "f.json", Findings(findings.table, {"x": np.ones(2)}, {}, {}))
        found = stored(tmp_path / "f.json", KEY)
        assert found is not None
        assert list(found.factors) == ["x"]
        assert [p.name for p in tmp_path.iterdir() if p.suffix] == ["f.json"]


class TestNothingToUse:
    def test_no_file_is_no_warning(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        assert stored(tmp_path / "f.json", KEY) is None
        assert caplog.text == ""

    def test_another_key(self, findings: Findings, tmp_path: Path) -> None:
        keep(tmp_path / "f.json", findings)
        assert stored(tmp_path / "f.json", "0" * 64) is None

    @pytest.mark.parametrize(
        "content", [b"", b"{", b"null", b"[]", b"3", b'"text"', b"{}", b"\xff\xfe\x00", b'{"table": 1}']
    )
    def test_broken_text(self, content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        path = tmp_path / "f.json"
        path.write_bytes(content)
        assert stored(path, KEY) is None
        assert f"the stored calibration {path} cannot be used and is measured again" in caplog.text

    def test_every_cut_through_the_file(self, findings: Findings, tmp_path: Path) -> None:
        path = tmp_path / "f.json"
        keep(path, findings)
        whole = path.read_bytes()
        for length in range(0, len(whole) - 1, 97):
            path.write_bytes(whole[:length])
            assert stored(path, KEY) is None

    @pytest.mark.parametrize(
        "damage",
        [
            lambda c: c.pop("table"),
            lambda c: c.pop("factors"),
            lambda c: c.pop("shifts"),
            lambda c: c.pop("moved"),
            lambda c: c.update(moved=[1, 2]),
            lambda c: c["moved"].update(weight=[0, -5]),
            lambda c: c["moved"].update(weight=[0.5]),
            lambda c: c["moved"].update(weight=[[1]]),
            lambda c: c["moved"].update(weight=["a"]),
            lambda c: c["moved"].update(weight=None),
            lambda c: c.update(factors=[1, 2]),
            lambda c: c.update(shifts="none"),
            lambda c: c["factors"].update(first=1.0),
            lambda c: c["factors"].update(first=None),
            lambda c: c["factors"].update(first="1.0"),
            lambda c: c["factors"].update(first={"a": 1}),
            lambda c: c["factors"].update(first=[[1.0, 2.0]]),
            lambda c: c["factors"].update(first=[[1.0], [2.0, 3.0]]),
            lambda c: c["factors"].update(first=[1.0, float("nan")]),
            lambda c: c["factors"].update(first=[1.0, None]),
            lambda c: c["shifts"].update(conv=[float("inf")]),
            lambda c: c["shifts"].update(conv=["a"]),
            lambda c: c["table"].update(schema_version=99),
            lambda c: c["table"]["entries"]["first"].update(amax=float("nan")),
            lambda c: c["table"]["entries"]["first"].update(amax=-1),
            lambda c: c["table"]["entries"]["first"].pop("width"),
            lambda c: c["table"].update(entries=None),
        ],
    )  # fmt: skip
    def test_damaged_content(
        self,
        damage: Callable[[dict[str, Any]], object],
        findings: Findings,
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        path = tmp_path / "f.json"
        keep(path, findings)
        content = json.loads(path.read_text("utf-8"))
        damage(content)
        path.write_text(json.dumps(content), "utf-8")
        assert stored(path, KEY) is None
        assert "cannot be used and is measured again" in caplog.text

    def test_a_folder_in_its_place(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        assert stored(tmp_path, KEY) is None
        assert "cannot be used and is measured again" in caplog.text


class TestUnwritable:
    def test_a_file_where_the_folder_should_be(
        self, findings: Findings, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "cache").write_text("a file")
        path = tmp_path / "cache" / "f.json"
        keep(path, findings)
        assert f"the calibration could not be kept in {path.parent}" in caplog.text
        assert stored(path, KEY) is None

    def test_a_full_disk(self, findings: Findings, small_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
        large = Findings(
            findings.table, {str(n): np.random.default_rng(n).normal(0, 1, 999) for n in range(99)}, {}, {}
        )
        keep(small_disk / "f.json", large)
        assert "the calibration could not be kept" in caplog.text
        assert stored(small_disk / "f.json", KEY) is None
        assert list(small_disk.iterdir()) == []
