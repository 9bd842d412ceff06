"""Merges the findings of pages into problems of page ranges ("Pages 3-7 have no text layer"). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

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
    ProblemCode.HIDDEN_TEXT: (
        "has {hidden} that a reader cannot see; they were left out",
        "have {hidden} that a reader cannot see; they were left out",
    ),
    ProblemCode.BAD_CHARACTERS: (
        "has bytes or glyphs without a character; U+FFFD stands for each",
        "have bytes or glyphs without a character; U+FFFD stands for each",
    ),
}


def merge_problems(
    findings: Iterable[tuple[int, ProblemCode]], *, hidden: Mapping[int, int] | None = None
) -> list[Problem]:
    """Merge ``(page, code)`` findings into runs, ordered by first page. ``hidden``: hidden characters by page.

    >>> merge_problems([], hidden={3: 280})[0].message
    'Page 3 has 280 hidden characters that a reader cannot see; they were left out.'

    >>> [p.message[:31] for p in merge_problems([(3, ProblemCode.NO_TEXT_LAYER), (4, ProblemCode.NO_TEXT_LAYER)])]
    ['Pages 3-4 have no text layer, a']
    """
    hidden = hidden or {}
    found = {*findings, *((page, ProblemCode.HIDDEN_TEXT) for page in hidden)}
    runs: list[tuple[ProblemCode, int, int]] = []
    for code, page in sorted((code, page) for page, code in found):
        if runs and runs[-1][0] is code and runs[-1][2] == page - 1:
            runs[-1] = (code, runs[-1][1], page)
        else:
            runs.append((code, page, page))
    return sorted((_problem(*run, hidden) for run in runs), key=lambda problem: (problem.first_page, problem.last_page))


def _problem(code: ProblemCode, first: int, last: int, hidden: Mapping[int, int]) -> Problem:
    singular, plural = _MESSAGES[code]
    if code is ProblemCode.HIDDEN_TEXT:
        count = sum(hidden[page] for page in range(first, last + 1))
        characters = "1 hidden character" if count == 1 else f"{count:,} hidden characters"
        singular, plural = singular.format(hidden=characters), plural.format(hidden=characters)
    message = f"Page {first} {singular}." if first == last else f"Pages {first}-{last} {plural}."
    return Problem(code, message, first, last)
