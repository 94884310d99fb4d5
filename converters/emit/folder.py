"""A folder of results: written beside its place and renamed, so that there is never half of one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from edgeseg.bundle import new_folder
from edgeseg.errors import OutputError

__all__ = ["check_folder", "write_folder"]


def check_folder(folder: Path, record: str, *, force: bool) -> None:
    """Refuse early what `write_folder` would refuse.

    Args:
        folder: to write.
        record: name of the file that every such folder holds; only a folder with it is ever replaced.
        force: allow one that stands there.

    Raises:
        OutputError: with what to do.
    """
    try:
        _check(folder, record, force)
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror}; choose another place with -o") from error


def _check(folder: Path, record: str, force: bool) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if (folder.exists() or folder.is_symlink()) and not force:
        raise OutputError(f"{folder} exists; choose another place with -o or replace it with --force")
    if (folder.exists() or folder.is_symlink()) and (folder.is_symlink() or not (folder / record).is_file()):
        raise OutputError(
            f"{folder} exists and was not written by this command, so --force does not replace it; choose another -o"
        )
    if not folder.parent.is_dir():
        raise OutputError(f"cannot write {folder}: the folder {folder.parent} does not exist; create it first")
    if not os.access(folder.parent, os.W_OK):
        raise OutputError(f"cannot write {folder}: no permission in {folder.parent}; choose another place with -o")


def write_folder(folder: Path, files: Mapping[str, bytes], record: str, *, force: bool) -> None:
    """Write a folder whole.

    Args:
        folder: its place.
        files: content by path inside it; a path that ends in "/" is an empty folder. Scripts (.sh) can be executed.
        record, force: as for `check_folder`.

    Raises:
        OutputError: when the place is taken or cannot be written, or the disk is full; nothing is lost then.
    """
    check_folder(folder, record, force=force)
    with new_folder(folder) as beside:
        for name, content in files.items():
            _write(beside / name, content, is_folder=name.endswith("/"))


def _write(path: Path, content: bytes, *, is_folder: bool) -> None:
    if is_folder:
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    if path.suffix == ".sh":
        path.chmod(0o755)
