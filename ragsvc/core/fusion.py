"""Ranks candidates by all the evidence there is: meaning, words, and what the document says it is about.

Pure and quick (it runs between a request and its answer). Knows candidates only, never the whole index; every weight
was chosen by ``scripts/evaluate`` (what was tried: ``scripts/evaluation/TECHNIQUES.md``).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from ragsvc.core.answerability import answerable, evidence_of
from ragsvc.core.documents import PassageOutline, StoredPassage
from ragsvc.core.ports import Hits, Ids, Vectors
from ragsvc.core.queries import content_words
from ragsvc.core.retrieval import SearchMode
from ragsvc.core.words import plain_text, word_start

DENSE_WEIGHT: Final = 0.6
"""Share of the cosine, which is used as it is: in a language the model does not know, all cosines are alike and words
decide by themselves. (Min-max scaling of both sides lost up to 40 points hit@1 on Russian and Chinese.)"""

DOCUMENT_WEIGHT: Final = 0.1
"""Most that a document's own name and opening add to each of its passages."""

PAGE_WEIGHT: Final = 0.1
"""What a passage gains when the question names its page ("in the table on page 28")."""

OPENING_CHARACTERS: Final = 2000
"""How much of a document's beginning says what it is: a title page, a letterhead, an abstract."""

CANDIDATES: Final = 70
"""How many passages each side of a search puts up, more only where more are asked for. A hundred found nothing more on
any set, and took a third longer."""

_MAX_SCORE: Final = 1.0 + DOCUMENT_WEIGHT + PAGE_WEIGHT
_MAX_OPENINGS: Final = 64
_MAX_WORDS: Final = 32
_K1: Final = 1.2
_B: Final = 0.75
_PAGE: Final = re.compile(
    r"\b(?:pages?|slides?|pp?\.|seiten?|стр\.|страниц\w*)\s*(\d{1,4})(?:\s*(?:-|to|and|und|и|,)\s*(\d{1,4}))?",
    re.IGNORECASE,
)

Floats = npt.NDArray[np.float32]


class Candidate(msgspec.Struct, frozen=True):
    """A passage in the ranking; scores in 0..1.

    ``dense`` is the cosine (negative ones as 0), ``lexical`` the BM25 score as a share of this search's best one, and
    ``score`` in a hybrid search their weighted sum with the evidence of document and page, as a share of the most
    there can be.
    """

    id: int
    score: float
    dense: float | None
    lexical: float | None


class Ranking(msgspec.Struct, frozen=True):
    """Candidates, best first, and the evidence (0..1) that they hold an answer."""

    candidates: list[Candidate]
    answerable: float


def fuse(
    query: str,
    mode: SearchMode,
    *,
    dense: Hits,
    lexical: Hits,
    passages: Mapping[int, StoredPassage],
    openings: Mapping[int, str] | None = None,
) -> Ranking:
    """Rank candidates whose whole rows are at hand, and judge whether they hold an answer; see ``rank``."""
    candidates = rank(query, mode, dense=dense, lexical=lexical, outlines=passages, openings=openings)
    rows = [passages[one.id] for one in candidates]
    return Ranking(candidates, answerable(query, evidence_of(rows, [one.dense or 0.0 for one in candidates])))


def rank(
    query: str,
    mode: SearchMode,
    *,
    dense: Hits,
    lexical: Hits,
    outlines: Mapping[int, PassageOutline] | Mapping[int, StoredPassage],
    openings: Mapping[int, str] | None = None,
) -> list[Candidate]:
    """Candidates, best first; those whose rows are gone (not in ``outlines``) are dropped.

    Args:
        query: what is asked, for the evidence of documents and pages.
        mode: dense and lexical rank by that side alone, hybrid by all.
        dense: ids and cosines, best with those of the lexical candidates as well.
        lexical: ids and BM25 scores.
        outlines: rows of the candidates by id.
        openings: the beginning of candidates' documents by document id (``OPENING_CHARACTERS`` are enough).
    """
    ids = [one for one in dict.fromkeys([*dense.ids.tolist(), *lexical.ids.tolist()]) if one in outlines]
    if not ids:
        return []
    cosines = _look_up(ids, dense)
    words = _look_up(ids, lexical)
    shares = words / max(float(np.nanmax(words, initial=0.0)), 1e-9)
    rows = [outlines[one] for one in ids]
    match mode:
        case SearchMode.DENSE:
            scores = np.nan_to_num(np.maximum(cosines, 0.0))
        case SearchMode.LEXICAL:
            scores = np.nan_to_num(shares)
        case SearchMode.HYBRID:
            scores = _combine(cosines, shares)
            asked = content_words(query)[:_MAX_WORDS]
            scores += DOCUMENT_WEIGHT * _document_evidence(asked, rows, scores, openings or {})
            scores += PAGE_WEIGHT * _page_evidence(query, rows)
            scores /= _MAX_SCORE
    order = np.lexsort((np.array(ids), -scores))
    columns = (np.array(ids)[order].tolist(), *(_rounded(side[order]) for side in (scores, cosines, shares)))
    return [
        Candidate(one, score or 0.0, dense_score, lexical_score)
        for one, score, dense_score, lexical_score in zip(*columns, strict=True)
    ]


def complete_cosines(
    dense: Hits, lexical: Hits, *, query: Vectors, vectors_of: Callable[[Ids], tuple[Ids, Vectors]]
) -> Hits:
    """The dense hits and, after them, the cosines of candidates that only words found.

    Without them a passage just beyond the dense list looks as unlike the question as any (hit@5 on sec10q .90, with
    them .95). ``vectors_of`` gives ids and vectors of those ids that (still) exist.
    """
    missing = np.setdiff1d(lexical.ids, dense.ids)
    if not missing.size:
        return dense
    ids, vectors = vectors_of(missing)
    cosines = (vectors @ query).astype(np.float32)
    return Hits(np.concatenate([dense.ids, ids]), np.concatenate([dense.scores, cosines]))


def _look_up(ids: Sequence[int], hits: Hits) -> Floats:
    """Each id's score, ``nan`` where the side did not see it."""
    known = dict(zip(hits.ids.tolist(), hits.scores.tolist(), strict=True))
    return np.array([known.get(one, math.nan) for one in ids], dtype=np.float32)


def _rounded(values: Floats) -> list[float | None]:
    """Within 0..1 to four places, ``None`` for unknown ones."""
    return [None if math.isnan(value) else value for value in np.round(np.clip(values, 0, 1).astype(float), 4).tolist()]


def _combine(cosines: Floats, shares: Floats) -> Floats:
    """Weighted sum. An unknown cosine is at most the least known one; four fifths of that did best."""
    floor = 0.8 * max(0.0, float(np.nanmin(cosines))) if not np.isnan(cosines).all() else 0.0
    known = np.where(np.isnan(cosines), floor, np.maximum(cosines, 0.0))
    return (DENSE_WEIGHT * known + (1 - DENSE_WEIGHT) * np.nan_to_num(shares)).astype(np.float32)


def _document_evidence(
    asked: Sequence[str], rows: Sequence[PassageOutline | StoredPassage], scores: Floats, openings: Mapping[int, str]
) -> Floats:
    """BM25 (as a share of the best) of each row's document by its name, headings aside, and opening.

    Counted among the candidates' documents only, so a word that all of them open with (a company's name, when all are
    that company's) weighs next to nothing, and one document alone is not favoured at all.
    """
    best = dict[int, float]()
    names = dict[int, str]()
    for row, score in zip(rows, scores.tolist(), strict=True):
        best[row.document_id] = max(best.get(row.document_id, 0.0), score)
        names.setdefault(row.document_id, f"{row.filename} {row.title or ''}")
    documents = sorted(best, key=lambda one: -best[one])[:_MAX_OPENINGS]
    starts = [start for start in map(word_start, asked) if start]
    if not starts or len(documents) < 2:
        return np.zeros(len(rows), np.float32)
    texts = [_card(names[one], openings.get(one, "")) for one in documents]
    counts = np.array([[text.count(start) for start in starts] for text in texts], dtype=np.float32)
    lengths = np.array([len(text) for text in texts], dtype=np.float32)
    found = (counts > 0).sum(axis=0)
    rarity = np.log(1 + (len(documents) - found + 0.5) / (found + 0.5))
    norm = _K1 * (1 - _B + _B * lengths / lengths.mean())
    weight = (counts * (_K1 + 1) / (counts + norm[:, None]) * rarity).sum(axis=1)
    share = dict(zip(documents, (weight / max(float(weight.max()), 1e-9)).tolist(), strict=True))
    return np.array([share.get(row.document_id, 0.0) for row in rows], dtype=np.float32)


@lru_cache(maxsize=1024)
def _card(name: str, opening: str) -> str:
    """What a document says it is, ready to look words up in; the same few documents come again with each question."""
    return plain_text(f"{name} {opening[:OPENING_CHARACTERS]}")


def _page_evidence(query: str, rows: Sequence[PassageOutline | StoredPassage]) -> Floats:
    """1 for passages on a page that the question names, by number or by printed label."""
    named = {number for match in _PAGE.findall(query) for number in match if number}
    if not named:
        return np.zeros(len(rows), np.float32)
    return np.array([str(row.page) in named or row.page_label in named for row in rows], dtype=np.float32)
