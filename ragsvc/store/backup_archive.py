"""A backup archive: pieces of files, named by their SHA-256, and a manifest for each snapshot.

A piece is stored once, however many files and snapshots contain it. A snapshot exists when its manifest does: the
manifest is written last, after every piece of it is durable. An interrupted backup leaves unused pieces only, which the
next removal of old snapshots deletes. The archive knows nothing about databases or documents.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Final, Literal

import msgspec
from filelock import FileLock, Timeout

from ragsvc.core.errors import BackupDamaged, ConfigurationError, Conflict
from ragsvc.store.durable_names import sync_folder

PIECE_BYTES: Final = 1 << 20
"""A multiple of SQLite's page size, so that a changed page of a database changes one piece."""
_MARKER: Final = "ragsvc-backup.json"
_FORMAT: Final = 1
_MANIFESTS: Final = "snapshots"
_PIECES: Final = "pieces"
_SCRATCH: Final = ".scratch"


class ArchivedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file of a snapshot: its path in the data directory, and its content as a list of pieces."""

    path: str
    size_bytes: int
    modified_ns: int
    pieces: tuple[str, ...]


class BackupManifest(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a snapshot. ``missing`` are the paths of files that the database names and the disk lacked.

    ``directory_id`` and ``data_dir`` name the data directory. Snapshots of earlier releases have neither. ``files_at``
    is where the uploaded files are if they are not in the data directory, and then not in the snapshot either.
    """

    format: Literal[1] = _FORMAT
    id: str
    created_at: str
    release: str
    encrypted: bool
    documents: int
    files: tuple[ArchivedFile, ...]
    missing: tuple[str, ...] = ()
    directory_id: str | None = None
    data_dir: str | None = None
    files_at: str | None = None

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)


class _Marker(msgspec.Struct, frozen=True, kw_only=True):
    format: int
    object: str = "ragsvc.backup"
    directory_ids: tuple[str, ...] = ()
    """The ids of the data directory whose snapshots the archive takes; empty in archives of earlier releases."""


class BackupArchive:
    """The archive in a folder. ``written_bytes`` counts the bytes of new pieces."""

    def __init__(self, root: Path) -> None:
        """Open an existing archive. Raises ``ConfigurationError`` if the folder holds none that this release reads."""
        self._root = root
        self._touched = set[Path]()
        self.written_bytes = 0
        try:
            marker = msgspec.json.decode((root / _MARKER).read_bytes(), type=_Marker)
        except (OSError, msgspec.MsgspecError) as error:
            raise ConfigurationError([f"{root} holds no backup of ragsvc"]) from error
        if marker.format != _FORMAT:
            raise ConfigurationError(
                [f"{root} holds a backup of format {marker.format}, which this release cannot read"]
            )
        self._directory_ids = marker.directory_ids

    @classmethod
    def create(cls, root: Path) -> BackupArchive:
        """Open the archive in a folder, or begin one in a new or empty folder.

        Raises:
            ConfigurationError: the folder holds other files, or cannot be written.
        """
        try:
            root.mkdir(parents=True, exist_ok=True)
            names = {entry.name for entry in root.iterdir()}
            if _MARKER not in names and names <= {
                _PIECES,
                _MANIFESTS,
                f"{_MARKER}.new",
            }:  # interrupted creations included
                for folder in (_PIECES, _MANIFESTS):
                    (root / folder).mkdir(exist_ok=True)
                _write_durably(root / _MARKER, msgspec.json.encode(_Marker(format=_FORMAT)))
            elif _MARKER not in names:
                raise ConfigurationError([f"{root} holds other files; choose an empty folder for backups"])
        except OSError as error:
            raise ConfigurationError([f"{root} cannot be written ({error.strerror})"]) from error
        return cls(root)

    @contextmanager
    def locked(self) -> Generator[None]:
        """Keep other processes from changing the archive, and remove temporary files of a killed one.

        Raises:
            Conflict: another process changes the archive.
        """
        lock = FileLock(self._root / "backup.lock", timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise Conflict(f"Another process is working on the backup in {self._root}.") from error
        try:
            for leftover in (*self._root.glob(f"*{_SCRATCH}*"), *(self._root / _PIECES).glob("??/*.new")):
                leftover.unlink()
            yield
        finally:
            lock.release()

    def scratch_file(self) -> Path:
        """A path for a temporary file on the disk of the archive; the caller removes the file."""
        return self._root / f"{secrets.token_hex(8)}{_SCRATCH}"

    # -- the data directory -------------------------------------------------------------------------------------

    @property
    def directory_ids(self) -> tuple[str, ...]:
        """The ids of the data directory that the archive belongs to, the newest last."""
        return self._directory_ids

    def belongs_to(self, directory_id: str | None) -> bool:
        """Whether the archive takes snapshots of this directory: it has some of it, or none that names another."""
        return not self._directory_ids or directory_id in self._directory_ids or not self._manifest_paths()

    def assign(self, directory_id: str | None, *, add: bool) -> None:
        """Let the archive belong to a directory; with ``add`` to the directories of before as well."""
        if directory_id is None or directory_id in self._directory_ids:
            return
        former = self._directory_ids if add else ()
        marker = _Marker(format=_FORMAT, directory_ids=(*former, directory_id))
        _write_durably(self._root / _MARKER, msgspec.json.encode(marker))
        self._directory_ids = marker.directory_ids

    # -- snapshots ----------------------------------------------------------------------------------------------

    def manifests(self) -> list[BackupManifest]:
        """All snapshots, oldest first. Raises ``BackupDamaged`` if a manifest cannot be read."""
        return [self._manifest(path) for path in self._manifest_paths()]

    def manifest(self, snapshot: str | None) -> BackupManifest:
        """One snapshot, by default the newest. Raises ``ConfigurationError`` if it does not exist."""
        paths = self._manifest_paths()
        if not paths:
            raise ConfigurationError([f"{self._root} holds no finished backup"])
        if snapshot is None:
            return self._manifest(paths[-1])
        for path in paths:
            if path.stem == snapshot:
                return self._manifest(path)
        raise ConfigurationError([f"{self._root} holds no snapshot '{snapshot}'; it holds {_names(paths)}"])

    def newest(self) -> BackupManifest | None:
        """The newest snapshot, if there is one that can be read."""
        try:
            return self.manifest(None)
        except (BackupDamaged, ConfigurationError):
            return None

    def free_id(self, wanted: str) -> str:
        """``wanted``, or with a number if a snapshot has this id."""
        taken = {path.stem for path in self._manifest_paths()}
        names = (wanted, *(f"{wanted}-{number}" for number in range(2, len(taken) + 3)))
        return next(name for name in names if name not in taken)

    def commit(self, manifest: BackupManifest) -> None:
        """Make a snapshot of pieces that were added before."""
        for folder in sorted(self._touched):
            sync_folder(folder)
        self._touched.clear()
        sync_folder(self._root / _PIECES)
        _write_durably(self._root / _MANIFESTS / f"{manifest.id}.json", msgspec.json.encode(manifest))

    def remove_old(self, *, keep: int) -> list[str]:
        """Remove all but the newest ``keep`` snapshots, and pieces that no snapshot contains; returns removed ids."""
        paths = self._manifest_paths()
        removed = paths[: max(0, len(paths) - keep)]
        kept = [self._manifest(path) for path in paths[len(removed) :]]
        for path in removed:
            path.unlink()
        sync_folder(self._root / _MANIFESTS)
        used = {piece for manifest in kept for file in manifest.files for piece in file.pieces}
        for path in (self._root / _PIECES).glob("??/*"):
            if path.name not in used:
                path.unlink()
        return [path.stem for path in removed]

    def _manifest_paths(self) -> list[Path]:
        return sorted((self._root / _MANIFESTS).glob("*.json"), key=lambda path: _natural(path.stem))

    def _manifest(self, path: Path) -> BackupManifest:
        try:
            return msgspec.json.decode(path.read_bytes(), type=BackupManifest)
        except msgspec.MsgspecError as error:
            raise BackupDamaged(f"The snapshot {path.name} of the backup cannot be read.") from error

    # -- files --------------------------------------------------------------------------------------------------

    def add(self, path: Path, name: PurePosixPath, *, known: ArchivedFile | None = None) -> ArchivedFile:
        """Store the pieces of a file that the archive lacks.

        ``known`` is the file in an earlier snapshot: if size and time of modification are unchanged, the content is not
        read again.

        Raises:
            FileNotFoundError: the file does not exist.
        """
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            unchanged = known is not None and (known.size_bytes, known.modified_ns) == (
                status.st_size,
                status.st_mtime_ns,
            )
            if known is not None and unchanged and all(self._piece(piece).exists() for piece in known.pieces):
                return msgspec.structs.replace(known, path=str(name))
            pieces, size_bytes = list[str](), 0
            while content := file.read(PIECE_BYTES):
                pieces.append(self._store(content))
                size_bytes += len(content)
        return ArchivedFile(path=str(name), size_bytes=size_bytes, modified_ns=status.st_mtime_ns, pieces=tuple(pieces))

    def extract(self, file: ArchivedFile, target: Path) -> None:
        """Write a file of a snapshot durably, readable by this user only.

        Raises:
            BackupDamaged: a piece is missing or has other content.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as written:  # noqa: PTH123 - with its mode
            for piece in file.pieces:
                written.write(self._load(piece, file.path))
            written.flush()
            os.fsync(written.fileno())
        if target.stat().st_size != file.size_bytes:
            raise BackupDamaged(f"The backup of {file.path} is incomplete.")

    def _piece(self, sha256: str) -> Path:
        return self._root / _PIECES / sha256[:2] / sha256

    def _store(self, content: bytes) -> str:
        sha256 = hashlib.sha256(content).hexdigest()
        path = self._piece(sha256)
        try:
            status = path.stat()
        except FileNotFoundError:
            status = None
        if status is None or not stat.S_ISREG(status.st_mode) or status.st_size != len(content):
            path.parent.mkdir(exist_ok=True)
            _write_durably(path, content, sync_parent=False)
            self._touched.add(path.parent)
            self.written_bytes += len(content)
        return sha256

    def _load(self, sha256: str, name: str) -> bytes:
        try:
            content = self._piece(sha256).read_bytes()
        except FileNotFoundError as error:
            raise BackupDamaged(f"The backup of {name} is damaged: piece {sha256} is missing.") from error
        if hashlib.sha256(content).hexdigest() != sha256:
            raise BackupDamaged(f"The backup of {name} is damaged: piece {sha256} has other content.")
        return content


def _natural(name: str) -> tuple[str, int]:
    """Orders ``…Z``, ``…Z-2``, ``…Z-10`` by time."""
    stem, _, number = name.partition("-")
    return stem, int(number) if number.isdecimal() else 1


def _names(paths: Sequence[Path]) -> str:
    return ", ".join(path.stem for path in paths)


def _write_durably(path: Path, content: bytes, *, sync_parent: bool = True) -> None:
    written = path.with_name(f"{path.name}.new")
    with open(os.open(written, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:  # noqa: PTH123 - with its mode
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    written.rename(path)
    if sync_parent:
        sync_folder(path.parent)
