"""Reads the files of a request and ranks their passages for its question; nothing is stored.

A file goes through the parser's child process like a document, and its passages are embedded and ranked like those of
a collection. What was read is kept in memory for a while, per tenant, so that the next turn of the conversation, which
sends the file again, does not parse it again.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

import anyio
import anyio.to_thread
import msgspec
import numpy as np

from ragsvc.core import file_types
from ragsvc.core.access.principal import Principal, Scope, require_scope
from ragsvc.core.documents import Passage, StoredPassage
from ragsvc.core.errors import ExtractionFailed, FileNotFound, FileUnreadable, InvalidRequest, Overloaded, TooLarge
from ragsvc.core.file_names import default_filename
from ragsvc.core.files import FileReach, UploadedFile
from ragsvc.core.gateway.chat import RetrievedPassages
from ragsvc.core.gateway.request_files import MAX_REQUEST_FILES, RequestFile
from ragsvc.core.ids import DocumentId, PassageId, TenantId
from ragsvc.core.ports.embedding import Vectors
from ragsvc.core.ports.indexes import CountedTerms, LexicalDocument, WordScorer
from ragsvc.core.ports.parsing import Parser
from ragsvc.core.retrieval.passage_search import RankedPassages, search_passages
from ragsvc.core.retrieval.ranking import CANDIDATES
from ragsvc.core.retrieval.request_passages import RequestPassages
from ragsvc.core.retrieval.search_values import SearchHit, SearchQuery
from ragsvc.core.text.chunking import embedding_text, lexical_context
from ragsvc.core.text.tables import table_context
from ragsvc.services.embedding_spaces import EmbeddingSpace, EmbeddingSpaces
from ragsvc.services.file_locks import FileLocks
from ragsvc.store.blobs import BlobStore
from ragsvc.store.database import Database
from ragsvc.store.file_rows import find_file

INLINE_PREFIX: Final = "inline-"
"""Begins the public id of an inline file in citations; 24 digits of its SHA-256 follow."""

_ID_DIGITS: Final = 24
_FIRST_ID: Final = 1 << 40
"""Ids of these documents and passages begin here, beyond those of stored ones: both can be in a prompt."""

_PASSAGES_OF_A_FILE: Final = 1 << 20
_EMBEDDED_AT_ONCE: Final = 64
_BYTES_OF_A_TERM: Final = 120
"""Memory of an entry in a dictionary of terms, about."""

ABOUT: Final = "What is this document about?"
"""The question of a request that has files and no text."""


class RequestFileLimits(msgspec.Struct, frozen=True, kw_only=True):
    """``total_bytes`` of the files of a request, and of those that are being read at the same time, twice that.

    What was read is kept for ``cache_s`` seconds after its last use, at most ``cache_bytes`` of it.
    """

    total_bytes: int = 50_000_000
    cache_bytes: int = 256 << 20
    cache_s: float = 900.0


class ReadFile(msgspec.Struct, frozen=True):
    """A file that was read. ``public_id`` is its id in citations."""

    public_id: str
    filename: str
    content: FileContent


class FileContent:
    """The passages of a file, the terms in them, and their vectors, once they are embedded."""

    def __init__(
        self, title: str | None, pages_total: int, passages: Sequence[Passage], counted: Sequence[CountedTerms]
    ) -> None:
        self.title = title
        self.pages_total = pages_total
        self.passages = passages
        self.counted = counted
        self.vectors: tuple[int, Vectors] | None = None
        """The id of the model that made them, and the vectors ``(n, dim)``."""

    @property
    def tokens(self) -> int:
        """Tokens of all passages."""
        return sum(passage.token_count for passage in self.passages)

    @property
    def size_bytes(self) -> int:
        """Memory, about."""
        texts = sum(len(passage.text) for passage in self.passages)
        terms = sum(len(counted.text) + len(counted.context) for counted in self.counted)
        vectors = 0 if self.vectors is None else self.vectors[1].nbytes
        return 4 * texts + _BYTES_OF_A_TERM * terms + vectors


class _Key(NamedTuple):
    """Identifies what was read: the name is a part of the texts that are embedded."""

    tenant: TenantId
    sha256: str
    filename: str
    media_type: str


class RequestFiles:
    """Reads files of requests, within limits."""

    def __init__(
        self,
        *,
        database: Database,
        parser: Parser,
        blobs: BlobStore,
        spaces: EmbeddingSpaces,
        words: WordScorer,
        limits: RequestFileLimits | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``parser`` has the limits of pages and seconds for a file."""
        self.limits = limits or RequestFileLimits()
        self._parser = parser
        self._blobs = blobs
        self._spaces = spaces
        self._words = words
        self._database = database
        self._clock = clock
        self._cache = _FileCache(self.limits, monotonic)
        self._locks = FileLocks()
        self._held_bytes = 0

    async def read(self, principal: Principal, files: Sequence[RequestFile]) -> tuple[ReadFile, ...]:
        """Read the files, in their order; equal files once. Releases the bytes of each file once it is read.

        Raises:
            PolicyDenied: the key may not read stored files.
            FileUnreadable: a file has no readable text; ``param`` is its place in the request.
            InvalidRequest: too many files.
            FileNotFound: no file that the key may read has the id.
            TooLarge: the files have too many bytes together.
            Overloaded: too many files are being read.
        """
        if len(files) > MAX_REQUEST_FILES:
            raise InvalidRequest(
                f"The request has {len(files)} files: at most {MAX_REQUEST_FILES} are accepted.",
                param=files[MAX_REQUEST_FILES].param,
            )
        tenant = principal.tenant
        known = {file.param: await self._find(principal, file) for file in files if file.file_id is not None}
        total = 0
        for file in files:
            total += file.size_bytes if file.file_id is None else known[file.param].size_bytes
            if total > self.limits.total_bytes:
                raise TooLarge(
                    f"'{file.param}': the files of a request may have {self.limits.total_bytes} bytes together.",
                    limit_bytes=self.limits.total_bytes,
                    param=file.param,
                )
        with self._held(sum(file.size_bytes for file in files)):
            read: dict[tuple[str, str], ReadFile] = {}
            for file in files:
                done = await self._read(tenant, file, known.get(file.param))
                file.release()
                read.setdefault((done.public_id, done.filename), done)
        return tuple(read.values())

    async def search(self, files: Sequence[ReadFile], query: str, *, top_k: int, room_tokens: int) -> RetrievedPassages:
        """Rank the passages of the files for a question: the best ``top_k``, and further ones within ``room_tokens``.

        All passages are among them, in reading order after the ranked ones, if they fit into ``room_tokens``.

        Raises:
            EmbeddingFailed, Overloaded.
        """
        space = self._spaces.serving
        vectors = [await self._embedded(space, file) for file in files]
        vector = await space.batcher.embed_query(query)
        passages = _numbered(files)
        counted = [terms for file in files for terms in file.content.counted]

        def rank() -> RankedPassages:
            collection = RequestPassages(
                passages, np.concatenate(vectors), score_words=lambda text: self._words.scores(counted, text)
            )
            wanted = SearchQuery(text=query, top_k=max(top_k, CANDIDATES))
            return search_passages(
                wanted,
                vector,
                indexes=collection,
                read_rows=lambda work: work(collection),
                knows_words=space.knows,
                count=wanted.top_k,
            )

        if not passages:
            return RetrievedPassages(query=query, hits=(), answerable=0.0)
        ranked = await anyio.to_thread.run_sync(rank)
        hits = [
            SearchHit(ranked.passages[candidate.id], candidate.score, candidate.dense, candidate.lexical)
            for candidate in ranked.candidates
        ]
        rest = hits[top_k:]
        whole = sum(passage.token_count for passage in passages) <= room_tokens
        if whole:
            chosen = {hit.passage.id for hit in hits}
            rest += [SearchHit(passage, 0.0) for passage in passages if passage.id not in chosen]
        else:
            room_tokens -= sum(hit.passage.token_count for hit in hits[:top_k])
            rest = _within(rest, room_tokens)
        return RetrievedPassages(
            query=query,
            hits=tuple(hits[:top_k]),
            answerable=ranked.answerable,
            rest=tuple(rest),
            whole=whole,
            attached=frozenset(file.public_id for file in files),
        )

    def forget(self, tenant: TenantId) -> None:
        """Drop what was read for a tenant, which is being deleted."""
        self._cache.forget(tenant)

    @property
    def cached_bytes(self) -> int:
        """Memory of what was read and is kept, about."""
        return self._cache.size_bytes

    @contextlib.contextmanager
    def _held(self, size_bytes: int) -> Generator[None]:
        limit = 2 * self.limits.total_bytes
        if self._held_bytes + size_bytes > limit:
            raise Overloaded("Too many files of requests are being read. Try again in a few seconds.", retry_after_s=5)
        self._held_bytes += size_bytes
        try:
            yield
        finally:
            self._held_bytes -= size_bytes

    async def _find(self, principal: Principal, file: RequestFile) -> UploadedFile:
        """The stored file of an id. Raises ``PolicyDenied``, ``FileNotFound``."""
        require_scope(principal, Scope.DOCUMENTS_READ)
        reach = FileReach(collections=principal.allowed_collections, created_by=principal.key_id)
        file_id, now = file.file_id or "", int(self._clock())
        try:
            return await self._database.read(
                lambda connection: find_file(connection, principal.tenant, file_id, now=now, reach=reach)
            )
        except FileNotFound as error:
            raise FileNotFound(error.message, param=f"{file.param}.file_id") from error

    async def _read(self, tenant: TenantId, file: RequestFile, found: UploadedFile | None) -> ReadFile:
        if found is not None:
            if found.media_type.partition(";")[0] not in file_types.MEDIA_TYPES:
                raise _unsupported(file.param, f"of the type '{found.media_type[:100]}'")
            key = _Key(tenant, found.sha256, file.filename or found.filename, found.media_type)
            content = await self._content(key, file.param, lambda: self._stored(tenant, found.sha256))
            return ReadFile(found.public_id, key.filename, content)
        data = file.data
        if data is None:
            raise ValueError(f"the bytes of '{file.param}' were released")
        sha256 = await anyio.to_thread.run_sync(lambda: hashlib.sha256(data).hexdigest())
        media_type = _media_type(file, data)
        key = _Key(tenant, sha256, file.filename or default_filename(media_type), media_type)
        content = await self._content(key, file.param, lambda: self._temporary(data))
        return ReadFile(INLINE_PREFIX + sha256[:_ID_DIGITS], key.filename, content)

    async def _content(
        self, key: _Key, param: str, opened: Callable[[], contextlib.AbstractAsyncContextManager[Path]]
    ) -> FileContent:
        async with self._locks.of(key.tenant, key.sha256):  # two turns with the same file parse it once
            content = self._cache.get(key)
            if content is None:
                async with opened() as path:
                    content = await self._parsed(path, key, param)
                self._cache.put(key, content)
        return content

    async def _parsed(self, path: Path, key: _Key, param: str) -> FileContent:
        try:
            parsed = await self._parser.parse(path, media_type=key.media_type, filename=key.filename)
        except ExtractionFailed as error:
            problem = error.message[:1].lower() + error.message[1:].rstrip(".")
            raise FileUnreadable(f"'{param}': {problem}.", reason=error.reason, param=param) from error
        title = parsed.extraction.title
        documents = [
            LexicalDocument(
                passage.ordinal,
                0,
                passage.text,
                lexical_context(title, key.filename, passage.headings, table_context(passage.tables, passage.text)),
            )
            for passage in parsed.passages
        ]
        counted = await anyio.to_thread.run_sync(self._words.count, documents)
        return FileContent(
            title, parsed.extraction.page_count or len(parsed.extraction.pages), parsed.passages, counted
        )

    @asynccontextmanager
    async def _stored(self, tenant: TenantId, sha256: str) -> AsyncGenerator[Path]:
        """The path of a stored file, decrypted if need be. Raises ``StoredDataDamaged``."""
        await anyio.to_thread.run_sync(self._blobs.check, tenant, sha256)
        with ExitStack() as stack:
            opened = self._blobs.readable(tenant, sha256)
            yield await anyio.to_thread.run_sync(stack.enter_context, opened)

    @asynccontextmanager
    async def _temporary(self, data: bytes) -> AsyncGenerator[Path]:
        """The path of a file with these bytes, which is removed at the end of the block."""
        with ExitStack() as stack:
            opened = self._blobs.temporary(data)
            yield await anyio.to_thread.run_sync(stack.enter_context, opened)

    async def _embedded(self, space: EmbeddingSpace, file: ReadFile) -> Vectors:
        """The vectors of the passages of a file in the serving space."""
        content = file.content
        known = content.vectors
        if known is not None and known[0] == space.model_id:
            return known[1]
        texts = [
            space.prepare(embedding_text(passage, title=content.title, filename=file.filename))
            for passage in content.passages
        ]
        batches = [
            await space.batcher.embed_passages(texts[begin : begin + _EMBEDDED_AT_ONCE])
            for begin in range(0, len(texts), _EMBEDDED_AT_ONCE)
        ]
        vectors = np.concatenate(batches) if batches else np.empty((0, space.model.dimension), np.float32)
        content.vectors = (space.model_id, vectors)
        self._cache.shrink()
        return vectors


class _FileCache:
    """What was read, by file, least recently used first; bounded in bytes and in time since the last use."""

    def __init__(self, limits: RequestFileLimits, monotonic: Callable[[], float]) -> None:
        self._limits = limits
        self._monotonic = monotonic
        self._entries: OrderedDict[_Key, tuple[FileContent, float]] = OrderedDict()

    @property
    def size_bytes(self) -> int:
        return sum(content.size_bytes for content, _ in self._entries.values())

    def get(self, key: _Key) -> FileContent | None:
        self._expire()
        found = self._entries.pop(key, None)
        if found is None:
            return None
        self._entries[key] = (found[0], self._monotonic())
        return found[0]

    def put(self, key: _Key, content: FileContent) -> None:
        self._entries[key] = (content, self._monotonic())
        self.shrink()
        # no later request may come, and the text of a file must not stay for hours
        asyncio.get_running_loop().call_later(self._limits.cache_s + 1, self._expire)

    def shrink(self) -> None:
        """Drop the least recently used files beyond the limit."""
        size = self.size_bytes
        while size > self._limits.cache_bytes and self._entries:
            _, (content, _) = self._entries.popitem(last=False)
            size -= content.size_bytes

    def forget(self, tenant: TenantId) -> None:
        for key in [key for key in self._entries if key.tenant == tenant]:
            del self._entries[key]

    def _expire(self) -> None:
        oldest = self._monotonic() - self._limits.cache_s
        while self._entries and next(iter(self._entries.values()))[1] <= oldest:
            self._entries.popitem(last=False)


def inline_address(public_id: str) -> str | None:
    """The address of an inline file by its SHA-256 (RFC 6920 ``ni``), or ``None`` for the id of a stored file.

    >>> inline_address("inline-0123456789abcdef01234567")
    'ni:///sha-256-96;ASNFZ4mrze8BI0Vn'
    """
    if not public_id.startswith(INLINE_PREFIX):
        return None
    digest = bytes.fromhex(public_id.removeprefix(INLINE_PREFIX))
    return f"ni:///sha-256-96;{base64.urlsafe_b64encode(digest).decode()}"


def _media_type(file: RequestFile, data: bytes) -> str:
    """The type of an inline file. Raises ``FileUnreadable`` for a type that cannot be read."""
    base, _, charset = file.media_type.partition(";")
    declared = file_types.MEDIA_TYPE_ALIASES.get(base, base)
    if declared not in file_types.MEDIA_TYPES:
        declared = ""
    head, tail = data[: file_types.HEAD_BYTES], data[-file_types.TAIL_BYTES :]
    found = file_types.media_type_of(declared, file.filename, head=head, tail=tail)
    if found is None and file_types.is_text(head):
        found = file_types.FileType(file_types.TEXT, "a text")
    if found is None or found.media_type is None:
        raise _unsupported(file.param, "of an unknown type" if found is None else found.name)
    return f"{found.media_type};{charset}" if charset and found.media_type == declared else found.media_type


def _unsupported(param: str, name: str) -> FileUnreadable:
    return FileUnreadable(
        f"'{param}': the file is {name} and cannot be read. Send one of: {file_types.READABLE}.",
        reason="unsupported_media_type",
        param=param,
    )


def _numbered(files: Sequence[ReadFile]) -> list[StoredPassage]:
    """The passages of the files, with ids that ascend in reading order."""
    return [
        StoredPassage(
            id=PassageId(_FIRST_ID + at * _PASSAGES_OF_A_FILE + passage.ordinal),
            document_id=DocumentId(_FIRST_ID + at),
            document_public_id=file.public_id,
            filename=file.filename,
            title=file.content.title,
            page=passage.page,
            page_label=passage.page_label,
            start=passage.start,
            end=passage.end,
            text=passage.text,
            headings=passage.headings,
            ordinal=passage.ordinal,
            token_count=passage.token_count,
            pages_total=file.content.pages_total,
            tables=passage.tables,
        )
        for at, file in enumerate(files)
        for passage in file.content.passages
    ]


def _within(hits: Sequence[SearchHit], room_tokens: int) -> list[SearchHit]:
    """The first hits whose tokens fit into the room."""
    taken: list[SearchHit] = []
    for hit in hits:
        room_tokens -= hit.passage.token_count
        if room_tokens < 0:
            break
        taken.append(hit)
    return taken
