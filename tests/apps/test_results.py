from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeseg.apps.cli.results import only_results_on_stdout, print_json, table


def test_other_peoples_prints_go_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    with only_results_on_stdout():
        sys.stdout.write("from Python\n")
        libc = ctypes.CDLL(None)
        libc.puts(b"from C")
        libc.fflush(None)
    sys.stdout.write("the result\n")
    out, err = capfd.readouterr()
    assert out == "the result\n"
    assert "from Python" in err
    assert "from C" in err


def test_stdout_returns_after_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="x"), only_results_on_stdout():
        raise ValueError("x")
    sys.stdout.write("back\n")
    assert capfd.readouterr().out == "back\n"


def test_json_is_one_valid_object(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": float("nan"), "b": np.array([[1, 2]]), "c": np.float32(0.5), "d": (1, None), "e": Path("x")})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [[1, 2]], "c": 0.5, "d": [1, None], "e": "x"}


def test_table_aligns() -> None:
    assert table([("name", "ms"), ("infer", "1.25"), ("x",)], right=(1,)) == "name     ms\ninfer  1.25\nx"
