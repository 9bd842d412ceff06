"""Parts of statements that each engine compiles in its own way."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import BigInteger, ColumnElement, LargeBinary, Text
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import NULLTYPE

BETWEEN_TEXTS: Final = "\0"
"""Occurs in no text."""


class IsRequested(FunctionElement[bool]):
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


class PlaceOf(FunctionElement[int]):
    """Where a text has another text for the first time, from 1; 0 if nowhere."""

    type = BigInteger()
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


def place_of(part: str, text: ColumnElement[str]) -> ColumnElement[int]:
    """See ``PlaceOf``."""
    return PlaceOf(text, part)
