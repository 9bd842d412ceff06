"""Splits pages into passages, and builds the texts of a passage that are embedded and indexed lexically.

Pure: takes pages and a tokenizer, returns passages; independent of PDFs, models and stores. It calls the tokenizer once
per document instead of once per sentence, because it runs in the parser's child process.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import msgspec
from msgspec.structs import replace

from ragsvc.core.documents import Extraction, Heading, Page, Passage, Table
from ragsvc.core.ports.parsing import ChunkingOptions, TokenSpans
from ragsvc.core.text.sentences import Span, sentence_spans, strip_span
from ragsvc.core.text.tables import cut_tables, markdown_tables, table_context

SPECIAL_TOKENS: Final = 2
"""``[CLS]`` and ``[SEP]``, which a BERT-like model adds to every text."""

MAX_NAME_CHARACTERS: Final = 80
MAX_HEADING_CHARACTERS: Final = 80
MIN_TEXT_TOKENS: Final = 32
"""Minimum number of tokens for the text of a passage, however long its title and headings are."""

_HASH: Final = re.compile(r"\b(?=\w*\d)(?=\w*[a-f])[0-9a-f]{12,}\b|\b\d{8,}\b", re.IGNORECASE)
_EXTENSION: Final = re.compile(r"\.(?:pdf|txt|md|markdown|docx?|pptx?|xlsx?|indd|qxd|html?|tex|dvi)\b", re.IGNORECASE)
_PRODUCER_PREFIX: Final = re.compile(
    r"^(?:microsoft (?:word|powerpoint|excel)|powerpoint presentation)\s*-?\s*", re.IGNORECASE
)
_NO_TITLE: Final = frozenset({"", "untitled", "document", "title", "slide 1", "presentation", "none", "null"})
_PARAGRAPH: Final = re.compile(r"\n[^\S\n]*\n")


class _Unit(msgspec.Struct, frozen=True):
    """A sentence, or a piece of a sentence that exceeds the budget.

    ``end_cost`` is the cost of ending a passage after it: 0 at the end of a paragraph or section, 0.5 at a line end,
    1 between two sentences, 2 inside a sentence. ``repeated`` are the tokens of the headings of a table that are
    repeated for a passage that begins with the unit.
    """

    start: int
    end: int
    tokens: int
    end_cost: float
    repeated: int = 0


def split_pages(
    extraction: Extraction, *, options: ChunkingOptions, tokens: TokenSpans, filename: str = ""
) -> list[Passage]:
    """Split an extraction into passages at sentence boundaries. No passage crosses a page boundary.

    The passages of a page cover all its non-blank text, have about equal lengths, and preferably end where a
    paragraph, row or section ends. Each ``embedding_text`` has at most ``options.max_tokens`` tokens.

    Args:
        extraction: pages and headings; ``text == page.text[start:end]`` for every passage.
        options: sizes of the embedding text in tokens, without special tokens.
        tokens: the embedding model's tokenizer.
        filename: the same name that ``embedding_text`` will get; its tokens are subtracted from the budget.
    """
    paths = _HeadingPaths(extraction.headings)
    tables = [extraction.tables.get(page.number) or markdown_tables(page.text) for page in extraction.pages]
    spans = [
        _rows_apart(page.text, sentence_spans(page.text), found)
        for page, found in zip(extraction.pages, tables, strict=True)
    ]
    counts = iter(
        tokens.count(
            [p.text[a:b] for p, page_spans in zip(extraction.pages, spans, strict=True) for a, b in page_spans]
        )
    )
    name = document_name(extraction.title, filename)
    contexts: dict[tuple[str, ...], int] = {}
    passages: list[Passage] = []
    for page, page_spans, page_tables in zip(extraction.pages, spans, tables, strict=True):
        page_counts = [next(counts) for _ in page_spans]
        if not page_spans:
            continue
        context = max(_context_tokens(name, path, tokens, contexts) for path in paths.on_page(page.number))
        budget = max(options.max_tokens - context, min(MIN_TEXT_TOKENS, options.max_tokens))
        starts = paths.offsets(page.number)
        repeated = [_repeated_tokens(table, tokens, budget=budget) for table in page_tables]
        longest = budget - max(repeated, default=0)
        units = _units(page, page_spans, page_counts, starts, budget=longest, tokens=tokens)
        units = _with_repeated(units, page_tables, repeated)
        for begin, last in _pack(units, budget=budget, min_tokens=options.min_tokens):
            first = _overlap(units, begin, last, budget=budget, overlap=options.overlap_tokens)
            start, end = units[first].start, units[last].end
            path = paths.above(page.number, start)
            used = sum(unit.tokens for unit in units[first : last + 1]) + units[first].repeated
            passages.append(
                Passage(
                    ordinal=len(passages),
                    page=page.number,
                    start=start,
                    end=end,
                    text=page.text[start:end],
                    headings=path,
                    page_label=page.label,
                    token_count=used + _context_tokens(name, path, tokens, contexts) + SPECIAL_TOKENS,
                    tables=cut_tables(page_tables, start, end),
                )
            )
    return passages


def embedding_text(passage: Passage, *, title: str | None, filename: str) -> str:
    """The text that is embedded for a passage: names of document and section, headings of a table, the passage's text.

    Without them, a passage that does not mention its company or year cannot be found by these.
    """
    context = _context(document_name(title, filename), passage.headings)
    return "\n".join(filter(None, (context, table_context(passage.tables, passage.text), passage.text)))


def lexical_context(title: str | None, filename: str, headings: Sequence[str], table_headings: str = "") -> str:
    """The words that lexical search indexes in addition to a passage's text: title, file name and headings."""
    parts = [_clean_title(title), _clean_filename(filename), *headings, table_headings]
    return "\n".join(dict.fromkeys(part for part in parts if part))


def document_name(title: str | None, filename: str) -> str:
    """A readable name: the title, and the file name where it adds words; at most ``MAX_NAME_CHARACTERS``.

    >>> document_name("Form 10-Q", "2022 Q3 AAPL.pdf")
    '2022 Q3 AAPL - Form 10-Q'
    >>> document_name("Microsoft Word - draft7.doc", "7c3f6204b3241f142f0f8eb8e1fefe7a.pdf")
    'draft7'
    """
    own, stem = _clean_title(title), _clean_filename(filename)
    if not own or set(own.lower().split()) <= set(stem.lower().split()):
        name = stem
    elif not stem or set(stem.lower().split()) <= set(own.lower().split()):
        name = own
    else:
        name = f"{stem} - {own}"
    return _shorten(name, MAX_NAME_CHARACTERS)


def _clean_title(title: str | None) -> str:
    cleaned = " ".join(_EXTENSION.sub(" ", _PRODUCER_PREFIX.sub("", title or "")).split())
    return "" if cleaned.lower() in _NO_TITLE or not re.search(r"[^\W\d_]{2}", cleaned) else cleaned


def _clean_filename(filename: str) -> str:
    stem = _EXTENSION.sub(" ", filename.rsplit("/", 1)[-1])
    words = re.sub(r"[_+.\s]+|(?<=[^\W\d])-|-(?=[^\W\d])|%20", " ", stem)
    return " ".join(_HASH.sub(" ", words).split())


def _shorten(text: str, limit: int) -> str:
    """At most ``limit`` characters, cut between words if possible."""
    if len(text) <= limit:
        return text
    cut = text[: limit + 1].rsplit(" ", 1)[0]
    return cut if 0 < len(cut) <= limit else text[:limit]


def _context(name: str, headings: Sequence[str]) -> str:
    section = _shorten(" > ".join(headings[-2:]), MAX_HEADING_CHARACTERS)
    return ": ".join(part for part in (name, section) if part)


def _context_tokens(name: str, path: tuple[str, ...], tokens: TokenSpans, known: dict[tuple[str, ...], int]) -> int:
    if path not in known:
        context = _context(name, path)
        known[path] = tokens.count([context])[0] if context else 0
    return known[path]


class _HeadingPaths:
    """Finds the enclosing headings of a position, from headings in any order."""

    def __init__(self, headings: Sequence[Heading]) -> None:
        ordered = sorted(headings, key=lambda heading: (heading.page, heading.offset))
        self._places = [(heading.page, heading.offset) for heading in ordered]
        self._paths: list[tuple[str, ...]] = []
        stack: list[Heading] = []
        for heading in ordered:
            while stack and stack[-1].level >= heading.level:
                stack.pop()
            stack.append(heading)
            self._paths.append(tuple(" ".join(above.title.split()) for above in stack))

    def above(self, page: int, offset: int) -> tuple[str, ...]:
        """Titles of the enclosing headings, outermost first; includes a heading that begins at the position."""
        index = bisect_right(self._places, (page, offset))
        return self._paths[index - 1] if index else ()

    def on_page(self, page: int) -> list[tuple[str, ...]]:
        """All heading paths that passages of a page can have."""
        first, last = bisect_right(self._places, (page, -1)), bisect_right(self._places, (page + 1, -1))
        return [self.above(page, -1), *self._paths[first:last]]

    def offsets(self, page: int) -> frozenset[int]:
        """Offsets at which headings begin on a page."""
        first, last = bisect_right(self._places, (page, -1)), bisect_right(self._places, (page + 1, -1))
        return frozenset(offset for _, offset in self._places[first:last])


def _units(
    page: Page,
    spans: Sequence[Span],
    counts: Sequence[int],
    heading_offsets: frozenset[int],
    *,
    budget: int,
    tokens: TokenSpans,
) -> list[_Unit]:
    text = page.text
    units: list[_Unit] = []
    for index, ((start, end), count) in enumerate(zip(spans, counts, strict=True)):
        if index + 1 == len(spans):
            cost = 0.0
        else:
            following = spans[index + 1][0]
            gap = text[end:following]
            if following in heading_offsets or _PARAGRAPH.search(gap):
                cost = 0.0
            else:
                cost = 0.5 if "\n" in gap or "\r" in gap else 1.0
        if count <= budget:
            units.append(_Unit(start, end, count, cost))
        else:
            pieces = _split_long(text, start, end, budget=budget, tokens=tokens)
            units.extend(_Unit(a, b, n, 2.0 if b < pieces[-1][1] else cost) for a, b, n in pieces)
    return units


def _rows_apart(text: str, spans: Sequence[Span], tables: Sequence[Table]) -> list[Span]:
    """The spans with a border before and after each row of a table, and none within a row."""
    if not tables:
        return list(spans)
    rows = [(row.start, row.end) for table in tables for row in table.rows]
    inside = sorted({border for row in rows for border in row})
    borders = {border for span in spans for border in span}
    for start, end in rows:
        borders -= {border for border in borders if start < border < end}
    ordered = sorted(borders.union(inside))
    pieces = (strip_span(text, start, end) for start, end in pairwise(ordered))
    return [piece for piece in pieces if piece is not None]


def _repeated_tokens(table: Table, tokens: TokenSpans, *, budget: int) -> int:
    """The tokens that a passage needs for the headings of a table that it begins in."""
    row = table.rows[-1]
    alone = replace(table, rows=(replace(row, start=0),), heading_start=0, heading_end=0)
    return min(tokens.count([table_context([alone], "")])[0], budget // 2)


def _with_repeated(units: list[_Unit], tables: Sequence[Table], repeated: Sequence[int]) -> list[_Unit]:
    starts = [unit.start for unit in units]
    for table, count in zip(tables, repeated, strict=True):
        has_heading = table.heading_end > table.heading_start
        first = (bisect_right if has_heading else bisect_left)(starts, table.start)
        for index in range(first, bisect_right(starts, table.rows[-1].end)):
            units[index] = replace(units[index], repeated=count)
    return units


def _split_long(text: str, start: int, end: int, *, budget: int, tokens: TokenSpans) -> list[tuple[int, int, int]]:
    """Split ``text[start:end]`` at word boundaries into ``(start, end, tokens)`` of at most ``budget`` tokens each."""
    spans = tokens.spans(text[start:end])
    pieces: list[tuple[int, int, int]] = []
    begin, first = start, 0
    while len(spans) - first > budget:
        last = first + budget
        cut = last
        while cut > first and not _is_word_start(text, start + spans[cut][0]):
            cut -= 1
        cut = cut if cut > first else last
        border = start + spans[cut][0]
        span = strip_span(text, begin, border)
        if span is not None:
            pieces.append((*span, cut - first))
        begin, first = border, cut
    span = strip_span(text, begin, end)
    if span is not None:
        pieces.append((*span, len(spans) - first))
    return pieces


def _is_word_start(text: str, offset: int) -> bool:
    before, here = text[offset - 1 : offset], text[offset]
    return not before or not (before.isalnum() and here.isalnum()) or "\u2e80" <= here <= "\u9fff"


def _pack(units: Sequence[_Unit], *, budget: int, min_tokens: int) -> list[tuple[int, int]]:
    """Group units into runs ``(first, last)`` of at most ``budget`` tokens with minimum total cost.

    Unequal lengths, an end inside a paragraph, and a length below ``min_tokens`` increase the cost.
    """
    total = sum(unit.tokens for unit in units)
    target = total / max(1, -(-total // budget))
    best = [0.0]
    previous = [0]
    for last, unit in enumerate(units):
        used, lowest, choice = 0, float("inf"), last
        for first in range(last, -1, -1):
            used += units[first].tokens
            if used > budget and first < last:
                break
            if used + units[first].repeated > budget and first < last:
                continue
            cost = best[first] + ((used - target) / budget) ** 2 + (1.0 if used < min_tokens else 0.0)
            if cost < lowest:
                lowest, choice = cost, first
        best.append(lowest + 0.1 * unit.end_cost)
        previous.append(choice)
    runs: list[tuple[int, int]] = []
    end = len(units)
    while end > 0:
        runs.append((previous[end], end - 1))
        end = previous[end]
    runs.reverse()
    return runs


def _overlap(units: Sequence[_Unit], first: int, last: int, *, budget: int, overlap: int) -> int:
    """The first unit of a run after adding whole preceding sentences of up to ``overlap`` tokens."""
    if overlap <= 0:
        return first
    used, repeated = sum(unit.tokens for unit in units[first : last + 1]), 0
    while first > 0:
        more = units[first - 1].tokens
        if used + more + units[first - 1].repeated > budget or repeated + more > overlap:
            break
        first, used, repeated = first - 1, used + more, repeated + more
    return first
