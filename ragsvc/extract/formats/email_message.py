"""Reads e-mail messages (EML): subject, sender, recipients and date, then the body as a reader sees it.

Of alternative bodies, HTML is read, because it has the tables. Attached files are documents of their own; pictures that
the body shows inline are not.
"""

from __future__ import annotations

import email
import email.policy
import re
from collections.abc import Collection, Iterator
from email.header import decode_header, make_header
from email.message import Message
from pathlib import Path
from urllib.parse import unquote

from ragsvc.core.documents import AttachedFile, Extraction, ProblemCode
from ragsvc.core.ports.parsing import ExtractionLimits
from ragsvc.extract.attached_files import AttachmentCollector
from ragsvc.extract.formats.html_text import HtmlWalker, read_tree
from ragsvc.extract.formats.page_builder import VIRTUAL_PAGE_CHARACTERS, PageBuilder
from ragsvc.extract.formats.web_page import decode_html
from ragsvc.extract.pdf_pages import PageReports
from ragsvc.extract.plain_text import decode, split_virtual_pages

_SHOWN_FIELDS = ("From", "To", "Cc", "Date")
_SHOWN_PICTURE = re.compile(r"\bcid:([^\s\"'<>)]{1,200})", re.IGNORECASE)
_MAX_PARTS = 1_000
_MAX_DEPTH = 20
_READABLE_BODIES = ("text/html", "text/plain")


def read_email(path: Path, *, limits: ExtractionLimits, reports: PageReports) -> Extraction:
    """Read a message. Raises ``ExtractionFailed`` if it has neither text nor a subject."""
    # the newer policies parse structured fields, and fail on many malformed ones; these are decoded here instead
    message = email.message_from_bytes(path.read_bytes(), policy=email.policy.compat32)
    builder = PageBuilder(limits, split_at=VIRTUAL_PAGE_CHARACTERS * 6 // 5)
    builder.page()
    subject = field_text(message, "Subject")
    builder.block(subject, level=1)
    fields = [(name, field_text(message, name)) for name in _SHOWN_FIELDS]
    for index, (name, text) in enumerate((name, text) for name, text in fields if text):
        builder.block(f"{name}: {text}", joined=index > 0)
    collector = AttachmentCollector(limits)
    shown: set[str] = set()
    others: list[Message] = []
    for part, is_body in _parts(message):
        if is_body:
            shown |= _add_body(builder, part)
        else:
            others.append(part)
    for part in others:
        _collect(collector, part, shown)
    extraction = builder.finish(
        title=subject or None, nothing="The message contains no text.", on_progress=reports.on_progress
    )
    return collector.added_to(extraction)


def field_text(message: Message, name: str) -> str:
    """The text of a header field with its encoded words decoded (RFC 2047), and raw bytes as UTF-8."""
    raw_value = next((value for key, value in message.raw_items() if key.lower() == name.lower()), "")
    value = str(raw_value)
    try:
        text = value if not value.isascii() else str(make_header(decode_header(value)))
    except (ValueError, LookupError, UnicodeError):
        text = value
    raw = text.encode("utf-8", "surrogateescape")
    return " ".join(decode(raw).text.split()) if raw else ""


def _parts(message: Message, depth: int = 0) -> Iterator[tuple[Message, bool]]:
    """The leaves of a message with whether they are its body, in order."""
    if depth > _MAX_DEPTH:
        return
    kind = message.get_content_type()
    if kind == "multipart/alternative":
        best = _best(message)
        if best is not None:
            yield from _parts(best, depth + 1)
    elif message.is_multipart() and kind != "message/rfc822":
        inside = message.get_payload()
        for part in inside[:_MAX_PARTS] if isinstance(inside, list) else ():
            if isinstance(part, Message):
                yield from _parts(part, depth + 1)
    else:
        attached = message.get_content_disposition() == "attachment" or (depth > 0 and bool(message.get_filename()))
        yield message, kind in _READABLE_BODIES and not attached


def _best(message: Message) -> Message | None:
    """The alternative to read: the last with HTML, else with text (RFC 2046 §5.1.4: the last is the richest)."""
    inside = message.get_payload()
    choices = [part for part in inside if isinstance(part, Message)] if isinstance(inside, list) else []
    for kind in _READABLE_BODIES:
        for part in reversed(choices):
            if any(leaf.get_content_type() == kind for leaf in part.walk()):
                return part
    return choices[-1] if choices else None


def _add_body(builder: PageBuilder, part: Message) -> set[str]:
    """Add the text of a body; returns the content ids of the pictures that it shows."""
    data = part.get_payload(decode=True)
    if not isinstance(data, bytes) or not data.strip():
        return set()
    charset = part.get_content_charset()
    if part.get_content_type() == "text/html":
        decoded = decode_html(data, charset=charset)
        root = read_tree(decoded.text)
        if root is not None:
            HtmlWalker(builder, root).add(root)
    else:
        decoded = decode(data, charset=charset)
        for page in split_virtual_pages(decoded.text.replace("\r\n", "\n").replace("\f", "\n")):
            for paragraph in page.split("\n\n"):
                builder.block(paragraph, indented=True)
    if decoded.damaged:
        builder.problem(ProblemCode.BAD_CHARACTERS)
    return {unquote(found) for found in _SHOWN_PICTURE.findall(decoded.text)}


def _collect(collector: AttachmentCollector, part: Message, shown: Collection[str]) -> None:
    """Keep an attached file, but no picture that the body shows; ``shown`` are the content ids of these."""
    kind = part.get_content_type()
    content_id = str(part.get("Content-ID") or "").strip("<> \t")
    if (
        kind.startswith("image/")
        and content_id
        and (part.get_content_disposition() != "attachment" or content_id in shown)
    ):
        return
    name = _file_name(part)
    if kind == "message/rfc822":
        inside = part.get_payload()
        message = inside[0] if isinstance(inside, list) and inside else None
        if isinstance(message, Message):
            subject = field_text(message, "Subject")
            data = message.as_bytes(policy=email.policy.compat32)
            collector.add(AttachedFile(name or f"{subject or 'message'}.eml", data))
        return
    content = part.get_payload(decode=True)
    if isinstance(content, bytes) and content and name:
        collector.add(AttachedFile(name, content))


def _file_name(part: Message) -> str:
    """The file name of a part, with encoded words decoded, which many programs send although RFC 2231 forbids it."""
    name = part.get_filename() or ""
    try:
        return " ".join(str(make_header(decode_header(name))).split())
    except (ValueError, LookupError, UnicodeError):
        return name
