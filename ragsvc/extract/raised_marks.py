"""Tells footnote marks, exponents and subscripts from the characters beside them, by size and baseline. Pure.

pdfium returns the characters of a line one after the other, so ``1,482`` with the footnote mark 3 reads ``1,4823``.
Raised digits become superscripts (``1,482³``, ``10⁻⁶``), and raised letters follow a caret (``2025^a``) unless they
end an abbreviation (``5th``). Lowered digits stay as they are (``CO2``) unless they touch a figure (``log₂10``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

_SMALLER = 0.86
_SAME = 1.03
_ABUTS = 0.35
_SPACE = 0.7
_MAX_LETTERS = 3
_MAX_CHARACTERS = 8
_SUPERSCRIPTS = str.maketrans("0123456789+-\u2212\u2013()n", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻⁻⁽⁾ⁿ")
_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
_MARKED = frozenset(")]%\u201d\"'.")
_SIGNS = frozenset("+-\u2212\u2013n")
_SLASHES = frozenset("/\u2044\u2215")
_ORDINAL_ENDS = frozenset("st nd rd th er re e ère ere ème eme ième nde o os as".split())
_ABBREVIATION_ENDS = frozenset("aderos")


class Glyph(NamedTuple):
    """A visible character: its position in the page's text, font size, baseline, and horizontal extent in points."""

    position: int
    character: str
    size: float
    baseline: float
    left: float
    right: float


class Run(NamedTuple):
    """Consecutive characters of equal size and baseline. ``shift`` is 1 if raised, -1 if lowered, otherwise 0."""

    glyphs: Sequence[Glyph]
    shift: int = 0

    @property
    def text(self) -> str:
        return "".join(glyph.character for glyph in self.glyphs)

    @property
    def size(self) -> float:
        return self.glyphs[0].size

    @property
    def baseline(self) -> float:
        return self.glyphs[0].baseline


def find_runs(glyphs: Sequence[Glyph]) -> list[Run]:
    """The runs of a line, with those marked that are raised or lowered against the text beside them."""
    runs = [Run(part) for part in _split(glyphs)]
    base: Run | None = None
    for position, run in enumerate(runs):
        previous = runs[position - 1] if position else None
        shift = 0
        if base is not None and previous is not None and _is_near(previous, run, base.size):
            shift = _shift(run, base)
        elif position + 1 < len(runs) and _abuts(run, runs[position + 1], runs[position + 1].size):
            shift = _shift(run, runs[position + 1])
        if shift:
            runs[position] = run._replace(shift=shift)
        else:
            base = run
    return runs


def _split(glyphs: Sequence[Glyph]) -> Iterator[Sequence[Glyph]]:
    start = 0
    for position, (before, after) in enumerate(pairwise(glyphs), start=1):
        size = max(before.size, after.size)
        if abs(before.size - after.size) > 0.03 * size or abs(before.baseline - after.baseline) > 0.03 * size:
            yield glyphs[start:position]
            start = position
    if glyphs:
        yield glyphs[start:]


def _is_near(before: Run, after: Run, size: float) -> bool:
    """Whether a mark may refer to the text before it, perhaps after a space."""
    gap = after.glyphs[0].left - before.glyphs[-1].right
    return -size < gap < (_SPACE if after.size <= _SMALLER * size else _ABUTS) * size


def _abuts(before: Run, after: Run, size: float) -> bool:
    return -size < after.glyphs[0].left - before.glyphs[-1].right < _ABUTS * size


def _shift(run: Run, base: Run) -> int:
    size = base.size or 1.0
    letters = sum(glyph.character.isalpha() for glyph in run.glyphs)
    if len(run.glyphs) > _MAX_CHARACTERS or letters > _MAX_LETTERS:
        return 0
    ratio, rise = run.size / size, (run.baseline - base.baseline) / size
    if ratio <= _SMALLER:
        return 1 if 0.1 <= rise <= 1.0 else -1 if -0.6 <= rise <= -0.04 else 0
    if ratio <= _SAME and len(run.glyphs) <= _MAX_LETTERS:
        return 1 if 0.22 <= rise <= 0.75 else -1 if -0.6 <= rise <= -0.2 else 0
    return 0


def mark_edits(runs: Sequence[Run]) -> dict[int, str]:
    """The text that replaces characters, by position, so that marks are kept apart."""
    edits: dict[int, str] = {}
    fraction = False
    for position, run in enumerate(runs):
        if not run.shift or fraction:
            fraction = False
            continue
        before = _neighbour(runs, position, -1)
        after = _neighbour(runs, position, 1)
        if run.shift > 0 and _is_numerator(runs, position):
            fraction = True
            if before.isdigit():
                edits[run.glyphs[0].position] = " " + run.glyphs[0].character
        elif run.shift > 0:
            edits.update(_raised(run, before, after))
        else:
            edits.update(_lowered(run, before, after))
    return edits


def _neighbour(runs: Sequence[Run], position: int, step: int) -> str:
    """The character that abuts the run on one side; empty if there is none."""
    other = position + step
    if not 0 <= other < len(runs):
        return ""
    first, second = sorted((position, other))
    if not _abuts(runs[first], runs[second], max(runs[first].size, runs[second].size)):
        return ""
    return runs[other].glyphs[-1 if step < 0 else 0].character


def _is_numerator(runs: Sequence[Run], position: int) -> bool:
    """Whether the run is the upper part of a fraction that is written with a slash."""
    text = runs[position].text
    if text.isdigit() and position + 1 < len(runs):
        following = runs[position + 1].text
        return following[0] in _SLASHES and (len(following) > 1 or position + 2 < len(runs))
    return False


def _raised(run: Run, before: str, after: str) -> dict[int, str]:
    text, first, last = run.text, run.glyphs[0], run.glyphs[-1]
    if not (before.isalnum() or before in _MARKED):  # the label of a footnote, or apart
        if after.isalpha() and text.isalnum():
            return {last.position: last.character + " "}
        return _superscripts(run) if text.isdigit() and not before else {}
    if text == "TM":
        return {first.position: "\u2122", last.position: ""}
    if text[0] in "([" or ("(" in text) != (")" in text) or _ends_abbreviation(text, before):
        return {}
    letters = any(character.isalpha() and character != "n" for character in text)
    digits = any(character.isdigit() for character in text)
    if not letters and (digits or text in _SIGNS):
        return _superscripts(run)
    return {first.position: "^" + first.character} if digits or text[0].isalpha() else {}


def _superscripts(run: Run) -> dict[int, str]:
    return {glyph.position: glyph.character.translate(_SUPERSCRIPTS) for glyph in run.glyphs}


def _ends_abbreviation(text: str, before: str) -> bool:
    if before.isdigit():
        return text.lower() in _ORDINAL_ENDS
    if len(text) > 1:
        return before.isupper() and text.isalpha() and text.islower()
    return before.isupper() and text in _ABBREVIATION_ENDS


def _lowered(run: Run, before: str, after: str) -> dict[int, str]:
    text = run.text
    if text.isdigit() and (before.isdigit() or after.isdigit()):
        return {glyph.position: glyph.character.translate(_SUBSCRIPTS) for glyph in run.glyphs}
    return {}


def continues_row(before: Sequence[Glyph], after: Sequence[Glyph]) -> bool:
    """Whether the line ``after`` continues the row of ``before``, which pdfium broke at a raised or lowered mark."""
    if not before or not after:
        return False
    size = max(glyph.size for glyph in (*before, *after))
    if not -0.3 * size < after[0].left - before[-1].right < 0.6 * size:
        return False
    runs = find_runs([*before, *after])
    boundary = after[0].position
    left = [run for run in runs if run.glyphs[0].position < boundary]
    right = [run for run in runs if run.glyphs[-1].position >= boundary]
    if left[-1] is right[0]:
        return True
    if not (left[-1].shift or right[0].shift):
        return False
    bases = [next((run for run in side if not run.shift), None) for side in (left[::-1], right)]
    if bases[0] is None or bases[1] is None:
        return True
    return abs(bases[0].baseline - bases[1].baseline) < 0.12 * size and bases[0].size < 1.3 * bases[1].size
