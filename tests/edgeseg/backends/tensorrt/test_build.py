"""Builds in a child process: with fakes of every version, also as they crash, and with the real TensorRT-RTX."""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import onnx
import pytest
from support.bundles import published_espnet, quantized_graph
from support.lint_graphs import FAULTY, canonical_graph
from support.tensorrt_api import VERSIONS

from edgeseg.backends.tensorrt.board import Board, find_device
from edgeseg.backends.tensorrt.build import build
from edgeseg.backends.tensorrt.options import BuildOptions, BuildProgress
from edgeseg.backends.tensorrt.plans import PlanRecord
from edgeseg.backends.tensorrt.proof import promised_layers
from edgeseg.bundle import Bundle
from edgeseg.errors import EngineError, InputError, MissingDependencyError, UsageError
from edgeseg.zoo import shipped_path

NODES = ("conv_8", "conv_14", "conv_20")
NANO = Board("NVIDIA Jetson Orin Nano", "36.4.3", "15W", 3600, 900)
DESKTOP = Board(None, None, None, 16000, 12000)


class Installed:
    """Writes a `tensorrt` that a child process finds, playing a version."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, version: str, behaviour: str = "", before: str = "") -> None:
        text = f"""
            import os, signal, sys, time
            from support.tensorrt_fakes import Behaviour, Refusal, fake_module
            {before}
            sys.modules[__name__] = fake_module({version!r}, Behaviour({behaviour}))
        """
        (self._folder / "tensorrt.py").write_text(textwrap.dedent(text))


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installed:
    monkeypatch.syspath_prepend(tmp_path)
    return Installed(tmp_path)


class TestFakes:
    @pytest.mark.parametrize("version", VERSIONS)
    def test_builds_and_records(self, installed: Installed, version: str) -> None:
        installed(version)
        told: list[BuildProgress] = []
        made = build(quantized_graph(), promised=NODES, on_progress=told.append, board=DESKTOP)
        record = made.record
        assert record.version == version.removeprefix("tensorrt-")
        assert record.convolutions == record.precisions == {"int8": 3}
        assert (record.promised_int8, record.proven_int8, record.workspace_mb) == (3, 3, None)
        assert record.strongly_typed is version.startswith("tensorrt-11")
        assert record.fp16 is not record.strongly_typed
        assert record.plan_bytes == len(made.plan) > 0
        assert record.peak_memory_mb > 10
        assert record.seconds > 0
        assert made.proof is not None
        assert made.proof.int8 == NODES
        assert told[0].phase == "reading the graph"
        beside = PlanRecord("toy", "0" * 64, "canonical", record)
        assert PlanRecord.from_json(beside.to_json()) == beside

    def test_memory_is_the_childs_own(self, installed: Installed) -> None:
        installed("tensorrt-10.3.0")
        ours = bytearray(b"1") * (400 << 20)
        assert build(quantized_graph(), promised=NODES, board=DESKTOP).record.peak_memory_mb < 300
        assert len(ours) == 400 << 20

    def test_a_small_board(self, installed: Installed, caplog: pytest.LogCaptureFixture) -> None:
        installed("tensorrt-10.3.0")
        record = build(quantized_graph(), BuildOptions(target="orin-nano"), promised=NODES, board=NANO).record
        assert (record.workspace_mb, record.board, record.l4t, record.power_mode) == (
            256, "NVIDIA Jetson Orin Nano", "36.4.3", "15W",
        )  # fmt: skip
        assert "900 MB of 3600 MB are free, and a build may be killed" in caplog.text
        asked = BuildOptions(workspace_mb=64)
        assert build(quantized_graph(), asked, promised=NODES, board=NANO).record.workspace_mb == 64

    def test_without_int8_there_is_nothing_to_prove(self, installed: Installed) -> None:
        installed("tensorrt-10.3.0")
        made = build(quantized_graph(), BuildOptions(int8=False), promised=NODES, board=DESKTOP)
        assert made.proof is None
        assert made.record.convolutions == {"float16": 3}
        assert made.record.proven_int8 == 0

    def test_fails_the_proof(self, installed: Installed) -> None:
        installed("tensorrt-10.3.0", "float_nodes=frozenset({'conv_14'})")
        with pytest.raises(EngineError, match=r"2 of 3 layers run in INT8, not conv_14 \(float16\)"):
            build(quantized_graph(), promised=NODES, board=DESKTOP)

    def test_hands_on_errors_as_they_are(self, installed: Installed) -> None:
        installed("tensorrt-10.3.0", "refusals=(Refusal('no such thing'),)")
        with pytest.raises(EngineError, match=r"does not take the graph: deform \(DeformConv\): no such thing"):
            build(quantized_graph(), board=DESKTOP)
        installed("tensorrt-8.5.3.1")
        with pytest.raises(UsageError, match="has no optimization levels"):
            build(quantized_graph(), BuildOptions(optimization_level=2), board=DESKTOP)
        installed("tensorrt-10.3.0", "failure='Error Code 2: OutOfMemory'")
        with pytest.raises(EngineError, match="OutOfMemory; the device has too little memory free"):
            build(quantized_graph(), board=DESKTOP)

    def test_hands_on_the_log(self, installed: Installed, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        installed("tensorrt-10.3.0", "logged=(('WARNING', 'scales are odd'), ('INFO', 'chatter'))")
        build(quantized_graph(), promised=NODES, board=DESKTOP)
        assert [(record.levelname, record.message) for record in caplog.records] == [("WARNING", "scales are odd")]

    def test_library_is_missing(self, installed: Installed, tmp_path: Path) -> None:
        (tmp_path / "tensorrt.py").write_text("raise ModuleNotFoundError('gone', name='tensorrt')")
        with pytest.raises(MissingDependencyError, match="tensorrt is needed to build and run its engines") as caught:
            build(quantized_graph(), board=DESKTOP)
        assert caught.value.library == "tensorrt"
        assert caught.value.cure in str(caught.value)

    def test_a_defect_keeps_its_traceback(self, installed: Installed) -> None:
        installed("tensorrt-10.3.0")
        with pytest.raises(RuntimeError, match=r"(?s)the build process failed:\nTraceback.*DecodeError"):
            build(b"no model", board=DESKTOP)


class TestTimingCache:
    def test_is_begun_and_continued(self, installed: Installed, tmp_path: Path) -> None:
        installed("tensorrt-10.3.0")
        options = BuildOptions(timing_cache=tmp_path / "cache" / "orin.timing")
        build(quantized_graph(), options, promised=NODES, board=DESKTOP)
        assert (tmp_path / "cache" / "orin.timing").read_bytes() == b"measured;"
        build(quantized_graph(), options, promised=NODES, board=DESKTOP)
        assert (tmp_path / "cache" / "orin.timing").read_bytes() == b"measured;measured;"

    def test_cannot_be_read(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"cannot read the timing cache .*: Is a directory; give another file"):
            build(quantized_graph(), BuildOptions(timing_cache=tmp_path), board=DESKTOP)

    def test_cannot_be_written(self, installed: Installed, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        installed("tensorrt-10.3.0")
        (tmp_path / "link").symlink_to("/proc/edgeseg")
        options = BuildOptions(timing_cache=tmp_path / "link" / "orin.timing")
        assert build(quantized_graph(), options, promised=NODES, board=DESKTOP).plan
        assert "cannot be written" in caplog.text


class TestDeath:
    def died(self, installed: Installed, crash: str) -> str:
        installed("tensorrt-10.3.0", f"crash=lambda: {crash}")
        with pytest.raises(EngineError) as caught:
            build(quantized_graph(), promised=NODES, board=NANO)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def test_by_a_crash(self, installed: Installed) -> None:
        message = self.died(installed, "os.kill(os.getpid(), signal.SIGSEGV)")
        assert message == (
            "TensorRT's builder crashed (SIGSEGV) in 'Building Engine': some graphs do that, such as one whose Q/DQ "
            "scales are computed at run time; find the cause with: edgeseg lint"
        )

    def test_for_want_of_memory(self, installed: Installed) -> None:
        message = self.died(installed, "os.kill(os.getpid(), signal.SIGKILL)")
        assert message.startswith(
            "the system killed TensorRT's builder in 'Building Engine', most likely for want of memory (900 of 3600 MB "
            "were free)"
        )

    def test_by_leaving(self, installed: Installed) -> None:
        message = self.died(installed, "(print('cannot go on'), sys.stdout.flush(), os._exit(3))")
        assert message == "TensorRT's builder ended with status 3 in 'Building Engine': cannot go on"

    def test_without_a_word(self, installed: Installed) -> None:
        assert self.died(installed, "os._exit(3)").endswith("ended with status 3 in 'Building Engine': it says nothing")

    def test_for_want_of_memory_in_python(self, installed: Installed) -> None:
        message = self.died(installed, "bytearray(1 << 60)")
        assert message.startswith("there is not enough memory to build the engine; close other programs")

    def test_before_it_begins(self, installed: Installed, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "executable", "/bin/false")
        with pytest.raises(EngineError, match="TensorRT's builder ended with status 1 in 'starting': it says nothing"):
            build(b"0" * 10_000_000, board=DESKTOP)
        monkeypatch.setattr(sys, "executable", "/no/python")
        with pytest.raises(EngineError, match="cannot start /no/python to build the engine in: No such file"):
            build(quantized_graph(), board=DESKTOP)


class TestInterruption:
    @pytest.mark.parametrize("error", [KeyboardInterrupt, BrokenPipeError])
    def test_ends_the_child(self, installed: Installed, tmp_path: Path, error: type[BaseException]) -> None:
        """What a listener raises is the caller's, and the child does not outlive it."""
        note = tmp_path / "pid"
        installed(
            "tensorrt-10.3.0", "crash=lambda: time.sleep(600)", f"open({str(note)!r}, 'w').write(str(os.getpid()))"
        )

        def interrupt(progress: BuildProgress) -> None:
            if progress.phase == "Building Engine":
                raise error

        with pytest.raises(error):
            build(quantized_graph(), on_progress=interrupt, board=DESKTOP)
        with pytest.raises(ProcessLookupError):
            os.kill(int(note.read_text()), 0)

    @pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's end")
    def test_ends_with_its_parent(self, installed: Installed, tmp_path: Path) -> None:
        note = tmp_path / "pid"
        installed(
            "tensorrt-10.3.0", "crash=lambda: time.sleep(600)", f"open({str(note)!r}, 'w').write(str(os.getpid()))"
        )
        program = """
            import sys
            sys.path[:] = sys.argv[1:]
            from support.bundles import published_espnet, quantized_graph
            from edgeseg.backends.tensorrt.build import build
            def report(progress):
                if progress.phase == "Building Engine":
                    print("building", flush=True)
            build(quantized_graph(), on_progress=report)
        """
        command = [sys.executable, "-c", textwrap.dedent(program), *map(str, sys.path)]
        parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert parent.stdout is not None
        assert parent.stdout.readline() == "building\n"
        child = int(note.read_text())
        os.kill(child, 0)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        parent.stdout.close()
        assert wait_for_end(child)


def wait_for_end(process: int) -> bool:
    """Whether a process that is not ours ends; the system tells by its descriptor."""
    try:
        descriptor = os.pidfd_open(process)
    except ProcessLookupError:
        return True
    try:
        import select

        return bool(select.select([descriptor], [], [], 30)[0])
    finally:
        os.close(descriptor)


needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed (extra edgeseg[rtx])"
)


@pytest.fixture(scope="module")
def espnet(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return published_espnet(shared, tmp_path_factory.mktemp("espnet"))


@needs_rtx
class TestRealBuilder:
    """TensorRT-RTX builds ahead of time on any CPU."""

    @pytest.mark.parametrize("target", ["rtx", "rtx-ampere", "rtx-ada", "rtx-blackwell"])
    def test_builds_a_small_network(self, target: str) -> None:
        told: list[BuildProgress] = []
        made = build(quantized_graph(), BuildOptions(target=target), promised=NODES, on_progress=told.append)
        assert made.proof is not None
        assert made.proof.int8 == NODES
        assert made.record.convolutions == {"int8": 3}
        assert made.record.library == "tensorrt_rtx"
        assert made.record.strongly_typed
        assert len(made.plan) > 1000
        shares = [progress.share for progress in told]
        assert None not in shares
        assert shares[-1] == 1.0

    def test_builds_a_dynamic_batch(self) -> None:
        model = onnx.load_from_string(quantized_graph())
        for tensor in (model.graph.input[0], model.graph.output[0]):
            tensor.type.tensor_type.shape.dim[0].dim_param = "n"
        options = BuildOptions(target="rtx-ampere", batch=(1, 2, 8))
        made = build(model.SerializeToString(), options, promised=NODES)
        assert made.record.convolutions == {"int8": 3}

    @pytest.mark.parametrize("class_map", [False, True])
    def test_builds_a_canonical_graph(self, class_map: bool) -> None:
        model = canonical_graph(class_map=class_map)
        names = tuple(node.name for node in model.graph.node if node.op_type == "Conv")
        made = build(model.SerializeToString(), BuildOptions(target="rtx-ampere"), promised=names)
        assert made.record.proven_int8 == len(names) == 4

    def test_builds_espnet(self, espnet: Bundle) -> None:
        promised = promised_layers(espnet.manifest)
        made = build(espnet.read_model(), BuildOptions(target="rtx"), promised=promised)
        record = made.record
        assert len(promised) == record.proven_int8 == 82
        assert record.convolutions == {"int8": 82, "float32": 3}
        assert [layer.role for layer in made.layers if layer.precision == "float32"].count("deconvolution") == 3
        assert record.seconds <= 60
        assert record.peak_memory_mb <= 2000

    def test_a_float_network_is_not_int8(self) -> None:
        graph = shipped_path("dabnet-dsrl-camvid").read_bytes()
        with pytest.raises(EngineError, match=r"the engine has no INT8 layer: its \d+ convolutions run in other types"):
            build(graph, BuildOptions(target="rtx-ampere"))
        made = build(graph, BuildOptions(target="rtx-ampere", int8=False))
        assert "int8" not in made.record.convolutions

    def test_a_scale_of_shape_1_fails_the_proof(self) -> None:
        """L1: the builder says nothing and computes in float."""
        model = FAULTY["Q103"]()
        name = next(node.name for node in model.graph.node if node.op_type == "Conv")
        with pytest.raises(EngineError, match=rf"0 of 1 layers run in INT8, not {name} \(float32\)"):
            build(model.SerializeToString(), BuildOptions(target="rtx-ampere"), promised=(name,))

    def test_a_scale_computed_at_run_time_is_one_line(self) -> None:
        """E19: the builder crashes."""
        with pytest.raises(EngineError) as caught:
            build(FAULTY["Q106"]().SerializeToString(), BuildOptions(target="rtx-ampere"))
        assert str(caught.value).startswith("TensorRT-RTX's builder crashed (SIGSEGV) in ")
        assert "\n" not in str(caught.value)

    def test_a_refused_operator_is_named(self) -> None:
        model = onnx.load_from_string(quantized_graph())
        model.graph.node[-1].op_type = "NoSuchOperator"
        model.graph.node[-1].name = "last"
        with pytest.raises(EngineError, match=r"does not take the graph: last \(NoSuchOperator\): .*Plugin not found"):
            build(model.SerializeToString(), BuildOptions(target="rtx-ampere"))

    def test_a_graph_that_is_none(self) -> None:
        with pytest.raises(EngineError, match=r"TensorRT-RTX [\d.]+ does not take the graph: "):
            build(b"no model at all", BuildOptions(target="rtx-ampere"))

    def test_a_workspace_that_is_too_small(self) -> None:
        """E16."""
        with pytest.raises(EngineError, match=r"within workspace limit.*; no kernel fits into the workspace: raise"):
            build(quantized_graph(256, 512), BuildOptions(target="rtx-ampere", workspace_mb=1))


@pytest.mark.gpu
@pytest.mark.skipif(
    importlib.util.find_spec("tensorrt") is None or find_device() is None, reason="there is no TensorRT with a GPU"
)
class TestRealTensorRT:
    """The full library, wherever it and a GPU are."""

    def test_builds_a_small_network(self, tmp_path: Path) -> None:
        told: list[BuildProgress] = []
        options = BuildOptions(timing_cache=tmp_path / "timing")
        made = build(quantized_graph(), options, promised=NODES, on_progress=told.append)
        assert made.record.device is not None
        assert made.record.proven_int8 == 3
        assert (tmp_path / "timing").stat().st_size > 0
        assert told

    def test_builds_espnet(self, espnet: Bundle) -> None:
        made = build(espnet.read_model(), promised=promised_layers(espnet.manifest))
        assert made.record.proven_int8 == 82
