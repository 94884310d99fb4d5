"""Operators of newer opsets against what ONNX Runtime makes of them as they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from support.graphs import GraphBuilder, run_graph

from edgeseg.converters.opset import OPSET, to_target_opset
from edgeseg.errors import UnsupportedModelError

RANDOM = np.random.default_rng(0)
IMAGE = RANDOM.normal(0, 3, (1, 8, 6, 5)).astype(np.float32)


def scales(length: int) -> list[np.ndarray]:
    return [RANDOM.normal(1, 0.5, length).astype(np.float32) for _ in range(2)]


class TestOpset17:
    @pytest.mark.parametrize(
        ("op", "opset", "constants", "attributes"),
        [
            ("Gelu", 20, [], {}),
            ("Gelu", 20, [], {"approximate": "tanh"}),
            ("Mish", 18, [], {}),
            ("GroupNormalization", 21, scales(8), {"num_groups": 4, "epsilon": 0.01}),
        ],
    )
    def test_same_result(self, op: str, opset: int, constants: list[np.ndarray], attributes: dict[str, Any]) -> None:
        builder = GraphBuilder()
        names = [builder.constant(each) for each in constants]
        result = builder.add("Relu", builder.add(op, "image", *names, **attributes))
        model = builder.model(result, IMAGE.shape, IMAGE.shape, opset=opset)
        brought = to_target_opset(model)
        assert [entry.version for entry in brought.opset_import] == [OPSET]
        onnx.checker.check_model(brought, full_check=True)
        expected = run_graph(model, image=IMAGE)[0]
        np.testing.assert_allclose(run_graph(brought, image=IMAGE)[0], expected, rtol=1e-4, atol=1e-5)

    def test_computed_scales_stay_and_are_named(self) -> None:
        builder = GraphBuilder()
        scale = builder.add("Relu", builder.constant(np.ones(8, np.float32)))
        x = builder.add("GroupNormalization", "image", scale, builder.constant(np.ones(8, np.float32)), num_groups=4)
        model = builder.model(x, IMAGE.shape, IMAGE.shape, opset=21)
        with pytest.raises(UnsupportedModelError, match="GroupNormalization"):
            to_target_opset(model)
