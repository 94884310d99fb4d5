"""Recipes: what they refuse, and their way through JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from support.training import LABELS, recipe

from edgeseg.errors import ModelError, UsageError
from edgeseg.training.augment import Augmentation
from edgeseg.training.recipe import Recipe

FULL = recipe(
    options={"width": 2.0},
    dsrl=True,
    head={"channels": 16},
    data=("camvid:a", "voc:b@val"),
    validation="camvid:a",
    color_order="BGR",
    augmentation=Augmentation((0.7, 1.2), False, 0.1),
    ema=0.9,
    crop=(8, 12),
)


class TestPlain:
    def test_comes_back_from_json(self) -> None:
        assert Recipe.from_dict(json.loads(json.dumps(FULL.to_dict()))) == FULL

    def test_lacks_nothing_that_has_no_default(self) -> None:
        plain = FULL.to_dict()
        del plain["labels"]
        with pytest.raises(ModelError, match="the checkpoint's recipe cannot be read"):
            Recipe.from_dict(plain)

    @pytest.mark.parametrize(
        "change", [{"new_option": 1}, {"loss": "future"}, {"labels": 3}, {"augmentation": {}, "lr": "x"}]
    )
    def test_refuses_what_it_does_not_know(self, change: dict[str, Any]) -> None:
        with pytest.raises(
            ModelError, match=r"the checkpoint's recipe cannot be read .*; train with this version again"
        ):
            Recipe.from_dict({**FULL.to_dict(), **change})

    def test_an_option_added_later_has_its_default(self) -> None:
        plain = FULL.to_dict()
        del plain["affinity_subsampling"]
        assert Recipe.from_dict(plain) == FULL

    def test_equal_recipes_have_one_hash(self) -> None:
        assert hash(FULL) == hash(replace(FULL, options={"width": 2.0}))
        assert len({FULL, replace(FULL), replace(FULL, seed=1)}) == 2


class TestRefuses:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"loss": "cross_entropi"}, "unknown loss 'cross_entropi'; did you mean cross_entropy?"),
            ({"optimizer": "adam"}, "unknown optimizer 'adam'; did you mean adamw?"),
            ({"class_weights": "logs"}, "unknown class weights 'logs'; did you mean log?"),
            ({"precision": "float64"}, "unknown precision 'float64'; did you mean float"),
            ({"epochs": 0}, "epochs must be at least 1, but is 0"),
            ({"batch": 0}, "batch must be at least 1, but is 0"),
            ({"size": (0, 4)}, "height must be at least 1, but is 0"),
            ({"size": (4, 0)}, "width must be at least 1, but is 0"),
            ({"crop": (0, 4)}, "height of the crop must be at least 1, but is 0"),
            ({"crop": (4, 400)}, "a crop is a part of the network's input, 16x24, but is 4x400; give a smaller --crop"),
            ({"warmup": -1}, "warmup must be at least 0, but is -1"),
            ({"affinity_subsampling": 0}, "the subsampling of the affinity must be at least 1, but is 0"),
            ({"lr": 0.0}, "the learning rate must be above 0, but is 0"),
            ({"lr": float("nan")}, "the learning rate must be above 0, but is nan"),
            ({"momentum": 1.0}, "momentum must be at least 0 and below 1, but is 1"),
            ({"ema": -0.1}, "the decay of the moving average must be at least 0 and below 1, but is -0.1"),
            ({"weight_decay": -1.0}, "weight decay must be a number of at least 0, but is -1"),
            ({"power": -1.0}, "power must be a number of at least 0"),
            ({"image_weight": float("inf")}, "the weight of the image must be a number of at least 0, but is inf"),
            ({"affinity_weight": -1.0}, "the weight of the affinity must be"),
            ({"auxiliary_weight": -1.0}, "the weight of auxiliary heads must be"),
            ({"seed": -1}, "the seed must be 0 to 4294967295, but is -1"),
            ({"seed": 2**32}, "the seed must be 0 to 4294967295"),
        ],
    )
    def test_names_value_and_bounds(self, change: dict[str, Any], message: str) -> None:
        with pytest.raises(UsageError) as error:
            recipe(**change)
        assert message in str(error.value)

    def test_labels_are_not_touched(self) -> None:
        assert FULL.labels == LABELS
        assert (FULL.scale, recipe().scale) == (2, 1)

    def test_a_step_sees_the_crop_or_else_all(self) -> None:
        assert recipe().view == recipe().size
        assert recipe(crop=(8, 8)).view == (8, 8)
