"""Folders in memory of encrypted data directories."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ragsvc.config import Settings
from ragsvc.crypto.at_rest import MasterKey, MasterKeys
from ragsvc.store.data_keys import DataKeys
from ragsvc.wiring.data_directory import working_folders

KEYS = DataKeys(MasterKeys(MasterKey(b"m" * 32)), b"d" * 32)
KILLED = """
import os, sys
from pathlib import Path
from ragsvc.config import Settings
from ragsvc.crypto.at_rest import MasterKey, MasterKeys
from ragsvc.store.data_keys import DataKeys
from ragsvc.wiring.data_directory import working_folders

keys = DataKeys(MasterKeys(MasterKey(b"m" * 32)), b"d" * 32)
with working_folders(Settings(data_dir=Path(sys.argv[1]), memory_dir=Path(sys.argv[2])), keys) as (_, copies):
    (copies / "text").write_text("a decrypted document")
    os._exit(9)
"""


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    folder = tmp_path / "memory"
    folder.mkdir()
    return folder


def settings(data_dir: Path, memory: Path) -> Settings:
    return Settings(data_dir=data_dir, memory_dir=memory)


def test_two_copies_of_a_directory_are_served_beside_each_other(tmp_path: Path, memory: Path) -> None:
    with working_folders(settings(tmp_path / "original", memory), KEYS) as (_, copies):
        assert copies is not None
        (copies / "text").write_text("a decrypted document")
        with working_folders(settings(tmp_path / "restored", memory), KEYS) as (_, others):
            assert others is not None
            assert (copies / "text").read_text() == "a decrypted document"
            assert list(others.iterdir()) == []
        assert (copies / "text").exists()
    assert list(memory.iterdir()) == []


def test_a_start_removes_what_a_killed_process_left(tmp_path: Path, memory: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), str(memory)], check=False)
    assert killed.returncode == 9
    (leftover,) = memory.iterdir()
    with working_folders(settings(tmp_path, memory), KEYS) as (derived, _):
        assert not leftover.exists()
        assert list(memory.iterdir()) == [derived.parent]
    assert list(memory.iterdir()) == []
