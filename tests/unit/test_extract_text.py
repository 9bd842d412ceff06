"""Plain text and Markdown."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragsvc.core.documents import ProblemCode
from ragsvc.core.errors import ExtractionFailed, FailureReason
from ragsvc.core.ports.parsing import ExtractionLimits
from ragsvc.extract.pdf_pages import PageReports
from ragsvc.extract.plain_text import decode, split_virtual_pages
from ragsvc.extract.read_file import extract

MARKDOWN = """# Guide

Intro.

```
# no heading
```

Setup
-----

## Steps ##

1. *Install* it.
"""


def read(tmp_path, data, media_type="text/plain", **limits):
    path = tmp_path / "file"
    path.write_bytes(data)
    return extract(
        path,
        media_type=media_type,
        filename="notes.txt",
        password=None,
        limits=ExtractionLimits(**limits),
        reports=PageReports(on_progress=lambda done, total: None),
    )


@pytest.mark.parametrize(
    "data",
    [
        "Grüße aus Köln".encode(),
        "Grüße aus Köln".encode("utf-8-sig"),
        "Grüße aus Köln".encode("utf-16"),
        "Grüße aus Köln".encode("utf-16-le"),
        "Grüße aus Köln".encode("utf-16-be"),
        ("Grüße aus Köln, wo der Rhein am Dom vorbei fließt und die Bürger fröhlich sind. " * 3).encode("latin-1"),
    ],
)
def test_text_is_decoded_whatever_its_encoding(data):
    assert decode(data).text.startswith("Grüße aus Köln")


GERMAN = "Die Miete beträgt 640 Euro. Größere Räume kosten 20 € mehr, zahlbar am Ersten für den Monat. "
CHINESE = "合同期为两年。租金每月六百四十元。"
FRENCH = "Le loyer s'élève à six cent quarante euros, payable à l'échéance, dès l'été prochain. "
RUSSIAN = "Плата составляет шестьсот сорок рублей в месяц и вносится первого числа. "


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (GERMAN.encode() + b"\xff" + GERMAN.encode(), GERMAN + "\ufffd" + GERMAN),
        (CHINESE.encode()[:-1], CHINESE[:-1] + "\ufffd"),
        (
            ("plain text. " * 10_000 + "it costs “20 €”").encode() + b"\xe9.",
            "plain text. " * 10_000 + "it costs “20 €”\ufffd.",
        ),
        (b"\xe2\x82" + RUSSIAN.encode() + b"\xf0\x9f\x98 end", "\ufffd" + RUSSIAN + "\ufffd end"),
        (FRENCH.encode() + b"\xa0" + FRENCH.encode(), FRENCH + "\ufffd" + FRENCH),
    ],
)
def test_a_bad_byte_spoils_a_single_character(tmp_path, data, expected):
    extraction = read(tmp_path, data)
    stored = "".join(page.text for page in extraction.pages)
    assert "".join(stored.split()) == "".join(expected.split())
    damaged = [page.number for page in extraction.pages if "\ufffd" in page.text]
    assert [(p.code, p.first_page) for p in extraction.problems] == [(ProblemCode.BAD_CHARACTERS, damaged[0])]


def test_surrogates_in_utf_8_spoil_nothing(tmp_path):
    (page,) = read(tmp_path, b"Smile \xed\xa0\xbd\xed\xb8\x80, the price is 12 \xe2\x82\xac for all.").pages
    assert page.text == "Smile \U0001f600, the price is 12 € for all."


def test_zero_bytes_of_a_damaged_file_are_left_out(tmp_path):
    (page,) = read(tmp_path, b"The fee is 12 euros.\x00\x00 The dep\x00osit is 50 euros.").pages
    assert page.text == "The fee is 12 euros. The deposit is 50 euros."


@pytest.mark.parametrize("text", ["Café 12 €", "Menü: 3 Bällchen Eis", "naïve façade", "Größe: 8 Fuß"])
def test_short_texts_with_accents_are_western(text):
    assert decode(text.encode("cp1252")).text == text


def test_replacement_characters_that_the_file_contains_are_text(tmp_path):
    assert read(tmp_path, "Grüße \ufffd aus Köln".encode()).problems == []


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "cp1251", "gb18030", "koi8-r", "shift_jis", "cp1250"])
def test_text_in_another_encoding_is_not_taken_for_damaged_utf_8(encoding):
    texts = {
        "cp1251": RUSSIAN,
        "koi8-r": RUSSIAN,
        "gb18030": CHINESE,
        "shift_jis": "家賃は月額六万四千円で、毎月一日に支払う。契約の期間は二年とする。",
        "cp1250": "Nájemné činí šest set čtyřicet eur měsíčně a je splatné prvního dne každého měsíce. ",
    }
    data = (texts.get(encoding, FRENCH) * 4).encode(encoding)
    assert "\ufffd" not in decode(data).text


@pytest.mark.parametrize(
    ("charset", "encoding", "text"),
    [
        ("shift_jis", "cp932", "①家賃は月額"),
        ('"KOI8-R"', "koi8-r", "Плата 640 рублей"),
        ("iso-8859-1", "cp1252", "“20 €”"),
        ("ISO-8859-2", "iso8859-2", "čtyřicet"),
        ("utf-16le", "utf-16-le", "Köln"),
        ("us-ascii", "utf-8", "Köln"),
        ("unknown-8bit", "utf-8", "Köln"),
        ("unicode_escape", "utf-8", "\\u0041 Köln"),
        ("utf-8", "cp1252", "Grüße aus Köln, wo die Bürger fröhlich sind und der Fluss vorbei fließt"),
    ],
)
def test_the_declared_charset_is_used(tmp_path, charset, encoding, text):
    (page,) = read(tmp_path, text.encode(encoding), f"text/plain; charset={charset}; format=flowed").pages
    assert page.text == text


def test_blank_pages_between_form_feeds_count(tmp_path):
    extraction = read(tmp_path, b"\fsecond\f \n\f" + b"A line of a listing.\n" * 300 + b"\ffifth\f")
    assert [page.text[:6] for page in extraction.pages] == ["", "second", "", "A line", "fifth"]
    assert extraction.page_count == 5


def test_form_feeds_end_pages(tmp_path):
    extraction = read(tmp_path, b"one\r\ntwo\f\n\nthree\f\f")
    assert [page.text for page in extraction.pages] == ["one\ntwo", "three"]
    assert extraction.page_count == 2


@settings(max_examples=40, deadline=None)
@given(st.text(alphabet="ab .\n", max_size=60).map(lambda seed: seed * 200))
def test_virtual_pages_hold_all_that_is_written(text):
    pages = list(split_virtual_pages(text))
    assert "".join("".join(pages).split()) == "".join(text.split())
    assert all(len(page) <= 3600 and page.strip() for page in pages)


def test_markdown_stays_as_written_and_its_headings_are_known(tmp_path):
    extraction = read(tmp_path, MARKDOWN.encode(), "text/markdown; charset=utf-8")
    (page,) = extraction.pages
    assert page.text == MARKDOWN.strip()
    assert [(h.title, h.level) for h in extraction.headings] == [("Guide", 1), ("Setup", 2), ("Steps", 2)]
    assert all(page.text[h.offset :].lstrip("# ").startswith(h.title) for h in extraction.headings)
    assert extraction.title == "Guide"


@pytest.mark.parametrize(
    ("data", "media_type", "reason", "words"),
    [
        (b"", "text/plain", FailureReason.EMPTY_FILE, "empty"),
        (b" \n\f ", "text/plain", FailureReason.NO_TEXT, "white space"),
        (bytes(range(256)) * 20, "text/plain", FailureReason.NOT_TEXT, "binary"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "text/plain", FailureReason.NOT_TEXT, "PNG"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "application/pdf", FailureReason.NOT_A_PDF, "PNG"),
        (b"PK\x03\x04" + bytes(50), "application/pdf", FailureReason.NOT_A_PDF, "Office"),
        (b"<!DOCTYPE html><title>Log in</title>", "application/pdf", FailureReason.NOT_A_PDF, "web page"),
        (b"Dear all, this is text.", "application/pdf", FailureReason.NOT_A_PDF, "text/plain"),
        (bytes(4096), "application/pdf", FailureReason.NOT_A_PDF, "zero bytes"),
    ],
)
def test_what_cannot_be_read_fails_with_words_for_a_person(tmp_path, data, media_type, reason, words):
    with pytest.raises(ExtractionFailed) as caught:
        read(tmp_path, data, media_type)
    assert caught.value.reason is reason
    assert words in caught.value.message


def test_text_beyond_the_limits_is_cut_or_refused(tmp_path):
    extraction = read(tmp_path, b"word " * 4000, max_text_characters=5000)
    assert sum(len(page.text) for page in extraction.pages) <= 5000
    assert [problem.code.value for problem in extraction.problems] == ["text_truncated"]
    with pytest.raises(ExtractionFailed) as caught:
        read(tmp_path, b"word " * 4000, max_pages=3)
    assert caught.value.reason is FailureReason.TOO_MANY_PAGES
