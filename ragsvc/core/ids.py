"""Identifiers. Row ids are int64, persisted and never reused; clients see public ids only."""

from typing import Final, NewType

TenantId = NewType("TenantId", str)
"""The name of a tenant as the operator set it, for example ``acme``."""

CollectionId = NewType("CollectionId", int)
"""Row id of a collection. A collection belongs to one tenant and has one pair of indexes."""

DocumentId = NewType("DocumentId", int)

PassageId = NewType("PassageId", int)
"""Row id of a passage, also used as its id in the FAISS and tantivy indexes."""

KeyId = NewType("KeyId", str)
"""Public id of an API key: ``key_…``."""

CHUNK_ID_PATTERN: Final = "^chunk_[0-9]{1,18}$"
"""Regular expression of the results of ``chunk_id``."""


def chunk_id(passage_id: int) -> str:
    """The public id of a passage: ``chunk_…``."""
    return f"chunk_{passage_id}"


def passage_id(public_id: str) -> PassageId:
    """The row id of a passage from its public id, which must match ``CHUNK_ID_PATTERN``."""
    return PassageId(int(public_id.removeprefix("chunk_")))
