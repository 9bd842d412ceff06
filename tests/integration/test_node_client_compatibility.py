"""The official Node client over every family, against the real service and a recording provider."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.recording_provider import SPEECH

pytestmark = pytest.mark.model

EXPECTED = {
    "chat": "Hello é",
    "chat stream": ["", "Hello", " world", ""],
    "completions": " a é test",
    "completions stream": ["a", " b", ""],
    "embeddings": [1.0, 2.0, 3.0],
    "embeddings here": [384, 384],
    "responses": "Once upon a time",
    "responses stream": ["response.created", "response.output_text.delta", "response.completed"],
    "images": 240_000,
    "images edit": "QUJD",
    "images variation": "https://example.com/a.png",
    "transcription": "Hallo Welt",
    "speech": len(SPEECH),
    "moderation": False,
    "rerank": 1,
    "ocr": "# Title",
    "video": "queued",
}
FAILURES = {
    "bad request": ("BadRequestError", 400, "invalid_request"),
    "unavailable": ("InternalServerError", 502, "upstream_error"),
    "not found": ("NotFoundError", 404, "model_not_found"),
    "denied": ("PermissionDeniedError", 403, "policy_denied"),
    "batches": ("NotFoundError", 404, "unknown_url"),
}


def test_the_node_client_gets_what_the_provider_sent(gateway, node_modules: Callable[[], Path]) -> None:
    seen = len(gateway.upstream.requests)
    done = subprocess.run(
        ["node", "families.mjs"],
        cwd=node_modules().parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
        env={**os.environ, "API_KEY": gateway.key, "BASE_URL": f"{gateway.url}/v1", "NODE_NO_WARNINGS": "1"},
    )
    assert done.returncode == 0, done.stderr
    told = {one["name"]: one["value"] for one in map(json.loads, done.stdout.splitlines())}
    assert {name: told[name] for name in EXPECTED} == EXPECTED
    for name, (kind, status, code) in FAILURES.items():
        failure = told[name]
        assert (failure["kind"], failure["status"], failure["code"]) == (kind, status, code)
        assert failure["id"].startswith("req_")
    assert told["stream breaks"]["kind"] == "APIError"
    uploads = [
        one for one in gateway.upstream.requests[seen:] if one.headers.get("content-type", "").startswith("multi")
    ]
    assert [one.path for one in uploads] == ["/v1/images/edits", "/v1/images/variations", "/v1/audio/transcriptions"]
    assert all(bytes([7]) * 300_000 in one.body for one in uploads)
