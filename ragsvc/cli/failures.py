"""Failures of commands: a line of text for people, an exit code for scripts."""

from __future__ import annotations

import errno
import os
import sqlite3
from enum import IntEnum

from ragsvc.core.errors import ConfigurationError, DatabaseUnavailable, DataDirectoryLocked, RagsvcError


class ExitCode(IntEnum):
    """Exit codes; ``docs/reference/cli.md`` lists them."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    NOT_AUTHORISED = 4
    LOCKED = 5
    REFUSED_FOR_NOW = 6
    INTERRUPTED = 130


class CommandFailed(Exception):
    """Ends a command. ``code`` is the error code of ``core.errors`` where the service reported it.

    ``location`` is the path of the document that an upload has stored although it cannot be read.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str,
        exit_code: ExitCode = ExitCode.FAILED,
        status: int | None = None,
        retry_after_s: float | None = None,
        location: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.exit_code = exit_code
        self.status = status
        self.retry_after_s = retry_after_s
        self.location = location


def failure_of_error(error: RagsvcError) -> CommandFailed:
    """Convert an error that was raised in this process, while working on a data directory."""
    exit_code = ExitCode.FAILED
    if isinstance(error, DataDirectoryLocked):
        exit_code = ExitCode.LOCKED
    elif isinstance(error, ConfigurationError):
        exit_code = ExitCode.USAGE
    elif isinstance(error, DatabaseUnavailable):
        exit_code = ExitCode.UNREACHABLE
    return CommandFailed(error.message, code=error.code, exit_code=exit_code)


_ENVIRONMENT_ERRORS = frozenset(
    (
        *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST),
        *(errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENAMETOOLONG, errno.ELOOP),
    )
)


def failure_of_system(error: Exception) -> CommandFailed | None:
    """The failure behind an error of a file or of SQLite that the user can mend; ``None`` for other errors."""
    if isinstance(error, OSError) and error.errno in _ENVIRONMENT_ERRORS:
        text = error.strerror or "an error of the operating system"
        name = error.filename if isinstance(error.filename, str | bytes | os.PathLike) else None
        message = f"{os.fsdecode(name)}: {text}" if name else text
        return CommandFailed(message, code="storage", exit_code=ExitCode.FAILED)
    cause = getattr(error, "orig", None) or error  # SQLAlchemy's errors keep that of SQLite
    if isinstance(cause, sqlite3.OperationalError):
        return CommandFailed(f"the database of the data directory: {cause}", code="storage", exit_code=ExitCode.FAILED)
    if isinstance(cause, sqlite3.DatabaseError) and "not a database" in str(cause):
        return CommandFailed(
            "the database of the data directory is damaged, or encrypted with another key", code="storage"
        )
    return None


def usage_error(message: str) -> CommandFailed:
    """A failure with the exit code for wrong usage."""
    return CommandFailed(message, code="usage", exit_code=ExitCode.USAGE)
