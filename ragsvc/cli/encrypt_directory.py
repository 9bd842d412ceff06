"""``ragsvc encrypt`` and ``ragsvc rotate-key``; no service may be running on the data directory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anyio.to_thread
from rich.markup import escape

from ragsvc.cli.failures import usage_error
from ragsvc.cli.output import Output
from ragsvc.cli.target import Target, keep_private, require_own_database
from ragsvc.crypto.at_rest import MasterKey
from ragsvc.store.data_keys import DATABASE_FILE_NAME, is_open_to_others, is_plain_database, read_master_key
from ragsvc.store.directory_lock import DataDirectoryLock
from ragsvc.store.encrypt_directory import encrypt_directory, rotate_master_key

_DISK = "encrypt the disk of the database server"
_NO_KEY = "no master key: set RAGSVC_MASTER_KEY_FILE, RAGSVC_MASTER_KEY_COMMAND or RAGSVC_MASTER_KEY"


async def encrypt(target: Target, output: Output) -> None:
    """Encrypt a plain data directory in place, under the configured master key."""
    keep_private()
    settings = target.settings()
    require_own_database(settings, _DISK)
    master = await anyio.to_thread.run_sync(settings.read_master_key)
    if master is None:
        raise usage_error(_NO_KEY)
    key = master
    database = settings.data_dir / DATABASE_FILE_NAME
    was_plain = False

    def work() -> int:
        nonlocal was_plain
        was_plain = is_plain_database(database)
        return encrypt_directory(settings.data_dir, key)

    count = await _locked(settings.data_dir, work)
    _warn_of_open_file(settings.master_key_file, output)
    if was_plain:
        words = f"encrypted {settings.data_dir}: the database and {count} files. They cannot be read without the key."
    else:
        words = f"{settings.data_dir} is already encrypted; nothing was changed."
    output.result(
        {"object": "encryption", "files": count, "already_encrypted": not was_plain},
        lambda console: console.print(escape(words)),
    )


async def rotate_key(target: Target, new_key_file: Path, output: Output) -> None:
    """Wrap all keys under a new master key; content is not rewritten."""
    keep_private()
    settings = target.settings()
    require_own_database(settings, _DISK)
    current = await anyio.to_thread.run_sync(settings.read_master_key)
    new = read_master_key(value=None, file=new_key_file, command=None)
    if current is None or new is None:
        raise usage_error(_NO_KEY)
    keys: tuple[MasterKey, MasterKey] = (current, new)
    count = await _locked(settings.data_dir, lambda: rotate_master_key(settings.data_dir, *keys))
    _warn_of_open_file(new_key_file, output)
    words = f"{count} keys are wrapped again; from now on only the new master key opens {settings.data_dir}."
    output.result({"object": "key_rotation", "files": count}, lambda console: console.print(words))


def _warn_of_open_file(key_file: Path | None, output: Output) -> None:
    if is_open_to_others(key_file):
        output.note(f"warning: other users can read the master key in {key_file}; run 'chmod 600 {key_file}'")


async def _locked(data_dir: Path, work: Callable[[], int]) -> int:
    def run() -> int:
        lock = DataDirectoryLock(data_dir)
        lock.acquire()
        try:
            return work()
        finally:
            lock.release()

    return await anyio.to_thread.run_sync(run)
