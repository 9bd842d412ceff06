"""Open the embedder for a setting: an export if it makes the same vectors, otherwise sentence-transformers."""

from __future__ import annotations

import logging
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal, assert_never

import msgspec

from ragsvc.core.errors import EmbeddingFailed
from ragsvc.core.ports.embedding import Embedder
from ragsvc.inference.agreement_record import AgreementRecord
from ragsvc.inference.export import (
    ExportRefused,
    Precision,
    check_agreement,
    ensure_export,
    ensure_unsigned_export,
    export_sha256,
)
from ragsvc.inference.mapped_files import release_pages
from ragsvc.inference.model_files import BUILT_IN, ModelFiles, read_model
from ragsvc.inference.saturation import int8_products_saturate
from ragsvc.inference.shipped_model import WORDS_FILE
from ragsvc.inference.tokens import TokenizerSpans

if TYPE_CHECKING:
    from ragsvc.inference.onnx_embedder import OnnxEmbedder

Runtime = Literal["auto", "onnx", "onnx-int8", "onnx-fp32", "sentence-transformers"]
"""``auto`` logs a warning and falls back; the others fail. ``onnx`` is int8, or float32 where there is no int8."""

_logger = logging.getLogger(__name__)


def open_embedder(
    setting: str = BUILT_IN,
    *,
    data_dir: Path,
    runtime: Runtime = "auto",
    threads: int | None = None,
    int8_saturates: bool | None = None,
    offline: bool = True,
) -> Embedder:
    """Open the embedding model named by ``setting`` (name, path or hub name); exports live in ``data_dir``.

    The first start of a model takes seconds (hash, export, check), later starts well under one second. A hub model that
    is not on this machine is downloaded, unless ``offline``. ``int8_saturates`` selects the int8 export with unsigned
    weights; by default the processor is checked.

    Raises:
        ConfigurationError: the setting names no model.
        EmbeddingFailed: the model does not work, the requested runtime does not, or the download failed.
    """
    files = read_model(setting, data_dir=data_dir, offline=offline)
    if runtime == "sentence-transformers":
        return _open_reference(files)
    exports = _Exports(files, data_dir, threads, int8_saturates)
    match runtime:
        case "onnx":
            return exports.open_strictly(Precision.INT8, Precision.FP32)
        case "onnx-int8":
            return exports.open_strictly(Precision.INT8)
        case "onnx-fp32":
            return exports.open_strictly(Precision.FP32)
        case "auto":
            return exports.open_best()
        case _:
            assert_never(runtime)


def open_token_spans(setting: str = BUILT_IN, *, data_dir: Path) -> TokenizerSpans:
    """The model's tokenizer without the model, picklable for a child process."""
    return TokenizerSpans(read_model(setting, data_dir=data_dir).tokenizer_file)


class _Exports(msgspec.Struct, frozen=True):
    """Exports of one model, opened with the options of ``open_embedder``."""

    files: ModelFiles
    data_dir: Path
    threads: int | None
    int8_saturates: bool | None

    def open_best(self) -> Embedder:
        model = self.files.model.name
        problems: list[str] = []
        for precision in (Precision.INT8, Precision.FP32):
            try:
                return self._open(precision)
            except (ExportRefused, EmbeddingFailed, OSError) as error:
                problems.append(str(error))
                _logger.warning("embedding model %s: no %s runtime: %s", model, precision, error)
        _logger.warning("embedding model %s runs on sentence-transformers, which is slow", model)
        return _open_reference(self.files, runtime=f"sentence-transformers (fallback: {problems[-1]})")

    def open_strictly(self, *precisions: Precision) -> Embedder:
        refusal: ExportRefused | None = None
        for precision in precisions:
            try:
                return self._open(precision)
            except ExportRefused as error:
                refusal = refusal or error
        raise EmbeddingFailed(
            f"The embedding model {self.files.model.name} has no {precisions[0]} runtime: {refusal}."
        ) from refusal

    def _open(self, precision: Precision) -> Embedder:
        embedder, graph = self._load(precision)
        record = self._record(graph)
        mean = None if record is None else record.mean()
        if mean is None:
            try:  # another processor or onnxruntime may compute differently
                mean = check_agreement(self.files, embedder.embed_unprompted, precision, data_dir=self.data_dir).mean
            except BaseException:
                embedder.close()
                raise
            if record is not None:
                record.remember(mean)
            release_pages(WORDS_FILE)
        _logger.info(
            "embedding model %s: %s from %s, mean cosine %.4f",
            self.files.model.name,
            embedder.runtime,
            graph.name,
            mean,
        )
        return embedder

    def _record(self, graph: Path) -> AgreementRecord | None:
        """Where the comparison of one of our own exports is remembered."""
        sha256 = export_sha256(graph)
        if sha256 is None:
            return None
        return AgreementRecord(self.data_dir, export_sha256=sha256, runtime=f"onnxruntime-{version('onnxruntime')}")

    def _load(self, precision: Precision) -> tuple[OnnxEmbedder, Path]:
        """Load our own graph, or the repository's where there is none of ours."""
        from ragsvc.inference.onnx_embedder import OnnxEmbedder  # noqa: PLC0415 - imports onnxruntime

        try:
            graph = self._graph(precision)
        except ExportRefused:
            from ragsvc.inference.repository_graph import (  # noqa: PLC0415 - imports onnxruntime
                RepositoryGraphEmbedder,
                find_graph,
            )

            found = find_graph(self.files, precision)
            if found is None:
                raise
            return RepositoryGraphEmbedder(self.files, found, precision=precision, threads=self.threads), found
        return OnnxEmbedder(self.files, graph, precision=precision, threads=self.threads), graph

    def _graph(self, precision: Precision) -> Path:
        if precision is Precision.INT8:
            saturates = int8_products_saturate() if self.int8_saturates is None else self.int8_saturates
            if saturates:
                return ensure_unsigned_export(self.files, data_dir=self.data_dir)
        return ensure_export(self.files, precision, data_dir=self.data_dir)


def _open_reference(files: ModelFiles, *, runtime: str = "sentence-transformers") -> Embedder:
    from ragsvc.inference.sentence_transformers_embedder import (  # noqa: PLC0415 - imports torch
        SentenceTransformersEmbedder,
    )

    return SentenceTransformersEmbedder(files, runtime=runtime)
