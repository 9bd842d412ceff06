"""The frame of the pages: signing in and out, all pages in both themes and on a phone, and what other tenants see."""

from __future__ import annotations

import pytest

from tests.browser.accessibility import assert_accessible, assert_fits_width, settle
from tests.browser.conftest import SMALL

PAGES = ["/ask", "/documents", "/playground", "/keys", "/service", "/reference"]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_page_opens_without_errors_and_is_accessible(open_page, theme) -> None:
    watched = open_page(theme=theme)
    for path in PAGES:
        watched.page.goto(path)
        watched.page.locator("main h1").wait_for()
        settle(watched.page)
        assert_accessible(watched.page)


def test_every_page_fits_a_phone(open_page) -> None:
    watched = open_page(width=360, height=740, language="de-DE")
    for path in PAGES:
        watched.page.goto(path)
        watched.page.locator("main h1").wait_for()
        settle(watched.page)
        assert_fits_width(watched.page)
    watched.page.get_by_role("button", name="Menü öffnen").click()
    watched.page.get_by_role("link", name="Dokumente").click()
    watched.page.wait_for_url("**/documents")
    settle(watched.page)
    assert_accessible(watched.page)


def test_a_key_signs_in_and_leaves_nothing_in_the_browser(open_page, site) -> None:
    watched = open_page("/documents", key=None)
    page = watched.page
    assert_accessible(page)
    watched.allow("status of 401")
    field = page.get_by_label("API key")
    field.fill("rag_000000000000_wrong")
    page.keyboard.press("Enter")
    page.get_by_role("alert").filter(has_text="not valid").wait_for()
    field.fill(site.key)
    page.keyboard.press("Enter")
    page.get_by_role("navigation").wait_for()
    assert page.url == f"{site.url}/documents", "the page that was asked for is shown after signing in"
    kept = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href])")
    assert site.key not in kept
    assert "ragsvc_session" not in kept, "scripts cannot read the cookie"
    cookie = next(cookie for cookie in watched.context.cookies() if cookie["name"] == "ragsvc_session")
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Strict"


def test_a_link_signs_in_once(open_page, site) -> None:
    link = site.sign_in_link()
    first = open_page("/sign-in", key=None).page
    first.goto(link)
    first.wait_for_url("**/ask")
    assert "code" not in first.evaluate("location.href + JSON.stringify(history.state)")
    second = open_page("/sign-in", key=None)
    second.allow("status of 401")
    second.page.goto(link)
    second.page.get_by_role("alert").filter(has_text="used already").wait_for()


def test_a_link_does_not_replace_a_session_without_being_asked(open_page, site) -> None:
    page = open_page("/keys", key=site.new_key(label="mine")).page
    link = site.sign_in_link(site.other_key)
    page.goto("about:blank")
    page.goto(link)
    page.get_by_text("You are signed in with the key “mine” already.").wait_for()
    assert_accessible(page)
    assert "code" not in page.evaluate("location.href + JSON.stringify(history.state)")
    assert page.evaluate("fetch('/v1/session').then((reply) => reply.json())")["key"]["label"] == "mine"
    page.get_by_role("button", name="Stay signed in").click()
    page.get_by_role("navigation", name="Pages").wait_for()
    page.goto("about:blank")
    page.goto(link)
    page.get_by_role("button", name="Sign in with the link").click()
    page.get_by_role("navigation", name="Pages").wait_for()
    assert page.evaluate("fetch('/v1/session').then((reply) => reply.json())")["key"]["label"] == "other"


def test_a_used_link_says_so_also_to_somebody_who_is_signed_in(open_page, site) -> None:
    link = site.sign_in_link()
    first = open_page("/sign-in", key=None).page
    first.goto(link)
    first.get_by_role("navigation", name="Pages").wait_for()
    watched = open_page("/keys")
    watched.allow("status of 401")
    page = watched.page
    page.goto("about:blank")
    page.goto(link)
    page.get_by_role("button", name="Sign in with the link").click()
    page.get_by_role("alert").filter(has_text="used already").wait_for()
    assert "code" not in page.evaluate("location.href + JSON.stringify(history.state)")
    page.get_by_label("API key").fill(site.key)
    page.keyboard.press("Enter")
    page.wait_for_url("**/ask")
    page.get_by_role("navigation", name="Pages").wait_for()


def test_signing_out_ends_the_session(open_page, site) -> None:
    watched = open_page()
    page = watched.page
    cookies = watched.context.cookies()
    page.get_by_role("button", name="Sign out").click()
    page.get_by_text("You are signed out.").wait_for()
    page.goto("/documents")
    page.get_by_label("API key").wait_for()
    watched.context.add_cookies(cookies)
    reply = watched.context.request.get(f"{site.url}/v1/models", headers={"sec-fetch-site": "same-origin"})
    assert reply.status == 401, "the former cookie does not work any more"


def test_signing_out_also_works_after_another_tab_has_signed_in_again(open_page, site) -> None:
    watched = open_page()
    watched.allow("status of 403")
    other = watched.context.new_page()
    other.goto(site.sign_in_link())
    other.get_by_role("button", name="Sign in with the link").click()
    other.get_by_role("button", name="Sign out").wait_for()
    cookies = watched.context.cookies()
    watched.page.get_by_role("button", name="Sign out").click()
    watched.page.get_by_text("You are signed out.").wait_for()
    watched.context.add_cookies(cookies)
    reply = watched.context.request.get(f"{site.url}/v1/models", headers={"sec-fetch-site": "same-origin"})
    assert reply.status == 401


def test_a_session_that_ends_elsewhere_shows_the_sign_in_page(open_page, site) -> None:
    key = site.new_key()
    watched = open_page(key=key)
    watched.allow("status of 401")
    with site.client() as admin:
        key_id = "key_" + key.split("_")[1]
        assert admin.post(f"/v1/keys/{key_id}/revoke").status_code == 200
    watched.page.evaluate("fetch('/v1/models')")
    watched.page.reload()
    watched.page.get_by_label("API key").wait_for()


def test_another_tenant_sees_nothing_of_a_document(open_page, site) -> None:
    watched = open_page(key=site.other_key)
    watched.allow("status of 404")
    document = site.document(SMALL)
    answers = watched.page.evaluate(
        """async (ids) => Promise.all(ids.map(async (id) => {
          const reply = await fetch(`/v1/rag/documents/${id}`);
          const body = await reply.json();
          return [reply.status, body.error.code, body.error.message.replace(id, "ID")];
        }))""",
        [document, "doc_00000000000000000000000000000000"],
    )
    assert answers[0] == answers[1]
    assert answers[0][0] == 404
    watched.page.goto(f"/documents/{document}")
    watched.page.locator("main h1").wait_for()
    settle(watched.page)
    assert SMALL not in watched.page.inner_text("main")


def test_pages_that_a_key_may_not_open_are_not_offered(open_page, site) -> None:
    watched = open_page(key=site.other_key)
    navigation = watched.page.get_by_role("navigation", name="Pages")
    assert navigation.get_by_role("link", name="Service").count() == 0
    watched.page.goto("/service")
    watched.page.get_by_role("heading", name="Your key may not open this page").wait_for()


def test_a_page_whose_code_has_another_name_after_an_upgrade_is_loaded_by_trying_again(open_page) -> None:
    watched = open_page()
    watched.allow("ERR_FAILED")
    page = watched.page
    reloads: list[str] = []
    page.on("request", lambda request: request.is_navigation_request() and reloads.append(request.url))
    page.route("**/assets/playground-*.js", lambda route: route.continue_() if reloads else route.abort())
    page.get_by_role("link", name="Playground").click()
    page.get_by_role("heading", name="The page could not be shown").wait_for()
    page.get_by_role("button", name="Try again").click()
    page.get_by_label("Message").wait_for()


def test_theme_and_language_are_kept(open_page) -> None:
    page = open_page().page
    page.get_by_label("Appearance").select_option("dark")
    page.get_by_label("Language").select_option("de")
    page.get_by_role("heading", name="Fragen").wait_for()
    page.reload()
    page.get_by_role("heading", name="Fragen").wait_for()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.evaluate("document.documentElement.lang") == "de"


def test_the_whole_frame_works_by_keyboard(open_page) -> None:
    page = open_page("/keys").page  # the Ask page puts the focus into its question
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    page.get_by_role("link", name="Documents", exact=True).focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/documents")


def test_a_page_of_another_origin_can_do_nothing_with_the_session(open_page, site) -> None:
    watched = open_page()
    watched.allow("status of 40[0-9]|CORS|ERR_FAILED")
    page = watched.page
    foreign = site.url.replace("127.0.0.1", "localhost")
    page.goto(f"{foreign}/livez")  # a document without a Content-Security-Policy of its own
    outcome = page.evaluate(
        """async (url) => {
          const calls = [["GET", "/v1/models"], ["POST", "/v1/session/links"], ["DELETE", "/v1/session"]];
          return Promise.all(calls.map(async ([method, path]) => {
            try {
              const reply = await fetch(url + path, { method, credentials: "include" });
              return reply.status;
            } catch (error) {
              return "refused";
            }
          }));
        }""",
        site.url,
    )
    assert outcome == ["refused", "refused", "refused"]
    page.goto(f"{site.url}/ask")
    page.get_by_role("navigation", name="Pages").wait_for()
