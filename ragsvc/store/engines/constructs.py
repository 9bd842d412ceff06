"""Parts of statements that each engine compiles in its own way."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import ColumnElement, LargeBinary, Text, literal
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import NULLTYPE

BETWEEN_TEXTS: Final = "\0"
"""Occurs in no text."""


class IsRequested(FunctionElement[Any]):
    """Whether a column is one of the ids in the parameter ``ids``, which ``StatementEngine.encode_ids`` encodes.

    Its type is not ``Boolean``: SQLAlchemy would compare the condition with 1, and SQLite then uses no index for it.
    """

    type = NULLTYPE
    inherit_cache = True


class RowsAsJson(FunctionElement[str]):
    """All rows as one JSON array of arrays; ``[]`` without rows."""

    type = Text()
    inherit_cache = True


class NumberedTexts(FunctionElement[bytes]):
    """The texts of all rows in UTF-8, each after its number and a space, with ``BETWEEN_TEXTS`` in between."""

    type = LargeBinary()
    inherit_cache = True


class TextOfBytes(FunctionElement[str]):
    """A column of bytes that holds text in UTF-8, as text."""

    type = Text()
    inherit_cache = True


class BeginningOf(FunctionElement[str]):
    """At most so many characters of a text, from its beginning."""

    type = Text()
    inherit_cache = True


class PartBefore(FunctionElement[str]):
    """A text up to the first place of another text, or the whole text."""

    type = Text()
    inherit_cache = True


def is_requested(column: ColumnElement[int]) -> ColumnElement[bool]:
    """See ``IsRequested``."""
    return IsRequested(column)


def rows_as_json(*columns: ColumnElement[Any]) -> ColumnElement[str]:
    """See ``RowsAsJson``."""
    return RowsAsJson(*columns)


def numbered_texts(number: ColumnElement[int], text: ColumnElement[str]) -> ColumnElement[bytes]:
    """See ``NumberedTexts``."""
    return NumberedTexts(number, text)


def text_of_bytes(column: ColumnElement[Any]) -> ColumnElement[str]:
    """See ``TextOfBytes``."""
    return TextOfBytes(column)


def beginning_of(text: ColumnElement[str], characters: int) -> ColumnElement[str]:
    """See ``BeginningOf``."""
    return BeginningOf(text, literal(characters))


def part_before(text: ColumnElement[str], separator: str) -> ColumnElement[str]:
    """See ``PartBefore``."""
    return PartBefore(text, literal(separator))
