"""Event streams as commands read them."""

from collections.abc import AsyncIterator

import anyio
import httpx
import pytest

from ragsvc.cli.failures import CommandFailed
from ragsvc.cli.service_client import Json, ServiceClient


def read(body: bytes, *, slice_bytes: int = 1 << 20, content_type: str = "text/event-stream") -> list[Json]:
    async def slices() -> AsyncIterator[bytes]:
        for at in range(0, len(body), slice_bytes):
            yield body[at : at + slice_bytes]

    async def run() -> list[Json]:
        headers = {"content-type": content_type}
        transport = httpx.MockTransport(lambda _: httpx.Response(200, headers=headers, content=slices()))
        async with (
            httpx.AsyncClient(transport=transport, base_url="http://test") as http,
            ServiceClient(http).events("GET", "/x") as events,
        ):
            return [event async for event in events]

    return anyio.run(run)


@pytest.mark.parametrize("slice_bytes", [1, 7, 1 << 20])
def test_events_of_any_form_are_read_to_done(slice_bytes: int) -> None:
    body = (
        b": comment\n\n"
        b'event: progress\ndata: {"n":1}\n\n'
        b'data: {"n":\r\ndata: 2}\r\n\r\n'
        b'data:{"n":"\xe2\x80\xa8\xc2\x85"}\n\n'
        b'data: [DONE]\n\ndata: {"n":4}\n\n'
    )
    assert read(body, slice_bytes=slice_bytes) == [{"n": 1}, {"n": 2}, {"n": "\u2028\x85"}]


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"data: {}\n\n", "text/html"),
        (b"data: <html>\n\n", "text/event-stream"),
        (b"data: []\n\n", "text/event-stream"),
    ],
)
def test_another_answer_ends_the_command(body: bytes, content_type: str) -> None:
    with pytest.raises(CommandFailed) as failed:
        read(body, content_type=content_type)
    assert failed.value.code == "bad_answer"
