"""A bucket whose server is killed, refuses, or replaces an object while it is read."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from ragsvc.core.errors import StorageUnavailable
from ragsvc.store.file_cache import FileCache
from tests.support.s3_server import SECRET, S3Server, s3_program

object_files = pytest.importorskip("ragsvc.store.object_files", reason="needs the extra 's3'")
ObjectFiles = object_files.ObjectFiles
NAME = "blobs/acme/ab/abcd"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A server of its own, which a test may kill."""
    folder = tmp_path / "s3"
    folder.mkdir()
    made = S3Server(s3_program(), folder)
    for name, value in made.environment().items():
        monkeypatch.setenv(name, value)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def opened(server: S3Server, bucket: str, folder: Path, **options) -> ObjectFiles:
    made = object_files.open_bucket(bucket, prefix="", endpoint=server.endpoint, region=None)
    return ObjectFiles(made, FileCache(folder / "cache", max_bytes=0), location=f"s3://{bucket}", **options)


def put(files: ObjectFiles, folder: Path, content: bytes, *, intact: bool = True) -> None:
    source = folder / "source"
    source.write_bytes(content)
    files.put(source, NAME, is_intact=lambda: intact)


def read(files: ObjectFiles) -> bytes:
    with files.local_copy(NAME, verify=lambda _: None) as path:
        return path.read_bytes()


def test_while_the_server_is_gone_requests_fail_at_once_and_one_of_them_finds_it_again(
    server, tmp_path, caplog
) -> None:
    now = [0.0]
    files = opened(server, server.new_bucket(), tmp_path, monotonic=lambda: now[0])
    put(files, tmp_path, b"content")
    server.stop()
    for request in (
        lambda: put(files, tmp_path, b"more", intact=False),
        lambda: read(files),
        lambda: files.find(NAME),
        lambda: files.delete(NAME),
        lambda: files.move(NAME, "other"),
        lambda: list(files.entries("blobs")),
    ):
        with pytest.raises(StorageUnavailable) as caught:
            request()
        assert caught.value.retry_after_s
        assert caught.value.__cause__ is None
    assert (files.fault, files.probe()) == ("Connection refused", False)
    server.start()
    with pytest.raises(StorageUnavailable):
        read(files)  # no request is sent before its time
    now[0] = 3.0
    assert read(files) == b"content"
    assert (files.fault, files.probe()) == (None, True)
    said = [record.levelno for record in caplog.records if "file store" in record.getMessage()]
    assert said == [logging.ERROR, logging.WARNING]


def test_credentials_that_are_refused_later_are_no_missing_file(s3_server, tmp_path, monkeypatch, caplog) -> None:
    bucket = s3_server.new_bucket()
    put(opened(s3_server, bucket, tmp_path), tmp_path, b"content")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-secret")
    files = opened(s3_server, bucket, tmp_path)
    with pytest.raises(StorageUnavailable) as caught:
        read(files)
    assert files.fault == "SignatureDoesNotMatch"
    shown = f"{caplog.text} {caught.value} {files!r}"
    assert not any(secret in shown for secret in ("another-secret", SECRET))


def test_a_bucket_that_was_removed_is_no_missing_file(s3_server, tmp_path) -> None:
    files = opened(s3_server, "files-that-never-were", tmp_path)
    with pytest.raises(StorageUnavailable):
        read(files)
    assert files.fault == "NoSuchBucket"


def test_a_file_that_is_replaced_while_it_is_read_is_never_a_mixture(s3_server, tmp_path, monkeypatch) -> None:
    files = opened(s3_server, s3_server.new_bucket(), tmp_path)
    first, second = (letter * (3 * object_files._PIECE_BYTES) for letter in (b"a", b"b"))
    put(files, tmp_path, first)
    replaced = False
    genuine = ObjectFiles._pieces

    def pieces(self, name):
        nonlocal replaced
        for piece in genuine(self, name):
            yield piece
            if not replaced:
                replaced = True
                put(files, tmp_path, second, intact=False)

    monkeypatch.setattr(ObjectFiles, "_pieces", pieces)
    assert read(files) == second
