"""File names in ``Content-Disposition``: any header gives a name, no name or a refusal, in bounded time."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragsvc.core.errors import InvalidRequest
from ragsvc.web.uploads import clean_filename, filename_of

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
