"""The pages of documents that are still being parsed, in memory, so that searches find their words at once.

A document has early pages from the first batch of pages that its parser sends until its passages are stored, or its
job ends. They are never written: after a kill, the document is parsed again. Ranking changes when the stored passages
take their place, which are cut by the tokens of the embedding model and have headings.
"""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Sequence
from typing import Final

import msgspec

from ragsvc.core.documents import Document, Extraction, Page, StoredPassage
from ragsvc.core.ids import CollectionId, DocumentId, PassageId
from ragsvc.core.ports.indexes import CountedTerms, LexicalDocument, WordScorer
from ragsvc.core.ports.parsing import ChunkingOptions
from ragsvc.core.retrieval.early_passages import EarlyPassages
from ragsvc.core.text.chunking import lexical_context, split_pages

_MAX_PASSAGES: Final = 3_000
"""Passages of a document that are searched before it is parsed; further ones wait for the end."""
_MAX_PASSAGES_OF_ALL: Final = 10_000
"""The same for all documents together: 70 MB, and 50 ms of each search if all of them are in one collection.

Scans that wait for recognition keep the pages that have text, and any number of scans may wait.
"""

_FIRST_ID: Final = -(1 << 62)
_FIRST_ORDINAL: Final = 1_000_000_000
"""Ordinals are part of the public ids of passages; those of early passages must not be those of other text later."""

_WORD: Final = re.compile(r"\S+")
_CHARACTERS_PER_TOKEN: Final = 4


class _Words:
    """Implements ``TokenSpans`` approximately: without the tokenizer, which only the child process has."""

    def count(self, texts: Sequence[str]) -> list[int]:
        return [-(-len(text) // _CHARACTERS_PER_TOKEN) for text in texts]

    def spans(self, text: str) -> list[tuple[int, int]]:
        return [word.span() for word in _WORD.finditer(text)]


class _EarlyDocument(msgspec.Struct, frozen=True):
    document: Document
    pages: frozenset[int] = frozenset()
    passages: tuple[StoredPassage, ...] = ()
    counted: tuple[CountedTerms, ...] = ()


class EarlyPages:
    """Documents of all tenants that are being parsed, by collection. Thread-safe."""

    def __init__(self, words: WordScorer, *, max_passages: int = _MAX_PASSAGES_OF_ALL) -> None:
        """``max_passages``: while the documents have so many early passages, no pages are added."""
        self._words = words
        self._max_passages = max_passages
        self._options = ChunkingOptions()
        self._lock = threading.Lock()
        self._ids = itertools.count(_FIRST_ID)
        self._documents: dict[DocumentId, _EarlyDocument] = {}

    def begin(self, document: Document) -> None:
        """Take the pages of a document from now on."""
        with self._lock:
            self._documents[document.id] = _EarlyDocument(document)

    def drop(self, document_id: DocumentId) -> None:
        """Forget the pages of a document, and take no more of them."""
        with self._lock:
            self._documents.pop(document_id, None)

    def add(self, document_id: DocumentId, pages: Sequence[Page], pages_total: int) -> int:
        """Make pages searchable, about a millisecond each; returns how many pages of the document are.

        A page that was added before, such as one whose text was recognised later, is replaced.
        """
        with self._lock:
            known = self._documents.get(document_id)
            of_all = sum(len(early.passages) for early in self._documents.values())
        if known is None or len(known.passages) >= _MAX_PASSAGES or of_all >= self._max_passages:
            return 0 if known is None else len(known.pages)
        document, numbers = known.document, {page.number for page in pages}
        split = split_pages(
            Extraction(pages=list(pages)), options=self._options, tokens=_Words(), filename=document.filename
        )
        context = lexical_context(document.title, document.filename, ())
        counted = self._words.count([LexicalDocument(0, document.id, passage.text, context) for passage in split])
        with self._lock:
            if (known := self._documents.get(document_id)) is None:
                return 0
            kept = [at for at, passage in enumerate(known.passages) if passage.page not in numbers]
            passages = [known.passages[at] for at in kept]
            for passage in split:
                number = next(self._ids)
                passages.append(
                    StoredPassage(
                        id=PassageId(number),
                        document_id=document.id,
                        document_public_id=document.public_id,
                        filename=document.filename,
                        title=document.title,
                        page=passage.page,
                        page_label=passage.page_label,
                        start=passage.start,
                        end=passage.end,
                        text=passage.text,
                        headings=(),
                        ordinal=_FIRST_ORDINAL + number - _FIRST_ID,
                        pages_total=pages_total,
                        tables=passage.tables,
                    )
                )
            changed = _EarlyDocument(
                document,
                known.pages | numbers,
                tuple(passages),
                (*(known.counted[at] for at in kept), *counted),
            )
            self._documents[document_id] = changed
        return len(changed.pages)

    def document_ids(self) -> list[DocumentId]:
        """The documents, of all tenants, whose pages are taken."""
        with self._lock:
            return list(self._documents)

    def of(self, collection_id: CollectionId) -> EarlyPassages | None:
        """The early passages of a collection; ``None`` if there are none, as usual."""
        if not self._documents:
            return None
        with self._lock:
            found = [
                early
                for early in self._documents.values()
                if early.passages and early.document.collection_id == collection_id
            ]
        if not found:
            return None
        pairs = [pair for early in found for pair in zip(early.passages, early.counted, strict=True)]
        pairs.sort(key=lambda pair: pair[0].id)
        counted = [terms for _, terms in pairs]
        return EarlyPassages(
            [passage for passage, _ in pairs], score_words=lambda text: self._words.scores(counted, text)
        )
