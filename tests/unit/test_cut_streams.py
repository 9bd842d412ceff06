"""A stream that is cut at its tokens is complete for the client, and is counted as such."""

import anyio

from ragsvc.core.gateway.chat import TokenUsage
from ragsvc.core.gateway.event_stream import encode_event
from ragsvc.core.observation import Observer
from ragsvc.core.ports.token_meter import Reservation
from ragsvc.services.answers import AnswerStream
from ragsvc.services.request_reservation import RequestReservation
from ragsvc.services.stream_budget import ChatStreamEnd, StreamBudget


class Sink:
    def __init__(self) -> None:
        self.outcomes: list[str] = []

    def operation_ended(self, operation, seconds, attributes, outcome) -> None:
        self.outcomes.append(outcome)


class Babbling:
    """Port ``ChatStream`` of a model that does not stop."""

    finished = False

    async def __anext__(self) -> bytes:
        choice = {"index": 0, "delta": {"content": "four words in all "}}
        return encode_event({"id": "a", "object": "chat.completion.chunk", "choices": [choice]})

    async def usage(self) -> TokenUsage:
        return TokenUsage.of(3, 9)

    async def aclose(self) -> None:
        pass


class Meter:
    async def settle(self, reservation, *, prompt_tokens, completion_tokens, model, cost=0) -> None:
        pass


class Request:
    choices = 1
    wants_usage = False


def test_a_cut_stream_is_counted_as_a_success() -> None:
    async def nothing() -> int:
        return 0

    async def refuse(_: int) -> bool:
        return False

    async def main() -> None:
        observer, sink = Observer(), Sink()
        observer.sink = sink  # type: ignore[assignment]
        reservation = RequestReservation(Meter(), Reservation(1, "key", 100, "chat", True), "m")  # type: ignore[arg-type]
        end = ChatStreamEnd(Request())  # type: ignore[arg-type]
        budget = StreamBudget(
            reply_tokens=4,
            may_grow=False,
            read_text=end.read_text,
            count_tokens=lambda text: len(text.split()),
            unused_prompt=nothing,
            extend=refuse,
        )
        stream = AnswerStream(Babbling(), reservation, None, observer.begin("chat"), budget=budget, end=end)  # type: ignore[arg-type]
        blocks = [block async for block in stream]
        await stream.aclose()
        assert b'"finish_reason":"length"' in blocks[-1]
        assert blocks[-1].endswith(b"data: [DONE]\n\n")
        assert sink.outcomes == ["ok"]

    anyio.run(main)
