"""Settings: defaults, overridden by a TOML file, overridden by environment variables (``port``, ``RAGSVC_PORT``).

Nothing below ``wiring`` imports this module. All problems are reported together; printed settings are redacted.
"""

from __future__ import annotations

import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from ragsvc.core.defaults import (
    DEFAULT_ENCRYPTED_MEMORY_BYTES,
    DEFAULT_MAX_BODY_BYTES,
    DEFAULT_MAX_DOCUMENT_BYTES,
    DEFAULT_RERANK_BUDGET_MS,
    DEFAULT_TOP_K,
    MAX_TOP_K,
)
from ragsvc.core.errors import ConfigurationError
from ragsvc.core.gateway.provider_settings import ProviderSettings, header_problems
from ragsvc.crypto.at_rest import MasterKey
from ragsvc.store.data_keys import DataKeys, open_data_keys, read_master_key

_PREFIX = "RAGSVC_"
_CLIENT_SIDE = frozenset({"RAGSVC_URL", "RAGSVC_API_KEY"})
"""Variables that the commands read to reach a service; not settings of the service."""

Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings of the service. The docstring of a field is its entry in ``docs/reference/settings.md``."""

    data_dir: Path = Path("indexes")
    """Folder of the database, the uploaded files and the indexes."""
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: Annotated[int, Meta(ge=0, le=65535)] = 8080
    """Port to listen on; 0 picks a free port and prints it."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Lowest level that is logged to standard error."""
    access_log: bool = False
    """Log a JSON line per request (never bodies, names or keys)."""
    shutdown_grace_s: Seconds = 20.0
    """Seconds that running requests have to finish after SIGTERM."""
    max_body_bytes: Positive = DEFAULT_MAX_BODY_BYTES
    """Largest request body in bytes, documents excepted."""

    embedding_model: str = "all-MiniLM-L6-v2"
    """Embedding model: path of a sentence-transformers model, or its name on the Hugging Face hub, optionally with
    ``@revision``; it is downloaded at the first start, and the resolved commit is used from then on."""
    embedding_runtime: Literal["auto", "onnx", "sentence-transformers"] = "auto"
    """Runtime of the embedding model; ``auto`` uses the accelerated runtime if its vectors agree with the original."""
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
    max_queued_documents: Positive = 10_000
    """Documents that may wait for processing; further uploads get 503."""
    passage_tokens: Annotated[int, Meta(ge=32, le=8192)] | None = None
    """Longest passage in tokens of the embedding model; the default is the length that was measured best."""
    index_memory_bytes: Annotated[int, Meta(ge=1 << 24)] = 1 << 30
    """Memory for loaded indexes in bytes; beyond it, the least recently used collections are unloaded."""

    rag_top_k: Annotated[int, Meta(ge=1, le=MAX_TOP_K)] = DEFAULT_TOP_K
    """Passages in a RAG prompt if the request gives no ``top_k``."""
    requests_per_minute: Positive = 60
    """Default request limit of a key per minute."""
    requests_per_hour: Positive = 1000
    """Default request limit of a key per hour."""

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
        values = _convert_each(cls, merged, problems)
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
        for name in ("encryption_key_file", "master_key_file", "memory_dir", "gguf_model"):
            plain[name] = None if plain[name] is None else str(plain[name])
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
        models = provider.get("models")
        if isinstance(models, list):
            provider["models"] = [{"id": model} if isinstance(model, str) else model for model in models]
        resolved.append(provider)
    return resolved


def _decode(kind: type, raw: Any) -> Any:  # noqa: ANN401 - any setting
    """Decode types that msgspec does not know: paths."""
    if kind is Path and isinstance(raw, str) and raw:
        return Path(raw)
    raise ValueError(f"expected a {kind.__name__.lower()}, not {raw!r}")


def _is_structured(kind: Any) -> bool:  # noqa: ANN401 - any annotation
    return typing.get_origin(kind) is tuple


def _convert_each(cls: type[Settings], merged: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    hints = typing.get_type_hints(cls, include_extras=True)
    values: dict[str, Any] = {}
    for name, raw in merged.items():
        if name not in hints:
            problems.append(f"{name}: no such setting")
            continue
        kind = hints[name]
        optional = isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union
        try:
            values[name] = (
                None if optional and raw == "" else msgspec.convert(raw, kind, strict=False, dec_hook=_decode)
            )
        except msgspec.ValidationError as error:
            problems.append(f"{name}: {error}")
    for provider in values.get("providers", ()):
        problems += [f"providers: '{provider.name}': {field}: {text}" for field, text in header_problems(provider)]
    return values
