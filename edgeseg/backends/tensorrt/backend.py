"""TensorRT and TensorRT-RTX as backends: a bundle's plan for this device, built where it is missing and may be."""

from __future__ import annotations

import logging
import shlex
import subprocess
import sys
from pathlib import Path

from edgeseg.backends import Target
from edgeseg.backends.cuda import open_cuda
from edgeseg.backends.tensorrt.board import Device, find_device, read_board
from edgeseg.backends.tensorrt.build import build as build_plan
from edgeseg.backends.tensorrt.engine import TensorRTEngine
from edgeseg.backends.tensorrt.options import TARGETS, BuildOptions
from edgeseg.backends.tensorrt.plans import Here, Plan, computes_in_float16, find_plan, list_plans, read_plan
from edgeseg.backends.tensorrt.versions.library import LIBRARIES, Library, LibraryName, load_library
from edgeseg.bundle import MODEL, Bundle
from edgeseg.errors import EngineError, UsageError

__all__ = ["TensorRTBackend", "TensorRTRTXBackend"]

_log = logging.getLogger(__name__)

_NO_GPU = (
    "on a Jetson flash JetPack, in a container start it with --runtime nvidia (--gpus all elsewhere), on a PC install "
    "NVIDIA's driver; without a GPU use --backend openvino"
)

_ERROR = "edgeseg: error: "


class TensorRTBackend:
    """NVIDIA TensorRT: Jetson boards and data-centre GPUs."""

    name = "tensorrt"
    library: LibraryName = "tensorrt"

    def version(self) -> str:
        """Version of the library.

        Raises:
            MissingDependencyError: when it is not installed.
            EngineError: when it is installed and does not load.
        """
        return load_library(self.library).version_text

    def check_device(self) -> None:
        """Look for a GPU that this library runs on; see `BundleBackend.check_device`."""
        self._device()

    def compile(self, model: bytes, target: Target) -> bytes:
        """Build a plan of a graph as it is, without a bundle: it must be in the form that this version takes.

        Raises:
            EngineError: when it does not build.
        """
        self._device()
        int8 = b"QuantizeLinear" in model
        options = BuildOptions(library=self.library, int8=int8, fp16=target.precision == "auto")
        return build_plan(model, options).plan

    def load(self, engine: bytes, target: Target) -> TensorRTEngine:
        """Load what `compile` gave on this machine.

        Raises:
            EngineError: for bytes that are no plan of this version and device.
        """
        self._device()
        return self._engine(load_library(self.library), engine, target, None)

    def load_bundle(
        self, bundle: Bundle, target: Target, *, build: bool | None = None, plan: Path | None = None
    ) -> TensorRTEngine:
        """The engine of a bundle; see `BundleBackend.load_bundle`."""
        library, device, board = load_library(self.library), self._device(), read_board()
        here = Here(self.library, library.version_text, device, board.model)
        if plan is not None:
            chosen = self._given(bundle, plan, here, target)
            return self._engine(library, chosen.read(), target, chosen.record.build.dla_core)
        found = find_plan(bundle, here, target.precision)
        if found is None:
            allowed = board.is_jetson if build is None else build
            if not allowed:
                raise EngineError(self._nothing(bundle, here, target))
            _log.warning("there is no engine of %s for this device yet; it is built now, once", bundle.path)
            _run(self._build_command(bundle, target))
            found = find_plan(bundle, here, target.precision)
        if found is None:
            raise EngineError(f"the engine just built for {bundle.path} is not there; {self._cure(bundle, target)}")
        chosen, content = found
        _log.debug("%s of %s", chosen.path, here)
        return self._engine(library, content, target, chosen.record.build.dla_core)

    def _device(self) -> Device:
        device = find_device()
        if device is None:
            raise EngineError(f"{LIBRARIES[self.library]} needs an NVIDIA GPU, but no driver or GPU is here; {_NO_GPU}")
        return device

    def _engine(self, library: Library, plan: bytes, target: Target, dla_core: int | None) -> TensorRTEngine:
        return TensorRTEngine(library, open_cuda(), plan, target, dla_core=dla_core)

    def _given(self, bundle: Bundle, path: Path, here: Here, target: Target) -> Plan:
        """A plan that the user names, if it is of this network and fits this device."""
        plan = read_plan(path)
        record, cure = plan.record, self._cure(bundle, target, path)
        if record.model_digest != bundle.manifest.files[MODEL]:
            raise EngineError(
                f"{path} was built from the network {record.network} ({record.model_digest[:16]}), but {bundle.path} "
                f"holds {bundle.manifest.network.name} ({bundle.manifest.files[MODEL][:16]}); {cure}"
            )
        if not here.fits(record):
            raise EngineError(f"{path} was built by {record.side}, but this is {here}; {cure}")
        if target.precision == "float32" and computes_in_float16(record):
            raise EngineError(f"{path} computes layers outside INT8 in FP16, but float32 was asked for; {cure}")
        return plan

    def _nothing(self, bundle: Bundle, here: Here, target: Target) -> str:
        others = sorted({plan.record.side for plan in list_plans(bundle) if not here.fits(plan.record)})
        known = f"it has engines of {'; '.join(others)}, but " if others else ""
        return f"{bundle.path} has no engine for this device: {known}this is {here}; {self._cure(bundle, target)}"

    def _cure(self, bundle: Bundle, target: Target, output: Path | None = None) -> str:
        words = self._arguments(bundle, target)
        words += [] if output is None else ["-o", str(output), "--force"]
        return f"build it with: edgeseg {shlex.join(words)}"

    def _arguments(self, bundle: Bundle, target: Target) -> list[str]:
        words = ["build", str(bundle.path)]
        words += [] if self.library == "tensorrt" else ["--library", self.name]
        return words + ([] if target.precision == "auto" else ["--precision", target.precision])

    def _build_command(self, bundle: Bundle, target: Target) -> list[str]:
        # The graph's form is derived by the converters, which the device's side does not import.
        return [sys.executable, "-m", "edgeseg", *self._arguments(bundle, target), "-v"]


class TensorRTRTXBackend(TensorRTBackend):
    """NVIDIA TensorRT-RTX: GeForce and RTX GPUs from Ampere on; its plans are built on any x86-64 machine."""

    name = "tensorrt-rtx"
    library: LibraryName = "tensorrt_rtx"

    def check_device(self) -> None:
        """Look for an RTX GPU; see `BundleBackend.check_device`."""
        device = self._device()
        major, minor = device.compute_capability
        if f"SM{major}{minor}" not in TARGETS["rtx"].ahead:
            raise EngineError(
                f"TensorRT-RTX is for {', '.join(TARGETS['rtx'].ahead)}, but {device.name} is SM{major}{minor}; use "
                "--backend tensorrt"
            )


def _run(command: list[str]) -> None:
    """Build in a child process, whose progress goes to stderr.

    Raises:
        EngineError: with the child's own line.
    """
    last = ""
    try:
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stderr is not None
            try:
                for line in process.stderr:
                    if line.startswith(_ERROR):
                        last = line.removeprefix(_ERROR).strip()
                    else:
                        sys.stderr.write(line)
            except BaseException:
                process.kill()
                raise
    except OSError as error:
        raise EngineError(f"cannot start {command[0]} to build the engine: {error.strerror}") from error
    if process.returncode == 2:
        raise UsageError(last or f"the build was refused; run it to see why: edgeseg {shlex.join(command[3:])}")
    if process.returncode:
        raise EngineError(last or f"the build ended with status {process.returncode}; run: {shlex.join(command)}")
