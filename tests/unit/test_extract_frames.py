"""Results travel in small batches and come together again."""

from __future__ import annotations

import io

import pytest

from ragsvc.core.documents import Page, Passage
from ragsvc.extract import child_protocol


def test_a_long_document_travels_in_small_frames_and_in_order():
    pages = [Page(number, f"page {number} " * 400) for number in range(1, 2001)]
    passages = [Passage(ordinal, 1, 0, 600, "x" * 600) for ordinal in range(5000)]
    packed = [
        child_protocol.pack(batch)
        for batch in (*child_protocol.page_batches(pages), *child_protocol.passage_batches(passages))
    ]
    assert max(map(len, packed)) < 200_000
    stream = io.BytesIO(b"".join(packed))
    got_pages, got_passages = [], []
    while (payload := child_protocol.read_payload(stream)) is not None:
        reply = child_protocol.decode_reply(payload)
        if isinstance(reply, child_protocol.PageBatch):
            got_pages += reply.pages
        if isinstance(reply, child_protocol.PassageBatch):
            got_passages += reply.passages
    assert got_pages == pages
    assert got_passages == passages


def test_a_frame_cut_short_or_absurdly_long_is_not_read():
    whole = child_protocol.pack(child_protocol.ParseProgress(1, 2))
    assert child_protocol.read_payload(io.BytesIO(whole[:-1])) is None
    assert child_protocol.read_payload(io.BytesIO(whole[:2])) is None
    with pytest.raises(ValueError, match="bytes"):
        child_protocol.read_payload(io.BytesIO(b"\xff\xff\xff\xff"))
