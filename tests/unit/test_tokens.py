"""Tokens are counted exactly, however they are counted."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from ragsvc.inference.factory import open_token_spans
from ragsvc.inference.tokens import TokenizerSpans, load_tokenizer

WORDS = [
    "Revenue",
    "rose",
    "3.5%",
    "in",
    "2022.",
    "[SEP]",
    "é",
    "e\u0301",
    "第一句",
    "x" * 120,
    "\u00a0",
    "a\tb",
    "\x1c",
    "",
]


@pytest.fixture(scope="module")
def spans(tmp_path_factory):
    return open_token_spans(data_dir=tmp_path_factory.mktemp("data"))


def by_tokenizer(tokenizer: Tokenizer, texts: list[str]) -> list[int]:
    return [len(tokenizer.encode(text, add_special_tokens=False)) for text in texts]


@settings(max_examples=200, deadline=None)
@given(
    texts=st.lists(
        st.one_of(
            st.text(), st.lists(st.sampled_from(WORDS)).map(" ".join), st.lists(st.sampled_from(WORDS)).map("\n".join)
        ),
        min_size=1,
        max_size=40,
    )
)
def test_many_texts_count_as_each_does(spans: TokenizerSpans, texts: list[str]):
    expected = by_tokenizer(load_tokenizer(spans.__getstate__()), texts)
    assert spans.count(texts) == expected
    assert spans.count([*texts] * 16) == expected * 16


def test_words_that_are_tokenised_across_spaces_are_counted_whole(tmp_path):
    tokenizer = Tokenizer(models.WordLevel({"a b": 0, "?": 1}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(",", "removed")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert TokenizerSpans(tmp_path / "tokenizer.json").count(["a b,a b"] * 20) == [2] * 20


def test_what_is_remembered_is_bounded(spans: TokenizerSpans):
    texts = [" ".join(f"{number}w{more}" for more in range(3000)) for number in range(20)]
    counts = spans.count(texts)
    assert spans.count(texts) == counts
    assert counts[0] == by_tokenizer(load_tokenizer(spans.__getstate__()), texts[:1])[0]
    assert len(spans._known) <= 50_000
    spans.count(["long" * 1000] * 20)
    assert all(len(word) <= 24 for word in spans._known)
