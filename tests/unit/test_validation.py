"""One wording for malformed requests."""

from __future__ import annotations

import msgspec
import pytest

from ragsvc.core.errors import InvalidRequest
from ragsvc.core.validation import decode_json


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b'{"a":}', "invalid character (byte 5)"),
        (b"{}x", "trailing characters (byte 3)"),
        (b"nope", "invalid character (byte 4)"),
        (b"01", "invalid number (byte 1)"),
        (b'{"a":1,}', "trailing comma in object (byte 7)"),
        (b'{"a":', "input data was truncated"),
    ],
)
def test_a_body_that_is_not_json(body: bytes, problem: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        decode_json(body, msgspec.json.Decoder())
    assert (refused.value.message, refused.value.param) == (f"The body is not valid JSON: {problem}.", None)
