"""The histogram of durations has the exposition of ``prometheus_client.Histogram``."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, Histogram, disable_created_metrics, generate_latest

from ragsvc.web.duration_histogram import DurationHistogram

BUCKETS_S = (0.001, 0.5, 1.0, 300.0)


def test_exposition_is_that_of_the_library() -> None:
    disable_created_metrics()
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    histogram = DurationHistogram("took_seconds", "Time.", ["stage", "kind"], buckets=BUCKETS_S, registry=ours)
    reference = Histogram("took_seconds", "Time.", ["stage", "kind"], buckets=BUCKETS_S, registry=theirs)
    assert generate_latest(ours) == generate_latest(theirs)
    for labels, seconds in (
        (("find", "ok"), (0.0, 0.001, 0.0011, 0.25)),
        (("find", 'a "quoted" one'), (0.5, 1.0, 299.0, 300.0, 301.0)),
    ):
        for value in seconds:
            histogram.labels(*labels).observe(value)
            reference.labels(*labels).observe(value)
    assert generate_latest(ours) == generate_latest(theirs)


def test_a_name_is_registered_once() -> None:
    registry = CollectorRegistry()
    DurationHistogram("took_seconds", "Time.", ["stage"], buckets=BUCKETS_S, registry=registry)
    with pytest.raises(ValueError, match="Duplicated"):
        DurationHistogram("took_seconds", "Time.", ["stage"], buckets=BUCKETS_S, registry=registry)
