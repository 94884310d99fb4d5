"""Label sets, their files and the mappings between them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeseg.errors import LabelError
from edgeseg.labels import PRESETS, UNMAPPED, LabelSet, load_labels, load_mapping

THREE = [{"id": i, "name": n, "color": [i, 0, 0]} for i, n in enumerate(("road", "car", "sky"))]


def written(path: Path, data: Any) -> Path:
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


class TestLabelSet:
    @pytest.mark.parametrize(
        ("names", "palette", "message"),
        [
            ((), (), "has 1 to 255 classes, but got 0"),
            (tuple(map(str, range(256))), ((0, 0, 0),) * 256, "has 1 to 255 classes, but got 256"),
            (("a", "b"), ((0, 0, 0),), "2 class names need as many colours, but got 1"),
            (("b", "a", "b"), ((0, 0, 0),) * 3, "class names must differ, but these come twice: b"),
            (("a",), ((0, 256, 0),), r"colours must be 0\.\.255"),
            (("a",), ((0, -1, 0),), r"colours must be 0\.\.255"),
        ],
    )
    def test_refuses(self, names: tuple[str, ...], palette: Any, message: str) -> None:
        with pytest.raises(LabelError, match=message):
            LabelSet(names, palette)

    def test_unknown_class(self) -> None:
        with pytest.raises(LabelError, match="unknown class 'biciclyst'; did you mean bicyclist"):
            load_labels("camvid").index("biciclyst")

    def test_colors_beyond_the_classes_are_black(self) -> None:
        table = LabelSet(("a",), ((1, 2, 3),)).colors()
        assert (table.shape, table.dtype) == ((256, 3), np.uint8)
        assert table[0].tolist() == [1, 2, 3]
        assert not table[1:].any()

    def test_numbered_colors_differ(self) -> None:
        labels = LabelSet.numbered(150)
        assert labels.names[149] == "class149"
        assert len(set(labels.palette)) == 150
        assert labels.palette[:3] == ((0, 0, 0), (128, 0, 0), (0, 128, 0))

    def test_one_channel_more_is_void(self) -> None:
        camvid = load_labels("camvid")
        labels = camvid.for_channels(12)
        assert (labels.names[11], labels.background) == ("void", 11)
        assert labels.classes() == camvid
        assert camvid.for_channels(11) is camvid
        assert camvid.classes() is camvid

    def test_the_void_channel_gets_a_free_name(self) -> None:
        assert LabelSet(("void", "x"), ((0, 0, 0),) * 2).for_channels(3).names[2] == "background"

    @pytest.mark.parametrize("channels", [10, 13])
    def test_channels_that_fit_neither(self, channels: int) -> None:
        message = f"{channels} output channels, but the label set has 11 classes; give --classes with {channels} names"
        with pytest.raises(LabelError, match=message):
            load_labels("camvid").for_channels(channels)

    def test_a_second_void_is_refused(self) -> None:
        with pytest.raises(LabelError, match="13 output channels, but the label set has 12 classes"):
            load_labels("camvid").for_channels(12).for_channels(13)


class TestPresets:
    @pytest.mark.parametrize(("name", "count"), [("ade20k", 150), ("camvid", 11), ("cityscapes", 19), ("voc", 21)])
    def test_classes(self, name: str, count: int) -> None:
        assert len(load_labels(name)) == count
        assert name in PRESETS

    def test_ignore_index(self) -> None:
        assert load_labels("camvid").ignore_index == 11
        assert load_labels("cityscapes").ignore_index == 255

    def test_unknown(self) -> None:
        with pytest.raises(LabelError, match=r"unknown label set 'camvod'; did you mean camvid\? .*; or give a \.json"):
            load_labels("camvod")


class TestFile:
    def test_list(self, tmp_path: Path) -> None:
        labels = load_labels(written(tmp_path / "l.json", list(reversed(THREE))))
        assert labels == LabelSet(("road", "car", "sky"), ((0, 0, 0), (1, 0, 0), (2, 0, 0)), 255, None)

    def test_object(self, tmp_path: Path) -> None:
        data = {"classes": THREE, "ignore_index": None, "background": 2}
        labels = load_labels(written(tmp_path / "l.json", data))
        assert (labels.ignore_index, labels.background, labels.classes().names) == (None, 2, ("road", "car"))

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            ("{", r"l\.json is not JSON"),
            ("3", 'is no label set: expected a list of {"id": 0'),
            ("[3]", "is no label set"),
            ([{"id": 0, "name": "a"}], r"is no label set \(KeyError\('color'\)\)"),
            ([{"id": "x", "name": "a", "color": [0, 0, 0]}], "is no label set"),
            ([{"id": 0, "name": "a", "color": [0, 0]}], "is no label set"),
            ([{"id": 1, "name": "a", "color": [0, 0, 0]}], r"ids must run from 0 without a gap, but are \[1\]"),
        ],
    )
    def test_refuses(self, tmp_path: Path, data: Any, message: str) -> None:
        with pytest.raises(LabelError, match=message):
            load_labels(written(tmp_path / "l.json", data))

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(LabelError, match=r"cannot read .*none\.json: No such file"):
            load_labels(tmp_path / "none.json")


class TestMapping:
    def test_cityscapes_to_camvid(self) -> None:
        cityscapes, camvid = load_labels("cityscapes"), load_labels("camvid")
        mapping = load_mapping("cityscapes:camvid", cityscapes.for_channels(20))
        assert mapping.target == camvid
        pairs = {"road": "road", "sky": "sky", "car": "car", "person": "pedestrian", "bicycle": "bicyclist"}
        for source, target in pairs.items():
            wanted = np.array([[camvid.index(target)]], np.uint8)
            given = np.array([[cityscapes.index(source)]], np.uint8)
            assert np.array_equal(mapping(given), wanted), source
        assert mapping(np.array([19, 200, 255], np.uint8)).tolist() == [UNMAPPED] * 3

    def test_file(self, tmp_path: Path) -> None:
        source = load_labels(written(tmp_path / "l.json", THREE))
        path = written(tmp_path / "m.json", {"to": "camvid", "map": {"road": "road", "sky": None}})
        mapping = load_mapping(str(path), source)
        assert mapping.table == (load_labels("camvid").index("road"), UNMAPPED, UNMAPPED)

    def test_unknown(self) -> None:
        message = r"unknown mapping 'cityscape:camvid'; did you mean cityscapes:camvid\? .*; or give a \.json file"
        with pytest.raises(LabelError, match=message):
            load_mapping("cityscape:camvid", load_labels("cityscapes"))

    def test_of_other_classes(self) -> None:
        with pytest.raises(LabelError, match="is for the classes of cityscapes, but the network has others"):
            load_mapping("cityscapes:camvid", load_labels("voc"))

    @pytest.mark.parametrize("data", [[], {"to": "camvid"}, {"map": {}}, {"to": 3, "map": {}}])
    def test_file_that_is_none(self, tmp_path: Path, data: Any) -> None:
        with pytest.raises(LabelError, match=r'm\.json is no mapping: expected {"to": "camvid"'):
            load_mapping(str(written(tmp_path / "m.json", data)), load_labels("voc"))

    @pytest.mark.parametrize(
        ("table", "message"),
        [({"roa": "road"}, "unknown class 'roa'; did you mean road"), ({"car": "cra"}, "unknown class 'cra'")],
    )
    def test_file_with_unknown_classes(self, tmp_path: Path, table: dict[str, str], message: str) -> None:
        source = load_labels(written(tmp_path / "l.json", THREE))
        with pytest.raises(LabelError, match=message):
            load_mapping(str(written(tmp_path / "m.json", {"to": "camvid", "map": table})), source)


class TestHostileFiles:
    @pytest.mark.parametrize("value", ["x", -1, 256, 10**5, True, 1.5])
    def test_ignore_index(self, value: Any, tmp_path: Path) -> None:
        with pytest.raises(LabelError, match=r"ignore_index must be 0\.\.255 or null, but is"):
            load_labels(written(tmp_path / "l.json", {"classes": THREE, "ignore_index": value}))

    @pytest.mark.parametrize("value", ["x", -1, 3, 99, True])
    def test_background(self, value: Any, tmp_path: Path) -> None:
        with pytest.raises(LabelError, match="background must be the index of one of the 3 classes or null, but is"):
            load_labels(written(tmp_path / "l.json", {"classes": THREE, "background": value}))

    def test_a_void_channel_that_would_be_scored(self, tmp_path: Path) -> None:
        file = written(tmp_path / "l.json", {"classes": THREE, "background": 0})
        with pytest.raises(LabelError, match="must be the last of the 3 classes or the ignore_index, but is 0"):
            load_labels(file)
        ignored = load_labels(written(tmp_path / "l.json", {"classes": THREE, "background": 0, "ignore_index": 0}))
        assert len(ignored.classes()) == 3

    @pytest.mark.parametrize(
        "entry", ['{"id": Infinity, "name": "a", "color": [0, 0, 0]}', '{"id": 0, "color": [1e999]}']
    )
    def test_numbers_without_end(self, entry: str, tmp_path: Path) -> None:
        with pytest.raises(LabelError, match="is no label set"):
            load_labels(written(tmp_path / "l.json", f"[{entry}]"))

    def test_endless_nesting(self, tmp_path: Path) -> None:
        with pytest.raises(LabelError, match="is not JSON"):
            load_labels(written(tmp_path / "l.json", "[" * 200_000))

    def test_a_number_as_target_class(self, tmp_path: Path) -> None:
        path = written(tmp_path / "m.json", {"to": "camvid", "map": {"road": 5}})
        with pytest.raises(LabelError, match="unknown class '5'"):
            load_mapping(str(path), load_labels("camvid"))
