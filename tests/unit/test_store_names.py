"""Remembered names of vector stores are never older than the last deletion."""

from __future__ import annotations

from ragsvc.core.ids import TenantId
from ragsvc.services.store_names import StoreNames

ACME, OTHER = TenantId("acme"), TenantId("other")


def test_names_belong_to_a_tenant():
    names = StoreNames()
    names.add(ACME, {"vs_1": "default"}, revision=names.revision)
    assert names.get(ACME, "vs_1") == "default"
    assert names.get(OTHER, "vs_1") is None


def test_a_deletion_forgets_the_stores_of_its_tenant_only():
    names = StoreNames()
    for tenant in (ACME, OTHER):
        names.add(tenant, {"vs_1": "default"}, revision=names.revision)
    names.forget(ACME)
    assert names.get(ACME, "vs_1") is None
    assert names.get(OTHER, "vs_1") == "default"


def test_a_name_that_was_read_before_a_deletion_is_not_remembered():
    names = StoreNames()
    before = names.revision
    names.forget(ACME)  # deleted while the read was running
    names.add(ACME, {"vs_1": "default"}, revision=before)
    assert names.get(ACME, "vs_1") is None
