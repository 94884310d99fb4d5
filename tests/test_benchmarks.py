"""The benchmark against the peers: its programs start, and the docs say what its results say."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PEERS = REPOSITORY / "benchmarks" / "peers"
COLUMNS = 10


def start(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A checkout with the table's programs, its results and the page."""
    shutil.copytree(PEERS, tmp_path / "benchmarks" / "peers", ignore=shutil.ignore_patterns(".*", "__pycache__"))
    shutil.copy(PEERS.parent / "made_section.py", tmp_path / "benchmarks")
    (tmp_path / "docs" / "images").mkdir(parents=True)
    shutil.copy(REPOSITORY / "docs" / "benchmarks.md", tmp_path / "docs")
    for picture in (REPOSITORY / "docs" / "images").glob("peers-*.svg"):
        shutil.copy(picture, tmp_path / "docs" / "images")
    return tmp_path


class TestPrograms:
    @pytest.mark.parametrize("program", ["compare_peers.py", "table.py"])
    def test_help(self, program: str) -> None:
        result = start(sys.executable, PEERS / program, "--help")
        assert result.returncode == 0, result.stderr
        assert f"python benchmarks/peers/{program}" in result.stdout

    def test_setup_help(self) -> None:
        result = start("bash", PEERS / "setup.sh", "--help")
        assert result.returncode == 0
        assert result.stdout.startswith("usage: benchmarks/peers/setup.sh")

    def test_setup_refuses_an_unknown_peer(self, tmp_path: Path) -> None:
        result = start("bash", PEERS / "setup.sh", tmp_path / "venvs", "openvino")
        assert result.returncode == 2
        assert "expected onnxruntime, nncf or modelopt, but got openvino" in result.stderr

    @pytest.mark.parametrize("program", sorted(PEERS.glob("with_*.py")), ids=lambda path: path.name)
    def test_peers_know_nothing_of_edgeseg(self, program: Path) -> None:
        for file in (program, PEERS / "peer.py"):
            assert not [line for line in file.read_text("utf-8").splitlines() if "import edgeseg" in line]
            assert "from edgeseg" not in file.read_text("utf-8")


class TestLimits:
    @pytest.mark.parametrize(
        ("child", "problem"),
        [
            ("print(1)", ""),
            ("import time; held = bytearray(400_000_000); time.sleep(60)", "more than 0.2 GB of memory"),
            ("raise SystemExit('no such network')", "failed: no such network"),
            ("import os; os._exit(3)", "failed: exit status 3"),
        ],
    )
    def test_child(self, child: str, problem: str) -> None:
        program = (
            f"import sys; sys.path.insert(0, {str(PEERS)!r}); from limited_process import Limits, run_limited; "
            f"print(run_limited([sys.executable, '-c', {child!r}], Limits(50, 0.2)).problem)"
        )
        assert start(sys.executable, "-c", program).stdout.strip() == problem


class TestTable:
    def test_docs_hold_what_was_measured(self) -> None:
        result = start(sys.executable, PEERS / "table.py", "--check")
        assert result.returncode == 0, result.stderr

    def test_a_changed_result_is_noticed(self, copy: Path) -> None:
        file = sorted((copy / "benchmarks" / "peers" / "results").glob("*.json"))[0]
        content = json.loads(file.read_text("utf-8"))
        content["float_miou"] -= 1
        file.write_text(json.dumps(content), "utf-8")
        program = copy / "benchmarks" / "peers" / "table.py"
        result = start(sys.executable, program, "--check")
        assert result.returncode == 1
        assert "benchmarks.md is not what was measured; run table.py --write" in result.stderr
        assert start(sys.executable, program, "--write").returncode == 0
        assert start(sys.executable, program, "--check").returncode == 0
        assert f"Float: {content['float_miou']:.2f} mIoU" in (copy / "docs" / "benchmarks.md").read_text("utf-8")

    def test_every_row_is_there(self) -> None:
        text = start(sys.executable, PEERS / "table.py").stdout
        rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| tool")]
        assert all(line.count(" | ") == COLUMNS - 1 for line in rows)
        measured = [json.loads(file.read_text("utf-8"))["rows"] for file in (PEERS / "results").glob("*.json")]
        assert len(rows) == sum(map(len, measured)) > 0

    def test_without_results(self, copy: Path) -> None:
        shutil.rmtree(copy / "benchmarks" / "peers" / "results")
        result = start(sys.executable, copy / "benchmarks" / "peers" / "table.py")
        assert result.returncode == 2
        assert "there are none; run compare_peers.py first" in result.stderr
