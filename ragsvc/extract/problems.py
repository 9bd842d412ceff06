"""Merges the findings of pages into problems of page ranges ("Pages 3-7 have no text layer"). Pure."""

from __future__ import annotations

from collections.abc import Iterable

from ragsvc.core.documents import Problem, ProblemCode

_MESSAGES: dict[ProblemCode, tuple[str, str]] = {
    ProblemCode.NO_TEXT_LAYER: (
        "has no text layer, and no text was recognised (it is an image, or blank)",
        "have no text layer, and no text was recognised (they are images, or blank)",
    ),
    ProblemCode.GARBLED_TEXT: (
        "has text whose font does not map glyphs to characters; the text was left out",
        "have text whose fonts do not map glyphs to characters; the text was left out",
    ),
    ProblemCode.PAGE_UNREADABLE: ("is damaged and could not be read", "are damaged and could not be read"),
    ProblemCode.SECOND_PARSER_USED: (
        "could not be read by the main parser; a second parser read it, with less accurate layout",
        "could not be read by the main parser; a second parser read them, with less accurate layout",
    ),
    ProblemCode.TEXT_TRUNCATED: (
        "has more text than the limit for a page; the rest was left out",
        "have more text than the limit for a page; the rest was left out",
    ),
    ProblemCode.NOT_READ: (
        "was not read: the document exceeds the limit of text or of recognised pages",
        "were not read: the document exceeds the limit of text or of recognised pages",
    ),
    ProblemCode.OCR_USED: (
        "is an image, or has no usable text layer; its text was recognised and may contain errors",
        "are images, or have no usable text layer; their text was recognised and may contain errors",
    ),
    ProblemCode.BAD_CHARACTERS: (
        "has bytes or glyphs without a character; U+FFFD stands for each",
        "have bytes or glyphs without a character; U+FFFD stands for each",
    ),
}


def merge_problems(findings: Iterable[tuple[int, ProblemCode]]) -> list[Problem]:
    """Merge ``(page, code)`` findings into runs, ordered by first page.

    >>> [p.message[:31] for p in merge_problems([(3, ProblemCode.NO_TEXT_LAYER), (4, ProblemCode.NO_TEXT_LAYER)])]
    ['Pages 3-4 have no text layer, a']
    """
    runs: list[tuple[ProblemCode, int, int]] = []
    for code, page in sorted((code, page) for page, code in set(findings)):
        if runs and runs[-1][0] is code and runs[-1][2] == page - 1:
            runs[-1] = (code, runs[-1][1], page)
        else:
            runs.append((code, page, page))
    return sorted((_problem(*run) for run in runs), key=lambda problem: (problem.first_page, problem.last_page))


def _problem(code: ProblemCode, first: int, last: int) -> Problem:
    singular, plural = _MESSAGES[code]
    message = f"Page {first} {singular}." if first == last else f"Pages {first}-{last} {plural}."
    return Problem(code, message, first, last)
