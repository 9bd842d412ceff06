"""Carries out an ingest plan: several files at a time; a failed file does not stop the others."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import StrEnum
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import msgspec

from ragsvc.cli.failures import CommandFailed, ExitCode
from ragsvc.cli.ingest.folders import SourceFile
from ragsvc.cli.ingest.plan import IngestAction, IngestStep, KnownDocument
from ragsvc.cli.ingest.shared_wait import SMALL_FILE_BYTES, SMALL_FILES_AT_ONCE, SMALL_FILES_PER_FILE, SharedWait
from ragsvc.cli.service_client import Json, ServiceClient
from ragsvc.core.defaults import MAX_FILENAME_LENGTH, SOURCE_PATH_KEY, SOURCE_ROOT_KEY
from ragsvc.core.errors import FailureReason

_ENDED = ("ready", "failed")
_WAIT_S = 1.0
_FATAL = (ExitCode.UNREACHABLE, ExitCode.NOT_AUTHORISED)

T = TypeVar("T")


class FileResult(StrEnum):
    ADDED = "added"
    REPLACED = "replaced"
    UNCHANGED = "unchanged"
    FAILED = "failed"
    NOT_REACHED = "not_reached"


class FileOutcome(msgspec.Struct, kw_only=True, frozen=True):
    """The result of one file in the report."""

    path: str
    action: IngestAction | None = None
    result: FileResult
    sha256: str | None = None
    bytes: int = 0
    document_id: str | None = None
    pages: int = 0
    passages: int = 0
    reason: str | None = None
    problems: list[str] = []


Watcher = Callable[[SourceFile, Json], None]
"""Called with every state of a document in progress."""


async def hash_file(file: Path) -> str:
    """SHA-256 of a file in hex. Raises ``OSError``."""

    def digest() -> str:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()

    return await anyio.to_thread.run_sync(digest)


async def hash_all(
    files: Sequence[SourceFile], *, parallel: int, done: Callable[[SourceFile], None]
) -> tuple[list[tuple[SourceFile, str]], list[FileOutcome]]:
    """Hash all files, keeping their order; unreadable files are returned as failures."""
    hashes: dict[str, str] = {}
    failures: list[FileOutcome] = []

    async def hash_one(file: SourceFile) -> None:
        try:
            hashes[file.key] = await hash_file(file.location)
        except OSError as error:
            reason = f"cannot be read: {error.strerror or type(error).__name__}"
            failures.append(FileOutcome(path=file.key, result=FileResult.FAILED, bytes=file.size_bytes, reason=reason))
        done(file)

    await each(files, hash_one, parallel=parallel)
    return [(file, hashes[file.key]) for file in files if file.key in hashes], failures


async def each_file(
    steps: Sequence[IngestStep], work: Callable[[IngestStep], Awaitable[None]], *, parallel: int
) -> None:
    """Run ``work`` for all steps, at most ``parallel`` at a time, or more if their files are small."""
    small = [step for step in steps if step.file.size_bytes <= SMALL_FILE_BYTES]
    large = [step for step in steps if step.file.size_bytes > SMALL_FILE_BYTES]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(partial(each, large, work, parallel=parallel))
        tasks.start_soon(partial(each, small, work, parallel=max(parallel, SMALL_FILES_AT_ONCE)))


async def each(items: Sequence[T], work: Callable[[T], Awaitable[None]], *, parallel: int) -> None:
    """Run ``work`` for all items, at most ``parallel`` at a time, started in order."""
    waiting = iter(items)

    async def worker() -> None:
        for item in waiting:
            await work(item)

    async with anyio.create_task_group() as tasks:
        for _ in range(min(parallel, len(items))):
            tasks.start_soon(worker)


class Transfer:
    """Uploads files; ``parallel`` is the number of large files at the same time.

    ``watch`` is called with progress; ``metadata`` is stored with every document.
    """

    def __init__(
        self,
        client: ServiceClient,
        *,
        collection: str,
        metadata: Mapping[str, Any],
        watch: Watcher,
        parallel: int,
    ) -> None:
        self._client = client
        self._collection = collection
        self._metadata = dict(metadata)
        self._watch = watch
        self._shared_wait = SharedWait(client)
        self._requests = anyio.CapacityLimiter(parallel * SMALL_FILES_PER_FILE)

    async def perform(self, step: IngestStep) -> FileOutcome:
        """Carry out one step.

        Raises:
            CommandFailed: no file can be processed any more (service unreachable, key refused).
        """
        try:
            return await self._perform(step)
        except CommandFailed as failure:
            if failure.exit_code not in _FATAL or (
                failure.exit_code is ExitCode.UNREACHABLE and await self._client.alive()
            ):
                return _failed(step, failure.message)
            raise
        except OSError as error:
            return _failed(step, f"cannot be read: {error.strerror or type(error).__name__}")

    async def _perform(self, step: IngestStep) -> FileOutcome:
        async with self._requests:  # small files wait for their ingest without one
            begun = await self._begin(step)
        return begun if isinstance(begun, FileOutcome) else await self._finish(step, begun)

    async def _begin(self, step: IngestStep) -> FileOutcome | Json:
        """The outcome of a step that needs no ingest, or the state of its document."""
        document = step.document
        match step.action:
            case IngestAction.FAILED_BEFORE:
                assert document is not None  # noqa: S101 - implied by the action
                return _failed(step, f"{document.error or 'failed'} (failed before; use --retry-failed to try again)")
            case IngestAction.DUPLICATE:
                await self._drop(step.superseded)
                return _ended(step, FileResult.UNCHANGED, document)
            case IngestAction.UNCHANGED:
                assert document is not None  # noqa: S101 - implied by the action
                if document.source == step.file.key and self._gives_metadata_to(document):
                    await self._client.patch(f"/v1/rag/documents/{document.id}", {"metadata": self._metadata})
                await self._drop(step.superseded)
                return _ended(step, FileResult.UNCHANGED, document)
            case IngestAction.MOVED | IngestAction.NAMED:
                assert document is not None  # noqa: S101 - implied by the action
                metadata = {**self._metadata, **self._source(step.file)}
                change = {"filename": _name(step.file), "metadata": metadata}
                await self._client.patch(f"/v1/rag/documents/{document.id}", change)
                await self._drop(step.superseded)
                return _ended(step, FileResult.UNCHANGED, document)
            case IngestAction.RESUME:
                assert document is not None  # noqa: S101 - implied by the action
                state = await self._client.get(f"/v1/rag/documents/{document.id}")
            case IngestAction.RETRY:
                assert document is not None  # noqa: S101 - implied by the action
                state = await self._client.post(f"/v1/rag/documents/{document.id}/retry", {})
            case IngestAction.ADD | IngestAction.REPLACE:
                state = await self._upload(step.file)
        return state

    def _gives_metadata_to(self, document: KnownDocument) -> bool:
        """Whether the command's metadata differ from those of the document."""
        return {**document.metadata, **self._metadata} != document.metadata

    async def _upload(self, file: SourceFile) -> Json:
        params = {
            "filename": _name(file),
            "collection": self._collection,
            "metadata": msgspec.json.encode({**self._metadata, **self._source(file)}).decode(),
            "wait_s": 0 if file.size_bytes <= SMALL_FILE_BYTES else _WAIT_S,
        }
        size_bytes = file.location.stat().st_size
        try:
            return await self._client.upload(file.location, size_bytes, media_type=file.media_type, params=params)
        except CommandFailed as failure:
            if failure.status != HTTPStatus.UNPROCESSABLE_ENTITY or failure.location is None:
                raise
            return await self._client.get(failure.location)  # stored, and failed within the wait

    async def _finish(self, step: IngestStep, state: Json) -> FileOutcome:
        existed = state.get("http_status") == HTTPStatus.OK
        if state["status"] not in _ENDED and step.file.size_bytes <= SMALL_FILE_BYTES:
            state = await self._shared_wait.last_state(state) or state
        if state["status"] not in _ENDED:
            state = await self._client.follow(state, lambda seen: self._watch(step.file, seen))
        self._watch(step.file, state)
        if state["status"] != "ready":
            return _failed(step, _reason(state), state)
        await self._drop(step.superseded)
        result = FileResult.REPLACED if step.superseded else FileResult.UNCHANGED if existed else FileResult.ADDED
        return FileOutcome(
            path=step.file.key,
            action=step.action,
            result=result,
            sha256=state["sha256"],
            bytes=state["bytes"],
            document_id=state["id"],
            pages=state["pages"],
            passages=state["passages"],
            problems=[problem["message"] for problem in state["problems"]],
        )

    async def _drop(self, superseded: Sequence[str]) -> None:
        for document_id in superseded:
            await delete_document(self._client, document_id)

    @staticmethod
    def _source(file: SourceFile) -> dict[str, str]:
        return {SOURCE_ROOT_KEY: file.root, SOURCE_PATH_KEY: file.path}


async def delete_document(client: ServiceClient, document_id: str) -> None:
    """Delete a document; ignore that it no longer exists."""
    try:
        await client.delete(f"/v1/rag/documents/{document_id}")
    except CommandFailed as failure:
        if failure.status != 404:
            raise


def _name(file: SourceFile) -> str:
    """The displayed name. Undecodable bytes are replaced, not escaped: a backslash is read as a separator."""
    return os.fsencode(file.location.name).decode("utf-8", "replace")[-MAX_FILENAME_LENGTH:]


def _ended(step: IngestStep, result: FileResult, document: KnownDocument | None) -> FileOutcome:
    return FileOutcome(
        path=step.file.key,
        action=step.action,
        result=result,
        sha256=step.sha256,
        bytes=step.file.size_bytes,
        document_id=document.id if document is not None else None,
    )


def _reason(state: Json) -> str:
    """Why a document failed, and the command that mends it."""
    error = state.get("error") or {}
    if error.get("code") == FailureReason.PASSWORD_REQUIRED:
        return f"needs a password: ragsvc documents retry {state['id']} --password-stdin"
    return error.get("message") or "failed"


def _failed(step: IngestStep, reason: str, state: Json | None = None) -> FileOutcome:
    document_id = state["id"] if state is not None else step.document.id if step.document is not None else None
    return FileOutcome(
        path=step.file.key,
        action=step.action,
        result=FileResult.FAILED,
        sha256=step.sha256,
        bytes=step.file.size_bytes,
        document_id=document_id,
        reason=reason,
    )
