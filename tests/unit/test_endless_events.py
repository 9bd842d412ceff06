"""A provider that sends an event without an end costs a bounded amount of memory, and its stream ends with an error."""

import anyio
import pytest

from ragsvc.core.errors import UpstreamFailed
from ragsvc.core.gateway.endpoint_families import Family
from ragsvc.core.gateway.event_stream import MAX_EVENT_BYTES
from ragsvc.core.ports.token_meter import Reservation
from ragsvc.services.passthrough import ProxyAnswer, ProxyCall
from ragsvc.services.request_reservation import RequestReservation
from ragsvc.web.context import SCOPE_KEY, RequestContext
from ragsvc.web.passthrough.raw_responses import PassedThrough

PIECE = b"x" * (1 << 20)


class EndlessProvider:
    """A provider whose answer has the beginning of an event, then megabytes."""

    status = 200

    def __init__(self) -> None:
        self.headers = {"content-type": "text/event-stream"}
        self.sent = 0
        self.closed = False

    def __aiter__(self):
        return self

    async def __anext__(self) -> bytes:
        self.sent += 1
        if self.sent > 4 * MAX_EVENT_BYTES // len(PIECE):
            raise StopAsyncIteration
        return b'data: {"a": 1}\n\ndata: "' if self.sent == 1 else PIECE

    async def aclose(self) -> None:
        self.closed = True


class Meter:
    """Port ``TokenMeter`` of a key."""

    settled = 0

    async def settle(self, reservation, *, prompt_tokens, completion_tokens, model, cost=0) -> None:
        self.settled += 1


def answer_of(provider: EndlessProvider, meter: Meter, *, limited: bool) -> ProxyAnswer:
    reservation = RequestReservation(meter, Reservation(1, "key", 100, "completions", limited), "m")  # type: ignore[arg-type]
    call = ProxyCall(
        family=Family.COMPLETIONS, path="/completions", model="m", body=None, headers={}, reply_estimate=99
    )  # type: ignore[arg-type]
    return ProxyAnswer(provider, reservation, call)


@pytest.mark.parametrize("limited", [False, True], ids=["key without limits", "key with a token limit"])
def test_a_stream_with_an_endless_event_ends_with_an_error(*, limited: bool) -> None:
    async def main() -> None:
        provider, meter = EndlessProvider(), Meter()
        messages = []

        async def send(message) -> None:
            messages.append(message)

        async def receive():
            await anyio.sleep_forever()

        scope = {SCOPE_KEY: RequestContext("req_1", 0.0, {})}

        async def open_answer(_) -> ProxyAnswer:
            return answer_of(provider, meter, limited=limited)

        response = PassedThrough(open_answer, comment_every_s=60)
        await response(scope, receive, send)  # type: ignore[arg-type]
        bodies = [message["body"] for message in messages[1:]]
        assert bodies[0] == b'data: {"a": 1}\n\n'
        assert len(bodies) == 2
        assert b'"code":"upstream_' in bodies[1]
        assert provider.sent <= MAX_EVENT_BYTES // len(PIECE) + 2
        assert (provider.closed, meter.settled) == (True, 1)

    anyio.run(main)


def test_the_answer_itself_refuses_an_endless_event_of_a_limited_key() -> None:
    async def main() -> None:
        answer = answer_of(EndlessProvider(), Meter(), limited=True)
        with pytest.raises(UpstreamFailed):
            async for _ in answer:
                pass

    anyio.run(main)
