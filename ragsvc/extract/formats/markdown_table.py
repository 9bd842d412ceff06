"""Writes tables as Markdown rows. Pure."""

from __future__ import annotations

from collections.abc import Sequence


def table_rows(rows: Sequence[Sequence[str]]) -> list[str]:
    r"""The lines of a table: a row of headings, a line below it, and the other rows.

    Columns and rows that are blank everywhere are left out, and so is the line of a table of a single row. A single
    column is plain text.

    >>> table_rows([["Region", "", "March"], ["Borken", "", "12 | 13"]])
    ['| Region | March |', '| --- | --- |', '| Borken | 12 \\| 13 |']
    """
    cells = [[_cell(text) for text in row] for row in rows]
    cells = [row for row in cells if any(row)]
    width = max(map(len, cells), default=0)
    used = [column for column in range(width) if any(column < len(row) and row[column] for row in cells)]
    if len(used) == 1:
        return [row[used[0]].replace("\\|", "|") for row in cells]
    lines = [f"| {' | '.join(row[column] if column < len(row) else '' for column in used)} |" for row in cells]
    if len(lines) > 1:
        lines.insert(1, f"| {' | '.join(['---'] * len(used))} |")
    return lines


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
