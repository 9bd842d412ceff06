"""What of a proxied request and its answer concerns us: the model, the estimate, the usage."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragsvc.core.errors import InvalidRequest
from ragsvc.core.gateway.chat import TokenUsage
from ragsvc.core.gateway.endpoint_families import (
    Family,
    UsageScanner,
    estimate_prompt,
    estimate_reply,
    read_fields,
    with_model,
)


def test_the_clients_bytes_stay_unless_the_model_is_renamed() -> None:
    raw = b'{ "model" : "a",\n "x": 1.50, "y": "\xc3\xa9" }'
    assert with_model(raw, "a", "a") is raw
    assert json.loads(with_model(raw, "a", "b")) == {"model": "b", "x": 1.5, "y": "é"}
    assert b"1.50" in with_model(raw, "a", "b")


@pytest.mark.parametrize("raw", [b'{"model":"a","model":"evil"}', b'{"model":"a","\\u006dodel":"evil"}'])
def test_no_other_parser_can_see_another_model(raw: bytes) -> None:
    model = read_fields(raw).named_model
    sent = with_model(raw, model, model)
    assert sent.count(b"model") == 1
    assert json.loads(sent)["model"] == model


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b'{"model":""}', b'{"model":1}', b'{"model":"m"', b"\xff"])
def test_what_names_no_model_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidRequest):
        read_fields(raw)


def test_estimates_are_bounded_and_media_cost_none() -> None:
    assert estimate_prompt(Family.EMBEDDINGS, 300) == 101
    assert estimate_prompt(Family.RESPONSES, 30_000_000) == 131_072
    assert estimate_prompt(Family.IMAGES, 30_000_000) == 0
    assert estimate_reply(Family.COMPLETIONS, read_fields(b'{"model":"m","max_tokens":7}')) == 7
    assert estimate_reply(Family.EMBEDDINGS, read_fields(b'{"model":"m","max_tokens":7}')) == 0


def scanned(body: bytes, size: int = 1 << 20) -> TokenUsage | None:
    scanner = UsageScanner()
    for at in range(0, len(body), size):
        scanner.feed(body[at : at + size])
    return scanner.reported()


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(1, 200), st.text(max_size=50))
def test_usage_is_found_in_any_slicing_and_never_in_text(prompt: int, completion: int, size: int, text: str) -> None:
    usage = {"input_tokens": prompt, "output_tokens": completion, "details": {"usage": None}}
    lure = '{"usage": {"prompt_tokens": 999999999}}'
    body = json.dumps({"text": text + lure, "usage": usage, "after": [text, lure]}).encode()
    assert scanned(body, size) == TokenUsage.of(prompt, completion)


def test_usage_is_found_at_both_ends_of_what_is_large() -> None:
    filler = "x" * 500_000
    counts = {"prompt_tokens": 3, "total_tokens": 3}
    for body in ({"usage": counts, "data": filler}, {"data": filler, "usage": counts}):
        assert scanned(json.dumps(body).encode(), 10_000) == TokenUsage.of(3, 0)
    assert scanned(b'{"usage": {"seconds": 5}}') is None
    assert scanned(b'{"usage": null}') is None
    assert scanned(b'{"usage": {"prompt_tokens": 1e999}}') is None
    assert scanned(b'{"usage": {"prompt_tokens"') is None
