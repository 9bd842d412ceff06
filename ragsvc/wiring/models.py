"""Model providers: local models, configured providers, providers named by a request, and policies."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ragsvc.config import Settings
from ragsvc.core.access.api_keys import KeyLimits
from ragsvc.core.answers.extractive import answer as extract_answer
from ragsvc.core.errors import ConfigurationError
from ragsvc.core.gateway.endpoint_families import Family
from ragsvc.core.gateway.provider_settings import ProviderSettings
from ragsvc.core.observation import Observer
from ragsvc.core.ports.embedding import Reranker, Vectors
from ragsvc.inference.model_files import resolve_folder
from ragsvc.inference.tokens import TokenizerSpans
from ragsvc.providers.gguf_runs import GgufRuns
from ragsvc.providers.local_extractive import LocalExtractive
from ragsvc.providers.local_gguf import LocalGguf
from ragsvc.providers.local_models import (
    HYBRID_SCORE,
    LocalEmbeddings,
    LocalReranker,
    Truncation,
    hybrid_scores,
    in_thread,
)
from ragsvc.services.model_registry import LocalModel, ModelRegistry
from ragsvc.services.policies import CachedPolicy, Decide
from ragsvc.wiring.embedding_spaces import ModelSpace
from ragsvc.wiring.parsing import text_counter

if TYPE_CHECKING:
    import aiohttp

    from ragsvc.providers.caller_base_urls import AllowedBaseUrls
    from ragsvc.providers.openai_upstream import OpenAIUpstream

    OpenProvider = Callable[[ProviderSettings, aiohttp.ClientSession], OpenAIUpstream]


class UpstreamSession:
    """The HTTP session that providers and policies share, opened when the first of them is.

    Importing aiohttp takes a tenth of a second and 9 MB, which a service without providers does not need.
    """

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    def get(self) -> aiohttp.ClientSession:
        """Call this in the event loop."""
        if self._session is None:
            from ragsvc.providers.upstream_requests import open_session  # noqa: PLC0415 - imports aiohttp

            self._session = open_session()
        return self._session

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()


def open_upstream_session(stack: AsyncExitStack) -> UpstreamSession:
    session = UpstreamSession()
    stack.push_async_callback(session.aclose)
    return session


def provider_opener(tokens: TokenizerSpans, observer: Observer) -> OpenProvider:
    count = text_counter(tokens)

    def open_provider(settings: ProviderSettings, session: aiohttp.ClientSession) -> OpenAIUpstream:
        from ragsvc.providers.openai_upstream import OpenAIUpstream  # noqa: PLC0415 - imports aiohttp

        return OpenAIUpstream(settings, session, count_tokens=count, on_failure=observer.upstream_failed)

    return open_provider


def open_model_registry(
    tokens: TokenizerSpans, local_models: Sequence[LocalModel], *, lists_documents: bool
) -> ModelRegistry:
    """A registry of the local models. ``ProviderAdministration`` adds the configured and stored providers."""
    local = LocalExtractive(extract_answer, count_tokens=text_counter(tokens))
    return ModelRegistry(
        (), {}, local=local, local_models=local_models, created=int(time.time()), lists_documents=lists_documents
    )


async def open_caller_base_urls(
    stack: AsyncExitStack, settings: Settings, session: UpstreamSession, open_provider: OpenProvider
) -> AllowedBaseUrls | None:
    """Providers that a request may name by base URL; ``None`` if the settings allow none.

    A wildcard host must resolve to a public address.
    """
    if not settings.allowed_base_urls:
        return None
    import aiohttp  # noqa: PLC0415 - only when used

    from ragsvc.providers.caller_base_urls import AllowedBaseUrls, PublicResolver  # noqa: PLC0415 - imports aiohttp
    from ragsvc.providers.upstream_requests import open_session  # noqa: PLC0415 - imports aiohttp

    public = await stack.enter_async_context(open_session(PublicResolver(aiohttp.ThreadedResolver())))
    return AllowedBaseUrls(settings.allowed_base_urls, open_provider, session=session.get(), public_session=public)


def open_policies(stack: AsyncExitStack, settings: Settings, session: UpstreamSession) -> list[CachedPolicy]:
    if settings.policy_file is None and settings.policy_url is None:
        return []
    from ragsvc.providers.policy_engines import RegoFile, opa_server  # noqa: PLC0415 - imports aiohttp

    deciders: list[Decide] = []
    if settings.policy_file is not None:
        rego = RegoFile(settings.policy_file)
        stack.callback(rego.close)
        deciders.append(rego)
    if settings.policy_url is not None:
        deciders.append(opa_server(settings.policy_url, session.get()))
    return [
        CachedPolicy(decide, keep_s=settings.policy_cache_s, timeout_s=settings.policy_timeout_s) for decide in deciders
    ]


def embedding_and_rerank_models(
    space: ModelSpace, tokens: TokenizerSpans, reranker: Reranker | None, *, truncate: str
) -> list[LocalModel]:
    """The embedding model and the reranker, each under a fixed name and under the name of the model."""

    # the model of a space may be loaded later
    def embed_passages(texts: Sequence[str]) -> Awaitable[Vectors]:
        return space.batcher.embed_passages(texts)

    def embed_query(text: str) -> Awaitable[Vectors]:
        return space.batcher.embed_query(text)

    embeddings = LocalEmbeddings(space.model, embed_passages, tokens, truncate=Truncation(truncate))
    if reranker is None:
        scored_by, score = HYBRID_SCORE, hybrid_scores(embed_query, embed_passages)
    else:
        scored_by, score = f"local/{reranker.name}", in_thread(reranker.score)
    ranking = LocalReranker(scored_by, score, tokens)
    return [
        LocalModel("local/embedding-model", embeddings, frozenset({Family.EMBEDDINGS})),
        LocalModel(f"local/{_short_name(space.model.name)}", embeddings, frozenset({Family.EMBEDDINGS})),
        LocalModel("local/reranker", ranking, frozenset({Family.RERANK})),
        LocalModel(scored_by, ranking, frozenset({Family.RERANK})),
    ]


def built_in_models(
    stack: AsyncExitStack,
    settings: Settings,
    space: ModelSpace,
    tokens: TokenizerSpans,
    reranker: Reranker | None,
) -> list[LocalModel]:
    """The models in this process, other than the built-in chat model. Raises ``ConfigurationError``."""
    embedding = embedding_and_rerank_models(space, tokens, reranker, truncate=settings.embeddings_truncate)
    return [*embedding, *gguf_models(stack, settings)]


def _short_name(model: str) -> str:
    """The name of a hub model without its owner and revision."""
    return model.partition("@")[0].rsplit("/", 1)[-1]


def gguf_models(stack: AsyncExitStack, settings: Settings) -> list[LocalModel]:
    """The configured GGUF model, whose weights are loaded at the first request. Raises ``ConfigurationError``."""
    path = settings.gguf_model
    if path is None:
        return []
    if not path.is_file():
        raise ConfigurationError([f"gguf_model: {path} is not a file"])
    if find_spec("xllamacpp") is None:
        raise ConfigurationError(["gguf_model: needs the extra 'gguf': pip install 'ragsvc[gguf]'"])
    context_tokens = settings.gguf_context_tokens
    runs = GgufRuns(
        path, context_tokens=context_tokens, threads=settings.gguf_threads, max_waiting=settings.gguf_max_waiting
    )
    stack.push_async_callback(runs.aclose)
    name = f"local/{path.stem}"
    # prompts are counted with the embedding model's tokenizer, which yields fewer tokens for figures than most others
    room = context_tokens * 3 // 4
    return [LocalModel(name, LocalGguf(name, runs), frozenset({Family.CHAT}), room)]


def open_reranker(settings: Settings) -> Reranker | None:
    if settings.reranker_model is None:
        return None
    from ragsvc.inference.cross_encoder import CrossEncoderReranker  # noqa: PLC0415 - imports torch, only when used

    setting = settings.reranker_model
    folder = resolve_folder(setting, data_dir=settings.data_dir, offline=settings.offline, role="reranker model")
    return CrossEncoderReranker(
        folder, name=folder.name if Path(setting).expanduser().is_dir() else _short_name(setting)
    )


def default_models(settings: Settings) -> dict[str, str]:
    """The models of requests that name none, by kind."""
    named = {
        "completions": settings.default_completions_model,
        "embeddings": settings.default_embeddings_model,
        "responses": settings.default_responses_model,
        "images": settings.default_images_model,
        "speech": settings.default_speech_model,
        "transcription": settings.default_transcription_model,
        "moderations": settings.default_moderations_model,
        "rerank": settings.default_rerank_model,
        "ocr": settings.default_ocr_model,
        "videos": settings.default_videos_model,
    }
    return {kind: model for kind, model in named.items() if model is not None}


def default_key_limits(settings: Settings) -> KeyLimits:
    return KeyLimits(requests_per_minute=settings.requests_per_minute, requests_per_hour=settings.requests_per_hour)
