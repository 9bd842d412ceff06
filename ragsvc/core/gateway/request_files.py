"""The files of a request: inline as base64, or by the id of a stored file. Decodes them; does not read their text."""

from __future__ import annotations

import binascii
import itertools
import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote_to_bytes

import msgspec

from ragsvc.core.errors import InvalidRequest, TooLarge
from ragsvc.core.file_names import clean_filename, is_text_charset
from ragsvc.core.validation import invalid_value

MAX_REQUEST_FILES: Final = 20
"""Files of a request, those of earlier turns included."""

_DATA_URL: Final = re.compile(r"data:(?P<type>[^,;]*)(?P<parameters>(?:;[^,]*)?),", re.IGNORECASE)
_CHARSET: Final = re.compile(r";\s*charset=\"?([\w.:+-]{1,40})", re.ASCII | re.IGNORECASE)
_LONGEST_PREFIX: Final = 1024


class RequestFile(msgspec.Struct, kw_only=True):
    """A file of a request: its bytes (``data``), or the id of a stored file. ``param`` is its place in the request.

    ``media_type`` is the declared type, which may be wrong, of a text with its encoding; empty if none was declared.
    ``size_bytes`` is that of ``data``, also after ``release``.
    """

    param: str
    data: bytes | None = None
    size_bytes: int = 0
    file_id: str | None = None
    filename: str = ""
    media_type: str = ""

    def __post_init__(self) -> None:
        if self.data is not None:
            self.size_bytes = len(self.data)

    def release(self) -> None:
        """Drop the bytes, because they have been read: an answer may take minutes."""
        self.data = None


def inline_file(pieces: Iterable[str], *, filename: str | None, param: str, limit_bytes: int) -> RequestFile:
    """A file that is sent inline: the pieces of a ``data:`` URL or of bare base64, in any alphabet.

    ``param`` is the place of the file; errors name ``file_data`` below it. Decodes in pieces, because the interpreter
    lock is held while a piece is decoded.

    Raises:
        InvalidRequest: not base64, or empty.
        TooLarge: more than ``limit_bytes``.
    """
    path = f"{param}.file_data"
    source = iter(pieces)
    first = next(source, "").lstrip()
    media_type = ""
    prefix = _DATA_URL.match(first[:_LONGEST_PREFIX])
    if prefix is None and first[:5].lower() == "data:":
        raise invalid_value(path, "Expected base64, or a URL that begins with 'data:<media type>;base64,'")
    encoded = itertools.chain([first[prefix.end() :] if prefix else first], source)
    if prefix is not None:
        media_type = _with_charset(prefix["type"].strip().lower(), prefix["parameters"])
    if prefix is None or prefix["parameters"].lower().rstrip().endswith(";base64"):
        data = _from_base64(encoded, path, limit_bytes)
    else:
        data = unquote_to_bytes("".join(encoded))  # RFC 2397 §2: without ";base64"
        _check_size(len(data), path, limit_bytes)
    if not data:
        raise InvalidRequest(f"'{path}': the file is empty.", param=path)
    return RequestFile(param=param, data=data, filename=clean_filename(filename or ""), media_type=media_type)


def _with_charset(media_type: str, parameters: str) -> str:
    """The media type of a text with its encoding, unless that is UTF-8, which is the default."""
    charset = _CHARSET.search(parameters)
    if charset is None or not media_type.startswith("text/") or not is_text_charset(charset[1]):
        return media_type
    name = charset[1].lower()
    return media_type if name in ("utf-8", "utf8") else f"{media_type}; charset={name}"


def _from_base64(pieces: Iterable[str], path: str, limit_bytes: int) -> bytes:
    """Bytes of base64 in the alphabets of RFC 4648 §4 and §5, with or without padding and line ends."""
    decoded, carry, padded = bytearray(), "", False
    for piece in pieces:
        text = carry + "".join(piece.split()).replace("-", "+").replace("_", "/")
        whole = len(text) - len(text) % 4
        carry = text[whole:]
        if not whole:
            continue
        decoded += _decoded(text[:whole], path, ended=padded)
        padded = text[whole - 1] == "="
        _check_size(len(decoded), path, limit_bytes)
    if carry:
        decoded += _decoded(carry.ljust(4, "="), path, ended=padded)
    _check_size(len(decoded), path, limit_bytes)
    return bytes(decoded)


def _decoded(text: str, path: str, *, ended: bool) -> bytes:
    try:
        if not ended:
            return binascii.a2b_base64(text, strict_mode=True)
    except ValueError as error:  # also characters beyond ASCII; the message would quote the text
        raise _not_base64(path) from error
    raise _not_base64(path)


def _not_base64(path: str) -> InvalidRequest:
    return invalid_value(path, "Not valid base64")


def _check_size(size_bytes: int, path: str, limit_bytes: int) -> None:
    if size_bytes > limit_bytes:
        raise TooLarge(
            f"'{path}': the file is too large: the files of a request may have {limit_bytes} bytes.",
            limit_bytes=limit_bytes,
            param=path,
        )
