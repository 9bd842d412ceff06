"""A rotation of the master key that is interrupted by a crash."""

from pathlib import Path

import pytest

from ragsvc.core.errors import ConfigurationError, CryptoFailure
from ragsvc.crypto.at_rest import MasterKey, MasterKeys, add_key
from ragsvc.store.data_keys import KEY_FILE_CONTEXT, KEY_FILE_NAME, create_data_keys, open_data_keys
from ragsvc.store.encrypt_directory import rotate_master_key
from ragsvc.store.sqlite_database import SqliteDatabase

pytest.importorskip("sqlcipher3")

OLD, NEW = MasterKey.from_bytes(b"o" * 32), MasterKey.from_bytes(b"n" * 32)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    keys = create_data_keys(tmp_path, MasterKeys(OLD))
    SqliteDatabase(tmp_path / "ragsvc.sqlite", key=keys.database_key).close()
    return tmp_path


def test_an_interrupted_rotation_opens_with_neither_key_until_it_is_finished(data_dir: Path) -> None:
    with (data_dir / KEY_FILE_NAME).open("r+b") as file:
        add_key(file, MasterKeys(NEW, OLD), context=KEY_FILE_CONTEXT)
    for key in (OLD, NEW):
        with pytest.raises(ConfigurationError, match="rotate-key"):
            open_data_keys(data_dir, key)
    assert rotate_master_key(data_dir, OLD, NEW) == 1
    assert open_data_keys(data_dir, NEW) is not None
    with pytest.raises((ConfigurationError, CryptoFailure)):
        open_data_keys(data_dir, OLD)


def test_a_finished_rotation_has_nothing_left_to_do(data_dir: Path) -> None:
    assert rotate_master_key(data_dir, OLD, NEW) == 1
    assert rotate_master_key(data_dir, OLD, NEW) == 0
