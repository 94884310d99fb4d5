"""The networks that ship with the package: small, with a card, and complete enough for convert to need no options."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from edgeseg.converters.lint import lint
from edgeseg.converters.metadata import read_metadata
from edgeseg.errors import UsageError
from edgeseg.labels import load_labels
from edgeseg.zoo import SHIPPED, network_file, shipped_path

LARGEST = 4_000_000


@pytest.mark.parametrize("name", SHIPPED)
class TestShipped:
    def test_is_small_and_has_a_card(self, name: str) -> None:
        path = shipped_path(name)
        assert path.stat().st_size <= LARGEST
        card = path.with_suffix(".md").read_text("utf-8")
        for word in ("CC BY-NC 4.0", "research", "edgeseg train", "seed", "mean IoU"):
            assert word in card

    def test_says_all_that_convert_asks(self, name: str) -> None:
        path = shipped_path(name)
        metadata = read_metadata(onnx.load(path), str(path))
        assert metadata.name == name
        assert metadata.color_order == "RGB"
        assert metadata.mean is not None
        assert metadata.std is not None
        assert metadata.classes is not None
        assert metadata.classes.names == load_labels("camvid").names
        assert metadata.licence is not None
        assert "CC BY-NC 4.0" in metadata.licence

    def test_has_no_findings(self, name: str) -> None:
        assert not lint(onnx.load(shipped_path(name)))


def test_unknown_name_gives_the_nearest() -> None:
    with pytest.raises(UsageError, match=f"did you mean {SHIPPED[0]}"):
        shipped_path(SHIPPED[0][:-1])


def test_a_name_is_taken_for_the_shipped_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert network_file(SHIPPED[0]) == shipped_path(SHIPPED[0])
    assert network_file("other.onnx") == Path("other.onnx")
    (tmp_path / SHIPPED[0]).write_bytes(b"the user's own")
    assert network_file(SHIPPED[0]) == Path(SHIPPED[0])
