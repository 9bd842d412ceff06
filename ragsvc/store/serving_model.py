"""Statements about the serving embedding model, and about documents that lack vectors of another model."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Connection, exists, func, select

from ragsvc.core.documents import Document, DocumentStatus
from ragsvc.core.ids import DocumentId
from ragsvc.store.document_rows import get_by_row_id
from ragsvc.store.engines import engine_of
from ragsvc.store.tables import (
    DocumentRow,
    EmbeddingModelRow,
    EmbeddingRow,
    PassageRow,
    ServiceStateRow,
    table_of,
)

_documents = table_of(DocumentRow)
_passages = table_of(PassageRow)
_embeddings = table_of(EmbeddingRow)
_models = table_of(EmbeddingModelRow)
_state = table_of(ServiceStateRow)

_SERVING = "serving_embedding_model"


class ServedModel(msgspec.Struct, frozen=True):
    """The model whose vectors are searched: its row, and the setting that opens it."""

    id: int
    name: str
    setting: str
    fingerprint: str


def serving_model(connection: Connection) -> ServedModel | None:
    """The serving model; ``None`` in a new data directory."""
    statement = select(_models).join(_state, _state.c.value == _models.c.id).where(_state.c.name == _SERVING)
    row = connection.execute(statement).one_or_none()
    if row is None:
        return None
    return ServedModel(id=row.id, name=row.name, setting=row.setting, fingerprint=row.fingerprint)


def serve_model(connection: Connection, model_id: int) -> bool:
    """Make a model the serving model unless a ready document lacks its vectors; returns whether it serves."""
    if count_without_vectors(connection, model_id):
        return False
    values = {"name": _SERVING, "value": model_id}
    connection.execute(engine_of(connection).upsert(_state, values, {"value": model_id}))
    return True


def _lacking(model_id: int) -> Any:  # noqa: ANN401 - a SQLAlchemy condition
    vectors = exists().where(_embeddings.c.passage_id == _passages.c.id, _embeddings.c.model_id == model_id)
    return exists().where(_passages.c.document_id == _documents.c.id, ~vectors)


def lacks_vectors(connection: Connection, document_id: DocumentId, model_id: int) -> bool:
    """Whether a passage of the document, ready or not, has no vector of a model."""
    statement = select(_documents.c.id).where(_documents.c.id == document_id, _lacking(model_id))
    return connection.execute(statement).first() is not None


def count_without_vectors(connection: Connection, model_id: int) -> int:
    """How many ready documents lack vectors of a model."""
    statement = select(func.count()).where(_documents.c.status == DocumentStatus.READY, _lacking(model_id))
    return int(connection.execute(statement).scalar_one())


def documents_without_vectors(
    connection: Connection, model_id: int, *, after: DocumentId, limit: int
) -> list[Document]:
    """Ready documents with ``id > after`` that lack vectors of a model, oldest first."""
    statement = (
        select(_documents.c.id)
        .where(_documents.c.status == DocumentStatus.READY, _documents.c.id > after, _lacking(model_id))
        .order_by(_documents.c.id)
        .limit(limit)
    )
    found = [get_by_row_id(connection, DocumentId(row_id)) for row_id in connection.execute(statement).scalars()]
    return [document for document in found if document is not None]
