"""Defaults and limits that several parts share. Each stands here once."""

from __future__ import annotations

from typing import Final

DEFAULT_TOP_K: Final = 10
"""Passages of a search, and of a RAG prompt, where the request names no number."""

MAX_TOP_K: Final = 100

MAX_COLLECTION_NAME_LENGTH: Final = 512
"""Characters of a collection's name, wherever it is named."""

MAX_FILENAME_LENGTH: Final = 512

DEFAULT_REPLY_TOKENS: Final = 1024
"""Tokens reserved for a reply, and the most a local model writes, where the request sets no limit."""

DEFAULT_MAX_BODY_BYTES: Final = 32_000_000
"""Largest request body other than a document."""

DEFAULT_MAX_DOCUMENT_BYTES: Final = 50_000_000

DEFAULT_ENCRYPTED_MEMORY_BYTES: Final = 512_000_000
"""Sealed request bodies held in memory at the same time."""

MAX_MODEL_NAME_LENGTH: Final = 256
"""Characters of a model's name, in requests, settings and the model lists of keys."""

BYTES_PER_TOKEN: Final = 3
"""Used to estimate tokens from lengths, where no tokenizer counts; rather too many tokens than too few."""
