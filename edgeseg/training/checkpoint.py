"""Checkpoints: what a training run needs to go on, and what export needs to deploy, in one file without code."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from edgeseg.errors import ModelError, OutputError
from edgeseg.models import create, create_dsrl
from edgeseg.models.crfasrnn import CRFasRNN
from edgeseg.models.network import SegmentationNetwork
from edgeseg.training.recipe import Recipe

__all__ = ["FORMAT", "build_network", "load_network", "read_checkpoint", "restore", "save_checkpoint"]

FORMAT = "edgeseg-checkpoint-1"


def build_network(recipe: Recipe) -> SegmentationNetwork:
    """The network that a recipe trains, with fresh weights.

    Raises:
        UsageError: for a network or an option that does not exist.
    """
    classes, deploy = len(recipe.labels), recipe.deploy
    if recipe.dsrl:
        return create_dsrl(recipe.network, classes=classes, deploy=deploy, head=recipe.head, **recipe.options)
    network = create(recipe.network, classes=classes, deploy=deploy, **recipe.options)
    if isinstance(network, CRFasRNN):
        network.normalised_by(recipe.mean, recipe.std)
    return network


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint beside its place and rename it, so that an interruption leaves the old one.

    Args:
        path: the file.
        state: tensors and plain values; `FORMAT` is added.

    Raises:
        OutputError: when it cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            torch.save({"format": FORMAT, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except (OSError, RuntimeError) as error:
        # torch's writer turns a full disk into a RuntimeError, which holds the reason as its context.
        cause = error.__context__ if isinstance(error.__context__, OSError) else error
        why = cause.strerror if isinstance(cause, OSError) else str(cause).partition("\n")[0]
        raise OutputError(f"cannot write the checkpoint {path}: {why}; free space or choose another folder") from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint; nothing in it is executed.

    Raises:
        ModelError: for a file that is missing, damaged, or no checkpoint of this package.
    """
    try:
        content = io.BytesIO(Path(path).read_bytes())
    except OSError as error:
        raise ModelError(f"cannot read the checkpoint {path}: {error.strerror or error}") from error
    try:
        state = torch.load(content, map_location="cpu", weights_only=True)
    except Exception as error:  # what torch raises for a foreign or damaged file depends on the bytes in it
        raise ModelError(
            f"{path} is not a checkpoint of edgeseg train, or is damaged; train again or name another"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise ModelError(f"{path} is not a checkpoint of edgeseg train (it lacks format {FORMAT})")
    lacking = [key for key in ("recipe", "network") if key not in state]
    if lacking:
        raise ModelError(f"the checkpoint {path} lacks {' and '.join(lacking)}; train again or name another")
    return state


def load_network(path: str | Path) -> tuple[SegmentationNetwork, Recipe]:
    """The network of a checkpoint, ready to deploy.

    Args:
        path: best.pt or last.pt of a training run.

    Returns:
        The network in `eval()`, with the moving average of its weights where the run kept one, and its recipe.

    Raises:
        ModelError: for a file that is no checkpoint, or whose weights do not fit its recipe.
    """
    state = read_checkpoint(path)
    recipe = Recipe.from_dict(state["recipe"])
    network = build_network(recipe)
    restore(network, state["ema"] if state.get("ema") is not None else state["network"], path)
    return network.eval(), recipe


def restore(module: torch.nn.Module, weights: Mapping[str, Any], path: str | Path) -> None:
    """Put weights into a module strictly.

    Raises:
        ModelError: naming the first tensors that differ.
    """
    own = module.state_dict()
    missing, extra = sorted(set(own) - set(weights)), sorted(set(weights) - set(own))
    other = [name for name in own if name in weights and own[name].shape != weights[name].shape]
    if missing or extra or other:
        said = [
            f"{what} {', '.join(names[:3])}{' and more' if len(names) > 3 else ''}"
            for what, names in (("lacks", missing), ("has beyond it", extra), ("has other shapes for", other))
            if names
        ]
        raise ModelError(f"{path} is of another network: it {'; it '.join(said)}")
    module.load_state_dict(weights)
