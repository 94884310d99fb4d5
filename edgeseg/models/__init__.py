"""The light networks of the field, in torch: create one by name, load weights, know what it costs.

    network = create("espnetv2", width=2.0, classes=20)

A network turns images (N, 3, H, W) float32 into logits; see `edgeseg.models.network.SegmentationNetwork`. Its card says
where it comes from and what it costs: see `edgeseg.models.cards`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from edgeseg.errors import UsageError, unknown_name
from edgeseg.libraries import require

if TYPE_CHECKING:
    from edgeseg.models.network import SegmentationNetwork
    from edgeseg.models.superresolution import SuperResolvedNetwork

__all__ = ["NETWORKS", "create", "create_dsrl"]

NETWORKS: dict[str, str] = {
    "bisenetv1": "edgeseg.models.bisenetv1:BiSeNetV1",
    "bisenetv2": "edgeseg.models.bisenetv2:BiSeNetV2",
    "crfasrnn": "edgeseg.models.crfasrnn:CRFasRNN",
    "dabnet": "edgeseg.models.dabnet:DABNet",
    "danet": "edgeseg.models.danet:DANet",
    "deeplabv1": "edgeseg.models.deeplabv1:DeepLabv1",
    "deeplabv3": "edgeseg.models.deeplabv3:DeepLabv3",
    "deeplabv3plus": "edgeseg.models.deeplabv3plus:DeepLabv3Plus",
    "espnet": "edgeseg.models.espnet:ESPNet",
    "espnetv2": "edgeseg.models.espnetv2:ESPNetv2",
    "fastfcn": "edgeseg.models.fastfcn:FastFCN",
    "fastscnn": "edgeseg.models.fastscnn:FastSCNN",
    "fcdensenet": "edgeseg.models.fcdensenet:FCDenseNet",
    "fcn": "edgeseg.models.fcn:FCN",
    "gatedscnn": "edgeseg.models.gatedscnn:GatedSCNN",
    "masklab": "edgeseg.models.masklab:MaskLab",
    "parsenet": "edgeseg.models.parsenet:ParseNet",
    "pspnet": "edgeseg.models.pspnet:PSPNet",
    "refinenet": "edgeseg.models.refinenet:RefineNet",
    "segnet": "edgeseg.models.segnet:SegNet",
    "unet": "edgeseg.models.unet:UNet",
}
"""Where each network's class is, by name; its module is imported when it is asked for."""


def create(name: str, *, classes: int = 19, deploy: bool = False, **options: Any) -> SegmentationNetwork:
    """Build a network with fresh weights.

    Args:
        name: a key of `NETWORKS`.
        classes: number of logits per pixel.
        deploy: build the documented variant that INT8 engines take better; see the network's class.
        options: the network's own, such as `width` of espnetv2.

    Raises:
        UsageError: for an unknown name, an option that the network does not have, or a value that it does not take.
        MissingDependencyError: without torch.
    """
    if name not in NETWORKS:
        raise UsageError(unknown_name("network", name, NETWORKS))
    if classes < 1:
        raise UsageError(f"classes must be at least 1, but is {classes}")
    require("torch", "build and train networks")
    module, _, kind = NETWORKS[name].partition(":")
    network = getattr(import_module(module), kind)
    _check_options(name, network, options)
    built: SegmentationNetwork = network(classes=classes, deploy=deploy, **options)
    return built


def create_dsrl(
    name: str, *, classes: int = 19, deploy: bool = False, head: Mapping[str, Any] | None = None, **options: Any
) -> SuperResolvedNetwork:
    """Build a network whose class map is twice the size of its image, with fresh weights.

    Args:
        name, classes, deploy, options: see `create`.
        head: options of `edgeseg.models.superresolution.SuperResolvedNetwork`, such as `channels`.

    Raises:
        UsageError: as `create`, and for an option that the head does not have or a value that it does not take.
        MissingDependencyError: without torch.
    """
    base = create(name, classes=classes, deploy=deploy, **options)
    # torch is needed from here on.
    from edgeseg.models.superresolution import SuperResolvedNetwork

    _check_options("the head", SuperResolvedNetwork, head or {})
    return SuperResolvedNetwork(base, **head or {})


def _check_options(owner: str, network: Callable[..., Any], options: Mapping[str, Any]) -> None:
    known = [p for p in inspect.signature(network).parameters if p not in ("base", "classes", "deploy")]
    for option in options:
        if option not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise UsageError(f"{owner} has no option {option}; {has}")
