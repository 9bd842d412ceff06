"""The search settings under comparison: the parameters of ``POST /v1/rag/search``, under a name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from ragsvc.core.defaults import DEFAULT_TOP_K, MAX_TOP_K
from ragsvc.core.errors import InvalidRequest
from ragsvc.core.retrieval.filters import parse_filter
from ragsvc.core.retrieval.search_values import SearchMode
from ragsvc.core.validation import invalid_field
from ragsvc.evaluation.errors import InvalidEvaluation

MAX_SETTINGS = 12


class SearchSetting(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: Annotated[str, Meta(min_length=1, max_length=60)]
    mode: SearchMode = SearchMode.HYBRID
    top_k: Annotated[int, Meta(ge=1, le=MAX_TOP_K)] = DEFAULT_TOP_K
    min_score: Annotated[float, Meta(ge=0, le=1)] = 0.0
    rerank: bool = False
    filters: dict[str, Any] | None = None

    @property
    def embeds(self) -> bool:
        """Whether a search embeds the question."""
        return self.mode is not SearchMode.LEXICAL

    def body(self, collection: str, document_ids: Sequence[str] | None) -> dict[str, Any]:
        """The parameters that a search request and ``rag`` of a chat request share: all but query and ``rerank``."""
        body: dict[str, Any] = {
            "collection": collection,
            "mode": self.mode,
            "top_k": self.top_k,
            "min_score": self.min_score,
        }
        if self.filters is not None:
            body["filters"] = self.filters
        if document_ids is not None:
            body["document_ids"] = list(document_ids)
        return body


def choose_settings(
    modes: Sequence[str], settings: Sequence[str], *, top_k: int, filters: dict[str, Any] | None
) -> list[SearchSetting]:
    """The settings named by ``--mode`` and ``--setting``; hybrid, dense and lexical when neither option is given.

    The first setting is the baseline of the comparisons.

    Raises:
        InvalidEvaluation: a setting is invalid, two have the same name, or there are more than ``MAX_SETTINGS``.
    """
    common: dict[str, Any] = {"top_k": top_k, "filters": filters}
    names = modes or ([] if settings else [mode.value for mode in SearchMode])
    chosen = [_convert({**common, "name": name, "mode": name}, "--mode") for name in names]
    chosen += [_convert({**common, **_parse(text)}, "--setting") for text in settings]
    if len({setting.name for setting in chosen}) < len(chosen):
        raise InvalidEvaluation("two settings have the same name; add 'name=…' to --setting to tell them apart")
    if len(chosen) > MAX_SETTINGS:
        raise InvalidEvaluation(f"at most {MAX_SETTINGS} settings can be compared, {len(chosen)} were given")
    return chosen


def _parse(text: str) -> dict[str, Any]:
    """Parse ``mode=lexical,top_k=5`` or a JSON object (required for filters). The default name is the text."""
    if text.lstrip().startswith("{"):
        try:
            return {"name": text, **msgspec.json.decode(text, type=dict[str, Any])}
        except msgspec.MsgspecError as error:
            raise InvalidEvaluation(f"--setting takes a JSON object or key=value,… ({error})") from error
    pairs = [part.partition("=") for part in text.split(",")]
    wrong = [part for part, separator, _ in pairs if not separator]
    if wrong:
        raise InvalidEvaluation(f"--setting takes key=value,… or a JSON object; '{wrong[0]}' has no value")
    return {"name": text, **{key.strip(): value.strip() for key, _, value in pairs}}


def _convert(values: dict[str, Any], option: str) -> SearchSetting:
    try:
        setting = msgspec.convert(values, SearchSetting, strict=False)
        if setting.filters is not None:
            parse_filter(setting.filters)
    except msgspec.ValidationError as error:
        raise InvalidEvaluation(f"{option} '{values.get('name')}': {invalid_field(error).message}") from error
    except InvalidRequest as error:
        raise InvalidEvaluation(f"{option} '{values.get('name')}': {error.message}") from error
    return setting
