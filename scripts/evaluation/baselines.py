"""The plain stack as a baseline: chunks of 1,000 characters with an overlap of 200, ranked by cosine or by BM25.

It has the same pages and the same model, but no file names, headings, sentence boundaries, stemming or fusion.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evaluation.datasets import Dataset
from evaluation.engine import CANDIDATES, Embedding, PlainLexical
from ragsvc.core.documents import StoredPassage
from ragsvc.core.ids import DocumentId, PassageId
from ragsvc.core.ports.embedding import Vectors

CHARACTERS = 1000
OVERLAP = 200


class PlainStack:
    def __init__(self, dataset: Dataset, embedding: Embedding) -> None:
        self.passages = dict(enumerate(_chunks(dataset), start=1))
        texts = [chunk.text for chunk in self.passages.values()]
        self._vectors = embedding.passages(texts)
        self._words = PlainLexical(texts)

    def dense(self, vector: Vectors) -> list[StoredPassage]:
        order = np.argsort(-(self._vectors @ vector), kind="stable")[:CANDIDATES]
        return [self.passages[number + 1] for number in order.tolist()]

    def lexical(self, query: str) -> list[StoredPassage]:
        return [self.passages[number] for number in self._words.search(query, k=CANDIDATES)]


def _chunks(dataset: Dataset) -> Sequence[StoredPassage]:
    found: list[StoredPassage] = []
    for document, source in enumerate(dataset.sources, start=1):
        for page in source.extraction.pages:
            for start in range(0, max(1, len(page.text) - OVERLAP), CHARACTERS - OVERLAP):
                text = page.text[start : start + CHARACTERS]
                if not text.strip():
                    continue
                found.append(
                    StoredPassage(
                        id=PassageId(len(found) + 1),
                        document_id=DocumentId(document),
                        document_public_id=str(document),
                        filename=source.filename,
                        title=None,
                        page=page.number,
                        page_label=None,
                        start=start,
                        end=start + len(text),
                        text=text,
                        headings=(),
                        ordinal=len(found),
                    )
                )
    return found
