"""Conversations with the official client: shapes, order, isolation, deletion, retention."""

from __future__ import annotations

import io
import json
import tarfile
import time
from typing import NamedTuple

import httpx
import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai.types.conversations import Conversation, Message

from tests.conftest import NO_LIMITS
from tests.support.file_places import stored_bytes

HELLO = {"type": "message", "role": "user", "content": "Hello"}


def client_of(tenant) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{tenant.service.url}/v1", api_key=tenant.key, max_retries=0)


@pytest.fixture
def client(tenant):
    with client_of(tenant) as made:
        yield made


def test_a_conversation_is_created_shown_changed_and_deleted(client):
    made = client.conversations.create(metadata={"topic": "demo"})
    assert isinstance(made, Conversation)
    assert made.id.startswith("conv_")
    assert (made.object, made.metadata) == ("conversation", {"topic": "demo"})
    assert client.conversations.retrieve(made.id) == made
    changed = client.conversations.update(made.id, metadata={"topic": "other"})
    assert (changed.id, changed.created_at, changed.metadata) == (made.id, made.created_at, {"topic": "other"})
    assert client.conversations.update(made.id, metadata=None).metadata == {}
    gone = client.conversations.delete(made.id)
    assert (gone.id, gone.object, gone.deleted) == (made.id, "conversation.deleted", True)
    with pytest.raises(openai.NotFoundError) as missing:
        client.conversations.retrieve(made.id)
    assert missing.value.body["code"] == "conversation_not_found"
    assert missing.value.body["param"] == "conversation_id"


def test_items_are_completed_and_listed_in_both_orders_page_by_page(client):
    texts = [f"Message {number}" for number in range(7)]
    made = client.conversations.create(items=[{"role": "user", "content": text} for text in texts[:2]])
    added = client.conversations.items.create(
        made.id,
        items=[
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]} for text in texts[2:]
        ],
    )
    assert added.object == "list"
    assert len(added.data) == 5
    assert (added.first_id, added.last_id) == (added.data[0].id, added.data[-1].id)
    listed = list(client.conversations.items.list(made.id, limit=3, order="asc"))
    assert [item.content[0].text for item in listed] == texts
    assert all(isinstance(item, Message) for item in listed)
    assert all((item.status, item.role, item.type) == ("completed", "user", "message") for item in listed)
    assert [item.id for item in client.conversations.items.list(made.id, limit=2)] == [
        item.id for item in reversed(listed)
    ]
    page = client.conversations.items.list(made.id, limit=3, after=listed[3].id, order="asc")
    assert [item.id for item in page.data] == [item.id for item in listed[4:]]
    assert page.has_more is False
    one = client.conversations.items.retrieve(listed[2].id, conversation_id=made.id)
    assert one == listed[2]
    left = client.conversations.items.delete(listed[2].id, conversation_id=made.id)
    assert isinstance(left, Conversation)
    assert left.id == made.id
    assert [item.id for item in client.conversations.items.list(made.id, order="asc")] == [
        item.id for item in listed if item.id != listed[2].id
    ]
    with pytest.raises(openai.NotFoundError) as missing:
        client.conversations.items.retrieve(listed[2].id, conversation_id=made.id)
    assert missing.value.body["code"] == "conversation_item_not_found"


def test_every_kind_of_item_is_kept_as_it_was_sent(client):
    items = [
        {"type": "message", "role": "developer", "content": "Be brief."},
        {"type": "message", "role": "assistant",
         "content": [{"type": "output_text", "text": "It is 7.", "annotations": []}]},
        {"type": "function_call", "call_id": "call_1", "name": "add", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "call_1", "output": "7"},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "abc"},
        {"type": "file_search_call", "id": "fs_1", "queries": ["q"], "status": "completed",
         "results": [{"file_id": "file-1", "filename": "a.pdf", "score": 0.5, "text": "x", "attributes": {}}]},
        {"type": "message", "role": "user", "content": [
            {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "low"},
            {"type": "input_file", "file_id": "file-1"}]},
    ]  # fmt: skip
    made = client.conversations.create(items=items)
    hidden = client.conversations.items.list(made.id, order="asc").data
    assert [item.type for item in hidden] == [item["type"] for item in items]
    assert hidden[4].encrypted_content is None
    assert hidden[5].results is None
    assert hidden[6].content[0].image_url is None
    assert hidden[2].id.startswith("fc_")
    assert hidden[4].id == "rs_1"
    include = ["file_search_call.results", "reasoning.encrypted_content", "message.input_image.image_url"]
    shown = client.conversations.items.list(made.id, order="asc", include=include).data
    assert shown[4].encrypted_content == "abc"
    assert shown[5].results[0].filename == "a.pdf"
    assert shown[6].content[0].image_url == "data:image/png;base64,AAAA"
    assert shown[1].content[0].text == "It is 7."
    assert shown[3].output == "7"


@pytest.mark.parametrize(
    ("items", "param"),
    [
        ([{"content": "x"}], "items[0].type"),
        ([HELLO, {"type": "message", "role": "wizard", "content": "x"}], "items[1].role"),
        ([{"type": "message", "role": "user"}], "items[0].content"),
        ([{"type": "message", "role": "user", "content": [{"type": "input_text"}]}], "items[0].content[0].text"),
        ([{"type": "message", "role": "user", "content": [{"type": "smell"}]}], "items[0].content[0].type"),
        ([{"type": "function_call", "name": "f", "arguments": "{}"}], "items[0].call_id"),
        ([{"type": "spell"}], "items[0].type"),
        ([{"type": "message", "role": "user", "content": [{"type": []}]}], "items[0].content[0].type"),
        ([{"type": "item_reference", "id": "msg_1"}], "items[0]"),
        ([{**HELLO, "id": "a b"}], "items[0].id"),
        ([{**HELLO, "id": "a"}, {**HELLO, "id": "a"}], "items[1].id"),
        ([HELLO] * 21, "items"),
        ([], "items"),
    ],
)
def test_malformed_items_are_refused_by_place_and_nothing_is_added(client, items, param):
    made = client.conversations.create(items=[{**HELLO, "id": "first"}])
    with pytest.raises(openai.BadRequestError) as refused:
        client.conversations.items.create(made.id, items=items)
    assert refused.value.param == param
    assert [item.id for item in client.conversations.items.list(made.id)] == ["first"]


def test_an_id_can_be_used_once_in_a_conversation_and_again_in_another(client):
    first = client.conversations.create(items=[{**HELLO, "id": "same"}])
    second = client.conversations.create(items=[{**HELLO, "id": "same"}])
    with pytest.raises(openai.BadRequestError) as refused:
        client.conversations.items.create(first.id, items=[HELLO, {**HELLO, "id": "same"}])
    assert refused.value.param == "items[1].id"
    assert len(client.conversations.items.list(first.id).data) == 1
    assert client.conversations.items.retrieve("same", conversation_id=second.id).id == "same"


def test_nulls_are_absent_and_unknown_values_are_refused(client, tenant):
    reply = tenant.http.post("/v1/conversations", json={"items": None, "metadata": None}, headers={"OpenAI-Beta": "x"})
    assert reply.status_code == 200, reply.text
    made = reply.json()
    assert made == {"id": made["id"], "object": "conversation", "created_at": made["created_at"], "metadata": {}}
    assert tenant.http.get(f"/v1/conversations/{made['id']}/items").json() == {
        "object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False,
    }  # fmt: skip
    assert tenant.http.post(f"/v1/conversations/{made['id']}", json={}).json()["error"]["param"] == "metadata"
    for body in (
        {"metadata": {"k": "x" * 513}},
        {"metadata": {str(n): "" for n in range(17)}},
        {"metadata": {"k": 1}},
        {"topic": "x"},
    ):
        assert tenant.http.post("/v1/conversations", json=body).status_code == 400, body
    refused = tenant.http.get(f"/v1/conversations/{made['id']}/items", params={"include": "everything"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "include")
    refused = tenant.http.get(f"/v1/conversations/{made['id']}/items", params={"limit": 101})
    assert refused.status_code == 400


def test_large_items_are_taken(client):
    image = "data:image/png;base64," + "A" * 3_000_000
    made = client.conversations.create(
        items=[
            {
                "type": "message",
                "role": "user",
                "content": [{"type": "input_image", "image_url": image, "detail": "auto"}],
            }
        ]
    )
    (shown,) = client.conversations.items.list(made.id, include=["message.input_image.image_url"])
    assert shown.content[0].image_url == image


def test_scopes(service, new_tenant):
    plain, reader = new_tenant(scopes=["chat.plain"]), new_tenant(scopes=["documents.read"])
    with client_of(plain) as client:
        assert client.conversations.create(items=[HELLO]).id
    with client_of(reader) as client, pytest.raises(openai.PermissionDeniedError):
        client.conversations.create()


def outcomes(tenant, conversation_id: str, item_id: str) -> list[tuple[int, str]]:
    base = f"/v1/conversations/{conversation_id}"
    requests = [
        ("GET", base, None),
        ("POST", base, {"metadata": {}}),
        ("GET", f"{base}/items", None),
        ("POST", f"{base}/items", {"items": [HELLO]}),
        ("GET", f"{base}/items/{item_id}", None),
        ("DELETE", f"{base}/items/{item_id}", None),
        ("DELETE", base, None),
    ]
    found = []
    for method, path, body in requests:
        reply = tenant.http.request(method, path, json=body)
        text = reply.text.replace(conversation_id, "ID")
        found.append((reply.status_code, json.loads(text).get("error", {}).get("message")))
    return found


def test_conversations_of_another_tenant_do_not_exist(new_tenant):
    mine, other = new_tenant(), new_tenant()
    with client_of(mine) as client:
        made = client.conversations.create(items=[{**HELLO, "id": "first"}], metadata={"k": "v"})
        foreign = outcomes(other, made.id, "first")
        assert foreign == outcomes(other, "conv_" + "0" * 48, "first")
        assert {status for status, _ in foreign} == {404}
        assert client.conversations.retrieve(made.id).metadata == {"k": "v"}
        assert [item.id for item in client.conversations.items.list(made.id)] == ["first"]


def test_a_deleted_tenant_leaves_no_conversation_and_no_byte(service, new_tenant):
    tenant = new_tenant()
    word = "Rhabarberbarbara"
    with client_of(tenant) as client:
        client.conversations.create(items=[{**HELLO, "content": word}], metadata={"k": word})
        client.conversations.create()
    with service.client(service.admin_key) as admin:
        exported = admin.get(f"/v1/tenants/{tenant.name}/export")
        with tarfile.open(fileobj=io.BytesIO(exported.content)) as archive:
            members = {
                name: archive.extractfile(name).read()
                for name in archive.getnames()
                if name.startswith("conversations/")
            }
        assert len(members) == 2
        (full,) = [json.loads(content) for content in members.values() if word.encode() in content]
        assert full["items"][0]["content"] == [{"type": "input_text", "text": word}]
        (key,) = admin.get("/v1/keys", params={"tenant": tenant.name}).json()["data"]
        assert full["key_id"] == key["id"]
        removed = admin.delete(f"/v1/tenants/{tenant.name}").json()["removed"]
        assert removed["conversations"] == 2
    assert [name for name, content in stored_bytes(service.data_dir) if word.encode() in content] == []


def test_a_tenant_with_conversations_only_is_listed_and_deleted(service, new_tenant):
    tenant = new_tenant()
    with client_of(tenant) as client:
        client.conversations.create(items=[HELLO])
    with service.client(service.admin_key) as admin:
        for key in admin.get("/v1/keys", params={"tenant": tenant.name}).json()["data"]:
            assert admin.delete(f"/v1/keys/{key['id']}").status_code < 300
        assert tenant.name in [entry["name"] for entry in admin.get("/v1/tenants").json()["data"]]
        assert admin.delete(f"/v1/tenants/{tenant.name}").status_code == 200
        assert admin.get(f"/v1/tenants/{tenant.name}").status_code == 404


def listed_ids(http: httpx.Client, **query: object) -> list[str]:
    reply = http.get("/v1/conversations", params=query)
    assert reply.status_code == 200, reply.text
    return [entry["id"] for entry in reply.json()["data"]]


def test_conversations_of_a_key_are_listed_with_the_last_used_first(service, new_tenant, client, tenant):
    made = [client.conversations.create(metadata={"title": str(number)}).id for number in range(5)]
    time.sleep(1.1)  # times are whole seconds
    client.conversations.items.create(made[1], items=[HELLO])
    order = [made[1], made[4], made[3], made[2], made[0]]
    assert listed_ids(tenant.http) == order
    page = tenant.http.get("/v1/conversations", params={"limit": 2}).json()
    assert [entry["metadata"]["title"] for entry in page["data"]] == ["1", "4"]
    assert (page["object"], page["first_id"], page["last_id"], page["has_more"]) == ("list", made[1], made[4], True)
    assert page["data"][0]["last_active_at"] > page["data"][1]["last_active_at"]
    rest = tenant.http.get("/v1/conversations", params={"limit": 3, "after": page["last_id"]}).json()
    assert ([entry["id"] for entry in rest["data"]], rest["has_more"]) == (order[2:], False)
    client.conversations.delete(made[3])
    assert listed_ids(tenant.http) == [name for name in order if name != made[3]]
    assert listed_ids(new_tenant().http) == []
    missing = tenant.http.get("/v1/conversations", params={"after": made[3]})
    assert (missing.status_code, missing.json()["error"]["param"]) == (404, "after")
    assert tenant.http.get("/v1/conversations", params={"limit": 101}).status_code == 400


def test_conversations_of_other_keys_are_listed_for_administrators_only(service, tenant, client):
    made = client.conversations.create().id
    with service.client(service.admin_key) as admin:
        keys = [
            admin.post("/v1/keys", json={"tenant": tenant.name, "label": "key", "scopes": scopes, **NO_LIMITS}).json()
            for scopes in (["chat"], ["chat", "tenant.admin"])
        ]
    with service.client(keys[0]["key"]) as colleague:
        assert listed_ids(colleague) == []
        assert colleague.get("/v1/conversations", params={"of": "tenant"}).status_code == 403
    with service.client(keys[1]["key"]) as manager:
        assert listed_ids(manager) == []
        assert listed_ids(manager, of="tenant") == [made]


def test_a_list_leaves_out_conversations_that_quote_collections_the_key_may_not_use(service, new_tenant):
    tenant = new_tenant()
    tenant.add_text("The lamp uses two watts.", collection="secret")
    with client_of(tenant) as client:
        plain = [client.conversations.create().id for _ in range(3)]
        quoting = client.conversations.create().id
    body = {"model": "local/chat-model", "input": "What does the lamp use?", "use_rag": True, "conversation": quoting}
    body |= {"rag": {"collection": "secret"}, "include": ["file_search_call.results"]}
    response = tenant.http.post("/v1/responses", json=body).json()
    (result,) = response["output"][0]["results"]
    items = tenant.http.get(f"/v1/conversations/{quoting}/items", params={"order": "asc"}).json()["data"]
    (citation,) = items[2]["content"][0]["annotations"]
    assert (citation["page"], citation["quote"]) == (1, "The lamp uses two watts.")
    assert {name: result[name] for name in ("document_id", "chunk_id", "page", "page_label")} == {
        name: citation[name] for name in ("document_id", "chunk_id", "page", "page_label")
    }
    assert set(listed_ids(tenant.http)) == {*plain, quoting}
    with service.client(service.admin_key) as admin:
        (key,) = admin.get("/v1/keys", params={"tenant": tenant.name}).json()["data"]
        changed = admin.patch(f"/v1/keys/{key['id']}", json={"allowed_collections": ["public"]})
        assert changed.status_code == 200, changed.text
    assert set(listed_ids(tenant.http)) == set(plain)
    assert listed_ids(tenant.http, limit=3) == plain[::-1]


NAMES = st.sampled_from(["a", "b", "c"])
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["create", "add", "list", "delete_item", "delete", "change"]),
        st.integers(0, 1),
        st.integers(0, 1),
        NAMES,
    ),
    max_size=25,
)


@pytest.fixture(scope="module")
def two_tenants(service):
    made = []
    with service.client(service.admin_key) as admin:
        for name in ("conversations-one", "conversations-two"):
            reply = admin.post("/v1/keys", json={"tenant": name, "label": name, **NO_LIMITS})
            made.append(
                httpx.Client(
                    base_url=service.url, headers={"authorization": f"Bearer {reply.json()['key']}"}, timeout=60
                )
            )
    yield made
    for client in made:
        client.close()


class Kept(NamedTuple):
    """What a conversation must have."""

    owner: int
    id: str
    items: list[str]
    metadata: dict[str, str]


class TwoTenants:
    """Two clients, and what they stored. Each operation states what the other tenant must get."""

    def __init__(self, clients: list[httpx.Client]) -> None:
        self.clients = clients
        self.kept: list[Kept] = []

    def newest_of(self, owner: int) -> Kept | None:
        return next((kept for kept in reversed(self.kept) if kept.owner == owner), None)

    def create(self, actor: int, name: str) -> None:
        reply = self.clients[actor].post("/v1/conversations", json={"items": [{**HELLO, "id": name}]})
        self.kept.append(Kept(actor, reply.json()["id"], [name], {}))

    def add(self, http: httpx.Client, kept: Kept, name: str, *, own: bool) -> None:
        reply = http.post(f"/v1/conversations/{kept.id}/items", json={"items": [{**HELLO, "id": name}]})
        assert reply.status_code == (404 if not own else 400 if name in kept.items else 200)
        if reply.status_code == 200:
            kept.items.append(name)

    def list(self, http: httpx.Client, kept: Kept, _: str, *, own: bool) -> None:
        reply = http.get(f"/v1/conversations/{kept.id}/items", params={"order": "asc"})
        assert reply.status_code == (200 if own else 404)
        assert not own or [item["id"] for item in reply.json()["data"]] == kept.items

    def delete_item(self, http: httpx.Client, kept: Kept, name: str, *, own: bool) -> None:
        status = http.delete(f"/v1/conversations/{kept.id}/items/{name}").status_code
        assert status == (200 if own and name in kept.items else 404)
        if status == 200:
            kept.items.remove(name)

    def change(self, http: httpx.Client, kept: Kept, name: str, *, own: bool) -> None:
        reply = http.post(f"/v1/conversations/{kept.id}", json={"metadata": {"k": name}})
        assert reply.status_code == (200 if own else 404)
        if own:
            kept.metadata["k"] = name

    def delete(self, http: httpx.Client, kept: Kept, _: str, *, own: bool) -> None:
        assert http.delete(f"/v1/conversations/{kept.id}").status_code == (200 if own else 404)
        if own:
            self.kept.remove(kept)

    def check(self) -> None:
        for kept in self.kept:
            http = self.clients[kept.owner]
            assert http.get(f"/v1/conversations/{kept.id}").json()["metadata"] == kept.metadata
            self.list(http, kept, "", own=True)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_two_tenants_never_see_each_other(two_tenants, steps):
    state = TwoTenants(two_tenants)
    for what, actor, owner, name in steps:
        kept = state.newest_of(owner)
        if what == "create":
            state.create(actor, name)
        elif kept is not None:
            getattr(state, what)(two_tenants[actor], kept, name, own=actor == owner)
    state.check()
