"""Open the embedder for a setting: the accelerated runtime if it makes the same vectors, else the original."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal, assert_never

from ragsvc.core.errors import EmbeddingFailed
from ragsvc.core.ports.embedding import Embedder
from ragsvc.inference.export import ExportRefused, Precision, check_agreement, ensure_export
from ragsvc.inference.model_files import BUILT_IN, ModelFiles, read_model
from ragsvc.inference.tokens import TokenizerSpans

Runtime = Literal["auto", "onnx", "onnx-int8", "onnx-fp32", "sentence-transformers"]
"""``auto`` falls back with a warning where the others fail; ``onnx`` is ``onnx-int8``."""

_logger = logging.getLogger(__name__)


def open_embedder(
    setting: str = BUILT_IN, *, data_dir: Path, runtime: Runtime = "auto", threads: int | None = None
) -> Embedder:
    """Open the embedding model named by ``setting`` (name, path or cached hub name); exports live in ``data_dir``.

    The first start of a model takes seconds (hash, export, check), later ones well under one.

    Raises:
        ConfigurationError: the setting names no model on this machine.
        EmbeddingFailed: the model, or the runtime that was asked for, does not work.
    """
    files = read_model(setting, data_dir=data_dir)
    match runtime:
        case "sentence-transformers":
            return _open_reference(files)
        case "onnx" | "onnx-int8":
            return _open_strictly(files, Precision.INT8, data_dir, threads)
        case "onnx-fp32":
            return _open_strictly(files, Precision.FP32, data_dir, threads)
        case "auto":
            return _open_best(files, data_dir, threads)
        case _:
            assert_never(runtime)


def open_token_spans(setting: str = BUILT_IN, *, data_dir: Path) -> TokenizerSpans:
    """The model's tokenizer without the model, picklable for a child process."""
    return TokenizerSpans(read_model(setting, data_dir=data_dir).tokenizer_file)


def _open_best(files: ModelFiles, data_dir: Path, threads: int | None) -> Embedder:
    problems: list[str] = []
    for precision in (Precision.INT8, Precision.FP32):
        try:
            return _open_accelerated(files, precision, data_dir, threads)
        except (ExportRefused, EmbeddingFailed, OSError) as error:
            problems.append(str(error))
            _logger.warning("embedding model %s: no %s runtime: %s", files.model.name, precision, error)
    _logger.warning("embedding model %s runs on sentence-transformers, which is slow", files.model.name)
    return _open_reference(files, runtime=f"sentence-transformers (fallback: {problems[-1]})")


def _open_strictly(files: ModelFiles, precision: Precision, data_dir: Path, threads: int | None) -> Embedder:
    try:
        return _open_accelerated(files, precision, data_dir, threads)
    except ExportRefused as error:
        raise EmbeddingFailed(f"embedding model {files.model.name}: no {precision} runtime: {error}") from error


def _open_accelerated(files: ModelFiles, precision: Precision, data_dir: Path, threads: int | None) -> Embedder:
    from ragsvc.inference.onnx_embedder import OnnxEmbedder  # noqa: PLC0415 - imports onnxruntime

    graph = ensure_export(files, precision, data_dir=data_dir)
    embedder = OnnxEmbedder(files, graph, precision=precision, threads=threads)
    try:  # at every start: another processor or onnxruntime may compute differently
        agreement = check_agreement(files, embedder.embed_unprompted, precision, data_dir=data_dir)
    except BaseException:
        embedder.close()
        raise
    _logger.info("embedding model %s: %s, mean cosine %.4f", files.model.name, embedder.runtime, agreement.mean)
    return embedder


def _open_reference(files: ModelFiles, *, runtime: str = "sentence-transformers") -> Embedder:
    from ragsvc.inference.sentence_transformers_embedder import (  # noqa: PLC0415 - imports torch
        SentenceTransformersEmbedder,
    )

    return SentenceTransformersEmbedder(files, runtime=runtime)
