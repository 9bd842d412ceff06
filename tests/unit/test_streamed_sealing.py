"""Streamed responses over ASGI: what is sealed into which message."""

from __future__ import annotations

from typing import Any

import pytest

from ragsvc.crypto import hpke, sealed_headers, sealed_requests
from ragsvc.crypto.hpke_stream import MAX_CHUNK_BYTES, StreamOpener
from ragsvc.crypto.keyring import KeySet
from ragsvc.web.sealed.responses import PAD_EVENTS_TO, StreamedResponse

pytestmark = pytest.mark.anyio

EVENT = b'data: {"a": 1}\n\n'


async def sealed_messages(media_type: bytes, bodies: list[bytes]) -> tuple[StreamOpener, list[Any]]:
    """The messages that seal a response with these bodies, and the opener of the client."""
    keys = KeySet(bytes(32))
    sender = hpke.set_up_sender(keys.hpke_public, sealed_headers.INFO)
    pending = sealed_requests.open_streamed(
        [keys], sealed_headers.encode_base64(sender.enc), sender.seal(b"{}", b"aad"), aad=b"aad"
    )
    pending.accept(claimed=True)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    response = StreamedResponse(pending, send)
    await response({"type": "http.response.start", "status": 200, "headers": [(b"content-type", media_type)]})
    for number, body in enumerate(bodies, start=1):
        await response({"type": "http.response.body", "body": body, "more_body": number < len(bodies)})
    return StreamOpener(sender), sent


async def test_each_block_of_events_is_one_message_and_can_be_opened_at_once() -> None:
    opener, sent = await sealed_messages(b"text/event-stream", [EVENT, EVENT * 9_000, EVENT])
    assert [message["type"] for message in sent] == ["http.response.start"] + ["http.response.body"] * 3
    first = opener.feed(sent[1]["body"])
    assert (first[: len(EVENT)], len(first)) == (EVENT, PAD_EVENTS_TO)
    second = opener.feed(sent[2]["body"])
    assert second.startswith(EVENT * 9_000)
    assert len(second) % PAD_EVENTS_TO == 0
    assert opener.feed(sent[3]["body"]) + opener.finish() == first
    assert [message["more_body"] for message in sent[1:]] == [True, True, False]


async def test_other_bodies_are_sent_in_full_chunks() -> None:
    half = bytes(MAX_CHUNK_BYTES // 2)
    opener, sent = await sealed_messages(b"text/plain", [half, half, b"end", b""])
    assert len(sent) == 3  # the head, one full chunk, and the rest
    assert opener.feed(sent[1]["body"]) == 2 * half
    assert opener.feed(sent[2]["body"]) + opener.finish() == b"end"


async def test_an_empty_response_has_its_authenticated_end() -> None:
    opener, sent = await sealed_messages(b"text/plain", [b""])
    assert opener.feed(sent[1]["body"]) + opener.finish() == b""
