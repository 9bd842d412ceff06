"""An earlier revision of the service as a worktree, so that one run measures it and the present state in turn."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


@contextmanager
def checked_out(revision: str) -> Generator[Path]:
    """A folder with the files of a revision; or that folder itself, if ``revision`` is a folder with a checkout.

    Programs are run with the Python of the benchmark, from this folder, so that they import its package.
    """
    folder = Path(revision)
    if (folder / "ragsvc" / "__init__.py").is_file():
        yield folder.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="ragsvc-base-") as parent:
        folder = Path(parent, "base")
        added = subprocess.run(
            ["git", "worktree", "add", "--quiet", "--detach", str(folder), revision],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        if added.returncode:
            sys.exit(f"--base {revision}: {added.stderr.strip()}")
        try:
            yield folder
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(folder)], cwd=ROOT, check=False)
