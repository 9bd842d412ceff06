"""The attack of ``scripts/bench_attack`` for a short time, and a fuzz of all reading routes."""

from __future__ import annotations

import pytest

from ragsvc.core.access.principal import Scope
from ragsvc.testing.service_runner import RunningService, create_key
from scripts.bench.attack import KINDS, attack
from scripts.bench.fuzz_reads import clients_by_scope, fuzz, store_samples

pytestmark = [pytest.mark.model, pytest.mark.slow, pytest.mark.timeout(400)]

SECONDS = 30
REQUESTS = 2000
STOPPED_MS = 2000
"""Other tests run beside this one: the benchmark has the bound for a quiet machine."""


@pytest.fixture
def key_and_service(tmp_path):
    scopes = ("admin", "chat", "search", "documents.read", "documents.write")
    key = create_key(tmp_path, tenant="attacked", extra=tuple(word for scope in scopes for word in ("--scope", scope)))
    service = RunningService(tmp_path, start_timeout_s=180)
    try:
        yield key, service
    finally:
        service.stop()


def test_an_attack_stops_neither_livez_nor_valid_requests_and_costs_no_memory(key_and_service):
    key, service = key_and_service
    outcome = attack(service, key, seconds=SECONDS, kinds=list(KINDS))
    assert outcome.attacks.keys() == KINDS.keys()
    assert outcome.problems(livez_p99_ms=STOPPED_MS) == []


def test_no_reading_route_fails_on_random_requests_with_any_scope(key_and_service):
    key, service = key_and_service
    with service.client(key) as admin:
        clients = clients_by_scope(admin, "attacked")
        ids = store_samples(admin, clients, "attacked")
        statuses, failures = fuzz(clients, requests=REQUESTS, seed=7, ids=ids)
        for client in clients.values():
            client.close()
    assert failures == []
    assert {200, 400, 401, 403, 404} <= {status for counts in statuses.values() for status in counts}
    assert set(statuses) == {*Scope, "none"}
