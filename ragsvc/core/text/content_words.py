"""The words of a question or text that carry its topic."""

# ruff: noqa: RUF001 - the typographic apostrophe is meant

from __future__ import annotations

import re
from typing import Final

from ragsvc.core.text.spellings import SIGNED_WORD
from ragsvc.core.text.stop_words import QUESTION_STOP_WORDS

CONTENT_WORD: Final = re.compile(rf"{SIGNED_WORD}|[\u4e00-\u9fff]+|[\w][\w.&'’-]*[\w]|\w")
"""A word, a run of Chinese characters, or a signed name such as ``C++``."""


def content_words(text: str) -> list[str]:
    """The words that are not stop words, in order, in lower case, without duplicates.

    >>> content_words("What was the revenue of Apple in Q3 2022?")
    ['revenue', 'apple', 'q3', '2022']
    >>> content_words("Who teaches C# or C++?")
    ['teaches', 'c#', 'c++']
    """
    words = (word.lower().removesuffix("'s").removesuffix("’s") for word in CONTENT_WORD.findall(text))
    return [word for word in dict.fromkeys(words) if word not in QUESTION_STOP_WORDS]
