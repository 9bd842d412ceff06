"""Writes tables as Markdown rows. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from ragsvc.core.text.tables import markdown_row

_HAS_DIGIT = re.compile(r"\d")
_YEAR = re.compile(r"(?:FY ?|Q[1-4] ?)?(?:19|20)\d\d|Q[1-4]")


def table_rows(rows: Sequence[Sequence[str]]) -> list[str]:
    r"""The lines of a table: a row of headings, a line below it, and the other rows.

    Columns and rows that are blank everywhere are left out, and so is the line of a table of a single row. A single
    column is plain text.

    >>> table_rows([["Region", "", "March"], ["Borken", "", "12 | 13"]])
    ['| Region | March |', '| --- | --- |', '| Borken | 12 \\| 13 |']
    """
    cells = [[" ".join(text.split()) for text in row] for row in rows]
    cells = [row for row in cells if any(row)]
    cells = _with_one_heading(cells)
    width = max(map(len, cells), default=0)
    used = [column for column in range(width) if any(column < len(row) and row[column] for row in cells)]
    if len(used) == 1:
        return [row[used[0]] for row in cells]
    lines = [markdown_row([row[column] if column < len(row) else "" for column in used]) for row in cells]
    if len(lines) > 1:
        lines.insert(1, markdown_row(["---"] * len(used)))
    return lines


def _with_one_heading(rows: list[list[str]]) -> list[list[str]]:
    """The rows with two rows of headings joined: headings over several columns, and those of the columns below.

    >>> _with_one_heading([["Region", "2025", "2025"], ["", "Sales", "Staff"], ["North", "1,200", "12"]])
    [['Region', '2025 Sales', '2025 Staff'], ['North', '1,200', '12']]
    """
    if len(rows) < 3 or not len(rows[0]) == len(rows[1]) == len(rows[2]):
        return rows
    upper, lower, body = rows[0], rows[1], rows[2:]
    repeated = {left for left, right in pairwise(upper) if left and left == right}
    over_several = bool(repeated) or (2 * upper.count("") >= len(upper) and "" not in lower)
    has_values = any(_HAS_DIGIT.search(text) and not _YEAR.fullmatch(text) for text in lower)
    pairs = list(zip(upper, lower, strict=True))
    complete = all(below or (above and above not in repeated) for above, below in pairs)
    if not (over_several and complete) or has_values or not any(map(_HAS_DIGIT.search, body[0])):
        return rows
    return [[above if below in (above, "") else f"{above} {below}".strip() for above, below in pairs], *body]
