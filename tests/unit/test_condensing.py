"""The condensed text has fewer tokens and all content words, and is never empty."""

# ruff: noqa: RUF001 - texts in several scripts

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from ragsvc.core.text.condensing import condense
from ragsvc.core.text.stop_words import CONDENSED_WORDS
from ragsvc.inference.model_files import BUILT_IN, resolve_folder

PIECES = st.sampled_from(
    ["The ", "revenue ", "of ", "$ 54,671 ", "(2.5 %) ", "U.S. ", "company’s ", "e-mail ", ". ", ". . . ", "\n",
     "\n\n", "—", "_", "is not ", "हिन्दी ", "ภาษาไทย ", "第一句。", "«Выручка» ", "naïve ", "co2 ", "😀 ", "the"]
)  # fmt: skip
TEXTS = st.one_of(st.lists(PIECES, max_size=40).map("".join), st.text(max_size=120))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    found = Tokenizer.from_file(str(resolve_folder(BUILT_IN) / "tokenizer.json"))
    found.no_truncation()
    return found


@settings(max_examples=300, deadline=None)
@given(text=TEXTS)
def test_it_is_never_longer_and_never_changes_again(tokenizer: Tokenizer, text: str) -> None:
    condensed = condense(text)
    assert len(tokenizer.encode(condensed).ids) <= len(tokenizer.encode(text).ids)
    assert condense(condensed) == condensed
    assert bool(condensed) == bool(text)


@settings(max_examples=200, deadline=None)
@given(text=TEXTS)
def test_words_stay_whole_and_in_order(text: str) -> None:
    words = [word for word in re.findall(r"[A-Za-z0-9]+", condense(text)) if word.lower() not in CONDENSED_WORDS]
    assert words == [word for word in re.findall(r"[A-Za-z0-9]+", text) if word.lower() not in CONDENSED_WORDS]


@pytest.mark.parametrize(
    ("text", "condensed"),
    [
        ("It is not the case.", "not case."),
        ("हिन्दी में लिखा है।", "हिन्दी में लिखा है।"),
        ("第一句。第二句！", "第一句 第二句"),
        ("Title: Part (1)\n\nThe body, of it. And so.", "Title Part 1 body . so."),
        ("Contents . . . . . . 12", "Contents . 12"),
        ("the", "the"),
        ("?!", "?!"),
        ("", ""),
    ],
)
def test_examples(text: str, condensed: str) -> None:
    assert condense(text) == condensed
