from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
from support.colours import Run

from edgeseg.apps.camera import elements
from edgeseg.apps.cli import doctor
from edgeseg.apps.cli.doctor import Library
from edgeseg.errors import MissingDependencyError


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Callable[[Library], None]:
    """Makes a library the only one that is examined."""
    return lambda entry: monkeypatch.setattr(doctor, "LIBRARIES", (entry,))


def test_the_base_installation_is_complete(edgeseg: Run) -> None:
    code, out, err = edgeseg("doctor", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["complete"] is True
    by_module = {entry["module"]: entry for entry in found["libraries"]}
    assert by_module["numpy"]["version"] == numpy.__version__
    assert by_module["cv2"]["cure"] is None
    assert found["cpu"]["cores"] >= 1


def test_text_names_what_is_there(edgeseg: Run) -> None:
    code, out, _ = edgeseg("doctor")
    assert code == 0
    assert "The base installation is complete." in out
    assert all(entry.module in out for entry in doctor.LIBRARIES if entry.machine is None)


def test_a_missing_base_library(edgeseg: Run, library: Callable[[Library], None]) -> None:
    library(Library("no_such_library", ("no-such",), "drawing", "pip install no-such", required=True))
    code, out, _ = edgeseg("doctor")
    assert code == 1
    assert "no_such_library: needed for drawing; run: pip install no-such" in out
    assert "The base installation is not complete." in out
    found = json.loads(edgeseg("doctor", "--json")[1])["libraries"][0]
    assert (found["state"], found["version"], found["cure"]) == ("missing", None, "pip install no-such")


def test_a_missing_extra_is_no_fault(edgeseg: Run, library: Callable[[Library], None]) -> None:
    library(Library("no_such_library", ("no-such",), "drawing", "pip install no-such", required=False))
    code, out, _ = edgeseg("doctor")
    assert code == 0
    assert "no_such_library: optional, for drawing; run: pip install no-such" in out


@pytest.mark.parametrize(
    "failure", ["raise OSError('libX.so.1: cannot open')", "raise SystemExit(3)", "import nothing_"]
)
def test_a_library_that_fails_on_import(
    failure: str, edgeseg: Run, library: Callable[[Library], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_library.py").write_text(f"print('noise')\n{failure}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "broken_library", raising=False)
    library(Library("broken_library", ("no-such",), "drawing", "pip install it", required=True))
    code, out, err = edgeseg("doctor", "--json")
    assert code == 1
    found = json.loads(out)["libraries"][0]
    assert found["state"] == "broken"
    assert found["detail"].startswith(("OSError: libX.so.1", "SystemExit: 3", "ModuleNotFoundError: No module named"))
    assert found["cure"] == "pip install it"
    assert "noise" in err


def test_a_jetson_has_its_own_commands(
    edgeseg: Run, library: Callable[[Library], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    library(Library("no_such_library", ("x",), "engines", "pip install x", False, "sudo apt-get install python3-x"))
    release = "# R36 (release), REVISION: 4.3, GCID: 38968081\nmore\n"
    monkeypatch.setattr(doctor, "_read", lambda path: release if path == "/etc/nv_tegra_release" else None)
    found = json.loads(edgeseg("doctor", "--json")[1])
    assert found["jetson"] == "R36 (release), REVISION: 4.3, GCID: 38968081"
    assert found["libraries"][0]["cure"] == "sudo apt-get install python3-x"


def test_a_library_of_another_machine_is_not_asked_for(edgeseg: Run, library: Callable[[Library], None]) -> None:
    library(Library("no_such_library", ("x",), "checks", "pip install x", False, machine="vax"))
    assert json.loads(edgeseg("doctor", "--json")[1])["libraries"] == []


def test_cpu_flags_of_both_kinds(edgeseg: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    text = {"/proc/cpuinfo": "processor : 0\nFeatures : fp asimd asimddp i8mm\n\nprocessor : 1\nFeatures : fp\n"}
    monkeypatch.setattr(doctor, "_read", text.get)
    assert json.loads(edgeseg("doctor", "--json")[1])["cpu"]["flags"] == ["asimd", "asimddp", "i8mm"]


@pytest.mark.parametrize("exact", [True, False])
def test_int8_that_overflows_is_named(edgeseg: Run, monkeypatch: pytest.MonkeyPatch, exact: bool) -> None:
    monkeypatch.setattr("edgeseg.backends.openvino.adds_exactly", lambda: exact)
    assert json.loads(edgeseg("doctor", "--json")[1])["cpu"]["int8_exact"] is exact
    shown = "INT8    computed in float32: sums overflow without VNNI" in edgeseg("doctor")[1]
    assert shown is not exact


def test_missing_elements_of_gstreamer_name_their_package(edgeseg: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gi", reason="GStreamer cannot be used from this Python")
    found = doctor.examine()["gstreamer"]
    assert found["version"].split(".")[0] == "1"
    monkeypatch.setitem(elements.PACKAGES, "gstreamer1.0-plugins-new", ("a_new_one", "appsink", "another"))
    assert doctor.examine()["gstreamer"]["missing"]["gstreamer1.0-plugins-new"] == ["a_new_one", "another"]
    code, out, _ = edgeseg("doctor")
    line = "GStreamer: the camera may need a_new_one, another; run: sudo apt-get install gstreamer1.0-plugins-new"
    assert (code, line in out) == (0, True)


def test_without_gstreamer(edgeseg: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise MissingDependencyError("gi", "use GStreamer", "install it")

    monkeypatch.setattr(doctor, "gstreamer", missing)
    code, out, _ = edgeseg("doctor", "--json")
    assert (code, json.loads(out)["gstreamer"]) == (0, None)
