"""The embedding model's tokenizer without the model: token counts and character spans.

It wraps a ``tokenizers.Tokenizer``, imports neither torch nor transformers, and is pickled as its path, so that a
parser's child process can use it.
"""

from __future__ import annotations

import threading
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Final

from tokenizers import Encoding, Tokenizer
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from ragsvc.core.errors import EmbeddingFailed

_SEND_TEXTS = "Send texts (LangChain: check_embedding_ctx_length=False)"
_MANY_TEXTS = 16
_REMEMBERED_WORDS = 50_000
_REMEMBERED_CHARACTERS = 24
_COUNTED_AT_ONCE = 4096
_COUNTED_CHARACTERS = 200_000
_JUDGED_CHARACTERS = 1000
_WORDS_OF_A_KNOWN_SCRIPT = 200
_IDEOGRAPHS_OF_A_KNOWN_SCRIPT = 2000


_shared: Final = dict[Path, Tokenizer]()
_sharing: Final = threading.Lock()


class TokenizerSpans:
    """Port ``TokenSpans`` over a ``tokenizer.json``. Loads it at first use (about 20 ms) and never truncates."""

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

        Texts of a document are counted as sums of cached word counts if the tokenizer handles words independently and
        at most half of the words are new. Splitting reports into passages took two fifths of the time with the cache.
        """
        if len(texts) < _MANY_TEXTS or not _takes_word_by_word(self._tokenizer()):
            return self._count(texts)
        split = [text.replace("\n", " ").split(" ") for text in texts]
        lengths = self._known  # shared by threads: the dictionary is replaced, never modified
        if new := list({word for words in split for word in words if word not in lengths}):
            if 2 * len(new) > sum(map(len, split)):
                return self._count(texts)
            lengths = lengths | dict(zip(new, self._count(new), strict=True))
            kept = {word: count for word, count in lengths.items() if len(word) <= _REMEMBERED_CHARACTERS}
            self._known = kept if len(kept) <= _REMEMBERED_WORDS else {}
        return [sum(map(lengths.__getitem__, words)) for words in split]

    def _count(self, texts: Sequence[str]) -> list[int]:
        """Count with the tokenizer in parts, because an encoding takes two hundred times the memory of its text."""
        tokenizer, counts = self._tokenizer(), [0] * len(texts)
        for part in _parts(texts):
            pieces = [piece for _, piece in part]
            encodings = tokenizer.encode_batch_fast(pieces, add_special_tokens=False)
            for (index, _), encoding in zip(part, encodings, strict=True):
                counts[index] += len(encoding)
        return counts

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Character spans ``[start, end)`` of the tokens of ``text``, in order, without special tokens."""
        return list(self._tokenizer().encode(text, add_special_tokens=False).offsets)

    def decode(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """The texts of token arrays, without special tokens.

        Arrays of another tokenizer are recognised by their texts: these have other tokens in this one. Most sentences
        have some, because the frequent words of others are unused or single characters here.

        Raises:
            ValueError: an array that this tokenizer makes of no text.
        """
        tokenizer = self._tokenizer()
        size = tokenizer.get_vocab_size()
        for array in ids:
            if array and not 0 <= max(array) < size:
                raise ValueError(f"{max(array)} is no token of this model (0 to {size - 1}). {_SEND_TEXTS}")
        special = {identifier for identifier, token in tokenizer.get_added_tokens_decoder().items() if token.special}
        arrays = [[identifier for identifier in array if identifier not in special] for array in ids]
        texts = list(tokenizer.decode_batch(arrays, skip_special_tokens=True))
        encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        if any(encoding.ids != array for encoding, array in zip(encodings, arrays, strict=True)):
            raise ValueError(f"The tokens are those of another model's tokenizer. {_SEND_TEXTS}")
        return texts

    def _tokenizer(self) -> Tokenizer:
        if self._loaded is None:
            self._loaded = shared_tokenizer(self._file)
        return self._loaded


class Vocabulary:
    """The scripts in which a tokenizer has words, determined at first use (40 ms for 30,000 tokens).

    The vocabulary of an English model has 28,000 tokens of Latin letters, single letters of other alphabets, eight
    short pieces of Russian and 488 ideographs. Text in those scripts is split into letters, and its vector carries
    little meaning.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    @cached_property
    def scripts(self) -> frozenset[str]:
        """Scripts, named by the first word of the Unicode names of their letters: ``LATIN``, ``CYRILLIC``, ``CJK``."""
        decoder = self._tokenizer.decoder
        words, ideographs = Counter[str](), 0
        for token in self._tokenizer.get_vocab():
            text = decoder.decode([token]) if decoder else token
            letters = [character for character in text if character.isalpha()]
            script = _script_of(letters[0]) if letters else ""
            if script == "CJK":
                ideographs += 1
            elif len(letters) > 1:
                words[script] += 1
        known = {script for script, count in words.items() if count >= _WORDS_OF_A_KNOWN_SCRIPT}
        return frozenset(known | ({"CJK"} if ideographs >= _IDEOGRAPHS_OF_A_KNOWN_SCRIPT else set()))

    def knows(self, text: str) -> bool:
        """Whether at least half of the text's letters belong to scripts in which the vocabulary has words."""
        if text.isascii():
            return True
        composed = unicodedata.normalize("NFKC", text[:_JUDGED_CHARACTERS])
        letters = Counter(_script_of(character) for character in composed if character.isalpha())
        return 2 * sum(letters[script] for script in self.scripts) >= letters.total()


def _parts(texts: Sequence[str]) -> Iterator[list[tuple[int, str]]]:
    """Texts with their positions, in groups of bounded size; longer texts are divided, before spaces if possible."""
    part: list[tuple[int, str]] = []
    characters = 0
    for index, text in enumerate(texts):
        begin = 0
        while True:
            end = begin + _COUNTED_CHARACTERS
            if end < len(text):
                space = text.rfind(" ", begin + _COUNTED_CHARACTERS // 2, end)
                end = space if space > 0 else end
            piece = text[begin:end]
            if part and (len(part) >= _COUNTED_AT_ONCE or characters + len(piece) > _COUNTED_CHARACTERS):
                yield part
                part, characters = [], 0
            part.append((index, piece))
            characters += len(piece)
            begin = end
            if begin >= len(text):
                break
    if part:
        yield part


def _script_of(letter: str) -> str:
    return unicodedata.name(letter, "").split(" ", 1)[0]


def _takes_word_by_word(tokenizer: Tokenizer) -> bool:
    """Whether tokens never cross a space and never depend on the text beyond the nearest spaces."""
    return (
        isinstance(tokenizer.normalizer, BertNormalizer)
        and isinstance(tokenizer.pre_tokenizer, BertPreTokenizer)
        and not any({" ", "\n"} & set(added.content) for added in tokenizer.get_added_tokens_decoder().values())
    )


def shared_tokenizer(tokenizer_file: Path) -> Tokenizer:
    """The tokenizer of a file without padding and truncation, which this process holds once: it takes 8 MB.

    Raises:
        EmbeddingFailed: as for ``load_tokenizer``.
    """
    with _sharing:
        found = _shared.get(tokenizer_file)
        if found is None:
            found = _shared[tokenizer_file] = load_tokenizer(tokenizer_file)
        return found


def truncated_ids(encoding: Encoding, max_tokens: int) -> list[int]:
    """The ids of an encoding as its tokenizer makes them if it truncates to ``max_tokens``.

    ``encoding`` has special tokens. Truncation counts them, but shortens the text: the tokens between them are taken
    apart from them, shortened and completed again.
    """
    if len(encoding) <= max_tokens:
        return list(encoding.ids)
    special = encoding.special_tokens_mask
    ids, head = encoding.ids, next(at for at, flag in enumerate(special) if not flag)
    tail = next(at for at, flag in enumerate(reversed(special)) if not flag)
    text = ids[head : len(ids) - tail][: max_tokens - head - tail]
    return [*ids[:head], *text, *ids[len(ids) - tail :]]


def load_tokenizer(tokenizer_file: Path, *, max_tokens: int | None = None) -> Tokenizer:
    """Load a tokenizer without padding. It truncates to ``max_tokens``, special tokens included, if that is given.

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
