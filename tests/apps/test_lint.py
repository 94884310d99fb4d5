from __future__ import annotations

import argparse
import json
from pathlib import Path

import onnx
import pytest
from support.bundles import toy_bundle
from support.lint_graphs import FAULTY, canonical_graph

from edgeseg.apps.cli import main
from edgeseg.apps.cli.lint import add_arguments, run


def lint(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args(arguments))


@pytest.fixture
def faulty(tmp_path: Path) -> str:
    onnx.save(FAULTY["Q103"](), tmp_path / "faulty.onnx")
    return str(tmp_path / "faulty.onnx")


@pytest.fixture
def good(tmp_path: Path) -> str:
    onnx.save(canonical_graph(), tmp_path / "good.onnx")
    return str(tmp_path / "good.onnx")


class TestText:
    def test_two_lines_a_finding(self, faulty: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert lint(faulty) == 1
        first, second = capsys.readouterr().out.splitlines()
        assert first.startswith("Q103 QuantizeLinear_0: the scale of activation x has shape [1];")
        assert second == "    cure: store the scale as a scalar, shape []"

    def test_good_graph(self, good: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert lint(good) == 0
        assert capsys.readouterr().out == "no findings\n"

    def test_advice_does_not_fail(self, good: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert lint(good, "--advice") == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "no findings"
        assert lines[1].startswith("advice A105 Conv_9: the INT8 convolution reads 3 channels and is padded to 4")

    def test_no_advice(self, faulty: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert lint(faulty, "--advice") == 1
        assert capsys.readouterr().out.splitlines()[-1] == "no advice"


class TestJson:
    def test_findings(self, faulty: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert lint(faulty, "--json") == 1
        found = json.loads(capsys.readouterr().out)
        assert list(found) == ["findings"]
        assert [list(f) for f in found["findings"]] == [["code", "node", "message", "cure"]]
        assert found["findings"][0]["code"] == "Q103"

    def test_advice_has_a_key_of_its_own(self, good: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert lint(good, "--json", "--advice") == 0
        found = json.loads(capsys.readouterr().out)
        assert found["findings"] == []
        assert [f["code"] for f in found["advice"]] == ["A105", "A106"]


class TestProfile:
    def test_newer_versions_only(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        onnx.save(FAULTY["O103"](), tmp_path / "m.onnx")
        assert lint(str(tmp_path / "m.onnx")) == 1
        assert lint(str(tmp_path / "m.onnx"), "--profile", "tensorrt-10") == 0
        assert capsys.readouterr().out.endswith("no findings\n")

    def test_unknown(self, good: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["lint", good, "--profile", "tensorrt-9"]) == 2
        assert "unknown lint profile 'tensorrt-9'; did you mean tensorrt-10?" in capsys.readouterr().err


class TestBundle:
    @pytest.mark.parametrize(("model", "code"), [(canonical_graph(), 0), (FAULTY["Q201"](), 1)])
    def test_its_graph_is_checked(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], model: onnx.ModelProto, code: int
    ) -> None:
        toy_bundle(tmp_path / "net.edgeseg", model=model.SerializeToString())
        assert main(["lint", str(tmp_path / "net.edgeseg")]) == code
        assert ("Q201 Conv_2" in capsys.readouterr().out) == bool(code)

    def test_changed(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        bundle = toy_bundle(tmp_path / "net.edgeseg", model=canonical_graph().SerializeToString())
        (bundle.path / "model.onnx").write_bytes(b"other")
        assert main(["lint", str(bundle.path)]) == 1
        assert "model.onnx" in capsys.readouterr().err


class TestUnreadable:
    def test_missing(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["lint", str(tmp_path / "none.onnx")]) == 1
        error = capsys.readouterr().err
        assert "none.onnx cannot be read: No such file or directory" in error

    @pytest.mark.parametrize(
        ("content", "message"),
        [(b"\x08\x08 not ONNX", "is none or is truncated"), (b"", "holds no graph (0 bytes)")],
    )
    def test_no_network(self, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, message: str) -> None:
        (tmp_path / "text.onnx").write_bytes(content)
        assert main(["lint", str(tmp_path / "text.onnx")]) == 1
        assert message in capsys.readouterr().err

    def test_truncated(self, good: str, capsys: pytest.CaptureFixture[str]) -> None:
        content = Path(good).read_bytes()
        Path(good).write_bytes(content[: len(content) // 2])
        assert main(["lint", good]) == 1
        assert f"good.onnx is none or is truncated ({len(content) // 2} bytes)" in capsys.readouterr().err

    def test_external_data_missing(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        onnx.save(
            canonical_graph(), tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0
        )
        assert main(["lint", str(tmp_path / "m.onnx")]) == 0
        (tmp_path / "m.data").unlink()
        assert main(["lint", str(tmp_path / "m.onnx")]) == 1
        assert "keeps weights in another file that cannot be read" in capsys.readouterr().err

    def test_folder_that_is_no_bundle(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["lint", str(tmp_path)]) == 1
        assert "is not an edgeseg bundle: expected a folder with manifest.json" in capsys.readouterr().err
