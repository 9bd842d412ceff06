"""A note in the data directory of the last backup that was made of it, so that the service can show it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

LAST_BACKUP_FILE_NAME: Final = "last_backup.json"


class LastBackup(msgspec.Struct, frozen=True, kw_only=True):
    """The last backup of a directory; ``destination`` is the folder of the archive. ``at`` is in Unix seconds."""

    snapshot: str
    at: int
    documents: int
    size_bytes: int
    destination: str


def note_backup(data_dir: Path, backup: LastBackup) -> None:
    """Write the note. Raises ``OSError``: the directory cannot be written."""
    written = data_dir / f"{LAST_BACKUP_FILE_NAME}.new"
    written.write_bytes(msgspec.json.encode(backup))
    written.replace(data_dir / LAST_BACKUP_FILE_NAME)


def last_backup(data_dir: Path) -> LastBackup | None:
    """Read the note; ``None`` if there is none, or one that cannot be read."""
    try:
        return msgspec.json.decode((data_dir / LAST_BACKUP_FILE_NAME).read_bytes(), type=LastBackup)
    except (OSError, msgspec.MsgspecError):
        return None
