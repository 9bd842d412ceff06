"""Finds table rows and their headings among the spans of a passage in which no tables were found. Pure.

A row ("1930 12,159") states little by itself: its meaning stands in the caption and the heading of its table.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from ragsvc.core.text.sentences import Span, is_table_row
from ragsvc.core.text.word_starts import plain_text

LINES_BEFORE: Final = 3
"""Lines before the first row of a table that may be its caption or heading."""

LONGEST_HEADING: Final = 300
"""Maximum length in characters of a quoted heading."""

LIST_ITEM: Final = re.compile(r"[\u2022\u00b7\u25aa\u25e6*+\u2013-] ?\w")
_SENTENCE: Final = re.compile(r"[.!?]\Z")
_LAST_NUMBER: Final = re.compile(r"\w\s+[-($€£]*\d[\d.,]*[%)]*\Z")
_LONGEST_ROW: Final = 12
_MANY_WORDS: Final = 25
_YEAR: Final = re.compile(r"\b(?:1[5-9]|20)\d\d\b")
_NUMBER: Final = re.compile(r"\d")
_ALPHANUMERIC: Final = re.compile(r"[^\W_]")


class TextRow(msgspec.Struct, frozen=True):
    """The spans of caption, headings and first row above a row.

    ``has_numbers`` is false in a list or table of words. ``is_heading`` marks the first row if it has only words and
    years.
    """

    above: tuple[Span, ...]
    has_numbers: bool = True
    is_heading: bool = False


def text_rows(text: str, spans: Sequence[Span]) -> dict[int, TextRow]:
    r"""The rows among the spans of a passage, by index, with the lines above their table.

    >>> text = "Boats by year\nYear Boats 2020 4\n2021 5 6\n2022 7 8"
    >>> rows = text_rows(text, [(0, 13), (14, 31), (32, 40), (41, 49)])
    >>> [text[start:end] for start, end in rows[3].above]
    ['Boats by year', 'Year Boats 2020 4']
    """
    rows = _word_rows(text, spans)
    first = 0
    is_row = _rows_and_neighbours([text[start:end] for start, end in spans])
    for at, row in enumerate(is_row):
        if not row:
            first = at + 1
            continue
        lines = [*range(max(0, first - LINES_BEFORE), first), *([first] if at > first else [])]
        while lines and lines[0] < first and _is_prose(text[spans[lines[0]][0] : spans[lines[0]][1]]):
            lines.pop(0)
        content = text[slice(*spans[at])]
        is_heading = (
            at == first and at + 1 < len(spans) and is_row[at + 1] and not _NUMBER.search(_YEAR.sub("", content))
        )
        rows[at] = TextRow(tuple(spans[line] for line in lines), is_heading=is_heading)
    return rows


def _word_rows(text: str, spans: Sequence[Span]) -> dict[int, TextRow]:
    """The lines of lists and of tables without numbers: short lines, one after the other, under their first lines."""
    rows: dict[int, TextRow] = {}
    first = 0
    for at in range(len(spans) + 1):
        if at < len(spans) and is_label(text[slice(*spans[at])]):
            continue
        if at - first > LINES_BEFORE:
            for row in range(first + 1, at):
                above = spans[first : min(row, first + LINES_BEFORE)]
                headings = (span for span in above if not LIST_ITEM.match(text, span[0], span[1]))
                rows[row] = TextRow(tuple(headings), has_numbers=False)
        first = at + 1
    return rows


def is_label(text: str) -> bool:
    """Whether a span is a heading, label or cell: short, and without the punctuation that ends a sentence."""
    return len(text.split()) <= _LONGEST_ROW and text[-1] not in ".!?;,\u3002\uff01\uff1f\u2026"


def heading_for(text: str, row: TextRow, missing: Sequence[str]) -> Span | None:
    """The part of the lines above a row that has the words that the row lacks, down to the row's column headings.

    ``missing`` are word starts as in ``core.text.word_starts``. ``None`` if no line above has any of them.
    """
    held = [any(word in plain_text(text[start:end]) for word in missing) for start, end in row.above]
    if True not in held:
        return None
    first, last = held.index(True), len(held) - 1 - held[::-1].index(True)
    while row.has_numbers and last + 1 < len(row.above) and not is_table_row(text[slice(*row.above[last + 1])]):
        last += 1  # the headings of the columns stand between the caption and the first row
    start, end = row.above[first][0], row.above[last][1]
    if end - start > LONGEST_HEADING:
        start = row.above[last][0]
    return (start, end) if end - start <= LONGEST_HEADING else None


def is_separator(text: str) -> bool:
    """Whether a row has no content, such as ``|---|---|``."""
    return _ALPHANUMERIC.search(text) is None


def _rows_and_neighbours(lines: Sequence[str]) -> list[bool]:
    """Which lines are table rows, by themselves or because they end with a number and stand next to a row."""
    is_row = [is_table_row(line) for line in lines]
    for at in [*range(len(lines)), *range(len(lines) - 1, -1, -1)]:
        if not is_row[at] and (is_row[max(0, at - 1)] or is_row[min(len(lines) - 1, at + 1)]):
            is_row[at] = _LAST_NUMBER.search(lines[at]) is not None and len(lines[at].split()) <= _LONGEST_ROW
    return is_row


def _is_prose(line: str) -> bool:
    return len(line.split()) > _MANY_WORDS or (
        _SENTENCE.search(line) is not None and len(line.split()) > _MANY_WORDS / 2
    )
