"""Local copies of files that are stored elsewhere: bounded, fetched once, and never given while they are damaged."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ragsvc.core.errors import StorageFull, StoredDataDamaged
from ragsvc.store.file_cache import FileCache


class Origin:
    """Counts how often each file was fetched."""

    def __init__(self, cache: FileCache) -> None:
        self.cache = cache
        self.fetched: list[str] = []

    def read(self, name: str, size: int = 10, *, fresh: bool = False) -> bytes:
        def fetch(path: Path) -> None:
            self.fetched.append(name)
            path.write_bytes(name.encode().ljust(size, b"."))

        with self.cache.copy(name, fresh=fresh, fetch=fetch) as path:
            return path.read_bytes()


def files(folder: Path) -> int:
    return sum(path.is_file() for path in folder.rglob("*"))


def test_the_longest_unused_copies_are_removed_when_there_are_too_many_bytes(tmp_path: Path) -> None:
    origin = Origin(FileCache(tmp_path / "cache", max_bytes=30))
    for name in ("a", "b", "c", "a", "d", "a", "b"):
        assert origin.read(name) == name.encode().ljust(10, b".")
    assert origin.fetched == ["a", "b", "c", "d", "b"]
    assert (origin.cache.size_bytes, files(tmp_path)) == (30, 3)
    origin.read("large", size=31)
    assert origin.cache.size_bytes <= 30
    assert origin.read("a", fresh=True)
    assert origin.fetched[-1] == "a"
    origin.cache.forget("a")
    origin.read("a")
    assert origin.fetched[-2:] == ["a", "a"]


def test_a_copy_in_use_stays_and_one_without_room_goes_when_its_use_ends(tmp_path: Path) -> None:
    cache = FileCache(tmp_path / "cache", max_bytes=0)
    origin = Origin(cache)
    with cache.copy("a", lambda path: path.write_bytes(b"used") and None) as used:
        origin.read("b", size=100)
        assert used.read_bytes() == b"used"
        with cache.copy("a", lambda _: pytest.fail("it was fetched again")) as again:
            assert again == used
        assert used.exists()
    assert (cache.size_bytes, files(tmp_path)) == (0, 0)


def test_many_readers_of_a_file_fetch_it_once(tmp_path: Path) -> None:
    cache = FileCache(tmp_path / "cache", max_bytes=100)
    origin, together = Origin(cache), threading.Barrier(8)

    def read(_: int) -> bytes:
        together.wait()
        return origin.read("a")

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(read, range(8))) == {b"a........."}
    assert origin.fetched == ["a"]


def test_a_start_begins_without_the_copies_of_a_former_process(tmp_path: Path) -> None:
    Origin(FileCache(tmp_path / "cache", max_bytes=100)).read("a")
    (tmp_path / "cache" / "torn.part").write_bytes(b"torn")
    origin = Origin(FileCache(tmp_path / "cache", max_bytes=100))
    assert files(tmp_path) == 0
    origin.read("a")
    assert origin.fetched == ["a"]


def test_a_copy_that_somebody_removed_is_fetched_again(tmp_path: Path) -> None:
    origin = Origin(FileCache(tmp_path / "cache", max_bytes=100))
    origin.read("a")
    for path in (tmp_path / "cache").iterdir():
        path.unlink()
    assert origin.read("a").startswith(b"a")
    assert origin.cache.size_bytes == 10


def test_what_cannot_be_fetched_leaves_nothing(tmp_path: Path) -> None:
    cache = FileCache(tmp_path / "cache", max_bytes=100)
    origin = Origin(cache)
    origin.read("a")

    def damaged(path: Path) -> None:
        path.write_bytes(b"damaged")
        raise StoredDataDamaged("The stored file is damaged.")

    def full(_: Path) -> None:
        with open("/dev/full", "wb", buffering=0) as device:  # noqa: PTH123 - the device that is always full
            device.write(b"x")

    with pytest.raises(StoredDataDamaged), cache.copy("a", damaged, fresh=True):
        pass
    with (
        pytest.raises(StorageFull, match=r"^The disk is full\. The stored file cannot be fetched\.$"),
        cache.copy("b", full),
    ):
        pass
    assert (cache.size_bytes, files(tmp_path)) == (0, 0)


def test_an_uploaded_file_becomes_its_own_copy_unless_it_is_too_large(tmp_path: Path) -> None:
    cache = FileCache(tmp_path / "cache", max_bytes=10)
    for name, size in (("a", 10), ("b", 11)):
        source = tmp_path / "source"
        source.write_bytes(bytes(size))
        cache.adopt(name, source)
        assert not source.exists()
    with cache.copy("a", lambda _: pytest.fail("it was fetched")) as path:
        assert path.read_bytes() == bytes(10)
    assert cache.size_bytes == 10
