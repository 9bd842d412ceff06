"""Statements that read passages and pages, for citations, listings and the indexes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
from sqlalchemy import Connection, LargeBinary, Select, Text, bindparam, cast, func, select
from sqlalchemy.dialects import sqlite

from ragsvc.core.documents import DocumentStatus, Page, StoredPassage
from ragsvc.core.ids import DocumentId, PassageId
from ragsvc.core.ports.indexes import Ids
from ragsvc.core.validation import invalid_value
from ragsvc.store.database import driver_connection
from ragsvc.store.tables import DocumentRow, PageRow, PassageRow, table_of

documents_table = table_of(DocumentRow)
passages_table = table_of(PassageRow)
_pages = table_of(PageRow)

_AT_ONCE = 500
_decode_headings = msgspec.json.Decoder(tuple[str, ...]).decode

_columns = (
    passages_table.c.id,
    passages_table.c.document_id,
    documents_table.c.public_id,
    documents_table.c.filename,
    documents_table.c.title,
    passages_table.c.page,
    passages_table.c.page_label,
    passages_table.c.start,
    passages_table.c.end,
    passages_table.c.text,
    cast(passages_table.c.headings, Text).label("headings"),
    passages_table.c.ordinal,
    passages_table.c.token_count,
)
_with_document = passages_table.join(documents_table, documents_table.c.id == passages_table.c.document_id)
_select_passage = select(*_columns).select_from(_with_document)
_ids = select(func.json_each(bindparam("ids")).table_valued("value").c.value)
_of_ids = passages_table.c.id.in_(_ids)
_is_ready = documents_table.c.status == DocumentStatus.READY


class _OneValue:
    """A statement with the parameter ``ids`` that returns one value: text, bytes or nothing.

    The statement aggregates all rows into one value: the driver releases the interpreter lock between two rows, and
    hundreds of these switches slow down concurrent searches. It is compiled once and run on the driver's connection,
    which saves two thirds of the time.
    """

    def __init__(self, statement: Select[Any]) -> None:
        compiled = statement.compile(dialect=sqlite.dialect(paramstyle="named"))
        self._sql, self._values = str(compiled), dict(compiled.params)

    def read(self, connection: Connection, ids: Iterable[int] | Ids, **values: str) -> str | bytes:
        wanted = msgspec.json.encode([int(passage) for passage in ids]).decode()
        statement = driver_connection(connection).execute(self._sql, {**self._values, "ids": wanted, **values})
        found: str | bytes | None = statement.fetchone()[0]
        return found or b""


_rows_as_json = _OneValue(
    select(func.json_group_array(func.json_array(*_columns))).select_from(_with_document).where(_of_ids, _is_ready)
)
_names_as_json = _OneValue(
    select(
        func.json_group_array(
            func.json_array(documents_table.c.id, documents_table.c.filename, documents_table.c.title)
        )
    ).where(documents_table.c.id.in_(_ids), _is_ready)
)
_pages_as_json = _OneValue(
    select(
        func.json_group_array(func.json_array(passages_table.c.id, passages_table.c.page, passages_table.c.page_label))
    ).where(_of_ids)
)
_texts_joined = _OneValue(
    select(cast(func.group_concat(passages_table.c.text, bindparam("between")), LargeBinary)).where(_of_ids)
)

Row = tuple[int, int, str, str, str | None, int, str | None, int, int, str, str, int, int]
_decode_rows = msgspec.json.Decoder(list[Row]).decode
_decode_names = msgspec.json.Decoder(list[tuple[int, str, str | None]]).decode
_decode_pages = msgspec.json.Decoder(list[tuple[int, int, str | None]]).decode


@lru_cache(maxsize=4096)
def _headings(encoded: str) -> tuple[str, ...]:
    """The decoded heading path, cached because the passages of a section share it."""
    return _decode_headings(encoded)


def _stored(row: Row) -> StoredPassage:
    key, document, public_id, filename, title, page, label, start, end, text, headings, ordinal, tokens = row
    return StoredPassage(
        PassageId(key),
        DocumentId(document),
        public_id,
        filename,
        title,
        page,
        label,
        start,
        end,
        text,
        _headings(headings),
        ordinal,
        tokens,
    )


def load_passages(connection: Connection, ids: Sequence[int] | Ids) -> dict[int, StoredPassage]:
    """Passages of ready documents by id; deleted passages are missing."""
    return {row[0]: _stored(row) for row in _decode_rows(_rows_as_json.read(connection, ids))}


def load_names(connection: Connection, document_ids: Iterable[int] | Ids) -> dict[int, tuple[str, str | None]]:
    """File name and title by document id; documents that are not ready are missing."""
    rows = _decode_names(_names_as_json.read(connection, document_ids))
    return {document: (filename, title) for document, filename, title in rows}


def load_pages(connection: Connection, ids: Sequence[int] | Ids) -> dict[int, tuple[int, str | None]]:
    """Number and printed label of each passage's page, by passage id."""
    rows = _decode_pages(_pages_as_json.read(connection, ids))
    return {passage: (page, label) for passage, page, label in rows}


def load_joined_texts(connection: Connection, ids: Sequence[int] | Ids, *, between: str) -> bytes:
    """The passages' texts in UTF-8, in any order, joined by ``between``."""
    joined = _texts_joined.read(connection, ids, between=between)
    return joined if isinstance(joined, bytes) else joined.encode()


def passages_of(
    connection: Connection, document_id: DocumentId, *, after: int | None, limit: int
) -> list[StoredPassage]:
    """Passages of one document in order, after the passage with id ``after``.

    Raises:
        InvalidRequest: the document has no passage ``after``.
    """
    last = -1
    if after is not None:
        where = (passages_table.c.id == after, passages_table.c.document_id == document_id)
        found = connection.execute(select(passages_table.c.ordinal).where(*where)).scalar_one_or_none()
        if found is None:
            raise invalid_value("after", "Expected the id of a passage of this document")
        last = int(found)
    statement = (
        _select_passage.where(passages_table.c.document_id == document_id, passages_table.c.ordinal > last)
        .order_by(passages_table.c.ordinal)
        .limit(limit)
    )
    return [_stored(tuple(row)) for row in connection.execute(statement)]


def page_of(connection: Connection, document_id: DocumentId, number: int) -> Page | None:
    statement = select(_pages).where(_pages.c.document_id == document_id, _pages.c.number == number)
    row = connection.execute(statement).one_or_none()
    return None if row is None else Page(number=row.number, text=row.text, label=row.label)


def load_openings(
    connection: Connection, document_ids: Sequence[int], *, characters: int, pages: int = 3
) -> dict[int, str]:
    """The beginning of documents: at most ``characters`` of their first ``pages`` pages, by document id."""
    found: dict[int, str] = {}
    for begin in range(0, len(document_ids), _AT_ONCE):
        statement = (
            select(_pages.c.document_id, func.substr(_pages.c.text, 1, characters).label("text"))
            .where(_pages.c.document_id.in_(document_ids[begin : begin + _AT_ONCE]), _pages.c.number <= pages)
            .order_by(_pages.c.document_id, _pages.c.number)
        )
        for row in connection.execute(statement):
            before = found.get(row.document_id, "")
            if len(before) < characters:
                found[row.document_id] = f"{before}\n{row.text}"[:characters] if before else row.text
    return found


def passage_ids_of_collection(connection: Connection, collection_id: int) -> Ids:
    """Ids of all passages of ready documents of a collection, ascending."""
    statement = (
        select(passages_table.c.id)
        .join(documents_table, documents_table.c.id == passages_table.c.document_id)
        .where(documents_table.c.collection_id == collection_id, documents_table.c.status == DocumentStatus.READY)
        .order_by(passages_table.c.id)
    )
    return np.fromiter(connection.execute(statement).scalars(), dtype=np.int64)
