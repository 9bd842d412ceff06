"""Makes the stored files agree with the database at a start, without deleting what the database may have forgotten.

A file is removed only if the database says that its last document was deleted. A file that the database does not know
is moved to ``quarantine/<date>/`` and deleted there after an age limit. Nothing is moved or deleted if the database has
never had a document, or if it does not know many of the files: then it is probably not the database of these files. A
file in quarantine that a document needs is moved back.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Collection, Iterator, MutableMapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final

import msgspec
from sqlalchemy import Connection

from ragsvc.core.ids import TenantId
from ragsvc.core.ports.file_storage import FileStorage, StoredEntry, last_part
from ragsvc.core.storage_faults import is_storage_fault
from ragsvc.store.blob_references import REFERRING_TABLES
from ragsvc.store.blobs import QUARANTINE, BlobStore, quarantined_name
from ragsvc.store.database import Database
from ragsvc.store.document_rows import referenced_blobs
from ragsvc.store.engines import engine_of
from ragsvc.store.file_removal_rows import FileRemoval, list_removals
from ragsvc.store.local_files import LocalFiles

logger = logging.getLogger(__name__)

_MANY_UNKNOWN: Final = 10
_MANY_UNKNOWN_SHARE: Final = 0.1
_ARRIVING_S: Final = 3600
_DAY_PLACE: Final = 1
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
    present = {entry.name: entry for entry in blobs.entries()}
    removed = _finish_removals(blobs, known.removals, present)
    restored = _restore(blobs, known.referenced, present)
    wanted = {blobs.name(TenantId(tenant), sha256) for tenant, sha256 in known.referenced}
    unknown = [name for name in present if name not in wanted and not _may_be_arriving(blobs, present[name])]
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
    for name in unknown:
        quarantined = blobs.quarantine(name, today)
        logger.warning("the stored file %s belongs to no document; moved to %s", last_part(name), quarantined)
    expired = _expire(blobs.files, today=today, keep_days=keep_days)
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


def _may_be_arriving(blobs: BlobStore, entry: StoredEntry) -> bool:
    """Whether another process may have stored a file whose row it has not committed yet."""
    return blobs.files.is_elsewhere and time.time() - entry.modified_at < _ARRIVING_S


def _finish_removals(
    blobs: BlobStore, removals: Collection[FileRemoval], present: MutableMapping[str, StoredEntry]
) -> int:
    """Remove the files of deleted documents, unless the same bytes were stored after the deletion."""
    removed = 0
    for removal in removals:
        name = blobs.name(removal.tenant, removal.sha256)
        entry = present.get(name)
        if entry is not None and entry.modified_at <= removal.created_at + 1:
            blobs.remove(removal.tenant, removal.sha256)
            del present[name]
            logger.info("the file %s of a deleted document was removed", last_part(name))
            removed += 1
    return removed


def _restore(
    blobs: BlobStore, referenced: Collection[tuple[str, str]], present: MutableMapping[str, StoredEntry]
) -> int:
    """Move files that documents need back from quarantine, the latest copy first."""
    quarantined = {entry.name: entry for entry in _quarantined(blobs.files)}
    days = sorted({day for name in quarantined if (day := _day_of(name)) is not None}, reverse=True)
    if not days:
        return 0
    restored = 0
    for tenant, sha256 in referenced:
        name = blobs.name(TenantId(tenant), sha256)
        if name in present:
            continue
        found = next((copy for day in days if (copy := quarantined_name(name, day)) in quarantined), None)
        if found is not None:
            blobs.files.move(found, name)
            present[name] = quarantined[found]
            logger.warning("the stored file %s belongs to a document; moved back from %s", last_part(name), found)
            restored += 1
    return restored


def _expire(files: FileStorage, *, today: date, keep_days: int) -> int:
    """Delete the files that have been in quarantine for longer than ``keep_days``."""
    expired = 0
    for entry in list(_quarantined(files)) if keep_days else ():
        day = _day_of(entry.name)
        if day is None or (today - day).days <= keep_days:
            continue
        files.delete(entry.name)
        logger.warning("the file %s was in quarantine for more than %d days; deleted", entry.name, keep_days)
        files.prune(f"{QUARANTINE}/{day.isoformat()}")
        expired += 1
    return expired


def _quarantined(files: FileStorage) -> Iterator[StoredEntry]:
    """The files in the folders of a day; anything else in quarantine is not ours."""
    return (entry for entry in files.entries(QUARANTINE) if _day_of(entry.name) is not None)


def _day_of(name: str) -> date | None:
    """When a file was moved to quarantine, by its name there.

    >>> _day_of("quarantine/2026-05-20/acme/ab/ab12"), _day_of("quarantine/notes/mine.txt")
    (datetime.date(2026, 5, 20), None)
    """
    parts = name.split("/")
    if len(parts) <= _DAY_PLACE + 1 or not _DATED.fullmatch(parts[_DAY_PLACE]):
        return None
    try:
        return date.fromisoformat(parts[_DAY_PLACE])
    except ValueError:
        return None


def quarantined_names(files: FileStorage) -> list[str]:
    """All files in quarantine."""
    return [entry.name for entry in _quarantined(files)]


def quarantined_files(root: Path) -> list[Path]:
    """All files in the quarantine of a data directory with local files."""
    files = LocalFiles(root)
    return [files.path(name) for name in quarantined_names(files)]
