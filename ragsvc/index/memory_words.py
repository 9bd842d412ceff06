"""BM25 over passages in memory, for files that are searched for one request and never stored.

Terms, weights and formula are those of ``index.lexical``; tantivy additionally rounds the lengths of fields. Counting
the terms takes most of the time and is done once a file; a search counts the terms of its question only.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from ragsvc.core.ports.embedding import Scores
from ragsvc.core.ports.indexes import CountedTerms, LexicalDocument
from ragsvc.core.text.languages import DEFAULT_LANGUAGE
from ragsvc.index.analysis import passage_terms, query_terms

_K1: Final = 1.2
_B: Final = 0.75
_TEXT_WEIGHT: Final = 1.0
_CONTEXT_WEIGHT: Final = 0.15
_MAX_QUERY_TERMS: Final = 32


class MemoryWordScorer:
    """Implements the port ``WordScorer``. Blocking and thread-safe."""

    def count(self, documents: Sequence[LexicalDocument]) -> list[CountedTerms]:
        counted: list[CountedTerms] = []
        last_document, language = -1, DEFAULT_LANGUAGE
        for document in documents:
            if document.document_id != last_document:  # as in the lexical index
                last_document, language = document.document_id, DEFAULT_LANGUAGE
            text, language = passage_terms(document.text, otherwise=language)
            context, _ = passage_terms(document.context, language=language)
            counted.append(CountedTerms(language, dict(Counter(text)), dict(Counter(context))))
        return counted

    def scores(self, counted: Sequence[CountedTerms], query: str) -> Scores:
        total = np.zeros(len(counted), np.float32)
        if not counted:
            return total
        languages = sorted({passage.language for passage in counted})
        terms = query_terms(query, languages=languages)
        text = _Field([passage.text for passage in counted])
        context = _Field([passage.context for passage in counted])
        found = {term: (text.counts(term), context.counts(term)) for term in terms}
        present = [term for term, (in_text, in_context) in found.items() if in_text.any() or in_context.any()]
        present.sort(key=lambda term: np.count_nonzero(found[term][0]) or np.count_nonzero(found[term][1]))
        for term in present[:_MAX_QUERY_TERMS]:
            in_text, in_context = found[term]
            total += _TEXT_WEIGHT * text.scores(in_text) + _CONTEXT_WEIGHT * context.scores(in_context)
        return total


class _Field:
    """The term counts of one field of all passages."""

    def __init__(self, counts: Sequence[Mapping[str, int]]) -> None:
        self._counts = counts
        lengths = np.array([sum(terms.values()) for terms in counts], np.float32)
        self._norm = _K1 * (1 - _B + _B * lengths / max(float(lengths.mean()), 1e-9))

    def counts(self, term: str) -> npt.NDArray[np.float32]:
        """How often each passage has the term."""
        return np.array([terms.get(term, 0) for terms in self._counts], np.float32)

    def scores(self, counts: npt.NDArray[np.float32]) -> Scores:
        """The BM25 score of each passage for one term."""
        found = int(np.count_nonzero(counts))
        rarity = math.log(1 + (len(counts) - found + 0.5) / (found + 0.5))
        return np.asarray(rarity * counts * (_K1 + 1) / (counts + self._norm), np.float32)
