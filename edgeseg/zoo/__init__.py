"""Networks that ship with the package: float ONNX files whose metadata makes `edgeseg convert` need no options.

Each has a card beside it, NAME.md: data, recipe, command, scores and licence. The weights are for research use where
their data is.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from edgeseg.errors import UsageError, unknown_name

__all__ = ["SHIPPED", "network_file", "shipped_path"]

SHIPPED = ("dabnet-dsrl-camvid",)
"""Names of the networks."""


def shipped_path(name: str) -> Path:
    """The ONNX file of a network.

    Raises:
        UsageError: for an unknown name, with the nearest.
    """
    if name not in SHIPPED:
        raise UsageError(unknown_name("shipped network", name, SHIPPED))
    return Path(str(resources.files(__name__) / f"{name}.onnx"))


def network_file(given: str | Path) -> Path:
    """What a user means by MODEL: the file of a shipped network by its name, else the path as it is.

    A file that stands there under such a name is the user's own, and is taken.
    """
    path = Path(given)
    return shipped_path(str(given)) if str(given) in SHIPPED and not path.exists() else path
