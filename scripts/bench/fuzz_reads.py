"""Sends random read-only requests to every route of ``/schema``, with a key of each scope; no answer may be 500.

scripts/bench_fuzz [--requests N] [--each] [--seed N] [--url URL --key ADMIN_KEY]

Without ``--url`` it starts a service of its own, with objects of each kind that routes can read. ``--requests`` counts
the requests of all scopes together, or with ``--each`` those of each scope. The same seed sends the same requests. Exit
code 1 if a request was answered with 500, or not at all.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from ragsvc.core.access.principal import Scope
from ragsvc.testing.sample_pdfs import text_pdf
from ragsvc.testing.service_runner import RunningService, create_key

_READING_POSTS = ("/v1/rag/search", "/v1/chat/completions", "/v1/embeddings", "/v1/rerank")
"""POST routes that store nothing."""
_RATINGS = "/v1/rag/feedback"
_STREAMS = ("/events",)
_SCOPES_AT_ONCE = 4
_ODD_TEXTS = (
    *("", " ", "0", "-1", "1", "20", "null", "true", "a", "default", "local/chat-model", "ready", "asc", "desc"),
    *("doc_1", "chunk_1", "key_1", str(2**31), str(2**63), str(-(2**63)), "9" * 400, "1e400", "NaN", "\x00", "\ud7ff"),
    *("é", "日本", "%", "%2F", "..", "../..", "a/b", "'", '" OR 1=1 --', "[", "{}", "[]", "x" * 3000, "💥", "\u202e"),
    "\r\nX: y",
)
_NESTED = ("[" * 300 + "]" * 300, '{"type":' * 300 + "1" + "}" * 300)


_NUMBERS = {
    "integer": (0, 1, 5, 20, -1, 2**31, 2**63, -(2**70), 10**40),
    "number": (0, 0.5, 1, -1, 1e308, 2**70),
    "boolean": (True, False),
}


class Fuzzer:
    """Random requests for the routes of an OpenAPI document."""

    def __init__(self, schema: dict[str, Any], chance: random.Random, ids: list[str]) -> None:
        self._chance = chance
        self._ids = ids
        self._components = schema.get("components", {}).get("schemas", {})
        self.routes = [
            (method, path, operation)
            for path, operations in sorted(schema["paths"].items())
            for method, operation in sorted(operations.items())
            if method == "get" or (method == "post" and path in _READING_POSTS)
        ]

    def request(self) -> tuple[str, str, bytes | None, dict[str, str]]:
        """Method, target, body and headers."""
        chance = self._chance
        method, path, operation = chance.choice(self.routes)
        query: list[str] = []
        headers: dict[str, str] = {}
        for parameter in operation.get("parameters", ()):
            name, value = parameter["name"], self._text()
            if parameter["in"] == "path":
                path = path.replace("{" + name + "}", quote(value, safe="") or "x")
            elif parameter["in"] == "query" and chance.random() < 0.6:
                query.append(f"{quote(name)}={quote(value, safe='')}")
            elif parameter["in"] == "header" and chance.random() < 0.3:
                headers[name] = "".join(c for c in value if " " <= c <= "~")[:1000].strip()
        if chance.random() < 0.1:
            method = chance.choice(["head", "options", "get"]) if method == "get" else method
        target = path + ("?" + "&".join(query) if query else "")
        body = self._body(operation) if method == "post" else None
        if body is not None:
            headers["content-type"] = "application/json"
        return method.upper(), target, body, headers

    def _text(self) -> str:
        chance = self._chance
        if chance.random() < 0.25 and self._ids:
            return chance.choice(self._ids)
        if chance.random() < 0.1:
            return chance.choice(_NESTED)
        if chance.random() < 0.15:
            return json.dumps(self._value(0))
        return chance.choice(_ODD_TEXTS)

    def _body(self, operation: dict[str, Any]) -> bytes:
        chance = self._chance
        content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
        made = self._of_schema(content.get("schema", {}), 0)
        text = json.dumps(made, ensure_ascii=chance.random() < 0.5)
        if chance.random() < 0.1:
            at = chance.randrange(len(text) + 1)
            text = text[:at] + chance.choice(["", "\\", '"', "{", "\x00", *_NESTED]) + text[at:]
        return text.encode("utf-8", "surrogatepass")

    def _of_schema(self, schema: dict[str, Any], depth: int) -> Any:
        chance = self._chance
        if depth > 6 or chance.random() < 0.06:
            return self._value(depth)
        if "$ref" in schema:
            return self._of_schema(self._components.get(schema["$ref"].rsplit("/", 1)[-1], {}), depth)
        if several := schema.get("anyOf") or schema.get("oneOf"):
            return self._of_schema(chance.choice(several), depth)
        if "enum" in schema:
            return chance.choice(schema["enum"])
        make = {"object": self._object, "array": self._array, "string": lambda *_: self._text()}.get(schema.get("type"))
        numbers = _NUMBERS.get(schema.get("type"))
        if make is None:
            return chance.choice(numbers) if numbers else self._value(depth)
        return make(schema, depth)

    def _object(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        required, chance = set(schema.get("required", ())), self._chance
        return {
            name: self._of_schema(inner, depth + 1)
            for name, inner in schema.get("properties", {}).items()
            if (name in required and chance.random() < 0.97) or chance.random() < 0.3
        }

    def _array(self, schema: dict[str, Any], depth: int) -> list[Any]:
        return [self._of_schema(schema.get("items", {}), depth + 1) for _ in range(self._chance.randrange(3))]

    def _value(self, depth: int) -> Any:
        chance = self._chance
        kind = chance.randrange(8 if depth < 5 else 6)
        if kind == 6:
            return [self._value(depth + 1) for _ in range(chance.randrange(4))]
        if kind == 7:
            names = ("type", "key", "value", "filters", "role", "content", "text")
            return {chance.choice(names): self._value(depth + 1) for _ in range(chance.randrange(4))}
        return (None, True, chance.choice([0, -1, 2**63, 10**30]), 1.5, chance.choice(_ODD_TEXTS), "eq")[kind]


def fuzz(
    clients: dict[str, httpx.Client], *, requests: int, seed: int, ids: list[str]
) -> tuple[dict[str, Counter[int]], list[str]]:
    """Send each client its share of the requests; returns the statuses by scope, and the requests that failed."""
    schema = clients["admin"].get("/schema/openapi.json").raise_for_status().json()
    failures = list[str]()
    with ThreadPoolExecutor(_SCOPES_AT_ONCE) as threads:
        answered = threads.map(
            lambda number, scope: fuzz_scope(
                scope,
                clients[scope],
                Fuzzer(schema, random.Random(f"{seed} {scope}"), ids),  # noqa: S311 - repeatable
                requests // len(clients) + (number < requests % len(clients)),
                failures,
            ),
            range(len(clients)),
            clients,
        )
        return dict(zip(clients, answered, strict=True)), failures


def fuzz_scope(scope: str, client: httpx.Client, fuzzer: Fuzzer, requests: int, failures: list[str]) -> Counter[int]:
    """Send random requests with one client; adds those that failed to ``failures``."""
    statuses = Counter[int]()
    for number in range(requests):
        method, target, body, headers = fuzzer.request()
        try:
            url = httpx.URL(str(client.base_url).rstrip("/") + target)
            with client.stream(method, url, content=body, headers=headers) as reply:
                statuses[reply.status_code] += 1
                if reply.status_code == 500:
                    failures.append(f"{number} {scope} {method} {target[:300]} {(body or b'')[:300]!r}")
                if not target.partition("?")[0].endswith(_STREAMS):
                    reply.read()
        except httpx.InvalidURL:
            continue
        except httpx.TransportError as error:
            failures.append(f"{number} {scope} {method} {target[:300]}: {error!r}")
    return statuses


def clients_by_scope(admin: httpx.Client, tenant: str) -> dict[str, httpx.Client]:
    """A client with a key of each scope alone, and without a key."""
    clients: dict[str, httpx.Client] = {}
    for scope in Scope:
        draft = {
            "tenant": tenant, "label": f"fuzz {scope.value}", "scopes": [scope.value],
            "requests_per_minute": None, "requests_per_hour": None,
        }  # fmt: skip
        made = admin.post("/v1/keys", json=draft).raise_for_status().json()
        headers = {"authorization": f"Bearer {made['key']}"}
        clients[scope.value] = httpx.Client(base_url=admin.base_url, headers=headers, timeout=60)
    clients["none"] = httpx.Client(base_url=admin.base_url, timeout=60)
    return clients


def store_samples(admin: httpx.Client, clients: dict[str, httpx.Client], tenant: str) -> list[str]:
    """Store objects of each kind for the fuzz to read; returns their ids."""
    made = admin.post("/v1/keys", json={"tenant": tenant, "label": "samples"}).raise_for_status().json()
    with httpx.Client(
        base_url=admin.base_url, headers={"authorization": f"Bearer {made['key']}"}, timeout=120
    ) as writer:

        def post(path: str, body: dict[str, Any]) -> dict[str, Any]:
            return dict(writer.post(path, json=body).raise_for_status().json())

        ids = []
        for number in range(3):
            pdf = text_pdf([[f"The harbour number {number} handled 4,711 containers."], ["Outlook."]])
            reply = writer.post(
                "/v1/rag/documents", params={"wait_s": 60}, content=pdf, headers={"content-type": "application/pdf"}
            )
            ids.append(reply.raise_for_status().json()["id"])
        upload = {"file": ("harbour.txt", b"The harbour handled 4,711 containers.", "text/plain")}
        stored = writer.post("/v1/files", files=upload, data={"purpose": "assistants"}).raise_for_status().json()["id"]
        store = post("/v1/vector_stores", {"name": "harbours"})["id"]
        batch = post(f"/v1/vector_stores/{store}/file_batches", {"file_ids": [stored]})["id"]
        part = {"filename": "a.txt", "purpose": "assistants", "bytes": 1, "mime_type": "text/plain"}
        upload_id = post("/v1/uploads", part)["id"]
        conversation = post("/v1/conversations", {"items": [{"type": "message", "role": "user", "content": "Hello."}]})
        question = {"model": "local/chat-model", "input": "How many containers?", "conversation": conversation["id"]}
        response = post("/v1/responses", {**question, "tools": [{"type": "file_search", "vector_store_ids": [store]}]})
        rating = {"rating": "up", "question": "How many containers?", "answer": "4,711"}
        ids += [stored, store, batch, upload_id, conversation["id"], response["id"], post(_RATINGS, rating)["id"]]
    ids += [found["id"] for found in clients["chat"].get("/v1/rag/collections").json().get("data", ())]
    return ids + [key["id"] for key in admin.get("/v1/keys").raise_for_status().json()["data"]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--each", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--url")
    parser.add_argument("--key")
    options = parser.parse_args()
    if options.url:
        with httpx.Client(base_url=options.url, headers={"authorization": f"Bearer {options.key}"}) as admin:
            return report(admin, options)
    with tempfile.TemporaryDirectory() as folder:
        data_dir = Path(folder) / "data"
        key = create_key(data_dir, tenant="fuzz", extra=("--scope", "admin"))
        service = RunningService(data_dir, start_timeout_s=180)
        try:
            with service.client(key) as admin:
                return report(admin, options)
        finally:
            service.stop()


def report(admin: httpx.Client, options: argparse.Namespace) -> int:
    clients = clients_by_scope(admin, "fuzz")
    try:
        ids = store_samples(admin, clients, "fuzz")
        requests = options.requests * (len(clients) if options.each else 1)
        statuses, failures = fuzz(clients, requests=requests, seed=options.seed, ids=ids)
    finally:
        for client in clients.values():
            client.close()
    figures = {
        "seed": options.seed,
        "requests": {scope: counts.total() for scope, counts in statuses.items()},
        "statuses": {scope: dict(sorted(counts.items())) for scope, counts in statuses.items()},
    }
    print(json.dumps({**figures, "failures": failures[:50]}, indent=1, ensure_ascii=False))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
