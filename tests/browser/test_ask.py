"""The Ask page in a browser: answers with chips, the page of a source, follow-ups, history, feedback and exports."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pypdf
import pytest

from tests.browser.accessibility import assert_accessible, assert_fits_width
from tests.browser.conftest import DOCUMENTS, REPORT
from tests.support.quoting_provider import QuotingProvider
from tests.support.recording_provider import EVENTS, sse
from tests.support.upstream_server import serving

pytestmark = pytest.mark.timeout(300)
OTHER = "two-columns.pdf"
QUESTION = "How much did Apple repurchase of its common stock?"
ANSWER = "repurchased 133 million shares of its common stock for $19.0 billion"
FOREIGN = "Who won the football world cup in 1998?"
MOST_BYTES = 150_000


@pytest.fixture(scope="module")
def tenant(site) -> str:
    """A tenant with two documents."""
    key = site.new_key(tenant="asking")
    for name in (REPORT, OTHER):
        site.upload(DOCUMENTS / name, key=key)
    return "asking"


@pytest.fixture
def asker(site, tenant) -> str:
    """A key of its own, so that a test sees the conversations that it makes."""
    return site.new_key(tenant=tenant)


class WritingProvider(QuotingProvider):
    """The model ``writer`` streams ``text``, and ends with ``finish_reason``."""

    text = ""
    finish_reason = "stop"

    async def _misbehave(self, model, request, fields, receive, send) -> bool:
        if model != "writer":
            return await super()._misbehave(model, request, fields, receive, send)
        deltas = [({"role": "assistant", "content": self.text}, None), ({}, self.finish_reason)]
        head = {"id": "chatcmpl-w", "object": "chat.completion.chunk", "created": 1, "model": model}
        chunks = [head | {"choices": [{"index": 0, "delta": delta, "finish_reason": end}]} for delta, end in deltas]
        await self._answer(send, EVENTS, sse(*chunks) + b"data: [DONE]\n\n")
        return True


@pytest.fixture
def provider(site) -> Iterator[WritingProvider]:
    """A provider of the service: its model ``holds`` pauses in an answer, and ``quoter`` writes Markdown."""
    upstream = WritingProvider()
    with serving(upstream, timeout_graceful_shutdown=1) as (url, _server), site.client() as admin:
        fields = {
            "name": "asked",
            "base_url": f"{url}/v1",
            "models": ["holds", "quoter", "writer", "fail-500"],
            "retries": 0,
        }
        reply = admin.post("/v1/providers", json=fields)
        assert reply.status_code == 201, reply.text
        yield upstream
        if upstream.loop is not None:
            upstream.loop.call_soon_threadsafe(upstream.released.set)
        assert admin.delete("/v1/providers/asked").status_code == 200


def ask(page, question: str) -> None:
    page.get_by_label("Your question").fill(question)
    page.keyboard.press("Enter")


def answered(page, number: int = 1):
    """The turn with this number, once its answer is complete."""
    page.locator("article.turn").nth(number - 1).wait_for()
    turn = page.locator("article.turn[aria-busy='false']").nth(number - 1)
    turn.wait_for()
    return turn


def items_of(client, page) -> list[dict]:
    conversation = page.url.partition("conversation=")[2]
    reply = client.get(f"/v1/conversations/{conversation}/items", params={"order": "asc"})
    assert reply.status_code == 200, reply.text
    return reply.json()["data"]


def test_an_answer_has_chips_and_a_chip_opens_the_marked_page(open_page, asker) -> None:
    page = open_page(key=asker).page
    ask(page, QUESTION)
    turn = answered(page)
    assert ANSWER in turn.inner_text()
    chip = turn.locator(".chip").first
    assert re.fullmatch(rf"Source 1: {re.escape(REPORT)}, page \d+", chip.get_attribute("aria-label"))
    assert ANSWER in turn.locator(".source").first.inner_text()
    assert not re.search(r"\[\d+\]", turn.locator(".answer-text").inner_text()), "markers are chips"
    chip.click()
    viewer = page.locator(".page-viewer")
    viewer.get_by_role("heading", name=REPORT).wait_for()
    page.locator(".page-viewer-mark").first.wait_for()
    number = re.search(r"page (\d+)$", chip.get_attribute("aria-label"))[1]
    assert viewer.locator(".page-viewer-number input").input_value() == number
    assert chip.get_attribute("aria-pressed") == "true"
    page.keyboard.press("Escape")
    viewer.wait_for(state="detached")
    assert chip.evaluate("(element) => element === document.activeElement"), "the focus returns to the chip"


def test_a_follow_up_continues_the_conversation_also_after_a_reload(open_page, asker, site) -> None:
    page = open_page(key=asker).page
    ask(page, QUESTION)
    answered(page)
    ask(page, "For how many billion dollars?")
    second = answered(page, 2)
    assert second.locator(".chip").count()
    with site.client(asker) as client:
        items = items_of(client, page)
    assert [item["role"] for item in items if item["type"] == "message"] == ["user", "assistant"] * 2
    before = page.locator("article.turn").all_inner_texts()
    page.reload()
    answered(page, 2)
    assert page.locator("article.turn").all_inner_texts()[0] == before[0].replace("Try again", "").strip()
    assert page.locator("article.turn .chip").count() == len(
        [1 for item in items for part in item.get("content") or () for _ in part.get("annotations") or ()]
    )
    page.locator(".chip").first.click()
    page.locator(".page-viewer-mark").first.wait_for()


def test_an_answer_can_be_stopped_and_asked_again(open_page, asker, site, provider) -> None:
    page = open_page(key=asker).page
    page.get_by_label("Model").select_option("holds")
    ask(page, QUESTION)
    page.get_by_text("Hello").wait_for()
    page.get_by_role("button", name="Stop").click()
    turn = answered(page)
    turn.get_by_text("You stopped this answer.").wait_for()
    page.reload()
    turn = answered(page)
    turn.get_by_text("You stopped this answer.").wait_for()
    assert "Hello" in turn.inner_text()
    page.get_by_label("Model").select_option("local/chat-model")
    turn.get_by_role("button", name="Try again").click()
    page.locator(".chip").first.wait_for()
    answered(page)
    assert page.locator("article.turn").count() == 1
    with site.client(asker) as client:
        texts = [part["text"] for item in items_of(client, page) for part in item.get("content") or ()]
    assert len(texts) == 2
    assert ANSWER in texts[1]


def test_an_answer_that_another_conversation_interrupts_stays_in_its_own(open_page, asker, site, provider) -> None:
    page = open_page(key=asker).page
    ask(page, QUESTION)
    answered(page)
    first = page.url.partition("conversation=")[2]
    page.get_by_role("button", name="New question").click()
    page.get_by_label("Model").select_option("holds")
    ask(page, FOREIGN)
    page.get_by_text("Hello").wait_for()
    second = page.url.partition("conversation=")[2]
    with page.expect_response(lambda reply: reply.request.method == "POST" and reply.url.endswith("/items")):
        page.get_by_role("complementary", name="Conversations").get_by_role("link", name=QUESTION).click()
    assert ANSWER in answered(page).inner_text()
    with site.client(asker) as client:

        def messages(conversation: str) -> list[tuple[str, str]]:
            reply = client.get(f"/v1/conversations/{conversation}/items", params={"order": "asc"})
            return [(item["role"], item["status"]) for item in reply.json()["data"] if item["type"] == "message"]

        assert messages(first) == [("user", "completed"), ("assistant", "completed")]
        assert messages(second) == [("user", "completed"), ("assistant", "incomplete")]
    assert page.url.endswith(first)


def test_a_conversation_that_is_created_late_does_not_bring_the_reader_back(open_page, asker, site) -> None:
    page = open_page(key=asker).page
    held = []
    page.route(
        "**/v1/conversations", lambda route: held.append(route) if route.request.method == "POST" else route.continue_()
    )
    ask(page, QUESTION)
    page.get_by_role("link", name="Documents", exact=True).click()
    page.wait_for_url("**/documents")
    with page.expect_response("**/v1/responses"):
        held[0].continue_()
    assert page.url == f"{site.url}/documents"
    page.unroute("**/v1/conversations")
    page.get_by_role("link", name="Ask", exact=True).click()
    page.get_by_role("complementary", name="Conversations").get_by_role("link", name=QUESTION).click()
    assert ANSWER in answered(page).inner_text()


def test_a_question_that_is_stopped_at_once_can_be_asked_again_in_its_conversation(open_page, asker, site) -> None:
    page = open_page(key=asker).page
    held = []
    page.route(
        "**/v1/conversations",
        lambda route: held.append(route) if route.request.method == "POST" else route.continue_(),
    )
    ask(page, QUESTION)
    page.get_by_role("button", name="Stop").click()
    held[0].continue_()
    turn = answered(page)
    turn.get_by_text("You stopped this answer.").wait_for()
    page.unroute("**/v1/conversations")
    turn.get_by_role("button", name="Try again").click()
    page.locator(".chip").first.wait_for()
    answered(page)
    with site.client(asker) as client:
        assert len(client.get("/v1/conversations").json()["data"]) == 1
        assert [item["role"] for item in items_of(client, page) if item["type"] == "message"] == ["user", "assistant"]


def test_a_conversation_that_is_deleted_while_it_is_answered_is_gone(open_page, asker, site, provider) -> None:
    page = open_page(key=asker).page
    ask(page, FOREIGN)
    answered(page)
    page.get_by_label("Model").select_option("holds")
    ask(page, QUESTION)
    page.get_by_text("Hello").wait_for()
    page.get_by_role("button", name=f"Delete “{FOREIGN}”").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("heading", name="Ask your documents a question").wait_for()
    page.get_by_role("link", name=FOREIGN).wait_for(state="detached")
    assert page.locator(".toast-error").count() == 0
    with site.client(asker) as client:
        assert client.get("/v1/conversations").json()["data"] == []


def test_trying_again_keeps_what_was_asked_elsewhere(open_page, asker, site) -> None:
    page = open_page(key=asker).page
    ask(page, QUESTION)
    turn = answered(page)
    other = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Asked in another tab"}]}
    conversation = page.url.partition("conversation=")[2]
    with site.client(asker) as client:
        assert client.post(f"/v1/conversations/{conversation}/items", json={"items": [other]}).status_code == 200
        with page.expect_response("**/v1/responses"):
            turn.get_by_role("button", name="Try again").click()
        answered(page)
        texts = [part["text"] for item in items_of(client, page) for part in item.get("content") or ()]
    assert "Asked in another tab" in texts


def test_markdown_of_a_model_is_shown_and_a_failure_can_be_repeated(open_page, asker, provider) -> None:
    watched = open_page(key=asker)
    page = watched.page
    page.get_by_label("Model").select_option("quoter")
    ask(page, f"{QUESTION} QUOTE: 133 million shares")
    turn = answered(page)
    assert turn.locator(".chip").count()
    page.get_by_label("Model").select_option("fail-500")
    watched.allow("status of 50")
    ask(page, QUESTION)
    failed = answered(page, 2)
    failed.get_by_role("alert").get_by_text("The question could not be answered.").wait_for()
    page.get_by_label("Model").select_option("local/chat-model")
    failed.get_by_role("button", name="Try again").click()
    page.locator("article.turn").nth(1).locator(".chip").first.wait_for()
    assert page.locator("article.turn").count() == 2


def test_markdown_of_any_shape_is_shown_with_its_chips_and_never_as_html(open_page, asker, provider) -> None:
    page = open_page(key=asker).page
    page.get_by_label("Model").select_option("writer")
    provider.text = "\n".join(
        [
            "<img src=x onerror=alert(1)> and [a link](javascript:alert(1)) and [the web](https://example.com/a)",
            "",
            "Apple repurchased `133 million shares [1]`, as a table shows [1]:",
            "",
            "| Quarter | Shares |",
            "| --- | --- |",
            "",
            "```",
            "shares = 133  # [1]",
            "```",
            "",
            ">" * 5000 + " deep",
            "",
            "The last words.",
        ]
    )
    ask(page, QUESTION)
    turn = answered(page)
    turn.get_by_text("The last words.").wait_for()
    assert turn.locator(".answer-text img").count() == 0
    assert turn.locator(".answer-text a").all_inner_texts() == ["the web"]
    assert turn.locator(".answer-text table tbody tr").count() == 0
    assert turn.locator("p code").inner_text() == "133 million shares [1]"
    assert turn.locator(".answer-text pre").inner_text() == "shares = 133  # [1]"
    assert turn.locator(".answer-text .chip").count() == 1
    assert not re.search("[\ue000\ue001]", turn.inner_text())


def test_an_answer_that_the_model_ended_early_says_so(open_page, asker, provider) -> None:
    page = open_page(key=asker).page
    page.get_by_label("Model").select_option("writer")
    provider.text, provider.finish_reason = "Apple repurchased 133 million shares [1] and", "length"
    ask(page, QUESTION)
    turn = answered(page)
    turn.get_by_text("The model ended this answer before it was complete.").wait_for()
    assert "Apple repurchased 133 million shares" in turn.inner_text()


def test_a_condition_finds_a_value_that_is_stored_as_text(open_page, site) -> None:
    key = site.new_key(tenant="conditions")
    with site.client(key) as client:
        reply = client.post(
            "/v1/rag/documents",
            params={"filename": "harbour.txt", "wait_s": 60},
            content=b"The harbour handled 4,711 containers.",
            headers={"content-type": "text/plain"},
        )
        assert reply.status_code == 201, reply.text
        path = f"/v1/rag/documents/{reply.json()['id']}"
        assert client.patch(path, json={"metadata": {"year": "2024"}}).status_code == 200
    page = open_page(key=key).page
    page.get_by_role("button", name="All documents").click()
    dialog = page.get_by_role("dialog", name="Where to look")
    dialog.get_by_role("button", name="Add a condition").click()
    dialog.get_by_label("Property").fill("year")
    dialog.get_by_label("Value").fill("2024")
    dialog.get_by_role("button", name="Done").click()
    ask(page, "How many containers did the harbour handle?")
    assert "4,711 containers" in answered(page).inner_text()


def test_a_question_says_when_it_does_not_look_into_all_collections(open_page, site) -> None:
    key = site.new_key(tenant="collecting")
    with site.client(key) as client:
        for number in range(17):
            reply = client.post(
                "/v1/rag/documents",
                params={"filename": f"{number}.txt", "collection": f"shelf {number:02}", "wait_s": 60},
                content=f"Shelf {number} has books.".encode(),
                headers={"content-type": "text/plain"},
            )
            assert reply.status_code == 201, reply.text
    page = open_page(key=key).page
    page.get_by_text("Answers come from 16 of 17 collections only.").wait_for()
    page.get_by_role("button", name="All documents").click()
    dialog = page.get_by_role("dialog", name="Where to look")
    dialog.get_by_role("checkbox", name="shelf 16 (1)").check()
    dialog.get_by_role("button", name="Done").click()
    page.get_by_text("Answers come from").wait_for(state="detached")
    ask(page, "Which shelf has books?")
    assert "Shelf 16 has books." in answered(page).inner_text()


def test_what_the_documents_lack_looks_different_and_shows_the_nearest_passages(open_page, asker) -> None:
    page = open_page(key=asker).page
    ask(page, FOREIGN)
    turn = answered(page)
    turn.get_by_text("Not in your documents").wait_for()
    assert turn.locator(".chip").count() == 0
    assert turn.locator(".absent .source").count() >= 1
    page.reload()
    answered(page).locator(".absent .source").first.click()
    page.locator(".page-viewer-mark").first.wait_for()


def test_ratings_and_notes_are_stored_and_shown_again(open_page, asker, site) -> None:
    page = open_page(key=asker).page
    ask(page, QUESTION)
    turn = answered(page)
    turn.get_by_role("button", name="Good answer").click()
    page.locator(".turn-note").wait_for()
    turn.get_by_role("button", name="Bad answer").click()
    page.get_by_label("What is wrong or missing?").fill("The year is missing.")
    page.get_by_role("button", name="Save the note").click()
    page.locator(".turn-note").wait_for(state="detached")
    with site.client(asker) as client:
        (stored,) = client.get("/v1/rag/feedback").json()["data"]
    assert (stored["question"], stored["rating"], stored["note"]) == (QUESTION, "down", "The year is missing.")
    assert stored["citations"][0]["filename"] == REPORT
    assert ANSWER in stored["citations"][0]["quote"]
    with page.expect_download() as download:
        page.get_by_role("link", name="Download rated questions").click()
    (line,) = Path(download.value.path()).read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["question"] == QUESTION
    page.reload()
    bad = answered(page).get_by_role("button", name="Bad answer")
    page.locator("[aria-label='Bad answer'][aria-pressed='true']").wait_for()
    bad.click()
    page.locator("[aria-label='Bad answer'][aria-pressed='false']").wait_for()
    with site.client(asker) as client:
        assert client.get("/v1/rag/feedback").json()["data"] == []


def test_conversations_are_listed_opened_renamed_and_deleted(open_page, asker, site) -> None:
    page = open_page(key=asker).page
    for question in (QUESTION, FOREIGN):
        ask(page, question)
        answered(page)
        page.get_by_role("button", name="New question").click()
        page.get_by_role("heading", name="Ask your documents a question").wait_for()
    history = page.get_by_role("complementary", name="Conversations")
    assert [text.split("\n")[0] for text in history.locator(".history-entry a").all_inner_texts()] == [
        FOREIGN,
        QUESTION,
    ]
    history.get_by_role("link", name=QUESTION).click()
    assert ANSWER in answered(page).inner_text()
    history.get_by_role("button", name=f"Rename “{QUESTION}”").click()
    page.get_by_label("Title").fill("Buybacks")
    page.get_by_role("button", name="Save", exact=True).click()
    history.get_by_role("link", name="Buybacks").wait_for()
    page.get_by_role("heading", level=1, name="Buybacks").wait_for()
    history.get_by_role("button", name=f"Delete “{FOREIGN}”").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    history.get_by_role("link", name=FOREIGN).wait_for(state="detached")
    page.reload()
    assert [text.split("\n")[0] for text in history.locator(".history-entry a").all_inner_texts()] in ([], ["Buybacks"])
    history.get_by_role("link", name="Buybacks").wait_for()
    with site.client(asker) as client:
        assert [each["metadata"]["title"] for each in client.get("/v1/conversations").json()["data"]] == ["Buybacks"]


def test_conversations_of_another_key_are_not_shown(open_page, asker, site) -> None:
    first = open_page(key=asker).page
    ask(first, QUESTION)
    answered(first)
    other = open_page(key=site.other_key)
    other.allow("status of 404")
    other.page.goto(first.url.removeprefix(site.url))
    other.page.get_by_text("There is no conversation").wait_for()
    assert ANSWER not in other.page.locator("body").inner_text()


def test_a_conversation_is_exported_as_markdown_and_as_pdf_and_copied(open_page, asker) -> None:
    watched = open_page(key=asker)
    page = watched.page
    ask(page, QUESTION)
    turn = answered(page)
    with page.expect_download() as download:
        page.get_by_role("button", name="As Markdown").click()
    assert download.value.suggested_filename == "How-much-did-Apple-repurchase-of-its-common-stock.md"
    text = Path(download.value.path()).read_text(encoding="utf-8")
    assert f"## {QUESTION}" in text
    assert "### Sources" in text
    assert re.search(rf"- \[1\] {re.escape(REPORT)}, page \d+: “", text)
    assert re.search(r"\$19\.0 billion.* \[1\]", text)
    words = text_of_pdf(page.pdf())
    assert QUESTION in words
    assert ANSWER in words
    assert "Ask a follow-up question" not in words
    assert "Playground" not in words
    watched.context.grant_permissions(["clipboard-read", "clipboard-write"])
    turn.get_by_role("button", name="Copy with sources").click()
    page.get_by_text("Copied").wait_for()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert ANSWER in copied
    assert f"[1] {REPORT}" in copied


def text_of_pdf(content: bytes) -> str:
    pages = [page.extract_text() for page in pypdf.PdfReader(io.BytesIO(content)).pages]
    return re.sub(r"\s+", " ", " ".join(pages))


def test_answers_come_from_the_chosen_documents_only(open_page, asker) -> None:
    page = open_page(key=asker).page
    page.get_by_role("button", name="All documents").click()
    dialog = page.get_by_role("dialog", name="Where to look")
    dialog.get_by_label("Find a document").fill("columns")
    dialog.get_by_label(OTHER).check()
    assert_accessible(page)
    dialog.get_by_role("button", name="Done").click()
    ask(page, QUESTION)
    answered(page).get_by_text("Not in your documents").wait_for()
    page.reload()
    page.get_by_role("button", name=OTHER, exact=True).click()
    dialog.get_by_role("button", name="Look everywhere").click()
    dialog.get_by_role("button", name="Add a condition").click()
    dialog.get_by_label("Property").fill("filename")
    dialog.get_by_label("Comparison").select_option("prefix")
    dialog.get_by_label("Value").fill("apple")
    dialog.get_by_role("button", name="Done").click()
    page.get_by_role("button", name="1 condition").wait_for()
    ask(page, QUESTION)
    assert ANSWER in answered(page, 2).inner_text()


def test_a_link_of_a_document_asks_about_it_only(open_page, asker, site) -> None:
    with site.client(asker) as client:
        (document,) = client.get("/v1/rag/documents", params={"name": OTHER}).json()["data"]
    page = open_page(f"/ask?document={document['id']}", key=asker).page
    page.get_by_role("button", name=OTHER, exact=True).wait_for()
    ask(page, QUESTION)
    answered(page).get_by_text("Not in your documents").wait_for()


def test_without_documents_the_page_leads_to_them(open_page, site) -> None:
    page = open_page(key=site.new_key(tenant="empty")).page
    page.get_by_role("heading", name="There are no documents yet").wait_for()
    assert page.get_by_label("Your question").is_disabled()
    page.get_by_role("link", name="Add documents").click()
    page.wait_for_url("**/documents")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_state_of_the_page_is_accessible(open_page, asker, theme) -> None:
    page = open_page(key=asker, theme=theme).page
    page.get_by_role("heading", name="Ask your documents a question").wait_for()
    assert_accessible(page)
    ask(page, QUESTION)
    answered(page).get_by_role("button", name="Bad answer").click()
    page.locator(".turn-note").wait_for()
    ask(page, FOREIGN)
    answered(page, 2)
    assert_accessible(page)
    page.locator(".chip").first.click()
    page.locator(".page-viewer-mark").first.wait_for()
    assert_accessible(page)


def test_the_page_fits_a_phone_in_german(open_page, asker) -> None:
    page = open_page(key=asker, width=360, height=740, language="de-DE", theme="dark").page
    page.get_by_label("Ihre Frage").fill(QUESTION)
    page.get_by_role("button", name="Fragen", exact=True).click()
    answered(page)
    assert_fits_width(page)
    assert_accessible(page)
    page.get_by_role("button", name="Gespräche").click()
    page.get_by_role("dialog", name="Gespräche").get_by_role("link", name=QUESTION).wait_for()
    assert_fits_width(page)
    page.get_by_role("button", name="Schließen").click()
    page.locator(".chip").first.click()
    page.locator(".page-viewer-mark").first.wait_for()
    assert_fits_width(page)
    page.locator(".page-viewer").get_by_role("button", name="Schließen").click()
    page.locator(".page-viewer").wait_for(state="detached")


def test_the_first_load_is_small_and_comes_from_the_service_only(open_page, asker, site) -> None:
    page = open_page(key=asker).page
    page.get_by_label("Your question").wait_for()
    page.wait_for_load_state("networkidle")
    loaded = page.evaluate(
        "performance.getEntries().filter((entry) => entry.encodedBodySize !== undefined)"
        ".map((entry) => [entry.name, entry.encodedBodySize])"
    )
    assert all(name.startswith((site.url, "blob:")) for name, _ in loaded)
    program = [(name, size) for name, size in loaded if "/v1/" not in name]
    assert any("/assets/" in name for name, _ in program)
    assert not any("viewer" in name for name, _ in program), "the viewer is loaded when a source is opened"
    assert sum(size for _, size in program) <= MOST_BYTES
