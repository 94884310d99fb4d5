"""DSRL around every network of the registry: a step of training, and what is left of it in the exported graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from support.costs import count_parameters
from support.networks import SMALL
from torch import nn
from torch.nn import functional

from edgeseg.converters.export import export
from edgeseg.errors import UsageError
from edgeseg.models import create_dsrl
from edgeseg.models.cards import CARDS
from edgeseg.training.dsrl import DualSuperResolution
from edgeseg.training.losses import CrossEntropy

CLASSES, HEIGHT, WIDTH, CHANNELS = 5, 64, 96, 8
OPTIONS: dict[str, dict[str, Any]] = {**SMALL, "espnet": {"q": 3}, "bisenetv1": {"backbone": "xception39"}}
STRIDED = [name for name, card in sorted(CARDS.items()) if card.stride > 1]
QUICK = ("deeplabv1", "espnet", "parsenet")
"""Torch's exporter takes half a minute for the hundreds of nodes of the others."""


def build(name: str, deploy: bool = False) -> DualSuperResolution:
    torch.manual_seed(0)
    options = OPTIONS.get(name, {})
    network = create_dsrl(name, classes=CLASSES, deploy=deploy, head={"channels": CHANNELS}, **options)
    return DualSuperResolution(network, CrossEntropy(), width=CHANNELS)


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    high = torch.randn(2, 3, 2 * HEIGHT, 2 * WIDTH)
    return functional.avg_pool2d(high, 2), high, torch.randint(0, CLASSES, (2, 2 * HEIGHT, 2 * WIDTH))


def test_covers_the_networks_that_published_results_are_of() -> None:
    assert {"pspnet", "deeplabv3plus", "bisenetv1", "bisenetv2", "dabnet", "espnetv2"} <= set(STRIDED)


@pytest.mark.parametrize("name", STRIDED)
class TestStep:
    def test_trains_both_heads_and_what_is_before_them(self, name: str) -> None:
        training = build(name)
        heads = len(training.network.auxiliary)
        optimizer = torch.optim.SGD(training.parameters(), 1e-3)
        parts = training(*batch())
        expected = {"loss", "segmentation", "image", "affinity"} | ({"auxiliary"} if heads else set())
        assert set(parts) == expected
        assert all(bool(part.isfinite()) for part in parts.values()), parts
        parts["loss"].backward()
        new = ("network.expand.", "network.prediction.", "network.auxiliary.", "restoration.", "transform.")
        for module, parameter in training.named_parameters():
            if module.startswith(new):
                assert parameter.grad is not None, module
                assert parameter.grad.isfinite().all(), module
                assert parameter.grad.abs().sum() > 0, module
        first = next(m for m in training.network.base.modules() if isinstance(m, nn.Conv2d))
        assert first.weight.grad is not None
        assert first.weight.grad.abs().sum() > 0
        optimizer.step()
        assert all(bool(part.isfinite()) for part in training(*batch()).values())

    def test_gives_twice_the_size(self, name: str) -> None:
        network = build(name).network
        with torch.inference_mode():
            logits = network.eval()(torch.zeros(1, 3, HEIGHT, WIDTH))
            smaller = network(torch.zeros(1, 3, 40, 72))
        assert logits.shape == (1, CLASSES, 2 * HEIGHT, 2 * WIDTH)
        assert smaller.shape == (1, CLASSES, 80, 144)


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in QUICK else [pytest.mark.slow]) for n in STRIDED])
def test_the_graph_holds_nothing_of_training(name: str, tmp_path: Path) -> None:
    dual = build(name, deploy=True)
    with torch.no_grad():
        dual(*batch())  # so that BatchNorm has seen frames
    written = export(dual.network.eval(), (HEIGHT, WIDTH), tmp_path / "net.onnx")
    graph = onnx.load(written.path).graph
    assert written.output_shape == (1, CLASSES, 2 * HEIGHT, 2 * WIDTH)
    dual.network.drop_undeployed()
    assert written.parameters == count_parameters(dual.network.base) + sum(
        count_parameters(part) for part in (dual.network.expand, dual.network.prediction)
    )
    assert "DepthToSpace" not in {node.op_type for node in graph.node}, "the restoration shuffles pixels"
    stored = {tuple(t.dims) for t in graph.initializer}
    assert (4 * CHANNELS, CHANNELS, 3, 3) not in stored
    assert not any(part in t.name for t in graph.initializer for part in ("restoration", "transform", "auxiliary"))
    grown = sum(node.op_type == "ConvTranspose" for node in graph.node)
    assert grown == dual.network.steps + sum(isinstance(m, nn.ConvTranspose2d) for m in dual.network.base.modules())


@pytest.mark.parametrize("name", sorted(set(CARDS) - set(STRIDED)))
def test_networks_without_strided_features_say_so(name: str) -> None:
    with pytest.raises(UsageError, match=r"features of the base must have a stride of 2, 4, 8, \.\.\., but it is 1"):
        create_dsrl(name, classes=CLASSES, **OPTIONS.get(name, {}))
