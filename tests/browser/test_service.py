"""The page Service: state, providers, findings and settings, for operators only."""

from __future__ import annotations

import time

import pytest

from tests.browser.accessibility import assert_accessible, assert_fits_width


def part(page, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()
    page.get_by_role("tab", name=name, exact=True, selected=True).wait_for()


@pytest.fixture
def absent_provider(site):
    """A provider that nobody listens at."""
    name = f"absent-{time.monotonic_ns()}"
    with site.client() as client:
        settings = {"name": name, "base_url": "http://127.0.0.1:9/v1", "models": [f"{name}/model"], "retries": 0}
        assert client.post("/v1/providers", json=settings).status_code == 201
        yield name
        assert client.delete(f"/v1/providers/{name}").status_code == 200


def test_the_state_of_the_service_is_shown(open_page, site) -> None:
    page = open_page("/service").page
    page.get_by_text("The service works.").wait_for()
    for title in ("Documents", "Embedding model", "Indexes", "Storage", "Encryption", "Backups", "Versions"):
        page.get_by_role("heading", name=title, exact=True).wait_for()
    with site.client() as client:
        state = client.get("/v1/service").json()
    page.get_by_text(state["embedding"]["runtime"]).wait_for()
    page.get_by_text(state["encryption"]["request_keys"][0]["key_id"]).first.wait_for()


@pytest.mark.parametrize(
    ("name", "path"), [("Providers", "providers"), ("Findings", "service/findings"), ("Settings", "service/settings")]
)
def test_what_could_not_be_read_is_read_by_trying_again(open_page, absent_provider, name, path) -> None:
    watched = open_page("/service")
    watched.allow("ERR_FAILED")
    page = watched.page
    page.route(f"**/v1/{path}", lambda route: route.abort())
    part(page, name)
    page.get_by_role("alert").filter(has_text="cannot be reached").wait_for()
    page.unroute(f"**/v1/{path}")
    page.get_by_role("button", name="Try again").click()
    page.get_by_role("main").get_by_role("table").wait_for()


def test_a_provider_is_tried(open_page, absent_provider) -> None:
    page = open_page("/service?part=providers").page
    row = page.get_by_role("row").filter(has_text=absent_provider)
    row.get_by_text("works").wait_for()
    row.get_by_role("button", name=f"Try “{absent_provider}”").click()
    row.get_by_role("status").filter(has_text="provider").wait_for()


def test_findings_and_settings_are_listed(open_page) -> None:
    page = open_page("/service?part=findings").page
    findings = page.get_by_role("table", name="Findings, the worst first")
    findings.get_by_text("no backup of this directory is known").wait_for()
    findings.get_by_text("packages have the required versions").or_(findings.get_by_text("runs from source")).wait_for()
    part(page, "Settings")
    settings = page.get_by_role("table", name="Settings")
    settings.get_by_role("row").filter(has_text="rag_top_k").wait_for()
    page.get_by_label("Find a setting").fill("data_dir")
    settings.get_by_role("row").filter(has_text="rag_top_k").wait_for(state="detached")
    page.get_by_label("Show only those that differ").check()
    settings.get_by_role("row").filter(has_text="data_dir").wait_for()


def test_only_operators_open_the_page(open_page, site) -> None:
    key = site.new_key(scopes=["chat", "tenant.admin"])
    page = open_page("/service", key=key).page
    page.get_by_role("heading", name="Your key may not open this page").wait_for()


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 1280), ("light", 360), ("dark", 360)])
def test_all_parts_are_accessible_in_both_themes_and_fit_a_phone(open_page, absent_provider, theme, width) -> None:
    page = open_page("/service", theme=theme, width=width).page
    for name in ("State", "Providers", "Findings", "Settings"):
        part(page, name)
        page.locator(".table, dl").first.wait_for()
        assert_accessible(page)
        assert_fits_width(page)
    assert absent_provider not in page.url
