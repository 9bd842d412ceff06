"""Web pages, books, tables and messages are read as a reader sees them, and nothing is fetched."""

from __future__ import annotations

import io
import socket
import zipfile
from email.message import EmailMessage
from pathlib import Path

import pytest

from ragsvc.cli.ingest.folders import FileSelection, scan
from ragsvc.core import file_types
from ragsvc.core.errors import ExtractionFailed, FailureReason
from ragsvc.core.ports.parsing import ExtractionLimits
from ragsvc.extract.formats import zip_package
from ragsvc.extract.pdf_pages import PageReports
from ragsvc.extract.read_file import extract
from ragsvc.testing.sample_pdfs import text_pdf
from tests.support.office_files import epub, zipped

FIXTURES = Path(__file__).parents[2] / "fixtures/formats"


def read(tmp_path, data, suffix, *, media_type=None, **limits):
    path = tmp_path / f"file{suffix}"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return read_file(path, media_type=media_type, **limits)


def read_file(path, *, media_type=None, **limits):
    return extract(
        path,
        media_type=media_type or file_types.MEDIA_TYPES_BY_SUFFIX[path.suffix],
        filename=path.name,
        password=None,
        limits=ExtractionLimits(max_attachments=10, **limits),
        reports=PageReports(on_progress=lambda done, total: None),
    )


def text_of(extraction):
    return "\n\n".join(page.text for page in extraction.pages)


# --- HTML


def test_hidden_parts_of_a_web_page_are_left_out_and_counted(tmp_path):
    page = """<!doctype html><title>Fees</title><style>.gone{display:none} #off {visibility:hidden}
    @media print {.shown{display:none}} .back{display:none} .back{display:block}</style>
    <p>Shown<span hidden>a1</span><span style="DISPLAY : none">a2</span><b class="x gone">a3</b><i id=off>a4</i>
    <span style="font-size:0">a5</span><span style="position:absolute;left:-9999px">a6</span></p>
    <p class=shown>Also shown</p><p class=back>And this</p><script>var s = "a7"</script><template>a8</template>
    <input type=hidden value=a9><input value="typed"><noscript>b1</noscript>"""
    extraction = read(tmp_path, page, ".html")
    assert text_of(extraction) == "Shown\n\nAlso shown\n\nAnd this\n\ntyped"
    assert extraction.title == "Fees"
    assert [problem.message for problem in extraction.problems] == [
        "Page 1 has 12 hidden characters that a reader cannot see; they were left out."
    ]


def test_tables_of_data_become_rows_and_layout_tables_do_not(tmp_path):
    page = """<table><tr><td><h2>Rates</h2><table><caption>Per year</caption>
    <tr><th rowspan=2>Region<th colspan=2>2023</tr><tr><th>Q1<th>Q2</tr><tr><td>Borken<td>007<td>1,482<sup>3</sup></tr>
    </table></td></tr></table><ol start=3><li>three<li value=7>seven</ol><ul><li>dot</ul><pre>def f():
    return 1</pre><p>was <s>10</s> now 12"""
    assert text_of(read(tmp_path, page, ".html")).split("\n\n") == [
        "Rates",
        "Per year",
        "\n".join(
            [
                "| Region | 2023 Q1 | 2023 Q2 |",
                "| --- | --- | --- |",
                "| Borken | 007 | 1,482³ |",
                "3. three",
                "7. seven",
                "• dot",
            ]
        ),
        "def f():\n    return 1",
        "was ~~10~~ now 12",
    ]


OIL = "<p>Öl für Łódź</p>"


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        ("<p>Öl für Łódź</p>".encode("utf-16"), "text/html"),
        (b"\xef\xbb\xbf" + "<p>Öl für Łódź</p>".encode(), "text/html; charset=latin-1"),
        ('<meta charset="iso-8859-2"><p>Öl für Łódź</p>'.encode("iso-8859-2"), "text/html"),
        (f'<meta http-equiv=Content-Type content="text/html; charset=cp1250">{OIL}'.encode("cp1250"), "text/html"),
        (f'<?xml version="1.0" encoding="iso-8859-2"?><html>{OIL}</html>'.encode("iso-8859-2"), "text/html"),
        ("<p>Öl für Łódź</p>".encode("cp1250"), "text/html; charset=windows-1250"),
    ],
)  # fmt: skip
def test_the_encoding_of_a_web_page_is_found_as_browsers_do(tmp_path, data, media_type):
    assert text_of(read(tmp_path, data, ".html", media_type=media_type)) == "Öl für Łódź"


def test_nothing_of_a_web_page_is_fetched(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/x"
        page = (
            f'<!DOCTYPE html SYSTEM "{url}"><html><link rel=stylesheet href="{url}"><img src="{url}">'
            f'<iframe src="{url}"></iframe><object data="{url}"></object><p>text</html>'
        )
        assert text_of(read(tmp_path, page, ".html")) == "text"
        book = epub({"One": "<p>text</p>"}, extra={"OEBPS/text/c1.xhtml": page.replace("<p>text", "<p>text</p>")})
        assert "text" in text_of(read(tmp_path, book, ".epub"))
        with pytest.raises(TimeoutError):
            server.accept()


def test_deep_nesting_and_entities_of_a_web_page_do_no_harm(tmp_path):
    assert "core" in text_of(read(tmp_path, "<div>" * 50_000 + "core", ".html"))
    laughs = '<!DOCTYPE html [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><p>x &b; &amp; y</p>'
    assert "hahaha" not in text_of(read(tmp_path, laughs, ".html"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hidden-text.html", "The Easy Way to Find Vacation Rentals, Hotels and Bed and Breakfasts"),
        ("xhtml.html", "This document tests the ability of Apache Tika to extract content from an XHTML document."),
        ("utf8.html", "åäö"),
    ],
)
def test_real_web_pages(name, expected):
    assert expected in text_of(read_file(FIXTURES / name))


def test_a_web_page_cut_off_keeps_its_text(tmp_path):
    data = (FIXTURES / "hidden-text.html").read_bytes()
    assert "Vacation Rentals" in text_of(read(tmp_path, data[: len(data) // 2], ".html"))


# --- CSV


@pytest.mark.parametrize(
    ("data", "suffix"),
    [
        ('Id,Name,Sum\n007,"Roe, J.","1,50"\n008,"Poe\nE.",2.75\n', ".csv"),
        ('Id;Name;Sum\r\n007;"Roe, J.";1,50\r\n008;"Poe\r\nE.";2.75\r\n', ".csv"),
        ('sep=|\nId|Name|Sum\n007|Roe, J.|1,50\n008|"Poe\nE."|2.75\n', ".csv"),
        ('Id\tName\tSum\n007\tRoe, J.\t1,50\n008\t"Poe\nE."\t2.75\n', ".tsv"),
    ],
)
def test_tables_of_text_keep_values_as_written(tmp_path, data, suffix):
    assert text_of(read(tmp_path, data, suffix)).split("\n") == [
        "| Id | Name | Sum |",
        "| --- | --- | --- |",
        "| 007 | Roe, J. | 1,50 |",
        "| 008 | Poe E. | 2.75 |",
    ]


def test_an_unclosed_quotation_mark_loses_no_row(tmp_path):
    rows = "".join(f"row {n};{n}\n" for n in range(500))
    text = text_of(read(tmp_path, f'Name;Inches\nscreen;27"\n"open;1\n{rows}', ".csv"))
    assert '| screen | 27" |' in text
    assert all(f"row {n}" in text for n in range(500))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("columnar.csv", "| 3 | 9 | This is row 3 of 10 | 30% | 66.7% |"),
        ("short.csv", "Sample CSV File - Numbers and their Squares"),
        ("shift-jis.csv", "| 髙橋淳 | 35 | 名古屋 |"),
    ],
)
def test_real_tables(name, expected):
    assert expected in text_of(read_file(FIXTURES / name))


# --- EPUB


def test_a_page_of_a_book_is_its_chapter_by_name(tmp_path):
    book = epub({"I. The Storm": "<h1>One</h1><p>Rain&nbsp;&amp;&eacute;t&eacute;.</p>", "II. Calm": "<p>Sun.</p>"})
    extraction = read(tmp_path, book, ".epub")
    assert [(page.label, page.text) for page in extraction.pages] == [
        ("chapter I. The Storm", "One\n\nRain &été."),
        ("chapter II. Calm", "Sun."),
    ]
    assert extraction.title == "A book"


def test_entities_of_a_book_are_not_expanded_and_encrypted_books_are_refused(tmp_path):
    page = '<!DOCTYPE html [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]><html><body><p>x &b;</p></body></html>'
    assert "hahaha" not in text_of(read(tmp_path, epub({"One": ""}, extra={"OEBPS/text/c1.xhtml": page}), ".epub"))
    encrypted = '<encryption><EncryptionMethod Algorithm="http://www.w3.org/2001/04/xmlenc#aes128-cbc"/></encryption>'
    with pytest.raises(ExtractionFailed) as caught:
        read(tmp_path, epub({"One": "<p>x</p>"}, extra={"META-INF/encryption.xml": encrypted}), ".epub")
    assert caught.value.reason is FailureReason.UNSUPPORTED_ENCRYPTION


def test_a_bomb_in_a_book_is_refused(tmp_path):
    with pytest.raises(ExtractionFailed) as caught:
        read(tmp_path, epub({"One": " " * (300 << 20)}), ".epub")
    assert caught.value.reason is FailureReason.OUT_OF_MEMORY


def test_many_large_members_are_refused_by_their_total(tmp_path, monkeypatch):
    monkeypatch.setattr(zip_package, "MAX_TOTAL_BYTES", 10 << 20)
    chapters = {f"c{n}": "<p>" + "ab cd " * 400_000 + "</p>" for n in range(6)}
    with pytest.raises(ExtractionFailed) as caught:
        read(tmp_path, epub(chapters), ".epub")
    assert caught.value.reason is FailureReason.OUT_OF_MEMORY


@pytest.mark.parametrize(
    ("name", "label", "expected"),
    [
        ("contents.epub", "chapter Chapter 2", "Not to be confused with superchapters"),
        ("chapters.epub", "chapter Chapter 2", "This is a blockquote for testing."),
        ("spine-order.epub", "chapter Spine items in order", "This page must appear last."),
    ],
)
def test_real_books(name, label, expected):
    page = read_file(FIXTURES / name).pages[-1]
    assert page.label == label
    assert expected in page.text


# --- messages


def message(**fields):
    made = EmailMessage()
    made["Subject"], made["From"], made["To"] = "Fällige Rechnung", "Zoë <zoe@example.org>", "a@example.org"
    for name, value in fields.items():
        made[name] = value
    return made


def test_a_message_has_its_fields_its_richest_body_and_its_attachments(tmp_path):
    made = message(Date="Wed, 04 Mar 2026 10:00:00 +0100")
    made.set_content("See the table in the HTML version.")
    made.add_alternative(
        "<p>Due:</p><table><tr><td>007<td>1.482,00 €</tr><tr><td>008<td>2 €</tr></table>", subtype="html"
    )
    made.add_attachment(text_pdf([["The bill."]]), maintype="application", subtype="pdf", filename="Rechnung März.pdf")
    inner = message()
    inner.set_content("The inner message.")
    made.add_attachment(inner)
    extraction = read(tmp_path, made.as_bytes(), ".eml")
    assert text_of(extraction).split("\n\n") == [
        "Fällige Rechnung",
        "From: Zoë <zoe@example.org>\nTo: a@example.org\nDate: Wed, 04 Mar 2026 10:00:00 +0100",
        "Due:",
        "| 007 | 1.482,00 € |\n| --- | --- |\n| 008 | 2 € |",
    ]
    assert [file.name for file in extraction.attached_files] == ["Rechnung März.pdf", "Fällige Rechnung.eml"]
    assert extraction.attached_files[0].data.startswith(b"%PDF-")
    assert "The inner message." in extraction.attached_files[1].data.decode()


def test_pictures_that_the_body_shows_are_no_attachments(tmp_path):
    """Outlook declares them as attachments, other programs as inline."""
    made = message()
    made.set_content('<p>Regards</p><img src="cid:logo%40x"><img src="cid:sign">', subtype="html")
    made.add_attachment(b"\x89PNG 1", "image", "png", filename="image001.png", cid="<logo@x>")
    made.add_attachment(b"\x89PNG 2", "image", "png", filename="sign.png", cid="<sign>", disposition="inline")
    made.add_attachment(b"\x89PNG 3", "image", "png", filename="scan.png", cid="<other>")
    made.add_attachment(b"\x89PNG 4", "image", "png", filename="plan.png")
    extraction = read(tmp_path, made.as_bytes(), ".eml")
    assert [file.name for file in extraction.attached_files] == ["scan.png", "plan.png"]


@pytest.mark.parametrize(
    "raw",
    [
        b"Subject: =?iso-8859-1?Q?Gr=FC=DFe?=\r\nContent-Type: text/plain; charset=nonsense\r\n\r\nGr\xc3\xbc\xc3\x9fe",
        b"Subject: Gr\xc3\xbc\xc3\x9fe\nFrom: a@b\nContent-Type: text/plain; charset=iso-8859-1\n\nGr\xfc\xdfe",
        b"Subject: =?UTF-8?B?R3LDvMOfZQ==?=\nFrom: <<<\nDate: never\nContent-Transfer-Encoding: base64\n\nR3LDvMOfZQ==",
        b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\nContent-Type: multipart/x; boundary=x\n\n--x\n\nGr\xc3\xbc\xc3\x9fe",
    ],
)
def test_encodings_of_messages(tmp_path, raw):
    lines = text_of(read(tmp_path, raw, ".eml")).split("\n\n")
    assert (lines[0], lines[-1]) == ("Grüße", "Grüße")


def test_a_message_nested_without_end_is_read(tmp_path):
    raw = b"Subject: deep\n" + b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (n, n) for n in range(300)
    )
    assert "deep" in text_of(read(tmp_path, raw, ".eml"))


@pytest.mark.parametrize(
    ("name", "expected", "attachments"),
    [
        ("two-attachments.eml", "This is the html body of the main msg.", ["Test TxtA.txt", "Test TxtB.txt"]),
        ("picture-attached.eml", "This email has a PNG attachment included in it", ["testPNG.png"]),
        ("message-attached.eml", "test333", ["test.eml", "Neues Textdokument.txt"]),
    ],
)
def test_real_messages(name, expected, attachments):
    extraction = read_file(FIXTURES / name)
    assert expected in text_of(extraction)
    assert [file.name for file in extraction.attached_files] == attachments


# --- types


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (zipped({"a.pdf": text_pdf([["x"]])}, stored=("a.pdf",)), "a ZIP archive"),
        (b"Rar!\x1a\x07\x01\x00", "a RAR archive"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "an old Office document (.doc, .xls, .ppt, .msg)"),
        (b"\x00\x00\x00\x18ftypmp42" + bytes(50), "a video or HEIF image"),
        (b"GIF89a" + bytes(50), "a GIF image"),
        (zipped({"mimetype": "application/vnd.oasis.opendocument.text"}, stored=("mimetype",)), "an OpenDocument file"),
        (zipped({"[Content_Types].xml": "", "xl/workbook.bin": b"x"}), "a binary Excel workbook (.xlsb)"),
    ],
)
def test_what_cannot_be_read_is_recognised_by_content(data, name):
    found = file_types.media_type_of("application/pdf", "report.pdf", head=data[:8192], tail=data[-65_536:])
    assert found is not None
    assert (found.media_type, found.name) == (None, name)


def test_office_files_are_recognised_by_their_members_in_any_order():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("word/media/a.bin", bytes(range(256)) * 100)
        archive.writestr("word/document2.xml", "<x/>")
        archive.writestr("[Content_Types].xml", "<x/>")
    data = buffer.getvalue()
    found = file_types.recognise(data[:8192], data[-65_536:])
    assert found is not None
    assert found.media_type == file_types.DOCX


def test_texts_are_typed_by_name_and_content():
    def typed(data, name):
        found = file_types.media_type_of("", name, head=data, tail=b"")
        return found.media_type if found else None

    assert typed(b"a;b\n1;2", "x.csv") == file_types.CSV
    assert typed(b"<!-- x -->\n<!DOCTYPE HTML><p>", "download") == file_types.HTML
    assert typed(b"Received: by x\nFrom: a@b\nSubject: s\n\nhello", "download") == file_types.EML
    assert typed(b"Note: this\nis text", "download") is None
    assert typed(b"BMW sold 12 cars", "cars.txt") == file_types.TEXT
    assert typed(b"The header %PDF- is described here", "x.txt") == file_types.TEXT


def test_a_folder_gives_every_readable_type_and_counts_the_others(tmp_path):
    for name in ("a.docx", "b.XLSX", "c.tiff", "d.zip", "e.ZIP", "f.mp4", "README", "sub/g.eml", "sub/h.doc"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    found = scan([tmp_path], FileSelection())
    assert [file.path for file in found.files] == ["a.docx", "b.XLSX", "c.tiff", "sub/g.eml"]
    assert found.passed_over == {".zip": 2, "no suffix": 1, ".mp4": 1, ".doc": 1}
    assert scan([tmp_path], FileSelection(include=("*.zip",))).passed_over == {}
