"""Finds the names and numbers of a question, and judges whether a text contains them."""

from __future__ import annotations

# ruff: noqa: RUF001 - quotation marks of several scripts
import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from functools import lru_cache
from typing import Final

import msgspec

from ragsvc.core.text.late_patterns import late_pattern
from ragsvc.core.text.spellings import MONTH_NAMES, SIGNED_WORD
from ragsvc.core.text.stop_words import QUESTION_STOP_WORDS
from ragsvc.core.text.word_starts import plain_text

MISSPELT: Final = 0.9
"""Degree to which a text contains a name that it has with one wrong letter or with an ending."""

SCATTERED: Final = 0.7
"""The same for a name of several words that the text contains separately."""

INCOMPLETE: Final = 0.25
"""The same, times the share of words, for a name of two or three words that the text lacks in part."""

INCOMPLETE_QUOTE: Final = 0.5
"""The same for a longer name, which is mostly a quotation."""

_QUOTED: Final = late_pattern(r"[\"“„«]([^\"“”„«»]{2,80})[\"”“»]")
_LETTER: Final = r"[^\W\u2e80-\uffef]"
_WORD: Final = rf"(?:[A-Z](?:{_LETTER}|[&'’-])*{_LETTER}|[A-Z]{{2,}}|{_LETTER}*\d(?:{_LETTER}|[.,%/-])*)"
_NAME: Final = late_pattern(rf"(?<!{_LETTER}){_WORD}(?: {_WORD})*(?!{_LETTER})")
_SIGNED: Final = late_pattern(SIGNED_WORD)
_SENTENCE_START: Final = late_pattern(r"(?:^|[.?!:]\s+|[。？！]|[\"“¿¡]\s*)$")
_PLACE: Final = late_pattern(
    r"\b(?:page|slide|figure|table|section|appendix|p)s?\.?\s*\d[\d.]*(?:\s*[-\u2013]\s*\d+)?", re.IGNORECASE
)
_EXAMPLE: Final = late_pattern(
    r"(?:\b(?:e\.g\.?|for example|for instance|such as \[|like \[)|\[).*", re.IGNORECASE | re.DOTALL
)
_GENERIC: Final = frozenset(
    "page slide figure table section appendix chapter document report paper email address question answer title year "
    "who mr mrs ms dr pdf docx faq file text usd eur gbp chf ok asap monday tuesday wednesday thursday friday saturday"
    " sunday".split()
)
"""Words for kinds of things, files, currencies and days, which are not names when capitalised. "who" is "Whos" without
the plural ending."""

_GERMAN: Final = late_pattern(
    r"\b(?:der|das|den|dem|wie|wer|wen|wann|wo|und|welche[rsmn]?|ist|wurden?|werden|für|von)\b"
    r"|(?:^|(?<=[.?!:] ))(?:Wie|Wer|Wen|Wem|Wann|Wo|Welche[rsmn]?|Wieso|Warum)\b"
)
"""Marks a question as German, where a capital does not indicate a name because all nouns have one. Only German words
that are rare in English questions, so not "die", "in", "was" or "hat"."""

_FIRST_NOT_LATIN: Final = "\u0370"
_NOT_LATIN: Final = late_pattern(
    r"(?<![\u0370-\u1cff\u2e80-\uffef])[\u0370-\u1cff\u2e80-\uffef]+(?:[\s,-]+[\u0370-\u1cff\u2e80-\uffef]+)+"
)
_LATIN: Final = late_pattern(r"(?<![A-Za-z])[A-Za-z]+(?:[\s,-]+[A-Za-z]+)+")
_CAPITALS: Final = late_pattern(r"(?<!\w)[A-Z]{3,}(?!\w)")
_YEAR: Final = late_pattern(r" (?:19|20)\d\d ")
_MONTHS: Final = "|".join(sorted(MONTH_NAMES - {"may", "mar", "mars"}, key=len, reverse=True))
_MONTH: Final = late_pattern(rf" (?:{_MONTHS}) | may (?=\d)|(?<=\d) may ")
_DAY: Final = late_pattern(rf" (\d{{1,2}}) (?:{_MONTHS}|may)(?= )| (?:{_MONTHS}|may) (\d{{1,2}})(?= )")
_DIGIT: Final = late_pattern(r"\d")
_PLURAL: Final = late_pattern(r"(?<=[a-z]{3})s(?= )")
_SHORTEST_INFLECTED: Final = 5
_SHORTEST_MISSPELT: Final = 7
"""Shorter names that differ in one letter are often different names, such as Iran and Iraq."""


class NameText(msgspec.Struct, frozen=True):
    """A text prepared for the search of names: plain text without plural endings, and its words."""

    text: str
    words: frozenset[str]


@lru_cache(maxsize=1024)
def name_text(plain: str) -> NameText:
    """Prepare a text in the form of ``plain_text``. Cached: consecutive questions often have the same passages."""
    text = _PLURAL.sub("", plain)
    return NameText(text, frozenset(text.split()))


def question_names(query: str) -> list[str]:
    """The names in a question, in the form of ``plain_text``: quotations, capitalised words, numbers.

    >>> question_names('What did Tim Cook say of "net sales" in 2022?')
    [' net sale ', ' tim cook ', ' 2022 ']
    """
    text = _EXAMPLE.sub(" ", _PLACE.sub(" ", query))
    found = [match.group(1) for match in _QUOTED.finditer(text)]
    text = _QUOTED.sub(" ", text)
    found.extend(match.group() for match in _SIGNED.finditer(text))
    text = _SIGNED.sub(" ", text)
    capitals_tell = sum(map(str.isupper, text)) < sum(map(str.islower, text)) and not _GERMAN.search(text)
    shouted = any(word.lower() in QUESTION_STOP_WORDS for word in _CAPITALS.findall(text))
    for match in _NAME.finditer(text):
        words = match.group().split(" ")
        if _starts_sentence(text, match.start()) and not (len(words[0]) > 1 and words[0].isupper()):
            words = words if words[0][0].isdigit() else words[1:]
        words = [
            word
            for word in words
            if re.sub(r"['’]\w{1,2}$", "", word.lower()) not in QUESTION_STOP_WORDS
            and word.lower().rstrip("s") not in _GENERIC
        ]
        if not capitals_tell:
            words = [word for word in words if not word.isalpha() or (len(word) > 1 and word.isupper())]
        if shouted:
            words = [word for word in words if not (word.isalpha() and word.isupper())]
        found.append(" ".join(re.sub(r"['’]s$", "", word) for word in words if not _DIGIT.search(word)))
        found.extend(word for word in words if _DIGIT.search(word))  # "Q3 2023" may appear as "2023 Q3"
    plain = (_PLURAL.sub("", plain_text(name)) for name in found)
    return [name for name in dict.fromkeys(plain) if name.strip()]


def _starts_sentence(text: str, start: int) -> bool:
    """Whether a sentence starts at ``start``. Reads back to the last character that is no white space."""
    before = start
    while before and text[before - 1].isspace():
        before -= 1
    return _SENTENCE_START.search(text, max(0, before - 1), start) is not None


def quotations(query: str) -> list[str]:
    """The phrases of two or more words that a question quotes, in the form of ``plain_text``.

    A phrase in another alphabet than the beginning of the question is quoted as well.

    >>> quotations('What does "net sales" mean?'), quotations("Wie grüßt man auf Russisch? Привет, мир")
    ([' net sales '], [' привет мир '])
    """
    found = _QUOTED.findall(query)
    if (first := re.search(r"[^\W\d_]", query)) is not None:
        found += (_LATIN if first.group() >= _FIRST_NOT_LATIN else _NOT_LATIN).findall(query)
    plain = (plain_text(phrase) for phrase in found)
    return [phrase for phrase in plain if len(phrase.split()) > 1]


def comparable_names(names: Sequence[str], question: str, text: str) -> list[str]:
    """The names without years, months and days where the plain ``text`` mentions no year or month.

    A question about 2019 has no answer in a report on 2023; but "a boat costs 12 euros" is true of any date.
    """
    days = {f" {day} " for pair in _DAY.findall(plain_text(question)) for day in pair if day}
    without = [
        name
        for name in names
        if (_YEAR.fullmatch(name) and not _YEAR.search(text))
        or ((name in days or _MONTH.search(name)) and not _MONTH.search(text))
    ]
    return [name for name in names if name not in without]


def degree_of(name: str, text: NameText) -> float:
    """The degree in 0..1 to which a text contains a name.

    A name with one wrong letter counts nearly as much: people mistype names, and a passage about "Receptiviti" answers
    a question about "Receptivity". Numbers and short names must be the same.

    >>> degree_of(" germanwing ", name_text(plain_text("Germanwings flight"))), degree_of(" 2022 ", name_text(" 2023 "))
    (1.0, 0.0)
    """
    if name in text.text:
        return 1.0
    words = name.split()
    degrees = [_degree_of_word(word, text) for word in words]
    if len(words) == 1:
        return degrees[0]
    mean = sum(degrees) / len(degrees)
    if all(degrees):
        return SCATTERED * mean
    return (INCOMPLETE_QUOTE if len(words) > 3 else INCOMPLETE) * mean


def _degree_of_word(word: str, text: NameText) -> float:
    if word in text.words:
        return 1.0
    if not word.isalpha():
        return 0.0
    if len(word) >= _SHORTEST_INFLECTED and f" {word}" in text.text:
        return MISSPELT
    return MISSPELT if len(word) >= _SHORTEST_MISSPELT and _has_misspelling(word, text.words) else 0.0


def _has_misspelling(word: str, words: AbstractSet[str]) -> bool:
    first, shortest, longest = word[0], len(word) - 1, len(word) + 1
    return any(
        shortest <= len(other) <= longest and other[0] == first and _is_misspelling(word, other) for other in words
    )


def _is_misspelling(word: str, other: str) -> bool:
    """Whether two words differ by one letter: replaced, missing, added, or swapped with the next."""
    if len(word) > len(other):
        word, other = other, word
    at = next((at for at, (one, two) in enumerate(zip(word, other, strict=False)) if one != two), len(word))
    if len(word) < len(other):
        return word[at:] == other[at + 1 :]
    return word[at + 1 :] == other[at + 1 :] or (
        word[at + 2 :] == other[at + 2 :] and word[at : at + 2] == other[at : at + 2][::-1]
    )
