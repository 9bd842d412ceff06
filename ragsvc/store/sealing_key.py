"""The key that seals stored values of a data directory which is not encrypted as a whole: a file, made at first use."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from ragsvc.crypto.at_rest import MasterKey
from ragsvc.crypto.keyring import SECRET_BYTES

FILE_NAME: Final = "master.key"


def open_master_key(data_dir: Path) -> MasterKey:
    """The key in the file, which only its user can read. Raises ``ConfigurationError`` when it is none."""
    path = data_dir / FILE_NAME
    if not path.exists():
        _create(path)
    return MasterKey.from_bytes(path.read_bytes())


def _create(path: Path) -> None:
    """Write 32 random bytes beside and rename: a crash leaves either nothing or a whole key."""
    aside = path.with_suffix(".new")
    aside.unlink(missing_ok=True)
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, os.urandom(SECRET_BYTES).hex().encode() + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    aside.rename(path)
