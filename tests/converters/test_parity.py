"""The check of the canonical graph against the network as given: what the graph does, and what engines do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from support.frames import frame_folder
from support.graphs import toy_network

from edgeseg.calibration.frames import Frame, frames_from
from edgeseg.calibration.scoring import Predictor
from edgeseg.converters import parity
from edgeseg.converters.export import export
from edgeseg.converters.metadata import NetworkMetadata
from edgeseg.converters.network import as_given, canonical_reference
from edgeseg.converters.options import ConvertOptions
from edgeseg.converters.parity import agreement, check_parity
from edgeseg.converters.prepare import Prepared, prepare
from edgeseg.errors import ModelError
from edgeseg.models import create

CITYSCAPES = NetworkMetadata("RGB", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    path = tmp_path / "toy.onnx"
    onnx.save(toy_network(classes=4), path)
    return prepare(path, ConvertOptions(mean=(127.5, 127.5, 127.5), std=(63.75, 63.75, 63.75)))


@pytest.fixture
def frames(tmp_path: Path) -> list[Frame]:
    return list(frames_from(frame_folder(tmp_path / "frames", 2, 100, 100)))


def disturbed(share: float) -> Callable[..., object]:
    """What opens a network that gives another class than `as_given` on a share of the pixels."""

    @contextmanager
    def opened(prepared: Prepared, *arguments: object, **options: object) -> Iterator[Predictor]:
        with as_given(prepared) as given:

            def predict(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
                found = given(image).copy()
                found.reshape(-1)[: round(share * found.size)] += 1
                return found

            yield predict

    return opened


def test_a_network_agrees_with_itself(prepared: Prepared, frames: list[Frame]) -> None:
    seen: list[int] = []
    assert check_parity(prepared, frames, seen.append) >= 99.9
    assert seen == [1, 1]


def test_agreement(frames: list[Frame]) -> None:
    other = np.zeros((100, 100), np.uint8)
    other[:, :20] = 1
    assert agreement(lambda _: other, lambda _: np.zeros_like(other), frames) == pytest.approx(80.0)


def test_another_graph_is_refused(prepared: Prepared, frames: list[Frame], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "network_on_cpu", disturbed(0.01))
    monkeypatch.setattr(parity, "canonical_reference", disturbed(0.01))
    with pytest.raises(ModelError, match=r"simplified graph agrees with the given network on 99\.00 % .*report"):
        check_parity(prepared, frames)


def test_engines_may_round(
    prepared: Prepared, frames: list[Frame], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(parity, "network_on_cpu", disturbed(0.01))
    assert check_parity(prepared, frames) == pytest.approx(99.0)
    assert "rounding alone changes the class of 1.00 % of the pixels" in caplog.text


def test_engines_that_compute_something_else(
    prepared: Prepared, frames: list[Frame], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "network_on_cpu", disturbed(0.05))
    with pytest.raises(ModelError, match=r"the same class on 95\.00 % of the pixels in float32, expected 98 %"):
        check_parity(prepared, frames)


def test_no_maximum_moves_in_the_canonical_graph(tmp_path: Path) -> None:
    """SegNet goes on with the place of each window's largest value: equal to the last bit, or another network."""
    torch.manual_seed(0)
    export(create("segnet", classes=5, width=0.125).eval(), (96, 128), tmp_path / "segnet.onnx", CITYSCAPES)
    prepared = prepare(tmp_path / "segnet.onnx", ConvertOptions())
    noise = [Frame(str(i), np.random.default_rng(i).integers(0, 256, (96, 128, 3), np.uint8)) for i in range(4)]
    with as_given(prepared) as given, canonical_reference(prepared) as canonical:
        for frame in noise:
            np.testing.assert_array_equal(given(frame.image), canonical(frame.image))
