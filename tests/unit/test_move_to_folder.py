"""Moves of files to a folder that is mounted: interrupted ones, and places of others."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from ragsvc.config import Settings
from ragsvc.core.errors import ConfigurationError, StorageUnavailable
from ragsvc.store.file_location import read_file_location
from ragsvc.store.sqlite_database import SqliteDatabase
from ragsvc.wiring.file_storage import open_file_storage
from ragsvc.wiring.move import MoveResult, move

FILES = {f"blobs/acme/{digit}{digit}/{digit * 64}": f"content {digit}".encode() for digit in "abc"}


class Interrupted(Exception):
    """Ends a move, as a kill does."""


def settings_of(folder: Path, files: dict[str, bytes]) -> Settings:
    """Those of a data directory with an empty database and these files."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    folder.mkdir(exist_ok=True)
    SqliteDatabase(folder / "ragsvc.sqlite").close()
    return Settings.from_env({"RAGSVC_DATA_DIR": str(folder)})


def at(settings: Settings, place: Path) -> Settings:
    return msgspec.structs.replace(settings, files_url=place.as_uri())


def run(present: Settings, future: Settings, *, stop_after: int | None = None) -> MoveResult:
    def show(_what: str, done: int, _total: int) -> None:
        if done == stop_after:
            raise Interrupted

    return move(present, future, from_scratch=False, show=show)


def stored(folder: Path) -> dict[str, bytes]:
    paths = [path for path in (folder / "blobs").rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.fixture
def present(tmp_path: Path) -> Settings:
    return settings_of(tmp_path / "data", FILES)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "mounted").mkdir()
    return tmp_path / "mounted"


def test_no_service_uses_a_place_before_it_has_all_files(present: Settings, place: Path) -> None:
    with pytest.raises(Interrupted):
        run(present, at(present, place), stop_after=2)
    with pytest.raises(ConfigurationError, match="a move was interrupted: run 'ragsvc migrate-to' again"):
        open_file_storage(at(present, place))
    assert read_file_location(present.data_dir) is None
    damaged, *_ = stored(place)
    (place / damaged).write_bytes(b"content X")  # of the same size
    moved = run(present, at(present, place)).files
    assert moved is not None
    assert (moved.files, moved.sent, moved.others) == (3, 2, 0)
    assert stored(place) == FILES
    assert open_file_storage(at(present, place)).is_elsewhere


def test_a_move_that_has_ended_may_be_repeated_and_copies_no_old_file(present: Settings, place: Path) -> None:
    run(present, at(present, place))
    (place / next(iter(FILES))).unlink()  # deleted by the service since
    again = run(present, at(present, place)).files
    assert again is not None
    assert again.files == 0
    assert len(stored(place)) == 2
    back = run(at(present, place), present).files
    assert back is not None
    assert (back.files, back.others) == (2, 1)
    assert read_file_location(present.data_dir) is None


def test_a_folder_that_is_not_mounted_is_no_source(present: Settings, place: Path) -> None:
    run(present, at(present, place))
    place.rename(place.with_name("unmounted"))
    place.mkdir()
    with pytest.raises((ConfigurationError, StorageUnavailable)):
        run(at(present, place), present)
    assert read_file_location(present.data_dir) == place.as_uri()


@pytest.mark.parametrize("way", ["there", "back"])
def test_the_place_of_another_directory_is_refused(present: Settings, place: Path, tmp_path: Path, way: str) -> None:
    other = settings_of(tmp_path / "other", {})
    run(other, at(other, place))
    there = at(present, place)
    with pytest.raises(ConfigurationError, match="of another data directory"):
        run(*((present, there) if way == "there" else (there, present)))
    assert stored(present.data_dir) == FILES
    assert stored(place) == {}


def test_a_directory_that_no_service_has_used_is_refused(tmp_path: Path, place: Path) -> None:
    unused = Settings.from_env({"RAGSVC_DATA_DIR": str(tmp_path / "wrong")})
    with pytest.raises(ConfigurationError, match="is not the data directory of a service"):
        run(unused, at(unused, place))
    assert not (tmp_path / "wrong").exists()
