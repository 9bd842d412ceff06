"""`/v1/files`: upload, list, show, download and delete files (OpenAI's Files API)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

import anyio.to_thread
import msgspec
from litestar import HttpMethod, MediaType, Request, Response, delete, get, post, route
from litestar.params import FromPath, FromQuery, QueryParameter
from litestar.response.base import ASGIResponse
from msgspec import Meta

from ragsvc.core.access.principal import Principal, Scope
from ragsvc.core.errors import InvalidRequest
from ragsvc.core.files import FilePurpose, FileReach, UploadedFile
from ragsvc.services.file_service import FileService
from ragsvc.web.app_state import services_of
from ragsvc.web.context import principal_of
from ragsvc.web.idempotent_requests import idempotent_request
from ragsvc.web.openapi import BINARY, Schema, described_download
from ragsvc.web.stored_files import StoredFile, download_headers
from ragsvc.web.uploads import AnyRequest, ExpiresAfter, read_file

_READ: Final = {"scope": Scope.DOCUMENTS_READ, "tag": "files"}
_WRITE: Final = {"scope": Scope.DOCUMENTS_WRITE, "tag": "files"}
USAGE_FAMILY = "files"
"""How uploads of files are counted in the usage report."""

_MOST_FILES: Final = 10_000
_ENCODED_AT_ONCE: Final = 500
_Limit = Annotated[int, QueryParameter(ge=1, le=_MOST_FILES, description="Maximum number of entries")]
_Purpose = Annotated[str | None, QueryParameter(max_length=64, description="Files with this purpose only")]
_ANY_TYPE: Final[dict[str, Schema]] = {"*/*": BINARY}


class FileForm(msgspec.Struct, frozen=True, kw_only=True):
    """A file as ``multipart/form-data``. ``expires_after`` is sent as ``expires_after[anchor]`` and ``[seconds]``."""

    file: Annotated[str, Meta(extra_json_schema={"format": "binary"})]
    purpose: FilePurpose
    expires_after: ExpiresAfter | None = None


class FileOut(msgspec.Struct, frozen=True, kw_only=True):
    """A file. Times are Unix seconds; a file is usable as soon as it is stored."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: FilePurpose
    status: Literal["processed"] = "processed"
    status_details: None = None


class FileList(msgspec.Struct, frozen=True, kw_only=True):
    """A page of a list of files; the next page begins with ``after`` = ``last_id``."""

    object: Literal["list"] = "list"
    data: list[FileOut]
    first_id: str | None
    last_id: str | None
    has_more: bool


class FileDeleted(msgspec.Struct, frozen=True, kw_only=True):
    """The file was deleted, with the documents made from it."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


def file_out(file: UploadedFile) -> FileOut:
    """A file as clients see it."""
    return FileOut(
        id=file.public_id,
        bytes=file.size_bytes,
        created_at=file.created_at,
        expires_at=file.expires_at,
        filename=file.filename,
        purpose=FilePurpose(file.purpose),
    )


def encode_page(files: Sequence[UploadedFile], *, more: bool) -> bytes:
    """A page as JSON, encoded in parts: the encoder lets no other thread run, 10,000 files at once took it 7 ms."""
    parts = [
        msgspec.json.encode([file_out(file) for file in files[begin : begin + _ENCODED_AT_ONCE]])[1:-1]
        for begin in range(0, len(files), _ENCODED_AT_ONCE)
    ]
    first, last = (files[0].public_id, files[-1].public_id) if files else (None, None)
    page = FileList(data=[], first_id=first, last_id=last, has_more=more)
    fields = {name: getattr(page, name) for name in page.__struct_fields__}
    return msgspec.json.encode({**fields, "data": msgspec.Raw(b"[" + b",".join(parts) + b"]")})


def reach_of(principal: Principal) -> FileReach:
    """The files that a key sees."""
    return FileReach(collections=principal.allowed_collections, created_by=principal.key_id)


def _service(request: AnyRequest) -> FileService:
    service: FileService = request.app.state.services.files
    return service


@post(
    "/v1/files",
    opt={
        **_WRITE,
        "streams_body": True,
        "idempotent": True,
        "body": {"multipart/form-data": FileForm},
        "errors": (415, 507),
    },
    status_code=200,
    request_max_body_size=None,  # FileService enforces max_file_bytes while the body is read
    summary="Upload a file",
)
async def upload_file(request: Request[Any, Any, Any]) -> FileOut:
    """Store a file of any type: a form with ``file`` and ``purpose``.

    A file becomes a document when it is attached to a vector store. Files of batches expire after 30 days unless
    ``expires_after`` says otherwise; other files do not expire by default.
    """
    service = _service(request)
    principal = principal_of(request)
    access = services_of(request).access
    access.count_request(principal, family=USAGE_FAMILY)
    async with service.receiving() as receiving:
        upload = await read_file(request, receiving)
        file = await service.add(
            principal.tenant,
            receiving,
            upload,
            created_by=principal.key_id,
            identify=functools.partial(idempotent_request, request),
            require_caller=lambda connection: access.require_key(connection, principal.key_id),
        )
    return file_out(file)


@get("/v1/files", opt={**_READ, "errors": (404,)}, summary="List files")
async def list_files(
    request: Request[Any, Any, Any],
    limit: _Limit = _MOST_FILES,
    after: FromQuery[str | None] = None,
    before: FromQuery[str | None] = None,
    order: FromQuery[Literal["asc", "desc"]] = "desc",
    purpose: _Purpose = None,
) -> Response[FileList]:
    """List files, newest first; files that came with a document are listed as well."""
    if after is not None and before is not None:
        raise InvalidRequest("'after' and 'before' cannot be used together.", param="before")
    principal = principal_of(request)
    files, more = await _service(request).list_page(
        principal.tenant,
        reach=reach_of(principal),
        purpose=purpose,
        limit=limit,
        after=after,
        before=before,
        descending=order == "desc",
    )
    content: Any = await anyio.to_thread.run_sync(lambda: encode_page(files, more=more))
    return Response(content, media_type=MediaType.JSON)


@get("/v1/files/{file_id:str}", opt=_READ, summary="Show a file")
async def get_file(request: Request[Any, Any, Any], file_id: FromPath[str]) -> FileOut:
    """Show a file."""
    principal = principal_of(request)
    return file_out(await _service(request).get(principal.tenant, file_id, reach=reach_of(principal)))


@get(
    "/v1/files/{file_id:str}/content",
    opt={**_READ, **described_download("The stored bytes.", _ANY_TYPE)},
    summary="Download a file",
)
async def get_file_content(request: Request[Any, Any, Any], file_id: FromPath[str]) -> ASGIResponse:
    """Download the stored bytes or a range of them; `ETag` is their SHA-256."""
    return await _content(request, file_id)


@route(
    "/v1/files/{file_id:str}/content",
    http_method=HttpMethod.HEAD,
    opt=_READ,
    status_code=200,
    include_in_schema=False,
)
async def head_file_content(request: Request[Any, Any, Any], file_id: FromPath[str]) -> ASGIResponse:
    """The headers of the stored bytes."""
    return await _content(request, file_id)


async def _content(request: AnyRequest, file_id: str) -> ASGIResponse:
    principal = principal_of(request)
    file, stored = await _service(request).content(principal.tenant, file_id, reach=reach_of(principal))
    headers = download_headers(file.filename, file.media_type)
    return StoredFile(stored, size=file.size_bytes, sha256=file.sha256, headers=headers)


@delete("/v1/files/{file_id:str}", opt=_WRITE, status_code=200, summary="Delete a file")
async def delete_file(request: Request[Any, Any, Any], file_id: FromPath[str]) -> FileDeleted:
    """Delete a file and the documents made from it, in all vector stores and collections, as one step."""
    principal = principal_of(request)
    file = await _service(request).delete(principal.tenant, file_id, reach=reach_of(principal))
    return FileDeleted(id=file.public_id)


route_handlers: list[Any] = [upload_file, list_files, get_file, get_file_content, head_file_content, delete_file]
"""All routes of this module."""
