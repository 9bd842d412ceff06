"""`/v1/uploads`: files that are uploaded in parts (OpenAI's Uploads API)."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from litestar import Request, post
from litestar.params import FromPath
from msgspec import Meta

from ragsvc.core.access.principal import Scope
from ragsvc.core.defaults import MAX_FILENAME_LENGTH, MAX_UPLOAD_PART_BYTES
from ragsvc.core.file_names import clean_filename
from ragsvc.core.files import FilePurpose, UploadStatus
from ragsvc.core.validation import check_text_length
from ragsvc.services.upload_service import MAX_UPLOAD_PARTS, UploadPlan, UploadService, UploadState
from ragsvc.web.app_state import services_of
from ragsvc.web.bodies import read_json
from ragsvc.web.context import principal_of
from ragsvc.web.routes.files import USAGE_FAMILY, FileOut, file_out, reach_of
from ragsvc.web.uploads import AnyRequest, ExpiresAfter, expires_after_s, read_part

_WRITE: Final = {"scope": Scope.DOCUMENTS_WRITE, "tag": "files"}


class UploadRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file that is going to be uploaded; ``bytes`` is its exact size."""

    filename: Annotated[str, Meta(min_length=1, max_length=MAX_FILENAME_LENGTH)]
    purpose: FilePurpose
    bytes: Annotated[int, Meta(ge=1)]
    mime_type: Annotated[str, Meta(max_length=255)]
    expires_after: ExpiresAfter | None = None


class UploadCompletion(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The parts in the order of their bytes in the file; ``md5`` is the checksum of the file in hexadecimal."""

    part_ids: Annotated[list[Annotated[str, Meta(max_length=64)]], Meta(min_length=1, max_length=MAX_UPLOAD_PARTS)]
    md5: Annotated[str, Meta(pattern="^[0-9a-fA-F]{32}$")] | None = None


class PartForm(msgspec.Struct, frozen=True, kw_only=True):
    """A part as ``multipart/form-data``: at most 64 MiB in the field ``data``."""

    data: Annotated[str, Meta(extra_json_schema={"format": "binary"})]


class UploadOut(msgspec.Struct, frozen=True, kw_only=True):
    """An upload in parts. ``bytes`` is the announced size, ``file`` the file that it became."""

    id: str
    object: Literal["upload"] = "upload"
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: FilePurpose
    status: UploadStatus
    file: FileOut | None


class UploadPartOut(msgspec.Struct, frozen=True, kw_only=True):
    """A stored part of an upload."""

    id: str
    object: Literal["upload.part"] = "upload.part"
    created_at: int
    upload_id: str


_begin = msgspec.json.Decoder(UploadRequest)
_complete = msgspec.json.Decoder(UploadCompletion)


def _service(request: AnyRequest) -> UploadService:
    service: UploadService = request.app.state.services.uploads
    return service


def _upload_out(state: UploadState) -> UploadOut:
    upload = state.upload
    return UploadOut(
        id=upload.public_id,
        bytes=upload.size_bytes,
        created_at=upload.created_at,
        expires_at=upload.expires_at,
        filename=upload.filename,
        purpose=FilePurpose(upload.purpose),
        status=upload.status,
        file=None if state.file is None else file_out(state.file),
    )


@post("/v1/uploads", opt={**_WRITE, "body": UploadRequest}, status_code=200, summary="Begin an upload in parts")
async def create_upload(request: Request[Any, Any, Any]) -> UploadOut:
    """Begin an upload in parts, which expires after an hour."""
    body = await read_json(request, _begin)
    filename = clean_filename(body.filename)
    check_text_length("filename", filename, maximum=MAX_FILENAME_LENGTH)
    principal = principal_of(request)
    access = services_of(request).access
    access.count_request(principal, family=USAGE_FAMILY)
    plan = UploadPlan(
        filename=filename,
        media_type=body.mime_type,
        size_bytes=body.bytes,
        purpose=body.purpose,
        expires_after_s=expires_after_s(body.expires_after),
    )
    state = await _service(request).create(
        principal.tenant,
        plan,
        created_by=principal.key_id,
        require_caller=lambda connection: access.require_key(connection, principal.key_id),
    )
    return _upload_out(state)


@post(
    "/v1/uploads/{upload_id:str}/parts",
    opt={**_WRITE, "streams_body": True, "body": {"multipart/form-data": PartForm}, "errors": (415, 507)},
    status_code=200,
    request_max_body_size=None,  # the limit of a part is enforced while the body is read
    summary="Add a part to an upload",
)
async def add_upload_part(request: Request[Any, Any, Any], upload_id: FromPath[str]) -> UploadPartOut:
    """Store a part of at most 64 MiB. Parts are sent in any order, also at the same time."""
    service = _service(request)
    principal = principal_of(request)
    access = services_of(request).access
    reach = reach_of(principal)
    await service.require_pending(principal.tenant, upload_id, reach=reach)
    files = request.app.state.services.files
    async with files.receiving(limit_bytes=MAX_UPLOAD_PART_BYTES, what="part") as receiving:
        await read_part(request, receiving)
        part = await service.add_part(
            principal.tenant,
            upload_id,
            receiving,
            reach=reach,
            require_caller=lambda connection: access.require_key(connection, principal.key_id),
        )
    return UploadPartOut(id=part.public_id, created_at=part.created_at, upload_id=upload_id)


@post(
    "/v1/uploads/{upload_id:str}/complete",
    opt={**_WRITE, "body": UploadCompletion, "errors": (507,)},
    status_code=200,
    summary="Complete an upload",
)
async def complete_upload(request: Request[Any, Any, Any], upload_id: FromPath[str]) -> UploadOut:
    """Make a file of the parts in the given order; their bytes must be as many as were announced."""
    body = await read_json(request, _complete)
    principal = principal_of(request)
    access = services_of(request).access
    state = await _service(request).complete(
        principal.tenant,
        upload_id,
        body.part_ids,
        md5=body.md5,
        reach=reach_of(principal),
        require_caller=lambda connection: access.require_key(connection, principal.key_id),
    )
    return _upload_out(state)


@post("/v1/uploads/{upload_id:str}/cancel", opt=_WRITE, status_code=200, summary="Cancel an upload")
async def cancel_upload(request: Request[Any, Any, Any], upload_id: FromPath[str]) -> UploadOut:
    """Cancel an upload and remove its parts. A body is not read."""
    principal = principal_of(request)
    return _upload_out(await _service(request).cancel(principal.tenant, upload_id, reach=reach_of(principal)))


route_handlers: list[Any] = [create_upload, add_upload_part, complete_upload, cancel_upload]
"""All routes of this module."""
