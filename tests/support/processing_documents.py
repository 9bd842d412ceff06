"""Documents that are being parsed, without a database."""

from __future__ import annotations

import msgspec

from ragsvc.core.documents import Document, DocumentStatus, Stage
from ragsvc.core.ids import CollectionId, DocumentId
from tests.support.stored_documents import ACME


def parsing_document(number: int, **values: object) -> Document:
    """A PDF in stage *parsing*; ``values`` replace its fields."""
    document = Document(
        id=DocumentId(number),
        public_id=f"doc_{number}",
        tenant=ACME,
        collection_id=CollectionId(1),
        collection="default",
        filename=f"{number}.pdf",
        media_type="application/pdf",
        size_bytes=1,
        sha256="",
        status=DocumentStatus.PROCESSING,
        stage=Stage.PARSING,
        metadata={},
        problems=[],
        created_at=1,
        updated_at=1,
    )
    return msgspec.structs.replace(document, **values)
