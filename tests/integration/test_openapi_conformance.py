"""Requests made from our own OpenAPI document, valid and broken: no 5xx, no status or type that it does not name."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from ragsvc.core.file_types import MEDIA_TYPES
from ragsvc.web.app import FOUNDATION_ROUTES
from ragsvc.web.openapi import describe
from ragsvc.web.service_app import ROUTES
from tests.conftest import NO_LIMITS

pytestmark = pytest.mark.model

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
SCOPES = ["chat", "embeddings", "documents.read", "documents.write", "search", "proxy", "admin"]


@pytest.fixture(scope="module")
def valid_key(service) -> str:
    with service.client(service.admin_key) as admin:
        body = {"tenant": "conformance", "label": "conformance", "scopes": SCOPES, **NO_LIMITS}
        return admin.post("/v1/keys", json=body).json()["key"]


BINARY_TYPES = [kind for kind in MEDIA_TYPES if kind.startswith(("application/", "image/", "message/"))]


@schemathesis.serializer("text/markdown", *BINARY_TYPES)
def as_it_is(_context, value) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


schema = schemathesis.openapi.from_dict(describe([*FOUNDATION_ROUTES, *ROUTES]))
schema = schema.exclude(
    path="/v1/rag/events"
)  # a stream without end; tests/integration/test_document_lists.py reads it
schema.config.generation.update(modes=[GenerationMode.POSITIVE, GenerationMode.NEGATIVE])


@schema.parametrize()
@settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_one_that_the_schema_names(case, service, valid_key) -> None:
    response = case.call(base_url=service.url, headers={"authorization": f"Bearer {valid_key}"}, timeout=30)
    without_enclave = response.status_code == 503 and response.json()["error"]["code"] == "attestation_unavailable"
    case.validate_response(response, checks=CHECKS, excluded_checks=[not_a_server_error] if without_enclave else [])
