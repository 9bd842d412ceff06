"""Reads CSV and TSV files as Markdown rows; values stay as they are written, leading zeros included.

The delimiter is the character that divides most of the first rows into the same number of columns.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path

from ragsvc.core.documents import Extraction, ProblemCode
from ragsvc.core.ports.parsing import ExtractionLimits
from ragsvc.extract.formats.markdown_table import table_rows
from ragsvc.extract.formats.page_builder import PageBuilder
from ragsvc.extract.pdf_pages import PageReports
from ragsvc.extract.plain_text import decode

_DELIMITERS = (",", ";", "\t", "|")
_SAMPLED_ROWS = 100
_SAMPLED_CHARACTERS = 200_000
_PAGE_CHARACTERS = 50_000
_LONGEST_FIELD = 10_000_000
_MIN_SHARE = 0.5


def read_csv(path: Path, *, limits: ExtractionLimits, reports: PageReports, charset: str | None) -> Extraction:
    """Read a table of text. Raises ``ExtractionFailed``."""
    decoded = decode(path.read_bytes(), charset=charset)
    text = decoded.text.lstrip("\ufeff")
    delimiter, text = _declared_delimiter(text)
    builder = PageBuilder(limits, split_at=_PAGE_CHARACTERS)
    builder.page()
    if decoded.damaged:
        builder.problem(ProblemCode.BAD_CHARACTERS)
    csv.field_size_limit(_LONGEST_FIELD)
    rows = _rows(text[: limits.max_text_characters], delimiter or find_delimiter(text))
    titles = 0
    while titles < len(rows) - 1 and sum(map(bool, map(str.strip, rows[titles]))) <= 1:
        titles += 1
    if titles < len(rows) - 1:
        for row in rows[:titles]:
            builder.block(" ".join(row))
        rows = rows[titles:]
    lines = table_rows(rows)
    builder.rows(lines, headers=2 if len(lines) > 2 else 0)
    return builder.finish(nothing="The table contains no text.", on_progress=reports.on_progress)


def _declared_delimiter(text: str) -> tuple[str | None, str]:
    """The delimiter of a first line ``sep=;``, as Excel writes it, and the text below it."""
    line, _, rest = text.partition("\n")
    declared = line.strip().removeprefix("sep=")
    return (declared, rest) if line.startswith("sep=") and len(declared) == 1 else (None, text)


def find_delimiter(text: str) -> str:
    r"""The delimiter of a table.

    >>> find_delimiter('name;amount\n"Roe, J.";1,50\n"Poe, E.";2,75\n')
    ';'
    """
    sample = text[:_SAMPLED_CHARACTERS]
    best, best_score = ",", 0.0
    for delimiter in _DELIMITERS:
        counts = Counter(len(row) for row in _rows(sample, delimiter)[:_SAMPLED_ROWS] if any(row))
        if not counts:
            continue
        (columns, rows), total = counts.most_common(1)[0], counts.total()
        share = rows / total
        if columns > 1 and share >= _MIN_SHARE and share + columns / 1000 > best_score:
            best, best_score = delimiter, share + columns / 1000
    return best


def _rows(text: str, delimiter: str) -> list[list[str]]:
    """The rows of a table; an unclosed quotation mark makes the rows plain lines, so that no text is lost."""
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True))
    except csv.Error:
        return [line.split(delimiter) for line in text.splitlines()]
    if rows and any(field.count("\n") > _SAMPLED_ROWS for field in rows[-1]):
        return [line.split(delimiter) for line in text.splitlines()]
    return rows
