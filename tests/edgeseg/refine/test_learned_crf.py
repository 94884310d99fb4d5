"""What CRF-as-RNN learned, without torch: equal to the dense CRF where it is one, its file, its messages."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeseg.errors import InputError, ShapeError, UsageError
from edgeseg.refine import PRESETS, LearnedCRF, refinement
from edgeseg.refine.learned_crf import message_filters

CLASSES = 3
EYE = np.eye(CLASSES, dtype=np.float32)


def picture(height: int = 16, width: int = 20) -> NDArray[np.uint8]:
    frame = np.zeros((height, width, 3))
    frame[:, : width // 2], frame[:, width // 2 :] = (60, 80, 120), (180, 150, 90)
    return (frame + np.random.default_rng(0).normal(0, 2, frame.shape)).astype(np.uint8)


def scores(seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 2, (CLASSES, 16, 20)).astype(np.float32)


def learned(**changes: Any) -> LearnedCRF:
    """Matrices that a training may give: no two alike, none symmetric."""
    random = np.random.default_rng(1)
    noise = random.normal(0, 0.3, (3, CLASSES, CLASSES)).astype(np.float32)
    return dataclasses.replace(LearnedCRF(2 * EYE + noise[0], EYE + noise[1], noise[2] - EYE), **changes)


def softmax(values: NDArray[np.float64]) -> NDArray[np.float64]:
    raised = np.exp(values - values.max(axis=0))
    return raised / raised.sum(axis=0)


class TestRefines:
    def test_before_training_as_the_preset(self) -> None:
        found = LearnedCRF(5 * EYE, 3 * EYE, -EYE)(scores(), picture())
        np.testing.assert_allclose(found, PRESETS["crfasrnn"](scores(), picture()), atol=1e-5)

    @pytest.mark.parametrize("iterations", [0, 1, 4])
    def test_as_the_formula(self, iterations: int) -> None:
        crf = learned(iterations=iterations)
        kernels = [f(np.eye(320, dtype=np.float32)).astype(np.float64) for f in message_filters(picture(), 160, 3, 3)]
        logits = scores().reshape(CLASSES, -1).astype(np.float64)
        belief = softmax(logits)
        for _ in range(iterations):
            message = crf.appearance @ (belief @ kernels[0].T) + crf.smoothness @ (belief @ kernels[1].T)
            belief = softmax(logits - crf.compatibility @ message)
        found = crf(scores(), picture())
        assert found.dtype == np.float32
        np.testing.assert_allclose(found.reshape(CLASSES, -1), belief, atol=1e-4)

    def test_widths_count(self) -> None:
        wide = learned(colour_deviation=200.0)(scores(), picture())
        assert np.abs(wide - learned()(scores(), picture())).max() > 0.01

    def test_refuses_another_number_of_classes(self) -> None:
        with pytest.raises(ShapeError, match="were learned with 3 classes, but the network has 4"):
            learned()(np.zeros((4, 16, 20), np.float32), picture())

    def test_refuses_what_is_no_frame(self) -> None:
        with pytest.raises(ShapeError, match="of the frame's size"):
            learned()(scores(), picture(8, 8))


class TestFile:
    def test_comes_back_to_the_bit(self, tmp_path: Path) -> None:
        crf = learned(iterations=7, position_deviation=80.0)
        (tmp_path / "net.crf.json").write_text(crf.to_json())
        found = refinement("densecrf", str(tmp_path / "net.crf.json"))
        assert isinstance(found, LearnedCRF)
        for field in dataclasses.fields(LearnedCRF):
            assert np.array_equal(getattr(found, field.name), getattr(crf, field.name))
        assert np.array_equal(found(scores(), picture()), crf(scores(), picture()))

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("{", "is no JSON file; give the .crf.json that `edgeseg export` wrote"),
            ("[]", "does not hold the parameters of a CRF (format edgeseg-crf-1)"),
            ('{"format": "other"}', "does not hold the parameters of a CRF (format edgeseg-crf-1)"),
            ('{"format": "edgeseg-crf-1"}', "does not hold the parameters of a CRF ('appearance')"),
        ],
    )
    def test_refuses_other_files(self, tmp_path: Path, text: str, message: str) -> None:
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(InputError) as caught:
            LearnedCRF.read(tmp_path / "x.json")
        assert message in str(caught.value)

    def test_refuses_changed_numbers(self, tmp_path: Path) -> None:
        plain = json.loads(learned().to_json())
        for name, value, message in (
            ("appearance", [[1.0, 2.0]], "appearance must be a finite float32 matrix"),
            ("smoothness", [[1.0, 2.0], [3.0]], "does not hold the parameters of a CRF"),
            ("compatibility", "none", "does not hold the parameters of a CRF"),
            ("iterations", -1, "iterations must be at least 0, but is -1"),
            ("iterations", 2.5, "does not hold the parameters of a CRF"),
            ("position_deviation", 10**400, "does not hold the parameters of a CRF"),
            ("colour_deviation", 0, "colour_deviation must be 0.1 to 10000, but is 0.0"),
        ):
            (tmp_path / "x.json").write_text(json.dumps({**plain, name: value}))
            with pytest.raises(InputError, match=message):
                LearnedCRF.read(tmp_path / "x.json")

    def test_refuses_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="cannot read the CRF's parameters"):
            LearnedCRF.read(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"smoothness": np.zeros((2, 3), np.float32)}, r"smoothness must be a finite .* for each of 3 classes"),
        ({"compatibility": EYE.astype(np.float64)}, "compatibility must be a finite float32 matrix"),
        ({"appearance": EYE * np.float32(np.nan)}, "appearance must be a finite"),
        ({"position_deviation": 0.0}, "position_deviation must be 0.1 to 10000"),
        ({"iterations": -2}, "iterations must be at least 0, but is -2"),
    ],
)
def test_refuses_parameters(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        learned(**changes)
