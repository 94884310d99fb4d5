"""Wheels and virtual environments, to see what a user gets who has less installed than a developer."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement

SOURCES = ("edgeseg", "calibration", "converters", "apps", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")
"""What a wheel is built from."""


def build_wheel(repository: Path, folder: Path) -> Path:
    """Build the wheel from a copy, so that nothing left by an earlier build gets into it, and without the network."""
    copy = folder / "source"
    copy.mkdir()
    for name in SOURCES:
        source = repository / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        elif source.exists():
            shutil.copy(source, copy)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--disable-pip-version-check"]
    run([sys.executable, "-m", "pip", "wheel", *options, "-w", str(folder), str(copy)])
    (wheel,) = folder.glob("*.whl")
    return wheel


def base_requirements(wheel: Path) -> list[str]:
    """What the wheel requires without any extra."""
    with zipfile.ZipFile(wheel) as archive:
        metadata = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        lines = archive.read(metadata).decode().splitlines()
    found = [line.partition(": ")[2] for line in lines if line.startswith("Requires-Dist: ")]
    return [line for line in found if applies(Requirement(line), {""})]


def applies(requirement: Requirement, extras: Iterable[str]) -> bool:
    return requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in extras)


def closure(requirements: Iterable[str]) -> dict[str, importlib.metadata.Distribution]:
    """The installed distributions that these requirements bring, with those that they require in turn."""
    found: dict[str, importlib.metadata.Distribution] = {}
    waiting = [Requirement(line) for line in requirements]
    seen: set[str] = set()
    while waiting:
        requirement = waiting.pop()
        if str(requirement) in seen:
            continue
        seen.add(str(requirement))
        distribution = importlib.metadata.distribution(requirement.name)
        found[distribution.name] = distribution
        extras = {"", *requirement.extras}
        waiting += [r for r in map(Requirement, distribution.requires or ()) if applies(r, extras)]
    return found


def make_environment(folder: Path, wheel: Path, requirements: Iterable[str]) -> Path:
    """A virtual environment with a wheel and these requirements alone; returns its interpreter.

    The requirements are links to what is installed here: that takes a second and no network.
    """
    run([sys.executable, "-m", "venv", "--without-pip", str(folder)])
    python = folder / "bin" / "python"
    site = Path(run([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]).stdout.strip())
    for distribution in closure(requirements).values():
        for file in distribution.files or ():
            target = site / file
            if ".." not in file.parts and not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(Path(str(file.locate())).resolve())
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return python


def run(command: list[str], *, code: int = 0, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, in a folder; AssertionError with its output when it does not end with `code`."""
    result = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False, cwd=folder)
    assert result.returncode == code, f"{command} ended with {result.returncode}:\n{result.stdout}\n{result.stderr}"
    return result
