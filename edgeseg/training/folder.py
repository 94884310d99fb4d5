"""The folder of a training run: claimed by a new run, opened again by one that goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeseg.errors import OutputError, UsageError
from edgeseg.training.checkpoint import read_checkpoint
from edgeseg.training.recipe import Recipe

__all__ = ["BEST", "LAST", "RECIPE", "open_folder"]

LAST, BEST, RECIPE = "last.pt", "best.pt", "recipe.json"

_KEPT = {
    "recipe", "network", "ema", "averaged", "heads", "optimizer", "scaler",
    "epoch", "step", "best", "best_epoch", "loss",
}  # fmt: skip
"""What a run needs to go on."""


def open_folder(folder: Path, recipe: Recipe, resume: bool) -> dict[str, Any] | None:
    """Make the folder of a new run, with its recipe for a person to read, or find the run to go on with.

    Args:
        folder: of the run.
        recipe: what is to be trained.
        resume: whether the folder's run goes on.

    Returns:
        What last.pt holds for a run that goes on, None for a new one.

    Raises:
        UsageError: for a new run where one is, none where one is to go on, or one that was trained otherwise.
        ModelError: for a checkpoint that cannot be read.
        OutputError: when the folder cannot be written.
    """
    try:
        found = (folder / LAST).exists()
        if resume:
            return _state(folder, recipe, found)
        if found:
            raise UsageError(
                f"{folder} holds a training run; go on with it by --resume, or choose another folder with -o"
            )
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RECIPE).write_text(json.dumps(recipe.to_dict(), indent=2) + "\n", "utf-8")
    except OSError as error:
        raise OutputError(f"cannot write into the folder {folder}: {error.strerror}; choose another with -o") from error
    return None


def _state(folder: Path, recipe: Recipe, found: bool) -> dict[str, Any]:
    path = folder / LAST
    if not found:
        raise UsageError(f"there is no run to go on with: {path} does not exist; leave --resume out, or correct -o")
    state = read_checkpoint(path)
    if not state.keys() >= _KEPT or state["optimizer"] is None:
        raise UsageError(
            f"{path} holds weights alone, with which no run can go on; start from them with --weights and another -o"
        )
    earlier = Recipe.from_dict(state["recipe"])
    if earlier != recipe:
        raise UsageError(f"{path} was trained otherwise ({_difference(earlier, recipe)}); give the same options")
    return state


def _difference(one: Recipe, other: Recipe) -> str:
    """Names and values of the fields that differ."""
    a, b = _flat(one.to_dict()), _flat(other.to_dict())
    differing = [name for name in {**a, **b} if a.get(name) != b.get(name)]
    return ", ".join(f"{name} {a.get(name)} and now {b.get(name)}" for name in differing)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat.update(_flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value})
    return flat
