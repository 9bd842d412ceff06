"""The share of text recognition: its queue, its limit, and the estimated time of a scan."""

from __future__ import annotations

import anyio
import msgspec
import pytest

from ragsvc.core.documents import Document, Stage
from ragsvc.core.ids import DocumentId
from ragsvc.core.ports.parsing import RecognitionTurn
from ragsvc.services.recognition_share import FEW_PAGES, JobPlace, RecognitionShare
from tests.support.processing_documents import parsing_document

pytestmark = pytest.mark.anyio

MANY = FEW_PAGES + 1


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def scan(number: int) -> Document:
    return parsing_document(number, pages_total=12, pages_done=2)


async def test_a_scan_gives_its_place_to_another_job_once() -> None:
    places = anyio.Semaphore(1)
    await places.acquire()
    place = JobPlace(places)
    share = RecognitionShare(1)
    assert share.turn(scan(1), 11, place, pages=FEW_PAGES) is RecognitionTurn.STAY
    assert places.value == 0
    assert share.turn(scan(1), 11, place, pages=MANY) is RecognitionTurn.MOVE
    assert places.value == 1
    place.leave()  # at the end of the job
    assert places.value == 1


async def test_scans_beyond_the_limit_wait_in_their_order() -> None:
    share = RecognitionShare(1)
    place = JobPlace(anyio.Semaphore(0))
    assert share.turn(scan(1), 11, place, pages=MANY) is RecognitionTurn.MOVE
    for number in (2, 3):
        assert share.turn(scan(number), 10 + number, place, pages=MANY) is RecognitionTurn.DEFER
        assert share.end(DocumentId(number), 10 + number, deferred=True)
    assert share.deferred == [12, 13]
    assert share.end(DocumentId(1), 11, deferred=False)
    assert share.deferred == [13]  # job 12 is next
    assert share.turn(scan(2), 12, place, pages=MANY) is RecognitionTurn.MOVE
    assert share.deferred == [13]
    assert share.end(DocumentId(2), 12, deferred=False)
    assert share.deferred == []
    share.end(DocumentId(3), 13, deferred=False)  # it failed before its pages were recognised
    assert not share.end(DocumentId(4), 14, deferred=False)


async def test_a_deleted_scan_does_not_hold_up_the_next() -> None:
    share = RecognitionShare(1)
    place = JobPlace(anyio.Semaphore(0))
    share.turn(scan(1), 11, place, pages=MANY)
    share.turn(scan(2), 12, place, pages=MANY)
    share.turn(scan(3), 13, place, pages=MANY)
    share.forget(DocumentId(2))
    share.end(DocumentId(1), 11, deferred=False)
    assert share.deferred == []


async def test_the_estimated_time_counts_the_pages_to_recognise() -> None:
    clock = Clock()
    share = RecognitionShare(1, clock=clock)
    document = scan(1)
    assert share.eta_s(document) is None
    share.turn(document, 11, JobPlace(anyio.Semaphore(0)), pages=10)
    clock.now += 8
    assert share.eta_s(document) is None  # no page is recognised yet
    assert share.eta_s(msgspec.structs.replace(document, pages_done=6)) == 12.0  # 2 s for each of 6 pages
    assert share.eta_s(msgspec.structs.replace(document, pages_done=12, stage=Stage.SEARCHABLE)) is None
