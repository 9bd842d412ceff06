"""Finds a stretch of a page's text in another reading of the same page, by letters and digits only. Pure.

The readings differ in ligatures, hyphens, spaces, and in the order of columns and cells. A stretch that is not found as
a whole is found in runs, the longest first.
"""

from __future__ import annotations

import unicodedata

import msgspec

_SHORTEST_RUN = 6
_NEAR = 40
_CONTEXT = 160
_MOST_PLACES = 200


class LetterRun(msgspec.Struct, frozen=True):
    """``length`` letters from ``start`` in the text that are the letters from ``found`` in the other reading."""

    start: int
    found: int
    length: int


def letters_of(text: str) -> str:
    """The letters and digits of a text, decomposed.

    >>> letters_of("ﬁnal, 3²")
    'final32'
    """
    return "".join(character for character in unicodedata.normalize("NFKD", text) if character.isalnum())


def align(text: str, start: int, end: int, other: str) -> list[LetterRun]:
    """The runs of ``text[start:end]`` in ``other``, in order; both are letters.

    A run that occurs more than once is found where the letters around it agree, else at the occurrence with the same
    ordinal.

    >>> [(run.start, run.found, run.length) for run in align("netsalesrosebytenpercent", 3, 16, "byten.netsalesrose")]
    [(3, 9, 9)]
    """
    runs: list[LetterRun] = []
    at = start
    while at < end:
        length = _longest(text, at, end, other)
        whole = length == end - start
        if whole or length >= _SHORTEST_RUN:
            place = _best_place(text, at, length, other)
        else:
            place = _near_place(text, at, length, other, runs)
        if place < 0:
            at += 1
            continue
        runs.append(LetterRun(at, place, length))
        at += length
    return runs


def _longest(text: str, at: int, end: int, other: str) -> int:
    """How many letters from ``at`` occur in ``other``.

    Most runs are short where much is missing: a search that began with half of the rest took a minute for a page.
    """
    known, missing = 0, end - at + 1
    tried = min(_SHORTEST_RUN, end - at)
    while known < tried and text[at : at + tried] in other:
        known, tried = tried, min(2 * tried, end - at)
    if known < tried:
        missing = tried
    while missing - known > 1:
        middle = (known + missing) // 2
        if text[at : at + middle] in other:
            known = middle
        else:
            missing = middle
    return known


def _best_place(text: str, at: int, length: int, other: str) -> int:
    wanted = text[at : at + length]
    places = _occurrences(wanted, other)
    if len(places) == 1:
        return places[0]
    agreeing = {place: _agreement(text, at, length, other, place) for place in places}
    most = max(agreeing.values())
    best = [place for place in places if agreeing[place] == most]
    ordinal = _occurrences(wanted, text).index(at) if at in _occurrences(wanted, text) else 0
    same = places[min(ordinal, len(places) - 1)]
    return same if same in best else best[0]


def _near_place(text: str, at: int, length: int, other: str, runs: list[LetterRun]) -> int:
    """The place of a short run shortly after the run before it; -1 if there is none."""
    if not length or not runs:
        return -1
    before = runs[-1].found + runs[-1].length
    return other.find(text[at : at + length], before, before + _NEAR)


def _agreement(text: str, at: int, length: int, other: str, place: int) -> int:
    """How many letters before and after a run are the same."""
    before = 0
    most = min(at, place, _CONTEXT)
    while before < most and text[at - before - 1] == other[place - before - 1]:
        before += 1
    after, end, stop = 0, at + length, place + length
    most = min(len(text) - end, len(other) - stop, _CONTEXT)
    while after < most and text[end + after] == other[stop + after]:
        after += 1
    return before + after


def _occurrences(wanted: str, text: str) -> list[int]:
    places: list[int] = []
    place = text.find(wanted)
    while place >= 0 and len(places) < _MOST_PLACES:
        places.append(place)
        place = text.find(wanted, place + 1)
    return places
