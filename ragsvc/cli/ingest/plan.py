"""Plans what an ingest does with each file. Pure: files with hashes and known documents in, steps out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any

import msgspec

from ragsvc.cli.ingest.folders import SourceFile
from ragsvc.core.defaults import SOURCE_PATH_KEY, SOURCE_ROOT_KEY


class IngestAction(StrEnum):
    ADD = "add"
    REPLACE = "replace"
    UNCHANGED = "unchanged"
    MOVED = "moved"
    NAMED = "named"
    """The document was uploaded without a path; it takes the file's name and path."""
    RESUME = "resume"
    RETRY = "retry"
    FAILED_BEFORE = "failed_before"
    DUPLICATE = "duplicate"


class KnownDocument(msgspec.Struct, frozen=True):
    """The fields of a document that ingesting uses. ``source`` is the path that it was ingested from."""

    id: str
    sha256: str
    status: str
    filename: str
    source: str | None
    error: str | None = None
    metadata: Mapping[str, Any] = {}


class IngestStep(msgspec.Struct, frozen=True):
    """The action for one file; ``superseded`` are ids of older versions, deleted when the new version is ready."""

    file: SourceFile
    sha256: str
    action: IngestAction
    document: KnownDocument | None = None
    superseded: tuple[str, ...] = ()


class IngestPlan(msgspec.Struct, frozen=True):
    """All steps, and the documents whose file no longer exists."""

    steps: list[IngestStep]
    vanished: list[KnownDocument]


def known_document(document: Mapping[str, Any]) -> KnownDocument:
    """Convert a document of the API."""
    metadata = document.get("metadata") or {}
    root, path = metadata.get(SOURCE_ROOT_KEY), metadata.get(SOURCE_PATH_KEY)
    source = f"{root.rstrip('/')}/{path}" if isinstance(root, str) and isinstance(path, str) else None
    failure = document.get("error") or {}
    return KnownDocument(
        document["id"],
        document["sha256"],
        document["status"],
        document["filename"],
        source,
        failure.get("message"),
        metadata,
    )


def make_plan(
    files: Sequence[tuple[SourceFile, str]],
    known: Iterable[KnownDocument],
    *,
    folders: Sequence[str],
    retry_failed: bool,
    vanished: Callable[[str], bool],
) -> IngestPlan:
    """Match files (with their SHA-256) to documents.

    ``vanished`` is ``True`` for a path that certainly no longer exists. Only documents that were ingested from below
    ``folders`` are listed as vanished, and none whose content is in another of the files.
    """
    by_hash: dict[str, KnownDocument] = {}
    by_source: defaultdict[str, list[KnownDocument]] = defaultdict(list)
    for document in known:
        by_hash[document.sha256] = document
        if document.source is not None:
            by_source[document.source].append(document)
    current = {sha256 for _, sha256 in files}
    steps: list[IngestStep] = []
    planned: set[str] = set()
    for file, sha256 in files:
        superseded = tuple(older.id for older in by_source[file.key] if older.sha256 not in current)
        found = by_hash.get(sha256)
        action = _action(file, found, superseded, retry_failed=retry_failed, vanished=vanished)
        if sha256 in planned and (found is None or action in (IngestAction.MOVED, IngestAction.NAMED)):
            action = IngestAction.DUPLICATE
        planned.add(sha256)
        steps.append(IngestStep(file, sha256, action, found, superseded))
    missing = [
        document
        for source, documents in by_source.items()
        if _is_below(source, folders) and vanished(source)
        for document in documents
        if document.sha256 not in current
    ]
    return IngestPlan(steps, missing)


def _action(
    file: SourceFile,
    document: KnownDocument | None,
    superseded: Sequence[str],
    *,
    retry_failed: bool,
    vanished: Callable[[str], bool],
) -> IngestAction:
    if document is None:
        return IngestAction.REPLACE if superseded else IngestAction.ADD
    if document.status == "failed":
        return IngestAction.RETRY if retry_failed else IngestAction.FAILED_BEFORE
    if document.status != "ready":
        return IngestAction.RESUME
    if document.source is None:
        return IngestAction.NAMED
    if document.source != file.key and vanished(document.source):
        return IngestAction.MOVED
    return IngestAction.UNCHANGED


def _is_below(source: str, folders: Sequence[str]) -> bool:
    return any(source.startswith(folder.rstrip("/") + "/") for folder in folders)
