"""What a training run is: everything that decides its result, as one value that travels in its checkpoints."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from edgeseg.errors import EdgesegError, ModelError, UsageError, unknown_name
from edgeseg.labels import LabelSet
from edgeseg.training.augment import Augmentation
from edgeseg.training.losses import LOSSES

__all__ = ["CLASS_WEIGHTS", "IMAGENET_MEAN", "IMAGENET_STD", "OPTIMIZERS", "PRECISIONS", "Recipe"]

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)
OPTIMIZERS = ("sgd", "adamw")
CLASS_WEIGHTS = ("none", "log")
PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Recipe:
    """A network, its input, and how it is trained. The optimiser's defaults are those of DSRL (section 4.2).

    Attributes:
        network: name in `edgeseg.models.NETWORKS`.
        size: (height, width) of the network's input in pixels, as it is scored and exported.
        labels: the classes, without a void channel.
        crop: (height, width) of the part of it that a step sees; None for all of it. Steps on parts are cheaper.
        options: what `edgeseg.models.create` takes beside name, classes and deploy.
        deploy: whether the variant that INT8 engines take better is trained.
        dsrl: whether the network super-resolves: then its class map is twice the size of its input.
        head: options of `SuperResolvedNetwork`.
        color_order, mean, std: of the input; frames are normalised as (x - mean) / std in 0..255 units.
        data, validation: data sets as `edgeseg.calibration.datasets.labelled_from` takes them, KIND:DIR@SPLIT.
        loss: name in `edgeseg.training.losses.LOSSES`.
        class_weights: "none", or "log" for 1 / ln(1.02 + share of the class) (ENet, arXiv 1606.02147, section 5.2).
        auxiliary_weight: of the loss of each auxiliary head.
        image_weight, affinity_weight: w1 and w2 of DSRL.
        affinity_subsampling: see `edgeseg.training.dsrl.DualSuperResolution`.
        optimizer: "sgd" with momentum, or "adamw".
        lr, momentum, weight_decay: of the optimiser; weight decay leaves biases and BatchNorm out.
        power: the learning rate is lr (1 - step / steps)^power.
        warmup: steps over which the learning rate rises linearly.
        epochs, batch: passes over the data, and frames a step over all processes.
        ema: decay of the moving average of the weights, which is what is scored and kept; 0 for none.
        augmentation: how frames are varied.
        precision: of the forward pass: "float32", or "bfloat16" or "float16" by automatic mixed precision.
        seed: of the weights, the order of the frames and the augmentation.
    """

    network: str
    size: tuple[int, int]
    labels: LabelSet
    crop: tuple[int, int] | None = None
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    deploy: bool = False
    dsrl: bool = False
    head: Mapping[str, Any] = field(default_factory=dict, hash=False)
    color_order: Literal["RGB", "BGR"] = "RGB"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    data: tuple[str, ...] = ()
    validation: str | None = None
    loss: str = "cross_entropy"
    class_weights: str = "none"
    auxiliary_weight: float = 0.4
    image_weight: float = 0.1
    affinity_weight: float = 1.0
    affinity_subsampling: int = 8
    optimizer: str = "sgd"
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    power: float = 0.9
    warmup: int = 0
    epochs: int = 100
    batch: int = 8
    ema: float = 0.0
    augmentation: Augmentation = field(default_factory=Augmentation)
    precision: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, known in (
            ("loss", self.loss, LOSSES),
            ("class weights", self.class_weights, CLASS_WEIGHTS),
            ("optimizer", self.optimizer, OPTIMIZERS),
            ("precision", self.precision, PRECISIONS),
        ):
            if value not in known:
                raise UsageError(unknown_name(name, value, known))
        for name, count, least in (
            ("epochs", self.epochs, 1),
            ("batch", self.batch, 1),
            ("height", self.size[0], 1),
            ("width", self.size[1], 1),
            ("height of the crop", self.view[0], 1),
            ("width of the crop", self.view[1], 1),
            ("the subsampling of the affinity", self.affinity_subsampling, 1),
            ("warmup", self.warmup, 0),
        ):
            if count < least:
                raise UsageError(f"{name} must be at least {least}, but is {count}")
        if self.view[0] > self.size[0] or self.view[1] > self.size[1]:
            raise UsageError(
                f"a crop is a part of the network's input, {self.size[0]}x{self.size[1]}, but is "
                f"{self.view[0]}x{self.view[1]}; give a smaller --crop or a larger --size"
            )
        for name, number in (
            ("weight decay", self.weight_decay),
            ("power", self.power),
            ("the weight of auxiliary heads", self.auxiliary_weight),
            ("the weight of the image", self.image_weight),
            ("the weight of the affinity", self.affinity_weight),
        ):
            if not (math.isfinite(number) and number >= 0):
                raise UsageError(f"{name} must be a number of at least 0, but is {number}")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise UsageError(f"the learning rate must be above 0, but is {self.lr}")
        for name, share in (("momentum", self.momentum), ("the decay of the moving average", self.ema)):
            if not 0 <= share < 1:
                raise UsageError(f"{name} must be at least 0 and below 1, but is {share}")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"the seed must be 0 to {2**32 - 1}, but is {self.seed}")

    @property
    def scale(self) -> int:
        """Size of the class map over that of the input."""
        return 2 if self.dsrl else 1

    @property
    def view(self) -> tuple[int, int]:
        """(height, width) of what the network sees in a step."""
        return self.size if self.crop is None else self.crop

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of a step, from 0, of so many: poly, after a linear rise."""
        total = max(1, steps)
        rise = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        return float(self.lr * rise * (1 - min(step, total) / total) ** self.power)

    def to_dict(self) -> dict[str, Any]:
        """The recipe in plain JSON types; `from_dict` reads it."""
        plain = dataclasses.asdict(self)
        plain["options"], plain["head"] = dict(self.options), dict(self.head)
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Recipe:
        """Read what `to_dict` gave.

        Raises:
            ModelError: for anything else.
        """
        try:
            values: dict[str, Any] = {key: _tupled(value) for key, value in plain.items()}
            labels = {key: _tupled(value) for key, value in values["labels"].items()}
            values["labels"] = LabelSet(**{**labels, "palette": tuple(map(tuple, labels["palette"]))})
            augmentation: dict[str, Any] = {key: _tupled(value) for key, value in values["augmentation"].items()}
            return cls(**{**values, "augmentation": Augmentation(**augmentation)})
        except (KeyError, TypeError, ValueError, AttributeError, EdgesegError) as error:
            raise ModelError(
                f"the checkpoint's recipe cannot be read ({error}); train with this version again"
            ) from error


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
