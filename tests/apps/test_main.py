from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
import types
from collections.abc import Callable

import pytest

from edgeseg._version import __version__
from edgeseg.apps import cli
from edgeseg.errors import FrameError, UsageError

Command = Callable[[argparse.Namespace], int]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Command], None]:
    """Puts a command `try` with the option --name into the command line."""

    def install(run: Command) -> None:
        module = types.ModuleType("edgeseg_test_command")
        module.add_arguments = lambda parser: parser.add_argument("--name")  # type: ignore[attr-defined]
        module.run = run  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(cli.COMMANDS, "try", (module.__name__, "a command of this test"))

    return install


def fail(error: BaseException) -> Command:
    def run(options: argparse.Namespace) -> int:
        raise error

    return run


class TestExitCodes:
    def test_a_command_decides(self, command: Callable[[Command], None]) -> None:
        command(lambda options: 1 if options.name == "bad" else 0)
        assert cli.main(["try"]) == 0
        assert cli.main(["try", "--name", "bad"]) == 1

    def test_a_known_error_is_one_line(
        self, command: Callable[[Command], None], capsys: pytest.CaptureFixture[str]
    ) -> None:
        command(fail(FrameError("no frames in x;\n  give others")))
        assert cli.main(["try"]) == 1
        assert capsys.readouterr() == ("", "edgeseg: error: no frames in x; give others\n")

    def test_wrong_usage_is_two(self, command: Callable[[Command], None], capsys: pytest.CaptureFixture[str]) -> None:
        command(fail(UsageError("give one of them")))
        assert cli.main(["try"]) == 2
        assert capsys.readouterr().err == "edgeseg: error: give one of them\n"

    def test_an_interrupt_is_130(self, command: Callable[[Command], None], capsys: pytest.CaptureFixture[str]) -> None:
        command(fail(KeyboardInterrupt()))
        assert cli.main(["try"]) == 130
        assert capsys.readouterr() == ("", "edgeseg: interrupted\n")

    def test_a_bug_keeps_its_traceback(self, command: Callable[[Command], None]) -> None:
        command(fail(ZeroDivisionError("bug")))
        with pytest.raises(ZeroDivisionError, match="bug"):
            cli.main(["try"])

    @pytest.mark.parametrize(
        "arguments", [[], ["no-such-command"], ["doctor", "--no-such-option"], ["-v", "-q", "doctor"]]
    )
    def test_argparse_ends_with_two(self, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as ending:
            cli.main(arguments)
        assert ending.value.code == 2
        assert "usage: edgeseg" in capsys.readouterr().err

    def test_a_closed_pipe_is_quiet(self) -> None:
        script = f"{sys.executable} -m edgeseg doctor | true"
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=120)
        assert "Traceback" not in done.stderr
        assert "BrokenPipe" not in done.stderr

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full")
    def test_a_full_disk_behind_stdout(self) -> None:
        script = f"{sys.executable} -m edgeseg doctor > /dev/full"
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=120)
        message = "edgeseg: error: cannot write the result to stdout: No space left on device; free some space\n"
        assert (done.returncode, done.stderr) == (1, message)

    @pytest.mark.parametrize("closed", [">&-", ">&- 2>&-"])
    def test_closed_streams(self, closed: str) -> None:
        script = f"{sys.executable} -m edgeseg info no.edgeseg {closed}"
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=120)
        assert done.returncode == 1
        assert ("there is no bundle at no.edgeseg" in done.stderr) == ("2>&-" not in closed)
        assert "Traceback" not in done.stderr


class TestVerbosity:
    @pytest.mark.parametrize(
        ("arguments", "level"),
        [
            (["try", "-v"], logging.INFO),
            (["-v", "try"], logging.INFO),
            (["try", "-vv"], logging.DEBUG),
            (["try", "--quiet"], logging.ERROR),
            (["try"], logging.WARNING),
        ],
    )
    def test_options_decide(
        self,
        arguments: list[str],
        level: int,
        command: Callable[[Command], None],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.delenv("EDGESEG_LOG_LEVEL", raising=False)
        seen: list[int] = []

        def run(options: argparse.Namespace) -> int:
            seen.append(logging.getLogger("edgeseg.calibration").getEffectiveLevel())
            return 0

        command(run)
        assert cli.main(arguments) == 0
        assert seen == [level]

    def test_records_go_to_stderr_and_only_once(
        self, command: Callable[[Command], None], capsys: pytest.CaptureFixture[str]
    ) -> None:
        def run(options: argparse.Namespace) -> int:
            logging.getLogger("edgeseg.calibration.frames").warning("skipped: %s", "a.png")
            return 0

        command(run)
        for _ in range(2):
            cli.main(["try"])
            assert capsys.readouterr() == ("", "edgeseg: warning: skipped: a.png\n")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        cli.main(["--version"])
    assert ending.value.code == 0
    assert capsys.readouterr().out == f"edgeseg {__version__}\n"


@pytest.mark.parametrize("name", [None, *cli.COMMANDS])
def test_help_runs_alone_and_names_every_option(name: str | None) -> None:
    arguments = [sys.executable, "-m", "edgeseg", *([name] if name else []), "--help"]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: edgeseg {name or ''}".rstrip())
    assert all(word in done.stdout for word in (cli.COMMANDS if name is None else ("--json", "--quiet")))
    assert done.stderr == ""


HEAVY = ("cv2", "numba", "onnx", "onnxruntime", "onnxsim", "openvino", "rich", "tensorrt", "torch")


@pytest.mark.parametrize("name", [None, *cli.COMMANDS])
def test_help_needs_numpy_alone(name: str | None) -> None:
    script = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({HEAVY}))\n"  # None in sys.modules makes an import fail
        "from edgeseg.apps.cli import main\n"
        f"main({[*([name] if name else []), '--help']})\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
