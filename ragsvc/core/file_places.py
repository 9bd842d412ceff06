"""Where uploaded files are stored, if not in the data directory: the setting ``files_url``, parsed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import msgspec

_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX: Final = re.compile(r"[A-Za-z0-9!_.*'()-]+(?:/[A-Za-z0-9!_.*'()-]+)*")
_EXPECTED: Final = "expected 's3://BUCKET', 's3://BUCKET/PREFIX' or 'file:///FOLDER'"


class BucketPlace(msgspec.Struct, frozen=True):
    """A bucket of an S3 store, and what the names of all objects begin with, without a slash at the end."""

    bucket: str
    prefix: str = ""

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")


class FolderPlace(msgspec.Struct, frozen=True):
    """A folder that several machines may mount."""

    path: Path

    def __str__(self) -> str:
        return self.path.as_uri()


def parse_files_url(url: str) -> BucketPlace | FolderPlace:
    """The place that ``files_url`` names. Raises ``ValueError``, whose text does not quote the URL.

    >>> parse_files_url("s3://acme-files/ragsvc/"), str(parse_files_url("file:///mnt/files"))
    (BucketPlace(bucket='acme-files', prefix='ragsvc'), 'file:///mnt/files')
    >>> parse_files_url("s3://id:secret@acme-files")
    Traceback (most recent call last):
    ValueError: credentials do not belong in it: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError(_EXPECTED) from None
    if "@" in parts.netloc:
        raise ValueError("credentials do not belong in it: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    if parts.query or parts.fragment:
        raise ValueError(_EXPECTED)
    if parts.scheme == "s3" and _BUCKET.fullmatch(parts.netloc):
        prefix = parts.path.strip("/")
        if prefix and not _PREFIX.fullmatch(prefix):
            raise ValueError("expected a prefix of letters, digits and !_.*'()- between single slashes")
        return BucketPlace(parts.netloc, prefix)
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and len(parts.path) > 1:
        return FolderPlace(Path(unquote(parts.path)))
    raise ValueError(_EXPECTED)


def endpoint_problem(url: str) -> str | None:
    """What is wrong with the setting ``files_endpoint``; ``None`` for a valid one.

    >>> endpoint_problem("http://127.0.0.1:8333"), endpoint_problem("s3.example.com")
    (None, "expected 'http://' or 'https://', a host, and optionally a port")
    """
    expected = "expected 'http://' or 'https://', a host, and optionally a port"
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        return expected
    if not valid or parts.path.strip("/") or parts.query or parts.fragment:
        return expected
    return "credentials do not belong in it" if "@" in parts.netloc else None
