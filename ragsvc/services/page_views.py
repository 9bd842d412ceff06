"""Shows pages of stored documents: their pictures, the rectangles of stretches of their text, and outlines.

Pages are drawn and read in child processes of their own, so that a reader does not wait for documents that are being
ingested. Results are kept on disk (``PageRenditions``), except of files that need a password.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from bisect import bisect_right
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from weakref import WeakValueDictionary

import anyio.to_thread
import msgspec

from ragsvc.core.documents import Document, Page, ProblemCode, StoredPassage
from ragsvc.core.errors import (
    CryptoFailure,
    DocumentNotFound,
    ExtractionFailed,
    FailureReason,
    InvalidRequest,
    Overloaded,
    PageHasNoPicture,
    PageNotShown,
    StoredDataDamaged,
)
from ragsvc.core.page_views import (
    RENDITION_VERSION,
    OutlineEntry,
    PageBoxes,
    RecognisedLines,
    TextStretch,
    has_pictures,
    width_to_draw,
)
from ragsvc.core.ports.page_reading import PageReader
from ragsvc.core.validation import MAX_INTEGER, invalid_value
from ragsvc.services.file_locks import FileLocks
from ragsvc.store.blobs import BlobStore
from ragsvc.store.page_renditions import PageRenditions

_lines = msgspec.msgpack.Decoder(RecognisedLines)
_outline = msgspec.msgpack.Decoder(list[OutlineEntry])
_COPIES = 4
"""Stored files that are decrypted in memory at the same time: twice as many as pages are read by default."""

_MOST_WAITING = 64
_WORD = re.compile(r"\S+")


class PageViews:
    """Pictures, rectangles and outlines of documents that the caller may read."""

    def __init__(self, *, blobs: BlobStore, reader: PageReader, renditions: PageRenditions, locks: FileLocks) -> None:
        """``locks``: under which stored files are removed."""
        self._blobs = blobs
        self._reader = reader
        self._renditions = renditions
        self._locks = locks
        self._copies = asyncio.Semaphore(_COPIES)
        self._waiting = 0
        self._making: WeakValueDictionary[tuple[str, str, str], asyncio.Lock] = WeakValueDictionary()

    def picture_tag(self, document: Document, number: int, width: int) -> str:
        """A string that is the same for the same picture.

        Raises:
            DocumentNotFound: the document has no such page.
            PageHasNoPicture: documents of this type have no page pictures.
        """
        _require_page(document, number)
        if not has_pictures(document.media_type):
            raise _no_picture(document)
        return f"{document.sha256[:40]}-{number}-{width_to_draw(width)}-{RENDITION_VERSION}"

    async def picture(self, document: Document, number: int, *, width: int, password: str | None = None) -> bytes:
        """The picture of page ``number`` (from 1) as PNG, at least ``width`` pixels wide unless it has too many pixels.

        Raises:
            DocumentNotFound: the document has no such page.
            PageHasNoPicture: documents of this type have no page pictures.
            PageNotShown: the page cannot be drawn.
            StoredDataDamaged: the stored file is missing or was altered.
            Overloaded: too many pages are being drawn.
        """
        self.picture_tag(document, number, width)
        drawn = width_to_draw(width)

        async def draw(path: Path) -> bytes:
            return (await self._reader.draw_page(path, number, width=drawn, password=password)).png

        return await self._made_once(document, f"{RENDITION_VERSION}-picture-{number}-{drawn}", draw, password=password)

    async def boxes(
        self, document: Document, page: Page, start: int, end: int, *, password: str | None = None
    ) -> PageBoxes:
        """The rectangles of the characters ``start`` to ``end`` (exclusive) of the text of a page.

        Raises:
            InvalidRequest: the text has no such characters.
            PageHasNoPicture, PageNotShown, StoredDataDamaged, Overloaded: as ``picture``.
        """
        if not has_pictures(document.media_type):
            raise _no_picture(document)
        if not 0 <= start < end <= len(page.text):
            raise InvalidRequest(
                f"'start' and 'end' must be a stretch of the page's text, which has {len(page.text)} characters.",
                param="end",
            )
        stretch = TextStretch(page.text, start, end, recognised=_was_recognised(document, page.number))
        name = f"{RENDITION_VERSION}-lines-{page.number}"
        async with self._lock(document, name):  # a page is recognised once
            kept = None if password else await self._kept(document, name)
            known = None if kept is None else _lines.decode(kept)
            async with self._readable(document) as path:
                boxes, lines = await self._reader.page_boxes(path, page.number, stretch, password=password, known=known)
            if lines is not None and known is None and not password:
                await self._keep(document, name, msgspec.msgpack.encode(lines))
        return boxes

    async def outline(self, document: Document, *, password: str | None = None) -> list[OutlineEntry]:
        """The bookmarks of a PDF that name a page; empty for documents of other types.

        Raises:
            PageNotShown, StoredDataDamaged, Overloaded: as ``picture``.
        """
        if not has_pictures(document.media_type):
            return []

        async def read(path: Path) -> bytes:
            return msgspec.msgpack.encode(await self._reader.outline(path, password=password))

        return _outline.decode(await self._made_once(document, f"{RENDITION_VERSION}-outline", read, password=password))

    async def _made_once(
        self, document: Document, name: str, make: Callable[[Path], Awaitable[bytes]], *, password: str | None
    ) -> bytes:
        """A rendition that is kept, or is made and then kept; requests for the same wait for each other."""
        if not password and (kept := await self._kept(document, name)) is not None:
            return kept
        async with self._lock(document, name):
            if not password and (kept := await self._kept(document, name)) is not None:
                return kept
            async with self._readable(document) as path:
                made = await make(path)
            if not password:
                await self._keep(document, name, made)
        return made

    def _lock(self, document: Document, name: str) -> asyncio.Lock:
        key = (document.tenant, document.sha256, name)
        lock = self._making.get(key)
        if lock is None:
            lock = self._making[key] = asyncio.Lock()
        return lock

    async def _kept(self, document: Document, name: str) -> bytes | None:
        return await anyio.to_thread.run_sync(self._renditions.read, document.tenant, document.sha256, name)

    async def _keep(self, document: Document, name: str, data: bytes) -> None:
        async with self._locks.of(document.tenant, document.sha256):
            await anyio.to_thread.run_sync(self._renditions.write, document.tenant, document.sha256, name, data)

    @asynccontextmanager
    async def _readable(self, document: Document) -> AsyncGenerator[Path]:
        """The path of the stored file, decrypted if need be; failures to read it become those that callers see."""
        try:
            async with self._room_for_copy():
                with ExitStack() as stack:
                    opened = self._blobs.readable(document.tenant, document.sha256)
                    path = await anyio.to_thread.run_sync(stack.enter_context, opened)
                    if not await anyio.to_thread.run_sync(path.exists):
                        raise StoredDataDamaged(
                            "The stored file of this document is missing. Upload the document again."
                        )
                    yield path
        except (CryptoFailure, FileNotFoundError) as error:
            raise StoredDataDamaged(
                "The stored file of this document cannot be read. Upload the document again."
            ) from error
        except ExtractionFailed as error:
            if error.reason is FailureReason.UNSUPPORTED_FILE:
                raise _no_picture(document) from error
            raise PageNotShown(error.message, reason=error.reason) from error

    @asynccontextmanager
    async def _room_for_copy(self) -> AsyncGenerator[None]:
        """Wait until a file may be decrypted: the readers' queue would hold dozens of plain copies in memory."""
        if not self._blobs.encrypted:
            yield
            return
        if self._waiting >= _MOST_WAITING:
            raise Overloaded("Too many pages are waiting to be read; try again in a few seconds.", retry_after_s=5)
        self._waiting += 1
        try:
            await self._copies.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._copies.release()


def find_quote(page: Page, quote: str, *, within: StoredPassage | None = None) -> tuple[int, int]:
    """Where a page's text has a quote, spaces apart; the occurrence in a passage is preferred.

    A page may have a million characters: call it in a thread.

    Raises:
        InvalidRequest: the page does not have it.
    """
    wanted = " ".join(quote.split())
    found = None
    if wanted and within is not None:
        found = _find_words(page.text, wanted, within.start)
    if wanted and found is None:
        found = _find_words(page.text, wanted, 0)
    if found is None:
        raise invalid_value("quote", "Expected words of the text of this page")
    return found


def _find_words(text: str, wanted: str, begin: int) -> tuple[int, int] | None:
    """Where a text has words that are separated by single spaces, from a character on.

    A regular expression takes minutes for a page that repeats the first words of the quote.
    """
    spans = [match.span() for match in _WORD.finditer(text, begin)]
    joined = " ".join(text[start:end] for start, end in spans)
    place = joined.find(wanted)
    if place < 0:
        return None
    starts = [0, *itertools.accumulate(end - start + 1 for start, end in spans)]

    def in_text(at: int) -> int:
        word = bisect_right(starts, at) - 1
        return spans[word][0] + at - starts[word]

    return in_text(place), in_text(place + len(wanted) - 1) + 1


def _require_page(document: Document, number: int) -> None:
    most = document.pages_total or MAX_INTEGER  # the pages of a file that could not be read are not counted
    if not 1 <= number <= most:
        shown = number if abs(number) <= MAX_INTEGER else "with this number"
        raise DocumentNotFound(f"The document '{document.public_id}' has no page {shown}.", param="page")


def _no_picture(document: Document) -> PageHasNoPicture:
    essence = document.media_type.partition(";")[0]
    return PageHasNoPicture(f"Documents of the type '{essence}' have no page pictures. Show the text of the page.")


def _was_recognised(document: Document, number: int) -> bool:
    return any(
        problem.code == ProblemCode.OCR_USED and problem.first_page <= number <= problem.last_page
        for problem in document.problems
    )
