"""The identity of a data directory: a random id in a file, so that a backup archive takes one directory only.

The file is made by the first backup. A restored directory has the id of the directory that was backed up, and so has a
complete copy. The id is not secret, and is stored in plain in encrypted directories too.
"""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path
from typing import Final

from ragsvc.core.errors import ConfigurationError
from ragsvc.store.durable_names import sync_folder

DIRECTORY_ID_FILE_NAME: Final = "directory.id"
_ID: Final = re.compile(r"[0-9a-f]{32}")


def directory_id(data_dir: Path) -> str | None:
    """The id of a data directory, written if there is none; ``None`` if it cannot be written, as on a full disk.

    Raises:
        ConfigurationError: the file cannot be read, or holds no id.
    """
    path = data_dir / DIRECTORY_ID_FILE_NAME
    found = _read(path)
    if found is not None:
        return found
    try:
        write_directory_id(data_dir, secrets.token_hex(16))
    except OSError:
        return None
    return _read(path)


def write_directory_id(data_dir: Path, identity: str) -> None:
    """Write the id durably, unless another process has written one. Raises ``OSError``."""
    written = data_dir / f"{DIRECTORY_ID_FILE_NAME}.{os.getpid()}.new"
    try:
        with open(os.open(written, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:  # noqa: PTH123 - with its mode
            file.write(f"{identity}\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(written, data_dir / DIRECTORY_ID_FILE_NAME)  # never replaces the id that another backup read
    except FileExistsError:
        return
    finally:
        written.unlink(missing_ok=True)
    sync_folder(data_dir)


def _read(path: Path) -> str | None:
    try:
        content = path.read_text(encoding="ascii", errors="replace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigurationError([f"{path} cannot be read ({error.strerror})"]) from error
    if _ID.fullmatch(content) is None:
        raise ConfigurationError([f"{path} holds no id of a data directory: restore it, or remove it"])
    return content
