"""Reads large JSON bodies without holding the interpreter lock for long.

A JSON decoder holds the lock for as long as it decodes: 2 to 4 ms for each MB with escapes, in which no other thread
and no event loop runs. The outline of a body has placeholders in place of long strings, so that it decodes at once; the
long strings are decoded in slices when they are needed, and never if nobody reads them (images as ``data:`` URLs).
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from ragsvc.core.errors import InvalidRequest

LARGE_BODY_BYTES: Final = 256 << 10
"""Bodies from this size on are outlined, in a worker thread."""

_LONG_BYTES: Final = 4096
_SLICE_BYTES: Final = 128 << 10
_PLACEHOLDER_CHARACTERS: Final = 600
"""Longer than every field with a limit, so that a placeholder is refused where its string would have been."""
_MAX_OUTLINE_BYTES: Final = 2 << 20
_MAX_QUOTES: Final = 2_000_000
_COUNTED_AT_ONCE: Final = 1 << 20
_BACKSLASH: Final = 0x5C
_PAIR_BYTES: Final = 12
_HIGH_SURROGATE: Final = re.compile(rb"\\u[dD][89abAB]")
_LOW_SURROGATE: Final = re.compile(rb"\\u[dD][c-fC-F]")
_DATA_URL: Final = b"data:"


class JsonOutline:
    """The outline of a body: JSON in ``skeleton``, in which strings of 4 kB and more are placeholders."""

    def __init__(self, body: bytes) -> None:
        """Find the long strings.

        Raises:
            InvalidRequest: the body has millions of strings, or does not end its last string.
        """
        quotes = sum(
            body.count(b'"', begin, begin + _COUNTED_AT_ONCE) for begin in range(0, len(body), _COUNTED_AT_ONCE)
        )
        if quotes > _MAX_QUOTES:
            raise InvalidRequest(f"The body has too many strings: at most {_MAX_QUOTES // 2} are accepted.")
        self._body = body
        self._mark = secrets.token_hex(16)  # no client can know it, so no string of a body is taken for a placeholder
        self._long: list[tuple[int, int]] = []
        self.skeleton = self._outline()
        if len(self.skeleton) > _MAX_OUTLINE_BYTES:
            raise InvalidRequest(
                f"The body has too many parts: without strings of more than {_LONG_BYTES} bytes it may have "
                f"{_MAX_OUTLINE_BYTES} bytes."
            )

    def _outline(self) -> bytes:
        body, parts, kept_to = self._body, list[bytes](), 0
        opening = body.find(b'"')
        while opening >= 0:
            closing = self._closing_quote(opening + 1)
            if closing - opening > _LONG_BYTES:
                placeholder = f"{self._mark}{len(self._long)}.".ljust(_PLACEHOLDER_CHARACTERS, ".")
                parts += [body[kept_to : opening + 1], placeholder.encode()]
                self._long.append((opening + 1, closing))
                kept_to = closing
            opening = body.find(b'"', closing + 1)
        parts.append(body[kept_to:])
        return b"".join(parts)

    def _closing_quote(self, begin: int) -> int:
        body, quote = self._body, begin
        while (quote := body.find(b'"', quote)) >= 0:
            if _backslashes_before(body, begin, quote) % 2 == 0:
                return quote
            quote += 1
        raise InvalidRequest("The body is not valid JSON: a string does not end.")

    @property
    def fewest_characters(self) -> int:
        """At least so many characters are in the long strings that are no ``data:`` URLs; an escape has six bytes."""
        return self.fewest_characters_without(())

    def fewest_characters_without(self, values: Iterable[str]) -> int:
        """As ``fewest_characters``, without these strings of the decoded skeleton, which are no text."""
        left_out = {self._place(value) for value in values}
        return sum(
            (end - begin) // 6
            for begin, end in self._long
            if (begin, end) not in left_out and not self._body.startswith(_DATA_URL, begin, end)
        )

    def text(self, value: str) -> str:
        """A string of the decoded skeleton as it is in the body. Raises ``InvalidRequest`` if it is malformed."""
        return "".join(self.pieces(value))

    def pieces(self, value: str) -> Iterator[str]:
        """``text`` in pieces of at most 128 kB, decoded one by one."""
        place = self._place(value)
        return iter([value]) if place is None else self._pieces(*place)

    def without(self, values: Iterable[str]) -> bytes:
        """The body with empty strings in place of those long strings of the decoded skeleton."""
        body, parts, kept_to = self._body, list[bytes](), 0
        for begin, end in sorted(place for place in map(self._place, values) if place is not None):
            parts.append(body[kept_to:begin])
            kept_to = end
        return b"".join([*parts, body[kept_to:]])

    def _place(self, value: str) -> tuple[int, int] | None:
        """Where the string of a placeholder is in the body; ``None`` for another string."""
        if not value.startswith(self._mark):
            return None
        return self._long[int(value[len(self._mark) : value.index(".")])]

    def long_texts(self) -> list[str]:
        """The long strings that are no ``data:`` URLs. Raises ``InvalidRequest`` if a string is malformed."""
        return [
            self._decoded(begin, end) for begin, end in self._long if not self._body.startswith(_DATA_URL, begin, end)
        ]

    def _decoded(self, begin: int, end: int) -> str:
        return "".join(self._pieces(begin, end))

    def _pieces(self, begin: int, end: int) -> Iterator[str]:
        while begin < end:
            cut = self._cut(begin, end)
            try:
                yield _STRING.decode(b'"%b"' % self._body[begin:cut])
            except UnicodeDecodeError as error:
                raise InvalidRequest("The body is not valid JSON: it is not UTF-8.") from error
            except msgspec.DecodeError as error:
                raise InvalidRequest("The body is not valid JSON: a string is malformed.") from error
            begin = cut

    def _cut(self, begin: int, end: int) -> int:
        """Where the next slice ends: between two characters, and not within an escape or a surrogate pair."""
        body, cut = self._body, begin + _SLICE_BYTES
        if cut >= end:
            return end
        while body[cut] & 0xC0 == 0x80:  # a later byte of a character
            cut -= 1
        escape = body.rfind(b"\\", max(begin, cut - _PAIR_BYTES), cut)
        if escape < 0:
            return cut
        if _backslashes_before(body, begin, escape) % 2:
            return escape + 1  # an escaped backslash
        if _LOW_SURROGATE.match(body, escape) and _HIGH_SURROGATE.match(body, max(begin, escape - _PAIR_BYTES // 2)):
            return escape - _PAIR_BYTES // 2
        return escape


def _backslashes_before(body: bytes, begin: int, end: int) -> int:
    """The length of the run of backslashes in ``body[begin:end]`` that ends at ``end``."""
    at = end
    while at > begin and body[at - 1] == _BACKSLASH:
        at -= 1
    return end - at


_STRING: Final = msgspec.json.Decoder(str)
