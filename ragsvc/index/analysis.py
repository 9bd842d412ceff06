"""Turns text of any language into search terms, by the same rules for passages and questions.

Terms are lower case, stemmed by the passage's language and script, and without accents. Numbers and codes are kept
whole (``3.2%``, ``10-q``) and also split into parts. Chinese, Japanese, Korean and Thai, which are written without
spaces between words, become single characters and pairs of characters.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import tantivy

from ragsvc.core.text.languages import DEFAULT_LANGUAGE, detect_language
from ragsvc.core.text.late_patterns import late_pattern
from ragsvc.core.text.spellings import MINUS, dates_in, fold, unify_signs
from ragsvc.core.text.stop_words import FUNCTION_WORDS

ANALYSIS_VERSION = 3
"""Increase it when terms change: indexes made by another version are rebuilt."""

MAX_TERM_CHARACTERS = 64
_CACHED_WORDS = 20_000
_CACHED_WORD_CHARACTERS = 24


# \w does not match combining accents, nor the vowel signs of Indic and South-East Asian words.
_MARKS = r"\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0900-\u0963\u0980-\u0dff\u0e00-\u109f\u1780-\u17d3"
_MARKED = late_pattern(rf"[{_MARKS}]")
_JOINERS = r"[.,:/'\u2019&-]"


def _word_pattern(letter: str) -> re.Pattern[str]:
    return late_pattern(rf"{letter}+(?:{_JOINERS}{letter}+)*%?")


# One rule for three alphabets; the narrower alphabets are five times faster.
_ASCII_WORD = _word_pattern("[a-z0-9]")
_ANY_WORD = _word_pattern(r"[^\W_]")
_MARKED_WORD = _word_pattern(rf"(?:[^\W_]|[{_MARKS}])")
_PART = late_pattern(rf"(?:[^\W_]|[{_MARKS}])+")
_PLAIN = late_pattern(r"[a-z\u00e0-\u00f6\u00f8-\u00ff]+|[\u0430-\u044f\u0451]+")
_DECIMAL = late_pattern(r"\d+(?:[.,]\d+)+")
YEAR = late_pattern(r"(?<!\d)(?:19|20)\d\d(?!\d)")
_DOTTED_DATE = late_pattern(
    r"\d{1,2}\.\d{1,2}\.(?:\d\d|(?:19|20)\d\d)|(?:19|20)\d\d\.\d{1,2}\.\d{1,2}|(?:0?[1-9]|1[0-2])\.(?:19|20)\d\d"
)
_DECIMAL_COMMA = late_pattern(r"\d+,\d+")
_DOTTED_THOUSANDS = late_pattern(r"\d{1,3}(?:\.\d{3})+(?:,\d+)?")
_JOINABLE = late_pattern(r"[^\W\d_]+(?:-[^\W\d_]+)+|[^\W\d_]{1,3}\.[^\W\d_]{1,3}|o['\u2019][^\W\d_]+")
_THOUSANDS = late_pattern(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_UNSPACED = late_pattern(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
    r"\uf900-\ufaff\U00020000-\U0003ffff]+"
)
_RAISED = "\u00b9\u00b2\u00b3\u2070\u2074-\u207f"
_LOWERED = "\u2080-\u2089"
# A mark is a word of its own beside a figure or a long word (1,482³, Revenue¹); short words are units (m², CO₂).
_MARK = late_pattern(
    rf"(?<=[\d)%])[{_RAISED}]+|(?<=[^\W\d_]{{4}})[{_RAISED}]+|[{_LOWERED}]+(?=\d)|(?<=\d)[{_LOWERED}]+"
)
_RAISED_OR_LOWERED = late_pattern(f"[{_RAISED}{_LOWERED}]")
_SPACED_THOUSANDS = late_pattern(r"[0-9](?<![\w.,][0-9])(?<![\d.,] [0-9])\d{0,2}(?:(?: \d{3}){2,}| 000)(?![\w ]?\d)")
_SWISS_THOUSANDS = late_pattern(r"\d{1,3}(?:'\d{3})+(?:\.\d+)?")
_MEASURED = late_pattern(r"(\d+(?:[.,]\d+)?)([^\W\d_]+)")
_NUMBERED = late_pattern(r"([^\W\d_]{2,3})(\d{2,})")
_CODED = late_pattern(r"([^\W\d_]+)-(\d+)")
_MAX_JOINED_PARTS = 3


def passage_terms(
    text: str, *, language: str | None = None, otherwise: str = DEFAULT_LANGUAGE
) -> tuple[list[str], str]:
    """Terms of a passage, in order and with repetitions, and the language by which they were stemmed.

    ``otherwise`` is used if the language of the text is not recognised.
    """
    words = _words(text)
    chosen = language or detect_language(words) or otherwise
    return list(itertools.chain.from_iterable(_terms_of(words, chosen))), chosen


def query_terms(text: str, *, languages: Sequence[str]) -> list[str]:
    """Distinct terms of a question, stemmed in the same way as the passages that may answer it.

    If the question's language is recognised, its terms are stemmed by that language, otherwise by each of
    ``languages``, the languages of the passages. (XQuAD in four languages as one collection, hit@1: English .922 and
    German .870, compared with .908 and .860 if terms are always stemmed by all.) Function words are dropped unless the
    question consists of nothing else.
    """
    words = _words(text)
    detected = detect_language(words)
    if detected is not None and detected in languages:
        languages = [detected]
    stop = FUNCTION_WORDS[detected or DEFAULT_LANGUAGE] | FUNCTION_WORDS["russian"]
    content = [word for word in words if word not in stop] or words
    found = itertools.chain.from_iterable(terms for language in languages for terms in _terms_of(content, language))
    return list(dict.fromkeys(found))


def _words(text: str) -> list[str]:
    """Words in lower case; compounds are not split."""
    if not text.isascii() and _RAISED_OR_LOWERED.search(text):  # a fraction of the time of the patterns of _MARK
        text = _MARK.sub(r" \g<0> ", text)
    text = fold(unify_signs(text))
    if text.isascii():
        words = _ASCII_WORD.findall(text)
    else:
        words = (_MARKED_WORD if _MARKED.search(text) else _ANY_WORD).findall(text)
    words.extend(_dates_and_numbers(text))
    return words


def _dates_and_numbers(text: str) -> Iterator[str]:
    """Dates as ``03/31/2023`` if they are written in another form, and numbers with spaces between thousands."""
    for date in dates_in(text):
        word = f"{date.month:02}/{date.day:02}/{date.year}"
        if word != text[date.start : date.end]:
            yield word
    for match in _SPACED_THOUSANDS.finditer(text):
        yield match.group().replace(" ", "")


def _expand(word: str) -> list[str]:
    """Split a compound, keep codes and numbers whole as well, pair characters of unspaced scripts."""
    if word.isascii() and (word.isalpha() or word.isdigit()):
        terms = [word]
    elif _UNSPACED.search(word):
        terms = _expand_unspaced(word)
    elif _PLAIN.fullmatch(word):
        terms = [word.replace("\u0451", "\u0435")]
    else:
        terms = _expand_compound(word)
    return [term[:MAX_TERM_CHARACTERS] for term in terms]


def _expand_compound(word: str) -> list[str]:
    """``10-q`` and ``10q`` to ``10-q 10 q``, ``iso9001`` to ``iso9001 iso 9001``, ``3.2%`` to ``3.2 3.2%``.

    ``b-1`` becomes ``b1 b 1``, and ``u.s`` becomes ``us``.

    Compounds of letters are also joined: ``long-term`` to ``long term longterm``, ``e-mail`` to ``mail email``.
    """
    if not any(character.isdigit() for character in word):
        return _expand_letters(word)
    if measured := _MEASURED.fullmatch(word):
        return ["-".join(measured.groups()), *_number_forms(measured[1]), measured[2]]
    if coded := _CODED.fullmatch(word):
        return ["".join(coded.groups()), *coded.groups()]
    if (numbered := _NUMBERED.fullmatch(word)) and not YEAR.fullmatch(numbered[2]) and numbered[1] != MINUS:
        return [word, *numbered.groups()]
    sign = MINUS if word.startswith(MINUS) and word[len(MINUS)].isdigit() else ""
    bare = word.removeprefix(sign).rstrip("%").replace("\u2019", "'")
    parts = _PART.findall(bare)
    terms = _number_forms(bare)
    terms += [sign + term for term in terms] if sign else []
    if word.endswith("%"):
        terms.append(f"{sign}{bare}%")
    if len(parts) > 1 and (not _DECIMAL.fullmatch(bare) or _DOTTED_DATE.fullmatch(bare)):
        terms.extend(parts)
    for part in parts:  # FY2023, 2022Q3: questions name the year
        if part.isdigit():
            continue
        if year := YEAR.search(part):
            terms.extend(piece for piece in (part[: year.start()], year.group(), part[year.end() :]) if piece)
    return list(dict.fromkeys(terms))


def _expand_letters(word: str) -> list[str]:
    parts = _PART.findall(word)
    if len(parts) > 1 and all(len(part) == 1 for part in parts):
        return ["".join(parts)]
    whole = [word] if "&" in word else []
    joined: list[str] = []
    if 1 < len(parts) <= _MAX_JOINED_PARTS and _JOINABLE.fullmatch(word):
        joined = ["".join(parts)]
    return whole + ([part for part in parts if len(part) > 1] or parts) + joined


def _number_forms(bare: str) -> list[str]:
    """``1,500`` and ``1.500.000`` without separators, ``3,5`` also as ``3.5``, ``1.500`` also as ``1500``."""
    if _THOUSANDS.fullmatch(bare):
        return [bare.replace(",", "")]
    if _SWISS_THOUSANDS.fullmatch(bare):
        return [bare.replace("'", "")]
    if _DOTTED_THOUSANDS.fullmatch(bare):
        plain = bare.replace(".", "").replace(",", ".")
        return [plain] if bare.count(".") > 1 or "," in bare else [bare, plain]
    return [bare, bare.replace(",", ".")] if _DECIMAL_COMMA.fullmatch(bare) else [bare]


def _expand_unspaced(word: str) -> list[str]:
    """Single characters and overlapping pairs of each unspaced run; text between runs is split as usual."""
    terms: list[str] = []
    end = 0
    for run in _UNSPACED.finditer(word):
        terms.extend(_expand_between(word[end : run.start()]))
        characters = run.group()
        terms.extend(characters)
        terms.extend(first + second for first, second in itertools.pairwise(characters))
        end = run.end()
    return terms + _expand_between(word[end:])


def _expand_between(text: str) -> list[str]:
    return [term for word in _MARKED_WORD.findall(text) for term in _expand(word)]


@lru_cache(maxsize=32)
def _stemmer(language: str) -> tantivy.TextAnalyzer:
    """A stemmer of the language for Latin script, and of Russian, Greek and Arabic for theirs; accents are removed."""
    builder = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.whitespace())
    for name in (language, "russian", "greek", "arabic"):
        builder = builder.filter(tantivy.Filter.stemmer(name))
    return builder.filter(tantivy.Filter.ascii_fold()).filter(tantivy.Filter.lowercase()).build()


_known: dict[str, dict[str, tuple[str, ...]]] = {language: {} for language in FUNCTION_WORDS}
"""A cache of the terms of words, by language: words repeat, and a look-up is ten times faster than the analysis."""


def _terms_of(words: Sequence[str], language: str) -> Iterable[tuple[str, ...]]:
    """The stemmed terms of each word."""
    known = _known[language]
    new = {word for word in words if word not in known}
    if new:
        if len(known) > _CACHED_WORDS:
            known = _known[language] = {}
            new = set(words)
        found = _stem({word: _expand(word) for word in new}, language)
        if max(map(len, new)) > _CACHED_WORD_CHARACTERS:  # "words" of unspaced text do not repeat: not cached
            return [found.get(word) or known[word] for word in words]
        known.update(found)
    return map(known.__getitem__, words)


def _stem(expanded: dict[str, list[str]], language: str) -> dict[str, tuple[str, ...]]:
    """Stem the terms of many words in one native call."""
    stems = iter(_stemmer(language).analyze(" ".join(itertools.chain.from_iterable(expanded.values()))))
    return {word: tuple(itertools.islice(stems, len(terms))) for word, terms in expanded.items()}
