"""Pictures of pages are recognised, whatever their format, colours and orientation."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ragsvc.core import file_types
from ragsvc.core.errors import ExtractionFailed, FailureReason
from ragsvc.core.ports.parsing import ExtractionLimits
from ragsvc.extract.pdf_pages import PageReports
from ragsvc.extract.read_file import extract

FIXTURES = Path(__file__).parents[2] / "fixtures/formats"


def read(path, **limits):
    return extract(
        path,
        media_type=file_types.MEDIA_TYPES_BY_SUFFIX[path.suffix],
        filename=path.name,
        password=None,
        limits=ExtractionLimits(**limits),
        reports=PageReports(on_progress=lambda done, total: None),
    )


@pytest.fixture(scope="module")
def words():
    return Image.open(FIXTURES / "words.jpg").convert("RGB")


def transparent(image):
    alpha = 255 - np.asarray(image.convert("L"))
    black = np.zeros((*alpha.shape, 3), np.uint8)
    return Image.fromarray(np.dstack([black, alpha]), "RGBA")


@pytest.mark.parametrize(
    ("suffix", "change", "options"),
    [
        (".webp", lambda image: image, {"lossless": True}),
        (".png", transparent, {}),
        (".png", lambda image: image.convert("P"), {}),
        (".png", lambda image: Image.fromarray(np.asarray(image.convert("L"), np.uint16) * 200), {}),
        (".tif", lambda image: image.convert("1"), {"compression": "group4"}),
        (".tif", lambda image: image.convert("CMYK"), {}),
        (".jpg", lambda image: image.transpose(Image.Transpose.ROTATE_90), {"turned": True}),
    ],
)
def test_a_picture_in_any_mode_is_recognised(tmp_path, words, suffix, change, options):
    path = tmp_path / f"page{suffix}"
    image = change(words)
    if options.pop("turned", False):
        options = {"exif": image.getexif()}
        options["exif"][0x0112] = 6  # the camera was turned: show it rotated by 90 degrees clockwise
    image.save(path, **options)
    extraction = read(path)
    assert extraction.pages[0].text.split() == ["Apache", "Tika", "OCR", "Testing"]
    assert [problem.code for problem in extraction.problems] == ["ocr_used"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("words.jpg", "OCR Testing"), ("words.png", "The quick brown fox"), ("pages.tif", "Page 2")],
)
def test_real_pictures(name, expected):
    extraction = read(FIXTURES / name)
    assert expected in extraction.pages[-1].text
    assert extraction.page_count == (2 if name == "pages.tif" else 1)


def test_pages_of_a_tiff_beyond_the_limit_and_damaged_pages_are_noted(tmp_path):
    extraction = read(FIXTURES / "pages.tif", ocr_max_pages=1)
    assert [page.text[:9] for page in extraction.pages] == ["Multipage", ""]
    assert ("not_read", 2) in [(problem.code, problem.first_page) for problem in extraction.problems]
    cut = tmp_path / "cut.tif"
    cut.write_bytes((FIXTURES / "pages.tif").read_bytes()[:100_000])
    extraction = read(cut)
    assert ("page_unreadable", 2) in [(problem.code, problem.first_page) for problem in extraction.problems]


def test_a_blank_picture_has_no_text(tmp_path):
    buffer = io.BytesIO()
    Image.new("RGB", (400, 400), "white").save(buffer, "PNG")
    (tmp_path / "blank.png").write_bytes(buffer.getvalue())
    with pytest.raises(ExtractionFailed) as caught:
        read(tmp_path / "blank.png")
    assert caught.value.reason is FailureReason.NO_TEXT
