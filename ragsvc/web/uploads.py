"""Reads an upload off the wire: a raw body or ``multipart/form-data``, streamed to disk, never held in memory."""

from __future__ import annotations

import contextlib
import re
import unicodedata
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

import msgspec
from litestar import Request
from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from ragsvc.core.errors import InvalidRequest, UnsupportedMediaType
from ragsvc.core.retrieval.search import DEFAULT_COLLECTION
from ragsvc.services.document_service import MEDIA_TYPES, Upload, UploadInProgress

AnyRequest = Request[Any, Any, Any]

_FIELD_LIMIT = 65_536
_FIELDS = frozenset({"metadata", "collection", "password", "filename", "purpose"})
_BY_SUFFIX = {
    ".pdf": "application/pdf",
    ".txt": "text/plain",
    ".text": "text/plain",
    ".md": "text/markdown",
    ".markdown": "text/markdown",
}
_UNTYPED = frozenset({"", "application/octet-stream", "binary/octet-stream", "application/x-www-form-urlencoded"})
_ALIASES = {"application/x-pdf": "application/pdf", "text/x-markdown": "text/markdown"}


async def read_upload(request: AnyRequest, receiving: UploadInProgress) -> Upload:
    """Stream the request's body into ``receiving`` and say what came with it.

    Raises:
        InvalidRequest: a broken form, bad metadata, no file.
        UnsupportedMediaType: not a PDF, plain text or Markdown.
        TooLarge, StorageFull: see ``UploadInProgress``.
    """
    content_type, options = parse_options_header(request.headers.get("content-type", ""))
    if content_type == "multipart/form-data":
        return await _read_form(request, receiving, boundary=options.get("boundary", ""))
    query = request.query_params
    name = query.get("filename") or _disposition_name(request.headers.get("content-disposition")) or ""
    head = b""
    async for part in request.stream():
        head = head or part[:1024]
        await receiving.write(part)
    filename = clean_filename(name)
    return Upload(
        filename=filename or _default_name(content_type),
        media_type=_media_type(content_type, filename, head),
        collection=query.get("collection") or DEFAULT_COLLECTION,
        metadata=_metadata(query.get("metadata")),
        password=request.headers.get("x-document-password"),
    )


async def _read_form(request: AnyRequest, receiving: UploadInProgress, *, boundary: str) -> Upload:
    if not boundary:
        raise InvalidRequest("multipart/form-data without a boundary", param="file")
    form = _Form(receiving)
    try:
        with PushMultipartParser(boundary, max_segment_count=32) as parser:
            async for part in request.stream():
                for event in parser.parse(part):
                    await form.take(event)
    except MultipartError as error:
        raise InvalidRequest(f"the form cannot be read: {error}", param="file") from error
    return form.upload()


class _Form:
    """Takes the parser's events: the part named ``file`` goes to disk, small fields to memory."""

    def __init__(self, receiving: UploadInProgress) -> None:
        self._receiving = receiving
        self._segment: MultipartSegment | None = None
        self._value = bytearray()
        self._fields: dict[str, str] = {}
        self._file_name: str | None = None
        self._file_type = ""
        self._head = b""

    async def take(self, event: MultipartSegment | bytes | None) -> None:
        if isinstance(event, MultipartSegment):
            self._begin(event)
        elif event is None:
            self._end()
        elif self._segment is not None and self._segment.name == "file":
            self._head = self._head or bytes(event[:1024])
            await self._receiving.write(event)
        else:
            self._value += event
            if len(self._value) > _FIELD_LIMIT:
                raise InvalidRequest(f"a form field is larger than {_FIELD_LIMIT} bytes")

    def _begin(self, segment: MultipartSegment) -> None:
        self._segment = segment
        self._value.clear()
        name = segment.name or ""
        if name == "file":
            if self._file_name is not None:
                raise InvalidRequest("one file per request", param="file")
            self._file_name = segment.filename or ""
            self._file_type = (segment.content_type or "").split(";")[0].strip().lower()
        elif name not in _FIELDS:
            raise InvalidRequest(f"unknown form field '{name[:64]}'", param=name[:64])

    def _end(self) -> None:
        name = self._segment.name if self._segment is not None else None
        if name is not None and name != "file":
            try:
                self._fields[name] = self._value.decode()
            except UnicodeDecodeError as error:
                raise InvalidRequest("a form field is not UTF-8", param=name) from error
        self._segment = None

    def upload(self) -> Upload:
        if self._file_name is None:
            raise InvalidRequest("the form has no part named 'file'", param="file")
        filename = clean_filename(self._fields.get("filename") or self._file_name)
        return Upload(
            filename=filename or _default_name(self._file_type),
            media_type=_media_type(self._file_type, filename, self._head),
            collection=self._fields.get("collection") or DEFAULT_COLLECTION,
            metadata=_metadata(self._fields.get("metadata")),
            password=self._fields.get("password") or None,
        )


def _media_type(declared: str, filename: str, head: bytes) -> str:
    """The declared type; an undeclared one is told by the bytes, then by the file name."""
    declared = _ALIASES.get(declared, declared)
    if declared not in _UNTYPED:
        if declared not in MEDIA_TYPES:
            raise UnsupportedMediaType(
                f"'{declared[:100]}' is not read; send one of {', '.join(MEDIA_TYPES)}", param="file"
            )
        return declared
    if b"%PDF-" in head:
        return "application/pdf"
    suffix = filename[filename.rfind(".") :].lower() if "." in filename else ""
    if suffix not in _BY_SUFFIX:
        raise UnsupportedMediaType(
            f"say what the body is with Content-Type: one of {', '.join(MEDIA_TYPES)}", param="file"
        )
    return _BY_SUFFIX[suffix]


def _default_name(content_type: str) -> str:
    return {"text/plain": "document.txt", "text/markdown": "document.md"}.get(content_type, "document.pdf")


def _metadata(text: str | None) -> dict[str, Any]:
    if not text:
        return {}
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise InvalidRequest("metadata is not a JSON object", param="metadata") from error


_EXTENDED_NAME = re.compile(r"filename\*\s*=\s*([\w-]+)'[^']*'([^;\s]+)", re.IGNORECASE)
_PLAIN_NAME = re.compile(r'filename\s*=\s*(?:"((?:\\.|[^"\\])*)"|([^;\s]+))', re.IGNORECASE)


def _disposition_name(header: str | None) -> str | None:
    """File name of a Content-Disposition header: ``filename*`` (RFC 8187), else ``filename`` in UTF-8 or Latin-1."""
    if not header:
        return None
    extended = _EXTENDED_NAME.search(header)
    if extended:
        with contextlib.suppress(LookupError, UnicodeDecodeError):
            return unquote_to_bytes(extended[2]).decode(extended[1])
    plain = _PLAIN_NAME.search(header)
    if not plain:
        return None
    name = re.sub(r"\\(.)", r"\1", plain[1]) if plain[1] is not None else plain[2]
    with contextlib.suppress(UnicodeError):
        name = name.encode("latin-1").decode("utf-8")
    return unquote(name) if "%" in name else name


def clean_filename(name: str) -> str:
    r"""A file name for people: no folders, no control characters, NFC, any script.

    >>> clean_filename("../../etc/Jahresbericht 2023.pdf")
    'Jahresbericht 2023.pdf'
    >>> clean_filename("C:\\reports\\Q3.pdf")
    'Q3.pdf'
    """
    last = re.split(r"[/\\]", name)[-1]
    visible = "".join(" " if unicodedata.category(one) in ("Cc", "Cs", "Zl", "Zp") else one for one in last)
    return unicodedata.normalize("NFC", " ".join(visible.split()))[:512]
