"""The programs that measure the networks: they start, they go on where they stopped, and the docs say what is known."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgeseg.models.cards import CARDS

REPOSITORY = Path(__file__).resolve().parent.parent
BENCHMARKS = REPOSITORY / "benchmarks"
TABLE = BENCHMARKS / "network_table.py"


def start(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, check=False)


def record(code: str) -> str:
    """What a program prints that has network_costs.py at hand."""
    head = f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r}); from pathlib import Path; import network_costs as n; "
    result = start("-c", head + code)
    assert result.returncode == 0, result.stderr
    return result.stdout


class TestPrograms:
    @pytest.mark.parametrize("task", ["count", "build", "times"])
    def test_help(self, task: str) -> None:
        result = start(BENCHMARKS / "network_costs.py", task, "--help")
        assert result.returncode == 0, result.stderr
        assert "--again" in result.stdout
        assert ("--quiet" in result.stdout) is (task == "times")

    def test_frames_are_needed(self, tmp_path: Path) -> None:
        arguments = ("times", "no such network", "--shared", tmp_path)
        result = start(BENCHMARKS / "network_costs.py", *arguments)
        assert result.returncode == 1
        assert f"expected CamVid in {tmp_path}/data/camvid, but there are 0 frames; give --shared" in result.stderr

    def test_the_record_keeps_one_entry_a_variant(self, tmp_path: Path) -> None:
        printed = record(
            "from edgeseg.models.costs import MeasuredCost as C, read_costs; "
            f"r = n.Record(Path({str(tmp_path / 'costs.json')!r})); "
            "[r.put(C('b', {'width': w}, (360, 480), p, 1.0)) for w, p in ((2.0, 1), (1.0, 2), (2.0, 3))]; "
            "r.put(C('a', {}, (352, 480), 4, 1.0)); "
            f"found = read_costs(Path({str(tmp_path / 'costs.json')!r})).networks; "
            "print([(c.network, c.options.get('width'), c.parameters) for c in found])"
        )
        assert printed.strip() == "[('a', None, 4), ('b', 1.0, 2), ('b', 2.0, 3)]"

    @pytest.mark.parametrize(("again", "kept"), [(False, "1 1.0 5"), (True, "2 3.0 5")])
    def test_counting_again_keeps_what_was_measured(self, again: bool, kept: str, tmp_path: Path) -> None:
        printed = record(
            "import argparse; from dataclasses import asdict; from edgeseg.models.costs import MeasuredCost as C; "
            f"folder = Path({str(tmp_path)!r}); r = n.Record(folder / 'costs.json'); what = 'fcn', {{'stride': 8}}; "
            "r.put(C(*what, (360, 480), 1, 1.0, layers=5)); "
            "n.ask = lambda request, limits: ([asdict(C(*what, (360, 480), 2, 3.0))], '', 0.0); "
            f"a = argparse.Namespace(name=['fcn stride=8'], one=False, again={again}, folder=folder); "
            "a.seconds = a.gigabytes = 1; "
            "n.count(a, r); found = r.read().of(*what); print(found.parameters, found.gmacs, found.layers)"
        )
        assert printed.strip() == kept

    def test_entries_keep_the_machine_they_were_measured_on(self, tmp_path: Path) -> None:
        """What is built later on another machine is another's figure."""
        printed = record(
            "import argparse; from dataclasses import asdict; "
            "from edgeseg.models.costs import MeasuredCost as C, Setup; "
            f"folder = Path({str(tmp_path)!r}); r = n.Record(folder / 'costs.json'); "
            "names = ['espnet q=3', 'espnet q=5', 'espnet q=8']; "
            "whole = lambda q, **more: C('espnet', {'q': q}, (360, 480), 1, 1.0, **more); "
            "r.put(whole(3, layers=5, setup=Setup('old', {}))); r.put(whole(5)); "
            "r.put(whole(8, problem='too slow', setup=Setup('old', {}))); "
            "asked = []; n.ask = lambda request, limits: (asked.append(request['options']['q']), "
            "(asdict(whole(asked[-1], layers=6)), '', 7.0))[1]; "
            "n.present_setup = lambda: Setup('new', {'onnx': '1'}); n.frames = lambda shared: []; "
            "a = argparse.Namespace(name=names, one=False, again=False, folder=folder, shared=None); "
            "a.seconds = a.gigabytes = 1; n.build(a, r); "
            "print(sorted(asked), [(c.layers, c.peak_mb, c.setup.machine) for c in r.read().networks])"
        )
        assert printed.splitlines()[-1] == "[5, 8] [(5, None, 'old'), (6, 7.0, 'new'), (6, 7.0, 'new')]"

    def test_variants_are_chosen_by_name_and_option_the_smallest_first(self) -> None:
        labels = json.loads(
            record("import json; print(json.dumps([e.label for e in n.chosen(['espnet q', 'stride=8'])]))")
        )
        assert labels[:3] == ["espnet q=3", "espnet q=5", "espnet q=8"]
        assert "fcn stride=8" in labels
        assert all(label.startswith("espnet q") or "stride=8" in label for label in labels)

    def test_one_of_each_network(self) -> None:
        labels = json.loads(record("import json; print(json.dumps([e.label for e in n.chosen([], one=True)]))"))
        assert {label.split()[0] for label in labels} == set(CARDS)
        assert len(labels) == len(CARDS)
        assert "espnet q=8" in labels


class TestTable:
    def test_docs_hold_what_is_known(self) -> None:
        result = start(TABLE, "--check")
        assert result.returncode == 0, result.stderr

    def test_a_changed_figure_is_noticed(self, tmp_path: Path) -> None:
        """On a copy of the page, with a table of one more point of mean IoU."""
        (tmp_path / "benchmarks").mkdir()
        (tmp_path / "docs" / "images").mkdir(parents=True)
        shutil.copy(REPOSITORY / "docs" / "networks.md", tmp_path / "docs")
        shutil.copy(REPOSITORY / "docs" / "images" / "networks.svg", tmp_path / "docs" / "images")
        shutil.copy(BENCHMARKS / "made_section.py", tmp_path / "benchmarks")
        program = tmp_path / "benchmarks" / "network_table.py"
        program.write_text(TABLE.read_text("utf-8"), "utf-8")
        assert start(program, "--check").returncode == 0
        page = tmp_path / "docs" / "networks.md"
        before = page.read_text("utf-8")
        page.write_text(before.replace("| 57 CamVid |", "| 58 CamVid |", 1), "utf-8")
        result = start(program, "--check")
        assert result.returncode == 1
        assert "networks.md is not what is known; run network_table.py --write" in result.stderr
        assert start(program, "--write").returncode == 0
        assert page.read_text("utf-8") == before

    def test_every_row_is_whole(self) -> None:
        lines = start(TABLE).stdout.splitlines()
        tables = [line for line in lines if line.startswith("|")]
        assert len(tables) > 100
        columns = 0
        for line in tables:
            if line.startswith(("| network |", "|---")):
                columns = columns if line.startswith("|---") else line.count("|")
            assert line.count("|") == columns, line
