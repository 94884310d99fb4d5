"""What the networks cost at full width, and where that was measured: by benchmarks/network_costs.py; without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from edgeseg.errors import ModelError

__all__ = ["COSTS_FILE", "Builder", "MeasuredCost", "MeasuredCosts", "Setup", "Times", "read_costs", "write_costs"]

COSTS_FILE = "costs.json"


@dataclass(frozen=True)
class Setup:
    """What something was measured on.

    Attributes:
        machine: the processor and how much of it was used.
        versions: of the libraries, by name.
    """

    machine: str
    versions: Mapping[str, str]


@dataclass(frozen=True)
class Times:
    """Time of one frame in OpenVINO, network alone, both kinds in turns.

    Attributes:
        float_ms, int8_ms: medians, in ms.
        ratio: median over the rounds of FP32 time over INT8 time.
        rounds: how many there were.
        quiet: whether nothing else ran on the machine.
        date: of the measurement, year-month-day.
        setup: where they were taken.
    """

    float_ms: float
    int8_ms: float
    ratio: float
    rounds: int
    quiet: bool
    date: str
    setup: Setup | None = None


@dataclass(frozen=True)
class Builder:
    """What TensorRT-RTX's builder made of the bundle, without a GPU.

    Attributes:
        promised, proven: convolutions that Q/DQ asks to run in INT8, and those that do in the engine.
        seconds: of the build.
        peak_memory_mb: of the builder's process, in MB of 10^6 bytes.
        problem: why there is no engine; empty where there is.
    """

    promised: int
    proven: int
    seconds: float | None
    peak_memory_mb: float | None
    problem: str = ""

    @property
    def verdict(self) -> str:
        """In a few words: `63 of 63 INT8`, or `refused`."""
        return "refused" if self.problem else f"{self.proven} of {self.promised} INT8"


@dataclass(frozen=True)
class MeasuredCost:
    """One variant, exported with `deploy`, random weights and full width, and converted.

    Attributes:
        network, options: as of its card, without the classes.
        size: (height, width) of the input, for a network that does not take that of all others.
        parameters: of the deployed network.
        gmacs: 10^9 multiply-accumulates at `size` of the network as published, counted as its card counts.
        graph_gmacs: those of the converted graph, products of matrices included.
        int8_share: 0..1 of them that are in INT8.
        int8_layers, layers: convolutions and matrix products in INT8, and all.
        findings: what the linter says of the bundle's graph.
        agreement: of INT8 with float, percent of the pixels of a few frames.
        cpu_seconds: processor time by step: network, export, convert, lint, builder.
        peak_mb: largest resident memory of all steps, the builder's process included, in MB of 10^6 bytes.
        builder: TensorRT's; None where it was not asked.
        times: None where they were not measured.
        problem: why there is no bundle; empty where there is.
        setup: where all but the times was measured; None where nothing was but what is counted.
    """

    network: str
    options: Mapping[str, Any]
    size: tuple[int, int]
    parameters: int
    gmacs: float
    graph_gmacs: float | None = None
    int8_share: float | None = None
    int8_layers: int = 0
    layers: int = 0
    findings: int | None = None
    agreement: float | None = None
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    peak_mb: float | None = None
    builder: Builder | None = None
    times: Times | None = None
    problem: str = ""
    setup: Setup | None = None


@dataclass(frozen=True)
class MeasuredCosts:
    """What was measured.

    Attributes:
        classes: logits per pixel of every network.
        networks: by variant.
    """

    classes: int
    networks: tuple[MeasuredCost, ...]

    @property
    def setups(self) -> tuple[Setup, ...]:
        """Where anything was measured, each once."""
        found = [part.setup for cost in self.networks for part in (cost, cost.times) if part and part.setup]
        return tuple(setup for i, setup in enumerate(found) if setup not in found[:i])

    def of(self, network: str, options: Mapping[str, Any]) -> MeasuredCost | None:
        """What was measured of a variant; None where nothing was."""
        wanted = {key: value for key, value in options.items() if key != "classes"}
        return next((c for c in self.networks if c.network == network and dict(c.options) == wanted), None)


def read_costs(path: Path | None = None) -> MeasuredCosts:
    """What the package, or a file, holds.

    Raises:
        ModelError: for a file that is missing or holds something else.
    """
    file = resources.files("edgeseg.models").joinpath(COSTS_FILE) if path is None else path
    try:
        content = json.loads(file.read_text("utf-8"))
        setups = [Setup(**entry) for entry in content.pop("setups")]
        networks = tuple(_cost(entry, setups) for entry in content.pop("networks"))
        return MeasuredCosts(networks=networks, **content)
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise ModelError(
            f"expected measured costs in {file}, but they cannot be read: {error}; install edgeseg again, or measure "
            "with benchmarks/network_costs.py"
        ) from error


def _cost(entry: dict[str, Any], setups: Sequence[Setup]) -> MeasuredCost:
    """An entry, which names its setups by their place in the file's list."""
    builder, times = entry.pop("builder"), entry.pop("times")
    entry["size"] = tuple(entry["size"])
    for part in (entry, times):
        if part and part["setup"] is not None:
            part["setup"] = setups[part["setup"]]
    return MeasuredCost(
        **entry,
        builder=None if builder is None else Builder(**builder),
        times=None if times is None else Times(**times),
    )


def write_costs(costs: MeasuredCosts) -> str:
    """The text of a file that `read_costs` reads."""
    content = asdict(costs)
    setups = [asdict(setup) for setup in costs.setups]
    for entry in content["networks"]:
        for part in (entry, entry["times"]):
            if part and part["setup"] is not None:
                part["setup"] = setups.index(part["setup"])
    return json.dumps({"classes": costs.classes, "setups": setups, "networks": content["networks"]}, indent=1) + "\n"
