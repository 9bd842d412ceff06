"""Decodes event streams of the service into JSON objects, without I/O."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from ragsvc.client.service_errors import UnexpectedAnswer
from ragsvc.core.errors import UpstreamFailed
from ragsvc.core.gateway.event_stream import EventAligner, event_data, split_events

Json = dict[str, Any]

EVENTS = "text/event-stream"


class EventDecoder:
    r"""Decodes server-sent events, sliced anywhere; ``data: [DONE]`` ends the stream.

    >>> decoder = EventDecoder("http://test", "text/event-stream")
    >>> list(decoder.feed(b': hello\n\ndata: {"n": 1}\n\ndata: {"n"')), list(decoder.feed(b': 2}\n\n'))
    ([{'n': 1}], [{'n': 2}])
    """

    def __init__(self, url: str, content_type: str) -> None:
        self.done = False
        self._url = url
        self._aligner = EventAligner()
        if content_type.partition(";")[0].strip().lower() != EVENTS:
            raise self._unexpected()

    def feed(self, data: bytes) -> Iterator[Json]:
        """Take the next bytes; return the objects that they complete. Raises ``UnexpectedAnswer``."""
        try:
            for event in split_events(self._aligner.feed(data)):
                content = event_data(event)
                if content == b"[DONE]":
                    self.done = True
                    return
                if content:
                    yield msgspec.json.decode(content, type=Json)
        except (UpstreamFailed, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self._unexpected() from error

    def _unexpected(self) -> UnexpectedAnswer:
        return UnexpectedAnswer(self._url, "an event stream of ragsvc")
