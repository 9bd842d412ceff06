"""The whole application in memory over a real database: errors, keys, limits, headers, schema."""

import contextlib
import json
import logging
import time
from collections.abc import AsyncGenerator

import anyio
import httpx
import pytest
from litestar import Request, Response, asgi, get, post
from litestar.params import FromQuery
from litestar.response import Stream
from litestar.types import Receive, Send
from litestar.types import Scope as ASGIScope

from ragsvc.core.access.api_keys import KeyLimits
from ragsvc.core.access.principal import DEFAULT_SCOPES, Scope
from ragsvc.core.errors import ConfigurationError, ModelUnavailable
from ragsvc.services.key_administration import Actor, KeyDraft, create_key
from ragsvc.web.app import create_app
from ragsvc.web.auth import AccessRequirement
from ragsvc.web.context import context_of
from tests.support.engines import bytes_of_rows
from tests.support.keys_database import SmallDatabase, compose

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


@get("/test/echo", opt={"scope": Scope.CHAT})
async def echo(request: Request, q: FromQuery[str] = "") -> dict[str, str]:
    return {"tenant": request.user.tenant, "id": context_of(request.scope).request_id}


@post("/test/body", opt={"scope": Scope.CHAT}, status_code=200)
async def body(request: Request) -> dict[str, int]:
    return {"bytes": len(await request.body())}


@post("/test/big", opt={"scope": Scope.CHAT}, status_code=200, request_max_body_size=3000)
async def big(request: Request) -> dict[str, int]:
    return {"bytes": len(await request.body())}


@get("/test/fail", opt={"scope": AccessRequirement.PUBLIC})
async def fail() -> None:
    raise ZeroDivisionError("private detail")


@get("/test/unavailable", opt={"scope": AccessRequirement.PUBLIC})
async def unavailable() -> None:
    raise ModelUnavailable("not loaded", retry_after_s=3)


@get("/test/slow", opt={"scope": Scope.CHAT})
async def slow() -> Response[bytes]:
    await anyio.sleep(0.1)
    return Response(b"", headers={"x-request-id": "theirs", "x-ratelimit-remaining-tokens": "5"})


@get("/test/stream", opt={"scope": Scope.CHAT})
async def stream() -> Stream:
    async def parts() -> AsyncGenerator[bytes, None]:
        yield b"one"
        yield b"two"

    return Stream(parts())


@get("/test/plain", opt={"scope": Scope.CHAT_PLAIN})
async def plain() -> dict[str, str]:
    return {}


@asgi("/test/asgi", copy_scope=True, opt={"scope": AccessRequirement.ANY_KEY})
async def every_method(scope: ASGIScope, receive: Receive, send: Send) -> None:
    await Response(context_of(scope).principal.tenant.encode()).to_asgi_response(None, Request(scope))(
        scope, receive, send
    )


HANDLERS = [plain, echo, body, big, fail, unavailable, slow, stream, every_method]


class Web:
    def __init__(self, database, client, services, admin, lines):
        self.database, self.client, self.services, self.admin, self.lines = database, client, services, admin, lines

    async def __call__(self, method, path, key=None, **options):
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        return await self.client.request(method, path, headers={**headers, **options.pop("headers", {})}, **options)

    def issue(self, scopes=DEFAULT_SCOPES, **limits):
        draft = KeyDraft(tenant="acme", label="quickstart", scopes=frozenset(scopes), limits=KeyLimits(**limits))
        return self.database.write_sync(lambda c: create_key(c, draft, actor=Actor(), now=int(time.time())))


@pytest.fixture
async def web(tmp_path):
    with contextlib.closing(SmallDatabase(tmp_path / "web.sqlite")) as database:
        services, lines = compose(database), []
        app = create_app(
            services, route_handlers=HANDLERS, body_limit_bytes=2000, access_log=lines.append, slow_request_s=60
        )
        draft = KeyDraft(
            tenant="operator", label="admin", scopes=frozenset({Scope.ADMIN}),
            limits=KeyLimits(requests_per_minute=None, requests_per_hour=None),
        )  # fmt: skip
        admin = database.write_sync(lambda c: create_key(c, draft, actor=Actor(), now=int(time.time())))
        transport = httpx.ASGITransport(app)
        async with app.lifespan(), httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            yield Web(database, client, services, admin.text, lines)


def error_of(answer):
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json()) == ["error"]
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code", "request_id"}
    assert error["request_id"] == answer.headers["x-request-id"]
    return error


async def test_unknown_urls_and_methods_answer_in_our_form(web):
    missing = await web("GET", "/v1/assistants")
    assert (missing.status_code, error_of(missing)["code"]) == (404, "unknown_url")
    wrong = await web("DELETE", "/v1/tokens")
    assert (wrong.status_code, error_of(wrong)["code"]) == (405, "method_not_allowed")
    assert "GET" in wrong.headers["allow"]


async def test_options_needs_no_key_and_tells_the_methods(web):
    for path, methods in (("/v1/tokens", "GET, OPTIONS"), ("/v1/keys/key_1/rotate", "OPTIONS, POST")):
        answer = await web("OPTIONS", path)
        assert (answer.status_code, answer.headers["allow"], answer.text) == (204, methods, "")


async def test_a_first_request_with_options_does_not_open_a_route_of_every_method(web):
    assert (await web("OPTIONS", "/test/asgi")).status_code == 401
    assert (await web("POST", "/test/asgi")).status_code == 401
    admitted = await web("POST", "/test/asgi", key=web.issue().text)
    assert (admitted.status_code, admitted.text) == (200, "acme")


async def test_request_ids(web):
    given = await web("GET", "/livez", headers={"x-request-id": "trace-1.a:b"})
    assert given.headers["x-request-id"] == "trace-1.a:b"
    for bad in ("x" * 200, "a b", 'a"', ""):
        drawn = (await web("GET", "/livez", headers={"x-request-id": bad})).headers["x-request-id"]
        assert drawn.startswith("req_")
        assert len(drawn) == 36
    key = web.issue()
    streamed = await web("GET", "/test/stream", key.text)
    assert streamed.text == "onetwo"
    assert streamed.headers["x-request-id"].startswith("req_")


async def test_a_proxied_answers_own_ids_and_limits_give_way_to_ours(web):
    answer = await web("GET", "/test/slow", web.issue().text)
    assert answer.headers.get_list("x-request-id") != ["theirs"]
    assert len(answer.headers.get_list("x-request-id")) == 1
    assert answer.headers.get_list("x-ratelimit-remaining-tokens") == ["999999999"]


async def test_callers_are_known_by_any_of_the_headers(web):
    key = web.issue()
    for headers in (
        {"authorization": f"Bearer {key.text}"},
        {"authorization": key.text},
        {"x-api-key": key.text},
        {"api-key": key.text},
    ):
        answer = await web("GET", "/test/echo", headers=headers)
        assert answer.status_code == 200
        assert answer.json() == {"tenant": "acme", "id": answer.headers["x-request-id"]}


async def test_nobody_unknown_gets_in(web):
    for headers in ({}, {"authorization": "Bearer sk-1"}, {"authorization": "Basic eDp5"}):
        answer = await web("GET", "/test/echo", headers=headers)
        assert (answer.status_code, error_of(answer)["code"]) == (401, "unauthorized")
        assert error_of(answer)["type"] == "authentication_error"
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert "x-ratelimit-limit" not in answer.headers


async def test_a_missing_scope_is_denied_in_the_specifications_manner(web):
    key = web.issue(scopes=[Scope.SEARCH])
    answer = await web("GET", "/test/echo", key.text)
    assert answer.status_code == 403
    assert (error_of(answer)["code"], error_of(answer)["type"]) == ("policy_denied", "policy")
    assert error_of(answer)["message"] == "Key 'quickstart' lacks scope 'chat'."
    assert (await web("GET", "/v1/keys", web.issue().text)).status_code == 403


async def test_a_key_without_chat_learns_both_scopes_at_once(web):
    answer = await web("GET", "/test/plain", web.issue(scopes=[Scope.SEARCH]).text)
    wanted = "Key 'quickstart' lacks scope 'chat', or 'chat.plain' for chats without documents."
    assert (answer.status_code, error_of(answer)["message"]) == (403, wanted)
    for scope in (Scope.CHAT, Scope.CHAT_PLAIN):
        assert (await web("GET", "/test/plain", web.issue(scopes=[scope]).text)).status_code == 200


async def test_an_answer_that_the_service_is_not_ready_is_no_failed_request(web, caplog):
    web.services.readiness.block("storage", "The disk is full.")
    with caplog.at_level(logging.DEBUG, logger="ragsvc.web.middleware"):
        assert (await web("GET", "/readyz")).status_code == 503
        assert not caplog.records
        assert (await web("GET", "/test/unavailable")).status_code == 503
    assert [record.event for record in caplog.records] == ["request_failed"]


async def test_a_route_that_asks_for_nothing_keeps_the_application_from_starting(web):
    @get("/open")
    async def forgotten() -> None:
        return None

    with pytest.raises(ConfigurationError, match="/open"):
        create_app(compose(web.database), route_handlers=[forgotten])


async def test_both_families_of_limit_headers(web):
    key = web.issue(tokens_per_day=5000)
    answer = await web("GET", "/test/echo", key.text)
    headers = answer.headers
    assert (headers["x-ratelimit-limit"], headers["x-ratelimit-remaining"]) == ("60", "59")
    assert 0 < int(headers["x-ratelimit-reset"]) - time.time() <= 62
    assert (headers["x-ratelimit-limit-requests"], headers["x-ratelimit-remaining-requests"]) == ("60", "59")
    assert headers["x-ratelimit-reset-requests"] in ("1m0s", "1m1s")
    assert (headers["x-ratelimit-limit-tokens"], headers["x-ratelimit-remaining-tokens"]) == ("5000", "5000")
    assert headers["x-ratelimit-reset-tokens"].endswith("s")


async def test_of_hundreds_of_parallel_requests_exactly_the_limit_passes(web):
    key = web.issue(requests_per_minute=100)
    answers = []

    async def call():
        answers.append(await web("GET", "/test/echo", key.text))

    async with anyio.create_task_group() as tasks:
        for _ in range(300):
            tasks.start_soon(call)
    assert sorted(answer.status_code for answer in answers) == [200] * 100 + [429] * 200
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert error_of(refused)["code"] == "rate_limited"
    assert 0 < int(refused.headers["retry-after"]) <= 61
    assert refused.headers["x-should-retry"] == "true"
    assert refused.headers["x-ratelimit-remaining"] == "0"


async def test_parallel_places_come_back_whatever_happens(web):
    key = web.issue(max_parallel_requests=2)
    answers = []

    async def call():
        answers.append((await web("GET", "/test/slow", key.text)).status_code)

    for _ in range(2):
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(call)
    assert sorted(answers) == [200] * 4 + [429] * 6
    with anyio.move_on_after(0.02):  # a client that goes away
        await web("GET", "/test/slow", key.text)
    live = await web.services.access.authenticate(key.text.encode())
    assert live.gate.running == 0


async def test_bodies_over_the_limit_are_refused_by_length_and_by_count(web):
    key = web.issue()
    assert (await web("POST", "/test/body", key.text, content=b"x" * 2000)).json() == {"bytes": 2000}
    announced = await web("POST", "/test/body", key.text, content=b"x" * 2001)
    assert (announced.status_code, error_of(announced)["code"]) == (413, "request_too_large")

    async def chunks():
        for _ in range(30):
            yield b"x" * 100

    counted = await web("POST", "/test/body", key.text, content=chunks())
    assert (counted.status_code, error_of(counted)["code"]) == (413, "request_too_large")
    assert (await web("POST", "/test/big", key.text, content=b"x" * 2500)).status_code == 200


async def test_an_unexpected_failure_is_logged_once_and_tells_nothing(web, caplog):
    with caplog.at_level(logging.ERROR):
        answer = await web("GET", "/test/fail", headers={"authorization": "Bearer rag_secret"})
    assert (answer.status_code, error_of(answer)["code"]) == (500, "internal_error")
    assert "private detail" not in answer.text
    assert len(caplog.records) == 1
    assert answer.headers["x-request-id"] in caplog.records[0].getMessage()
    assert "rag_secret" not in caplog.text


async def test_unavailable_says_when_to_come_back(web):
    answer = await web("GET", "/test/unavailable")
    assert (answer.status_code, answer.headers["retry-after"], error_of(answer)["code"]) == (
        503,
        "3",
        "model_unavailable",
    )


async def test_health(web):
    assert (await web("GET", "/livez")).status_code == 200
    assert (await web("GET", "/readyz")).status_code == 200
    web.services.readiness.block("model", "loading")
    answer = await web("GET", "/readyz")
    assert (answer.status_code, answer.json()) == (503, {"status": "not_ready", "reasons": {"model": "loading"}})
    web.services.readiness.clear("model")
    assert (await web("GET", "/readyz")).json() == {"status": "ready", "reasons": {}}


async def test_metrics_name_routes_and_never_paths(web):
    await web("GET", "/v1/keys/key_private", web.admin)
    await web("GET", "/v1/secret-path-of-a-client")
    text = (await web("GET", "/metrics")).text
    assert 'ragsvc_http_requests_total{method="GET",route="/v1/keys/{key_id}",status="404"} 1.0' in text
    assert 'route="unmatched",status="404"' in text
    assert "private" not in text
    assert "secret-path" not in text
    assert 'ragsvc_http_request_duration_seconds_count{method="GET",route="/v1/keys/{key_id}"} 1.0' in text


async def test_settled_tokens_are_counted_by_model(web):
    live = await web.services.access.authenticate(web.issue().text.encode())
    reservation = await web.services.access.reserve(live.principal, 100)
    await web.services.access.settle(reservation, prompt_tokens=7, completion_tokens=5, model="local/chat-model")
    text = (await web("GET", "/metrics")).text
    assert 'ragsvc_tokens_total{kind="prompt",model="local/chat-model"} 7.0' in text
    assert 'ragsvc_tokens_total{kind="completion",model="local/chat-model"} 5.0' in text


async def test_the_access_log_has_a_line_of_json_without_secrets(web):
    key = web.issue()
    await web("GET", "/test/echo?q=private", key.text, headers={"x-client-request-id": "c-1"})
    line = json.loads(web.lines[-1])
    assert (line["route"], line["status"], line["key_id"], line["tenant"]) == ("/test/echo", 200, key.key.id, "acme")
    assert line["client_request_id"] == "c-1"
    assert key.text.encode() not in web.lines[-1]
    assert b"private" not in web.lines[-1]


# -- the admin API --------------------------------------------------------------------------------------------------


async def test_a_keys_life_over_the_admin_api(web):
    made = await web("POST", "/v1/keys", web.admin, json={"label": "ci", "tenant": "acme", "token_balance": 50})
    assert made.status_code == 201
    key = made.json()
    assert made.headers["location"] == f"/v1/keys/{key['id']}"
    assert (key["requests_per_minute"], key["requests_per_hour"]) == (60, 1000)
    tokens = await web("GET", "/v1/tokens", key["key"])
    assert tokens.json() == {"tokens_remaining": 50}

    shown = (await web("GET", f"/v1/keys/{key['id']}", web.admin)).json()
    assert shown == {name: value for name, value in key.items() if name != "key"}

    changed = await web("PATCH", f"/v1/keys/{key['id']}", web.admin, json={"state": "inactive", "token_balance": None})
    assert (changed.status_code, changed.json()["state"], changed.json()["token_balance"]) == (200, "inactive", None)
    denied = await web("GET", "/v1/tokens", key["key"])
    assert (denied.status_code, error_of(denied)["code"]) == (403, "key_inactive")
    await web("PATCH", f"/v1/keys/{key['id']}", web.admin, json={"state": "active"})

    rotated = (await web("POST", f"/v1/keys/{key['id']}/rotate", web.admin, json={"overlap_s": 60})).json()
    assert rotated["key"] != key["key"]
    for text in (rotated["key"], key["key"]):
        assert (await web("GET", "/v1/tokens", text)).status_code == 200

    revoked = await web("POST", f"/v1/keys/{key['id']}/revoke", web.admin)
    assert (revoked.status_code, revoked.json()["state"]) == (200, "revoked")
    for text in (rotated["key"], key["key"]):
        assert (await web("GET", "/v1/tokens", text)).status_code == 401
    again = await web("PATCH", f"/v1/keys/{key['id']}", web.admin, json={"state": "active"})
    assert (again.status_code, again.headers["x-should-retry"]) == (409, "false")

    trail = (await web("GET", f"/v1/keys/{key['id']}/audit", web.admin)).json()["data"]
    assert [entry["action"] for entry in trail] == ["revoke", "rotate", "update", "update", "create"]
    assert all(entry["actor"].startswith("key_") and entry["request_id"].startswith("req_") for entry in trail)
    assert key["key"] not in json.dumps(trail)

    assert (await web("DELETE", f"/v1/keys/{key['id']}", web.admin)).json()["deleted"] is True
    assert (await web("GET", f"/v1/keys/{key['id']}", web.admin)).status_code == 404


async def test_keys_are_listed_in_pages(web):
    ids = [web.issue().key.id for _ in range(5)]
    seen, after = [], None
    while True:
        query = f"limit=2&tenant=acme{'' if after is None else f'&after={after}'}"
        page = (await web("GET", f"/v1/keys?{query}", web.admin)).json()
        seen += [key["id"] for key in page["data"]]
        after = page["last_id"]
        if not page["has_more"]:
            break
    assert sorted(seen) == sorted(ids)
    assert len(seen) == 5


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "label"),
        ({"label": ""}, "label"),
        ({"label": "a", "tenant": "../x"}, "tenant"),
        ({"label": "a", "scopes": ["root"]}, "scopes[0]"),
        ({"label": "a", "requests_per_minute": 0}, "requests_per_minute"),
        ({"label": "a", "requests_per_minute": "5"}, "requests_per_minute"),
        ({"label": "a", "colour": 1}, "colour"),
    ],
)
async def test_a_wrong_wish_names_its_field(web, body, param):
    answer = await web("POST", "/v1/keys", web.admin, json=body)
    assert (answer.status_code, error_of(answer)["param"]) == (400, param)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'"\xff"', b"[]", b"null"])
async def test_a_body_that_is_no_json_object_is_a_400(web, content):
    answer = await web("POST", "/v1/keys", web.admin, content=content)
    assert (answer.status_code, error_of(answer)["code"]) == (400, "invalid_request")


async def test_a_wrong_query_is_a_400_with_its_name(web):
    answer = await web("GET", "/v1/keys?limit=1000", web.admin)
    assert (answer.status_code, error_of(answer)["param"]) == (400, "limit")


async def test_concurrent_duplicates_make_one_key(web, tmp_path):
    answers = []

    async def call():
        answers.append(
            await web("POST", "/v1/keys", web.admin, json={"label": "once"}, headers={"idempotency-key": "k-1"})
        )

    async with anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(call)
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.text for answer in answers}) == 1
    made = answers[0].json()
    assert (await web("GET", "/v1/tokens", made["key"])).status_code == 200
    other = await web("POST", "/v1/keys", web.admin, json={"label": "x"}, headers={"idempotency-key": "k-1"})
    assert (other.status_code, error_of(other)["param"]) == (400, "Idempotency-Key")
    stored = bytes_of_rows(tmp_path / "web.sqlite")
    assert made["id"].encode() in stored
    assert made["key"].encode() not in stored
    assert web.admin.encode() not in stored


async def test_answers_with_secrets_are_not_cached_and_are_sealed_by_the_callers_own(web):
    wish = {"json": {"label": "x"}, "headers": {"idempotency-key": "k"}}
    first = await web("POST", "/v1/keys", web.admin, **wish)
    assert first.headers["cache-control"] == "no-store"
    own = web.admin.split("_")[1]
    renewed = (await web("POST", f"/v1/keys/key_{own}/rotate", web.admin)).json()["key"]
    assert (await web("POST", "/v1/keys", renewed, **wish)).status_code == 400
    assert (await web("POST", "/v1/keys", web.admin, **wish)).json() == first.json()  # within the overlap


async def test_browsers_may_read_ids_and_limits(tmp_path):
    with contextlib.closing(SmallDatabase(tmp_path / "cors.sqlite")) as database:
        app = create_app(compose(database), cors_origins=["https://app.example"])
        async with (
            app.lifespan(),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client,
        ):
            asked = {"origin": "https://app.example", "access-control-request-method": "POST"}
            preflight = await client.options("/v1/keys", headers=asked)
            assert preflight.headers["access-control-allow-origin"] == "https://app.example"
            answer = await client.get("/v1/tokens", headers={"origin": "https://app.example"})
            assert answer.status_code == 401
            assert answer.headers["access-control-allow-origin"] == "https://app.example"
            assert "x-request-id" in answer.headers["access-control-expose-headers"]


# -- the schema -----------------------------------------------------------------------------------------------------


async def test_the_schema_documents_every_route_with_its_errors(web):
    answer = await web("GET", "/schema")
    document = answer.json()
    assert document["openapi"].startswith("3.1")
    assert "http://" not in answer.text
    assert "https://" not in answer.text
    schemas = document["components"]["schemas"]

    def resolve(node):
        if isinstance(node, dict):
            if "$ref" in node:
                assert node["$ref"].removeprefix("#/components/schemas/") in schemas, node
            for value in node.values():
                resolve(value)
        elif isinstance(node, list):
            for value in node:
                resolve(value)

    resolve(document)
    for path, item in document["paths"].items():
        for method, operation in item.items():
            responses = operation["responses"]
            assert {"400", "500"} <= set(responses), (path, method)
            if operation["security"]:
                assert {"401", "403", "429"} <= set(responses), (path, method)
            assert operation["summary"]
    create = document["paths"]["/v1/keys"]["post"]
    assert create["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith("/CreateKey")
    assert {"413", "201"} <= set(create["responses"])
    assert schemas["CreateKey"]["properties"]["label"]["examples"] == ["quickstart"]
    assert (await web("GET", "/schema/openapi.yaml")).headers["content-type"] == "application/yaml"
    assert (await web("GET", "/schema/other")).status_code == 404
