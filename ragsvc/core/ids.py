"""Identifiers. Row ids are int64, persisted and never reused; clients see public ids only."""

import secrets
import time
from typing import Final, NewType

TenantId = NewType("TenantId", str)
"""The name of a tenant as the operator set it, for example ``acme``."""

CollectionId = NewType("CollectionId", int)
"""Row id of a collection. A collection belongs to one tenant and has one pair of indexes."""

DocumentId = NewType("DocumentId", int)

FileId = NewType("FileId", int)

PassageId = NewType("PassageId", int)
"""Row id of a passage, also used as its id in the FAISS and tantivy indexes."""

KeyId = NewType("KeyId", str)
"""Public id of an API key: ``key_…``."""

END_OF_TEXT: Final = r"(?![\s\S])"
"""The end in a pattern of a JSON schema; a ``$`` also matches before a line feed at the end."""
CHUNK_ID_PATTERN: Final = rf"^chunk_[0-9a-f]{{24}}_[0-9]{{1,9}}{END_OF_TEXT}"
"""Regular expression of the results of ``chunk_id``."""


def chunk_id(document_id: str, ordinal: int) -> str:
    """The public id of a passage: the random part of its document's public id, and its place in the document.

    The row id would reveal how many passages all tenants together have.

    >>> chunk_id("doc_0123456789abcdef01234567", 3)
    'chunk_0123456789abcdef01234567_3'
    """
    return f"chunk_{document_id.removeprefix('doc_')}_{ordinal}"


def ordinal_of_chunk(public_id: str, *, document_id: str) -> int | None:
    """The place in its document of a passage; ``None`` if it belongs to another document.

    ``public_id`` matches ``CHUNK_ID_PATTERN``.
    """
    document, _, ordinal = public_id.removeprefix("chunk_").partition("_")
    return int(ordinal) if document == document_id.removeprefix("doc_") else None


def new_document_id() -> str:
    """A public id of a document: ``doc_`` and 24 hexadecimal digits, of which 11 are the time and 13 are random.

    Ids of documents that are stored together are close to each other, so that an index of ids has few pages to rewrite.
    """
    return f"doc_{int(time.time() * 1000) & (1 << 44) - 1:011x}{secrets.randbits(52):013x}"


def new_store_id() -> str:
    """A random public id of a collection as a vector store: ``vs_`` and 24 hexadecimal digits."""
    return f"vs_{secrets.token_hex(12)}"
