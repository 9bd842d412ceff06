"""How recognised lines fill the gaps of a text layer."""

from __future__ import annotations

from ragsvc.extract.annotation_lines import PlacedText
from ragsvc.extract.layout import Line
from ragsvc.extract.page_merge import KeptLines, Reason, combine


def line(text, left, bottom, *, width=None, size=10.0):
    return Line(text, left, left + (width or 5 * len(text)), bottom, bottom + size, size)


def test_only_the_unknown_parts_of_a_recognised_row_are_added():
    kept = KeptLines(Reason.PICTURE, [line("Ghada", 50, 400), line("Ibrahim", 300, 400)], 0)
    parts = [
        line("Ghada", 50, 400),
        line("Ibrahim", 300, 400),
        line("Grand total of the year", 50, 300),
        line("Ibrahim", 300, 200),
        line("speaks here", 360, 200),
    ]
    rows = [
        line("Ghada Ibrahim", 50, 400, width=300),
        line("Grand total of the year", 50, 300),
        line("Ibrahim speaks here", 300, 200, width=120),
    ]
    merged, changed = combine(kept, rows, parts)
    assert changed
    assert [each.text for each in merged] == ["Ghada", "Ibrahim", "Grand total of the year", "Ibrahim speaks here"]
    covered = KeptLines(Reason.PICTURE, [line("Ibrahim", 300, 200)], 0)
    merged, _ = combine(covered, rows[1:], parts[2:])
    assert [each.text for each in merged] == ["Grand total of the year", "Ibrahim", "speaks here"]


def test_noise_in_a_picture_is_not_added():
    kept = KeptLines(Reason.PICTURE, [line("Two fields in spring", 50, 20)], 0)
    assert combine(kept, [line("oh h wsh", 80, 200)], [line("oh h wsh", 80, 200)]) == (kept.lines, False)


def test_glyphs_are_filled_from_the_picture_and_other_text_stays():
    lines = [
        line("Dear Mr. Lłoyd,", 50, 500),
        line("total: \ufffd\ufffd euros", 50, 480),
        line("due \ufffd\ufffd", 300, 480),
    ]
    fragments = [line("Dear Mr. Lloyd,", 50, 500), line("Tota1: 42 euros", 50, 480), line("due 7 May", 300, 480)]
    merged, changed = combine(KeptLines(Reason.GLYPHS, lines, 0), fragments, fragments)
    assert changed
    assert [each.text for each in merged] == ["Dear Mr. Lłoyd,", "total: 42 euros", "due 7 May"]


def test_a_text_layer_with_the_recognised_words_is_kept_and_another_is_replaced():
    recognised = [line("the yearly rent is due", 50, 500)]
    kept = KeptLines(Reason.GARBLED, [line("The yearly rent is due in \u0141", 50, 500)], 0)
    assert combine(kept, recognised, recognised) == (kept.lines, False)
    codes = KeptLines(Reason.GARBLED, [line("-!'#$!%&'( )' *+,(-'", 50, 500)], 0)
    assert combine(codes, recognised, recognised) == (recognised, True)


def test_values_are_placed_among_recognised_lines_unless_these_have_them():
    placed = [PlacedText("4385 euros", (150, 498, 220, 512)), PlacedText("Emden", (150, 398, 220, 412))]
    kept = KeptLines(Reason.PICTURE, [], 0, placed)
    recognised = [line("Income: 4385 eur0s", 50, 500), line("Berth: Emden", 50, 400)]
    merged, _ = combine(kept, recognised, recognised)
    assert [each.text for each in merged] == ["Income: 4385 eur0s 4385 euros", "Berth: Emden"]
