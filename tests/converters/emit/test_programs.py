"""Every file that a program reads, parsed by that program's grammar as far as it can be had here."""

from __future__ import annotations

import configparser
import json
import os
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from support.emitting import Emit
from support.graphs import random_frame, run_graph
from support.triton_repository import read_config
from support.trtexec import known, layer_precisions, options_of

from edgeseg.bundle import Bundle, write_bundle
from edgeseg.calibration.cache import read_cache
from edgeseg.calibration.frames import FrameSource
from edgeseg.converters.embed import append_class_map
from edgeseg.converters.emit import PROGRAMS
from edgeseg.converters.targets.implicit import activation_tensors
from edgeseg.errors import UnsupportedModelError, UsageError
from edgeseg.manifest import OutputSpec

FRAME = random_frame()
VERSIONS = [(8, 6), (10, 3), (10, 13), (10, 16), (11, 4)]


def class_map(canonical: onnx.ModelProto) -> NDArray[np.uint8]:
    """The bundle's class map of FRAME, (64, 64)."""
    (found,) = run_graph(append_class_map(canonical, 64, 64, "half_pixel"), frame=FRAME[None])
    return np.asarray(found[0], np.uint8)


def planar(frame: NDArray[np.uint8]) -> NDArray[np.float32]:
    """A frame as DeepStream hands it over with net-scale-factor 1: (1, 3, H, W) float32 RGB, 0..255."""
    return frame.transpose(2, 0, 1)[None].astype(np.float32)


def test_every_program_is_tested() -> None:
    assert list(PROGRAMS) == ["trtexec", "deepstream", "triton", "jetson-inference"]


class TestTrtexec:
    @pytest.mark.parametrize("version", VERSIONS)
    def test_graph_and_options_of_a_version(
        self, version: tuple[int, int], emitted: Emit, canonical: onnx.ModelProto
    ) -> None:
        done = emitted("trtexec", tensorrt=version)
        options = options_of((done.folder / "build.sh").read_text())
        assert set(options) <= known(version)
        assert (options["--onnx"], options["--saveEngine"]) == ("model.onnx", "model.plan")
        assert ("--int8" in options) == ("--fp16" in options) == (version < (11, 0))
        (found,) = run_graph(onnx.load(done.folder / "model.onnx"), frame=FRAME[None])
        assert found.dtype == np.uint8
        # fp16_qdq rounds in float16; random weights give logits that lie close together.
        assert np.mean(found[0] == class_map(canonical)) >= (0.97 if done.form == "fp16_qdq" else 1)

    @pytest.mark.parametrize(
        ("version", "flag"), [((8, 6), "--fp16"), ((10, 3), "--fp16"), ((10, 16), "--stronglyTyped"), ((11, 4), None)]
    )
    def test_fp16_only(self, version: tuple[int, int], flag: str | None, emitted: Emit) -> None:
        done = emitted("trtexec", tensorrt=version, fp16_only=True)
        options = options_of((done.folder / "build.sh").read_text())
        assert {"--fp16", "--stronglyTyped", "--int8"} & set(options) == ({flag} if flag else set())
        assert "QuantizeLinear" not in {n.op_type for n in onnx.load(done.folder / "model.onnx").graph.node}

    def test_calibration_cache(self, emitted: Emit, frames: FrameSource) -> None:
        done = emitted("trtexec", implicit=True, frames=frames)
        options = options_of((done.folder / "build.sh").read_text())
        assert set(options) <= known((10, 3))
        model = onnx.load(done.folder / options["--onnx"])
        _, ranges = read_cache((done.folder / options["--calib"]).read_bytes())
        assert set(ranges) == set(activation_tensors(model))
        assert options["--precisionConstraints"] == "prefer"
        precisions = layer_precisions(options["--layerPrecisions"])
        assert set(precisions) < {node.name for node in model.graph.node}
        assert set(precisions.values()) == {"fp16", "fp32"}
        assert done.measured == json.loads((done.folder / "emit.json").read_text())["measured_ranges"] > 0

    def test_dla(self, emitted: Emit, frames: FrameSource) -> None:
        done = emitted("trtexec", dla_core=1, frames=frames)
        options = options_of((done.folder / "build.sh").read_text())
        assert (options["--useDLACore"], options["--allowGPUFallback"], done.form) == ("1", "", "implicit_int8")
        assert "Orin Nano and Thor have no DLA" in done.notes[-1]
        newer = emitted("trtexec", dla_core=0, tensorrt=(11, 4), force=True)
        assert (newer.form, newer.measured) == ("fp16_qdq", 0)
        assert "TensorRT 11.4.1 or newer on AGX Orin" in newer.notes[-1]

    def test_script_starts_trtexec_in_its_folder(self, emitted: Emit, tmp_path: Path) -> None:
        done = emitted("trtexec")
        fake = tmp_path / "trtexec"
        fake.write_text('#!/bin/sh\npwd\nfor option; do echo "$option"; done\n')
        fake.chmod(0o755)
        environment = {**os.environ, "TRTEXEC": str(fake)}
        command = [str(done.folder / "build.sh"), "--memPoolSize=workspace:256"]
        lines = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()
        assert lines[0] == str(done.folder.resolve())
        assert lines[1] == "--onnx=model.onnx"
        assert lines[-1] == "--memPoolSize=workspace:256"

    def test_bundle_that_gives_the_class_map_already(
        self, emitted: Emit, bundle: Bundle, canonical: onnx.ModelProto
    ) -> None:
        model = append_class_map(canonical, 64, 64, "half_pixel").SerializeToString()
        manifest = replace(bundle.manifest, output=OutputSpec("class_map", "class-map", 3, 64, 64))
        write_bundle(bundle.path, manifest, {"model.onnx": model}, force=True)
        object.__setattr__(bundle, "manifest", Bundle.open(bundle.path).manifest)
        (found,) = run_graph(onnx.load(emitted("trtexec").folder / "model.onnx"), frame=FRAME[None])
        np.testing.assert_array_equal(found[0], class_map(canonical))

    def test_batch(self, emitted: Emit, canonical: onnx.ModelProto) -> None:
        done = emitted("trtexec", batch=2)
        (found,) = run_graph(onnx.load(done.folder / "model.onnx"), frame=np.stack([FRAME, FRAME]))
        assert found.shape == (2, 64, 64)
        np.testing.assert_array_equal(found[1], class_map(canonical))
        assert "(2, 64, 64, 3) uint8, RGB" in done.notes[0]


class TestDeepStream:
    # CONFIG_GROUP_INFER_* of gstnvinfer_property_parser.h.
    KEYS = frozenset(
        {
            "gpu-id", "gie-unique-id", "process-mode", "network-type", "network-mode", "batch-size", "infer-dims",
            "network-input-order", "model-color-format", "net-scale-factor", "maintain-aspect-ratio", "scaling-filter",
            "output-blob-names", "num-detected-classes", "segmentation-threshold", "segmentation-output-order",
            "output-tensor-meta", "labelfile-path", "onnx-file", "int8-calib-file", "model-engine-file",
            "layer-device-precision", "enable-dla", "use-dla-core",
        }
    )  # fmt: skip

    def config(self, folder: Path) -> configparser.SectionProxy:
        parser = configparser.ConfigParser(delimiters=("=",), comment_prefixes=("#",), interpolation=None)
        parser.read_string((folder / "config_infer.txt").read_text())
        assert parser.sections() == ["property"]
        section = parser["property"]
        assert set(section) <= self.KEYS
        return section

    def test_configuration_fits_the_graph(self, emitted: Emit, bundle: Bundle) -> None:
        done = emitted("deepstream")
        config, model = self.config(done.folder), onnx.load(done.folder / "model.onnx")
        (given,), (scores,) = model.graph.input, model.graph.output
        assert [d.dim_value for d in given.type.tensor_type.shape.dim][1:] == [
            int(n) for n in config["infer-dims"].split(";")
        ]
        assert given.type.tensor_type.elem_type == scores.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        assert scores.name == config["output-blob-names"]
        assert [d.dim_value for d in scores.type.tensor_type.shape.dim] == [1, 3, 64, 64]
        assert (config.getint("network-type"), config.getint("network-mode")) == (2, 1)
        assert config.getint("num-detected-classes") == len(bundle.manifest.labels)
        assert (done.folder / config["labelfile-path"]).read_text() == "class0\nclass1\nclass2\n"
        assert options_of((done.folder / "build.sh").read_text())["--saveEngine"] == config["model-engine-file"]
        assert not {"onnx-file", "int8-calib-file"} & set(config), "an engine that cannot be read must not be rebuilt"

    def test_normalisation_stays_in_the_graph(self, emitted: Emit, canonical: onnx.ModelProto) -> None:
        """Each channel of this network has its own deviation, and DeepStream has one factor for all."""
        done = emitted("deepstream")
        config = self.config(done.folder)
        assert config.getfloat("net-scale-factor") == 1
        assert "offsets" not in config
        assert config.getint("model-color-format") == 0  # RGB
        (scores,) = run_graph(onnx.load(done.folder / "model.onnx"), planar_frame=planar(FRAME))
        # As SegmentPostprocessor::fillSegmentationOutput does it.
        assert scores.max(axis=1).min() > config.getfloat("segmentation-threshold")
        assert np.mean(scores[0].argmax(axis=0) == class_map(canonical)) > 0.999

    def test_that_builds_by_itself(self, emitted: Emit, frames: FrameSource) -> None:
        done = emitted("deepstream", implicit=True, frames=frames)
        config, model = self.config(done.folder), onnx.load(done.folder / "model.onnx")
        assert config["onnx-file"] == "model.onnx"
        _, ranges = read_cache((done.folder / config["int8-calib-file"]).read_bytes())
        assert set(ranges) == set(activation_tensors(model))
        layers = [entry.split(":") for entry in config["layer-device-precision"].split(";")]
        assert {tuple(rest) for _, *rest in layers} == {("fp32", "gpu")}  # the INT8 mode sets no FP16 flag
        assert {layer for layer, *_ in layers} < {node.name for node in model.graph.node}
        assert not (done.folder / "build.sh").exists()

    def test_dla_and_fp16(self, emitted: Emit) -> None:
        done = emitted("deepstream", dla_core=1, fp16_only=True, batch=2)
        config = self.config(done.folder)
        assert (config["enable-dla"], config["use-dla-core"], config["network-mode"]) == ("1", "1", "2")
        assert config["batch-size"] == "2"

    def test_scores_of_the_logits_size(self, emitted: Emit, canonical: onnx.ModelProto) -> None:
        done = emitted("deepstream", logits_size=True)
        (scores,) = run_graph(onnx.load(done.folder / "model.onnx"), planar_frame=planar(FRAME))
        (logits,) = run_graph(canonical, frame=FRAME[None])
        np.testing.assert_array_equal(scores.argmax(axis=1), logits.argmax(axis=1))
        assert "nvsegvisual batch-size=1 width=16 height=16" in done.commands[-1]

    @pytest.mark.parametrize("options", [{"batch": 2}, {"dla_core": 0}])
    def test_what_it_cannot_build_by_itself(self, options: dict[str, int], emitted: Emit, frames: FrameSource) -> None:
        with pytest.raises(UsageError, match="leave --implicit away for --batch or --dla"):
            emitted("deepstream", implicit=True, frames=frames, **options)

    def test_pipeline(self, emitted: Emit) -> None:
        words = shlex.split(emitted("deepstream").commands[-1])
        elements = [words[i + 1] for i, word in enumerate(words[:-1]) if word == "!"]
        assert words[:2] == ["gst-launch-1.0", "uridecodebin"]
        assert elements == ["mux.sink_0", "nvinfer", "nvsegvisual", "nvvideoconvert", "nv3dsink"]


class TestTriton:
    def test_repository(self, emitted: Emit, canonical: onnx.ModelProto) -> None:
        done = emitted("triton", dla_core=0, tensorrt=(11, 4), batch=2)
        folder = done.folder / "repository" / "toy"
        config = read_config((folder / "config.pbtxt").read_text())
        assert (config.name, config.platform, config.max_batch_size) == (folder.name, "tensorrt_plan", 0)
        model = onnx.load(done.folder / "model.onnx")
        for field, value in ((config.input, model.graph.input[0]), (config.output, model.graph.output[0])):
            (tensor,) = field
            assert tensor.name == value.name
            assert tensor.data_type == 2  # TYPE_UINT8
            assert value.type.tensor_type.elem_type == onnx.TensorProto.UINT8
            assert list(tensor.dims) == [d.dim_value for d in value.type.tensor_type.shape.dim]
        (group,) = config.instance_group
        assert (group.kind, group.secondary_devices[0].kind, group.secondary_devices[0].device_id) == (1, 0, 0)
        assert (folder / "1").is_dir()
        plan = options_of((done.folder / "build.sh").read_text())["--saveEngine"]
        assert plan == "repository/toy/1/model.plan"

    def test_class_map(self, emitted: Emit, canonical: onnx.ModelProto) -> None:
        done = emitted("triton")
        (found,) = run_graph(onnx.load(done.folder / "model.onnx"), frame=FRAME[None])
        np.testing.assert_array_equal(found[0], class_map(canonical))


class TestJetsonInference:
    def scores(self, folder: Path) -> NDArray[np.float32]:
        """As segNet::Process hands a frame over: 0..1, then ImageNet's mean and deviation, planar."""
        mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
        given = ((FRAME / np.float32(255)) - mean) / std
        (found,) = run_graph(onnx.load(folder / "model.onnx"), input_0=given.transpose(2, 0, 1)[None])
        return np.asarray(found, np.float32)

    def test_class_map_of_the_scores(self, emitted: Emit, frames: FrameSource, canonical: onnx.ModelProto) -> None:
        done = emitted("jetson-inference", frames=frames)
        found = self.scores(done.folder)
        (expected,) = run_graph(canonical, frame=FRAME[None])
        assert found.shape == expected.shape
        # Without Q/DQ in float32: what quantization itself moves, with random weights.
        assert np.mean(found.argmax(axis=1) == expected.argmax(axis=1)) > 0.97

    def test_files(self, emitted: Emit, frames: FrameSource, bundle: Bundle) -> None:
        done = emitted("jetson-inference", frames=frames)
        model = onnx.load(done.folder / "model.onnx")
        assert "QuantizeLinear" not in {node.op_type for node in model.graph.node}
        # "%s.%u.%u.%i.%s.%s" of tensorNet::LoadNetwork with its defaults, and NV_TENSORRT_VERSION of 10.3.0.
        _, ranges = read_cache((done.folder / "model.onnx.1.1.100300.GPU.INT8.calibration").read_bytes())
        assert set(ranges) == set(activation_tensors(model))
        colors = [tuple(map(int, line.split())) for line in (done.folder / "colors.txt").read_text().splitlines()]
        assert tuple(colors) == bundle.manifest.labels.palette
        words = dict(word.lstrip("-").split("=") for word in shlex.split(done.commands[0])[1:-2])
        assert words == {
            "model": "model.onnx", "labels": "labels.txt", "colors": "colors.txt",
            "input_blob": model.graph.input[0].name, "output_blob": model.graph.output[0].name,
        }  # fmt: skip

    def test_fp16_needs_no_frames(self, emitted: Emit) -> None:
        done = emitted("jetson-inference", fp16_only=True, tensorrt=(8, 6))
        assert not any(name.endswith(".calibration") for name in done.files)
        assert not any("TYPE_INT8" in note for note in done.notes)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"tensorrt": (10, 16)}, "not known to work with TensorRT 10.16"),
            ({"tensorrt": (10, 1)}, "known for 8.5, 8.6 and 10.3"),
            ({"batch": 2}, "one frame at a time"),
        ],
    )
    def test_what_it_cannot(self, options: dict[str, object], message: str, emitted: Emit) -> None:
        with pytest.raises(UsageError, match=message):
            emitted("jetson-inference", fp16_only=True, **options)


@pytest.mark.parametrize("program", ["deepstream", "jetson-inference"])
def test_a_bundle_without_scores(program: str, emitted: Emit, bundle: Bundle) -> None:
    output = OutputSpec("class_map", "class-map", 3, 64, 64)
    object.__setattr__(bundle.manifest, "output", output)
    with pytest.raises(UnsupportedModelError, match="convert the network without --output class-map"):
        emitted(program, fp16_only=True)
