"""One pass of a float network over frames."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgeseg.calibration.measure import _ordered_by_need, measure_ranges
from edgeseg.calibration.observers import sample_stride
from edgeseg.errors import CalibrationError, MissingDependencyError, ShapeError


def toy_network() -> onnx.ModelProto:
    """frame (1, 4, 6, 3) uint8 -> Cast -> Transpose -> Mul 2 -> Conv (sum of channels) -> Relu(x - 100) -> logits."""
    nodes = [
        helper.make_node("Cast", ["frame"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["real"], ["planar"], perm=[0, 3, 1, 2]),
        helper.make_node("Mul", ["planar", "two"], ["scaled"]),
        helper.make_node("Conv", ["scaled", "weight", "bias"], ["shifted"]),
        helper.make_node("Relu", ["shifted"], ["active"]),
        helper.make_node("Mul", ["active", "two"], ["logits"]),
    ]
    constants = {
        "two": np.float32(2),
        "weight": np.ones((1, 3, 1, 1), np.float32),
        "bias": np.array([-100], np.float32),
    }
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("frame", TensorProto.UINT8, [1, 4, 6, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 1, 4, 6])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def feeds(count: int = 3) -> list[dict[str, NDArray[Any]]]:
    random = np.random.default_rng(5)
    return [{"frame": random.integers(0, 256, (1, 4, 6, 3), dtype=np.uint8)} for _ in range(count)]


TENSORS = ["scaled", "active", "frame", "logits", "shifted"]


def test_ranges_are_those_of_the_tensors() -> None:
    given = feeds()
    histograms = measure_ranges(toy_network(), TENSORS, given)
    assert list(histograms) == TENSORS
    pixels = np.concatenate([f["frame"] for f in given]).astype(np.float32)
    shifted = pixels.sum(axis=3) * 2 - 100
    expected = {
        "frame": pixels,
        "scaled": pixels * 2,
        "shifted": shifted,
        "active": np.maximum(shifted, 0),
        "logits": np.maximum(shifted, 0) * 2,
    }
    for name, values in expected.items():
        histogram = histograms[name]
        assert (histogram.minimum, histogram.maximum) == (values.min(), values.max())
        assert histogram.elements == values.size
        edges = np.arange(histogram.counts.size + 1) * histogram.width
        assert np.array_equal(histogram.counts, np.histogram(np.abs(values), edges)[0])


def test_every_frame_is_run_once_and_reported() -> None:
    seen: list[int] = []
    reported: list[int] = []

    def stream() -> Iterator[dict[str, NDArray[Any]]]:
        for i, feed in enumerate(feeds(12)):
            assert i - sum(reported) <= 6, "no more frames are asked for than two at once need"
            seen.append(i)
            yield feed

    measure_ranges(toy_network(), TENSORS, stream(), progress=reported.append, threads=2)
    assert seen == list(range(12))
    assert reported == [1] * 12


def test_order_of_frames_and_number_of_threads_do_not_matter() -> None:
    one = measure_ranges(toy_network(), TENSORS, feeds(), threads=1)
    other = measure_ranges(toy_network(), TENSORS, reversed(feeds()), threads=2)
    for name in TENSORS:
        assert np.array_equal(one[name].counts, other[name].counts)
        assert one[name].width == other[name].width


def test_the_given_model_is_not_changed() -> None:
    model = toy_network()
    before = model.SerializeToString()
    measure_ranges(model, TENSORS, feeds(1))
    assert model.SerializeToString() == before


def test_ranges_are_float32_whatever_the_engine_would_choose() -> None:
    frame = np.full((1, 4, 6, 3), 85, np.uint8)
    frame[0, 0, 0] = (85, 85, 87)
    histogram = measure_ranges(toy_network(), ["shifted"], [{"frame": frame}])["shifted"]
    assert (histogram.minimum, histogram.maximum) == (410, 414)


def test_non_finite_values_name_tensor_and_frame() -> None:
    model = toy_network()
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.float32(3e38), "two"))
    given = [{"frame": np.zeros((1, 4, 6, 3), np.uint8)}, *feeds(1)]
    with pytest.raises(CalibrationError, match=r"tensor scaled of frame b\.png: values are NaN or infinite"):
        measure_ranges(model, ["scaled"], given, frame_names=["a.png", "b.png"])
    with pytest.raises(CalibrationError, match="tensor scaled of frame number 2"):
        measure_ranges(model, ["scaled"], given)


def test_no_frames() -> None:
    with pytest.raises(CalibrationError, match="no frames were given to calibrate on"):
        measure_ranges(toy_network(), TENSORS, [])


def test_unknown_tensors() -> None:
    with pytest.raises(CalibrationError, match="2 of 3 tensors are not computed by the graph toy, the first is 'lost'"):
        measure_ranges(toy_network(), ["scaled", "lost", "weight"], feeds())


@pytest.mark.parametrize(
    "feed",
    [
        {"image": np.zeros((1, 4, 6, 3), np.uint8)},
        {"frame": np.zeros((1, 5, 6, 3), np.uint8)},
        {"frame": np.zeros((1, 4, 6, 3), np.float32)},
    ],
)
def test_frames_that_do_not_fit(feed: dict[str, NDArray[Any]]) -> None:
    with pytest.raises(
        ShapeError, match=r"frame number 1 must give the network \{'frame': \(\(1, 4, 6, 3\), 'uint8'\)\}, but gives"
    ):
        measure_ranges(toy_network(), TENSORS, [feed])


def test_a_graph_that_the_engine_does_not_take() -> None:
    model = toy_network()
    model.graph.node[4].op_type = "NoSuchOperator"
    with pytest.raises(
        CalibrationError, match=r"OpenVINO cannot take the float network: .*No conversion rule found .*NoSuchOperator"
    ):
        measure_ranges(model, ["scaled"], feeds())


def test_missing_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingDependencyError, match=r"openvino is needed to measure ranges.*pip install openvino"):
        measure_ranges(toy_network(), TENSORS, feeds())


def test_an_interrupt_ends_the_pass_and_leaves_no_thread() -> None:
    def interrupted() -> Iterator[dict[str, NDArray[Any]]]:
        yield feeds(1)[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_ranges(toy_network(), TENSORS, interrupted())
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("edgeseg")]


class TestSampling:
    @pytest.mark.parametrize("extremes", [False, True])
    def test_the_histogram_sees_a_sample_and_the_extremes_every_value_where_asked(self, extremes: bool) -> None:
        given = feeds(2)
        histogram = measure_ranges(toy_network(), ["scaled"], given, sample=10, extremes=extremes)["scaled"]
        values = np.concatenate([feed["frame"] for feed in given]).astype(np.float32) * 2
        taken = values.transpose(0, 3, 1, 2).reshape(2, 72)[:, :: sample_stride((1, 3, 4, 6), 10)]
        seen = values if extremes else taken
        assert (histogram.minimum, histogram.maximum) == (seen.min(), seen.max())
        assert (values.max() > taken.max(), histogram.elements) == (True, 144)
        assert taken.size <= 20
        edges = np.arange(histogram.counts.size + 1) * histogram.width
        assert np.array_equal(histogram.counts, np.histogram(taken, edges)[0])

    def test_inputs_of_the_graph_too(self) -> None:
        histogram = measure_ranges(toy_network(), ["frame"], feeds(2), sample=10)["frame"]
        assert histogram.elements == 144
        assert histogram.counts.sum() <= 20

    @pytest.mark.parametrize("extremes", [False, True])
    @pytest.mark.parametrize(("strange", "pixel"), [("NaN", 0), ("infinity", 1)])
    def test_a_single_non_finite_value_outside_the_sample_is_found(
        self, strange: str, pixel: int, extremes: bool
    ) -> None:
        """sqrt(pixel - 1) is NaN for pixel 0; 1 / (pixel - 1) is infinite for pixel 1."""
        model = toy_network()
        shift = helper.make_node("Sub", ["planar", "one"], ["lowered"])
        operator = "Sqrt" if strange == "NaN" else "Reciprocal"
        model.graph.initializer.append(numpy_helper.from_array(np.float32(1), "one"))
        model.graph.node.extend([shift, helper.make_node(operator, ["lowered"], ["strange"])])
        model.graph.output.append(helper.make_tensor_value_info("strange", TensorProto.FLOAT, [1, 3, 4, 6]))
        frame = np.full((1, 4, 6, 3), 50, np.uint8)
        watched = ["strange"] if extremes else ["lowered"]
        measure_ranges(model, watched, [{"frame": frame}], sample=10, extremes=extremes)
        frame[0, 0, 1, 0] = pixel
        kind = "tensor" if extremes else "output"
        with pytest.raises(CalibrationError, match=f"{kind} strange of frame number 1: values are NaN or infinite"):
            measure_ranges(model, watched, [{"frame": frame}], sample=10, extremes=extremes)


def test_what_is_watched_first_is_made_first() -> None:
    """OpenVINO would hold every tensor until the network's own output is there, were that the first output."""
    model = toy_network()
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in ("active", "scaled", "shifted"))
    before = model.SerializeToString()
    ordered = _ordered_by_need(model)
    assert [value.name for value in ordered.graph.output] == ["scaled", "shifted", "active", "logits"]
    assert list(ordered.graph.node) == list(model.graph.node)
    assert model.SerializeToString() == before
