"""Observes operations (search, chat, ingest) and their stages, for metrics and traces.

Services report here; what is done with it is decided by a sink and a tracer. Attributes are ids, modes, names that the
operator chose, and counts: never text of a document, a question or an answer.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import TracebackType
from typing import Final, Literal, Protocol

from ragsvc.core.errors import (
    BalanceExhausted,
    Forbidden,
    InvalidRequest,
    NotFound,
    RagsvcError,
    RateLimited,
    Unauthorized,
)

_REFUSALS = (BalanceExhausted, Forbidden, InvalidRequest, NotFound, RateLimited, Unauthorized)
_NO_SPAN: Final = nullcontext()
OperationName = Literal["search", "chat", "ingest"]


class OperationSink(Protocol):
    """Receives durations in seconds, for metrics."""

    def stage_ended(self, operation: str, stage: str, seconds: float) -> None: ...

    def operation_ended(self, operation: str, seconds: float, attributes: Mapping[str, str], outcome: str) -> None: ...

    def upstream_failed(self, provider: str, reason: str) -> None: ...


class TraceSpan(Protocol):
    """A span of a trace. ``active`` makes it the parent of spans that begin inside the block."""

    def active(self) -> AbstractContextManager[object]: ...

    def end(self, outcome: str, attributes: Mapping[str, str]) -> None: ...


class Tracer(Protocol):
    """Begins spans as children of the active span."""

    def begin(self, name: str, attributes: Mapping[str, str]) -> TraceSpan: ...


class Observer:
    """Where services report operations. Without a sink and a tracer, reports cost next to nothing."""

    def __init__(self, tracer: Tracer | None = None) -> None:
        self.sink: OperationSink | None = None
        self.tracer = tracer

    def begin(self, operation: OperationName, **attributes: str) -> ObservedOperation:
        """Begin an operation, which the caller ends."""
        return ObservedOperation(self, operation, attributes)

    def operation(self, operation: OperationName, **attributes: str) -> ObservedBlock:
        """Observe an operation that the block is; its outcome follows from how the block is left."""
        return ObservedBlock(self.begin(operation, **attributes))

    def upstream_failed(self, provider: str, reason: str) -> None:
        """Report a failed attempt of a request to a provider."""
        if self.sink is not None:
            self.sink.upstream_failed(provider, reason)


class ObservedOperation:
    """An operation in progress. Only the first ``end`` has an effect."""

    def __init__(self, observer: Observer, operation: OperationName, attributes: Mapping[str, str]) -> None:
        self._sink = observer.sink
        self._tracer = observer.tracer
        self._operation = operation
        self._attributes = dict(attributes)
        self._started = time.perf_counter()
        self._span = None if observer.tracer is None else observer.tracer.begin(operation, self._attributes)
        self._is_open = True

    def active(self) -> AbstractContextManager[object]:
        """Make spans that begin inside the block children of this operation."""
        return _NO_SPAN if self._span is None else self._span.active()

    @property
    def is_traced(self) -> bool:
        """Whether stages are spans of a trace, which have to begin and end as they happen."""
        return self._tracer is not None

    def stage(self, name: str, **attributes: str) -> ObservedStage:
        """Observe a stage of the operation, which the block is."""
        return ObservedStage(self, name, attributes)

    def begin_stage_span(self, name: str, attributes: Mapping[str, str]) -> TraceSpan | None:
        """A span of a stage as a child of this operation; ``None`` without a tracer."""
        tracer = self._tracer
        if tracer is None:
            return None
        with self.active():
            return tracer.begin(f"{self._operation}.{name}", attributes)

    def stage_ended(self, name: str, seconds: float) -> None:
        """Report the duration of a stage."""
        if self._sink is not None:
            self._sink.stage_ended(self._operation, name, seconds)

    def end(self, outcome: str = "ok", **attributes: str) -> None:
        """End the operation. ``outcome`` is ``ok``, ``cancelled``, ``refused`` or the code of an error."""
        if not self._is_open:
            return
        self._is_open = False
        if self._sink is not None:
            seconds = time.perf_counter() - self._started
            self._sink.operation_ended(self._operation, seconds, self._attributes, outcome)
        if self._span is not None:
            self._span.end(outcome, attributes)


class ObservedBlock:
    """An operation that a block is. Generators of ``contextmanager`` would take a tenth of the time of a small chat."""

    __slots__ = ("_active", "_observed")

    def __init__(self, observed: ObservedOperation) -> None:
        self._observed = observed
        active = observed.active()
        self._active = None if active is _NO_SPAN else active

    def __enter__(self) -> ObservedOperation:
        if self._active is not None:
            self._active.__enter__()
        return self._observed

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._observed.end("ok" if error is None else outcome_of(error))
        if self._active is not None:
            self._active.__exit__(kind, error, trace)


class ObservedStage:
    """A stage of an operation, which a block is; its span is active inside."""

    __slots__ = ("_active", "_attributes", "_name", "_operation", "_span", "_started")

    def __init__(self, operation: ObservedOperation, name: str, attributes: Mapping[str, str]) -> None:
        self._operation = operation
        self._name = name
        self._attributes = attributes
        self._started = 0.0
        self._span: TraceSpan | None = None
        self._active: AbstractContextManager[object] | None = None

    def __enter__(self) -> None:
        self._started = time.perf_counter()
        self._span = self._operation.begin_stage_span(self._name, self._attributes)
        if self._span is not None:
            self._active = self._span.active()
            self._active.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._active is not None:
            self._active.__exit__(kind, error, trace)
        self._operation.stage_ended(self._name, time.perf_counter() - self._started)
        if self._span is not None:
            self._span.end("ok" if error is None else outcome_of(error), {})


@contextmanager
def ended_by_block(observed: ObservedOperation, *, only_on_failure: bool = False) -> Generator[None]:
    """End an operation when the block is left; with ``only_on_failure`` it stays open after a success."""
    try:
        yield
    except BaseException as error:
        observed.end(outcome_of(error))
        raise
    if not only_on_failure:
        observed.end()


def outcome_of(error: BaseException) -> str:
    """The outcome of an operation that ``error`` ended: ``refused`` if the request is the reason.

    >>> outcome_of(RagsvcError("x")), outcome_of(KeyboardInterrupt()), outcome_of(NotFound("x"))
    ('internal_error', 'cancelled', 'refused')
    """
    if isinstance(error, _REFUSALS):
        return "refused"
    if isinstance(error, RagsvcError):
        return error.code
    return "internal_error" if isinstance(error, Exception) else "cancelled"
