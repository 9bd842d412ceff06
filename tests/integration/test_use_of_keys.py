"""Keys and their use: tenant administrators, audit trail, errors and durations, tables (CSV), the key in use."""

from __future__ import annotations

import csv
import datetime
import io
import time

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragsvc.client import Client
from ragsvc.testing.service_runner import RunningService
from ragsvc.web.csv_answers import csv_response
from tests.conftest import NO_LIMITS

pytestmark = pytest.mark.model

CHAT = {"model": "local-name", "messages": [{"role": "user", "content": "Hello"}]}


def code_of(reply: httpx.Response) -> tuple[int, str]:
    return reply.status_code, reply.json()["error"]["code"]


def wait_for(read, accepted, *, timeout_s: float = 8.0):
    """Read until the result is accepted: usage is written within a second."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = read()
        if accepted(found) or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


# -- what tenants cannot see or change ---------------------------------------------------------------------------


class _Party:
    """A tenant with a tenant administrator, an ordinary key, usage and an audit trail."""

    def __init__(self, service: RunningService, tenant) -> None:
        self.name = tenant.name
        self.http = tenant.http
        with service.client(service.admin_key) as admin:
            made = admin.post("/v1/keys", json={"tenant": self.name, "label": f"app of {self.name}", **NO_LIMITS})
            self.key_id = made.json()["id"]
            with service.client(made.json()["key"]) as client:
                assert client.post("/v1/rag/search", json={"query": "x"}).status_code == 200
            wait_for(
                lambda: admin.get("/v1/usage", params={"tenant": self.name, "group_by": "family"}).json()["data"],
                lambda rows: rows,
            )

    def state(self, service: RunningService) -> list[object]:
        """Everything of the tenant that an administrator can read, without what every request changes."""
        with service.client(service.admin_key) as admin:
            keys = admin.get("/v1/keys", params={"tenant": self.name, "limit": 100}).json()
            audit = admin.get("/v1/audit", params={"tenant": self.name, "limit": 100}).json()
            return [keys, audit, admin.get(f"/v1/tenants/{self.name}").json()]


@pytest.fixture
def parties(service: RunningService, new_tenant) -> tuple[_Party, _Party]:
    own = new_tenant(scopes=["tenant.admin"], **NO_LIMITS)
    other = new_tenant(scopes=["tenant.admin"], **NO_LIMITS)
    return _Party(service, own), _Party(service, other)


_METHODS = st.sampled_from(["GET", "POST", "PATCH", "PUT", "DELETE"])
_PATHS = st.sampled_from(
    [
        "/v1/keys",
        "/v1/keys/{key}",
        "/v1/keys/{key}/rotate",
        "/v1/keys/{key}/revoke",
        "/v1/keys/{key}/audit",
        "/v1/keys/{key}/usage",
        "/v1/usage",
        "/v1/audit",
        "/v1/tenants",
        "/v1/tenants/{tenant}",
        "/v1/tenants/{tenant}/export",
        "/v1/provider_keys",
        "/v1/providers/any/key",
        "/v1/providers/any/keys",
        "/v1/providers",
        "/v1/rag/collections/{tenant}",
    ]
)
_QUERY = st.fixed_dictionaries(
    {},
    optional={
        "tenant": st.sampled_from(["{tenant}", "", "{tenant} ", "*", "%"]),
        "key_id": st.just("{key}"),
        "after": st.just("{key}"),
        "group_by": st.sampled_from(["", "tenant", "tenant,key_id,model,family,day", "key_id"]),
        "format": st.sampled_from(["csv", "json"]),
        "limit": st.just("100"),
        "since": st.just("2020-01-01"),
    },
)
_BODY = st.fixed_dictionaries(
    {},
    optional={
        "tenant": st.just("{tenant}"),
        "label": st.just("seized"),
        "scopes": st.sampled_from([["admin"], ["tenant.admin"], ["chat", "admin"], []]),
        "state": st.sampled_from(["inactive", "active"]),
        "tokens_per_day": st.sampled_from([None, 0, 10]),
        "overlap_s": st.just(0),
        "api_key": st.just("sk-foreign"),
        "requests_per_minute": st.none(),
    },
)


@pytest.mark.timeout(180)
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(asked=st.tuples(_METHODS, _PATHS, _QUERY, _BODY))
def test_a_tenant_administrator_neither_sees_nor_changes_another_tenant(service, parties, asked) -> None:
    own, other = parties
    method, path, query, body = asked

    def filled(value):
        if isinstance(value, str):
            return value.replace("{tenant}", other.name).replace("{key}", other.key_id)
        return value

    before = other.state(service)
    reply = own.http.request(
        method,
        filled(path),
        params={name: filled(value) for name, value in query.items()},
        json=None if method in {"GET", "DELETE"} else {name: filled(value) for name, value in body.items()},
    )
    after = other.state(service)
    assert after == before, (method, path, query, body, reply.text)
    if reply.is_success:
        # an answer may be about the caller's own tenant; of the other it names neither keys nor labels
        text = reply.content.decode("utf-8", "replace")
        assert other.key_id not in text, (method, path, query, text)
        assert f"app of {other.name}" not in text
        if reply.headers["content-type"].startswith("application/json") and isinstance(reply.json(), dict):
            rows = reply.json().get("data", [])
            assert all(row.get("tenant") in {None, own.name} for row in rows if isinstance(row, dict))
            assert reply.json().get("tenant") in {None, own.name}
            assert "admin" not in reply.json().get("scopes", [])


def test_a_tenant_administrator_cannot_outlive_its_own_key(new_tenant) -> None:
    """A key that expires tomorrow must not make one that does not expire."""
    tomorrow = int(time.time()) + 86_400
    administrator = new_tenant(scopes=["tenant.admin"], **NO_LIMITS, expires_at=tomorrow)
    keys = administrator.http
    for refused in ({}, {"expires_at": tomorrow + 1}):
        reply = keys.post("/v1/keys", json={"label": "x", **NO_LIMITS, **refused})
        assert (code_of(reply), reply.json()["error"]["param"]) == ((403, "policy_denied"), "expires_at")
    made = keys.post("/v1/keys", json={"label": "x", **NO_LIMITS, "expires_at": tomorrow})
    assert made.status_code == 201
    assert code_of(keys.patch(f"/v1/keys/{made.json()['id']}", json={"expires_at": None})) == (403, "policy_denied")
    own = keys.get("/v1/key").json()["id"]
    assert code_of(keys.patch(f"/v1/keys/{own}", json={"expires_at": None})) == (403, "policy_denied")


def test_a_cursor_of_another_tenant_says_nothing(service: RunningService, new_tenant) -> None:
    administrator, other = new_tenant(scopes=["tenant.admin"], **NO_LIMITS), new_tenant()
    foreign = other.http.get("/v1/key").json()["id"]
    answers = [administrator.http.get("/v1/keys", params={"after": after}).json() for after in (foreign, "key_none")]
    assert answers[0] == answers[1]


# -- the audit trail ---------------------------------------------------------------------------------------------


def test_the_audit_trail_of_a_tenant_has_every_change_also_of_deleted_keys(service, new_tenant) -> None:
    administrator = new_tenant(scopes=["tenant.admin"], **NO_LIMITS)
    keys = administrator.http
    own = keys.get("/v1/key").json()["id"]
    made = keys.post("/v1/keys", json={"label": "app", **NO_LIMITS}).json()
    path = f"/v1/keys/{made['id']}"
    assert keys.patch(path, json={"state": "inactive"}).json()["state"] == "inactive"
    with service.client(made["key"]) as client:
        assert code_of(client.get("/v1/tokens")) == (403, "key_inactive")
        assert keys.patch(path, json={"state": "active"}).json()["state"] == "active"
        assert client.get("/v1/tokens").status_code == 200
    rotated = keys.post(f"{path}/rotate", json={"overlap_s": 0}).json()["key"]
    assert keys.post(f"{path}/revoke").json()["state"] == "revoked"
    assert keys.delete(path).status_code == 200
    entries = keys.get("/v1/audit", params={"limit": 100}).json()["data"]
    of_key = [entry for entry in entries if entry["key_id"] == made["id"]]
    actions = [entry["action"] for entry in of_key]
    assert actions == ["delete", "revoke", "rotate", "update", "update", "create"]
    assert {(entry["tenant"], entry["actor"]) for entry in of_key} == {(administrator.name, own)}
    assert of_key[-2]["changes"] == {"state": "inactive"}
    text = keys.get("/v1/audit", params={"limit": 100}).text
    assert made["key"] not in text
    assert rotated not in text
    first = keys.get("/v1/audit", params={"limit": 2}).json()
    assert first["has_more"] is True
    second = keys.get("/v1/audit", params={"limit": 100, "before": first["data"][-1]["id"]}).json()
    assert [*first["data"], *second["data"]] == entries
    of_one = keys.get("/v1/audit", params={"key_id": made["id"], "limit": 100}).json()["data"]
    assert of_one == of_key


# -- keys of a tenant for providers ------------------------------------------------------------------------------


def test_a_tenant_administrator_stores_the_keys_of_its_own_tenant_for_providers(gateway) -> None:
    name, other = f"keys-{time.monotonic_ns()}", f"other-{time.monotonic_ns()}"
    key = gateway.new_key(tenant=name, scopes=["tenant.admin"])
    foreign = gateway.new_key(tenant=other, scopes=["tenant.admin"])
    with gateway.service.client(key) as keys, gateway.service.client(foreign) as others:
        listed = keys.get("/v1/provider_keys").json()["data"]
        assert listed
        assert {(entry["tenant"], entry["updated_at"]) for entry in listed} == {(name, None)}
        provider = listed[0]["provider"]
        path = f"/v1/providers/{provider}/key"
        secret = "sk-own-0123456789"
        assert keys.put(path, json={"api_key": secret}).json()["tenant"] == name
        stored = {entry["provider"]: entry for entry in keys.get("/v1/provider_keys").json()["data"]}
        assert stored[provider]["updated_at"]
        assert [entry["tenant"] for entry in keys.get(f"/v1/providers/{provider}/keys").json()["data"]] == [name]
        assert others.get(f"/v1/providers/{provider}/keys").json()["data"] == []
        assert code_of(others.get("/v1/provider_keys", params={"tenant": name})) == (403, "policy_denied")
        assert code_of(others.delete(path, params={"tenant": name})) == (403, "policy_denied")
        assert code_of(others.put(path, json={"api_key": "sk-x", "tenant": name})) == (403, "policy_denied")
        assert others.delete(path).status_code == 404
        assert keys.delete(path).status_code == 200
        audit = keys.get("/v1/audit")
        changes = [(entry["action"], entry["changes"]) for entry in audit.json()["data"] if not entry["key_id"]]
        named = {"provider": provider}
        assert changes == [("provider_key.delete", named), ("provider_key.set", named)]
        assert secret not in audit.text
        assert code_of(keys.get("/v1/providers")) == (403, "policy_denied")  # addresses are the operator's


# -- usage -------------------------------------------------------------------------------------------------------


def test_usage_counts_errors_and_the_mean_duration_of_answers(gateway) -> None:
    name = f"errors-{time.monotonic_ns()}"
    key = gateway.new_key(tenant=name, allowed_models=["local-name"])
    with gateway.service.client(key) as client, gateway.service.client(gateway.admin_key) as admin:
        for _ in range(2):
            assert client.post("/v1/chat/completions", json=CHAT).status_code == 200
        assert client.post("/v1/chat/completions", json={**CHAT, "model": "another"}).status_code == 403
        assert client.post("/v1/rag/search", json={"query": ""}).status_code == 400
        assert client.get("/v1/rag/documents/doc_none").status_code == 404  # reading is not reported
        asked = {"tenant": name, "group_by": "family"}

        def read() -> dict[str, dict]:
            return {entry["family"]: entry for entry in admin.get("/v1/usage", params=asked).json()["data"]}

        found = wait_for(read, lambda rows: "search" in rows and rows.get("chat", {}).get("errors") == 1)
        assert (found["chat"]["requests"], found["chat"]["errors"]) == (2, 1)
        assert 0 < found["chat"]["latency_ms"] < 60_000
        assert (found["search"]["errors"], found["search"]["latency_ms"]) == (1, None)
        assert set(found) == {"chat", "search"}
        own = client.get("/v1/key/usage", params={"group_by": "family"}).json()["data"]
        assert {row["family"]: row["errors"] for row in own} == {"chat": 1, "search": 1}


def test_usage_is_a_table_for_spreadsheets_that_runs_no_formula(gateway) -> None:
    name = f"table-{time.monotonic_ns()}"
    key = gateway.new_key(tenant=name)
    with gateway.service.client(key) as client, gateway.service.client(gateway.admin_key) as admin:
        assert client.post("/v1/chat/completions", json=CHAT).status_code == 200
        asked = {"tenant": name, "group_by": "day,model"}
        wait_for(lambda: admin.get("/v1/usage", params=asked).json()["data"], lambda rows: rows and rows[0]["requests"])
        by_header = admin.get("/v1/usage", params=asked, headers={"accept": "text/csv"})
        by_parameter = admin.get("/v1/usage", params={**asked, "format": "csv"})
        assert by_header.text == by_parameter.text
        assert by_header.headers["content-type"].startswith("text/csv")
        assert "attachment" in by_header.headers["content-disposition"]
        (row,) = csv.DictReader(io.StringIO(by_header.text))
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        assert (row["date"], row["model"], row["requests"], row["errors"]) == (today, "local-name", "1", "0")
        assert list(row)[:2] == ["date", "model"]
        browser = {"accept": "text/html,application/json;q=0.9,*/*;q=0.8"}
        assert admin.get("/v1/usage", params=asked, headers=browser).json()["object"] == "list"
        own = client.get("/v1/key/usage", params={"format": "csv"})
        assert own.text.startswith("date,requests,errors,")
        key_id = client.get("/v1/key").json()["id"]
        of_key = admin.get(f"/v1/keys/{key_id}/usage", params={"format": "csv"})
        assert of_key.text.startswith("date,model,family,requests,")
        assert code_of(admin.get("/v1/usage?format=xml")) == (400, "invalid_request")


@given(st.text(min_size=1).filter(lambda text: "\x00" not in text))
def test_no_cell_of_a_table_begins_like_a_formula(text: str) -> None:
    table = csv_response(["model"], [[text]], filename="x.csv").content.decode()
    _, (cell,) = csv.reader(io.StringIO(table, newline=""))
    assert cell[0] not in "=+-@\t\r\n"
    assert cell in {text, f"'{text}"}


# -- the key in use ----------------------------------------------------------------------------------------------


def test_every_key_sees_its_own_limits_and_what_is_left(gateway) -> None:
    key = gateway.new_key(
        scopes=["chat.plain"],
        requests_per_minute=50,
        requests_per_hour=None,
        tokens_per_day=100_000,
        token_balance=5_000_000,
        money_balance=3.5,
    )
    with gateway.service.client(key) as client:
        before = client.get("/v1/key").json()
        assert before["scopes"] == ["chat.plain"]
        assert (before["tokens_per_day"], before["tokens_remaining"], before["tokens_used_today"]) == (
            100_000,
            100_000,
            0,
        )
        assert (before["tokens_granted"], before["money_granted"], before["money_remaining"]) == (5_000_000, 3.5, 3.5)
        assert before["requests_remaining"] == 49
        assert "key" not in before
        reply = client.post("/v1/chat/completions", json=CHAT).json()
        after = client.get("/v1/key").json()
        used = reply["usage"]["total_tokens"]
        assert after["tokens_used_today"] == used
        assert after["tokens_remaining"] == 100_000 - used
        assert after["token_balance"] == 5_000_000 - used
    with gateway.service.client(gateway.new_key(scopes=["search"], **NO_LIMITS)) as client:
        unlimited = client.get("/v1/key").json()
        limits = ("tokens_remaining", "money_remaining", "requests_remaining", "tokens_granted")
        assert [unlimited[name] for name in limits] == [None] * 4


def test_the_client_reads_its_own_key_its_use_and_the_changes_of_a_tenant(service: RunningService, new_tenant) -> None:
    tenant = new_tenant(scopes=["tenant.admin", "search"], tokens_per_day=1000)
    with Client(service.url, api_key=tenant.key) as client:
        own = client.keys.own()
        assert (own.tenant, own.tokens_per_day, own.tokens_remaining) == (tenant.name, 1000, 1000)
        made = client.keys.create("app", scopes=["search"], tokens_per_day=10)
        client.keys.revoke(made.id)
        changes = list(client.keys.changes())
        assert [(change.action, change.key_id) for change in changes[:2]] == [("revoke", made.id), ("create", made.id)]
        assert {change.tenant for change in changes} == {tenant.name}
        client.search("piers")
        rows = wait_for(lambda: client.own_usage(group_by="family").data, bool)
        assert [(row.family, row.requests) for row in rows] == [("search", 1)]
