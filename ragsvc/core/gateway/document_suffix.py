"""Names of models with a suffix that asks for an answer from documents, for clients that can only choose a model."""

from __future__ import annotations

import re
from typing import Final

import msgspec

DOCUMENTS_SUFFIX: Final = "+docs"
_SUFFIXED: Final = re.compile(r"(?P<model>.+?)\+docs(?::(?P<collection>.+))?", re.DOTALL)


class RequestedModel(msgspec.Struct, frozen=True):
    """A model as a client names it: its own name, and whether the answer is to be from documents.

    ``collection`` is ``None`` if the name has none.
    """

    name: str
    documents: bool = False
    collection: str | None = None


def split_suffix(name: str) -> RequestedModel:
    """Split the suffix off a name.

    >>> split_suffix("gpt-x+docs:hr")
    RequestedModel(name='gpt-x', documents=True, collection='hr')
    >>> split_suffix("gpt-x+docs").collection, split_suffix("gpt-x+docsify").documents
    (None, False)
    """
    found = _SUFFIXED.fullmatch(name)
    if found is None:
        return RequestedModel(name)
    return RequestedModel(found["model"], documents=True, collection=found["collection"])


def with_suffix(name: str, collection: str | None) -> str:
    """The name that asks for documents of a collection, or of the default collection.

    >>> with_suffix("gpt-x", None), with_suffix("gpt-x", "hr")
    ('gpt-x+docs', 'gpt-x+docs:hr')
    """
    return f"{name}{DOCUMENTS_SUFFIX}" if collection is None else f"{name}{DOCUMENTS_SUFFIX}:{collection}"
