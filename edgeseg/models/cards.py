"""What each network is and costs, without torch: for `edgeseg models`, the documentation and the tests."""

from __future__ import annotations

from edgeseg.models.card import Card, Cost
from edgeseg.models.classic_cards import CLASSIC
from edgeseg.models.light_cards import LIGHT
from edgeseg.models.residual_cards import RESIDUAL

__all__ = ["CARDS", "NOT_BUILT", "Card", "Cost"]

CARDS: dict[str, Card] = {name: card for family in (LIGHT, CLASSIC, RESIDUAL) for name, card in family.items()}
"""The card of each network of the registry, by name."""

NOT_BUILT: dict[str, str] = {
    "ReSeg": "gated recurrent units sweep over rows and columns, hundreds of float steps one after the other, with the "
    "rows of all frames in one batch: no dynamic batch, no fine-tuning; edgeseg convert refuses recurrent operators",
    "DeepMask": "proposes class-agnostic masks of objects: no class map; instances come from masklab",
    "Instance-Aware Segmentation": "multi-task cascades of boxes, masks and categories: instances come from masklab",
    "PANet": "instances from boxes on a feature pyramid: no class map; instances come from masklab",
    "OneFormer": "a transformer of some 220 million parameters, with deformable attention that needs a plug-in",
    "PSPNet-ResNet50_PSSL": "the same network as pspnet with backbone=resnet50; PSSL is a way to pre-train its weights",
    "Dense-Net": "a classifier; its dense blocks are in fcdensenet",
    "U-HRNet": "named in the literature's lists of links alone; shares no block with the networks here",
}
"""Systems of the field that `create` does not build, and why, by the name under which they are known."""
