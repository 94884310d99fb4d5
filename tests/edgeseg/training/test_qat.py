"""Quantization-aware fine-tuning: it wins back what a range costs, and gives the same canonical graph."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from support.fine_tuning import CPU, PLAIN, activation_scales, quantized, spoiled, trained, tuned
from support.training import SIZE, one_thread, register, samples, write_data

from edgeseg.bundle import MANIFEST, SMALLER, Bundle, write_bundle
from edgeseg.calibration.cache import read_cache
from edgeseg.calibration.datasets import labelled_from
from edgeseg.calibration.scoring import score_labels
from edgeseg.converters.convert import bundle_files
from edgeseg.converters.graph import GraphIndex, set_constant
from edgeseg.converters.lint import lint
from edgeseg.converters.network import graph_on_cpu
from edgeseg.converters.place import weight_scales
from edgeseg.converters.prepare import finish
from edgeseg.errors import BundleError, FrameError, TrainingError, UnsupportedModelError, UsageError
from edgeseg.training.qat import QuantizedNetwork, fine_tune, tuning_recipe
from edgeseg.training.tune import TuneOptions, TuneResult, tune


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    with pytest.MonkeyPatch.context() as patch, one_thread():
        register(patch)
        return trained(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def data(made: tuple[Path, Path]) -> Path:
    return made[0]


@pytest.fixture(scope="module")
def start(made: tuple[Path, Path]) -> QuantizedNetwork:
    with pytest.MonkeyPatch.context() as patch:
        register(patch)
        return quantized(made[1], made[0])


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch)


def scales_of(network: QuantizedNetwork) -> list[float]:
    index = GraphIndex(network.model)
    return [float(np.asarray(index.constant(name))) for name in activation_scales(network.model)]


class TestFineTune:
    def test_it_is_not_worse(self, start: QuantizedNetwork, data: Path) -> None:
        found = tuned(start, data)
        assert found.before is not None
        assert found.miou is not None
        assert found.miou >= found.before
        assert (found.epochs, found.steps) == (5, 20)

    @pytest.mark.parametrize("factor", [1 / 6, 30.0])
    def test_a_bad_range_is_repaired(self, start: QuantizedNetwork, data: Path, factor: float) -> None:
        good, bad = scales_of(start), spoiled(start, factor)
        fixed, learned = (tuned(bad, data, epochs=15, lr=5e-3, fixed_ranges=fixed) for fixed in (True, False))
        assert fixed.before == learned.before
        assert scales_of(fixed.network) == scales_of(bad)
        assert None not in (fixed.before, fixed.miou, learned.miou)
        assert min(learned.miou, fixed.miou) > fixed.before + 0.5  # type: ignore[operator, type-var]
        # The ranges came nearer to those that were right before they were spoiled.
        ratios = np.abs(np.log(np.array(scales_of(learned.network)) / good))
        assert ratios.mean() < 0.9 * abs(np.log(factor))

    def test_it_is_the_same_canonical_graph(self, start: QuantizedNetwork, data: Path) -> None:
        network = tuned(spoiled(start, 1 / 4), data).network
        model, index = network.model, GraphIndex(network.model)
        assert model.graph.node == start.model.graph.node
        assert model.graph.input == start.model.graph.input
        assert model.opset_import == start.model.opset_import
        assert lint(model) == []
        onnx.checker.check_model(model, full_check=True)
        for node in model.graph.node:
            if node.op_type == "QuantizeLinear" and (weight := index.constant(node.input[0])) is not None:
                np.testing.assert_array_equal(index.constant(node.input[1]), weight_scales(weight))
        assert network.table.method == "auto+qat"
        assert network.table.key != start.table.key
        learned = [127 * scale for scale in scales_of(network)]
        assert list(network.table.ranges.values()) == pytest.approx(learned)
        clipped = [entry.clipped_share for entry in network.table.entries.values()]
        assert max(clipped) > max(entry.clipped_share for entry in start.table.entries.values())

    def test_its_score_is_the_runtimes(self, start: QuantizedNetwork, data: Path) -> None:
        found = tuned(start, data)
        with graph_on_cpu(start.manifest, found.network.model) as predict:
            score = score_labels(predict, labelled_from(f"folder:{data}", "val"), start.manifest.labels)
        assert found.miou == pytest.approx(score.miou, abs=0.5)

    def test_the_same_seed_gives_the_same_graph(self, start: QuantizedNetwork, data: Path) -> None:
        with one_thread():
            one, two, other = (
                tuned(spoiled(start, 1 / 4), data, seed=seed).network.model.SerializeToString() for seed in (1, 1, 2)
            )
        assert one == two != other

    def test_distillation_needs_no_right_labels(self, start: QuantizedNetwork, data: Path) -> None:
        bad = spoiled(start, 1 / 6)
        alone, distilled = (tuned(bad, data, distill=weight, epochs=3) for weight in (0.0, 10.0))
        assert alone.network.model != distilled.network.model
        assert distilled.miou > distilled.before  # type: ignore[operator]

    def test_without_validation_the_last_epoch_is_kept(self, start: QuantizedNetwork, data: Path) -> None:
        made = tuning_recipe(start.manifest, epochs=2, batch=4)
        found = fine_tune(start, made, samples(data), None, CPU)
        assert (found.before, found.miou, found.best_epoch) == (None, None, 2)
        assert found.network.model != start.model

    def test_a_graph_that_ends_in_the_class_map(self, start: QuantizedNetwork, data: Path) -> None:
        manifest = start.manifest
        model, output = finish(start.model, manifest.output, manifest.input)
        found = tuned(QuantizedNetwork(replace(manifest, output=output), model, start.table), data)
        assert found.before == pytest.approx(tuned(start, data, epochs=1).before)
        assert found.network.model.graph.output[0].name == "class_map"

    def test_a_network_that_super_resolves(self, data: Path, tmp_path: Path) -> None:
        _, checkpoint = trained(tmp_path, epochs=2, dsrl=True, head={"channels": 8})
        start = quantized(checkpoint, data)
        assert start.manifest.map_size == (2 * SIZE[0], 2 * SIZE[1])
        found = tuned(start, data)
        assert found.miou >= found.before  # type: ignore[operator]

    def test_errors(self, start: QuantizedNetwork, data: Path) -> None:
        with pytest.raises(UsageError, match="a batch of 99 needs as many frames, but there are 16"):
            tuned(start, data, batch=99)
        with pytest.raises(UsageError, match="weight of the distillation must be a number of at least 0, but is -1"):
            tuned(start, data, distill=-1)
        with pytest.raises(TrainingError, match=r"is not finite|the loss is nan"):
            tuned(start, data, lr=1e30)
        large = replace(start.manifest.output, map_height=4 * SIZE[0], map_width=4 * SIZE[1], coordinates="half_pixel")
        with pytest.raises(UnsupportedModelError, match="class map is 4 times the size of its input"):
            tuning_recipe(replace(start.manifest, output=large))

    def test_a_loss_that_is_not_finite(self, start: QuantizedNetwork, data: Path) -> None:
        broken = spoiled(start, 1.0)
        bias = next(n.input[2] for n in broken.model.graph.node if n.op_type == "Conv" and len(n.input) > 2)
        set_constant(broken.model, bias, np.full(GraphIndex(broken.model).shape(bias) or (), np.nan, np.float32))
        with pytest.raises(TrainingError, match="the loss is nan at step 1 of 20; nothing was written; fine-tune with"):
            tuned(broken, data)


def options(root: Path, output: Path, **others: object) -> TuneOptions:
    plain: dict[str, object] = {
        "data": (f"folder:{root}",),
        "output": output,
        "validation": f"folder:{root}",
        "recipe": {"epochs": 3, "batch": 4, "lr": 1e-3, "augmentation": PLAIN},
    }
    return TuneOptions(**{**plain, **others})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def bundle(start: QuantizedNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `edgeseg convert` would have written, with ranges that are too small."""
    bad = spoiled(start, 1 / 6)
    files = bundle_files(bad.model, start.table)
    return write_bundle(tmp_path_factory.mktemp("bundle") / "bad.edgeseg", start.manifest, files).path


class TestTune:
    def check(self, result: TuneResult) -> None:
        """What holds for every fine-tuned bundle."""
        opened = Bundle.open(result.bundle.path)
        manifest = opened.manifest
        assert manifest == result.bundle.manifest
        assert manifest.quantization.method == "auto+qat"
        assert manifest.quantization.frame_names
        assert "torch" in manifest.tools
        assert lint(onnx.load_from_string(opened.read_model())) == []
        _, ranges = read_cache((opened.path / "calibration.cache").read_bytes())
        assert ranges == pytest.approx(result.tuned.network.table.ranges)
        assert "auto+qat" in (opened.path / "report.html").read_text()

    def test_a_checkpoint(self, made: tuple[Path, Path], tmp_path: Path) -> None:
        result = tune(made[1], options(made[0], tmp_path / "net.edgeseg"), CPU)
        self.check(result)
        scores = result.bundle.manifest.scores
        assert scores is not None
        assert scores.metric == "miou"
        assert len(scores.frame_names) == 8
        assert len(result.bundle.manifest.quantization.frame_names) == 16
        assert result.untuned_score is not None
        assert scores.int8_score >= result.untuned_score - 0.5
        assert list(result.seconds) == ["prepare", "calibrate", "check", "fine-tune", "verify", "write"]

    def test_a_bundle(self, bundle: Path, start: QuantizedNetwork, data: Path, tmp_path: Path) -> None:
        held = {name: (bundle / name).read_bytes() for name in (MANIFEST, *Bundle.open(bundle).manifest.files)}
        files = {name: content for name, content in held.items() if name != MANIFEST}
        files |= {f"{SMALLER}/{name}": content for name, content in held.items()}
        given = write_bundle(tmp_path / "two.edgeseg", start.manifest, files)
        result = tune(given.path, options(data, tmp_path / "net.edgeseg"), CPU)
        self.check(result)
        assert result.bundle.smaller is None
        assert f"The network for frames of {SIZE[0]}x{SIZE[1]} in {given.path} is not in this" in result.remarks[-1]
        scores = result.bundle.manifest.scores
        assert scores is not None
        assert result.untuned_score is not None
        assert scores.int8_score > result.untuned_score + 2
        # The float network is read from the bundle itself: spoiled ranges do not touch its score.
        whole = labelled_from(f"folder:{data}", "val")
        with graph_on_cpu(start.manifest, start.model) as predict:
            assert scores.float_score == pytest.approx(score_labels(predict, whole, start.manifest.labels).miou, abs=1)
        assert "Before fine-tuning INT8 scored" in result.remarks[1]

    def test_several_data_sets_and_no_validation(self, made: tuple[Path, Path], tmp_path: Path) -> None:
        more = write_data(tmp_path / "more", 4)
        place = options(
            made[0], tmp_path / "net.edgeseg", data=(f"folder:{made[0]}", f"folder:{more}"), validation=None
        )
        result = tune(made[1], place, CPU)
        self.check(result)
        assert result.bundle.manifest.scores is None
        assert result.untuned_score is None
        assert result.frames == 20
        assert "Without --validation the last epoch is kept" in result.remarks[1]

    def test_frames_that_training_saw_are_not_scored(self, bundle: Path, data: Path, tmp_path: Path) -> None:
        same = options(data, tmp_path / "net.edgeseg", validation=f"folder:{data}@train")
        with pytest.raises(FrameError, match="every validation frame is among those that are trained on"):
            tune(bundle, same, CPU)
        assert list(tmp_path.iterdir()) == []

    def test_bundles_that_cannot_be_tuned(self, bundle: Path, data: Path, tmp_path: Path) -> None:
        opened = Bundle.open(bundle)
        quantization = replace(opened.manifest.quantization, method="auto+qat")
        files = {name: (bundle / name).read_bytes() for name in opened.manifest.files}
        again = write_bundle(tmp_path / "again.edgeseg", replace(opened.manifest, quantization=quantization), files)
        with pytest.raises(UsageError, match="was fine-tuned already"):
            tune(again.path, options(data, tmp_path / "net.edgeseg"), CPU)
        bare = write_bundle(tmp_path / "bare.edgeseg", opened.manifest, {"model.onnx": files["model.onnx"]})
        with pytest.raises(BundleError, match=r"has no calibration\.json, whose ranges"):
            tune(bare.path, options(data, tmp_path / "net.edgeseg"), CPU)
