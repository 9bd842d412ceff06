"""``ragsvc backup`` and ``ragsvc restore``: snapshots of a data directory, also of one that a service uses."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import anyio.to_thread
from rich.console import Console
from rich.markup import escape

from ragsvc.cli.failures import usage_error
from ragsvc.cli.output import Output, table
from ragsvc.cli.target import Target, keep_private, require_own_database
from ragsvc.config import Settings
from ragsvc.core.byte_sizes import size
from ragsvc.store.backup_archive import BackupArchive, BackupManifest
from ragsvc.store.data_keys import DATABASE_FILE_NAME, open_data_keys
from ragsvc.store.directory_backup import BackupResult, back_up_directory, restore_directory
from ragsvc.store.last_backup import LastBackup, note_backup


async def backup(target: Target, destination: Path, output: Output, *, keep: int | None, same_directory: bool) -> None:
    """Make a snapshot of the data directory in the archive at ``destination``."""
    keep_private()
    settings = target.settings()
    require_own_database(settings, "copy the database with pg_dump, and then the folder 'blobs' of the data directory")
    result = await anyio.to_thread.run_sync(
        lambda: _back_up(settings, destination, keep, same_directory=same_directory)
    )
    for path in result.manifest.missing:
        output.note(f"warning: {path} is missing in the data directory; the snapshot lacks it")
    if result.manifest.files_at is not None:
        output.note(
            "The snapshot holds the database and the keys. The uploaded files are at "
            f"{result.manifest.files_at} and are not in it: protect them there, for example by versions of the bucket."
        )
    output.result(
        {"object": "backup", **_summary(result.manifest), **_growth(result)}, lambda console: _show(result, console)
    )


def _back_up(settings: Settings, destination: Path, keep: int | None, *, same_directory: bool) -> BackupResult:
    if "RAGSVC_URL" in os.environ and not (settings.data_dir / DATABASE_FILE_NAME).is_file():
        raise usage_error(
            f"{settings.data_dir} holds no database: a backup reads the data directory itself, not the service at "
            "RAGSVC_URL; run it on the machine of the service, with --data-dir or RAGSVC_DATA_DIR"
        )
    exists = (settings.data_dir / DATABASE_FILE_NAME).is_file()  # reading the keys of a new directory would create some
    keys = settings.open_data_keys() if exists else None
    result = back_up_directory(settings.data_dir, keys, destination, keep=keep, same_directory=same_directory)
    if exists:
        with contextlib.suppress(OSError):  # the backup is made; a directory may be mounted read-only for it
            note_backup(settings.data_dir, _noted(result, destination))
    return result


def _noted(result: BackupResult, destination: Path) -> LastBackup:
    return LastBackup(
        snapshot=result.manifest.id,
        at=int(time.time()),
        documents=result.manifest.documents,
        size_bytes=result.manifest.size_bytes,
        destination=str(destination.resolve()),
    )


async def restore(target: Target, source: Path, output: Output, *, snapshot: str | None) -> None:
    """Restore a snapshot into the data directory, which must be new or empty."""
    keep_private()
    settings = target.settings()
    require_own_database(settings, "restore the database with pg_restore, and the folder 'blobs' of the data directory")
    manifest = await anyio.to_thread.run_sync(lambda: restore_directory(source, settings.data_dir, snapshot=snapshot))
    for path in manifest.missing:
        output.note(f"warning: {path} was missing when the backup was made")
    if manifest.files_at is not None:
        output.note(
            f"The uploaded files are not in the snapshot: set files_url to {manifest.files_at} before the start."
        )
    if manifest.encrypted:
        await anyio.to_thread.run_sync(_check_master_key, settings, output)
    words = (
        f"restored snapshot {manifest.id} of {manifest.documents} documents into {settings.data_dir}. "
        "Check it with 'ragsvc doctor --deep'; the first start rebuilds the indexes."
    )
    output.result({"object": "restore", **_summary(manifest)}, lambda console: console.print(escape(words)))


def _check_master_key(settings: Settings, output: Output) -> None:
    master = settings.read_master_key()
    if master is None:
        output.note(
            "The snapshot is encrypted: set its master key before the start, for example with RAGSVC_MASTER_KEY_FILE."
        )
    else:
        open_data_keys(settings.data_dir, master)


async def list_snapshots(source: Path, output: Output) -> None:
    """List the snapshots of an archive, oldest first."""
    manifests = await anyio.to_thread.run_sync(lambda: BackupArchive(source).manifests())
    rows = [(m.id, m.created_at, str(m.documents), size(m.size_bytes), m.release, m.data_dir or "") for m in manifests]
    shown = table(
        "snapshot", "made", "documents", "size", "release", "directory", rows=rows, right=("documents", "size")
    )
    output.result({"object": "list", "data": [_summary(m) for m in manifests]}, lambda console: console.print(shown))


def _summary(manifest: BackupManifest) -> dict[str, object]:
    return {
        "snapshot": manifest.id,
        "created_at": manifest.created_at,
        "release": manifest.release,
        "data_dir": manifest.data_dir,
        "encrypted": manifest.encrypted,
        "documents": manifest.documents,
        "files": len(manifest.files),
        "size_bytes": manifest.size_bytes,
        "missing": list(manifest.missing),
        "files_at": manifest.files_at,
    }


def _growth(result: BackupResult) -> dict[str, object]:
    return {"written_bytes": result.written_bytes, "removed": result.removed}


def _show(result: BackupResult, console: Console) -> None:
    manifest = result.manifest
    words = (
        f"snapshot {manifest.id}: {manifest.documents} documents, {size(manifest.size_bytes)}, "
        f"of which {size(result.written_bytes)} are new"
    )
    removed = f"; removed {', '.join(result.removed)}" if result.removed else ""
    console.print(escape(words + removed))
