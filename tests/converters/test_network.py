"""Networks opened for the proof: what is compiled for it, and that the class maps are the same either way."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from support.graphs import random_frame, toy_network

from edgeseg.converters.network import network_on_cpu
from edgeseg.converters.options import ConvertOptions
from edgeseg.converters.prepare import Prepared, prepare
from edgeseg.errors import MissingDependencyError


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    onnx.save(toy_network(classes=4), tmp_path / "toy.onnx")
    return prepare(tmp_path / "toy.onnx", ConvertOptions(mean=(127.5,) * 3, std=(63.75,) * 3))


def test_nothing_is_compiled_for_a_few_frames(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = random_frame(96, 80)
    with network_on_cpu(prepared, prepared.model, prepared.output) as predict:
        expected = predict(frame)
    assert len(np.unique(expected)) > 1
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.setattr("edgeseg.kernels._compiled", {})
    with network_on_cpu(prepared, prepared.model, prepared.output, frames=2) as predict:
        np.testing.assert_array_equal(predict(frame), expected)
    with pytest.raises(MissingDependencyError, match="numba"):
        network_on_cpu(prepared, prepared.model, prepared.output, frames=10**6).__enter__()
