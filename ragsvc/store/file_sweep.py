"""Makes the stored files agree with the database at a start, without deleting what the database may have forgotten.

A file is removed only if the database says that its last document was deleted. A file that the database does not know
is moved to ``quarantine/<date>/`` and deleted there after an age limit. Nothing is moved or deleted if the database has
never had a document, or if it does not know many of the files: then it is probably not the database of these files. A
file in quarantine that a document needs is moved back.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final

import msgspec
from sqlalchemy import Connection

from ragsvc.core.ids import TenantId
from ragsvc.core.storage_faults import is_storage_fault
from ragsvc.store.blob_references import REFERRING_TABLES
from ragsvc.store.blobs import QUARANTINE, BlobStore
from ragsvc.store.database import Database
from ragsvc.store.document_rows import referenced_blobs
from ragsvc.store.engines import engine_of
from ragsvc.store.file_removal_rows import FileRemoval, list_removals

logger = logging.getLogger(__name__)

_MANY_UNKNOWN: Final = 10
_MANY_UNKNOWN_SHARE: Final = 0.1
_DATED = re.compile(r"\d{4}-\d{2}-\d{2}")


class KnownFiles(msgspec.Struct, frozen=True):
    """What the database says about stored files. ``has_had_documents``: whether it ever had a document or a file."""

    referenced: frozenset[tuple[str, str]]
    removals: tuple[FileRemoval, ...]
    has_had_documents: bool


class SweepReport(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of files. ``refused``: unknown files that were not touched, because there are too many of them."""

    removed: int = 0
    restored: int = 0
    quarantined: int = 0
    expired: int = 0
    refused: int = 0


def read_known_files(connection: Connection) -> KnownFiles:
    """Read what a sweep has to know."""
    return KnownFiles(
        referenced=frozenset(referenced_blobs(connection)),
        removals=tuple(list_removals(connection)),
        has_had_documents=engine_of(connection).has_given_ids(connection, REFERRING_TABLES),
    )


def is_suspicious(*, unknown: int, known: int, has_had_documents: bool) -> bool:
    """Whether so many files are unknown that the database is probably not the one of these files.

    >>> is_suspicious(unknown=1, known=40, has_had_documents=True)
    False
    >>> is_suspicious(unknown=1, known=0, has_had_documents=False), is_suspicious(
    ...     unknown=20, known=20, has_had_documents=True
    ... )
    (True, True)
    """
    if not unknown:
        return False
    return not has_had_documents or (unknown > _MANY_UNKNOWN and unknown > known * _MANY_UNKNOWN_SHARE)


def sweep(blobs: BlobStore, known: KnownFiles, *, today: date, keep_days: int) -> SweepReport:
    """Make files and database agree; only while nothing else uses the directory. Every file is logged.

    Files stay in quarantine for ``keep_days``; 0 keeps them until an operator removes them.
    """
    blobs.remove_unfinished_uploads()
    removed = _finish_removals(blobs, known.removals)
    restored = _restore(blobs, known.referenced)
    unknown = blobs.unknown_files(known.referenced)
    if is_suspicious(unknown=len(unknown), known=len(known.referenced), has_had_documents=known.has_had_documents):
        reason = "does not know most of them" if known.has_had_documents else "has never had a document"
        logger.error(
            "%d stored files belong to no document, and the database %s: it may not be the database of these files. "
            "No file was moved or deleted. Restore the right ragsvc.sqlite, or see 'Files without a document' in "
            "docs/howto/back-up.md.",
            len(unknown),
            reason,
        )
        return SweepReport(removed=removed, restored=restored, refused=len(unknown))
    for path in unknown:
        quarantined = blobs.move(path, blobs.root / QUARANTINE / today.isoformat() / path.relative_to(blobs.folder))
        logger.warning("the stored file %s belongs to no document; moved to %s", path.name, quarantined)
    expired = _expire(blobs.root / QUARANTINE, today=today, keep_days=keep_days)
    return SweepReport(removed=removed, restored=restored, quarantined=len(unknown), expired=expired)


def sweep_now(blobs: BlobStore, database: Database, keep_days: int) -> SweepReport:
    """Make files and database agree at a start. On a full disk, what needs space waits for the next start."""
    known = database.read_sync(read_known_files)
    try:
        return sweep(blobs, known, today=datetime.now(UTC).date(), keep_days=keep_days)
    except OSError as error:
        if not is_storage_fault(error):
            raise
        logger.warning("the disk is full: files without a document are looked for at the next start")
        return SweepReport()


def _finish_removals(blobs: BlobStore, removals: Collection[FileRemoval]) -> int:
    """Remove the files of deleted documents, unless the same bytes were stored after the deletion."""
    removed = 0
    for removal in removals:
        path = blobs.path(removal.tenant, removal.sha256)
        if path.exists() and path.stat().st_mtime <= removal.created_at + 1:
            blobs.remove(removal.tenant, removal.sha256)
            logger.info("the file %s of a deleted document was removed", path.name)
            removed += 1
    return removed


def _restore(blobs: BlobStore, referenced: Collection[tuple[str, str]]) -> int:
    """Move files that documents need back from quarantine, the latest copy first."""
    folders = dated_folders(blobs.root / QUARANTINE)[::-1]
    if not folders:
        return 0
    restored = 0
    for tenant, sha256 in referenced:
        path = blobs.path(TenantId(tenant), sha256)
        if path.exists():
            continue
        copies = [folder / path.relative_to(blobs.folder) for folder in folders]
        found = next((copy for copy in copies if copy.is_file()), None)
        if found is not None:
            blobs.move(found, path)
            logger.warning("the stored file %s belongs to a document; moved back from %s", path.name, found)
            restored += 1
    return restored


def _expire(quarantine: Path, *, today: date, keep_days: int) -> int:
    """Delete the files that have been in quarantine for longer than ``keep_days``."""
    expired = 0
    for folder in dated_folders(quarantine):
        if not keep_days or (today - date.fromisoformat(folder.name)).days <= keep_days:
            continue
        for path in sorted(folder.rglob("*"), reverse=True):
            if path.is_dir():
                path.rmdir()
                continue
            path.unlink()
            logger.warning("the file %s was in quarantine for more than %d days; deleted", path, keep_days)
            expired += 1
        folder.rmdir()
    return expired


def dated_folders(quarantine: Path) -> Sequence[Path]:
    """The folders of a quarantine, the oldest first; anything else in it is not ours."""
    if not quarantine.is_dir():
        return []
    found: list[Path] = []
    for path in sorted(quarantine.iterdir()):
        if path.is_dir() and _DATED.fullmatch(path.name):
            try:
                date.fromisoformat(path.name)
            except ValueError:
                continue
            found.append(path)
    return found


def quarantined_files(root: Path) -> list[Path]:
    """All files in the quarantine of a data directory."""
    return [path for folder in dated_folders(root / QUARANTINE) for path in folder.rglob("*") if path.is_file()]
