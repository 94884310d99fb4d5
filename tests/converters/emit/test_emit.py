"""The folder as a whole: refused, measured, written, replaced."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from support.bundles import toy_bundle
from support.emitting import Emit

from edgeseg.bundle import Bundle
from edgeseg.calibration.frames import FrameSource
from edgeseg.calibration.progress import SilentProgress
from edgeseg.converters.emit import PROGRAMS, EmitOptions, emit
from edgeseg.converters.emit.folder import write_folder
from edgeseg.errors import OutputError, UnsupportedModelError, UsageError


class TestRefusals:
    def test_unknown_program(self, emitted: Emit) -> None:
        with pytest.raises(UsageError, match="unknown program 'deep-stream'; did you mean deepstream"):
            emitted("deep-stream")

    @pytest.mark.parametrize(
        ("program", "options", "names"),
        [
            ("trtexec", {"logits_size": True}, "--logits-size cannot be followed for trtexec"),
            (
                "jetson-inference", {"implicit": True, "dla_core": 0},
                "--implicit, --dla cannot be followed for jetson-inference",
            ),
        ],
    )  # fmt: skip
    def test_option_of_another_program(
        self, program: str, options: dict[str, object], names: str, emitted: Emit
    ) -> None:
        with pytest.raises(UsageError, match=names):
            emitted(program, **options)

    @pytest.mark.parametrize(
        ("program", "options"),
        [
            ("trtexec", {"implicit": True}),
            ("triton", {"dla_core": 0}),
            ("deepstream", {"implicit": True}),
            ("jetson-inference", {}),
        ],
    )
    def test_ranges_without_frames(
        self, program: str, options: dict[str, object], emitted: Emit, tmp_path: Path
    ) -> None:
        with pytest.raises(UsageError, match=r"the bundle lacks \d+ of them; give calibration frames with --frames"):
            emitted(program, **options)
        assert not (tmp_path / "out").exists()


class TestOperators:
    def test_layer_normalization_before_8_6(self, canonical: onnx.ModelProto, bundle: Bundle, tmp_path: Path) -> None:
        """Written out with Q/DQ, kept in FP16, where 8.5 does not have it."""
        model = onnx.ModelProto.FromString(canonical.SerializeToString())
        end = model.graph.output[0].name
        for node in model.graph.node:
            node.output[:] = ["before" if name == end else name for name in node.output]
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(16, np.float32), "ones"))
        model.graph.node.append(onnx.helper.make_node("LayerNormalization", ["before", "ones"], [end], "norm"))
        normalizing = toy_bundle(tmp_path / "normalizing.edgeseg", bundle.manifest, model.SerializeToString())

        def form(**options: Any) -> str:
            step = SilentProgress().step
            return emit(normalizing, "trtexec", tmp_path / "out", EmitOptions(**options), step=step, force=True).form

        assert form(tensorrt=(8, 5)) == "tensorrt8"
        assert form(tensorrt=(8, 6), fp16_only=True) == "fp16"
        with pytest.raises(
            UnsupportedModelError, match=r"TensorRT 8\.5 has no LayerNormalization \(norm\).*8\.6.*fp16"
        ):
            form(tensorrt=(8, 5), fp16_only=True)


class TestFloat16Bundle:
    """A bundle that was never quantized is emitted in FP16 without being asked."""

    @pytest.fixture(autouse=True)
    def float16(self, bundle: Bundle) -> None:
        object.__setattr__(bundle.manifest, "quantization", replace(bundle.manifest.quantization, method="fp16"))

    @pytest.mark.parametrize("program", PROGRAMS)
    def test_form(self, program: str, emitted: Emit) -> None:
        assert emitted(program).form == "fp16"

    def test_has_no_int8(self, emitted: Emit) -> None:
        with pytest.raises(UsageError, match="this bundle is FP16, and --implicit is about INT8"):
            emitted("trtexec", implicit=True)


class TestFolder:
    def test_says_where_it_came_from(self, emitted: Emit, bundle: Bundle, frames: FrameSource) -> None:
        done = emitted("trtexec", implicit=True, frames=frames)
        record = json.loads((done.folder / "emit.json").read_text())
        assert record["graph_digest"] == bundle.manifest.files["model.onnx"]
        assert (record["program"], record["tensorrt"], record["form"]) == ("trtexec", "10.3", "implicit_int8")
        assert record["frames"] == list(frames.names)
        readme = (done.folder / "README.txt").read_text()
        assert all(text in readme for text in (*done.commands, *done.notes))
        assert sorted(done.files) == sorted(
            str(path.relative_to(done.folder)) for path in done.folder.rglob("*") if path.is_file()
        )

    @pytest.mark.parametrize("program", PROGRAMS)
    def test_is_the_same_again(self, program: str, emitted: Emit, frames: FrameSource) -> None:
        def content() -> dict[str, bytes]:
            folder = emitted(program, frames=frames, force=True).folder
            return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

        assert content() == content()

    def test_place_that_is_taken(self, emitted: Emit, tmp_path: Path) -> None:
        emitted("trtexec")
        with pytest.raises(OutputError, match="out exists; choose another place with -o or replace it with --force"):
            emitted("triton")
        done = emitted("triton", force=True)
        assert (done.folder / "repository").is_dir()
        assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []

    def test_folder_of_somebody_else(self, emitted: Emit, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "letter.txt").write_text("mine")
        with pytest.raises(OutputError, match="was not written by this command, so --force does not replace it"):
            emitted("trtexec", force=True)
        assert (tmp_path / "out" / "letter.txt").read_text() == "mine"

    def test_empty_folder(self, emitted: Emit, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        assert (emitted("trtexec").folder / "model.onnx").is_file()

    def test_no_place(self, tmp_path: Path) -> None:
        with pytest.raises(OutputError, match=r"the folder .*nowhere does not exist; create it first"):
            write_folder(tmp_path / "nowhere" / "out", {}, "emit.json", force=False)

    def test_no_permission(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "access", lambda path, mode: False)
        with pytest.raises(OutputError, match="no permission in"):
            write_folder(tmp_path / "out", {}, "emit.json", force=False)

    def test_full_disk_keeps_what_was_there(
        self, emitted: Emit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = (emitted("trtexec").folder / "emit.json").read_bytes()

        def full(path: Path, content: bytes) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(Path, "write_bytes", full)
        with pytest.raises(OutputError, match="the disk is full; free some space; nothing was changed"):
            emitted("triton", force=True)
        assert (tmp_path / "out" / "emit.json").read_bytes() == before
        assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []

    def test_rename_that_fails_puts_the_old_one_back(
        self, emitted: Emit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = (emitted("trtexec").folder / "emit.json").read_bytes()
        rename = Path.rename

        def stubborn(path: Path, target: Path) -> Path:
            if path.name.startswith(".out.") and target.name == "out":
                raise OSError(errno.EIO, "Input/output error")
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", stubborn)
        with pytest.raises(OutputError, match="Input/output error"):
            emitted("triton", force=True)
        assert (tmp_path / "out" / "emit.json").read_bytes() == before
