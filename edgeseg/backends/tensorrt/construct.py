"""A plan from a graph, in this process: `build` does it in a child, since a parser or builder can crash."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from edgeseg.backends.tensorrt.board import Device
from edgeseg.backends.tensorrt.layers import EngineLayer, layers_from_inspector, layers_from_log
from edgeseg.backends.tensorrt.logger import BuildLog, is_noise
from edgeseg.backends.tensorrt.options import TARGETS, BuildOptions, BuildProgress
from edgeseg.backends.tensorrt.progress import ProgressTree
from edgeseg.backends.tensorrt.versions.building import (
    add_profile,
    allow_precisions,
    build_for_capabilities,
    build_plan,
    constrain_precisions,
    create_config,
    forbid_tf32,
    limit_workspace,
    listen_to_progress,
    read_timing_cache,
    set_optimization_level,
    use_calibration_cache,
    use_dla,
    use_timing_cache,
)
from edgeseg.backends.tensorrt.versions.library import Library
from edgeseg.backends.tensorrt.versions.parsing import (
    ParserMessage,
    Shape,
    create_builder,
    create_network,
    input_shapes,
    make_logger,
    parse_graph,
)
from edgeseg.backends.tensorrt.versions.running import create_runtime, describe_layers, load_plan
from edgeseg.errors import EngineError, UsageError

__all__ = ["Construction", "construct"]

_log = logging.getLogger(__name__)

_WITHOUT_INT8 = frozenset({(5, 3), (6, 2)})
"""Compute capabilities of Nano, TX1 and TX2, whose TensorRT has no INT8."""

_CAUSES: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("out of memory", "outofmemory", "insufficient memory", "cudaerrormemoryallocation", "std::bad_alloc"),
        "the device has too little memory free: close other programs, lower --workspace and --optimization-level",
    ),
    (("workspace",), "no kernel fits into the workspace: raise --workspace"),
    (
        ("could not find any implementation", "no implementation"),
        "this version has no kernel for that layer in that precision: convert it to stay in float (edgeseg convert "
        "--float), or use a newer TensorRT",
    ),
)
"""What to do by what the log says, the first that fits."""


@dataclass(frozen=True)
class Construction:
    """A plan and what was seen while it was built.

    Attributes:
        plan: TensorRT's serialised engine, as trtexec writes it.
        layers: of the engine.
        strongly_typed: whether the graph alone chose the precisions.
        built_for: compute capabilities of a plan of TensorRT-RTX.
        timings: timing cache after the build; None where none was asked for.
    """

    plan: bytes
    layers: tuple[EngineLayer, ...]
    strongly_typed: bool
    built_for: tuple[str, ...]
    timings: bytes | None


def construct(
    library: Library,
    graph: bytes,
    options: BuildOptions,
    *,
    workspace_mb: int | None = None,
    timings: bytes | None = None,
    device: Device | None = None,
    log: BuildLog | None = None,
    on_progress: Callable[[BuildProgress], None] | None = None,
) -> Construction:
    """Parse and build.

    Args:
        library: that builds.
        graph: a serialised ONNX model in the form that the library takes.
        options: how.
        workspace_mb: limit; None for TensorRT's default.
        timings: timing cache to start from, empty for a new one; None for none.
        device: the GPU that will be built on, where it is known.
        log: where TensorRT's messages go.
        on_progress: is told of the build where the version can, otherwise of its two steps.

    Raises:
        UsageError: for options that the version or the board does not have.
        EngineError: when the graph is refused or does not build, with the node or the cause and what to do.
    """
    report = on_progress or _ignore
    log = log or BuildLog(keep_noise=library.name == "tensorrt")
    _check_device(options, device)
    logger = make_logger(library, log.receive)
    try:
        builder = create_builder(library, logger)
    except EngineError as error:
        raise EngineError(f"{error}{_said(log)}") from error
    strongly_typed = not library.weakly_typed if options.strongly_typed is None else options.strongly_typed
    network = create_network(library, builder, strongly_typed=strongly_typed)
    report(BuildProgress("reading the graph", None if not library.reports_progress else 0.0))
    refused = parse_graph(library, network, logger, graph)
    if refused:
        raise EngineError(_refusal(library, refused, log))
    config = create_config(library, builder)
    shapes = _profiles(input_shapes(network), options.batch)
    if shapes:
        add_profile(library, builder, config, shapes)
    kept = _configure(library, builder, network, config, options, workspace_mb, strongly_typed)
    built_for = _choose_capabilities(library, config, options)
    if timings is not None and not use_timing_cache(library, config, timings):
        _log.warning("the timing cache is of another device or version of TensorRT, and a new one is begun")
    kept.append(listen_to_progress(library, config, ProgressTree(report)))
    if not library.reports_progress:
        report(BuildProgress("building the engine", None))
    plan = build_plan(builder, network, config)
    if plan is None:
        raise EngineError(_failure(library, log))
    best = {name: three[1] for name, three in shapes.items()}
    layers = _layers(library, logger, log, plan, best)
    return Construction(plan, layers, strongly_typed, built_for, None if timings is None else read_timing_cache(config))


def _ignore(progress: BuildProgress) -> None:
    """Nobody asked."""


def _check_device(options: BuildOptions, device: Device | None) -> None:
    """A full TensorRT builds for the GPU that it stands on, whatever the user calls it."""
    target = TARGETS[options.target]
    if device is None or target.ahead:
        return
    if target.compute_capabilities and device.compute_capability not in target.compute_capabilities:
        wanted = " or ".join(".".join(map(str, capability)) for capability in target.compute_capabilities)
        raise EngineError(
            f"target {options.target} has compute capability {wanted}, but this machine's {device.name} has "
            f"{device.capability_text}, and TensorRT builds only for the GPU at hand; build on the target itself, or "
            "for this machine with --target auto"
        )
    if options.int8 and device.compute_capability in _WITHOUT_INT8:
        raise EngineError(f"{device.name} (compute capability {device.capability_text}) has no INT8; use --fp16-only")


def _configure(
    library: Library,
    builder: Any,
    network: Any,
    config: Any,
    options: BuildOptions,
    workspace_mb: int | None,
    strongly_typed: bool,
) -> list[Any]:
    """Apply the options; returns what must live as long as the build."""
    kept: list[Any] = []
    if workspace_mb is not None:
        limit_workspace(library, config, workspace_mb)
    if options.optimization_level is not None:
        set_optimization_level(library, config, options.optimization_level)
    if not strongly_typed:
        allow_precisions(library, config, fp16=options.fp16, int8=options.int8)
    if not options.fp16:
        forbid_tf32(library, config)
    if options.layer_precisions:
        constrain_precisions(library, config, network, dict(options.layer_precisions))
    if options.dla_core is not None:
        use_dla(library, builder, config, options.dla_core)
        if options.int8 and options.calibration_cache is None and not library.dla_reads_qdq:
            raise UsageError(
                f"the DLA of {library} takes INT8 ranges only from a calibration cache; give it the graph without Q/DQ "
                "and its cache, or build with --fp16-only"
            )
    if options.calibration_cache is not None:
        kept.append(use_calibration_cache(library, config, options.calibration_cache))
    return kept


def _choose_capabilities(library: Library, config: Any, options: BuildOptions) -> tuple[str, ...]:
    if not library.builds_ahead:
        return ()
    # "auto" with TensorRT-RTX is every RTX GPU that has INT8: the library's own default list may hold SM75.
    chosen = TARGETS[options.target].ahead or TARGETS["rtx"].ahead
    build_for_capabilities(library, config, chosen)
    return chosen


def _profiles(inputs: dict[str, Shape], batch: tuple[int, int, int]) -> dict[str, tuple[Shape, Shape, Shape]]:
    """Least, best and largest shape of each dynamic input; empty for a network without."""
    found = {}
    for name, shape in inputs.items():
        if -1 in shape[1:]:
            raise EngineError(
                f"input {name} has shape {shape}: only the batch, its first dimension, may be dynamic; fix the frame's "
                "height and width in the graph"
            )
        if shape[:1] == (-1,):
            least, best, largest = ((frames, *shape[1:]) for frames in batch)
            found[name] = (least, best, largest)
        elif shape and set(batch) != {shape[0]}:
            raise UsageError(
                f"the graph takes {shape[0]} frames at once, but --batch {batch[0]}-{batch[2]} was asked for; give it "
                "a graph whose batch is dynamic"
            )
    return found


def _refusal(library: Library, messages: Sequence[ParserMessage], log: BuildLog) -> str:
    """One line for what the parser refused first, and how much more there is."""
    first = messages[0]
    text = " ".join(" ".join(line for line in first.text.splitlines() if not is_noise(line)).split())
    unsupported = text in ("", "false") and bool(first.operator)
    if unsupported:  # the name of the check that failed stands in the log only
        text = "this version does not support the operator with these inputs" + (
            f" ({log.errors[-1]})" if log.errors else ""
        )
    where = " ".join(part for part in (first.node, f"({first.operator})" if first.operator else "") if part)
    more = f" (and {len(messages) - 1} more)" if len(messages) > 1 else ""
    replace = unsupported or "Plugin not found" in text
    cure = "replace it in the network" if replace else "find the cause with: edgeseg lint"
    return f"{library} does not take the graph: {f'{where}: ' if where else ''}{text}{more}; {cure}"


def _failure(library: Library, log: BuildLog) -> str:
    said = " ".join(log.errors).lower()
    cure = next((cure for words, cure in _CAUSES if any(word in said for word in words)), "lint it with: edgeseg lint")
    return f"{library} does not build the graph{_said(log) or ': it gives no reason'}; {cure}"


def _said(log: BuildLog) -> str:
    return f": {log.errors[-1]}" if log.errors else ""


def _layers(
    library: Library, logger: Any, log: BuildLog, plan: bytes, shapes: dict[str, Shape]
) -> tuple[EngineLayer, ...]:
    """The engine's layers: from the log where it lists them, which needs no GPU, else from the engine itself."""
    if log.layers is not None:
        return layers_from_log(log.layers)
    runtime = create_runtime(library, logger)
    engine = load_plan(runtime, plan)
    if engine is None:
        raise EngineError(f"{library} does not load the plan that it just built{_said(log)}")
    return layers_from_inspector(describe_layers(library, engine, shapes))
