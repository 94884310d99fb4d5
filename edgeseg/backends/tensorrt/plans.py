"""Plans on disk: what each belongs to, where it stands, and which one fits this device.

A plan runs where it was built: on the same kind of GPU and board, with the same version of the library and a driver of
the same major version. Elsewhere TensorRT crashes at best (ultralytics#18730, #19423), so it is never tried.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgeseg.backends.tensorrt.board import Device
from edgeseg.backends.tensorrt.options import TARGETS, BuildOptions, BuildRecord
from edgeseg.backends.tensorrt.versions.library import LIBRARIES, LibraryName
from edgeseg.bundle import MODEL, Bundle
from edgeseg.engine_cache import write_atomically
from edgeseg.environment import read_environment
from edgeseg.errors import BundleError, EngineError, InputError, OutputError
from edgeseg.json_values import read_value

__all__ = [
    "ENGINES",
    "Here",
    "Plan",
    "PlanRecord",
    "computes_in_float16",
    "find_plan",
    "list_plans",
    "plan_folder",
    "plan_key",
    "read_plan",
    "write_plan",
]

_log = logging.getLogger(__name__)

ENGINES = "engines"
"""Folder of a bundle that holds its plans; the manifest does not name them, since each machine has its own."""


@dataclass(frozen=True)
class PlanRecord:
    """What stands beside a plan.

    Attributes:
        network: name of the network in the bundle's manifest.
        model_digest: SHA-256 of the bundle's model.onnx, hexadecimal.
        form: graph form that was built, a name of `edgeseg.converters.targets.FORMS`.
        build: the build; its `graph_digest` is that of the form.
    """

    network: str
    model_digest: str
    form: str
    build: BuildRecord

    def to_json(self) -> str:
        """The record as indented JSON with stable key order."""
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> PlanRecord:
        """Read what `to_json` wrote.

        Raises:
            EngineError: for any other text.
        """
        try:
            record = read_value(cls, json.loads(text), "engine")
        except (BundleError, RecursionError, ValueError) as error:
            raise EngineError(f"an engine's record cannot be read ({error}); build the engine again") from error
        assert isinstance(record, cls)
        return record

    @property
    def side(self) -> str:
        """Where it runs, in words."""
        build = self.build
        library = f"{LIBRARIES.get(build.library, build.library)} {build.version}"
        if build.built_for:
            return f"{library} for {', '.join(build.built_for)}"
        driver = f", driver of CUDA {build.driver}" if build.driver else ""
        board = f" ({build.board})" if build.board else ""
        return f"{library} on {build.device}{board}, compute capability {build.compute_capability}{driver}"


@dataclass(frozen=True)
class Plan:
    """A plan's file and its record."""

    path: Path
    record: PlanRecord

    def read(self) -> bytes:
        """The plan, if it is the one that its record describes.

        Raises:
            EngineError: for one that is missing, truncated or changed.
        """
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise EngineError(f"cannot read {self.path}: {error.strerror}; build it again with --force") from error
        build = self.record.build
        if hashlib.sha256(content).hexdigest() != build.plan_digest:
            raise EngineError(
                f"{self.path} is damaged: it has {len(content)} bytes and not the {build.plan_bytes} that were built, "
                "or others; build it again with --force"
            )
        return content


@dataclass(frozen=True)
class Here:
    """What a plan must have been built for to run in this process."""

    library: LibraryName
    version: str
    device: Device
    board: str | None

    def __str__(self) -> str:
        board = f" ({self.board})" if self.board else ""
        return (
            f"{LIBRARIES[self.library]} {self.version} on {self.device.name}{board}, compute capability "
            f"{self.device.capability_text}, driver of CUDA {self.device.driver}"
        )

    def fits(self, record: PlanRecord) -> bool:
        """Whether a plan of that record runs here."""
        build = record.build
        if (build.library, build.version) != (self.library, self.version):
            return False
        if build.built_for:
            major, minor = self.device.compute_capability
            return f"SM{major}{minor}" in build.built_for
        return (build.device, build.compute_capability, _major(build.driver), build.board) == (
            self.device.name,
            self.device.capability_text,
            _major(self.device.driver),
            self.board,
        )


def _major(version: str | None) -> str | None:
    return version.partition(".")[0] if version else None


def plan_key(
    model_digest: str, form: str, options: BuildOptions, version: str, device: Device | None, board: str | None
) -> str:
    """Name of a plan: a digest of what decides whether it can be used, and what it computes.

    How much effort went into it (workspace, optimization level) is not part of it: a better plan takes its place.

    Args:
        model_digest: of the bundle's model.onnx.
        form: of the graph.
        options: of the build.
        version: of the library.
        device, board: of this machine; a plan of TensorRT-RTX does not depend on them, but on its target.
    """
    ahead = TARGETS[options.target].ahead or TARGETS["rtx"].ahead
    if options.chosen_library == "tensorrt_rtx":
        where = ",".join(ahead)
    elif device is None:
        where = options.target
    else:
        where = f"{device.name}|{device.capability_text}|{_major(device.driver)}|{board}"
    what = f"{options.int8}|{options.fp16}|{options.strongly_typed}|{options.dla_core}|{options.batch}"
    parts = (model_digest, form, what, options.chosen_library, version, where)
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:32]


def plan_folder(bundle: Bundle) -> Path:
    """Where a bundle's new plans go: into the bundle, or into the cache where that cannot be written.

    Raises:
        OutputError: where neither can.
    """
    inside, outside = _folders(bundle)
    for folder in (inside, outside):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except OSError as error:
            _log.debug("%s cannot be written: %s", folder, error)
            reason = error.strerror
    raise OutputError(
        f"neither {inside} nor {outside} can be written ({reason}); copy the bundle to a place of yours, or set "
        "EDGESEG_CACHE_DIR"
    )


def _folders(bundle: Bundle) -> tuple[Path, Path]:
    digest = bundle.manifest.files[MODEL]
    return bundle.path / ENGINES, read_environment().cache_dir / "plans" / digest[:32]


def list_plans(bundle: Bundle) -> list[Plan]:
    """Plans of a bundle's network, in the bundle and in the cache; one whose record cannot be read is left out."""
    found = []
    for folder in _folders(bundle):
        for path in sorted(folder.glob("*.json")):
            try:
                record = PlanRecord.from_json(path.read_text("utf-8"))
            except (EngineError, OSError, UnicodeDecodeError) as error:
                _log.warning("%s is left out: %s", path, error)
                continue
            if record.model_digest == bundle.manifest.files[MODEL]:
                found.append(Plan(path.with_suffix(".plan"), record))
    return found


def find_plan(bundle: Bundle, here: Here, precision: Literal["auto", "float32"] = "auto") -> tuple[Plan, bytes] | None:
    """The plan to run here, and its content: INT8 before others, the GPU before a DLA, a single frame before a batch.

    A plan that takes no single frame is left out.

    Args:
        bundle: whose.
        here: this process.
        precision: as `Target.precision`: "float32" takes no plan that computes in FP16.
    """

    def rank(plan: Plan) -> tuple[bool, bool, tuple[int, int, int], str]:
        build = plan.record.build
        return (not build.int8, build.dla_core is not None, build.batch, plan.path.name)

    for plan in sorted((plan for plan in list_plans(bundle) if here.fits(plan.record)), key=rank):
        if plan.record.build.batch[0] > 1 or (precision == "float32" and computes_in_float16(plan.record)):
            continue
        try:
            return plan, plan.read()
        except EngineError as error:
            _log.warning("%s", error)
    return None


def computes_in_float16(record: PlanRecord) -> bool:
    """Whether a plan may compute layers outside INT8 in FP16."""
    return record.build.fp16 or record.form.startswith("fp16")


def read_plan(path: Path) -> Plan:
    """A plan that the user names.

    Raises:
        InputError: when there is no such file.
        EngineError: for one without its record, whose origin nobody knows.
    """
    if not path.is_file():
        raise InputError(f"there is no plan at {path}; build one with: edgeseg build BUNDLE -o {path}")
    try:
        return Plan(path, PlanRecord.from_json(path.with_suffix(".json").read_text("utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        raise EngineError(
            f"{path} has no readable record {path.with_suffix('.json').name} beside it, so nobody knows what it was "
            f"built for; build it with: edgeseg build BUNDLE -o {path}"
        ) from error


def write_plan(path: Path, plan: bytes, record: PlanRecord) -> Plan:
    """Write a plan and its record, each beside its place and renamed.

    Raises:
        OutputError: with what to do.
    """
    try:
        write_atomically(path, plan)
        write_atomically(path.with_suffix(".json"), record.to_json().encode())
        for file in (path, path.with_suffix(".json")):
            file.chmod(0o644)  # a bundle is for everyone who may read its folder
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}; choose another place with -o") from error
    return Plan(path, record)
