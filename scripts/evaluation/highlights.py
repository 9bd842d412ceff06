"""Compare the rectangles of cited quotes with what text recognition reads inside them.

    scripts/evaluate_highlights FOLDER [--cache FOLDER] [--most N] [--scans N] [--json FILE]

A citation is made as the service makes it: on a page that is known to answer a question (mmlong, ERC2), the words that
best support the question are quoted. The rectangles of the quote are cut out of the drawn page, each is recognised as
one line, and the letters and digits of all are compared with those of the quote. A rectangle set is exact if it has
``FEWEST`` of the quote's letters in order, and few others. Some pages are cited again as scans, upright, skewed and
turned, whose text is recognised.

The texts of the documents are kept in the cache.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from ragsvc.core.answers.citations import best_support
from ragsvc.core.documents import ProblemCode, StoredPassage
from ragsvc.core.errors import ExtractionFailed
from ragsvc.core.ids import DocumentId, PassageId
from ragsvc.core.page_views import ShownBox, TextStretch
from ragsvc.core.ports.parsing import ExtractionLimits
from ragsvc.extract.ocr import open_recogniser
from ragsvc.extract.page_pictures import draw_page_picture
from ragsvc.extract.pdf_pages import PageReports
from ragsvc.extract.quote_boxes import find_page_boxes
from ragsvc.extract.read_file import extract
from ragsvc.extract.text_alignment import letters_of
from ragsvc.testing.pdf_builder import make_scan

FEWEST = 0.9
MOST_OTHERS = 0.15
WIDTH = 2000
WINDOW = 1500
PADDING = 0.15
EDGE = 24
_OCR_PAGES = 8


class ReadPage(msgspec.Struct):
    """The stored text of a page, and whether text recognition contributed to it."""

    text: str
    recognised: bool


class HighlightCheck(msgspec.Struct):
    """How well the recognised text of the rectangles agrees with the quote; shares from 0 to 1."""

    file: str
    page: int
    kind: str
    quote: str
    seen: str
    found: float
    others: float
    boxes: int

    @property
    def exact(self) -> bool:
        return self.found >= FEWEST and self.others <= MOST_OTHERS


class AskedPage(msgspec.Struct, frozen=True):
    """A page that answers a question."""

    file: Path
    page: int
    question: str


def asked_pages(data: Path) -> Iterator[AskedPage]:
    """Questions and the first page that answers each, without repeated pages."""
    seen: set[tuple[Path, int]] = set()
    for line in (data / "erc2/questions.jsonl").read_text().splitlines():
        asked = json.loads(line)
        for pool in asked["reference_pools"]:
            for place in pool:
                key = (data / "erc2/documents" / place["document"], place["page"])
                if key[0].is_file() and key not in seen:
                    seen.add(key)
                    yield AskedPage(*key, asked["question"])
    for line in (data / "mmlong/questions.jsonl").read_text().splitlines():
        asked = json.loads(line)
        for page in asked["evidence_pages"]:
            key = (data / "mmlong/documents" / asked["doc_id"], page)
            if key[0].is_file() and key not in seen:
                seen.add(key)
                yield AskedPage(*key, asked["question"])


def read_pages(file: Path, cache: Path, *, ocr_pages: int = _OCR_PAGES) -> list[ReadPage]:
    """The pages of a file as the service stores them."""
    kept = cache / f"highlights-{hashlib.sha256(file.read_bytes()).hexdigest()}.json"
    if kept.is_file():
        return msgspec.json.decode(kept.read_bytes(), type=list[ReadPage])
    limits = ExtractionLimits(ocr_max_pages=ocr_pages)
    reports = PageReports(on_progress=lambda *_: None)
    try:
        extraction = extract(
            file, media_type="application/pdf", filename=file.name, password=None, limits=limits, reports=reports
        )
    except ExtractionFailed:
        return []
    recognised = {
        number
        for problem in extraction.problems
        if problem.code == ProblemCode.OCR_USED
        for number in range(problem.first_page, problem.last_page + 1)
    }
    pages = [ReadPage(page.text, page.number in recognised) for page in extraction.pages]
    kept.write_bytes(msgspec.json.encode(pages))
    return pages


def quote_in(text: str, question: str) -> tuple[int, int] | None:
    """The characters of a page that a citation would quote for a question."""
    windows = [(start, text[start : start + WINDOW]) for start in range(0, max(1, len(text)), WINDOW)]
    asked = {word for word in question.lower().split() if len(word) > 3}
    start, window = max(windows, key=lambda item: sum(word in item[1].lower() for word in asked))
    if not window.strip():
        return None
    first, last = best_support(question, _passage(window))
    quote = window[first:last]
    first += len(quote) - len(quote.lstrip())
    last -= len(quote) - len(quote.rstrip())
    return (start + first, start + last) if len(letters_of(window[first:last])) >= 8 else None


def _passage(text: str) -> StoredPassage:
    return StoredPassage(PassageId(1), DocumentId(1), "doc_1", "file.pdf", None, 1, None, 0, len(text), text, (), 0)


def check(file: Path, page: int, read: ReadPage, stretch: tuple[int, int], kind: str) -> HighlightCheck:
    """Recognise the inside of the rectangles of a stretch of a page."""
    start, end = stretch
    wanted = TextStretch(read.text, start, end, recognised=read.recognised)
    found, _ = find_page_boxes(file, page, wanted, password=None, known=None)
    picture = draw_page_picture(file, page, WIDTH)
    pixels = np.ascontiguousarray(np.asarray(Image.open(io.BytesIO(picture.png)).convert("RGB"))[:, :, ::-1])
    seen = " ".join(_read_inside(pixels, box, several_lines=read.recognised) for box in found.boxes)
    quote = read.text[start:end]
    letters, others = comparable(quote), comparable(seen)
    matcher = difflib.SequenceMatcher(None, letters, others, autojunk=False)
    same = sum(block.size for block in matcher.get_matching_blocks())
    return HighlightCheck(
        file=file.name,
        page=page,
        kind=kind,
        quote=quote,
        seen=seen,
        found=round(same / max(1, len(letters)), 3),
        others=round(max(0, len(others) - same) / max(1, len(letters)), 3),
        boxes=len(found.boxes),
    )


def comparable(text: str) -> str:
    """Letters and digits; I, l and 1, and O and 0, are the same: a single line does not tell them apart."""
    return letters_of(text.replace("|", "1")).lower().translate(str.maketrans("ilo", "110"))


def _read_inside(pixels: np.ndarray, box: ShownBox, *, several_lines: bool) -> str:
    """Recognise the inside of a rectangle with a narrow margin; a tall one is turned.

    The rectangles of recognised pages contain ``several_lines`` where lines are skewed or close to each other.
    """
    rows, columns = pixels.shape[:2]
    height, width = box.height * rows, box.width * columns
    margin = max(2.0, PADDING * min(height, width) * 2)
    top, bottom = int(box.top * rows - margin), int((box.top + box.height) * rows + margin)
    left, right = int(box.left * columns - 2), int((box.left + box.width) * columns + 3)
    crop = pixels[max(0, top) : bottom, max(0, left) : right]
    if min(crop.shape[:2]) < 3:
        return ""
    crop = np.pad(crop, ((0, 0), (EDGE, EDGE), (0, 0)), mode="edge")  # the engine misses letters at the very edge
    if several_lines:
        page = np.pad(crop, ((EDGE, EDGE), (EDGE, EDGE), (0, 0)), constant_values=255)
        return _read_lines(page)
    if height > 2.5 * width:
        texts = [open_recogniser().read_line(np.ascontiguousarray(np.rot90(crop, turns))) for turns in (1, 3)]
        return max(texts, key=len)
    return open_recogniser().read_line(np.ascontiguousarray(crop))


def _read_lines(image: np.ndarray) -> str:
    """Recognise an image with one or several lines, from top to bottom; a turned one is made upright."""
    found = open_recogniser().read(image)
    if found.turns:
        found = open_recogniser().read(np.ascontiguousarray(np.rot90(image, -found.turns)))
    lines = sorted(found.lines, key=lambda line: sum(y for _, y in line.corners))
    return " ".join(line.text for line in lines)


def scanned(asked: AskedPage, number: int, folder: Path) -> tuple[Path, str]:
    """A scan of a page: upright, skewed or turned."""
    kind, turns, skew = [("scan", 0, 0.0), ("scan, skewed", 0, 0.7), ("scan, turned", 1, 0.0)][number % 3]
    path = folder / f"{kind} of {asked.file.stem[:40]} p{asked.page}.pdf"
    path.write_bytes(make_scan(asked.file, asked.page, dpi=200, turns=turns, skew=skew))
    return path, kind


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with mmlong and erc2")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "ragsvc-highlights")
    parser.add_argument("--most", type=int, default=200, help="citations of pages as they are")
    parser.add_argument("--scans", type=int, default=30, help="further citations of scans")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    os.nice(10)
    begin = time.monotonic()
    checks: list[HighlightCheck] = []
    cited: list[AskedPage] = []
    for asked in asked_pages(options.data):
        pages = read_pages(asked.file, options.cache)
        stretch = quote_in(pages[asked.page - 1].text, asked.question) if asked.page <= len(pages) else None
        if stretch is None:
            continue
        read = pages[asked.page - 1]
        checks.append(check(asked.file, asked.page, read, stretch, "recognised" if read.recognised else "text"))
        cited.append(asked)
        print(".", end="", flush=True)
        if len(checks) >= options.most:
            break
    with tempfile.TemporaryDirectory() as folder:
        for number, asked in enumerate(cited[:: max(1, len(cited) // max(1, options.scans))][: options.scans]):
            path, kind = scanned(asked, number, Path(folder))
            pages = read_pages(path, options.cache)
            stretch = quote_in(pages[0].text, asked.question) if pages else None
            if stretch is not None:
                checks.append(check(path, 1, pages[0], stretch, kind))
            print("s", end="", flush=True)
    print()
    for kind in sorted({item.kind for item in checks}):
        of_kind = [item for item in checks if item.kind == kind]
        print(f"{kind:14s} {sum(item.exact for item in of_kind):4d} of {len(of_kind):4d} exact")
    exact = sum(item.exact for item in checks)
    print(f"{'all':14s} {exact:4d} of {len(checks):4d} exact ({exact / max(1, len(checks)):.1%})")
    print(f"{time.monotonic() - begin:.0f} s")
    for item in checks:
        if not item.exact:
            print(
                f"\n{item.kind}: {item.file} page {item.page}: found {item.found}, others {item.others}, "
                f"{item.boxes} boxes"
            )
            print(f"  quote: {' '.join(item.quote.split())}\n  seen:  {item.seen}")
    if options.json is not None:
        options.json.write_bytes(msgspec.json.encode(checks))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
