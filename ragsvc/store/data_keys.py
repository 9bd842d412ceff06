"""The keys of a data directory that is encrypted at rest.

A random data key is stored in ``data.key``, wrapped by the operator's master key. The database's key and the names of
stored files are derived from it. Each file has its own key, also wrapped by the master key, so a new master key rewraps
small headers and never rewrites content. A directory is encrypted completely or not at all: a service refuses to start
on a partly encrypted one.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import os
import shlex
import stat
import subprocess
from pathlib import Path
from typing import Final

from ragsvc.core.errors import ConfigurationError, CryptoFailure
from ragsvc.crypto import hpke
from ragsvc.crypto.at_rest import EncryptedReader, MasterKey, MasterKeys, encrypt, has_two_keys
from ragsvc.crypto.value_sealing import SealingKey
from ragsvc.store.durable_names import sync_folder

KEY_FILE_NAME: Final = "data.key"
DATABASE_FILE_NAME: Final = "ragsvc.sqlite"
_CONTEXT = b"ragsvc data key"
_LABEL = b"ragsvc-data-v1 "
_PLAIN_DATABASE = b"SQLite format 3\x00"
_COMMAND_TIMEOUT_S = 30


class DataKeys:
    """The keys of one data directory. Not printed."""

    def __init__(self, masters: MasterKeys, data_key: bytes) -> None:
        self.masters = masters
        self.database_key = hpke.expand(data_key, _LABEL + b"database", hpke.KEY_BYTES)
        self.sealing = SealingKey(hpke.expand(data_key, _LABEL + b"sealing", hpke.KEY_BYTES))
        """Seals values in rows; does not change with the master key."""
        self._name_key = hpke.expand(data_key, _LABEL + b"names", hpke.KEY_BYTES)

    def name(self, *parts: str) -> str:
        """64 hexadecimal digits that identify ``parts`` and reveal nothing about them, even if the file is known."""
        message = b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in parts)
        return hmac.new(self._name_key, message, hashlib.sha256).hexdigest()

    def __repr__(self) -> str:
        """Name the master key only."""
        return f"DataKeys({self.masters.current!r})"


def read_master_key(*, value: str | None, file: Path | None, command: str | None) -> MasterKey | None:
    """Read the master key from the one source that is given: its value, a file, or the output of a command.

    Raises:
        ConfigurationError: more than one source, a source that cannot be read, or content that is not a key.
    """
    if sum(source is not None for source in (value, file, command)) > 1:
        raise ConfigurationError(["set only one of master_key, master_key_file and master_key_command"])
    if value is not None:
        return MasterKey.from_bytes(value.encode())
    if file is not None:
        try:
            return MasterKey.from_bytes(file.read_bytes())
        except OSError as error:
            raise ConfigurationError([f"master_key_file: {file} cannot be read ({error.strerror})"]) from error
    return None if command is None else MasterKey.from_bytes(_run(command))


def is_open_to_others(key_file: Path | None) -> bool:
    """Whether other users of the machine can read the file of the master key."""
    try:
        return key_file is not None and bool(key_file.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH))
    except OSError:
        return False


def _run(command: str) -> bytes:
    try:
        done = subprocess.run(  # noqa: S603 - the operator's own setting, without a shell
            shlex.split(command), stdout=subprocess.PIPE, timeout=_COMMAND_TIMEOUT_S, check=True
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise ConfigurationError([f"master_key_command failed ({type(error).__name__})"]) from error
    return done.stdout


def open_data_keys(data_dir: Path, master: MasterKey | None) -> DataKeys | None:
    """The keys of a data directory, created if the directory is new; ``None`` if the directory is not encrypted.

    Raises:
        ConfigurationError: there is a master key for a plain directory, or none or the wrong one for an encrypted
            directory, or an encryption or a key rotation did not finish.
    """
    key_file, database = data_dir / KEY_FILE_NAME, data_dir / DATABASE_FILE_NAME
    if master is None:
        if key_file.exists():
            raise ConfigurationError([f"{data_dir} is encrypted: set its master key, for example by master_key_file"])
        return None
    if is_plain_database(database):
        raise ConfigurationError([f"{data_dir} is not encrypted, or only in part: run 'ragsvc encrypt'"])
    if key_file.exists():
        keys = read_data_keys(data_dir, MasterKeys(master))
        with key_file.open("rb") as file:
            if has_two_keys(file):
                raise ConfigurationError(
                    [f"the key rotation of {data_dir} did not finish: run 'ragsvc rotate-key' again"]
                )
        return keys
    return create_data_keys(data_dir, MasterKeys(master))


def create_data_keys(data_dir: Path, masters: MasterKeys) -> DataKeys:
    """Create keys and store them durably."""
    data_dir.mkdir(parents=True, exist_ok=True)
    data_key = os.urandom(hpke.KEY_BYTES)
    written = data_dir / f"{KEY_FILE_NAME}.new"
    descriptor = os.open(written, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(encrypt(data_key, masters, context=_CONTEXT))
        file.flush()
        os.fsync(file.fileno())
    written.rename(data_dir / KEY_FILE_NAME)
    sync_folder(data_dir)
    return DataKeys(masters, data_key)


def read_data_keys(data_dir: Path, masters: MasterKeys) -> DataKeys:
    """Read stored keys. Raises ``ConfigurationError`` if no master key opens them."""
    content = io.BytesIO((data_dir / KEY_FILE_NAME).read_bytes())
    try:
        reader = EncryptedReader(content, masters, context=_CONTEXT)
        return DataKeys(masters, reader.read_at(0, hpke.KEY_BYTES))
    except CryptoFailure as error:
        raise ConfigurationError([f"the master key does not open {data_dir}"]) from error


def is_plain_database(path: Path) -> bool:
    """Whether an unencrypted SQLite database exists at ``path``."""
    try:
        with path.open("rb") as file:
            return file.read(len(_PLAIN_DATABASE)) == _PLAIN_DATABASE
    except FileNotFoundError:
        return False


KEY_FILE_CONTEXT: Final = _CONTEXT
"""The context to which the content of ``data.key`` is bound."""
