"""Bundles on disk: what is refused when reading, and that writing never loses or half-writes anything."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from support.bundles import toy_bundle, toy_manifest

from edgeseg.bundle import MANIFEST, MODEL, SMALLER, Bundle, check_place, write_bundle
from edgeseg.errors import BundleError, OutputError

FILES = {MODEL: b"the graph", "report/index.html": b"<html>"}


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_bundle(tmp_path / "toy.edgeseg", toy_manifest(), FILES)


def edit(bundle: Bundle, **changes: Any) -> None:
    """Change fields of the manifest file."""
    path = bundle.path / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


class TestOpen:
    def test_reads_what_was_written(self, bundle: Bundle) -> None:
        again = Bundle.open(bundle.path)
        assert again == bundle
        assert again.read_model() == b"the graph"
        assert again.manifest.files == {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}

    def test_one_in_another(self, bundle: Bundle, tmp_path: Path) -> None:
        assert bundle.smaller is None
        held = {name: (bundle.path / name).read_bytes() for name in (MANIFEST, *FILES)}
        files = {**FILES, **{f"{SMALLER}/{name}": content for name, content in held.items()}}
        outer = Bundle.open(write_bundle(tmp_path / "outer.edgeseg", toy_manifest(16, 24), files).path)
        assert outer.smaller == Bundle.open(outer.path / "smaller")
        assert outer.smaller.manifest == bundle.manifest
        (outer.path / SMALLER / MODEL).write_bytes(b"another graph")
        with pytest.raises(BundleError, match=r"smaller/model\.onnx was changed or cut short"):
            Bundle.open(outer.path)

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(BundleError, match=r"there is no bundle at .*/none; make one with: edgeseg convert"):
            Bundle.open(tmp_path / "none")

    def test_foreign_folder(self, tmp_path: Path) -> None:
        with pytest.raises(BundleError, match=r"is not an edgeseg bundle: expected a folder with manifest\.json"):
            Bundle.open(tmp_path)

    def test_file(self, tmp_path: Path) -> None:
        (tmp_path / "model.onnx").write_bytes(b"")
        with pytest.raises(BundleError, match=r"model\.onnx is not an edgeseg bundle"):
            Bundle.open(tmp_path / "model.onnx")

    def test_manifest_that_is_no_text(self, bundle: Bundle) -> None:
        (bundle.path / MANIFEST).write_bytes(b"\xff\xfe\x00")
        with pytest.raises(BundleError, match=r"cannot read .*manifest\.json"):
            Bundle.open(bundle.path)

    def test_manifest_cut_short(self, bundle: Bundle) -> None:
        path = bundle.path / MANIFEST
        path.write_bytes(path.read_bytes()[:200])
        with pytest.raises(BundleError, match=r"manifest\.json is not JSON"):
            Bundle.open(bundle.path)

    def test_manifest_of_a_size_that_no_manifest_has(self, bundle: Bundle) -> None:
        os.truncate(bundle.path / MANIFEST, 65 * 2**20)
        with pytest.raises(BundleError, match=r"has 68157440 bytes, which no manifest has"):
            Bundle.open(bundle.path)

    def test_newer(self, bundle: Bundle) -> None:
        edit(bundle, schema_version=4)
        with pytest.raises(BundleError, match=r"schema version 4, but this edgeseg reads up to 3; upgrade with: pip"):
            Bundle.open(bundle.path)

    def test_without_a_model(self, bundle: Bundle) -> None:
        edit(bundle, files={})
        with pytest.raises(BundleError, match=r"the manifest names no model\.onnx"):
            Bundle.open(bundle.path)

    def test_file_missing(self, bundle: Bundle) -> None:
        (bundle.path / "report/index.html").unlink()
        with pytest.raises(BundleError, match=r"is incomplete: report/index\.html is missing; copy the whole folder"):
            Bundle.open(bundle.path)

    @pytest.mark.parametrize("content", [b"the grap", b"the grapH", b""])
    def test_file_changed_or_cut_short(self, bundle: Bundle, content: bytes) -> None:
        (bundle.path / MODEL).write_bytes(content)
        expected, found = (hashlib.sha256(c).hexdigest()[:12] for c in (b"the graph", content))
        with pytest.raises(BundleError, match=f"expects SHA-256 {expected}.*, but model.onnx has {found}"):
            Bundle.open(bundle.path)
        assert Bundle.open(bundle.path, verify=False).manifest == bundle.manifest

    def test_model_changed_after_opening(self, bundle: Bundle) -> None:
        (bundle.path / MODEL).write_bytes(b"another graph")
        with pytest.raises(BundleError, match=r"model\.onnx changed since the bundle was opened"):
            bundle.read_model()

    @pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../secret", ".", ""])
    @pytest.mark.parametrize("verify", [True, False])
    def test_file_outside(self, bundle: Bundle, name: str, verify: bool) -> None:
        (bundle.path.parent / "secret").write_bytes(b"secret")
        edit(bundle, files={**bundle.manifest.files, name: "0" * 64})
        with pytest.raises(BundleError, match="which is outside the bundle; do not use this bundle") as caught:
            Bundle.open(bundle.path, verify=verify)
        assert repr(name) in str(caught.value)

    def test_link_that_leads_outside(self, bundle: Bundle) -> None:
        secret = bundle.path.parent / "secret"
        secret.write_bytes(b"the graph")
        (bundle.path / MODEL).unlink()
        (bundle.path / MODEL).symlink_to(secret)
        with pytest.raises(BundleError, match=r"names 'model\.onnx', which is outside the bundle"):
            Bundle.open(bundle.path)

    def test_folder_that_is_a_link(self, bundle: Bundle) -> None:
        link = bundle.path.parent / "link.edgeseg"
        link.symlink_to(bundle.path)
        assert Bundle.open(link).manifest == bundle.manifest


def everything(folder: Path) -> dict[str, bytes]:
    """Content of every file under a folder, hidden ones too."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def entries(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


class TestWrite:
    def test_is_readable_by_others(self, bundle: Bundle) -> None:
        assert bundle.path.stat().st_mode & 0o777 == 0o755

    def test_leaves_nothing_beside(self, bundle: Bundle) -> None:
        assert entries(bundle.path.parent) == ["toy.edgeseg"]

    def test_existing(self, bundle: Bundle) -> None:
        with pytest.raises(OutputError, match=r"toy\.edgeseg exists; choose another place with -o or replace it with"):
            write_bundle(bundle.path, toy_manifest(), FILES)

    def test_force_replaces_a_bundle(self, bundle: Bundle) -> None:
        write_bundle(bundle.path, toy_manifest(), {MODEL: b"new"}, force=True)
        assert entries(bundle.path) == [MANIFEST, MODEL]
        assert Bundle.open(bundle.path).read_model() == b"new"
        assert entries(bundle.path.parent) == ["toy.edgeseg"]

    def test_force_replaces_nothing_else(self, tmp_path: Path) -> None:
        (tmp_path / "precious").mkdir()
        (tmp_path / "precious/thesis.tex").write_bytes(b"years of work")
        with pytest.raises(OutputError, match=r"precious exists and is not an edgeseg bundle, so --force does not"):
            write_bundle(tmp_path / "precious", toy_manifest(), FILES, force=True)
        assert everything(tmp_path) == {"precious/thesis.tex": b"years of work"}

    def test_no_such_parent(self, tmp_path: Path) -> None:
        with pytest.raises(OutputError, match=r"the folder .*/none does not exist; create it first"):
            toy_bundle(tmp_path / "none" / "toy.edgeseg")

    def test_no_permission(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "access", lambda path, mode: False)
        with pytest.raises(OutputError, match=r"no permission in .*; choose another place with -o"):
            check_place(tmp_path / "toy.edgeseg", force=False)

    def test_refuses_to_write_outside(self, tmp_path: Path) -> None:
        with pytest.raises(BundleError, match="outside the bundle"):
            write_bundle(tmp_path / "toy.edgeseg", toy_manifest(), {**FILES, "../out": b""})
        assert entries(tmp_path) == []


class TestFailure:
    @pytest.mark.parametrize(
        ("code", "message"),
        [
            (errno.ENOSPC, "the disk is full; free some space; nothing was changed"),
            (errno.EDQUOT, "the disk is full; free some space; nothing was changed"),
            (errno.EIO, "Input/output error; choose another place with -o; nothing was changed"),
        ],
    )
    @pytest.mark.parametrize("force", [True, False])
    def test_while_writing(
        self, tmp_path: Path, code: int, message: str, force: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if force:
            toy_bundle(tmp_path / "toy.edgeseg")
        before = everything(tmp_path)

        def fail(descriptor: int) -> None:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(OutputError, match=message):
            write_bundle(tmp_path / "toy.edgeseg", toy_manifest(), FILES, force=force)
        assert everything(tmp_path) == before
        assert entries(tmp_path) == (["toy.edgeseg"] if force else [])

    def test_while_putting_into_place(self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
        before = everything(bundle.path.parent)
        rename = Path.rename

        def fail(self: Path, target: Path) -> Path:
            if target == bundle.path and ".old." not in str(self):
                raise OSError(errno.EIO, "Input/output error")
            return rename(self, target)

        monkeypatch.setattr(Path, "rename", fail)
        with pytest.raises(OutputError, match="nothing was changed"):
            write_bundle(bundle.path, toy_manifest(), {MODEL: b"new"}, force=True)
        assert everything(bundle.path.parent) == before
        assert entries(bundle.path.parent) == ["toy.edgeseg"]

    def test_interrupted(self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
        before = everything(bundle.path.parent)

        def interrupt(descriptor: int) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            write_bundle(bundle.path, toy_manifest(), {MODEL: b"new"}, force=True)
        assert everything(bundle.path.parent) == before
        assert entries(bundle.path.parent) == ["toy.edgeseg"]

    def test_on_a_disk_that_is_really_full(self, small_disk: Path) -> None:
        toy_bundle(small_disk / "toy.edgeseg")
        before = everything(small_disk)
        with pytest.raises(OutputError, match="the disk is full; free some space; nothing was changed"):
            write_bundle(small_disk / "toy.edgeseg", toy_manifest(), {MODEL: bytes(2**20)}, force=True)
        assert everything(small_disk) == before
        assert entries(small_disk) == ["toy.edgeseg"]
        with pytest.raises(OutputError, match="the disk is full"):
            write_bundle(small_disk / "other.edgeseg", toy_manifest(), {MODEL: bytes(2**20)})
        assert entries(small_disk) == ["toy.edgeseg"]


class TestHostileNames:
    @pytest.mark.parametrize("name", ["a\0b", "\ud800", "loop"])
    def test_names_that_no_file_has(self, name: str, bundle: Bundle) -> None:
        (bundle.path / "loop").symlink_to("loop")
        edit(bundle, files={**bundle.manifest.files, name: "0" * 64})
        with pytest.raises(BundleError, match=r"do not use this bundle|is incomplete"):
            Bundle.open(bundle.path)

    def test_a_name_that_is_too_long(self, bundle: Bundle) -> None:
        edit(bundle, files={**bundle.manifest.files, "a" * 300: "0" * 64})
        with pytest.raises(BundleError, match=r"cannot read the bundle .* File name too long"):
            Bundle.open(bundle.path)

    def test_a_path_that_is_too_long(self) -> None:
        with pytest.raises(BundleError, match=r"cannot read the bundle a+: File name too long"):
            Bundle.open("a" * 300)
        with pytest.raises(OutputError, match="File name too long; choose another place with -o"):
            check_place(Path("a" * 300), force=False)

    def test_a_file_that_may_not_be_read(self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
        read = Path.open

        def refuse(path: Path, *arguments: Any, **options: Any) -> Any:
            if path.name == MANIFEST:
                return read(path, *arguments, **options)
            raise PermissionError(errno.EACCES, "Permission denied", str(path))

        monkeypatch.setattr(Path, "open", refuse)
        with pytest.raises(BundleError, match=r"Permission denied \(.*model\.onnx\); check its permissions"):
            Bundle.open(bundle.path)
        monkeypatch.setattr(Path, "read_bytes", refuse)
        with pytest.raises(BundleError, match=r"cannot read .*model\.onnx: Permission denied"):
            bundle.read_model()
