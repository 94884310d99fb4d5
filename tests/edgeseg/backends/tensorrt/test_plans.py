"""Plans on disk: names, records, which one fits, and the lock."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from support.tensorrt_machines import ORIN, promised_bundle

from edgeseg.backends.tensorrt.board import Device
from edgeseg.backends.tensorrt.options import BuildOptions, BuildRecord
from edgeseg.backends.tensorrt.plans import (
    ENGINES,
    Here,
    PlanRecord,
    find_plan,
    list_plans,
    plan_folder,
    plan_key,
    read_plan,
    write_plan,
)
from edgeseg.bundle import Bundle
from edgeseg.errors import EngineError, InputError, OutputError

RECORD = BuildRecord(
    library="tensorrt", version="10.3.0", target="auto", graph_digest="0" * 64, plan_digest="", plan_bytes=0,
    strongly_typed=False, int8=True, fp16=True, batch=(1, 1, 1), workspace_mb=None, dla_core=None, device="Orin",
    compute_capability="8.7", driver="12.6", built_for=(), board=None, l4t="36.4.3", power_mode="15W",
    precisions={"int8": 3}, convolutions={"int8": 3}, reformats=0, requantizes=0, promised_int8=3, proven_int8=3,
    seconds=1.0, peak_memory_mb=100,
)  # fmt: skip
HERE = Here("tensorrt", "10.3.0", ORIN, None)
RTX = Here("tensorrt_rtx", "1.7.1", Device("NVIDIA GeForce RTX 3060", (8, 6), "13.0"), None)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return promised_bundle(tmp_path / "toy.edgeseg")


def record_of(bundle: Bundle, content: bytes = b"plan", form: str = "canonical", **changes: object) -> PlanRecord:
    digest = hashlib.sha256(content).hexdigest()
    build = replace(RECORD, plan_digest=digest, plan_bytes=len(content), **changes)  # type: ignore[arg-type]
    return PlanRecord("toy", bundle.manifest.files["model.onnx"], form, build)


def keep(bundle: Bundle, name: str, content: bytes = b"plan", form: str = "canonical", **changes: object) -> Path:
    place = plan_folder(bundle) / f"{name}.plan"
    write_plan(place, content, record_of(bundle, content, form, **changes))
    return place


class TestFits:
    def test_where_it_was_built(self, bundle: Bundle) -> None:
        assert HERE.fits(record_of(bundle))
        assert HERE.fits(record_of(bundle, driver="12.2"))

    @pytest.mark.parametrize(
        "changes",
        [
            {"version": "10.7.0"},
            {"library": "tensorrt_rtx"},
            {"device": "Xavier"},
            {"compute_capability": "8.6"},
            {"driver": "13.0"},
            {"driver": None},
            {"board": "NVIDIA Jetson Orin Nano"},
            {"device": None, "compute_capability": None, "driver": None},
        ],
    )
    def test_nowhere_else(self, bundle: Bundle, changes: dict[str, object]) -> None:
        assert not HERE.fits(record_of(bundle, **changes))

    def test_a_plan_of_rtx_fits_its_capabilities(self, bundle: Bundle) -> None:
        ahead = {"library": "tensorrt_rtx", "version": "1.7.1", "built_for": ("SM80", "SM86")}
        assert RTX.fits(record_of(bundle, **ahead, device=None, driver=None))
        assert not RTX.fits(record_of(bundle, **{**ahead, "built_for": ("SM89",)}))
        assert not RTX.fits(record_of(bundle, **{**ahead, "version": "1.6.0"}))

    def test_says_both_sides(self, bundle: Bundle) -> None:
        assert str(HERE) == "TensorRT 10.3.0 on Orin, compute capability 8.7, driver of CUDA 12.6"
        assert record_of(bundle, board="Orin Nano").side == (
            "TensorRT 10.3.0 on Orin (Orin Nano), compute capability 8.7, driver of CUDA 12.6"
        )
        ahead = record_of(bundle, library="tensorrt_rtx", version="1.7.1", built_for=("SM80", "SM86"))
        assert ahead.side == "TensorRT-RTX 1.7.1 for SM80, SM86"


class TestKey:
    def key(self, **changes: object) -> str:
        arguments: dict[str, object] = {
            "model_digest": "0" * 64, "form": "canonical", "options": BuildOptions(), "version": "10.3.0",
            "device": ORIN, "board": None,
        }  # fmt: skip
        return plan_key(**{**arguments, **changes})  # type: ignore[arg-type]

    def test_depends_on_what_decides(self) -> None:
        keys = {
            self.key(),
            self.key(model_digest="1" * 64),
            self.key(form="fp16"),
            self.key(version="10.7.0"),
            self.key(device=Device("Thor", (11, 0), "13.0")),
            self.key(device=Device("Orin", (8, 7), "13.2")),
            self.key(board="NVIDIA Jetson Orin Nano"),
            self.key(options=BuildOptions(fp16=False)),
            self.key(options=BuildOptions(int8=False)),
            self.key(options=BuildOptions(dla_core=0)),
            self.key(options=BuildOptions(batch=(1, 8, 8))),
            self.key(options=BuildOptions(library="tensorrt_rtx")),
            self.key(options=BuildOptions(target="rtx-ada")),
        }
        assert len(keys) == 13

    def test_not_on_effort_or_the_minor_driver(self) -> None:
        assert self.key(options=BuildOptions(workspace_mb=64, optimization_level=5)) == self.key()
        assert self.key(device=Device("Orin", (8, 7), "12.2")) == self.key()

    def test_a_plan_for_rtx_is_the_same_from_any_machine(self) -> None:
        options = BuildOptions(target="rtx")
        assert self.key(options=options) == self.key(options=options, device=None, board="x")


class TestFind:
    def test_prefers_int8_on_the_gpu_for_one_frame(self, bundle: Bundle) -> None:
        assert find_plan(bundle, HERE) is None
        order = [
            {"int8": False},
            {"dla_core": 0},
            {"batch": (1, 8, 8)},
            {},
        ]
        for number, changes in enumerate(order):
            place = keep(bundle, f"{9 - number}", str(changes).encode(), **changes)
            found = find_plan(bundle, HERE)
            assert found is not None
            assert (found[0].path, found[1]) == (place, str(changes).encode())
        assert len(list_plans(bundle)) == 4

    def test_leaves_out_what_does_not_fit(self, bundle: Bundle) -> None:
        keep(bundle, "other", version="10.7.0")
        keep(bundle, "batch", batch=(4, 4, 4))
        assert find_plan(bundle, HERE) is None

    def test_float32_takes_no_fp16(self, bundle: Bundle) -> None:
        keep(bundle, "a", b"a")
        keep(bundle, "b", b"b", "fp16_qdq", fp16=False)
        assert find_plan(bundle, HERE, "float32") is None
        keep(bundle, "c", b"c", fp16=False)
        found = find_plan(bundle, HERE, "float32")
        assert found is not None
        assert found[1] == b"c"

    @pytest.mark.parametrize("damage", [b"", b"pla", b"plans"])
    def test_leaves_out_a_damaged_one(self, bundle: Bundle, damage: bytes, caplog: pytest.LogCaptureFixture) -> None:
        keep(bundle, "a").write_bytes(damage)
        assert find_plan(bundle, HERE) is None
        assert f"is damaged: it has {len(damage)} bytes and not the 4 that were built" in caplog.text

    def test_leaves_out_one_that_is_gone(self, bundle: Bundle, caplog: pytest.LogCaptureFixture) -> None:
        keep(bundle, "a").unlink()
        assert find_plan(bundle, HERE) is None
        assert "No such file or directory; build it again with --force" in caplog.text

    @pytest.mark.parametrize("content", ["", "{}", "[]", '{"network": 1}', "\udcff"])
    def test_leaves_out_a_broken_record(self, bundle: Bundle, content: str, caplog: pytest.LogCaptureFixture) -> None:
        keep(bundle, "a").with_suffix(".json").write_bytes(content.encode("utf-8", "surrogateescape"))
        assert list_plans(bundle) == []
        assert "a.json is left out" in caplog.text

    def test_leaves_out_another_network(self, bundle: Bundle, tmp_path: Path) -> None:
        keep(bundle, "a")
        other = promised_bundle(tmp_path / "other.edgeseg", seed=1)
        (bundle.path / ENGINES).rename(other.path / ENGINES)
        assert list_plans(other) == []

    def test_the_bundle_stays_whole(self, bundle: Bundle) -> None:
        keep(bundle, "a")
        assert Bundle.open(bundle.path) == bundle


class TestFolder:
    def test_is_in_the_bundle(self, bundle: Bundle) -> None:
        assert plan_folder(bundle) == bundle.path / "engines"

    def test_or_in_the_cache(self, bundle: Bundle, cache_dir: Path) -> None:
        (bundle.path / ENGINES).symlink_to("/proc/edgeseg")  # where nobody writes, root neither
        place = keep(bundle, "a")
        assert place.is_relative_to(cache_dir / "plans")
        found = find_plan(bundle, HERE)
        assert found is not None
        assert found[0].path == place

    def test_or_nowhere(self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
        (bundle.path / ENGINES).symlink_to("/proc/edgeseg")
        monkeypatch.setenv("EDGESEG_CACHE_DIR", "/proc/cache")
        with pytest.raises(
            OutputError, match=r"neither .*engines nor /proc/cache/.* can be written .*EDGESEG_CACHE_DIR"
        ):
            plan_folder(bundle)

    def test_files_can_be_read_by_others(self, bundle: Bundle) -> None:
        place = keep(bundle, "a")
        assert {file.stat().st_mode & 0o777 for file in (place, place.with_suffix(".json"))} == {0o644}

    def test_a_full_disk(self, bundle: Bundle, small_disk: Path) -> None:
        with pytest.raises(OutputError, match="No space left on device; choose another place with -o"):
            write_plan(small_disk / "a.plan", b"0" * 2**20, record_of(bundle))
        assert list(small_disk.iterdir()) == []


class TestRead:
    def test_gives_what_was_written(self, bundle: Bundle) -> None:
        place = keep(bundle, "a")
        plan = read_plan(place)
        assert plan.record == record_of(bundle)
        assert plan.read() == b"plan"

    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"there is no plan at .*a.plan; build one with: edgeseg build BUNDLE -o"):
            read_plan(tmp_path / "a.plan")

    def test_no_record(self, tmp_path: Path) -> None:
        (tmp_path / "a.plan").write_bytes(b"plan")
        with pytest.raises(EngineError, match=r"no readable record a.json beside it, so nobody knows what it was"):
            read_plan(tmp_path / "a.plan")

    @pytest.mark.parametrize("content", ["", "[]", "{}", '{"network": "toy", "build": 1}', "[" * 100_000])
    def test_a_broken_record(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "a.plan").write_bytes(b"plan")
        (tmp_path / "a.json").write_text(content)
        with pytest.raises(EngineError, match="an engine's record cannot be read"):
            read_plan(tmp_path / "a.plan")
