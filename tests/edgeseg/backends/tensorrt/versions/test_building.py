"""The builder's side of every version, on fakes that have exactly its names."""

from __future__ import annotations

from typing import Any

import pytest
from support.bundles import quantized_graph
from support.tensorrt_api import DUMPS
from support.tensorrt_fakes import Behaviour, fake_library

from edgeseg.backends.tensorrt.logger import BuildLog
from edgeseg.backends.tensorrt.versions import building, parsing
from edgeseg.backends.tensorrt.versions.library import Library
from edgeseg.errors import EngineError, UsageError

WEAK = [dump for dump in DUMPS if fake_library(dump).weakly_typed]
STRONG = [dump for dump in DUMPS if not fake_library(dump).weakly_typed]


def logger_of(library: Library) -> Any:
    return parsing.make_logger(library, BuildLog().receive)


def builder_of(library: Library) -> Any:
    return parsing.create_builder(library, logger_of(library))


def network_of(library: Library, *, strongly_typed: bool | None = None) -> Any:
    typed = not library.weakly_typed if strongly_typed is None else strongly_typed
    return parsing.create_network(library, builder_of(library), strongly_typed=typed)


def config_of(library: Library) -> Any:
    return building.create_config(library, builder_of(library))


def flags(config: Any) -> list[str]:
    return [flag.name for flag in config._flags if flag.name != "TF32"]  # the one that is set from the start


class TestConfig:
    @pytest.mark.parametrize("dump", DUMPS)
    def test_details_and_workspace(self, dump: str) -> None:
        library = fake_library(dump)
        config = config_of(library)
        building.limit_workspace(library, config, 256)
        assert config.profiling_verbosity.name == "DETAILED"
        assert config._pools == {"WORKSPACE": 256 * 2**20}

    @pytest.mark.parametrize("dump", DUMPS)
    def test_precisions(self, dump: str) -> None:
        library = fake_library(dump)
        config = config_of(library)
        building.allow_precisions(library, config, fp16=True, int8=True)
        assert flags(config) == (["FP16", "INT8"] if dump in WEAK else [])

    @pytest.mark.parametrize("dump", WEAK)
    def test_each_precision_alone(self, dump: str) -> None:
        library = fake_library(dump)
        for wanted in ("FP16", "INT8"):
            config = config_of(library)
            building.allow_precisions(library, config, fp16=wanted == "FP16", int8=wanted == "INT8")
            assert flags(config) == [wanted]

    @pytest.mark.parametrize("dump", DUMPS)
    def test_no_tf32(self, dump: str) -> None:
        library = fake_library(dump)
        config = config_of(library)
        assert [flag.name for flag in config._flags] == ["TF32"]
        building.forbid_tf32(library, config)
        assert config._flags == []

    @pytest.mark.parametrize("dump", DUMPS)
    def test_optimization_level(self, dump: str) -> None:
        library = fake_library(dump)
        config = config_of(library)
        if dump == "tensorrt-8.5.3.1":
            with pytest.raises(UsageError, match=r"TensorRT 8.5.3.1 has no optimization levels \(8.6 brought them\)"):
                building.set_optimization_level(library, config, 2)
        else:
            building.set_optimization_level(library, config, 2)
            assert config.builder_optimization_level == 2

    @pytest.mark.parametrize("dump", WEAK)
    def test_precision_by_layer(self, dump: str) -> None:
        library = fake_library(dump)
        network, config = network_of(library), config_of(library)
        parsing.parse_graph(library, network, logger_of(library), quantized_graph())
        building.constrain_precisions(library, config, network, {"conv_8": "float16"})
        chosen = {layer.name: layer.precision.name for layer in network._layers if "precision" in vars(layer)}
        assert chosen == {"conv_8": "HALF"}
        assert flags(config) == ["PREFER_PRECISION_CONSTRAINTS"]
        with pytest.raises(EngineError, match="the network has no layers called conv_9; their precision cannot be set"):
            building.constrain_precisions(library, config, network, {"conv_9": "int8"})

    @pytest.mark.parametrize("dump", STRONG)
    def test_no_precision_by_layer(self, dump: str) -> None:
        library = fake_library(dump)
        with pytest.raises(UsageError, match="takes no precision by layer"):
            building.constrain_precisions(library, config_of(library), network_of(library), {})

    @pytest.mark.parametrize("dump", DUMPS)
    def test_calibration_cache(self, dump: str) -> None:
        library = fake_library(dump)
        config = config_of(library)
        if dump in WEAK:
            assert building.use_calibration_cache(library, config, b"TRT-8503-") is config.int8_calibrator
            assert config._ranges == b"TRT-8503-"
        else:
            with pytest.raises(UsageError, match=r"reads no calibration cache \(10 was the last that does\)"):
                building.use_calibration_cache(library, config, b"")


class TestDLA:
    @pytest.mark.parametrize("dump", [dump for dump in DUMPS if fake_library(dump).supports_dla])
    def test_is_used(self, dump: str) -> None:
        library = fake_library(dump)
        config = config_of(library)
        building.use_dla(library, builder_of(library), config, 1)
        assert config._on_dla
        assert config.DLA_core == 1

    @pytest.mark.parametrize("dump", [dump for dump in DUMPS if not fake_library(dump).supports_dla])
    def test_is_not_there(self, dump: str) -> None:
        library = fake_library(dump)
        with pytest.raises(UsageError, match=f"{library} has no DLA: up to 10.7 it has"):
            building.use_dla(library, builder_of(library), config_of(library), 0)

    @pytest.mark.parametrize(("cores", "text"), [(0, "this board has no DLA"), (1, "this board has 1 DLA cores")])
    def test_a_board_without_that_core(self, cores: int, text: str) -> None:
        library = fake_library("tensorrt-10.3.0", Behaviour(dla_cores=cores))
        with pytest.raises(UsageError, match=f"DLA core 1 was asked for, but {text}"):
            building.use_dla(library, builder_of(library), config_of(library), 1)


class TestCapabilities:
    def test_are_chosen(self) -> None:
        library = fake_library("tensorrt_rtx-1.7.1.116")
        config = config_of(library)
        building.build_for_capabilities(library, config, ["SM86", "SM120"])
        assert config.num_compute_capabilities == 2
        assert config._capabilities == {0: "SM86", 1: "SM120"}

    def test_unknown(self) -> None:
        library = fake_library("tensorrt_rtx-1.7.1.116")
        with pytest.raises(UsageError, match=r"does not build for CURRENT, SM87; it knows .*SM86"):
            building.build_for_capabilities(library, config_of(library), ["SM87", "SM86", "CURRENT"])

    @pytest.mark.parametrize("dump", [dump for dump in DUMPS if dump.startswith("tensorrt-")])
    def test_are_of_tensorrt_rtx(self, dump: str) -> None:
        library = fake_library(dump)
        with pytest.raises(UsageError, match="builds for the GPU at hand"):
            building.build_for_capabilities(library, config_of(library), ["SM86"])


@pytest.mark.parametrize("dump", DUMPS)
def test_profile(dump: str) -> None:
    library = fake_library(dump)
    config = config_of(library)
    shapes = {"frame": ((1, 8, 8, 3), (2, 8, 8, 3), (4, 8, 8, 3))}
    building.add_profile(library, builder_of(library), config, shapes)
    assert config._profiles == [shapes]
    with pytest.raises(EngineError, match=r"refuses the shapes .* expected least <= best <= largest"):
        building.add_profile(library, builder_of(library), config, {"frame": ((2,), (1,), (4,))})


@pytest.mark.parametrize("dump", [dump for dump in DUMPS if fake_library(dump).keeps_timings])
class TestTimingCache:
    def test_is_kept(self, dump: str) -> None:
        library = fake_library(dump)
        config = config_of(library)
        assert building.use_timing_cache(library, config, b"old;")
        assert building.read_timing_cache(config) == b"old;measured;"

    def test_of_another_device(self, dump: str) -> None:
        library = fake_library(dump, Behaviour(takes_timings=False))
        config = config_of(library)
        assert not building.use_timing_cache(library, config, b"old;")
        assert building.read_timing_cache(config) == b"measured;"


class Listener:
    """Notes what it is told, and goes on or not."""

    def __init__(self, goes_on: bool) -> None:
        self.told: list[tuple[object, ...]] = []
        self.goes_on = goes_on

    def start(self, phase: str, parent: str | None, steps: int) -> None:
        self.told.append(("start", phase, parent, steps))

    def step(self, phase: str, step: int) -> bool:
        self.told.append(("step", phase, step))
        return self.goes_on

    def finish(self, phase: str) -> None:
        self.told.append(("finish", phase))


@pytest.mark.parametrize("dump", DUMPS)
@pytest.mark.parametrize("goes_on", [True, False])
def test_progress(dump: str, goes_on: bool) -> None:
    library = fake_library(dump)
    logger = logger_of(library)
    builder, listener = parsing.create_builder(library, logger), Listener(goes_on)
    network = parsing.create_network(library, builder, strongly_typed=not library.weakly_typed)
    parsing.parse_graph(library, network, logger, quantized_graph())
    config = building.create_config(library, builder)
    if library.builds_ahead:
        building.build_for_capabilities(library, config, ["SM86"])
    monitor = building.listen_to_progress(library, config, listener)
    plan = building.build_plan(builder, network, config)
    if library.reports_progress:
        assert monitor is config.progress_monitor
        assert listener.told[:2] == [
            ("start", "Building Engine", None, 2),
            ("start", "Tactic selection", "Building Engine", 4),
        ]
        assert (plan is not None) is goes_on
    else:
        assert monitor is None
        assert listener.told == []
        assert plan is not None
