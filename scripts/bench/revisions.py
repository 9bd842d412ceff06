"""Another revision of this repository beside the working tree, so that a benchmark can compare both in one run."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


@contextmanager
def checked_out(revision: str) -> Generator[Path]:
    """The folder of a revision, in a worktree that is removed at the end; ``revision`` may also be such a folder.

    A process that is started there with ``python -m ragsvc`` imports the package of that folder.
    """
    if Path(revision, "ragsvc").is_dir():
        yield Path(revision).resolve()
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "revision"
        subprocess.run(["git", "worktree", "add", "-q", "--detach", folder, revision], cwd=ROOT, check=True)
        try:
            yield folder
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", folder], cwd=ROOT, check=True)
