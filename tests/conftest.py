"""Fixtures that every test may use."""

from __future__ import annotations

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real frames and networks beside the checkout, where a developer has them."""
    folder = REPOSITORY.parent / "shared"
    if not (folder / "models").is_dir():
        pytest.skip("real networks and frames (../shared) are not on this machine")
    return folder


@pytest.fixture(autouse=True)
def cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has a cache folder of its own; compiled kernels stay in the session's."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("EDGESEG_CACHE_DIR", str(folder))
    monkeypatch.delenv("EDGESEG_BACKEND", raising=False)
    return folder
