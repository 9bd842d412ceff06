"""Where the files of a run's data directories are: ``--files`` of pytest, and what tests see and change there."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path

from ragsvc.config import Settings
from ragsvc.core.ports.file_storage import FileStorage, last_part
from ragsvc.store.blobs import BLOBS, QUARANTINE
from ragsvc.store.local_files import LocalFiles
from ragsvc.wiring.file_storage import CACHE_FOLDER_NAME, connect_file_storage
from tests.support.engines import POSTGRES, bytes_of_rows, engine
from tests.support.s3_server import S3Server, s3_program

DIRECTORY, S3 = "directory", "s3"


class TestFilePlace:
    """The place of this run, and the S3 server of this process, which starts when a test needs it first."""

    __test__ = False

    def __init__(self) -> None:
        self.name = DIRECTORY
        self._folder: Path | None = None
        self._server: S3Server | None = None
        self._bucket: str | None = None
        self._prefixes: dict[Path, str] = {}
        self._serial = itertools.count(1)

    def use(self, name: str) -> None:
        """Choose the place. The credentials go to this process's environment, which services inherit."""
        self.name = name
        if name == S3:
            os.environ.update(S3Server.environment())

    @property
    def server(self) -> S3Server:
        """Skips the test if the server or obstore is not installed."""
        if self._server is None:
            program = s3_program()
            self._folder = Path(tempfile.mkdtemp(prefix="ragsvc-s3-"))
            self._server = S3Server(program, self._folder)
            self._server.start()
        return self._server

    def settings_of(self, data_dir: Path) -> dict[str, str]:
        """Variables of the services and commands that use a data directory; a new path gets a new prefix."""
        if self.name == DIRECTORY:
            return {}
        endpoint = self.server.endpoint
        if self._bucket is None:
            self._bucket = self.server.new_bucket()
        if data_dir not in self._prefixes:
            self._prefixes[data_dir] = f"directory-{next(self._serial)}"
        url = f"s3://{self._bucket}/{self._prefixes[data_dir]}"
        return {"RAGSVC_FILES_URL": url, "RAGSVC_FILES_ENDPOINT": endpoint}

    def close(self) -> None:
        if self._server is not None:
            self._server.stop()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


file_place = TestFilePlace()


def open_files(data_dir: Path, *, cache_folder: Path | None = None) -> FileStorage:
    """The storage of a data directory's files in the place of this run."""
    settings = Settings.from_env({"RAGSVC_DATA_DIR": str(data_dir), **file_place.settings_of(data_dir)})
    if settings.files_url is None:
        return LocalFiles(data_dir)
    return connect_file_storage(settings, cache_folder=cache_folder or data_dir / CACHE_FOLDER_NAME)


class StoredFiles:
    """The stored files of a data directory, in the place of this run; a service may use them meanwhile."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._folder = Path(tempfile.mkdtemp(prefix="ragsvc-stored-"))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._files = open_files(data_dir, cache_folder=self._folder / "copies")

    def names(self, folder: str = BLOBS) -> list[str]:
        """The names of the files below a folder."""
        return [entry.name for entry in self._files.entries(folder)]

    def name_of(self, digest: str) -> str:
        """The name of the one file whose last part is this."""
        (name,) = [name for name in self.names() if last_part(name) == digest]
        return name

    def read(self, name: str) -> bytes:
        """The content of a file as it is stored."""
        with self._files.local_copy(name, verify=lambda _: None, fresh=True) as path:
            return path.read_bytes()

    def contents(self, folder: str = BLOBS) -> Iterator[tuple[str, bytes]]:
        """Name and content of each file below a folder, without those that are deleted meanwhile."""
        for name in self.names(folder):
            with contextlib.suppress(FileNotFoundError):
                yield name, self.read(name)

    def write(self, name: str, content: bytes) -> None:
        """Create or replace a file; a service that runs has no copy of the former one."""
        written = self._folder / "written"
        written.write_bytes(content)
        self._files.put(written, name, is_intact=lambda: False)
        self._forget_copies()

    def delete(self, name: str) -> None:
        """Delete a file; a service that runs has no copy of it."""
        self._files.delete(name)
        self._forget_copies()

    def _forget_copies(self) -> None:
        for copy in (self._data_dir / CACHE_FOLDER_NAME).glob("*"):
            copy.unlink()


def stored_bytes(data_dir: Path, *, rows: bool = True) -> Iterator[tuple[str, bytes]]:
    """Name and content of everything that is kept of a data directory: its files, stored files, and rows elsewhere."""
    for path in data_dir.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
            yield str(path.relative_to(data_dir)), path.read_bytes() if path.is_file() else b""
    if file_place.name != DIRECTORY:
        stored = StoredFiles(data_dir)
        yield from stored.contents()
        yield from stored.contents(QUARANTINE)
    if rows and engine.name == POSTGRES:
        yield "rows", bytes_of_rows(data_dir)
