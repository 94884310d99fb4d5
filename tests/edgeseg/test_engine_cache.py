"""Compiled engines in the cache folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from support.fake_backend import FakeBackend

from edgeseg import engine_cache
from edgeseg.backends import Target

TARGET = Target(threads=1)


def stored(folder: Path) -> list[Path]:
    return sorted((folder / "engines").glob("*"))


class TestEngine:
    def test_compiles_once(self, cache_dir: Path) -> None:
        backend = FakeBackend()
        for _ in range(2):
            engine_cache.engine(backend, b"graph", "d", TARGET)
        assert len(backend.compiled) == 1
        assert len(stored(cache_dir)) == 1

    @pytest.mark.parametrize(("digest", "target"), [("e", TARGET), ("d", Target(threads=2))])
    def test_compiles_what_differs(self, digest: str, target: Target) -> None:
        backend = FakeBackend()
        engine_cache.engine(backend, b"graph", "d", TARGET)
        engine_cache.engine(backend, b"graph", digest, target)
        assert len(backend.compiled) == 2

    @pytest.mark.parametrize("keep", [0, 10, 40])
    def test_a_damaged_engine_is_compiled_again(
        self, cache_dir: Path, keep: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        backend = FakeBackend()
        engine_cache.engine(backend, b"graph", "d", TARGET)
        (path,) = stored(cache_dir)
        whole = path.read_bytes()
        path.write_bytes(whole[:keep])
        engine_cache.engine(backend, b"graph", "d", TARGET)
        assert len(backend.compiled) == 2
        assert path.read_bytes() == whole
        assert "is damaged and is compiled again" in caplog.text

    def test_an_engine_that_does_not_load_is_compiled_again(
        self, cache_dir: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        backend = FakeBackend()
        engine_cache.engine(backend, b"graph", "d", TARGET)
        (path,) = stored(cache_dir)
        whole, foreign = path.read_bytes(), b"of another build of the library"
        path.write_bytes(hashlib.sha256(foreign).digest() + foreign)
        engine_cache.engine(backend, b"graph", "d", TARGET)
        assert len(backend.compiled) == 2
        assert path.read_bytes() == whole
        assert "does not load and is compiled again: not compiled by the fake backend" in caplog.text

    def test_a_folder_that_cannot_be_written_costs_only_time(
        self, cache_dir: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        cache_dir.write_text("a file stands here")
        engine_cache.engine(FakeBackend(), b"graph", "d", TARGET)
        assert "the engine is compiled again next time" in caplog.text

    def test_old_engines_are_removed(self, cache_dir: Path) -> None:
        backend = FakeBackend()
        for number in range(40):
            engine_cache.engine(backend, b"graph", str(number), TARGET)
        assert len(stored(cache_dir)) == 32

    def test_no_half_file_is_left(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(engine_cache.os, "replace", full)
        with pytest.raises(OSError, match="No space left"):
            engine_cache.write_atomically(tmp_path / "a", b"content")
        assert list(tmp_path.iterdir()) == []
