"""Pictures attached to a message: with text they are documents, without text they are left out."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image, ImageDraw

from tests.integration.test_document_formats import documents, mail, settled

FIXTURES = Path(__file__).parents[2] / "fixtures/formats"


def logo() -> bytes:
    image = Image.new("RGB", (240, 80), "white")
    draw = ImageDraw.Draw(image)
    draw.ellipse((20, 10, 80, 70), fill="navy")
    draw.polygon([(100, 70), (140, 10), (180, 70)], fill="orange")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_an_attached_picture_without_text_is_left_out_and_one_with_text_is_a_document(tenant):
    words = (FIXTURES / "words.png").read_bytes()
    message = mail(("logo.png", logo()), ("words.png", words), subject="Regards")
    parent = tenant.upload(message, filename="mail.eml", kind="message/rfc822").json()
    sent, kept = settled(tenant, 2)
    assert (kept["filename"], kept["status"], kept["parent_id"]) == ("words.png", "ready", parent["id"])
    assert [problem["message"] for problem in sent["problems"]] == [
        "1 attached file was left out: 'logo.png' (a picture without text)."
    ]


def test_an_uploaded_picture_without_text_fails(tenant):
    tenant.upload(logo(), filename="logo.png", kind="image/png")
    (found,) = documents(tenant)
    assert (found["status"], found["parent_id"]) == ("failed", None)
