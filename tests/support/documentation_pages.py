"""The pages of the documentation, and patterns that find their snippets."""

from __future__ import annotations

import re
from pathlib import Path

from ragsvc.testing.service_runner import ROOT

PAGES = sorted(
    [
        *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")),
        *(ROOT / folder / "README.md" for folder in ("indexes", "findings")),
        *(ROOT / "docs").rglob("*.md"),
    ]
)
FENCE = re.compile(r"^(?: *)```(?P<language>[a-z]*)$(?P<code>.*?)^ *```$", re.MULTILINE | re.DOTALL)
SKIP = re.compile(r"<!-- skip: next(?P<reason>[^>]*)-->")


def page_name(path: Path) -> str:
    """The path of a page in the repository."""
    return path.relative_to(ROOT).as_posix()
