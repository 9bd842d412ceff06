"""The search of one collection, from the indexes' hits to ranked passages and the judgement of their evidence.

The service and ``scripts/evaluate`` both call ``search_passages``, so that what is measured is what is served. Indexes
and rows come in as protocols; this module knows neither files nor SQL nor tenants.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Final, Protocol

import msgspec
import numpy as np

from ragsvc.core.documents import StoredPassage
from ragsvc.core.ports.embedding import Vectors
from ragsvc.core.ports.indexes import DocumentJudgement, Hits, Ids
from ragsvc.core.retrieval.answerability import BEST_PASSAGES, RARITY_CANDIDATES, AnswerabilityEvidence, answerable
from ragsvc.core.retrieval.document_questions import DocumentQuestion, document_question
from ragsvc.core.retrieval.explanations import ScorePartName, score_part
from ragsvc.core.retrieval.ranking import CANDIDATES, Candidate, SearchCandidates, complete_cosines, join, rank
from ragsvc.core.retrieval.search_values import SearchMode, SearchQuery

JUDGED_CANDIDATES: Final = 120
"""Candidates from each index among the documents that a question names."""

SURE: Final = 0.5
"""From this confidence on, the words of the question are searched in the documents that it names only."""

AGREEMENT_FROM: Final = 0.75
AGREEMENT_TO: Final = 0.92
"""Between these shares of the best cosine, the confidence in documents whose passages are less close falls to 0."""

SEARCHED_DOCUMENTS: Final = 4
"""Documents that are searched once more if the question names them."""


_SPARE: Final = 60
"""Candidates kept in addition, in place of passages that are deleted during the search."""


class CollectionIndexes(Protocol):
    """The dense and the lexical index of one collection."""

    def search(self, vector: Vectors | None, text: str | None, *, k: int, documents: Ids | None) -> tuple[Hits, Hits]:
        """Dense hits of the vector and lexical hits of the text; none for ``None``. ``documents`` restricts both."""
        ...

    def documents_of(self, ids: Ids) -> Ids:
        """The document of each passage, -1 for a passage that no longer exists."""
        ...

    def vectors(self, ids: Ids) -> tuple[Ids, Vectors]:
        """Those of ``ids`` that still exist, and their vectors ``(n, dim)``."""
        ...


class PassageRows(Protocol):
    """The stored rows of passages and documents. Rows that no longer exist are missing from the results."""

    def names(self, documents: Iterable[int]) -> Mapping[int, str]:
        """Name and title of the documents that are ready, by document id; see ``ranking.name_and_title``."""
        ...

    def openings(self, documents: AbstractSet[int]) -> Mapping[int, str]:
        """The first ``ranking.OPENING_CHARACTERS`` of each document, by document id."""
        ...

    def passages(self, ids: Sequence[int]) -> Mapping[int, StoredPassage]: ...

    def asked_passages(self, asked: DocumentQuestion, documents: Sequence[int]) -> Sequence[tuple[int, int]]:
        """Ids of passages and their documents that a question about pages or documents asks for, in reading order.

        ``documents`` are searched, best first; all documents of the collection if empty. A page is found by its
        printed label and, in documents without that label, by its number. For ``about`` and ``count`` these are the
        first passages of each document.
        """
        ...

    def joined_texts(self, ids: Sequence[int]) -> bytes:
        """The passages' texts in UTF-8, in any order, with ``answerability.BETWEEN_TEXTS`` between them."""
        ...


class RankedPassages(msgspec.Struct, frozen=True):
    """Candidates with their rows, best first, and the evidence in 0..1 that the collection answers the query."""

    candidates: list[Candidate]
    passages: dict[int, StoredPassage]
    answerable: float


ReadRows = Callable[[Callable[[PassageRows], RankedPassages]], RankedPassages]
"""Runs a function on the rows within one read transaction and returns its result."""


def search_passages(
    query: SearchQuery,
    vector: Vectors | None,
    *,
    indexes: CollectionIndexes,
    read_rows: ReadRows,
    knows_words: Callable[[str], bool],
    count: int,
    documents: Ids | None = None,
    judgement: DocumentJudgement | None = None,
    rest_vector: Vectors | None = None,
) -> RankedPassages:
    """Search both indexes, rank the candidates, load the best, and judge whether they answer the query.

    Args:
        query: its text and mode decide what is searched; ``top_k`` beyond ``CANDIDATES`` asks for more candidates.
        vector: the query's unit vector ``(dim,)``, or ``None`` in lexical mode.
        indexes: of the collection.
        read_rows: is called once, after both indexes answered.
        knows_words: whether the embedding model knows the words of a text; asked in hybrid mode only.
        count: how many ranked passages to load; at least ``BEST_PASSAGES`` are, which the judgement reads.
        documents: restricts the search to these document ids.
        judgement: which documents the question names; used in hybrid mode.
        rest_vector: the vector of ``judgement.rest``.
    """
    uses_names = query.mode is SearchMode.HYBRID and query.dense_weight is None
    if not uses_names or (judgement is not None and not judgement.is_useful):
        judgement = None
    found, judgement = find_candidates(
        query, vector, indexes=indexes, documents=documents, judgement=judgement, rest_vector=rest_vector
    )
    familiar = query.mode is not SearchMode.HYBRID or knows_words(query.text)

    asked = document_question(query.text)

    def rank_and_judge(rows: PassageRows) -> RankedPassages:
        candidates = found
        requested: Sequence[tuple[int, int]] = ()
        if asked is not None:
            requested = rows.asked_passages(asked, _best_documents(found) if documents is None else documents.tolist())
            candidates = _with_requested(found, requested)
            if vector is not None and query.mode is SearchMode.HYBRID:
                candidates = complete_cosines(
                    candidates, query=vector, vectors_of=indexes.vectors, rest=rest_vector if judgement else None
                )
        names = rows.names(set(candidates.documents.tolist()))
        ranked = rank(
            query.text,
            query.mode,
            candidates,
            names=names,
            openings=rows.openings(names.keys()) if uses_names and judgement is None else {},
            requested={passage for passage, _ in requested},
            familiar=familiar,
            judgement=judgement,
            dense_weight=query.dense_weight,
            limit=max(count, RARITY_CANDIDATES) + _SPARE,
            explain=query.explain,
        )
        is_whole_question = asked is not None and not asked.topic
        if is_whole_question:
            ranked = _requested_first(ranked, [passage for passage, _ in requested], explain=query.explain)
        ranked, passages = load_best(rows, ranked, max(count, BEST_PASSAGES))
        among = [candidate.id for candidate in ranked[:RARITY_CANDIDATES]]
        evidence = AnswerabilityEvidence(
            passages=list(passages.values()),
            cosines=[candidate.dense or 0.0 for candidate in ranked[:BEST_PASSAGES]],
            joined_texts=lambda: rows.joined_texts(among),
        )
        judged = float(bool(requested)) if is_whole_question else answerable(query.text, evidence)
        return RankedPassages(ranked[: len(passages)], passages, judged)

    return read_rows(rank_and_judge)


def _best_documents(found: SearchCandidates) -> list[int]:
    """The documents of the candidates, that of the highest cosine first; none if no candidate exists."""
    order = np.argsort(-np.nan_to_num(found.cosines), kind="stable")
    return [document for document in dict.fromkeys(found.documents[order].tolist()) if document >= 0]


def _with_requested(found: SearchCandidates, requested: Sequence[tuple[int, int]]) -> SearchCandidates:
    """The candidates together with passages that neither index returned."""
    known = set(found.ids.tolist())
    new = [(passage, document) for passage, document in requested if passage not in known]
    if not new:
        return found
    nothing = np.full(len(new), np.nan, np.float32)
    ids = np.concatenate((found.ids, np.array([passage for passage, _ in new], np.int64)))
    order = np.argsort(ids)
    return SearchCandidates(
        ids=ids[order],
        documents=np.concatenate((found.documents, np.array([document for _, document in new], np.int64)))[order],
        cosines=np.concatenate((found.cosines, nothing))[order],
        words=np.concatenate((found.words, nothing))[order],
        rest_cosines=None if found.rest_cosines is None else np.concatenate((found.rest_cosines, nothing))[order],
        rest_words=None if found.rest_words is None else np.concatenate((found.rest_words, nothing))[order],
    )


def _requested_first(ranked: Sequence[Candidate], requested: Sequence[int], *, explain: bool) -> list[Candidate]:
    """The passages asked for, in reading order with the score 1, and then the others."""
    by_id = {candidate.id: candidate for candidate in ranked}
    parts = (score_part(ScorePartName.REQUESTED, 1.0),) if explain else ()
    first = [
        msgspec.structs.replace(by_id[passage], score=1.0, parts=parts) for passage in requested if passage in by_id
    ]
    chosen = {candidate.id for candidate in first}
    return first + [candidate for candidate in ranked if candidate.id not in chosen]


def find_candidates(
    query: SearchQuery,
    vector: Vectors | None,
    *,
    indexes: CollectionIndexes,
    documents: Ids | None,
    judgement: DocumentJudgement | None = None,
    rest_vector: Vectors | None = None,
) -> tuple[SearchCandidates, DocumentJudgement | None]:
    """The hits of the indexes that the query's mode uses, and the judgement as far as the hits confirm it.

    In hybrid mode all candidates have cosines.

    The documents that the judgement prefers are searched once more by the words that name no document: a report has
    hundreds of passages, and the first hits of a large collection hold only a few of them. If the judgement is sure,
    this replaces the lexical search by all words, which takes longest.
    """
    text = None if query.mode is SearchMode.DENSE else query.text
    k = max(CANDIDATES, query.top_k)
    if vector is None or text is None or judgement is None:
        dense, lexical = indexes.search(vector, text, k=k, documents=documents)
        found = join(dense, lexical, documents_of=indexes.documents_of)
        if vector is not None and text is not None:
            found = complete_cosines(found, query=vector, vectors_of=indexes.vectors)
        return found, None
    dense, lexical = indexes.search(vector, None, k=k, documents=documents)
    judgement = confirmed(judgement, dense, documents_of=indexes.documents_of)
    if judgement.confidence < SURE:
        _, lexical = indexes.search(None, text, k=k, documents=documents)
    if not judgement.is_useful:
        found = join(dense, lexical, documents_of=indexes.documents_of)
        return complete_cosines(found, query=vector, vectors_of=indexes.vectors), None
    rest_vector = vector if rest_vector is None else rest_vector
    chosen = judgement.best(SEARCHED_DOCUMENTS)
    rest = indexes.search(rest_vector, judgement.rest, k=max(JUDGED_CANDIDATES, query.top_k), documents=chosen)
    found = join(dense, lexical, documents_of=indexes.documents_of, rest=rest)
    return complete_cosines(found, query=vector, vectors_of=indexes.vectors, rest=rest_vector), judgement


def confirmed(judgement: DocumentJudgement, dense: Hits, *, documents_of: Callable[[Ids], Ids]) -> DocumentJudgement:
    """The judgement with less confidence if the named documents have no passage that is nearly as close as the closest.

    A name in the opening of a document may be a coincidence. In the right document the best cosine is at least .89 of
    the best of all for 95 % of the questions about financial reports; in a wrong document of another kind it is below
    .82 for three quarters.
    """
    if not len(dense.ids):
        return judgement
    named = np.isin(documents_of(dense.ids), judgement.best(SEARCHED_DOCUMENTS))
    best = float(dense.scores[0])
    closest = float(dense.scores[named].max()) if named.any() else float(dense.scores[-1])
    share = closest / best if best > 0 else 1.0
    agreement = min(1.0, max(0.0, (share - AGREEMENT_FROM) / (AGREEMENT_TO - AGREEMENT_FROM)))
    return msgspec.structs.replace(judgement, confidence=judgement.confidence * agreement)


def load_best(
    rows: PassageRows, ranked: list[Candidate], count: int
) -> tuple[list[Candidate], dict[int, StoredPassage]]:
    """The rows of the first ``count`` candidates, best first, and the candidates without those that have no row."""
    while True:
        best = [candidate.id for candidate in ranked[:count]]
        loaded = rows.passages(best)
        if len(loaded) == len(best):
            return ranked, {passage: loaded[passage] for passage in best}
        missing = set(best) - loaded.keys()
        ranked = [candidate for candidate in ranked if candidate.id not in missing]
