"""Identifiers. Row ids are int64, persisted and never reused; public ids are what clients see."""

from typing import NewType

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
