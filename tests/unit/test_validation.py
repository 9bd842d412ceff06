"""One wording for malformed requests."""

from __future__ import annotations

import msgspec
import pytest

from ragsvc.core.errors import InvalidRequest
from ragsvc.core.gateway.chat import ChatRequest
from ragsvc.core.validation import decode_json
from ragsvc.web.routes.schemas import SearchRequest


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


@pytest.mark.parametrize(("ids", "problem"), [([], "length >= 1"), (["x"] * 1001, "length <= 1000")])
def test_search_and_chat_take_the_same_document_ids(ids: list[str], problem: str) -> None:
    chat = {"model": "m", "messages": [{"role": "user", "content": "x"}], "rag": {"document_ids": ids}}
    for body, decoder, path in (
        ({"query": "x", "document_ids": ids}, msgspec.json.Decoder(SearchRequest), "document_ids"),
        (chat, msgspec.json.Decoder(ChatRequest), "rag.document_ids"),
    ):
        with pytest.raises(InvalidRequest) as refused:
            decode_json(msgspec.json.encode(body), decoder)
        assert refused.value.message == f"'{path}': expected `array` of {problem}."
