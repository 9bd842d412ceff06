"""Tables in the text of pages and passages: as Markdown, as context of a passage, and from Markdown. Pure.

The text of a page has the lines of a table as a reader sees them. The table beside it says which cell belongs to which
column, so that a passage can be shown with Markdown rows while its offsets and quotes stay those of the page.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from msgspec.structs import replace

from ragsvc.core.documents import Passage, StoredPassage, Table, TableRow

MAX_CONTEXT_CHARACTERS: Final = 300

_DELIMITER: Final = re.compile(r" {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*")
_LINE: Final = re.compile(r"[^\n]*")
_CELL_BORDER: Final = re.compile(r"(?<!\\)\|")
_FENCE: Final = re.compile(r" {0,3}(?:```|~~~)")


def cut_tables(tables: Iterable[Table], start: int, end: int) -> tuple[Table, ...]:
    """The parts of a page's tables in the passage ``[start, end)``, with offsets into the passage."""
    found: list[Table] = []
    for table in tables:
        rows = tuple(
            TableRow(row.start - start, row.end - start, row.cells)
            for row in table.rows
            if row.start >= start and row.end <= end
        )
        if not rows:
            continue
        inside = start <= table.heading_start < table.heading_end <= end
        found.append(
            replace(
                table,
                rows=rows,
                heading_start=table.heading_start - start if inside else 0,
                heading_end=table.heading_end - start if inside else 0,
            )
        )
    return tuple(found)


def table_context(tables: Sequence[Table], text: str) -> str:
    r"""The caption and headings of the table that a passage begins in, if the passage lacks them; each word once.

    >>> row = TableRow(0, 11, ("Borken", "3", "4"))
    >>> table_context([Table(("Town", "Sales May", "Sales June"), (row,), "Sales of boats")], "Borken 3 4")
    'Sales of boats\nTown Sales May June'
    """
    if not tables or text[: tables[0].start].strip():
        return ""
    table = tables[0]
    words = list(dict.fromkeys(" ".join(table.columns).split()))
    if table.heading_end > table.heading_start or all(word in text for word in words):
        return ""
    caption = "" if table.caption in text else table.caption
    return "\n".join(filter(None, (caption, " ".join(words))))[:MAX_CONTEXT_CHARACTERS].rstrip()


def passage_text(passage: Passage | StoredPassage) -> str:
    """The text of a passage as a model reads it, with the rows of its tables as Markdown."""
    return as_markdown(passage.text, passage.tables) if passage.tables else passage.text


def as_markdown(text: str, tables: Sequence[Table]) -> str:
    """A passage's text with the rows of its tables as Markdown, below the headings, repeated where it lacks them.

    >>> row = TableRow(0, 8, ("Borken", "", "4"))
    >>> print(as_markdown("Borken 4", [Table(("Town", "May", "June"), (row,))]))
    | Town | May | June |
    | --- | --- | --- |
    | Borken |  | 4 |
    """
    parts: list[str] = []
    position = 0
    for table in tables:
        if table.start < position:
            continue
        before = text[position : table.start]
        if before.strip():
            parts.append(before.rstrip() + "\n")
        elif parts:
            parts.append("")
        if table.caption and table.caption not in text:
            parts.append(table.caption + "\n")
        parts += [markdown_row(table.columns), markdown_row(["---"] * len(table.columns))]
        position = max(table.start, table.heading_end)
        for row in table.rows:
            if between := text[position : row.start].strip():
                parts.append(markdown_row([between, *[""] * (len(table.columns) - 1)]))
            parts.append(markdown_row(row.cells))
            position = row.end
    rest = text[position:].strip()
    return "\n".join([*parts, *([f"\n{rest}" if parts else rest] if rest else [])])


def markdown_row(cells: Sequence[str]) -> str:
    r"""A row of a Markdown table; ``|`` in a cell is escaped (GFM §4.10).

    >>> markdown_row(["Borken", "", "12 | 13"])
    '| Borken |  | 12 \\| 13 |'
    """
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


def markdown_tables(text: str) -> list[Table]:
    r"""The tables that a text has as Markdown (GFM §4.10), outside fenced code.

    >>> [row.cells for row in markdown_tables("| Town | May |\n|---|---|\n| Borken | 3 |")[0].rows]
    [('Borken', '3')]
    """
    if "|" not in text or "-" not in text:
        return []
    lines = [found.span() for found in _LINE.finditer(text) if found.start() == 0 or text[found.start() - 1] == "\n"]
    found: list[Table] = []
    fenced = False
    index = 0
    while index < len(lines):
        line = text[slice(*lines[index])]
        if _FENCE.match(line):
            fenced = not fenced
        delimiter = text[slice(*lines[index + 1])] if index + 1 < len(lines) else ""
        if fenced or "|" not in line or "|" not in delimiter or not _DELIMITER.fullmatch(delimiter):
            index += 1
            continue
        columns = _cells(line)
        if len(columns) != len(_cells(delimiter)):
            index += 1
            continue
        heading = (lines[index][0], lines[index + 1][1])
        caption = text[slice(*lines[index - 1])].strip() if index else ""
        index += 2
        rows: list[TableRow] = []
        while index < len(lines) and "|" in (line := text[slice(*lines[index])]):
            cells = (*_cells(line), *[""] * len(columns))[: len(columns)]
            rows.append(TableRow(*lines[index], cells))
            index += 1
        if rows:
            found.append(Table(columns, tuple(rows), caption.lstrip("# "), *heading))
    return found


def _cells(line: str) -> tuple[str, ...]:
    inner = line.strip().removeprefix("|")
    inner = inner[:-1] if inner.endswith("|") and not inner.endswith("\\|") else inner
    return tuple(cell.strip().replace("\\|", "|") for cell in _CELL_BORDER.split(inner))
