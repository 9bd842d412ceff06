"""The whole application over open services: every module's routes, and the metrics that services have to tell."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from litestar import Litestar
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ragsvc.web import chat, documents, families, models, search
from ragsvc.web.app import create_app
from ragsvc.wiring import Services

ROUTES = [
    *models.route_handlers,
    *chat.route_handlers,
    *families.route_handlers,
    *families.stateful_routes,
    *documents.route_handlers,
    *search.route_handlers,
]


def create_service(services: Services) -> Litestar:
    """Build the application. The caller opens and closes ``services``."""
    services.registry.register(ServiceMetrics(services))
    log = _write_line if services.settings.access_log else None
    return create_app(
        services, route_handlers=ROUTES, body_limit_bytes=services.settings.max_body_bytes, access_log=log
    )


def _write_line(line: bytes) -> None:
    sys.stderr.buffer.write(line + b"\n")
    sys.stderr.buffer.flush()


class ServiceMetrics(Collector):
    """What queues, indexes and models are doing, read when asked."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def collect(self) -> Iterable[Metric]:
        """Hand the figures to Prometheus."""
        services = self._services
        yield _gauge("ragsvc_ingest_running", "Documents being worked on.", services.ingest.running_count())
        yield _gauge("ragsvc_embedding_waiting", "Passages that wait for their vector.", services.batcher.waiting_texts)
        yield _gauge("ragsvc_index_bytes", "Memory of loaded indexes.", services.indexes.memory_bytes())
        passages = GaugeMetricFamily("ragsvc_index_passages", "Passages of loaded indexes.", labels=["kind"])
        counts: dict[str, int] = {}
        for status in services.indexes.status():
            counts[status.kind] = counts.get(status.kind, 0) + status.passages
        for kind, count in counts.items():
            passages.add_metric([kind], count)
        yield passages


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)
