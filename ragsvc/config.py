"""Settings: defaults, then one TOML file, then environment variables. Same names in both (``RAGSVC_PORT``, ``port``).

Nothing below ``wiring`` sees them. All problems are reported together; printing is redacted.
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
)
from ragsvc.core.errors import ConfigurationError
from ragsvc.core.gateway.provider_settings import ProviderSettings
from ragsvc.crypto.at_rest import MasterKey
from ragsvc.store.data_keys import DataKeys, open_data_keys, read_master_key

_PREFIX = "RAGSVC_"
_CLIENT_SIDE = frozenset({"RAGSVC_URL", "RAGSVC_API_KEY"})
"""Variables of the command line's client half; no settings of the service."""

Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings of the service; each field's docstring is its line in the README."""

    data_dir: Path = Path("indexes")
    """Where everything is kept."""
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: Annotated[int, Meta(ge=0, le=65535)] = 8080
    """Port to listen on; 0 picks a free one and prints it."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """How much is logged to standard error."""
    access_log: bool = False
    """Log one JSON line per request (never bodies, names or keys)."""
    shutdown_grace_s: Seconds = 20.0
    """How long running answers may finish after SIGTERM."""
    max_body_bytes: Positive = DEFAULT_MAX_BODY_BYTES
    """Largest request body other than a document."""

    embedding_model: str = "all-MiniLM-L6-v2"
    """A sentence-transformers model: name or path."""
    embedding_runtime: Literal["auto", "onnx", "sentence-transformers"] = "auto"
    """What runs the embedding model; ``auto`` takes the accelerated runtime when its vectors agree."""
    embedded_text: Literal["condensed", "whole"] = "condensed"
    """What of a passage is embedded: ``condensed`` leaves out function words and punctuation. Stored passages keep
    their vectors until ``ragsvc reindex --embeddings``."""
    embedding_threads: Positive = 2
    """Threads that embed documents."""
    reranker_model: str | None = None
    """Path of a sentence-transformers CrossEncoder for ``rerank``; none ships."""

    gguf_model: Path | None = None
    """A GGUF file to chat with as ``local/<file name>``, in this process (extra ``gguf``)."""
    gguf_context_tokens: Annotated[int, Meta(ge=512)] = 8192
    """Tokens of prompt and reply that it may use; its cache takes memory accordingly."""
    gguf_threads: Positive = 2
    """Threads that compute its tokens."""
    gguf_max_waiting: Annotated[int, Meta(ge=0)] = 16
    """Requests that may wait for it; further ones get 503."""

    max_document_bytes: Positive = DEFAULT_MAX_DOCUMENT_BYTES
    """Largest document."""
    upload_wait_s: Annotated[float, Meta(ge=0, le=600)] = 60.0
    """How long an upload waits for ready before it answers 202."""
    max_pages: Positive = 5000
    """Most pages of one document."""
    parse_timeout_s: Seconds = 300.0
    """Longest parse of one document; each page whose text is recognised adds a minute."""
    ocr: Literal["auto", "off"] = "auto"
    """Recognise the text of pages that have no text layer; ``off`` leaves them out."""
    ocr_max_pages: Positive = 500
    """Most pages of one document whose text is recognised."""
    parse_memory_bytes: Annotated[int, Meta(ge=1 << 28)] = 2 << 30
    """Address space of one parser process."""
    parse_workers: Positive = 2
    """Parser processes."""
    ingest_workers: Positive = 3
    """Documents that are worked on at the same time."""
    max_queued_documents: Positive = 10_000
    """Documents that may wait; further uploads get 503."""
    passage_tokens: Annotated[int, Meta(ge=32, le=8192)] | None = None
    """Longest passage in the embedding model's tokens; by default what was measured best."""
    index_memory_bytes: Annotated[int, Meta(ge=1 << 24)] = 1 << 30
    """Memory for loaded indexes; cold collections are unloaded beyond it."""

    rag_top_k: Annotated[int, Meta(ge=1, le=100)] = 8
    """Passages a RAG prompt gets by default."""
    requests_per_minute: Positive = 60
    """Default limit of a key."""
    requests_per_hour: Positive = 1000
    """Default limit of a key."""

    master_key: str | None = None
    """Key for encryption at rest: 32 random bytes in hexadecimal or base64."""
    master_key_file: Path | None = None
    """File with the key for encryption at rest."""
    master_key_command: str | None = None
    """Command that prints the key for encryption at rest (a secret store's client, say)."""
    memory_dir: Path = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it
    """File system in memory, for indexes of a data directory that is encrypted at rest."""

    encryption_keys: Literal["memory", "derived", "fixed"] = "memory"
    """Keys for encrypted requests: made in memory and rotated, or ``encryption_key_file``'s, rotated or for good."""
    encryption_key_file: Path | None = None
    """32 secret bytes (raw, hexadecimal or base64) for derived or fixed keys."""
    encryption_key_lifetime_s: Seconds = 86_400.0
    """How long clients use one encryption key."""
    encryption_key_overlap_s: Annotated[float, Meta(ge=0)] = 3600.0
    """How long requests for the previous encryption key are still accepted."""
    encryption_sample_dialects: bool = True
    """Accept the insecure key schedules of the Oryxen document's code samples, which are not RFC 9180."""
    encrypted_memory_bytes: Annotated[int, Meta(ge=1 << 24)] = DEFAULT_ENCRYPTED_MEMORY_BYTES
    """Sealed request bodies held in memory at the same time; further ones get 503."""
    rvenc_literal: bool = False
    """Insecure: seal RVENC responses as the document says, with one key stream, which eavesdroppers can decrypt."""

    policy_file: Path | None = None
    """A Rego file whose ``data.ragsvc.allow`` must be true for every model's use (extra ``policies``)."""
    policy_url: str | None = None
    """The same asked of an Open Policy Agent server: the URL of the rule in its Data API."""
    policy_cache_s: Annotated[float, Meta(ge=0)] = 5.0
    """How long a policy's decision holds."""
    policy_timeout_s: Seconds = 2.0
    """How long a policy may take; without a decision a request gets 503."""
    allowed_base_urls: tuple[str, ...] = ()
    """Addresses a request may name in ``X-Provider-Base-URL`` (``https://*.example.com``); TOML file only."""
    providers: tuple[ProviderSettings, ...] = ()
    """Upstream model backends; ``[[providers]]`` in the TOML file only."""

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Settings:
        """Read settings from environment variables and the TOML file that ``RAGSVC_CONFIG`` names.

        Raises:
            ConfigurationError: listing every unknown name and every bad value.
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
        """The key for encryption at rest. Raises ``ConfigurationError``."""
        return read_master_key(value=self.master_key, file=self.master_key_file, command=self.master_key_command)

    def open_data_keys(self) -> DataKeys | None:
        """The keys of the data directory; ``None`` for a plain one. Raises ``ConfigurationError``."""
        return open_data_keys(self.data_dir, self.read_master_key())

    def redacted(self) -> dict[str, Any]:
        """Settings for printing; secrets of providers are masked."""
        plain = {name: getattr(self, name) for name in self.__struct_fields__}
        plain["data_dir"] = str(self.data_dir)
        for name in ("encryption_key_file", "master_key_file", "memory_dir", "gguf_model"):
            plain[name] = None if plain[name] is None else str(plain[name])
        plain["master_key"] = None if self.master_key is None else "***"
        plain["providers"] = [
            {"name": one.name, "base_url": one.base_url, "models": [model.id for model in one.models]}
            for one in self.providers
        ]
        return plain

    def __repr__(self) -> str:
        """Redacted."""
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
        problems.append(f"RAGSVC_CONFIG: {name} is not TOML ({error})")
    return {}


def _providers(raw: Any, environ: Mapping[str, str], problems: list[str]) -> Any:  # noqa: ANN401 - decoded TOML
    """Resolve the shorthands of a provider's table: ``api_key_env``, and models as plain names."""
    if not isinstance(raw, list):
        return raw
    resolved: list[Any] = []
    for table in raw:
        if not isinstance(table, dict):
            return raw
        provider = dict(table)
        variable = provider.pop("api_key_env", None)
        if variable is not None and not environ.get(str(variable)):
            problems.append(f"providers: '{provider.get('name')}' takes its key from {variable}, which is not set")
        elif variable is not None:
            provider["api_key"] = environ[str(variable)]
        models = provider.get("models")
        if isinstance(models, list):
            provider["models"] = [{"id": one} if isinstance(one, str) else one for one in models]
        resolved.append(provider)
    return resolved


def _decode(kind: type, raw: Any) -> Any:  # noqa: ANN401 - any setting
    """What msgspec does not read by itself: paths."""
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
    return values
