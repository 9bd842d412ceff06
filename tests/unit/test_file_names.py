"""File names in ``Content-Disposition``: any header gives a name, no name or a refusal, in bounded time."""

from __future__ import annotations

import time

import pytest

from ragsvc.core.errors import InvalidRequest
from ragsvc.web.uploads import filename_of

LIMIT_BYTES = 4096
LIMIT_SEMICOLONS = 256


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        ("attachment" + ";" * 60_000, "is longer than 4,096 bytes"),
        ('attachment; filename="' + ";" * 60_000, "is longer than 4,096 bytes"),
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
