"""The scripts that a new user starts: what they say before they install anything."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
SCRIPTS = sorted([*(REPOSITORY / "scripts").iterdir(), REPOSITORY / ".ci" / "run"])


def start(script: Path, *arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a script from another folder; `path` replaces PATH."""
    environment = {**os.environ, "CI": "true"} | ({"PATH": path} if path else {})
    return subprocess.run(
        ["/bin/bash", str(script), *arguments],
        cwd="/",
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def alone(tmp_path: Path) -> Path:
    """The scripts in a folder without real networks and frames beside it."""
    shutil.copytree(REPOSITORY / "scripts", tmp_path / "checkout" / "scripts")
    return tmp_path / "checkout" / "scripts"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_script_is_valid_bash(script: Path) -> None:
    assert subprocess.run(["bash", "-n", str(script)], capture_output=True, check=True).stderr == b""
    assert script.suffix == ".sh" or os.access(script, os.X_OK)


def test_demo_with_a_network_alone_asks_for_frames(alone: Path) -> None:
    result = start(alone / "demo", "model.onnx")
    assert result.returncode == 2
    assert "real frames of its domain" in result.stderr


@pytest.mark.parametrize("name", ["demo", "test"])
def test_help(alone: Path, name: str) -> None:
    result = start(alone / name, "--help")
    assert result.returncode == 0
    assert result.stdout.startswith(f"usage: scripts/{name}")


def test_old_python_is_refused_with_the_cure(alone: Path, tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "cat", "dirname", "flock", "env"):
        (tools / name).symlink_to(shutil.which(name) or name)
    for name in ("python", "python3"):
        (tools / name).write_text('#!/bin/bash\n[[ $1 == -V ]] && echo "Python 3.8.10"; exit 1\n')
        (tools / name).chmod(0o755)
    result = start(alone / "test", path=str(tools))
    assert result.returncode == 1
    assert "Python 3.10 or newer is needed, but none was found (python3 is: Python 3.8.10)" in result.stderr
    assert "sudo apt-get install python3 python3-venv" in result.stderr
