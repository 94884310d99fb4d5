"""Which TensorRT is there, what it can do, and what to do where it is not."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
from support.tensorrt_fakes import fake_library

from edgeseg.backends.tensorrt.versions.library import library_of, load_library
from edgeseg.errors import EngineError, MissingDependencyError, UsageError

TABLE = {
    # weak, strong, explicit batch, calibrator, levels, progress, nodes, ahead, timings, wide, DLA, DLA reads Q/DQ
    "tensorrt-8.5.3.1": (1, 0, 1, 1, 0, 0, 0, 0, 1, 0, 1, 0),
    "tensorrt-8.6.0": (1, 0, 1, 1, 1, 0, 0, 0, 1, 0, 1, 0),
    "tensorrt-10.3.0": (1, 0, 1, 1, 1, 1, 1, 0, 1, 1, 1, 0),
    "tensorrt-10.7.0": (1, 0, 1, 1, 1, 1, 1, 0, 1, 1, 1, 0),
    "tensorrt-10.16.1.11": (1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 0, 0),
    "tensorrt-11.4.0.106": (0, 1, 0, 0, 1, 1, 1, 0, 1, 1, 0, 0),
    "tensorrt_rtx-1.7.1.116": (0, 1, 0, 0, 1, 1, 1, 1, 0, 1, 0, 0),
}


@pytest.mark.parametrize("dump", TABLE)
def test_knows_what_a_version_can_do(dump: str) -> None:
    library = fake_library(dump)
    found = (
        library.weakly_typed, library.strong_typing, library.wants_explicit_batch, library.calibrates,
        library.has_optimization_levels, library.reports_progress, library.names_refused_nodes, library.builds_ahead,
        library.keeps_timings, library.has_wide_memory_size, library.supports_dla, library.dla_reads_qdq,
    )  # fmt: skip
    assert found == tuple(map(bool, TABLE[dump]))


def test_dla_is_back_in_11_4_1() -> None:
    module = fake_library("tensorrt-11.4.0.106").module
    module.__version__ = "11.4.1.6"
    library = library_of(module)
    assert library.supports_dla
    assert library.dla_reads_qdq


class TestName:
    def test_reads(self) -> None:
        assert str(fake_library("tensorrt-10.3.0")) == "TensorRT 10.3.0"
        assert str(fake_library("tensorrt_rtx-1.7.1.116")) == "TensorRT-RTX 1.7.1.116"
        assert fake_library("tensorrt-8.5.3.1").version == (8, 5, 3, 1)

    def test_has(self) -> None:
        library = fake_library("tensorrt-8.6.0")
        assert library.has("BuilderFlag.FP16")
        assert not library.has("BuilderFlag.BF16")
        assert not library.has("IProgressMonitor.step_complete")


class TestLoad:
    def test_gives_the_module(self, monkeypatch: pytest.MonkeyPatch) -> None:
        module = fake_library("tensorrt-10.3.0").module
        monkeypatch.setitem(sys.modules, "tensorrt", module)
        assert load_library("tensorrt").module is module

    def test_unknown_name(self) -> None:
        with pytest.raises(UsageError, match=r"unknown TensorRT library 'tensort'; did you mean tensorrt?"):
            load_library("tensort")

    def test_rtx_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
        with pytest.raises(
            MissingDependencyError, match=r"tensorrt_rtx is needed .* run: pip install 'edgeseg\[rtx\]'"
        ):
            load_library("tensorrt_rtx")

    def test_nothing_is_here(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setitem(sys.modules, "tensorrt", None)
        with pytest.raises(MissingDependencyError, match=r"run: pip install tensorrt; to build without a GPU"):
            load_library("tensorrt", root=tmp_path)

    def test_jetpack_in_a_plain_environment(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setitem(sys.modules, "tensorrt", None)
        (tmp_path / "usr/lib/python3.10/dist-packages/tensorrt").mkdir(parents=True)
        with pytest.raises(MissingDependencyError) as caught:
            load_library("tensorrt", root=tmp_path)
        assert "python3.10 -m venv --system-site-packages VENV" in str(caught.value)
        assert "stands in /usr/lib/python3.10/dist-packages, which this Python does not see" in str(caught.value)

    def test_jetpack_without_bindings(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setitem(sys.modules, "tensorrt", None)
        (tmp_path / "etc").mkdir()
        (tmp_path / "etc/nv_tegra_release").write_text("# R36 (release), REVISION: 4.3")
        with pytest.raises(
            MissingDependencyError, match=r"sudo apt install python3-libnvinfer .*--system-site-packages"
        ):
            load_library("tensorrt", root=tmp_path)

    def test_bindings_without_libraries(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "tensorrt").mkdir()
        (tmp_path / "tensorrt" / "__init__.py").write_text("raise ImportError('libnvinfer.so.10: cannot open')")
        monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
        monkeypatch.syspath_prepend(tmp_path)
        with pytest.raises(
            EngineError, match=r"TensorRT is installed but does not load: libnvinfer.so.10: cannot open"
        ):
            load_library("tensorrt")

    def test_a_broken_dependency_is_not_called_missing(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "tensorrt.py").write_text("import a_part_that_is_gone")
        monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
        monkeypatch.syspath_prepend(tmp_path)
        with pytest.raises(ModuleNotFoundError, match="a_part_that_is_gone"):
            load_library("tensorrt")


class TestOther:
    def test_a_folder_called_tensorrt(self) -> None:
        module = ModuleType("tensorrt")
        module.__path__ = ["/home/user/tensorrt"]
        with pytest.raises(EngineError, match="the module tensorrt at /home/user/tensorrt is not NVIDIA's"):
            library_of(module)

    def test_too_old(self) -> None:
        module = fake_library("tensorrt-8.5.3.1").module
        module.__version__ = "8.2.1.9"
        with pytest.raises(EngineError, match=r"TensorRT 8.2.1.9 is too old: edgeseg needs 8.5 or newer"):
            library_of(module)
