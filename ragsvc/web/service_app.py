"""The complete application of the service: all routes, and metrics of the services."""

from __future__ import annotations

import contextlib
import logging
import math
import shutil
import time
from collections.abc import Iterable, Mapping
from typing import Any

import anyio.to_thread
import msgspec
from litestar import Litestar
from litestar.types import ControllerRouterHandler
from prometheus_client import GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ragsvc import __version__
from ragsvc.core.documents import DocumentStatus
from ragsvc.core.errors import RagsvcError
from ragsvc.core.gateway.circuit_breaker import Circuit
from ragsvc.core.log_events import log_event
from ragsvc.services.model_registry import ModelRegistry
from ragsvc.services.request_encryption import EncryptionService
from ragsvc.store.document_rows import count_by_status
from ragsvc.store.job_rows import waiting_count
from ragsvc.web.app import create_app
from ragsvc.web.mcp.endpoint import McpEndpoint
from ragsvc.web.mcp.endpoint import route_handlers as mcp_routes
from ragsvc.web.metrics import OperationMetrics
from ragsvc.web.pages import routes as page_routes
from ragsvc.web.routes import (
    chat,
    collections,
    conversations,
    document_events,
    documents,
    encrypted_chat,
    encryption_keys,
    endpoint_families,
    feedback,
    files,
    models,
    page_views,
    providers,
    responses,
    search,
    service_state,
    sessions,
    tenants,
    uploads_in_parts,
    vector_store_files,
    vector_stores,
)
from ragsvc.wiring.services import Services

_requests = logging.getLogger("ragsvc.requests")

_STORED_STATE_S = 2.0
"""How long state that needs the database is reused: several collectors must not cost several counts."""

ROUTES: list[ControllerRouterHandler] = [
    *models.route_handlers,
    *chat.route_handlers,
    *responses.route_handlers,
    *endpoint_families.route_handlers,
    *providers.route_handlers,
    *endpoint_families.stateful_routes,
    *documents.route_handlers,
    *document_events.route_handlers,
    *page_views.route_handlers,
    *files.route_handlers,
    *uploads_in_parts.route_handlers,
    *collections.route_handlers,
    *conversations.route_handlers,
    *feedback.route_handlers,
    *search.route_handlers,
    *vector_stores.route_handlers,
    *vector_store_files.route_handlers,
    *tenants.route_handlers,
    *encryption_keys.route_handlers,
    *encrypted_chat.route_handlers,
    *service_state.route_handlers,
    *sessions.route_handlers,
    *mcp_routes,
]
"""All routes of the API."""


def routes_of(*, pages: bool) -> list[ControllerRouterHandler]:
    """All routes, or those of a service without web pages, to which nobody can sign in."""
    if pages:
        return [*ROUTES, *page_routes.route_handlers]
    return [handler for handler in ROUTES if handler not in sessions.route_handlers]


def create_service(services: Services) -> Litestar:
    """Build the application. The caller opens and closes ``services``."""
    state = ServiceMetrics(services)
    services.registry.register(state)
    operations = OperationMetrics(services.registry, model_label=services.models.label)
    services.observer.sink = operations
    for process_collector in (ProcessCollector, PlatformCollector, GCCollector):
        process_collector(registry=services.registry)
    log = _log_request if services.settings.access_log else None
    return create_app(
        services,
        before_metrics=state.refresh,
        route_handlers=routes_of(pages=services.settings.pages),
        lifespan=[McpEndpoint(services).running],
        body_limit_bytes=services.settings.max_body_bytes,
        access_log=log,
        slow_request_s=services.settings.slow_request_s,
        cors_origins=[services.settings.cors_origins],
        public_url=services.settings.public_url,
        encryption=services.encryption,
        chat_files_bytes=services.settings.chat_files_bytes,
        pass_chat_files=services.settings.pass_chat_files,
        document_limit_bytes=services.settings.max_document_bytes,
        encrypted_memory_bytes=services.settings.encrypted_memory_bytes,
        model_label=services.models.label,
        stream_comment_s=services.settings.stream_comment_s,
    )


def _log_request(line: bytes) -> None:
    fields = msgspec.json.decode(line, type=dict[str, Any])
    fields.pop("at")  # every line of the log has its time
    log_event(_requests, logging.INFO, "request", "request answered", **fields)


class _StoredState(msgspec.Struct, frozen=True, kw_only=True):
    """State that needs the database or the disk."""

    documents: Mapping[str, int] = {}
    waiting_jobs: int = 0
    database_bytes: int = 0
    disk_free_bytes: int = 0
    disk_size_bytes: int = 0


class ServiceMetrics(Collector):
    """State of queues, documents, indexes, disk and providers, read when metrics are collected."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._stored = _StoredState()
        self._read_at = -math.inf

    async def refresh(self) -> None:
        """Read what needs the database or the disk, at most every ``_STORED_STATE_S``; ``collect`` must not wait.

        After a failure the metrics keep their former values: the other metrics are needed most then.
        """
        if time.monotonic() - self._read_at < _STORED_STATE_S:
            return
        self._read_at = time.monotonic()
        with contextlib.suppress(RagsvcError, OSError):
            self._stored = await self._read_stored_state()

    async def _read_stored_state(self) -> _StoredState:
        database, data_dir = self._services.database, self._services.settings.data_dir
        documents, waiting = await database.read(lambda c: (count_by_status(c), waiting_count(c)))
        disk = await anyio.to_thread.run_sync(shutil.disk_usage, data_dir)
        size_bytes = await anyio.to_thread.run_sync(database.size_bytes)
        return _StoredState(
            documents=documents,
            waiting_jobs=waiting,
            database_bytes=size_bytes,
            disk_free_bytes=disk.free,
            disk_size_bytes=disk.total,
        )

    def collect(self) -> Iterable[Metric]:
        services, stored = self._services, self._stored
        build = GaugeMetricFamily("ragsvc_build_info", "The release; always 1.", labels=["version"])
        build.add_metric([__version__], 1)
        yield build
        documents = GaugeMetricFamily("ragsvc_documents", "Documents of all tenants.", labels=["status"])
        for document_status in DocumentStatus:
            documents.add_metric([document_status.value], stored.documents.get(document_status.value, 0))
        yield documents
        yield _gauge("ragsvc_ingest_queue_jobs", "Jobs waiting to be processed.", stored.waiting_jobs)
        yield _gauge("ragsvc_database_size_bytes", "Size of the database file.", stored.database_bytes)
        yield _gauge("ragsvc_disk_free_bytes", "Space left for the data directory.", stored.disk_free_bytes)
        yield _gauge("ragsvc_disk_size_bytes", "Size of the disk of the data directory.", stored.disk_size_bytes)
        yield _gauge("ragsvc_ingest_running_jobs", "Documents being processed.", services.ingest.running_count())
        yield _gauge(
            "ragsvc_embedding_queue_passages", "Passages waiting for embedding.", services.batcher.waiting_texts
        )
        yield _gauge("ragsvc_index_memory_bytes", "Memory of loaded indexes.", services.indexes.memory_bytes())
        if services.reembedding is not None:
            yield _gauge(
                "ragsvc_reembedding_documents", "Documents to embed again for a new model.", services.reembedding.total
            )
            yield _gauge("ragsvc_reembedding_done_documents", "Documents embedded again.", services.reembedding.done)
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
