"""Finds the parts of a Markdown text that are literal: code blocks, code spans and mathematics.

Works on the complete text in linear time. Indented code blocks are not recognised: they look like paragraphs of lists.
"""

from __future__ import annotations

import itertools
import re
from typing import Final

from ragsvc.core.text.sentences import Span

_FENCE: Final = re.compile(r"^[ \t>]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)?(`{3,}|~{3,})([^\n]*)$", re.MULTILINE)
_BACKTICKS: Final = re.compile(r"`+")
_BLANK_LINE: Final = re.compile(r"\n[ \t]*\n")
_HTML_PAIRS: Final = tuple((f"<{name}", f"</{name}>") for name in ("code", "pre", "kbd", "samp", "math"))
_FORMULA_PAIRS: Final = (("$$", "$$"), (r"\[", r"\]"), (r"\(", r"\)"), (r"\begin{", r"\end{"))
_DOLLARS: Final = re.compile(r"(?<![\\$\w])\$(?=[^\s$])([^$\n]{1,400}?)(?<![\s\\])\$(?![\w$])")
_FORMULA: Final = re.compile(r"[\\_^{}=<>]")
_PLAIN_WORD: Final = re.compile(r"[^\W\d_]{3}")


def literal_spans(text: str) -> list[Span]:
    """The spans of code and mathematics, disjoint and in order.

    >>> text = "See `a[1]` and $x_{[2]}$, for $5 or $6 [3]."
    >>> [text[start:end] for start, end in literal_spans(text)]
    ['`a[1]`', '$x_{[2]}$']
    """
    blocks = _fenced_blocks(text)
    spans = list(blocks)
    if "`" in text:
        begin = 0
        for start, end in [*blocks, (len(text), len(text))]:
            spans.extend(_code_spans(text, begin, start))
            begin = end
    if "</" in text:
        lowered = text.lower()
        for opening, closing in _HTML_PAIRS:
            spans.extend(_between(lowered, opening, closing))
    if "$" in text or "\\" in text:
        for opening, closing in _FORMULA_PAIRS:
            spans.extend(_between(text, opening, closing))
        spans.extend(match.span() for match in _DOLLARS.finditer(text) if _is_formula(match[1]))
    return merged_spans(spans)


def merged_spans(spans: list[Span]) -> list[Span]:
    """The spans in order; those that overlap become a single span."""
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start < merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged


def _between(text: str, opening: str, closing: str) -> list[Span]:
    spans: list[Span] = []
    start = text.find(opening)
    while start >= 0 and (end := text.find(closing, start + len(opening))) >= 0:
        spans.append((start, end + len(closing)))
        start = text.find(opening, end + len(closing))
    return spans


def _fenced_blocks(text: str) -> list[Span]:
    """The blocks between code fences; a block without an end goes on to the end of the text."""
    if "```" not in text and "~~~" not in text:
        return []
    blocks: list[Span] = []
    opened: tuple[int, str] | None = None
    for match in _FENCE.finditer(text):
        fence, rest = match[1], match[2]
        if opened is None:
            if fence[0] != "`" or "`" not in rest:  # else a code span in one line
                opened = match.start(), fence
        elif fence[0] == opened[1][0] and len(fence) >= len(opened[1]) and not rest.strip():
            blocks.append((opened[0], match.end()))
            opened = None
    if opened is not None:
        blocks.append((opened[0], len(text)))
    return blocks


def _code_spans(text: str, start: int, end: int) -> list[Span]:
    """The code spans of a part of the text without fences; a span begins and ends in the same paragraph."""
    spans: list[Span] = []
    for begin, stop in _paragraphs(text, start, end):
        runs = [match.span() for match in _BACKTICKS.finditer(text, begin, stop)]
        later: dict[int, list[int]] = {}
        for index in range(len(runs) - 1, -1, -1):
            later.setdefault(runs[index][1] - runs[index][0], []).append(index)
        at = 0
        while at < len(runs):
            same = later[runs[at][1] - runs[at][0]]
            while same and same[-1] <= at:
                same.pop()
            if same:
                spans.append((runs[at][0], runs[same[-1]][1]))
                at = same[-1]
            at += 1
    return spans


def _paragraphs(text: str, start: int, end: int) -> list[Span]:
    borders = [start, *(match.end() for match in _BLANK_LINE.finditer(text, start, end)), end]
    return [(one, two) for one, two in itertools.pairwise(borders) if one < two]


def _is_formula(content: str) -> bool:
    """Whether text between dollar signs is mathematics, rather than prose between two prices."""
    return _FORMULA.search(content) is not None or _PLAIN_WORD.search(content) is None
