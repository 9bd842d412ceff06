"""Identifiers. Row ids are int64, persisted and never reused; public ids are what clients see."""

from typing import Final, NewType

TenantId = NewType("TenantId", str)
"""A tenant's name, as an operator wrote it (``acme``)."""

CollectionId = NewType("CollectionId", int)
"""Row id of a collection; one collection belongs to one tenant and owns one pair of indexes."""

DocumentId = NewType("DocumentId", int)
"""Row id of a document."""

PassageId = NewType("PassageId", int)
"""Row id of a passage; the id under which FAISS and tantivy know it."""

KeyId = NewType("KeyId", str)
"""Public id of an API key (``key_…``)."""

CHUNK_ID_PATTERN: Final = "^chunk_[0-9]{1,18}$"
"""What ``chunk_id`` makes."""


def chunk_id(passage_id: int) -> str:
    """The public id of a passage (``chunk_…``)."""
    return f"chunk_{passage_id}"


def passage_id(public_id: str) -> PassageId:
    """The row that a public id of ``CHUNK_ID_PATTERN`` names."""
    return PassageId(int(public_id.removeprefix("chunk_")))
