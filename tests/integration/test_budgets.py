"""Budgets of tokens and money bind for every endpoint family, exactly, also with many requests at once."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from sqlalchemy import text

from ragsvc.core.access.api_keys import KeyLimits
from ragsvc.core.access.principal import Scope
from ragsvc.core.gateway.provider_settings import ModelSettings, Pricing, ProviderSettings
from ragsvc.core.ids import TenantId
from ragsvc.providers.openai_upstream import OpenAIUpstream
from ragsvc.providers.upstream_requests import open_session
from ragsvc.services.answers import AnswerService
from ragsvc.services.key_administration import Actor, KeyDraft, create_key
from ragsvc.services.model_registry import ModelRegistry
from ragsvc.services.passthrough import ProxyService
from ragsvc.services.provider_routing import Router
from ragsvc.store import tenant_budget_rows
from ragsvc.web.app import create_app
from ragsvc.web.routes import chat, endpoint_families
from tests.support.keys_database import SmallDatabase, compose
from tests.support.small_corpus import SmallSearch, count_tokens
from tests.support.upstream_server import serving

MICROS = 1_000_000
FORM = {"files": {"file": ("speech.mp3", b"\0" * 4000)}, "data": {"model": "m"}}


class Provider:
    """A provider whose answer of each path the test chooses; it answers after ``pause_s``."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.answers: dict[str, tuple[int, object]] = {}
        self.pause_s = 0.0

    async def __call__(self, scope, receive, send):
        while (await receive()).get("more_body"):
            pass
        path = scope["path"].removeprefix("/v1")
        self.calls.append(path)
        await asyncio.sleep(self.pause_s)
        status, body = self.answers.get(path, (200, {"object": "list", "data": []}))
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        kind = b"text/event-stream" if content.startswith(b"data:") else b"application/json"
        kind = b"audio/mpeg" if path == "/audio/speech" else kind
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", kind)]})
        await send({"type": "http.response.body", "body": content})


def chat_answer(prompt: int, completion: int, cached: int = 0) -> dict:
    choice = {"index": 0, "message": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop"}
    counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return {
        "id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice],
        "usage": {**counts, "prompt_tokens_details": {"cached_tokens": cached}},
    }  # fmt: skip


def open_other(base_url: str, session) -> OpenAIUpstream:
    return OpenAIUpstream(ProviderSettings("other", base_url, retries=0), session, count_tokens=count_tokens)


@contextmanager
def gateway_over(database: SmallDatabase, provider: Provider, **models: Pricing):
    foundation = compose(database)
    services = SimpleNamespace(**foundation._asdict(), may_spool_to_disk=True)
    with serving(provider) as (upstream_url, _):
        known = tuple(ModelSettings(name, pricing=pricing) for name, pricing in models.items())
        settings = ProviderSettings("up", f"{upstream_url}/v1", api_key="sk", models=known, retries=0)

        @asynccontextmanager
        async def running(_app):
            async with open_session() as session:
                providers = {"up": OpenAIUpstream(settings, session, count_tokens=count_tokens)}
                services.models = ModelRegistry([settings], providers, created=1)
                services.answer = AnswerService(
                    models=services.models, searcher=SmallSearch(), meter=services.access, count_tokens=count_tokens
                )
                others = SimpleNamespace(provider=lambda base_url: open_other(base_url, session))
                router = Router(services.models, providers_by_url=others)
                services.proxy = ProxyService(router=router, meter=services.access)
                yield

        modules = (chat, endpoint_families)
        handlers = [handler for module in modules for handler in module.route_handlers]
        app = create_app(services, route_handlers=handlers, lifespan=[running])
        with serving(app, lifespan="on") as (url, _):
            yield SimpleNamespace(
                url=url, upstream_url=upstream_url, provider=provider, database=database, services=services
            )


@pytest.fixture
def database(tmp_path):
    database = SmallDatabase(tmp_path / "keys.sqlite")
    yield database
    database.close()


def issue(database, *, tenant="acme", scopes=frozenset(Scope), **limits) -> str:
    no_windows = {"requests_per_minute": None, "requests_per_hour": None}
    draft = KeyDraft(tenant=TenantId(tenant), label="l", scopes=scopes, limits=KeyLimits(**no_windows, **limits))
    return database.write_sync(lambda c: create_key(c, draft, actor=Actor(), now=1_700_000_000)).text


def set_budget(database, tenant: str, **micros) -> None:
    database.write_sync(lambda c: tenant_budget_rows.change_budget(c, TenantId(tenant), micros, now=1))


def ask(gateway, key: str, path: str, **options) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}"}
    if "files" not in options:
        options["json"] = {"model": "m", **options.get("json", {})}
    return httpx.post(f"{gateway.url}/v1{path}", headers=headers, timeout=30, **options)


def ask_at_once(gateway, requests) -> list[httpx.Response]:
    async def send_all():
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        async with httpx.AsyncClient(timeout=60, limits=limits) as client:
            return await asyncio.gather(
                *(
                    client.post(f"{gateway.url}/v1{path}", headers={"Authorization": f"Bearer {key}"}, **options)
                    for key, path, options in requests
                )
            )

    return asyncio.run(send_all())


def money_left(gateway, key: str) -> float:
    answer = httpx.get(f"{gateway.url}/v1/tokens", headers={"Authorization": f"Bearer {key}"})
    return answer.json()["money_remaining"]


def tokens_left(gateway, key: str) -> int:
    answer = httpx.get(f"{gateway.url}/v1/tokens", headers={"Authorization": f"Bearer {key}"})
    return answer.json()["tokens_remaining"]


IMAGE = {"created": 1, "data": [{"b64_json": "QUJD"}]}
OCR = {"pages": [{"index": 0, "markdown": "# A"}], "usage_info": {"pages_processed": 1}}
USED = {"usage": {"input_tokens": 9, "output_tokens": 90, "total_tokens": 99}}
CASES = {
    "images": ("/images/generations", {"json": {"prompt": "x"}}, IMAGE, Pricing(image=99)),
    "edits": ("/images/edits", {"files": {"image": b"x"}, "data": {"model": "m"}}, IMAGE, Pricing(image=99)),
    "speech": ("/audio/speech", {"json": {"input": "é" * 10, "voice": "v"}}, b"ID3", Pricing(characters=9900)),
    "transcription": ("/audio/transcriptions", FORM, {"text": "a", "duration": 9.9}, Pricing(second=10)),
    "videos": ("/videos/generations", {"json": {"prompt": "x", "seconds": "9"}}, {"id": "v"}, Pricing(second=11)),
    "ocr": ("/ocr", {"json": {"document": {"type": "image_url"}}}, OCR, Pricing(page=99)),
    "ocr of a url": ("/ocr", {"json": {"document": {"type": "document_url"}}}, OCR, Pricing(page=99)),
    "rerank": ("/rerank", {"json": {"query": "q", "documents": ["d"]}}, {"results": []}, Pricing(request=99)),
    "moderations": ("/moderations", {"json": {"input": "x"}}, {"results": []}, Pricing(request=99)),
    "embeddings": ("/embeddings", {"json": {"input": "x"}}, {"data": []}, Pricing(request=99)),
    "completions": ("/completions", {"json": {"prompt": "x"}}, {"choices": []}, Pricing(request=99)),
    "chat": (
        "/chat/completions", {"json": {"messages": [{"role": "user", "content": "x"}]}}, chat_answer(3, 2),
        Pricing(request=99),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("owner", ["key", "tenant"])
def test_of_fifty_calls_of_99_at_once_a_budget_of_100_pays_for_one(database, case, owner) -> None:
    path, options, answer, pricing = CASES[case]
    provider = Provider()
    provider.answers[path] = (200, answer)
    provider.pause_s = 0.1
    budget = {"money_balance": 100 * MICROS} if owner == "key" else {}
    key = issue(database, **budget)
    if owner == "tenant":
        set_budget(database, "acme", money_per_day=100 * MICROS)
    options = dict(options)
    if "json" in options:
        options["json"] = {"model": "m", **options["json"]}
    with gateway_over(database, provider, m=pricing) as gateway:
        answers = ask_at_once(gateway, [(key, path, options)] * 50)
        passed = [answer for answer in answers if answer.status_code == 200]
        refused = [answer for answer in answers if answer.status_code != 200]
        assert (len(passed), len(provider.calls)) == (1, 1)
        assert {answer.status_code for answer in refused} == {402}
        error = refused[0].json()["error"]
        assert (error["code"], refused[0].headers["x-should-retry"]) == ("balance_exhausted", "false")
        assert owner in error["message"]
        assert money_left(gateway, key) == 1


@pytest.mark.parametrize("case", ["images", "edits", "transcription", "videos", "ocr", "rerank"])
def test_of_fifty_calls_of_99_tokens_at_once_a_balance_of_100_pays_for_one(database, case) -> None:
    path, options, answer, _ = CASES[case]
    provider = Provider()
    provider.answers[path] = (200, {**answer, **USED})
    provider.pause_s = 0.1
    key = issue(database, token_balance=100)
    if "json" in options:
        options = {"json": {"model": "m", **options["json"]}}
    with gateway_over(database, provider, m=Pricing()) as gateway:
        answers = ask_at_once(gateway, [(key, path, options)] * 50)
        assert sorted({answer.status_code for answer in answers}) == [200, 402]
        assert len(provider.calls) == 1
        assert tokens_left(gateway, key) == 1
        assert ask(gateway, key, path, **options).status_code == 402  # the answer showed what a call uses


def test_three_hundred_parallel_calls_of_several_families_are_charged_exactly(database) -> None:
    provider = Provider()
    provider.pause_s = 0.05
    provider.answers = {path: (200, answer) for path, _, answer, _ in CASES.values()}
    provider.answers["/images/generations"] = (200, {**IMAGE, **USED})
    provider.answers["/chat/completions"] = (200, chat_answer(1000, 10, cached=400))
    provider.answers["/videos/generations"] = (500, {"error": {"message": "no"}})
    pricing = Pricing(
        input=0.001, output=0.004, cached_input=0.0005, request=0.01, image=0.04, second=0.0001, page=0.002,
        characters=0.015,
    )  # fmt: skip
    start, names = 1000 * MICROS, ["images", "speech", "transcription", "ocr", "chat", "videos"]
    budgets = {"money_balance": start, "token_balance": 10_000_000}
    issued = [issue(database, **budgets), issue(database, **budgets)]
    set_budget(database, "acme", money_balance=start, money_per_day=start)
    requests = []
    for number in range(300):
        path, options, _, _ = CASES[names[number % 6]]
        if "json" in options:
            options = {"json": {"model": "m", **options["json"]}}
        requests.append((issued[number % 2], path, options))
    costs = {  # in millionths
        "images": 10_000 + 40_000 + 9 + 90 * 4,
        "speech": 10_000 + 150,
        "transcription": 10_000 + 990,
        "ocr": 10_000 + 2_000,
        "chat": 10_000 + 600 + 200 + 40,
        "videos": 0,
    }
    with gateway_over(database, provider, m=pricing) as gateway:
        answers = ask_at_once(gateway, requests)
        statuses = [answer.status_code for answer in answers]
        assert statuses == [502 if names[number % 6] == "videos" else 200 for number in range(300)]
        spent = [sum(50 * costs[name] for name in names[part::2]) for part in range(2)]
        left = [start - micros for micros in spent]
        # the tenant's budget is shared by both keys
        assert money_left(gateway, issued[0]) == (start - sum(spent)) / MICROS
        shown = httpx.get(f"{gateway.url}/metrics", headers={"Authorization": f"Bearer {issued[0]}"}).text
        cost = next(line for line in shown.splitlines() if line.startswith('ragsvc_cost_total{model="m"}'))
        assert float(cost.rpartition(" ")[2]) == pytest.approx(sum(spent) / MICROS)
        time.sleep(2.5)  # what was used is written, and idle leases end
        headers = {"Authorization": f"Bearer {issued[0]}"}
        listed = httpx.get(f"{gateway.url}/v1/keys", headers=headers).json()["data"]
        assert sorted(key["money_balance"] for key in listed) == sorted(micros / MICROS for micros in left)
        report = httpx.get(f"{gateway.url}/v1/usage?group_by=family", headers=headers).json()["data"]
        by_family = {entry["family"]: (entry["cost"], entry["requests"]) for entry in report}
        assert by_family["chat"] == (50 * costs["chat"] / MICROS, 50)
        assert by_family["audio"] == (50 * (costs["speech"] + costs["transcription"]) / MICROS, 100)
        assert by_family["videos"] == (0, 0)
        assert {entry["family"]: entry["errors"] for entry in report}["videos"] == 50
        used = 50 * (99 + 1010)
        assert sum(key["token_balance"] for key in listed) == 20_000_000 - used


def test_what_a_provider_refuses_or_fails_costs_nothing(database) -> None:
    provider = Provider()
    key = issue(database, money_balance=100 * MICROS, token_balance=1000)
    with gateway_over(database, provider, m=Pricing(second=10, image=10)) as gateway:
        for status in (400, 404, 429, 500, 503):
            provider.answers["/videos/generations"] = (status, {"error": {"message": "no", "code": "model_not_found"}})
            assert ask(gateway, key, "/videos/generations", json={"prompt": "x", "seconds": 5}).status_code != 200
            assert (money_left(gateway, key), tokens_left(gateway, key)) == (100, 1000)


@pytest.mark.parametrize(
    ("path", "options", "answer", "cost"),
    [
        ("/images/generations", {"json": {"prompt": "x", "n": 3}}, {"data": [{"url": "a"}, {"url": "b"}]}, 2.0),
        ("/images/generations", {"json": {"prompt": "x", "n": 3}}, {"created": 1}, 3.0),
        (
            "/images/edits",
            {"files": {"image": b"x"}, "data": {"model": "m", "n": "2"}},
            {"data": [{"url": "a"}] * 2},
            2,
        ),
        ("/audio/transcriptions", FORM, {"text": "x", "usage": {"type": "duration", "seconds": 7}}, 7.0),
        ("/audio/translations", FORM, b"1\n00:00:01,000 --> 00:01:02,500\nHello\n", 62.5),
        ("/videos/generations", {"json": {"duration": "6s", "n": 2}}, {"id": "v"}, 12.0),
        ("/videos/generations", {"json": {"prompt": "x"}}, {"id": "v", "seconds": "4"}, 4.0),
        ("/ocr", {"json": {"document": {}, "pages": [0, 1, 2]}}, {"pages": []}, 3.0),
        ("/ocr", {"json": {"document": {}}}, {"pages": [{"markdown": "a"}, {"markdown": "b"}]}, 2.0),
    ],
)
def test_a_request_is_charged_by_what_its_answer_states_else_by_what_it_asked_for(
    database, path, options, answer, cost
) -> None:
    provider = Provider()
    provider.answers[path] = (200, answer)
    key = issue(database, money_balance=1_000_000 * MICROS)
    with gateway_over(database, provider, m=Pricing(image=1, second=1, page=1)) as gateway:
        reply = ask(gateway, key, path, **options)
        assert reply.status_code == 200, reply.text
        assert money_left(gateway, key) == 1_000_000 - cost


def test_a_callers_own_provider_does_not_teach_what_a_model_uses(database) -> None:
    provider = Provider()
    path = "/images/generations"
    provider.answers[path] = (200, IMAGE)
    provider.answers[f"/other/v1{path}"] = (200, IMAGE | {"usage": {"input_tokens": 0, "output_tokens": 10**9}})
    hostile, limited = issue(database), issue(database, token_balance=5_000, tenant="other")
    with gateway_over(database, provider, m=Pricing()) as gateway:
        headers = {"Authorization": f"Bearer {hostile}", "X-Provider-Base-URL": f"{gateway.upstream_url}/other/v1"}
        body = {"model": "m", "prompt": "x"}
        assert httpx.post(f"{gateway.url}/v1{path}", headers=headers, json=body).status_code == 200
        assert provider.calls == [f"/other/v1{path}"]
        assert ask(gateway, limited, path, json=body).status_code == 200


@pytest.mark.parametrize("more", [{"n": 50}, {"best_of": 50}, {"prompt": ["x"] * 50}, {"prompt": [[1]] * 10, "n": 5}])
def test_every_text_of_a_completion_is_reserved(database, more) -> None:
    provider = Provider()
    key = issue(database, token_balance=4_000)
    with gateway_over(database, provider, m=Pricing()) as gateway:
        one = {"prompt": [1, 2, 3], "max_tokens": 100}
        assert ask(gateway, key, "/completions", json=one).status_code == 200
        refused = ask(gateway, key, "/completions", json=one | more)
        assert (refused.status_code, refused.json()["error"]["code"]) == (402, "balance_exhausted"), refused.text
        assert len(provider.calls) == 1


@pytest.mark.parametrize("count", [1 << 52, 1 << 70, 1e300])
def test_counts_that_no_request_can_have_do_not_stop_the_accounts_of_others(database, count) -> None:
    provider = Provider()
    provider.answers["/chat/completions"] = (200, chat_answer(count, count))
    usage = {"prompt_tokens": count, "total_tokens": count}
    provider.answers["/embeddings"] = (200, {"data": [], "usage": usage})
    other, limited = issue(database), issue(database, token_balance=10_000, tenant="other")
    with gateway_over(database, provider, m=Pricing(input=1_000_000, output=1_000_000)) as gateway:
        chat_request = {"messages": [{"role": "user", "content": "x"}]}
        for _ in range(3):
            assert ask(gateway, other, "/chat/completions", json=chat_request).status_code == 200
            assert ask(gateway, other, "/embeddings", json={"input": "x"}).status_code == 200
        provider.answers["/chat/completions"] = (200, chat_answer(3, 2))
        assert ask(gateway, limited, "/chat/completions", json=chat_request).status_code == 200
        assert tokens_left(gateway, limited) == 9_995
    query = text("SELECT tenant, prompt_tokens, cost_micros FROM usage")
    rows = database.write_sync(lambda connection: connection.execute(query).all())
    kinds = {(tenant, type(tokens), type(cost)) for tenant, tokens, cost in rows}
    assert kinds == {("acme", int, int), ("other", int, int)}


def test_a_callers_own_key_costs_the_caller_not_the_budget(database) -> None:
    provider = Provider()
    key = issue(database, money_balance=MICROS)
    with gateway_over(database, provider, m=Pricing(request=5)) as gateway:
        headers = {"Authorization": f"Bearer {key}", "X-Provider-Key": "sk-mine"}
        reply = httpx.post(f"{gateway.url}/v1/embeddings", headers=headers, json={"model": "m", "input": "x"})
        assert (reply.status_code, money_left(gateway, key)) == (200, 1)


def test_budgets_are_set_shown_and_taken_away_by_the_admin_api(database) -> None:
    admin = issue(database)
    with (
        gateway_over(database, Provider(), m=Pricing(request=0.3)) as gateway,
        httpx.Client(base_url=gateway.url, headers={"Authorization": f"Bearer {admin}"}) as client,
    ):
        wish = {"label": "l", "money_balance": 0.7, "money_per_day": 12}
        created = client.post("/v1/keys", json=wish).json()
        assert (created["money_balance"], created["money_per_day"]) == (0.7, 12)
        key = created["key"]
        assert ask(gateway, key, "/embeddings", json={"input": "x"}).status_code == 200
        assert ask(gateway, key, "/embeddings", json={"input": "x"}).status_code == 200
        assert money_left(gateway, key) == 0.1  # 0.7 - 0.3 - 0.3 is less in floating point
        assert ask(gateway, key, "/embeddings", json={"input": "x"}).status_code == 402
        path = f"/v1/keys/{created['id']}"
        assert client.patch(path, json={"money_balance": 0.3, "money_per_day": None}).json()["money_per_day"] is None
        assert ask(gateway, key, "/embeddings", json={"input": "x"}).status_code == 200
        too_fine = client.patch(path, json={"money_balance": 0.0000001})
        assert (too_fine.status_code, too_fine.json()["error"]["param"]) == (400, "money_balance")
        assert client.patch(path, json={"money_balance": None}).status_code == 200
        assert (
            "money_remaining"
            not in httpx.get(f"{gateway.url}/v1/tokens", headers={"Authorization": f"Bearer {key}"}).json()
        )
        changes = [entry["changes"] for entry in client.get(f"{path}/audit").json()["data"]]
        assert {"money_balance": 0.3, "money_per_day": None} in changes


def test_a_stream_ends_where_the_money_does(database) -> None:
    provider = Provider()
    words = [{"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
              "choices": [{"index": 0, "delta": {"content": "word " * 20}, "finish_reason": None}]}] * 400  # fmt: skip
    body = b"".join(b"data: " + json.dumps(word).encode() + b"\n\n" for word in words) + b"data: [DONE]\n\n"
    provider.answers["/chat/completions"] = (200, body)
    key = issue(database, money_balance=3 * MICROS)
    message = {"messages": [{"role": "user", "content": "x"}], "stream": True}
    with gateway_over(database, provider, m=Pricing(output=1)) as gateway:
        reply = ask(gateway, key, "/chat/completions", json=message)
        assert reply.status_code == 200
        assert '"finish_reason":"length"' in reply.text.replace(" ", "")
        assert 0 <= money_left(gateway, key) < 1
        assert ask(gateway, key, "/chat/completions", json=message).status_code == 402


CHILD = """
import asyncio, sys
sys.path.insert(0, sys.argv[2])
from ragsvc.core.ports.token_meter import Need
from tests.support.keys_database import SmallDatabase, compose

async def main():
    access = compose(SmallDatabase(sys.argv[1])).access
    async with access.running():
        principal = (await access.authenticate(sys.argv[3].encode())).principal
        async def work():
            while True:
                reservation = await access.reserve(principal, Need(10, 40_000))
                await asyncio.sleep(0.001)
                await access.settle(reservation, prompt_tokens=1, completion_tokens=1, model="m", cost=30_000)
                print(30_000, flush=True)
        await asyncio.gather(*(work() for _ in range(4)))

asyncio.run(main())
"""


def test_a_killed_process_gives_no_money_back_that_was_spent(database) -> None:
    start = 10_000 * MICROS
    key = issue(database, money_balance=start, money_per_day=start)
    set_budget(database, "acme", money_balance=start)
    acknowledged, root = 0, str(Path(__file__).parents[2])
    for run_s in (0.05, 0.5):
        command = [sys.executable, "-c", CHILD, database.address, root, key]
        child = subprocess.Popen(command, stdout=subprocess.PIPE)
        first = child.stdout.readline()
        time.sleep(run_s)
        os.kill(child.pid, signal.SIGKILL)
        rest, _ = child.communicate(timeout=30)
        acknowledged += sum(int(line) for line in (first + rest).split(b"\n") if line)
    assert acknowledged > 0
    with gateway_over(database, Provider(), m=Pricing(request=1)) as gateway:
        left = money_left(gateway, key)
        assert left <= (start - acknowledged) / MICROS
        assert left >= (start - acknowledged) / MICROS - 2 * 101
        day = httpx.get(f"{gateway.url}/v1/usage", headers={"Authorization": f"Bearer {key}"}).json()["data"]
        assert sum(entry["cost"] for entry in day) >= acknowledged / MICROS
