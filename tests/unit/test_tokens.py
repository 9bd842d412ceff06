"""Tokens are counted exactly, however they are counted; they tell which languages a model knows."""

# ruff: noqa: RUF001 - texts in several scripts

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from ragsvc.inference.factory import open_token_spans
from ragsvc.inference.tokens import TokenizerSpans, knows_words, load_tokenizer

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


def test_an_added_token_with_a_space_in_it_is_one_token(spans: TokenizerSpans, tmp_path):
    tokenizer = load_tokenizer(spans.__getstate__())
    tokenizer.add_tokens(["net sales"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert TokenizerSpans(tmp_path / "tokenizer.json").count(["net sales"] * 20) == [1] * 20


def test_what_is_remembered_is_bounded(spans: TokenizerSpans):
    texts = [" ".join(f"{number}w{more}" for more in range(3000)) for number in range(20)]
    counts = spans.count(texts)
    assert spans.count(texts) == counts
    assert counts[0] == by_tokenizer(load_tokenizer(spans.__getstate__()), texts[:1])[0]
    assert len(spans._known) <= 50_000
    spans.count(["long" * 1000] * 20)
    assert all(len(word) <= 24 for word in spans._known)


QUESTIONS = {
    "How did Apple's net sales change in Q3 2022?": True,
    "Wie groß war die Änderung der Umsätze für 2022?": True,
    "Quelle était la durée de l'événement à Zürich?": True,
    "Как изменилась чистая выручка Apple в 2022 году?": False,
    "Πόσο άλλαξαν οι καθαρές πωλήσεις;": False,
    "苹果公司的净销售额在2022年如何变化？": False,
    "애플의 순매출은 어떻게 변했습니까?": False,
    "What does выручка mean in the reports of Apple?": True,
    "2022: 3.5 %?": True,
    "": True,
}


@pytest.mark.parametrize(("text", "known"), QUESTIONS.items())
def test_an_english_vocabulary_knows_latin_words_only(spans: TokenizerSpans, text: str, known: bool):
    assert knows_words(load_tokenizer(spans.__getstate__()), text) is known


@pytest.mark.parametrize("text", QUESTIONS)
def test_a_vocabulary_of_the_words_knows_them(text: str):
    words = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Punctuation()])
    characters = {one for one in text if one >= "\u2e80" and not "\uac00" <= one <= "\ud7af"}
    vocabulary = {word for word, _ in words.pre_tokenize_str(text)} | characters | {f"##{one}" for one in characters}
    tokens = {token: number for number, token in enumerate(["[UNK]", *sorted(vocabulary - {"[UNK]"})])}
    tokenizer = Tokenizer(models.WordPiece(tokens, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = words
    assert knows_words(tokenizer, text)
