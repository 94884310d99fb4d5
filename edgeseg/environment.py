"""Environment variables of edgeseg, read in this one place.

EDGESEG_CACHE_DIR  folder for compiled engines, kernels and remembered choices; default ~/.cache/edgeseg
EDGESEG_LOG_LEVEL  level of the log on stderr of the command line: debug, info, warning (default) or error
EDGESEG_BACKEND    backend to take where "auto" is asked for
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeseg.errors import UsageError, unknown_name

__all__ = ["LOG_LEVELS", "Environment", "read_environment"]

LOG_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True)
class Environment:
    """What the variables say.

    Attributes:
        cache_dir: folder for what can be made again; it need not exist.
        log_level: one of LOG_LEVELS.
        backend: name of a backend, or None for the automatic choice.
    """

    cache_dir: Path
    log_level: str
    backend: str | None


def read_environment(variables: Mapping[str, str] | None = None) -> Environment:
    """Read the variables; an empty one counts as unset.

    Args:
        variables: the environment; None for this process's.

    Raises:
        UsageError: for an unknown log level, or where no variable gives a cache folder and there is no home folder.
    """
    found = os.environ if variables is None else variables
    level = (found.get("EDGESEG_LOG_LEVEL") or "warning").lower()
    if level not in LOG_LEVELS:
        raise UsageError(f"EDGESEG_LOG_LEVEL: {unknown_name('log level', level, LOG_LEVELS)}")
    backend = found.get("EDGESEG_BACKEND") or None
    return Environment(
        cache_dir=_cache_dir(found),
        log_level=level,
        backend=None if backend == "auto" else backend,
    )


def _cache_dir(found: Mapping[str, str]) -> Path:
    folder, base = found.get("EDGESEG_CACHE_DIR"), found.get("XDG_CACHE_HOME")
    try:
        if folder:
            return Path(folder).expanduser()
        return Path(base or Path("~/.cache").expanduser()) / "edgeseg"
    except RuntimeError as error:  # a container's user often has no home
        raise UsageError(
            f"there is no home folder for the cache ({error}); set EDGESEG_CACHE_DIR to a folder"
        ) from error
