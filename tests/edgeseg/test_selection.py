"""The automatic choice of a backend."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.fake_backend import FakeBackend

from edgeseg.backends import Backend, Target
from edgeseg.errors import EngineError, MissingDependencyError
from edgeseg.selection import choose_backend

TARGET = Target(threads=1)


@pytest.fixture
def slow() -> FakeBackend:
    return FakeBackend("slow", seconds=0.02)


@pytest.fixture
def fast() -> FakeBackend:
    return FakeBackend("fast")


def choose(*backends: FakeBackend, digest: str = "d", target: Target = TARGET) -> Backend:
    return choose_backend(b"graph", digest, target, backends=backends)


class TestChooseBackend:
    def test_takes_the_faster(self, slow: FakeBackend, fast: FakeBackend, cache_dir: Path) -> None:
        assert choose(slow, fast) is fast
        (entry,) = json.loads((cache_dir / "backends.json").read_text()).values()
        assert entry["backend"] == "fast"
        assert entry["milliseconds"]["slow"] >= 20

    def test_closes_what_it_timed(self, slow: FakeBackend, fast: FakeBackend) -> None:
        choose(slow, fast)
        assert [engine.closed for engine in slow.engines + fast.engines] == [1, 1]

    def test_remembers(self, slow: FakeBackend, fast: FakeBackend) -> None:
        choose(slow, fast)
        slow.seconds, fast.seconds = 0, 0.02
        assert choose(slow, fast) is fast
        assert len(fast.engines) == 1

    @pytest.mark.parametrize("change", ["digest", "target", "version"])
    def test_measures_again_what_changed(
        self, slow: FakeBackend, fast: FakeBackend, change: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        choose(slow, fast)
        slow.seconds, fast.seconds = 0, 0.02
        if change == "version":
            monkeypatch.setattr(fast, "version", lambda: "2.0")
        again = choose(
            slow,
            fast,
            digest="e" if change == "digest" else "d",
            target=Target(threads=2) if change == "target" else TARGET,
        )
        assert again is slow

    @pytest.mark.parametrize(
        ("content", "message"), [("{half", "is not readable"), ("[1]", "does not hold choices"), ('{"k": 3}', "")]
    )
    def test_a_damaged_memory_is_ignored(
        self,
        slow: FakeBackend,
        fast: FakeBackend,
        cache_dir: Path,
        content: str,
        message: str,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        cache_dir.mkdir()
        (cache_dir / "backends.json").write_text(content)
        assert choose(slow, fast) is fast
        assert message in caplog.text
        assert "fast" in (cache_dir / "backends.json").read_text()

    def test_a_cache_that_cannot_be_written_costs_only_time(
        self, slow: FakeBackend, fast: FakeBackend, cache_dir: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        cache_dir.write_text("a file stands here")
        assert choose(slow, fast) is fast
        assert "backends are timed again next time" in caplog.text

    def test_one_that_is_not_installed_is_left_out(self, slow: FakeBackend, fast: FakeBackend) -> None:
        fast.installed = False
        assert choose(slow, fast) is slow
        assert slow.engines == []

    def test_none_installed(self, slow: FakeBackend) -> None:
        slow.installed = False
        with pytest.raises(MissingDependencyError, match=r"openvino is needed to run a bundle .* pip install openvino"):
            choose(slow)

    def test_one_that_fails_is_left_out(
        self, slow: FakeBackend, fast: FakeBackend, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(frame: object) -> None:
            raise EngineError("no kernel")

        fast.before = fail
        assert choose(slow, fast) is slow
        assert "fast cannot run this graph: no kernel" in caplog.text
        slow.before = fail
        with pytest.raises(EngineError, match="no installed backend runs this graph; slow: no kernel; fast: no kernel"):
            choose(slow, fast, digest="other")
