"""The pages Playground and API reference in a browser: what is typed is sent, and what was sent can be copied."""

from __future__ import annotations

import base64
import json
import os
import random
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.accessibility import assert_accessible, assert_fits_width
from tests.browser.conftest import OpenPage, Site
from tests.support.recording_provider import CHAT_STREAM, EVENTS, RecordingProvider
from tests.support.upstream_server import serving

pytestmark = [pytest.mark.browser, pytest.mark.model]

MODEL = "local/chat-model"


def picture(path: Path, *, size: int = 1) -> Path:
    """A square PNG that cannot be compressed; ``size`` is its width in pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    noise = random.Random(1)  # noqa: S311  # a picture, no secret
    rows = b"".join(b"\0" + noise.randbytes(3 * size) for _ in range(size))
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


def test_a_chat_streams_and_its_program_gives_the_same_answer(open_page: OpenPage, site: Site) -> None:
    site.document("outline.pdf")
    page = open_page("/playground").page
    page.get_by_label("Model", exact=True).fill(MODEL)
    page.get_by_label("Answer from the documents").check()
    page.get_by_label("Max tokens").fill("200")
    page.get_by_label("Message").fill("What is this document about?")
    page.get_by_role("button", name="Send").click()
    page.locator(".turn-assistant").wait_for()
    page.get_by_text("First event").wait_for()
    answer = page.locator(".turn-assistant .turn-text").inner_text()
    assert answer

    page.get_by_role("tab", name="Response").click()
    shown = page.locator(".exchange-text").inner_text()
    assert shown.startswith("HTTP 200")
    assert "data: [DONE]" in shown
    assert page.locator(".figures").inner_text().count("\n") >= 6  # status, times and tokens

    # the fields of the next request are the ones of the form, and the program that sends it runs
    page.get_by_label("Message").fill("What is this document about?")
    page.get_by_role("button", name="New conversation").click()
    page.get_by_role("tab", name="Request", exact=True).click()
    body = json.loads(page.locator(".exchange-text").inner_text().partition("\n\n")[2])
    assert body["messages"] == [{"role": "user", "content": "What is this document about?"}]
    assert (body["model"], body["use_rag"], body["max_tokens"], body["stream"]) == (MODEL, True, 200, True)
    page.get_by_role("tab", name="Python").click()
    program = page.locator(".exchange-text").inner_text()
    environment = {**os.environ, "RAGSVC_API_KEY": site.key}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == answer.strip()
    page.get_by_role("tab", name="curl").click()
    command = page.locator(".exchange-text").inner_text()
    done = subprocess.run(
        ["bash", "-c", command], env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stdout.rstrip().endswith("data: [DONE]"), done.stderr


def test_errors_of_a_request_are_shown_and_nothing_is_lost(open_page: OpenPage, tmp_path: Path) -> None:
    watched = open_page("/playground")
    watched.allow("status of 4")
    page = watched.page
    page.get_by_label("Model", exact=True).fill("no/such-model")
    page.get_by_label("Message").fill("Hello")
    page.get_by_role("button", name="Send").click()
    page.get_by_role("alert").wait_for()
    assert "no/such-model" in page.get_by_role("alert").inner_text()
    assert page.get_by_label("Message").input_value() == "Hello"
    page.get_by_role("tab", name="Response").click()
    assert page.locator(".exchange-text").inner_text().startswith("HTTP 404")

    page.get_by_label("Tools").fill('{"type": "function"}')
    page.get_by_text("This is not a JSON array.").wait_for()
    page.get_by_label("Tools").fill("")
    page.get_by_label("Other fields").fill('{"logprobs": true}')
    page.get_by_label("Add images").set_input_files(picture(tmp_path / "dot.png"))
    page.get_by_alt_text("dot.png").wait_for()
    page.get_by_role("tab", name="Request", exact=True).click()
    body = json.loads(page.locator(".exchange-text").inner_text().partition("\n\n")[2])
    text, image = body["messages"][0]["content"]
    assert text == {"type": "text", "text": "Hello"}
    encoded = image["image_url"]["url"].removeprefix("data:image/png;base64,")
    assert base64.b64decode(encoded) == (tmp_path / "dot.png").read_bytes()
    assert body["logprobs"] is True


class CuttingProvider(RecordingProvider):
    """The model ``cuts`` ends its answer after the first word."""

    async def _misbehave(self, model, request, fields, receive, send) -> bool:
        if model != "cuts":
            return await super()._misbehave(model, request, fields, receive, send)
        begun = CHAT_STREAM[: CHAT_STREAM.index(b" world")].rpartition(b"data: ")[0]
        await self._start(send, 200, EVENTS)
        await send({"type": "http.response.body", "body": begun, "more_body": True})
        raise ConnectionError("on purpose")


@pytest.fixture
def provider(site: Site) -> Iterator[RecordingProvider]:
    """A provider of the service: its model ``holds`` pauses in an answer, and ``cuts`` ends it early."""
    upstream = CuttingProvider()
    with serving(upstream, timeout_graceful_shutdown=1) as (url, _server), site.client() as admin:
        fields = {"name": "played", "base_url": f"{url}/v1", "models": ["holds", "cuts"], "retries": 0}
        assert admin.post("/v1/providers", json=fields).status_code == 201
        yield upstream
        if upstream.loop is not None:
            upstream.loop.call_soon_threadsafe(upstream.released.set)
        assert admin.delete("/v1/providers/played").status_code == 200


@pytest.mark.usefixtures("provider")
def test_an_error_in_the_middle_of_an_answer_is_shown(open_page: OpenPage) -> None:
    page = open_page("/playground").page
    page.get_by_label("Model", exact=True).fill("cuts")
    page.get_by_label("Message").fill("Hello")
    page.get_by_role("button", name="Send").click()
    page.locator(".turn-assistant").get_by_text("Hello").wait_for()
    page.get_by_role("alert").wait_for()
    page.get_by_role("tab", name="Response").click()
    assert page.locator(".exchange-text").inner_text().startswith("HTTP 200")


def test_what_is_done_while_an_answer_is_written_is_kept(open_page: OpenPage, provider: RecordingProvider) -> None:
    page = open_page("/playground").page
    page.get_by_label("Model", exact=True).fill("holds")
    page.get_by_label("Message").fill("First")
    page.get_by_role("button", name="Send").click()
    page.locator(".turn-assistant").get_by_text("Hello").wait_for()
    page.get_by_label("Message").fill("The next message")
    assert provider.loop is not None
    provider.loop.call_soon_threadsafe(provider.released.set)
    page.locator(".turn-assistant").get_by_text("Hello world").wait_for()
    page.get_by_text("First event").wait_for()
    assert page.get_by_label("Message").input_value() == "The next message"
    assert page.locator(".turn-user .turn-text").all_inner_texts() == ["First"]

    provider.loop.call_soon_threadsafe(provider.released.clear)
    page.get_by_role("button", name="Send").click()
    page.locator(".turn-assistant").nth(1).get_by_text("Hello").wait_for()
    page.get_by_role("button", name="New conversation").click()
    page.get_by_role("button", name="Stop").wait_for(state="detached")
    assert page.locator(".turn").count() == 0
    page.wait_for_timeout(300)
    assert page.locator(".turn").count() == 0, "the former answer does not come back"


def test_a_picture_is_copied_as_a_command_that_runs_also_without_a_clipboard(
    open_page: OpenPage, site: Site, tmp_path: Path
) -> None:
    watched = open_page(key=None, path="/sign-in")
    watched.context.add_init_script("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    page = watched.page
    page.goto("about:blank")
    page.goto(site.sign_in_link())
    page.get_by_role("link", name="Playground").click()
    page.get_by_label("Model", exact=True).fill(MODEL)
    page.get_by_label("Message").fill("What's this?\nEND\n$HOME `id` \\ \"")
    page.get_by_label("Add images").set_input_files(picture(tmp_path / "noise.png", size=300))
    page.get_by_alt_text("noise.png").wait_for()
    assert page.evaluate("navigator.clipboard === undefined")
    page.get_by_role("tab", name="curl").click()
    page.get_by_role("button", name="Copy").click()
    page.get_by_text("Copied").wait_for()
    page.get_by_label("System prompt").focus()
    page.keyboard.press("Control+V")
    command = page.get_by_label("System prompt").input_value()
    assert len(command) > 300_000
    command = command.replace("-N", "-sS --trace-ascii /dev/null -o /dev/stdout -w '%{http_code}' -N", 1)
    environment = {**os.environ, "RAGSVC_API_KEY": site.key}
    done = subprocess.run(
        ["bash"], input=command, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(("200", "400")), done.stdout[-300:]


def test_similarity_and_reranking_are_tables(open_page: OpenPage) -> None:
    page = open_page("/playground").page
    page.get_by_role("tab", name="Similarity").click()
    page.get_by_label("Texts").fill(
        "The lease ends in May.\nThe rental contract expires in spring.\nBananas are yellow."
    )
    page.get_by_role("button", name="Compare").click()
    page.get_by_text("3 vectors of 384 numbers").wait_for()
    rows = page.locator(".table tbody tr")
    values = [[float(cell) for cell in row.locator("td.table-number").all_inner_texts()] for row in rows.all()]
    assert [values[number][number] for number in range(3)] == [1.0, 1.0, 1.0]
    assert values[0][1] > values[0][2]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_is_inaccessible_or_wider_than_a_phone(open_page: OpenPage, theme: str) -> None:
    page = open_page(theme=theme).page
    for path in ("/playground", "/reference", "/reference?operation=V1RagSearchSearchPassages"):
        page.set_viewport_size({"width": 1280, "height": 800})
        page.goto(path)
        page.locator("textarea, .reference-list a").first.wait_for()
        assert_accessible(page)
        page.set_viewport_size({"width": 360, "height": 740})
        assert_fits_width(page)
        assert_accessible(page)


def test_the_reference_finds_describes_and_sends_a_route(open_page: OpenPage, site: Site) -> None:
    site.document("outline.pdf")
    page = open_page("/reference").page
    page.get_by_label("Search routes").fill("search passages")
    page.get_by_role("link", name="Search passages").click()
    page.get_by_role("heading", name="Search passages").wait_for()
    assert page.locator(".properties").first.inner_text().startswith("query")
    page.get_by_label("Body", exact=True).fill('{"query": "outline", "top_k": 3}')
    page.get_by_role("button", name="Send POST").click()
    page.get_by_text("HTTP 200").wait_for()
    assert '"chunk_id"' in page.locator(".reference-answer").inner_text()

    page.get_by_label("Search routes").fill("list models")
    page.get_by_role("link", name="List models /v1/models").click()
    page.get_by_role("button", name="Send GET").click()
    page.get_by_text("HTTP 200").wait_for()
    assert MODEL in page.locator(".reference-answer").inner_text()


def test_the_pages_speak_german(open_page: OpenPage) -> None:
    page = open_page("/playground", language="de-DE").page
    assert page.locator("h1").inner_text() == "Ausprobieren"
    page.get_by_role("tab", name="Neuordnung").click()
    page.get_by_label("Zu ordnende Texte").wait_for()
