"""From a bundle to an engine of TensorRT's: the graph's form for the version, the build, and the plan in its place."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edgeseg.backends.tensorrt.board import Device, find_device, read_board
from edgeseg.backends.tensorrt.build import build
from edgeseg.backends.tensorrt.lock import locked
from edgeseg.backends.tensorrt.options import BuildOptions, BuildProgress
from edgeseg.backends.tensorrt.plans import Plan, PlanRecord, plan_folder, plan_key, write_plan
from edgeseg.backends.tensorrt.proof import promised_layers
from edgeseg.backends.tensorrt.versions.library import Library, load_library
from edgeseg.bundle import MODEL, Bundle
from edgeseg.calibration.progress import Progress, SilentProgress
from edgeseg.environment import read_environment
from edgeseg.errors import EngineError, OutputError, UsageError

if TYPE_CHECKING:
    import onnx

    from edgeseg.converters.targets import Derived

__all__ = ["EngineRequest", "EngineResult", "build_engine", "choose_form"]

_log = logging.getLogger(__name__)

_PRECISIONS = {"fp16": "float16", "fp32": "float32"}


@dataclass(frozen=True)
class EngineRequest:
    """What to build of a bundle.

    Attributes:
        options: for the builder; `int8`, calibration cache and layer precisions are found here.
        fp16_only: without INT8.
        frames: source of calibration frames, for a DLA that takes no Q/DQ.
        output: the plan's file; None for its place in the bundle.
        force: build again what is there.
    """

    options: BuildOptions
    fp16_only: bool = False
    frames: str | None = None
    output: Path | None = None
    force: bool = False


@dataclass(frozen=True)
class EngineResult:
    """A plan in its place, and whether it stood there before."""

    plan: Plan
    reused: bool


def choose_form(library: Library, *, int8: bool, precision: Literal["auto", "float32"], dla: bool) -> str:
    """The form in which a library takes the canonical graph; see docs/targets.md.

    Args:
        library: that builds.
        int8: with Q/DQ.
        precision: "float32" keeps layers outside INT8 in float32.
        dla: for a deep learning accelerator.
    """
    if not int8:
        return "fp16"
    if dla and library.supports_dla and not library.dla_reads_qdq:
        return "implicit_int8"
    if precision == "auto" and not library.weakly_typed:
        return "fp16_qdq"
    # A library without progress is TensorRT 8: the parser of 10 brought both.
    return "canonical" if library.reports_progress else "tensorrt8"


def build_engine(bundle: Bundle, request: EngineRequest, progress: Progress | None = None) -> EngineResult:
    """Build a bundle's engine, once: another process that builds the same is waited for.

    Raises:
        UsageError: for options that do not go together, or that the version or board does not have.
        MissingDependencyError: when the library is not installed.
        EngineError: when the graph does not build, or is not the INT8 network that the bundle promises.
        OutputError: when the plan's place is taken or cannot be written.
    """
    promised = () if request.fp16_only else promised_layers(bundle.manifest)
    options = replace(request.options, int8=bool(promised))
    precision: Literal["auto", "float32"] = "auto" if options.fp16 else "float32"
    if not promised and precision == "float32":
        raise UsageError("without INT8 the engine is FP16; leave --precision float32 away")
    library, device, board = load_library(options.chosen_library), find_device(), read_board()
    form = choose_form(library, int8=options.int8, precision=precision, dla=options.dla_core is not None)
    digest = bundle.manifest.files[MODEL]
    key = plan_key(digest, form, options, library.version_text, device, board.model)
    place = _place(bundle, request, key)
    with locked(place.with_name(f".{key}.lock"), lambda: _log.warning("another process builds this engine; waiting")):
        known = None if request.force or request.output is not None else _known(place)
        if known is not None:
            return EngineResult(known, reused=True)
        options = _with_timings(options, library, device)
        graph, options = _derive(bundle, form, options, request.frames, progress or SilentProgress())
        with _Watch(progress or SilentProgress()) as watch:
            made = build(graph, options, promised=promised, on_progress=watch.report)
        record = PlanRecord(bundle.manifest.network.name, digest, form, made.record)
        return EngineResult(write_plan(place, made.plan, record), reused=False)


def _place(bundle: Bundle, request: EngineRequest, key: str) -> Path:
    output = request.output
    if output is None:
        return plan_folder(bundle) / f"{key}.plan"
    if output.suffix == ".json":
        raise UsageError(f"{output} is where the engine's record would stand; give -o a name such as FILE.plan")
    taken = [str(path) for path in (output, output.with_suffix(".json")) if path.exists()]
    if taken and not request.force:
        raise OutputError(f"{' and '.join(taken)} exist; choose another place with -o or replace them with --force")
    if not output.parent.is_dir():
        raise OutputError(f"cannot write {output}: the folder {output.parent} does not exist; create it first")
    return output


def _known(place: Path) -> Plan | None:
    """The plan that stands there already, if it is whole."""
    try:
        plan = Plan(place, PlanRecord.from_json(place.with_suffix(".json").read_text("utf-8")))
        plan.read()
    except FileNotFoundError:
        return None
    except (EngineError, OSError, UnicodeDecodeError) as error:
        _log.warning("the engine is built again: %s", error)
        return None
    return plan


def _with_timings(options: BuildOptions, library: Library, device: Device | None) -> BuildOptions:
    """A timing cache for each device and version, which makes a second build several times as fast."""
    if options.timing_cache is not None or not library.keeps_timings or device is None:
        return options
    name = "-".join((library.version_text, device.name, device.capability_text)).replace("/", "_").replace(" ", "_")
    return replace(options, timing_cache=read_environment().cache_dir / "timings" / f"{name}.timing")


def _derive(
    bundle: Bundle, form: str, options: BuildOptions, frames: str | None, progress: Progress
) -> tuple[bytes, BuildOptions]:
    """The graph that is built, and the options with what belongs to it."""
    import onnx

    from edgeseg.converters.targets import derive
    from edgeseg.converters.targets.batch import with_dynamic_batch

    model = onnx.load_from_string(bundle.read_model())
    ranges = _ranges(bundle)
    if form == "implicit_int8":
        ranges = _all_ranges(bundle, model, ranges, frames, progress)
    derived = derive(form, model, ranges)
    graph = derived.model if options.batch == (1, 1, 1) else with_dynamic_batch(derived.model)
    return graph.SerializeToString(), _with_cache(options, derived)


def _with_cache(options: BuildOptions, derived: Derived) -> BuildOptions:
    precisions = tuple((name, _PRECISIONS[kind]) for name, kind in derived.layer_precisions.items())
    return replace(options, calibration_cache=derived.cache or None, layer_precisions=precisions)


def _ranges(bundle: Bundle) -> dict[str, float]:
    """What the bundle knows of its tensors' ranges."""
    from edgeseg.calibration.cache import read_cache

    path = bundle.path / "calibration.cache"
    return read_cache(path.read_bytes())[1] if path.is_file() else {}


def _all_ranges(
    bundle: Bundle, model: onnx.ModelProto, ranges: Mapping[str, float], source: str | None, progress: Progress
) -> dict[str, float]:
    """A range of every tensor, those that are missing measured on frames."""
    from edgeseg.calibration.frames import frames_from
    from edgeseg.converters.targets import measure_missing, missing_ranges
    from edgeseg.frame import fit_frame

    missing = missing_ranges(model, ranges)
    if missing and source is None:
        raise UsageError(
            f"this accelerator takes INT8 from a calibration cache, and {len(missing)} tensors have no range yet; give "
            "the frames that the bundle was calibrated on with --frames"
        )
    spec = bundle.manifest.input
    frames = frames_from(source) if missing and source is not None else ()
    feeds = ({spec.tensor: fit_frame(frame.image, spec.height, spec.width)} for frame in frames)
    with progress.step("measure ranges", None) as step:
        return measure_missing(model, ranges, feeds, progress=step)


class _Watch:
    """Brings the builder's share to a bar of a hundred units and, by tenths, to the log."""

    def __init__(self, progress: Progress) -> None:
        self._step = progress.step("build the engine (%)", 100)
        self._shown = self._told = 0

    def __enter__(self) -> _Watch:
        self._advance = self._step.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._step.__exit__(*error)  # type: ignore[arg-type]

    def report(self, progress: BuildProgress) -> None:
        """Take one report of the builder's."""
        if progress.share is None:
            _log.info("%s", progress.phase)
            return
        done = int(100 * progress.share)
        if done > self._shown:
            self._advance(done - self._shown)
            self._shown = done
        if done // 10 > self._told:
            self._told = done // 10
            _log.info("build the engine: %d %%", done)
