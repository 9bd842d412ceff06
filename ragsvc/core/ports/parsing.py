"""The ports of parsing: what the child process that reads files shares with the service; importing it is cheap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from ragsvc.core.documents import Extraction, Passage


class TokenSpans(Protocol):
    """The embedding model's own tokenizer, safe to use in a child process and without loading the model."""

    def count(self, texts: Sequence[str]) -> list[int]:
        """Count tokens of each text, without special tokens."""
        ...

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Character spans ``[start, end)`` of the tokens of ``text``, in order, without special tokens."""
        ...


class ExtractionLimits(msgspec.Struct, frozen=True):
    """Bounds of one extraction; crossing one fails the document, never the service.

    ``timeout_s`` holds without progress: each page whose text was recognised (``ocr``, at most ``ocr_max_pages``)
    adds ``ocr_page_s``. Further pictures are not read.
    """

    timeout_s: float = 300.0
    memory_bytes: int = 2 << 30
    max_pages: int = 5000
    max_page_characters: int = 200_000
    max_text_characters: int = 50_000_000
    ocr: bool = True
    ocr_max_pages: int = 500
    ocr_page_s: float = 60.0


class ChunkingOptions(msgspec.Struct, frozen=True):
    """How pages become passages; ``max_tokens`` counts the embedding text without special tokens."""

    max_tokens: int = 240
    overlap_tokens: int = 0
    min_tokens: int = 8


class ParsedDocument(msgspec.Struct, frozen=True):
    """What one parse job returns: pages with text, and the passages cut from them."""

    extraction: Extraction
    passages: list[Passage]


class Parser(Protocol):
    """Reads untrusted files in a child process that may die or hang without harm."""

    async def parse(
        self,
        path: Path,
        *,
        media_type: str,
        filename: str,
        password: str | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> ParsedDocument:
        """Extract pages and cut passages; cancelling the call ends the child.

        ``on_progress(pages_done, pages_total)`` is called on the event loop, a few times a second at most.

        Raises:
            ExtractionFailed: with a reason for a person; whatever the child died of.
            Overloaded: too many parses are waiting.
        """
        ...

    async def close(self) -> None:
        """End the children."""
        ...
