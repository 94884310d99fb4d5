"""`edgeseg.load` with TensorRT: finding, refusing and building plans, on fakes of every version."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.bundles import toy_bundle, toy_manifest
from support.fake_backend import FakeBackend
from support.graphs import random_frame
from support.tensorrt_api import DUMPS, VERSIONS
from support.tensorrt_execution import logits_of
from support.tensorrt_fakes import fake_library
from support.tensorrt_machines import NODES, ORIN, Machine, promised_bundle

import edgeseg
from edgeseg.apps import cli
from edgeseg.backends import Backend, BundleBackend, Target, get_backend
from edgeseg.backends.tensorrt import backend as backend_module
from edgeseg.backends.tensorrt.backend import TensorRTBackend, TensorRTRTXBackend
from edgeseg.backends.tensorrt.board import Device
from edgeseg.backends.tensorrt.construct import construct
from edgeseg.backends.tensorrt.options import BuildOptions, BuildRecord
from edgeseg.backends.tensorrt.plans import Plan, PlanRecord, list_plans, plan_folder, write_plan
from edgeseg.bundle import Bundle
from edgeseg.errors import EngineError, InputError, MissingDependencyError, UsageError
from edgeseg.selection import choose_backend
from edgeseg.upsample import reference_class_map, upsampling

HEIGHT, WIDTH = 32, 48
FRAMES = [random_frame(HEIGHT, WIDTH, seed) for seed in range(6)]
RTX = Device("NVIDIA GeForce RTX 3060", (8, 6), "13.0")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine.make(tmp_path / "machine", monkeypatch)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return promised_bundle(tmp_path / "toy.edgeseg")


def built(bundle: Bundle, dump: str = "tensorrt-10.3.0", place: Path | None = None, **changes: object) -> Plan:
    """A plan of a version's fake, as if this machine had built it."""
    library = fake_library(dump)
    rtx = library.name == "tensorrt_rtx"
    options = BuildOptions(target="rtx" if rtx else "auto")
    made = construct(library, bundle.read_model(), options)
    record = BuildRecord(
        library=library.name, version=library.version_text, target=options.target, graph_digest="0" * 64,
        plan_digest=hashlib.sha256(made.plan).hexdigest(), plan_bytes=len(made.plan),
        strongly_typed=made.strongly_typed, int8=True, fp16=not made.strongly_typed, batch=(1, 1, 1),
        workspace_mb=None, dla_core=None, device=None if rtx else "Orin", compute_capability=None if rtx else "8.7",
        driver=None if rtx else "12.6", built_for=made.built_for, board=None, l4t=None, power_mode=None,
        precisions={}, convolutions={}, reformats=0, requantizes=0, promised_int8=3, proven_int8=3, seconds=1.0,
        peak_memory_mb=1,
    )  # fmt: skip
    record = replace(record, **changes)  # type: ignore[arg-type]
    place = place or plan_folder(bundle) / "built.plan"
    return write_plan(place, made.plan, PlanRecord("toy", bundle.manifest.files["model.onnx"], "canonical", record))


def expected(frame: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
    logits = logits_of(frame[None], 4, HEIGHT // 4, WIDTH // 4)[0]
    axes = upsampling(size or frame.shape[:2], (HEIGHT, WIDTH), (HEIGHT // 4, WIDTH // 4), "half_pixel")
    return reference_class_map(logits, axes.rows, axes.columns)


class TestLoad:
    @pytest.mark.parametrize("version", DUMPS)
    def test_runs_the_plan_of_every_version(self, machine: Machine, bundle: Bundle, version: str) -> None:
        machine.install(version)
        rtx = version.startswith("tensorrt_rtx")
        if rtx:
            machine.device(RTX)
        built(bundle, version)
        with edgeseg.load(bundle.path, backend="tensorrt-rtx" if rtx else "tensorrt") as segmenter:
            assert segmenter.backend_name == ("tensorrt-rtx" if rtx else "tensorrt")
            for frame in FRAMES:
                assert np.array_equal(segmenter(frame).class_map, expected(frame))
            results = list(segmenter.stream(FRAMES * 5))
        assert all(np.array_equal(r.class_map, expected(f)) for r, f in zip(results, FRAMES * 5, strict=True))
        assert machine.gpu.left == {}

    def test_auto_takes_the_gpu(self, machine: Machine, bundle: Bundle) -> None:
        machine.install("tensorrt-10.3.0")
        built(bundle)
        with edgeseg.load(bundle.path) as segmenter:
            assert segmenter.backend_name == "tensorrt"

    def test_many_threads(self, machine: Machine, bundle: Bundle) -> None:
        machine.install("tensorrt-10.3.0")
        built(bundle)
        with edgeseg.load(bundle.path, backend="tensorrt") as segmenter, ThreadPoolExecutor(6) as pool:
            found = list(pool.map(lambda i: segmenter(FRAMES[i % 6]).class_map, range(60)))
        assert all(np.array_equal(a, expected(FRAMES[i % 6])) for i, a in enumerate(found))

    def test_the_processor_finishes_where_no_kernel_compiles(
        self, machine: Machine, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        machine.install("tensorrt-10.3.0")
        built(bundle)
        monkeypatch.setattr("edgeseg.backends.tensorrt.class_maps._MOST", 0)
        with edgeseg.load(bundle.path, backend="tensorrt") as segmenter:
            for frame in FRAMES:
                assert np.array_equal(segmenter(frame).class_map, expected(frame))

    def test_refuses_logits_that_are_not_finite(self, machine: Machine, bundle: Bundle) -> None:
        machine.install("tensorrt-10.3.0")
        built(bundle)
        with edgeseg.load(bundle.path, backend="tensorrt") as segmenter:
            machine.execution.poisons = True
            with pytest.raises(EngineError, match="logits that are not finite"):
                segmenter(FRAMES[0])

    def test_a_lost_device(self, machine: Machine, bundle: Bundle) -> None:
        machine.install("tensorrt-10.3.0")
        built(bundle)
        with edgeseg.load(bundle.path, backend="tensorrt") as segmenter:
            segmenter(FRAMES[0])
            machine.execution.loses_device = True
            with pytest.raises(EngineError, match="the GPU's context of this process is lost: load the engine again"):
                segmenter(FRAMES[0])
        with edgeseg.load(bundle.path, backend="tensorrt") as segmenter:
            assert np.array_equal(segmenter(FRAMES[0]).class_map, expected(FRAMES[0]))
        assert machine.gpu.left == {}

    def test_an_engine_for_measuring(self, machine: Machine, bundle: Bundle) -> None:
        machine.install("tensorrt-10.3.0")
        built(bundle)
        with edgeseg.load(bundle.path, backend="tensorrt") as segmenter:
            engine = segmenter.make_engine("throughput")
            assert engine.infer([FRAMES[0][None]])[0].shape == (1, 4, 8, 12)
            engine.close()
            segmenter(FRAMES[0])

    def test_a_plan_of_another_shape(self, machine: Machine, tmp_path: Path) -> None:
        bundle = promised_bundle(tmp_path / "a.edgeseg", 64, 48)
        wrong = toy_bundle(
            tmp_path / "b.edgeseg", toy_manifest(32, 48, logits=(8, 12), coordinates="half_pixel"), bundle.read_model()
        )
        machine.install("tensorrt-10.3.0")
        built(wrong)
        with pytest.raises(edgeseg.EdgesegError, match=r"the manifest describes frame \(1, 32, 48, 3\) uint8"):
            edgeseg.load(wrong.path, backend="tensorrt")
        assert machine.gpu.left == {}


class TestNothingThatFits:
    def message(self, bundle: Bundle, **options: object) -> str:
        with pytest.raises(EngineError) as caught:
            edgeseg.load(bundle.path, backend="tensorrt", **options)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def test_says_how_to_build(self, machine: Machine, bundle: Bundle) -> None:
        machine.install("tensorrt-10.3.0")
        assert self.message(bundle) == (
            f"{bundle.path} has no engine for this device: this is TensorRT 10.3.0 on Orin, compute capability 8.7, "
            f"driver of CUDA 12.6; build it with: edgeseg build {bundle.path}"
        )
        machine.board(jetson=True)
        assert f"build it with: edgeseg build {bundle.path} --precision float32" in self.message(
            bundle, build=False, precision="float32"
        )

    def test_auto_does_not_fall_back(self, machine: Machine, bundle: Bundle) -> None:
        machine.install("tensorrt-10.3.0")
        with pytest.raises(EngineError, match="has no engine for this device"):
            edgeseg.load(bundle.path)

    def test_names_both_sides(self, machine: Machine, bundle: Bundle) -> None:
        machine.install("tensorrt-10.7.0")
        built(bundle)
        assert self.message(bundle).startswith(
            f"{bundle.path} has no engine for this device: it has engines of TensorRT 10.3.0 on Orin, compute "
            "capability 8.7, driver of CUDA 12.6, but this is TensorRT 10.7.0 on Orin,"
        )

    def test_names_the_library(self, machine: Machine, bundle: Bundle) -> None:
        machine.install("tensorrt_rtx-1.7.1.116")
        machine.device(RTX)
        with pytest.raises(EngineError, match=r"build it with: edgeseg build .* --library tensorrt-rtx$"):
            edgeseg.load(bundle.path, backend="tensorrt-rtx")

    def test_a_damaged_one(self, machine: Machine, bundle: Bundle, caplog: pytest.LogCaptureFixture) -> None:
        machine.install("tensorrt-10.3.0")
        plan = built(bundle)
        plan.path.write_bytes(plan.path.read_bytes()[:100])
        assert "has no engine for this device" in self.message(bundle)
        assert "is damaged: it has 100 bytes" in caplog.text


class TestGivenPlan:
    def refused(self, bundle: Bundle, plan: Path, **options: object) -> str:
        with pytest.raises(EngineError) as caught:
            edgeseg.load(bundle.path, backend="tensorrt", plan=plan, **options)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def test_runs(self, machine: Machine, bundle: Bundle, tmp_path: Path) -> None:
        machine.install("tensorrt-10.3.0")
        plan = built(bundle, place=tmp_path / "mine.plan")
        with edgeseg.load(bundle.path, plan=str(plan.path)) as segmenter:
            assert np.array_equal(segmenter(FRAMES[0]).class_map, expected(FRAMES[0]))

    def test_runs_from_the_command_line(
        self, machine: Machine, bundle: Bundle, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        machine.install("tensorrt-10.3.0")
        plan = built(bundle, place=tmp_path / "mine.plan")
        cv2.imwrite(str(tmp_path / "in.png"), FRAMES[0][:, :, ::-1])
        words = [
            "run",
            bundle.path,
            tmp_path / "in.png",
            "-o",
            tmp_path / "out.png",
            "--class-map",
            "--plan",
            plan.path,
        ]
        assert cli.main(["-q", *map(str, words)]) == 0, capfd.readouterr()
        assert np.array_equal(cv2.imread(str(tmp_path / "out.png"), cv2.IMREAD_UNCHANGED), expected(FRAMES[0]))
        plan.path.unlink()
        assert cli.main(["-q", *map(str, words), "--force"]) == 1
        assert "there is no plan at" in capfd.readouterr().err

    @pytest.mark.parametrize(
        ("changes", "there"),
        [
            ({"version": "10.7.0"}, "TensorRT 10.7.0 on Orin, compute capability 8.7, driver of CUDA 12.6"),
            ({"device": "Thor", "compute_capability": "11.0"}, "TensorRT 10.3.0 on Thor, compute capability 11.0"),
            ({"driver": "13.0"}, "driver of CUDA 13.0"),
            ({"board": "NVIDIA Jetson Orin Nano"}, "on Orin (NVIDIA Jetson Orin Nano)"),
            ({"library": "tensorrt_rtx", "built_for": ("SM86",)}, "TensorRT-RTX 10.3.0 for SM86"),
        ],
    )
    def test_of_elsewhere_names_both_sides(
        self, machine: Machine, bundle: Bundle, tmp_path: Path, changes: dict[str, object], there: str
    ) -> None:
        machine.install("tensorrt-10.3.0")
        place = tmp_path / "mine.plan"
        built(bundle, place=place, **changes)
        message = self.refused(bundle, place)
        assert message.startswith(f"{place} was built by ")
        assert there in message
        assert "but this is TensorRT 10.3.0 on Orin, compute capability 8.7, driver of CUDA 12.6" in message
        assert message.endswith(f"; build it with: edgeseg build {bundle.path} -o {place} --force")

    def test_of_another_network(self, machine: Machine, bundle: Bundle, tmp_path: Path) -> None:
        machine.install("tensorrt-10.3.0")
        other = promised_bundle(tmp_path / "other.edgeseg", seed=1)
        plan = built(other, place=tmp_path / "mine.plan")
        message = self.refused(bundle, plan.path)
        assert f"was built from the network toy ({other.manifest.files['model.onnx'][:16]}), but" in message
        assert f"holds toy ({bundle.manifest.files['model.onnx'][:16]})" in message

    def test_of_another_precision(self, machine: Machine, bundle: Bundle, tmp_path: Path) -> None:
        machine.install("tensorrt-10.3.0")
        plan = built(bundle, place=tmp_path / "mine.plan")
        assert "computes layers outside INT8 in FP16, but float32 was asked for" in self.refused(
            bundle, plan.path, precision="float32"
        )

    def test_truncated(self, machine: Machine, bundle: Bundle, tmp_path: Path) -> None:
        machine.install("tensorrt-10.3.0")
        plan = built(bundle, place=tmp_path / "mine.plan")
        plan.path.write_bytes(plan.path.read_bytes()[:50])
        assert "mine.plan is damaged: it has 50 bytes and not the" in self.refused(bundle, plan.path)

    def test_no_plan(self, machine: Machine, bundle: Bundle, tmp_path: Path) -> None:
        machine.install("tensorrt-10.3.0")
        (tmp_path / "mine.plan").write_bytes(b"hello")
        assert "has no readable record mine.json beside it" in self.refused(bundle, tmp_path / "mine.plan")
        with pytest.raises(InputError, match="there is no plan at"):
            edgeseg.load(bundle.path, backend="tensorrt", plan=tmp_path / "none.plan")

    def test_what_the_library_refuses(self, machine: Machine, bundle: Bundle, tmp_path: Path) -> None:
        machine.install("tensorrt-10.3.0", loads=False)
        plan = built(bundle, place=tmp_path / "mine.plan")
        assert "TensorRT 10.3.0 does not load the plan: deserializeCudaEngine" in self.refused(bundle, plan.path)

    def test_goes_with_tensorrt_only(self, bundle: Bundle) -> None:
        with pytest.raises(UsageError, match="plan is an engine of TensorRT's, but the backend is onnxruntime"):
            edgeseg.load(bundle.path, backend="onnxruntime", plan="mine.plan")


class TestBuild:
    """`python -m edgeseg build` runs as a child, with the fake on its path and a driver that finds the same GPU."""

    @pytest.mark.parametrize("version", VERSIONS)
    def test_builds_once(
        self, machine: Machine, bundle: Bundle, version: str, capfd: pytest.CaptureFixture[str]
    ) -> None:
        machine.install(version)
        machine.install_driver()
        with edgeseg.load(bundle.path, backend="tensorrt", build=True) as segmenter:
            assert np.array_equal(segmenter(FRAMES[0]).class_map, expected(FRAMES[0]))
        (plan,) = list_plans(bundle)
        assert plan.path.parent == bundle.path / "engines"
        old, strong = version.startswith("tensorrt-8"), version.startswith("tensorrt-11")
        assert plan.record.form == ("tensorrt8" if old else "fp16_qdq" if strong else "canonical")
        build = plan.record.build
        assert (build.version, build.device, build.driver) == (version.removeprefix("tensorrt-"), "Orin", "12.6")
        assert (build.promised_int8, build.proven_int8) == (3, 3)
        shown = capfd.readouterr()
        assert shown.out == ""
        assert ("building the engine" if old else "build the engine: 100 %") in shown.err
        written = plan.path.stat().st_mtime_ns
        with edgeseg.load(bundle.path, backend="tensorrt", build=True):
            assert plan.path.stat().st_mtime_ns == written

    def test_by_itself_on_a_jetson(self, machine: Machine, bundle: Bundle, caplog: pytest.LogCaptureFixture) -> None:
        machine.install("tensorrt-10.3.0")
        machine.install_driver()
        machine.board(jetson=True)
        with edgeseg.load(bundle.path, backend="tensorrt", precision="float32") as segmenter:
            assert segmenter.backend_name == "tensorrt"
        assert "it is built now, once" in caplog.text
        assert list_plans(bundle)[0].record.build.fp16 is False

    def test_hands_on_why_it_failed(self, machine: Machine, bundle: Bundle) -> None:
        machine.install("tensorrt-10.3.0")
        machine.install_driver()
        (machine.folder / "tensorrt.py").write_text(
            "import sys\nfrom support.tensorrt_fakes import Behaviour, fake_module\n"
            "sys.modules[__name__] = fake_module('tensorrt-10.3.0', Behaviour(float_nodes=frozenset({'conv_14'})))\n"
        )
        with pytest.raises(EngineError, match=r"2 of 3 layers run in INT8, not conv_14 \(float16\)") as caught:
            edgeseg.load(bundle.path, backend="tensorrt", build=True)
        assert "\n" not in str(caught.value)
        assert list_plans(bundle) == []

    @pytest.mark.parametrize(
        ("program", "error", "message"),
        [
            ("/bin/false", EngineError, "the build ended with status 1; run: /bin/false -m edgeseg build"),
            ("/no/python", EngineError, "cannot start /no/python to build the engine: No such file"),
            ("/bin/true", EngineError, "the engine just built for .* is not there; build it with: edgeseg build"),
        ],
    )
    def test_a_child_that_does_not_build(
        self, machine: Machine, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, program: str, error: type, message: str
    ) -> None:
        machine.install("tensorrt-10.3.0")
        monkeypatch.setattr(sys, "executable", program)
        with pytest.raises(error, match=message):
            edgeseg.load(bundle.path, backend="tensorrt", build=True)

    def test_a_child_that_refuses(self, machine: Machine, bundle: Bundle) -> None:
        machine.install("tensorrt-10.3.0")
        (machine.folder / "sitecustomize.py").write_text(
            "import sys\nif 'build' in sys.argv or True:\n"
            "    sys.stderr.write('edgeseg: error: options that do not go\\n'); sys.stderr.flush()\n"
            "    import os; os._exit(2)\n"
        )
        with pytest.raises(UsageError, match=r"^options that do not go$"):
            edgeseg.load(bundle.path, backend="tensorrt", build=True)

    def test_where_the_bundle_cannot_be_written(self, machine: Machine, bundle: Bundle, cache_dir: Path) -> None:
        machine.install("tensorrt-10.3.0")
        machine.install_driver()
        (bundle.path / "engines").symlink_to("/proc/edgeseg")
        with edgeseg.load(bundle.path, backend="tensorrt", build=True):
            assert list_plans(bundle)[0].path.is_relative_to(cache_dir / "plans")


class TestSelection:
    def test_the_gpu_is_not_raced(self, machine: Machine) -> None:
        machine.install("tensorrt-10.3.0")
        other = FakeBackend("fast")
        chosen: list[Backend] = [TensorRTBackend(), other]
        assert choose_backend(b"graph", "d", Target(), backends=chosen) is chosen[0]
        assert other.engines == []

    @pytest.mark.parametrize("backend", [TensorRTBackend, TensorRTRTXBackend])
    def test_without_a_gpu_it_is_left_out(
        self, machine: Machine, backend: type[TensorRTBackend], caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        machine.device(None)
        other = FakeBackend("fast")
        assert choose_backend(b"graph", "d", Target(), backends=[backend(), other]) is other
        (record,) = [r for r in caplog.records if "left out" in r.message]
        assert record.levelname == "DEBUG"
        assert "needs an NVIDIA GPU, but no driver or GPU is here; on a Jetson flash JetPack" in record.message

    def test_without_the_library_it_is_left_out(self, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "tensorrt", None)
        other = FakeBackend("fast")
        assert choose_backend(b"graph", "d", Target(), backends=[TensorRTBackend(), other]) is other

    def test_a_broken_library_is_a_warning(
        self, machine: Machine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def broken(name: str) -> None:
            raise EngineError("TensorRT is installed but does not load")

        monkeypatch.setattr(backend_module, "load_library", broken)
        other = FakeBackend("fast")
        assert choose_backend(b"graph", "d", Target(), backends=[TensorRTBackend(), other]) is other
        assert "tensorrt is left out: TensorRT is installed but does not load" in caplog.text

    def test_rtx_is_for_rtx(self, machine: Machine) -> None:
        with pytest.raises(EngineError, match="for SM80, SM86, SM89, SM120, but Orin is SM87; use --backend"):
            TensorRTRTXBackend().check_device()
        machine.device(RTX)
        TensorRTRTXBackend().check_device()

    @pytest.mark.parametrize("name", ["tensorrt", "tensorrt-rtx"])
    def test_is_registered(self, name: str) -> None:
        backend = get_backend(name)
        assert backend.name == name
        assert isinstance(backend, BundleBackend)

    def test_asked_for_without_a_gpu(self, machine: Machine, bundle: Bundle) -> None:
        machine.install("tensorrt-10.3.0")
        machine.device(None)
        with pytest.raises(EngineError, match="TensorRT needs an NVIDIA GPU, but no driver or GPU is here"):
            edgeseg.load(bundle.path, backend="tensorrt")

    def test_asked_for_without_the_library(
        self, machine: Machine, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "tensorrt", None)
        with pytest.raises(MissingDependencyError, match="tensorrt is needed to build and run its engines"):
            edgeseg.load(bundle.path, backend="tensorrt")


class TestPlainGraph:
    """The backend's own compile and load, without a bundle."""

    def test_runs(self, machine: Machine, bundle: Bundle) -> None:
        machine.install("tensorrt-10.3.0")
        backend = TensorRTBackend()
        assert backend.version() == "10.3.0"
        compiled = backend.compile(bundle.read_model(), Target())
        assert json.loads(compiled.removeprefix(b"fake plan "))["layers"][0]["type"] == "Int8"
        engine = backend.load(compiled, Target())
        assert engine.infer([FRAMES[0][None]])[0].shape == (1, 4, 8, 12)
        engine.close()

    def test_needs_a_gpu(self, machine: Machine, bundle: Bundle) -> None:
        machine.install("tensorrt-10.3.0")
        machine.device(None)
        with pytest.raises(EngineError, match="needs an NVIDIA GPU"):
            TensorRTBackend().compile(bundle.read_model(), Target())


def test_the_toy_network_holds_its_promises(bundle: Bundle) -> None:
    assert [layer.name for layer in bundle.manifest.quantization.layers] == list(NODES)
    assert ORIN.capability_text == "8.7"
