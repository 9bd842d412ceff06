"""Ranks candidates by all the evidence there is: meaning, words, and what the document says it is about.

Pure and quick (it runs between a request and its answer). Knows candidates only, never the whole index; every weight
was chosen by ``scripts/evaluate`` (what was tried: ``docs/techniques.md``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from math import isnan
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from ragsvc.core.ports.embedding import Vectors
from ragsvc.core.ports.indexes import Hits, Ids
from ragsvc.core.retrieval.conversation_query import content_words
from ragsvc.core.retrieval.search import SearchMode
from ragsvc.core.text.word_starts import WordText, count_starts, word_start

DENSE_WEIGHT: Final = 0.6
"""Share of the cosine, which is used as it is: in a language the model does not know, all cosines are alike and words
decide by themselves. (Min-max scaling of both sides lost up to 40 points hit@1 on Russian and Chinese.)"""

UNFAMILIAR_DENSE_WEIGHT: Final = 0.4
"""The same for a question whose words the model does not know at all: alike is not equal."""

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


class SearchCandidates(msgspec.Struct, frozen=True):
    """What a search found, a row for each passage, ascending by id; ``nan`` where a side did not see it.

    ``words`` are BM25 scores. All columns are ``(n,)``.
    """

    ids: Ids
    documents: Ids
    cosines: Floats
    words: Floats


Pages = Mapping[int, tuple[int, str | None]]
"""By passage id, the page it begins on: its number and its printed label."""


def join(dense: Hits, lexical: Hits, *, documents_of: Callable[[Ids], Ids]) -> SearchCandidates:
    """Both sides' hits as one table."""
    ids = np.union1d(dense.ids, lexical.ids)
    return SearchCandidates(ids, documents_of(ids), _spread(ids, dense), _spread(ids, lexical))


def complete_cosines(
    found: SearchCandidates, *, query: Vectors, vectors_of: Callable[[Ids], tuple[Ids, Vectors]]
) -> SearchCandidates:
    """The same with the cosines of passages that only words found.

    Without them a passage just beyond the dense list looks as unlike the question as any (hit@5 on sec10q .90, with
    them .95). ``vectors_of`` gives ids and vectors of those ids that (still) exist.
    """
    missing = np.isnan(found.cosines)
    if not missing.any():
        return found
    ids, vectors = vectors_of(found.ids[missing])
    cosines = found.cosines.copy()
    cosines[np.searchsorted(found.ids, ids)] = vectors @ query
    return msgspec.structs.replace(found, cosines=cosines)


def rank(
    query: str,
    mode: SearchMode,
    found: SearchCandidates,
    *,
    names: Mapping[int, str],
    openings: Mapping[int, str] | None = None,
    pages_of: Callable[[Ids], Pages],
    familiar: bool = True,
) -> list[Candidate]:
    """Candidates, best first; those of documents that are gone (not in ``names``) are dropped.

    Args:
        query: what is asked, for the evidence of documents and pages.
        mode: dense and lexical rank by that side alone, hybrid by all.
        found: the candidates, best with the cosines of all.
        names: of the candidates' documents, by document id; see ``name_and_title``.
        openings: the beginning of candidates' documents by document id (``OPENING_CHARACTERS`` are enough).
        pages_of: the pages of passages; asked only where the question names one.
        familiar: whether the model of the cosines knows the question's words.
    """
    documents, owners = np.unique(found.documents, return_inverse=True)
    ready = np.array([one in names for one in documents.tolist()], np.bool_)
    if not ready.all():
        found = _kept(found, ready[owners])
        documents, owners = np.unique(found.documents, return_inverse=True)
    if not found.ids.size:
        return []
    cosines = found.cosines
    shares = found.words / max(float(np.nanmax(found.words, initial=0.0)), 1e-9)
    match mode:
        case SearchMode.DENSE:
            scores = np.nan_to_num(np.maximum(cosines, 0.0))
        case SearchMode.LEXICAL:
            scores = np.nan_to_num(shares)
        case SearchMode.HYBRID:
            scores = _combine(cosines, shares, DENSE_WEIGHT if familiar else UNFAMILIAR_DENSE_WEIGHT)
            best = np.zeros(len(documents), np.float32)
            np.maximum.at(best, owners, scores)
            asked = content_words(query)[:_MAX_WORDS]
            evidence = _document_evidence(asked, documents, best, names, openings or {})
            scores += DOCUMENT_WEIGHT * evidence[owners]
            scores += PAGE_WEIGHT * _page_evidence(query, found.ids, pages_of)
            scores /= _MAX_SCORE
    order = np.argsort(-scores, kind="stable")
    table = np.stack((scores, cosines, shares)).astype(float)[:, order]
    rounded = np.round(np.clip(table, 0.0, 1.0), 4).tolist()
    return [
        Candidate(one, score, None if isnan(dense) else dense, None if isnan(lexical) else lexical)
        for one, score, dense, lexical in zip(found.ids[order].tolist(), *rounded, strict=True)
    ]


def name_and_title(filename: str, title: str | None) -> str:
    """What a document is called, for ``rank``."""
    return f"{filename} {title or ''}"


def _spread(ids: Ids, hits: Hits) -> Floats:
    """Each id's score (``ids`` ascending), ``nan`` where the side did not see it."""
    scores = np.full(len(ids), np.nan, np.float32)
    scores[np.searchsorted(ids, hits.ids)] = hits.scores
    return scores


def _kept(found: SearchCandidates, kept: npt.NDArray[np.bool_]) -> SearchCandidates:
    return SearchCandidates(found.ids[kept], found.documents[kept], found.cosines[kept], found.words[kept])


def _combine(cosines: Floats, shares: Floats, dense_weight: float) -> Floats:
    """Weighted sum. An unknown cosine is at most the least known one; four fifths of that did best."""
    floor = 0.8 * max(0.0, float(np.nanmin(cosines))) if not np.isnan(cosines).all() else 0.0
    known = np.where(np.isnan(cosines), floor, np.maximum(cosines, 0.0))
    return (dense_weight * known + (1 - dense_weight) * np.nan_to_num(shares)).astype(np.float32)


def _document_evidence(
    asked: Sequence[str], documents: Ids, best: Floats, names: Mapping[int, str], openings: Mapping[int, str]
) -> Floats:
    """BM25 (as a share of the best) of each document by its name, headings aside, and opening.

    Counted among the candidates' documents only, so a word that all of them open with (a company's name, when all are
    that company's) weighs next to nothing, and one document alone is not favoured at all. Where there are many, those
    with the ``best`` passages are judged.
    """
    shares = np.zeros(len(documents), np.float32)
    starts = [start for start in map(word_start, asked) if start]
    if not starts or len(documents) < 2:
        return shares
    judged = np.argsort(-best, kind="stable")[:_MAX_OPENINGS]
    cards = [_card(names[one], openings.get(one, "")) for one in documents[judged].tolist()]
    counts = np.array(count_starts(starts, cards), dtype=np.float32)
    lengths = np.array([len(card.text) for card in cards], dtype=np.float32)
    found = (counts > 0).sum(axis=0)
    rarity = np.log(1 + (len(cards) - found + 0.5) / (found + 0.5))
    norm = _K1 * (1 - _B + _B * lengths / lengths.mean())
    weight = (counts * (_K1 + 1) / (counts + norm[:, None]) * rarity).sum(axis=1)
    shares[judged] = weight / max(float(weight.max()), 1e-9)
    return shares


@lru_cache(maxsize=1024)
def _card(name: str, opening: str) -> WordText:
    """What a document says it is, ready to look words up in; the same few documents come again with each question.

    Each takes 20 kB, most of it for how the words begin.
    """
    return WordText.of(f"{name} {opening[:OPENING_CHARACTERS]}")


def _page_evidence(query: str, ids: Ids, pages_of: Callable[[Ids], Pages]) -> Floats:
    """1 for passages on a page that the question names, by number or by printed label."""
    named = {number for match in _PAGE.findall(query) for number in match if number}
    if not named:
        return np.zeros(len(ids), np.float32)
    pages = pages_of(ids)
    printed = (pages.get(one, (0, None)) for one in ids.tolist())
    return np.array([str(page) in named or label in named for page, label in printed], dtype=np.float32)
