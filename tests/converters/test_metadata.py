"""What a network says of itself: written, read, refused where it is malformed, and overridden in the open."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import onnx
import pytest
from support.graphs import toy_network

from edgeseg.converters.metadata import NetworkMetadata, read_metadata, write_metadata
from edgeseg.converters.options import ConvertOptions
from edgeseg.converters.prepare import prepare
from edgeseg.errors import LabelError, ModelError, UsageError
from edgeseg.labels import LabelSet

LABELS = LabelSet(("road", "sky", "car"), ((1, 2, 3), (4, 5, 6), (7, 8, 9)), ignore_index=11)
WHOLE = NetworkMetadata("BGR", (1.5, 2.0, 3.0), (4.0, 5.0, 6.25), LABELS, "MIT", "mine")


def stating(**values: str) -> onnx.ModelProto:
    model = toy_network()
    onnx.helper.set_model_props(model, {f"edgeseg.{key}": value for key, value in values.items()})
    return model


@pytest.mark.parametrize("metadata", [WHOLE, NetworkMetadata(), NetworkMetadata(licence="MIT")])
def test_round_trip(metadata: NetworkMetadata) -> None:
    model = toy_network()
    write_metadata(model, WHOLE)
    write_metadata(model, metadata)
    assert read_metadata(onnx.load_from_string(model.SerializeToString()), "a.onnx") == metadata


def test_entries_of_others_stay() -> None:
    model = toy_network()
    onnx.helper.set_model_props(model, {"author": "me"})
    write_metadata(model, WHOLE)
    assert {e.key for e in model.metadata_props} == {
        "author", "edgeseg.color_order", "edgeseg.mean", "edgeseg.std", "edgeseg.classes", "edgeseg.licence",
        "edgeseg.name",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"color_order": "GBR"}, r"a.onnx: edgeseg.color_order .* must be RGB or BGR, but is 'GBR'; export it again"),
        ({"mean": "1,2,3", "std": "[1, 1, 1]"}, "edgeseg.mean in its metadata must be three numbers as a JSON list"),
        ({"mean": "[1, 2]", "std": "[1, 1, 1]"}, r"edgeseg.mean .* but is '\[1, 2\]'"),
        ({"mean": "[1, 2, NaN]", "std": "[1, 1, 1]"}, "edgeseg.mean in its metadata must be three numbers"),
        ({"mean": "3", "std": "[1, 1, 1]"}, "edgeseg.mean in its metadata must be three numbers"),
        ({"mean": "[1, 2, 3]", "std": "[1, 0, 1]"}, "edgeseg.std in its metadata must be three positive numbers"),
        ({"mean": "[1, 2, 3]"}, "only one of edgeseg.mean and edgeseg.std, expected both"),
        ({"classes": "camvid"}, "edgeseg.classes in its metadata must be a label set as JSON"),
        ({"classes": '{"classes": [{"id": 1}]}'}, "a.onnx: edgeseg.classes in its metadata: ids must run from 0"),
        ({"classes": '{"classes": 3}'}, "edgeseg.classes in its metadata is no label set.*; export it again"),
        ({"name": " "}, "edgeseg.name in its metadata must be a text"),
        ({"means": "[1, 2, 3]"}, "edgeseg.means in its metadata must be one of color_order, mean, std"),
    ],
)
def test_malformed(values: dict[str, str], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        read_metadata(stating(**values), "a.onnx")


class TestPrepare:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        model = toy_network(3)
        write_metadata(model, WHOLE)
        onnx.save(model, tmp_path / "file.onnx")
        return tmp_path / "file.onnx"

    def test_what_the_network_states_is_taken(self, path: Path, caplog: pytest.LogCaptureFixture) -> None:
        prepared = prepare(path, ConvertOptions())
        assert (prepared.input.color_order, prepared.input.mean, prepared.input.std) == ("BGR", WHOLE.mean, WHOLE.std)
        assert prepared.labels == LABELS
        assert (prepared.network.name, prepared.network.licence) == ("mine", "MIT")
        assert caplog.text == ""

    def test_options_win_and_say_so(self, path: Path, caplog: pytest.LogCaptureFixture) -> None:
        given = ConvertOptions((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "RGB", licence="GPL")
        with caplog.at_level(logging.WARNING):
            prepared = prepare(path, given)
        assert (prepared.input.color_order, prepared.input.mean, prepared.network.licence) == ("RGB", given.mean, "GPL")
        for option in ("--mean", "--std", "--color", "--licence"):
            assert f"{option} wins over what the network's metadata says" in caplog.text

    def test_an_order_alone_leaves_mean_and_std_open(self, path: Path) -> None:
        with pytest.raises(
            UsageError, match="mean and std in the order BGR, but --color is RGB; give --mean and --std"
        ):
            prepare(path, ConvertOptions(color_order="RGB"))
        assert prepare(path, ConvertOptions(color_order="BGR")).input.mean == WHOLE.mean

    def test_classes_given_win(self, path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        (tmp_path / "own.json").write_text(
            '[{"id": 0, "name": "a", "color": [1, 1, 1]}, {"id": 1, "name": "b", "color": [2, 2, 2]}, '
            '{"id": 2, "name": "c", "color": [3, 3, 3]}]'
        )
        prepared = prepare(path, dataclasses.replace(ConvertOptions(), classes=str(tmp_path / "own.json")))
        assert prepared.labels.names == ("a", "b", "c")
        assert "--classes wins over the 3 classes that the network's metadata names" in caplog.text

    def test_nothing_is_guessed(self, tmp_path: Path) -> None:
        onnx.save(toy_network(), tmp_path / "net.onnx")
        with pytest.raises(UsageError, match="the network's metadata does not say it: give --mean and --std"):
            prepare(tmp_path / "net.onnx", ConvertOptions())
        with pytest.raises(UsageError, match="mean and std go together"):
            prepare(tmp_path / "net.onnx", ConvertOptions(mean=(1.0, 1.0, 1.0)))

    def test_classes_that_do_not_fit_the_channels(self, tmp_path: Path) -> None:
        model = toy_network(5)
        write_metadata(model, WHOLE)
        onnx.save(model, tmp_path / "net.onnx")
        with pytest.raises(LabelError, match="5 output channels, but the label set has 3 classes"):
            prepare(tmp_path / "net.onnx", ConvertOptions())
