"""Large images tile by tile."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from support.bundles import quantized_bundle, toy_bundle, toy_manifest
from support.fake_backend import FakeBackend
from support.graphs import GraphBuilder

import edgeseg
from edgeseg.backends import Target
from edgeseg.errors import ShapeError, UsageError
from edgeseg.refine import GridCRF, stream_refined
from edgeseg.segmentation import Segmentation
from edgeseg.segmenter import NamedFrame, Segmenter
from edgeseg.tiles import LARGEST_TILE, Tiling, segment_tiled, tiling_for

HEIGHT, WIDTH = 8, 12


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def blobs(height: int, width: int) -> np.ndarray:
    """Random colours that change every few pixels, so that neighbours matter to a network."""
    return picture(height // 3 + 1, width // 3 + 1, 3).repeat(3, 0).repeat(3, 1)[:height, :width]


def convolutions(height: int, width: int) -> bytes:
    """Three 3x3 convolutions without a stride: a pixel's class depends on what is within 3 pixels of it."""
    builder = GraphBuilder(5)
    x = builder.add("Transpose", builder.add("Cast", "frame", to=TensorProto.FLOAT), perm=[0, 3, 1, 2])
    x = builder.add("Sub", x, builder.constant(np.full((1, 3, 1, 1), 127.5, np.float32)))
    x = builder.add("Relu", builder.conv(x, 3, 8, bias=False))
    x = builder.add("Relu", builder.conv(x, 8, 8, bias=False))
    x = builder.conv(x, 8, 4, bias=False)
    builder.nodes.append(helper.make_node("Identity", [x], ["logits"]))
    graph = helper.make_graph(
        builder.nodes,
        "convolutions",
        [helper.make_tensor_value_info("frame", TensorProto.UINT8, [1, height, width, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 4, height, width])],
        builder.initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def convolution_network(folder: Path, height: int, width: int) -> Segmenter:
    path = folder / f"{height}x{width}.edgeseg"
    toy_bundle(path, toy_manifest(height, width), convolutions(height, width))
    return edgeseg.load(path, backend="onnxruntime", threads=1)


def strided_network(folder: Path, height: int, width: int) -> Segmenter:
    """Logits at a quarter of the input, from pixels at most 3 away, and upsampled: 8 pixels in all."""
    path = quantized_bundle(folder / f"strided{height}x{width}.edgeseg", height, width).path
    return edgeseg.load(path, backend="onnxruntime", threads=1)


@pytest.fixture
def segmenter(tmp_path: Path) -> Iterator[Segmenter]:
    """A network whose class of a pixel is its red channel divided by 64."""
    backend = FakeBackend(size=(HEIGHT, WIDTH))

    def make(target: Target) -> object:
        return backend.load(backend.compile(b"graph", target), target)

    with Segmenter(toy_bundle(tmp_path / "toy.edgeseg"), backend, make, Target(threads=2)) as made:
        yield made


class TestTiling:
    @pytest.mark.parametrize("overlap", [0, 1, 8, 31, 64, 120])
    @pytest.mark.parametrize("tile", [256, 241, 480])
    @pytest.mark.parametrize("size", [1, 240, 257, 512, 1000, 4096, 10_000])
    def test_kept_parts_are_the_axis_and_have_their_context(self, size: int, tile: int, overlap: int) -> None:
        spans, _ = Tiling(tile, tile, overlap).axes(size, 1)
        assert [span.first for span in spans] == [0, *(span.last for span in spans[:-1])]
        assert spans[-1].last == size
        for span in spans:
            end = min(span.start + tile, size)
            assert 0 <= span.start <= span.first < span.last <= end
            assert span.first == 0 or span.first - span.start >= overlap
            assert span.last == size or end - span.last >= overlap
        assert len(spans) == 1 or spans[-1].start == size - tile

    @pytest.mark.parametrize(("tile", "overlap", "count"), [(512, 64, 26), (512, 0, 20), (256, 0, 40), (2500, 0, 5)])
    def test_no_tile_too_many(self, tile: int, overlap: int, count: int) -> None:
        tiling = Tiling(tile, tile, overlap)
        assert len(tiling.axes(10_000, 1)[0]) == count
        assert tiling.count(10_000, 10_000) == count**2

    @pytest.mark.parametrize("overlap", [0, 5, 64])
    def test_tiles_sample_alike(self, overlap: int) -> None:
        spans, _ = Tiling(512, 512, overlap).axes(10_001, 1)
        assert {span.start % 32 for span in spans[:-1]} == {0}

    @pytest.mark.parametrize(
        ("sides", "overlap", "message"),
        [
            ((7, 512), 0, "a tile has 8 to 8192 pixels a side, but 7x512 (height x width) was asked for"),
            ((512, LARGEST_TILE + 1), 0, "but 512x8193 (height x width) was asked for"),
            ((512, 512), 256, "the overlap of tiles of 512x512 must be 0 to 255, less than half a tile, but is 256"),
            ((64, 33), 17, "must be 0 to 16, less than half a tile, but is 17; an eighth of a tile is a good choice"),
            ((64, 64), -1, "must be 0 to 31, less than half a tile, but is -1"),
            ((64, 64), 10**12, "but is 1000000000000"),
        ],
    )
    def test_refuses(self, sides: tuple[int, int], overlap: int, message: str) -> None:
        with pytest.raises(UsageError) as error:
            Tiling(*sides, overlap)
        assert message in str(error.value)

    def test_of_a_network(self, segmenter: Segmenter) -> None:
        assert tiling_for(segmenter) == Tiling(HEIGHT, WIDTH, 1)
        assert tiling_for(segmenter, 64) == Tiling(64, 64, 8)
        assert tiling_for(segmenter, (24, 32), 5) == Tiling(24, 32, 5)


class TestAssembly:
    @pytest.mark.parametrize("overlap", [0, 1, 3])
    @pytest.mark.parametrize("size", [(8, 12), (9, 13), (31, 57), (80, 12), (3, 40), (2, 2), (1, 1)])
    def test_every_pixel_is_where_it_was(self, segmenter: Segmenter, size: tuple[int, int], overlap: int) -> None:
        image = picture(*size)
        result = segment_tiled(segmenter, image, overlap=overlap)
        assert result.class_map.dtype == np.uint8
        assert np.array_equal(result.class_map, image[..., 0] // 64)

    def test_tiles_of_another_size_are_resized(self, segmenter: Segmenter) -> None:
        image = np.zeros((64, 96, 3), np.uint8)
        image[32:, :, 0] = 200
        image[:, 48:, 0] += 50
        result = segment_tiled(segmenter, image, tile=(16, 24), overlap=0)
        assert np.array_equal(result.class_map, image[..., 0] // 64)

    def test_short_sides_are_mirrored_and_not_stretched(self, segmenter: Segmenter) -> None:
        seen = []

        def stream(tiles: Iterable[NamedFrame]) -> Iterator[Segmentation]:
            return segmenter.stream(seen.append(tile.image) or tile for tile in tiles)

        image = picture(3, 30)
        segment_tiled(segmenter, image, overlap=2, stream=stream)
        assert {tile.shape for tile in seen} == {(HEIGHT, WIDTH, 3)}
        assert np.array_equal(seen[0][:6], np.concatenate([image, image[::-1]])[:, :WIDTH])

    def test_tiles_are_views_and_are_cut_one_after_the_other(self, segmenter: Segmenter) -> None:
        image, names, ahead = picture(200, 300), [], []

        def stream(tiles: Iterable[NamedFrame]) -> Iterator[Segmentation]:
            def watched() -> Iterator[NamedFrame]:
                for tile in tiles:
                    assert np.shares_memory(tile.image, image)
                    names.append(tile.name)
                    yield tile

            return segmenter.stream(watched(), in_flight=2)

        done = []
        segment_tiled(
            segmenter, image, overlap=0, name="a", stream=stream,
            step=lambda n: (done.append(n), ahead.append(len(names) - len(done))),
        )  # fmt: skip
        assert sum(done) == len(names) == 25 * 25
        assert names[:2] == ["a[0,0]", "a[0,12]"]
        assert max(ahead) <= 8

    def test_result(self, segmenter: Segmenter) -> None:
        result = segment_tiled(segmenter, picture(20, 30), number=4, name="a.png", decode=2.5)
        assert (result.frame_number, result.name, result.labels) == (4, "a.png", segmenter.labels)
        assert result.timing.decode == 2.5
        assert result.timing.total > 0
        assert result.timing.infer > 0

    def test_refined(self, segmenter: Segmenter) -> None:
        image = picture(20, 30)
        result = segment_tiled(segmenter, image, stream=lambda tiles: stream_refined(segmenter, GridCRF(0.0), tiles))
        assert np.array_equal(result.class_map, image[..., 0] // 64)

    def test_bad_image(self, segmenter: Segmenter) -> None:
        with pytest.raises(ShapeError, match="repeat a grey frame"):
            segment_tiled(segmenter, picture(20, 30)[..., 0])

    def test_an_error_of_a_tile_is_the_images(self, segmenter: Segmenter) -> None:
        segmenter.close()
        with pytest.raises(edgeseg.EdgesegError, match="the segmenter is closed"):
            segment_tiled(segmenter, picture(20, 30))


class TestSeams:
    """Against the network on the whole image, which for these networks is the same weights at another input size."""

    @pytest.mark.parametrize(("overlap", "same"), [(0, False), (2, False), (3, True), (8, True)])
    def test_none_from_the_radius_on(self, tmp_path: Path, overlap: int, same: bool) -> None:
        # With an overlap of 2 these tiles have no pixel to spare, so this is the radius of 3 and not more.
        image = blobs(100, 68)
        with convolution_network(tmp_path, 100, 68) as whole, convolution_network(tmp_path, 36, 20) as part:
            wanted, found = whole(image).class_map, segment_tiled(part, image, overlap=overlap).class_map
        assert len(np.unique(wanted)) > 1
        assert ((wanted != found).sum() == 0) == same

    @pytest.mark.parametrize(("overlap", "same"), [(0, False), (8, True), (16, True)])
    def test_none_with_strides(self, tmp_path: Path, overlap: int, same: bool) -> None:
        image = blobs(160, 192)
        with strided_network(tmp_path, 160, 192) as whole, strided_network(tmp_path, 64, 96) as part:
            wanted, found = whole(image).class_map, segment_tiled(part, image, overlap=overlap).class_map
        assert len(np.unique(wanted)) > 1
        assert ((wanted != found).sum() == 0) == same

    def test_none_where_tiles_start_elsewhere(self, tmp_path: Path) -> None:
        image = blobs(256, 256)
        with strided_network(tmp_path, 64, 96) as part:
            found = segment_tiled(part, image, overlap=16).class_map
            moved = segment_tiled(part, image[32:, 32:], overlap=16).class_map
        # The first 16 pixels of the smaller image see its edge, which for the larger one is none.
        assert np.array_equal(found[48:, 48:], moved[16:, 16:])

    def test_none_in_an_image_of_flat_regions(self, tmp_path: Path) -> None:
        image = np.zeros((300, 400, 3), np.uint8)
        image[:, 170:] = (200, 40, 90)
        image[210:] = (20, 160, 220)
        with convolution_network(tmp_path, 40, 24) as part:
            found = segment_tiled(part, image, overlap=3).class_map
        inside = np.zeros(found.shape, bool)
        inside[4:-4, 4:-4] = True
        for rows, columns in (
            (slice(0, 210), slice(0, 170)),
            (slice(0, 210), slice(170, 400)),
            (slice(210, 300), slice(0, 400)),
        ):
            region = np.zeros(found.shape, bool)
            region[rows, columns][4:-4, 4:-4] = True
            assert len(np.unique(found[region & inside])) == 1
