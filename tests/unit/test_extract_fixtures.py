"""fixtures/SOURCES.md names every fixture of documents/ and dirty/, with its hash."""

from __future__ import annotations

import hashlib
from pathlib import Path

FIXTURES = Path(__file__).parents[2] / "fixtures"


def test_every_pdf_has_its_origin_licence_and_hash():
    rows = [
        [cell.strip().strip("`") for cell in line.strip("|\n").split("|")]
        for line in (FIXTURES / "SOURCES.md").read_text().splitlines()
        if line.startswith("|") and ".pdf |" in line
    ]
    named = {row[0]: row for row in rows}
    present = {path.relative_to(FIXTURES).as_posix() for path in FIXTURES.rglob("*.pdf")}
    assert set(named) == present
    for name, (_, origin, licence, digest) in named.items():
        assert origin
        assert licence
        assert hashlib.sha256((FIXTURES / name).read_bytes()).hexdigest() == digest
