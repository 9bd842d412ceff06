"""The ports of parsing, shared by the service and the child process that reads files; cheap to import."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path
from typing import Protocol, runtime_checkable

import msgspec

from ragsvc.core.documents import Extraction, Page, Passage


class TokenSpans(Protocol):
    """The tokenizer of the embedding model; works in a child process, without the model."""

    def count(self, texts: Sequence[str]) -> list[int]:
        """Count tokens of each text, without special tokens."""
        ...

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Character spans ``[start, end)`` of the tokens of ``text``, in order, without special tokens."""
        ...


class ExtractionLimits(msgspec.Struct, frozen=True):
    """Limits of an extraction; exceeding a limit fails the document, never the service.

    Each page whose text is recognised (``ocr``, at most ``ocr_max_pages`` pages) extends ``timeout_s`` by
    ``ocr_page_s``. Text on further page images is not recognised. ``max_attachment_bytes`` is the total of a
    document's attached files, which are held in memory.
    """

    timeout_s: float = 300.0
    memory_bytes: int = 2 << 30
    max_pages: int = 5000
    max_page_characters: int = 200_000
    max_text_characters: int = 50_000_000
    ocr: bool = True
    ocr_max_pages: int = 500
    ocr_page_s: float = 60.0
    max_attachments: int = 0
    max_attachment_bytes: int = 64 << 20


class ChunkingOptions(msgspec.Struct, frozen=True):
    """Options for cutting pages into passages; token counts are of the embedding text, without special tokens."""

    max_tokens: int = 240
    overlap_tokens: int = 0
    min_tokens: int = 8


class ParsedDocument(msgspec.Struct, frozen=True):
    """The result of parsing: pages with text, and the passages cut from them."""

    extraction: Extraction
    passages: list[Passage]


class FileToParse(msgspec.Struct, frozen=True):
    path: Path
    media_type: str
    filename: str


@runtime_checkable
class BatchParser(Protocol):
    """A parser that also reads several small files one after the other in the same child process."""

    async def parse_many(self, files: Sequence[FileToParse]) -> list[ParsedDocument | None]:
        """Parse files, each within the limits of ``Parser.parse``; ``None`` for a file that could not be parsed.

        If the child process ends, the files after the one that ended it are ``None`` as well.

        Raises:
            Overloaded: too many parse jobs are waiting.
        """
        ...


OnPages = Callable[[list[Page], int], None]


class RecognitionTurn(Enum):
    """What becomes of a job before the text of its pages is recognised.

    ``STAY``: it keeps its place among the jobs that parse. ``MOVE``: it gives its place to another job, and continues
    besides them. ``DEFER``: it ends with ``RecognitionDeferred``.
    """

    STAY = "stay"
    MOVE = "move"
    DEFER = "defer"


OnRecognition = Callable[[int], RecognitionTurn]


class RecognitionDeferred(Exception):
    """The pages of a document are to be recognised later, when others have been."""


class Parser(Protocol):
    """Reads untrusted files in a child process, which may crash or hang without harm to the service."""

    async def parse(
        self,
        path: Path,
        *,
        media_type: str,
        filename: str,
        password: str | None = None,
        on_progress: Callable[[int, int], None] | None = None,
        on_pages: OnPages | None = None,
        on_recognition: OnRecognition | None = None,
    ) -> ParsedDocument:
        """Extract pages and cut passages; cancelling the call stops the child process.

        ``on_progress(pages_done, pages_total)`` is called on the event loop, at most a few times per second.
        ``on_pages(pages, pages_total)`` is called in a worker thread with the texts of pages of a long document while
        others are read. The final texts can differ in the hyphens at line ends. ``on_recognition(pages)`` is called on
        the event loop before the text of pages is recognised, and decides how the job continues.

        Raises:
            ExtractionFailed: the file cannot be read, or the child process crashed; ``reason`` states why.
            Overloaded: too many parse jobs are waiting.
            RecognitionDeferred: ``on_recognition`` decided so.
        """
        ...

    async def close(self) -> None: ...
