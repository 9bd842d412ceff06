"""The sealing key of a data directory: a file, created at first use.

New directories have ``sealing.key``. Earlier releases named the file ``master.key``; it is read under that name and
stays where it is. If a backup of one kind is restored over a directory of the other, both files are present, and only
one of them opens the restored database. Both are therefore used to open values, and neither is ever removed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from ragsvc.crypto.keyring import SECRET_BYTES
from ragsvc.crypto.value_sealing import SealingKey, SealingKeys

SEALING_KEY_FILE_NAME: Final = "sealing.key"
FORMER_SEALING_KEY_FILE_NAME: Final = "master.key"


def open_sealing_keys(data_dir: Path, *, derived: SealingKey | None = None) -> SealingKeys:
    """The keys in the files, then ``derived``, an encrypted directory's own; the first of them seals.

    Without any, a file is created that only this user can read.

    Raises:
        ConfigurationError: a file does not hold a key.
    """
    files = [
        path for name in (SEALING_KEY_FILE_NAME, FORMER_SEALING_KEY_FILE_NAME) if (path := data_dir / name).exists()
    ]
    if not files and derived is None:
        _create(data_dir / SEALING_KEY_FILE_NAME)
        files = [data_dir / SEALING_KEY_FILE_NAME]
    keys = [SealingKey.from_bytes(path.read_bytes()) for path in files]
    if derived is not None:
        keys.append(derived)
    return SealingKeys(*keys)


def _create(path: Path) -> None:
    """Write 32 random bytes to a temporary file and rename it: a crash leaves either no key or a whole one."""
    written = path.with_suffix(".new")
    written.unlink(missing_ok=True)
    descriptor = os.open(written, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, os.urandom(SECRET_BYTES).hex().encode() + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    written.rename(path)
