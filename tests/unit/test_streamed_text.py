"""Stop sequences, markers and events do not depend on how text or bytes are split."""

from hypothesis import example, given
from hypothesis import strategies as st

from ragsvc.core.answers.citations import MarkerScanner
from ragsvc.core.gateway.event_stream import EventAligner, event_data, split_events
from ragsvc.core.gateway.stop_sequences import StopScanner


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
def test_markers_are_the_same_for_any_slicing(cut):
    text, pieces = cut
    whole, parts = MarkerScanner(), MarkerScanner()
    expected = whole.feed(text) + whole.finish()
    found = [marker for piece in pieces for marker in parts.feed(piece)] + parts.finish()
    assert found == expected
    for marker in found:
        assert text[marker.start] == "["
        assert text[marker.end - 1] == "]"
        assert [int(one) for one in text[marker.start + 1 : marker.end - 1].replace(";", ",").split(",")] == list(
            marker.numbers
        )


def test_what_is_a_marker_and_what_is_not():
    def numbers(text):
        scanner = MarkerScanner()
        return [marker.numbers for marker in scanner.feed(text) + scanner.finish()]

    assert numbers("a [1][3] b [1, 3], [ 2 ]") == [(1,), (3,), (1, 3), (2,)]
    assert numbers("[a] [] [1](http://x) [1234] [1.2] [1-3] [" + "1," * 40 + "1]") == []


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


def test_an_events_data_may_have_several_lines():
    assert event_data(b"event: x\ndata: one\ndata:two\n\n") == b"one\ntwo"
    assert event_data(b": comment\n\n") is None
