"""Defaults and limits that several modules share."""

from __future__ import annotations

from typing import Final

DEFAULT_TOP_K: Final = 10
"""Passages returned by a search, and given to a chat model, where the request sets no ``top_k``."""

MAX_TOP_K: Final = 100

DEFAULT_RERANK_BUDGET_MS: Final = 500
"""Time in which a cross-encoder may order the passages of a search."""

MAX_QUERY_LENGTH: Final = 20_000
"""Maximum length of a question or query in characters."""

MAX_DOCUMENT_IDS: Final = 1000
"""Documents that a search can be limited to."""

DEFAULT_COLLECTION: Final = "default"

MAX_COLLECTION_NAME_LENGTH: Final = 512
"""Maximum length of a collection's name in characters."""

MAX_FILENAME_LENGTH: Final = 512

LOCAL_MODEL: Final = "local/chat-model"
"""Name of the built-in answerer, which quotes sentences of the documents."""

DEFAULT_FILE_TOKENS: Final = 8192
"""Tokens of the files of a chat that are put into its prompt beyond the best passages."""

DEFAULT_REPLY_TOKENS: Final = 1024
"""Tokens reserved for a reply, and the longest reply of a local model, where the request sets no limit."""

DEFAULT_MAX_BODY_BYTES: Final = 32_000_000
"""Maximum size of a request body that is not a document."""

DEFAULT_MAX_DOCUMENT_BYTES: Final = 50_000_000

DEFAULT_MAX_FILE_BYTES: Final = 512 << 20
"""Largest file of ``/v1/files``, as OpenAI has it; a document can have fewer bytes."""

MAX_UPLOAD_PART_BYTES: Final = 64 << 20
"""Largest part of an upload in parts: the parts that OpenAI's SDKs send."""

DEFAULT_PROXY_BODY_BYTES: Final = 64 << 20
"""Maximum size of a request body that ``ragsvc proxy`` encrypts; larger than a document."""

DEFAULT_MAX_BUFFER_BYTES: Final = 10 << 20
"""Maximum size of an RVENC event, and of a response that a client collects in memory."""

DEFAULT_ENCRYPTED_MEMORY_BYTES: Final = 512_000_000
"""Sealed request bodies held in memory at the same time."""

DEFAULT_MAX_PROMPT_CHARACTERS: Final = 4_000_000
"""Characters of a prompt: about a million tokens, the longest context of today's models."""

DEFAULT_MAX_HEADER_BYTES: Final = 65_536
"""Bytes of a request line and its headers: room for the metadata of a raw upload in its URL."""

DEFAULT_MAX_HEADERS: Final = 100
DEFAULT_HEADER_TIMEOUT_S: Final = 15.0
DEFAULT_BODY_TIMEOUT_S: Final = 30.0
DEFAULT_IDLE_TIMEOUT_S: Final = 75.0
DEFAULT_SEND_TIMEOUT_S: Final = 60.0
DEFAULT_STREAM_COMMENT_S: Final = 15.0
DEFAULT_MAX_CONNECTIONS: Final = 8192
DEFAULT_MAX_CONNECTIONS_PER_ADDRESS: Final = 2048
DEFAULT_FAILED_LOGINS_PER_MINUTE: Final = 60

MAX_MODEL_NAME_LENGTH: Final = 256
"""Characters of a model's name, in requests, settings and the model lists of keys."""

BYTES_PER_TOKEN: Final = 3
"""Used to estimate tokens from lengths, where no tokenizer counts; rather too many tokens than too few."""

SOURCE_ROOT_KEY: Final = "source_root"
SOURCE_PATH_KEY: Final = "source_path"
"""Metadata keys that an ingest writes: the folder that was ingested, and the file's path relative to the folder."""

DEFAULT_OPEN_COLLECTIONS: Final = 64
"""Collections whose indexes are open at the same time; each takes a thread."""

DEFAULT_COLLECTIONS_PER_TENANT: Final = 1000
"""Collections that a tenant may have where the operator sets no other number."""

DEFAULT_SESSION_LIFETIME_S: Final = 43_200
"""How long a session of the web pages lasts: a working day."""
