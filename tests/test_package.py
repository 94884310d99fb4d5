"""What a user gets from the wheel: its files, and that it works with the base dependencies or with less."""

from __future__ import annotations

import configparser
import importlib.metadata
import json
import sys
import zipfile
from pathlib import Path

import pytest
from support.bundles import toy_bundle
from support.environments import base_requirements, build_wheel, make_environment, run

REPOSITORY = Path(__file__).resolve().parent.parent
FOLDERS = {
    "edgeseg": "edgeseg",
    "calibration": "edgeseg/calibration",
    "converters": "edgeseg/converters",
    "apps": "edgeseg/apps",
}
"""Place in the wheel by source folder."""

IMPORT_ALL = """
import importlib, pkgutil, sys
import edgeseg
failed = []
training = ("edgeseg.models.", "edgeseg.training.", "edgeseg.converters.export")
names = [m.name for m in pkgutil.walk_packages(edgeseg.__path__, "edgeseg.") if m.name != "edgeseg.__main__"]
for name in names:
    try:
        importlib.import_module(name)
    except Exception as error:
        # What builds and trains networks is torch's own; all else does without it.
        if not (name.startswith(training) and isinstance(error, ModuleNotFoundError) and error.name == "torch"):
            failed.append(f"{name}: {type(error).__name__}: {error}")
print(len(names), *failed, sep="\\n")
sys.exit(bool(failed))
"""


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    major, minor = map(int, importlib.metadata.version("setuptools").split(".")[:2])
    if (major, minor) < (70, 1):
        pytest.skip("setuptools 70.1 or newer builds the wheel; run: pip install -e '.[dev]'")
    return build_wheel(REPOSITORY, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the wheel and its base dependencies alone."""
    return make_environment(tmp_path_factory.mktemp("bare") / "venv", wheel, base_requirements(wheel))


@pytest.fixture(scope="session")
def numpy_only(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the wheel and numpy alone."""
    return make_environment(tmp_path_factory.mktemp("numpy") / "venv", wheel, ["numpy"])


class TestWheel:
    def test_installs_nothing_but_the_name_edgeseg(self, wheel: Path) -> None:
        with zipfile.ZipFile(wheel) as archive:
            roots = {name.split("/")[0] for name in archive.namelist()}
        version = importlib.metadata.version("edgeseg")
        assert roots == {"edgeseg", f"edgeseg-{version}.dist-info"}

    def test_holds_every_source_file(self, wheel: Path) -> None:
        with zipfile.ZipFile(wheel) as archive:
            packed = {name for name in archive.namelist() if name.startswith("edgeseg/")}
        expected = {
            f"{place}/{path.relative_to(REPOSITORY / folder).as_posix()}"
            for folder, place in FOLDERS.items()
            for path in (REPOSITORY / folder).rglob("*")
            if path.suffix != ".pyc" and path.is_file()
        }
        assert packed == expected, "name a new package or data file in setup.cfg"

    def test_marks_its_types_and_has_the_label_sets_and_the_licence(self, wheel: Path) -> None:
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
            licence = next(name for name in names if name.endswith("/LICENSE"))
            assert "Apache License" in archive.read(licence).decode()
        assert "edgeseg/py.typed" in names
        assert {f"edgeseg/label_sets/{name}.json" for name in ("ade20k", "camvid", "cityscapes", "voc")} <= set(names)

    def test_brings_the_command(self, wheel: Path) -> None:
        with zipfile.ZipFile(wheel) as archive:
            name = next(name for name in archive.namelist() if name.endswith("entry_points.txt"))
            text = archive.read(name).decode()
        parser = configparser.ConfigParser()
        parser.read_string(text)
        assert dict(parser["console_scripts"]) == {"edgeseg": "edgeseg.__main__:main"}


class TestBareEnvironment:
    def test_imports_every_module(self, bare: Path) -> None:
        count = run([str(bare), "-I", "-c", IMPORT_ALL]).stdout.split()[0]
        assert int(count) >= 20

    def test_has_no_extra(self, bare: Path) -> None:
        names = ("torch", "tensorrt_rtx", "pytest", "mypy")
        code = f"import importlib.util as u; print([n for n in {names} if u.find_spec(n)])"
        assert run([str(bare), "-I", "-c", code]).stdout.strip() == "[]"

    def test_helps_with_every_command(self, bare: Path) -> None:
        code = "from edgeseg.apps.cli import COMMANDS; print(*COMMANDS)"
        commands = run([str(bare), "-I", "-c", code]).stdout.split()
        assert {"convert", "evaluate", "run", "bench", "lint", "info", "doctor"} <= set(commands)
        for command in commands:
            assert f"edgeseg {command}" in run([str(bare), "-I", "-m", "edgeseg", command, "--help"]).stdout
        assert all(command in run([str(bare), "-I", "-m", "edgeseg", "--help"]).stdout for command in commands)

    def test_finds_itself_complete(self, bare: Path) -> None:
        found = json.loads(run([str(bare), "-I", "-m", "edgeseg", "doctor", "--json"]).stdout)
        assert found["complete"] is True


class TestNumpyAlone:
    def test_import_loads_numpy_and_the_standard_library_only(self, numpy_only: Path, bare: Path) -> None:
        code = (
            "import sys; before = set(sys.modules); import edgeseg;"
            "print(*sorted({n.split('.')[0] for n in set(sys.modules) - before} - set(sys.stdlib_module_names)))"
        )
        for python in (numpy_only, bare):
            # NumPy's compiled parts register a few modules of their own under names without a package.
            loaded = {name for name in run([str(python), "-I", "-c", code]).stdout.split() if not name.startswith("_")}
            assert loaded == {"edgeseg", "numpy"}

    def test_doctor_says_what_is_missing(self, numpy_only: Path) -> None:
        result = run([str(numpy_only), "-I", "-m", "edgeseg", "doctor"], code=1)
        assert "run: pip install openvino" in result.stdout
        assert "Traceback" not in result.stderr

    @pytest.mark.parametrize("command", ["convert", "evaluate", "run", "bench", "lint", "info", "doctor"])
    def test_help_needs_no_library(self, numpy_only: Path, command: str) -> None:
        assert f"edgeseg {command}" in run([str(numpy_only), "-I", "-m", "edgeseg", command, "--help"]).stdout

    def test_loading_a_bundle_names_the_missing_engine(self, numpy_only: Path, tmp_path: Path) -> None:
        bundle = toy_bundle(tmp_path / "toy.edgeseg").path
        code = (
            "import sys, edgeseg\n"
            "try: edgeseg.load(sys.argv[1])\n"
            "except edgeseg.EdgesegError as error: print(type(error).__name__, error)"
        )
        message = run([str(numpy_only), "-I", "-c", code, str(bundle)]).stdout
        assert message.startswith("MissingDependencyError ")
        assert "run: pip install o" in message

    def test_info_reads_a_bundle(self, numpy_only: Path, tmp_path: Path) -> None:
        bundle = toy_bundle(tmp_path / "toy.edgeseg").path
        assert "99.50" in run([str(numpy_only), "-I", "-m", "edgeseg", "info", str(bundle)]).stdout

    @pytest.mark.parametrize(
        ("arguments", "library"),
        [
            (["convert", "toy.onnx", "--frames", "frames", "--preset", "unit"], "onnx"),
            (["lint", "toy.onnx"], "onnx"),
            (["run", "toy.edgeseg", "frame.png", "-o", "out"], "openvino"),
        ],
    )
    def test_commands_name_the_missing_library(
        self, numpy_only: Path, tmp_path: Path, arguments: list[str], library: str
    ) -> None:
        toy_bundle(tmp_path / "toy.edgeseg")
        for name in ("toy.onnx", "frame.png", "frames"):
            (tmp_path / name).touch()
        result = run([str(numpy_only), "-I", "-m", "edgeseg", *arguments], code=1, folder=tmp_path)
        assert result.stderr.startswith("edgeseg: error: ")
        assert f"is not installed; run: pip install {library}" in result.stderr
        assert len(result.stderr.splitlines()) == 1


@pytest.mark.slow
def test_pip_installs_the_wheel(wheel: Path, tmp_path: Path) -> None:
    """The real way, over the network: pip resolves the base dependencies, and the command starts."""
    run([sys.executable, "-m", "venv", str(tmp_path / "venv")])
    pip = [str(tmp_path / "venv" / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run([*pip, str(wheel)])
    found = json.loads(run([str(tmp_path / "venv" / "bin" / "edgeseg"), "doctor", "--json"]).stdout)
    assert found["complete"] is True
    assert run([str(tmp_path / "venv" / "bin" / "python"), "-I", "-c", IMPORT_ALL]).stdout
