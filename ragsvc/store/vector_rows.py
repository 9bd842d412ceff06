"""Statements about embedding models and the vectors of passages. Callers own the transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from hashlib import blake2b
from typing import Final

import msgspec
import numpy as np
from sqlalchemy import Connection, bindparam, case, delete, exists, insert, select, update

from ragsvc.core.documents import Document, DocumentStatus, Passage, Table
from ragsvc.core.ids import DocumentId, PassageId, TenantId
from ragsvc.core.ports.embedding import EmbeddingModel, Vectors
from ragsvc.store.document_rows import get_by_row_id, has_other_names
from ragsvc.store.engines import engine_of
from ragsvc.store.index_log_rows import append_change
from ragsvc.store.tables import DocumentRow, EmbeddingModelRow, EmbeddingRow, PassageRow, table_of
from ragsvc.store.text_integrity import readable

_documents = table_of(DocumentRow)
_passages = table_of(PassageRow)
_embeddings = table_of(EmbeddingRow)
_models = table_of(EmbeddingModelRow)

_HASHES_AT_ONCE = 500
_HASH_VERSION: Final = b"embedded-text-2"
UNKNOWN_HASH: Final = bytes(16)
"""The ``embedding_hash`` of a passage without vectors, or with vectors of different texts."""

_decode_headings = msgspec.json.Decoder(tuple[str, ...]).decode


def embedding_hash(text: str) -> bytes:
    """BLAKE2b-128 of the text that a model embeds, after condensing: equal hashes of one tenant share one vector.

    Earlier releases hashed the text before condensing, which does not identify a vector. The version makes their
    hashes differ from all hashes made here: stored vectors remain in use, but are not copied to other passages.
    """
    return blake2b(text.encode(), digest_size=len(UNKNOWN_HASH), person=_HASH_VERSION).digest()


def model_row_id(connection: Connection, model: EmbeddingModel, *, setting: str = "", now: int) -> int:
    """Row id of an embedding model, which is registered if it is new; ``setting`` is the value that opens it again."""
    statement = select(_models.c.id).where(_models.c.fingerprint == model.fingerprint)
    found = connection.execute(statement).scalar_one_or_none()
    if found is not None:
        return int(found)
    connection.execute(
        insert(_models).values(
            name=model.name,
            dimension=model.dimension,
            fingerprint=model.fingerprint,
            setting=setting or model.name,
            created_at=now,
        )
    )
    return int(connection.execute(statement).scalar_one())


_decode_tables = msgspec.json.Decoder(tuple[Table, ...]).decode


def decode_tables(encoded: bytes | None) -> tuple[Table, ...]:
    """The tables of a passage from its row."""
    return _decode_tables(encoded) if encoded else ()


class EmbeddablePassage(msgspec.Struct, frozen=True):
    """A stored passage, and the ``embedding_hash`` of its vector if it has a vector of the model."""

    id: PassageId
    passage: Passage
    embedded: bytes | None


def passages_to_embed(
    connection: Connection, document_id: DocumentId, model_id: int, *, after: int, limit: int, only_missing: bool
) -> list[EmbeddablePassage]:
    """Passages of a document with ``id > after``, in order of id; ``only_missing``: those without a vector."""
    statement = (
        select(_passages, _embeddings.c.passage_id.label("vector_of"))
        .outerjoin(_embeddings, (_embeddings.c.passage_id == _passages.c.id) & (_embeddings.c.model_id == model_id))
        .where(_passages.c.document_id == document_id, _passages.c.id > after)
        .order_by(_passages.c.id)
        .limit(limit)
    )
    if only_missing:
        statement = statement.where(_embeddings.c.passage_id.is_(None))
    return [
        EmbeddablePassage(
            id=PassageId(row.id),
            passage=Passage(
                ordinal=row.ordinal,
                page=row.page,
                start=row.start,
                end=row.end,
                text=readable(row.text),
                headings=_decode_headings(row.headings),
                page_label=row.page_label,
                token_count=row.token_count,
                tables=decode_tables(row.tables),
            ),
            embedded=None if row.vector_of is None else row.embedding_hash,
        )
        for row in connection.execute(statement)
    ]


def cached_vectors(
    connection: Connection, tenant: TenantId, model_id: int, hashes: Sequence[bytes]
) -> dict[bytes, bytes]:
    """Vectors (float16 bytes) by hash, from passages of the tenant for which the same text was embedded."""
    found: dict[bytes, bytes] = {}
    for begin in range(0, len(hashes), _HASHES_AT_ONCE):
        statement = (
            select(_passages.c.embedding_hash, _embeddings.c.vector)
            .join(_embeddings, (_embeddings.c.passage_id == _passages.c.id) & (_embeddings.c.model_id == model_id))
            .join(_documents, _documents.c.id == _passages.c.document_id)
            .where(
                _documents.c.tenant == tenant,
                _passages.c.embedding_hash.in_(hashes[begin : begin + _HASHES_AT_ONCE]),
            )
        )
        found.update({row.embedding_hash: row.vector for row in connection.execute(statement)})
    return found


class PassageVector(msgspec.Struct, frozen=True):
    """A passage's vector as float16 bytes, and the hash of the text that was embedded."""

    passage_id: PassageId
    embedding_hash: bytes
    vector: bytes


class VectorsOutcome(Enum):
    """Whether vectors were stored, or why not."""

    STORED = "stored"
    DOCUMENT_DELETED = "document deleted"
    DOCUMENT_RENAMED = "document renamed"


def store_vectors(
    connection: Connection,
    document: Document,
    model_id: int,
    vectors: Sequence[PassageVector],
    *,
    now: int,
) -> VectorsOutcome:
    """Store vectors made for ``document``, unless it was deleted or renamed since it was read.

    The vectors of a searchable document are logged: an index, or its snapshot, may cover the document already.
    """
    current = get_by_row_id(connection, document.id)
    if current is None:
        return VectorsOutcome.DOCUMENT_DELETED
    if has_other_names(current, document):
        return VectorsOutcome.DOCUMENT_RENAMED
    if not vectors:
        return VectorsOutcome.STORED
    connection.execute(
        engine_of(connection).insert_or_replace(_embeddings),
        [{"model_id": model_id, "passage_id": new.passage_id, "vector": new.vector} for new in vectors],
    )
    _store_hashes(connection, model_id, vectors)
    if current.is_searchable:
        append_change(connection, document, "reembed", [new.passage_id for new in vectors])
    connection.execute(
        update(_documents)
        .where(_documents.c.id == document.id, _documents.c.status != DocumentStatus.READY)
        .values(passages_done=_documents.c.passages_done + len(vectors), updated_at=now)
    )
    return VectorsOutcome.STORED


def _store_hashes(connection: Connection, model_id: int, vectors: Iterable[PassageVector]) -> None:
    """Write the hashes; where another model's vector was made from another text, no hash is true for both."""
    of_other_model = exists().where(_embeddings.c.passage_id == _passages.c.id, _embeddings.c.model_id != model_id)
    statement = (
        update(_passages)
        .where(_passages.c.id == bindparam("passage"), _passages.c.embedding_hash != bindparam("hash"))
        .values(embedding_hash=case((of_other_model, UNKNOWN_HASH), else_=bindparam("hash")))
    )
    connection.execute(statement, [{"passage": new.passage_id, "hash": new.embedding_hash} for new in vectors])


def delete_vectors(connection: Connection, document_id: DocumentId, *, except_model: int | None = None) -> None:
    """Delete the vectors of a document's passages; those of model ``except_model`` are kept."""
    passages = select(_passages.c.id).where(_passages.c.document_id == document_id)
    statement = delete(_embeddings).where(_embeddings.c.passage_id.in_(passages))
    if except_model is not None:
        statement = statement.where(_embeddings.c.model_id != except_model)
    connection.execute(statement)


def pack_vectors(vectors: Vectors) -> list[bytes]:
    """Rows as little-endian float16 bytes."""
    halves = np.ascontiguousarray(vectors, dtype="<f2")
    return [row.tobytes() for row in halves]


def unpack_vectors(rows: Sequence[bytes], dimension: int) -> Vectors:
    """``(n, dimension)`` float32 unit rows from stored float16 bytes."""
    halves = np.frombuffer(b"".join(rows), dtype="<f2").reshape(len(rows), dimension)
    vectors = halves.astype(np.float32)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(vectors / np.maximum(norms, 1e-12))
