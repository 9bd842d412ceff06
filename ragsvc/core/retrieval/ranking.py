"""Ranks candidates by cosine, BM25, and the names and openings of their documents.

If the question names documents (``DocumentJudgement``), two judgements are added: how well the document fits the names,
and how well the passage fits the other words. The confidence of the judgement divides the score between this sum and
the mixture of all words.

Pure and fast, because it runs within a request. It sees the candidates only and not the whole index. Every weight was
chosen with ``scripts/evaluate`` (alternatives: ``docs/techniques.md``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import lru_cache
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from ragsvc.core.ports.embedding import Vectors
from ragsvc.core.ports.indexes import DocumentJudgement, Hits, Ids
from ragsvc.core.retrieval.explanations import PartColumn, ScorePart, ScorePartName, parts_at
from ragsvc.core.retrieval.search_values import SearchMode
from ragsvc.core.text.content_words import content_words
from ragsvc.core.text.word_starts import WordText, count_starts, word_start

DENSE_WEIGHT: Final = 0.6
"""Weight of the cosine; BM25 gets the rest. The cosine is not rescaled: in a language that the model does not know, all
cosines are similar, so BM25 decides. (Min-max scaling of both lost up to 40 points hit@1 on Russian and Chinese.)"""

UNFAMILIAR_DENSE_WEIGHT: Final = 0.4
"""The same for a question whose words are all unknown to the model; similar cosines still add noise."""

DOCUMENT_WEIGHT: Final = 0.1
"""Maximum that the name and opening of a document add to the score of each of its passages."""

PAGE_WEIGHT: Final = 0.1
"""Added to the score of a passage whose page the question names ("in the table on page 28")."""

REST_WEIGHT: Final = 0.7
"""In the judgement of passages: weight of the cosine with the question without the names of documents; the cosine with
the whole question gets the rest."""

REST_WORDS_WEIGHT: Final = 0.2
"""In the judgement of passages: weight of the BM25 score by the words that name no document."""

UNFAMILIAR_REST_WORDS_WEIGHT: Final = 1.5
"""The same for a question whose words are all unknown to the model: its cosines say little."""

JUDGED_DOCUMENT_WEIGHT: Final = 1.0
"""Weight of the judgement of documents, against the judgement of passages; from 0.6 to 2 the results are equal within
noise, because the best document should win and among its passages the weight is constant."""

OPENING_CHARACTERS: Final = 2000
"""Length of a document's opening, which describes it: a title page, a letterhead, an abstract."""

CANDIDATES: Final = 70
"""Candidates from each index, unless ``top_k`` is larger. A hundred improved no data set and took a third longer."""

_MIXED_MAXIMUM: Final = 1.0 + DOCUMENT_WEIGHT
_PAGE_SHARE: Final = PAGE_WEIGHT / (_MIXED_MAXIMUM + PAGE_WEIGHT)
_MAX_OPENINGS: Final = 64
_MAX_WORDS: Final = 32
_K1: Final = 1.2
_B: Final = 0.75
Floats = npt.NDArray[np.float32]


class Candidate(msgspec.Struct, frozen=True):
    """A ranked passage; scores in 0..1.

    ``dense`` is the cosine (negative values as 0). ``lexical`` is the BM25 score divided by the best BM25 score of the
    search, by the words that name no document where the question names some. In a hybrid search, ``score`` is the
    weighted sum of the passage's and its document's scores, divided by the maximum of the sum. ``parts`` are the
    summands if they were asked for.
    """

    id: int
    score: float
    dense: float | None
    lexical: float | None
    parts: tuple[ScorePart, ...] = ()


class SearchCandidates(msgspec.Struct, frozen=True):
    """The candidates of a search as columns ``(n,)``, ascending by passage id.

    ``words`` are BM25 scores. A score is ``nan`` if that index did not return the passage. ``rest_cosines`` and
    ``rest_words`` are the scores for ``DocumentJudgement.rest``; ``None`` if it was not searched.
    """

    ids: Ids
    documents: Ids
    cosines: Floats
    words: Floats
    rest_cosines: Floats | None = None
    rest_words: Floats | None = None


def join(
    dense: Hits, lexical: Hits, *, documents_of: Callable[[Ids], Ids], rest: tuple[Hits, Hits] | None = None
) -> SearchCandidates:
    """Merge the hits of both indexes. ``rest`` are their hits for ``DocumentJudgement.rest``."""
    if rest is None:
        ids = np.union1d(dense.ids, lexical.ids)
        return SearchCandidates(ids, documents_of(ids), _spread(ids, dense), _spread(ids, lexical))
    ids = np.unique(np.concatenate((dense.ids, lexical.ids, rest[0].ids, rest[1].ids)))
    return SearchCandidates(
        ids,
        documents_of(ids),
        _spread(ids, dense),
        _spread(ids, lexical),
        rest_cosines=_spread(ids, rest[0]),
        rest_words=_spread(ids, rest[1]),
    )


def complete_cosines(
    found: SearchCandidates,
    *,
    query: Vectors,
    vectors_of: Callable[[Ids], tuple[Ids, Vectors]],
    rest: Vectors | None = None,
) -> SearchCandidates:
    """Add the cosines of passages that only the lexical index returned.

    Otherwise a passage just below the dense candidates would count as dissimilar (hit@5 on sec10q .90 without, .95
    with them). ``vectors_of`` returns the ids that still exist, and their vectors. With the vector ``rest`` of
    ``DocumentJudgement.rest``, all candidates get a cosine with that too.
    """
    missing = np.isnan(found.cosines)
    if rest is not None and found.rest_cosines is not None:
        missing |= np.isnan(found.rest_cosines)
    if not missing.any():
        return found
    ids, vectors = vectors_of(found.ids[missing])
    at = np.searchsorted(found.ids, ids)
    cosines = found.cosines.copy()
    cosines[at] = vectors @ query
    found = msgspec.structs.replace(found, cosines=cosines)
    if rest is not None and found.rest_cosines is not None:
        rest_cosines = found.rest_cosines.copy()
        rest_cosines[at] = vectors @ rest
        found = msgspec.structs.replace(found, rest_cosines=rest_cosines)
    return found


def rank(
    query: str,
    mode: SearchMode,
    found: SearchCandidates,
    *,
    names: Mapping[int, str],
    openings: Mapping[int, str] | None = None,
    requested: AbstractSet[int] = frozenset(),
    familiar: bool = True,
    judgement: DocumentJudgement | None = None,
    dense_weight: float | None = None,
    limit: int | None = None,
    explain: bool = False,
) -> list[Candidate]:
    """Candidates, best first. Candidates of deleted documents (not in ``names``) are dropped.

    Args:
        query: the text of the question, for the document and page scores.
        mode: dense and lexical rank by that score alone, hybrid by all.
        found: the candidates; in hybrid mode preferably after ``complete_cosines``.
        names: names of the candidates' documents by document id; see ``name_and_title``.
        openings: openings of the candidates' documents by document id; ``OPENING_CHARACTERS`` suffice.
        requested: ids of the passages on pages that the question names.
        familiar: whether the embedding model knows the words of the question.
        judgement: which documents the question names; used in hybrid mode if the candidates have scores for its rest.
            It replaces the comparison of the question with ``names`` and ``openings``.
        dense_weight: the weight of the cosine in a hybrid search, in place of all other evidence; BM25 gets the rest.
        limit: how many candidates to return; all of those requested are kept.
        explain: whether the candidates get the parts of their scores.
    """
    documents, owners = np.unique(found.documents, return_inverse=True)
    ready = np.array([document in names for document in documents.tolist()], np.bool_)
    if not ready.all():
        found = _kept(found, ready[owners])
        documents, owners = np.unique(found.documents, return_inverse=True)
    if not found.ids.size:
        return []
    cosines = found.cosines
    if judgement is not None and found.rest_words is not None and np.isnan(found.words).all():
        shares = _shares(found.rest_words)
    else:
        shares = _shares(found.words)
    parts: list[PartColumn] = []
    match mode:
        case SearchMode.DENSE:
            scores = np.nan_to_num(np.maximum(cosines, 0.0))
            parts.append(PartColumn(ScorePartName.MEANING, scores, 1.0))
        case SearchMode.LEXICAL:
            scores = np.nan_to_num(shares)
            parts.append(PartColumn(ScorePartName.WORDS, scores, 1.0))
        case SearchMode.HYBRID if dense_weight is not None:
            scores = _combine(cosines, shares, dense_weight)
            parts += _parts_of_mixture(cosines, shares, dense_weight)
        case SearchMode.HYBRID:
            scores = _hybrid(
                query,
                found,
                shares,
                names,
                openings or {},
                judgement=judgement,
                familiar=familiar,
                parts=parts if explain else None,
            )
            if requested:
                on_page = _PAGE_SHARE * np.isin(found.ids, list(requested)).astype(np.float32)
                scores += on_page
                parts.append(PartColumn(ScorePartName.PAGE, on_page, _PAGE_SHARE))
    return _best(found, scores, shares, requested=requested, limit=limit, parts=parts if explain else [])


def name_and_title(filename: str, title: str | None) -> str:
    """The names of a document as ``rank`` takes them."""
    return f"{filename} {title or ''}"


def _best(
    found: SearchCandidates,
    scores: Floats,
    shares: Floats,
    *,
    requested: AbstractSet[int],
    limit: int | None,
    parts: Sequence[PartColumn],
) -> list[Candidate]:
    """The first ``limit`` candidates by their scores, and those requested."""
    order = np.argsort(-scores, kind="stable")
    if limit is not None and len(order) > limit:
        kept = np.isin(found.ids[order], list(requested)) if requested else np.zeros(len(order), np.bool_)
        kept[:limit] = True
        order = order[kept]
    table = np.stack((scores, found.cosines, shares)).astype(float)[:, order]
    rounded = np.round(np.clip(table, 0.0, 1.0), 4)
    columns: list[list[float | None]] = rounded.tolist()
    for column, at in zip(*np.nonzero(np.isnan(rounded)), strict=True):
        columns[column][at] = None
    ranked = list(map(Candidate, found.ids[order].tolist(), *columns))
    if not parts:
        return ranked
    return [
        msgspec.structs.replace(candidate, parts=parts_at(parts, row))
        for candidate, row in zip(ranked, order.tolist(), strict=True)
    ]


def _spread(ids: Ids, hits: Hits) -> Floats:
    """The score of each id (``ids`` ascending); ``nan`` if not among the hits."""
    scores = np.full(len(ids), np.nan, np.float32)
    scores[np.searchsorted(ids, hits.ids)] = hits.scores
    return scores


def _kept(found: SearchCandidates, kept: npt.NDArray[np.bool_]) -> SearchCandidates:
    return SearchCandidates(
        found.ids[kept],
        found.documents[kept],
        found.cosines[kept],
        found.words[kept],
        rest_cosines=None if found.rest_cosines is None else found.rest_cosines[kept],
        rest_words=None if found.rest_words is None else found.rest_words[kept],
    )


def _shares(words: Floats) -> Floats:
    """BM25 scores divided by the best."""
    return (words / max(float(np.nanmax(words, initial=0.0)), 1e-9)).astype(np.float32)


def _hybrid(
    query: str,
    found: SearchCandidates,
    shares: Floats,
    names: Mapping[int, str],
    openings: Mapping[int, str],
    *,
    judgement: DocumentJudgement | None,
    familiar: bool,
    parts: list[PartColumn] | None = None,
) -> Floats:
    """The mixture of all words, and the two judgements where there are any, divided by its maximum.

    The parts of the scores are added to ``parts``.
    """
    dense_weight = DENSE_WEIGHT if familiar else UNFAMILIAR_DENSE_WEIGHT
    mixed = _combine(found.cosines, shares, dense_weight)
    if judgement is None or not judgement.is_useful:
        documents, owners = np.unique(found.documents, return_inverse=True)
        best = np.zeros(len(documents), np.float32)
        np.maximum.at(best, owners, mixed)
        asked = content_words(query)[:_MAX_WORDS]
        fitting = DOCUMENT_WEIGHT * _document_evidence(asked, documents, best, names, openings)[owners]
        mixed += fitting
        if parts is not None:
            columns = _parts_of_mixture(found.cosines, shares, dense_weight)
            columns.append(PartColumn(ScorePartName.DOCUMENT, fitting, DOCUMENT_WEIGHT))
            parts += [column.scaled(_MIXED_MAXIMUM + PAGE_WEIGHT) for column in columns]
        return mixed / (_MIXED_MAXIMUM + PAGE_WEIGHT)
    mixed += DOCUMENT_WEIGHT * judgement.of(found.documents)
    judged, judged_maximum = _two_judgements(found, judgement, familiar=familiar)
    trust = judgement.confidence
    scores = (mixed + trust * (judged - mixed)).astype(np.float32)
    maximum = _MIXED_MAXIMUM + trust * (judged_maximum - _MIXED_MAXIMUM) + PAGE_WEIGHT
    compared = scores.copy()
    _share_among(compared, found.documents, judgement.compared)
    if parts is not None:
        columns = _parts_of_judgements(found, shares, judgement, dense_weight=dense_weight, familiar=familiar)
        if judgement.compared:
            columns.append(PartColumn(ScorePartName.COMPARISON, compared - scores, 1.0))
        parts += [column.scaled(maximum) for column in columns]
    return (compared / maximum).astype(np.float32)


def _two_judgements(found: SearchCandidates, judgement: DocumentJudgement, *, familiar: bool) -> tuple[Floats, float]:
    """The judgement of each passage by the words that name no document, plus that of its document; and its maximum."""
    words = REST_WORDS_WEIGHT if familiar else UNFAMILIAR_REST_WORDS_WEIGHT
    whole = np.nan_to_num(np.maximum(found.cosines, 0.0))
    rest = np.nan_to_num(np.maximum(found.rest_cosines if found.rest_cosines is not None else whole, 0.0))
    shares = np.nan_to_num(_shares(found.rest_words)) if found.rest_words is not None else np.zeros_like(whole)
    passages = (1 - REST_WEIGHT) * whole + REST_WEIGHT * rest + words * shares
    scores = passages + JUDGED_DOCUMENT_WEIGHT * judgement.of(found.documents)
    return scores.astype(np.float32), 1.0 + words + JUDGED_DOCUMENT_WEIGHT


def _parts_of_judgements(
    found: SearchCandidates, shares: Floats, judgement: DocumentJudgement, *, dense_weight: float, familiar: bool
) -> list[PartColumn]:
    """The summands of ``_hybrid`` for a question that names documents, before the division by the maximum."""
    trust = judgement.confidence
    meaning, words = _parts_of_mixture(found.cosines, shares, dense_weight)
    whole = np.nan_to_num(np.maximum(found.cosines, 0.0))
    rest = np.nan_to_num(np.maximum(found.rest_cosines, 0.0)) if found.rest_cosines is not None else whole
    rest_shares = np.nan_to_num(_shares(found.rest_words)) if found.rest_words is not None else np.zeros_like(whole)
    rest_words_weight = REST_WORDS_WEIGHT if familiar else UNFAMILIAR_REST_WORDS_WEIGHT
    document_weight = (1 - trust) * DOCUMENT_WEIGHT + trust * JUDGED_DOCUMENT_WEIGHT
    return [
        PartColumn(
            ScorePartName.MEANING,
            (1 - trust) * meaning.points + trust * (1 - REST_WEIGHT) * whole,
            (1 - trust) * meaning.weight + trust * (1 - REST_WEIGHT),
        ),
        PartColumn(ScorePartName.WORDS, (1 - trust) * words.points, (1 - trust) * words.weight),
        PartColumn(ScorePartName.OTHER_MEANING, trust * REST_WEIGHT * rest, trust * REST_WEIGHT),
        PartColumn(ScorePartName.OTHER_WORDS, trust * rest_words_weight * rest_shares, trust * rest_words_weight),
        PartColumn(ScorePartName.DOCUMENT, document_weight * judgement.of(found.documents), document_weight),
    ]


def _share_among(scores: Floats, owners: Ids, compared: Sequence[int]) -> None:
    """Give the best passage of each compared document the score of the best, and raise its others equally."""
    tops = {document: float(scores[owners == document].max()) for document in compared if (owners == document).any()}
    best = max(tops.values(), default=0.0)
    for document, top in tops.items():
        scores[owners == document] += best - top


def _combine(cosines: Floats, shares: Floats, dense_weight: float) -> Floats:
    """Weighted sum."""
    return (dense_weight * _assumed(cosines) + (1 - dense_weight) * np.nan_to_num(shares)).astype(np.float32)


def _assumed(cosines: Floats) -> npt.NDArray[np.floating[Any]]:
    """Cosines of at least 0. An unknown one is at most the lowest known one; 0.8 of that gave the best results."""
    floor = 0.8 * max(0.0, float(np.nanmin(cosines))) if not np.isnan(cosines).all() else 0.0
    return np.where(np.isnan(cosines), floor, np.maximum(cosines, 0.0))


def _parts_of_mixture(cosines: Floats, shares: Floats, dense_weight: float) -> list[PartColumn]:
    """The summands of ``_combine``."""
    meaning = (dense_weight * _assumed(cosines)).astype(np.float32)
    words = ((1 - dense_weight) * np.nan_to_num(shares)).astype(np.float32)
    return [
        PartColumn(ScorePartName.MEANING, meaning, dense_weight),
        PartColumn(ScorePartName.WORDS, words, 1 - dense_weight),
    ]


def _document_evidence(
    asked: Sequence[str], documents: Ids, best: Floats, names: Mapping[int, str], openings: Mapping[int, str]
) -> Floats:
    """BM25 of each document by its name and opening, divided by the best.

    Word rarity is computed over the candidates' documents only. A word in all openings (the name of a company, if all
    documents are from that company) has almost no weight, and a single document gets no bonus. With more than
    ``_MAX_OPENINGS`` documents, those with the best passages are scored.
    """
    shares = np.zeros(len(documents), np.float32)
    starts = [start for start in map(word_start, asked) if start]
    if not starts or len(documents) < 2:
        return shares
    judged = np.argsort(-best, kind="stable")[:_MAX_OPENINGS]
    cards = [_card(names[document], openings.get(document, "")) for document in documents[judged].tolist()]
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
    """Name and opening of a document, prepared for word search. Cached: questions often hit the same few documents.

    An entry takes 20 kB, most of it for ``WordText.beginnings``.
    """
    return WordText.of(f"{name} {opening[:OPENING_CHARACTERS]}")
