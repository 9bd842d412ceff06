"""The complete application of the service: all routes, and metrics of the services."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from litestar import Litestar
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ragsvc.core.gateway.circuit_breaker import Circuit
from ragsvc.services.model_registry import ModelRegistry
from ragsvc.services.request_encryption import EncryptionService
from ragsvc.web.app import create_app
from ragsvc.web.routes import (
    chat,
    documents,
    encrypted_chat,
    encryption_keys,
    endpoint_families,
    models,
    providers,
    search,
)
from ragsvc.wiring.services import Services

ROUTES = [
    *models.route_handlers,
    *chat.route_handlers,
    *endpoint_families.route_handlers,
    *providers.route_handlers,
    *endpoint_families.stateful_routes,
    *documents.route_handlers,
    *search.route_handlers,
    *encryption_keys.route_handlers,
    *encrypted_chat.route_handlers,
]


def create_service(services: Services) -> Litestar:
    """Build the application. The caller opens and closes ``services``."""
    services.registry.register(ServiceMetrics(services))
    log = _write_line if services.settings.access_log else None
    return create_app(
        services,
        route_handlers=ROUTES,
        body_limit_bytes=services.settings.max_body_bytes,
        access_log=log,
        encryption=services.encryption,
        document_limit_bytes=services.settings.max_document_bytes,
        encrypted_memory_bytes=services.settings.encrypted_memory_bytes,
        model_label=services.models.label,
    )


def _write_line(line: bytes) -> None:
    sys.stderr.buffer.write(line + b"\n")
    sys.stderr.buffer.flush()


class ServiceMetrics(Collector):
    """State of queues, indexes and providers, read when metrics are collected."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def collect(self) -> Iterable[Metric]:
        services = self._services
        yield _gauge("ragsvc_ingest_running", "Documents being processed.", services.ingest.running_count())
        yield _gauge("ragsvc_embedding_waiting", "Passages waiting for embedding.", services.batcher.waiting_texts)
        yield _gauge("ragsvc_index_bytes", "Memory of loaded indexes.", services.indexes.memory_bytes())
        if services.reembedding is not None:
            yield _gauge(
                "ragsvc_reembedding_total", "Documents to embed again for a new model.", services.reembedding.total
            )
            yield _gauge("ragsvc_reembedding_done", "Documents embedded again.", services.reembedding.done)
        passages = GaugeMetricFamily("ragsvc_index_passages", "Passages of loaded indexes.", labels=["kind"])
        counts: dict[str, int] = {}
        for status in services.indexes.status():
            counts[status.kind] = counts.get(status.kind, 0) + status.passages
        for kind, count in counts.items():
            passages.add_metric([kind], count)
        yield passages
        yield from _providers(services.models)
        yield from _encryption(services.encryption)


def _providers(models: ModelRegistry) -> Iterable[Metric]:
    available = GaugeMetricFamily(
        "ragsvc_provider_available", "Circuit breaker: 1 closed, 0.5 half-open, 0 open.", labels=["provider"]
    )
    for name, circuit in models.circuits().items():
        available.add_metric([name], {Circuit.CLOSED: 1.0, Circuit.HALF_OPEN: 0.5, Circuit.OPEN: 0.0}[circuit])
    yield available


def _encryption(encryption: EncryptionService) -> Iterable[Metric]:
    opened = CounterMetricFamily(
        "ragsvc_encrypted_requests", "Encrypted requests accepted, by format and dialect.", labels=["mode", "dialect"]
    )
    for (mode, dialect), count in encryption.opened.items():
        opened.add_metric([mode, dialect], count)
    yield opened
    refused = CounterMetricFamily(
        "ragsvc_encrypted_refused", "Encrypted requests refused before decryption.", labels=["mode"]
    )
    for mode, count in encryption.refused.items():
        refused.add_metric([mode], count)
    yield refused


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)
