"""What is quantized together with a convolution, and which tensors have to share a range for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from support.graphs import GraphBuilder, random_frame, run_graph, toy_network

from benchmarks.networks import NETWORKS
from edgeseg.backends.tensorrt.build import build
from edgeseg.backends.tensorrt.options import BuildOptions
from edgeseg.converters.graph import copy_model
from edgeseg.converters.lint import advise
from edgeseg.converters.options import ConvertOptions
from edgeseg.converters.partners import (
    PartnerRule,
    Skip,
    residual_skips,
    shared_groups,
    useful_groups,
    useful_skips,
)
from edgeseg.converters.place import place_qdq, plan_placement, remove_qdq
from edgeseg.converters.prepare import prepare
from edgeseg.zoo import shipped_path


def residual(builder: GraphBuilder, *, order: int = 1) -> str:
    """x + conv(relu(conv(x))), the branch first or second."""
    start = builder.add("Relu", builder.conv("image", 3, 8, name="stem"), name="start")
    branch = builder.conv(builder.add("Relu", builder.conv(start, 8, 8, name="inner")), 8, 8, name="outer")
    total = builder.add("Add", *(start, branch)[::order], name="sum")
    return builder.conv(builder.add("Relu", total, name="end"), 8, 2, name="last")


class TestSkips:
    @pytest.mark.parametrize("order", [1, -1])
    def test_of_a_residual_sum_the_skip(self, order: int) -> None:
        builder = GraphBuilder()
        model = builder.model(residual(builder, order=order))
        assert residual_skips(model, {"stem", "inner", "outer", "last"}) == (Skip("sum", "start_out"),)

    def test_a_convolution_in_float_joins_nothing(self) -> None:
        builder = GraphBuilder()
        model = builder.model(residual(builder))
        assert residual_skips(model, {"stem", "inner", "last"}) == ()

    def test_of_two_convolutions_the_later_stays_in_the_kernel(self) -> None:
        builder = GraphBuilder()
        short, long = builder.conv("image", 3, 4, name="short"), builder.conv("image", 3, 4, name="long")
        model = builder.model(builder.add("Add", long, short, name="sum"))
        assert residual_skips(model, {"short", "long"}) == (Skip("sum", short),)

    def test_a_branch_that_something_else_reads_has_to_be_written_anyway(self) -> None:
        builder = GraphBuilder()
        x = builder.add("Relu", builder.conv("image", 3, 4, name="stem"))
        branch = builder.conv(x, 4, 4, name="branch")
        total = builder.add("Add", x, branch, name="sum")
        model = builder.model(builder.add("Mul", total, branch))
        assert residual_skips(model, {"stem", "branch"}) == ()

    @pytest.mark.parametrize("other", ["bias", "gate"])
    def test_what_is_no_residual(self, other: str) -> None:
        builder = GraphBuilder()
        x = builder.conv("image", 3, 4, name="conv")
        if other == "bias":
            y = builder.constant(np.ones((1, 4, 64, 64), np.float32))
        else:
            y = builder.add("GlobalAveragePool", "image")
            y = builder.conv(y, 3, 4, kernel=1, padding=0, name="pooled")
        model = builder.model(builder.add("Add", x, y, name="sum"))
        assert residual_skips(model, {"conv", "pooled"}) == ()


class TestGroups:
    def concatenated(self, *moves: str) -> tuple[onnx.ModelProto, tuple[str, ...]]:
        """Two branches, each read by a convolution of its own, and a convolution of both behind operators."""
        builder = GraphBuilder()
        left = builder.add("Relu", builder.conv("image", 3, 4, name="a"), name="left")
        right = builder.add("Sigmoid", builder.conv("image", 3, 4, name="b"), name="right")
        own = builder.add("Add", builder.conv(left, 4, 2, name="c"), builder.conv(right, 4, 2, name="d"))
        x = builder.add("Concat", left, right, axis=1, name="both")
        for move in moves:
            attributes = {"kernel_shape": [3, 3], "pads": [1] * 4} if move == "MaxPool" else {}
            x = builder.add(move, x, name=f"then_{move.lower()}", **attributes)
        model = builder.model(builder.add("Add", own, builder.conv(x, 8, 2, name="e")))
        return model, plan_placement(model).tensors

    def test_branches_and_the_whole(self) -> None:
        model, tensors = self.concatenated()
        assert shared_groups(model, tensors) == (("left_out", "right_out", "both_out"),)

    def test_through_what_only_moves_values(self) -> None:
        model, tensors = self.concatenated("MaxPool")
        assert shared_groups(model, tensors) == (("left_out", "right_out", "then_maxpool_out"),)

    def test_an_activation_between_needs_no_sharing(self) -> None:
        model, tensors = self.concatenated("Relu")
        assert shared_groups(model, tensors) == ()

    def test_a_concatenation_that_no_int8_layer_reads(self) -> None:
        model, tensors = self.concatenated()
        assert shared_groups(model, [t for t in tensors if t != "both_out"]) == ()


class TestWhatCanSaveSomething:
    def skips(self, *readers: str) -> tuple[Skip, ...]:
        """Of x + conv(x), with x read by more."""
        builder = GraphBuilder()
        x = builder.add("Relu", builder.conv("image", 3, 4, name="stem"), name="start")
        total = builder.add("Add", x, builder.conv(x, 4, 4, name="branch"), name="sum")
        for reader in readers:
            other = builder.add("Sigmoid", x) if reader == "Sigmoid" else builder.add("Concat", x, total, axis=1)
            total = builder.add(
                "Add", builder.conv(total, 4, 2), builder.conv(other, 8 if reader == "Concat" else 4, 2)
            )
        model = builder.model(total)
        plain = plan_placement(model)
        int8 = {layer.name for layer in plain.layers}
        return useful_skips(model, residual_skips(model, {"branch"}), int8, plain.tensors)

    @pytest.mark.parametrize(("readers", "useful"), [((), True), (("Concat",), True), (("Sigmoid",), False)])
    def test_a_skip_that_nothing_reads_in_float_any_more(self, readers: tuple[str, ...], useful: bool) -> None:
        assert self.skips(*readers) == ((Skip("sum", "start_out"),) if useful else ())

    def test_a_skip_that_is_an_output(self) -> None:
        builder = GraphBuilder()
        x = builder.add("Relu", builder.conv("image", 3, 4, name="stem"), name="start")
        model = builder.model(builder.add("Add", x, builder.conv(x, 4, 4, name="branch"), name="sum"))
        skips = residual_skips(model, {"branch"})
        assert useful_skips(model, skips, {"branch"}, ["start_out"]) == skips
        model.graph.output.append(onnx.ValueInfoProto(name="start_out"))
        assert useful_skips(model, skips, {"branch"}, ["start_out"]) == ()

    def test_a_group_with_what_is_moved_together_and_moved_on(self) -> None:
        """One concatenation that a layer and another concatenation read; the last is read by layers alone."""
        builder = GraphBuilder()
        first = builder.add("Relu", builder.conv("image", 3, 4, name="a"), name="first")
        both = builder.add("Concat", first, builder.conv("image", 3, 4, name="b"), axis=1, name="both")
        more = builder.add("Concat", both, builder.conv(both, 8, 2, name="c"), axis=1, name="more")
        model = builder.model(builder.conv(more, 10, 2, name="d"))
        plain = plan_placement(model)
        groups = shared_groups(model, plain.tensors)
        assert groups == (("both_out", "more_out"),)
        assert useful_groups(model, groups, {"a", "b", "c", "d"}) == groups
        assert useful_groups(model, (("first_out", "more_out"),), {"a", "b", "c", "d"}) == ()


class TestPlacement:
    def test_only_skips_are_added(self) -> None:
        model = toy_network(batch_norm=False)
        plain, joined = plan_placement(model), plan_placement(model, partners="all")
        assert plain.quantized == plain.tensors == joined.tensors
        assert [skip.node for skip in joined.skips] == [n.name for n in model.graph.node if n.op_type == "Add"]
        assert plan_placement(model, {"residual": "kept"}, partners="all").skips == ()

    def test_the_sum_reads_what_the_pair_gives(self) -> None:
        model = toy_network(batch_norm=False)
        joined = plan_placement(model, partners="all")
        skip = joined.skips[0]
        step = 0.5
        ranges = dict.fromkeys(joined.quantized, 1e3) | {skip.tensor: 127 * step}
        placed = place_qdq(model, joined, ranges)
        inputs = next(n for n in placed.graph.node if n.name == skip.node).input
        watched = copy_model(placed)
        branch = next(i for i in inputs if "dequantized" not in i)
        rounded = next(i for i in inputs if "dequantized" in i)
        watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in (skip.tensor, rounded, branch))
        total = next(n for n in placed.graph.node if n.name == skip.node).output[0]
        watched.graph.output.append(onnx.ValueInfoProto(name=total))
        frame = (random_frame().astype(np.float32) / 255).transpose(2, 0, 1)[None]
        _, before, after, other, result = run_graph(watched, image=np.ascontiguousarray(frame))
        assert np.array_equal(after, np.rint(before / step) * step)
        assert not np.array_equal(after, before)
        assert np.array_equal(result, after + other)

    def test_lint_has_nothing_to_advise_any_more(self) -> None:
        model = toy_network(batch_norm=False)
        rules: tuple[tuple[PartnerRule, bool], ...] = (("none", True), ("all", False))
        for rule, advised in rules:
            placement = plan_placement(model, partners=rule)
            placed = place_qdq(model, placement, dict.fromkeys(placement.quantized, 4.0))
            found = {finding.code for finding in advise(placed)}
            assert ("A101" in found) is advised
            assert "A102" not in found

    def test_the_float_graph_comes_back(self) -> None:
        model = toy_network(batch_norm=False)
        placement = plan_placement(model, partners="all")
        again = remove_qdq(place_qdq(model, placement, dict.fromkeys(placement.quantized, 4.0)))
        frame = np.random.default_rng(0).normal(size=(1, 3, 64, 64)).astype(np.float32)
        assert np.array_equal(run_graph(again, image=frame)[0], run_graph(model, image=frame)[0])


class TestRealNetworks:
    def test_espnet_has_nothing_to_gain(self, shared: Path) -> None:
        """Its sums' skips are read in float by concatenations, and what it concatenates is computed before."""
        network = NETWORKS["espnet"]
        model = prepare(shared / "models" / network.file, network.options).model
        assert plan_placement(model, partners="auto") == plan_placement(model)
        assert len(plan_placement(model, partners="all").skips) == 39

    @pytest.mark.slow
    def test_fewer_kernels_for_the_shipped_network(self) -> None:
        """What can save something saves as many kernels as everything does; ranges do not matter, but whether equal."""
        pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX, which builds without a GPU, is not installed")
        model = prepare(shipped_path("dabnet-dsrl-camvid"), ConvertOptions()).model
        kernels, converting = {}, {}
        rules: tuple[PartnerRule, ...] = ("none", "auto", "all")
        for rule in rules:
            placement = plan_placement(model, partners=rule)
            ranges = {tensor: 1 + number / 100 for number, tensor in enumerate(placement.quantized)}
            for group in placement.groups:
                ranges.update(dict.fromkeys(group, ranges[group[0]]))
            placed = place_qdq(model, placement, ranges).SerializeToString()
            layers = build(placed, BuildOptions(target="rtx-ampere")).layers
            kernels[rule] = len(layers)
            converting[rule] = sum(layer.role in ("reformat", "requantize") for layer in layers)
        assert kernels["auto"] == kernels["all"] < kernels["none"]
        assert converting["auto"] == converting["all"] <= 3 < converting["none"]
