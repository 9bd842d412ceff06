"""File names in ``Content-Disposition``: any header gives a name, no name or a refusal, in bounded time."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragsvc.core.errors import InvalidRequest
from ragsvc.core.file_names import (
    clean_filename,
    filename_from_title,
    filename_of,
    filename_of_part,
    filename_of_url,
)

LIMIT_BYTES = 4096
LIMIT_SEMICOLONS = 256


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        ("attachment" + ";" * 60_000, "is longer than 4,096 bytes"),
        ('attachment; filename="' + ";" * 60_000, "is longer than 4,096 bytes"),
        (f"attachment; filename*{'1' * 4400}=a", "is longer than 4,096 bytes"),
        ("x" * (LIMIT_BYTES + 1), "is longer than 4,096 bytes"),
        ("é" * (LIMIT_BYTES // 2 + 1), "is longer than 4,096 bytes"),
        (";" * (LIMIT_SEMICOLONS + 1), "has more than 256 semicolons"),
    ],
)
def test_a_header_that_takes_long_to_parse_is_refused(header: str, problem: str) -> None:
    begin = time.perf_counter()
    with pytest.raises(InvalidRequest) as refused:
        filename_of(header)
    assert time.perf_counter() - begin < 0.25
    assert (refused.value.message, refused.value.param) == (
        f"The header 'Content-Disposition' {problem}.",
        "Content-Disposition",
    )


@pytest.mark.parametrize("mark", ["é", "x"])
def test_a_header_of_the_largest_size_is_read(mark: str) -> None:
    name = ";" * LIMIT_SEMICOLONS
    header = f'filename="{name[1:]}"'
    header = f"form-data; {header}"
    header += mark * ((LIMIT_BYTES - len(header)) // len(mark.encode()))
    assert filename_of(header) is not None


@pytest.mark.parametrize(
    "header",
    [
        "attachment; filename*0=a; filename*=UTF-8''b",
        "attachment; filename*=utf-8\0''abc",
        "attachment; filename*=''\udce9",
        "attachment; filename*=rot13''abc",
        "attachment; filename*=undefined''abc",
    ],
)
def test_a_header_that_cannot_be_read_has_no_name(header: str) -> None:
    assert filename_of(header) is None


NAMES = st.sampled_from(["filename", "filename*", "filename*0", "filename*1*", "FILENAME*00", "name"])
VALUES = st.text() | st.sampled_from(["UTF-8''%E5%B9", "utf-16''a", "idna''%FF", "hex''zz", "unicode_escape''%5CN"])
PARAMETERS = st.lists(st.tuples(NAMES, st.sampled_from(["", '"', "'", "\\"]), VALUES), max_size=8)
HEADERS = st.text() | PARAMETERS.map(
    lambda parameters: "attachment" + "".join(f"; {name}={mark}{text}{mark}" for name, mark, text in parameters)
)


@settings(deadline=250)
@given(HEADERS)
def test_any_header_has_a_name_or_none(header: str) -> None:
    name = filename_of(header)
    assert name is None or isinstance(clean_filename(name), str)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("attachment; filename*=UTF-8'de'Gr%C3%B6%C3%9Fe.pdf", "Größe.pdf"),
        ("attachment; filename*=iso-8859-1''%A3%20rates.pdf; filename=x.pdf", "£ rates.pdf"),
        ("attachment; filename*0*=UTF-8''Jahres%62; filename*1*=ericht.pdf", "Jahresbericht.pdf"),
        ('attachment; filename="=?UTF-8?B?QmlsYW56IDIwMjMucGRm?="', "Bilanz 2023.pdf"),
        ('attachment; filename="=?iso-8859-1?Q?Gr=F6=DFe_2023.pdf?="', "Größe 2023.pdf"),
        ('attachment; filename="=?utf-8?B?SmFocmVz?= =?utf-8?Q?bericht.pdf?="', "Jahresbericht.pdf"),
        ('attachment; filename="=?no-such-charset?B?QmlsYW56?="', "=?no-such-charset?B?QmlsYW56?="),
        ('attachment; filename="=?utf-8?B?QmlsY?="', "=?utf-8?B?QmlsY?="),
        ('attachment; filename="=?utf-8?Q?=FF=FE.pdf?="', "=?utf-8?Q?=FF=FE.pdf?="),
        ('attachment; filename="Jahresbericht%202023.pdf"', "Jahresbericht 2023.pdf"),
        ('attachment; filename="%E5%B9%B4%E5%A0%B1.pdf"', "年報.pdf"),
        ('attachment; filename="the %22final%22 draft.pdf"', 'the "final" draft.pdf'),
        ('attachment; filename="two%0D%0Alines.pdf"', "two lines.pdf"),
        ('attachment; filename="a%00b.pdf"', "a b.pdf"),
        ('attachment; filename="100% sure.pdf"', "100% sure.pdf"),
        ('attachment; filename="caf%E9.pdf"', "caf%E9.pdf"),
        ('attachment; filename="50%2F50.pdf"', "50%2F50.pdf"),
        ('attachment; filename="..%2F..%2Fetc%2Fpasswd.pdf"', "passwd.pdf"),
        ('attachment; filename="C%3A%5Creports%5CQ3.pdf"', "Q3.pdf"),
        ('attachment; filename="a \\"quoted\\" name.pdf"', 'a "quoted" name.pdf'),
        ("attachment; filename*=UTF-8''..%2F..%2Fsecret%0A.pdf", "secret .pdf"),
        ('attachment; filename="invoice\u202efdp.exe"', "invoicefdp.exe"),
        ('attachment; filename=".."', ""),
        ("attachment; filename*=UTF-8''%ZZ.pdf; filename=plain.pdf", "plain.pdf"),
        ("attachment; filename*=UTF-8''; filename=plain.pdf", "plain.pdf"),
        ("attachment; filename*=UTF-8''..; filename=plain.pdf", "plain.pdf"),
        ("attachment; filename*=\"UTF-8''na%C3%AFve.pdf\"", "naïve.pdf"),
        ("attachment; filename*=plain.pdf", "plain.pdf"),
    ],
)
def test_the_name_in_a_header_is_decoded_and_cleaned(header: str, expected: str) -> None:
    assert clean_filename(filename_of(header) or "") == expected


@pytest.mark.parametrize(
    ("plain", "expected"),
    [
        ("=?UTF-8?Q?Gr=C3=B6=C3=9Fe.pdf?=", "Größe.pdf"),
        ("Jahresbericht%202023.pdf", "Jahresbericht 2023.pdf"),
        ("50%2F50.pdf", "50%2F50.pdf"),
        (None, ""),
    ],
)
def test_the_name_of_a_part_is_decoded(plain: str | None, expected: str) -> None:
    assert filename_of_part('form-data; name="file"', plain) == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://example.org/a/Bericht%202023.pdf?x=1#page=3", "Bericht 2023.pdf"),
        ("/files/%E5%B9%B4%E5%A0%B1.pdf", "年報.pdf"),
        ("https://example.org/", ""),
        ("http://[broken", ""),
    ],
)
def test_the_name_in_a_url(url: str, expected: str) -> None:
    assert filename_of_url(url) == expected
    if url.startswith("http"):
        assert clean_filename(url) == expected


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("Annual report 2023", "Annual report 2023.pdf"),
        ("Input/output tables", "Input-output tables.pdf"),
        ("Microsoft Word - Lease agreement.docx", "Lease agreement.pdf"),
        ("年報", "年報.pdf"),
        (None, None),
        ("", None),
        ("untitled", None),
        ("2023-04", None),
        ("7c3f6204b3241f142f0f8eb8e1fefe7a", None),
        ("https://example.org/print?id=7", None),
        ("C:\\Users\\anna\\draft", None),
    ],
)
def test_a_sensible_title_is_a_name(title: str | None, expected: str | None) -> None:
    assert filename_from_title(title, "application/pdf") == expected
