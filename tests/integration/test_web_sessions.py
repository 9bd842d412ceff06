"""Sessions of the web pages: a cookie in place of a key, and nothing that a page of another origin could use."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging

import httpx
import pytest
from litestar import Request, delete, get, post
from litestar.response.base import ASGIResponse
from prometheus_client import CollectorRegistry

from ragsvc.core.access.api_keys import KeyState
from ragsvc.core.access.principal import DEFAULT_SCOPES, Scope
from ragsvc.core.errors import StorageFull
from ragsvc.services.key_administration import Actor, KeyChange, KeyDraft, create_key
from ragsvc.services.web_sessions import LINK_LIFETIME_S, WebSessions
from ragsvc.web.app import create_app
from ragsvc.web.context import context_of
from ragsvc.web.pages import routes as pages
from ragsvc.web.passthrough.raw_responses import JsonBytes
from ragsvc.web.routes import sessions
from tests.support.engines import bytes_of_rows, stored_rows
from tests.support.keys_database import SmallDatabase, compose

pytestmark = pytest.mark.anyio

ORIGIN = "http://rag.test"
LIFETIME_S = 3600
SAME_ORIGIN = {"sec-fetch-site": "same-origin"}


@pytest.fixture
def anyio_backend():
    return "asyncio"


async def raw_answer(scope, _receive) -> ASGIResponse:
    return JsonBytes(json.dumps({"key": context_of(scope).principal.key_id}).encode())


@get("/test/whoami", opt={"scope": Scope.CHAT})
async def whoami(request: Request) -> dict[str, str]:
    return {"key": context_of(request.scope).principal.key_id}


@post("/test/change", opt={"scope": Scope.CHAT}, status_code=200)
async def change(request: Request) -> dict[str, str]:
    return {"key": context_of(request.scope).principal.key_id}


@delete("/test/change", opt={"scope": Scope.CHAT}, status_code=200)
async def remove(request: Request) -> dict[str, str]:
    return {"key": context_of(request.scope).principal.key_id}


@post("/test/raw", opt={"scope": Scope.CHAT, "raw": raw_answer}, status_code=200)
async def raw(request: Request) -> dict[str, str]:
    raise AssertionError("answered by the raw function")


@get("/test/admin", opt={"scope": Scope.ADMIN})
async def admin() -> dict[str, str]:
    return {}


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class WithSessions:
    """The services of the foundation, and sessions."""

    def __init__(self, foundation) -> None:
        self.access, self.keys, self.readiness, self.registry = foundation
        self.web_sessions = WebSessions(self.access, lifetime_s=LIFETIME_S)
        self.access.sessions = self.web_sessions


class World:
    """An application in memory; ``key`` is the text of a key of ``acme``."""

    def __init__(self, database: SmallDatabase, **options) -> None:
        self.database = database
        self.clock = Clock()
        self.services = WithSessions(compose(database, clock=self.clock, **options))
        handlers = [whoami, change, remove, raw, admin, *sessions.route_handlers, *pages.route_handlers]
        self.app = create_app(self.services, route_handlers=handlers, cors_origins=["https://listed.example"])
        self.key, self.key_id = self.new_key()

    def new_key(self, **fields):
        draft = KeyDraft(**{"tenant": "acme", "label": "pages", "scopes": DEFAULT_SCOPES, **fields})
        issued = self.database.write_sync(
            lambda connection: create_key(connection, draft, actor=Actor(), now=int(self.clock()))
        )
        return issued.text, issued.key.id

    def browser(self, **headers) -> httpx.AsyncClient:
        """A client with cookies of its own; its requests come from the service's own pages unless headers differ."""
        transport = httpx.ASGITransport(self.app, client=("203.0.113.9", 4711))
        return httpx.AsyncClient(transport=transport, base_url=ORIGIN, headers={**SAME_ORIGIN, **headers})

    async def update(self, **fields) -> None:
        await self.services.keys.update(self.key_id, KeyChange(**fields), actor=Actor())


@pytest.fixture
async def world(tmp_path):
    database = SmallDatabase(tmp_path / "keys.sqlite")
    world = World(database)
    async with world.services.access.running():
        yield world
    database.close()


async def signed_in(world: World, client: httpx.AsyncClient, key: str | None = None) -> str:
    """Sign in; returns the CSRF token."""
    reply = await client.post("/v1/session", json={"key": key or world.key})
    assert reply.status_code == 200, reply.text
    return reply.json()["csrf_token"]


async def test_a_cookie_authenticates_everywhere_a_key_does(world) -> None:
    async with world.browser() as client:
        csrf = {"x-csrf-token": await signed_in(world, client)}
        replies = [
            await client.get("/test/whoami"),
            await client.post("/test/change", headers=csrf),
            await client.delete("/test/change", headers=csrf),
            await client.post("/test/raw", headers=csrf),
            await client.get("/v1/tokens"),
        ]
        assert [reply.status_code for reply in replies] == [200] * 5
        assert {reply.json()["key"] for reply in replies[:4]} == {world.key_id}
        assert (await client.get("/test/admin")).status_code == 403, "the key's scopes apply"


async def test_the_session_is_described_without_the_secret(world) -> None:
    async with world.browser() as client:
        reply = await client.post("/v1/session", json={"key": world.key})
        shown = await client.get("/v1/session")
    assert shown.json() == reply.json()
    body = shown.json()
    assert body["key"]["id"] == world.key_id
    assert body["key"]["tenant"] == "acme"
    assert body["expires_at"] == world.clock.now + LIFETIME_S
    assert world.key not in reply.text
    assert reply.headers["cache-control"] == "no-store"
    cookie = reply.headers["set-cookie"]
    assert cookie.endswith(f"; Path=/; Max-Age={LIFETIME_S}; HttpOnly; SameSite=Strict")
    assert body["csrf_token"] not in cookie


async def test_the_cookie_is_secure_and_has_the_prefix_behind_a_proxy(world) -> None:
    world.services.registry = CollectorRegistry()
    app = create_app(
        world.services, route_handlers=sessions.route_handlers, public_url="https://rag.example.com/team/rag"
    )
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://10.0.0.7") as client:
        headers = {"origin": "https://rag.example.com"}
        reply = await client.post("/v1/session", json={"key": world.key}, headers=headers)
    assert reply.status_code == 200
    assert "; Path=/team/rag; " in reply.headers["set-cookie"]
    assert reply.headers["set-cookie"].endswith("; Secure")


@pytest.mark.parametrize("path", ["/test/change", "/test/raw"])
@pytest.mark.parametrize(
    "headers",
    [
        {"x-csrf-token": None},
        {"x-csrf-token": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"sec-fetch-site": None},
        {"sec-fetch-site": None, "origin": "https://evil.example"},
        {"sec-fetch-site": None, "origin": "https://listed.example"},
        {"sec-fetch-site": None, "origin": "null"},
        {"sec-fetch-site": None, "origin": "http://rag.test.evil.example"},
    ],
    ids=str,
)
async def test_a_change_needs_the_token_and_the_own_origin(world, path, headers) -> None:
    async with world.browser() as client:
        token = await signed_in(world, client)
        client.headers["x-csrf-token"] = token
        assert (await client.post(path)).status_code == 200
        for name, value in headers.items():
            client.headers.pop(name, None)
            if value is not None:
                client.headers[name] = value
        reply = await client.post(path)
    assert reply.status_code == 403
    assert reply.json()["error"]["code"] == "csrf_failed"


async def test_browsers_that_send_only_the_origin_are_served(world) -> None:
    async with world.browser() as client:
        token = await signed_in(world, client)
        del client.headers["sec-fetch-site"]
        reply = await client.post("/test/change", headers={"x-csrf-token": token, "origin": ORIGIN})
        assert reply.status_code == 200
        assert (await client.get("/test/whoami")).status_code == 200, "a page does not send its origin with a GET"


async def test_the_token_of_another_session_is_refused(world) -> None:
    async with world.browser() as first, world.browser() as second:
        await signed_in(world, first)
        other = await signed_in(world, second)
        reply = await first.post("/test/change", headers={"x-csrf-token": other})
    assert reply.status_code == 403


@pytest.mark.parametrize("origin", ["https://listed.example", "https://evil.example"])
async def test_a_page_of_another_origin_cannot_read_with_the_cookie(world, origin) -> None:
    async with world.browser() as client:
        await signed_in(world, client)
        for site in ("cross-site", "same-site", None):
            headers = {"origin": origin} | ({} if site is None else {"sec-fetch-site": site})
            if site is None:
                client.headers.pop("sec-fetch-site")
            for path in ("/test/whoami", "/v1/session"):
                reply = await client.get(path, headers=headers)
                assert reply.status_code == 403
                assert world.key_id not in reply.text
                assert "csrf_token" not in reply.text


async def test_a_foreign_page_cannot_sign_its_visitor_in(world) -> None:
    async with world.browser(**{"sec-fetch-site": "cross-site"}) as client:
        reply = await client.post("/v1/session", json={"key": world.key})
    assert reply.status_code == 403
    assert "set-cookie" not in reply.headers


async def test_a_key_in_a_header_comes_before_the_cookie(world) -> None:
    other, other_id = world.new_key(label="other")
    async with world.browser(**{"sec-fetch-site": "cross-site"}) as client:
        async with world.browser() as page:
            await signed_in(world, page)
            client.cookies = page.cookies
        for header in ({"authorization": f"Bearer {other}"}, {"x-api-key": other}, {"api-key": other}):
            reply = await client.post("/test/change", headers=header)
            assert reply.status_code == 200, "no CSRF token and no origin is needed with a key"
            assert reply.json()["key"] == other_id
        wrong = await client.get("/test/whoami", headers={"authorization": "Bearer rag_000000000000_wrong"})
    assert wrong.status_code == 401, "a wrong key does not fall back to the cookie"


async def test_signing_out_ends_the_session_for_every_copy_of_the_cookie(world) -> None:
    async with world.browser() as client:
        token = await signed_in(world, client)
        copy = dict(client.cookies)
        assert (await client.delete("/v1/session")).status_code == 403, "it is a change"
        reply = await client.delete("/v1/session", headers={"x-csrf-token": token})
        assert reply.json()["deleted"]
        assert "Max-Age=0" in reply.headers["set-cookie"]
        assert not client.cookies
        assert (await client.get("/test/whoami")).status_code == 401
        client.cookies.update(copy)
        assert (await client.get("/test/whoami")).status_code == 401
        shown = await client.get("/v1/session")
        assert shown.json()["key"] is None
        assert "Max-Age=0" in shown.headers["set-cookie"]
        again = await client.delete("/v1/session")
    assert again.json() == {"object": "session.deleted", "deleted": False}


async def test_a_session_ends_at_its_time(world) -> None:
    async with world.browser() as client:
        await signed_in(world, client)
        world.clock.now += LIFETIME_S - 1
        assert (await client.get("/test/whoami")).status_code == 200
        world.clock.now += 1
        reply = await client.get("/test/whoami")
    assert reply.status_code == 401
    assert await world.services.web_sessions.sweep_expired() == 1
    assert await world.services.web_sessions.next_expiry() is None


@pytest.mark.parametrize(
    ("end", "status"),
    [
        ("revoke", 401),
        ("delete", 401),
        ("rotate", 401),
        ("switch off", 403),
        ("expire", 401),
    ],
)
async def test_a_session_ends_with_its_key(world, end, status) -> None:
    keys = world.services.keys
    async with world.browser() as client:
        await signed_in(world, client)
        if end == "revoke":
            await keys.revoke(world.key_id, actor=Actor())
        elif end == "delete":
            await keys.delete(world.key_id, actor=Actor())
        elif end == "rotate":
            await keys.rotate(world.key_id, overlap_s=0, actor=Actor())
        elif end == "switch off":
            await world.update(state=KeyState.INACTIVE)
        else:
            await world.update(expires_at=int(world.clock.now))
        assert (await client.get("/test/whoami")).status_code == status


async def test_a_session_lasts_through_the_overlap_of_a_rotation(world) -> None:
    async with world.browser() as client:
        await signed_in(world, client)
        await world.services.keys.rotate(world.key_id, overlap_s=600, actor=Actor())
        assert (await client.get("/test/whoami")).status_code == 200
        world.clock.now += 600
        assert (await client.get("/test/whoami")).status_code == 401


async def test_a_key_that_is_switched_on_again_has_its_sessions(world) -> None:
    async with world.browser() as client:
        await signed_in(world, client)
        await world.update(state=KeyState.INACTIVE)
        assert (await client.get("/test/whoami")).status_code == 403
        await world.update(state=KeyState.ACTIVE)
        assert (await client.get("/test/whoami")).status_code == 200


async def test_cookies_that_are_made_up_cost_no_write(world) -> None:
    """Nobody has to be signed in to send one, and all changes of the service share one thread."""
    async with world.browser() as client:
        await signed_in(world, client)
        before = world.database.writes
        for number in range(3):
            client.cookies.set("ragsvc_session", f"made-up-{number}", domain="rag.test")
            reply = await client.delete("/v1/session")
            assert (reply.status_code, reply.json()["deleted"]) == (200, False)
        assert world.database.writes == before


async def test_a_session_whose_end_the_disk_did_not_take_can_be_ended_again(world) -> None:
    def rows() -> int:
        statement = "SELECT count(*) FROM web_sessions"
        return world.database.read_sync(lambda connection: connection.exec_driver_sql(statement).scalar_one())

    async def full(_change) -> None:
        raise StorageFull("The disk is full.")

    async with world.browser() as client:
        csrf = {"x-csrf-token": await signed_in(world, client)}
        world.database.write, write = full, world.database.write
        assert (await client.delete("/v1/session", headers=csrf)).status_code == 507
        world.database.write = write
        assert rows() == 1
        assert (await client.delete("/v1/session", headers=csrf)).json()["deleted"] is True
        assert rows() == 0


async def test_a_user_whose_key_is_switched_off_can_sign_in_with_another(world) -> None:
    other, other_id = world.new_key()
    async with world.browser() as client:
        await signed_in(world, client)
        await world.update(state=KeyState.INACTIVE)
        shown = await client.get("/v1/session")  # the pages ask this first, and need it to show the sign-in
        assert (shown.status_code, shown.json()["key"]) == (200, None)
        await world.update(state=KeyState.ACTIVE)
        assert (await client.get("/v1/session")).json()["key"]["id"] == world.key_id
        await world.update(state=KeyState.INACTIVE)
        await signed_in(world, client, other)
        assert (await client.get("/test/whoami")).json() == {"key": other_id}


async def test_each_of_many_links_made_at_once_works(world) -> None:
    """A key has at most 200 links: the oldest is dropped, and not the new one."""
    for _ in range(230):
        link = await world.services.web_sessions.create_link(world.key_id, bytes(32))
        stored = world.database.read_sync(
            lambda connection: connection.exec_driver_sql("SELECT token_hash FROM session_links").scalars().all()
        )
        assert len(stored) <= 200
        assert hashlib.sha256(link.code.encode()).digest() in stored


async def test_a_session_does_not_outlive_the_expiry_of_its_key(world) -> None:
    key, _ = world.new_key(expires_at=int(world.clock.now) + 60)
    async with world.browser() as client:
        reply = await client.post("/v1/session", json={"key": key})
        assert reply.json()["expires_at"] == world.clock.now + 60
        await world.services.keys.update(reply.json()["key"]["id"], KeyChange(expires_at=None), actor=Actor())
        world.clock.now += 60
        assert (await client.get("/test/whoami")).status_code == 401


async def test_changed_scopes_apply_to_open_sessions(world) -> None:
    async with world.browser() as client:
        await signed_in(world, client)
        await world.update(scopes=frozenset({Scope.SEARCH}))
        assert (await client.get("/test/whoami")).status_code == 403


async def test_a_link_signs_in_once(world) -> None:
    async with world.browser() as client, world.browser() as other:
        made = await client.post("/v1/session/links", headers={"authorization": f"Bearer {world.key}"})
        assert made.status_code == 201
        link = made.json()
        assert link["url"] == f"{ORIGIN}/sign-in#code={link['code']}"
        assert link["expires_at"] == world.clock.now + LINK_LIFETIME_S
        opened = await client.post("/v1/session", json={"code": link["code"]})
        assert opened.json()["key"]["id"] == world.key_id
        assert (await client.get("/test/whoami")).status_code == 200
        again = await other.post("/v1/session", json={"code": link["code"]})
    assert again.status_code == 401
    assert "set-cookie" not in again.headers


async def test_a_link_ends_after_ten_minutes_and_with_its_key(world) -> None:
    bearer = {"authorization": f"Bearer {world.key}"}
    async with world.browser() as client:
        late, rotated = [(await client.post("/v1/session/links", headers=bearer)).json()["code"] for _ in range(2)]
        world.clock.now += LINK_LIFETIME_S
        assert (await client.post("/v1/session", json={"code": late})).status_code == 401
        world.clock.now -= LINK_LIFETIME_S
        await world.services.keys.rotate(world.key_id, overlap_s=0, actor=Actor())
        assert (await client.post("/v1/session", json={"code": rotated})).status_code == 401


async def test_a_session_can_make_a_link_for_another_device(world) -> None:
    async with world.browser() as client, world.browser() as phone:
        token = await signed_in(world, client)
        made = await client.post("/v1/session/links", headers={"x-csrf-token": token})
        assert made.status_code == 201, made.text
        assert (await phone.post("/v1/session", json={"code": made.json()["code"]})).status_code == 200
        await world.services.keys.rotate(world.key_id, overlap_s=0, actor=Actor())
        assert (await phone.get("/test/whoami")).status_code == 401, "it ends with the secret of the first sign-in"


@pytest.mark.parametrize(
    "body",
    [{}, {"key": None}, {"key": "a", "code": "b"}, {"key": ""}, {"key": 7}, {"secret": "x"}, [], "text"],
    ids=str,
)
async def test_a_malformed_sign_in_is_refused(world, body) -> None:
    async with world.browser() as client:
        assert (await client.post("/v1/session", json=body)).status_code == 400


@pytest.mark.parametrize("wrong", [{"key": "rag_0123456789ab_wrong"}, {"code": "wrong"}], ids=str)
async def test_failed_sign_ins_are_limited_like_failed_keys(tmp_path, wrong) -> None:
    with contextlib.closing(SmallDatabase(tmp_path / "keys.sqlite")) as database:
        world = World(database, failed_logins_per_minute=3)
        async with world.services.access.running(), world.browser() as client:
            statuses = [(await client.post("/v1/session", json=wrong)).status_code for _ in range(5)]
            assert statuses == [401, 401, 401, 429, 429]
            right = await client.post("/v1/session", json={"key": world.key})
            assert right.status_code == 429, "it has not worked from this address before"


async def test_a_stale_cookie_does_not_lock_its_address_out(tmp_path) -> None:
    with contextlib.closing(SmallDatabase(tmp_path / "keys.sqlite")) as database:
        world = World(database, failed_logins_per_minute=3)
        async with world.services.access.running(), world.browser() as client:
            client.cookies.set("ragsvc_session", "A" * 43)
            assert [(await client.get("/test/whoami")).status_code for _ in range(6)] == [401] * 6
            assert (await client.post("/v1/session", json={"key": world.key})).status_code == 200


@pytest.mark.parametrize(
    "cookie", ["", "x" * 5000, "\u00e9", "a b", '"quoted"'], ids=["empty", "long", "latin", "space", "quoted"]
)
async def test_any_cookie_that_names_no_session_is_unauthorized(world, cookie) -> None:
    async with world.browser() as client:
        headers = {"cookie": f"theme=dark; ragsvc_session={cookie}".encode("latin-1")}
        assert (await client.get("/test/whoami", headers=headers)).status_code == 401
        assert (await client.get("/v1/session", headers=headers)).json()["key"] is None


async def test_a_new_sign_in_replaces_the_session_of_the_browser(world) -> None:
    async with world.browser() as client, world.browser() as copy:
        await signed_in(world, client)
        copy.cookies.update(dict(client.cookies))
        await signed_in(world, client)
        assert (await client.get("/test/whoami")).status_code == 200
        assert (await copy.get("/test/whoami")).status_code == 401


async def test_sessions_survive_a_restart_and_rows_hold_only_hashes(world, tmp_path) -> None:
    async with world.browser() as client:
        csrf = await signed_in(world, client)
        made = await client.post("/v1/session/links", headers={"x-csrf-token": csrf})
        token, code = client.cookies["ragsvc_session"], made.json()["code"]
        restarted = WebSessions(world.services.access, lifetime_s=LIFETIME_S)
        assert (await restarted.find(token.encode())).live.key.id == world.key_id
    with stored_rows(tmp_path / "keys.sqlite") as rows:
        stored = [
            value
            for table in ("web_sessions", "session_links")
            for row in rows.exec_driver_sql(f"SELECT * FROM {table}")  # noqa: S608 - our own names
            for value in row
        ]
    assert hashlib.sha256(token.encode()).digest() in stored
    assert hashlib.sha256(code.encode()).digest() in stored
    every_byte = b"".join(file.read_bytes() for file in tmp_path.iterdir() if file.is_file())
    every_byte += bytes_of_rows(tmp_path / "keys.sqlite")
    for secret in (world.key, token, code, csrf):
        assert secret.encode() not in every_byte


async def test_the_oldest_sessions_of_a_key_end_when_it_has_too_many(world) -> None:
    few = WebSessions(world.services.access, lifetime_s=LIFETIME_S, sessions_per_key=2)
    world.services.web_sessions = world.services.access.sessions = few
    clients = [world.browser() for _ in range(3)]
    for client in clients:
        await signed_in(world, client)
        world.clock.now += 1
    assert [(await client.get("/test/whoami")).status_code for client in clients] == [401, 200, 200]
    for client in clients:
        await client.aclose()


async def test_neither_key_nor_code_nor_token_reaches_the_log(world, caplog) -> None:
    lines: list[bytes] = []
    world.services.registry = CollectorRegistry()
    app = create_app(
        world.services, route_handlers=[whoami, *sessions.route_handlers], access_log=lines.append, slow_request_s=0.0
    )
    with caplog.at_level(logging.DEBUG):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url=ORIGIN, headers=SAME_ORIGIN) as client:
            csrf = await signed_in(world, client)
            link = (await client.post("/v1/session/links", headers={"x-csrf-token": csrf})).json()
            await client.post("/v1/session", json={"code": link["code"]})
            await client.post("/v1/session", json={"code": link["code"]})
            token = client.cookies["ragsvc_session"]
            await client.get("/test/whoami")
    logged = caplog.text.encode() + b"".join(lines)
    assert b"/v1/session" in logged
    for secret in (world.key, link["code"], token, csrf):
        assert secret.encode() not in logged


async def test_responses_to_a_session_are_not_reused_for_the_next_user_of_the_browser(world) -> None:
    async with world.browser() as client:
        await signed_in(world, client)
        reply = await client.get("/test/whoami")
        assert "cookie" in reply.headers["vary"].lower()
        with_key = await client.get("/test/whoami", headers={"authorization": f"Bearer {world.key}"})
    assert "cookie" not in with_key.headers.get("vary", "").lower()


async def test_without_sessions_a_cookie_is_nothing(world) -> None:
    async with world.browser() as client:
        await signed_in(world, client)
        world.services.access.sessions = None
        assert (await client.get("/test/whoami")).status_code == 401


async def test_a_key_in_the_header_is_described_without_a_session(world) -> None:
    async with world.browser() as client:
        reply = await client.get("/v1/session", headers={"authorization": f"Bearer {world.key}"})
        wrong = await client.get("/v1/session", headers={"authorization": "Bearer rag_0123456789ab_wrong"})
    body = reply.json()
    assert (body["key"]["id"], body["csrf_token"], body["expires_at"]) == (world.key_id, None, None)
    assert wrong.status_code == 401
