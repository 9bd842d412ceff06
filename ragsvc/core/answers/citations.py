"""Resolves citation markers in an answer to passages, with the supporting quotes.

Markers have the forms ``[1]``, ``[1][3]``, ``[1, 3]``, ``[1-3]``, ``[^1]``, ``[passage 1]`` and ``【1】``; the numbers
are 1-based positions of the request's passages. Bracketed numbers that are text are told apart by their context: code,
mathematics, subscripts (``prices[1]``), intervals (``[0, 1]``), links, and the references of a document that is quoted.
Offsets count Unicode code points of the answer. Quotes are exact substrings of the passage and so of its page.
"""

# ruff: noqa: RUF001 - the dashes and brackets in use

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from typing import Final

import msgspec

from ragsvc.core.defaults import MAX_TOP_K
from ragsvc.core.documents import StoredPassage
from ragsvc.core.ids import chunk_id
from ragsvc.core.retrieval.search_values import SearchHit
from ragsvc.core.text.late_patterns import late_pattern
from ragsvc.core.text.literal_spans import literal_spans, merged_spans
from ragsvc.core.text.sentences import Span, quotable_spans

_LABEL: Final = (
    r"(?:(?:passages?|sources?|citations?|refs?|references?|documents?|docs?|quellen?|fuentes?|documentos?)\b[.:]?[ ]?"
    r"[#№]?|(?:来源|引用|出处|文档)[:：]?|\^)?[ ]{0,2}"
)
_ITEM: Final = rf"{_LABEL}[0-9]{{1,3}}(?:[ ]?[-–—‑][ ]?{_LABEL}[0-9]{{1,3}})?"
_LIST: Final = rf"[ ]{{0,2}}{_ITEM}(?:[ ]{{0,2}}(?:[,;，、&]|\b(?:and|und|et|y|и)\b){_ITEM}){{0,24}}[ ]{{0,2}}"
_PLACE: Final = r"(?:[ ]?[,:][ ]?(?:pp?\.|pages?|s\.|seiten?|páginas?)[ ]?\d{1,4}(?:[-–]\d{1,4})?|†[^\[\]【】\n]{0,40})"
_MARKER: Final = late_pattern(rf"\[{_LIST}{_PLACE}?\]|[【［]{_LIST}{_PLACE}?[】］]", re.IGNORECASE)
_PLACE_IN_MARKER: Final = late_pattern(_PLACE, re.IGNORECASE)
_EXTRACTIVE_MARKER: Final = late_pattern(r"(?<!\S)\[[0-9]{1,3}\](?!\S)")
_NUMBER: Final = late_pattern(r"[0-9]+")
_RANGE: Final = late_pattern(r"([0-9]+)(?:[ ]*[-–—‑][^0-9,;]*([0-9]+))?")
_CUE_WINDOW: Final = 60
_OPERATOR: Final = late_pattern(r"(?:(?<!=)=|[∈∉⊂⊆×])\s*\Z")
_VALUES_FOLLOW: Final = late_pattern(
    r"\b(?:intervals?|arrays?|vectors?|tuples?|coordinates?|Intervalls?|Vektor|intervalle|intervalo|интервал\w*|вектор)"
    r"\s*\Z|(?:区间|范围|数组|向量|列表)(?:为|是)?\s*\Z|\brange:\s*\Z",
    re.IGNORECASE,
)
_INTERVAL_FOLLOWS: Final = late_pattern(
    r"(?:\b(?:ranges?|ranging|scale|between|bounds?)(?:\s+(?:of|from|in))?"
    r"|\b(?:lie|lies|lying|lay|falls?|falling|normali[sz]ed|rescaled|scaled|clipped|mapped|uniform(?:ly)?|distributed"
    r"|drawn|sampled|bounded|restricted|liegt|liegen)\b[^.;!?]{0,24}?\b(?:in|within|on|to|onto|over|from|auf|zwischen))"
    r"\s*\Z",
    re.IGNORECASE,
)
_OPEN_PAIR: Final = late_pattern(r"\b(?:in|within|on|over|to|from)\s*\Z", re.IGNORECASE)
_IDENTIFIER: Final = late_pattern(r"[A-Za-z_$][A-Za-z0-9_$]*\Z")
_BARE: Final = late_pattern(r"\[[ 0-9]")
_CALL: Final = late_pattern(r"\w\([^()]{0,60}\)\Z")
_BRACKETS: Final = late_pattern(r"\[[^\[\]\n]{0,64}\]\Z")
_NESTED_LIST: Final = late_pattern(
    r"\[\s{0,8}(?=\[[^\[\]\n]{0,64},)\[[^\[\]\n]{0,64}\](?:\s{0,8},\s{0,8}\[[^\[\]\n]{0,64}\]){1,64}\s{0,8}\]"
)
_CLAUSE_END: Final = late_pattern(
    r"(?:\[[^\[\]\n]{0,64}\]|【[^【】\n]{0,64}】)*[*_]{0,3}(?:[.,;:!?…](?=\s|\Z)|[。，；：、！？]|\s*(?:[\n|]|\Z))"
)
_WORD: Final = late_pattern(r"\w+(?:[.,]\d+)*")
_LONGEST_MARKER: Final = 64
_MOST_MARKERS: Final = 200
"""Markers of an answer that are resolved, each about 0.7 ms; an answer with more of them repeats itself."""
_CLAIM_WINDOW: Final = 1200
_COPIED_CONTEXT: Final = 20
_EXTRACTED_CONTEXT: Final = 8
_LONGEST_QUOTE: Final = 1200
_MOST_SENTENCES: Final = 3
_WORTH_A_SENTENCE: Final = 0.2


class Marker(msgspec.Struct, frozen=True):
    """A citation marker: ``text[start:end]`` of an answer, and the passage numbers in it."""

    start: int
    end: int
    numbers: tuple[int, ...]


def find_markers(answer: str) -> list[Marker]:
    """The citation markers of an answer, in order, without bracketed numbers that are text by their form or place.

    A marker directly after a word (``sales[1]``, ``prices[1]``) can be either: ``CitedAnswer`` decides by the passages.

    >>> [marker.numbers for marker in find_markers("In [0, 1]: `a[1]` is 3 [1], [2-4]【2】.")]
    [(1,), (2, 3, 4), (2,)]
    """
    literal = merged_spans([*literal_spans(answer), *(match.span() for match in _NESTED_LIST.finditer(answer))])
    borders = [end for _, end in literal]
    markers: list[Marker] = []
    for found in _MARKER.finditer(answer):
        start, end = found.span()
        numbers = _numbers(found[0])
        if not numbers or end - start > _LONGEST_MARKER or _overlaps(literal, borders, start, end):
            continue
        if answer[end : end + 1] == "(" or (answer[end : end + 1] == ":" and _starts_line(answer, start)):
            continue  # a Markdown link, or the definition of a link or footnote
        if _is_value(answer[max(0, start - _CUE_WINDOW) : start], found[0]):
            continue
        markers.append(Marker(start, end, numbers))
    return markers


def _overlaps(spans: Sequence[Span], ends: Sequence[int], start: int, end: int) -> bool:
    """Whether a range overlaps one of the disjoint spans in order, whose ends are ``ends``."""
    at = bisect_right(ends, start)
    return at < len(spans) and spans[at][0] < end


def _numbers(marker: str) -> tuple[int, ...]:
    """The passage numbers in a marker; none if a number cannot be the number of a passage."""
    numbers: list[int] = []
    for first, last in _RANGE.findall(_PLACE_IN_MARKER.sub("", marker)):
        low, high = int(first), int(last or first)
        if low < 1 or high < low or high - low > MAX_TOP_K:
            return ()
        numbers.extend(range(low, high + 1))
    return tuple(dict.fromkeys(numbers))


def _starts_line(text: str, position: int) -> bool:
    return not text[text.rfind("\n", 0, position) + 1 : position].strip(" \t>")


def _is_value(before: str, marker: str) -> bool:
    """Whether bracketed numbers are an interval or a list of values, by the text before them."""
    written = _NUMBER.findall(marker)
    if _OPERATOR.search(before) or (len(written) > 1 and _VALUES_FOLLOW.search(before)):
        return True
    if len(written) > len(set(written)):
        return True  # no answer cites a passage twice in a marker
    return len(written) == 2 and _INTERVAL_FOLLOWS.search(before) is not None


class Citation(msgspec.Struct, frozen=True, kw_only=True):
    """A resolved marker number. ``page`` is 1-based; ``quote`` is an exact substring of the page."""

    index: int
    file_id: str
    filename: str
    page: int
    page_label: str | None
    start_index: int
    end_index: int
    quote: str
    score: float
    chunk_id: str


class CitedAnswer:
    """Collects an answer piece by piece and resolves its markers at the end.

    ``extractive``: the answer consists of sentences of the passages, each followed by the marker of its passage. Its
    code and brackets are those of the documents, so that only a document's own references are left out.
    """

    def __init__(self, hits: Sequence[SearchHit], *, extractive: bool = False) -> None:
        self._hits = hits
        self._extractive = extractive
        self._pieces: list[str] = []
        self.unresolved = 0
        """Count of marker numbers without a passage."""

    def feed(self, piece: str) -> None:
        self._pieces.append(piece)

    def citations(self) -> list[Citation]:
        """The citations of the whole answer in the order of their markers. Call once, after the last piece."""
        answer = "".join(self._pieces)
        resolved: list[Citation] = []
        for marker in self._markers(answer)[:_MOST_MARKERS]:
            claim = claim_at(answer, marker)
            for number in dict.fromkeys(marker.numbers):
                if 1 <= number <= len(self._hits):
                    resolved.append(_citation(self._hits[number - 1], number, marker, claim))
                else:
                    self.unresolved += 1
        return resolved

    def _markers(self, answer: str) -> list[Marker]:
        if "[" not in answer and "【" not in answer and "［" not in answer:
            return []
        texts = [_joined(hit.passage.text) for hit in self._hits]
        if self._extractive:
            found = [
                Marker(match.start(), match.end(), _numbers(match[0])) for match in _EXTRACTIVE_MARKER.finditer(answer)
            ]
            return [marker for marker in found if not self._is_own_reference(answer, marker, texts)]
        return [
            marker
            for marker in find_markers(answer)[: 2 * _MOST_MARKERS]
            if not self._is_interval(answer, marker)
            and not self._is_subscript(answer, marker)
            and not self._is_own_reference(answer, marker, texts)
        ]

    def _is_interval(self, answer: str, marker: Marker) -> bool:
        """Whether two numbers after ``in``, of which the second has no passage, are an interval."""
        if max(marker.numbers) <= len(self._hits) or len(_NUMBER.findall(answer[marker.start : marker.end])) != 2:
            return False
        return _OPEN_PAIR.search(answer[max(0, marker.start - _CUE_WINDOW) : marker.start]) is not None

    def _is_subscript(self, answer: str, marker: Marker) -> bool:
        """Whether the marker directly follows an identifier, a call or another subscript.

        A word directly before a marker is part of the claim, and no identifier, if the marker ends a clause and the
        word occurs in a cited passage.
        """
        if not _BARE.match(answer, marker.start):
            return False
        before = answer[max(0, marker.start - _CLAIM_WINDOW) : marker.start]
        while chained := _BRACKETS.search(before[-_LONGEST_MARKER - 2 :]):
            before = before[: len(before) - len(chained[0])]
        if before.endswith(("{", "}", "^")) or _CALL.search(before[-_LONGEST_MARKER:]):
            return True
        identifier = _IDENTIFIER.search(before[-_LONGEST_MARKER:])
        if identifier is None:
            return False
        name = identifier[0]
        if _is_prose(name, preceding=before[: len(before) - len(name)][-1:]):
            return False
        if len(name) < 2 or "_" in name or "$" in name or not _CLAUSE_END.match(answer, marker.end):
            return True
        cited = [self._hits[number - 1].passage.text for number in marker.numbers if number <= len(self._hits)]
        return not any(_has_form_of(name.casefold(), text) for text in cited)

    def _is_own_reference(self, answer: str, marker: Marker, texts: Sequence[str]) -> bool:
        """Whether the marker is a reference in a document's text that the answer quotes with its context.

        A reference at the end of a quoted sentence can look like the marker of the answer. It is taken for a marker if
        a passage of its number holds the sentence and, in an answer of a model, if the quotation ends there.
        """
        before = _joined(answer[max(0, marker.start - _CLAIM_WINDOW) : marker.end])
        after = _joined(answer[marker.start : marker.end + _CLAIM_WINDOW])
        mark = len(_joined(answer[marker.start : marker.end]))
        least = mark + (_EXTRACTED_CONTEXT if self._extractive else _COPIED_CONTEXT)
        leading = before[-least:] if len(before) >= least else ""
        following = after[:least] if len(after) >= least else ""
        copied_before = bool(leading) and any(leading in text for text in texts)
        copied_after = bool(following) and any(following in text for text in texts)
        if not (copied_before or copied_after):
            return False
        if copied_after and not self._extractive:
            return True
        ending = before[:-mark].rstrip()[-_COPIED_CONTEXT:]
        return not any(
            number <= len(texts) and _ends_sentence_of(texts[number - 1], ending) for number in marker.numbers
        )


def _is_prose(name: str, *, preceding: str) -> bool:
    """Whether a word cannot be an identifier: letters of other scripts, a number's unit, or the end of emphasis."""
    if preceding.isalnum() or preceding == "°":
        return True
    return name.endswith("_") and len(name.strip("_$")) > 1


def _joined(text: str) -> str:
    return " ".join(text.split())


def _ends_sentence_of(text: str, ending: str) -> bool:
    """Whether a sentence of ``text``, which may be followed by reference marks, ends with these characters."""
    return bool(ending) and any(text[start:end].endswith(ending) for start, end in quotable_spans(text))


def _has_form_of(word: str, text: str) -> bool:
    """Whether a text has a word, or a word with the same beginning."""
    beginning = word if len(word) < 5 else word[: max(4, len(word) - 2)]
    words = _words(text)
    return word in words or (len(word) >= 5 and any(other.startswith(beginning) for other in words))


def _citation(hit: SearchHit, number: int, marker: Marker, claim: str) -> Citation:
    passage = hit.passage
    start, end = best_support(claim, passage)
    return Citation(
        index=number,
        file_id=passage.document_public_id,
        filename=passage.filename,
        page=passage.page,
        page_label=passage.page_label,
        start_index=marker.start,
        end_index=marker.end,
        quote=passage.text[start:end],
        score=round(float(hit.score), 4),
        chunk_id=chunk_id(passage.document_public_id, passage.ordinal),
    )


def claim_at(answer: str, marker: Marker) -> str:
    """The sentence that the marker belongs to, up to the marker and without other markers.

    >>> claim_at("Sales rose. Costs fell by 3 % [2].", Marker(30, 33, (2,)))
    'Costs fell by 3 %'
    """
    before = answer[max(0, marker.start - _CLAIM_WINDOW) : marker.start]
    before = _MARKER.sub(lambda found: " " * len(found[0]), before).rstrip()
    spans = quotable_spans(before)
    if not spans:
        return ""
    start, end = spans[-1]
    return before[start:end]


def best_support(claim: str, passage: StoredPassage) -> Span:
    """The span of one to three consecutive sentences of the passage that best support a claim."""
    text = passage.text
    verbatim = _find_words(claim, text)
    if verbatim is not None:
        return _shortened(text, _whole_sentences(text, verbatim))
    spans = quotable_spans(text) or [(0, len(text))]
    words = [frozenset(_words(text[start:end])) for start, end in spans]
    weights = _weights(_words(claim), words)
    first = last = max(range(len(spans)), key=lambda at: (_covered(weights, words[at]), -at))
    covered = words[first]
    while last - first + 1 < _MOST_SENTENCES:
        neighbours = [at for at in (first - 1, last + 1) if 0 <= at < len(spans)]
        gains = [(_covered(weights, covered | words[at]) - _covered(weights, covered), -at) for at in neighbours]
        if not gains or max(gains)[0] < _WORTH_A_SENTENCE:
            break
        chosen = -max(gains)[1]
        covered |= words[chosen]
        first, last = min(first, chosen), max(last, chosen)
    return _shortened(text, (spans[first][0], spans[last][1]))


def _find_words(claim: str, text: str) -> Span | None:
    """The span of a claim in a text, in which its words may be separated by other white space."""
    start = text.find(claim) if claim else -1
    if start >= 0:
        return start, start + len(claim)
    words = claim.split()
    if not words or not all(word in text for word in words):
        return None
    found = re.search(r"\s+".join(map(re.escape, words)), text)
    return None if found is None else found.span()


def _whole_sentences(text: str, part: Span) -> Span:
    """The sentences that a part of a passage belongs to, or the part itself if they are too long to quote."""
    spans = [span for span in quotable_spans(text) if span[0] < part[1] and part[0] < span[1]]
    if not spans:
        return part
    start, end = min(part[0], spans[0][0]), max(part[1], spans[-1][1])
    return (start, end) if end - start <= _LONGEST_QUOTE else part


def _words(text: str) -> list[str]:
    return [word.casefold() for word in _WORD.findall(text)]


def _weights(claim: Sequence[str], sentences: Sequence[frozenset[str]]) -> dict[str, float]:
    """Weights of the claim's words (sum 1): rare words of the passage weigh more, numbers count double."""
    frequency = Counter(word for sentence in sentences for word in sentence)
    raw = {
        word: math.log1p(len(sentences) / (1 + frequency[word])) * (2.0 if word[0].isdigit() else 1.0) for word in claim
    }
    total = sum(raw.values()) or 1.0
    return {word: weight / total for word, weight in raw.items()}


def _covered(weights: dict[str, float], words: frozenset[str]) -> float:
    """The share in 0..1 of the claim's weight that these words cover."""
    return sum(weight for word, weight in weights.items() if word in words)


def _shortened(text: str, span: Span) -> Span:
    """The span cut to the maximum length of a quote, at a space if possible."""
    start, end = span
    if end - start <= _LONGEST_QUOTE:
        return span
    cut = text.rfind(" ", start, start + _LONGEST_QUOTE)
    return start, cut if cut > start else start + _LONGEST_QUOTE
