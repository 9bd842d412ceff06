"""The keys of a data directory that is encrypted at rest.

A random data key, kept in ``data.key`` under the operator's master key, yields the database's key and the names of
stored files; each file has a key of its own under the master key. So a new master key rewraps small headers and never
rewrites content. A directory is encrypted as a whole or not at all; anything in between is refused, not served.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import os
import shlex
import subprocess
from pathlib import Path
from typing import Final

from ragsvc.core.errors import ConfigurationError, CryptoFailure
from ragsvc.crypto import hpke
from ragsvc.crypto.at_rest import EncryptedReader, MasterKey, MasterKeys, encrypt, has_two_keys
from ragsvc.crypto.value_sealing import SealingKey

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
        """Seals values of rows; it stays when the master key changes."""
        self._name_key = hpke.expand(data_key, _LABEL + b"names", hpke.KEY_BYTES)

    def name(self, *parts: str) -> str:
        """A name for ``parts`` that tells nothing of them, 64 hexadecimal digits: not even the hash of a known file."""
        message = b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in parts)
        return hmac.new(self._name_key, message, hashlib.sha256).hexdigest()

    def __repr__(self) -> str:
        """Name the master key only."""
        return f"DataKeys({self.masters.current!r})"


def read_master_key(*, value: str | None, file: Path | None, command: str | None) -> MasterKey | None:
    """The master key from the one source that is given: itself, a file, or what a command prints.

    Raises:
        ConfigurationError: several sources, one that cannot be read, or no key in it.
    """
    if sum(source is not None for source in (value, file, command)) > 1:
        raise ConfigurationError(["give one of master_key, master_key_file and master_key_command"])
    if value is not None:
        return MasterKey.from_bytes(value.encode())
    if file is not None:
        try:
            return MasterKey.from_bytes(file.read_bytes())
        except OSError as error:
            raise ConfigurationError([f"master_key_file: {file} cannot be read ({error.strerror})"]) from error
    return None if command is None else MasterKey.from_bytes(_run(command))


def _run(command: str) -> bytes:
    try:
        done = subprocess.run(  # noqa: S603 - the operator's own setting, without a shell
            shlex.split(command), stdout=subprocess.PIPE, timeout=_COMMAND_TIMEOUT_S, check=True
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise ConfigurationError([f"master_key_command failed ({type(error).__name__})"]) from error
    return done.stdout


def open_data_keys(data_dir: Path, master: MasterKey | None) -> DataKeys | None:
    """The keys of a data directory, made if it is a new one; ``None`` for a plain one.

    Raises:
        ConfigurationError: a master key for a plain directory, none or another for an encrypted one, or a migration
            that was not finished.
    """
    key_file, database = data_dir / KEY_FILE_NAME, data_dir / DATABASE_FILE_NAME
    if master is None:
        if key_file.exists():
            raise ConfigurationError([f"{data_dir} is encrypted: set the master key (master_key_file, say)"])
        return None
    if is_plain_database(database):
        raise ConfigurationError([f"{data_dir} is not encrypted, or not wholly: run 'ragsvc encrypt'"])
    if key_file.exists():
        keys = read_data_keys(data_dir, MasterKeys(master))
        with key_file.open("rb") as file:
            if has_two_keys(file):
                raise ConfigurationError(
                    [f"a change of the key of {data_dir} was not finished: run 'ragsvc rotate-key' again"]
                )
        return keys
    return create_data_keys(data_dir, MasterKeys(master))


def create_data_keys(data_dir: Path, masters: MasterKeys) -> DataKeys:
    """Make keys and store them durably."""
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
    """Read stored keys. Raises ``ConfigurationError`` when no master key opens them."""
    content = io.BytesIO((data_dir / KEY_FILE_NAME).read_bytes())
    try:
        reader = EncryptedReader(content, masters, context=_CONTEXT)
        return DataKeys(masters, reader.read_at(0, hpke.KEY_BYTES))
    except CryptoFailure as error:
        raise ConfigurationError([f"the master key is not the one of {data_dir}"]) from error


def is_plain_database(path: Path) -> bool:
    """Whether a database is there that anybody can read."""
    try:
        with path.open("rb") as file:
            return file.read(len(_PLAIN_DATABASE)) == _PLAIN_DATABASE
    except FileNotFoundError:
        return False


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


KEY_FILE_CONTEXT: Final = _CONTEXT
"""What binds ``data.key``'s wrap."""
