"""Every test of the runtime has a cache folder of its own for engines and choices; compiled kernels are shared."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeseg import fused


@pytest.fixture(scope="session", autouse=True)
def _kernels(pytestconfig: pytest.Config) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGESEG_CACHE_DIR", str(pytestconfig.cache.mkdir("edgeseg")))
        fused.warm_up()


@pytest.fixture(autouse=True)
def cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("EDGESEG_CACHE_DIR", str(folder))
    monkeypatch.delenv("EDGESEG_BACKEND", raising=False)
    return folder
