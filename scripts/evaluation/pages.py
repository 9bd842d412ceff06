"""Compare the text that is stored of PDF pages with what text recognition reads in the pictures of the pages.

    scripts/evaluate_pages FOLDER… [--every N] [--bound B] [--cache DIR] [--json FILE]

Prints the pages on which the two differ. Both are compared by the runs of four letters or digits in their lines,
without spaces and case, so that neither the order of blocks nor the spaces of the recogniser count. ``found`` is the
share of the picture's runs that the stored text has, ``seen`` the share of the text's runs that the picture has. A page
differs if one of them is below the bound. Pages with little recognised text are not compared.

Recognised texts are kept in the cache, so that another version of ragsvc can be compared in a fraction of the time.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pypdfium2

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from ragsvc.core.errors import ExtractionFailed
from ragsvc.core.ports.parsing import ExtractionLimits
from ragsvc.extract.ocr_pages import render_and_recognise
from ragsvc.extract.pdf_pages import PageReports
from ragsvc.extract.read_file import extract

RUN = 4
FEWEST_CHARACTERS = 60
SURE = 0.8
LETTERS_AND_DIGITS = re.compile(r"[^\W_]+")


class PageComparison(msgspec.Struct):
    """How well the stored text and the picture of a page agree; shares from 0 to 1. Pages count from 1."""

    file: str
    page: int
    found: float
    seen: float


def compare(stored: str, picture: str) -> tuple[float, float]:
    """The share of the picture's runs in the stored text, and of the text's runs in the picture."""
    return share_found(picture, stored), share_found(stored, picture)


def share_found(text: str, other: str) -> float:
    """The share of the runs inside the lines of a text that another text has anywhere, also across its lines."""
    others = plain(other)
    runs = [
        line[start : start + RUN]
        for line in map(plain, text.splitlines())
        if line
        for start in range(max(1, len(line) - RUN + 1))
    ]
    known = {others[start : start + RUN] for start in range(len(others) - RUN + 1)}
    return sum(run in known or (len(run) < RUN and run in others) for run in runs) / max(1, len(runs))


def plain(text: str) -> str:
    return "".join(LETTERS_AND_DIGITS.findall(text.lower()))


def picture_texts(file: Path, pages: range, cache: Path) -> dict[int, str]:
    """What is recognised in the pictures of pages (from 0) of a file without a password."""
    kept = cache / f"{hashlib.sha256(file.read_bytes()).hexdigest()}.json"
    known: dict[str, str] = json.loads(kept.read_text()) if kept.is_file() else {}
    with pypdfium2.PdfDocument(file) as document:
        for index in range(len(document))[pages.start :: pages.step]:
            if str(index) not in known:
                recognised = render_and_recognise(document.raw, index)
                lines = recognised[1].lines if recognised else []
                known[str(index)] = "\n".join(line.text for line in lines if line.score >= SURE)
        kept.write_text(json.dumps(known))
        return {index: known[str(index)] for index in range(len(document))[pages.start :: pages.step]}


def stored_texts(file: Path) -> list[str]:
    reports = PageReports(on_progress=lambda done, total: None)
    limits = ExtractionLimits()
    extraction = extract(
        file, media_type="application/pdf", filename=file.name, password=None, limits=limits, reports=reports
    )
    return [page.text for page in extraction.pages]


def compare_file(file: Path, *, every: int, cache: Path) -> Iterator[PageComparison]:
    """Compare every nth page; none of a file that cannot be read."""
    try:
        stored = stored_texts(file)
        pictures = picture_texts(file, range(0, len(stored), every), cache)
    except (ExtractionFailed, pypdfium2.PdfiumError):
        return
    for index, picture in pictures.items():
        if len(picture) >= FEWEST_CHARACTERS and index < len(stored):
            yield PageComparison(file.name, index + 1, *compare(stored[index], picture))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--every", type=int, default=1, help="compare every nth page")
    parser.add_argument("--bound", type=float, default=0.75)
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache/ragsvc/page-pictures")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    compared: list[PageComparison] = []
    for file in sorted(file for folder in arguments.folders for file in folder.rglob("*.pdf")):
        for page in compare_file(file, every=arguments.every, cache=arguments.cache):
            compared.append(page)
            if min(page.found, page.seen) < arguments.bound:
                print(f"{page.file}, page {page.page}: found {page.found:.2f}, seen {page.seen:.2f}", flush=True)
    differing = sum(min(page.found, page.seen) < arguments.bound for page in compared)
    print(f"{differing} of {len(compared)} pages differ by more than the bound of {arguments.bound}")
    if arguments.json:
        arguments.json.write_bytes(msgspec.json.encode(compared))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
