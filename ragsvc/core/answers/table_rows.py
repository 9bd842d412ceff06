"""States the rows of a passage's tables as sentences: the label, and the cells of the columns that are asked for. Pure.

A row alone ("Borken 398 405 412") does not tell which value belongs to which heading. Each statement consists of the
words of the row and of the headings; its span is the row in the passage's text. Rows that only two columns tell apart
(region and month) are stated with the cells of both.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from ragsvc.core.documents import StoredPassage, Table, TableRow
from ragsvc.core.text.sentences import Span
from ragsvc.core.text.word_starts import plain_text

MAX_CHARACTERS: Final = 480
STRUCK_OUT: Final = re.compile(r"(?<!\w)~~(?=\S)[^~\n]{1,400}?(?<=\S)~~(?!\w)")
_SCALE: Final = re.compile(r"\(?\b(in (?:thousands|millions|billions))\b(?![^()]*\bexcept\b)", re.IGNORECASE)


_UNSCALED: Final = re.compile(r"%|\bper\b|\bshares?\b|\brates?\b|\bratio\b|\bnumber\b|\byears?\b", re.IGNORECASE)
"""Words of rows whose values are not in the scale of the table."""


_KEY: Final = re.compile(r"[^\W\d_].{0,59}|(?:19|20)\d\d", re.DOTALL)
"""A cell that may tell rows apart: short words, or a year."""


class RowStatement(msgspec.Struct, frozen=True):
    """``text`` states the row ``[start, end)`` of the passage. ``asked``: the question names some of its columns."""

    text: str
    start: int
    end: int
    asked: bool


def table_spans(passage: StoredPassage) -> list[Span]:
    """The spans of the passage's text that are rows and headings of tables, in order."""
    spans = [
        span
        for table in passage.tables
        for span in ((table.heading_start, table.heading_end), *((row.start, row.end) for row in table.rows))
        if span[1] > span[0]
    ]
    return sorted(spans)


def row_statements(passage: StoredPassage, starts: Sequence[str]) -> Iterator[RowStatement]:
    """The rows with values; of a row whose columns are asked for by ``starts`` (of plain words), only their cells.

    A row whose cells in the columns asked for are all empty states nothing.
    """
    for table in passage.tables:
        headings = [plain_text(heading) for heading in table.columns]
        scale = _SCALE.search(table.caption)
        rows = _with_shared_labels([_valid(row) for row in table.rows])
        keys: Mapping[int, bool] | None = None  # few questions name a column
        for row in rows:
            label, first = _label(row)
            if not any(row.cells[first:]):
                continue
            columns = _asked_columns(headings, plain_text(label), starts, first)
            wanted = [at for at in columns if row.cells[at]]
            if columns and not wanted:
                continue
            if wanted:
                keys = _key_columns(rows) if keys is None else keys
                label = ", ".join([label.rstrip(" :"), *_other_keys(row, first, wanted, keys=keys, starts=starts)])
            text = _statement(table, row, label, wanted or [at for at in range(first, len(row.cells)) if row.cells[at]])
            if scale is not None and scale[1].lower() not in text.lower() and not _UNSCALED.search(text):
                text = f"{text} ({scale[1].lower()})"
            if len(text) > MAX_CHARACTERS:
                text = passage.text[row.start : row.end]
            yield RowStatement(text, row.start, row.end, bool(wanted))


def _valid(row: TableRow) -> TableRow:
    """The row without what is struck out."""
    if not any("~~" in cell for cell in row.cells):
        return row
    return replace(row, cells=tuple(" ".join(STRUCK_OUT.sub(" ", cell).split()) for cell in row.cells))


def _with_shared_labels(rows: Sequence[TableRow]) -> list[TableRow]:
    """The rows; one that begins with an empty cell before a key gets the first cell of the row before.

    A table often names a company once, in the first of the rows for its years.
    """
    filled: list[TableRow] = []
    for row in rows:
        before = (filled[-1] if filled else row).cells
        cells = row.cells
        is_shared = min(len(cells), len(before)) > 2 and not cells[0] and before[0]
        if is_shared and _KEY.fullmatch(cells[1]) and _KEY.fullmatch(before[1]):
            filled.append(replace(row, cells=(before[0], *cells[1:])))
        else:
            filled.append(row)
    return filled


def _key_columns(rows: Sequence[TableRow]) -> dict[int, bool]:
    """The columns after the labels whose cells are all keys, and whether they are needed to tell the rows apart."""
    width = min((len(row.cells) for row in rows), default=0)
    labels = [_label(row)[0] for row in rows]
    found: dict[int, bool] = {}
    for column in range(1, width):
        cells = [row.cells[column] for row in rows]
        if any(cells) and all(not cell or _KEY.fullmatch(cell) for cell in cells):
            found[column] = len(set(labels)) < len(labels)
            labels = [f"{label}\n{cell}" for label, cell in zip(labels, cells, strict=True)]
    return found


def _other_keys(
    row: TableRow, first: int, wanted: Sequence[int], *, keys: Mapping[int, bool], starts: Sequence[str]
) -> list[str]:
    """The cells that tell a row from others with its label, and those with a word asked, beside the columns wanted."""
    return [
        row.cells[at]
        for at, needed in keys.items()
        if first <= at < len(row.cells)
        and at not in wanted
        and row.cells[at]
        and (needed or any(start in plain_text(row.cells[at]) for start in starts))
    ]


def _label(row: TableRow) -> tuple[str, int]:
    """The label of a row, and the first column after it: the first cell, or two if the first is no word."""
    first = next((at for at, cell in enumerate(row.cells) if cell), 0)
    label = row.cells[first]
    following = row.cells[first + 1] if first + 2 < len(row.cells) else ""
    if following and sum(map(str.isalpha, label)) < len(label) / 2 and following[0].isalpha():
        return f"{label} {following}", first + 2
    return label, first + 1


def _asked_columns(headings: Sequence[str], label: str, starts: Sequence[str], first: int) -> list[int]:
    """The columns with the most of the words asked, except the words of the label and those of all headings."""
    columns = range(first, len(headings))
    telling = [
        start
        for start in dict.fromkeys(starts)
        if start not in label and 0 < sum(start in headings[at] for at in columns) < len(columns)
    ]
    if not telling and len(columns) == 1:
        return [at for at in columns if any(start in headings[at] for start in starts)]
    counts = {at: sum(start in headings[at] for start in telling) for at in columns}
    most = max(counts.values(), default=0)
    return [at for at, count in counts.items() if count == most] if most else []


def _statement(table: Table, row: TableRow, label: str, columns: Sequence[int]) -> str:
    label = label.rstrip(" :")
    if len(columns) == 1:
        heading = table.columns[columns[0]]
        return f"{', '.join(filter(None, (label, heading)))}: {row.cells[columns[0]]}"
    cells = "; ".join(" ".join(filter(None, (table.columns[at], row.cells[at]))) for at in columns)
    return f"{label}: {cells}"
