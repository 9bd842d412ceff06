"""Which documents a question names, judged apart from which of their pages answer it.

"What was the capital expenditure of Apple in the quarter ended June 25, 2022?" names a report by company and period. In
a mixture of all passages these words outweigh the subject: every page of every report of that company, and every page
with that date, matches them. Names and dates are therefore compared with the documents' cards (name, title, opening),
and the other words with the pages. Hit@5 of pages over 41 financial reports: .47 for the mixture, .76 for two
judgements (``docs/techniques.md``).
"""

from __future__ import annotations

import re
from typing import Final

import msgspec
import numpy as np

from ragsvc.core.ports.indexes import DocumentJudgement
from ragsvc.core.text.spellings import MONTH_NAMES
from ragsvc.core.text.stop_words import QUESTION_STOP_WORDS

MANY_PASSAGES: Final = 60
"""A document with this many passages is judged with a confidence of a half. In a document of a few passages, choosing
the document chooses the passage, and the mixture of all words is better (XQuAD: 5 to 20 passages per document)."""

_DIGIT: Final = re.compile(r"\d")
FIRST_UNSPACED: Final = "\u2e80"
"""From this code point on, scripts are written without spaces between words."""
_MAX_WORDS: Final = 48
_QUARTERS: Final = (("first", "1st"), ("second", "2nd"), ("third", "3rd"), ("fourth", "4th"))
_ORDINALS: Final = {word: n for n, words in enumerate(_QUARTERS, 1) for word in words}
_QUARTER: Final = re.compile(rf"\b({'|'.join(_ORDINALS)})[ -](?:fiscal[ -])?quarter\b", re.IGNORECASE)


class QuestionWord(msgspec.Struct, frozen=True):
    """A word of a question as written.

    ``is_name``: it has a capital letter that no sentence start explains. ``is_date``: it has a digit or is the name of
    a month.
    """

    text: str
    is_name: bool
    is_date: bool


def no_judgement(question: str) -> DocumentJudgement:
    """For a question that names no document."""
    return DocumentJudgement(np.empty(0, np.int64), np.empty(0, np.float32), 0.0, question)


def question_words(question: str) -> list[QuestionWord]:
    """The first words of a question; the very first counts as a name unless it is a function word.

    Words of scripts without spaces are neither names nor dates: they are phrases.

    >>> [word.text for word in question_words("What did Apple pay in June 2022?") if word.is_name or word.is_date]
    ['Apple', 'June', '2022?']
    """
    found: list[QuestionWord] = []
    for position, word in enumerate(question.split()[:_MAX_WORDS]):
        bare = word.strip("\"'(),.?!:;\u201c\u201d\u2018\u2019")
        if any(character >= FIRST_UNSPACED for character in bare):
            found.append(QuestionWord(word, is_name=False, is_date=False))
            continue
        lower = bare.lower().removesuffix("'s").removesuffix("\u2019s")
        starts_sentence = position == 0 and lower in QUESTION_STOP_WORDS
        is_date = bool(_DIGIT.search(bare)) or (lower in MONTH_NAMES and bare[:1].isupper())
        found.append(QuestionWord(word, bare[:1].isupper() and not starts_sentence, is_date))
    return found


def period_names(question: str) -> list[str]:
    """Quarters that a question spells out, as reports are named.

    >>> period_names("revenue in the third quarter of 2022")
    ['q3']
    """
    return [f"q{_ORDINALS[ordinal.lower()]}" for ordinal in _QUARTER.findall(question)]


def confidence(passages: int, coverage: float) -> float:
    """How far to trust a judgement: by the length of the best document, and by the share of the names it explains.

    >>> round(confidence(240, 1.0), 2), round(confidence(10, 1.0), 2)
    (0.94, 0.03)
    """
    return coverage * passages**2 / (passages**2 + MANY_PASSAGES**2)
