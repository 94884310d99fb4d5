"""The fused kernel against the NumPy reference: its very source on a processor here, and on a GPU with -m gpu."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from numpy.typing import NDArray
from support.cuda_devices import fake_device
from support.fake_gpu import FakeGpu

from edgeseg.backends.cuda import Cuda
from edgeseg.backends.cuda.class_map import ClassMapKernel, LogitsFormat, compiler_options, kernel_source, strips
from edgeseg.errors import EngineError, ShapeError
from edgeseg.labels import LabelSet
from edgeseg.manifest import Coordinates
from edgeseg.segmentation import Segmentation, Timing
from edgeseg.upsample import Upsampling, reference_class_map, upsampling

RULES = get_args(Coordinates)
Logits = NDArray[np.float32]


def smooth(channels: int, height: int, width: int) -> Logits:
    """Logits with regions, as a network gives them: most strips have one leader."""
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    waves = [np.sin(rows / (3 + c % 5) + c) + np.cos(columns / (4 + c % 3) - c) for c in range(channels)]
    return np.stack(waves).astype(np.float32) * 4


def noise(channels: int, height: int, width: int) -> Logits:
    return np.random.default_rng(0).normal(size=(channels, height, width)).astype(np.float32)


def ties(channels: int, height: int, width: int) -> Logits:
    """Few distinct values, so that channels are often equal."""
    return np.round(noise(channels, height, width)).astype(np.float32)


def near_ties(channels: int, height: int, width: int) -> Logits:
    """Channels that differ by a few units in the last place, where rounding decides."""
    units = np.random.default_rng(1).integers(-3, 4, (channels, height, width))
    return (np.float32(1.7) + units.astype(np.float32) * np.float32(2**-23)).astype(np.float32)


def tiny(channels: int, height: int, width: int) -> Logits:
    """Numbers below the smallest normal one."""
    return (noise(channels, height, width) * np.float32(1e-41)).astype(np.float32)


def tiny_ties(channels: int, height: int, width: int) -> Logits:
    """The same a few units apart, where rounding is not relative any more."""
    units = np.random.default_rng(2).integers(0, 5, (channels, height, width)).astype(np.uint32)
    return (units + np.uint32(700)).view(np.float32)


def huge(channels: int, height: int, width: int) -> Logits:
    return (noise(channels, height, width) * np.float32(5e37)).astype(np.float32)


def constant(channels: int, height: int, width: int) -> Logits:
    return np.full((channels, height, width), -2.5, np.float32)


MAKERS = (smooth, noise, ties, near_ties, tiny, tiny_ties, huge, constant)


def run(
    cuda: Cuda,
    logits: NDArray[Any],
    axes: Upsampling,
    layout: str = "NCHW",
    *,
    palette: NDArray[np.uint8] | None = None,
    frame: NDArray[np.uint8] | None = None,
    alpha: float = 0.5,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    """Class map and overlay of logits (C, h, w), given to the kernel in `layout`."""
    stored = logits if layout == "NCHW" else np.ascontiguousarray(logits.transpose(1, 2, 0))
    entry = LogitsFormat.of(logits.shape, logits.dtype.name, layout)  # type: ignore[arg-type]
    kernel = ClassMapKernel(cuda, entry, axes, palette=palette, alpha=alpha)
    shape = kernel.frame_size
    result, overlay = np.zeros(shape, np.uint8), np.zeros((*shape, 3), np.uint8)
    with (
        cuda.stream() as stream,
        cuda.allocate(stored.nbytes) as on_device,
        cuda.allocate(result.size) as class_map,
        cuda.allocate(3 * result.size) as picture,
        cuda.allocate(3 * result.size) as drawn,
    ):
        try:
            stream.fill(class_map, 255)  # every pixel must be written
            stream.copy_to_device(on_device, stored)
            images = {}
            if frame is not None:
                stream.copy_to_device(picture, frame)
                images = {"frame": picture.pointer, "overlay": drawn.pointer}
            kernel.launch(stream, on_device.pointer, class_map.pointer, **images)
            stream.copy_to_host(result, class_map)
            stream.copy_to_host(overlay, drawn)
            stream.synchronize()
            kernel.check()
        finally:
            stream.synchronize()
            kernel.close()
    return result, overlay if frame is not None else None


def differences(found: NDArray[np.uint8], logits: NDArray[Any], axes: Upsampling) -> int:
    expected = reference_class_map(logits.astype(np.float32), axes.rows, axes.columns)
    assert found.shape == expected.shape
    return int((found != expected).sum())


SHAPES = [
    # classes, logits, class map, frame
    (1, (3, 4), (9, 12), (9, 12)),
    (2, (1, 1), (8, 8), (8, 8)),
    (2, (2, 2), (5, 7), (5, 7)),
    (3, (5, 3), (5, 3), (5, 3)),
    (12, (7, 11), (48, 80), (48, 80)),
    (12, (7, 11), (48, 80), (37, 53)),
    (19, (16, 32), (128, 256), (128, 256)),
    (19, (16, 32), (128, 256), (131, 257)),
    (20, (7, 11), (48, 80), (1, 1)),
    (20, (9, 13), (9, 13), (27, 39)),
    (64, (6, 10), (50, 81), (5, 200)),
    (150, (7, 11), (48, 80), (131, 97)),
    (256, (5, 9), (20, 36), (20, 36)),
]


@pytest.mark.parametrize(("channels", "size", "map_size", "frame_size"), SHAPES)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
class TestExact:
    def test_equals_the_reference(
        self, exact: Cuda, channels: int, size: Any, map_size: Any, frame_size: Any, layout: str
    ) -> None:
        rule = None if size == map_size else RULES[(channels + frame_size[1]) % len(RULES)]
        axes = upsampling(frame_size, map_size, size, rule)
        for make in MAKERS:
            logits = make(channels, *size)
            found, _ = run(exact, logits, axes, layout)
            assert differences(found, logits, axes) == 0, make.__name__
            if make not in (near_ties, tiny, tiny_ties, huge):
                found, _ = run(exact, logits.astype(np.float16), axes, layout)
                assert differences(found, logits.astype(np.float16), axes) == 0, f"{make.__name__} in float16"


class TestRules:
    @pytest.mark.parametrize("rule", RULES)
    @pytest.mark.parametrize("size", [(7, 11), (1, 6), (6, 1), (48, 80)])
    def test_each_rule_of_onnx(self, exact: Cuda, rule: Coordinates, size: tuple[int, int]) -> None:
        for frame in ((48, 80), (50, 33)):
            axes = upsampling(frame, (48, 80), size, rule)
            for make in (noise, ties):
                logits = make(12, *size)
                assert differences(run(exact, logits, axes)[0], logits, axes) == 0, (frame, make.__name__)

    def test_every_float16_is_read_as_it_is(self, exact: Cuda) -> None:
        numbers = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
        numbers = numbers[np.isfinite(numbers)]
        logits = np.stack([numbers, np.roll(numbers, 7777)])[:, None, :]
        axes = upsampling((1, numbers.size), (1, numbers.size), (1, numbers.size), None)
        assert differences(run(exact, logits, axes)[0], logits, axes) == 0


class TestOverlay:
    @pytest.mark.parametrize("size", [(7, 11), (48, 80)])
    @pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
    def test_blends_as_segmentation_does(self, exact: Cuda, size: tuple[int, int], alpha: float) -> None:
        random = np.random.default_rng(5)
        palette = random.integers(0, 256, (6, 3), np.uint8)
        frame = random.integers(0, 256, (48, 80, 3), np.uint8)
        axes = upsampling((48, 80), (48, 80), size, None if size == (48, 80) else "half_pixel")
        logits = smooth(6, *size)
        found, overlay = run(exact, logits, axes, palette=palette, frame=frame, alpha=alpha)
        assert differences(found, logits, axes) == 0
        assert overlay is not None
        share, colours = np.float32(alpha), palette[found].astype(np.float32)
        expected = np.rint(frame.astype(np.float32) * (np.float32(1) - share) + colours * share)
        assert np.array_equal(overlay, expected.astype(np.uint8))
        labels = LabelSet(tuple("abcdef"), tuple(map(tuple, palette.tolist())))
        drawn = Segmentation(found, labels, Timing(0, 0, 0, 0, 0)).overlay(frame, alpha)
        difference = np.abs(overlay.astype(int) - drawn)
        # OpenCV may fuse the multiplication and the sum, which moves a half to the other side.
        assert difference.max() <= (0 if alpha in (0.0, 0.5, 1.0) else 1)

    def test_needs_both_images(self, exact: Cuda) -> None:
        axes = upsampling((8, 8), (8, 8), (4, 4), "half_pixel")
        kernel = ClassMapKernel(exact, LogitsFormat.of((2, 4, 4)), axes, palette=np.zeros((2, 3), np.uint8))
        with exact.stream() as stream, pytest.raises(EngineError, match="needs the addresses of frame and overlay"):
            kernel.launch(stream, 256, 256, frame=256)
        kernel.close()


class TestBothLibraries:
    def test_equals_the_reference(self, cuda: Cuda) -> None:
        axes = upsampling((37, 53), (48, 80), (7, 11), "half_pixel")
        logits = ties(12, 7, 11)
        assert differences(run(cuda, logits, axes)[0], logits, axes) == 0


class TestNotFinite:
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("size", [(4, 6), (16, 24)])
    @pytest.mark.parametrize("kind", ["float32", "float16"])
    def test_is_found(self, cuda: Cuda, value: float, size: tuple[int, int], kind: str) -> None:
        axes = upsampling((16, 24), (16, 24), size, None if size == (16, 24) else "half_pixel")
        for channel, row, column in ((0, 0, 0), (2, size[0] - 1, size[1] - 1), (1, 2, 3)):
            logits = noise(3, *size).astype(kind)
            logits[channel, row, column] = value
            with pytest.raises(EngineError, match="the engine gave logits that are not finite; check the network"):
                run(cuda, logits, axes)

    def test_each_slot_has_its_own(self, cuda: Cuda) -> None:
        axes = upsampling((8, 8), (8, 8), (4, 4), "half_pixel")
        kernel = ClassMapKernel(cuda, LogitsFormat.of((2, 4, 4)), axes, slots=3)
        with cuda.stream() as stream, cuda.allocate(128) as logits, cuda.allocate(64) as class_map:
            for slot, value in enumerate((0.0, np.nan, 1.0)):
                stream.copy_to_device(logits, np.full(32, value, np.float32))
                kernel.launch(stream, logits.pointer, class_map.pointer, slot=slot)
            stream.synchronize()
            kernel.check(0)
            kernel.check(2)
            with pytest.raises(EngineError, match="not finite"):
                kernel.check(1)
            kernel.check(1)  # said once
        kernel.close()


class TestLife:
    def test_tables_and_kernels_are_given_back(self, fake_cuda: Cuda, gpu: FakeGpu) -> None:
        axes = upsampling((8, 8), (8, 8), (4, 4), "half_pixel")
        kernel = ClassMapKernel(fake_cuda, LogitsFormat.of((2, 4, 4)), axes, palette=np.zeros((2, 3), np.uint8))
        assert fake_cuda.open_resources == {"GPU memory": 6, "pinned buffer": 1, "kernel module": 1}
        kernel.close()
        kernel.close()
        assert gpu.left == {}

    def test_nothing_is_left_where_memory_is_short(self, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
        gpu = FakeGpu(total=100)
        with fake_device(library, gpu, monkeypatch)[0] as cuda:
            axes = upsampling((8, 80), (8, 80), (4, 4), "half_pixel")
            with pytest.raises(EngineError, match="cannot allocate GPU memory for class map tables"):
                ClassMapKernel(cuda, LogitsFormat.of((2, 4, 4)), axes)
            assert cuda.open_resources == {}
        assert gpu.left == {}

    def test_can_be_captured(self, cuda: Cuda) -> None:
        if not cuda.has_graphs:
            pytest.skip(f"{cuda.library.name} has no graphs")
        axes = upsampling((16, 24), (16, 24), (4, 6), "half_pixel")
        kernel = ClassMapKernel(cuda, LogitsFormat.of((3, 4, 6)), axes)
        with (
            cuda.stream() as stream,
            cuda.allocate(288) as logits,
            cuda.host_buffer((3, 4, 6), np.float32) as given,
            cuda.host_buffer((16, 24), np.uint8, mapped=True) as result,
        ):

            def work() -> None:
                stream.copy_to_device(logits, given.array)
                kernel.launch(stream, logits.pointer, result.device_pointer)

            with stream.capture(work) as graph:
                for make in (noise, smooth):
                    given.array[:] = make(3, 4, 6)
                    graph.launch(stream)
                    stream.synchronize()
                    kernel.check()
                    assert differences(result.array, given.array, axes) == 0
        kernel.close()


class TestChecks:
    axes = upsampling((8, 8), (8, 8), (4, 4), "half_pixel")

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: LogitsFormat.of((0, 4, 4)), "holds 1 to 256 classes, but logits have 0"),
            (lambda: LogitsFormat.of((257, 4, 4)), "holds 1 to 256 classes, but logits have 257"),
            (lambda: LogitsFormat.of((2, 4, 4), "int8"), "logits must be float32 or float16, but are int8"),  # type: ignore[arg-type]
            (lambda: LogitsFormat.of((2, 0, 4)), r"logits of \(2, 0, 4\) with strides .* are none, or too many"),
            (lambda: LogitsFormat.of((256, 4096, 4096)), r"logits of \(256, 4096, 4096\) .* too many for one frame"),
        ],
    )
    def test_formats(self, make: Callable[[], Any], message: str) -> None:
        with pytest.raises(ShapeError, match=message):
            make()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"logits": (2, 4, 5)}, r"the tables are for logits of \(4, 4\), but the engine gives \(4, 5\)"),
            (
                {"palette": np.zeros((3, 3), np.uint8)},
                r"the palette must be \(2, 3\) uint8, but is \(3, 3\) uint8; one",
            ),
            ({"palette": np.zeros((2, 3), np.float32)}, r"the palette must be .*, but is \(2, 3\) float32"),
            ({"alpha": 1.5}, r"alpha is the share of colour and must be 0..1, but is 1.5"),
        ],
    )
    def test_kernels(self, fake_cuda: Cuda, options: dict[str, Any], message: str) -> None:
        settings = {"logits": (2, 4, 4), **options}
        entry = LogitsFormat.of(settings.pop("logits"))
        with pytest.raises(ShapeError, match=message):
            ClassMapKernel(fake_cuda, entry, self.axes, **settings)

    def test_class_maps_are_aligned(self, fake_cuda: Cuda) -> None:
        kernel = ClassMapKernel(fake_cuda, LogitsFormat.of((2, 4, 4)), self.axes)
        with fake_cuda.stream() as stream, pytest.raises(EngineError, match="multiple of 4 bytes, but begins at 0x102"):
            kernel.launch(stream, 256, 0x102)
        kernel.close()

    def test_strips(self) -> None:
        assert strips(np.array([0, 0, 0, 1, 1, 4], np.int32)).tolist() == [0, 3, 5, 6]
        assert strips(np.array([2], np.int32)).tolist() == [0, 1]

    def test_strides_of_both_layouts(self) -> None:
        assert LogitsFormat.of((3, 4, 5)).strides == (20, 5, 1)
        assert LogitsFormat.of((3, 4, 5), layout="NHWC").strides == (1, 15, 3)


@pytest.mark.parametrize("overlay", [False, True])
@pytest.mark.parametrize("kind", ["float32", "float16"])
def test_nvidias_compiler_takes_it_for_orin(tmp_path: Path, kind: Any, overlay: bool) -> None:
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("nvcc is not on this machine")
    source = tmp_path / "class_map.cu"
    source.write_text(kernel_source(), "utf-8")
    options = compiler_options(LogitsFormat.of((19, 128, 256), kind), (1024, 2048), overlay=overlay)
    command = [nvcc, "--cubin", "-arch=sm_87", *options, "-Xptxas", "-v", "-o", str(tmp_path / "out"), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    assert done.stderr.count(" 0 bytes spill stores, 0 bytes spill loads") == 2, "registers do not suffice"
