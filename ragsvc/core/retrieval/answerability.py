"""Estimates how likely it is that the retrieved passages contain an answer.

Five signals are multiplied, because an answer needs all of them; in a weighted sum a high cosine hides a wrong name.

- *Names*: whether the names and numbers of the question occur in the best passages, and together in one of them. A
  question about another company, year or product retrieves similar passages with equally high cosines.
- *Nearness*: whether what is asked is said near the names. A report that names Airbus and counts the blogs that mention
  another company has all words of "How many blogs mentioned Airbus?".
- *Coverage*: the share of the question's words on one page of the best passages.
- *Relevance*: whether the best passages are about the topic.
- *Rarity*: how rare the rarest word of the question is that the best passages lack.

The signals are independent of the ranking's weights: they read texts and cosines. ``docs/benchmarks.md`` says on which
data sets the exponents were chosen; chosen without any one of the sets, they are the same or nearly so.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final

import msgspec

from ragsvc.core.documents import StoredPassage
from ragsvc.core.retrieval.asking_clauses import asking_text
from ragsvc.core.retrieval.question_names import comparable_names, degree_of, name_text, question_names, quotations
from ragsvc.core.text.content_words import content_words, pieces
from ragsvc.core.text.tables import table_context
from ragsvc.core.text.word_starts import FIRST_UNSPACED, plain_text, word_start, word_stem

ABSTAIN_BELOW: Final = 0.38
"""The bound for ``answerable``. Below it the built-in answerer gives no answer, and other chat models are told in the
prompt that the evidence is weak. This is the only place where the bound is defined."""

NAMES_IN_ONE_SHARE: Final = 0.8
"""Weight of the passage with the most names; the names in all best passages together get the rest."""

MISSING_NAME_FACTOR: Final = 0.5
"""Multiplies the result if a name occurs in none of the best passages."""

MISSING_BELOW: Final = 0.3
"""A name with a lower degree is missing; see ``question_names.degree_of``."""

COSINE_AS_COVERAGE: Final = 0.5
"""Coverage of a question that shares no word with the best passages, as a share of the cosine: such a question may be
asked in another language than the documents'."""

COVERAGE_EXPONENT: Final = 0.5
RELEVANCE_EXPONENT: Final = 0.4
NEARNESS_EXPONENT: Final = 0.15

NEAR_CHARACTERS: Final = 150
"""Words within this distance of a name are near it: about a sentence or a row on either side."""

_FEWEST_NEAR: Final = 0.2
"""Added to nearness, so that its factor is at least 0.76: columns and lists separate words that belong together."""

_MAX_MENTIONS: Final = 24
"""Mentions of a name that are examined in a passage: numbers may occur hundreds of times."""

RELEVANT_FROM: Final = 0.1
RELEVANT_TO: Final = 0.4
"""Between these values of ``AnswerabilitySignals.relevance`` its factor rises from 0 to 1."""

RARITY_SCALE: Final = 24.0
"""A missing word that one in twenty candidates contains lowers the result by a ninth."""

_FLOOR: Final = 0.05
"""Added to names and coverage: a missing signal makes an answer unlikely and not impossible."""

_ABOUT_DOCUMENTS: Final = frozenset(
    """page pages slide slides figure figures table tables section sections chapter appendix paper papers document
    documents report reports guidebook brochure article text list lists listed mention mentioned mentions show shown
    shows showing include included includes describe described contain contains provided following answer question
    word words name names kind kinds type types many much respectively according based presented appear appears
    appeared write written give given located""".split()
)
"""Words of questions that describe the place or the form of the answer; passages with the answer often lack them."""

_ABOUT_PICTURES: Final = frozenset(
    """color colors colour colours colored coloured picture pictures image images photo photos cartoon cartoons drawing
    drawings chart charts graph graphs diagram diagrams map maps plot plots icon icons logo logos illustration
    illustrations cover covers title titles column columns row rows cell cells bar bars rectangle rectangles shape
    shapes top bottom left right appearing displayed depicted highlighted visible""".split()
)
"""Words that describe how a page looks; its text does not repeat them."""

_BEST: Final = 2
BEST_PASSAGES: Final = 6
_MAX_WORDS: Final = 32

BETWEEN_TEXTS: Final = "\0"
"""Separates joined texts; it occurs in no text."""

RARITY_CANDIDATES: Final = 140
"""Maximum number of candidates over which rarity is computed: all candidates of a search with the default limits."""


class AnswerabilityEvidence(msgspec.Struct, frozen=True):
    """The best passages and their cosines, best first (``BEST_PASSAGES`` suffice; 0 for an unknown cosine).

    ``joined_texts`` returns the texts of 1 to ``RARITY_CANDIDATES`` best candidates in UTF-8 with ``BETWEEN_TEXTS``
    between them. It is called only if a word of the question is missing from the best passages.
    """

    passages: Sequence[StoredPassage]
    cosines: Sequence[float]
    joined_texts: Callable[[], bytes]


class AnswerabilitySignals(msgspec.Struct, frozen=True):
    """The signals, as shares in 0..1 except ``rarity``.

    ``names_in_one`` is the mean degree of the question's names in the passage that has most of them, ``names_in_all``
    in all best passages together, and ``rarest_name`` the lowest degree there. ``nearness`` is 1 less the share of the
    question's words that are in one passage, but not within ``NEAR_CHARACTERS`` of a name; of the names that the
    passages contain, that with the lowest. ``coverage`` is the share of the
    question's words on one page. ``words_in_best`` is the share of the words in one of the best two passages.
    ``rarity`` is the log of the number of candidates per candidate that contains the rarest word missing from the best
    two; 0 if none is missing. ``quoted`` tells that a best passage contains a phrase that the question quotes.
    """

    names_in_one: float
    names_in_all: float
    rarest_name: float
    nearness: float
    coverage: float
    words_in_best: float
    cosine: float
    rarity: float
    quoted: bool

    @property
    def names(self) -> float:
        """The degree to which the passages are about the names of the question."""
        together = NAMES_IN_ONE_SHARE * self.names_in_one + (1 - NAMES_IN_ONE_SHARE) * self.names_in_all
        return together * (1.0 if self.rarest_name >= MISSING_BELOW else MISSING_NAME_FACTOR)

    @property
    def relevance(self) -> float:
        """Topical match of the best passages in 0..1, from cosine and shared words."""
        return 0.6 * self.cosine + 0.4 * self.words_in_best


def answerable(query: str, evidence: AnswerabilityEvidence) -> float:
    """The evidence in 0..1 that the passages contain an answer; 0 without passages."""
    if not evidence.passages:
        return 0.0
    signals = signals_of(query, evidence)
    relevance = (signals.relevance - RELEVANT_FROM) / (RELEVANT_TO - RELEVANT_FROM)
    if signals.quoted:
        relevance = 1.0
    product: float = (
        (_FLOOR + signals.names)
        * ((_FEWEST_NEAR + signals.nearness) / (_FEWEST_NEAR + 1)) ** NEARNESS_EXPONENT
        * (_FLOOR + signals.coverage) ** COVERAGE_EXPONENT
        * min(1.0, max(0.0, relevance)) ** RELEVANCE_EXPONENT
        * math.exp(-signals.rarity / RARITY_SCALE)
    )
    return round(min(1.0, product), 4)


def signals_of(query: str, evidence: AnswerabilityEvidence) -> AnswerabilitySignals:
    """The signals that ``answerable`` combines."""
    question = asking_text(_without_form_of_answer(query))
    best = evidence.passages[:BEST_PASSAGES]
    texts = [
        _plain(
            passage.filename,
            passage.title or "",
            (*passage.headings, table_context(passage.tables, passage.text)),
            passage.text,
        )
        for passage in best
    ]
    names = question_names(question)
    if names and best:
        same = (text for text, passage in zip(texts, best, strict=True) if passage.document_id == best[0].document_id)
        names = comparable_names(names, question, " ".join(same))
    prepared = [name_text(text) for text in texts] if names else []
    degrees = [[degree_of(name, text) for name in names] for text in prepared]
    highest = [max(column) for column in zip(*degrees, strict=True)]
    words = [piece for word in content_words(question) for piece in pieces(word) if word_start(piece)][:_MAX_WORDS]
    starts = [word_start(word) for word in words]
    stems = [word_stem(word) for word in _topical(words)]
    cosine = max(0.0, min(1.0, max(evidence.cosines[:BEST_PASSAGES], default=0.0)))
    return AnswerabilitySignals(
        names_in_one=max(map(_mean, degrees), default=1.0),
        names_in_all=_mean(highest),
        rarest_name=min(highest, default=1.0),
        nearness=_nearness(names, stems, [text.text for text in prepared]),
        coverage=_coverage(stems, best, texts) or COSINE_AS_COVERAGE * cosine,
        words_in_best=max((_mean([float(start in text) for start in starts]) for text in texts[:_BEST]), default=0.0),
        cosine=cosine,
        rarity=_rarity(
            [
                _as_written(word)
                for word in words
                if word[0] < FIRST_UNSPACED
                and word not in _ABOUT_DOCUMENTS
                and word not in _ABOUT_PICTURES
                and not any(word_start(word) in text for text in texts[:_BEST])
            ],
            evidence,
        ),
        quoted=any(phrase in text for phrase in quotations(query) for text in texts),
    )


def _without_form_of_answer(query: str) -> str:
    """The query up to its last question mark, after which instructions such as "Answer with an integer." follow.

    A quotation that follows is kept.
    """
    end = query.rfind("?") + 1
    return query if not end or len(quotations(query)) > len(quotations(query[:end])) else query[:end]


@lru_cache(maxsize=1024)
def _plain(filename: str, title: str, headings: tuple[str, ...], text: str) -> str:
    """Passage, names and headings as plain text. Cached: consecutive questions often have the same passages."""
    return plain_text(" ".join((filename, title, *headings, text)))


def _topical(words: Sequence[str]) -> Sequence[str]:
    """The words that passages with the answer should have. Numbers are judged as names."""
    words_of_text = [word for word in words if word not in _ABOUT_DOCUMENTS and not any(map(str.isdigit, word))]
    return [word for word in words_of_text if word not in _ABOUT_PICTURES] or words_of_text or words


def _coverage(stems: Sequence[str], passages: Sequence[StoredPassage], texts: Sequence[str]) -> float:
    """The largest share of the word stems on one page; 1 for a question without words."""
    if not stems:
        return 1.0
    pages: dict[tuple[int, int], set[str]] = defaultdict(set)
    for passage, text in zip(passages, texts, strict=True):
        pages[passage.document_id, passage.page].update(stem for stem in stems if stem in text)
    return max((sum(stem in found for stem in stems) / len(stems) for found in pages.values()), default=0.0)


def _nearness(names: Sequence[str], stems: Sequence[str], texts: Sequence[str]) -> float:
    """See ``AnswerabilitySignals``; 1 without names, other words, or a passage with a name."""
    others = [stem for stem in dict.fromkeys(stems) if not any(stem.strip() in name for name in names)]
    if not names or not others:
        return 1.0
    most = max(_found(others, text) for text in texts)
    lowest = most
    for name in names:
        if any(name in text for text in texts):
            lowest = min(lowest, max(_found_near(name, others, text, most=most) for text in texts))
    return 1 - (most - lowest) / len(others)


def _found_near(name: str, stems: Sequence[str], text: str, *, most: int) -> int:
    """The largest number of stems around a mention of the name; the search ends at ``most``."""
    near, at = 0, text.find(name)
    for _ in range(_MAX_MENTIONS):
        if at < 0 or near >= most:
            break
        near = max(near, _found(stems, text[max(0, at - NEAR_CHARACTERS) : at + len(name) + NEAR_CHARACTERS]))
        at = text.find(name, at + 1)
    return near


def _found(stems: Sequence[str], text: str) -> int:
    return sum(stem in text for stem in stems)


def _as_written(word: str) -> str:
    """The form in which to search a word in texts whose spellings are not unified."""
    start = word_start(word).strip()
    return start if word.startswith(start) else word


def _rarity(missing: Sequence[str], evidence: AnswerabilityEvidence) -> float:
    """The rarity of the rarest of these word starts among the candidates; see ``AnswerabilitySignals``."""
    if not missing:
        return 0.0
    joined = evidence.joined_texts()
    count = joined.count(BETWEEN_TEXTS.encode()) + 1
    least = fewest_texts_with(missing, joined, count=count)
    return max(0.0, math.log(count / (least + 0.5)))


def fewest_texts_with(words: Sequence[str], joined: bytes, *, count: int) -> int:
    """The number of texts, out of ``count``, that contain the rarest of the words, ignoring case.

    ``joined`` has the texts in UTF-8 with ``BETWEEN_TEXTS`` between them. ASCII words are searched in bytes, whose
    conversion to lower case is ten times as fast. Long words come first: they are rare, and counting the other words
    stops at the minimum so far.
    """
    least = count
    if plain := [word for word in words if word.isascii()]:
        least = _fewest(plain, joined.lower(), most=least)
    if others := [word for word in words if not word.isascii()]:
        least = _fewest(others, joined.decode(errors="replace").lower().encode(), most=least)
    return least


def _fewest(words: Sequence[str], joined: bytes, *, most: int) -> int:
    """The same for words and texts in lower case; returns at most ``most``."""
    border = BETWEEN_TEXTS.encode()
    for word in sorted((word.encode() for word in words), key=len, reverse=True):
        found, at = 0, joined.find(word)
        while at >= 0 and found < most:
            found += 1
            end = joined.find(border, at)
            at = joined.find(word, end) if end >= 0 else -1
        most = found
    return most


def _mean(found: Sequence[float]) -> float:
    """The mean; 1 for an empty sequence, because nothing is missing."""
    return sum(found) / len(found) if found else 1.0
