"""Answers with stored files over ASGI: plain and encrypted, damaged while they are sent, and clients that leave."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import pytest

from ragsvc.core.errors import CryptoFailure
from ragsvc.core.ids import TenantId
from ragsvc.crypto.at_rest import DEFAULT_CHUNK_BYTES, HEADER_BYTES, READ_BYTES, MasterKey, MasterKeys
from ragsvc.store.blobs import BlobStore, EncryptedFile
from ragsvc.store.data_keys import create_data_keys
from ragsvc.web.stored_files import StoredFile

pytestmark = pytest.mark.anyio

ACME = TenantId("acme")
CONTENT = bytes(range(253)) * 10_000  # 2.5 MB, sent in five pieces
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(params=["plain", "encrypted"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    keys = create_data_keys(tmp_path, MasterKeys(MasterKey(bytes(32)))) if request.param == "encrypted" else None
    return filled(BlobStore(tmp_path, keys))


def filled(store: BlobStore) -> BlobStore:
    incoming = store.incoming(limit_bytes=len(CONTENT))
    incoming.write(CONTENT)
    store.publish(incoming, ACME, incoming.finish())
    return store


def encrypted_store(folder: Path) -> BlobStore:
    return filled(BlobStore(folder, create_data_keys(folder, MasterKeys(MasterKey(bytes(32))))))


class Exchange:
    """One request for the stored file; ``sent`` are the messages of the response."""

    def __init__(self, store: BlobStore, *, asked_range: bytes | None = None) -> None:
        self.response = StoredFile(store.content(ACME, SHA256), size=len(CONTENT), sha256=SHA256, headers={})
        headers = [] if asked_range is None else [(b"range", asked_range)]
        self.scope: Any = {"type": "http", "method": "GET", "headers": headers}
        self.sent: list[Any] = []
        self.left = asyncio.Event()

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.sent[1:])

    async def receive(self) -> Any:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    async def run(self) -> None:
        await self.response(self.scope, self.receive, self.send)


async def test_a_file_is_sent_in_pieces_and_the_last_one_ends_the_response(store: BlobStore) -> None:
    exchange = Exchange(store)
    await exchange.run()
    assert exchange.sent[0]["status"] == 200
    assert exchange.body == CONTENT
    assert [message["more_body"] for message in exchange.sent[1:]] == [True] * 4 + [False]
    assert max(len(message["body"]) for message in exchange.sent[1:]) == READ_BYTES


@pytest.mark.parametrize(
    ("begin", "end"),
    [(0, 1), (5, READ_BYTES + 5), (DEFAULT_CHUNK_BYTES - 1, DEFAULT_CHUNK_BYTES + 1), (len(CONTENT) - 7, len(CONTENT))],
)
async def test_a_range_is_sent_alone(store: BlobStore, begin: int, end: int) -> None:
    exchange = Exchange(store, asked_range=b"bytes=%d-%d" % (begin, end - 1))
    await exchange.run()
    assert exchange.sent[0]["status"] == 206
    assert exchange.body == CONTENT[begin:end]
    assert exchange.sent[-1]["more_body"] is False


async def test_a_chunk_altered_while_the_file_is_sent_breaks_the_response_off_after_genuine_bytes(
    tmp_path: Path,
) -> None:
    store = encrypted_store(tmp_path)
    path = store.path(ACME, SHA256)
    content = bytearray(path.read_bytes())
    content[HEADER_BYTES + 20 * (DEFAULT_CHUNK_BYTES + 16)] ^= 1  # the fifth chunk of the third piece
    path.write_bytes(content)
    exchange = Exchange(store)
    with pytest.raises(CryptoFailure):
        await exchange.run()
    assert exchange.body == CONTENT[: 2 * READ_BYTES]
    assert all(message["more_body"] for message in exchange.sent[1:])  # the response has no end


async def test_a_file_that_cannot_be_read_at_all_is_refused_before_the_status(tmp_path: Path) -> None:
    store = encrypted_store(tmp_path)
    path = store.path(ACME, SHA256)
    path.write_bytes(path.read_bytes()[:-1])
    exchange = Exchange(store)
    with pytest.raises(CryptoFailure):
        await exchange.run()
    assert exchange.sent == []


class CountedReads(EncryptedFile):
    """Counts the pieces that were read, and notes when the file was closed."""

    def __init__(self, path: Path, masters: MasterKeys, *, context: bytes) -> None:
        super().__init__(path, masters, context=context)
        self.read = 0
        self.closed = False

    def pieces(self, begin: int = 0, end: int | None = None):
        try:
            for piece in super().pieces(begin, end):
                self.read += 1
                yield piece
        finally:
            self.closed = True


async def test_nothing_is_read_for_a_client_that_has_left_and_at_most_one_piece_is_in_memory(tmp_path: Path) -> None:
    master = MasterKeys(MasterKey(bytes(32)))
    store = filled(BlobStore(tmp_path, create_data_keys(tmp_path, master)))
    stored = CountedReads(store.path(ACME, SHA256), master, context=SHA256.encode())
    exchange = Exchange(store)
    exchange.response = StoredFile(stored, size=len(CONTENT), sha256=SHA256, headers={})
    read_before: list[int] = []

    async def send(message: Any) -> None:
        exchange.sent.append(message)
        read_before.append(stored.read)
        if len(exchange.sent) == 3:  # the second piece: the client reads no more, and disconnects
            exchange.left.set()
            await asyncio.Event().wait()

    await exchange.response(exchange.scope, exchange.receive, send)
    assert read_before == [1, 1, 2]
    assert stored.read == 2
    assert stored.closed
