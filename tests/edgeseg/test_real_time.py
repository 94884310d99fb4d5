"""What a control loop relies on: no array is allocated for a frame, other threads run on, and tensors are taken."""

from __future__ import annotations

import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from support.bundles import quantized_bundle
from support.graphs import random_frame

import edgeseg
from edgeseg import fused
from edgeseg.errors import ShapeError
from edgeseg.segmenter import Segmenter
from edgeseg.upsample import upsampling

HEIGHT, WIDTH = 128, 192
BACKENDS = ("openvino", "onnxruntime")


@pytest.fixture(params=BACKENDS)
def segmenter(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Segmenter]:
    bundle = quantized_bundle(tmp_path / "toy.edgeseg", HEIGHT, WIDTH)
    with edgeseg.load(bundle.path, backend=request.param, threads=1) as made:
        yield made


def growth(work: Callable[[], object], times: int = 200) -> tuple[int, int]:
    """Bytes that are still there after that many runs, and the largest number that one run held, after warming up."""
    tracemalloc.start()
    try:
        for _ in range(100):  # Python's own free lists fill meanwhile
            work()
        start, peak = tracemalloc.get_traced_memory()[0], 0
        for _ in range(times):
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            work()
            peak = max(peak, tracemalloc.get_traced_memory()[1] - before)
        return tracemalloc.get_traced_memory()[0] - start, peak
    finally:
        tracemalloc.stop()


class TestSegmentInto:
    @pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (270, 480)])
    def test_is_what_a_call_gives(self, segmenter: Segmenter, size: tuple[int, int]) -> None:
        mine = np.full(size, 99, np.uint8)
        for seed in range(3):
            image = random_frame(*size, seed)
            found = segmenter.segment_into(image, mine)
            assert found.class_map is mine
            assert np.array_equal(mine, segmenter(image).class_map)

    @pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (270, 480)])
    def test_allocates_no_array(self, segmenter: Segmenter, size: tuple[int, int]) -> None:
        image, mine = random_frame(*size, 0), np.empty(size, np.uint8)
        kept, peak = growth(lambda: segmenter.segment_into(image, mine))
        # The smallest array has 24576 bytes, and a row of it left behind by each frame would keep 38400. What is seen
        # are Python's own objects, some of which wait in its free lists.
        assert (kept < 8192, peak < 4096) == (True, True), (kept, peak)

    def test_the_measurement_sees_a_class_map(self, segmenter: Segmenter) -> None:
        image = random_frame(HEIGHT, WIDTH, 0)
        assert growth(lambda: segmenter(image))[1] > HEIGHT * WIDTH

    def test_of_a_mirrored_frame(self, segmenter: Segmenter) -> None:
        image, mine = random_frame(HEIGHT, WIDTH, 0)[:, ::-1], np.empty((HEIGHT, WIDTH), np.uint8)
        segmenter.segment_into(image, mine)
        assert np.array_equal(mine, segmenter(np.ascontiguousarray(image)).class_map)
        assert growth(lambda: segmenter.segment_into(image, mine))[1] < 4096

    def test_a_call_s_results_are_never_overwritten(self, segmenter: Segmenter) -> None:
        first = segmenter(random_frame(270, 480, 0))
        kept = first.class_map.copy()
        for seed in range(1, 4):
            segmenter(random_frame(270, 480, seed))
            segmenter.segment_into(random_frame(270, 480, seed), np.empty((270, 480), np.uint8))
        assert np.array_equal(first.class_map, kept)

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            (
                np.empty((8, 12), np.uint8),
                r"class_map must be \(128, 192\) uint8.* but got \(8, 12\) uint8; make it once",
            ),
            (np.empty((HEIGHT, WIDTH), np.int64), r"but got \(128, 192\) int64"),
            ([], "but got list"),
            (np.empty((WIDTH, HEIGHT), np.uint8).T, "must be contiguous and writable, but is a view or read-only"),
            (np.frombuffer(bytes(HEIGHT * WIDTH), np.uint8).reshape(HEIGHT, WIDTH), "is a view or read-only"),
        ],
    )
    def test_refuses_another_array(self, segmenter: Segmenter, given: np.ndarray, message: str) -> None:
        with pytest.raises(ShapeError, match=message):
            segmenter.segment_into(random_frame(HEIGHT, WIDTH, 0), given)

    def test_kernels_of_two_threads_do_not_share_memory(self) -> None:
        axes = upsampling((60, 90), (60, 90), (15, 20), "half_pixel")
        logits = [np.random.default_rng(i).normal(size=(6, 15, 20)).astype(np.float32) for i in range(4)]
        expected = [fused.class_map(each, axes) for each in logits]
        wrong: list[int] = []

        def work(index: int) -> None:
            wrong.extend(
                index for _ in range(200) if not np.array_equal(fused.class_map(logits[index], axes), expected[index])
            )

        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []

    def test_kernels_take_many_sizes_in_turn(self) -> None:
        for size in (*range(20, 40), 20):
            axes = upsampling((size, size), (size, size), (5, 6), "half_pixel")
            logits = np.random.default_rng(size).normal(size=(3, 5, 6)).astype(np.float32)
            out = np.empty((size, size), np.uint8)
            assert fused.class_map(logits, axes, out) is out
            assert np.array_equal(out, fused.class_map(logits, axes))


class TestOtherThreads:
    """Python code goes on during a frame: a thread counts, and gives way after each step."""

    @pytest.fixture(autouse=True)
    def _no_preemption(self) -> Iterator[None]:
        # A thread then only loses the interpreter when it gives it up, so a count means that the engine did.
        interval = sys.getswitchinterval()
        sys.setswitchinterval(10)
        yield
        sys.setswitchinterval(interval)

    def share(self, work: Callable[[], object], seconds: float = 0.3) -> float:
        """Steps while `work` is repeated, over the steps in the same time while this thread sleeps."""
        steps, stop = [0], threading.Event()

        def count() -> None:
            while not stop.is_set():
                steps[0] += 1
                time.sleep(0)

        def during(what: Callable[[], object]) -> float:
            before, start = steps[0], time.monotonic()
            while time.monotonic() - start < seconds:
                what()
            return (steps[0] - before) / (time.monotonic() - start)

        thread = threading.Thread(target=count)
        thread.start()
        try:
            return during(work) / during(lambda: time.sleep(seconds))
        finally:
            stop.set()
            thread.join()

    @pytest.mark.parametrize("name", BACKENDS)
    def test_run_during_a_frame(self, tmp_path: Path, name: str) -> None:
        bundle = quantized_bundle(tmp_path / "toy.edgeseg", 512, 768)
        image, mine = random_frame(720, 1280, 0), np.empty((720, 1280), np.uint8)
        with edgeseg.load(bundle.path, backend=name, threads=1) as segmenter:
            segmenter.segment_into(image, mine)
            assert self.share(lambda: segmenter.segment_into(image, mine)) > 0.1

    def test_run_while_logits_become_a_class_map(self) -> None:
        axes = upsampling((1024, 2048), (1024, 2048), (128, 256), "half_pixel")
        logits = np.random.default_rng(0).normal(size=(19, 128, 256)).astype(np.float32)
        assert self.share(lambda: fused.class_map(logits, axes)) > 0.1

    def test_the_measurement_sees_who_holds_the_interpreter(self) -> None:
        assert self.share(lambda: sum(range(10**7))) < 0.05


class Foreign:
    """An array of another library, with DLPack's protocol."""

    def __init__(self, array: np.ndarray, device: int = 1) -> None:
        self.array, self.device = array, device

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device, 0

    def __dlpack__(self, **options: object) -> object:
        return self.array.__dlpack__(**options)


class OnGPU:
    @property
    def __cuda_array_interface__(self) -> dict[str, object]:
        return {"shape": (4, 4, 3), "typestr": "|u1", "data": (0, False), "version": 3}


class TestTensors:
    def test_are_taken_by_every_call(self, segmenter: Segmenter) -> None:
        image = random_frame(HEIGHT, WIDTH, 0)
        expected, mine = segmenter(image).class_map, np.empty((HEIGHT, WIDTH), np.uint8)
        foreign: object = Foreign(image)
        assert np.array_equal(segmenter(foreign).class_map, expected)
        assert np.array_equal(next(segmenter.stream([foreign])).class_map, expected)
        assert np.array_equal(segmenter.submit(foreign).result(20).class_map, expected)
        assert np.array_equal(segmenter.segment_into(foreign, mine).class_map, expected)

    def test_of_torch_both_ways(self, segmenter: Segmenter) -> None:
        torch = pytest.importorskip("torch")
        image = random_frame(HEIGHT, WIDTH, 0)
        found = segmenter(torch.from_numpy(image))
        assert np.array_equal(found.class_map, segmenter(image).class_map)
        assert torch.equal(torch.from_dlpack(found.class_map), torch.from_numpy(found.class_map))

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            (Foreign(np.zeros((4, 4, 3), np.float32)), r"got \(4, 4, 3\) float32; convert it to 8 bits"),
            (Foreign(np.zeros((4, 4, 3), np.uint8), device=2), r"lies in a GPU's memory \(Foreign\).* frame\.cpu\(\)"),
            (OnGPU(), r"lies in a GPU's memory \(OnGPU\)"),
            (Foreign(np.zeros((4, 4, 3), "datetime64[s]")), "this Foreign does not become one: "),
        ],
    )
    def test_that_do_not_fit_are_refused(self, segmenter: Segmenter, given: object, message: str) -> None:
        with pytest.raises(ShapeError, match=message):
            segmenter(given)


class TestClassMapGraph:
    """A bundle whose graph ends in the class map itself."""

    @pytest.mark.parametrize("size", [(8, 12), (21, 17)])
    def test_is_written_in_place(self, tmp_path: Path, size: tuple[int, int]) -> None:
        from edgeseg.upsample import nearest_class_map

        axes = upsampling(size, (8, 12), (8, 12), None)
        given = np.random.default_rng(0).integers(0, 9, (8, 12), np.uint8)
        out = np.empty(size, np.uint8)
        assert nearest_class_map(given, axes.rows, axes.columns, out) is out
        assert np.array_equal(out, given[np.ix_(axes.rows.nearest, axes.columns.nearest)])
        assert growth(lambda: nearest_class_map(given, axes.rows, axes.columns, out))[1] < 2048
