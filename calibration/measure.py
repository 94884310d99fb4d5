"""Running the float network once per frame and watching its tensors."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgeseg.calibration.observers import SAMPLE, Histogram, HistogramObserver
from edgeseg.calibration.probes import Probe, add_probes
from edgeseg.errors import CalibrationError, ShapeError
from edgeseg.libraries import require
from edgeseg.machine import return_freed_memory, usable_processors
from edgeseg.streaming import ordered

__all__ = ["Feed", "Forward", "measure_ranges"]

Feed = dict[str, NDArray[Any]]
"""Arrays of one frame by name of the graph's input."""

Means = dict[str, NDArray[np.float64]]

_STREAMS = 2
"""Frames that are run at once, at most: each has the processors that the other leaves idle, and memory of its own."""


def measure_ranges(
    model: onnx.ModelProto,
    tensors: Sequence[str],
    feeds: Iterable[Feed],
    *,
    progress: Callable[[int], None] | None = None,
    frame_names: Sequence[str] = (),
    threads: int | None = None,
    sample: int | None = SAMPLE,
    extremes: bool = False,
) -> dict[str, Histogram]:
    """Histograms of tensors of a float network over frames.

    Every frame is run once, by OpenVINO in float32. What it gives of the tensors (see `add_probes`) is counted and
    dropped before the next frame, so memory does not grow with the number of frames. The same frames give the same
    histograms, in any order.

    Args:
        model: the float graph, with fixed shapes.
        tensors: names of graph inputs or node outputs.
        feeds: for each frame its arrays by name of the graph's input, with the input's shape and type; iterated in a
            thread of its own, and each array is read after the next was asked for.
        progress: called after each frame with the number of frames just done, 1.
        frame_names: names of the frames in order, for messages.
        threads: CPU threads; None for all that this process may use.
        sample: values of a tensor of one frame that are counted at most; None for all.
        extremes: whether minimum and maximum see every value of a tensor all the same, as ranges by `minmax` need.

    Returns:
        A histogram by tensor name, in the order of `tensors`.

    Raises:
        CalibrationError: for a tensor that the graph does not compute, no frames, NaN or infinity in what is seen of a
            tensor or in an output of the graph (named, with the frame), or a graph that OpenVINO does not run.
        ShapeError: for a feed that does not fit the graph's inputs.
        MissingDependencyError: when OpenVINO is not installed.
    """
    _check_tensors(model.graph, tensors)
    inputs = {value.name for value in model.graph.input} - {value.name for value in model.graph.initializer}
    workers = threads or usable_processors()
    probed, probes = add_probes(model, [name for name in tensors if name not in inputs], sample, extremes=extremes)
    probes += [Probe(name, name) for name in dict.fromkeys(tensors) if name in inputs]
    results = [value.name for value in model.graph.output]
    watched = [name for probe in probes for name in probe.outputs if name not in inputs]
    streams = min(_STREAMS, workers)
    forward = Forward(probed, list(dict.fromkeys([*watched, *results])), workers, streams)
    observers = {name: HistogramObserver(sample=sample) for name in tensors}
    told = {probe.tensor: probe for probe in probes}

    def watch(feed: Feed, number: int, _: float) -> None:
        where = frame_names[number] if number < len(frame_names) else f"number {number + 1}"
        arrays = forward(feed, where)
        _observe(observers, told, {**feed, **arrays}, where)
        _check_results({name: arrays[name] for name in results}, where)

    done = 0
    for _ in ordered(feeds, watch, streams):
        done += 1
        if progress is not None:
            progress(1)
    if not done:
        raise CalibrationError("no frames were given to calibrate on; give a folder, list or video with at least one")
    return {name: observer.histogram() for name, observer in observers.items()}


def _check_tensors(graph: onnx.GraphProto, tensors: Sequence[str]) -> None:
    known = {output for node in graph.node for output in node.output} | {value.name for value in graph.input}
    unknown = [name for name in tensors if name not in known]
    if unknown:
        raise CalibrationError(
            f"{len(unknown)} of {len(tensors)} tensors are not computed by the graph {graph.name or 'given'}, "
            f"the first is {unknown[0]!r}; ranges can be measured of graph inputs and node outputs"
        )


def _observe(observers: Mapping[str, HistogramObserver], probes: Mapping[str, Probe], arrays: Feed, where: str) -> None:
    """Show each observer its tensor."""
    for name, observer in observers.items():
        try:
            _show(observer, probes[name], arrays)
        except CalibrationError as error:
            raise CalibrationError(
                f"tensor {name} of frame {where}: {error}; the float network itself is broken on this frame"
            ) from error


def _show(observer: HistogramObserver, probe: Probe, arrays: Feed) -> None:
    values = arrays[probe.values]
    if probe.elements is None:
        observer.add(values)
    elif probe.summary is None:
        observer.add_sample(values, float(values.min()), float(values.max()), probe.elements)
    else:
        names = (probe.summary.smallest, probe.summary.largest, probe.summary.total)
        smallest, largest, total = (float(arrays[name]) for name in names)
        observer.add_sample(values, smallest, math.nan if math.isnan(total) else largest, probe.elements)


def _check_results(arrays: Feed, where: str) -> None:
    """A NaN or infinity that no sample holds spreads until it reaches the end."""
    for name, values in arrays.items():
        if not np.isfinite(values).all():
            raise CalibrationError(
                f"output {name} of frame {where}: values are NaN or infinite; the float network itself is broken on "
                "this frame"
            )


class Forward:
    """The float network, run in float32 by OpenVINO; the arrays returned are overwritten by a thread's next call.

    Args:
        model: the graph, with fixed shapes.
        names: outputs wanted.
        threads: CPU threads.
        streams: threads that will call it at once; they share the CPU threads.

    Raises:
        CalibrationError: for a graph that OpenVINO does not run.
        MissingDependencyError: when OpenVINO is not installed.
    """

    def __init__(self, model: onnx.ModelProto, names: list[str], threads: int, streams: int = 1) -> None:
        openvino = require("openvino", "measure ranges")
        return_freed_memory()
        options = {
            # BF16 or FP16, which OpenVINO takes by itself where the CPU has them, would shift the ranges.
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY" if streams == 1 else "THROUGHPUT",
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": threads,
            # Pinned threads cannot give way to those that read frames and count.
            "ENABLE_CPU_PINNING": False,
        }
        try:
            core = openvino.Core()
            graph = core.read_model(_ordered_by_need(model).SerializeToString())
            self._compiled = core.compile_model(graph, "CPU", options)
        except RuntimeError as error:
            raise CalibrationError(f"OpenVINO cannot take the float network: {_reason(error)}") from error
        self._requests = threading.local()
        self._specs = {
            port.get_any_name(): (tuple(port.shape), np.dtype(port.element_type.to_dtype()).name)
            for port in self._compiled.inputs
        }
        aliases = {alias: port for port in self._compiled.outputs for alias in port.get_names()}
        self._ports = {name: aliases[name] for name in names}

    def __call__(self, feed: Feed, where: str) -> dict[str, NDArray[Any]]:
        """Run one frame; `where` names it in messages."""
        specs = {name: (array.shape, array.dtype.name) for name, array in feed.items()}
        if specs != self._specs:
            raise ShapeError(f"frame {where} must give the network {self._specs}, but gives {specs}")
        request = getattr(self._requests, "request", None)
        if request is None:
            request = self._requests.request = self._compiled.create_infer_request()
        try:
            request.infer(feed, share_inputs=True)
        except RuntimeError as error:
            raise CalibrationError(f"OpenVINO cannot run frame {where}: {_reason(error)}") from error
        return {name: np.asarray(request.get_tensor(port).data) for name, port in self._ports.items()}

    def means(self, feeds: Iterable[Feed], progress: Callable[[int], None] = lambda units: None) -> Means:
        """The mean of every output over frames, float64; none for no frames. `progress` is called with 1 after each."""
        sums: Means = {}
        count = 0
        for feed in feeds:
            count += 1
            for name, values in self(feed, f"number {count}").items():
                sums[name] = sums.get(name, 0.0) + values.astype(np.float64)
            progress(1)
        return {name: total / count for name, total in sums.items()}


def _ordered_by_need(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose outputs need more and more nodes.

    OpenVINO computes what the first output needs, then what the second needs beyond that, and so on: with the network's
    own output first, all that is watched would be held until the network has been run.
    """
    needed: dict[str, int] = {}
    for number, node in enumerate(model.graph.node):
        bits = 1 << number
        for name in node.input:
            bits |= needed.get(name, 0)
        needed.update(dict.fromkeys(node.output, bits))
    ordered = onnx.ModelProto()
    ordered.CopyFrom(model)
    del ordered.graph.output[:]
    ordered.graph.output.extend(sorted(model.graph.output, key=lambda value: needed.get(value.name, 0).bit_count()))
    return ordered


def _reason(error: RuntimeError) -> str:
    """What OpenVINO says, without the lines on where in its source it says so."""
    lines = [line.strip() for line in str(error).splitlines()]
    return " ".join(
        line for line in lines if line and not line.startswith(("Exception from", "Check '", "To facilitate"))
    )
