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
from ragsvc.core.text.word_starts import FIRST_UNSPACED

MANY_PASSAGES: Final = 60
"""A document with this many passages is judged with a confidence of a half. In a document of a few passages, choosing
the document chooses the passage, and the mixture of all words is better (XQuAD: 5 to 20 passages per document)."""

_PERIOD: Final = re.compile(
    r"(?<!\d)(?:19|20)\d\d(?!\d)|^(?:FY|CY|Q|H)-?\d|^\d{1,2}-?[KQ]$|^[1-4]Q|\d[./]\d+[./]\d", re.IGNORECASE
)
"""Years, quarters, forms such as 10-K, and dates in figures. Other numbers say nothing about a document."""

_DAY: Final = re.compile(r"\d{1,2}(?:st|nd|rd|th)?")
_SENTENCE_END: Final = re.compile(r"[.?!:]$")
COVER_CHARACTERS: Final = 700
"""Length of the opening in a document's card: a cover names company, period and kind within it (the last of 41 reports
at character 584). An abstract or a first chapter, which follow, have the same names as the pages."""

UNTRUSTED_COVERAGE: Final = 0.3
TRUSTED_COVERAGE: Final = 0.7
"""Between these shares of a question's names and dates that a card explains, the confidence rises from 0 to 1."""

_MAX_WORDS: Final = 48
_QUARTERS: Final = (("first", "1st"), ("second", "2nd"), ("third", "3rd"), ("fourth", "4th"))
_ORDINALS: Final = {word: n for n, words in enumerate(_QUARTERS, 1) for word in words}
_QUARTER: Final = re.compile(rf"\b({'|'.join(_ORDINALS)})[ -](?:fiscal[ -])?quarter\b", re.IGNORECASE)


class QuestionWord(msgspec.Struct, frozen=True):
    """A word of a question as written.

    ``is_name``: it has a capital letter that no sentence start explains. ``is_date``: it is a year, a quarter, a form
    ("10-K") or a part of a date.
    """

    text: str
    is_name: bool
    is_date: bool


def no_judgement(question: str) -> DocumentJudgement:
    """For a question that names no document."""
    return DocumentJudgement(np.empty(0, np.int64), np.empty(0, np.float32), 0.0, question)


def question_words(question: str) -> list[QuestionWord]:
    """The first words of a question; the very first counts as a name if it is capitalised and no function word.

    Words of scripts without spaces are neither names nor dates: they are phrases.

    >>> [word.text for word in question_words("What did Apple pay in June 2022?") if word.is_name or word.is_date]
    ['Apple', 'June', '2022?']
    """
    written = question.split()[:_MAX_WORDS]
    bare = [word.strip("\"'(),.?!:;\u201c\u201d\u2018\u2019") for word in written]
    lower = [word.lower().removesuffix("'s").removesuffix("\u2019s") for word in bare]
    is_month = [word in MONTH_NAMES and text[:1].isupper() for word, text in zip(lower, bare, strict=True)]
    found: list[QuestionWord] = []
    for position, word in enumerate(written):
        text = bare[position]
        if not text.isascii() and max(text) >= FIRST_UNSPACED:
            found.append(QuestionWord(word, is_name=False, is_date=False))
            continue
        starts_sentence = position > 0 and _SENTENCE_END.search(written[position - 1]) is not None
        is_day = _DAY.fullmatch(text) is not None and any(is_month[max(0, position - 1) : position + 2])
        is_date = is_month[position] or is_day or _PERIOD.search(text) is not None
        is_name = text[:1].isupper() and not starts_sentence and lower[position] not in QUESTION_STOP_WORDS
        found.append(QuestionWord(word, is_name=is_name and not is_date, is_date=is_date))
    return found


def period_names(question: str) -> list[str]:
    """Quarters that a question spells out, as reports are named.

    >>> period_names("revenue in the third quarter of 2022")
    ['q3']
    """
    return [f"q{_ORDINALS[ordinal.lower()]}" for ordinal in _QUARTER.findall(question)]


def confidence(passages: int, coverage: float) -> float:
    """How far to trust a judgement: by the length of the best document, and by the share of the names it explains.

    Most questions that mean another document, or none, have a third of their names in the opening of some document.

    >>> round(confidence(240, 1.0), 2), round(confidence(10, 1.0), 2), round(confidence(240, 0.33), 2)
    (0.94, 0.03, 0.07)
    """
    trusted = min(1.0, max(0.0, (coverage - UNTRUSTED_COVERAGE) / (TRUSTED_COVERAGE - UNTRUSTED_COVERAGE)))
    return trusted * passages**2 / (passages**2 + MANY_PASSAGES**2)
