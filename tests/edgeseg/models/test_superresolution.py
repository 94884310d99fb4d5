"""The deployed half of DSRL: sizes, parameters, and what is left of the base."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
import torch
from support.networks import SMALL
from torch import Tensor, nn

import edgeseg.models
from edgeseg.converters.export import export
from edgeseg.errors import UsageError
from edgeseg.models import create_dsrl
from edgeseg.models.cards import CARDS
from edgeseg.models.network import SegmentationNetwork
from edgeseg.models.superresolution import SuperResolvedNetwork
from edgeseg.training.dsrl import DualSuperResolution
from edgeseg.training.losses import CrossEntropy


class Tiny(SegmentationNetwork):
    """A network of one convolution, one auxiliary head and a prediction that shares its activation with the rest."""

    feature_channels = 40

    def __init__(self, classes: int = 5, deploy: bool = False, stride: int = 8) -> None:
        super().__init__(classes)
        self.feature_stride = stride
        self.body = nn.Conv2d(3, 40, stride, stride, bias=False)
        self.relu = nn.ReLU()
        self.last = nn.ModuleDict({"hidden": nn.Conv2d(40, 7, 1), "out": nn.Conv2d(7, classes, 1)})
        self.auxiliary = nn.ModuleList([nn.Conv2d(40, classes, 1)])

    def encode(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        features = self.relu(self.body(image))
        return features, [features] if self.training else []

    def predict(self, features: Tensor) -> Tensor:
        logits: Tensor = self.last["out"](self.relu(self.last["hidden"](features)))
        return logits


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("stride", "steps"), [(2, 1), (4, 1), (8, 2), (16, 3)])
@pytest.mark.parametrize("kernel", [2, 4])
def test_logits_have_twice_the_size(stride: int, steps: int, kernel: int) -> None:
    network = SuperResolvedNetwork(Tiny(stride=stride), channels=8, kernel=kernel).eval()
    image = torch.randn(1, 3, 48, 80)
    features, _ = network.encode(image)
    assert network.steps == steps
    assert features.shape == (1, 8, 48 // network.feature_stride, 80 // network.feature_stride)
    assert network(image).shape == (1, 5, 96, 160)


def test_takes_sizes_that_the_stride_does_not_divide() -> None:
    assert SuperResolvedNetwork(Tiny()).eval()(torch.randn(1, 3, 37, 50)).shape == (1, 5, 74, 100)


def test_gives_auxiliary_logits_in_training_alone() -> None:
    network = SuperResolvedNetwork(Tiny())
    outputs = network.train()(torch.randn(2, 3, 16, 16))
    assert [tuple(o.shape) for o in outputs] == [(2, 5, 32, 32)] * 2
    assert isinstance(network.eval()(torch.randn(2, 3, 16, 16)), Tensor)


def test_keeps_the_base_without_its_prediction() -> None:
    base = Tiny()
    weight = base.body.weight.detach().clone()
    network = SuperResolvedNetwork(base).eval()
    assert torch.equal(network.base.body.weight, weight)
    assert isinstance(base.relu, nn.ReLU), "encode needs it"
    assert not any("last" in name or "base.auxiliary" in name for name in network.state_dict())
    # 40 -> 32 by 1x1, twice 32 -> 32 by 2x2, three BatchNorms, 32 -> 5.
    head = 40 * 32 + 2 * (32 * 32 * 4) + 3 * 2 * 32 + 32 * 5 + 5
    assert parameters(network) == 3 * 40 * 64 + head
    assert parameters(network.train()) == 3 * 40 * 64 + head + 40 * 5 + 5


def test_narrow_features_are_not_reduced() -> None:
    network = SuperResolvedNetwork(Tiny(), channels=40)
    assert isinstance(network.expand[0], nn.ConvTranspose2d)


@pytest.mark.parametrize("training", [False, True])
def test_leaves_the_mode_as_it_was(training: bool) -> None:
    base = Tiny().train(training)
    SuperResolvedNetwork(base)
    assert base.training is training


class Functional(Tiny):
    def predict(self, features: Tensor) -> Tensor:
        return features[:, : self.classes]


@pytest.mark.parametrize(
    ("base", "options", "message"),
    [
        (Tiny(), {"kernel": 3}, "kernel must be 2 or 4, but is 3"),
        (Tiny(), {"channels": 0}, "channels must be at least 1"),
        (Tiny(stride=6), {}, "stride of 2, 4, 8, ..., but it is 6"),
        (Tiny(stride=1), {}, "stride of 2, 4, 8, ..., but it is 1"),
        (SuperResolvedNetwork(Tiny()), {}, "at the size of its image"),
        (Functional(), {}, "Functional.predict runs no layer"),
    ],
)
def test_refuses(base: SegmentationNetwork, options: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SuperResolvedNetwork(base, **options)


class TestCreate:
    @pytest.fixture(autouse=True)
    def _registry(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(edgeseg.models.NETWORKS, "tiny", "tiny_network:Tiny")
        monkeypatch.setattr(edgeseg.models, "import_module", lambda _: SimpleNamespace(Tiny=Tiny))

    def test_builds_by_name(self) -> None:
        network = create_dsrl("tiny", classes=4, stride=4, head={"channels": 16})
        assert (network.classes, network.base.feature_stride, network.feature_channels) == (4, 4, 16)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"head": {"base": 3}}, "the head has no option base; it has channels, kernel"),
            ({"head": {"depth": 3}}, "the head has no option depth; it has channels, kernel"),
            ({"depth": 3}, "tiny has no option depth; it has stride"),
        ],
    )
    def test_refuses(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(UsageError, match=message):
            create_dsrl("tiny", **options)


def test_the_graph_holds_base_and_head_alone(tmp_path: Path) -> None:
    dual = DualSuperResolution(SuperResolvedNetwork(Tiny()), CrossEntropy())
    written = export(dual.network, (32, 48), tmp_path / "tiny.onnx")
    graph = onnx.load(written.path).graph
    operators = sorted(node.op_type for node in graph.node)
    assert not {"DepthToSpace", "BatchNormalization"} & set(operators)
    # The base's convolution, the head's reduction and prediction; neither restoration, transform nor old prediction.
    assert operators.count("Conv") == 3
    assert operators.count("ConvTranspose") == 2
    assert written.output_shape == (1, 5, 64, 96)
    assert written.parameters == parameters(dual.network.eval()) == parameters(SuperResolvedNetwork(Tiny()).eval())
    assert not any("restoration" in t.name or "transform" in t.name for t in graph.initializer)


def macs(network: nn.Module, size: tuple[int, int]) -> int:
    """Multiply-accumulates of every convolution of a network on one image."""
    total = 0

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        if isinstance(layer, nn.ConvTranspose2d):
            total += inputs[0].numel() * layer.weight[0].numel()
        elif isinstance(layer, nn.Conv2d):
            total += output.numel() * layer.weight[0].numel()

    hooks = [module.register_forward_hook(count) for module in network.modules()]
    with torch.inference_mode():
        network.eval()(torch.zeros(1, 3, *size))
    for hook in hooks:
        hook.remove()
    return total


def test_counts_by_hand() -> None:
    network = SuperResolvedNetwork(Tiny())
    body, head = 3 * 40 * 64, 40 * 32 + 32 * 32 * 4 + 4 * (32 * 32 * 4) + 16 * (32 * 5)
    assert macs(network, (16, 24)) == 6 * (body + head)


@pytest.mark.parametrize(
    ("name", "options"), [("dabnet", {}), ("espnet", {}), ("espnetv2", {"width": 2.0}), ("fastscnn", {})]
)
def test_half_the_resolution_costs_at_most_40_percent(name: str, options: dict[str, Any]) -> None:
    plain = edgeseg.models.create(name, **options)
    whole = macs(plain, (384, 512))
    network = create_dsrl(name, **options)
    head = parameters(network.expand) + parameters(network.prediction)
    assert macs(network, (192, 256)) <= 0.4 * whole
    assert parameters(network.eval()) < parameters(plain.eval()) + head, "the old prediction is still there"
    assert parameters(network) == parameters(network.base) + head
    assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 19, 128, 128)
    assert [type(m).__name__ for m in network.train()(torch.zeros(2, 3, 64, 64))] == ["Tensor"] * (
        1 + len(plain.auxiliary)
    )


WRAPPED = sorted(name for name, card in CARDS.items() if card.stride > 1)


@pytest.mark.parametrize("name", WRAPPED)
def test_every_network_with_coarser_features_takes_the_head(name: str) -> None:
    """Logits at twice the size of an image that the stride of 16 does not divide, and every weight in the loss."""
    options = SMALL.get(name, {})
    network = create_dsrl(name, classes=3, deploy=True, **options)
    outputs = network.train()(torch.randn(2, 3, 56, 88, generator=torch.Generator().manual_seed(0)))
    assert [tuple(logits.shape) for logits in outputs] == [(2, 3, 112, 176)] * (1 + len(network.auxiliary))
    torch.stack([logits.square().mean() for logits in outputs]).sum().backward()
    instances = ("base.direction", "base.proposal", "base.box", "base.mask")
    left = [n for n, p in network.named_parameters() if p.grad is None]
    assert [n for n in left if name != "masklab" or not n.startswith(instances)] == []
    base = edgeseg.models.create(name, classes=3, deploy=True, **options).eval()
    head = parameters(network.eval().expand) + parameters(network.prediction)
    assert parameters(network) == parameters(network.base) + head
    assert parameters(network.base) < parameters(base), "the old prediction is still there"


def test_what_the_base_does_not_deploy_is_dropped() -> None:
    """A detector is neither exported nor counted."""
    network = create_dsrl("masklab", classes=3, **SMALL["masklab"]).eval()
    image = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        expected = network(image)
        network.drop_undeployed()
        assert torch.equal(network(image), expected)
    base = network.base
    assert {name for name, module in base.named_children() if [*module.parameters()]} == {"backbone"}


@pytest.mark.parametrize("name", sorted(set(CARDS) - set(WRAPPED)))
def test_networks_with_features_of_the_image_s_size_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"must have a stride of 2, 4, 8, \.\.\., but it is 1"):
        create_dsrl(name, **SMALL.get(name, {}))


@pytest.mark.parametrize("name", ["pspnet", "deeplabv3plus", "bisenetv1", "dabnet", "espnetv2"])
def test_the_networks_of_the_paper_s_kind_are_among_them(name: str) -> None:
    assert name in WRAPPED
