"""Blocks of small graphs whose structure is known; names tell nothing, since they are numbers."""

from __future__ import annotations

import pytest
from support.graphs import GraphBuilder, toy_network

from edgeseg.converters.blocks import find_blocks


class Graph(GraphBuilder):
    """Layers are named "0", "1" ... in the order in which they are added."""

    def layer(self, x: str, channels: int = 4, cin: int | None = None, *, stride: int = 1) -> str:
        number = sum(node.op_type == "Conv" for node in self.nodes)
        return self.conv(x, cin or channels, channels, stride=stride, name=str(number))

    def unit(self, x: str, layers: int = 2, channels: int = 4) -> str:
        """A residual unit."""
        y = x
        for _ in range(layers):
            y = self.add("Relu", self.layer(y, channels))
        return self.add("Add", x, y)

    def split(self, x: str) -> str:
        """Two layers side by side, whose results are joined."""
        return self.add("Concat", self.layer(x, 2, 4), self.layer(x, 2, 4), axis=1)

    def blocks(self, result: str, shape: tuple[int, ...] = (1, 4, 16, 16)) -> list[str]:
        model = self.model(result, shape)
        names = [node.name for node in model.graph.node if node.op_type == "Conv"]
        return ["".join(block) for block in find_blocks(model, names)]


def test_a_chain_has_none() -> None:
    graph = Graph()
    assert graph.blocks(graph.layer(graph.layer(graph.layer("image")))) == ["0", "1", "2"]


def test_residual_units_in_a_chain() -> None:
    graph = Graph()
    assert graph.blocks(graph.layer(graph.unit(graph.unit(graph.layer("image")), 3))) == ["0", "12", "345", "6"]


def test_a_network_that_forks_at_once() -> None:
    graph = Graph()
    assert graph.blocks(graph.layer(graph.unit("image"))) == ["01", "2"]


def test_a_split_inside_a_unit_belongs_to_it() -> None:
    graph = Graph()
    stem = graph.layer("image")
    split = graph.split(graph.layer(stem))
    assert graph.blocks(graph.add("Add", stem, graph.layer(split))) == ["0", "1234"]


def test_a_skip_over_two_units_makes_no_block_of_them() -> None:
    graph = Graph()
    stem = graph.layer("image")
    stage = graph.add("Add", stem, graph.layer(graph.unit(graph.unit(stem))))
    assert graph.blocks(graph.layer(stage)) == ["0", "12", "34", "5", "6"]


def test_a_skip_to_the_decoder_leaves_units_whole() -> None:
    graph = Graph()
    stem = graph.unit(graph.layer("image"))
    inner = graph.unit(graph.layer(stem, stride=2))
    outer = graph.add("Add", stem, graph.resize(graph.layer(inner), 2))
    assert graph.blocks(graph.layer(outer)) == ["0", "12", "3", "45", "6", "7"]


def test_an_encoder_and_its_decoder_are_no_block() -> None:
    graph = Graph()
    up = graph.resize(graph.layer(graph.layer("image", stride=2)), 2)
    # Neither is what contains them.
    around = graph.add("Add", "image", graph.layer(graph.add("Add", "image", up)))
    assert graph.blocks(graph.layer(around)) == ["0", "1", "2", "3"]


def test_what_holds_an_encoder_and_its_decoder_is_no_block_either() -> None:
    graph = Graph()
    stem = graph.layer("image")
    inner = graph.add("Add", stem, graph.resize(graph.layer(stem, stride=2), 2))
    main = graph.layer(graph.layer(inner, stride=2), stride=2)
    side = graph.add("AveragePool", stem, kernel_shape=[4, 4], strides=[4, 4])
    assert graph.blocks(graph.layer(graph.add("Add", main, side))) == ["0", "1", "2", "3", "4"]


def test_a_layer_on_another_way_stays_out_of_a_unit() -> None:
    graph = Graph()
    stem = graph.layer("image")
    other = graph.layer(stem)
    joined = graph.add("Concat", graph.unit(graph.unit(stem)), other, axis=1)
    assert graph.blocks(graph.layer(joined, cin=8)) == ["0", "1", "23", "45", "6"]


def test_context_of_the_whole_frame_belongs_to_its_block() -> None:
    graph = Graph()
    stem = graph.layer("image")
    inside = graph.layer(stem)
    attention = graph.add("Sigmoid", graph.conv(graph.add("GlobalAveragePool", inside), 4, 4, kernel=1, name="2"))
    assert graph.blocks(graph.add("Add", stem, graph.add("Mul", inside, attention))) == ["0", "12"]


def test_a_unit_that_lowers_the_resolution_is_one() -> None:
    graph = Graph()
    stem = graph.layer("image")
    main = graph.layer(graph.layer(stem, stride=2))
    assert graph.blocks(graph.layer(graph.add("Add", main, graph.layer(stem, stride=2)))) == ["0", "123", "4"]


def test_a_tensor_that_leaves_from_the_middle_widens_the_block() -> None:
    graph = Graph()
    stem = graph.layer("image")
    middle = graph.layer(stem)
    met = graph.add("Add", stem, graph.layer(middle))
    assert graph.blocks(graph.add("Concat", graph.layer(met), graph.layer(middle), axis=1)) == ["0", "1234"]


def test_layers_that_are_not_asked_for_stay_out() -> None:
    model = toy_network()
    assert find_blocks(model, ["stem", "left", "residual"]) == (("stem",), ("left", "residual"))
    assert find_blocks(model, []) == ()


@pytest.mark.parametrize("batch_norm", [True, False])
def test_the_toy_network(batch_norm: bool) -> None:
    model = toy_network(batch_norm=batch_norm)
    names = [node.name for node in model.graph.node if node.op_type == "Conv"]
    assert find_blocks(model, names) == (
        ("stem",),
        ("depthwise",),
        ("pointwise",),
        ("left", "right", "residual"),
        ("classifier",),
    )
