"""The checks of ``ragsvc doctor``. They are read-only."""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
import shutil
import sqlite3
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from enum import StrEnum
from pathlib import Path

import msgspec
from packaging.requirements import Requirement

from ragsvc import __version__
from ragsvc.config import Settings
from ragsvc.core.byte_sizes import size
from ragsvc.core.errors import ConfigurationError, DataDirectoryLocked, RagsvcError, StorageUnavailable
from ragsvc.core.ids import TenantId
from ragsvc.core.ports.file_storage import last_part
from ragsvc.inference.model_files import BUILT_IN_FINGERPRINT, read_model
from ragsvc.store.backup import list_backups
from ragsvc.store.blob_references import BlobKey, has_stored_anything, referenced_files, required_files
from ragsvc.store.blobs import QUARANTINE, BlobStore
from ragsvc.store.data_keys import DATABASE_FILE_NAME, KEY_FILE_NAME, DataKeys, is_open_to_others
from ragsvc.store.directory_lock import DataDirectoryLock
from ragsvc.store.disk_space import reserve_of
from ragsvc.store.file_sweep import is_suspicious, quarantined_names
from ragsvc.store.migrations import revisions
from ragsvc.store.schema import read_revision
from ragsvc.store.sqlite_database import connect_raw
from ragsvc.store.text_integrity import damaged_texts
from ragsvc.wiring.file_storage import connect_file_storage

_NATIVE = ("faiss", "tantivy", "onnxruntime", "pypdfium2", "cryptography", "tokenizers")
_LITTLE_SPACE = 2 << 30
_LITTLE_SHARE = 0.1
_MANY = 5


class CheckState(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Check(msgspec.Struct, frozen=True):
    """The result of a check; ``words`` is the text for people."""

    name: str
    state: CheckState
    words: str


def installation() -> Iterator[Check]:
    """Checks the version of Python, the versions of the packages, and that native packages can be imported."""
    version = platform.python_version()
    good = sys.version_info >= (3, 11)
    yield Check("ragsvc", CheckState.OK, f"{__version__} on {platform.system()} {platform.machine()}")
    yield Check(
        "python", CheckState.OK if good else CheckState.FAIL, version if good else f"{version}; 3.11 or newer is needed"
    )
    problems, count = _package_problems()
    if problems:
        yield Check("packages", CheckState.FAIL, "; ".join(problems))
    elif not count:
        yield Check("packages", CheckState.WARN, "ragsvc runs from source and is not installed (pip install .)")
    else:
        yield Check("packages", CheckState.OK, f"{count} packages have the required versions")
    for name in _NATIVE:
        try:
            importlib.import_module(name)
        except Exception as error:  # noqa: BLE001 - any failure to import is the result of the check
            yield Check("packages", CheckState.FAIL, f"{name} cannot be imported: {error}")


def _package_problems() -> tuple[list[str], int]:
    try:
        wanted = [Requirement(line) for line in importlib.metadata.requires("ragsvc") or ()]
    except importlib.metadata.PackageNotFoundError:
        return [], 0
    needed = [
        requirement
        for requirement in wanted
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    ]
    problems: list[str] = []
    for requirement in needed:
        try:
            installed = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            problems.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            problems.append(f"{requirement.name} is {installed}, but {requirement.specifier} is required")
    return problems, len(needed)


def model(settings: Settings) -> Iterator[Check]:
    """Hashes the files of the embedding model; a cached hash would not show damage."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            files = read_model(
                settings.embedding_model, data_dir=settings.data_dir, fingerprints=Path(folder, "fingerprints.json")
            )
        except RagsvcError as error:
            yield Check("model", CheckState.FAIL, error.message)
            return
    fingerprint = files.model.fingerprint
    known = " as shipped" if fingerprint == BUILT_IN_FINGERPRINT else ""
    yield Check(
        "model",
        CheckState.OK,
        f"{files.model.name}, {files.model.dimension} dimensions, fingerprint {fingerprint[:16]}…{known}",
    )


def database_file(data_dir: Path) -> Path:
    """The path of the database."""
    return data_dir / DATABASE_FILE_NAME


def postgres(url: str) -> Iterator[Check]:
    """Checks that the database server answers, and that this release can use the schema; changes nothing."""
    from ragsvc.store.postgres_database import describe_postgres  # noqa: PLC0415 - only with PostgreSQL

    try:
        server, revision = describe_postgres(url)
    except RagsvcError as error:
        return iter([Check("database", CheckState.FAIL, error.message)])
    newest = revisions()[-1]
    words = f"PostgreSQL {server}, schema {revision or 'none yet; the first start creates it'}"
    if revision is not None and revision not in revisions():
        return iter([Check("database", CheckState.FAIL, f"{words}, of another release; this one has {newest}")])
    return iter([Check("database", CheckState.OK, words)])


def data_directory(data_dir: Path) -> tuple[list[Check], bool]:
    """Checks existence, permissions, free space and lock; also returns whether a running process holds the lock."""
    if not data_dir.is_dir():
        return [
            Check("data directory", CheckState.OK, f"{data_dir} does not exist yet; the first start creates it")
        ], False
    checks: list[Check] = []
    locked = False
    try:
        lock = DataDirectoryLock(data_dir)
        lock.acquire()
        lock.release()
        checks.append(Check("data directory", CheckState.OK, f"{data_dir.resolve()}, free to use"))
    except DataDirectoryLocked as error:
        locked = True
        checks.append(Check("data directory", CheckState.OK, error.message.split(". ")[0]))
    except OSError as error:
        checks.append(Check("data directory", CheckState.FAIL, f"{data_dir} cannot be written: {error.strerror}"))
    checks += folder(data_dir)
    return checks, locked


def folder(data_dir: Path) -> Iterator[Check]:
    """Checks the permissions of a data directory and its free space."""
    open_to_all = [
        path.name
        for path in (database_file(data_dir), data_dir / "blobs")
        if path.exists() and path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH)
    ]
    if open_to_all and data_dir.stat().st_mode & (stat.S_IXGRP | stat.S_IXOTH):
        words = f"other users can read {', '.join(open_to_all)}; run 'chmod -R go= {data_dir}'"
        yield Check("permissions", CheckState.WARN, words)
    else:
        yield Check("permissions", CheckState.OK, "readable by this user only")
    usage = shutil.disk_usage(data_dir)
    yield disk(total_bytes=usage.total, free_bytes=usage.free)


def disk(*, total_bytes: int, free_bytes: int) -> Check:
    """Compares the free space with the space below which the service refuses uploads.

    >>> disk(total_bytes=64 << 20, free_bytes=26 << 20).words
    '26.0 MiB of 64.0 MiB free; below 1.3 MiB, uploads are refused'
    """
    limit, little = reserve_of(total_bytes), min(_LITTLE_SPACE, total_bytes * _LITTLE_SHARE)
    state = CheckState.FAIL if free_bytes < limit else CheckState.WARN if free_bytes < little else CheckState.OK
    words = f"{size(free_bytes)} of {size(total_bytes)} free; below {size(limit)}, uploads are refused"
    return Check("disk", state, words)


def database(data_dir: Path, keys: DataKeys | None = None) -> Iterator[Check]:
    """Runs SQLite's integrity and foreign key checks, and compares the schema version."""
    try:
        with closing(_open(data_dir, keys)) as connection:
            found = [row[0] for row in connection.execute("PRAGMA quick_check(10)")]
            if found != ["ok"]:
                yield Check("database", CheckState.FAIL, f"damaged: {'; '.join(found[:_MANY])}")
                return
            dangling = connection.execute("PRAGMA foreign_key_check").fetchmany(_MANY)
            revision = read_revision(connection)
    except Exception as error:  # noqa: BLE001 - either driver, any error: the database cannot be read
        yield Check("database", CheckState.FAIL, f"cannot be read: {error}")
        return
    if dangling:
        yield Check("database", CheckState.FAIL, f"rows refer to missing rows: {dangling}")
    elif revision is not None and revision not in revisions():
        newest = revisions()[-1]
        yield Check(
            "database", CheckState.FAIL, f"schema {revision} is unknown or newer than {newest}: use a newer ragsvc"
        )
    else:
        used = size(database_file(data_dir).stat().st_size)
        if revision == revisions()[-1]:
            yield Check("database", CheckState.OK, f"{used}, sound, schema {revision}")
        elif revision is None:
            yield Check("database", CheckState.WARN, f"{used}, no schema; the next start creates it")
        else:
            yield Check("database", CheckState.WARN, f"{used}, sound, schema {revision}; the next start upgrades it")


def encryption(data_dir: Path, key_file: Path | None) -> Check:
    """Whether the data directory is encrypted at rest, and whether other users can read the master key's file."""
    if not (data_dir / KEY_FILE_NAME).exists():
        return Check("encryption at rest", CheckState.OK, "off: database and files are stored in plain")
    if is_open_to_others(key_file):
        words = f"on, but other users can read the master key in {key_file}; run 'chmod 600 {key_file}'"
        return Check("encryption at rest", CheckState.WARN, words)
    return Check("encryption at rest", CheckState.OK, "on: the master key opens the directory")


def has_newest_schema(data_dir: Path, keys: DataKeys | None) -> bool:
    """Whether opening the database with this release leaves its schema unchanged."""
    with closing(_open(data_dir, keys)) as connection:
        return read_revision(connection) == revisions()[-1]


def upgrade_copies(data_dir: Path) -> Iterator[Check]:
    """Warns while a copy from before an upgrade exists: it keeps documents that were deleted after the upgrade."""
    names = [path.name for path in list_backups(database_file(data_dir))]
    if names:
        words = f"{', '.join(names)}: still contains documents that were deleted since; delete it if not needed"
        yield Check("upgrade copies", CheckState.WARN, words)


def files(settings: Settings, keys: DataKeys | None, *, database_dir: Path, deep: bool) -> Iterator[Check]:
    """Checks that documents and stored files correspond; ``deep`` also reads every file and verifies its hash."""
    with tempfile.TemporaryDirectory(prefix="ragsvc-doctor-") as folder:
        try:
            stored = connect_file_storage(settings, cache_folder=Path(folder, "copies"))
            yield from _stored_files(
                BlobStore(settings.data_dir, keys, create=False, files=stored), keys, database_dir, deep=deep
            )
        except (ConfigurationError, StorageUnavailable) as error:
            yield Check("stored files", CheckState.FAIL, f"not compared: {error.message}")


def _stored_files(blobs: BlobStore, keys: DataKeys | None, database_dir: Path, *, deep: bool) -> Iterator[Check]:
    with closing(_open(database_dir, keys)) as connection:
        try:
            has_had_documents = has_stored_anything(connection)
            rows, needed = referenced_files(connection), required_files(connection)
        except Exception:  # noqa: BLE001 - either driver: a database with keys only has no documents table yet
            rows, needed, has_had_documents = set[BlobKey](), set[BlobKey](), False
    place = f" at {blobs.files.location}" if blobs.files.is_elsewhere else ""
    wanted = {blobs.name(TenantId(tenant), sha256): (TenantId(tenant), sha256) for tenant, sha256 in rows}
    present = {entry.name for entry in blobs.entries()}
    required = {blobs.name(TenantId(tenant), sha256) for tenant, sha256 in needed}
    missing, unknown = sorted(required - present), sorted(present - wanted.keys())
    if missing:
        names = ", ".join(last_part(name) for name in missing[:_MANY])
        words = f"{len(missing)} documents or files have no stored file{place}: {names}"
        yield Check("stored files", CheckState.FAIL, words)
    if is_suspicious(unknown=len(unknown), known=len(wanted), has_had_documents=has_had_documents):
        yield Check(
            "stored files",
            CheckState.FAIL,
            f"{len(unknown)} stored files belong to no document: this may not be the database of these files; the next "
            "start leaves them where they are",
        )
    elif unknown:
        yield Check(
            "stored files",
            CheckState.WARN,
            f"{len(unknown)}{place} belong to no document; the next start quarantines them",
        )
    elif not missing:
        yield Check("stored files", CheckState.OK, f"{len(present)}{place}, each belongs to a document")
    if quarantined := quarantined_names(blobs.files):
        place = f"{blobs.files.location}/{QUARANTINE}"
        yield Check("quarantine", CheckState.WARN, f"{len(quarantined)} files without a document in {place}")
    if deep:
        changed = [last_part(name) for name in sorted(wanted.keys() & present) if not blobs.is_intact(*wanted[name])]
        if changed:
            yield Check(
                "file contents",
                CheckState.FAIL,
                f"{len(changed)} files differ from their hash: {', '.join(changed[:_MANY])}",
            )
        else:
            yield Check("file contents", CheckState.OK, "all hashes match")


def texts(data_dir: Path, keys: DataKeys | None) -> Iterator[Check]:
    """Compares the text of every page and passage with its checksum."""
    with closing(_open(data_dir, keys)) as connection:
        if read_revision(connection) != revisions()[-1]:
            yield Check("texts", CheckState.WARN, "not compared: the database has no checksums yet")
            return
        damaged = list(damaged_texts(connection))
    if damaged:
        names = ", ".join(f"{text.kind} {text.page} of {text.document}" for text in damaged[:_MANY])
        words = f"{len(damaged)} differ from their checksum: {names}; delete these documents and upload them again"
        yield Check("texts", CheckState.FAIL, words)
    else:
        yield Check("texts", CheckState.OK, "all checksums match")


def _open(data_dir: Path, keys: DataKeys | None) -> sqlite3.Connection:
    if keys is None:
        location = f"{database_file(data_dir).resolve().as_uri()}?mode=rw"
        connection = sqlite3.connect(location, uri=True, timeout=30)
    else:
        connection = connect_raw(database_file(data_dir), key=keys.database_key)
    connection.execute("PRAGMA query_only=ON")
    return connection
