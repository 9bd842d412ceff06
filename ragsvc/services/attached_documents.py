"""Makes documents of the files that are attached to a document, each with a link to it.

A file whose bytes the collection already has is linked, not stored again. Attachments of attachments are followed to a
depth, and the number of documents that one upload can bring is limited.
"""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import msgspec
from sqlalchemy import Connection

from ragsvc.core import file_types
from ragsvc.core.defaults import MAX_FILENAME_LENGTH, SOURCE_PATH_KEY, SOURCE_ROOT_KEY
from ragsvc.core.documents import AttachedFile, Document, Problem, ProblemCode
from ragsvc.core.errors import QuotaExceeded, TooLarge
from ragsvc.core.ids import DocumentId, new_document_id
from ragsvc.services.access_control import write_to_the_end
from ragsvc.services.file_locks import FileLocks
from ragsvc.services.file_removals import FileRemovals
from ragsvc.services.passage_vectors import DocumentGone
from ragsvc.services.tenant_quotas import TenantQuotas
from ragsvc.store import attachment_rows, document_rows, file_rows, job_rows
from ragsvc.store.blobs import BlobStore, IncomingFile
from ragsvc.store.database import Database

_SHOWN_NAMES = 5
_TOO_LARGE = "larger than the limits of attached files"


class _TooManyAttached(Exception):
    """The upload brings no more documents."""


class AttachmentLimits(msgspec.Struct, frozen=True, kw_only=True):
    """``depth``: attachments of attachments; ``documents``: documents that one upload can bring."""

    depth: int = 3
    documents: int = 100
    max_document_bytes: int = 50_000_000


class AttachedDocuments:
    """Registers attached files as documents of their own."""

    def __init__(
        self,
        database: Database,
        blobs: BlobStore,
        locks: FileLocks,
        removals: FileRemovals,
        *,
        limits: AttachmentLimits,
        quotas: TenantQuotas | None = None,
    ) -> None:
        self._quotas = quotas or TenantQuotas()
        self._database = database
        self._blobs = blobs
        self._locks = locks
        self._removals = removals
        self._limits = limits

    async def register(
        self, parent: Document, files: Sequence[AttachedFile], names: Sequence[str], *, now: int
    ) -> list[Problem]:
        """Store and queue the attached files of a document; safe to repeat.

        Returns:
            The attached files that were left out, as problems of the parent.

        Raises:
            DocumentGone: the parent was deleted; no file is left that only it has attached.
        """
        refused: dict[str, str] = {}
        for file in files:
            found = file_types.media_type_of(
                "", file.name, head=file.data[: file_types.HEAD_BYTES], tail=file.data[-file_types.TAIL_BYTES :]
            )
            if found is None or found.media_type is None:
                refused[file.name] = found.name if found is not None else "of an unknown type"
            else:
                try:
                    await self._add(parent, file, found.media_type, now=now)
                except QuotaExceeded:
                    refused[file.name] = "beyond the quota of the tenant"
                except TooLarge:
                    refused[file.name] = _TOO_LARGE
                except _TooManyAttached:
                    refused[file.name] = "beyond the limit of attached files"
        kept = {file.name for file in files}
        refused |= {name: _TOO_LARGE for name in names if name not in kept}
        return _problems(refused)

    def _check_room(self, connection: Connection, document_id: DocumentId) -> None:
        """Raise ``_TooManyAttached`` if no more documents may be attached, by the depth or the number of the upload."""
        root, depth = document_id, 1
        while parents := attachment_rows.parents_of(connection, [root]):
            root, depth = min(parents), depth + 1
            if depth > self._limits.depth:
                raise _TooManyAttached
        count, level = 0, [root]
        for _ in range(self._limits.depth):
            level = attachment_rows.attached_to(connection, level)
            count += len(level)
        if count >= self._limits.documents:
            raise _TooManyAttached

    async def _add(self, parent: Document, file: AttachedFile, media_type: str, *, now: int) -> None:
        """Store a file and queue its document."""
        incoming = await anyio.to_thread.run_sync(
            lambda: self._blobs.incoming(limit_bytes=self._limits.max_document_bytes)
        )
        try:
            await anyio.to_thread.run_sync(incoming.write, file.data)
            sha256 = await anyio.to_thread.run_sync(incoming.finish)
            async with self._locks.of(parent.tenant, sha256):
                await self._register(parent, incoming, sha256, file, media_type, now=now)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(incoming.discard)

    async def _register(
        self, parent: Document, incoming: IncomingFile, sha256: str, file: AttachedFile, media_type: str, *, now: int
    ) -> None:
        def find(connection: Connection) -> Document | None:
            known = document_rows.find_by_sha256(connection, parent.collection_id, sha256)
            if known is None:
                self._check_room(connection, parent.id)
            return known

        def write(connection: Connection) -> None:
            if document_rows.get_by_row_id(connection, parent.id) is None:
                raise DocumentGone
            existing = find(connection)  # again: other attached files of the upload are registered at the same time
            if existing is None:
                self._quotas.check_document(connection, parent.tenant, parent.collection, len(file.data))
                document = document_rows.insert_document(
                    connection,
                    document_rows.NewDocument(
                        public_id=new_document_id(),
                        tenant=parent.tenant,
                        collection=document_rows.find_collection(connection, parent.tenant, parent.collection),
                        filename=_file_name(file.name, media_type),
                        media_type=media_type,
                        size_bytes=len(file.data),
                        sha256=sha256,
                        metadata=_inherited(parent),
                        created_at=now,
                    ),
                )
                job_rows.enqueue(connection, document.id, parent.tenant, password=None, now=now)
            else:
                document = existing
            if document.id != parent.id:
                brought = existing is None or existing.attached
                if existing is not None and not file_rows.has_implicit_file(connection, existing.id):
                    document_rows.ensure_implicit_file(connection, existing, now=now)  # it outlives its other files
                    brought = True
                attachment_rows.link(connection, parent.id, document.id, brought=brought)

        async with self._removals.storing(parent.tenant, sha256):
            if await self._database.read(find) is None:
                await anyio.to_thread.run_sync(self._blobs.publish, incoming, parent.tenant, sha256)
            await write_to_the_end(self._database, write)


def _file_name(name: str, media_type: str) -> str:
    """The last part of a path, at most 512 characters; a name of its type if nothing is left."""
    last = name.replace("\\", "/").rpartition("/")[2].strip()
    return last[-MAX_FILENAME_LENGTH:] or f"attachment{file_types.SUFFIXES[media_type]}"


def _inherited(parent: Document) -> dict[str, object]:
    """The metadata of the parent, without the place in a folder, which is the parent's own."""
    own = (SOURCE_ROOT_KEY, SOURCE_PATH_KEY)
    return {key: value for key, value in parent.metadata.items() if key not in own}


def picture_left_out(name: str) -> Problem:
    """The problem of a document whose attached picture contains no text."""
    (problem,) = _problems({name: "a picture without text"})
    return problem


def _problems(refused: dict[str, str]) -> list[Problem]:
    if not refused:
        return []
    listed = [f"'{name[:100]}' ({reason})" for name, reason in list(refused.items())[:_SHOWN_NAMES]]
    more = f" and {len(refused) - _SHOWN_NAMES} more" if len(refused) > _SHOWN_NAMES else ""
    count = "1 attached file was" if len(refused) == 1 else f"{len(refused)} attached files were"
    return [Problem(ProblemCode.ATTACHMENT_LEFT_OUT, f"{count} left out: {', '.join(listed)}{more}.", 1, 1)]
