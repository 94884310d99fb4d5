"""Statistics of channels, summed up in the graph."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from support.graphs import GraphBuilder, run_graph

from edgeseg.calibration.channels import measure_channels
from edgeseg.errors import CalibrationError, ShapeError

TENSORS = ["first_out", "relu_out"]


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    builder = GraphBuilder()
    x = builder.add("Relu", builder.conv("image", 3, 5, name="first"), name="relu")
    return builder.model(builder.conv(x, 5, 3), (1, 3, 6, 8))


def feeds(count: int = 3) -> list[dict[str, NDArray[np.float32]]]:
    random = np.random.default_rng(2)
    return [{"image": random.normal(0, 1 + number, (1, 3, 6, 8)).astype(np.float32)} for number in range(count)]


def values(model: onnx.ModelProto, tensor: str) -> NDArray[np.float32]:
    """(frames, channels, positions) of a tensor inside, by ONNX Runtime."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    watched.graph.output.append(onnx.ValueInfoProto(name=tensor))
    return np.concatenate([run_graph(watched, **feed)[1] for feed in feeds()]).reshape(3, 5, -1)


@pytest.mark.parametrize("tensor", TENSORS)
def test_statistics_are_those_of_the_tensor(model: onnx.ModelProto, tensor: str) -> None:
    found = measure_channels(model, TENSORS, feeds())
    assert list(found) == TENSORS
    expected = values(model, tensor)
    for array in (found[tensor].largest, found[tensor].energy):
        assert (array.shape, array.dtype) == ((5,), np.float32)
    np.testing.assert_allclose(found[tensor].largest, np.abs(expected).max(axis=2).mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(found[tensor].energy, (expected**2).mean(axis=(0, 2)), rtol=1e-5)


def test_channels_keep_their_order_and_their_sign() -> None:
    builder = GraphBuilder()
    weight = np.zeros((3, 3, 1, 1), np.float32)
    weight[np.arange(3), [2, 0, 1]] = [[[1.0]], [[-2.0]], [[0.0]]]
    x = builder.add("Conv", "image", builder.constant(weight), name="moved")
    model = builder.model(builder.conv(x, 3, 3), (1, 3, 2, 2))
    image = np.ones((1, 3, 2, 2), np.float32) * np.array([1, 10, 100], np.float32).reshape(1, 3, 1, 1)
    found = measure_channels(model, ["moved_out"], [{"image": image}])["moved_out"]
    assert found.largest.tolist() == [100, 2, 0]
    assert found.energy.tolist() == [10000, 4, 0]


def test_the_input_itself(model: onnx.ModelProto) -> None:
    found = measure_channels(model, ["image"], feeds(1))["image"]
    np.testing.assert_allclose(found.largest, np.abs(feeds(1)[0]["image"]).max(axis=(0, 2, 3)), rtol=1e-6)


def test_progress_is_told_of_every_frame(model: onnx.ModelProto) -> None:
    told: list[int] = []
    measure_channels(model, TENSORS, iter(feeds(3)), told.append)
    assert told == [1, 1, 1]


def test_the_given_model_is_not_changed(model: onnx.ModelProto) -> None:
    before = model.SerializeToString()
    measure_channels(model, TENSORS, feeds(1))
    assert model.SerializeToString() == before


@pytest.mark.parametrize("opset", [13, 17])
def test_opsets(opset: int) -> None:
    builder = GraphBuilder()
    x = builder.conv("image", 3, 2, name="first")
    model = builder.model(builder.conv(x, 2, 3), (1, 3, 6, 8), opset=opset)
    assert measure_channels(model, [x], feeds(1))[x].largest.shape == (2,)


def test_no_frames(model: onnx.ModelProto) -> None:
    with pytest.raises(CalibrationError, match="no frames were given to calibrate on; give a folder"):
        measure_channels(model, TENSORS, [])


def test_a_frame_of_another_shape(model: onnx.ModelProto) -> None:
    with pytest.raises(ShapeError, match="frame number 2 must give the network"):
        measure_channels(model, TENSORS, [*feeds(1), {"image": np.zeros((1, 3, 6, 9), np.float32)}])
