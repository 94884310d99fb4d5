"""What float layers cost on a target."""

from __future__ import annotations

import onnx
import pytest
from support.graphs import GraphBuilder

from edgeseg.converters.costs import float_costs
from edgeseg.converters.options import TARGETS
from edgeseg.converters.place import plan_placement
from edgeseg.errors import UsageError


@pytest.fixture
def network() -> onnx.ModelProto:
    builder = GraphBuilder()
    x = builder.conv("image", 3, 32, name="first")
    x = builder.conv(x, 32, 32, name="wide")
    x = builder.conv(x, 32, 32, group=32, name="depthwise")
    x = builder.conv(x, 32, 8, kernel=1, name="few")
    return builder.model(x)


def test_a_cpu_gains_from_every_layer(network: onnx.ModelProto) -> None:
    layers = plan_placement(network).layers
    costs = float_costs(network, layers, "cpu")
    assert costs == {layer.name: pytest.approx(3 * layer.macs) for layer in layers}


@pytest.mark.parametrize("target", ["orin", "thor"])
def test_tensor_cores_gain_from_wide_layers_alone(target: str, network: onnx.ModelProto) -> None:
    layers = {layer.name: layer.macs for layer in plan_placement(network).layers}
    costs = float_costs(network, plan_placement(network).layers, target)
    assert costs["wide"] == layers["wide"]
    for name in ("first", "depthwise", "few"):
        assert 0 < costs[name] < 0.05 * layers[name]


def test_every_target_has_costs(network: onnx.ModelProto) -> None:
    layers = plan_placement(network).layers
    assert all(min(float_costs(network, layers, target).values()) > 0 for target in TARGETS)


def test_an_unknown_target(network: onnx.ModelProto) -> None:
    with pytest.raises(UsageError, match="orin"):
        float_costs(network, plan_placement(network).layers, "orion")
