"""Stop sequences, markers and events do not depend on how text or bytes are split."""

import json

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ragsvc.core.answers.citations import CitedAnswer, find_markers
from ragsvc.core.gateway.event_stream import EventAligner, WholeEvents, encode_event, event_data, split_events
from ragsvc.core.gateway.stop_sequences import StopScanner
from ragsvc.core.retrieval.search_values import SearchHit
from tests.support.small_corpus import PAGES, passage

HITS = [SearchHit(passage(number, text), 0.5) for number, text in PAGES.items()]


@st.composite
def sliced(draw, text):
    """Pieces of a text, cut anywhere."""
    whole = draw(text)
    cuts = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    return whole, [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]


@given(sliced(st.text("abE N", max_size=30)), st.lists(st.text("abE N", min_size=1, max_size=4), max_size=4))
@example(("NEE", ["NE", "E"]), ["E", "NEE"])
def test_text_ends_at_the_stop_that_is_complete_first(cut, stops):
    text, pieces = cut
    scanner = StopScanner(stops)
    seen = "".join(scanner.feed(piece) for piece in pieces) + scanner.finish()
    found = [(text.index(stop) + len(stop), text.index(stop)) for stop in stops if stop in text]
    assert scanner.stopped == bool(found)
    assert seen == (text[: min(found)[1]] if found else text)


@given(sliced(st.text("[]123, ;(a\n", max_size=40)))
@example(("a [1, 2]", ["a [", "1,", " 2", "]"]))
def test_markers_are_the_same_for_any_slicing(cut):
    text, pieces = cut
    whole, parts = CitedAnswer(HITS), CitedAnswer(HITS)
    whole.feed(text)
    for piece in pieces:
        parts.feed(piece)
    assert parts.citations() == whole.citations()
    assert parts.unresolved == whole.unresolved
    for marker in find_markers(text):
        assert text[marker.start] == "["
        assert text[marker.end - 1] == "]"
        assert [int(one) for one in text[marker.start + 1 : marker.end - 1].replace(";", ",").split(",")] == list(
            marker.numbers
        )


def test_what_is_a_marker_and_what_is_not():
    def numbers(text):
        return [marker.numbers for marker in find_markers(text)]

    assert numbers("a [1][3] b [1, 3], [ 2 ]") == [(1,), (3,), (1, 3), (2,)]
    assert numbers("[a] [] [1](http://x) [1234] [1.2] [" + "1," * 40 + "1]") == []
    assert numbers("a [1-3], b【2】【1†source】 c [^1], [passage 2] [Passages 1 and 3], d [2–3]［1］") == [  # noqa: RUF001
        (1, 2, 3), (2,), (1,), (1,), (2,), (1, 3), (2, 3), (1,),
    ]  # fmt: skip
    assert numbers("[3-1] [0] [^1]: a note\n[1]: http://x\n[page 1] [1-900]") == [(1,)]


@pytest.mark.parametrize(
    "text",
    [
        "```python\nx = prices[1]\ny = f(a) [2]\n```\n",
        "- ~~~~ sh\n  echo [1]\n  ~~~\n  [2]\n",
        "``a ` [1]`` and `b [2]`",
        "<pre>\nx [1]\n</pre> <CODE class='x'>[2]</CODE>",
        "$v_{[1]}$ and $$\na [1] = b\n$$",
        r"\(x [1]\) \[ y [2] \] \begin{align} [1] \end{align}",
        "The probability lies in [0, 1]. It falls strictly within [1, 2].",
        "the matrix [[1, 2], [3, 4]] and [[1, 2], [3]]",
        "x = [1, 2], y ∈ [1, 3], a scale of [1-5], the vector [1, 2, 3]",
    ],
)
def test_code_mathematics_and_intervals_hold_no_markers(text):
    assert find_markers(text) == []
    assert [marker.numbers for marker in find_markers(f"{text}\n\nSo it is [2].")] in ([], [(2,)])


def test_prices_and_unclosed_code_hide_no_markers():
    text = "From $5 [1] to $6 [2], or US$7 [3]; a `tick [1].\n\nA ` later [2]. See [1], [2] and [3]."
    assert [marker.numbers[0] for marker in find_markers(text)] == [1, 2, 3, 1, 2, 1, 2, 3]


LINE = st.text("ab {}", max_size=6).map(lambda text: f"data: {text}\n")


@given(sliced(st.lists(LINE, max_size=5).map(lambda lines: "".join(line + "\n" for line in lines).encode())))
def test_events_are_whole_and_complete_for_any_slicing(cut):
    text, pieces = cut
    for ends in (b"\n", b"\r\n"):
        aligner = EventAligner()
        blocks = [aligner.feed(piece.replace(b"\n", ends)) for piece in pieces]
        assert b"".join(blocks) + aligner.tail == text
        assert all(block.endswith(b"\n\n") for block in blocks if block)
    assert b"".join(split_events(text)) == text


@given(sliced(st.text("ab\r\n", max_size=30).map(str.encode)))
def test_bytes_of_events_are_not_changed_for_any_slicing(cut):
    text, pieces = cut
    events = WholeEvents()
    blocks = [events.feed(piece) for piece in pieces]
    assert b"".join(blocks) + events.rest == text
    assert all(block.endswith((b"\n\n", b"\r\n\r\n", b"\r\r")) for block in blocks if block)
    if text.endswith((b"\n\n", b"\r\n\r\n", b"\r\r")):
        assert events.rest.strip(b"\r\n") == b""  # of more than one blank line, the last may be held
    assert (events.take_rest(), events.rest) == (text[len(b"".join(blocks)) :], b"")


def test_an_events_data_may_have_several_lines():
    assert event_data(b"event: x\ndata: one\ndata:two\n\n") == b"one\ntwo"
    assert event_data(b": comment\n\n") is None


@given(
    st.lists(
        st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from('\x0b\x1c\x85\u2028\u2029\\"'))), max_size=4
    )
)
@example(["Clause 4\u2028ends", "in\x85May", "\\\u2029"])
def test_readers_that_split_at_every_line_end_of_unicode_read_whole_events(texts):
    stream = b"".join(encode_event({"text": text}) for text in texts)
    lines = [line for line in httpx.Response(200, content=stream).iter_lines() if line]
    assert [json.loads(line.removeprefix("data: ")) for line in lines] == [{"text": text} for text in texts]
