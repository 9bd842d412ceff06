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

SOURCE_ROOT_KEY: Final = "source_root"
SOURCE_PATH_KEY: Final = "source_path"
"""Metadata keys that an ingest writes: the folder that was ingested, and the file's path relative to the folder."""
