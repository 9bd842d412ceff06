"""The port that draws pages of stored files and finds text on them."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from ragsvc.core.page_views import OutlineEntry, PageBoxes, PagePicture, RecognisedLines, TextStretch


class PageReader(Protocol):
    """Reads single pages of untrusted files in a child process. All methods raise ``ExtractionFailed``.

    The reason ``unsupported_file`` means that the file has no pages to draw. They also raise ``Overloaded`` if too many
    requests wait.
    """

    async def draw_page(self, path: Path, page: int, *, width: int, password: str | None = None) -> PagePicture:
        """Draw page ``page`` (from 1) about ``width`` pixels wide."""
        ...

    async def page_boxes(
        self,
        path: Path,
        page: int,
        stretch: TextStretch,
        *,
        password: str | None = None,
        known: RecognisedLines | None = None,
    ) -> tuple[PageBoxes, RecognisedLines | None]:
        """The rectangles of a stretch of a page's text, and the recognised lines of the page if they were needed.

        ``known``: the lines that an earlier call returned, so that the page is not recognised again.
        """
        ...

    async def outline(self, path: Path, *, password: str | None = None) -> list[OutlineEntry]:
        """The bookmarks of a PDF; empty for other files."""
        ...
