"""Characters and hyphens: what is kept, what goes."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragsvc.extract.clean import LINE_HYPHEN, clean_line, is_garbled, join_hyphens, known_words


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("o\ufb03ce \ufb02oor", "office floor"),
        ("a\u00adb\u200bc", "abc"),
        ("1\u00a0000\u2003kg", "1 000 kg"),
        ("nul\x00l\x07", "null"),
        ("e\u0301", "é"),
        ("½ and x²", "½ and x²"),
        ("\ufeb3\ufefc\ufee1", "سلام"),
        ("pre\x02fix", f"pre{LINE_HYPHEN}fix"),
        ("lone \ud800 surrogate", "lone surrogate"),
        ("family 👨‍👩‍👧", "family 👨‍👩‍👧"),
    ],
)
def test_a_line_reads_as_a_person_would_type_it(raw, expected):
    assert clean_line(raw) == expected


@given(st.text(alphabet=st.characters(), max_size=60))
def test_any_line_becomes_storable_normalised_text_and_stays_so(raw):
    text = clean_line(raw)
    text.encode("utf-8")
    assert unicodedata.is_normalized("NFC", text)
    assert "\x00" not in text
    assert "\n" not in text.replace(LINE_HYPHEN, "") or "\n" in raw
    assert clean_line(text) == text


@pytest.mark.parametrize(
    ("broken", "known", "expected"),
    [
        ("exam|ple", "", "example"),
        ("Exam|ple", "example", "Example"),
        ("long|term", "long-term debt", "long-term"),
        ("data|driven", "data driven", "data-driven"),
        ("co|operate", "", "cooperate"),
        ("state-of-the|art", "", "state-of-the-art"),
        ("Fact|Checking", "", "Fact-Checking"),
        ("PRO|GRAM", "", "PROGRAM"),
        ("10|year", "", "10-year"),
        ("(infor|mation),", "", "(information),"),
        ("anti|dis|establish", "", "anti-disestablish"),
    ],
)
def test_a_hyphen_at_a_line_end_goes_only_where_the_word_is_one(broken, known, expected):
    text = broken.replace("|", LINE_HYPHEN)
    assert join_hyphens(f"of {text} x", known_words([known])) == f"of {expected} x"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("|ple of ex|am", "-ple of exam"),
        ("exam|\n ple\u00a0and exam| ple", "example\u00a0and example"),
        ("a| |b", "a--b"),
        ("an end|", "an end-"),
    ],
)
def test_a_broken_word_ends_at_white_space_and_begins_after_it(text, expected):
    assert join_hyphens(text.replace("|", LINE_HYPHEN), set()) == expected


def test_parts_of_broken_words_are_not_known_words():
    text = f"whole exam{LINE_HYPHEN}\n ple 3rd long-term x{LINE_HYPHEN}y after"
    assert known_words([text, "(Other)"]) == {"whole", "rd", "long-term", "after", "other"}


@given(st.lists(st.sampled_from(["word", "Ab", "-", LINE_HYPHEN, " ", "3", "\n", "é"]), max_size=20))
def test_no_line_hyphen_survives_and_no_letter_is_lost(parts):
    text = "".join(parts)
    joined = join_hyphens(text, {"word"})
    assert LINE_HYPHEN not in joined
    assert [c for c in joined if c.isalnum()] == [c for c in text if c.isalnum()]


def test_text_without_meaning_is_told_from_text():
    prose = "The quarterly report of the company shows that net sales grew in all regions. " * 4
    shifted = "".join(chr(ord(character) - 29) if character > " " else character for character in prose)
    assert not is_garbled(prose)
    assert is_garbled(shifted)
    assert is_garbled("\ue001\ue002\ue003 \ue004\ue005" * 10)
    assert is_garbled("abc", unmapped=100)
    assert is_garbled("\x10\x11\x12\x13\x14" * 10)
    assert not is_garbled("AAPL MSFT NVDA BRK.B 12,345 (1,234) XLK QQQ SPY TLT GLD VTI " * 3)
    assert not is_garbled("Привет, мир. Это обычный текст на русском языке, без подвоха.")
    assert not is_garbled("你好世界这是一段普通的中文文本没有任何问题可以正常阅读")
    assert not is_garbled("")


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("\ud835\udc48 is", "U is"),
        ("\U0001d5ea\U0001d5fc\U0001d5ff\U0001d5f8", "Work"),
        ("in \U0001d7d0\U0001d7ce", "in 20"),
        ("done \ud83d\udc4d", "done \U0001f44d"),
        ("the name \U00020bb7\u7530", "the name \U00020bb7\u7530"),
        ("lone \ud835 half \udc48", "lone half"),
    ],
)
def test_characters_beyond_16_bits_are_kept(raw, clean):
    assert clean_line(raw) == clean
