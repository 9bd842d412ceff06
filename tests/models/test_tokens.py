"""Tokens are counted exactly, however they are counted; they tell which languages a model knows."""

# ruff: noqa: RUF001 - texts in several scripts

import subprocess
import sys
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from ragsvc.inference.factory import open_token_spans
from ragsvc.inference.tokens import TokenizerSpans, Vocabulary, load_tokenizer

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
    assert spans.count(texts * 3) == counts * 3  # words that come again: 60,000 of them are too many to keep
    assert counts[0] == by_tokenizer(load_tokenizer(spans.__getstate__()), texts[:1])[0]
    assert len(spans._known) <= 50_000
    spans.count(["long" * 1000] * 20)
    assert all(len(word) <= 24 for word in spans._known)


QUESTIONS = {
    "How did Apple's net sales change in Q3 2022?": True,
    "Wie groß war die Änderung der Umsätze für 2022?": True,
    "Quelle e\u0301tait la dure\u0301e de l'e\u0301ve\u0301nement a\u0300 Zu\u0308rich?": True,
    "ＡＢＣ 株": True,
    "What does выручка mean in the reports of Apple?": True,
    "2022: 3.5 %?": True,
    "": True,
    "Как изменилась чистая выручка в 2022 году?": False,
    "Какои\u0306 была выручка?": False,
    "Πόσο άλλαξαν οι καθαρές πωλήσεις;": False,
    "苹果公司的净销售额在2022年如何变化？": False,
    "中国人口": False,
    "これはどのようなものですか": False,
    "애플의 순매출은 어떻게 변했습니까?": False,
    "शुद्ध बिक्री कैसे बदली?": False,
    "ยอดขายสุทธิเปลี่ยนแปลงอย่างไร": False,
}


@pytest.mark.parametrize(("text", "known"), QUESTIONS.items())
def test_an_english_vocabulary_has_words_of_latin_script_only(spans: TokenizerSpans, text: str, known: bool):
    vocabulary = Vocabulary(load_tokenizer(spans.__getstate__()))
    assert vocabulary.scripts == {"LATIN"}
    assert vocabulary.knows(text) is known


def word_pieces(tokens: Iterable[str]) -> Tokenizer:
    return Tokenizer(models.WordPiece({token: number for number, token in enumerate(["[UNK]", *tokens])}))


def letters_from(first: str, count: int) -> list[str]:
    return [one for one in map(chr, range(ord(first), ord(first) + 2 * count)) if one.isalpha()][:count]


def test_a_script_is_known_by_its_words_ideographs_by_their_number():
    cyrillic = letters_from("а", 30)
    pairs = [f"##{a}{b}" for a in cyrillic for b in cyrillic]
    assert Vocabulary(word_pieces(pairs)).knows("Как изменилась выручка?")
    assert not Vocabulary(word_pieces(pairs[:150])).knows("Как изменилась выручка?")
    assert not Vocabulary(word_pieces([*cyrillic, *letters_from("Ѡ", 300)])).knows("Как изменилась выручка?")
    assert Vocabulary(word_pieces(letters_from("一", 3000))).knows("中国人口")
    assert not Vocabulary(word_pieces(letters_from("一", 500))).knows("中国人口")


def test_a_vocabulary_of_bytes_is_read_as_the_text_it_stands_for():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    tokenizer.decoder = decoders.ByteLevel()
    cyrillic = letters_from("а", 30)
    words = [f"{a}{b}{c}" for a in cyrillic for b in cyrillic for c in cyrillic[:3]]
    trainer = trainers.BpeTrainer(
        vocab_size=1200, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(words, trainer)
    assert Vocabulary(tokenizer).knows("Как изменилась выручка?")
    assert not Vocabulary(tokenizer).knows("Πόσο άλλαξαν;")


def test_a_document_of_many_different_words_takes_no_more_memory_than_by_the_tokenizer(spans: TokenizerSpans):
    code = (
        "import random, resource, sys\n"
        "from pathlib import Path\n"
        "from ragsvc.inference.tokens import TokenizerSpans\n"
        "spans, chance = TokenizerSpans(Path(sys.argv[1])), random.Random(1)\n"
        "texts = [' '.join(f'{chance.random() * 1e6:.4f}' for _ in range(12)) for _ in range(20_000)]\n"
        "spans.count(texts[:20])\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "spans.count(texts)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    command = [sys.executable, "-c", code, str(spans.__getstate__())]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 120 << 10  # KiB; 47 MiB measured, 143 with all texts at once, 379 with all words
