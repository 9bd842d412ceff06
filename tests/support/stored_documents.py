"""Stores documents as rows without a running service, for tests of the store and of search."""

from __future__ import annotations

import numpy as np
from sqlalchemy import Connection

from ragsvc.core.documents import Document, Extraction, Page, Passage
from ragsvc.core.ids import TenantId
from ragsvc.core.ports.embedding import EmbeddingModel
from ragsvc.core.ports.parsing import ParsedDocument
from ragsvc.store import document_rows, job_rows, parsed_rows, vector_rows
from ragsvc.store.database import Database
from ragsvc.store.vector_rows import VectorsOutcome

ACME, OTHER = TenantId("acme"), TenantId("other")
MODEL = EmbeddingModel(name="m", dimension=4, max_tokens=256, fingerprint="f")


def add(database: Database, name: str, *, tenant: TenantId = ACME, metadata: dict | None = None) -> Document:
    def write(connection: Connection) -> Document:
        collection = document_rows.ensure_collection(connection, tenant, "default", now=1)
        document = document_rows.insert_document(
            connection,
            document_rows.NewDocument(
                public_id=f"doc_{tenant}_{name}",
                tenant=tenant,
                collection=collection,
                filename=f"{name}.pdf",
                media_type="application/pdf",
                size_bytes=3,
                sha256=name,
                metadata=metadata or {},
                created_at=1,
            ),
        )
        job_rows.enqueue(connection, document.id, tenant, password="secret", now=1)
        return document

    return database.write_sync(write)


def make_ready(database: Database, document: Document, *, texts: tuple[str, ...] = ("one", "two")) -> list[int]:
    parsed = ParsedDocument(
        Extraction(pages=[Page(1, " ".join(texts))], page_count=1),
        [Passage(number, 1, 0, len(text), text) for number, text in enumerate(texts)],
    )

    def write(connection: Connection) -> list[int]:
        parsed_rows.store_parsed(connection, document.id, parsed, timings={}, now=2)
        model_id = vector_rows.model_row_id(connection, MODEL, now=2)
        stored = vector_rows.passages_to_embed(connection, document.id, model_id, after=0, limit=100, only_missing=True)
        vectors = vector_rows.pack_vectors(np.eye(4, dtype=np.float32)[: len(stored)])
        new = [
            vector_rows.PassageVector(passage.id, vector_rows.embedding_hash(passage.passage.text), vector)
            for passage, vector in zip(stored, vectors, strict=True)
        ]
        assert vector_rows.store_vectors(connection, document, model_id, new, now=2) is VectorsOutcome.STORED
        outcome = job_rows.mark_ready(connection, document, model=MODEL, model_id=model_id, timings={}, now=3)
        assert outcome is job_rows.JobOutcome.DONE
        return [passage.id for passage in stored]

    return database.write_sync(write)
