"""Copies of the checked-in data directories that an earlier commit wrote; see fixtures/SOURCES.md."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from ragsvc.crypto.at_rest import MasterKey
from ragsvc.store.data_keys import DATABASE_FILE_NAME, open_data_keys

_FOLDER = Path(__file__).resolve().parents[2] / "fixtures" / "data_directories" / "before_migrations"
KINDS = ("plain", "encrypted")


class OldDirectory:
    """A copy of a data directory, with its keys and the ids of its documents."""

    def __init__(self, kind: str, target: Path) -> None:
        shutil.copytree(_FOLDER / kind, target)
        facts = json.loads((_FOLDER / f"{kind}.json").read_text())
        self.path = target
        self.database = target / DATABASE_FILE_NAME
        self.backup = target / f"{DATABASE_FILE_NAME}.before-0002"
        self.key: str = facts["key"]
        self.admin_key: str = facts["admin_key"]
        self.documents: dict[str, str] = {name: facts[name] for name in ("pdf", "text", "failed", "unfinished")}
        self.master_key: str | None = facts["master_key"]

    @property
    def settings(self) -> dict[str, str]:
        """Environment variables that a service needs to open the directory."""
        return {} if self.master_key is None else {"RAGSVC_MASTER_KEY": self.master_key}

    @property
    def database_key(self) -> bytes | None:
        """The SQLCipher key of the database, ``None`` if it is not encrypted."""
        master = None if self.master_key is None else MasterKey.from_bytes(self.master_key.encode())
        keys = open_data_keys(self.path, master)
        return None if keys is None else keys.database_key
