"""The settings that are compared: each is what ``POST /v1/rag/search`` takes, under a name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from ragsvc.cli.failures import usage_error
from ragsvc.core.errors import InvalidRequest
from ragsvc.core.retrieval.filters import parse_filter
from ragsvc.core.retrieval.search import SearchMode
from ragsvc.core.validation import invalid_field

MOST_SETTINGS = 12


class Setting(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One way to search."""

    name: Annotated[str, Meta(min_length=1, max_length=60)]
    mode: SearchMode = SearchMode.HYBRID
    top_k: Annotated[int, Meta(ge=1, le=100)] = 10
    min_score: Annotated[float, Meta(ge=0, le=1)] = 0.0
    rerank: bool = False
    filters: dict[str, Any] | None = None

    @property
    def embeds(self) -> bool:
        """Whether a search embeds the question."""
        return self.mode is not SearchMode.LEXICAL

    def body(self, collection: str, document_ids: Sequence[str] | None) -> dict[str, Any]:
        """What a search request says beside the query (``rag`` of a chat request takes the same but ``rerank``)."""
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
) -> list[Setting]:
    """The settings that ``--mode`` and ``--setting`` name, hybrid, dense and lexical by default; the first one leads.

    Raises:
        CommandFailed: one of them is wrong, or two have the same name.
    """
    common: dict[str, Any] = {"top_k": top_k, "filters": filters}
    names = modes or ([] if settings else [mode.value for mode in SearchMode])
    chosen = [_convert({**common, "name": name, "mode": name}, "--mode") for name in names]
    chosen += [_convert({**common, **_parse(text)}, "--setting") for text in settings]
    if len({one.name for one in chosen}) < len(chosen):
        raise usage_error("two settings have the same name; 'name=…' gives them names of their own")
    if len(chosen) > MOST_SETTINGS:
        raise usage_error(f"at most {MOST_SETTINGS} settings are compared at once")
    return chosen


def _parse(text: str) -> dict[str, Any]:
    """``mode=lexical,top_k=5``, or a JSON object, which filters need; without a name the text is the name."""
    if text.lstrip().startswith("{"):
        try:
            return {"name": text, **msgspec.json.decode(text, type=dict[str, Any])}
        except msgspec.MsgspecError as error:
            raise usage_error(f"--setting takes a JSON object or key=value,… ({error})") from error
    pairs = [part.partition("=") for part in text.split(",")]
    wrong = [part for part, separator, _ in pairs if not separator]
    if wrong:
        raise usage_error(f"--setting takes key=value,… or a JSON object; '{wrong[0]}' has no value")
    return {"name": text, **{key.strip(): value.strip() for key, _, value in pairs}}


def _convert(values: dict[str, Any], option: str) -> Setting:
    try:
        setting = msgspec.convert(values, Setting, strict=False)
        if setting.filters is not None:
            parse_filter(setting.filters)
    except msgspec.ValidationError as error:
        raise usage_error(f"{option} '{values.get('name')}': {invalid_field(error).message}") from error
    except InvalidRequest as error:
        raise usage_error(f"{option} '{values.get('name')}': {error.message}") from error
    return setting
