"""One suite for every FileStorage: a folder, a shared folder, and a bucket of a real S3 server."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from ragsvc.core.errors import CryptoFailure, StoredDataDamaged
from ragsvc.core.ids import TenantId
from ragsvc.core.ports.file_storage import FileStorage
from ragsvc.crypto.at_rest import MAGIC, MasterKey, MasterKeys
from ragsvc.store.blobs import BlobStore
from ragsvc.store.data_keys import create_data_keys
from ragsvc.store.file_cache import FileCache
from ragsvc.store.local_files import LocalFiles
from ragsvc.store.shared_folder import SharedFolder
from tests.support.s3_server import S3Server

ACME = TenantId("acme")
NAME = "blobs/acme/ab/abcd"
PIECES_BYTES = 20 << 20
"""More than two pieces of an upload in parts."""


def folder(tmp_path: Path, _: pytest.FixtureRequest) -> FileStorage:
    return LocalFiles(tmp_path / "data")


def shared_folder(tmp_path: Path, _: pytest.FixtureRequest) -> FileStorage:
    (tmp_path / "shared").mkdir()
    return SharedFolder(tmp_path / "shared")


def folder_on_another_file_system(tmp_path: Path, _: pytest.FixtureRequest) -> FileStorage:
    memory = Path("/dev/shm")  # noqa: S108 - a folder is made in it
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second file system")
    return SharedFolder(Path(tempfile.mkdtemp(prefix="ragsvc-test-", dir=memory)))


def bucket(tmp_path: Path, request: pytest.FixtureRequest) -> FileStorage:
    server: S3Server = request.getfixturevalue("s3_server")
    from ragsvc.store.object_files import ObjectFiles, open_bucket  # noqa: PLC0415 - needs an extra

    name = server.new_bucket()
    opened = open_bucket(name, prefix="a/prefix", endpoint=server.endpoint, region=None)
    return ObjectFiles(opened, FileCache(tmp_path / "cache", max_bytes=1 << 30), location=f"s3://{name}/a/prefix")


MAKERS: list[Callable[[Path, pytest.FixtureRequest], FileStorage]] = [
    folder,
    shared_folder,
    folder_on_another_file_system,
    bucket,
]


@pytest.fixture(params=MAKERS, ids=lambda make: make.__name__.replace("_", " "))
def storage(request, tmp_path):
    (tmp_path / "data").mkdir()
    made = request.param(tmp_path, request)
    yield made
    if isinstance(made, SharedFolder) and not made.root.is_relative_to(tmp_path):
        shutil.rmtree(made.root)


def put(storage: FileStorage, tmp_path: Path, name: str, content: bytes, *, intact: bool = True) -> None:
    source = tmp_path / "data" / "source"
    source.write_bytes(content)
    storage.put(source, name, is_intact=lambda: intact)
    assert not source.exists()


def read(storage: FileStorage, name: str, *, fresh: bool = False) -> bytes:
    with storage.local_copy(name, verify=lambda _: None, fresh=fresh) as path:
        return path.read_bytes()


def names(storage: FileStorage, under: str = "blobs") -> list[str]:
    return sorted(entry.name for entry in storage.entries(under))


def test_a_file_is_stored_found_listed_and_read(storage, tmp_path) -> None:
    put(storage, tmp_path, NAME, b"content")
    entry = storage.find(NAME)
    assert entry is not None
    assert (entry.name, entry.size_bytes) == (NAME, 7)
    assert abs(entry.modified_at - time.time()) < 600
    assert [(found.name, found.size_bytes) for found in storage.entries("blobs")] == [(NAME, 7)]
    assert read(storage, NAME) == read(storage, NAME, fresh=True) == b"content"
    assert storage.probe()
    assert storage.fault is None


@pytest.mark.parametrize("size", [3, PIECES_BYTES], ids=["small", "in parts"])
def test_a_file_that_exists_is_kept_if_it_is_intact_and_replaced_otherwise(storage, tmp_path, size) -> None:
    first, second = (os.urandom(size) for _ in range(2))
    put(storage, tmp_path, NAME, first)
    assert read(storage, NAME) == first
    put(storage, tmp_path, NAME, b"not stored" if size == 3 else second, intact=True)
    assert read(storage, NAME, fresh=True) == first
    put(storage, tmp_path, NAME, second, intact=False)
    assert read(storage, NAME) == read(storage, NAME, fresh=True) == second
    assert names(storage) == [NAME]


def test_what_does_not_exist_is_said_so(storage, tmp_path) -> None:
    assert storage.find(NAME) is None
    assert names(storage) == []
    with pytest.raises(FileNotFoundError):
        read(storage, NAME)
    storage.delete(NAME)
    storage.prune("blobs/acme")
    put(storage, tmp_path, NAME, b"")
    assert read(storage, NAME) == b""


def test_deleted_and_moved_files_are_gone_from_their_place(storage, tmp_path) -> None:
    for name in (NAME, "blobs/acme/ab/other", "blobs/beta/cd/third"):
        put(storage, tmp_path, name, name.encode())
        assert read(storage, name) == name.encode()
    storage.delete(NAME)
    storage.move("blobs/beta/cd/third", "quarantine/2026-05-20/beta/cd/third")
    for gone in (NAME, "blobs/beta/cd/third"):
        assert storage.find(gone) is None
        with pytest.raises(FileNotFoundError):
            read(storage, gone)
    assert names(storage) == ["blobs/acme/ab/other"]
    assert names(storage, "blobs/beta") == []
    assert names(storage, "quarantine") == ["quarantine/2026-05-20/beta/cd/third"]
    assert read(storage, "quarantine/2026-05-20/beta/cd/third") == b"blobs/beta/cd/third"
    storage.prune("blobs/acme")  # holds a file
    assert read(storage, "blobs/acme/ab/other") == b"blobs/acme/ab/other"


def test_a_listing_has_several_pages_and_only_what_is_below_the_folder(storage, tmp_path) -> None:
    wanted = [f"blobs/acme/{number:02x}/{number:04x}" for number in range(120)]
    for name in [*wanted, "blobs/acme-2/ab/abcd"]:
        put(storage, tmp_path, name, b"x")
    assert names(storage, "blobs/acme") == wanted


@pytest.fixture(params=[False, True], ids=["plain", "encrypted"])
def blobs(request, storage, tmp_path) -> BlobStore:
    data, memory = tmp_path / "data", tmp_path / "memory"
    memory.mkdir()
    keys = create_data_keys(data, MasterKeys(MasterKey(bytes(32)))) if request.param else None
    return BlobStore(data, keys, memory_folder=memory if request.param else None, files=storage)


def add(store: BlobStore, content: bytes) -> str:
    incoming = store.incoming(limit_bytes=len(content))
    incoming.write(content)
    sha256 = incoming.finish()
    store.publish(incoming, ACME, sha256)
    assert incoming.published
    assert not incoming.path.exists()
    return sha256


def as_stored(store: BlobStore, sha256: str) -> bytes:
    return read(store.files, store.name(ACME, sha256), fresh=True)


def alter(store: BlobStore, tmp_path: Path, sha256: str, content: bytes) -> None:
    """Replace what is stored, and with it the local copy."""
    put(store.files, tmp_path, store.name(ACME, sha256), content, intact=False)


def test_content_comes_back_whole_in_ranges_and_for_child_processes(blobs) -> None:
    content = os.urandom(3 << 20)
    sha256 = add(blobs, content)
    assert sha256 == hashlib.sha256(content).hexdigest()
    blobs.check(ACME, sha256)
    blobs.check(ACME, sha256, fresh=True)
    assert b"".join(blobs.chunks(ACME, sha256)) == content
    with blobs.readable(ACME, sha256) as path:
        assert path.read_bytes() == content
    stored = blobs.content(ACME, sha256)
    if not isinstance(stored, Path):
        assert b"".join(stored.pieces(1_000_000, 2_500_000)) == content[1_000_000:2_500_000]
        assert b"".join(stored.pieces(0, len(content))) == content


def test_bytes_are_encrypted_before_they_leave_the_machine(blobs) -> None:
    content = b"A sentence that must not be readable in the store. " * 1000
    sha256 = add(blobs, content)
    stored = as_stored(blobs, sha256)
    if blobs.encrypted:
        assert stored.startswith(MAGIC)
        assert b"readable in the store" not in stored
        assert not any(sha256 in entry.name or "acme" in entry.name for entry in blobs.entries())
    else:
        assert stored == content


def test_the_same_bytes_are_stored_once_and_a_damaged_file_is_mended_by_another_upload(blobs, tmp_path) -> None:
    sha256 = add(blobs, b"the same bytes")
    before = as_stored(blobs, sha256)
    assert add(blobs, b"the same bytes") == sha256
    assert as_stored(blobs, sha256) == before
    alter(blobs, tmp_path, sha256, b"damaged")
    assert not blobs.is_intact(ACME, sha256)
    add(blobs, b"the same bytes")
    assert blobs.is_intact(ACME, sha256)
    assert b"".join(blobs.chunks(ACME, sha256)) == b"the same bytes"


def test_damaged_and_missing_files_are_never_given_as_content(blobs, tmp_path) -> None:
    content = b"genuine " * 100
    sha256 = add(blobs, content)
    genuine = as_stored(blobs, sha256)
    for damaged in (genuine[:-1], genuine[:-1] + bytes([genuine[-1] ^ 1]), b""):
        alter(blobs, tmp_path, sha256, damaged)
        with pytest.raises(
            StoredDataDamaged, match=r"^The stored file of this document .*\. Upload the document again\.$"
        ):
            blobs.check(ACME, sha256)
        assert not blobs.is_intact(ACME, sha256)
        if blobs.files.makes_copies:
            with pytest.raises((StoredDataDamaged, CryptoFailure)), blobs.readable(ACME, sha256) as path:
                assert path.read_bytes() == content
    blobs.remove(ACME, sha256)
    assert not blobs.exists(ACME, sha256)
    with pytest.raises(StoredDataDamaged, match="is missing"):
        blobs.check(ACME, sha256)
    with pytest.raises(FileNotFoundError):
        list(blobs.chunks(ACME, sha256))


def test_unknown_files_are_found_quarantined_and_removed_with_their_tenant(blobs) -> None:
    known, unknown = add(blobs, b"known"), add(blobs, b"unknown")
    (name,) = blobs.unknown_files({(ACME, known)})
    assert name == blobs.name(ACME, unknown)
    assert blobs.quarantine(name, date(2026, 5, 20)).startswith("quarantine/2026-05-20/")
    assert blobs.unknown_files({(ACME, known)}) == []
    assert not blobs.exists(ACME, unknown)
    assert sorted(blobs.stored_names(ACME)) == ([] if blobs.encrypted else [known])
    assert blobs.remove_quarantined(TenantId("beta")) == 0
    assert blobs.remove_quarantined(ACME) == 1
    assert names(blobs.files, "quarantine") == []
    blobs.remove(ACME, known)
    blobs.remove_empty_folder(ACME)
    assert list(blobs.entries()) == []
