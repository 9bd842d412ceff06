"""Settings: defaults, overridden by a TOML file, overridden by environment variables (``port``, ``RAGSVC_PORT``).

Nothing below ``wiring`` imports this module. All problems are reported together; printed settings are redacted.
"""

from __future__ import annotations

import re
import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from ragsvc.core.defaults import (
    DEFAULT_BODY_TIMEOUT_S,
    DEFAULT_COLLECTIONS_PER_TENANT,
    DEFAULT_ENCRYPTED_MEMORY_BYTES,
    DEFAULT_FAILED_LOGINS_PER_MINUTE,
    DEFAULT_FILE_TOKENS,
    DEFAULT_HEADER_TIMEOUT_S,
    DEFAULT_IDLE_TIMEOUT_S,
    DEFAULT_MAX_BODY_BYTES,
    DEFAULT_MAX_CONNECTIONS,
    DEFAULT_MAX_CONNECTIONS_PER_ADDRESS,
    DEFAULT_MAX_DOCUMENT_BYTES,
    DEFAULT_MAX_FILE_BYTES,
    DEFAULT_MAX_HEADER_BYTES,
    DEFAULT_MAX_HEADERS,
    DEFAULT_MAX_PROMPT_CHARACTERS,
    DEFAULT_OPEN_COLLECTIONS,
    DEFAULT_RERANK_BUDGET_MS,
    DEFAULT_SEND_TIMEOUT_S,
    DEFAULT_SESSION_LIFETIME_S,
    DEFAULT_STREAM_COMMENT_S,
    DEFAULT_TOP_K,
    MAX_TOP_K,
)
from ragsvc.core.errors import ConfigurationError
from ragsvc.core.file_places import endpoint_problem, parse_files_url
from ragsvc.core.gateway.provider_settings import ProviderSettings, header_problems, with_model_objects
from ragsvc.core.network import public_url_problem
from ragsvc.core.origins import AllowedOrigins
from ragsvc.core.validation import invalid_field, listed
from ragsvc.crypto.at_rest import MasterKey
from ragsvc.store.data_keys import DataKeys, open_data_keys, read_master_key

_PREFIX = "RAGSVC_"
_CLIENT_SIDE = frozenset({"RAGSVC_URL", "RAGSVC_API_KEY"})
"""Variables that the commands read to reach a service; not settings of the service."""

_LISTS = frozenset({"trusted_proxies", "cors_origins"})
"""Lists that are one text with commas in a variable; the TOML file may give an array."""

_OPTIONAL_PATHS = (
    "encryption_key_file",
    "master_key_file",
    "memory_dir",
    "gguf_model",
    "unix_socket",
    "ssl_certfile",
    "ssl_keyfile",
)

Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings of the service. The docstring of a field is its entry in ``docs/reference/settings.md``."""

    data_dir: Path = Path("indexes")
    """Folder of the database, the uploaded files and the indexes."""
    database_url: str | None = None
    """PostgreSQL database to use instead of a file in the data directory, such as
    ``postgresql://ragsvc@db.example.com/ragsvc`` (needs the extra ``postgres``); files and indexes stay in the data
    directory."""
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: Annotated[int, Meta(ge=0, le=65535)] = 8080
    """Port to listen on; 0 picks a free port and prints it."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Lowest level that is logged to standard error."""
    log_format: Literal["text", "json"] = "text"
    """Format of the log: a line of text, or a JSON object per line."""
    access_log: bool = False
    """Also log every request, at level info (never bodies, names or keys)."""
    otel_endpoint: str | None = None
    """URL to which traces of chats, searches and ingests are sent by OTLP over HTTP, such as
    ``http://127.0.0.1:4318/v1/traces`` (needs the extra ``otel``). Traces hold ids and durations, never text."""
    slow_request_s: Seconds = 10.0
    """Requests whose response begins later than this are logged as a warning; uploads, which may wait for the ingest,
    are not."""
    shutdown_grace_s: Seconds = 20.0
    """Seconds that running requests have to finish after SIGTERM."""
    max_body_bytes: Positive = DEFAULT_MAX_BODY_BYTES
    """Largest request body in bytes, documents excepted."""
    max_prompt_characters: Positive = DEFAULT_MAX_PROMPT_CHARACTERS
    """Longest prompt in characters, for models whose settings give no ``max_prompt_characters`` of their own."""

    unix_socket: Path | None = None
    """Path of a Unix socket to listen on, instead of ``host`` and ``port``. Sockets of a systemd socket unit take
    precedence over both."""
    ssl_certfile: Path | None = None
    """File with the TLS certificate and its chain, in PEM format; the service then speaks HTTPS only."""
    ssl_keyfile: Path | None = None
    """File with the private key of the TLS certificate, if it is not in ``ssl_certfile``."""
    trusted_proxies: str = ""
    """Addresses or networks of reverse proxies, separated by commas, whose ``X-Forwarded-For`` names the client, and
    whose ``X-Forwarded-Proto``, ``-Host`` and ``-Prefix`` name the address that the client used; they have no limit of
    connections. ``*`` trusts everybody, for a Unix socket."""
    public_url: str | None = None
    """Address of the service for its clients, such as ``https://example.com/rag``, for URLs in responses. Without it,
    it is taken from ``X-Forwarded-Host`` and ``X-Forwarded-Prefix`` of trusted proxies, else from the request."""
    cors_origins: str = ""
    """Origins of web pages that may call the API from a browser, separated by commas, such as
    ``https://app.example.com`` or ``https://*.example.com``; ``*`` allows every page, without credentials."""
    max_header_bytes: Annotated[int, Meta(ge=1024, le=1 << 20)] = DEFAULT_MAX_HEADER_BYTES
    """Largest request line with all headers in bytes; larger ones get 431."""
    max_headers: Annotated[int, Meta(ge=16, le=10_000)] = DEFAULT_MAX_HEADERS
    """Largest number of headers of a request."""
    header_timeout_s: Seconds = DEFAULT_HEADER_TIMEOUT_S
    """Seconds in which the headers of a request must arrive."""
    body_timeout_s: Seconds = DEFAULT_BODY_TIMEOUT_S
    """Seconds in which at least 1 kB of a request body must arrive, unless the body ends."""
    idle_timeout_s: Seconds = DEFAULT_IDLE_TIMEOUT_S
    """Seconds after which a connection without a request is closed."""
    send_timeout_s: Seconds = DEFAULT_SEND_TIMEOUT_S
    """Seconds after which a connection is closed whose client does not read its response."""
    stream_comment_s: Seconds = DEFAULT_STREAM_COMMENT_S
    """Seconds of silence after which an event stream gets a comment, so that proxies keep its connection open."""
    max_connections: Positive = DEFAULT_MAX_CONNECTIONS
    """Connections at the same time; fewer if the limit of open files is lower."""
    max_connections_per_address: Positive = DEFAULT_MAX_CONNECTIONS_PER_ADDRESS
    """Connections at the same time from an IPv4 address or an IPv6 network of 64 bits. Where the limit is reached, a
    new connection takes the place of the one that has waited longest without a request."""
    failed_logins_per_minute: Annotated[int, Meta(ge=0)] = DEFAULT_FAILED_LOGINS_PER_MINUTE
    """Failed authentications from an address in a minute; then 429 for a minute, except for keys that the address has
    used successfully. 0 switches the limit off."""

    embedding_model: str = "all-MiniLM-L6-v2"
    """Embedding model: path of a sentence-transformers model, or its name on the Hugging Face hub, optionally with
    ``@revision``; it is downloaded at the first start, and the resolved commit is used from then on."""
    embedding_runtime: Literal["auto", "onnx", "sentence-transformers"] = "auto"
    """Runtime of the embedding model; ``auto`` uses the accelerated runtime if its vectors agree with the original."""
    embeddings_truncate: Literal["none", "start", "end"] = "none"
    """Which end of a text loses what exceeds the limit of the built-in embedding model, for requests without
    ``truncate``; ``none`` refuses such texts."""
    embedded_text: Literal["condensed", "whole"] = "condensed"
    """The text of a passage that is embedded; ``condensed`` omits function words and punctuation. A change applies to
    stored passages after ``ragsvc reindex --embeddings``."""
    embedding_threads: Positive = 2
    """Number of threads that embed documents."""
    reranker_model: str | None = None
    """Folder or hub name of a sentence-transformers CrossEncoder, which orders the best passages of hybrid searches and
    chats, and serves ``/v1/rerank``; none is included."""
    rerank_budget_ms: Positive = DEFAULT_RERANK_BUDGET_MS
    """Milliseconds of a search for the reranker; passages that it has not scored by then keep their order."""
    offline: bool = False
    """Never download a model; a model that is not on this machine is an error."""

    gguf_model: Path | None = None
    """A GGUF chat model to run in this process as ``local/<file name>`` (needs the extra ``gguf``)."""
    gguf_context_tokens: Annotated[int, Meta(ge=512)] = 8192
    """Context size of the GGUF model in tokens, prompt and reply together; its cache grows with it."""
    gguf_threads: Positive = 2
    """Number of threads of the GGUF model."""
    gguf_max_waiting: Annotated[int, Meta(ge=0)] = 16
    """Requests that may wait for the GGUF model; further requests get 503."""

    max_document_bytes: Positive = DEFAULT_MAX_DOCUMENT_BYTES
    """Largest document in bytes."""
    max_file_bytes: Positive = DEFAULT_MAX_FILE_BYTES
    """Largest file of ``/v1/files`` and ``/v1/uploads`` in bytes."""
    upload_wait_s: Annotated[float, Meta(ge=0, le=600)] = 60.0
    """Seconds that an upload waits for ``ready`` before it answers 202."""
    max_pages: Positive = 5000
    """Largest number of pages of a document."""
    parse_timeout_s: Seconds = 300.0
    """Longest parsing time of a document in seconds; each page with text recognition adds a minute."""
    ocr: Literal["auto", "off"] = "auto"
    """Text recognition for pages without a text layer; ``off`` skips these pages."""
    ocr_max_pages: Positive = 500
    """Largest number of pages of a document with text recognition."""
    attachments: bool = True
    """Make documents of the files attached to PDFs and messages; at most 100 for an upload, in three levels."""
    parse_memory_bytes: Annotated[int, Meta(ge=1 << 28)] = 2 << 30
    """Address space of a parser process in bytes."""
    parse_workers: Positive = 2
    """Number of parser processes."""
    ingest_workers: Positive = 3
    """Number of documents that are processed at the same time."""
    chat_files_bytes: Positive = DEFAULT_MAX_DOCUMENT_BYTES
    """Largest total size in bytes of the files in a chat request, inline or by id. Chat bodies may be as large as these
    files in base64."""
    pass_chat_files: bool = False
    """Pass inline files of chats to the provider unchanged, for providers that read files themselves. Built-in models
    then refuse them; files by id are read in any case, because no provider knows the id."""
    chat_file_pages: Positive = 1000
    """Largest number of pages of a file in a chat request."""
    chat_file_timeout_s: Seconds = 60.0
    """Longest parsing time of a file in a chat request in seconds; each page with text recognition adds a minute."""
    chat_file_workers: Positive = 1
    """Number of parser processes for files in chat requests, beside those of documents."""
    page_workers: Positive = 2
    """Number of processes that draw pages and find text on them, beside those that read documents."""
    page_cache_bytes: Annotated[int, Meta(ge=0)] = 512 << 20
    """Disk space for pictures of pages that were shown; 0 keeps none."""
    chat_file_tokens: Annotated[int, Meta(ge=256)] = DEFAULT_FILE_TOKENS
    """Tokens of the files in a chat request that are put into the prompt: all text if it is not longer, else the best
    passages."""
    chat_file_cache_bytes: Annotated[int, Meta(ge=0)] = 256 << 20
    """Memory for files of chat requests that were read, so that the next turn of a chat does not parse them again."""
    chat_file_cache_s: Annotated[float, Meta(ge=0, le=86_400)] = 900.0
    """Seconds for which a file of a chat request is kept in memory after its last use."""
    max_queued_documents: Positive = 10_000
    """Documents that may wait for processing; further uploads get 503."""
    passage_tokens: Annotated[int, Meta(ge=32, le=8192)] | None = None
    """Longest passage in tokens of the embedding model; the default is the length that was measured best."""
    index_memory_bytes: Annotated[int, Meta(ge=1 << 24)] = 1 << 30
    """Memory for loaded indexes in bytes; beyond it, the least recently used collections are unloaded."""

    max_open_collections: Positive = DEFAULT_OPEN_COLLECTIONS
    """Collections whose indexes are open at the same time; each takes a thread. The least recently used are closed."""
    max_collections_per_tenant: Positive = DEFAULT_COLLECTIONS_PER_TENANT
    """Collections that a tenant may have, unless ``ragsvc tenants update`` sets another number for it."""
    max_documents_per_tenant: Positive | None = None
    """Documents that a tenant may have, unless ``ragsvc tenants update`` sets another number; no limit by default."""
    max_bytes_per_tenant: Positive | None = None
    """Bytes of stored files that a tenant may have, unless ``ragsvc tenants update`` sets another number."""
    max_conversations_per_tenant: Positive | None = None
    """Conversations that a tenant may have; no limit by default."""
    max_responses_per_tenant: Positive | None = None
    """Stored responses that a tenant may have; no limit by default."""
    max_feedback_per_tenant: Positive | None = None
    """Pieces of feedback on answers that a tenant may have; no limit by default."""
    files_url: str | None = None
    """Where uploaded files are stored instead of ``blobs/`` in the data directory: ``s3://BUCKET/PREFIX`` (needs the
    extra ``s3``; credentials from ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY`` and ``AWS_SESSION_TOKEN``, or the
    role of the machine), or ``file:///FOLDER``, a folder that exists."""
    files_endpoint: str | None = None
    """Address of an S3 store that is not Amazon's, such as ``http://127.0.0.1:8333``; without it, that of
    ``AWS_ENDPOINT_URL`` or of the region."""
    files_region: str | None = None
    """Region of the bucket; without it, that of ``AWS_REGION``, else ``us-east-1``."""
    files_cache_bytes: Annotated[int, Meta(ge=0)] = 2 << 30
    """Disk space in the data directory for copies of files of a bucket; 0 keeps a copy only while it is read."""
    quarantine_days: Annotated[int, Meta(ge=0)] = 30
    """Days that a stored file without a document is kept in ``quarantine/`` before it is deleted; 0 keeps it."""

    conversation_retention_days: Positive | None = None
    """Days after its last use for which a conversation of ``/v1/conversations`` is kept; no limit by default."""

    rag_top_k: Annotated[int, Meta(ge=1, le=MAX_TOP_K)] = DEFAULT_TOP_K
    """Passages in a RAG prompt if the request gives no ``top_k``."""
    response_retention_days: Annotated[int, Meta(ge=0)] = 30
    """Days that stored responses of ``/v1/responses`` are kept; 0 keeps them until they are deleted."""
    response_truncation: Literal["auto", "disabled"] = "disabled"
    """What happens to a conversation of ``/v1/responses`` that is too long for the model, if the request does not say:
    it is refused (``disabled``), or its oldest turns are left out (``auto``)."""
    requests_per_minute: Positive = 60
    """Default request limit of a key per minute."""
    requests_per_hour: Positive = 1000
    """Default request limit of a key per hour."""

    pages: bool = True
    """Serve the web pages, and let their users sign in with a key."""
    session_lifetime_s: Annotated[int, Meta(ge=60, le=30 * 86_400)] = DEFAULT_SESSION_LIFETIME_S
    """Seconds after which users of the web pages have to sign in again."""

    master_key: str | None = None
    """Master key for encryption at rest: 32 random bytes in hexadecimal or base64."""
    master_key_file: Path | None = None
    """File with the master key for encryption at rest."""
    master_key_command: str | None = None
    """Command that prints the master key for encryption at rest (for instance the client of a secret store)."""
    memory_dir: Path = Path("/dev/shm")  # noqa: S108 - a private folder is created in it
    """Folder on a file system in memory, for the indexes of an encrypted data directory."""

    encryption_keys: Literal["memory", "derived", "fixed"] = "memory"
    """Keys for encrypted requests: generated in memory and rotated; derived from ``encryption_key_file`` and rotated;
    or fixed."""
    encryption_key_file: Path | None = None
    """File with 32 secret bytes (raw, hexadecimal or base64) for derived or fixed keys."""
    encryption_key_lifetime_s: Seconds = 86_400.0
    """Seconds that clients use an encryption key before it is rotated."""
    encryption_key_overlap_s: Annotated[float, Meta(ge=0)] = 3600.0
    """Seconds that the previous encryption key is accepted after a rotation."""
    encryption_sample_dialects: bool = True
    """Also accept the insecure key schedules of the Oryxen document's code samples, which deviate from RFC 9180."""
    encrypted_memory_bytes: Annotated[int, Meta(ge=1 << 24)] = DEFAULT_ENCRYPTED_MEMORY_BYTES
    """Bytes of encrypted request bodies held in memory at the same time; further requests get 503."""
    rvenc_literal: bool = False
    """Insecure: encrypt RVENC responses exactly as the document says, with one key stream for all chunks, from which
    plaintext can be recovered."""

    list_document_models: bool = False
    """List each chat model in ``GET /v1/models`` also as ``NAME+docs``, and as ``NAME+docs:COLLECTION`` for up to 20
    collections of the tenant. These names are accepted without being listed, too."""
    default_completions_model: str | None = None
    """Model of completions that name none."""
    default_embeddings_model: str | None = None
    """Model of embeddings requests that name none, such as ``local/embedding-model``."""
    default_responses_model: str | None = None
    """Model of responses that name none."""
    default_images_model: str | None = None
    """Model of image requests that name none."""
    default_speech_model: str | None = None
    """Model of requests for speech that name none."""
    default_transcription_model: str | None = None
    """Model of transcriptions and translations of speech that name none."""
    default_moderations_model: str | None = "omni-moderation-latest"
    """Model of moderations that name none; the default is that of OpenAI's API."""
    default_rerank_model: str | None = None
    """Model of rerank requests that name none, such as ``local/reranker``."""
    default_ocr_model: str | None = None
    """Model of OCR requests that name none."""
    default_videos_model: str | None = None
    """Model of video requests that name none."""

    policy_file: Path | None = None
    """A Rego file whose ``data.ragsvc.allow`` must be true for each use of a model (needs the extra ``policies``)."""
    policy_url: str | None = None
    """The URL of such a rule in the Data API of an Open Policy Agent server."""
    policy_cache_s: Annotated[float, Meta(ge=0)] = 5.0
    """Seconds that a policy decision is cached."""
    policy_timeout_s: Seconds = 2.0
    """Timeout of a policy decision in seconds; without a decision a request gets 503."""
    allowed_base_urls: tuple[str, ...] = ()
    """Base URLs that ``X-Provider-Base-URL`` of a request may name (``https://*.example.com``); TOML file only."""
    providers: tuple[ProviderSettings, ...] = ()
    """Upstream model providers; ``[[providers]]`` in the TOML file only."""

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Settings:
        """Read settings from environment variables and from the TOML file in ``RAGSVC_CONFIG``.

        Raises:
            ConfigurationError: lists every unknown name and every invalid value.
        """
        problems: list[str] = []
        merged = _read_toml(environ, problems)
        scalars = {name for name, kind in typing.get_type_hints(cls).items() if not _is_structured(kind)}
        for variable, text in sorted(environ.items()):
            if not variable.startswith(_PREFIX) or variable == "RAGSVC_CONFIG" or variable in _CLIENT_SIDE:
                continue
            name = variable.removeprefix(_PREFIX).lower()
            if name in scalars:
                merged[name] = text
            elif name in cls.__struct_fields__:
                problems.append(f"{variable}: only the TOML file can set '{name}'")
            else:
                problems.append(f"{variable}: no such setting")
        if "providers" in merged:
            merged["providers"] = _providers(merged["providers"], environ, problems)
        values = _convert_each(cls, merged, problems, environ)
        if problems:
            raise ConfigurationError(problems)
        return cls(**values)

    def read_master_key(self) -> MasterKey | None:
        """The master key for encryption at rest. Raises ``ConfigurationError``."""
        return read_master_key(value=self.master_key, file=self.master_key_file, command=self.master_key_command)

    def open_data_keys(self) -> DataKeys | None:
        """The keys of the data directory; ``None`` if it is not encrypted. Raises ``ConfigurationError``."""
        return open_data_keys(self.data_dir, self.read_master_key())

    def redacted(self) -> dict[str, Any]:
        """The settings for printing, with masked secrets."""
        plain = {name: getattr(self, name) for name in self.__struct_fields__}
        plain["data_dir"] = str(self.data_dir)
        for name in _OPTIONAL_PATHS:
            plain[name] = None if plain[name] is None else str(plain[name])
        plain["database_url"] = None if self.database_url is None else without_credentials(self.database_url)
        plain["master_key"] = None if self.master_key is None else "***"
        plain["providers"] = [
            {"name": provider.name, "base_url": provider.base_url, "models": [model.id for model in provider.models]}
            for provider in self.providers
        ]
        return plain

    def __repr__(self) -> str:
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in self.redacted().items())})"


def _read_toml(environ: Mapping[str, str], problems: list[str]) -> dict[str, Any]:
    name = environ.get("RAGSVC_CONFIG")
    if not name:
        return {}
    try:
        return tomllib.loads(Path(name).read_text(encoding="utf-8"))
    except OSError as error:
        problems.append(f"RAGSVC_CONFIG: {name} cannot be read ({error.strerror})")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        problems.append(f"RAGSVC_CONFIG: {name} is not valid TOML ({error})")
    return {}


def _providers(raw: Any, environ: Mapping[str, str], problems: list[str]) -> Any:  # noqa: ANN401 - decoded TOML
    """Resolve the shorthands of a provider table: ``api_key_env``, and models given as plain names."""
    if not isinstance(raw, list):
        return raw
    resolved: list[Any] = []
    for table in raw:
        if not isinstance(table, dict):
            return raw
        provider = dict(table)
        variable = provider.pop("api_key_env", None)
        if variable is not None and not environ.get(str(variable)):
            problems.append(
                f"providers: '{provider.get('name')}' takes its key from the variable {variable}, which is not set"
            )
        elif variable is not None:
            provider["api_key"] = environ[str(variable)]
        resolved.append(with_model_objects(provider))
    return resolved


def _decode(kind: type, raw: Any) -> Any:  # noqa: ANN401 - any setting
    """Decode types that msgspec does not know: paths."""
    if kind is Path and isinstance(raw, str) and raw:
        return Path(raw)
    raise ValueError(f"expected a {kind.__name__.lower()}, not {raw!r}")


def _is_structured(kind: Any) -> bool:  # noqa: ANN401 - any annotation
    return typing.get_origin(kind) is tuple


def _convert_each(
    cls: type[Settings], merged: Mapping[str, Any], problems: list[str], environ: Mapping[str, str]
) -> dict[str, Any]:
    hints = typing.get_type_hints(cls, include_extras=True)
    values: dict[str, Any] = {}
    for name, raw in merged.items():
        if name not in hints:
            problems.append(f"{name}: no such setting")
            continue
        kind = hints[name]
        choices = _choices(kind)
        if choices and isinstance(raw, str):
            raw = raw.lower()  # noqa: PLW2901 - levels are often written in upper case
        if name in _LISTS and isinstance(raw, list):
            raw = ",".join(map(str, raw))  # noqa: PLW2901 - the form that a variable has
        optional = isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union
        try:
            values[name] = (
                None if optional and raw == "" else msgspec.convert(raw, kind, strict=False, dec_hook=_decode)
            )
        except msgspec.ValidationError as error:
            variable = f"{_PREFIX}{name.upper()}"
            place = variable if variable in environ else name
            problems.append(_wrong_value(place, raw, kind, error))
    for provider in values.get("providers", ()):
        problems += [f"providers: '{provider.name}': {field}: {text}" for field, text in header_problems(provider)]
    try:
        AllowedOrigins.parse(values.get("cors_origins", ""))
    except ValueError as error:
        problems.append(f"cors_origins: {error}")
    public_url = values.get("public_url")
    if public_url is not None and (problem := public_url_problem(public_url)):
        problems.append(f"public_url: {problem}")
    problems += _problems_of_place(values.get("files_url"), values.get("files_endpoint"))
    database_url = values.get("database_url")
    if database_url is not None and not _DATABASE_URL.match(database_url):
        problems.append("database_url: expected a URL such as postgresql://USER@HOST/DATABASE")
    return values


def _problems_of_place(files_url: str | None, endpoint: str | None) -> list[str]:
    """What is wrong with the place of the files. Its values are not quoted: they could hold credentials."""
    problems: list[str] = []
    if files_url is not None:
        try:
            parse_files_url(files_url)
        except ValueError as error:
            problems.append(f"files_url: {error}")
    if endpoint is not None and (problem := endpoint_problem(endpoint)):
        problems.append(f"files_endpoint: {problem}")
    return problems


def without_credentials(url: str) -> str:
    """A URL of libpq without user, password and parameters.

    >>> without_credentials("postgresql://ragsvc:secret@db.example.com:5433/ragsvc?sslpassword=secret")
    'postgresql://db.example.com:5433/ragsvc'
    >>> without_credentials("postgresql://ragsvc:se/cr?et@db.example.com/ragsvc")
    'postgresql://db.example.com/ragsvc'
    """
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2].partition('?')[0]}"


def _choices(kind: Any) -> tuple[str, ...]:  # noqa: ANN401 - any annotation
    """The values of a setting that has a few named ones."""
    return typing.get_args(kind) if typing.get_origin(kind) is Literal else ()


def _wrong_value(place: str, raw: Any, kind: Any, error: msgspec.ValidationError) -> str:  # noqa: ANN401 - any setting
    """The problem of a setting. Its value is quoted if the setting is a number or one of a few words: no secret."""
    if choices := _choices(kind):
        return f"{place}: expected {listed(choices)}, not {raw!r}"
    number = next((words for type_, words in _NUMBERS.items() if type_ in _parts(kind)), None)
    if number is not None and not isinstance(raw, dict | list):
        limit = _LIMIT.match(str(error))
        return f"{place}: expected {number}{f' {limit[1]}' if limit else ''}, not {raw!r}"
    if _is_structured(kind):
        return invalid_field(error, within=place, expected=kind).message.removesuffix(".")
    problem = str(error)
    return f"{place}: {problem[0].lower()}{problem[1:]}"


def _parts(kind: Any) -> tuple[Any, ...]:  # noqa: ANN401 - any annotation
    """The types of a union without what annotates them."""
    plain = kind.__origin__ if typing.get_origin(kind) is typing.Annotated else kind
    union = isinstance(plain, types.UnionType) or typing.get_origin(plain) is typing.Union
    return tuple(part for inner in typing.get_args(plain) for part in _parts(inner)) if union else (plain,)


_NUMBERS: Final[Mapping[Any, str]] = {bool: "true or false", int: "a whole number", float: "a number"}
_DATABASE_URL: Final = re.compile(r"postgres(?:ql)?://\S*\Z")
_LIMIT: Final = re.compile(r"Expected `(?:int|float)` ([<>]=? [\d.e+-]+)")
