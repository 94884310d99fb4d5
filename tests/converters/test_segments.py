"""Segments of a graph compute together what the graph computes, and the cuts are the best there are."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from support.graphs import GraphBuilder, random_frame, run_graph, toy_network

from edgeseg.converters import segments as module
from edgeseg.converters.graph import GraphIndex
from edgeseg.converters.segments import cut_positions, segment_model, segments

FRAME = np.ascontiguousarray(random_frame().transpose(2, 0, 1)[None].astype(np.float32) / 64 - 2)


def chain(macs: list[int]) -> tuple[onnx.GraphProto, dict[str, int]]:
    """A convolution and a Relu for each number."""
    builder = GraphBuilder()
    x = "image"
    for number in range(len(macs)):
        x = builder.add("Relu", builder.conv(x, 3, 3, name=str(number)))
    return builder.model(x, (1, 3, 8, 8)).graph, {str(i): each for i, each in enumerate(macs)}


def computed(macs: list[int], layers: list[int], cuts: tuple[int, ...]) -> int:
    """Work of changing each layer once, cuts being numbers of layers."""
    return sum(sum(macs[max(cut for cut in (0, *cuts) if cut <= layer) :]) for layer in layers)


@pytest.mark.parametrize("most", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", range(4))
def test_no_other_cuts_compute_less(most: int, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SEGMENTS", most)
    random = np.random.default_rng(seed)
    macs = [int(each) for each in random.integers(0, 100, 7)]
    layers = sorted(int(each) for each in random.choice(7, 5, replace=False))
    graph, work = chain(macs)
    found = cut_positions(graph, {str(layer) for layer in layers}, work)
    assert all(graph.node[cut].op_type == "Conv" for cut in found)
    cuts = tuple(int(graph.node[cut].name) for cut in found)
    assert len(cuts) < most
    assert set(cuts) <= set(layers)
    every = (each for count in range(most) for each in itertools.combinations(layers[1:], count))
    assert computed(macs, layers, cuts) == min(computed(macs, layers, each) for each in every)


def test_work_before_the_first_layer_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SEGMENTS", 2)
    graph, work = chain([100, 1, 1, 1])
    (cut,) = cut_positions(graph, {"1", "2", "3"}, work)
    assert graph.node[cut].name == "2"


def test_no_cut_where_none_saves() -> None:
    graph, work = chain([0, 0, 5])
    assert cut_positions(graph, {"0", "1", "2"}, work) == ()
    assert cut_positions(graph, set(), work) == ()


def test_together_they_compute_the_graph() -> None:
    model = toy_network()
    index = GraphIndex(model)
    for cut in range(1, len(model.graph.node) - 1):
        tensors = {"image": FRAME}
        pieces = segments(index, (cut, cut + 1))
        assert [len(piece.nodes) for piece in pieces] == [cut, 1, len(model.graph.node) - cut - 1]
        for piece in pieces:
            assert set(piece.inputs) == set(tensors)
            part = segment_model(index, piece)
            onnx.checker.check_model(part, full_check=True)
            results = run_graph(part, **{value.name: tensors[value.name] for value in part.graph.input})
            tensors |= dict(zip((value.name for value in part.graph.output), results, strict=True))
            tensors = {name: tensors[name] for name in piece.outputs}
        assert list(tensors) == ["logits"]
        np.testing.assert_array_equal(tensors["logits"], run_graph(model, image=FRAME)[0])


def test_constant_nodes_belong_to_every_piece_that_reads_them() -> None:
    model = toy_network()
    node = next(node for node in model.graph.node if node.name == "residual")
    tensor = next(each for each in model.graph.initializer if each.name == node.input[1])
    model.graph.initializer.remove(tensor)
    model.graph.node.insert(0, helper.make_node("Constant", [], [tensor.name], name="held", value=tensor))
    first, second = segments(GraphIndex(model), (5,))
    assert tensor.name not in first.outputs
    assert "held" not in {each.name for each in first.nodes}
    part = segment_model(GraphIndex(model), second)
    held = {each.name: each for each in part.graph.initializer}
    np.testing.assert_array_equal(numpy_helper.to_array(held[tensor.name]), numpy_helper.to_array(tensor))
