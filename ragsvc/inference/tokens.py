"""The embedding model's tokenizer without the model: counts and character spans.

Owns nothing but a ``tokenizers.Tokenizer``; imports neither torch nor transformers, and pickles as its path, so that a
parser's child process can use it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from ragsvc.core.errors import EmbeddingFailed

_WORD = re.compile(r"[^\W\d_]+")
_LAST_LATIN = "\u024f"
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\uabff\uf900-\uffff\U00020000-\U0003ffff]")
_MOST_TOKENS_A_LETTER = 0.6
_MOST_UNKNOWN = 0.2
_UNKNOWN = ("[UNK]", "<unk>")
_MANY_TEXTS = 16
_REMEMBERED_WORDS = 50_000
_REMEMBERED_CHARACTERS = 24


class TokenizerSpans:
    """Port ``TokenSpans`` over a ``tokenizer.json``; loads at first use (about 20 ms), never truncates."""

    def __init__(self, tokenizer_file: Path) -> None:
        self._file = tokenizer_file
        self._loaded: Tokenizer | None = None
        self._known: dict[str, int] = {}

    def __getstate__(self) -> Path:
        return self._file

    def __setstate__(self, state: Path) -> None:
        self._file = state
        self._loaded = None
        self._known = {}

    def count(self, texts: Sequence[str]) -> list[int]:
        """Count tokens of each text, without special tokens.

        A document's texts are counted by their words, where the model takes words one by one: few of them are new, and
        adding up takes a quarter of the time.
        """
        if len(texts) < _MANY_TEXTS or not _takes_word_by_word(self._tokenizer()):
            return self._count(texts)
        split = [text.replace("\n", " ").split(" ") for text in texts]
        lengths = self._known  # threads share it, so it is replaced, never changed
        if new := list({word for words in split for word in words if word not in lengths}):
            lengths = lengths | dict(zip(new, self._count(new), strict=True))
            kept = {word: count for word, count in lengths.items() if len(word) <= _REMEMBERED_CHARACTERS}
            self._known = kept if len(kept) <= _REMEMBERED_WORDS else {}
        return [sum(map(lengths.__getitem__, words)) for words in split]

    def _count(self, texts: Sequence[str]) -> list[int]:
        return [len(one) for one in self._tokenizer().encode_batch_fast(list(texts), add_special_tokens=False)]

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Character spans ``[start, end)`` of the tokens of ``text``, in order, without special tokens."""
        return list(self._tokenizer().encode(text, add_special_tokens=False).offsets)

    def decode(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """The texts of token arrays, special tokens left out. Raises ``ValueError`` for an id that does not exist."""
        size = self._tokenizer().get_vocab_size()
        for array in ids:
            if array and not 0 <= max(array) < size:
                raise ValueError(f"{max(array)} is no token of this model (0 to {size - 1})")
        return list(self._tokenizer().decode_batch([list(array) for array in ids], skip_special_tokens=True))

    def _tokenizer(self) -> Tokenizer:
        if self._loaded is None:
            self._loaded = load_tokenizer(self._file)
        return self._loaded


def knows_words(tokenizer: Tokenizer, text: str) -> bool:
    """Whether the vocabulary has words of the text's script, not merely letters or nothing; Latin passes always.

    A vocabulary made of English takes Russian letter by letter (.97 tokens a letter; of German .37, of English .22),
    and has no token for most Chinese characters. Where words are written apart it is the tokens a letter that tell,
    elsewhere the characters without a token.
    """
    if text.isascii():
        return True
    words = _WORD.findall(text)
    foreign = [word for word in words if word[0] > _LAST_LATIN]
    if 2 * sum(map(len, foreign)) <= sum(map(len, words)):
        return True
    tokens = tokenizer.encode(" ".join(foreign), add_special_tokens=False).tokens
    most = sum(len(word) * (1.0 if _UNSPACED.match(word) else _MOST_TOKENS_A_LETTER) for word in foreign)
    return len(tokens) <= most and sum(map(tokens.count, _UNKNOWN)) < _MOST_UNKNOWN * len(tokens)


def _takes_word_by_word(tokenizer: Tokenizer) -> bool:
    """Whether nothing a space divides becomes one token, nor depends on what is beyond the space."""
    return (
        isinstance(tokenizer.normalizer, BertNormalizer)
        and isinstance(tokenizer.pre_tokenizer, BertPreTokenizer)
        and not any({" ", "\n"} & set(added.content) for added in tokenizer.get_added_tokens_decoder().values())
    )


def load_tokenizer(tokenizer_file: Path, *, max_tokens: int | None = None) -> Tokenizer:
    """Load a tokenizer without padding that truncates to ``max_tokens`` (special tokens included) or not at all.

    Raises:
        EmbeddingFailed: the file is missing or unreadable.
    """
    try:
        tokenizer = Tokenizer.from_file(str(tokenizer_file))
    except Exception as error:  # tokenizers raises plain Exception
        raise EmbeddingFailed(f"cannot load the tokenizer {tokenizer_file}: {error}") from error
    tokenizer.no_padding()
    if max_tokens is None:
        tokenizer.no_truncation()
    else:
        tokenizer.enable_truncation(max_tokens)
    return tokenizer
