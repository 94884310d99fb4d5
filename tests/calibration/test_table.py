"""calibration.json."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from edgeseg.calibration.observers import Histogram, HistogramObserver
from edgeseg.calibration.partners import Partner, Partners
from edgeseg.calibration.ranges import METHODS
from edgeseg.calibration.table import (
    REPORT_BINS,
    CalibrationTable,
    Entry,
    calibration_key,
    choose_ranges,
)
from edgeseg.errors import CalibrationError, UsageError


def histogram(scale: float = 1.0) -> Histogram:
    observer = HistogramObserver()
    observer.add((np.random.default_rng(0).standard_normal(10000) * scale).astype(np.float32))
    return observer.histogram()


def table() -> CalibrationTable:
    entries = choose_ranges({"input": histogram(), "/conv/Conv_output_0": histogram(30)}, "percentile")
    return CalibrationTable("0a" * 32, "percentile", ("11" * 32, "22" * 32), entries)


class TestEntry:
    def test_sums_up_a_histogram(self) -> None:
        entry = Entry.of(histogram(), 2.0)
        values = np.random.default_rng(0).standard_normal(10000).astype(np.float32)
        assert entry.amax == 2.0
        assert (entry.minimum, entry.maximum) == (values.min(), values.max())
        assert entry.clipped_share == pytest.approx(np.mean(np.abs(values) >= 2.0))
        assert len(entry.histogram) == REPORT_BINS
        edges = np.arange(REPORT_BINS + 1) * entry.width
        assert list(entry.histogram) == np.histogram(np.abs(values), edges)[0].tolist()
        assert edges[-2] <= np.abs(values).max() * 1.02

    def test_zeros(self) -> None:
        observer = HistogramObserver()
        observer.add(np.zeros(10, np.float32))
        entry = Entry.of(observer.histogram(), 1.0)
        assert entry.histogram[0] == 10
        assert sum(entry.histogram) == 10

    @pytest.mark.parametrize(
        ("field", "value", "message"),
        [
            ("amax", 0.0, "amax and bin width must be positive and finite, but are 0.0"),
            ("amax", math.inf, "but are inf"),
            ("width", -1.0, "and -1.0"),
            ("minimum", math.nan, "nan"),
            ("minimum", 9.0, r"a range of \[9.0, 1.0\]"),
            ("clipped_share", 1.5, "1.5 of its values clipped"),
            ("histogram", (1, -1), "these counts cannot be"),
        ],
    )
    def test_impossible_values(self, field: str, value: object, message: str) -> None:
        fields = {"amax": 1.0, "minimum": 0.0, "maximum": 1.0, "clipped_share": 0.0, "histogram": (1,), "width": 1.0}
        with pytest.raises(CalibrationError, match=message):
            Entry(**{**fields, field: value})  # type: ignore[arg-type]


class TestJson:
    def test_round_trip_is_exact(self) -> None:
        assert CalibrationTable.from_json(table().to_json()) == table()
        group = Partner("concatenation", ("input", "/conv/Conv_output_0"), "", 0.25, taken=False)
        joined = replace(table(), partners=Partners((group,), -0.125, 0.5))
        assert CalibrationTable.from_json(joined.to_json()) == joined
        empty = CalibrationTable("k", "mse", (), {})
        assert CalibrationTable.from_json(empty.to_json()) == empty

    def test_one_line_a_tensor_in_their_order(self) -> None:
        text = table().to_json()
        assert list(json.loads(text)["entries"]) == ["input", "/conv/Conv_output_0"]
        assert sum('"amax"' in line for line in text.splitlines()) == 2
        assert text.endswith("}\n")

    def test_ranges(self) -> None:
        ranges = CalibrationTable.from_json(table().to_json()).ranges
        assert ranges == {
            "input": METHODS["percentile"](histogram()),
            "/conv/Conv_output_0": pytest.approx(METHODS["percentile"](histogram(30))),
        }

    @pytest.mark.parametrize("text", ["", "{", "\x00"])
    def test_no_json(self, text: str) -> None:
        with pytest.raises(CalibrationError, match=r"calibration\.json is not JSON"):
            CalibrationTable.from_json(text)

    @pytest.mark.parametrize("text", ["[]", "{}", '{"schema_version": "1"}'])
    def test_other_json(self, text: str) -> None:
        with pytest.raises(CalibrationError, match="has no schema_version: it is no calibration table"):
            CalibrationTable.from_json(text)

    def test_newer_schema(self) -> None:
        text = table().to_json().replace('"schema_version": 1', '"schema_version": 2')
        with pytest.raises(CalibrationError, match="schema version 2, but this edgeseg reads up to 1; upgrade with"):
            CalibrationTable.from_json(text)

    @pytest.mark.parametrize("field", ["key", "method", "frames", "entries"])
    def test_missing_fields(self, field: str) -> None:
        data = json.loads(table().to_json())
        del data[field]
        with pytest.raises(CalibrationError, match=rf"does not fit \(KeyError: '{field}'\); convert the network again"):
            CalibrationTable.from_json(json.dumps(data))

    @pytest.mark.parametrize(
        ("field", "value"), [("amax", "wide"), ("amax", None), ("histogram", 3), ("histogram", ["x"])]
    )
    def test_wrong_types(self, field: str, value: object) -> None:
        data = json.loads(table().to_json())
        data["entries"]["input"][field] = value
        with pytest.raises(CalibrationError, match="does not fit"):
            CalibrationTable.from_json(json.dumps(data))

    def test_impossible_range(self) -> None:
        data = json.loads(table().to_json())
        data["entries"]["input"]["amax"] = -1
        with pytest.raises(CalibrationError, match=r"must be positive and finite, but are -1\.0"):
            CalibrationTable.from_json(json.dumps(data))

    def test_a_table_of_before_there_were_partners(self) -> None:
        data = json.loads(table().to_json())
        del data["partners"]
        assert CalibrationTable.from_json(json.dumps(data)) == table()

    @pytest.mark.parametrize(
        ("field", "value"),
        [("kind", "product"), ("loss", float("inf")), ("tensors", []), ("tensors", None), ("node", ...)],
    )
    def test_a_partner_that_cannot_be(self, field: str, value: object) -> None:
        data = json.loads(table().to_json())
        group = {"kind": "sum", "tensors": ["a"], "node": "add", "loss": 0.1, "taken": True, field: value}
        if value is ...:
            del group[field]
        data["partners"] = {"groups": [group], "loss": 0.1, "tolerance": None}
        with pytest.raises(CalibrationError, match=r"cannot be|does not fit"):
            CalibrationTable.from_json(json.dumps(data))


class TestKey:
    def test_order_does_not_matter(self) -> None:
        key = calibration_key(b"model", ["a", "b"], ["x", "y"], "mse")
        assert key == calibration_key(b"model", ["b", "a"], ["y", "x"], "mse")
        assert len(key) == 64

    @pytest.mark.parametrize(
        "changed",
        [
            (b"other", ["a", "b"], ["x"], "mse"),
            (b"model", ["a"], ["x"], "mse"),
            (b"model", ["a", "b", "b"], ["x"], "mse"),
            (b"model", ["a", "b"], ["z"], "mse"),
            (b"model", ["a", "b"], ["x"], "entropy"),
        ],
    )
    def test_everything_else_does(self, changed: tuple[bytes, list[str], list[str], str]) -> None:
        assert calibration_key(*changed) != calibration_key(b"model", ["a", "b"], ["x"], "mse")


def test_most_clipped_first() -> None:
    entries = {
        name: Entry(1.0, 0.0, 2.0, share, (1,), 1.0) for name, share in [("a", 0.1), ("b", 0.5), ("c", 0.1), ("d", 0.0)]
    }
    assert CalibrationTable("k", "mse", (), entries).most_clipped(3) == ["b", "a", "c"]


def test_unknown_method() -> None:
    with pytest.raises(UsageError, match="unknown calibration method 'entropie'; did you mean entropy"):
        choose_ranges({"x": histogram()}, "entropie")
