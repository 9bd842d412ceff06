"""Lines into reading order and paragraphs, on geometry alone."""

from __future__ import annotations

from ragsvc.extract.columns import order_columns
from ragsvc.extract.layout import Line, move_headers_and_footers, page_text

WIDTH = 5.0  # points a character


def line(text, x, y, size=10.0, **more):
    return Line(text, x, x + WIDTH * len(text), y - size, y, size, **more)


def column(texts, x, top=700.0, leading=12.0):
    return [line(text, x, top - leading * index) for index, text in enumerate(texts)]


PROSE = [
    "The committee met on Tuesday and looked at the figures",
    "of the last quarter, which had been worse than what was",
    "hoped for by its members, and then it was decided that",
    "costs come first.",
]


def test_a_paragraph_flows_and_the_next_one_stands_apart():
    lines = [*column(PROSE, 72), *column(PROSE, 72, top=700 - 4 * 12 - 14)]
    paragraph = " ".join(PROSE)
    assert page_text(lines) == f"{paragraph}\n\n{paragraph}"


def test_a_short_line_ends_its_paragraph():
    lines = column([*PROSE, *PROSE], 72)
    assert page_text(lines) == "\n".join([" ".join(PROSE)] * 2)


def test_rows_keep_their_figures_and_their_lines():
    rows = ["Net sales $ 81,797 $ 82,959", "Cost of sales 45,384 47,074"]
    lines = [Line(text, 72, 500, 690 - 12 * index, 700 - 12 * index, 10, row=True) for index, text in enumerate(rows)]
    assert page_text(lines) == "\n".join(rows)


def test_headings_and_lists_stay_lines():
    lines = [
        line("1 Introduction to the matter of things", 72, 730, 14),
        *column(PROSE[:3], 72),
        line("- a first point that is made in this list of points", 72, 660),
        line("- a second point that is made in this list of points", 72, 648),
    ]
    text = page_text(lines)
    assert text.startswith("1 Introduction to the matter of things\n\nThe committee")
    assert "\n- a first point that is made in this list of points\n- a second" in text


def test_columns_written_row_by_row_are_read_one_after_the_other():
    left = column([f"left column line {n} of some prose text" for n in range(10)], 72)
    right = column([f"right column line {n} of more prose text" for n in range(10)], 320)
    title = line("A title across the whole page that is long enough to span both of the columns", 90, 740)
    page = [title, *(fragment for pair in zip(left, right, strict=True) for fragment in pair)]
    ordered = order_columns(page)
    assert [fragment.text for fragment in ordered] == [fragment.text for fragment in [title, *left, *right]]


def test_columns_written_one_after_the_other_stay():
    left = column([f"left column line {n} of some prose text" for n in range(10)], 72)
    right = column([f"right column line {n} of more prose text" for n in range(10)], 320)
    assert order_columns([*right, *left]) == [*right, *left]


def test_a_table_is_no_pair_of_columns():
    labels = column([f"Operating expenses of segment {n}" for n in range(10)], 72)
    figures = column([f"$ {n},234 $ {n},567 $ (1,{n}00)" for n in range(10)], 320)
    page = [fragment for pair in zip(labels, figures, strict=True) for fragment in pair]
    assert order_columns(page) == page


def test_a_footer_written_first_is_read_last():
    footer = line("Proceedings of the 61st meeting", 200, 40)
    header = line("Annual report", 200, 800)
    body = column(PROSE, 72)
    assert [x.text for x in move_headers_and_footers([footer, *body, header])] == [header.text, *PROSE, footer.text]
