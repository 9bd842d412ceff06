import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ragsvc.core.errors import DataDirectoryLocked, StorageFull, StoredDataDamaged, TooLarge
from ragsvc.core.ids import TenantId
from ragsvc.crypto.at_rest import HEADER_BYTES, MasterKey, MasterKeys, encrypt
from ragsvc.store import local_files
from ragsvc.store.blobs import BlobStore, ComparedFiles
from ragsvc.store.data_keys import DataKeys, create_data_keys
from ragsvc.store.directory_lock import DataDirectoryLock

ACME = TenantId("acme")


def encrypted_store(root: Path) -> tuple[BlobStore, DataKeys]:
    keys = create_data_keys(root, MasterKeys(MasterKey(bytes(32))))
    return BlobStore(root, keys), keys


def add(store: BlobStore, content: bytes) -> str:
    incoming = store.incoming(limit_bytes=len(content))
    incoming.write(content)
    sha256 = incoming.finish()
    store.publish(incoming, ACME, sha256)
    return sha256


def test_every_check_of_an_encrypted_file_finds_each_altered_byte_and_another_file(tmp_path: Path) -> None:
    store, keys = encrypted_store(tmp_path)
    sha256 = add(store, b"x" * 100)
    path = store.path(ACME, sha256)
    genuine = path.read_bytes()
    for _ in range(2):  # hashed, then authenticated only
        store.check(ACME, sha256)
    for place in (0, 20, HEADER_BYTES, len(genuine) - 1):
        path.write_bytes(genuine[:place] + bytes([genuine[place] ^ 1]) + genuine[place + 1 :])
        assert not store.is_intact(ACME, sha256)
    path.write_bytes(encrypt(b"y" * 100, keys.masters, context=sha256.encode()))  # with the key, but not the content
    for _ in range(2):
        with pytest.raises(StoredDataDamaged, match="not the file that was uploaded"):
            store.check(ACME, sha256)
    path.write_bytes(genuine)
    store.check(ACME, sha256)


def test_the_memory_of_compared_files_is_bounded_and_keeps_the_latest() -> None:
    compared = ComparedFiles(limit=2)
    for number in range(4):
        compared.add(str(number), b"header")
    assert [(str(number), b"header") in compared for number in range(4)] == [False, False, True, True]
    assert ("3", b"other header") not in compared


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_a_file_appears_under_its_hash_and_only_once(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    for _ in range(2):
        incoming = store.incoming(limit_bytes=100)
        incoming.write(b"hello")
        sha256 = incoming.finish()
        store.publish(incoming, ACME, sha256)
    assert sha256 == hashlib.sha256(b"hello").hexdigest()
    assert store.path(ACME, sha256).read_bytes() == b"hello"
    assert files(tmp_path) == [f"blobs/acme/{sha256[:2]}/{sha256}"]
    store.remove(ACME, sha256)
    store.remove(ACME, sha256)
    assert files(tmp_path) == []


def test_over_the_limit_nothing_is_left(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    incoming = store.incoming(limit_bytes=4)
    incoming.write(b"1234")
    with pytest.raises(TooLarge) as caught:
        incoming.write(b"5")
    assert caught.value.limit_bytes == 4
    incoming.discard()
    assert files(tmp_path) == []


def test_a_full_disk_is_said_so(tmp_path: Path) -> None:
    incoming = BlobStore(tmp_path).incoming(limit_bytes=1 << 30)
    incoming._file.close()
    incoming._file = open("/dev/full", "wb")  # noqa: SIM115, PTH123 - the device that is always full
    incoming.write(b"x")
    with pytest.raises(StorageFull):
        incoming.finish()
    with pytest.raises(OSError, match="No space"):
        incoming._file.close()


@pytest.mark.parametrize("tenant", ["../evil", "a/b", "ÄÖ", "", ".", "A", "x" * 200])
def test_no_tenant_name_leaves_its_folder(tmp_path: Path, tenant: str) -> None:
    store = BlobStore(tmp_path)
    path = store.path(TenantId(tenant), "ab" * 32)
    assert path.resolve().parent.parent.parent == (tmp_path / "blobs").resolve()
    assert path.parent.parent.name not in ("", ".", "..")


def test_folders_of_tenants_differ(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    odd = store.path(TenantId("ÄÖ"), "ab" * 32).parent.parent.name
    names = ["a", "A", "b", odd, "ÄÖ"]
    assert len({store.path(TenantId(name), "ab" * 32) for name in names}) == len(names)


def test_a_second_process_is_refused_and_told_who_holds_the_directory(tmp_path: Path) -> None:
    lock = DataDirectoryLock(tmp_path)
    lock.acquire()
    program = (
        "import sys; from pathlib import Path; from ragsvc.store.directory_lock import DataDirectoryLock\n"
        "DataDirectoryLock(Path(sys.argv[1])).acquire()"
    )
    second = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False, timeout=60
    )
    assert second.returncode != 0
    assert f"pid {os.getpid()}" in second.stderr
    lock.release()
    third = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False, timeout=60)
    assert third.returncode == 0


def test_the_lock_is_exclusive_within_a_process_too(tmp_path: Path) -> None:
    first = DataDirectoryLock(tmp_path)
    first.acquire()
    with pytest.raises(DataDirectoryLocked):
        DataDirectoryLock(tmp_path).acquire()
    first.release()


def test_the_folders_of_a_stored_file_are_synced_before_it_counts_as_stored(tmp_path: Path, monkeypatch) -> None:
    """A folder that exists may have been made by a process that was killed before it synced it."""
    synced: list[str] = []
    monkeypatch.setattr(local_files, "sync_folder", lambda folder: synced.append(str(folder.relative_to(tmp_path))))

    def publish(store: BlobStore, content: bytes) -> str:
        incoming = store.incoming(limit_bytes=100)
        incoming.write(content)
        sha256 = incoming.finish()
        store.publish(incoming, ACME, sha256)
        assert incoming.published
        return sha256[:2]

    store = BlobStore(tmp_path)
    name = publish(store, b"first")
    assert synced == [".", "blobs", "blobs/acme", f"blobs/acme/{name}"]
    synced.clear()
    same = next(b"%d" % n for n in range(10_000) if hashlib.sha256(b"%d" % n).hexdigest().startswith(name))
    publish(store, same)
    assert synced == [f"blobs/acme/{name}"]
    synced.clear()
    store.remove(ACME, hashlib.sha256(same).hexdigest())
    publish(BlobStore(tmp_path), same)
    assert synced == [f"blobs/acme/{name}", ".", "blobs", "blobs/acme", f"blobs/acme/{name}"]
    for content in (b"first", same):
        store.remove(ACME, hashlib.sha256(content).hexdigest())
    store.remove_empty_folder(ACME)
    synced.clear()
    publish(store, b"first")
    assert synced == ["blobs", "blobs/acme", f"blobs/acme/{name}"]


def test_what_is_in_the_place_of_a_file_keeps_its_folder_when_empty_ones_are_removed(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    sha256 = add(store, b"file")
    path = store.path(ACME, sha256)
    path.unlink()
    path.mkdir()
    store.remove_empty_folder(ACME)
    assert path.is_dir()
    path.rmdir()
    store.remove_empty_folder(ACME)
    assert list(store.folder.iterdir()) == []
