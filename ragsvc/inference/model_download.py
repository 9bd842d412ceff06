"""Downloads a model from the Hugging Face hub at its first use, pins its revision, and checks its files.

Files are stored in the hub's own cache (``HF_HUB_CACHE``), which other programs share. ``hub_models.json`` in the
data directory records for each model the commit that its name was resolved to, and the size and SHA-256 of each file.
Later starts use this commit and ask no network. ``huggingface_hub`` is imported for a download only.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import Any, Final

import msgspec

from ragsvc.core.errors import ConfigurationError, EmbeddingFailed
from ragsvc.inference.atomic_files import write_atomically

_logger = logging.getLogger(__name__)

_NAME: Final = re.compile(r"(?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]{0,95}")
_REVISION: Final = re.compile(r"[\w./-]{1,200}")
_TEXT_SUFFIXES: Final = frozenset({".json", ".txt", ".model", ".jinja", ".tiktoken"})
_LARGEST_TEXT_BYTES: Final = 100_000_000
_OTHER_FORMATS: Final = frozenset({"onnx", "openvino", "coreml", "tflite", "flax", "gguf", "mlx"})
"""Folders with the same weights in formats that sentence-transformers does not load by default."""

_WEIGHTS: Final = (re.compile(r"model(?:-\d+-of-\d+)?\.safetensors"), re.compile(r"pytorch_model(?:-\d+-of-\d+)?\.bin"))
_TIMEOUT_S: Final = 20.0
_PROGRESS_EVERY_S: Final = 5.0
_BLOCK_BYTES: Final = 1 << 20

FLOAT_GRAPHS: Final = ("onnx/model.onnx", "model.onnx")
QUANTISED_GRAPHS: Final = (
    "onnx/model_quantized.onnx",
    "onnx/model_int8.onnx",
    "onnx/model_qint8_avx512_vnni.onnx",
    "onnx/model_qint8_avx512.onnx",
    "onnx/model_quint8_avx2.onnx",
    "onnx/model_qint8_arm64.onnx",
    "onnx/model_uint8.onnx",
)
"""Names of a repository's ONNX graphs, preferred names first."""


class HubFile(msgspec.Struct, frozen=True):
    """A file as the hub lists it, with the SHA-256 of a large file or the Git object id of a small one."""

    name: str
    size: int | None = None
    sha256: str | None = None
    git_id: str | None = None


class PinnedFile(msgspec.Struct, frozen=True):
    """A downloaded file; a file with another size or modification time is hashed again."""

    size: int
    sha256: str
    mtime_ns: int


class PinnedModel(msgspec.Struct, frozen=True):
    """The commit that a setting was resolved to, and the files of it that are used."""

    repository: str
    revision: str
    files: dict[str, PinnedFile]


class HubName(msgspec.Struct, frozen=True):
    """A model on the hub: candidates for its repository, and the revision that the setting asks for."""

    repositories: tuple[str, ...]
    revision: str | None = None


def parse_hub_name(setting: str) -> HubName | None:
    """Read ``owner/name``, ``name`` (of ``sentence-transformers`` first) or ``name@revision``; ``None`` for a path.

    >>> parse_hub_name("e5-small@v2")
    HubName(repositories=('sentence-transformers/e5-small', 'e5-small'), revision='v2')
    >>> parse_hub_name("./models/e5") is None
    True
    """
    name, at, revision = setting.partition("@")
    if not _NAME.fullmatch(name) or ".." in name or name.endswith((".", "-")):
        return None
    if at and not _REVISION.fullmatch(revision):
        return None
    repositories = (name,) if "/" in name else (f"sentence-transformers/{name}", name)
    return HubName(repositories, revision or None)


def hub_cache() -> Path:
    """The folder in which ``huggingface_hub`` stores downloads."""
    if cache := os.environ.get("HF_HUB_CACHE"):
        return Path(cache)
    home = os.environ.get("HF_HOME")
    return (Path(home) if home else Path("~/.cache/huggingface").expanduser()) / "hub"


def cached_snapshot(name: HubName, *, revision: str | None = None) -> Path | None:
    """The cached snapshot of a model (layout: huggingface_hub, "Understand caching"), by default of its branch."""
    for repository in name.repositories:
        folder = hub_cache() / f"models--{repository.replace('/', '--')}"
        commit = revision
        if commit is None:
            wanted = name.revision or "main"
            try:
                commit = (folder / "refs" / wanted).read_text().strip()
            except OSError:
                commit = wanted
        snapshot = folder / "snapshots" / commit
        if (snapshot / "config.json").is_file() or (snapshot / "modules.json").is_file():
            return snapshot
    return None


def hub_model(setting: str, name: HubName, *, data_dir: Path, offline: bool, role: str) -> Path | None:
    """The folder of a model of the hub: the pinned revision, a cached one, or a downloaded one.

    ``None`` if it is not on this machine and ``offline`` forbids the download. ``role`` names the setting in messages.

    Raises:
        ConfigurationError: the hub has no such model or revision, or does not let this service read it.
        EmbeddingFailed: the download failed, or a file differs from what was pinned or from what the hub promised.
    """
    offline = offline or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    record = data_dir / "hub_models.json"
    pinned = _read_record(record).get(setting)
    if pinned is not None:
        snapshot = cached_snapshot(HubName((pinned.repository,)), revision=pinned.revision)
        if snapshot is not None and _is_as_pinned(snapshot, pinned):
            return snapshot
        if offline:
            raise EmbeddingFailed(
                f"Files of the {role} {setting} (revision {pinned.revision}) are missing from {hub_cache()} "
                "or damaged, and downloading is forbidden (RAGSVC_OFFLINE)."
            )
    elif (snapshot := cached_snapshot(name)) is not None and (offline or _has_weights(snapshot)):
        if data_dir.is_dir():
            _write_record(record, setting, _pin_snapshot(snapshot))
        return snapshot
    if offline:
        return None
    downloaded, snapshot = _Download(setting, name, role=role, pinned=pinned).run()
    _write_record(record, setting, downloaded)
    return snapshot


def choose_files(files: Iterable[HubFile], *, graphs: bool) -> list[HubFile]:
    """The files that are needed to run a model: configurations, tokenizer, one format of the weights, ONNX if asked."""
    by_name = {file.name: file for file in files}
    chosen: dict[str, HubFile] = {}
    folders: dict[str, list[str]] = {}
    for name in by_name:
        folders.setdefault(str(PurePosixPath(name).parent), []).append(name)
    for folder, names in folders.items():
        if PurePosixPath(folder).parts[:1] and PurePosixPath(folder).parts[0] in _OTHER_FORMATS:
            continue
        for name in names:
            size = by_name[name].size or 0
            if PurePosixPath(name).suffix in _TEXT_SUFFIXES and size <= _LARGEST_TEXT_BYTES:
                chosen[name] = by_name[name]
        for pattern in _WEIGHTS:
            weights = [name for name in names if pattern.fullmatch(PurePosixPath(name).name)]
            chosen.update({name: by_name[name] for name in weights})
            if weights:
                break
    if graphs:
        for candidates in (FLOAT_GRAPHS, QUANTISED_GRAPHS):
            found = next((name for name in candidates if name in by_name), None)
            parts = [name for name in by_name if found is not None and name.startswith(f"{found}_data")]
            chosen.update({name: by_name[name] for name in (found, *parts) if name is not None})
    return [chosen[name] for name in sorted(chosen)]


class _Download:
    """One download; ``pinned`` is the record of an earlier one, whose revision and hashes must be met again."""

    def __init__(self, setting: str, name: HubName, *, role: str, pinned: PinnedModel | None) -> None:
        from huggingface_hub import HfApi, constants  # noqa: PLC0415 - half a second, for a download only

        self._setting = setting
        self._role = role
        self._pinned = pinned
        self._repositories = name.repositories if pinned is None else (pinned.repository,)
        self._revision = name.revision if pinned is None else pinned.revision
        self._endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or constants.ENDPOINT
        self._api = HfApi(endpoint=self._endpoint, library_name="ragsvc")

    def run(self) -> tuple[PinnedModel, Path]:
        try:
            return self._run()
        except (ConfigurationError, EmbeddingFailed):
            raise
        except Exception as error:  # huggingface_hub raises errors of several libraries
            raise EmbeddingFailed(
                f"The {self._role} {self._setting} cannot be downloaded from {self._endpoint}: "
                f"{_first_line(error)}. Check the connection, or set RAGSVC_OFFLINE=1 and use a model on this machine."
            ) from error

    def _run(self) -> tuple[PinnedModel, Path]:
        repository, info = self._find()
        commit = str(info.sha)
        listed = [_hub_file(sibling) for sibling in info.siblings or ()]
        files = choose_files(listed, graphs=self._needs_graphs(repository, commit, {file.name for file in listed}))
        total = sum(file.size or 0 for file in files)
        title = f"{self._role} {repository}, revision {commit[:12]}"
        _logger.info("downloading %s: %d files, %.1f MB", title, len(files), total / 1e6)
        begin = time.monotonic()
        progress = _Progress(title, total)
        paths = {file.name: self._fetch(repository, commit, file, progress) for file in files}
        _logger.info("downloaded and checked %s in %.0f s", title, time.monotonic() - begin)
        pins = {name: pin for name, (pin, _) in paths.items()}
        snapshot = cached_snapshot(HubName((repository,)), revision=commit)
        if snapshot is None:
            raise ConfigurationError([f"{self._role} '{self._setting}': {repository} contains no transformers model"])
        return PinnedModel(repository, commit, pins), snapshot

    def _find(self) -> tuple[str, Any]:
        from huggingface_hub.errors import (  # noqa: PLC0415 - see __init__
            GatedRepoError,
            HFValidationError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )

        for repository in self._repositories:
            try:
                return repository, self._api.model_info(
                    repository, revision=self._revision, files_metadata=True, timeout=_TIMEOUT_S
                )
            except GatedRepoError as error:
                problem = "the hub lets only approved users read it; set HF_TOKEN to the token of such a user"
                raise ConfigurationError([f"{self._role} '{self._setting}': {problem}"]) from error
            except RevisionNotFoundError as error:
                problem = f"{repository} has no revision '{self._revision}'"
                raise ConfigurationError([f"{self._role} '{self._setting}': {problem}"]) from error
            except (RepositoryNotFoundError, HFValidationError):
                continue
        tried = " or ".join(self._repositories)
        problem = f"{self._endpoint} has no model {tried}, or it is private (set HF_TOKEN)"
        raise ConfigurationError([f"{self._role} '{self._setting}': {problem}"])

    def _needs_graphs(self, repository: str, commit: str, names: set[str]) -> bool:
        """Whether the model's architecture has no graph of ours, so that its own ONNX files are of use."""
        from ragsvc.inference.bert_graph import ARCHITECTURES  # noqa: PLC0415 - imports onnx

        for name in ("config.json", "0_Transformer/config.json"):
            if name in names:
                config = json.loads(self._get(repository, commit, name).read_text("utf-8"))
                return config.get("model_type") not in ARCHITECTURES
        return False

    def _fetch(self, repository: str, commit: str, file: HubFile, progress: _Progress) -> tuple[PinnedFile, Path]:
        """Download a file and check it; a damaged copy in the cache is downloaded again."""
        for again in (False, True):
            path = self._get(repository, commit, file.name, progress=progress, force=again)
            problem, pin = self._check(path, file)
            if problem is None:
                return pin, path
            _logger.warning("%s of %s %s", file.name, repository, problem)
        path.unlink(missing_ok=True)
        raise EmbeddingFailed(f"The {self._role} {self._setting} cannot be used: its file {file.name} {problem}.")

    def _check(self, path: Path, file: HubFile) -> tuple[str | None, PinnedFile]:
        pin = _pin(path)
        known = None if self._pinned is None else self._pinned.files.get(file.name)
        if file.size is not None and pin.size != file.size:
            return f"has {pin.size} bytes instead of {file.size}", pin
        if file.sha256 is not None and pin.sha256 != file.sha256:
            return "differs from the SHA-256 that the hub lists", pin
        if file.sha256 is None and file.git_id is not None and _git_id(path) != file.git_id:
            return "differs from the object id that the hub lists", pin
        if known is not None and known.sha256 != pin.sha256:
            return "differs from the SHA-256 that was recorded at the first download", pin
        return None, pin

    def _get(
        self, repository: str, commit: str, name: str, *, progress: _Progress | None = None, force: bool = False
    ) -> Path:
        from huggingface_hub import hf_hub_download  # noqa: PLC0415 - see __init__

        return Path(
            hf_hub_download(
                repository,
                name,
                revision=commit,
                cache_dir=hub_cache(),
                endpoint=self._endpoint,
                library_name="ragsvc",
                etag_timeout=_TIMEOUT_S,
                force_download=force,
                tqdm_class=_progress_class(None if progress is None else progress.add),
            )
        )


class _Progress:
    """Logs the share of a download that is done, at most every five seconds."""

    def __init__(self, title: str, total_bytes: int) -> None:
        self._title = title
        self._total = total_bytes
        self._done = 0
        self._logged_at = time.monotonic()

    def add(self, count: int) -> None:
        self._done += count
        now = time.monotonic()
        if self._total and now - self._logged_at >= _PROGRESS_EVERY_S:
            self._logged_at = now
            share = min(1.0, self._done / self._total)
            _logger.info("downloading %s: %.0f %% of %.1f MB", self._title, 100 * share, self._total / 1e6)


def _progress_class(add: Callable[[int], None] | None) -> type[Any]:
    """A class in the place of tqdm's progress bar that calls ``add`` with the bytes received and prints nothing."""
    from tqdm import std  # noqa: PLC0415 - a dependency of huggingface_hub

    bar_class: Any = std.tqdm

    def start(bar: object, *arguments: object, **options: object) -> None:
        options.pop("name", None)  # huggingface_hub's own
        bar_class.__init__(bar, *arguments, **{**options, "disable": True})

    def update(_bar: object, count: float | None = 1) -> None:
        if add is not None and count:
            add(int(count))

    def ignore(_bar: object, *_arguments: object, **_options: object) -> None:
        """Bytes received by hf_xet, which ``update`` counts again when they are written."""

    methods = {"__init__": start, "update": update, "update_transfer": ignore, "set_transfer_postfix_str": ignore}
    return type("SilentBar", (bar_class,), methods)


def _hub_file(sibling: Any) -> HubFile:  # noqa: ANN401 - huggingface_hub.hf_api.RepoSibling
    lfs = sibling.lfs
    return HubFile(
        name=sibling.rfilename,
        size=sibling.size if lfs is None else lfs.size,
        sha256=None if lfs is None else lfs.sha256,
        git_id=None if lfs is not None else sibling.blob_id,
    )


def _has_weights(snapshot: Path) -> bool:
    return any(pattern.fullmatch(path.name) for path in snapshot.rglob("*") for pattern in _WEIGHTS)


def _is_as_pinned(snapshot: Path, pinned: PinnedModel) -> bool:
    for name, pin in pinned.files.items():
        path = snapshot / name
        try:
            status = path.stat()
        except OSError:
            return False
        if status.st_size != pin.size or (status.st_mtime_ns != pin.mtime_ns and _pin(path).sha256 != pin.sha256):
            return False
    return True


def _pin_snapshot(snapshot: Path) -> PinnedModel:
    """Pin a snapshot that another program has downloaded."""
    repository = snapshot.parents[1].name.removeprefix("models--").replace("--", "/", 1)
    names = [path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file()]
    files = choose_files(map(HubFile, names), graphs=True)
    return PinnedModel(repository, snapshot.name, {file.name: _pin(snapshot / file.name) for file in files})


def _pin(path: Path) -> PinnedFile:
    status = path.stat()
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return PinnedFile(status.st_size, digest, status.st_mtime_ns)


def _git_id(path: Path) -> str:
    """The object id of a file's content in Git: SHA-1 over a header and the bytes."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _read_record(record: Path) -> dict[str, PinnedModel]:
    try:
        return msgspec.json.decode(record.read_bytes(), type=dict[str, PinnedModel])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError) as error:
        raise EmbeddingFailed(f"The record of downloaded models in {record} cannot be read: {error}.") from error


def _write_record(record: Path, setting: str, model: PinnedModel) -> None:
    known = _read_record(record) | {setting: model}
    write_atomically(record, msgspec.json.format(msgspec.json.encode(known), indent=1))


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "").rstrip(".") or type(error).__name__
