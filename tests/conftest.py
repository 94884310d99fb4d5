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
