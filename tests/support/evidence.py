"""The evidence of candidates whose passages are in memory."""

from __future__ import annotations

from collections.abc import Sequence

from ragsvc.core.documents import StoredPassage
from ragsvc.core.retrieval.answerability import BEST_PASSAGES, BETWEEN_TEXTS, RARITY_CANDIDATES, AnswerabilityEvidence


def evidence_of(passages: Sequence[StoredPassage], cosines: Sequence[float]) -> AnswerabilityEvidence:
    """Answerability evidence of ``passages``, which are sorted with the best first."""
    texts = [passage.text for passage in passages[:RARITY_CANDIDATES]]
    return AnswerabilityEvidence(passages[:BEST_PASSAGES], cosines, lambda: BETWEEN_TEXTS.join(texts).encode())
