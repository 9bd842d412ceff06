"""Writes downloads to files."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replaced_file(target: Path) -> Generator[BinaryIO]:
    """A file to write that replaces ``target`` at the end of the block; after an exception, ``target`` is unchanged.

    Raises:
        OSError: the file cannot be written.
    """
    part = target.with_name(f"{target.name}.part")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
