"""`edgeseg build`: with the real TensorRT-RTX, which builds on any x86-64 machine, and with fakes of the others."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from argparse import ArgumentTypeError
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from support.bundles import published_espnet
from support.colours import Run
from support.frames import frame_folder
from support.tensorrt_api import DUMPS, VERSIONS
from support.tensorrt_fakes import fake_library
from support.tensorrt_machines import Machine, promised_bundle

from edgeseg.apps.cli.build import batch_range
from edgeseg.apps.engine_build import choose_form
from edgeseg.backends.tensorrt.options import BuildRecord
from edgeseg.backends.tensorrt.plans import list_plans
from edgeseg.bundle import Bundle
from edgeseg.converters.targets import get_form

needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed (extra edgeseg[rtx])"
)


@pytest.fixture
def toy(tmp_path: Path) -> Bundle:
    return promised_bundle(tmp_path / "toy.edgeseg")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine.make(tmp_path / "machine", monkeypatch)


@pytest.fixture(scope="module")
def espnet(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return published_espnet(shared, tmp_path_factory.mktemp("espnet"))


def build_json(edgeseg: Run, bundle: Bundle, *options: object) -> dict[str, Any]:
    code, out, err = edgeseg("build", bundle.path, *options, "--json")
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


@needs_rtx
class TestRealBuilder:
    def test_writes_a_plan_into_the_bundle(self, edgeseg: Run, toy: Bundle) -> None:
        found = build_json(edgeseg, toy, "--target", "rtx-ampere")
        plan = Path(found["plan"])
        assert plan.parent == toy.path / "engines"
        assert hashlib.sha256(plan.read_bytes()).hexdigest() == found["plan_digest"]
        assert set(found) == {"plan", "record", "reused", "network", "form", *(f.name for f in fields(BuildRecord))}
        assert (found["form"], found["library"], found["built_for"]) == ("fp16_qdq", "tensorrt_rtx", ["SM86"])
        assert (found["promised_int8"], found["proven_int8"], found["convolutions"]) == (3, 3, {"int8": 3})
        assert [p.path for p in list_plans(Bundle.open(toy.path))] == [plan]
        assert sorted(path.suffix for path in plan.parent.iterdir()) == [".json", ".plan"]

    def test_builds_once(self, edgeseg: Run, toy: Bundle) -> None:
        first = build_json(edgeseg, toy, "--target", "rtx")
        again = build_json(edgeseg, toy, "--library", "tensorrt-rtx")  # every RTX GPU too
        assert (first["reused"], again["reused"], again["plan"]) == (False, True, first["plan"])
        assert build_json(edgeseg, toy, "--target", "rtx", "--force")["reused"] is False
        Path(first["plan"]).write_bytes(b"damaged")
        assert build_json(edgeseg, toy, "--target", "rtx")["reused"] is False
        assert Path(first["plan"]).stat().st_size > 1000

    def test_two_processes_build_once(self, toy: Bundle, cache_dir: Path) -> None:
        command = [sys.executable, "-m", "edgeseg", "build", str(toy.path), "--target", "rtx-ada", "--json"]
        environment = {**os.environ, "EDGESEG_CACHE_DIR": str(cache_dir)}
        processes = [subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) for _ in range(2)]
        found = [json.loads(process.communicate(timeout=300)[0]) for process in processes]
        assert sorted(entry["reused"] for entry in found) == [False, True]
        assert found[0]["plan_digest"] == found[1]["plan_digest"]

    def test_fp16_only(self, edgeseg: Run, toy: Bundle) -> None:
        found = build_json(edgeseg, toy, "--target", "rtx-ampere", "--fp16-only")
        assert (found["form"], found["int8"], found["convolutions"]) == ("fp16", False, {"float16": 3})

    def test_float32_outside_int8(self, edgeseg: Run, toy: Bundle) -> None:
        found = build_json(edgeseg, toy, "--target", "rtx-ampere", "--precision", "float32")
        assert (found["form"], found["fp16"], found["convolutions"]) == ("canonical", False, {"int8": 3})
        assert "float16" not in found["precisions"]

    def test_a_dynamic_batch(self, edgeseg: Run, toy: Bundle) -> None:
        found = build_json(edgeseg, toy, "--target", "rtx-ampere", "--batch", "1-8")
        assert (found["batch"], found["convolutions"]) == ([1, 8, 8], {"int8": 3})

    def test_a_file_of_its_own(self, edgeseg: Run, toy: Bundle, tmp_path: Path) -> None:
        place = tmp_path / "mine.plan"
        found = build_json(edgeseg, toy, "--target", "rtx-ampere", "-o", place)
        assert found["plan"] == str(place)
        assert place.with_suffix(".json").is_file()
        assert not (toy.path / "engines").exists()
        code, out, err = edgeseg("build", toy.path, "--target", "rtx-ampere", "-o", place)
        assert (code, out) == (1, "")
        assert f"{place} and {tmp_path / 'mine.json'} exist; choose another place with -o or" in err
        assert build_json(edgeseg, toy, "--target", "rtx-ampere", "-o", place, "--force")["plan"] == str(place)

    def test_says_what_it_built(self, edgeseg: Run, toy: Bundle) -> None:
        code, out, _ = edgeseg("build", toy.path, "--target", "rtx-ampere", "--batch", "1-4")
        assert code == 0
        rows = dict(line.split("  ", 1) for line in out.splitlines())
        assert rows["runs on"].strip().startswith("TensorRT-RTX ")
        assert rows["INT8"].strip() == "3 of 3 promised layers, proven"
        assert rows["batch"].strip() == "1 to 4"
        assert rows["convolutions"].strip() == "3 in int8"
        again = edgeseg("build", toy.path, "--target", "rtx-ampere", "--batch", "1-4")[1]
        assert "built before" in again

    def test_info_lists_engines(self, edgeseg: Run, toy: Bundle) -> None:
        assert json.loads(edgeseg("info", toy.path, "--json")[1])["engines"] == []
        built = build_json(edgeseg, toy, "--target", "rtx-ampere", "--batch", "1-4")
        (engine,) = json.loads(edgeseg("info", toy.path, "--json")[1])["engines"]
        assert (engine["plan"], engine["batch"], engine["int8"]) == (built["plan"], [1, 4], True)
        text = edgeseg("info", toy.path)[1]
        assert "for SM86: INT8 (fp16_qdq), 1 to 4 frames," in text

    @pytest.mark.parametrize(
        ("options", "form", "convolutions"),
        [
            ([], "fp16_qdq", {"int8": 82}),
            (["--fp16-only"], "fp16", {}),
            (["--batch", "1-8"], "fp16_qdq", {"int8": 82}),
        ],
    )
    def test_espnet(
        self, edgeseg: Run, espnet: Bundle, options: list[str], form: str, convolutions: dict[str, int]
    ) -> None:
        found = build_json(edgeseg, espnet, "--target", "rtx", *options)
        assert found["form"] == form
        assert convolutions.items() <= found["convolutions"].items()
        assert found["proven_int8"] == found["promised_int8"] == convolutions.get("int8", 0)
        assert "int8" in found["convolutions"] or set(found["convolutions"]) == {"float16"}
        assert found["seconds"] <= 60
        assert found["peak_memory_mb"] <= 2000


class TestFakes:
    @pytest.mark.parametrize("version", VERSIONS)
    def test_the_form_of_every_version(self, edgeseg: Run, machine: Machine, toy: Bundle, version: str) -> None:
        machine.install(version)
        found = build_json(edgeseg, toy)
        assert get_form(found["form"]).suits(tuple(map(int, found["version"].split(".")[:2])))
        assert found["strongly_typed"] is get_form(found["form"]).strongly_typed
        assert found["proven_int8"] == 3

    def test_a_dla_takes_a_calibration_cache(self, edgeseg: Run, machine: Machine, toy: Bundle, tmp_path: Path) -> None:
        machine.install("tensorrt-10.3.0")
        code, out, err = edgeseg("build", toy.path, "--target", "orin", "--dla", "0")
        assert (code, out) == (2, "")
        assert "tensors have no range yet; give the frames that the bundle was calibrated on with --frames" in err
        frames = frame_folder(tmp_path / "frames", 2, 32, 48)
        found = build_json(edgeseg, toy, "--target", "orin", "--dla", "1", "--frames", frames)
        assert (found["form"], found["dla_core"], found["proven_int8"]) == ("implicit_int8", 1, 3)

    def test_a_timing_cache_for_each_device(
        self, edgeseg: Run, machine: Machine, toy: Bundle, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from support.tensorrt_machines import ORIN

        from edgeseg.apps import engine_build

        machine.install("tensorrt-10.3.0")
        monkeypatch.setattr(engine_build, "find_device", lambda: ORIN)
        build_json(edgeseg, toy)
        assert (cache / "timings" / "10.3.0-Orin-8.7.timing").read_bytes() == b"measured;"
        build_json(edgeseg, toy, "--fp16-only", "--timing-cache", cache / "mine.timing")
        assert (cache / "mine.timing").read_bytes() == b"measured;"

    def test_fails_the_proof(self, edgeseg: Run, machine: Machine, toy: Bundle) -> None:
        machine.install("tensorrt-10.3.0")
        (machine.folder / "tensorrt.py").write_text(
            "import sys\nfrom support.tensorrt_fakes import Behaviour, fake_module\n"
            "sys.modules[__name__] = fake_module('tensorrt-10.3.0', Behaviour(float_nodes=frozenset({'conv_14'})))\n"
        )
        code, out, err = edgeseg("build", toy.path)
        assert (code, out) == (1, "")
        assert "2 of 3 layers run in INT8, not conv_14 (float16)" in err
        assert list_plans(toy) == []


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (
                ["--fp16-only", "--precision", "float32"],
                "--fp16-only and --precision float32 forbid each other's",
            ),
            (["--target", "rtx", "--dla", "0"], "target rtx has no DLA, but --dla 0 was asked for"),
            (["--target", "orin-nano", "--dla", "0"], "target orin-nano has no DLA"),
            (["--target", "rtx", "--library", "tensorrt"], "target rtx is built by TensorRT-RTX; take the library"),
            (["--target", "orin", "--library", "tensorrt-rtx"], "target orin is built by TensorRT on the board"),
            (["--target", "rtx", "--timing-cache", "a"], "TensorRT-RTX keeps no timing cache; leave --timing-cache"),
            (["--target", "titan"], "invalid choice: 'titan'"),
            (["--batch", "8-1"], "expected MIN-MAX frames, such as 1-8, but got '8-1'"),
            (["--optimization-level", "6"], "invalid choice: 6"),
            (["--workspace", "0"], "expected a whole number of at least 1"),
        ],
    )
    def test_wrong_usage(self, edgeseg: Run, toy: Bundle, options: list[str], message: str) -> None:
        code, out, err = edgeseg("build", toy.path, *options)
        assert (code, out) == (2, "")
        assert message in err

    def test_no_bundle(self, edgeseg: Run, tmp_path: Path) -> None:
        code, _, err = edgeseg("build", tmp_path / "none.edgeseg")
        assert code == 1
        assert "there is no bundle at" in err

    def test_no_library(self, edgeseg: Run, toy: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "tensorrt", None)
        code, _, err = edgeseg("build", toy.path)
        assert code == 1
        assert "tensorrt is needed to build and run its engines, but it is not installed; run: pip install" in err
        assert len(err.splitlines()) == 1

    @needs_rtx
    @pytest.mark.parametrize(
        ("place", "code", "message"),
        [
            ("none/a.plan", 1, "none does not exist; create it first"),
            ("a.json", 2, "is where the engine's record"),
        ],
    )
    def test_no_such_place(
        self, edgeseg: Run, toy: Bundle, tmp_path: Path, place: str, code: int, message: str
    ) -> None:
        found, _, err = edgeseg("build", toy.path, "--target", "rtx", "-o", tmp_path / place)
        assert found == code
        assert message in err


class TestChooseForm:
    @pytest.mark.parametrize("dump", DUMPS)
    @pytest.mark.parametrize("int8", [True, False])
    @pytest.mark.parametrize("dla", [True, False])
    def test_suits_the_version(self, dump: str, int8: bool, dla: bool) -> None:
        library = fake_library(dump)
        form = get_form(choose_form(library, int8=int8, precision="auto", dla=dla))
        assert form.rtx if library.name == "tensorrt_rtx" else form.suits(library.version[:2])
        assert form.int8 is int8
        if int8:
            assert form.strongly_typed is (not library.weakly_typed)

    @pytest.mark.parametrize("dump", DUMPS)
    def test_float32_is_the_graph_as_it_is(self, dump: str) -> None:
        name = choose_form(fake_library(dump), int8=True, precision="float32", dla=False)
        assert name == ("tensorrt8" if dump.startswith("tensorrt-8") else "canonical")


class TestBatchRange:
    @pytest.mark.parametrize(("text", "expected"), [("1", (1, 1)), ("1-8", (1, 8)), ("4-4", (4, 4)), ("4", (4, 4))])
    def test_reads(self, text: str, expected: tuple[int, int]) -> None:
        assert batch_range(text) == expected

    @pytest.mark.parametrize("text", ["", "0", "0-4", "5-4", "1-", "-4", "a", "1-2-3", "99999"])
    def test_refuses(self, text: str) -> None:
        with pytest.raises(ArgumentTypeError, match="expected MIN-MAX frames"):
            batch_range(text)
