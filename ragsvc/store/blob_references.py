"""Which stored files the rows of a database refer to, read with the driver from a database of any release.

For what looks at a data directory without opening its services: backups, checks, and the encryption of a directory.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Final

from ragsvc.store.engines.sqlite import has_given_ids

BlobKey = tuple[str, str]
"""Tenant and SHA-256 of a stored file."""

REFERRING_TABLES: Final = ("documents", "files", "upload_parts")
"""The tables whose rows refer to stored files, by ``tenant`` and ``sha256``."""


def referenced_files(connection: sqlite3.Connection) -> set[BlobKey]:
    """Every file that a row refers to."""
    return _select(connection, dict.fromkeys(REFERRING_TABLES, ""))


def required_files(connection: sqlite3.Connection) -> set[BlobKey]:
    """The files that must exist: not those of documents and files that are being deleted, whose bytes go first."""
    documents = ""
    if "deleted_at" in columns_of(connection, "collections"):  # not in a database of an early release
        documents = "WHERE collection_id NOT IN (SELECT id FROM collections WHERE deleted_at IS NOT NULL)"
    # the document of an implicit file tells whether its bytes must exist
    files = "WHERE deleted_at IS NULL AND NOT implicit"
    return _select(connection, {"documents": documents, "files": files, "upload_parts": ""})


def has_stored_anything(connection: sqlite3.Connection) -> bool:
    """Whether the database ever had a row that refers to a stored file."""
    return has_given_ids(connection, REFERRING_TABLES)


def columns_of(connection: sqlite3.Connection, table: str) -> set[str]:
    """The columns of a table; none if it does not exist."""
    return {str(name) for (name,) in connection.execute("SELECT name FROM pragma_table_info(?)", (table,))}


def _select(connection: sqlite3.Connection, conditions: dict[str, str]) -> set[BlobKey]:
    found: set[BlobKey] = set()
    for table, condition in conditions.items():
        if columns_of(connection, table):  # a service that was killed at its first start leaves no tables
            rows: Iterable[tuple[str, str]] = connection.execute(
                f"SELECT DISTINCT tenant, sha256 FROM {table} {condition}"  # noqa: S608 - constants
            )
            found.update((str(tenant), str(sha256)) for tenant, sha256 in rows)
    return found
