"""Which channels are tied, which are free and which are held."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto
from support.channel_operators import OPERATORS
from support.graphs import GraphBuilder

from edgeseg.converters.channels import ChannelTies, per_channel

SHAPE = (1, 3, 8, 8)


def groups(ties: ChannelTies, tensor: str) -> NDArray[np.int64]:
    """Of a tensor that must have channels."""
    found = ties.groups(tensor)
    assert found is not None
    return found


def held(ties: ChannelTies, tensor: str) -> bool:
    return not groups(ties, tensor).any()


def free(ties: ChannelTies, tensor: str) -> bool:
    """Whether each channel has a factor of its own."""
    found = groups(ties, tensor)
    return bool(found.all()) and len(np.unique(found)) == len(found)


@pytest.mark.parametrize("name", OPERATORS)
def test_each_operator(name: str) -> None:
    operator, builder = OPERATORS[name], GraphBuilder()
    x, y = builder.conv("image", 3, 8), builder.conv("image", 3, 8)
    result = operator.build(builder, x, y)
    ties = ChannelTies(builder.model(builder.conv(result, 8, 3), SHAPE))
    before, after = groups(ties, x), groups(ties, result)
    if operator.fate == "held":
        assert not before.any()
        return
    assert before.all()
    if operator.fate == "tied":
        assert np.array_equal(before, after)
    elif operator.fate == "permuted":
        assert np.array_equal(before.reshape(2, 4).T.reshape(-1), after)
    else:
        assert not set(before.tolist()) & set(after.tolist())


class TestJoined:
    def test_an_addition_ties_both(self) -> None:
        builder = GraphBuilder()
        x, y = builder.conv("image", 3, 4), builder.conv("image", 3, 4)
        total = builder.add("Add", x, y)
        ties = ChannelTies(builder.model(builder.conv(total, 4, 3), SHAPE))
        assert free(ties, total)
        assert np.array_equal(groups(ties, x), groups(ties, total))
        assert np.array_equal(groups(ties, y), groups(ties, total))

    def test_a_concatenation_ties_each_to_its_part(self) -> None:
        builder = GraphBuilder()
        x, y = builder.conv("image", 3, 4), builder.conv("image", 3, 2)
        joined = builder.add("Concat", x, y, axis=1)
        ties = ChannelTies(builder.model(builder.conv(joined, 6, 3), SHAPE))
        assert free(ties, joined)
        assert groups(ties, joined).tolist() == [*groups(ties, x).tolist(), *groups(ties, y).tolist()]

    def test_a_held_part_leaves_the_others_free(self) -> None:
        builder = GraphBuilder()
        x, y = builder.add("Sigmoid", builder.conv("image", 3, 4)), builder.conv("image", 3, 2)
        joined = builder.add("Concat", x, y, axis=1)
        ties = ChannelTies(builder.model(builder.conv(joined, 6, 3), SHAPE))
        assert (groups(ties, joined) > 0).tolist() == [False] * 4 + [True] * 2

    def test_a_tensor_joined_with_itself_has_each_channel_twice(self) -> None:
        builder = GraphBuilder()
        x = builder.conv("image", 3, 2)
        joined = builder.add("Concat", x, x, axis=1)
        ties = ChannelTies(builder.model(builder.conv(joined, 4, 3), SHAPE))
        assert groups(ties, joined).tolist() == 2 * groups(ties, x).tolist()
        assert free(ties, x)

    def test_what_one_reader_holds_is_held_for_all(self) -> None:
        builder = GraphBuilder()
        x = builder.conv("image", 3, 4)
        read = builder.conv(x, 4, 4)
        total = builder.add("Add", builder.add("Relu", read), builder.add("Sigmoid", x))
        ties = ChannelTies(builder.model(builder.conv(total, 4, 3), SHAPE))
        assert held(ties, x)
        assert held(ties, total)
        assert held(ties, read)

    def test_a_chain_of_ties_is_one_group(self) -> None:
        builder = GraphBuilder()
        start = builder.conv("image", 3, 4)
        x = builder.add("Relu", start)
        x = builder.add("Add", x, builder.conv(x, 4, 4))
        x = builder.prelu(x, 4)
        x = builder.add("Sub", x, builder.constant(np.ones((4, 1, 1), np.float32)))
        ties = ChannelTies(builder.model(builder.conv(x, 4, 3), SHAPE))
        assert free(ties, start)
        assert np.array_equal(groups(ties, start), groups(ties, x))


class TestEnds:
    def test_input_and_output_are_held(self) -> None:
        builder = GraphBuilder()
        x = builder.add("Relu", "image")
        middle = builder.conv(x, 3, 4)
        ties = ChannelTies(builder.model(builder.add("Relu", builder.conv(middle, 4, 3)), SHAPE))
        assert held(ties, "image")
        assert held(ties, x)
        assert free(ties, middle)
        assert held(ties, "logits")

    def test_what_an_output_is_tied_to_is_held(self) -> None:
        builder = GraphBuilder()
        x = builder.conv("image", 3, 3)
        ties = ChannelTies(builder.model(builder.resize(x, 2), SHAPE))
        assert held(ties, x)

    def test_a_tensor_inside_that_is_an_output_too_is_held(self) -> None:
        builder = GraphBuilder()
        x = builder.conv("image", 3, 4)
        model = builder.model(builder.conv(x, 4, 3), SHAPE)
        assert free(ChannelTies(model), x)
        model.graph.output.append(onnx.helper.make_tensor_value_info(x, TensorProto.FLOAT, (1, 4, 8, 8)))
        assert held(ChannelTies(model), x)

    def test_a_shuffle_that_is_read_halfway_is_held(self) -> None:
        builder = GraphBuilder()
        x = builder.conv("image", 3, 4)
        numbers = [builder.constant(np.array(n, np.int64)) for n in ((1, 2, 2, 8, 8), (1, 4, 8, 8))]
        parted = builder.add("Reshape", x, numbers[0])
        shuffled = builder.add("Reshape", builder.add("Transpose", parted, perm=[0, 2, 1, 3, 4]), numbers[1])
        whole = builder.add("Reshape", builder.add("Softmax", parted, axis=2), numbers[1])
        ties = ChannelTies(builder.model(builder.conv(builder.add("Add", shuffled, whole), 4, 3), SHAPE))
        assert held(ties, x)
        assert held(ties, shuffled)


class TestGroups:
    def test_of_what_has_no_channels(self) -> None:
        builder = GraphBuilder()
        x = builder.conv("image", 3, 4, name="first")
        flat = builder.add("Reshape", x, builder.constant(np.array([1, 4, 64], np.int64)))
        back = builder.add("Reshape", flat, builder.constant(np.array([1, 4, 8, 8], np.int64)))
        ties = ChannelTies(builder.model(builder.conv(back, 4, 3), SHAPE))
        assert ties.groups(flat) is None
        assert ties.groups("nowhere") is None
        assert ties.groups(builder.initializers[0].name) is None

    def test_of_a_tensor_stay_the_same(self) -> None:
        builder = GraphBuilder()
        names = [builder.conv("image", 3, 4), builder.conv("image", 3, 4)]
        result = builder.conv(builder.conv(names[0], 4, 4), 4, 3)
        both = builder.add("Add", result, builder.conv(names[1], 4, 3))
        ties = ChannelTies(builder.model(both, SHAPE))
        first = [groups(ties, name).tolist() for name in names]
        assert [groups(ties, name).tolist() for name in names] == first
        assert not set(first[0]) & set(first[1])

    @pytest.mark.parametrize("kind", [TensorProto.INT32, TensorProto.FLOAT16])
    def test_of_numbers_other_than_float32(self, kind: int) -> None:
        # Their constants would have to be of that type too.
        builder = GraphBuilder()
        two = builder.constant(np.array(2, onnx.helper.tensor_dtype_to_np_dtype(kind)))
        x = builder.conv("image", 3, 4)
        inside = builder.add("Mul", builder.add("Cast", x, to=kind), two)
        back = builder.add("Cast", builder.add("Mul", inside, two), to=TensorProto.FLOAT)
        ties = ChannelTies(builder.model(builder.conv(back, 4, 3), SHAPE))
        assert ties.groups(inside) is None
        assert held(ties, x)
        assert held(ties, back)

    def test_of_a_batch_norm_that_still_trains(self) -> None:
        builder = GraphBuilder()
        x = builder.conv("image", 3, 4)
        values = [builder.constant(np.full(4, number, np.float32)) for number in (1, 0, 0, 1)]
        result = builder.add("BatchNormalization", x, *values, outputs=3, training_mode=1)
        ties = ChannelTies(builder.model(builder.conv(result, 4, 3), SHAPE))
        assert held(ties, x)
        assert held(ties, result)


class TestPerChannel:
    @pytest.mark.parametrize(
        ("shape", "taken"),
        [
            ((), True), ((1,), True), ((1, 1, 1), True), ((4, 1, 1), True), ((1, 4, 1, 1), True), ((1, 1, 1, 1), True),
            ((4,), False), ((4, 1), False), ((3, 1, 1), False), ((1, 4, 1, 8), False), ((1, 4, 8, 1), False),
            ((2, 4, 1, 1), False), ((1, 1, 4, 1, 1), False),
        ],
    )  # fmt: skip
    def test_shapes(self, shape: tuple[int, ...], taken: bool) -> None:
        constant = np.arange(2, 2 + int(np.prod(shape)), dtype=np.float32).reshape(shape)
        values = per_channel(constant, 4)
        assert (values is not None) == taken
        if values is not None:
            assert values.dtype == np.float32
            expected = np.broadcast_to(constant.reshape(-1), 4)
            np.testing.assert_array_equal(values, expected)
