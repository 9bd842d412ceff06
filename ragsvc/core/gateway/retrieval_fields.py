"""The fields that ask for an answer from documents, where they cannot have an effect: refused, never ignored.

Only chat completions and responses honour them. An answer without documents, where documents were asked for, misleads
its reader.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import parse_qsl

import msgspec
from msgspec import Raw

from ragsvc.core.errors import InvalidRequest, UnsupportedParameter
from ragsvc.core.near_misses import near_miss

RETRIEVAL_FIELDS: Final = ("use_rag", "rag")

_LIKE: Final = re.compile(r"(?:use[_-]?)?r(?:ag|ga)s?", re.IGNORECASE)
_LIKE_AS_KEY: Final = re.compile(rb'"(?:use[_-]?)?r(?:ag|ga)s?"\s*:', re.IGNORECASE)
_SEARCHED_BYTES: Final = 4096


def meant_retrieval_field(name: str) -> str | None:
    """The field that a name is or almost is; ``None`` for names of other fields.

    >>> [meant_retrieval_field(name) for name in ("use_rag", "useRag", "use-rga", "RAG", "user", "storage", "user_id")]
    ['use_rag', 'use_rag', 'use_rag', 'rag', None, None, None]
    """
    return near_miss(name, RETRIEVAL_FIELDS) if _LIKE.fullmatch(name) else None


def asks_for_documents(value: Raw) -> bool:
    """Whether the value of such a field asks for documents; ``false`` and ``null`` do not."""
    return bytes(value).strip() not in (b"false", b"null")


def unsupported_retrieval(name: str, where: str) -> UnsupportedParameter:
    """The error for a request that asks for documents where they cannot be used."""
    shown = "use_rag" if len(name) > 64 else name
    return UnsupportedParameter(
        f"'{shown}' cannot be honoured by {where}: "
        "only POST /v1/chat/completions and /v1/responses answer from documents.",
        param=shown,
    )


def refuse_retrieval_fields(raw: bytes, where: str) -> None:
    """Refuse a JSON object that asks for documents by almost the right name, at its beginning or end.

    Raises:
        UnsupportedParameter: names the field.
    """
    edges = raw if len(raw) <= 2 * _SEARCHED_BYTES else raw[:_SEARCHED_BYTES] + raw[-_SEARCHED_BYTES:]
    if _LIKE_AS_KEY.search(edges) is None:
        return
    for name, value in msgspec.json.decode(raw, type=dict[str, Raw]).items():
        if meant_retrieval_field(name) and asks_for_documents(value):
            raise unsupported_retrieval(name, where)


def refuse_retrieval_parameters(query: bytes) -> None:
    """Refuse a query string that asks for documents: the fields belong into the body. Raises ``InvalidRequest``."""
    if b"rag" not in query.lower():
        return
    for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if (meant := meant_retrieval_field(name)) is not None:
            raise InvalidRequest(f"'{meant}' is a field of the body of a chat, not a query parameter.", param=name[:64])


def nested_retrieval_field(extra_body: Raw) -> str | None:
    """The field inside ``extra_body``, an option of Python clients that other clients send as a field by mistake."""
    try:
        names: Iterable[str] = msgspec.json.decode(extra_body, type=dict[str, Raw])
    except msgspec.DecodeError:
        return None
    return next((name for name in names if meant_retrieval_field(name)), None)
