"""The embedding model's tokenizer without the model: counts and character spans.

Owns nothing but a ``tokenizers.Tokenizer``; imports neither torch nor transformers, and pickles as its path, so that a
parser's child process can use it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from ragsvc.core.errors import EmbeddingFailed


class TokenizerSpans:
    """Port ``TokenSpans`` over a ``tokenizer.json``; loads at first use (about 20 ms), never truncates."""

    def __init__(self, tokenizer_file: Path) -> None:
        self._file = tokenizer_file
        self._loaded: Tokenizer | None = None

    def __getstate__(self) -> Path:
        return self._file

    def __setstate__(self, state: Path) -> None:
        self._file = state
        self._loaded = None

    def count(self, texts: Sequence[str]) -> list[int]:
        """Count tokens of each text, without special tokens, all cores used."""
        encodings = self._tokenizer().encode_batch_fast(list(texts), add_special_tokens=False)
        return [len(encoding) for encoding in encodings]

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
