"""Spellings of a PDF's password: as SASLprep prepares it (ISO 32000-2 §7.6.4.3.3, RFC 4013), and as it was given."""

from __future__ import annotations

import stringprep
import unicodedata
from collections.abc import Callable
from typing import Final

_PROHIBITED: Final[tuple[Callable[[str], bool], ...]] = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


def password_spellings(password: str | None) -> list[str | None]:
    r"""The spellings to try in turn: SASLprep's, the given one, that in NFC; only ``None`` without a password.

    Revision 6 of AES-256 prescribes SASLprep, but many writers encrypt with the password as it was typed.

    >>> password_spellings("I\N{SOFT HYPHEN}X\N{NO-BREAK SPACE}1")[0]
    'IX 1'
    >>> password_spellings("plain")
    ['plain']
    """
    if not password:
        return [password]
    return list(dict.fromkeys(filter(None, (saslprep(password), password, unicodedata.normalize("NFC", password)))))


def saslprep(text: str) -> str | None:
    """The text as RFC 4013 prepares it; ``None`` if it has characters that the RFC prohibits."""
    mapped = (
        " " if stringprep.in_table_c12(character) else character
        for character in text
        if not stringprep.in_table_b1(character)
    )
    prepared = unicodedata.normalize("NFKC", "".join(mapped))
    if any(prohibited(character) for character in prepared for prohibited in _PROHIBITED):
        return None
    return prepared if _is_bidirectionally_valid(prepared) else None


def _is_bidirectionally_valid(text: str) -> bool:
    """Right-to-left letters begin and end the text and are not mixed with left-to-right letters (RFC 3454 §6)."""
    right_to_left = [stringprep.in_table_d1(character) for character in text]
    if not any(right_to_left):
        return True
    return right_to_left[0] and right_to_left[-1] and not any(stringprep.in_table_d2(character) for character in text)
