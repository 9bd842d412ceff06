"""Collects blocks of text into pages with labels and headings, within the limits of an extraction. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ragsvc.core.documents import Extraction, Heading, Page, ProblemCode
from ragsvc.core.errors import ExtractionFailed, FailureReason
from ragsvc.core.ports.parsing import ExtractionLimits
from ragsvc.extract.clean import clean_line
from ragsvc.extract.problems import merge_problems

VIRTUAL_PAGE_CHARACTERS = 3_000
"""Length of a page in a file that has no pages, such as a web page."""

_LONGEST_LABEL = 80
_LONGEST_HEADING = 300


class PageBuilder:
    """Pages of blocks. A page longer than ``split_at`` characters is continued on a page with the same label."""

    def __init__(self, limits: ExtractionLimits, *, split_at: int | None = None) -> None:
        self._limits = limits
        self._split_at = min(split_at or limits.max_page_characters, limits.max_page_characters)
        self._pages: list[Page] = []
        self._headings: list[Heading] = []
        self._findings: list[tuple[int, ProblemCode]] = []
        self._hidden: dict[int, int] = {}
        self._label: str | None = None
        self._parts: list[str] = []
        self._length = 0
        self._open = False
        self._left = limits.max_text_characters

    @property
    def number(self) -> int:
        """The number of the page that is being filled, from 1."""
        return len(self._pages) + (1 if self._open else 0) or 1

    @property
    def is_blank(self) -> bool:
        return not self._length

    def page(self, label: str | None = None) -> None:
        """Begin a page. Raises ``ExtractionFailed`` if the file has more pages than the limit."""
        self._close()
        if len(self._pages) >= self._limits.max_pages:
            raise ExtractionFailed(
                FailureReason.TOO_MANY_PAGES, f"The file has more pages than the limit of {self._limits.max_pages:,}."
            )
        self._label = " ".join((label or "").split())[:_LONGEST_LABEL] or None
        self._open = True

    def _close(self) -> None:
        if self._open:
            self._pages.append(Page(len(self._pages) + 1, "".join(self._parts), self._label))
        self._parts, self._length, self._open = [], 0, False

    def block(self, text: str, *, level: int = 0, joined: bool = False, indented: bool = False) -> None:
        """Add a paragraph, a heading of a ``level``, or a line that is ``joined`` to the block before it.

        ``indented`` text, such as code, keeps its white space.
        """
        lines = [_spaced(line) if indented else clean_line(line) for line in text.split("\n")]
        text = "\n".join(lines).strip("\n") if indented else "\n".join(filter(None, lines))
        if text.strip():
            self._add(text, level=level, separator="\n" if joined else "\n\n")

    def _add(self, text: str, *, level: int, separator: str) -> None:
        if self._left <= 0:
            self.problem(ProblemCode.TEXT_TRUNCATED)
            return
        text = text[: self._left]
        if not self._open:
            self.page(self._label)
        if self._length and self._length + len(text) + 2 > self._split_at:
            self.page(self._label)
        while len(text) > self._split_at:
            cut = text.rfind(" ", 1, self._split_at)
            cut = cut if cut > 0 else self._split_at
            self._append(text[:cut])
            text = text[cut:].strip()
            self.page(self._label)
        if self._length:
            self._append(separator)
        if level:
            title = " ".join(text.split())[:_LONGEST_HEADING]
            self._headings.append(Heading(title, level, self.number, self._length))
        self._append(text)

    def section(self, title: str, *, level: int = 1) -> None:
        """Name the section that begins at this place, without adding its name to the text."""
        cleaned = clean_line(" ".join(title.split()))[:_LONGEST_HEADING]
        if cleaned:
            self._headings.append(Heading(cleaned, level, self.number, self._length))

    def _append(self, text: str) -> None:
        self._parts.append(text)
        self._length += len(text)
        self._left -= len(text)

    def rows(self, rows: Sequence[str], *, headers: int = 0) -> None:
        """Add the lines of a table; the first ``headers`` of them are repeated on a page that continues the table."""
        for index, row in enumerate(rows):
            if index >= headers and self._length and self._length + len(row) + 1 > self._split_at:
                self.page(self._label)
                for position, header in enumerate(rows[:headers]):
                    self.block(header, joined=position > 0)
                self.block(row, joined=headers > 0)
            else:
                self.block(row, joined=index > 0)

    @property
    def first_heading(self) -> str | None:
        """The first heading of the highest level."""
        return next((heading.title for heading in self._headings if heading.level == 1), None)

    def problem(self, code: ProblemCode) -> None:
        """Note a problem of the present page."""
        if (self.number, code) not in self._findings[-3:]:
            self._findings.append((self.number, code))

    def hidden(self, text: str) -> None:
        """Count the characters of a text that a reader cannot see and that was left out."""
        count = sum(not character.isspace() for character in text)
        if count:
            self._hidden[self.number] = self._hidden.get(self.number, 0) + count

    def finish(
        self,
        *,
        title: str | None = None,
        nothing: str = "The file contains no text.",
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Extraction:
        """The extraction. Raises ``ExtractionFailed`` with the message ``nothing`` if no page has text."""
        self._close()
        if not any(page.text.strip() for page in self._pages):
            raise ExtractionFailed(FailureReason.NO_TEXT, nothing)
        count = len(self._pages)
        hidden = {min(page, count): characters for page, characters in self._hidden.items()}
        if on_progress is not None:
            on_progress(count, count)
        return Extraction(
            pages=self._pages,
            headings=self._headings,
            problems=merge_problems([(min(page, count), code) for page, code in self._findings], hidden=hidden),
            title=clean_line(title or "") or None,
            page_count=count,
        )


def _spaced(line: str) -> str:
    """The cleaned line behind its indentation, tabs as four spaces."""
    indentation = line[: len(line) - len(line.lstrip())].expandtabs(4)
    return (indentation + clean_line(line.lstrip())).rstrip()
