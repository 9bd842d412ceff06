"""Exports everything of a tenant as a tar archive, made while it is sent: nothing is written to disk.

Members: ``tenant.json``, ``collections.json``, ``vector_stores.json`` with the documents of their files, ``keys.json``
without secrets, ``usage.json``, ``uploads.json``, and for each document ``documents/<id>.json`` and
``files/<id>/<file name>``. A file that did not come with a document has ``uploaded_files/<id>.json`` and
``files/<id>/<file name>``; a part of an upload has ``upload_parts/<id>``. Conversations are in
``conversations/<id>.json``, responses with their input in ``responses/<id>.json``, and feedback in
``feedback/<id>.json``. ``missing.json`` lists the ids whose stored bytes are missing.
"""

from __future__ import annotations

import itertools
import tarfile
import time
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple, TypeVar, cast

import anyio.to_thread
import msgspec

from ragsvc.core.access.api_keys import ApiKey
from ragsvc.core.documents import Document
from ragsvc.core.errors import DocumentNotFound, StoredDataDamaged
from ragsvc.core.ids import TenantId
from ragsvc.store import (
    conversation_rows,
    feedback_rows,
    file_rows,
    key_rows,
    key_usage_rows,
    tenant_rows,
    upload_rows,
    vector_store_rows,
)
from ragsvc.store.blobs import BlobStore
from ragsvc.store.database import Database
from ragsvc.store.document_rows import get_document
from ragsvc.store.key_usage_rows import UsageDimension, UsageFilter
from ragsvc.store.response_rows import StoredResponse, responses_for_export
from ragsvc.store.vector_store_rows import ExportedStore

T = TypeVar("T")

_AT_ONCE = 100
_CONVERSATIONS_AT_ONCE = 1  # each with all its items
_MOST_KEYS = 100_000
_LAST_DAY = 1 << 30
_ENTRIES_AT_ONCE: Final = 500
_BLOCK_BYTES: Final = 256 << 10
_SECRETS = ("secret_hash", "previous_secret_hash")


class _StoredBytes(NamedTuple):
    """Which bytes of the blob store, and how many."""

    tenant: TenantId
    sha256: str
    size_bytes: int


class TenantExport:
    """Makes archives of tenants."""

    def __init__(self, database: Database, blobs: BlobStore) -> None:
        self._database = database
        self._blobs = blobs

    async def chunks(self, tenant: TenantId) -> AsyncGenerator[bytes]:
        """The bytes of the archive. Documents that are deleted meanwhile are left out."""
        for name, value in (await self._tables(tenant)).items():
            for block in _member(name, await anyio.to_thread.run_sync(formatted_json, value)):
                yield block
        missing: list[str] = []
        last = 0
        while found := await self._database.read(
            lambda connection, after=last: tenant_rows.documents_for_export(  # type: ignore[misc]
                connection, tenant, after=after, limit=_AT_ONCE
            )
        ):
            for _, public_id in found:
                try:
                    document = await self._database.read(
                        lambda connection, wanted=public_id: get_document(connection, tenant, wanted)  # type: ignore[misc]
                    )
                except DocumentNotFound:
                    continue
                async for chunk in self._document(document, missing):
                    yield chunk
            last = found[-1][0]
        for members in (
            self._files(tenant, missing),
            self._parts(tenant, missing),
            self._conversations(tenant),
            self._responses(tenant),
            self._feedback(tenant),
        ):
            async for chunk in members:
                yield chunk
        for block in _member("missing.json", [msgspec.json.encode(missing)]):
            yield block
        yield bytes(2 * tarfile.BLOCKSIZE)

    async def _tables(self, tenant: TenantId) -> dict[str, Any]:
        which = UsageFilter(since_day=0, until_day=_LAST_DAY, tenant=tenant)
        return await self._database.read(
            lambda connection: {
                "tenant.json": tenant_rows.tenant_holdings(connection, tenant),
                "collections.json": tenant_rows.collection_holdings(connection, tenant),
                "keys.json": [
                    _without_secrets(key) for key in key_rows.list_keys(connection, tenant=tenant, limit=_MOST_KEYS)
                ],
                "usage.json": key_usage_rows.sum_usage(connection, which, list(UsageDimension)),
                "vector_stores.json": vector_store_rows.stores_for_export(connection, tenant),
                "uploads.json": upload_rows.uploads_of_tenant(connection, tenant),
            }
        )

    async def _responses(self, tenant: TenantId) -> AsyncGenerator[bytes]:
        """A member for each stored response."""
        last = 0
        while responses := await self._database.read(
            lambda connection, after=last: responses_for_export(  # type: ignore[misc]
                connection, tenant, after=after, limit=_AT_ONCE
            )
        ):
            for _, response in responses:
                for block in _member(f"responses/{response.public_id}.json", _exported(response)):
                    yield block
            last = responses[-1][0]

    async def _feedback(self, tenant: TenantId) -> AsyncGenerator[bytes]:
        """A member for each piece of feedback."""
        last = 0
        while found := await self._database.read(
            lambda connection, after=last: feedback_rows.feedback_for_export(  # type: ignore[misc]
                connection, tenant, after=after, limit=_AT_ONCE
            )
        ):
            for feedback in found:
                content = {
                    "id": feedback.public_id,
                    "created_at": feedback.created_at,
                    "key_id": feedback.key_id,
                    **msgspec.structs.asdict(feedback.draft),
                }
                for block in _member(f"feedback/{feedback.public_id}.json", [msgspec.json.encode(content)]):
                    yield block
            last = found[-1].id

    async def _conversations(self, tenant: TenantId) -> AsyncGenerator[bytes]:
        """A member for each conversation, with its items."""
        last = 0
        while found := await self._database.read(
            lambda connection, after=last: [  # type: ignore[misc]
                (conversation, conversation_rows.item_bodies(connection, conversation))
                for conversation in conversation_rows.conversations_for_export(
                    connection, tenant, after=after, limit=_CONVERSATIONS_AT_ONCE
                )
            ]
        ):
            for conversation, bodies in found:
                content = {
                    "id": conversation.public_id,
                    "created_at": conversation.created_at,
                    "last_active_at": conversation.last_active_at,
                    "key_id": conversation.key_id,
                    "metadata": conversation.metadata,
                }
                pieces = [msgspec.json.encode(content)[:-1], b',"items":[', *_separated(bodies, b","), b"]}"]
                for block in _member(f"conversations/{conversation.public_id}.json", pieces):
                    yield block
                last = conversation.id

    async def _document(self, document: Document, missing: list[str]) -> AsyncGenerator[bytes]:
        for block in _member(f"documents/{document.public_id}.json", [msgspec.json.encode(document)]):
            yield block
        name = f"files/{document.public_id}/{_safe(document.filename)}"
        stored = _StoredBytes(document.tenant, document.sha256, document.size_bytes)
        async for chunk in self._bytes(name, stored, document.public_id, missing):
            yield chunk

    async def _files(self, tenant: TenantId, missing: list[str]) -> AsyncGenerator[bytes]:
        last = 0
        while found := await self._database.read(
            lambda connection, after=last: file_rows.uploaded_files_for_export(  # type: ignore[misc]
                connection, tenant, now=int(time.time()), after=after, limit=_AT_ONCE
            )
        ):
            for file in found:
                for block in _member(f"uploaded_files/{file.public_id}.json", [msgspec.json.encode(file)]):
                    yield block
                name = f"files/{file.public_id}/{_safe(file.filename)}"
                stored = _StoredBytes(tenant, file.sha256, file.size_bytes)
                async for chunk in self._bytes(name, stored, file.public_id, missing):
                    yield chunk
            last = found[-1].id

    async def _parts(self, tenant: TenantId, missing: list[str]) -> AsyncGenerator[bytes]:
        for upload in await self._database.read(lambda connection: upload_rows.uploads_of_tenant(connection, tenant)):
            parts = await self._database.read(
                lambda connection, upload_id=upload.id: upload_rows.parts_of(connection, upload_id)  # type: ignore[misc]
            )
            for part in parts:
                stored = _StoredBytes(tenant, part.sha256, part.size_bytes)
                async for chunk in self._bytes(f"upload_parts/{part.public_id}", stored, part.public_id, missing):
                    yield chunk

    async def _bytes(
        self, name: str, stored: _StoredBytes, public_id: str, missing: list[str]
    ) -> AsyncGenerator[bytes]:
        """A member with stored bytes; if they are missing, ``public_id`` is added to ``missing``."""
        pieces = self._blobs.chunks(stored.tenant, stored.sha256)
        try:
            piece = await anyio.to_thread.run_sync(_next, pieces)
        except (FileNotFoundError, StoredDataDamaged):
            missing.append(public_id)
            return
        yield _header(name, stored.size_bytes)
        while piece is not None:
            yield piece
            piece = await anyio.to_thread.run_sync(_next, pieces)
        yield _padding(stored.size_bytes)


def _exported(response: StoredResponse) -> list[bytes]:
    """A response with the items of its request, as pieces of JSON."""
    return [b'{"response":', response.body, b',"input":', response.input, b"}"]


def formatted_json(value: object) -> list[bytes]:
    """A value as indented JSON in pieces; a list may have any length.

    Call it in a thread: an encoder holds the interpreter lock until it returns, so that each call gets few entries.
    """
    if not isinstance(value, list) or not value:
        return [msgspec.json.format(msgspec.json.encode(value), indent=1)]
    entries = cast("list[object]", value)
    if isinstance(entries[0], ExportedStore):
        stores = cast("list[ExportedStore]", entries)
        return [b"[\n", *itertools.chain.from_iterable(_separated(map(_store, stores), [b",\n"])), b"\n]"]
    return [b"[\n", *_entries(entries, depth=1), b"\n]"]


def _store(exported: ExportedStore) -> list[bytes]:
    """A vector store as an entry of an indented array; it may have any number of files."""
    (empty,) = _entries([ExportedStore(exported.store, [])], depth=1)
    if not exported.files:
        return [empty]
    before, _, after = empty.rpartition(b"[]")  # the files are the last field
    return [before, b"[\n", *_entries(exported.files, depth=3), b"\n  ]", after]


def _entries(values: Sequence[object], *, depth: int) -> list[bytes]:
    """The entries of the innermost of ``depth`` nested arrays, indented, without the brackets."""
    before = sum(len("[\n") + indent for indent in range(depth))
    after = sum(len("\n]") + indent for indent in range(depth))
    pieces: list[bytes] = []
    for begin in range(0, len(values), _ENTRIES_AT_ONCE):
        nested: object = values[begin : begin + _ENTRIES_AT_ONCE]
        for _ in range(depth - 1):
            nested = [nested]
        pieces.append(msgspec.json.format(msgspec.json.encode(nested), indent=1)[before:-after])
    return list(_separated(pieces, b",\n"))


def _separated(values: Iterable[T], separator: T) -> Iterator[T]:
    for place, value in enumerate(values):
        if place:
            yield separator
        yield value


def _next(pieces: Iterator[bytes]) -> bytes | None:
    return next(pieces, None)


def _without_secrets(key: ApiKey) -> dict[str, Any]:
    return {name: value for name, value in msgspec.to_builtins(key).items() if name not in _SECRETS}


def _safe(filename: str) -> str:
    """A file name that unpacks into its folder."""
    return filename.replace("/", "_").replace("\\", "_").strip(". ") or "file"


def _member(name: str, pieces: Sequence[bytes]) -> Iterator[bytes]:
    """The blocks of a member, of which none is large: the event loop copies each of them several times."""
    size_bytes = sum(map(len, pieces))
    block = bytearray(_header(name, size_bytes))
    for piece in pieces:
        for begin in range(0, len(piece), _BLOCK_BYTES):
            block += memoryview(piece)[begin : begin + _BLOCK_BYTES]
            if len(block) >= _BLOCK_BYTES:
                yield bytes(block)
                block.clear()
    yield bytes(block) + _padding(size_bytes)


def _header(name: str, size_bytes: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size_bytes
    return info.tobuf(tarfile.PAX_FORMAT)


def _padding(size_bytes: int) -> bytes:
    return bytes(-size_bytes % tarfile.BLOCKSIZE)
