"""Reads uploads: a raw body or ``multipart/form-data``, streamed to disk instead of held in memory."""

from __future__ import annotations

import contextlib
import re
import unicodedata
from email.message import Message
from typing import Any, cast

from litestar import Request
from multipart import MultipartError, MultipartSegment, ParserLimitReached, PushMultipartParser, parse_options_header

from ragsvc.core.defaults import DEFAULT_COLLECTION, MAX_COLLECTION_NAME_LENGTH, MAX_FILENAME_LENGTH
from ragsvc.core.errors import InvalidRequest, UnsupportedMediaType
from ragsvc.core.file_types import (
    CSV,
    HTML,
    MARKDOWN,
    MEDIA_TYPE_ALIASES,
    MEDIA_TYPES,
    READABLE,
    SUFFIXES,
    TEXT,
    TSV,
    media_type_of,
)
from ragsvc.core.validation import check_text_length, decode_json_parameter, invalid_value, missing_value, unknown_field
from ragsvc.services.document_service import Upload, UploadInProgress

AnyRequest = Request[Any, Any, Any]

_FIELD_LIMIT = 65_536
_MAX_DISPOSITION_BYTES = 4096
_MAX_DISPOSITION_SEMICOLONS = 256
"""The parser of the standard library takes time proportional to the length times the number of semicolons."""

_MAX_PART_HEADER_BYTES = len("Content-Disposition: ") + _MAX_DISPOSITION_BYTES
_FIELDS = frozenset({"metadata", "collection", "password", "filename", "purpose"})
_LONE_SURROGATES = re.compile("[\ud800-\udfff]")
_UNTYPED = frozenset(
    {
        "",
        "application/octet-stream",
        "binary/octet-stream",
        "application/x-www-form-urlencoded",
        "application/zip",
        "application/x-zip-compressed",
        "application/vnd.ms-excel",
    }
)
"""Types that say little: Windows sends Office files as ZIP archives, and CSV files as Excel workbooks."""
_CHARSET = re.compile(r"[\w.:+-]{1,40}", re.ASCII)
_TEXTS = frozenset({TEXT, MARKDOWN, HTML, CSV, TSV})
"""Types that a binary file cannot have; such an upload becomes a failed document, which says what the file is."""


async def read_upload(request: AnyRequest, receiving: UploadInProgress) -> Upload:
    """Stream the body of the request into ``receiving``; return its name, type and metadata.

    Raises:
        InvalidRequest: a malformed form, invalid metadata, no file.
        UnsupportedMediaType: a file that cannot be read.
        TooLarge, StorageFull: see ``UploadInProgress``.
    """
    content_type, options = parse_options_header(request.headers.get("content-type", ""))
    if content_type == "multipart/form-data":
        return await _read_form(request, receiving, boundary=options.get("boundary", ""))
    query = request.query_params
    collection = query.get("collection") or DEFAULT_COLLECTION
    check_text_length("collection", collection, maximum=MAX_COLLECTION_NAME_LENGTH)
    name_in_header = filename_of(request.headers.get("content-disposition", ""))
    name = query.get("filename") or name_in_header or ""
    async for part in request.stream():
        await receiving.write(part)
    filename = clean_filename(name)
    return Upload(
        filename=filename or _default_name(content_type),
        media_type=_with_charset(_media_type(content_type, filename, receiving), options.get("charset")),
        collection=collection,
        metadata=_metadata(query.get("metadata")),
        password=request.headers.get("x-document-password"),
    )


async def _read_form(request: AnyRequest, receiving: UploadInProgress, *, boundary: str) -> Upload:
    if not boundary:
        raise InvalidRequest("The header 'Content-Type' of the form has no boundary.", param="file")
    form = _Form(receiving)
    try:
        with PushMultipartParser(boundary, max_segment_count=32, max_header_size=_MAX_PART_HEADER_BYTES) as parser:
            async for part in request.stream():
                for event in parser.parse(part):
                    await form.take(event)
    except ParserLimitReached as error:
        if str(error) == "Maximum segment header length exceeded":
            raise InvalidRequest(
                "A header of a form part, such as 'Content-Disposition', "
                f"is longer than {_MAX_DISPOSITION_BYTES:,} bytes.",
                param="Content-Disposition",
            ) from error
        raise InvalidRequest(f"The form cannot be read: {error.args[0]}.", param="file") from error
    except MultipartError as error:
        raise InvalidRequest(f"The form cannot be read: {error.args[0]}.", param="file") from error
    return form.upload()


class _Form:
    """Receives the events of the parser: writes the part ``file`` to disk, and keeps the other fields in memory."""

    def __init__(self, receiving: UploadInProgress) -> None:
        self._receiving = receiving
        self._segment: MultipartSegment | None = None
        self._value = bytearray()
        self._fields: dict[str, str] = {}
        self._file_name: str | None = None
        self._file_type = ""
        self._file_charset: str | None = None

    async def take(self, event: MultipartSegment | bytes | None) -> None:
        if isinstance(event, MultipartSegment):
            self._begin(event)
        elif event is None:
            self._end()
        elif self._segment is not None and self._segment.name == "file":
            await self._receiving.write(event)
        else:
            self._value += event
            if len(self._value) > _FIELD_LIMIT:
                name = (self._segment.name if self._segment is not None else None) or ""
                raise invalid_value(name[:64], f"Expected at most {_FIELD_LIMIT} bytes")

    def _begin(self, segment: MultipartSegment) -> None:
        self._segment = segment
        self._value.clear()
        name = segment.name or ""
        if name == "file":
            if self._file_name is not None:
                raise InvalidRequest("The form has more than one part 'file'.", param="file")
            # multipart reads filename as browsers quote it (WHATWG HTML §4.10.21.8), and not filename*
            extended, _ = _filename_parameters(segment.header("Content-Disposition") or "")
            self._file_name = extended or segment.filename or ""
            content_type, options = parse_options_header(segment.header("Content-Type") or "")
            self._file_type, self._file_charset = content_type, options.get("charset")
        elif name not in _FIELDS:
            raise unknown_field(name[:64])

    def _end(self) -> None:
        name = self._segment.name if self._segment is not None else None
        if name is not None and name != "file":
            try:
                self._fields[name] = self._value.decode()
            except UnicodeDecodeError as error:
                raise invalid_value(name, "Expected UTF-8") from error
        self._segment = None

    def upload(self) -> Upload:
        if self._file_name is None:
            raise missing_value("file")
        filename = clean_filename(self._fields.get("filename") or self._file_name)
        return Upload(
            filename=filename or _default_name(self._file_type),
            media_type=_with_charset(_media_type(self._file_type, filename, self._receiving), self._file_charset),
            collection=self._fields.get("collection") or DEFAULT_COLLECTION,
            metadata=_metadata(self._fields.get("metadata")),
            password=self._fields.get("password") or None,
        )


def _media_type(declared: str, filename: str, receiving: UploadInProgress) -> str:
    """The type by content if the format is binary, else the declared type, else by content and file name."""
    declared = MEDIA_TYPE_ALIASES.get(declared, declared)
    if declared in _UNTYPED:
        declared = ""
    elif declared not in MEDIA_TYPES:
        raise UnsupportedMediaType(
            f"Files of type '{declared[:100]}' cannot be read. Send one of: {READABLE}.", param="file"
        )
    found = media_type_of(declared, filename, head=receiving.head, tail=receiving.tail)
    if found is None:
        raise UnsupportedMediaType(
            "The type of the file is unknown. Name it with its usual suffix, or set Content-Type. "
            f"Send one of: {READABLE}.",
            param="file",
        )
    if found.media_type is None:
        raise UnsupportedMediaType(
            f"The file is {found.name} and cannot be read. Send one of: {READABLE}.", param="file"
        )
    return declared if declared in _TEXTS else found.media_type


def _with_charset(media_type: str, charset: str | None) -> str:
    """Keep the declared encoding of a text (RFC 2046 §4.1.2) unless it is UTF-8, which is the default."""
    if charset is None or not media_type.startswith("text/") or not _CHARSET.fullmatch(charset):
        return media_type
    return media_type if charset.lower() in ("utf-8", "utf8") else f"{media_type}; charset={charset.lower()}"


def _default_name(content_type: str) -> str:
    return f"document{SUFFIXES.get(MEDIA_TYPE_ALIASES.get(content_type, content_type), '.pdf')}"


def _metadata(text: str | None) -> dict[str, Any]:
    if not text:
        return {}
    return decode_json_parameter("metadata", text, dict[str, Any])


def filename_of(disposition: str) -> str | None:
    """The file name of a ``Content-Disposition`` header of a request (RFC 6266): ``filename*``, else ``filename``.

    ``filename`` is read as UTF-8 if its bytes are, as most clients send it, else as Latin-1.

    >>> filename_of("attachment; filename=plain.pdf; filename*=UTF-8''na%C3%AFve.pdf")
    'naïve.pdf'

    Raises:
        InvalidRequest: the header is longer than 4,096 bytes or has more than 256 semicolons. A header that cannot be
            read has no name.
    """
    extended, plain = _filename_parameters(disposition)
    if extended is not None or plain is None:
        return extended
    with contextlib.suppress(UnicodeError):
        return plain.encode("latin-1").decode("utf-8")
    return plain


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
        elif extended is None:
            extended = _decoded(value[2], charset=value[0] or "utf-8")
    return extended, plain


def _decoded(text: str, *, charset: str) -> str | None:
    try:
        return text.encode("latin-1").decode(charset)
    except (ValueError, TypeError, LookupError):  # bytes that are not in the charset, or no such charset
        return None


def _check_size(disposition: str) -> None:
    if len(disposition.encode("utf-8", "surrogatepass")) > _MAX_DISPOSITION_BYTES:
        problem = f"is longer than {_MAX_DISPOSITION_BYTES:,} bytes"
    elif disposition.count(";") > _MAX_DISPOSITION_SEMICOLONS:
        problem = f"has more than {_MAX_DISPOSITION_SEMICOLONS} semicolons"
    else:
        return
    raise InvalidRequest(f"The header 'Content-Disposition' {problem}.", param="Content-Disposition")


def clean_filename(name: str) -> str:
    r"""A file name in NFC without folders and control characters, at most 512 characters; any script is allowed.

    >>> clean_filename("../../etc/Jahresbericht 2023.pdf")
    'Jahresbericht 2023.pdf'
    >>> clean_filename("C:\\reports\\Q3.pdf")
    'Q3.pdf'
    """
    last = re.split(r"[/\\]", name)[-1]
    visible = "".join(" " if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") else char for char in last)
    return unicodedata.normalize("NFC", " ".join(visible.split()))[:MAX_FILENAME_LENGTH]
