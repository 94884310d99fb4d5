"""The lock, between real processes."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from edgeseg.backends.tensorrt.lock import locked


class TestLock:
    PROGRAM = """
        import sys, time
        sys.path[:] = sys.argv[2:]
        from pathlib import Path
        from edgeseg.backends.tensorrt.lock import locked
        place = Path(sys.argv[1])
        for _ in range(20):
            with locked(place):
                count = Path(sys.argv[1] + ".count")
                value = int(count.read_text())
                time.sleep(0.002)
                count.write_text(str(value + 1))
    """

    def test_one_process_at_a_time(self, tmp_path: Path) -> None:
        place = tmp_path / "a.lock"
        (tmp_path / "a.lock.count").write_text("0")
        command = [sys.executable, "-c", textwrap.dedent(self.PROGRAM), str(place), *sys.path]
        processes = [subprocess.Popen(command) for _ in range(4)]
        assert [process.wait(60) for process in processes] == [0] * 4
        assert (tmp_path / "a.lock.count").read_text() == "80"
        assert not place.exists()

    def test_says_that_it_waits(self, tmp_path: Path) -> None:
        place, told = tmp_path / "a.lock", []
        holder = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); print(1, flush=True)"
        command = [sys.executable, "-c", f"{holder}; sys.stdin.read()", str(place)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()

            def release() -> None:
                told.append(time.monotonic())
                process.kill()  # a lock ends with its process

            with locked(place, release):
                assert len(told) == 1
        with locked(place, lambda: told.append(0.0)):
            assert len(told) == 1

    def test_ends_with_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(KeyError), locked(tmp_path / "a.lock"):
            raise KeyError
        assert list(tmp_path.iterdir()) == []
