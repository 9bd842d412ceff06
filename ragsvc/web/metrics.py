"""Counts and times of requests for Prometheus, kept in plain lists: the event loop is the only writer."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_MAX_MODELS = 200
_OTHER = "other"
_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})


class _Series:
    """One route's times: ``counts`` per bucket, the last one above all bounds."""

    __slots__ = ("counts", "total_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(_BOUNDS_S) + 1)
        self.total_s = 0.0


class RequestMetrics(Collector):
    """Requests by route template, method and status; labels never hold a raw path or anything a client chose."""

    def __init__(self) -> None:
        self.running = 0
        self._tokens: dict[str, list[int]] = {}
        self._statuses: dict[tuple[str, str, int], int] = {}
        self._times: dict[tuple[str, str], _Series] = {}

    def observe(self, route: str, method: str, status: int, duration_s: float) -> None:
        """Count one finished request; streams count until their last byte."""
        if method not in _METHODS:
            method = _OTHER
        counted = (route, method, status)
        self._statuses[counted] = self._statuses.get(counted, 0) + 1
        series = self._times.get((route, method))
        if series is None:
            series = self._times[(route, method)] = _Series()
        series.counts[bisect_left(_BOUNDS_S, duration_s)] += 1
        series.total_s += duration_s

    def count_tokens(self, model: str, prompt_tokens: int, completion_tokens: int) -> None:
        """Count what a settled request used; models beyond the first ``_MAX_MODELS`` share one label."""
        counts = self._tokens.get(model)
        if counts is None:
            label = model if len(self._tokens) < _MAX_MODELS else _OTHER
            counts = self._tokens.setdefault(label, [0, 0])
        counts[0] += prompt_tokens
        counts[1] += completion_tokens

    def collect(self) -> Iterable[Metric]:
        """Hand the figures to Prometheus."""
        requests = CounterMetricFamily(
            "ragsvc_http_requests", "Requests answered.", labels=["route", "method", "status"]
        )
        for (route, method, status), count in self._statuses.items():
            requests.add_metric([route, method, str(status)], count)
        yield requests
        times = HistogramMetricFamily(
            "ragsvc_http_request_duration_seconds", "From first to last byte.", labels=["route", "method"]
        )
        for (route, method), series in self._times.items():
            buckets: list[tuple[str, float]] = []
            so_far = 0
            for bound, count in zip((*map(str, _BOUNDS_S), "+Inf"), series.counts, strict=True):
                so_far += count
                buckets.append((bound, so_far))
            times.add_metric([route, method], buckets, sum_value=series.total_s)
        yield times
        tokens = CounterMetricFamily("ragsvc_tokens", "Tokens of settled requests.", labels=["model", "kind"])
        for model, counts in self._tokens.items():
            for kind, count in zip(("prompt", "completion"), counts, strict=True):
                tokens.add_metric([model, kind], count)
        yield tokens
        yield GaugeMetricFamily("ragsvc_http_requests_running", "Requests being answered.", value=self.running)
