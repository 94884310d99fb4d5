"""The range that a group of tensors shares."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from support.graphs import GraphBuilder

from edgeseg.calibration.measure import measure_ranges
from edgeseg.calibration.ranges import minmax
from edgeseg.converters.partners import shared_groups
from edgeseg.converters.place import Placement, plan_placement
from edgeseg.converters.share import share_ranges
from edgeseg.converters.trials import Trials


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    """A branch within 0..1 and one of any size, read alone and together."""
    builder = GraphBuilder(2)
    small = builder.add("Sigmoid", builder.conv("image", 3, 4, name="a"), name="small")
    large = builder.add("Relu", builder.conv("image", 3, 4, name="b"), name="large")
    own = builder.add("Add", builder.conv(small, 4, 2, name="c"), builder.conv(large, 4, 2, name="d"))
    both = builder.conv(builder.add("Concat", small, large, axis=1, name="both"), 8, 2, name="e")
    return builder.model(builder.add("Add", own, both), (1, 3, 16, 16))


@pytest.fixture(scope="module")
def placement(model: onnx.ModelProto) -> Placement:
    return plan_placement(model)


def feeds(scale: float = 4) -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(1)
    return [{"image": random.normal(0, scale, (1, 3, 16, 16)).astype(np.float32)} for _ in range(2)]


def test_the_best_of_the_groups_own_ranges(model: onnx.ModelProto, placement: Placement) -> None:
    trials = Trials(model, placement)
    ranges = {name: minmax(h) for name, h in measure_ranges(model, placement.tensors, feeds()).items()}
    group = ("small_out", "large_out", "both_out")
    assert shared_groups(model, placement.tensors) == (group,)
    (shared,) = share_ranges(trials, (group,), ranges, feeds())
    noises = {}
    for amax in {ranges[name] for name in group}:
        noise = trials.noise_by_tensor({**ranges, **dict.fromkeys(group, amax)}, feeds())
        noises[amax] = sum(noise[name] for name in group)
    assert shared.tensors == group
    assert shared.noise == pytest.approx(min(noises.values()))
    assert noises[shared.amax] == pytest.approx(shared.noise)
    assert len({round(n, 9) for n in noises.values()}) > 1, "every range is as good: the test shows nothing"
    own = trials.noise_by_tensor(ranges, feeds())
    assert shared.own_noise == pytest.approx(sum(own[name] for name in group))
    assert shared.noise > shared.own_noise


def test_groups_are_tried_side_by_side(model: onnx.ModelProto, placement: Placement) -> None:
    """Two groups of different sizes each get what they would get alone."""
    trials = Trials(model, placement)
    ranges = {name: minmax(h) for name, h in measure_ranges(model, placement.tensors, feeds()).items()}
    groups = (("small_out", "large_out"), ("image", "both_out"))
    together = share_ranges(trials, groups, ranges, feeds())
    assert [s.tensors for s in together] == list(groups)
    for group, shared in zip(groups, together, strict=True):
        assert share_ranges(trials, (group,), ranges, feeds())[0] == shared


def test_tensors_that_only_sums_read_take_the_widest(model: onnx.ModelProto, placement: Placement) -> None:
    ranges = dict.fromkeys(placement.tensors, 1.0) | {"skip": 0.5, "other": 3.0}
    (shared,) = share_ranges(Trials(model, placement), (("skip", "other"),), ranges, feeds())
    assert (shared.amax, shared.noise, shared.own_noise) == (3.0, 0.0, 0.0)


def test_nothing_to_share_runs_nothing(model: onnx.ModelProto, placement: Placement) -> None:
    assert share_ranges(Trials(model, placement), (), {}, []) == ()
