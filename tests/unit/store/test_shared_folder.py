"""A shared folder that is not mounted, and the notes that tie a place to its data directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from ragsvc.config import Settings
from ragsvc.core.errors import ConfigurationError, StorageUnavailable
from ragsvc.core.ids import TenantId
from ragsvc.crypto.at_rest import MasterKey
from ragsvc.store.blobs import BlobStore
from ragsvc.store.encrypt_directory import encrypt_directory, rotate_master_key
from ragsvc.wiring.file_storage import open_file_storage

ACME = TenantId("acme")


def settings(tmp_path: Path, *, data: str = "data", shared: str = "shared") -> Settings:
    (tmp_path / data).mkdir(exist_ok=True)
    return Settings(data_dir=tmp_path / data, files_url=(tmp_path / shared).as_uri())


def opened(tmp_path: Path) -> BlobStore:
    (tmp_path / "shared").mkdir(exist_ok=True)
    chosen = settings(tmp_path)
    return BlobStore(chosen.data_dir, files=open_file_storage(chosen))


def add(store: BlobStore, content: bytes) -> str:
    incoming = store.incoming(limit_bytes=100)
    try:
        incoming.write(content)
        sha256 = incoming.finish()
        store.publish(incoming, ACME, sha256)
    finally:
        incoming.discard()
    return sha256


def test_a_folder_that_is_not_mounted_is_unavailable_and_holds_no_damaged_files(tmp_path: Path) -> None:
    store = opened(tmp_path)
    sha256 = add(store, b"content")
    (tmp_path / "shared").rename(tmp_path / "unmounted")
    (tmp_path / "shared").mkdir()  # the mount point
    for request in (
        lambda: store.check(ACME, sha256),
        lambda: store.is_intact(ACME, sha256),
        lambda: store.exists(ACME, sha256),
        lambda: list(store.chunks(ACME, sha256)),
        lambda: list(store.entries()),
        lambda: store.remove(ACME, sha256),
        lambda: add(store, b"more"),
    ):
        with pytest.raises(StorageUnavailable) as caught:
            request()
        assert caught.value.retry_after_s
    assert not store.files.probe()
    assert "probably not mounted" in (store.files.fault or "")
    assert list((tmp_path / "shared").iterdir()) == list((tmp_path / "data" / "uploads").iterdir()) == []
    (tmp_path / "shared").rmdir()
    (tmp_path / "unmounted").rename(tmp_path / "shared")
    store.check(ACME, sha256)
    assert (store.files.probe(), store.files.fault) == (True, None)


def test_a_place_belongs_to_one_data_directory_which_remembers_it(tmp_path: Path) -> None:
    store = opened(tmp_path)
    add(store, b"content")
    opened(tmp_path)
    with pytest.raises(ConfigurationError, match="holds the files of another data directory"):
        open_file_storage(settings(tmp_path, data="other"))
    with pytest.raises(ConfigurationError, match="does not exist, or is not mounted"):
        open_file_storage(settings(tmp_path, shared="missing"))
    with pytest.raises(ConfigurationError, match=r"are at file:///.*/shared: set files_url to it"):
        open_file_storage(Settings(data_dir=tmp_path / "data"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigurationError, match=r"/empty is empty, and the files of this data directory are in file:"):
        open_file_storage(settings(tmp_path, shared="empty"))
    (tmp_path / "shared").rename(tmp_path / "moved")
    moved = open_file_storage(settings(tmp_path, shared="moved"))
    assert [entry.size_bytes for entry in moved.entries("blobs")] == [7]


def test_files_elsewhere_are_not_changed_in_place(tmp_path: Path) -> None:
    store = opened(tmp_path)
    key = MasterKey(bytes(32))
    with pytest.raises(ConfigurationError, match="are at file:"):
        encrypt_directory(store.root, key)
    with pytest.raises(ConfigurationError, match="are at file:"):
        rotate_master_key(store.root, key, MasterKey(bytes([1] * 32)))


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({"RAGSVC_FILES_URL": "s3://id:made-up-secret@bucket"}, "files_url: credentials do not belong in it"),
        ({"RAGSVC_FILES_URL": "/mnt/made-up-secret"}, "files_url: expected 's3://BUCKET'"),
        ({"RAGSVC_FILES_URL": "s3://bucket/a//b"}, "files_url: expected a prefix of letters"),
        ({"RAGSVC_FILES_ENDPOINT": "http://id:made-up-secret@host"}, "files_endpoint: credentials do not belong in it"),
        ({"RAGSVC_FILES_ENDPOINT": "made-up-secret"}, "files_endpoint: expected 'http://'"),
    ],
)
def test_a_place_that_is_no_address_is_refused_without_being_quoted(variables: dict[str, str], problem: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_env(variables)
    assert caught.value.message.startswith(problem)
    assert "made-up-secret" not in caught.value.message
