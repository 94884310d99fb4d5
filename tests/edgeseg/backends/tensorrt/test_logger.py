"""TensorRT's log: what reaches the user, what is kept, what is noise."""

from __future__ import annotations

import logging

import pytest
from support.tensorrt_api import DUMPS, Severity
from support.tensorrt_fakes import fake_library

from edgeseg.backends.tensorrt.logger import BuildLog, is_noise
from edgeseg.backends.tensorrt.versions.parsing import make_logger

NOISE = "[checkMacros.cpp::catchCudaError::250] ... (cudaError 35: CUDA driver version is insufficient)"


@pytest.fixture
def told() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def log(told: list[tuple[str, str]]) -> BuildLog:
    return BuildLog(lambda level, text: told.append((level, text)))


class TestBuildLog:
    def test_forwards_with_loggings_levels(self, log: BuildLog, told: list[tuple[str, str]]) -> None:
        for severity in ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"):
            log.receive(severity, f"a {severity}\n of two lines")
        assert [level for level, _ in told] == ["error", "error", "warning", "info"]
        assert told[2] == ("warning", "a WARNING of two lines")
        assert log.errors == ("a INTERNAL_ERROR of two lines", "a ERROR of two lines")

    def test_says_each_thing_once(self, log: BuildLog, told: list[tuple[str, str]]) -> None:
        log.receive("ERROR", "same")
        log.receive("ERROR", "same")
        assert told == [("error", "same")]
        assert log.errors == ("same",)

    def test_leaves_noise_out(self, log: BuildLog, told: list[tuple[str, str]]) -> None:
        log.receive("ERROR", NOISE)
        log.receive("ERROR", f"a reason\n{NOISE}")
        assert told == [("error", "a reason")]
        assert is_noise(NOISE)
        assert not is_noise("a reason")

    def test_keeps_it_where_a_gpu_is_needed(self) -> None:
        log = BuildLog(lambda level, text: None, keep_noise=True)
        log.receive("ERROR", NOISE)
        assert log.errors == (NOISE,)

    def test_holds_the_list_of_layers(self, log: BuildLog, told: list[tuple[str, str]]) -> None:
        assert log.layers is None
        log.receive("VERBOSE", "Layers:\nName: a, LayerType: kgen, ")
        assert log.layers == "Layers:\nName: a, LayerType: kgen, "
        assert told == []

    def test_goes_to_logging_by_default(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        log = BuildLog()
        for severity in ("ERROR", "WARNING", "INFO"):
            log.receive(severity, severity)
        assert [record.levelname for record in caplog.records] == ["INFO", "WARNING", "DEBUG"]


@pytest.mark.parametrize("dump", DUMPS)
def test_bridges_every_version(dump: str, log: BuildLog, told: list[tuple[str, str]]) -> None:
    make_logger(fake_library(dump), log.receive).log(Severity.WARNING, "careful")
    assert told == [("warning", "careful")]
