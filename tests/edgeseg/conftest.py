"""Kernels of the runtime are compiled once and kept over sessions; engines and choices have a folder a test."""

from __future__ import annotations

import pytest

from edgeseg import fused


@pytest.fixture(scope="session", autouse=True)
def _kernels(pytestconfig: pytest.Config) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGESEG_CACHE_DIR", str(pytestconfig.cache.mkdir("edgeseg")))
        fused.warm_up()
