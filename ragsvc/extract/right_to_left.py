"""Puts the hyphen between a Hebrew or Arabic prefix and its number. Pure.

pdfium orders a line of both directions by the directions of its characters and takes a hyphen beside digits as part of
the number, so "in-2023" becomes "in2023-" and "12-A" becomes "-12A".
"""

from __future__ import annotations

import re

_LETTER = "[\u05d0-\u05ea\u0620-\u064a\u066e-\u06d3]"
_NUMBER = r"[$\u20ac\u20aa]?\d(?:[\d.,:/]*\d)?%?"
_HYPHEN = "[-\u05be\u2010-\u2013]"
_PREFIX = re.compile(rf"({_LETTER})({_NUMBER})({_HYPHEN})(?![^\s.,:;!?)\]])")
_SUFFIX = re.compile(rf"(?<!\S)({_HYPHEN})({_NUMBER})({_LETTER})")


_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]")


def has_right_to_left(text: str) -> bool:
    """Whether a text has Hebrew or Arabic letters."""
    return _RIGHT_TO_LEFT.search(text) is not None


def order_prefixes(line: str) -> str:
    """The line with the hyphens of prefixed numbers in logical order.

    >>> order_prefixes("\u05d12023- \u05d4\u05d91,482- -12\u05d0") == "\u05d1-2023 \u05d4\u05d9-1,482 12-\u05d0"
    True
    """
    return _SUFFIX.sub(r"\2\1\3", _PREFIX.sub(r"\1\3\2", line))
