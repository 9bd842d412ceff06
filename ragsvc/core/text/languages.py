"""Detects the language of text in Latin script by its function words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from ragsvc.core.text.stop_words import FUNCTION_WORDS

DEFAULT_LANGUAGE: Final = "english"

_LATIN = {language: words for language, words in FUNCTION_WORDS.items() if language != "russian"}
_LANGUAGES_OF = {
    word: tuple(name for name, words in _LATIN.items() if word in words) for word in set().union(*_LATIN.values())
}


def detect_language(words: Iterable[str]) -> str | None:
    """The language with most function words among ``words`` (lower case); ``None`` when fewer than two occur."""
    counts = Counter([word for word in words if word in _LANGUAGES_OF])
    votes: Counter[str] = Counter()
    for word, count in counts.items():
        for language in _LANGUAGES_OF[word]:
            votes[language] += count
    if not votes:
        return None
    language, count = votes.most_common(1)[0]
    return language if count >= 2 else None
