"""Recognises errors that mean that a disk is full or a quota is used up, whichever library raised them."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Final

from ragsvc.core.errors import StorageFull
from ragsvc.core.text.late_patterns import late_pattern

FULL_DISK_ERRNOS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_SQLITE_NAMES: Final = ("SQLITE_FULL", "SQLITE_IOERR")
# tantivy raises ValueErrors with the text of Rust's io::Error, FAISS RuntimeErrors with that of strerror
_WORDS = late_pattern(
    r"No space left on device|Disk quota exceeded|File too large|StorageFull|database or disk is full"
    rf"|os error (?:{'|'.join(str(number) for number in sorted(FULL_DISK_ERRNOS))})\b"
)
_NUMPY_WORDS = late_pattern(r"\d+ requested and \d+ written")
"""``ndarray.tofile`` raises ``OSError`` without a number."""
_LIBRARY_ERRORS: Final = (ValueError, RuntimeError)


def is_storage_fault(error: BaseException) -> bool:
    """Whether an error, or an error that caused it, reports a full disk or a used-up quota.

    >>> is_storage_fault(OSError(errno.ENOSPC, "No space left on device"))
    True
    >>> is_storage_fault(ValueError("Failed to open file for write: 'IoError { kind: StorageFull }'"))
    True
    >>> is_storage_fault(ValueError("unknown field")), is_storage_fault(FileNotFoundError(errno.ENOENT, "missing"))
    (False, False)
    """
    return any(_reports_full_disk(cause) for cause in _causes(error))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what led to it, each once; groups are searched as well."""
    waiting, seen = [error], set[int]()
    while waiting:
        current = waiting.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        waiting += [cause for cause in (current.__cause__, current.__context__) if cause is not None]
        if isinstance(current, BaseExceptionGroup):
            waiting += current.exceptions


def _reports_full_disk(error: BaseException) -> bool:
    if isinstance(error, StorageFull):
        return True
    if isinstance(error, OSError):
        return error.errno in FULL_DISK_ERRNOS or _NUMPY_WORDS.fullmatch(str(error)) is not None
    if getattr(error, "sqlite_errorname", "").startswith(_SQLITE_NAMES):
        return True
    return isinstance(error, _LIBRARY_ERRORS) and _WORDS.search(str(error)) is not None
