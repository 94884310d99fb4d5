"""From a bundle and a frame to a class map."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from support.bundles import quantized_bundle, toy_bundle, toy_manifest
from support.fake_backend import FakeBackend
from support.graphs import random_frame, run_graph

import edgeseg
from edgeseg.backends import Target
from edgeseg.errors import BundleError, EngineError, ShapeError, UsageError
from edgeseg.segmenter import Segmenter
from edgeseg.upsample import reference_class_map, upsampling

HEIGHT, WIDTH = 8, 12


def frame(seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def expected(image: np.ndarray) -> np.ndarray:
    """What the fake backend says of a frame of the network's size."""
    return image[:, :, 0] // 64


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend(size=(HEIGHT, WIDTH))


@pytest.fixture
def segmenter(tmp_path: Path, backend: FakeBackend) -> Iterator[Segmenter]:
    def make(target: Target) -> object:
        return backend.load(backend.compile(b"graph", target), target)

    with Segmenter(toy_bundle(tmp_path / "toy.edgeseg"), backend, make, Target(threads=2)) as made:
        yield made


class TestCall:
    def test_gives_a_class_map_of_the_frame(self, segmenter: Segmenter) -> None:
        result = segmenter(frame())
        assert result.class_map.dtype == np.uint8
        assert np.array_equal(result.class_map, expected(frame()))
        assert result.labels.names == ("class0", "class1", "class2", "class3")

    def test_times_every_stage(self, segmenter: Segmenter, backend: FakeBackend) -> None:
        backend.seconds = 0.02
        timing = segmenter(frame()).timing
        assert timing.infer >= 20
        assert timing.decode == 0
        assert timing.total == pytest.approx(timing.preprocess + timing.infer + timing.postprocess)

    def test_another_size_is_resized_and_brought_back(self, segmenter: Segmenter) -> None:
        import cv2

        image = frame(height=31, width=17)
        result = segmenter(image)
        whole = expected(cv2.resize(image, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR))
        rows, columns = np.arange(31) * HEIGHT // 31, np.arange(17) * WIDTH // 17
        assert np.array_equal(result.class_map, whole[np.ix_(rows, columns)])

    def test_takes_a_mirrored_view(self, segmenter: Segmenter) -> None:
        assert np.array_equal(segmenter(frame()[:, ::-1]).class_map, expected(frame()[:, ::-1]))

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            (np.zeros((4, 4, 4), np.uint8), r"got \(4, 4, 4\) uint8; drop the alpha channel with frame\[:, :, :3\]"),
            (np.zeros((4, 4), np.uint8), r"got \(4, 4\) uint8; repeat a grey frame"),
            (np.zeros((1, 4, 4, 3), np.uint8), r"got \(1, 4, 4, 3\) uint8; give one frame at a time"),
            (np.zeros((3, 4, 5), np.uint8), r"got \(3, 4, 5\) uint8; turn planes into pixels"),
            (np.zeros((4, 4, 3), np.float32), r"got \(4, 4, 3\) float32; convert it to 8 bits"),
            (np.zeros((0, 4, 3), np.uint8), r"got \(0, 4, 3\) uint8"),
            ("frame.png", "frame must be .* array, but is str"),
        ],
    )
    def test_refuses_what_is_no_frame(self, segmenter: Segmenter, given: np.ndarray, message: str) -> None:
        with pytest.raises(ShapeError, match=message):
            segmenter(given)

    def test_runs_in_several_threads(self, segmenter: Segmenter) -> None:
        def run(seed: int) -> bool:
            size = {"height": 8 + seed % 3, "width": 12}
            return np.array_equal(segmenter(frame(seed, **size)).class_map.shape, (size["height"], 12))

        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(run, range(60)))

    def test_close_twice_then_refuse(self, segmenter: Segmenter, backend: FakeBackend) -> None:
        segmenter.close()
        segmenter.close()
        assert [engine.closed for engine in backend.engines] == [1]
        with pytest.raises(EngineError, match="the segmenter is closed; load the bundle again"):
            segmenter(frame())
        with pytest.raises(EngineError, match="the segmenter is closed"):
            segmenter.stream([])


class Named:
    def __init__(self, name: str, image: np.ndarray) -> None:
        self.name, self.image = name, image


class TestStream:
    def test_keeps_the_order(self, segmenter: Segmenter, backend: FakeBackend) -> None:
        waits = np.random.default_rng(0).uniform(0, 0.004, 40)
        backend.before = lambda image: threading.Event().wait(waits[image[0, 0, 0, 1] % 40])
        results = list(segmenter.stream([frame(i) for i in range(40)]))
        assert [result.frame_number for result in results] == list(range(40))
        assert all(np.array_equal(r.class_map, expected(frame(i))) for i, r in enumerate(results))

    def test_takes_named_frames(self, segmenter: Segmenter) -> None:
        frames = [Named(f"{i}.png", frame(i)) for i in range(3)]
        assert [result.name for result in segmenter.stream(frames)] == ["0.png", "1.png", "2.png"]

    def test_uses_an_engine_for_throughput(self, segmenter: Segmenter, backend: FakeBackend) -> None:
        list(segmenter.stream([frame()]))
        list(segmenter.stream([frame()]))
        assert [target.goal for target in backend.compiled] == ["latency", "throughput"]

    def test_overlaps_source_and_engine(self, segmenter: Segmenter, backend: FakeBackend) -> None:
        running, met = threading.Event(), []

        def before(image: np.ndarray) -> None:
            running.set()

        def source() -> Iterator[np.ndarray]:
            yield frame(0)
            met.append(running.wait(5))
            yield frame(1)

        backend.before = before
        assert len(list(segmenter.stream(source()))) == 2
        assert met == [True]

    def test_an_empty_source_gives_nothing(self, segmenter: Segmenter) -> None:
        assert list(segmenter.stream([])) == []

    def test_a_wrong_frame_is_raised_in_its_place(self, segmenter: Segmenter) -> None:
        results = segmenter.stream([frame(0), frame(1), np.zeros((2, 2), np.uint8), frame(3)])
        assert [next(results).frame_number, next(results).frame_number] == [0, 1]
        with pytest.raises(ShapeError, match=r"got \(2, 2\) uint8"):
            next(results)

    def test_refuses_no_frames_in_flight(self, segmenter: Segmenter) -> None:
        with pytest.raises(UsageError, match="in_flight must be at least 1, but is 0"):
            segmenter.stream([], in_flight=0)


class TestLoad:
    @pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
    @pytest.mark.parametrize("size", [(32, 48), (45, 61)])
    def test_gives_the_graph_s_class_map(self, tmp_path: Path, name: str, size: tuple[int, int]) -> None:
        import cv2

        bundle = quantized_bundle(tmp_path / "toy.edgeseg")
        image = random_frame(*size, 3)
        resized = cv2.resize(image, (48, 32), interpolation=cv2.INTER_LINEAR)
        (logits,) = run_graph(onnx.load_from_string(bundle.read_model()), frame=resized[None])
        axes = upsampling(size, (32, 48), (8, 12), "half_pixel")
        reference = reference_class_map(logits[0], axes.rows, axes.columns)
        with edgeseg.load(bundle.path, backend=name, threads=1) as segmenter:
            assert segmenter.backend_name == name
            assert (segmenter(image).class_map == reference).mean() >= 0.99
            (streamed,) = segmenter.stream([image])
            assert np.array_equal(streamed.class_map, segmenter(image).class_map)

    def test_backends_agree(self, tmp_path: Path) -> None:
        bundle = quantized_bundle(tmp_path / "toy.edgeseg", 64, 96)
        frames = [random_frame(64, 96, seed) for seed in range(4)]
        maps = []
        for name in ("openvino", "onnxruntime"):
            with edgeseg.load(bundle.path, backend=name, threads=2) as segmenter:
                maps.append(np.stack([segmenter(image).class_map for image in frames]))
        assert (maps[0] == maps[1]).mean() >= 0.999

    def test_auto_takes_an_installed_backend(self, tmp_path: Path, cache_dir: Path) -> None:
        bundle = quantized_bundle(tmp_path / "toy.edgeseg")
        with edgeseg.load(bundle.path, threads=1) as segmenter:
            assert segmenter.backend_name in ("openvino", "onnxruntime")
        assert (cache_dir / "backends.json").is_file()

    def test_the_environment_decides_for_auto(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        bundle = quantized_bundle(tmp_path / "toy.edgeseg")
        for name in ("onnxruntime", "openvino"):
            monkeypatch.setenv("EDGESEG_BACKEND", name)
            with edgeseg.load(bundle.path, threads=1) as segmenter:
                assert segmenter.backend_name == name
        with edgeseg.load(bundle.path, backend="onnxruntime", threads=1) as segmenter:
            assert segmenter.backend_name == "onnxruntime"

    def test_refuses_an_unknown_backend(self, tmp_path: Path) -> None:
        bundle = quantized_bundle(tmp_path / "toy.edgeseg")
        with pytest.raises(UsageError, match="unknown backend 'openvno'; did you mean openvino"):
            edgeseg.load(bundle.path, backend="openvno")

    def test_refuses_no_threads(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="threads must be at least 1, but is 0; leave it out"):
            edgeseg.load(tmp_path, threads=0)

    def test_refuses_a_graph_that_is_not_the_manifest_s(self, tmp_path: Path) -> None:
        bundle = quantized_bundle(tmp_path / "right.edgeseg")
        wrong = toy_bundle(tmp_path / "wrong.edgeseg", toy_manifest(32, 48), bundle.read_model())
        with pytest.raises(BundleError, match=r"logits \(1, 4, 32, 48\) float32, but the graph has .*\(1, 4, 8, 12\)"):
            edgeseg.load(wrong.path, backend="onnxruntime", threads=1)

    def test_refuses_no_bundle(self, tmp_path: Path) -> None:
        with pytest.raises(BundleError, match=r"there is no bundle at .*none\.edgeseg; make one with"):
            edgeseg.load(tmp_path / "none.edgeseg")
