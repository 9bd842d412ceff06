"""What the usage report says of a request: the endpoint family and the model that its handler found.

The middleware that measures requests knows the result and the duration, but not the model. It sets a note for the task
of a request; what reserves and settles tokens fills it in.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final


class RequestNote:
    """Family and model of one request. ``family`` is ``None`` while nothing that is reported was requested."""

    __slots__ = ("family", "model")

    def __init__(self) -> None:
        self.family: str | None = None
        self.model = ""


REQUEST_NOTE: Final[ContextVar[RequestNote | None]] = ContextVar("ragsvc_request_note", default=None)
"""The note of the request that this task works for."""


def note_request(*, family: str | None = None, model: str | None = None) -> None:
    """Note family or model of the present request, if there is one."""
    note = REQUEST_NOTE.get()
    if note is None:
        return
    if family is not None:
        note.family = family
    if model is not None:
        note.model = model
