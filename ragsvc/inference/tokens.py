"""The embedding model's tokenizer without the model: counts and character spans.

Owns nothing but a ``tokenizers.Tokenizer``; imports neither torch nor transformers, and pickles as its path, so that a
parser's child process can use it.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from ragsvc.core.errors import EmbeddingFailed

_MANY_TEXTS = 16
_REMEMBERED_WORDS = 50_000
_REMEMBERED_CHARACTERS = 24
_COUNTED_AT_ONCE = 4096
_JUDGED_CHARACTERS = 1000
_WORDS_OF_A_KNOWN_SCRIPT = 200
_IDEOGRAPHS_OF_A_KNOWN_SCRIPT = 2000


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

        A document's texts are counted by their words, where the model takes words one by one and half of them are new
        at most: reports were cut into passages in two fifths of the time.
        """
        if len(texts) < _MANY_TEXTS or not _takes_word_by_word(self._tokenizer()):
            return self._count(texts)
        split = [text.replace("\n", " ").split(" ") for text in texts]
        lengths = self._known  # threads share it, so it is replaced, never changed
        if new := list({word for words in split for word in words if word not in lengths}):
            if 2 * len(new) > sum(map(len, split)):
                return self._count(texts)
            lengths = lengths | dict(zip(new, self._count(new), strict=True))
            kept = {word: count for word, count in lengths.items() if len(word) <= _REMEMBERED_CHARACTERS}
            self._known = kept if len(kept) <= _REMEMBERED_WORDS else {}
        return [sum(map(lengths.__getitem__, words)) for words in split]

    def _count(self, texts: Sequence[str]) -> list[int]:
        """Count by the tokenizer, part by part: what it makes of a text takes fifty times the text's memory."""
        tokenizer, counts = self._tokenizer(), list[int]()
        for start in range(0, len(texts), _COUNTED_AT_ONCE):
            part = list(texts[start : start + _COUNTED_AT_ONCE])
            counts += [len(one) for one in tokenizer.encode_batch_fast(part, add_special_tokens=False)]
        return counts

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


class Vocabulary:
    """Of which scripts a tokenizer has words; it is looked through when first asked (40 ms for 30,000 tokens).

    A vocabulary made of English has 28,000 tokens of Latin letters, single letters of other alphabets, eight short
    pieces of Russian and 488 ideographs: text in those scripts is spelled out, and its vector tells little.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    @cached_property
    def scripts(self) -> frozenset[str]:
        """Scripts by the first word of their letters' Unicode names: ``LATIN``, ``CYRILLIC``, ``CJK``."""
        decoder = self._tokenizer.decoder
        words, ideographs = Counter[str](), 0
        for token in self._tokenizer.get_vocab():
            letters = [one for one in (decoder.decode([token]) if decoder else token) if one.isalpha()]
            script = _script_of(letters[0]) if letters else ""
            if script == "CJK":
                ideographs += 1
            elif len(letters) > 1:
                words[script] += 1
        known = {script for script, count in words.items() if count >= _WORDS_OF_A_KNOWN_SCRIPT}
        return frozenset(known | ({"CJK"} if ideographs >= _IDEOGRAPHS_OF_A_KNOWN_SCRIPT else set()))

    def knows(self, text: str) -> bool:
        """Whether at least half of the text's letters are of scripts that the vocabulary has words of."""
        if text.isascii():
            return True
        composed = unicodedata.normalize("NFKC", text[:_JUDGED_CHARACTERS])
        letters = Counter(_script_of(one) for one in composed if one.isalpha())
        return 2 * sum(letters[script] for script in self.scripts) >= letters.total()


def _script_of(letter: str) -> str:
    return unicodedata.name(letter, "").split(" ", 1)[0]


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
        raise EmbeddingFailed(f"The tokenizer {tokenizer_file} cannot be loaded: {error}.") from error
    tokenizer.no_padding()
    if max_tokens is None:
        tokenizer.no_truncation()
    else:
        tokenizer.enable_truncation(max_tokens)
    return tokenizer
