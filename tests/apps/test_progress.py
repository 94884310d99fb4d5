from __future__ import annotations

import sys

import pytest

from edgeseg.apps.cli.progress import RichProgress, progress_for
from edgeseg.calibration.progress import SilentProgress


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)


@pytest.mark.usefixtures("terminal")
class TestChoice:
    def test_bars_on_a_terminal(self) -> None:
        assert isinstance(progress_for(quiet=False), RichProgress)

    def test_nothing_when_quiet(self) -> None:
        assert isinstance(progress_for(quiet=True), SilentProgress)

    def test_without_rich_the_work_goes_on(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setitem(sys.modules, "rich.progress", None)
        assert isinstance(progress_for(quiet=False), SilentProgress)
        assert caplog.messages == ["no progress is shown, because rich is not installed; run: pip install rich"]


def test_nothing_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    assert isinstance(progress_for(quiet=False), SilentProgress)


@pytest.mark.parametrize(("total", "count"), [(4, "4/4"), (None, "3/3")])
def test_a_step_leaves_one_line_on_stderr(total: int | None, count: str, capsys: pytest.CaptureFixture[str]) -> None:
    with RichProgress().step("calibrate", total) as step:
        step(1)
        step(total - 1 if total else 2)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("calibrate") == 1
    assert count in err


def test_a_step_that_fails_passes_the_error_on(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="bad frame"), RichProgress().step("calibrate", 4):
        raise ValueError("bad frame")
    assert "calibrate" in capsys.readouterr().err


def test_silence() -> None:
    with SilentProgress().step("calibrate", None) as step:
        assert step(3) is None  # type: ignore[func-returns-value]
