"""`create` and its messages."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from edgeseg.errors import MissingDependencyError, UsageError
from edgeseg.models import create


def test_options_reach_the_network() -> None:
    network = create("espnetv2", width=0.5, classes=4)
    assert network.classes == 4
    assert network.feature_channels == 2


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("espnet2", {}, "unknown network 'espnet2'; did you mean espnetv2? known: bisenetv1, bisenetv2, crfasrnn, "),
        ("maskrcnn", {}, "unknown network 'maskrcnn'; "),
        ("espnet", {"classes": 0}, "classes must be at least 1, but is 0"),
        ("espnet", {"width": 2.0}, "espnet has no option width; it has q"),
        ("espnetv2", {"q": 3}, "espnetv2 has no option q; it has width"),
        ("espnet", {"q": 4}, "q of espnet must be one of 3, 5, 8, but is 4"),
        ("espnetv2", {"width": 3}, "width of espnetv2 must be one of 0.5, 1.0, 1.25, 1.5, 2.0, but is 3"),
    ],
)
def test_refuses(name: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        create(name, **options)
    assert said in str(caught.value)


def test_says_the_extra_where_torch_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingDependencyError, match=r"torch is needed to build and train networks.*edgeseg\[train\]"):
        create("espnet")
