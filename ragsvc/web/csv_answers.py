"""Answers as tables of comma-separated values (RFC 4180), for spreadsheets."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal

import msgspec
from litestar import Request, Response

from ragsvc.web.openapi import Document, DocumentedAnswer

CSV_MEDIA_TYPE: Final = "text/csv"
TableFormat = Literal["json", "csv"]
"""The query parameter ``format`` of a route that also answers with a table."""

_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
"""A spreadsheet takes a cell that begins with one of these for a formula (OWASP, CSV Injection)."""

Cell = str | int | float | None


def wants_csv(request: Request[Any, Any, Any], wanted: TableFormat | None) -> bool:
    """Whether the answer is a table: by the parameter ``format``, else by the header ``Accept``."""
    if wanted is not None:
        return wanted == "csv"
    return request.accept.best_match(["application/json", CSV_MEDIA_TYPE]) == CSV_MEDIA_TYPE


def safe_cell(value: Cell) -> Cell:
    """A cell that no spreadsheet runs as a formula: texts that look like one get an apostrophe in front.

    >>> safe_cell("=HYPERLINK(A1)"), safe_cell("gpt-4o"), safe_cell(-1), safe_cell(None)
    ("'=HYPERLINK(A1)", 'gpt-4o', -1, '')
    """
    if value is None:
        return ""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA_STARTS) else value


def csv_line(row: Sequence[Cell]) -> bytes:
    r"""A line of a table.

    >>> csv_line(["report, final", 3])
    b'"report, final",3\r\n'
    """
    text = io.StringIO()
    csv.writer(text).writerow([safe_cell(cell) for cell in row])
    return text.getvalue().encode()


def csv_response(columns: Sequence[str], rows: Iterable[Sequence[Cell]], *, filename: str) -> Response[bytes]:
    """A table as a download, with a line of titles."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows([safe_cell(cell) for cell in row] for row in rows)
    headers = {"content-disposition": f'attachment; filename="{filename}"', "cache-control": "no-store"}
    return Response(
        text.getvalue().encode(), media_type=f"{CSV_MEDIA_TYPE}; charset=utf-8; header=present", headers=headers
    )


def json_or_csv(description: str, body: type[msgspec.Struct]) -> dict[str, Any]:
    """The route options that describe both forms of an answer."""
    table: Document = {"type": "string", "description": "The fields of `data` as columns, with a line of titles"}
    return {"answers": {200: DocumentedAnswer(description, {"application/json": body, CSV_MEDIA_TYPE: table})}}
