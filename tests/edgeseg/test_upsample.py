"""The definition of upsampling and argmax, held against ONNX Runtime; the fused kernel, held against the definition."""

from __future__ import annotations

import errno
import itertools
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.graphs import run_graph

from edgeseg import fused, kernels
from edgeseg.errors import EngineError, ShapeError
from edgeseg.manifest import Coordinates
from edgeseg.upsample import frame_logits, nearest_class_map, reference_class_map, sampling, upsampling

RULES = get_args(Coordinates)
NETWORK, LOGITS = (48, 80), (7, 11)
FRAMES = [(48, 80), (37, 53), (131, 97), (5, 200), (1, 1)]


def smooth(channels: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Logits with regions, as a network gives them."""
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    waves = [np.sin(rows / (1 + c % 5) + c) + np.cos(columns / (2 + c % 3) - c) for c in range(channels)]
    return (np.stack(waves) + np.random.default_rng(seed).normal(0, 0.05, (channels, height, width))).astype(np.float32)


def noise(channels: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(channels, height, width)).astype(np.float32)


def ties(channels: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Few distinct values, so that channels are often equal."""
    return np.round(noise(channels, height, width, seed)).astype(np.float32)


def by_onnx(logits: np.ndarray, size: tuple[int, int], rule: str) -> np.ndarray:
    shape = numpy_helper.from_array(np.array([1, len(logits), *size], np.int64), "sizes")
    nodes = [
        helper.make_node("Resize", ["x", "", "", "sizes"], ["y"], mode="linear", coordinate_transformation_mode=rule),
        helper.make_node("ArgMax", ["y"], ["z"], axis=1, keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "resize",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, *logits.shape])],
        [helper.make_tensor_value_info("z", TensorProto.INT64, [1, *size])],
        [shape],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (classes,) = run_graph(model, x=logits[None])
    return classes[0].astype(np.uint8)


class TestReference:
    @pytest.mark.parametrize("rule", RULES)
    @pytest.mark.parametrize("size", [NETWORK, (56, 88), (13, 300)])
    def test_equals_resize_and_argmax_of_onnx(self, rule: Coordinates, size: tuple[int, int]) -> None:
        logits = smooth(12, *LOGITS)
        axes = upsampling(size, size, LOGITS, rule)
        agreement = (reference_class_map(logits, axes.rows, axes.columns) == by_onnx(logits, size, rule)).mean()
        assert agreement >= 0.9999

    @pytest.mark.parametrize("frame", FRAMES)
    def test_other_frames_take_the_nearest_sample_of_the_networks_map(self, frame: tuple[int, int]) -> None:
        logits = noise(6, *LOGITS)
        full, axes = (
            upsampling(NETWORK, NETWORK, LOGITS, "half_pixel"),
            upsampling(frame, NETWORK, LOGITS, "half_pixel"),
        )
        whole = reference_class_map(logits, full.rows, full.columns)
        rows = [int(np.floor(i * NETWORK[0] / frame[0])) for i in range(frame[0])]
        columns = [int(np.floor(i * NETWORK[1] / frame[1])) for i in range(frame[1])]
        assert np.array_equal(reference_class_map(logits, axes.rows, axes.columns), whole[np.ix_(rows, columns)])
        assert np.array_equal(nearest_class_map(whole, axes.rows, axes.columns), whole[np.ix_(rows, columns)])

    def test_a_map_of_the_frames_size_is_copied(self) -> None:
        axes = upsampling((4, 4), (4, 4), (4, 4), None)
        given = np.zeros((4, 4), np.uint8)
        assert nearest_class_map(given, axes.rows, axes.columns) is not given

    @pytest.mark.parametrize("rule", RULES)
    @pytest.mark.parametrize("size", [1, 2, 33])
    def test_samples_stay_on_the_axis(self, rule: Coordinates, size: int) -> None:
        axis = sampling(50, size, 7, rule)
        assert axis.lower.min() >= 0
        assert axis.upper.max() <= 6
        assert (np.diff(axis.lower) >= 0).all()
        assert (axis.weight >= 0).all()
        assert (axis.weight < 1).all()

    def test_needs_a_rule_for_smaller_logits(self) -> None:
        with pytest.raises(ShapeError, match="8 logits on an axis of 64 pixels need a coordinate rule, but got none"):
            sampling(64, 64, 8, None)

    def test_the_first_of_equal_channels_wins(self) -> None:
        axes = upsampling((9, 9), (8, 8), (2, 2), "half_pixel")
        assert (reference_class_map(np.ones((3, 2, 2), np.float32), axes.rows, axes.columns) == 0).all()


class TestFused:
    @pytest.mark.parametrize("channels", [2, 12, 20, 150])
    @pytest.mark.parametrize("rule", RULES)
    def test_equals_the_reference(self, channels: int, rule: Coordinates) -> None:
        for make, frame in itertools.product((smooth, noise, ties), FRAMES):
            logits = make(channels, *LOGITS)
            axes = upsampling(frame, NETWORK, LOGITS, rule)
            expected = reference_class_map(logits, axes.rows, axes.columns)
            assert np.array_equal(fused.class_map(logits, axes), expected), (make.__name__, frame)

    @pytest.mark.parametrize("channels", [2, 12, 20, 150])
    def test_equals_the_reference_at_full_size(self, channels: int) -> None:
        for make, frame in itertools.product((noise, ties), FRAMES):
            logits = make(channels, *NETWORK)
            axes = upsampling(frame, NETWORK, NETWORK, None)
            expected = reference_class_map(logits, axes.rows, axes.columns)
            assert np.array_equal(fused.class_map(logits, axes), expected), (make.__name__, frame)

    @pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1)])
    def test_takes_logits_of_one_row_or_column(self, size: tuple[int, int]) -> None:
        logits = noise(5, *size)
        axes = upsampling((30, 40), (16, 24), size, "half_pixel")
        assert np.array_equal(fused.class_map(logits, axes), reference_class_map(logits, axes.rows, axes.columns))

    @pytest.mark.parametrize("scale", [1e-38, 1e-6, 1e6, 1e30])
    def test_is_exact_at_every_magnitude(self, scale: float) -> None:
        logits = (noise(12, *LOGITS) + 100) * np.float32(scale)
        axes = upsampling((61, 67), NETWORK, LOGITS, "align_corners")
        assert np.array_equal(fused.class_map(logits, axes), reference_class_map(logits, axes.rows, axes.columns))

    def test_takes_logits_that_are_not_contiguous(self) -> None:
        logits = noise(9, *LOGITS)[:, :, ::-1]
        axes = upsampling((30, 40), NETWORK, LOGITS, "asymmetric")
        assert np.array_equal(fused.class_map(logits, axes), reference_class_map(logits, axes.rows, axes.columns))

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("rule", ["half_pixel", None])
    @pytest.mark.parametrize("place", [(0, 0, 0), (2, 3, 10), (5, 6, 10)])
    def test_refuses_logits_that_are_not_finite(
        self, value: float, rule: Coordinates | None, place: tuple[int, int, int]
    ) -> None:
        logits = noise(6, *LOGITS)
        logits[place] = value
        network = LOGITS if rule is None else NETWORK
        with pytest.raises(EngineError, match="logits that are not finite; check the network and its ranges"):
            fused.class_map(logits, upsampling(network, network, LOGITS, rule))

    def test_without_compiling_it_is_the_same(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "numba", None)
        logits = np.random.default_rng(3).normal(size=(5, 9, 7)).astype(np.float32)
        axes = upsampling((37, 29), (36, 28), (9, 7), "half_pixel")
        expected = frame_logits(logits, axes.rows, axes.columns).argmax(axis=0)
        out = np.empty((37, 29), np.uint8)
        assert fused.uncompiled_class_map(logits, axes, out) is out
        assert np.array_equal(out, expected)
        assert np.array_equal(fused.uncompiled_class_map(logits, axes), expected)
        logits[4, 8, 6] = np.nan
        with pytest.raises(EngineError, match="logits that are not finite"):
            fused.uncompiled_class_map(logits, axes)

    def test_equals_the_reference_on_a_real_network(self, shared: Path) -> None:
        cv2 = pytest.importorskip("cv2")
        runtime = pytest.importorskip("onnxruntime")
        image = cv2.imread(str(sorted((shared / "data/camvid/val/images").iterdir())[0]))
        network = shared / "models/espnetv2_s0.5_cityscapes_352x480.onnx"
        session = runtime.InferenceSession(str(network), providers=["CPUExecutionProvider"])
        image = cv2.resize(image, (480, 352))[:, :, ::-1].astype(np.float32)
        frame = (image / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
        (logits,) = session.run(None, {"image": frame.transpose(2, 0, 1)[None].astype(np.float32)})
        small = np.ascontiguousarray(logits[0, :, ::8, ::8])
        for frame_size in [(352, 480), (480, 640), (123, 457)]:
            full = upsampling(frame_size, (352, 480), (352, 480), None)
            expected = reference_class_map(logits[0], full.rows, full.columns)
            assert np.array_equal(fused.class_map(logits[0], full), expected)
            for rule in RULES:
                axes = upsampling(frame_size, (352, 480), (44, 60), rule)
                expected = reference_class_map(small, axes.rows, axes.columns)
                assert np.array_equal(fused.class_map(small, axes), expected)


class TestCompilation:
    @pytest.fixture
    def _forgotten(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(kernels, "_compiled", {})

    @pytest.mark.usefixtures("_forgotten")
    def test_machine_code_is_kept_in_the_cache_folder(self, cache_dir: Path) -> None:
        import numba

        axes = upsampling((3, 3), (3, 3), (3, 3), None)
        fused.class_map(noise(3, 3, 3), axes)
        assert list((cache_dir / "kernels").rglob("*.nbc"))
        assert str(cache_dir) not in str(numba.config.CACHE_DIR)

    @pytest.mark.usefixtures("_forgotten")
    def test_works_without_a_cache_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("EDGESEG_CACHE_DIR", str(tmp_path / "file"))
        axes = upsampling((3, 3), (3, 3), (3, 3), None)
        logits = noise(3, 3, 3)
        assert np.array_equal(fused.class_map(logits, axes), logits.argmax(axis=0))
        assert "kernels are compiled at every start" in caplog.text

    @pytest.mark.usefixtures("_forgotten")
    def test_works_where_the_disk_is_full(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def full(*arguments: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setitem(kernels._compiled, fused._argmax, full)
        logits = noise(3, 3, 3)
        class_map = fused.class_map(logits, upsampling((3, 3), (3, 3), (3, 3), None))
        assert np.array_equal(class_map, logits.argmax(axis=0))
        assert "since they cannot be saved: [Errno 28] No space left on device" in caplog.text
