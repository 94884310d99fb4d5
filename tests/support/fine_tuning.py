"""Tiny quantized networks to fine-tune, on the frames of `support.training`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from support.training import recipe, run, samples, write_data

from edgeseg.calibration.datasets import labelled_from
from edgeseg.calibration.progress import SilentProgress
from edgeseg.converters.convert import Steps
from edgeseg.converters.graph import GraphIndex, copy_model, set_constant
from edgeseg.training.augment import Augmentation
from edgeseg.training.checkpoint import load_network
from edgeseg.training.qat import QuantizedNetwork, Tuned, fine_tune, tuning_recipe
from edgeseg.training.tune import quantize

__all__ = ["CPU", "PLAIN", "activation_scales", "quantized", "spoiled", "trained", "tuned"]

CPU = torch.device("cpu")
PLAIN = Augmentation((1.0, 1.0), False, 0.0)


def trained(folder: Path, epochs: int = 60, **options: Any) -> tuple[Path, Path]:
    """Data with the splits train and val, and a checkpoint trained on it."""
    data = write_data(folder / "data", 16)
    write_data(data, 8, "val")
    made = recipe(epochs=epochs, lr=0.1, augmentation=PLAIN, **options)
    run(made, data, folder / "run")
    return data, folder / "run" / "best.pt"


def quantized(checkpoint: Path, data: Path) -> QuantizedNetwork:
    """The checkpoint as it is quantized after training."""
    frames = labelled_from(f"folder:{data}", "train").frames
    return quantize(*load_network(checkpoint), frames, Steps(SilentProgress()))


def spoiled(start: QuantizedNetwork, factor: float) -> QuantizedNetwork:
    """The network with the ranges of its activations that many times as large."""
    model, index = copy_model(start.model), GraphIndex(start.model)
    for name in activation_scales(start.model):
        scale = index.constant(name)
        assert scale is not None
        set_constant(model, name, np.float32(factor) * scale)
    return QuantizedNetwork(start.manifest, model, start.table)


def activation_scales(model: onnx.ModelProto) -> list[str]:
    """Names of the scalar scales."""
    index = GraphIndex(model)
    names = [node.input[1] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    return [name for name in names if np.ndim(index.constant(name)) == 0]


def tuned(
    start: QuantizedNetwork, data: Path, *, fixed_ranges: bool = False, distill: float = 0.0, **options: Any
) -> Tuned:
    """A short run on the data's two splits."""
    made = tuning_recipe(start.manifest, **{"epochs": 5, "batch": 4, "lr": 1e-3, "augmentation": PLAIN, **options})
    return fine_tune(start, made, samples(data), samples(data, "val"), CPU, fixed_ranges=fixed_ranges, distill=distill)
