"""The words of a question or text that carry its topic."""

# ruff: noqa: RUF001 - the typographic apostrophe is meant

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ragsvc.core.text.late_patterns import late_pattern
from ragsvc.core.text.spellings import SIGNED_WORD, unify_signs
from ragsvc.core.text.stop_words import QUESTION_STOP_WORDS
from ragsvc.core.text.word_starts import FIRST_UNSPACED

_PAIR: Final = 2
_INVERTED: Final = late_pattern(r"(?<=[a-zà-ÿ]{2})-(?:t-)?(?:on|ils?|elles?|vous|nous|tu|je)$")
_L: Final = r"[^\W\u4e00-\u9fff]"
CONTENT_WORD: Final = late_pattern(
    rf"{SIGNED_WORD}|[A-Za-z]\w{{2,30}}[A-Za-z]\+{{1,2}}(?![\w+])|[\u4e00-\u9fff]+|{_L}(?:{_L}|[.&'’-])*{_L}|\w"
)
"""A word, a run of Chinese characters, or a signed name such as ``C++``."""


def content_words(text: str) -> list[str]:
    """The words that are not stop words, in order, in lower case, without duplicates.

    >>> content_words("What was the revenue of Apple in Q3 2022?")
    ['revenue', 'apple', 'q3', '2022']
    >>> content_words("Who teaches C# or C++?")
    ['teaches', 'c#', 'c++']
    """
    words = (_normal(word) for word in CONTENT_WORD.findall(text))
    return [word for word in dict.fromkeys(words) if word not in QUESTION_STOP_WORDS]


def _normal(word: str) -> str:
    """In lower case, without a possessive ending or an inverted French pronoun; grades such as ``A-`` are spelt out."""
    if word[-1] in "-\u2212":
        return unify_signs(word).lower()
    return _INVERTED.sub("", word.lower()).removesuffix("'s").removesuffix("’s")


def pieces(word: str) -> Sequence[str]:
    """The word itself; the pairs of characters of a run in a script without spaces between words."""
    if len(word) <= _PAIR or word[0] < FIRST_UNSPACED:
        return (word,)
    pairs = [word[at : at + _PAIR] for at in range(len(word) - _PAIR + 1)]
    return [pair for pair in pairs if pair not in QUESTION_STOP_WORDS]
