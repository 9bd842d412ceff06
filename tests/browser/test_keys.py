"""The page Keys and use: a key for a colleague, its secret, rotation and revocation, use, and who sees what."""

from __future__ import annotations

import csv
import io
import re
import time

import pytest

from tests.browser.accessibility import assert_accessible, assert_fits_width

CHAT = {"model": "local/chat-model", "messages": [{"role": "user", "content": "Hello"}]}


def part(page, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def open_key(page, label: str) -> None:
    page.get_by_role("button", name=label, exact=True).click()
    page.get_by_role("dialog").get_by_role("heading", name=label).wait_for()


def shown_secret(page) -> str:
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("heading", name="Copy the secret now").wait_for()
    return dialog.get_by_label("Secret of the key").input_value()


def use_of(site, key: str) -> None:
    """Use a key, and wait until the use is written."""
    with site.client(key) as client:
        assert client.post("/v1/chat/completions", json=CHAT).status_code == 200
        assert client.post("/v1/rag/search", json={"query": ""}).status_code == 400
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            rows = client.get("/v1/key/usage", params={"group_by": ""}).json()["data"]
            if rows and rows[0]["errors"] and rows[0]["requests"]:
                return
            time.sleep(0.2)
    raise AssertionError("the use of the key was not written")


def test_a_colleague_gets_a_key_with_a_daily_limit_whose_secret_is_shown_once(open_page, site) -> None:
    label = f"Anna {time.monotonic_ns()}"
    page = open_page("/keys").page
    page.get_by_role("button", name="New key").click()
    form = page.get_by_role("dialog")
    form.get_by_label("Tokens a day").fill("100,000")
    form.get_by_role("button", name="Create the key").click()
    form.get_by_text("Give the key a name.").wait_for()
    form.get_by_label("Name").fill(label)
    page.keyboard.press("Enter")
    secret = shown_secret(page)
    assert_accessible(page)
    page.get_by_role("button", name="Copy", exact=True).click()
    page.get_by_role("button", name="Copied", exact=True).wait_for()
    page.get_by_role("button", name="I have copied it").click()
    row = page.get_by_role("row").filter(has_text=label)
    row.get_by_text("100,000 Tokens a day").wait_for()
    with site.client(secret) as client:
        own = client.get("/v1/key").json()
        assert (own["tokens_per_day"], own["label"], own["tenant"]) == (100_000, label, "acme")
        assert own["scopes"] == ["chat", "documents.read", "search"]
        assert client.post("/v1/chat/completions", json=CHAT).status_code == 200
    assert secret not in page.content()
    page.reload()
    page.get_by_role("row").filter(has_text=label).wait_for()
    assert secret not in page.content()
    kept = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, location.href, document.cookie])")
    assert secret not in kept


def test_a_key_is_switched_off_and_on_rotated_changed_and_revoked(open_page, site) -> None:
    label = f"website {time.monotonic_ns()}"
    secret = site.new_key(label=label)
    page = open_page("/keys?tenant=acme").page
    with site.client(secret) as client:
        open_key(page, label)
        page.get_by_role("button", name="Switch off").click()
        page.get_by_role("button", name="Switch on").wait_for()
        assert client.get("/v1/tokens").status_code == 403
        page.get_by_role("button", name="Switch on").click()
        page.get_by_role("button", name="Switch off").wait_for()
        assert client.get("/v1/tokens").status_code == 200

        page.get_by_role("button", name="Change", exact=True).click()
        page.get_by_role("dialog").get_by_label("Money a day").fill("1,50")
        page.get_by_role("button", name="Save").click()
        page.get_by_role("dialog").get_by_text("1.50 Money a day").wait_for()

        page.get_by_role("button", name="Rotate").click()
        page.get_by_label("The old secret works for").select_option("no longer: it stops now")
        page.get_by_role("button", name="Create the new secret").click()
        rotated = shown_secret(page)
        assert rotated != secret
        assert client.get("/v1/tokens").status_code == 401
        page.get_by_role("button", name="I have copied it").click()
    with site.client(rotated) as client:
        assert client.get("/v1/tokens").status_code == 200
        open_key(page, label)
        page.get_by_role("button", name="Revoke").click()
        page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
        page.get_by_role("row").filter(has_text=label).wait_for(state="detached")
        assert client.get("/v1/tokens").status_code == 401
    page.get_by_label("Show revoked and expired keys").check()
    page.get_by_role("row").filter(has_text=label).get_by_text("revoked").wait_for()
    open_key(page, label)
    page.get_by_role("button", name="Show its changes").click()
    changes = page.get_by_role("table", name="Changes, newest first")
    changes.get_by_text("secret changed").wait_for()
    actions = [cell.inner_text() for cell in changes.locator("tbody tr td:nth-child(3)").all()]
    assert actions == ["revoked", "secret changed", "changed", "changed", "changed", "created"]


@pytest.mark.parametrize(
    ("language", "written", "money"),
    [
        ("en-GB", "1,000", 1000),
        ("en-GB", "1,25", 1.25),
        ("en-GB", "0.125", 0.125),
        ("de-DE", "1.000", 1000),
        ("de-DE", "12.500,50", 12_500.5),
    ],
)
def test_amounts_of_money_are_read_as_they_are_written_in_the_language(
    open_page, site, language, written, money
) -> None:
    label, save = ("Geld am Tag", "Speichern") if language == "de-DE" else ("Money a day", "Save")
    name = f"money {time.monotonic_ns()}"
    secret = site.new_key(label=name, money_balance=12.125)
    page = open_page("/keys?tenant=acme", language=language).page
    page.get_by_role("button", name=name, exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name=re.compile("^(Change|Ändern)$")).click()
    page.get_by_role("dialog").get_by_label(label, exact=True).fill(written)
    with page.expect_response(lambda reply: reply.request.method == "PATCH") as reply:
        page.get_by_role("button", name=save).click()
    assert reply.value.status == 200
    with site.client(secret) as client:
        own = client.get("/v1/key").json()
    assert (own["money_per_day"], own["money_balance"]) == (money, 12.125)


def test_a_long_list_of_keys_says_when_more_cannot_be_read(open_page, site) -> None:
    tenant = f"many-{time.monotonic_ns()}"
    for number in range(101):
        site.new_key(tenant=tenant, label=f"key {number:03}")
    with site.client() as client:
        first = client.get("/v1/keys", params={"tenant": tenant, "limit": 100}).json()["data"]
    (wanted,) = {f"key {number:03}" for number in range(101)} - {key["label"] for key in first}
    watched = open_page(f"/keys?tenant={tenant}")
    watched.allow("ERR_FAILED")
    page = watched.page
    page.get_by_label("Find a key").fill(wanted)
    page.get_by_text("No key matches among those that are loaded.").wait_for()
    page.route("**/v1/keys?*after=*", lambda route: route.abort())
    page.get_by_role("button", name="Show more keys").click()
    page.get_by_text("The service cannot be reached.").wait_for()
    page.unroute("**/v1/keys?*after=*")
    page.get_by_role("button", name="Show more keys").click()
    page.get_by_role("button", name=wanted, exact=True).wait_for()


def test_use_that_cannot_be_read_leaves_no_figures_of_another_key(open_page, site) -> None:
    tenant = f"stale-{time.monotonic_ns()}"
    use_of(site, site.new_key(tenant=tenant, label="used"))
    site.new_key(tenant=tenant, label="unused")
    watched = open_page(f"/keys?part=use&tenant={tenant}")
    watched.allow("ERR_FAILED")
    page = watched.page
    page.get_by_role("figure", name="Requests").wait_for()
    page.route("**/v1/usage?*", lambda route: route.abort())
    page.get_by_label("Key", exact=True).select_option("unused")
    page.get_by_role("alert").filter(has_text="cannot be reached").wait_for()
    assert page.get_by_role("figure").count() == 0


def test_use_is_shown_as_charts_with_tables_and_downloaded_without_formulas(open_page, site) -> None:
    tenant = f"use-{time.monotonic_ns()}"
    use_of(site, site.new_key(tenant=tenant, label="=app"))
    page = open_page(f"/keys?part=use&tenant={tenant}").page
    for title in ("Requests", "Tokens", "Money", "Errors", "Mean time of an answer"):
        page.get_by_role("figure", name=title).wait_for()
    page.get_by_role("figure", name="Errors").get_by_text("1", exact=True).first.wait_for()
    requests = page.get_by_role("figure", name="Requests")
    assert requests.locator("rect title").first.text_content().endswith(": 1")
    requests.get_by_text("As a table").click()
    requests.get_by_role("table").wait_for()
    page.get_by_label("Divided by").select_option("key")
    requests.get_by_role("listitem").filter(has_text="=app").wait_for()
    page.get_by_role("table", name="Use, summed").get_by_role("cell", name="=app").wait_for()
    page.get_by_label("Divided by").select_option("model")
    requests.get_by_role("listitem").filter(has_text="local/chat-model").wait_for()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download as CSV").click()
    text = download.value.path().read_text()
    (row,) = [row for row in csv.DictReader(io.StringIO(text)) if row["model"] == "local/chat-model"]
    assert (row["requests"], row["errors"]) == ("1", "0")
    assert re.fullmatch(r"\d+\.\d", row["latency_ms"])


def test_figures_of_another_key_do_not_stay_when_those_of_the_chosen_key_cannot_be_read(open_page, site) -> None:
    label = f"Unread {time.monotonic_ns()}"
    use_of(site, site.new_key(label=label))
    watched = open_page("/keys?part=use&tenant=acme")
    watched.allow("status of 503")
    page = watched.page
    page.locator(".keys-charts").wait_for()
    failure = {"error": {"message": "The disk is gone.", "type": "server_error", "param": None, "code": "x"}}
    page.route("**/v1/usage?*", lambda route: route.fulfill(status=503, json=failure))
    page.get_by_label("Key", exact=True).select_option(label=label)
    page.get_by_text("The disk is gone.").wait_for()
    assert page.locator(".keys-charts").count() == 0


def test_a_tenant_administrator_sees_and_does_only_what_is_its_own(open_page, site) -> None:
    tenant = f"north-{time.monotonic_ns()}"
    site.new_key(label="secret plan of acme")
    administrator = site.new_key(
        tenant=tenant, label="Nora", scopes=["tenant.admin", "chat", "search"], tokens_per_day=50_000
    )
    watched = open_page("/keys?tenant=acme", key=administrator)
    page = watched.page
    page.get_by_role("row").filter(has_text="Nora").wait_for()
    assert page.get_by_label("Tenant", exact=True).count() == 0, "only operators choose a tenant"
    assert page.get_by_role("link", name="Service").count() == 0
    for name in ("Use", "Changes", "Provider keys", "Keys"):
        part(page, name)
        page.wait_for_load_state("networkidle")
        assert "secret plan of acme" not in page.content()
        assert page.get_by_role("option", name="secret plan of acme").count() == 0
    page.get_by_role("button", name="New key").click()
    form = page.get_by_role("dialog")
    assert form.get_by_label("Administer the whole service").count() == 0
    assert form.get_by_label("Tokens a day").input_value() == "50000", "what it may grant is proposed"
    form.get_by_label("Name").fill("too much")
    form.get_by_label("Tokens a day").fill("50001")
    watched.allow("status of 403")
    form.get_by_role("button", name="Create the key").click()
    form.get_by_text("can grant at most its own limit").wait_for()
    form.get_by_label("Tokens a day").fill("50000")
    form.get_by_role("button", name="Create the key").click()
    with site.client(shown_secret(page)) as client:
        assert client.get("/v1/key").json()["tenant"] == tenant


def test_every_key_sees_its_own_limits_and_use_and_nothing_else(open_page, site) -> None:
    key = site.new_key(label="guest", scopes=["chat", "search"], tokens_per_day=100_000, money_balance=2.5)
    use_of(site, key)
    page = open_page("/keys", key=key).page
    page.get_by_role("heading", name="guest").wait_for()
    assert page.get_by_role("tab").count() == 0
    with site.client(key) as client:
        left = client.get("/v1/key").json()["tokens_remaining"]
    page.get_by_text(f"{left:,} of 100,000 left").wait_for()
    page.get_by_text("2.50 of 2.50 left").wait_for()
    page.get_by_role("figure", name="Requests").wait_for()
    assert page.get_by_role("button", name="New key").count() == 0
    assert_accessible(page)


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 1280), ("light", 360), ("dark", 360)])
def test_all_parts_are_accessible_in_both_themes_and_fit_a_phone(open_page, site, theme, width) -> None:
    use_of(site, site.new_key(label="reader", tokens_per_day=100_000))
    page = open_page("/keys?tenant=acme", theme=theme, width=width).page
    for name in ("Keys", "Use", "Changes", "Provider keys", "My key"):
        part(page, name)
        page.wait_for_load_state("networkidle")
        assert_accessible(page)
        assert_fits_width(page)
    part(page, "Keys")
    page.get_by_role("button", name="New key").click()
    page.get_by_label("Only these").check()
    assert_accessible(page)
    assert_fits_width(page)
    page.keyboard.press("Escape")
    page.get_by_role("button", name="reader", exact=True).first.click()
    page.get_by_role("button", name="Rotate").wait_for()
    assert_accessible(page)
    assert_fits_width(page)


def test_the_page_speaks_german_and_is_used_with_the_keyboard(open_page, site) -> None:
    site.new_key(label="Tastatur")
    page = open_page("/keys?tenant=acme", language="de-DE").page
    page.get_by_role("tab", name="Schlüssel", exact=True).focus()
    page.keyboard.press("ArrowRight")
    page.get_by_role("tab", name="Nutzung", selected=True).wait_for()
    page.keyboard.press("Home")
    page.get_by_role("button", name="Tastatur", exact=True).press("Enter")
    page.get_by_role("dialog").get_by_role("button", name="Widerrufen").wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("dialog").wait_for(state="detached")
    focused = page.evaluate("document.activeElement.textContent")
    assert focused == "Tastatur", "the focus returns to what opened the dialog"
