"""Requests made from our own OpenAPI document, valid and broken: no 5xx, no status or type that it does not name."""

from __future__ import annotations

import functools
from collections.abc import Callable

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
def key_with(service) -> Callable[[list[str]], str]:
    """A key of some scopes, made once."""

    @functools.cache
    def make(scopes: tuple[str, ...]) -> str:
        body = {"tenant": "conformance", "label": "conformance", "scopes": scopes, **NO_LIMITS}
        with service.client(service.admin_key) as admin:
            return admin.post("/v1/keys", json=body).json()["key"]

    return lambda scopes: make(tuple(scopes))


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
@pytest.mark.parametrize("scopes", [SCOPES], ids=["all scopes"])  # without a parameter, all operations have one test id
@settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_one_that_the_schema_names(case, service, key_with, scopes) -> None:
    headers = {"authorization": f"Bearer {key_with(scopes)}"}
    response = case.call(base_url=service.url, headers=headers, timeout=30)
    without_enclave = response.status_code == 503 and response.json()["error"]["code"] == "attestation_unavailable"
    case.validate_response(response, checks=CHECKS, excluded_checks=[not_a_server_error] if without_enclave else [])
