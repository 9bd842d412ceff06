"""Every format through the real child process: real files, files cut off, and hostile files within the limits."""

from __future__ import annotations

import io
from pathlib import Path

import anyio
from PIL import Image

from ragsvc.core import file_types
from ragsvc.core.errors import ExtractionFailed, FailureReason
from ragsvc.core.ports.parsing import ExtractionLimits
from ragsvc.extract.child_protocol import ChunkingPlan
from ragsvc.extract.parser import ChildParser
from tests.support.office_files import docx, epub, paragraph, xlsx

FIXTURES = Path(__file__).parents[2] / "fixtures/formats"
REAL = sorted(FIXTURES.iterdir())
PLAN = ChunkingPlan("ragsvc.core.text.chunking:split_pages", "tests.support.parser_plans:load_words", "unused")
KEEP_TEXT = {".csv", ".html", ".eml", ".pdf"}


def parse(*paths, **limits):
    """The parsed files, or the failures, of one child."""

    async def run():
        parser = ChildParser(ExtractionLimits(max_attachments=100, **limits), chunk=PLAN, workers=1)
        found = []
        try:
            for path in paths:
                kind = file_types.MEDIA_TYPES_BY_SUFFIX[path.suffix]
                try:
                    found.append(await parser.parse(path, media_type=kind, filename=path.name))
                except ExtractionFailed as failure:
                    found.append(failure)
            pids = parser.pids
        finally:
            await parser.close()
        return found, pids

    return anyio.run(run)


def test_real_files_of_every_format_give_passages_that_stand_on_their_pages():
    found, _ = parse(*REAL)
    suffixes = [path.suffix for path in REAL]
    for suffix in (".docx", ".xlsx", ".pptx", ".epub", ".html", ".csv", ".eml"):
        assert suffixes.count(suffix) >= 3
    assert {".png", ".jpg", ".tif"} <= set(suffixes)
    for path, parsed in zip(REAL, found, strict=True):
        assert not isinstance(parsed, ExtractionFailed), (path.name, parsed.message)
        assert parsed.passages, path.name
        for passage in parsed.passages:
            page = parsed.extraction.pages[passage.page - 1]
            assert passage.text == page.text[passage.start : passage.end]
            assert passage.page_label == page.label


def test_files_cut_off_fail_with_a_reason_or_keep_what_is_left(tmp_path):
    paths = []
    for path in REAL:
        data = path.read_bytes()
        paths.append(tmp_path / path.name)
        paths[-1].write_bytes(data[: len(data) * (9 if path.suffix in KEEP_TEXT else 3) // 10])
    found, pids = parse(*paths)
    assert len(pids) == 1  # no child crashed
    for path, parsed in zip(paths, found, strict=True):
        if path.name == "utf8.html":  # its body begins in the part that is cut off
            assert parsed.reason is FailureReason.NO_TEXT
        elif path.suffix in KEEP_TEXT:
            assert not isinstance(parsed, ExtractionFailed), path.name
        else:
            assert isinstance(parsed, ExtractionFailed), path.name
            assert parsed.reason is FailureReason.DAMAGED
            assert parsed.message.endswith(".")


def picture(kind, size, **options):
    buffer = io.BytesIO()
    Image.new("1", size, 1).convert("L").save(buffer, kind, **options)
    return buffer.getvalue()


def test_hostile_files_are_refused_within_the_limits_and_harm_no_other(tmp_path):
    hostile = {
        "bomb.docx": docx(paragraph("x") + " " * (260 << 20)),
        "bomb.xlsx": xlsx({"a": f"<sheetData><row><c><v>1</v></c></row></sheetData>{' ' * (260 << 20)}"}),
        "bomb.epub": epub({"a": "<p>x</p>" + " " * (260 << 20)}),
        "bomb.png": picture("PNG", (20_000, 20_000)),
        "bomb.tif": picture("TIFF", (20_000, 20_000), compression="tiff_deflate"),
        "good.docx": docx(paragraph("Still read.")),
    }
    paths = []
    for name, data in hostile.items():
        paths.append(tmp_path / name)
        paths[-1].write_bytes(data)
    found, pids = parse(*paths, memory_bytes=1 << 30, timeout_s=60)
    *refused, good = found
    assert [failure.reason for failure in refused] == [FailureReason.OUT_OF_MEMORY] * 5
    assert all("limit" in failure.message for failure in refused)
    assert good.extraction.pages[0].text == "Still read."
    assert len(pids) == 1


def test_attached_files_come_through_in_pieces_and_only_within_the_limits():
    path = FIXTURES / "deep-attachments.pdf"
    (parsed,), _ = parse(path)
    assert [(file.name, file.data[:5], len(file.data)) for file in parsed.extraction.attached_files] == [
        ("files/orig(10).pdf", b"%PDF-", 6162)
    ]
    (parsed,), _ = parse(path, max_attachment_bytes=6000)
    assert parsed.extraction.attached_files == []
    assert "files/orig(10).pdf" in parsed.extraction.attachments


def test_pictures_need_text_recognition():
    (failure,), _ = parse(FIXTURES / "words.png", ocr=False)
    assert failure.reason is FailureReason.NO_TEXT
    assert "OCR" in failure.message
