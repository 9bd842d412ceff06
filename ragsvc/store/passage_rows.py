"""Statements that read passages and pages, for citations, listings and the indexes."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Sequence
from functools import lru_cache

import msgspec
import numpy as np
from sqlalchemy import Connection, Select, exists, func, or_, select

from ragsvc.core.documents import DocumentStatus, Page, StoredPassage, Table
from ragsvc.core.errors import StoredDataDamaged
from ragsvc.core.ids import DocumentId, PassageId
from ragsvc.core.ports.indexes import DocumentCard, Ids
from ragsvc.core.retrieval.document_judgement import COVER_CHARACTERS
from ragsvc.core.retrieval.document_questions import DocumentQuestion
from ragsvc.core.text.chunking import lexical_context
from ragsvc.core.validation import invalid_value
from ragsvc.store.engines.constructs import (
    BETWEEN_TEXTS,
    beginning_of,
    is_requested,
    numbered_texts,
    rows_as_json,
    text_of_bytes,
)
from ragsvc.store.one_value_statement import OneValueStatement
from ragsvc.store.searchable_documents import is_searchable
from ragsvc.store.tables import DocumentRow, EmbeddingRow, PageRow, PassageRow, table_of
from ragsvc.store.text_integrity import is_readable, readable

documents_table = table_of(DocumentRow)
passages_table = table_of(PassageRow)
_pages = table_of(PageRow)
_embeddings = table_of(EmbeddingRow)

logger = logging.getLogger(__name__)

_AT_ONCE = 500
_MAX_ASKED_DOCUMENTS = 20
_OPENING_PASSAGES = 3
_decode_headings = msgspec.json.Decoder(tuple[str, ...]).decode
_decode_tables = msgspec.json.Decoder(tuple[Table, ...]).decode

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
    text_of_bytes(passages_table.c.headings).label("headings"),
    passages_table.c.ordinal,
    passages_table.c.token_count,
    documents_table.c.pages_total,
    text_of_bytes(passages_table.c.tables).label("tables"),
)
_with_document = passages_table.join(documents_table, documents_table.c.id == passages_table.c.document_id)
_select_passage = select(*_columns).select_from(_with_document)
_of_ids = is_requested(passages_table.c.id)
_rows_as_json = OneValueStatement(
    select(rows_as_json(*_columns)).select_from(_with_document).where(_of_ids, is_searchable)
)
_names_as_json = OneValueStatement(
    select(rows_as_json(documents_table.c.id, documents_table.c.filename, documents_table.c.title)).where(
        is_requested(documents_table.c.id), is_searchable
    )
)
_numbered_texts = OneValueStatement(select(numbered_texts(passages_table.c.id, passages_table.c.text)).where(_of_ids))

Row = tuple[int, int, str, str, str | None, int, str | None, int, int, str, str, int, int, int, str | None]
_decode_rows = msgspec.json.Decoder(list[Row]).decode
_decode_names = msgspec.json.Decoder(list[tuple[int, str, str | None]]).decode


@lru_cache(maxsize=4096)
def _headings(encoded: str) -> tuple[str, ...]:
    """The decoded heading path, cached because the passages of a section share it."""
    return _decode_headings(encoded)


def _stored(row: Row) -> StoredPassage:
    (
        key,
        document,
        public_id,
        filename,
        title,
        page,
        label,
        start,
        end,
        text,
        headings,
        ordinal,
        tokens,
        pages,
        tables,
    ) = row
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
        pages,
        _decode_tables(tables) if tables else (),
    )


def load_passages(connection: Connection, ids: Sequence[int] | Ids) -> dict[int, StoredPassage]:
    """Passages of searchable documents by id; deleted passages are missing, and so are those with damaged text."""
    try:
        rows = _decode_rows(_rows_as_json.read(connection, ids))
    except UnicodeError:
        rows = _undamaged_rows(connection, ids)
    return {row[0]: _stored(row) for row in rows}


def _undamaged_rows(connection: Connection, ids: Iterable[int] | Ids) -> list[Row]:
    """The rows that can be decoded, read one by one."""
    rows: list[Row] = []
    for passage in ids:
        try:
            rows += _decode_rows(_rows_as_json.read(connection, [int(passage)]))
        except UnicodeError:
            logger.warning("the text of passage %d is damaged: it is not found; see 'ragsvc doctor --deep'", passage)
    return rows


def load_names(connection: Connection, document_ids: Iterable[int] | Ids) -> dict[int, tuple[str, str | None]]:
    """File name and title by document id; documents that are not searchable are missing."""
    names = _names_as_json.read(connection, document_ids)
    rows = _decode_names(readable(names) if isinstance(names, str) else names)
    return {document: (filename, title) for document, filename, title in rows}


def load_asked_passages(
    connection: Connection, asked: DocumentQuestion, *, documents: Sequence[int], collection_id: int | None
) -> list[tuple[int, int]]:
    """Ids of the passages that a question about pages or documents asks for, and of their documents.

    At most ``_MAX_ASKED_DOCUMENTS`` of ``documents`` are read, in this order, or the oldest of the collection if the
    sequence is empty. Documents whose file name the question has come alone. Within a document, passages are in reading
    order; those of a page that is asked for by its printed label replace those of the page with this number.
    """
    columns = (documents_table.c.id, documents_table.c.filename, documents_table.c.pages_total)
    searchable = select(*columns).where(is_searchable)
    if documents:
        searchable = searchable.where(documents_table.c.id.in_(documents[:_AT_ONCE]))
    else:
        searchable = searchable.where(documents_table.c.collection_id == collection_id).limit(_AT_ONCE)
    totals = {row.id: (row.filename.lower(), row.pages_total) for row in connection.execute(searchable)}
    chosen = [document for document in documents or sorted(totals) if document in totals]
    named = [document for document in chosen if totals[document][0] in asked.file_names]
    passages = {
        document: _asked_of(connection, asked, document, totals[document][1])
        for document in (named or chosen)[:_MAX_ASKED_DOCUMENTS]
    }
    found = [[(passage, document) for passage in ids] for document, ids in passages.items()]
    if asked.names_pages:
        return list(itertools.chain.from_iterable(found))
    by_place = itertools.zip_longest(*found)  # the beginning of every document before more of the first
    return [pair for place in by_place for pair in place if pair is not None]


def _asked_of(connection: Connection, asked: DocumentQuestion, document: int, pages_total: int) -> list[int]:
    columns = (passages_table.c.id, passages_table.c.page, passages_table.c.page_label)
    statement = select(*columns).where(passages_table.c.document_id == document).order_by(passages_table.c.ordinal)
    if not asked.names_pages:
        return list(connection.execute(statement.limit(_OPENING_PASSAGES)).scalars())
    numbers = {int(page): page for page in asked.pages if page.isdecimal()}
    numbers |= {pages_total + 1 - from_end: "" for from_end in asked.from_end}
    labelled = func.lower(passages_table.c.page_label).in_(asked.pages)
    rows = connection.execute(statement.where(or_(passages_table.c.page.in_(numbers), labelled))).all()
    labels = {(row.page_label or "").lower() for row in rows}
    by_number = {number for number, page in numbers.items() if not page or page not in labels}
    return [row.id for row in rows if row.page in by_number or (row.page_label or "").lower() in asked.pages]


def load_texts(connection: Connection, ids: Sequence[int] | Ids) -> dict[int, bytes]:
    """The passages' texts in UTF-8 by id; those that do not exist are missing."""
    joined = _numbered_texts.read(connection, ids)
    if isinstance(joined, str):
        joined = readable(joined).encode()
    wanted = {b"%d" % passage: int(passage) for passage in ids}
    numbered = (entry.partition(b" ") for entry in joined.split(BETWEEN_TEXTS.encode())) if joined else ()
    # a damaged text may contain the separator: what follows it belongs to no passage
    return {wanted[number]: text for number, _, text in numbered if number in wanted}


def passages_of(
    connection: Connection, document_id: DocumentId, *, after: int | None, limit: int
) -> list[StoredPassage]:
    """Passages of one document in order, after the passage with the ordinal ``after``.

    Raises:
        InvalidRequest: the document has no passage ``after``.
    """
    last = -1 if after is None else after
    if after is not None:
        where = (passages_table.c.ordinal == after, passages_table.c.document_id == document_id)
        if connection.execute(select(passages_table.c.id).where(*where)).first() is None:
            raise invalid_value("after", "Expected the id of a passage of this document")
    statement = (
        _select_passage.where(passages_table.c.document_id == document_id, passages_table.c.ordinal > last)
        .order_by(passages_table.c.ordinal)
        .limit(limit)
    )
    rows = [tuple(row) for row in connection.execute(statement)]
    if damaged := [row for row in rows if not is_readable(row[9])]:
        raise StoredDataDamaged(f"The stored text of a passage on page {damaged[0][5]} is damaged.")
    return [_stored(row) for row in rows]


def page_of(connection: Connection, document_id: DocumentId, number: int) -> Page | None:
    statement = select(_pages).where(_pages.c.document_id == document_id, _pages.c.number == number)
    row = connection.execute(statement).one_or_none()
    return None if row is None else Page(number=row.number, text=row.text, label=row.label)


def pages_of(connection: Connection, document_id: DocumentId) -> list[Page]:
    """The pages of a document in order."""
    statement = select(_pages).where(_pages.c.document_id == document_id).order_by(_pages.c.number)
    return [Page(number=row.number, text=row.text, label=row.label) for row in connection.execute(statement)]


def load_openings(
    connection: Connection, document_ids: Sequence[int], *, characters: int, pages: int = 3
) -> dict[int, str]:
    """The beginning of documents: at most ``characters`` of their first ``pages`` pages, by document id."""
    found: dict[int, str] = {}
    for begin in range(0, len(document_ids), _AT_ONCE):
        statement = (
            select(_pages.c.document_id, beginning_of(_pages.c.text, characters).label("text"))
            .where(_pages.c.document_id.in_(document_ids[begin : begin + _AT_ONCE]), _pages.c.number <= pages)
            .order_by(_pages.c.document_id, _pages.c.number)
        )
        for row in connection.execute(statement):
            before = found.get(row.document_id, "")
            if len(before) < characters:
                text = readable(row.text)
                found[row.document_id] = f"{before}\n{text}"[:characters] if before else text
    return found


def searchable_documents(connection: Connection, collection_id: int) -> list[int]:
    """Ids of the searchable documents of a collection, ascending."""
    statement = select(documents_table.c.id).where(documents_table.c.collection_id == collection_id, is_searchable)
    return list(connection.execute(statement.order_by(documents_table.c.id)).scalars())


def load_cards(connection: Connection, document_ids: Sequence[int]) -> list[DocumentCard]:
    """Cards of those of the documents that are searchable, ascending by id."""
    openings = load_openings(connection, document_ids, characters=COVER_CHARACTERS)
    passages = func.count(passages_table.c.id)
    statement = (
        select(documents_table.c.id, documents_table.c.filename, documents_table.c.title, passages.label("passages"))
        .join(passages_table, passages_table.c.document_id == documents_table.c.id, isouter=True)
        .where(documents_table.c.id.in_(document_ids), is_searchable)
        .group_by(documents_table.c.id)
        .order_by(documents_table.c.id)
    )
    return [
        DocumentCard(row.id, lexical_context(row.title, row.filename, ()), openings.get(row.id, ""), row.passages)
        for row in connection.execute(statement)
    ]


def passage_ids_of_collection(connection: Connection, collection_id: int) -> Ids:
    """Ids of all passages of searchable documents of a collection, ascending."""
    return np.fromiter(connection.execute(_ids_of_collection(collection_id)).scalars(), dtype=np.int64)


def embedded_passage_ids(connection: Connection, collection_id: int, model_id: int) -> Ids:
    """Those of ``passage_ids_of_collection`` that must have a vector of a model, or have one already.

    Only a document that is not ready yet may lack vectors.
    """
    has_vector = exists().where(_embeddings.c.passage_id == passages_table.c.id, _embeddings.c.model_id == model_id)
    statement = _ids_of_collection(collection_id).where(
        or_(documents_table.c.status == DocumentStatus.READY, has_vector)
    )
    return np.fromiter(connection.execute(statement).scalars(), dtype=np.int64)


def _ids_of_collection(collection_id: int) -> Select[tuple[int]]:
    return (
        select(passages_table.c.id)
        .join(documents_table, documents_table.c.id == passages_table.c.document_id)
        .where(documents_table.c.collection_id == collection_id, is_searchable)
        .order_by(passages_table.c.id)
    )
