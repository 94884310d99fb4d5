from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.bundles import quantized_bundle
from support.colours import Run
from support.frames import frame_folder


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return quantized_bundle(tmp_path / "toy.edgeseg").path


def test_text_tells_what_to_do(edgeseg: Run, toy: Path, tmp_path: Path) -> None:
    code, out, err = edgeseg("emit", toy, "--for", "trtexec", "-o", tmp_path / "out", "--tensorrt", "11.4")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"{tmp_path / 'out'}: trtexec, TensorRT 11.4, graph fp16_qdq"
    assert "  build.sh" in lines
    assert lines[lines.index("In that folder:") + 1] == "  sh build.sh"
    assert any(line.startswith("note: Input frame: (1, 32, 48, 3) uint8, RGB.") for line in lines)


def test_json(edgeseg: Run, toy: Path, tmp_path: Path) -> None:
    frames = frame_folder(tmp_path / "frames", 3)
    code, out, _ = edgeseg(
        *("emit", toy, "--for", "deepstream", "-o", tmp_path / "out", "--implicit", "--frames", frames),
        *("--count", 2, "--json"),
    )
    assert code == 0
    found = json.loads(out)
    assert list(found) == ["folder", "program", "tensorrt", "form", "files", "commands", "notes", "measured"]
    assert (found["program"], found["form"], found["measured"]) == ("deepstream", "implicit_int8", 2)
    assert len(json.loads((tmp_path / "out" / "emit.json").read_text())["frames"]) == 2


def test_force(edgeseg: Run, toy: Path, tmp_path: Path) -> None:
    command = ("emit", toy, "--for", "triton", "-o", tmp_path / "out")
    assert edgeseg(*command)[0] == 0
    code, out, err = edgeseg(*command)
    assert (code, out) == (1, "")
    assert "exists; choose another place with -o or replace it with --force" in err
    assert edgeseg(*command, "--force")[0] == 0


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--for", "tensorflow"), 2, "unknown program 'tensorflow'"),
        (("--for", "trtexec", "--tensorrt", "ten"), 2, "such as 8.6, 10.3 or 11.4"),
        (("--for", "trtexec", "--dla", "0", "--tensorrt", "10.13"), 2, "drives no DLA"),
        (("--for", "jetson-inference"), 2, "give calibration frames with --frames DIR, or --fp16-only"),
        (("--for", "trtexec", "--implicit", "--frames", "nowhere"), 1, "nowhere"),
        (("--for", "trtexec", "--batch", "0"), 2, "a whole number of at least 1"),
    ],
)
def test_one_clear_line(
    options: tuple[str, ...], code: int, message: str, edgeseg: Run, toy: Path, tmp_path: Path
) -> None:
    found, out, err = edgeseg("emit", toy, "-o", tmp_path / "out", *options)
    assert (found, out) == (code, "")
    assert message in err
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()


def test_no_bundle(edgeseg: Run, tmp_path: Path) -> None:
    code, _, err = edgeseg("emit", tmp_path / "none.edgeseg", "--for", "trtexec", "-o", tmp_path / "out")
    assert code == 1
    assert "there is no bundle at" in err
