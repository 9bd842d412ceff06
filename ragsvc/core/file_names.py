"""File names of uploads: read from headers and URLs, decoded and cleaned, or made from a document's title. Pure."""

from __future__ import annotations

import binascii
import codecs
import contextlib
import re
import unicodedata
from email.errors import HeaderParseError
from email.header import decode_header
from email.message import Message
from typing import Final, cast
from urllib.parse import unquote_to_bytes, urlsplit

from ragsvc.core.defaults import MAX_FILENAME_LENGTH
from ragsvc.core.errors import InvalidRequest
from ragsvc.core.file_types import MEDIA_TYPE_ALIASES, SUFFIXES
from ragsvc.core.text.chunking import document_name

MAX_DISPOSITION_BYTES: Final = 4096
_CHARSET_NAME: Final = re.compile(r"[\w.:+-]{1,40}", re.ASCII)
_TEXT_CODEC: Final = re.compile(
    r"ascii$|utf-(?:8|16|32)|iso8859|cp\d|koi8|mac-|gb|big5|shift_jis|euc_|iso2022|hz$|johab|tis-620|ptcp154|kz1048"
)
_MAX_DISPOSITION_SEMICOLONS: Final = 256
"""The parser of the standard library takes time proportional to the length times the number of semicolons."""

_LONE_SURROGATES: Final = re.compile("[\ud800-\udfff]")
_EXTENDED_BAD_ESCAPE: Final = re.compile(r"filename\*[^;]*%(?![0-9A-Fa-f]{2})", re.IGNORECASE)
_ESCAPE: Final = re.compile(r"%[0-9A-Fa-f]{2}")
_SEPARATORS: Final = re.compile(r"[/\\]")
_PATH: Final = re.compile(r"(?:[A-Za-z]:)?[/\\]|\.{1,2}[/\\]")
_WORD: Final = re.compile(r"\b[^\W\d_]{2,}\b")
_ADDRESS: Final = re.compile(r"://|^[A-Za-z]:[/\\]|^[/\\]")
_JOINERS: Final = "\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}"
"""Format characters that change letters (Persian, Indic scripts, emoji); all others are invisible or reorder text."""


def filename_of(disposition: str) -> str | None:
    """The file name of a ``Content-Disposition`` header of a request (RFC 6266): ``filename*``, else ``filename``.

    ``filename`` is read as UTF-8 if its bytes are, as most clients send it, else as Latin-1.

    >>> filename_of("attachment; filename=plain.pdf; filename*=UTF-8''na%C3%AFve.pdf")
    'naïve.pdf'

    Raises:
        InvalidRequest: the header is longer than 4,096 bytes or has more than 256 semicolons. A header that cannot be
            read has no name.
    """
    if not disposition:  # most requests have no such header; parsing one takes 0.1 ms
        return None
    extended, plain = _filename_parameters(disposition)
    if plain is None or (extended is not None and clean_filename(extended)):
        return extended
    with contextlib.suppress(UnicodeError):
        plain = plain.encode("latin-1").decode("utf-8")
    return decoded_filename(plain)


def filename_of_part(disposition: str, plain: str | None) -> str:
    """The file name of a part of a form: ``filename*``, else ``plain``, the value of ``filename`` without quoting.

    Raises:
        InvalidRequest: see ``filename_of``.
    """
    extended, _ = _filename_parameters(disposition)
    return extended if extended is not None and clean_filename(extended) else decoded_filename(plain or "")


def filename_of_url(url: str) -> str:
    """The last segment of a URL's path, without percent-encoding; empty if there is none.

    >>> filename_of_url("https://example.org/reports/Jahresbericht%202023.pdf?download=1#page=2")
    'Jahresbericht 2023.pdf'
    """
    try:
        path = urlsplit(url).path
    except ValueError:  # for instance an invalid IPv6 address
        return ""
    return decoded_filename(path.rsplit("/", 1)[-1])


def decoded_filename(name: str) -> str:
    """Decode encoded words (RFC 2047) and percent-escapes in a file name; a name that cannot be decoded stays.

    >>> decoded_filename("=?UTF-8?B?Qmlsw6Fu?= 2023.pdf"), decoded_filename("Q3%20report.pdf")
    ('Bilán 2023.pdf', 'Q3 report.pdf')
    """
    return _unescaped(_without_encoded_words(name))


def clean_filename(name: str) -> str:
    r"""A file name in NFC without folders and control characters, at most 512 characters; any script is allowed.

    A URL is replaced by the name in it. The result is empty if nothing is left.

    >>> clean_filename("../../etc/Jahresbericht 2023.pdf")
    'Jahresbericht 2023.pdf'
    >>> clean_filename("C:\\reports\\Q3.pdf")
    'Q3.pdf'
    """
    if name.startswith(("http://", "https://")):
        name = filename_of_url(name)
    last = _SEPARATORS.split(name)[-1]
    visible = "".join(_visible(character) for character in last)
    cleaned = unicodedata.normalize("NFC", " ".join(visible.split()))[:MAX_FILENAME_LENGTH]
    return "" if cleaned.strip(".") == "" else cleaned


def default_filename(media_type: str) -> str:
    """The name of a file that was sent without a name.

    >>> default_filename("text/markdown; charset=koi8-r")
    'document.md'
    """
    return f"document{_suffix(media_type)}"


def filename_from_title(title: str | None, media_type: str) -> str | None:
    """A file name made from the document's title; ``None`` if the title does not describe the document.

    >>> filename_from_title("Microsoft Word - Annual report 2023.doc", "application/pdf")
    'Annual report 2023.pdf'
    >>> filename_from_title("7c3f6204b3241f142f0f8eb8e1fefe7a", "application/pdf") is None
    True
    """
    if title is None or _ADDRESS.search(title):
        return None
    name = clean_filename(_SEPARATORS.sub("-", document_name(title, "")))
    return name + _suffix(media_type) if _WORD.search(name) else None


def _suffix(media_type: str) -> str:
    kind = media_type.partition(";")[0]
    return SUFFIXES.get(MEDIA_TYPE_ALIASES.get(kind, kind), ".pdf")


def _filename_parameters(disposition: str) -> tuple[str | None, str | None]:
    """The values of ``filename*`` (RFC 8187; ``None`` if it cannot be decoded) and of ``filename``."""
    _check_size(disposition)
    message = Message()
    message["Content-Disposition"] = _LONE_SURROGATES.sub("\N{REPLACEMENT CHARACTER}", disposition)
    try:
        parameters = cast(  # typeshed knows only str, and not (charset, language, value) of RFC 2231
            "list[tuple[str, str | tuple[str | None, str | None, str]]]", message.get_params([], "content-disposition")
        )
    except (ValueError, TypeError, LookupError):  # contradictory or malformed continuations (RFC 2231 §3)
        return None, None
    extended: str | None = None
    plain: str | None = None
    for name, value in parameters:
        if name.lower() != "filename":
            continue
        if isinstance(value, str):
            plain = value if plain is None else plain
        elif extended is None and not _EXTENDED_BAD_ESCAPE.search(disposition):
            extended = _decoded(value[2], charset=value[0] or "utf-8")
    return extended, plain


def _decoded(text: str, *, charset: str) -> str | None:
    if not is_text_charset(charset):
        return None
    try:
        return text.encode("latin-1").decode(charset)
    except (ValueError, TypeError, LookupError):  # bytes that are not in the charset, or no such charset
        return None


def is_text_charset(name: str) -> bool:
    r"""Whether Python has a codec for the character encoding, and it is one: not ``zip``, ``idna`` or ``punycode``.

    >>> [is_text_charset(name) for name in ("UTF-8", "windows-1251", "koi8-r", "punycode", "zip", "x" * 9000, "a\0")]
    [True, True, True, False, False, False, False]
    """
    if not _CHARSET_NAME.fullmatch(name):
        return False
    try:
        return _TEXT_CODEC.match(codecs.lookup(name).name) is not None
    except (LookupError, ValueError):
        return False


def _check_size(disposition: str) -> None:
    if len(disposition.encode("utf-8", "surrogatepass")) > MAX_DISPOSITION_BYTES:
        problem = f"is longer than {MAX_DISPOSITION_BYTES:,} bytes"
    elif disposition.count(";") > _MAX_DISPOSITION_SEMICOLONS:
        problem = f"has more than {_MAX_DISPOSITION_SEMICOLONS} semicolons"
    else:
        return
    raise InvalidRequest(f"The header 'Content-Disposition' {problem}.", param="Content-Disposition")


def _without_encoded_words(name: str) -> str:
    if "=?" not in name or "?=" not in name:
        return name
    try:
        parts = decode_header(name)
    except (HeaderParseError, binascii.Error, ValueError):
        return name
    decoded: list[str] = []
    for content, charset in parts:
        if isinstance(content, str):
            decoded.append(content)
            continue
        if charset is not None and not is_text_charset(charset):
            return name
        try:  # text outside the encoded words has no charset, and is in "raw-unicode-escape" (Python's decode_header)
            decoded.append(content.decode(charset or "raw-unicode-escape"))
        except (ValueError, TypeError, LookupError):
            return name
    return "".join(decoded)


def _unescaped(name: str) -> str:
    """Decode percent-escapes of UTF-8. Browsers send ``%22``, ``%0D`` and ``%0A``, other clients all of them.

    A separator that is escaped in the middle belongs to the name (``50%2F50.pdf``); nothing is decoded then.
    """
    if not _ESCAPE.search(name):
        return name
    try:
        decoded = unquote_to_bytes(name).decode("utf-8")
    except ValueError:
        return name
    escapes_separator = len(_SEPARATORS.findall(decoded)) > len(_SEPARATORS.findall(name))
    return name if escapes_separator and not _PATH.match(decoded) else decoded


def _visible(character: str) -> str:
    category = unicodedata.category(character)
    if category in ("Cc", "Cs", "Zl", "Zp"):
        return " "
    return "" if category == "Cf" and character not in _JOINERS else character
