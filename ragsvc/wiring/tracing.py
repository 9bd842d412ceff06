"""Sends traces by OTLP over HTTP; implements ``Tracer`` with OpenTelemetry (extra ``otel``)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, AsyncExitStack
from typing import Any

import anyio.to_thread

from ragsvc import __version__
from ragsvc.core.errors import ConfigurationError
from ragsvc.core.log_events import REQUEST_ID, TRACE_PARENT
from ragsvc.core.observation import Tracer

_EXPORT_TIMEOUT_S = 5
_SCOPE = "ragsvc"


def open_tracer(stack: AsyncExitStack, endpoint: str | None) -> Tracer | None:
    """The tracer that sends to ``endpoint`` in the background; ``None`` without an endpoint.

    Headers and resource attributes are those of OpenTelemetry's own variables (``OTEL_EXPORTER_OTLP_HEADERS``,
    ``OTEL_RESOURCE_ATTRIBUTES``). A collector that does not answer costs spans, and never a request.

    Raises:
        ConfigurationError: OpenTelemetry is not installed.
    """
    if endpoint is None:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - an extra
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - an extra
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - an extra
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ConfigurationError(["otel_endpoint needs OpenTelemetry: pip install 'ragsvc[otel]'"]) from error

    resource = Resource.create({"service.name": _SCOPE, "service.version": __version__})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, timeout=_EXPORT_TIMEOUT_S)))
    stack.push_async_callback(anyio.to_thread.run_sync, provider.shutdown)  # waits for the last export
    return _OtelTracer(provider)


class _OtelTracer:
    """Implements ``Tracer``. ``provider`` is an OpenTelemetry ``TracerProvider``."""

    def __init__(self, provider: Any) -> None:  # noqa: ANN401 - a class of an extra
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415 - an extra

        self._tracer = provider.get_tracer(_SCOPE, __version__)
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, name: str, attributes: Mapping[str, str]) -> _OtelSpan:
        from opentelemetry import trace  # noqa: PLC0415 - an extra

        context = None
        if not trace.get_current_span().get_span_context().is_valid and (parent := TRACE_PARENT.get()) is not None:
            context = self._propagator.extract({"traceparent": parent})
        named = {f"ragsvc.{key}": value for key, value in attributes.items()}
        request_id = REQUEST_ID.get()
        if request_id is not None:
            named["ragsvc.request_id"] = request_id
        return _OtelSpan(self._tracer.start_span(name, context=context, attributes=named))


class _OtelSpan:
    """Implements ``TraceSpan``. ``span`` is an OpenTelemetry ``Span``."""

    def __init__(self, span: Any) -> None:  # noqa: ANN401 - a class of an extra
        self._span = span

    def active(self) -> AbstractContextManager[object]:
        from opentelemetry import trace  # noqa: PLC0415 - an extra

        # exceptions are not recorded: their messages may contain text of documents
        active: AbstractContextManager[object] = trace.use_span(
            self._span, record_exception=False, set_status_on_exception=False
        )
        return active

    def end(self, outcome: str, attributes: Mapping[str, str]) -> None:
        from opentelemetry.trace import StatusCode  # noqa: PLC0415 - an extra

        for key, value in {**attributes, "outcome": outcome}.items():
            self._span.set_attribute(f"ragsvc.{key}", value)
        if outcome not in {"ok", "cancelled", "refused"}:
            self._span.set_status(StatusCode.ERROR, outcome)
        self._span.end()
