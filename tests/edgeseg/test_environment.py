"""EDGESEG_* variables."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeseg.environment import Environment, read_environment
from edgeseg.errors import UsageError


class TestReadEnvironment:
    def test_defaults(self) -> None:
        assert read_environment({}) == Environment(Path("~/.cache/edgeseg").expanduser(), "warning", None)

    def test_every_variable(self) -> None:
        variables = {"EDGESEG_CACHE_DIR": "/c", "EDGESEG_LOG_LEVEL": "DEBUG", "EDGESEG_BACKEND": "onnxruntime"}
        assert read_environment(variables) == Environment(Path("/c"), "debug", "onnxruntime")

    def test_empty_counts_as_unset(self) -> None:
        variables = {"EDGESEG_CACHE_DIR": "", "EDGESEG_LOG_LEVEL": "", "EDGESEG_BACKEND": ""}
        assert read_environment(variables) == read_environment({})

    def test_the_system_s_cache_folder_is_respected(self) -> None:
        assert read_environment({"XDG_CACHE_HOME": "/x"}).cache_dir == Path("/x/edgeseg")

    def test_home_is_expanded(self) -> None:
        assert read_environment({"EDGESEG_CACHE_DIR": "~/c"}).cache_dir == Path.home() / "c"

    def test_auto_is_no_backend(self) -> None:
        assert read_environment({"EDGESEG_BACKEND": "auto"}).backend is None

    def test_unknown_log_level(self) -> None:
        with pytest.raises(UsageError, match="EDGESEG_LOG_LEVEL: unknown log level 'debgu'; did you mean debug"):
            read_environment({"EDGESEG_LOG_LEVEL": "debgu"})

    def test_the_process_s_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("EDGESEG_BACKEND", "openvino")
        assert read_environment().backend == "openvino"

    def test_no_home_folder(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def homeless(path: Path) -> Path:
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.setattr(Path, "expanduser", homeless)
        with pytest.raises(UsageError, match=r"there is no home folder.*; set EDGESEG_CACHE_DIR to a folder"):
            read_environment({})
        assert read_environment({"XDG_CACHE_HOME": "/x"}).cache_dir == Path("/x/edgeseg")
