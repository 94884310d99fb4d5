"""Two networks side by side: what is read of each, known differences of class maps and logits, where layers part."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from support.bundles import toy_bundle, toy_manifest
from support.frames import frame_folder, label_folder
from support.graphs import run_graph, toy_network

from edgeseg.bundle import Bundle
from edgeseg.calibration.datasets import pair_labels
from edgeseg.calibration.frames import FrameSource, frames_from
from edgeseg.calibration.scoring import score_labels
from edgeseg.converters import compare_layers as layers_module
from edgeseg.converters.compare import compare
from edgeseg.converters.compare_layers import LayerDifference, compare_layers, first_below, plan_layers
from edgeseg.converters.convert import convert
from edgeseg.converters.network import network_on_cpu
from edgeseg.converters.options import ConvertOptions
from edgeseg.converters.prepare import finish, prepare
from edgeseg.converters.sides import BUNDLE, CANONICAL, FLOAT, Side, common_labels, open_sides
from edgeseg.errors import BundleError, LabelError, ModelError, UsageError

UNIT = ConvertOptions(mean=(127.5, 127.5, 127.5), std=(63.75, 63.75, 63.75))
NOTHING = ConvertOptions()


@pytest.fixture
def network(tmp_path: Path) -> Path:
    path = tmp_path / "toy.onnx"
    onnx.save(toy_network(classes=4), path)
    return path


@pytest.fixture
def frames(tmp_path: Path) -> FrameSource:
    return frames_from(frame_folder(tmp_path / "frames", 6))


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle, beside the network toy.onnx that it was made from."""
    folder = tmp_path_factory.mktemp("converted")
    onnx.save(toy_network(classes=4), folder / "toy.onnx")
    convert(folder / "toy.onnx", str(frame_folder(folder / "frames", 8)), UNIT)
    return folder / "toy.edgeseg"


def canonical(network: Path, path: Path, **factors: np.ndarray | float) -> Path:
    """The canonical float graph of a network in a file, with weights and biases of some layers multiplied.

    Args:
        factors: by layer, one or (output channels,).
    """
    model = prepare(network, UNIT).model
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for name, factor in factors.items():
        node = next(node for node in model.graph.node if node.name == name)
        for tensor in (constants[parameter] for parameter in node.input[1:]):
            value = numpy_helper.to_array(tensor)
            scaled = value * np.reshape(factor, (-1, *[1] * (value.ndim - 1)))
            tensor.CopyFrom(numpy_helper.from_array(scaled.astype(np.float32), tensor.name))
    onnx.save(model, path)
    return path


def naming(folder: Path, names: str) -> ConvertOptions:
    """Options with a file of classes, one a letter."""
    path = folder / f"{names}.json"
    path.write_text(json.dumps([{"id": i, "name": name, "color": [i, 0, 0]} for i, name in enumerate(names)]))
    return dataclasses.replace(UNIT, classes=str(path))


def opened(first: Path, second: Path) -> tuple[Side, Side]:
    return open_sides((first, second), (UNIT, UNIT))


class TestSides:
    def test_kinds(self, network: Path, converted: Path, tmp_path: Path) -> None:
        graph = canonical(network, tmp_path / "graph.onnx")
        assert [side.kind for side in opened(network, converted)] == [FLOAT, BUNDLE]
        assert [side.kind for side in open_sides((converted, graph), (NOTHING, NOTHING))] == [BUNDLE, CANONICAL]

    def test_the_graph_of_a_bundle_keeps_its_manifest(self, converted: Path) -> None:
        first, second = open_sides((converted / "model.onnx", converted), (NOTHING, NOTHING))
        assert first.manifest == second.manifest == Bundle.open(converted).manifest

    def test_a_bundle_knows_the_pre_processing_of_its_own_network(self, converted: Path) -> None:
        network = converted.with_suffix(".onnx")
        for pair, float_side in (((network, converted), 0), ((converted, network), 1)):
            side = open_sides(pair, (NOTHING, NOTHING))[float_side]
            assert (side.manifest.input.mean, side.manifest.input.std) == (UNIT.mean, UNIT.std)

    def test_but_not_that_of_another(self, converted: Path, tmp_path: Path) -> None:
        onnx.save(toy_network(classes=4, seed=5), tmp_path / "other.onnx")
        with pytest.raises(UsageError, match="give --mean and --std"):
            open_sides((tmp_path / "other.onnx", converted), (NOTHING, NOTHING))

    def test_a_bare_graph_takes_the_rule_of_the_other_side(self, tmp_path: Path) -> None:
        path = tmp_path / "corners.onnx"
        onnx.save(toy_network(classes=4, coordinates="align_corners"), path)
        graph = canonical(path, tmp_path / "graph.onnx")
        assert opened(graph, path)[0].manifest.output == opened(graph, path)[1].manifest.output
        alone = open_sides((graph, graph), (NOTHING, NOTHING))
        assert alone[0].manifest.output.coordinates == "half_pixel"

    def test_options_that_nobody_needs(self, converted: Path) -> None:
        given = ConvertOptions(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), size=(4, 4))
        with pytest.raises(UsageError, match="--preset, --size only go with a float network, but A is a bundle"):
            open_sides((converted, converted), (given, given))

    def test_a_class_map_without_classes(self, network: Path, tmp_path: Path) -> None:
        prepared = prepare(network, UNIT)
        path = tmp_path / "map.onnx"
        onnx.save(finish(prepared.model, prepared.output, prepared.input)[0], path)
        with pytest.raises(UsageError, match=r"map\.onnx gives a class map, .* give --classes"):
            open_sides((path, path), (NOTHING, NOTHING))
        assert len(opened(path, network)[0].manifest.labels) == 4

    def test_a_bundle_that_is_none(self, network: Path, tmp_path: Path) -> None:
        with pytest.raises(BundleError, match="there is no bundle at"):
            opened(network, tmp_path / "none.edgeseg")
        with pytest.raises(ModelError, match="cannot be read: No such file"):
            opened(tmp_path / "none.onnx", network)

    def test_other_classes(self, network: Path, tmp_path: Path) -> None:
        other = tmp_path / "three.onnx"
        onnx.save(toy_network(classes=3), other)
        with pytest.raises(LabelError, match=r"toy\.onnx has 4 classes and .*three\.onnx has 3"):
            common_labels(*opened(network, other))

    def test_classes_are_those_of_the_side_that_names_them(self, network: Path, tmp_path: Path) -> None:
        named = naming(tmp_path, "abcd")
        first, second = open_sides((network, network), (UNIT, named))
        assert common_labels(first, second).names == ("a", "b", "c", "d")
        assert common_labels(second, first).names == ("a", "b", "c", "d")

    def test_classes_of_other_names(self, tmp_path: Path, network: Path) -> None:
        first, second = (naming(tmp_path, names) for names in ("abcd", "abxd"))
        sides = open_sides((network, network), (first, second))
        with pytest.raises(LabelError, match=r"class 2 is c in .* and x in"):
            common_labels(*sides)


class TestCompare:
    def test_a_network_with_itself(self, network: Path, frames: FrameSource) -> None:
        found = compare(*opened(network, network), frames)
        assert (found.agreement, found.logits.snr, found.miou) == (100.0, math.inf, (100.0, 100.0))
        assert found.agreement_interval == (100.0, 100.0)
        assert found.frames == 6

    def test_logits_of_nine_tenths_are_20_db_away(self, network: Path, frames: FrameSource, tmp_path: Path) -> None:
        other = canonical(network, tmp_path / "less.onnx", classifier=0.9)
        found = compare(*opened(network, other), frames)
        assert found.logits.snr == pytest.approx(20, abs=1e-3)
        assert found.agreement > 99.9  # a common factor changes no class, but for ties by rounding

    def test_a_class_that_is_never_chosen(self, network: Path, frames: FrameSource, tmp_path: Path) -> None:
        """Class 2 loses its logits to a constant far below: every pixel of it goes elsewhere, on every frame."""
        other = canonical(network, tmp_path / "less.onnx")
        model = onnx.load(other)
        bias = next(node for node in model.graph.node if node.name == "classifier").input[2]
        tensor = next(t for t in model.graph.initializer if t.name == bias)
        value = numpy_helper.to_array(tensor).copy()
        value[2] = -1e3
        tensor.CopyFrom(numpy_helper.from_array(value, bias))
        onnx.save(model, other)
        first, second = opened(network, other)
        found = compare(first, second, frames)
        with network_on_cpu(prepare(network, UNIT), first.model, first.manifest.output) as predict:
            kept = {frame.name: 100 * float(np.mean(predict(frame.image) != 2)) for frame in frames}
        assert found.agreement == pytest.approx(np.mean(list(kept.values())))
        assert (found.classes[0].name, found.classes[0].int8_iou) == ("class2", 0)
        assert dict(found.worst).items() <= {name: pytest.approx(value) for name, value in kept.items()}.items()
        assert [value for _, value in found.worst] == pytest.approx(sorted(kept.values())[:4])

    def test_labels_are_scored_as_evaluate_does(self, converted: Path, frames: FrameSource, tmp_path: Path) -> None:
        labelled = pair_labels(frames, label_folder(tmp_path / "labels", 6, 4))
        first, second = open_sides((converted.with_suffix(".onnx"), converted), (NOTHING, NOTHING))
        found = compare(first, second, labelled)
        prepared = prepare(converted.with_suffix(".onnx"), UNIT)
        for side, miou in zip((first, second), found.miou, strict=True):
            with network_on_cpu(prepared, side.model, side.manifest.output) as predict:
                assert score_labels(predict, labelled, prepared.labels).miou == pytest.approx(miou)
        assert found.labelled
        low, high = found.difference_interval or (math.nan, math.nan)
        assert low <= found.miou[1] - found.miou[0] <= high
        changes = [abs(row.change or 0) for row in found.classes]
        assert changes == sorted(changes, reverse=True)

    def test_networks_of_two_sizes(self, network: Path, frames: FrameSource, tmp_path: Path) -> None:
        small = tmp_path / "small.onnx"
        onnx.save(toy_network(classes=4, height=32, width=32), small)
        found = compare(*opened(network, small), frames)
        assert found.logits.snr is None
        assert found.logits.reason == "A's are 4x16x16 and B's 4x8x8 (channels x height x width)"
        assert 0 < found.agreement < 100

    def test_a_class_map_has_no_logits(self, network: Path, frames: FrameSource, tmp_path: Path) -> None:
        prepared = prepare(network, UNIT)
        onnx.save(finish(prepared.model, prepared.output, prepared.input)[0], tmp_path / "map.onnx")
        found = compare(*opened(network, tmp_path / "map.onnx"), frames)
        assert found.logits.reason == "a graph that ends in a class map gives no logits"
        assert found.agreement > 99.9

    def test_a_manifest_of_another_graph(self, network: Path, tmp_path: Path, frames: FrameSource) -> None:
        graph = canonical(network, tmp_path / "graph.onnx").read_bytes()
        wrong = toy_bundle(tmp_path / "wrong.edgeseg", toy_manifest(64, 64), graph).path
        with pytest.raises(BundleError, match=r"wrong\.edgeseg: the manifest describes"):
            compare(*opened(wrong, network), frames)


class TestLayers:
    def compared(self, first: Path, second: Path, frames: FrameSource) -> dict[str, LayerDifference]:
        sides = opened(first, second)
        return {layer.name: layer for layer in compare_layers(*sides, plan_layers(*sides), frames)}

    def test_an_int8_bundle_has_noise_at_every_layer(self, converted: Path, frames: FrameSource) -> None:
        found = self.compared(converted.with_suffix(".onnx"), converted, frames)
        assert list(found) == ["stem", "depthwise", "pointwise", "left", "right", "residual", "classifier"]
        assert all(15 < layer.snr < 60 for layer in found.values())

    def test_rescaled_channels_are_no_noise(self, network: Path, frames: FrameSource, tmp_path: Path) -> None:
        """As cross-layer equalization leaves them: larger behind the first layer, smaller in the next one's weights."""
        scale = np.linspace(0.1, 8, 8)
        model = prepare(network, UNIT).model
        bias = next(node for node in model.graph.node if node.name == "depthwise").input[2]
        other = canonical(network, tmp_path / "equalized.onnx", stem=scale, depthwise=1 / scale)
        changed = onnx.load(other)
        for tensor in changed.graph.initializer:
            if tensor.name == bias:  # only the weights of the reader are divided
                tensor.CopyFrom(next(t for t in model.graph.initializer if t.name == bias))
        onnx.save(changed, other)
        found = self.compared(network, other, frames)
        assert all(layer.snr > 100 for layer in found.values())
        assert found["stem"].factors == pytest.approx((1 / 8, 10), rel=1e-4)
        assert found["depthwise"].factors == pytest.approx((1, 1), rel=1e-4)
        assert compare(*opened(network, other), frames).agreement > 99.9

    def test_the_first_layer_that_parts(self, network: Path, frames: FrameSource, tmp_path: Path) -> None:
        """A channel of the wrong sign in one layer: those before it and beside it are equal."""
        signs = np.ones(8)
        signs[3] = -1
        other = canonical(network, tmp_path / "spoiled.onnx", right=signs)
        found = self.compared(network, other, frames)
        assert [name for name, layer in found.items() if layer.snr < 60] == ["right", "residual", "classifier"]
        first = first_below(list(found.values()), 20)
        assert first is not None
        assert first.name == "right"
        assert first_below(list(found.values()), -100) is None

    def test_a_known_ratio(self, network: Path, frames: FrameSource, tmp_path: Path) -> None:
        """A channel that loses its sign keeps no factor: the noise is all of its power."""
        signs = np.array([-1.0, *[1.0] * 3])
        found = self.compared(network, canonical(network, tmp_path / "signs.onnx", classifier=signs), frames)
        first, _ = opened(network, network)
        sums = np.zeros(4)
        for frame in frames:
            power = _logits(first, frame.image).astype(np.float64) ** 2
            sums += power.sum(axis=(1, 2))
        assert found["classifier"].snr == pytest.approx(10 * math.log10(sums.sum() / sums[0]), abs=1e-4)

    def test_small_groups_change_nothing(
        self, converted: Path, frames: FrameSource, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sides = open_sides((converted.with_suffix(".onnx"), converted), (NOTHING, NOTHING))
        whole = compare_layers(*sides, plan_layers(*sides), frames)
        monkeypatch.setattr(layers_module, "_LARGEST_OUTPUTS", 40_000)
        plan = plan_layers(*sides)
        assert len(plan.groups) > 2
        assert sum(map(len, plan.groups)) == 7
        told: list[int] = []
        parts = compare_layers(*sides, plan, frames, told.append)
        assert sum(told) == plan.units(6) == 6 * len(plan.groups)
        assert [layer.snr for layer in parts] == pytest.approx([layer.snr for layer in whole], abs=0.5)

    def test_layers_that_only_one_has(self, network: Path, tmp_path: Path) -> None:
        graph = onnx.load(canonical(network, tmp_path / "graph.onnx"))
        next(node for node in graph.graph.node if node.name == "left").name = "west"
        onnx.save(graph, tmp_path / "graph.onnx")
        plan = plan_layers(*opened(network, tmp_path / "graph.onnx"))
        assert plan.unmatched == ("left", "west")
        assert sum(map(len, plan.groups)) == 6

    def test_no_layer_in_common(self, network: Path, tmp_path: Path) -> None:
        small = tmp_path / "small.onnx"
        onnx.save(toy_network(classes=4, height=32, width=32), small)
        with pytest.raises(ModelError, match="have 7 and 7 compute layers, but none with the same name"):
            plan_layers(*opened(network, small))


def _logits(side: Side, image: np.ndarray) -> np.ndarray:
    logits: np.ndarray = run_graph(side.model, frame=image[None])[0][0]
    return logits
