"""A bundle: the folder NAME.edgeseg/ with the network, its manifest and the proof of its accuracy."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgeseg.errors import BundleError, OutputError
from edgeseg.manifest import Manifest

__all__ = ["MANIFEST", "MODEL", "SMALLER", "Bundle", "check_place", "new_folder", "put_in_place", "write_bundle"]

MANIFEST = "manifest.json"
MODEL = "model.onnx"
SMALLER = "smaller"
"""Folder of a bundle in a bundle: the same classes for smaller frames."""
_LARGEST_MANIFEST = 64 * 2**20


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk whose manifest was read, and whose files were checked against it.

    Attributes:
        path: the folder.
        manifest: what it says of itself.
    """

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | Path, *, verify: bool = True) -> Bundle:
        """Read a bundle.

        Args:
            path: the folder.
            verify: compare the SHA-256 of every file that the manifest names.

        Raises:
            BundleError: for a folder that is missing, foreign, truncated, changed, newer than this edgeseg, or that
                names a file outside itself.
        """
        try:
            return cls._open(Path(path), verify)
        except OSError as error:
            raise BundleError(
                f"cannot read the bundle {path}: {error.strerror or error} ({error.filename}); check its permissions "
                "or copy it again"
            ) from error

    @classmethod
    def _open(cls, folder: Path, verify: bool) -> Bundle:
        if not folder.exists():
            raise BundleError(f"there is no bundle at {folder}; make one with: edgeseg convert MODEL.onnx --frames DIR")
        if not folder.is_dir() or not (folder / MANIFEST).is_file():
            raise BundleError(f"{folder} is not an edgeseg bundle: expected a folder with {MANIFEST}")
        manifest = Manifest.from_json(_read_manifest(folder / MANIFEST))
        if MODEL not in manifest.files:
            raise BundleError(f"{folder}: the manifest names no {MODEL}; convert the network again")
        bundle = cls(folder, manifest)
        for name, digest in manifest.files.items():
            file = _inside(folder, name)
            if not file.is_file():
                raise BundleError(f"{folder} is incomplete: {name} is missing; copy the whole folder or convert again")
            if verify:
                _check(file, name, digest)
        return bundle

    @property
    def smaller(self) -> Bundle | None:
        """The network of the same classes for smaller frames that this bundle holds, itself a bundle; None without one.

        Raises:
            BundleError: as `open`.
        """
        if f"{SMALLER}/{MANIFEST}" not in self.manifest.files:
            return None
        return Bundle.open(self.path / SMALLER)

    def read_model(self) -> bytes:
        """The canonical graph, a serialised ONNX model; its digest is checked again, since files can change."""
        try:
            content = (self.path / MODEL).read_bytes()
        except OSError as error:
            raise BundleError(f"cannot read {self.path / MODEL}: {error.strerror}; copy the bundle again") from error
        if hashlib.sha256(content).hexdigest() != self.manifest.files[MODEL]:
            raise BundleError(f"{self.path / MODEL} changed since the bundle was opened; convert the network again")
        return content


def _read_manifest(path: Path) -> str:
    if path.stat().st_size > _LARGEST_MANIFEST:
        raise BundleError(f"{path} has {path.stat().st_size} bytes, which no manifest has; convert the network again")
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"cannot read {path}: {error}; check its permissions or copy the bundle again") from error


def _inside(folder: Path, name: str) -> Path:
    """The path of a file named by a manifest, which must stand directly or deeper in the folder."""
    file = folder / name
    try:
        inside = folder.resolve() in file.resolve().parents
    except (ValueError, RuntimeError) as error:  # no name that a file can have; a loop of links
        raise BundleError(f"{folder}: the manifest names {name!r}, which is no file; do not use this bundle") from error
    if Path(name).is_absolute() or ".." in Path(name).parts or not inside:
        raise BundleError(f"{folder}: the manifest names {name!r}, which is outside the bundle; do not use this bundle")
    return file


def _check(file: Path, name: str, digest: str) -> None:
    with file.open("rb") as stream:
        found = hashlib.sha256()
        while block := stream.read(1 << 20):
            found.update(block)
    if found.hexdigest() != digest:
        raise BundleError(
            f"{file} was changed or cut short: the manifest expects SHA-256 {digest[:12]}..., but {name} has "
            f"{found.hexdigest()[:12]}...; copy the bundle again or convert the network again"
        )


def write_bundle(path: str | Path, manifest: Manifest, files: dict[str, bytes], *, force: bool = False) -> Bundle:
    """Write a bundle beside its place and rename it, so that there is never half a bundle and nothing is lost.

    Args:
        path: the folder to make.
        manifest: its manifest; `files` of it is replaced by the digests of `files`.
        files: content by file name.
        force: replace a bundle that stands there; anything else is never replaced.

    Raises:
        OutputError: when the place is taken or cannot be written, or the disk is full.
    """
    folder = Path(path)
    check_place(folder, force=force)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}
    complete = dataclasses.replace(manifest, files=digests)
    with new_folder(folder) as beside:
        for name, content in {**files, MANIFEST: complete.to_json().encode()}.items():
            file = _inside(beside, name)
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
    return Bundle(folder, complete)


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to write into, which then takes the place of `folder`, whole or not at all.

    Raises:
        OutputError: when it cannot be written or the disk is full; what stood there is as it was.
    """
    beside = None
    try:
        beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        beside.chmod(0o755)
        yield beside
        put_in_place(beside, folder)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        cure = (
            "the disk is full; free some space" if full else f"{error.strerror or error}; choose another place with -o"
        )
        raise OutputError(f"cannot write {folder}: {cure}; nothing was changed") from error
    finally:
        if beside is not None:
            shutil.rmtree(beside, ignore_errors=True)


def check_place(folder: Path, *, force: bool) -> None:
    """Refuse early what `write_bundle` would refuse: a taken or unwritable place.

    Raises:
        OutputError: with what to do.
    """
    try:
        _check_place(folder, force)
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror}; choose another place with -o") from error


def _check_place(folder: Path, force: bool) -> None:
    if folder.exists() and not force:
        raise OutputError(f"{folder} exists; choose another place with -o or replace it with --force")
    if folder.exists() and not (folder / MANIFEST).is_file():
        raise OutputError(
            f"{folder} exists and is not an edgeseg bundle, so --force does not replace it; choose another -o"
        )
    if not folder.parent.is_dir():
        raise OutputError(f"cannot write {folder}: the folder {folder.parent} does not exist; create it first")
    if not os.access(folder.parent, os.W_OK):
        raise OutputError(f"cannot write {folder}: no permission in {folder.parent}; choose another place with -o")


def put_in_place(beside: Path, folder: Path) -> None:
    """Rename a new folder into place; the old one steps aside and returns if anything stops that, Ctrl-C too."""
    if not folder.exists():
        beside.rename(folder)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
    old = aside / folder.name
    try:
        folder.rename(old)
        beside.rename(folder)
    except BaseException:
        if old.exists() and not folder.exists():
            old.rename(folder)
        if not old.exists():
            aside.rmdir()
        raise
    shutil.rmtree(aside, ignore_errors=True)
