"""Importing libraries late, with a cure and without telemetry."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgeseg.errors import MissingDependencyError
from edgeseg.libraries import require


class TestRequire:
    def test_gives_the_module(self) -> None:
        assert require("json", "read") is sys.modules["json"]

    def test_names_the_cure(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "cv2", None)
        with pytest.raises(
            MissingDependencyError,
            match="cv2 is needed to resize frames, but it is not installed; run: pip install opencv-python-headless",
        ):
            require("cv2", "resize frames")

    def test_a_broken_installation_is_not_called_missing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "broken_library.py").write_text("import a_part_that_is_gone")
        monkeypatch.syspath_prepend(tmp_path)
        with pytest.raises(ModuleNotFoundError, match="a_part_that_is_gone"):
            require("broken_library", "test")

    @pytest.mark.parametrize("library", ["openvino", "onnxruntime"])
    def test_engines_write_nothing_to_the_home(self, tmp_path: Path, library: str) -> None:
        code = f"from edgeseg.libraries import require; require('{library}', 'test')"
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LD_LIBRARY_PATH")}
        environment = {**kept, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
        assert (done.stdout, done.stderr) == (b"", b"")
        assert list(tmp_path.rglob("*")) == []


class TestImport:
    def test_import_edgeseg_loads_numpy_and_the_standard_library_only(self) -> None:
        code = "import sys, edgeseg; print(*sorted({m.partition('.')[0] for m in sys.modules}))"
        done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, check=True, text=True)
        loaded = set(done.stdout.split()) - set(sys.stdlib_module_names) - {"edgeseg", "numpy", "__main__"}
        # What an editable installation puts into every process of this interpreter.
        loaded = {name for name in loaded if not name.startswith(("__editable__", "_distutils_hack", "sitecustomize"))}
        assert loaded == set()
