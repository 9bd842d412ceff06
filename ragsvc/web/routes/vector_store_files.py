"""``/v1/vector_stores/{id}/files`` and ``…/file_batches``: add files, list, show, change, read and remove them."""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec
from litestar import Request, Response, delete, get, post
from litestar.params import FromPath, FromQuery

from ragsvc.core.access.principal import Scope
from ragsvc.core.vector_stores import FileBatch, StoreFile, StoreFileStatus
from ragsvc.services.store_files import StoreFileService
from ragsvc.web.bodies import read_json
from ragsvc.web.context import principal_of
from ragsvc.web.routes.vector_store_bodies import (
    AddFile,
    CreateFileBatch,
    FileBatchOut,
    FileContentPage,
    TextPart,
    UpdateFile,
    VectorStoreFileDeleted,
    VectorStoreFileList,
    VectorStoreFileOut,
    batch_out,
    store_file_out,
)
from ragsvc.web.routes.vector_stores import Limit, refuse_two_cursors, store_files_of

_TAG: Final = "vector stores"
_READ: Final = {"scope": Scope.DOCUMENTS_READ, "tag": _TAG, "errors": (404,)}
_WRITE: Final = {"scope": Scope.DOCUMENTS_WRITE, "tag": _TAG, "errors": (404,)}
_FILES: Final = "/v1/vector_stores/{vector_store_id:str}/files"
_FILE: Final = f"{_FILES}/{{file_id:str}}"
_BATCHES: Final = "/v1/vector_stores/{vector_store_id:str}/file_batches"
_BATCH: Final = f"{_BATCHES}/{{batch_id:str}}"
_POLL_AFTER: Final = {"openai-poll-after-ms": "250"}
"""How soon OpenAI's clients ask again for a file or batch that is in progress; without it they wait a second."""

_Status = Literal["in_progress", "completed", "failed", "cancelled"]
_add = msgspec.json.Decoder(AddFile)
_update = msgspec.json.Decoder(UpdateFile)
_create_batch = msgspec.json.Decoder(CreateFileBatch)


@post(_FILES, opt={**_WRITE, "body": AddFile}, status_code=200, summary="Add a file to a vector store")
async def add_file(request: Request[Any, Any, Any], vector_store_id: FromPath[str]) -> Response[VectorStoreFileOut]:
    """Make a document of a file in the vector store and queue it. A file that failed is tried again."""
    data = await read_json(request, _add)
    service = store_files_of(request)
    (file,) = await service.attach(principal_of(request), vector_store_id, [data.draft()])
    return _file_answer(service, file)


@get(_FILES, opt=_READ, summary="List the files of a vector store")
async def list_store_files(
    request: Request[Any, Any, Any],
    vector_store_id: FromPath[str],
    limit: Limit = 20,
    after: FromQuery[str | None] = None,
    before: FromQuery[str | None] = None,
    order: FromQuery[Literal["asc", "desc"]] = "desc",
    filter: FromQuery[_Status | None] = None,  # noqa: A002 - the name of OpenAI's parameter
) -> VectorStoreFileList:
    """List files, the last one added first. ``after`` and ``before`` take the id of a file; ``filter`` is a status."""
    refuse_two_cursors(after, before)
    service = store_files_of(request)
    files, more = await service.list_page(
        principal_of(request),
        vector_store_id,
        limit=limit,
        status=None if filter is None else StoreFileStatus(filter),
        after=after,
        before=before,
        descending=order == "desc",
    )
    return _list_answer(service, files, more=more)


@get(_FILE, opt=_READ, summary="Show a file of a vector store")
async def get_store_file(
    request: Request[Any, Any, Any], vector_store_id: FromPath[str], file_id: FromPath[str]
) -> Response[VectorStoreFileOut]:
    """Show a file with its status and, if it failed, the reason."""
    service = store_files_of(request)
    return _file_answer(service, await service.get(principal_of(request), vector_store_id, file_id))


@post(_FILE, opt={**_WRITE, "body": UpdateFile}, status_code=200, summary="Change a file of a vector store")
async def update_store_file(
    request: Request[Any, Any, Any], vector_store_id: FromPath[str], file_id: FromPath[str]
) -> Response[VectorStoreFileOut]:
    """Replace the attributes of a file, which are the metadata of its document."""
    data = await read_json(request, _update)
    service, principal = store_files_of(request), principal_of(request)
    if data.attributes is None:
        return _file_answer(service, await service.get(principal, vector_store_id, file_id))
    file = await service.set_attributes(principal, vector_store_id, file_id, data.attributes)
    return _file_answer(service, file)


@get(f"{_FILE}/content", opt=_READ, summary="Read a file of a vector store")
async def get_store_file_content(
    request: Request[Any, Any, Any], vector_store_id: FromPath[str], file_id: FromPath[str]
) -> FileContentPage:
    """Read the text of a file, page by page, as it is searched."""
    file, pages = await store_files_of(request).pages(principal_of(request), vector_store_id, file_id)
    return FileContentPage(
        data=[TextPart(text=page.text) for page in pages],
        file_id=file.file_id,
        filename=file.filename,
        attributes=dict(file.attributes),
    )


@delete(_FILE, opt=_WRITE, status_code=200, summary="Remove a file from a vector store")
async def remove_store_file(
    request: Request[Any, Any, Any], vector_store_id: FromPath[str], file_id: FromPath[str]
) -> VectorStoreFileDeleted:
    """Remove a file from the vector store only. A file that came with a document goes with it."""
    await store_files_of(request).detach(principal_of(request), vector_store_id, file_id)
    return VectorStoreFileDeleted(id=file_id)


@post(_BATCHES, opt={**_WRITE, "body": CreateFileBatch}, status_code=200, summary="Add files to a vector store")
async def create_file_batch(request: Request[Any, Any, Any], vector_store_id: FromPath[str]) -> Response[FileBatchOut]:
    """Add up to 2000 files as a batch. Nothing is added if one of them does not exist."""
    drafts = (await read_json(request, _create_batch)).drafts()
    return _batch_answer(await store_files_of(request).create_batch(principal_of(request), vector_store_id, drafts))


@get(_BATCH, opt=_READ, summary="Show a file batch")
async def get_file_batch(
    request: Request[Any, Any, Any], vector_store_id: FromPath[str], batch_id: FromPath[str]
) -> Response[FileBatchOut]:
    """Show a batch with the number of its files by status."""
    return _batch_answer(await store_files_of(request).batch(principal_of(request), vector_store_id, batch_id))


@post(f"{_BATCH}/cancel", opt=_WRITE, status_code=200, summary="Cancel a file batch")
async def cancel_file_batch(
    request: Request[Any, Any, Any], vector_store_id: FromPath[str], batch_id: FromPath[str]
) -> Response[FileBatchOut]:
    """Cancel the files of a batch whose ingest has not begun; those in progress are finished."""
    return _batch_answer(await store_files_of(request).cancel_batch(principal_of(request), vector_store_id, batch_id))


@get(f"{_BATCH}/files", opt=_READ, summary="List the files of a file batch")
async def list_batch_files(
    request: Request[Any, Any, Any],
    vector_store_id: FromPath[str],
    batch_id: FromPath[str],
    limit: Limit = 20,
    after: FromQuery[str | None] = None,
    before: FromQuery[str | None] = None,
    order: FromQuery[Literal["asc", "desc"]] = "desc",
    filter: FromQuery[_Status | None] = None,  # noqa: A002 - the name of OpenAI's parameter
) -> VectorStoreFileList:
    """List the files of a batch. ``after`` and ``before`` take the id of a file; ``filter`` is a status."""
    refuse_two_cursors(after, before)
    service = store_files_of(request)
    files, more = await service.list_page(
        principal_of(request),
        vector_store_id,
        batch_id=batch_id,
        limit=limit,
        status=None if filter is None else StoreFileStatus(filter),
        after=after,
        before=before,
        descending=order == "desc",
    )
    return _list_answer(service, files, more=more)


def _file_answer(service: StoreFileService, file: StoreFile) -> Response[VectorStoreFileOut]:
    in_progress = file.status is StoreFileStatus.IN_PROGRESS
    return Response(store_file_out(file, service.chunking), headers=_POLL_AFTER if in_progress else {})


def _batch_answer(batch: FileBatch) -> Response[FileBatchOut]:
    return Response(batch_out(batch), headers=_POLL_AFTER if batch.status is StoreFileStatus.IN_PROGRESS else {})


def _list_answer(service: StoreFileService, files: list[StoreFile], *, more: bool) -> VectorStoreFileList:
    data = [store_file_out(file, service.chunking) for file in files]
    return VectorStoreFileList(
        data=data, first_id=data[0].id if data else None, last_id=data[-1].id if data else None, has_more=more
    )


route_handlers: list[Any] = [
    add_file,
    list_store_files,
    get_store_file,
    update_store_file,
    get_store_file_content,
    remove_store_file,
    create_file_batch,
    get_file_batch,
    cancel_file_batch,
    list_batch_files,
]
"""All routes of this module."""
