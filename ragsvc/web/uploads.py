"""Reads uploads: a raw body or ``multipart/form-data``, streamed to disk instead of held in memory."""

from __future__ import annotations

import contextlib
from typing import Annotated, Any, Final, Literal

import msgspec
from litestar import Request
from msgspec import Meta
from multipart import MultipartError, MultipartSegment, ParserLimitReached, PushMultipartParser, parse_options_header

from ragsvc.core.defaults import DEFAULT_COLLECTION, MAX_COLLECTION_NAME_LENGTH
from ragsvc.core.errors import InvalidRequest, UnsupportedMediaType
from ragsvc.core.file_names import (
    MAX_DISPOSITION_BYTES,
    clean_filename,
    filename_of,
    filename_of_part,
    filename_of_url,
    is_text_charset,
)
from ragsvc.core.file_types import (
    CSV,
    HTML,
    MARKDOWN,
    MEDIA_TYPE_ALIASES,
    MEDIA_TYPES,
    READABLE,
    TEXT,
    TSV,
    UNTYPED,
    media_type_of,
    stored_media_type,
)
from ragsvc.core.files import FilePurpose
from ragsvc.core.validation import (
    check_text_length,
    decode_json_parameter,
    invalid_value,
    listed,
    missing_value,
    unknown_field,
)
from ragsvc.services.document_service import Upload, UploadInProgress
from ragsvc.services.file_service import FileUpload

AnyRequest = Request[Any, Any, Any]

_FIELD_LIMIT = 65_536
_MAX_PART_HEADER_BYTES = len("Content-Disposition: ") + MAX_DISPOSITION_BYTES
_FIELDS = frozenset({"metadata", "collection", "password", "filename", "purpose"})
_EXPIRY_FIELDS: Final = ("expires_after[anchor]", "expires_after[seconds]")
_MAX_DIGITS: Final = 18
_FILE_FIELDS: Final = frozenset({"purpose", "expires_after", *_EXPIRY_FIELDS})
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
        form = _Form(receiving)
        await _read_form(request, form, boundary=options.get("boundary", ""))
        return form.document()
    query = request.query_params
    collection = query.get("collection") or DEFAULT_COLLECTION
    check_text_length("collection", collection, maximum=MAX_COLLECTION_NAME_LENGTH)
    name_in_header = filename_of(request.headers.get("content-disposition", ""))
    name_in_url = filename_of_url(request.headers.get("content-location", ""))  # RFC 9110 §8.7: where it came from
    filename = _first_name(query.get("filename"), name_in_header, name_in_url)
    async for part in request.stream():
        await receiving.write(part)
    return Upload(
        filename=filename or None,
        media_type=_with_charset(media_type_of_upload(content_type, filename, receiving), options.get("charset")),
        collection=collection,
        metadata=_metadata(query.get("metadata")),
        password=_utf8(request.headers.get("x-document-password")),
    )


async def read_file(request: AnyRequest, receiving: UploadInProgress) -> FileUpload:
    """Stream a form with a file of any type into ``receiving``; return its name, type, purpose and time to expire.

    Raises:
        InvalidRequest: a malformed form, no file, no purpose, or an invalid field.
        UnsupportedMediaType: the body is no form.
        TooLarge, StorageFull: see ``UploadInProgress``.
    """
    form = _Form(receiving, fields=_FILE_FIELDS)
    await _read_form(request, form, boundary=_boundary_of(request))
    return form.file()


async def read_part(request: AnyRequest, receiving: UploadInProgress) -> None:
    """Stream a form with a part of an upload, its field ``data``, into ``receiving``. Raises as ``read_file``."""
    form = _Form(receiving, fields=frozenset(), content="data")
    await _read_form(request, form, boundary=_boundary_of(request))
    form.require_content()


def _boundary_of(request: AnyRequest) -> str:
    content_type, options = parse_options_header(request.headers.get("content-type", ""))
    if content_type != "multipart/form-data":
        raise UnsupportedMediaType("This endpoint accepts multipart/form-data only.", param="Content-Type")
    return str(options.get("boundary", ""))


async def _read_form(request: AnyRequest, form: _Form, *, boundary: str) -> None:
    if not boundary:
        raise InvalidRequest("The header 'Content-Type' of the form has no boundary.", param=form.content)
    try:
        with PushMultipartParser(
            boundary,
            max_segment_count=32,
            max_header_size=_MAX_PART_HEADER_BYTES,
            header_charset="latin-1",  # decoded by _utf8: a name in another charset must not make the form unreadable
        ) as parser:
            async for part in request.stream():
                for event in parser.parse(part):
                    await form.take(event)
    except ParserLimitReached as error:
        if str(error) == "Maximum segment header length exceeded":
            raise InvalidRequest(
                "A header of a form part, such as 'Content-Disposition', "
                f"is longer than {MAX_DISPOSITION_BYTES:,} bytes.",
                param="Content-Disposition",
            ) from error
        raise InvalidRequest(f"The form cannot be read: {error.args[0]}.", param=form.content) from error
    except MultipartError as error:
        raise InvalidRequest(f"The form cannot be read: {error.args[0]}.", param=form.content) from error


class _Form:
    """Receives the events of the parser: writes the part ``content`` to disk, and keeps the other fields in memory."""

    def __init__(self, receiving: UploadInProgress, *, fields: frozenset[str] = _FIELDS, content: str = "file") -> None:
        """``fields`` are the names of the fields beside ``content``."""
        self.content = content
        self._known = fields
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
        elif self._segment is not None and self._segment.name == self.content:
            await self._receiving.write(event)
        else:
            self._value += event
            if len(self._value) > _FIELD_LIMIT:
                name = (self._segment.name if self._segment is not None else None) or ""
                raise invalid_value(name[:64], f"Expected at most {_FIELD_LIMIT} bytes")

    def _begin(self, segment: MultipartSegment) -> None:
        self._segment = segment
        self._value.clear()
        name = _utf8(segment.name) or ""
        if name == self.content:
            if self._file_name is not None:
                raise InvalidRequest(f"The form has more than one part '{name}'.", param=name)
            # multipart reads filename as browsers quote it (WHATWG HTML §4.10.21.8), and not filename*
            self._file_name = filename_of_part(
                _utf8(segment.header("Content-Disposition")) or "", _utf8(segment.filename)
            )
            content_type, options = parse_options_header(segment.header("Content-Type") or "")
            self._file_type, self._file_charset = content_type, options.get("charset")
        elif name not in self._known:
            raise unknown_field(name[:64])

    def _end(self) -> None:
        name = self._segment.name if self._segment is not None else None
        if name is not None and name != self.content:
            try:
                self._fields[name] = self._value.decode()
            except UnicodeDecodeError as error:
                raise invalid_value(name, "Expected UTF-8") from error
        self._segment = None

    def require_content(self) -> str:
        """The file name of the part ``content``. Raises ``InvalidRequest`` if the form has no such part."""
        if self._file_name is None:
            raise missing_value(self.content)
        return self._file_name

    def file(self) -> FileUpload:
        """The parameters of a file."""
        filename = _first_name(self.require_content())
        purpose = self._fields.get("purpose")
        if not purpose:
            raise missing_value("purpose")
        media_type = stored_media_type(self._file_type, filename, head=self._receiving.head, tail=self._receiving.tail)
        return FileUpload(
            filename=filename or None,
            media_type=_with_charset(media_type, self._file_charset),
            purpose=purpose_of(purpose),
            expires_after_s=self._expires_after_s(),
        )

    def _expires_after_s(self) -> int | None:
        """Seconds after which a file expires: from two fields, or from an object in one."""
        given = self._fields.get("expires_after")
        if given:
            return expires_after_s(decode_json_parameter("expires_after", given, ExpiresAfter))
        anchor, seconds = (self._fields.get(name) for name in _EXPIRY_FIELDS)
        if not anchor and not seconds:
            return None
        for name, value in zip(_EXPIRY_FIELDS, (anchor, seconds), strict=True):
            if not value:
                raise missing_value(name)
        is_number = seconds is not None and seconds.isdecimal() and len(seconds) <= _MAX_DIGITS
        policy = msgspec.json.encode({"anchor": anchor, "seconds": int(seconds or 0) if is_number else seconds})
        return expires_after_s(decode_json_parameter("expires_after", policy.decode(), ExpiresAfter))

    def document(self) -> Upload:
        """The parameters of a document."""
        filename = _first_name(self._fields.get("filename"), self.require_content())
        return Upload(
            filename=filename or None,
            media_type=_with_charset(
                media_type_of_upload(self._file_type, filename, self._receiving), self._file_charset
            ),
            collection=self._fields.get("collection") or DEFAULT_COLLECTION,
            metadata=_metadata(self._fields.get("metadata")),
            password=self._fields.get("password") or None,
        )


class ExpiresAfter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a file expires: ``seconds`` after its creation."""

    anchor: Literal["created_at"]
    seconds: Annotated[int, Meta(ge=3600, le=2_592_000)]


def expires_after_s(policy: ExpiresAfter | None) -> int | None:
    """Seconds after which a file expires; ``None`` without a policy."""
    return None if policy is None else policy.seconds


def purpose_of(text: str) -> FilePurpose:
    """The purpose of a file. Raises ``InvalidRequest``, which lists the purposes."""
    try:
        return FilePurpose(text)
    except ValueError as error:
        raise invalid_value("purpose", f"Expected {listed([purpose.value for purpose in FilePurpose])}") from error


def media_type_of_upload(declared: str, filename: str, receiving: UploadInProgress) -> str:
    """The type by content if the format is binary, else the declared type, else by content and file name."""
    declared = MEDIA_TYPE_ALIASES.get(declared, declared)
    if declared in UNTYPED:
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
    if charset is None or not media_type.startswith("text/"):
        return media_type
    if not is_text_charset(charset):
        return media_type
    return media_type if charset.lower() in ("utf-8", "utf8") else f"{media_type}; charset={charset.lower()}"


def _first_name(*names: str | None) -> str:
    """The first of the names of which something is left without folders and control characters."""
    return next(filter(None, map(clean_filename, filter(None, names))), "")


def _utf8(header: str | None) -> str | None:
    """The value of a header, decoded as UTF-8 if its bytes are that; the server decodes headers as Latin-1."""
    if header is not None:
        with contextlib.suppress(UnicodeError):
            return header.encode("latin-1").decode("utf-8")
    return header


def _metadata(text: str | None) -> dict[str, Any] | None:
    if not text:
        return None
    return decode_json_parameter("metadata", text, dict[str, Any])
